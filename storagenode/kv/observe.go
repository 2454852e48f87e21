package kv

import (
	"fmt"
	"sync"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// Change is one replacement of a key's record.
type Change struct {
	Key         []byte // the observer must not keep or modify it
	Hash        uint64 // of the key
	Before, Now record.Digest
}

// Observer is told what becomes durable, in order, by one goroutine. Of a key, each change begins with the digest that
// the one before it ended with. The methods must not block nor call the store, and must not keep the slice.
type Observer interface {
	// Committed is called after a batch became durable and before anyone who waits for it is told.
	Committed(changes []Change)
	// InDoubt is called when a batch failed: each of its changes may be durable or not. nil stands for every record, after
	// the engine dropped data when it was opened.
	InDoubt(changes []Change)
}

// observed is what lies between the engine and the observer.
type observed struct {
	observer Observer // nil for none
	changes  []Change // the committer's, kept between batches

	// mu is held from before a batch is written until the observer knows of it, so that whoever holds it sees both at the
	// same state. Held by the committer and, for the moment of taking a snapshot, by exact scans.
	mu sync.Mutex
}

// digest notes what a write replaces by what.
func (o *op) digest(old []byte) (err error) {
	if o.before, err = record.DigestOf(old); err == nil {
		o.after, err = record.DigestOf(o.rec)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", engine.ErrDamaged, err)
	}
	return nil
}

// write gives the batch that was built from c.ops to the engine, and tells the observer what became of it.
func (c *committer) write() error {
	o := &c.store.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	err := c.life.eng.Apply(&c.batch, c.store.cfg.Sync == SyncAlways)
	if o.observer == nil {
		return err
	}
	for _, p := range c.ops {
		if p.disk[0] == tagRecord && p.before != p.after {
			o.changes = append(o.changes, Change{Key: p.disk[recordPrefix:], Hash: p.hash, Before: p.before, Now: p.after})
		}
	}
	switch {
	case len(o.changes) == 0:
	case err != nil:
		o.doubt(o.changes)
	default:
		o.observer.Committed(o.changes)
	}
	clear(o.changes)
	if o.changes = o.changes[:0]; cap(o.changes) > keepOps {
		o.changes = nil
	}
	return err
}

func (o *observed) doubt(changes []Change) {
	if o.observer != nil {
		o.observer.InDoubt(changes)
	}
}

// ScanObserved calls fn with all durable records of the slots in r, like Scan, on exactly the state that the observer had
// been told of when begin was called: no change is in one and not in the other. begin is called once, before fn, unless an
// error keeps the scan from beginning; commits wait for it, so it must be quick. Errors are those of Scan, and fn's.
func (s *Store) ScanObserved(r ring.Range, begin func(), fn func(key, rec []byte) error) error {
	if r.From >= r.To {
		return nil
	}
	whole := r
	l, err := s.acquire()
	if err != nil {
		return err
	}
	defer l.gate.RUnlock()
	snap, err := s.observed.snapshot(l, begin)
	if err != nil {
		return s.readError(err)
	}
	defer snap.Release()
	r.To = s.doubts.load().first(r)
	if r.From < r.To {
		err = s.scanned(snap.Iterate(slotBound(tagRecord, r.From), slotBound(tagRecord, r.To), s.visit(l, func(key, rec []byte) (bool, error) {
			return true, fn(key, rec)
		})))
	}
	if err == nil && r.To < whole.To {
		return ErrDoubted
	}
	return err
}

func (o *observed) snapshot(l *life, begin func()) (engine.Snapshot, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	snap, err := l.eng.Snapshot()
	if err == nil {
		begin()
	}
	return snap, err
}
