package kv

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/storagenode/engine"
)

// life is one opening of the engine and the actors that mint in it.
type life struct {
	eng   engine.Engine
	cache *cache
	// gate is held for reading by all that use eng or may queue a write, and locked once, for ever, when the life ends.
	gate   sync.RWMutex
	ending atomic.Bool
	// maxRecord is the largest write that fits into a batch of the engine beside the store's state.
	maxRecord int
	opened    time.Time

	mu      sync.Mutex
	rand    io.Reader
	logger  zerolog.Logger
	metrics *metrics
	own     minter // of what the node mints as an owner
	// fallback mints for others, upon the hints that the node keeps. It is an actor of its own, since hints leave: what
	// the node then mints for the key must not claim to have seen them, and an owner's records never leave so.
	fallback minter
}

// minter is an actor and how far it has counted. Guarded by life.mu.
type minter struct {
	current causal.Actor
	issued  uint64 // the highest counter of current
	stale   bool   // current must not issue another dot
}

// actor returns the actor that mints as an owner.
func (l *life) actor() causal.Actor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own.current
}

// renew takes a new actor. Where that fails, the old one issues no more dots.
func (l *life) renew(m *minter) error {
	next, err := causal.NewActor(l.rand)
	if err != nil {
		m.stale = true
		return err
	}
	m.current, m.issued, m.stale = next, 0, false
	l.metrics.actors.Inc()
	return nil
}

// hear takes note of clocks that a record or a context showed. Where one has a counter of the own actor that was never
// issued, something was forgotten: the actor is given up at once, since a later dot of it would claim to have seen that.
func (l *life) hear(v causal.Vector, dots []causal.Dot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hearAs(&l.own, v, dots)
	l.hearAs(&l.fallback, v, dots)
}

func (l *life) hearAs(m *minter, v causal.Vector, dots []causal.Dot) {
	if m.stale {
		return
	}
	unknown := v.Get(m.current) > m.issued
	for i := range dots {
		unknown = unknown || dots[i].Actor == m.current && dots[i].Counter > m.issued
	}
	if !unknown {
		return
	}
	old := m.current
	if err := l.renew(m); err != nil {
		l.logger.Error().Err(err).Msg("a counter of the own actor is unknown, and no new actor could be drawn: minting stops")
		return
	}
	l.logger.Error().Stringer("old_actor", old).Stringer("actor", m.current).
		Msg("a counter of the own actor is unknown: took a new actor")
}

// forget takes note that a hint with this clock leaves. If the fallback's actor has written in it, its next dot of the
// key would cover what left, so that actor issues no more.
func (l *life) forget(v causal.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.Get(l.fallback.current) > 0 {
		l.fallback.stale = true
	}
}

// issue returns a dot of own or fallback that was never used.
func (l *life) issue(m *minter) (causal.Dot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, ok := causal.Dot{Actor: m.current, Counter: m.issued}.Next()
	if !ok || m.stale {
		if err := l.renew(m); err != nil {
			return causal.Dot{}, fmt.Errorf("kv: no actor to mint with: %w", err)
		}
		next = causal.Dot{Actor: m.current, Counter: 1}
	}
	m.issued = next.Counter
	return next, nil
}

// acquire returns the life in use and keeps it from ending until its gate is given back with RUnlock.
func (s *Store) acquire() (*life, error) {
	// The gate is locked only to end a life, so that a failed try is no contention.
	if l := s.life.Load(); l != nil && l.gate.TryRLock() {
		return l, nil
	}
	if s.closed.Load() {
		return nil, ErrClosed
	}
	return nil, ErrReopening
}

// acquireWrite is acquire for writes, which a full disk refuses too.
func (s *Store) acquireWrite() (*life, error) {
	l, err := s.acquire()
	if s.full.Load() && !s.closed.Load() {
		if err == nil {
			l.gate.RUnlock()
		}
		return nil, ErrDiskFull
	}
	return l, err
}

// publish makes l the life in use, unless the store was closed meanwhile.
func (s *Store) publish(l *life) bool {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	if s.closed.Load() {
		return false
	}
	actor := l.actor()
	s.lastActor.Store(&actor)
	s.life.Store(l)
	return true
}

// withdraw takes the life out of use; what is in progress goes on until retire.
func (s *Store) withdraw(closing bool) {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	if closing {
		s.closed.Store(true)
	}
	if l := s.life.Load(); l != nil {
		actor := l.actor()
		s.lastActor.Store(&actor)
		l.ending.Store(true)
	}
	s.life.Store(nil)
}

// retire waits until nobody uses l any more.
func (l *life) retire() {
	l.ending.Store(true)
	l.gate.Lock()
}
