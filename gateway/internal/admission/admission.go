// Package admission keeps out what a gateway cannot serve in time: operations beyond a limit that follows their latency
// are refused at once, so that those under way stay fast.
package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/limit"
	"github.com/dotring/dotring/gateway/traffic"
)

// Coordinator does the operations that are let in.
type Coordinator interface {
	Get(ctx context.Context, r coordinator.GetRequest) (coordinator.GetResult, error)
	Put(ctx context.Context, r coordinator.PutRequest) (coordinator.PutResult, error)
}

// Store limits the gets and the puts under way, each by a limit of its own. It is safe for concurrent use and holds no
// goroutine.
type Store struct {
	next       Coordinator
	reads      *gate
	writes     *gate
	background bool
	refusals   *pacer
	traffic    *traffic.Traffic
	now        func() time.Time
	byKey      *atomic.Uint64 // refused since their key was at its limit, for good
}

// New returns a Store over next, which tells seen of every operation. Errors: those of cfg, and of registering the metrics.
func New(next Coordinator, cfg limit.Config, seen *traffic.Traffic, now func() time.Time, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	start := now()
	s := &Store{next: next, traffic: seen, now: now, reads: newGate(cfg, start), writes: newGate(cfg, start), byKey: new(atomic.Uint64)}
	s.refusals = &pacer{start: start, served: func() uint64 { return s.reads.served.Load() + s.writes.served.Load() }}
	if err := registerMetrics(reg, s); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}

// Background returns the same store, for operations that leave a quarter of each limit to the others.
func (s *Store) Background() *Store {
	b := *s
	b.background = true
	return &b
}

// Full says whether a read, or a write, would be refused now. It is for refusing early, and is no promise.
func (s *Store) Full(write, background bool) bool {
	g := s.reads
	if write {
		g = s.writes
	}
	if !g.full(background) {
		return false
	}
	g.refuse()
	return true
}

// FullKey says, as a *limit.Exceeded, that a read or write of key would be refused now. It is for refusing early, and is no promise.
func (s *Store) FullKey(key []byte, write bool) error {
	return s.keyError(s.traffic.Refuse(key, write, s.now()))
}

func (s *Store) keyError(wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	s.byKey.Add(1)
	return &limit.Exceeded{What: "this key is asked for more often than a gateway lets in of one key", Wait: wait}
}

// Hold returns how long a connection is not to be read after a request on it was refused.
func (s *Store) Hold() time.Duration { return s.refusals.hold(s.now()) }

// errFull is what an operation beyond the limit is told.
var errFull = errors.New("as many operations are under way as the cluster serves in time")

// Get is that of the coordinator, or a coordinator.Error of kind Overloaded, or a *limit.Exceeded where the key is at its limit.
func (s *Store) Get(ctx context.Context, r coordinator.GetRequest) (_ coordinator.GetResult, err error) {
	began := s.now()
	if err := s.keyError(s.traffic.Note(r.Key, false, began)); err != nil {
		return coordinator.GetResult{}, err
	}
	if !s.reads.enter(s.background) {
		return coordinator.GetResult{}, &coordinator.Error{Kind: coordinator.Overloaded, Err: errFull}
	}
	defer func() { s.left(s.reads, traffic.Get, began, err) }() // after a panic too
	return s.next.Get(ctx, r)
}

// Put is that of the coordinator, or a coordinator.Error of kind Overloaded, whose outcome is that nothing was applied, or a *limit.Exceeded
// where the key is at its limit.
func (s *Store) Put(ctx context.Context, r coordinator.PutRequest) (_ coordinator.PutResult, err error) {
	began := s.now()
	if err := s.keyError(s.traffic.Note(r.Key, true, began)); err != nil {
		return coordinator.PutResult{}, err
	}
	if !s.writes.enter(s.background) {
		return coordinator.PutResult{}, &coordinator.Error{Kind: coordinator.Overloaded, Outcome: coordinator.NotApplied, Err: errFull}
	}
	op := traffic.Put
	if r.Tombstone {
		op = traffic.Delete
	}
	defer func() { s.left(s.writes, op, began, err) }()
	return s.next.Put(ctx, r)
}

// left takes note of the end of an operation that was let in.
func (s *Store) left(g *gate, op traffic.Op, began time.Time, err error) {
	now := s.now()
	g.leave(began, now, err)
	s.traffic.Done(op, now.Sub(began), err != nil, now)
}

// pacer shares a limit.Pacer.
type pacer struct {
	start  time.Time
	served func() uint64

	mu   sync.Mutex
	pace limit.Pacer
}

func (p *pacer) hold(now time.Time) time.Duration {
	served := p.served()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace.Hold(now.Sub(p.start), served)
}
