package kv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/engine"
)

// markChange is what a write of a key does to the mark of its tombstone.
type markChange uint8

const (
	keepMark  markChange = iota // there is none
	setMark                     // the record becomes a mark
	clearMark                   // a record replaces the mark
	dropMark                    // the mark goes
)

// appendMark appends the disk key of the mark of the record whose disk key is given.
func appendMark(dst, disk []byte) []byte {
	dst = append(dst, disk...)
	dst[len(dst)-len(disk)] = tagMark
	return dst
}

// put adds a write to a batch.
func (o *op) put(b *engine.Batch) {
	var room [recordPrefix + MaxKey]byte
	switch o.mark {
	case setMark:
		b.Delete(o.disk)
		b.Put(appendMark(room[:0], o.disk), o.rec)
	case clearMark:
		b.Put(o.disk, o.rec)
		b.Delete(appendMark(room[:0], o.disk))
	case dropMark:
		b.Delete(appendMark(room[:0], o.disk))
	default:
		if o.rec == nil {
			b.Delete(o.disk)
		} else {
			b.Put(o.disk, o.rec)
		}
	}
}

// newMarkOp makes the write that marks the tombstone rec, or drops its mark.
func newMarkOp(l *life, p *place, rec []byte, change markChange) (*op, error) {
	o := newOp(p.disk, nil)
	o.hash, o.stripe, o.mark = p.hash, p.stripe, change
	if change == dropMark {
		return o, nil
	}
	o.rec, o.keysMore, o.bytesMore = rec, -1, -int64(len(rec))
	if size := o.size(); size > l.maxRecord {
		return nil, fmt.Errorf("%w: a mark of %d bytes, the engine takes %d", ErrTooLarge, size, l.maxRecord)
	}
	var err error
	if o.before, err = record.DigestOf(rec); err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrDamaged, err)
	}
	return o, nil
}

// enqueueRecord queues a write of a record or of its mark. A mark counts from now on, since reads look for marks only
// where there may be any.
func (s *Store) enqueueRecord(p *place, o *op) error {
	if o.mark == setMark {
		s.marks.Add(1)
	}
	err := p.stripe.enqueue(&s.queue, o)
	if err != nil && o.mark == setMark {
		s.marks.Add(-1)
	}
	return err
}

// Marks is about how many tombstones are marked.
func (s *Store) Marks() int64 { return max(s.marks.Load(), 0) }

// countMarks counts the marks in an engine that was just opened.
func (s *Store) countMarks(eng engine.Engine) error {
	n := int64(0)
	err := eng.Iterate([]byte{tagMark}, []byte{tagMark + 1}, func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	if errors.Is(err, engine.ErrDamaged) {
		n, err = n+1, nil // those behind the damage are looked for too
	}
	if err != nil {
		return fmt.Errorf("kv: counting marks: %w", err)
	}
	s.marks.Store(n)
	return nil
}

// readMark returns the marked tombstone in the engine, verified, in memory of its own; ErrNotFound where there is none.
func (s *Store) readMark(l *life, p *place) ([]byte, error) {
	if s.marks.Load() <= 0 || p.disk[0] != tagRecord {
		return nil, ErrNotFound
	}
	rec, err := l.eng.Get(appendMark(make([]byte, 0, recordPrefix+MaxKey), p.disk), nil)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err == nil {
		if err = record.Verify(p.key(), rec); err == nil {
			return rec, nil
		}
		err = fmt.Errorf("%w: %w", engine.ErrDamaged, err)
	}
	return nil, s.readError(err)
}

// ReadMarked is Read that answers with a marked tombstone where there is no other record of the key.
func (s *Store) ReadMarked(key []byte) (rec []byte, marked bool, err error) {
	p, err := s.find(key)
	if err != nil {
		return nil, false, err
	}
	defer p.release()
	l, err := s.acquire()
	if err != nil {
		return nil, false, err
	}
	defer l.gate.RUnlock()
	rec, err = s.readDurable(l, p)
	if !errors.Is(err, ErrNotFound) || s.marks.Load() <= 0 {
		return rec, false, err
	}
	if rec, err = s.readMark(l, p); !errors.Is(err, ErrNotFound) {
		return rec, err == nil, err
	}
	// What was marked a moment ago may have been replaced in between.
	rec, err = s.readDurable(l, p)
	return rec, false, err
}

// ScanMarks is Scan over the marked tombstones of the slots in r.
func (s *Store) ScanMarks(r ring.Range, after []byte, fn func(key, rec []byte) (more bool, err error)) error {
	if s.marks.Load() <= 0 {
		return nil
	}
	return s.scan(tagMark, r, after, fn)
}

// moved takes note that something of a slot was taken in for others, or left.
func (s *Store) moved(hash uint64) { s.moves[hash>>(64-ring.SlotBits)].Add(1) }

// Collect does a step in the collection of a tombstone, if what is held of the key lets it, and tells what is held then.
// moves counts what was taken in for others or left of the key's slot, in the life of Actor; with another Actor
// afterwards the count proves nothing. If the error is nil, done is called exactly once, maybe before Collect returns:
// with nil, or with ErrInDoubt. With an error nothing was done. Errors: ErrInvalid, those of a failed local read, and for
// what is written those of Apply.
func (s *Store) Collect(step collect.Step, t collect.Tomb, done func(h collect.Holding, moves uint32, err error)) error {
	h, moves, queued, err := s.collect(step, t, done)
	if err == nil && !queued {
		done(h, moves, nil)
	}
	return err
}

func (s *Store) collect(step collect.Step, t collect.Tomb, done func(collect.Holding, uint32, error)) (h collect.Holding, moves uint32, queued bool, err error) {
	p, err := s.find(t.Key)
	if err != nil {
		return 0, 0, false, err
	}
	defer p.release()
	take := s.acquireWrite
	if step == collect.Confirm {
		take = s.acquire
	}
	l, err := take()
	if err != nil {
		return 0, 0, false, err
	}
	defer l.gate.RUnlock()
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	if len(t.Entries) > 0 || step == collect.Prune {
		return s.collectEntries(l, p, step, t, done)
	}
	h, rec, err := s.holding(l, p, t.Digest)
	if err != nil {
		return 0, 0, false, err
	}
	moves = s.moves[p.hash>>(64-ring.SlotBits)].Load()
	var o *op
	var after collect.Holding
	switch {
	case step == collect.Mark && h.MayMark():
		o, err = newMarkOp(l, p, rec, setMark)
		after = collect.Marked
	case step == collect.Remove && h.MayRemove():
		o, err = newMarkOp(l, p, rec, dropMark)
		after = collect.Nothing | h&collect.Kept
	default:
		return h, moves, false, nil
	}
	if err != nil {
		return 0, 0, false, err
	}
	counted := moves // what is returned below is set while the committer may already call done
	o.call = callback{mint: func(err error) { done(after, counted, err) }}
	return 0, 0, true, s.enqueueRecord(p, o)
}

// holding says what the node holds of a key beside the tombstone of this digest. The caller holds the key's lock.
func (s *Store) holding(l *life, p *place, digest record.Digest) (collect.Holding, []byte, error) {
	kept, err := s.keptForOthers(l, p)
	if err != nil {
		return 0, nil, err
	}
	rec, marked, pending, err := s.look(l, p)
	switch {
	case err != nil:
		return 0, nil, err
	case pending != nil:
		return collect.Unclear | kept, nil, nil
	case rec == nil:
		return collect.Nothing | kept, nil, nil
	}
	have, err := record.DigestOf(rec)
	switch {
	case err != nil:
		return 0, nil, s.readError(fmt.Errorf("%w: %w", engine.ErrDamaged, err))
	case have != digest:
		return collect.Other | kept, rec, nil
	case marked:
		return collect.Marked | kept, rec, nil
	}
	return collect.It | kept, rec, nil
}

// keptForOthers says whether the node keeps anything of the key for others. The caller holds the key's lock.
func (s *Store) keptForOthers(l *life, p *place) (collect.Holding, error) {
	kept := collect.Holding(0)
	for _, id := range s.hints.list() {
		hp := hintPlace(p, id)
		rec, pending, err := s.current(l, hp)
		hp.release()
		if err != nil {
			return 0, err
		}
		if rec != nil || pending != nil {
			kept = collect.Kept
		}
	}
	return kept, nil
}

// look is current that also tells whether the record is a marked tombstone.
func (s *Store) look(l *life, p *place) (rec []byte, marked bool, pending *op, err error) {
	if err := s.trusted(p); err != nil {
		return nil, false, nil, err
	}
	// The order matters: a write leaves what is pending only after the engine has it.
	if o := p.stripe.newest(p); o != nil {
		return o.rec, o.mark == setMark, o, nil
	}
	if rec, err = s.readDurable(l, p); !errors.Is(err, ErrNotFound) {
		return rec, false, nil, err
	}
	if rec, err = s.readMark(l, p); !errors.Is(err, ErrNotFound) {
		return rec, err == nil, nil, err
	}
	return nil, false, nil, nil
}

// replaceMark makes the write of a record in place of a mark.
func replaceMark(l *life, p *place, rec []byte) (*op, error) {
	o, err := newRecordOp(l, p, &known{}, rec)
	if err != nil {
		return nil, err
	}
	if o.mark = clearMark; o.size() > l.maxRecord {
		return nil, fmt.Errorf("%w: %d bytes, the engine takes %d", ErrTooLarge, o.size(), l.maxRecord)
	}
	return o, nil
}

// stale refuses what must not be taken any more: the record was on its way for so long that what it was superseded by may
// have been collected. The caller holds the key's lock, so that it is true at the moment that it takes effect.
func (s *Store) stale(limit time.Time) error {
	if limit.IsZero() || s.cfg.Now().Before(limit) {
		return nil
	}
	return ErrStale
}

// collectable says whether anything of a record may leave: all of it, where it is one of tombstones alone; or, where its
// clock has more than crowd entries, if that is above 0, those whose actors have written nothing that is still there.
func collectable(key, rec []byte, crowd int) (t collect.Tomb, ok bool) {
	set, err := record.Decode(key, rec)
	if err != nil || len(set.Siblings) == 0 {
		return t, false
	}
	if slices.ContainsFunc(set.Siblings, func(x causal.Sibling) bool { return !x.Tombstone }) {
		if crowd > 0 && len(set.Clock) > crowd {
			t.Entries = set.Idle()
		}
		return t, len(t.Entries) > 0
	}
	t.Digest, err = record.DigestOf(rec)
	return t, err == nil
}

// Tombstones lists the tombstones in a range, behind after where that is not nil: the records whose siblings are all
// deletions, or where marked is set those that are marked; and, with Entries, records whose clocks are crowded. It looks at limit keys at most, and ends with the last that it
// looked at, or nil where that was the end of the range.
func (s *Store) Tombstones(r ring.Range, after []byte, marked bool, limit int) (tombs []collect.Tomb, last []byte, err error) {
	scan := s.Scan
	if marked {
		scan = s.ScanMarks
	}
	seen := 0
	err = scan(r, after, func(key, rec []byte) (bool, error) {
		if seen++; seen > limit {
			return false, nil
		}
		if t, ok := collectable(key, rec, s.cfg.CrowdedClock); ok {
			t.Key, t.Entries = bytes.Clone(key), slices.Clone(t.Entries)
			tombs = append(tombs, t)
		}
		last = append(last[:0], key...)
		return true, nil
	})
	if seen <= limit {
		last = nil
	}
	return tombs, last, err
}
