package kv

import (
	"bytes"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

// DropRecord removes the record of a key that this node does not own any more, unless it is no longer exactly seen, which
// all owners have confirmed, or a write of it is under way. Whoever calls it sees to it that the node does not become an
// owner of the key before the removal is queued. If the error is nil, done is called exactly once, maybe before DropRecord
// returns: with whether the record is durably gone. Errors: those of Apply.
func (s *Store) DropRecord(key, seen []byte, done func(dropped bool, err error)) error {
	queued, err := s.dropRecord(key, seen, callback{apply: done, changed: true})
	if err == nil && !queued && done != nil {
		done(false, nil)
	}
	return err
}

func (s *Store) dropRecord(key, seen []byte, call callback) (queued bool, err error) {
	p, err := s.find(key)
	if err != nil {
		return false, err
	}
	defer p.release()
	clock, err := checkRecord(key, seen)
	if err != nil {
		return false, err
	}
	l, err := s.acquireWrite()
	if err != nil {
		return false, err
	}
	defer l.gate.RUnlock()
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	old, marked, pending, err := s.look(l, p)
	if err != nil || marked || pending != nil || !bytes.Equal(old, seen) {
		return false, err
	}
	o := newOp(p.disk, nil)
	o.hash, o.stripe, o.call = p.hash, p.stripe, call
	o.keysMore, o.bytesMore = -1, -int64(len(old))
	if err := o.digest(old); err != nil {
		return false, err
	}
	// From here on the node may mint the key again without this record, so not as an actor that the record names.
	l.forgetOwn(clock)
	l.forget(clock)
	if err := p.stripe.enqueue(&s.queue, o); err != nil {
		return false, err
	}
	s.moved(p.hash)
	return true, nil
}

// forgetOwn is forget for a record that the node minted as an owner: its next dot of the key would cover what left.
func (l *life) forgetOwn(v causal.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.Get(l.own.current) > 0 {
		l.own.stale = true
	}
}

// compacter is an engine that gives back the room of what was removed in a range of keys.
type compacter interface {
	Compact(from, to []byte) error
}

// Compact has the engine give back the room that removed records of the slots in r still take. Closing and reopening the
// engine wait for it, so ask for little at a time. Requests go on meanwhile. Engines that compact by themselves are left
// alone.
func (s *Store) Compact(r ring.Range) error {
	l, err := s.acquire()
	if err != nil {
		return err
	}
	eng, ok := l.eng.(compacter)
	// The gate is not held: what takes long must not keep the engine from being opened again, and it has one of its own.
	l.gate.RUnlock()
	if !ok {
		return nil
	}
	return eng.Compact(slotBound(tagRecord, r.From), slotBound(tagRecord, r.To))
}
