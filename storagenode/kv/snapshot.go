package kv

import (
	"bytes"
	"fmt"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// Part is a part of what a store holds.
type Part byte

// The parts of a store that a Snapshot shows.
const (
	// Hints are the records that the node keeps for others.
	Hints Part = tagHint
	// Records are the node's own. Marked tombstones are not among them: they are proven to be needed no more.
	Records Part = tagRecord
)

// Entry is a record of a snapshot. It belongs to the caller.
type Entry struct{ Key, Record []byte }

// Snapshot goes through one part of a store as it was at one moment. It keeps superseded data on the disk until Release,
// and ends with an error when the engine is opened anew. It is for one goroutine.
type Snapshot struct {
	store *Store
	part  Part
	snap  engine.Snapshot
	next  []byte // the disk key from which the next page begins
}

// Snapshot fixes the moment: whatever was durable before the call is in it. Errors: ErrDoubted where anything of the store
// is in doubt, ErrReopening, ErrClosed, or those of the engine.
func (s *Store) Snapshot(part Part) (*Snapshot, error) {
	if part != Hints && part != Records {
		return nil, fmt.Errorf("%w: part %q of a store", ErrInvalid, part)
	}
	l, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer l.gate.RUnlock()
	snap, err := l.eng.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("kv: snapshot: %w", err)
	}
	if s.doubts.load().Any() { // looked at behind: a doubt that comes later is about a later state
		snap.Release()
		return nil, ErrDoubted
	}
	return &Snapshot{store: s, part: part, snap: snap, next: []byte{byte(part)}}, nil
}

// Next returns about so many bytes of records, more only where the first is larger, by hash and key; hints by the node that
// they are for before that. None are left where it returns none. Every record is verified: it ends with an error at
// what is damaged or cannot be read, and skips nothing.
func (s *Snapshot) Next(size int) ([]Entry, error) {
	prefix := recordPrefix
	if s.part == Hints {
		prefix = hintPrefix
	}
	var out []Entry
	held := 0
	err := s.store.scanned(s.snap.Iterate(s.next, []byte{byte(s.part) + 1}, func(k, rec []byte) (bool, error) {
		if held > 0 && held+len(k)+len(rec) > size {
			return false, nil
		}
		if len(k) <= prefix {
			return false, s.store.readError(fmt.Errorf("%w: a disk key of %d bytes", engine.ErrDamaged, len(k)))
		}
		key := bytes.Clone(k[prefix:])
		if err := record.Verify(key, rec); err != nil {
			if s.part == Records {
				s.store.met(engine.ErrDamaged, ring.Hash(key), true)
			}
			return false, s.store.readError(fmt.Errorf("%w: key %x: %w", engine.ErrDamaged, key, err))
		}
		held += len(k) + len(rec)
		out = append(out, Entry{Key: key, Record: bytes.Clone(rec)})
		s.next = append(append(s.next[:0], k...), 0)
		return true, nil
	}))
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Release lets the moment go. Idempotent.
func (s *Snapshot) Release() { s.snap.Release() }
