// Package slowlog writes a line for each request that took long, with where its time went, and never more than a few a second.
package slowlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// perSecond is how many lines are written in a second; the next that is written says how many were left out.
const perSecond = 10

// Config is what New needs.
type Config struct {
	// After is how long a request takes that is slow; 0: none is.
	After time.Duration
	// PlainKeys writes keys as they are, and not as a hash.
	PlainKeys  bool
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Log is the log of all surfaces of a gateway. It is safe for concurrent use.
type Log struct {
	cfg     Config
	metrics *metrics

	mu      sync.Mutex
	since   time.Time // when the second began
	written int       // in it
	skipped int       // since the last line
}

// New returns a Log, and registers its metrics.
func New(cfg Config) *Log { return &Log{cfg: cfg, metrics: newMetrics(cfg.Registerer)} }

// After is from when on a request is slow; 0: none is.
func (l *Log) After() time.Duration { return l.cfg.After }

// Line returns the beginning of a line for a request that ended now, or nil where it was not slow, or there were enough lines.
func (l *Log) Line(took time.Duration, now time.Time) *zerolog.Event {
	if l.cfg.After <= 0 || took < l.cfg.After {
		return nil
	}
	l.metrics.slow.Inc()
	skipped, ok := l.admit(now)
	if !ok {
		l.metrics.skipped.Inc()
		return nil
	}
	line := l.cfg.Logger.Warn()
	if skipped > 0 {
		line = line.Int("left_out", skipped)
	}
	return line
}

// admit says whether a line may be written, and how many were not since the last one.
func (l *Log) admit(now time.Time) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := now.Sub(l.since); age >= time.Second || age < 0 {
		l.since, l.written = now, 0
	}
	if l.written == perSecond {
		l.skipped++
		return 0, false
	}
	l.written++
	skipped, l.skipped = l.skipped, 0
	return skipped, true
}

// Key returns a key as logs show it: itself, or the first 16 hexadecimal digits of its SHA-256, which tell requests for one key
// from others, and can be made of a key that one asks for.
func (l *Log) Key(key []byte) string {
	if l.cfg.PlainKeys {
		return string(key)
	}
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// Path returns an escaped path as logs show it: what follows any of the prefixes is a key, and left out unless keys are plain.
func (l *Log) Path(path string, prefixes ...string) string {
	if l.cfg.PlainKeys {
		return path
	}
	for _, p := range prefixes {
		if strings.HasPrefix(path, p) {
			return p + "…"
		}
	}
	return path
}

// Course is what is known of where the time of one request went: of the operation on a key that took longest, where it is a
// batch. It is safe for concurrent use; a nil Course takes note of nothing. It holds on to the key.
type Course struct {
	// Log is what the course is for, and Span that of the request where it is traced. They are set before the first use.
	Log  *Log
	Span *tracing.Span

	mu         sync.Mutex
	operations int
	longest    operation
}

// operation is one get or put.
type operation struct {
	key          []byte
	began        time.Time
	took, minted time.Duration
	reports      []coordinator.Report
}

// SlowAfter is After of the log, or 0 of a nil Course: what requests of the coordinator take.
func (c *Course) SlowAfter() time.Duration {
	if c == nil || c.Log == nil {
		return 0
	}
	return c.Log.After()
}

// Operation begins the span of a get or put, which Read or Wrote ends; nil where the request is not traced.
func (c *Course) Operation(name string, key []byte) *tracing.Span {
	if c == nil || c.Span == nil {
		return nil
	}
	s := c.Span.Child(name)
	s.Str("dotring.key", c.Log.Key(key))
	return s
}

// Read notes a get that ended now, and ends its span.
func (c *Course) Read(span *tracing.Span, key []byte, began time.Time, res *coordinator.GetResult, err error) {
	if span != nil {
		span.Int("dotring.siblings", int64(len(res.Set.Siblings)))
		end(span, err)
	}
	c.note(operation{key: key, began: began, reports: res.Reports}, err)
}

// Wrote notes a put that ended now, and ends its span.
func (c *Course) Wrote(span *tracing.Span, key []byte, began time.Time, res *coordinator.PutResult, err error) {
	if span != nil {
		span.Int("dotring.acks", int64(res.Acks))
		span.Int("dotring.hinted", int64(res.Hinted))
		end(span, err)
	}
	c.note(operation{key: key, began: began, minted: res.Minted, reports: res.Reports}, err)
}

// end ends an operation's span. Errors may quote what clients sent, so that only their kind is told.
func end(span *tracing.Span, err error) {
	var failed *coordinator.Error
	switch {
	case errors.As(err, &failed):
		span.Fail(failed.Kind.String())
		span.Str("dotring.outcome", failed.Outcome.String())
	case err != nil:
		span.Fail("refused")
	}
	span.End()
}

func (c *Course) note(o operation, err error) {
	if c == nil {
		return
	}
	o.took = time.Since(o.began)
	if err != nil {
		o.reports = problem.Replicas(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.operations++
	if o.took >= c.longest.took {
		c.longest = o
	}
}

// Describe adds to a line what c knows of a request that began at started and took so long.
func (l *Log) Describe(line *zerolog.Event, c *Course, started time.Time, took time.Duration) *zerolog.Event {
	c.mu.Lock()
	n, o := c.operations, c.longest
	c.mu.Unlock()
	line = c.Span.Log(line)
	if n == 0 {
		return line // it never came as far
	}
	before := max(o.began.Sub(started), 0)
	phases := zerolog.Dict().Dur("before", before).Dur("quorum", o.took)
	if o.minted > 0 {
		phases = phases.Dur("mint", o.minted)
	}
	line = line.Str("key", l.Key(o.key)).Dict("phases", phases.Dur("after", max(took-before-o.took, 0)))
	if n > 1 {
		line = line.Int("operations", n)
	}
	if len(o.reports) == 0 {
		return line
	}
	replicas := zerolog.Arr()
	for i := range o.reports {
		r := &o.reports[i]
		d := zerolog.Dict().Str("node", problem.NodeName(*r)).Str("did", r.Did).Str("detail", r.Detail)
		if r.At > 0 {
			d = d.Dur("at", r.At).Dur("queued", r.Queued)
		}
		replicas = replicas.Dict(d)
	}
	if at := slowest(o.reports); at >= 0 {
		line = line.Str("slowest", problem.NodeName(o.reports[at]))
	}
	return line.Array("replicas", replicas)
}

// slowest returns which replica was waited for longest: one that was asked and never answered, else the last to answer; -1 where
// none was asked.
func slowest(reports []coordinator.Report) int {
	at := -1
	for i, r := range reports {
		switch {
		case r.Did == "not asked":
		case r.At == 0:
			return i
		case at < 0 || r.At > reports[at].At:
			at = i
		}
	}
	return at
}

type contextKey struct{}

// With returns a context whose operations c takes note of.
func With(ctx context.Context, c *Course) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// From returns the Course that With put into ctx, or nil.
func From(ctx context.Context) *Course {
	c, _ := ctx.Value(contextKey{}).(*Course)
	return c
}
