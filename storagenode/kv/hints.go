package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/hints"
)

const (
	hintPrefix       = 1 + 16 + 8
	hintCountVersion = 1
	hintCountLen     = 1 + 3*8
	// hintOverhead is what a hint adds to a batch besides itself: the count of its target.
	hintOverhead = 1 + 16 + hintCountLen + opOverhead
	// hintTargetsMost bounds the nodes that one write may name.
	hintTargetsMost = 64
)

// HintTarget is what is kept for one node.
type HintTarget struct {
	ID           ring.NodeID
	Count, Bytes int64     // durable
	Since        time.Time // hints have been kept for it without a break since then, or a shorter time
}

// hintDelta is what a write changes about the hints for one node.
type hintDelta struct {
	target      ring.NodeID
	more, bytes int64
	ops         int
}

// hintBook counts hints. Only the committer changes what is durable. Safe for concurrent use.
type hintBook struct {
	ids atomic.Pointer[[]ring.NodeID] // of targets, sorted; replaced, never modified

	mu           sync.Mutex
	targets      map[ring.NodeID]*hintTarget
	count, bytes int64 // durable, of all targets
	reserved     int64 // bytes, with what is queued
}

type hintTarget struct {
	count, bytes int64
	since        time.Time
	queued       int // writes on their way
}

// list returns the nodes that hints are kept for or being stored, sorted. Read-only.
func (b *hintBook) list() []ring.NodeID {
	if p := b.ids.Load(); p != nil {
		return *p
	}
	return nil
}

func (b *hintBook) publishLocked() {
	ids := make([]ring.NodeID, 0, len(b.targets))
	for id := range b.targets {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, ring.NodeID.Compare)
	b.ids.Store(&ids)
}

// admit reserves what the writes of ops change, or says why the node must not take them; all or none.
func (b *hintBook) admit(ops []*op, limits hints.Limits, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var add int64
	fresh := 0
	for _, o := range ops {
		add += o.hint.bytes
		load := hints.Load{Bytes: b.reserved, Targets: len(b.targets) + fresh}
		if t := b.targets[o.hint.target]; t != nil {
			load.Since = t.since
		} else {
			fresh++
		}
		if err := limits.Admit(now, load, add); err != nil {
			return err
		}
	}
	b.reserveLocked(ops, now)
	return nil
}

// reserve is admit for writes that are always taken: those that delete.
func (b *hintBook) reserve(ops []*op, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserveLocked(ops, now)
}

func (b *hintBook) reserveLocked(ops []*op, now time.Time) {
	before := len(b.targets)
	for _, o := range ops {
		t := b.targets[o.hint.target]
		if t == nil {
			t = &hintTarget{since: now}
			b.targets[o.hint.target] = t
		}
		t.queued++
		b.reserved += o.hint.bytes
	}
	if len(b.targets) != before {
		b.publishLocked()
	}
}

// cancel takes back what was reserved for writes that were not queued.
func (b *hintBook) cancel(ops []*op) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range ops {
		b.reserved -= o.hint.bytes
		b.settleLocked(o.hint.target, 1)
	}
}

func (b *hintBook) settleLocked(id ring.NodeID, ops int) {
	t := b.targets[id]
	if t.queued -= ops; t.queued == 0 && t.count == 0 {
		delete(b.targets, id)
		b.publishLocked()
	}
}

// after returns what is durable for a target once d is.
func (b *hintBook) after(d hintDelta) HintTarget {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.targets[d.target]
	return HintTarget{ID: d.target, Count: t.count + d.more, Bytes: t.bytes + d.bytes, Since: t.since}
}

// commit takes note that the deltas are durable.
func (b *hintBook) commit(deltas []hintDelta) {
	if len(deltas) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range deltas {
		t := b.targets[d.target]
		t.count += d.more
		t.bytes += d.bytes
		b.count += d.more
		b.bytes += d.bytes
		b.settleLocked(d.target, d.ops)
	}
}

// reset begins with what an engine holds.
func (b *hintBook) reset(durable []HintTarget) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets, b.count, b.bytes = make(map[ring.NodeID]*hintTarget, len(durable)), 0, 0
	for _, t := range durable {
		b.targets[t.ID] = &hintTarget{count: t.Count, bytes: t.Bytes, since: t.Since}
		b.count += t.Count
		b.bytes += t.Bytes
	}
	b.reserved = b.bytes
	b.publishLocked()
}

// HintTargets lists the nodes that hints are kept for, by id.
func (s *Store) HintTargets() []HintTarget {
	b := &s.hints
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []HintTarget
	for _, id := range b.list() {
		if t := b.targets[id]; t.count > 0 {
			out = append(out, HintTarget{ID: id, Count: t.count, Bytes: t.bytes, Since: t.since})
		}
	}
	return out
}

// HintTotals returns how many durable hints there are, their bytes, and since when the oldest may have been kept; that
// is zero where there are none.
func (s *Store) HintTotals() (count, bytes int64, since time.Time) {
	b := &s.hints
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.targets {
		if t.count > 0 && (since.IsZero() || t.since.Before(since)) {
			since = t.since
		}
	}
	return b.count, b.bytes, since
}

// HintsDelivered says that all hints for target that were kept at a time are gone, so that those left are younger.
func (s *Store) HintsDelivered(target ring.NodeID, before time.Time) {
	b := &s.hints
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.targets[target]; t != nil && t.since.Before(before) {
		t.since = before
	}
}

// hintPlace returns the place of the hint for target of the key at p, to be given back with release.
func hintPlace(p *place, target ring.NodeID) *place {
	h := places.Get().(*place)
	h.hash, h.stripe, h.from = p.hash, p.stripe, hintPrefix
	h.disk = appendHintKey(h.disk[:0], target, p.hash, p.key())
	return h
}

func appendHintKey(dst []byte, target ring.NodeID, hash uint64, key []byte) []byte {
	dst = append(dst, tagHint)
	dst = append(dst, target[:]...)
	dst = binary.BigEndian.AppendUint64(dst, hash)
	return append(dst, key...)
}

// hintsFrom returns the smallest disk key of the hints for target, hintsTo one past the largest.
func hintsFrom(target ring.NodeID) []byte { return append([]byte{tagHint}, target[:]...) }

func hintsTo(target ring.NodeID) []byte {
	return append(append(hintsFrom(target), bytes.Repeat([]byte{0xff}, 8+MaxKey)...), 0xff)
}

// newHintOp makes the write that replaces the hint old, which may be nil, by rec, or removes it where that is nil.
func newHintOp(l *life, h *place, target ring.NodeID, old, rec []byte) (*op, error) {
	o := newOp(h.disk, rec)
	o.hash, o.stripe = h.hash, h.stripe
	o.hint = &hintDelta{target: target, ops: 1}
	if old != nil {
		o.hint.more--
		o.hint.bytes -= int64(len(h.disk) + len(old))
	}
	if rec != nil {
		o.hint.more++
		o.hint.bytes += int64(len(h.disk) + len(rec))
	}
	if o.size() > l.maxRecord {
		return nil, fmt.Errorf("%w: a hint of %d bytes, the engine takes %d", ErrTooLarge, o.size(), l.maxRecord)
	}
	return o, nil
}

// hintOps makes the writes that merge rec into the hints for targets. Where none is needed, newest is the write that
// brings the last of them to the disk, or nil. The caller holds the key's lock.
func (s *Store) hintOps(l *life, p *place, targets []ring.NodeID, rec []byte) (ops []*op, newest *op, err error) {
	one := func(target ring.NodeID) error {
		h := hintPlace(p, target)
		defer h.release()
		old, pending, err := s.current(l, h)
		if err != nil {
			return err
		}
		next, err := merge(h, old, rec)
		if err != nil {
			return s.readError(err)
		}
		if next == nil {
			if pending != nil && (newest == nil || pending.seq > newest.seq) {
				newest = pending
			}
			return nil
		}
		o, err := newHintOp(l, h, target, old, next)
		ops = append(ops, o)
		return err
	}
	for _, target := range targets {
		if err := one(target); err != nil {
			return nil, nil, err
		}
	}
	return ops, newest, nil
}

// enqueueHints queues the writes of hints, all or none.
func (s *Store) enqueueHints(p *place, ops []*op) error {
	now := s.cfg.Now()
	if err := s.hints.admit(ops, s.cfg.Hints, now); err != nil {
		return err
	}
	if err := p.stripe.enqueue(&s.queue, ops...); err != nil {
		s.hints.cancel(ops)
		return err
	}
	s.moved(p.hash)
	return nil
}

func checkTargets(targets []ring.NodeID) error {
	if len(targets) == 0 || len(targets) > hintTargetsMost {
		return fmt.Errorf("%w: a hint for %d nodes", ErrInvalid, len(targets))
	}
	for i, id := range targets {
		if id.IsZero() || slices.Contains(targets[:i], id) {
			return fmt.Errorf("%w: a hint for %s, or for it twice", ErrInvalid, id)
		}
	}
	return nil
}

// ApplyHint merges a record into the hints kept for each of targets, which are different nodes, at most 64. It is
// durable, ordered and idempotent as Apply is, and keeps rec in the same way. If the error is nil, done is called exactly
// once, maybe before ApplyHint returns: with nil once hints that cover rec are durable for all targets, else with
// ErrInDoubt. With an error nothing was done.
//
// Errors: those of Apply, and ErrHintsFull.
func (s *Store) ApplyHint(targets []ring.NodeID, key, rec []byte, done func(error)) error {
	return s.ApplyHintBefore(time.Time{}, targets, key, rec, done)
}

// ApplyHintBefore is ApplyHint that takes nothing any more once limit has passed: then the error is ErrStale.
func (s *Store) ApplyHintBefore(limit time.Time, targets []ring.NodeID, key, rec []byte, done func(error)) error {
	durable, err := s.applyHint(limit, targets, key, rec, callback{mint: done})
	s.metrics.hint(durable, err)
	if durable && done != nil {
		done(nil)
	}
	return err
}

// applyHint says with durable that the callback was not taken.
func (s *Store) applyHint(limit time.Time, targets []ring.NodeID, key, rec []byte, call callback) (durable bool, err error) {
	if err := checkTargets(targets); err != nil {
		return false, err
	}
	p, err := s.find(key)
	if err != nil {
		return false, err
	}
	defer p.release()
	clock, err := checkRecord(key, rec)
	if err != nil {
		return false, err
	}
	l, err := s.acquireWrite()
	if err != nil {
		return false, err
	}
	defer l.gate.RUnlock()
	l.hear(clock, nil)
	if s.queue.isFull() {
		return false, ErrOverloaded
	}
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	if err := s.stale(limit); err != nil {
		return false, err
	}
	ops, newest, err := s.hintOps(l, p, targets, rec)
	if err != nil {
		return false, err
	}
	if len(ops) == 0 {
		return newest == nil || !p.stripe.attach(newest, call), nil
	}
	// The queue is first in, first out: when the last of them is durable, all are.
	ops[len(ops)-1].call = call
	return false, s.enqueueHints(p, ops)
}

// held returns the merge of all that the node holds of the key, whether as its own record or for others, as far as it is
// not yet delivered. Of several records none is rec; pending is the last write that brings a part of it to the disk. The
// caller holds the key's lock.
func (s *Store) held(l *life, p *place) (set causal.Set, rec []byte, pending *op, err error) {
	read := func(at *place) error {
		b, o, err := s.current(l, at)
		if err != nil || b == nil {
			return err
		}
		one, err := decodeLocal(at, b)
		if err != nil {
			return s.readError(err)
		}
		if o != nil && (pending == nil || o.seq > pending.seq) {
			pending = o
		}
		if len(set.Clock) == 0 {
			set, rec = one, b
			return nil
		}
		if !bytes.Equal(rec, b) {
			set, rec = causal.Merge(set, one), nil
		}
		return nil
	}
	if err = read(p); err != nil {
		return causal.Set{}, nil, nil, err
	}
	for _, id := range s.hints.list() {
		h := hintPlace(p, id)
		err = read(h)
		h.release()
		if err != nil {
			return causal.Set{}, nil, nil, err
		}
	}
	return set, rec, pending, nil
}

// ReadHeld is Read for a node that does not own the key: it returns the merge of all durable records of the key that the
// node keeps, for others or from a time when the key was its own.
func (s *Store) ReadHeld(key []byte) ([]byte, error) {
	ids := s.hints.list()
	if len(ids) == 0 {
		return s.Read(key)
	}
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
	rec, err := s.readDurable(l, p)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	for _, id := range ids {
		h := hintPlace(p, id)
		b, err := s.readDurable(l, h)
		if err == nil {
			if next, merr := merge(h, rec, b); merr != nil {
				err = s.readError(merr)
			} else if next != nil {
				rec = next
			}
		}
		h.release()
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	if rec == nil {
		return nil, ErrNotFound
	}
	return rec, nil
}

// ScanHints calls fn with the durable hints for target, by slot and hash, as they were when it was called; after, if it
// is not nil, is a key behind which it starts. What it hands out, and how it ends, is as with Scan, but that a hint whose
// record is damaged is passed over, counted and logged: it cannot be delivered, and others can.
func (s *Store) ScanHints(target ring.NodeID, after []byte, fn func(key, rec []byte) (more bool, err error)) error {
	from := hintsFrom(target)
	if after != nil {
		if len(after) > MaxKey {
			return fmt.Errorf("%w: a key of %d bytes", ErrInvalid, len(after))
		}
		from = append(appendHintKey(nil, target, ring.Hash(after), after), 0)
	}
	l, err := s.acquire()
	if err != nil {
		return err
	}
	defer l.gate.RUnlock()
	return l.eng.Iterate(from, hintsTo(target), func(k, rec []byte) (bool, error) {
		if l.ending.Load() {
			if s.closed.Load() {
				return false, ErrClosed
			}
			return false, ErrReopening
		}
		if len(k) <= hintPrefix {
			return false, s.readError(fmt.Errorf("%w: a disk key of %d bytes", engine.ErrDamaged, len(k)))
		}
		if err := record.Verify(k[hintPrefix:], rec); err != nil {
			s.metrics.damaged.Inc()
			s.cfg.Logger.Error().Err(err).Hex("key", k[hintPrefix:]).Stringer("peer", target).Msg("a hint is damaged and stays where it is")
			return true, nil
		}
		return fn(k[hintPrefix:], rec)
	})
}

// DropHint removes the hint for target, which has confirmed seen, unless it is no longer exactly that. If the error is
// nil, done is called exactly once, maybe before DropHint returns: with whether the hint is durably gone. Errors: those
// of Apply.
func (s *Store) DropHint(target ring.NodeID, key, seen []byte, done func(dropped bool, err error)) error {
	kept, err := s.dropHint(target, key, seen, callback{apply: done, changed: true})
	if kept && err == nil && done != nil {
		done(false, nil)
	}
	return err
}

func (s *Store) dropHint(target ring.NodeID, key, seen []byte, call callback) (kept bool, err error) {
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
	h := hintPlace(p, target)
	defer h.release()
	old, _, err := s.current(l, h)
	if err != nil {
		return false, err
	}
	if old == nil || !bytes.Equal(old, seen) {
		return true, nil
	}
	o, err := newHintOp(l, h, target, old, nil)
	if err != nil {
		return false, err
	}
	o.call = call
	// From here on the node may mint the key again without this record, so not as an actor that the record names.
	l.forget(clock)
	ops := []*op{o}
	s.hints.reserve(ops, s.cfg.Now())
	if err := p.stripe.enqueue(&s.queue, ops...); err != nil {
		s.hints.cancel(ops)
		return false, err
	}
	s.moved(p.hash)
	return false, nil
}

// mintHints makes the writes of a new dot that is issued for others: upon all that the node holds of the key, and kept
// for each of m.HintFor.
func (s *Store) mintHints(l *life, p *place, m *Mint, base causal.Set, now time.Time) ([]*op, error) {
	local, _, _, err := s.held(l, p)
	if err != nil {
		return nil, err
	}
	rec, dot, err := s.mintRecord(l, &l.fallback, m, local, base, now)
	if err != nil {
		return nil, err
	}
	ops, _, err := s.hintOps(l, p, m.HintFor, rec)
	if err != nil {
		return nil, err
	}
	ops[len(ops)-1].dot = dot
	return ops, nil
}

// readHintCounts returns what the engine's counts say, or counts anew where they cannot be trusted.
func (s *Store) readHintCounts(eng engine.Engine, recount bool) ([]HintTarget, error) {
	var out []HintTarget
	err := eng.Iterate([]byte{tagHintCount}, []byte{tagHintCount + 1}, func(k, v []byte) (bool, error) {
		t, err := decodeHintCount(k, v)
		out = append(out, t)
		return true, err
	})
	if err == nil && !eng.Suspect() && !recount {
		return out, nil
	}
	if err != nil && !errors.Is(err, engine.ErrDamaged) && !errors.Is(err, errState) {
		return nil, fmt.Errorf("kv: reading the counts of hints: %w", err)
	}
	s.cfg.Logger.Error().Err(err).Msg("the counts of hints are in doubt: hints are counted")
	return s.countHints(eng, nil)
}

// countHints counts the hints in an engine but for those in some ranges, of which both ends are inclusive.
func (s *Store) countHints(eng engine.Engine, but []engine.KeyRange) (out []HintTarget, err error) {
	err = eng.Iterate([]byte{tagHint}, []byte{tagHint + 1}, func(k, v []byte) (bool, error) {
		gone := slices.ContainsFunc(but, func(r engine.KeyRange) bool { return bytes.Compare(k, r.From) >= 0 && bytes.Compare(k, r.To) <= 0 })
		if gone || len(k) <= hintPrefix {
			return true, nil
		}
		id := ring.NodeID(k[1:17])
		if n := len(out); n == 0 || out[n-1].ID != id {
			out = append(out, HintTarget{ID: id, Since: s.cfg.Now()})
		}
		t := &out[len(out)-1]
		t.Count++
		t.Bytes += int64(len(k) + len(v))
		return true, nil
	})
	if errors.Is(err, engine.ErrDamaged) {
		s.cfg.Logger.Error().Err(err).Msg("not all hints could be counted")
		return out, nil
	}
	return out, err
}

// recountHints puts into b the counts of the hints that are left once those in some ranges are gone, in place of the counts in the engine:
// those would be read again at the next opening, and hints that nobody holds be waited for.
func (s *Store) recountHints(eng engine.Engine, b *engine.Batch, gone []engine.KeyRange) error {
	err := eng.Iterate([]byte{tagHintCount}, []byte{tagHintCount + 1}, func(k, _ []byte) (bool, error) {
		b.Delete(k)
		return true, nil
	})
	if err != nil && !errors.Is(err, engine.ErrDamaged) {
		return fmt.Errorf("kv: reading the counts of hints: %w", err)
	}
	left, err := s.countHints(eng, gone)
	for _, t := range left {
		b.Put(appendHintCount(t))
	}
	return err
}

// appendHintCount returns the key and the value of a target's count.
func appendHintCount(t HintTarget) (key, value []byte) {
	key = append([]byte{tagHintCount}, t.ID[:]...)
	value = binary.BigEndian.AppendUint64([]byte{hintCountVersion}, uint64(max(t.Count, 0)))
	value = binary.BigEndian.AppendUint64(value, uint64(max(t.Bytes, 0)))
	return key, binary.BigEndian.AppendUint64(value, uint64(max(t.Since.UnixMilli(), 0)))
}

func decodeHintCount(k, v []byte) (HintTarget, error) {
	if len(k) != 1+16 || len(v) != hintCountLen || v[0] != hintCountVersion {
		return HintTarget{}, fmt.Errorf("%w: a count of hints of %d and %d bytes", errState, len(k), len(v))
	}
	t := HintTarget{
		ID: ring.NodeID(k[1:]), Count: int64(binary.BigEndian.Uint64(v[1:])), Bytes: int64(binary.BigEndian.Uint64(v[9:])),
	}
	ms := binary.BigEndian.Uint64(v[17:])
	if t.Count < 0 || t.Bytes < 0 || ms > 1<<52 {
		return HintTarget{}, fmt.Errorf("%w: a count of hints out of range", errState)
	}
	t.Since = time.UnixMilli(int64(ms))
	return t, nil
}
