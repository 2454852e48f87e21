package kv

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// Mint is a client's write that asks for a dot. The store keeps none of its slices.
type Mint struct {
	Key         []byte // 1 to MaxKey bytes
	Value       []byte // empty for a tombstone
	ContentType string
	Meta        []byte
	Tombstone   bool
	Checksum    uint32 // CRC32C of Value, computed where it entered
	// Context is what the writer has seen; nil replaces all that is known here.
	Context *causal.Context
	// LastWriteWins: the write replaces all that is known here, also what Context does not cover.
	LastWriteWins bool
	// RequestID names the write, if it is not empty: the same id for the same key makes no second dot. It is remembered
	// until Deadline, and if the client chose it for Config.RequestIDTTL.
	RequestID       string
	ClientRequestID bool
	// AskedActor, where the write may have been minted before, is the store's actor when it was first asked for: under
	// another one it is minted only if RequestID is remembered, and ErrInDoubt otherwise. Zero for a write that is new.
	AskedActor causal.Actor
	// Base is a record of the key that is merged first, in the same step; it is kept only with the write.
	Base []byte
	// HintFor names the owners that a node which is none mints for: the write is kept as a hint for each, and minted upon
	// all that the node holds of the key. Different nodes, at most 64; empty at an owner.
	HintFor []ring.NodeID
	// BaseLimit is when Base must not be taken any more, for its age; zero is never.
	BaseLimit time.Time
	// Deadline is when the mint is no longer wanted; zero is never. A write that was queued is never dropped.
	Deadline time.Time
}

// Minted is what a mint made.
type Minted struct {
	Record   []byte // the key's newest local record, which covers Dot; shared, not to be modified
	Dot      causal.Dot
	Repeated bool // the request id was known: Dot is that of the first time
}

// Mint issues a dot for a write and queues it. It returns before the write is durable; whoever reads the store does not
// see it until then, later mints and applies of the key do. If the error is nil, durable is called exactly once, maybe
// before Mint returns: with nil once the record is durable, else with ErrInDoubt. A repeat of a write that is durable
// calls it before it returns. With an error nothing was done and nothing will be, but for a repeated id with ErrInDoubt.
//
// Errors: ErrInvalid, ErrExpired, ErrStale, ErrOverloaded, ErrBehind, ErrTooManySiblings, ErrTooLarge, ErrClockTooLarge,
// ErrHintsFull, ErrDiskFull, ErrReopening, ErrClosed, and those of a failed local read, which is never taken for absence.
func (s *Store) Mint(m Mint, durable func(error)) (Minted, error) {
	out, now, err := s.mint(&m, callback{mint: durable})
	s.metrics.mint(out.Repeated, err)
	if err != nil {
		return Minted{}, err
	}
	if now && durable != nil {
		durable(nil)
	}
	return out, nil
}

// mint says with now that the callback was not taken: the record is durable.
func (s *Store) mint(m *Mint, call callback) (out Minted, now bool, err error) {
	base, err := checkMint(m)
	if err != nil {
		return Minted{}, false, err
	}
	p, err := s.find(m.Key)
	if err != nil {
		return Minted{}, false, err
	}
	defer p.release()
	l, err := s.acquireWrite()
	if err != nil {
		return Minted{}, false, err
	}
	defer l.gate.RUnlock()
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()

	clock := s.cfg.Now()
	if !m.Deadline.IsZero() && !clock.Before(m.Deadline) {
		return Minted{}, false, ErrExpired
	}
	if len(m.Base) > 0 {
		if err := s.stale(m.BaseLimit); err != nil {
			return Minted{}, false, err
		}
	}
	var id requestID
	if m.RequestID != "" {
		id = s.requests.hash(m.Key, m.RequestID)
		if dot, known := s.requests.get(id, clock); known {
			return s.repeat(l, p, m, dot, call)
		}
	}
	if m.AskedActor != (causal.Actor{}) && m.AskedActor != l.actor() {
		// Minted anew, the value could come back after somebody has read it and replaced it.
		return Minted{}, false, fmt.Errorf("%w: the store has another actor than when the write was first asked for", ErrInDoubt)
	}
	o, err := s.enqueueMint(l, p, m, base, clock, func(o *op) { o.call, o.request, o.named = call, id, m.RequestID != "" })
	if err != nil {
		return Minted{}, false, err
	}
	if o.named {
		s.requests.put(id, o.dot, s.remember(m, clock), clock, m.ClientRequestID)
	}
	s.minted.Add(1)
	return Minted{Record: o.rec, Dot: o.dot}, false, nil
}

// enqueueMint makes the write of a new dot and queues it: several writes where it is kept for others, of which it returns
// the last. complete finishes the one that is returned before it is queued.
func (s *Store) enqueueMint(l *life, p *place, m *Mint, base causal.Set, now time.Time, complete func(*op)) (*op, error) {
	if s.queue.isFull() {
		return nil, ErrOverloaded
	}
	if len(m.HintFor) > 0 {
		ops, err := s.mintHints(l, p, m, base, now)
		if err != nil {
			return nil, err
		}
		last := ops[len(ops)-1]
		complete(last)
		return last, s.enqueueHints(p, ops)
	}
	o, err := s.mintOp(l, p, m, base, now)
	if err != nil {
		return nil, err
	}
	complete(o)
	return o, s.enqueueRecord(p, o)
}

// checkMint checks what needs no lock, and decodes the base.
func checkMint(m *Mint) (base causal.Set, err error) {
	if m.Tombstone && len(m.Value) > 0 {
		return causal.Set{}, fmt.Errorf("%w: a tombstone with a value", ErrInvalid)
	}
	if record.Checksum(m.Value) != m.Checksum {
		return causal.Set{}, fmt.Errorf("%w: the value's checksum is wrong", ErrInvalid)
	}
	if m.Context != nil {
		if err := m.Context.Valid(); err != nil {
			return causal.Set{}, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	if len(m.HintFor) > 0 {
		if err := checkTargets(m.HintFor); err != nil {
			return causal.Set{}, err
		}
	}
	if len(m.Base) == 0 {
		return causal.Set{}, nil
	}
	if err := record.Verify(m.Key, m.Base); err != nil {
		return causal.Set{}, fmt.Errorf("%w: base: %w", ErrInvalid, err)
	}
	if base, err = record.Decode(m.Key, m.Base); err != nil {
		return causal.Set{}, fmt.Errorf("%w: base: %w", ErrInvalid, err)
	}
	return base, nil
}

// mintOp makes the write of a new dot, not queued yet. A dot whose write is then refused is never used.
func (s *Store) mintOp(l *life, p *place, m *Mint, base causal.Set, now time.Time) (*op, error) {
	old, err := s.known(l, p)
	if err != nil {
		return nil, err
	}
	if !replacesAll(m, &old.set) || len(base.Clock) > 0 {
		// Values that stay are written again, so they are needed.
		if old, err = s.complete(l, p, old); err != nil {
			return nil, err
		}
	}
	rec, dot, err := s.mintRecord(l, &l.own, m, old.set, base, now)
	if err != nil {
		return nil, err
	}
	var o *op
	if old.marked {
		o, err = replaceMark(l, p, rec)
	} else {
		o, err = newRecordOp(l, p, &old, rec)
	}
	if err != nil {
		return nil, err
	}
	o.dot = dot
	return o, nil
}

// replacesAll says whether no sibling of local outlives the mint.
func replacesAll(m *Mint, local *causal.Set) bool {
	if m.Context == nil || m.LastWriteWins {
		return true
	}
	for i := range local.Siblings {
		if !m.Context.Covers(local.Siblings[i].Dot) {
			return false
		}
	}
	return true
}

// mintRecord makes the record that local is once m was written with a new dot.
func (s *Store) mintRecord(l *life, as *minter, m *Mint, local, base causal.Set, now time.Time) ([]byte, causal.Dot, error) {
	if len(base.Clock) > 0 {
		local = causal.Merge(local, base)
	}
	l.hear(local.Clock, nil)
	if m.Context != nil {
		l.hear(m.Context.Vector, m.Context.Dots)
	}
	dot, err := l.issue(as)
	if err != nil {
		return nil, causal.Dot{}, err
	}
	set, err := causal.Mint(local, s.vouched(m.Key, m.Context), causal.Sibling{
		Dot: dot, Tombstone: m.Tombstone, Time: hybridTime(s.wall(now), local.Siblings), ContentType: m.ContentType,
		Meta: m.Meta, Checksum: m.Checksum, Value: m.Value,
	})
	if err != nil {
		return nil, causal.Dot{}, err
	}
	if m.LastWriteWins {
		set = set.Latest() // its hybrid time is above that of all that is known here
	}
	if err := set.Check(s.cfg.Limits); err != nil {
		s.logLimit(m, err)
		return nil, causal.Dot{}, err
	}
	return record.Append(nil, m.Key, set), dot, nil
}

// repeat answers a mint whose id is known, with the first dot and the newest local record.
func (s *Store) repeat(l *life, p *place, m *Mint, dot causal.Dot, call callback) (Minted, bool, error) {
	rec, pending, err := s.local(l, p, m)
	if err != nil {
		return Minted{}, false, err
	}
	var clock causal.Vector
	if rec != nil {
		if clock, err = record.DecodeClock(p.key(), rec); err != nil {
			return Minted{}, false, s.readError(fmt.Errorf("%w: %w", engine.ErrDamaged, err))
		}
	}
	if !clock.Covers(dot) {
		return Minted{}, false, fmt.Errorf("%w: the record that was written under this request id is gone", ErrInDoubt)
	}
	out := Minted{Record: rec, Dot: dot, Repeated: true}
	return out, pending == nil || !p.stripe.attach(pending, call), nil
}

// local returns what m would be minted upon, and the last write that brings a part of it to the disk.
func (s *Store) local(l *life, p *place, m *Mint) (rec []byte, pending *op, err error) {
	if len(m.HintFor) == 0 {
		return s.current(l, p)
	}
	set, rec, pending, err := s.held(l, p)
	if err == nil && rec == nil && len(set.Clock) > 0 {
		rec = record.Append(nil, m.Key, set)
	}
	return rec, pending, err
}

// lateMost is how long after its deadline a copy of a request may still come: one that was sent first, on a connection that stalled, while
// the copy that was sent again went ahead. A gateway's id is remembered for as long beyond the deadline, so that it makes no second dot.
const lateMost = 10 * time.Second

// remember returns until when the id of m, which came now, is remembered.
func (s *Store) remember(m *Mint, now time.Time) time.Time {
	limit := now.Add(s.cfg.RequestIDTTL)
	if late := m.Deadline.Add(lateMost); !m.ClientRequestID && !m.Deadline.IsZero() && late.Before(limit) {
		return late
	}
	return limit
}

func (s *Store) wall(now time.Time) time.Time {
	if s.cfg.Wall != nil {
		return s.cfg.Wall()
	}
	return now
}

// hybridTime is the later of now and just after the newest sibling, in milliseconds << 16 (Kulkarni et al., "Logical
// Physical Clocks", 2014). Only the policy "last write wins" looks at it.
func hybridTime(now time.Time, siblings []causal.Sibling) uint64 {
	t := uint64(max(now.UnixMilli(), 0)) << 16
	for i := range siblings {
		if last := siblings[i].Time; last >= t {
			t = last
			if t < math.MaxUint64 {
				t++
			}
		}
	}
	return t
}

// Apply merges a record that was minted anywhere, and queues the result. Applying a record twice, or an older one,
// changes nothing; where the key's tombstone is marked, an equal record changes nothing, and any other replaces it. rec belongs to the store from here on and must not be modified, also where an error is returned; key
// is copied. If the error is nil, done is called exactly once, maybe before Apply returns: with nil once a state that
// covers rec is durable (changed says whether rec added to it), else with ErrInDoubt. With an error nothing was done.
//
// Errors: ErrInvalid, ErrOverloaded, ErrTooLarge (the merge is beyond what the engine takes), ErrDiskFull,
// ErrReopening, ErrClosed, and those of a failed local read.
func (s *Store) Apply(key, rec []byte, done func(changed bool, err error)) error {
	return s.ApplyBefore(time.Time{}, key, rec, done)
}

// ApplyBefore is Apply that takes nothing any more once limit has passed: then the error is ErrStale.
func (s *Store) ApplyBefore(limit time.Time, key, rec []byte, done func(changed bool, err error)) error {
	outcome, err := s.apply(limit, key, rec, callback{apply: done})
	s.metrics.apply(outcome, err)
	if err == nil && outcome == unchangedDurable && done != nil {
		done(false, nil)
	}
	return err
}

// applied is what became of a record.
type applied int

const (
	changed applied = iota
	unchangedPending
	unchangedDurable // the callback was not taken
)

func (s *Store) apply(limit time.Time, key, rec []byte, call callback) (applied, error) {
	p, err := s.find(key)
	if err != nil {
		return 0, err
	}
	defer p.release()
	clock, err := checkRecord(key, rec)
	if err != nil {
		return 0, err
	}
	l, err := s.acquireWrite()
	if err != nil {
		return 0, err
	}
	defer l.gate.RUnlock()
	l.hear(clock, nil)
	if s.queue.isFull() {
		return 0, ErrOverloaded
	}
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()

	if err := s.stale(limit); err != nil {
		return 0, err
	}
	old, err := s.known(l, p)
	if err != nil {
		return 0, err
	}
	next := rec
	if !old.marked {
		next, err = s.mergeKnown(l, p, &old, rec)
	} else if bytes.Equal(old.rec, rec) {
		next = nil
	}
	if err != nil {
		return 0, err
	}
	if next == nil {
		if old.pending != nil && p.stripe.attach(old.pending, call) {
			return unchangedPending, nil
		}
		return unchangedDurable, nil
	}
	var o *op
	if old.marked {
		o, err = replaceMark(l, p, next)
	} else {
		o, err = newRecordOp(l, p, &old, next)
	}
	if err != nil {
		return 0, err
	}
	o.call = call
	o.call.changed = true
	return changed, s.enqueueRecord(p, o)
}

// checkRecord verifies a record that came from outside, and returns its clock.
func checkRecord(key, rec []byte) (causal.Vector, error) {
	if err := record.Verify(key, rec); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	clock, err := record.DecodeClock(key, rec)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(clock) == 0 {
		return nil, fmt.Errorf("%w: a record of no write", ErrInvalid)
	}
	return clock, nil
}

// merge returns the record that has old and rec merged: nil where that is old, rec itself where it is rec. old may be
// nil; rec was verified.
func merge(p *place, old, rec []byte) ([]byte, error) {
	if old == nil {
		return rec, nil
	}
	if bytes.Equal(old, rec) {
		return nil, nil
	}
	local, err := decodeLocal(p, old)
	if err != nil {
		return nil, err
	}
	other, err := record.Decode(p.key(), rec)
	if err != nil {
		return nil, err
	}
	merged := causal.Merge(local, other)
	if sameSet(&merged, &local) {
		return nil, nil
	}
	if sameSet(&merged, &other) {
		return rec, nil
	}
	return record.Append(nil, p.key(), merged), nil
}

// sameSet says whether two sets, of which one is a merge with the other, have equal bytes. A value is equal where its
// dot and checksum are.
func sameSet(a, b *causal.Set) bool {
	return slices.Equal(a.Clock, b.Clock) && slices.EqualFunc(a.Siblings, b.Siblings, func(x, y causal.Sibling) bool {
		return x.Dot == y.Dot && x.Checksum == y.Checksum && x.Time == y.Time && x.Tombstone == y.Tombstone &&
			x.Expiry == y.Expiry && x.ContentType == y.ContentType && len(x.Value) == len(y.Value) &&
			bytes.Equal(x.Meta, y.Meta)
	})
}

// current returns the newest record of the key, also one that is marked, and the write that carries it where that is not
// durable yet. The record is nil where there is none. The caller holds the key's lock. What is read from the engine is
// verified whole, so that damage is neither merged nor minted upon.
func (s *Store) current(l *life, p *place) (rec []byte, pending *op, err error) {
	rec, _, pending, err = s.look(l, p)
	return rec, pending, err
}

// readDurable returns the record in the engine, verified, in memory of its own; ErrNotFound where there is none.
func (s *Store) readDurable(l *life, p *place) ([]byte, error) {
	if err := s.trusted(p); err != nil {
		return nil, err
	}
	rec, err := l.eng.Get(p.disk, nil)
	if err != nil {
		if errors.Is(err, engine.ErrNotFound) {
			return nil, ErrNotFound
		}
		return nil, s.readError(err)
	}
	if err := record.Verify(p.key(), rec); err != nil {
		s.met(engine.ErrDamaged, p.hash, p.disk[0] == tagRecord)
		return nil, s.readError(fmt.Errorf("%w: %w", engine.ErrDamaged, err))
	}
	return rec, nil
}

// decodeLocal decodes a record that current returned.
func decodeLocal(p *place, rec []byte) (causal.Set, error) {
	if rec == nil {
		return causal.Set{}, nil
	}
	set, err := record.Decode(p.key(), rec)
	if err != nil {
		return causal.Set{}, fmt.Errorf("%w: %w", engine.ErrDamaged, err)
	}
	return set, nil
}

// newRecordOp makes the write that replaces old by rec.
func newRecordOp(l *life, p *place, old *known, rec []byte) (*op, error) {
	if size := opSize(len(p.disk), len(rec)); size > l.maxRecord {
		return nil, fmt.Errorf("%w: %d bytes, the engine takes %d", ErrTooLarge, size, l.maxRecord)
	}
	o := newOp(p.disk, rec)
	o.hash, o.stripe = p.hash, p.stripe
	o.bytesMore = int64(len(rec)) - int64(old.size)
	if old.rec == nil {
		o.keysMore = 1
	}
	return o, o.digest(old.rec)
}

// logLimit logs a mint refused by a limit, at most one a second.
func (s *Store) logLimit(m *Mint, err error) {
	now := s.cfg.Now().Unix()
	if last := s.lastLimitLog.Load(); last == now || !s.lastLimitLog.CompareAndSwap(last, now) {
		return
	}
	s.cfg.Logger.Warn().Err(err).Hex("key", m.Key).Str("request_id", m.RequestID).
		Msg("a write was refused because its record would exceed a limit")
}
