package kv

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/storagenode/engine"
)

// known is the newest record of a key as a write needs it: decoded, maybe without its values. The zero known is that of a
// key that was never written.
type known struct {
	rec     []byte // all of it, or its head; nil for none
	size    int    // of all of it
	set     causal.Set
	marked  bool // it is a tombstone that is marked
	pending *op  // the write that carries it, where that is not durable yet
}

func (k *known) whole() bool { return len(k.rec) == k.size }

// known returns the newest record of the key, without its values where those would have to be read from the engine. The
// caller holds the key's lock.
func (s *Store) known(l *life, p *place) (known, error) {
	if err := s.trusted(p); err != nil {
		return known{}, err
	}
	// The order matters: a write leaves what is pending only after the cache and the engine have it.
	if o := p.stripe.newest(p); o != nil {
		return decodeKnown(s, p, known{rec: o.rec, size: len(o.rec), marked: o.mark == setMark, pending: o})
	}
	e, found, ticket := l.cache.get(p)
	s.metrics.cached(found)
	if found {
		return decodeKnown(s, p, known{rec: e.rec, size: e.size})
	}
	rec, err := s.readDurable(l, p)
	if errors.Is(err, ErrNotFound) {
		if rec, err = s.readMark(l, p); errors.Is(err, ErrNotFound) {
			return known{}, nil
		}
		if err == nil {
			return decodeKnown(s, p, known{rec: rec, size: len(rec), marked: true})
		}
	}
	if err != nil {
		return known{}, err
	}
	l.cache.fill(p, rec, ticket)
	return decodeKnown(s, p, known{rec: rec, size: len(rec)})
}

func decodeKnown(s *Store, p *place, k known) (known, error) {
	if k.rec == nil {
		return k, nil
	}
	var err error
	if k.whole() {
		k.set, err = record.Decode(p.key(), k.rec)
	} else {
		k.set, _, err = record.DecodeHead(p.key(), k.rec)
	}
	if err != nil {
		return known{}, s.readError(fmt.Errorf("%w: %w", engine.ErrDamaged, err))
	}
	return k, nil
}

// complete returns k with its values. The caller has held the key's lock since it has k.
func (s *Store) complete(l *life, p *place, k known) (known, error) {
	if k.whole() {
		return k, nil
	}
	rec, err := s.readDurable(l, p)
	if errors.Is(err, ErrNotFound) {
		err = s.readError(fmt.Errorf("%w: a record is gone", engine.ErrDamaged))
	}
	if err != nil {
		return known{}, err
	}
	return decodeKnown(s, p, known{rec: rec, size: len(rec)})
}

// mergeKnown returns the record that has old and rec merged: nil where that is old, rec itself where it is rec. rec was
// verified. Where one supersedes the other, no value is looked at; where not, old is completed.
func (s *Store) mergeKnown(l *life, p *place, old *known, rec []byte) ([]byte, error) {
	if old.rec == nil {
		return rec, nil
	}
	if old.whole() && bytes.Equal(old.rec, rec) {
		return nil, nil
	}
	other, err := record.Decode(p.key(), rec)
	switch {
	case err != nil:
		return nil, err
	case old.set.Supersedes(other):
		return nil, nil
	case other.Supersedes(old.set):
		return rec, nil
	}
	if *old, err = s.complete(l, p, *old); err != nil {
		return nil, err
	}
	next, err := merge(p, old.rec, rec)
	if err != nil {
		return nil, s.readError(err)
	}
	return next, nil
}
