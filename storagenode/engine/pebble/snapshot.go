package pebble

import (
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dotring/dotring/storagenode/engine"
)

// snapshot implements engine.Snapshot.
type snapshot struct {
	e *Engine
	// mu keeps s from being closed within a call to it. An iterator that was opened does not need s any more.
	mu sync.RWMutex
	s  *pebble.Snapshot // nil once released
}

// Snapshot implements engine.Engine.
func (e *Engine) Snapshot() (engine.Snapshot, error) {
	if !e.enter() {
		return nil, engine.ErrClosed
	}
	defer e.leave()
	s := &snapshot{e: e}
	if err := s.take(); err != nil {
		return nil, e.readError("snapshot", err)
	}
	e.snapMu.Lock()
	defer e.snapMu.Unlock()
	e.snaps[s] = struct{}{}
	return s, nil
}

func (s *snapshot) take() (err error) {
	defer rescue(&err)
	s.s = s.e.db.NewSnapshot()
	return nil
}

func (e *Engine) snapshots() int {
	e.snapMu.Lock()
	defer e.snapMu.Unlock()
	return len(e.snaps)
}

// releaseAll closes what was left open.
func (e *Engine) releaseAll() error {
	e.snapMu.Lock()
	defer e.snapMu.Unlock()
	var err error
	for s := range e.snaps {
		err = errors.Join(err, s.close())
	}
	clear(e.snaps)
	return err
}

// Get implements engine.Reader.
func (s *snapshot) Get(key, dst []byte) ([]byte, error) {
	if !s.e.enter() {
		return dst, engine.ErrClosed
	}
	defer s.e.leave()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.s == nil {
		return dst, engine.ErrClosed
	}
	return s.e.get(s.s, key, dst)
}

// Iterate implements engine.Reader.
func (s *snapshot) Iterate(from, to []byte, fn func(k, v []byte) (bool, error)) error {
	if !s.e.enter() {
		return engine.ErrClosed
	}
	defer s.e.leave()
	return s.e.iterate(s.open, from, to, fn)
}

func (s *snapshot) open(o *pebble.IterOptions) (*pebble.Iterator, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.s == nil {
		return nil, engine.ErrClosed
	}
	return newIterator(s.s, o)
}

// Release implements engine.Snapshot.
func (s *snapshot) Release() {
	if !s.e.enter() {
		return // Close released it, or is about to
	}
	defer s.e.leave()
	s.e.snapMu.Lock()
	delete(s.e.snaps, s)
	s.e.snapMu.Unlock()
	if err := s.close(); err != nil {
		s.e.log.log.Warn().Err(err).Msg("snapshot not released")
	}
}

func (s *snapshot) close() (err error) {
	defer rescue(&err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.s == nil {
		return nil
	}
	err = s.s.Close()
	s.s = nil
	return err
}
