// Package scrub reads all that a node holds again and again, at a slow pace, so that damage is found while other nodes still
// have what is damaged.
package scrub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// metaPlan names the stored plan among the node's state.
	metaPlan = "scrub"
	// storeEvery is how often the plan is stored, while it changes.
	storeEvery = time.Minute
	// listMin and listMax bound how old the list of tables may be.
	listMin, listMax = 100 * time.Millisecond, time.Minute
	// retryAfter is the pause after a failed step.
	retryAfter = 10 * time.Second
	// openingAfter is the pause while the engine is being opened.
	openingAfter = time.Second
	// damagedAgain is when a damaged table is verified again, should it still be there.
	damagedAgain = 10 * time.Minute
	// pressureMax is how full queues of requests may be for the full rate.
	pressureMax = 0.1
)

// Store is the part of kv.Store that is used here.
type Store interface {
	Tables() (tables []engine.Table, opening uint64, err error)
	VerifyTable(ctx context.Context, t engine.Table, pace func(bytes int) time.Duration) (damaged int, err error)
	GetMeta(name string) ([]byte, error)
	PutMeta(name string, v []byte, done func(error)) error
}

// Config is what New needs; all fields but Registerer are required.
type Config struct {
	Store Store
	// Rate is the most that is read, in bytes a second, positive.
	Rate int64
	// Interval is how long ago a table must have been verified or written to be verified again, at least 1 s.
	Interval time.Duration
	// Pressure is how full the queues of clients' requests are, 0 to 1. It must be cheap and safe for concurrent use.
	Pressure   func() float64
	Now        func() time.Time
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Service verifies a node's tables. Build it with New; Run is its only goroutine.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics

	mu   sync.Mutex
	plan *Plan

	// The rest is Run's.
	pace    Pace
	opening uint64 // of the engine that the plan is of
	loaded  bool
	listed  time.Time
	stored  time.Time
	changed bool // since then
}

// New returns a service that does nothing before Run. The error is one of registering metrics.
func New(cfg Config) (*Service, error) {
	s := &Service{cfg: cfg, log: cfg.Logger, plan: NewPlan(), pace: NewPace(cfg.Rate)}
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer, s); err != nil {
		return nil, fmt.Errorf("scrub: registering metrics: %w", err)
	}
	return s, nil
}

// Run verifies until ctx ends. It returns early where the engine has nothing to verify.
func (s *Service) Run(ctx context.Context) {
	for {
		wait, err := s.step(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, kv.ErrClosed):
			return
		case errors.Is(err, kv.ErrNoTables):
			s.log.Info().Msg("the engine cannot be scrubbed")
			return
		case errors.Is(err, kv.ErrReopening):
			wait = openingAfter
		case err != nil:
			s.log.Warn().Err(err).Msg("scrubbing failed and is tried again")
			wait = retryAfter
		}
		if wait > 0 && !pause(ctx, wait) {
			return
		}
	}
}

// step does what is to be done next, at most one table, and returns when to come again.
func (s *Service) step(ctx context.Context) (time.Duration, error) {
	now := s.cfg.Now()
	listEvery := min(max(s.cfg.Interval/100, listMin), listMax)
	if !s.loaded || now.Sub(s.listed) >= listEvery || now.Before(s.listed) {
		if err := s.list(now); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	t, last, ok := s.plan.Next()
	s.mu.Unlock()
	if ok && now.Sub(last) >= s.cfg.Interval {
		if err := s.verify(ctx, t); err != nil {
			return 0, err
		}
		return 0, s.save(false)
	}
	if err := s.save(true); err != nil { // nothing else will change it for some time
		return 0, err
	}
	return listEvery, nil
}

// list takes note of the tables there are. The plan of an engine that was opened since is read anew.
func (s *Service) list(now time.Time) error {
	tables, opening, err := s.cfg.Store.Tables()
	if err != nil {
		s.loaded = s.loaded && !errors.Is(err, kv.ErrReopening)
		return err
	}
	plan := s.plan
	if !s.loaded || opening != s.opening {
		if plan, err = s.load(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan, s.opening, s.loaded, s.listed = plan, opening, true, now
	s.plan.Observe(tables, now, s.cfg.Interval)
	return nil
}

func (s *Service) load() (*Plan, error) {
	b, err := s.cfg.Store.GetMeta(metaPlan)
	if errors.Is(err, kv.ErrNotFound) {
		s.changed = true // so that what is new after a restart is known to be new
		return NewPlan(), nil
	}
	if err != nil {
		return nil, err
	}
	p, err := DecodePlan(b)
	if err != nil {
		s.log.Warn().Err(err).Msg("what was scrubbed is unknown: all is scrubbed again")
		return NewPlan(), nil
	}
	return p, nil
}

func (s *Service) verify(ctx context.Context, t engine.Table) error {
	damaged, err := s.cfg.Store.VerifyTable(ctx, t, func(bytes int) time.Duration {
		now := s.cfg.Now()
		s.metrics.bytes.Add(float64(bytes))
		s.mu.Lock()
		s.plan.Count(uint64(bytes), now)
		s.mu.Unlock()
		return s.pace.Take(bytes, now, s.cfg.Pressure() > pressureMax)
	})
	if errors.Is(err, kv.ErrReopening) {
		s.loaded = false
	}
	if err != nil {
		return err
	}
	at := s.cfg.Now()
	if damaged > 0 {
		s.metrics.damaged.Add(float64(damaged))
		at = at.Add(min(damagedAgain-s.cfg.Interval, 0))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan.Tried(t.Number, at)
	s.changed = true
	return nil
}

// save stores the plan, if it has changed; where nothing is due, at once, and otherwise after a minute.
func (s *Service) save(idle bool) error {
	now := s.cfg.Now()
	if !s.changed || !idle && now.Sub(s.stored) < storeEvery && !now.Before(s.stored) {
		return nil
	}
	s.mu.Lock()
	b := s.plan.Append(nil)
	s.mu.Unlock()
	// Nothing depends on it: should it be lost, tables are verified once more.
	err := s.cfg.Store.PutMeta(metaPlan, b, func(error) {})
	if errors.Is(err, kv.ErrDiskFull) || errors.Is(err, kv.ErrOverloaded) {
		err = nil
	}
	if err == nil {
		s.stored, s.changed = now, false
	}
	return err
}

func (s *Service) oldest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.Oldest(s.cfg.Now())
}

func (s *Service) recent() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.Recent(s.cfg.Now())
}

// pause waits for d; false means that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
