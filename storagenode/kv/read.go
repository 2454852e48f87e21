package kv

import (
	"errors"
	"fmt"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// MaxMetaName and MaxMetaValue bound a piece of node state, in bytes.
const (
	MaxMetaName  = 100
	MaxMetaValue = 1 << 20
)

// Read returns the durable record of key, verified when it was read from the engine or written to it; it may be shared and
// must not be modified. ErrNotFound says that there is none; any other error says nothing about the key: ErrInvalid,
// ErrReopening, ErrClosed, engine.ErrDamaged or a failed read.
func (s *Store) Read(key []byte) ([]byte, error) {
	return s.read(key, true)
}

// Digest returns the digest of what Read would return, which often needs no reading. Errors are those of Read.
func (s *Store) Digest(key []byte) (record.Digest, error) {
	head, err := s.read(key, false)
	if err != nil {
		return record.Digest{}, err
	}
	d, err := record.DigestOf(head)
	if err != nil {
		return record.Digest{}, s.readError(fmt.Errorf("%w: %w", engine.ErrDamaged, err))
	}
	return d, nil
}

// read returns the durable record of key, or, where values are not asked for, maybe only its head.
func (s *Store) read(key []byte, values bool) ([]byte, error) {
	p, err := s.find(key)
	if err != nil {
		return nil, err
	}
	defer p.release()
	l, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer l.gate.RUnlock()
	if err := s.trusted(p); err != nil {
		return nil, err
	}
	e, found, ticket := l.cache.get(p)
	hit := found && (e.whole() || !values)
	s.metrics.cached(hit)
	if hit {
		return e.rec, nil
	}
	rec, err := s.readDurable(l, p)
	if err != nil {
		return nil, err
	}
	if !found {
		l.cache.fill(p, rec, ticket)
	}
	return rec, nil
}

// Scan calls fn with the durable records of the slots in r, by slot and hash, as they were when Scan was called; after,
// if it is not nil, is a key of r behind which it starts, whether it is still there or not. key and rec are valid only
// until fn returns and must not be modified. Scan ends with nil after the last or when fn wants no more, with fn's error
// as it is, and with an error at what it cannot read or finds damaged: it skips nothing. fn must not block for long or
// call Close: a scan keeps the engine from being reopened.
func (s *Store) Scan(r ring.Range, after []byte, fn func(key, rec []byte) (more bool, err error)) error {
	return s.scan(tagRecord, r, after, fn)
}

// scan is Scan over records or marks.
func (s *Store) scan(tag byte, r ring.Range, after []byte, fn func(key, rec []byte) (more bool, err error)) error {
	whole := r
	r.To = s.doubts.load().first(r)
	from, to, err := s.scanBounds(tag, r, after)
	if err != nil {
		return err
	}
	l, err := s.acquire()
	if err != nil {
		return err
	}
	defer l.gate.RUnlock()
	more := true
	if string(from) < string(to) {
		err = s.scanned(l.eng.Iterate(from, to, s.visit(l, func(key, rec []byte) (_ bool, err error) {
			more, err = fn(key, rec)
			return more, err
		})))
	}
	if err == nil && more && r.To < whole.To {
		return ErrDoubted
	}
	return err
}

// scanned takes note of damage that a scan met.
func (s *Store) scanned(err error) error {
	var known *engine.Damage
	if errors.As(err, &known) {
		s.metrics.damaged.Inc()
		s.met(err, 0, false)
	}
	return err
}

// scanBounds returns the disk keys of the slots in r from behind the key after, which may be nil.
func (s *Store) scanBounds(tag byte, r ring.Range, after []byte) (from, to []byte, err error) {
	from, to = slotBound(tag, r.From), slotBound(tag, r.To)
	if after != nil {
		p, err := s.find(after)
		if err != nil {
			return nil, nil, err
		}
		p.disk[0] = tag
		// The smallest key behind it.
		if next := string(p.disk) + "\x00"; next > string(from) {
			from = []byte(next)
		}
		p.release()
	}
	return from, to, nil
}

// visit checks what an iteration over records finds before fn sees it.
func (s *Store) visit(l *life, fn func(key, rec []byte) (bool, error)) func(k, rec []byte) (bool, error) {
	return func(k, rec []byte) (bool, error) {
		if l.ending.Load() {
			if s.closed.Load() {
				return false, ErrClosed
			}
			return false, ErrReopening
		}
		if len(k) <= recordPrefix {
			return false, s.readError(fmt.Errorf("%w: a disk key of %d bytes", engine.ErrDamaged, len(k)))
		}
		if err := record.Verify(k[recordPrefix:], rec); err != nil {
			s.met(engine.ErrDamaged, ring.Hash(k[recordPrefix:]), true)
			return false, s.readError(fmt.Errorf("%w: key %x: %w", engine.ErrDamaged, k[recordPrefix:], err))
		}
		return fn(k[recordPrefix:], rec)
	}
}

// PutMeta queues a small piece of node state, of MaxMetaValue at most, behind all writes queued before it: when it is
// durable, so are they. v is copied. If the error is nil, done is called exactly once, by the committer. Errors:
// ErrInvalid, ErrOverloaded, ErrDiskFull, ErrReopening, ErrClosed.
func (s *Store) PutMeta(name string, v []byte, done func(error)) error {
	return s.putMeta(name, v, false, done)
}

// PutNote is PutMeta for what may be lost, and does not raise the commit number: what nodes remember of each other's
// numbers would raise them for ever.
func (s *Store) PutNote(name string, v []byte, done func(error)) error {
	return s.putMeta(name, v, true, done)
}

func (s *Store) putMeta(name string, v []byte, note bool, done func(error)) error {
	if name == "" || len(name) > MaxMetaName || len(v) > MaxMetaValue {
		return fmt.Errorf("%w: node state %q of %d bytes", ErrInvalid, name, len(v))
	}
	l, err := s.acquireWrite()
	if err != nil {
		return err
	}
	defer l.gate.RUnlock()
	o := newOp(metaKey(name), append([]byte(nil), v...))
	o.call, o.note = callback{mint: done}, note
	if o.size() > l.maxRecord {
		return fmt.Errorf("%w: node state %q", ErrTooLarge, name)
	}
	return s.queue.push(o)
}

// GetMeta returns a durable piece of node state, in memory that the caller owns. ErrNotFound says that there is none.
func (s *Store) GetMeta(name string) ([]byte, error) {
	l, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer l.gate.RUnlock()
	v, err := l.eng.Get(metaKey(name), nil)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, s.readError(err)
	}
	return v, nil
}

func metaKey(name string) []byte { return append([]byte{tagMeta}, name...) }
