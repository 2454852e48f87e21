package kv

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// refillBatch is about how much one batch of a refill holds, in bytes.
const refillBatch = 1 << 20

// Refill ends the doubt about a range.
type Refill struct {
	// Range lies within one of Doubts.Ranges.
	Range ring.Range
	// Keys and Records are what other owners hold of it, each key once; verified by Refill. They belong to the store.
	Keys, Records [][]byte
	// Keep merges them with what is here. Otherwise, as it must be where others can vouch for the range, that goes:
	// older versions, and what was deleted and collected since, may be among it.
	Keep bool
}

// Refill replaces what is here of a range in doubt. If the error is nil, done is called exactly once: with nil once that
// is durable and the range in doubt no longer, with ErrInDoubt or a failed read if it may be so or not. Errors: ErrInvalid,
// ErrOverloaded, ErrDiskFull, ErrReopening, ErrClosed.
func (s *Store) Refill(r Refill, done func(error)) error {
	if r.Range.From >= r.Range.To || r.Range.To > ring.Slots || len(r.Keys) != len(r.Records) {
		return fmt.Errorf("%w: a refill of %v with %d keys", ErrInvalid, r.Range, len(r.Keys))
	}
	records := make(map[string][]byte, len(r.Keys))
	var clocks []causal.Vector
	for i, key := range r.Keys {
		clock, err := checkRecord(key, r.Records[i])
		if err != nil {
			return err
		}
		if !r.Range.Contains(ring.SlotOf(key)) || records[string(key)] != nil {
			return fmt.Errorf("%w: a key outside of the range, or twice", ErrInvalid)
		}
		records[string(key)] = r.Records[i]
		clocks = append(clocks, clock)
	}
	l, err := s.acquireWrite()
	if err != nil {
		return err
	}
	defer l.gate.RUnlock()
	for _, clock := range clocks {
		l.hear(clock, nil)
	}
	o := newOp(nil, nil)
	o.call = callback{mint: done}
	o.exec = func(c *committer) (refused, failed error) { return c.refill(r, records) }
	return s.queue.push(o)
}

// refilling is one Refill being carried out.
type refilling struct {
	c       *committer
	keep    bool
	records map[string][]byte
	next    state // after the batches so far
	failed  error // of the engine to write
}

// refill carries out a Refill. The doubt ends with the last batch, so that a crash before it leaves the range in doubt.
// refused is told the caller alone; failed ends this life of the engine.
func (c *committer) refill(r Refill, records map[string][]byte) (refused, failed error) {
	s := c.store
	if d := s.doubts.load(); d.first(r.Range) != r.Range.From || d.minus(r.Range).Slots() != d.Slots()-r.Range.Len() {
		return fmt.Errorf("%w: range %v is not in doubt", ErrInvalid, r.Range), nil
	}
	f := refilling{c: c, keep: r.Keep, records: records, next: c.state}
	c.batch.Reset()
	refused = c.life.eng.Iterate(slotBound(tagRecord, r.Range.From), slotBound(tagRecord, r.Range.To), f.old)
	if refused == nil && !r.Keep {
		// A mark that the other owners hold too is one step from being removed by all.
		refused = c.life.eng.Iterate(slotBound(tagMark, r.Range.From), slotBound(tagMark, r.Range.To), func(k, _ []byte) (bool, error) {
			c.batch.Delete(k)
			return true, f.flush()
		})
	}
	if refused != nil || f.failed != nil {
		if refused != nil {
			s.met(refused, 0, false)
		}
		return refused, f.failed
	}
	for key, rec := range records {
		c.batch.Put(appendRecordKey(nil, ring.Hash([]byte(key)), []byte(key)), rec)
		f.next.keys++
		f.next.bytes += int64(len(rec))
		if err := f.flush(); err != nil {
			return nil, err
		}
	}
	f.next.keys, f.next.bytes = max(f.next.keys, 0), max(f.next.bytes, 0) // what was lost was never subtracted
	left := s.doubts.load().minus(r.Range)
	o := &s.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := c.applyDoubts(left, f.next); err != nil {
		return nil, err
	}
	o.doubt(slotChanges(r.Range))
	c.life.cache.drop(r.Range)
	s.doubts.end(r.Range)
	s.metrics.refills.Inc()
	s.metrics.refilled.Add(float64(len(records)))
	return nil, nil
}

// flush writes the batch once it is large enough. Its end is synced with the last.
func (f *refilling) flush() error {
	if f.c.batch.Size() < refillBatch {
		return nil
	}
	err := f.c.life.eng.Apply(&f.c.batch, false)
	f.c.batch.Reset()
	f.failed = errors.Join(f.failed, err)
	return err
}

// old replaces, merges or removes a record that is here.
func (f *refilling) old(k, old []byte) (bool, error) {
	key := k[recordPrefix:]
	rec := f.records[string(key)]
	if f.keep && record.Verify(key, old) == nil {
		if rec == nil {
			return true, nil
		}
		p, err := f.c.store.find(key)
		if err != nil {
			return false, err
		}
		merged, err := merge(p, old, rec)
		p.release()
		if err != nil {
			return false, err
		}
		if merged == nil || opSize(len(k), len(merged)) > f.c.life.maxRecord {
			merged = bytes.Clone(old)
		}
		f.records[string(key)], rec = merged, merged
	}
	f.next.keys--
	f.next.bytes -= int64(len(old))
	if rec == nil {
		f.c.batch.Delete(k)
	}
	return true, f.flush()
}

// end takes a range out, unless everything came into doubt meanwhile.
func (d *doubts) end(r ring.Range) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.whole {
		d.set(d.load().minus(r))
	}
}

// ScanDoubted is Scan over a range that is in doubt as a whole, in part or not at all: it shows what is here, and passes
// over what is damaged. It is for owners that are all in doubt: what they hold together is all there is.
func (s *Store) ScanDoubted(r ring.Range, after []byte, fn func(key, rec []byte) (more bool, err error)) error {
	from, to, err := s.scanBounds(tagRecord, r, after)
	if err != nil || string(from) >= string(to) {
		return err
	}
	l, err := s.acquire()
	if err != nil {
		return err
	}
	defer l.gate.RUnlock()
	visit := s.visit(l, fn)
	return l.eng.Iterate(from, to, func(k, rec []byte) (bool, error) {
		if len(k) <= recordPrefix || record.Verify(k[recordPrefix:], rec) != nil {
			return true, nil
		}
		return visit(k, rec)
	})
}
