// Package coordinator carries out gets and puts: it sends what the quorum deciders ask for, tells them what came back, and answers.
//
// Each request runs in its caller's goroutine. The nodes' answers are put into the request's inbox by the node client's
// goroutines, which never wait.
package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/mem"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Replicas is how the coordinator reaches storage nodes; nodeclient.Client is one. Its methods are safe for concurrent
// use and do not block.
type Replicas interface {
	State() *nodeclient.State
	Send(nodeclient.Call)
	Health(ring.NodeID) nodeclient.Health
	Learn(view []byte)
}

// Config tunes a Coordinator. DefaultConfig has every value.
type Config struct {
	// R and W are meant where a request does not say: 2 and 2.
	R, W Quorum
	// Timeout is the deadline of requests whose context has none: 2 s.
	Timeout time.Duration
	// ReplicateFor is how long a minted record may take to reach replicas that the answer did not wait for: 5 s. Read
	// repairs have as long.
	ReplicateFor time.Duration
	// StandInAfter is how long after a write has its dot an owner may take to acknowledge the record before another node
	// stands in for it: 400 ms.
	StandInAfter time.Duration
	// HedgeShare is the extra load that hedged reads may cause, as a share of all reads: 0.05. HedgeBurst is how many
	// may follow each other at once: 50.
	HedgeShare float64
	HedgeBurst int
	// HedgeAfter is when an answer is late of a replica whose usual times are not known yet: 20 ms. HedgeFloor is the
	// least time after which any is: 1 ms.
	HedgeAfter, HedgeFloor time.Duration
	// CoalesceFor is how long a reader waits for a fetch of the same key that is in flight before it starts its own:
	// 10 ms.
	CoalesceFor time.Duration
	// MaxRepairs bounds the read repairs in flight; those beyond are left to the next read: 256.
	MaxRepairs int
	// Policies say which keys' conflicts are not shown as siblings.
	Policies Policies
	// Logger takes what operators should see; requests that fail are the caller's to log.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// DefaultConfig returns the values named beside the fields of Config.
func DefaultConfig() Config {
	return Config{
		R: 2, W: 2, Timeout: 2 * time.Second, ReplicateFor: 5 * time.Second, StandInAfter: 400 * time.Millisecond, HedgeShare: 0.05, HedgeBurst: 50,
		HedgeAfter: 20 * time.Millisecond, HedgeFloor: time.Millisecond, CoalesceFor: 10 * time.Millisecond,
		MaxRepairs: 256, Logger: zerolog.Nop(),
	}
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	valid := func(q Quorum) bool { return q >= All && q <= maxQuorum && q != Default }
	check(valid(c.R), "read quorum: %d is not 1 to %d, quorum or all", int(c.R), maxQuorum)
	check(valid(c.W), "write quorum: %d is not 1 to %d, quorum or all", int(c.W), maxQuorum)
	check(c.Timeout > 0, "timeout: %s is not positive", c.Timeout)
	check(c.ReplicateFor > 0, "replication time: %s is not positive", c.ReplicateFor)
	check(c.StandInAfter > 0, "time until nodes stand in: %s is not positive", c.StandInAfter)
	check(c.HedgeShare >= 0 && c.HedgeShare <= 1, "share of hedged reads: %v is not within 0 to 1", c.HedgeShare)
	check(c.HedgeBurst >= 0, "burst of hedged reads: %d is negative", c.HedgeBurst)
	check(c.HedgeAfter > 0 && c.HedgeFloor > 0, "hedging times: %s and %s must be positive", c.HedgeAfter, c.HedgeFloor)
	check(c.CoalesceFor > 0, "coalescing time: %s is not positive", c.CoalesceFor)
	check(c.MaxRepairs >= 0, "read repairs: %d is negative", c.MaxRepairs)
	return errors.Join(faults...)
}

// Coordinator carries out requests. All methods are safe for concurrent use. It starts no goroutine and needs no closing.
type Coordinator struct {
	cfg      Config
	replicas Replicas
	metrics  *metrics
	budget   *quorum.Budget
	flights  flights
	timers   sync.Pool      // of *time.Timer, stopped
	buffers  mem.BufferPool // of minted records
	repairs  atomic.Int64
	look     func(ring.NodeID) quorum.Candidate // candidate, bound once
	mended   func(nodeclient.Answer)            // repaired, bound once
}

// New returns a coordinator over replicas. The error tells the faults of the configuration.
func New(cfg Config, replicas Replicas) (*Coordinator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	c := &Coordinator{cfg: cfg, replicas: replicas, metrics: newMetrics(cfg.Registerer), buffers: wire.NewPool(),
		budget: quorum.NewBudget(cfg.HedgeShare, cfg.HedgeBurst)}
	c.flights.init()
	c.look, c.mended = c.candidate, c.repaired
	return c, nil
}

// Get reads a key. It ends at ctx's deadline also if ctx itself does not. Errors are *Error.
func (c *Coordinator) Get(ctx context.Context, req GetRequest) (GetResult, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	var res GetResult
	var err *Error
	if req.Context == nil && !req.Explain {
		res, err = c.coalesced(ctx, &req)
	} else {
		res, err = c.get(ctx, &req)
	}
	if err != nil {
		c.metrics.failed(opGet, err.Kind)
		return GetResult{}, err
	}
	c.metrics.succeeded(opGet)
	if c.cfg.Policies.LastWriteWins(req.Key) {
		res.Set = res.Set.Latest()
	}
	c.metrics.siblings.Observe(float64(len(res.Set.Siblings)))
	return res, nil
}

// Put writes a key. It ends at ctx's deadline also if ctx itself does not. Errors are *Error.
func (c *Coordinator) Put(ctx context.Context, req PutRequest) (PutResult, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	res, err := c.put(ctx, &req)
	if err != nil {
		c.metrics.failed(opPut, err.Kind)
		return PutResult{}, err
	}
	c.metrics.succeeded(opPut)
	return res, nil
}

// timeUp returns why a request is given up, nil while it is not. A context's deadline counts also where nothing ends the
// context then: callers need not pay for a timer of their own.
func timeUp(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return nil
}

func nothing() {}

// bounded returns ctx with a deadline.
func (c *Coordinator) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, nothing
	}
	return context.WithTimeout(ctx, c.cfg.Timeout)
}

// timer returns a timer that fires after d; give it back with putTimer.
func (c *Coordinator) timer(d time.Duration) *time.Timer {
	if t, ok := c.timers.Get().(*time.Timer); ok {
		t.Reset(d)
		return t
	}
	return time.NewTimer(d)
}

func (c *Coordinator) putTimer(t *time.Timer) {
	t.Stop() // nothing is received from it after this
	c.timers.Put(t)
}

// candidate tells a decider of a node.
func (c *Coordinator) candidate(id ring.NodeID) quorum.Candidate {
	h := c.replicas.Health(id)
	return quorum.Candidate{Node: id, Connected: h.Connected, Suspect: h.Suspect, Silent: h.Silent, Mean: h.Mean, P95: h.P95}
}

func spread() uint64 { return rand.Uint64() }

// readQuorum returns how many replicas of l a read with q needs.
func (c *Coordinator) readQuorum(q Quorum, l *ring.Layout) (int, error) {
	if q == Default {
		return l.EffectiveR(min(c.cfg.R.Of(l.N()), l.N())), nil
	}
	r := q.Of(l.N())
	if r < 1 || r > l.N() {
		return 0, fmt.Errorf("r is %d, and the cluster keeps %d replicas: 1 to %d is possible", r, l.N(), l.N())
	}
	return l.EffectiveR(r), nil
}

// writeQuorum checks q against the live layouts; need then gives the number for each.
func (c *Coordinator) writeQuorum(q Quorum, live []*ring.Layout) error {
	if q == Default {
		return nil
	}
	most, least := 0, 1
	for _, l := range live {
		most, least = max(most, l.N()), max(least, l.MinW())
	}
	w := q.Of(most)
	switch {
	case w < 1 || w > most:
		return fmt.Errorf("w is %d, and the cluster keeps %d replicas: %d to %d is possible", w, most, min(least, most), most)
	case w < least && w < most:
		return fmt.Errorf("w is %d, below the smallest that the cluster's layout allows: %d", w, least)
	}
	return nil
}

// need returns how many owners in l must have a write with q durably.
func (c *Coordinator) need(q Quorum, l *ring.Layout) int {
	if q == Default {
		return l.EffectiveW(min(max(c.cfg.W.Of(l.N()), l.MinW()), l.N()))
	}
	return l.EffectiveW(min(q.Of(l.N()), l.N()))
}
