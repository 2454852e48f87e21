package kv

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
)

// retiredMost bounds the keys of which is remembered what left their clocks.
const retiredMost = 1 << 16

// retirees are entries that left clocks lately. Clients' contexts still name them: what they stand for was seen here, though
// the clocks do not say so any more. It is only in memory: all owners of a key remember it, and a context that none can
// vouch for is refused, which is what becomes of old ones anyway.
type retirees struct {
	count atomic.Int64 // of keys
	mu    sync.Mutex
	keys  map[string]retiree
}

type retiree struct {
	entries causal.Vector
	until   time.Time
}

// of returns the entries that left the clock of a key.
func (r *retirees) of(key []byte, now time.Time) causal.Vector {
	if r.count.Load() == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.keys[string(key)]; now.Before(x.until) {
		return x.entries
	}
	return nil
}

// add remembers more of them.
func (r *retirees) add(key []byte, entries causal.Vector, now, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		r.keys = make(map[string]retiree)
	}
	x := r.keys[string(key)]
	if !now.Before(x.until) {
		x.entries = nil
	}
	if len(r.keys) >= retiredMost {
		for k, old := range r.keys {
			if delete(r.keys, k); now.Before(old.until) {
				break // one that is still needed had to go
			}
		}
	}
	r.keys[string(key)] = retiree{entries: x.entries.Join(entries), until: until}
	r.count.Store(int64(len(r.keys)))
}

// Retired returns the entries that left the clock of a key within Config.RetireFor: whoever has seen them has seen nothing
// that this node has not. Read-only.
func (s *Store) Retired(key []byte) causal.Vector { return s.retired.of(key, s.cfg.Now()) }

// vouched returns a context without the entries and dots that left the key's clock lately: they need not be in the clock of
// the record, nor come back into it.
func (s *Store) vouched(key []byte, c *causal.Context) *causal.Context {
	if c == nil {
		return nil
	}
	gone := s.Retired(key)
	if len(gone) == 0 {
		return c
	}
	out := causal.Context{Vector: c.Vector.Without(gone)}
	for _, d := range c.Dots {
		if !gone.Covers(d) {
			out.Dots = append(out.Dots, d)
		}
	}
	return &out
}

// collectEntries is collect for entries of a clock.
func (s *Store) collectEntries(l *life, p *place, step collect.Step, t collect.Tomb, done func(collect.Holding, uint32, error)) (h collect.Holding, moves uint32, queued bool, err error) {
	moves = s.moves[p.hash>>(64-ring.SlotBits)].Load()
	switch step {
	case collect.Confirm:
		h, err = s.holdsIdle(l, p, t.Entries)
		return h, moves, false, err
	case collect.Prune:
	default:
		return 0, 0, false, ErrInvalid
	}
	k, err := s.known(l, p)
	if err != nil {
		return 0, 0, false, err
	}
	now := s.cfg.Now()
	s.retired.add(p.key(), t.Entries, now, now.Add(s.cfg.RetireFor))
	if k.rec == nil || k.marked || len(k.set.Prune(t.Entries).Clock) == len(k.set.Clock) {
		return collect.Nothing, moves, false, nil
	}
	if k, err = s.complete(l, p, k); err != nil {
		return 0, 0, false, err
	}
	o, err := newRecordOp(l, p, &k, record.Append(nil, p.key(), k.set.Prune(t.Entries)))
	if err != nil {
		return 0, 0, false, err
	}
	counted := moves
	o.call = callback{mint: func(err error) { done(collect.It, counted, err) }}
	if err := s.enqueueRecord(p, o); err != nil {
		return 0, 0, false, err
	}
	s.metrics.pruned.Add(float64(len(k.set.Clock) - len(k.set.Prune(t.Entries).Clock)))
	return 0, 0, true, nil
}

// holdsIdle says what the node holds of a key beside a record that has these entries, idle. What is not durable yet derives
// from what is, and cannot have a sibling of theirs where that has none. The caller holds the key's lock.
func (s *Store) holdsIdle(l *life, p *place, entries causal.Vector) (collect.Holding, error) {
	kept, err := s.keptForOthers(l, p)
	if err != nil {
		return 0, err
	}
	if err := s.trusted(p); err != nil {
		return 0, err
	}
	rec, err := s.readDurable(l, p)
	if errors.Is(err, ErrNotFound) {
		if _, err = s.readMark(l, p); errors.Is(err, ErrNotFound) {
			return collect.Nothing | kept, nil
		}
		if err == nil {
			return collect.Marked | kept, nil
		}
	}
	if err != nil {
		return 0, err
	}
	set, err := record.Decode(p.key(), rec)
	switch {
	case err != nil:
		return 0, s.readError(err)
	case set.HasIdle(entries) && entries.Get(l.actor()) == 0: // what this life wrote is asked for again by its dots
		return collect.It | kept, nil
	}
	return collect.Other | kept, nil
}
