package access

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// recheck is how often, at most, the file is looked at: when a request comes.
const recheck = time.Second

// auditedDenials is how many denials a second are logged.
const auditedDenials = 100

// Guard knows the rules of a file, and looks at it again at most once a second; a file that cannot be used leaves the
// last good rules in force. It is safe for concurrent use and has no goroutine. A nil Guard lets everybody do everything.
type Guard struct {
	path string
	log  zerolog.Logger
	// denied is log for what may come as often as requests: the first of a second are logged, and all are counted.
	denied zerolog.Logger
	now    func() time.Time

	rules atomic.Pointer[Rules]
	next  atomic.Int64 // unix nanoseconds: when the file is looked at again

	mu       sync.Mutex
	modified time.Time
	size     int64
	lastErr  error
}

// Load reads a file of rules. now is time.Now in the programs.
func Load(path string, now func() time.Time, log zerolog.Logger) (*Guard, error) {
	g := &Guard{path: path, now: now, log: log,
		denied: log.Sample(&zerolog.BurstSampler{Burst: auditedDenials, Period: time.Second})}
	if err := g.read(); err != nil {
		return nil, err
	}
	g.next.Store(now().Add(recheck).UnixNano())
	return g, nil
}

// read reads the file, if it has changed since the last time or could not be used then. The caller holds mu, or is alone.
func (g *Guard) read() error {
	info, err := os.Stat(g.path)
	if err != nil {
		return fmt.Errorf("access rules: %w", err)
	}
	if info.ModTime().Equal(g.modified) && info.Size() == g.size && g.lastErr == nil {
		return nil
	}
	text, err := os.ReadFile(g.path)
	if err != nil {
		return fmt.Errorf("access rules: %w", err)
	}
	rules, err := Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", g.path, err)
	}
	g.modified, g.size = info.ModTime(), info.Size()
	rules.follow(g.rules.Load(), g.now())
	g.rules.Store(rules)
	g.log.Info().Int("tokens", rules.Size()).Msg("access rules read")
	return nil
}

func (g *Guard) current() *Rules {
	now := g.now().UnixNano()
	next := g.next.Load()
	if now >= next && g.next.CompareAndSwap(next, now+recheck.Nanoseconds()) {
		g.mu.Lock()
		defer g.mu.Unlock()
		err := g.read()
		if err != nil && (g.lastErr == nil || g.lastErr.Error() != err.Error()) {
			g.log.Error().Err(err).Msg("changed access rules cannot be used, the last good ones stay in force")
		}
		g.lastErr = err
	}
	return g.rules.Load()
}

// Authenticate returns who sent a request with the lines of its Authorization header. The error is ErrUnauthenticated. A
// nil Guard knows nobody and lets everybody in, as the nil Principal.
func (g *Guard) Authenticate(lines []string) (*Principal, error) {
	if g == nil {
		return nil, nil
	}
	if len(lines) != 1 {
		return nil, ErrUnauthenticated
	}
	token, err := Bearer(lines[0])
	if err != nil {
		return nil, err
	}
	return g.current().Authenticate(token, g.now())
}

// Denied writes to the audit log that a request was refused: who sent it (nil: nobody knows), its id, and what it asked.
func (g *Guard) Denied(who *Principal, requestID, what string) {
	if g != nil {
		g.denied.Warn().Str("audit", "denied").Str("principal", who.Name()).Str("request_id", requestID).Str("what", what).Msg("audit")
	}
}

// Administered writes to the audit log that someone who administers the cluster asked to change it.
func (g *Guard) Administered(who *Principal, requestID, what string) {
	if g != nil {
		g.log.Info().Str("audit", "admin").Str("principal", who.Name()).Str("request_id", requestID).Str("what", what).Msg("audit")
	}
}

type contextKey struct{}

// With returns a context that says who asks.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns who asks. Where a guard is there and nobody was authenticated on the way, the error is ErrUnauthenticated:
// a way in that forgot to ask is closed, and not open.
func (g *Guard) From(ctx context.Context) (*Principal, error) {
	if g == nil {
		return nil, nil
	}
	p, _ := ctx.Value(contextKey{}).(*Principal)
	if p == nil {
		return nil, ErrUnauthenticated
	}
	return p, nil
}
