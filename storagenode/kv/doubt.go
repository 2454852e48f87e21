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

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// ErrDoubted refuses what concerns a slot in doubt: what is here of it proves nothing, neither a record nor the lack of
// one. It wraps engine.ErrDamaged. Nothing was done.
var ErrDoubted = fmt.Errorf("kv: slot is in doubt until it was refilled: %w", engine.ErrDamaged)

const (
	doubtVersion = 1
	// rangesMost bounds the ranges in doubt; beyond it, those that lie closest are joined.
	rangesMost = 1 << 14
	// hurtMost bounds the slots that wait to be put in doubt; what finds no place is found again.
	hurtMost = 1024
	// salvagePause is the pause after a salvage that found nothing; it doubles up to salvagePauseMax.
	salvagePause    = time.Second
	salvagePauseMax = time.Minute
)

var doubtKey = []byte{tagDoubt}

// Doubts is what the store holds and must not answer from: newer versions may be gone, older ones or deleted ones may
// have come up instead. Slots in Ranges are neither read nor written but by Refill.
type Doubts struct {
	// Whole says that node state may be missing or old too, and Ranges began as all slots. It ends with the last of them.
	Whole bool
	// Ranges are in order and do not touch. Read-only.
	Ranges []ring.Range
}

// Any says whether anything is in doubt.
func (d Doubts) Any() bool { return d.Whole || len(d.Ranges) > 0 }

// Slots counts the slots in doubt.
func (d Doubts) Slots() (n int) {
	for _, r := range d.Ranges {
		n += r.Len()
	}
	return n
}

// first returns the first slot in doubt within r, or r.To.
func (d Doubts) first(r ring.Range) ring.Slot {
	i, inside := slices.BinarySearchFunc(d.Ranges, r.From, func(x ring.Range, s ring.Slot) int {
		switch {
		case x.To <= s:
			return -1
		case x.From > s:
			return 1
		}
		return 0
	})
	switch {
	case inside:
		return r.From
	case i < len(d.Ranges):
		return min(d.Ranges[i].From, r.To)
	}
	return r.To
}

// Cut returns the first piece of r, which must not be empty, that is in doubt as a whole or not at all, and which it is.
func (d Doubts) Cut(r ring.Range) (piece ring.Range, in bool) {
	if first := d.first(r); first > r.From {
		return ring.Range{From: r.From, To: first}, false
	}
	for _, x := range d.Ranges {
		if x.Contains(r.From) {
			r.To = min(r.To, x.To)
		}
	}
	return r, true
}

// plus returns d with more ranges in doubt.
func (d Doubts) plus(more ...ring.Range) Doubts {
	all := slices.Concat(d.Ranges, more)
	slices.SortFunc(all, func(a, b ring.Range) int { return int(a.From) - int(b.From) })
	out := all[:0]
	for _, r := range all {
		switch n := len(out); {
		case r.From >= r.To:
		case n > 0 && r.From <= out[n-1].To:
			out[n-1].To = max(out[n-1].To, r.To)
		default:
			out = append(out, r)
		}
	}
	for width := ring.Slot(1); len(out) > rangesMost; width *= 2 {
		out = joinCloser(out, width)
	}
	return Doubts{Whole: d.Whole, Ranges: out}
}

// joinCloser joins ranges that lie no further apart than width.
func joinCloser(in []ring.Range, width ring.Slot) []ring.Range {
	out := in[:1]
	for _, r := range in[1:] {
		if last := &out[len(out)-1]; r.From-last.To <= width {
			last.To = r.To
		} else {
			out = append(out, r)
		}
	}
	return out
}

// minus returns d without r. What is left of a whole doubt without slots is none.
func (d Doubts) minus(r ring.Range) Doubts {
	if r.From >= r.To {
		return d
	}
	out := Doubts{Whole: d.Whole}
	for _, x := range d.Ranges {
		if a := (ring.Range{From: x.From, To: min(x.To, r.From)}); a.From < a.To {
			out.Ranges = append(out.Ranges, a)
		}
		if b := (ring.Range{From: max(x.From, r.To), To: x.To}); b.From < b.To {
			out.Ranges = append(out.Ranges, b)
		}
	}
	out.Whole = out.Whole && len(out.Ranges) > 0
	return out
}

func (d Doubts) encode() []byte {
	b := []byte{doubtVersion, 0}
	if d.Whole {
		b[1] = 1
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(d.Ranges)))
	for _, r := range d.Ranges {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(r.From)), uint32(r.To))
	}
	return b
}

func decodeDoubts(b []byte) (Doubts, error) {
	if len(b) < 6 || b[0] != doubtVersion || b[1] > 1 || len(b)-6 != 8*int(binary.BigEndian.Uint32(b[2:])) {
		return Doubts{}, fmt.Errorf("%w: doubts of %d bytes", errState, len(b))
	}
	d := Doubts{Whole: b[1] == 1}
	for b = b[6:]; len(b) > 0; b = b[8:] {
		r := ring.Range{From: ring.Slot(binary.BigEndian.Uint32(b)), To: ring.Slot(binary.BigEndian.Uint32(b[4:]))}
		if n := len(d.Ranges); r.From >= r.To || r.To > ring.Slots || n > 0 && r.From <= d.Ranges[n-1].To {
			return Doubts{}, fmt.Errorf("%w: doubts out of order", errState)
		}
		d.Ranges = append(d.Ranges, r)
	}
	return d, nil
}

func allDoubts() Doubts { return Doubts{Whole: true, Ranges: []ring.Range{{To: ring.Slots}}} }

// doubts is a store's doubt and what is yet to be done about damage.
type doubts struct {
	now atomic.Pointer[Doubts] // nil for none, so that reads pay one load

	mu    sync.Mutex
	lines lines
	began bool // the first of them did in this process, and is durable
	// remember says that lines are not on the disk as they are.
	remember bool
	engine   bool                   // a read met damage that the engine knows of
	whole    bool                   // everything is in doubt, and that is not durable yet
	slots    map[ring.Slot]struct{} // that hold a damaged record
	// The rest is the committer's.
	pause time.Duration
	next  time.Time // earliest next salvage
}

func (d *doubts) load() Doubts {
	if p := d.now.Load(); p != nil {
		return *p
	}
	return Doubts{}
}

func (d *doubts) set(to Doubts) {
	if !to.Any() {
		d.now.Store(nil)
		return
	}
	d.now.Store(&to)
}

// Doubts tells what is in doubt.
func (s *Store) Doubts() Doubts { return s.doubts.load() }

// Distrust puts everything in doubt, node state included, at once and durably soon after. It changes nothing where it is
// so already.
func (s *Store) Distrust() {
	d := &s.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.load().Whole {
		s.distrustLocked()
	}
}

// distrustLocked puts everything in doubt, as of a line of commits that begins now. The caller holds doubts.mu.
func (s *Store) distrustLocked() {
	s.doubts.whole = true
	s.doubts.set(allDoubts())
	s.queue.rouse()
}

// trusted refuses the record at p while its slot is in doubt. Hints are no slot's.
func (s *Store) trusted(p *place) error {
	d := s.doubts.now.Load()
	if d == nil || p.disk[0] != tagRecord {
		return nil
	}
	slot := ring.Slot(p.hash >> (64 - ring.SlotBits))
	if d.first(ring.Range{From: slot, To: slot + 1}) == slot {
		return ErrDoubted
	}
	return nil
}

// met takes note of damage that a read met; hash is the key's where one record is damaged and the engine does not know.
func (s *Store) met(err error, hash uint64, one bool) {
	if !s.cfg.Heal || errors.Is(err, ErrDoubted) {
		return
	}
	d := &s.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	var known *engine.Damage
	switch {
	case errors.As(err, &known):
		d.engine = true
	case one && len(d.slots) < hurtMost:
		if d.slots == nil {
			d.slots = make(map[ring.Slot]struct{})
		}
		d.slots[ring.Slot(hash>>(64-ring.SlotBits))] = struct{}{}
	default:
		return
	}
	s.queue.rouse()
}

// tend sets aside what reads found damaged or others know to be old. It is the committer's, called between batches; the
// engine may be closed afterwards.
func (c *committer) tend() {
	s := c.store
	d := &s.doubts
	d.mu.Lock()
	hurt, whole, slots, remember, l := d.engine && !time.Now().Before(d.next), d.whole, d.slots, d.remember, d.lines
	if hurt {
		d.engine = false
	}
	d.slots, d.remember = nil, false
	d.mu.Unlock()
	switch {
	case whole:
		s.cfg.Logger.Error().Msg("the disk is older than what this node once had: nothing of it is trusted until it was refilled")
		c.end() // the next opening writes down that it is so, and since when
		return
	case len(slots) > 0:
		next := d.hurt(slots)
		s.cfg.Logger.Error().Int("slots", len(slots)).
			Msg("records here are damaged: their slots are in doubt until they were refilled")
		s.metrics.damagedParts.Add(float64(len(slots)))
		c.life.distrust()
		if err := c.putDoubts(next); err != nil {
			c.fail(err)
			return
		}
	case remember:
		if err := c.putLines(l); err != nil {
			c.fail(err)
			return
		}
	}
	if hurt {
		if _, ok := c.life.eng.(engine.Salvager); ok {
			c.salvage()
		}
	}
}

// hurt puts slots in doubt.
func (d *doubts) hurt(slots map[ring.Slot]struct{}) Doubts {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.load()
	for slot := range slots {
		next = next.plus(ring.Range{From: slot, To: slot + 1})
	}
	d.set(next)
	return next
}

// distrust gives up both actors: records of their making may be removed, and what they promised of slots proves nothing.
func (l *life) distrust() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fallback.stale = true
	if err := l.renew(&l.own); err != nil {
		l.logger.Error().Err(err).Msg("no new actor could be drawn for a disk in doubt: minting stops")
	}
}

// putDoubts makes doubts durable.
func (c *committer) putDoubts(d Doubts) error {
	c.batch.Reset()
	return c.applyDoubts(d, c.state)
}

// applyDoubts writes the batch with the doubts and the state.
func (c *committer) applyDoubts(d Doubts, next state) error {
	if d.Any() {
		c.batch.Put(doubtKey, d.encode())
	} else {
		c.batch.Delete(doubtKey)
	}
	next.commits++
	c.batch.Put(stateKey, appendState(c.stateBuf[:0], next))
	if err := c.life.eng.Apply(&c.batch, true); err != nil {
		return err
	}
	c.hints = c.hints[:0]
	c.setState(next)
	c.store.synced.Store(next.commits)
	return nil
}

// salvage ends this life: what is queued is committed, the damaged places are cut out of the engine, and it is opened
// again. What they may have held is in doubt from then on.
func (c *committer) salvage() {
	c.drainLife()
	c.shut(engine.ErrDamaged)
}

// end ends this life, and lets the next begin on what is on the disk.
func (c *committer) end() {
	c.drainLife()
	c.shut(nil)
}

// drainLife lets nobody use this life any more, once what is queued was committed.
func (c *committer) drainLife() {
	s := c.store
	s.withdraw(false)
	c.life.retire()
	if err := c.drain(); err != nil {
		s.metrics.failures.Inc()
		s.cfg.Logger.Error().Err(err).Msg("a write before the engine is opened anew failed: all writes in flight are in doubt")
	}
	c.delay = 0
}

// shut closes the engine, and cuts out what is damaged in it where that is why.
func (c *committer) shut(cause error) {
	s := c.store
	eng := c.life.eng
	c.life = nil
	salvager, ok := eng.(engine.Salvager)
	if !ok || !s.cfg.Heal || !errors.Is(cause, engine.ErrDamaged) {
		if err := eng.Close(); err != nil {
			s.cfg.Logger.Warn().Err(err).Msg("closing the failed engine")
		}
		return
	}
	d := &s.doubts
	begin := time.Now()
	lost, err := salvager.Salvage()
	if len(lost) > 0 {
		d.pause = 0
		s.metrics.damagedParts.Add(float64(len(lost)))
		s.cfg.Logger.Error().Int("ranges", len(lost)).Dur("took", time.Since(begin)).Err(err).
			Msg("damaged tables were replaced by what can be read of them")
		return
	}
	d.pause = min(max(2*d.pause, salvagePause), salvagePauseMax)
	d.next = time.Now().Add(d.pause)
	s.cfg.Logger.Error().Err(err).Dur("next_after", d.pause).Msg("damage was met, and nothing was found to cut out")
}

// DamageNote makes the entry by which an engine's salvage tells the store, at its next opening, which keys may have lost
// their newest version. serial is never the same twice in one directory.
func DamageNote(serial uint64, lost []engine.KeyRange) (key, value []byte) {
	key = binary.BigEndian.AppendUint64([]byte{tagDoubt, 'n'}, serial)
	if len(lost) > rangesMost {
		lost = []engine.KeyRange{{}} // all
	}
	value = []byte{doubtVersion}
	for _, r := range lost {
		value = binary.AppendUvarint(value, uint64(len(r.From)))
		value = append(value, r.From...)
		if r.To == nil {
			value = append(value, 0)
			continue
		}
		value = binary.AppendUvarint(value, uint64(len(r.To))+1)
		value = append(value, r.To...)
	}
	return key, value
}

func decodeNote(b []byte) (lost []engine.KeyRange, err error) {
	malformed := fmt.Errorf("%w: a note of damage of %d bytes", errState, len(b))
	if len(b) == 0 || b[0] != doubtVersion {
		return nil, malformed
	}
	rest := b[1:]
	str := func(less uint64) ([]byte, bool, bool) {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n < less {
			return nil, w > 0, w > 0
		}
		if n -= less; n > uint64(len(rest)-w) {
			return nil, false, false
		}
		s := rest[w : w+int(n)]
		rest = rest[w+int(n):]
		return s, false, true
	}
	for len(rest) > 0 {
		from, _, ok := str(0)
		if !ok {
			return nil, malformed
		}
		to, open, ok := str(1)
		if !ok {
			return nil, malformed
		}
		if open {
			to, rest = nil, rest[1:]
		} else if to == nil {
			to = []byte{}
		}
		lost = append(lost, engine.KeyRange{From: from, To: to})
	}
	return lost, nil
}

// loadDoubts reads what is in doubt, and takes in the notes of salvages. fresh says that the store's state is missing;
// next is raised where a batch is written.
func (c *committer) loadDoubts(eng engine.Engine, fresh bool, next *state) error {
	s := c.store
	now := s.doubts.load() // of the life before, maybe not durable yet
	known := false         // it is durable that everything is in doubt
	var notes [][]byte
	var hinted []engine.KeyRange
	err := eng.Iterate(doubtKey, []byte{tagDoubt + 1}, func(k, v []byte) (bool, error) {
		if len(k) == 1 {
			stored, err := decodeDoubts(v)
			known = stored.Whole
			now = Doubts{Whole: now.Whole || stored.Whole, Ranges: now.plus(stored.Ranges...).Ranges}
			return true, err
		}
		notes = append(notes, bytes.Clone(k))
		lost, err := decodeNote(v)
		for _, r := range lost {
			now = c.doubtRange(now, &hinted, r)
		}
		return true, err
	})
	switch {
	case errors.Is(err, engine.ErrDamaged), errors.Is(err, errState):
		s.cfg.Logger.Error().Err(err).Msg("what was in doubt cannot be read: everything is")
		now, known = allDoubts(), false
	case err != nil:
		return fmt.Errorf("kv: reading what is in doubt: %w", err)
	case eng.Suspect():
		s.cfg.Logger.Error().Strs("dropped", eng.Recovery().Details).Msg("the engine dropped data when it was opened")
		now, known = allDoubts(), false
	case fresh && s.cfg.HeldData:
		s.cfg.Logger.Error().Msg("the directory held data once and is empty: everything is in doubt")
		now, known = allDoubts(), false
	}
	now, begin, old := s.doubts.take(now, known)
	if now.Whole {
		s.observed.doubt(nil)
	}
	l, err := c.loadLines(eng, begin, max(next.commits, c.state.commits))
	if err != nil {
		return err
	}
	if len(notes) == 0 && !now.Any() && l.stored && !(fresh && s.cfg.Heal) {
		return nil
	}
	if old {
		// All of these were delivered, or may have been: what they bring may have been deleted since, and that collected.
		hinted = []engine.KeyRange{{From: []byte{tagHint}, To: []byte{tagHintCount}}}
	}
	return c.settleNotes(eng, settled{now: now, notes: notes, hinted: hinted, lines: l, begin: begin, next: next})
}

// take sets what is in doubt at an opening. begin says that everything is, and that this is not durable yet: known is what
// the disk says. old says that this is since others know more.
func (d *doubts) take(now Doubts, known bool) (_ Doubts, begin, old bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.whole {
		now, known = allDoubts(), false
	}
	d.set(now)
	return now, now.Whole && !known, d.whole
}

// doubtRange adds a range of disk keys to what is in doubt. Of hints, which are copies for others, what is left in it is
// dropped: an older one may bring back what was deleted.
func (c *committer) doubtRange(now Doubts, hinted *[]engine.KeyRange, r engine.KeyRange) Doubts {
	if r.To == nil {
		return allDoubts()
	}
	meets := func(from, to byte) bool {
		return bytes.Compare(r.From, []byte{to + 1}) < 0 && bytes.Compare(r.To, []byte{from}) >= 0
	}
	if meets(tagHint, tagHintCount) {
		*hinted = append(*hinted, r)
	}
	if meets(0, tagHint-1) || meets(tagHintCount+1, tagRecord-1) || meets(tagMark+1, 0xfe) {
		return allDoubts() // node state
	}
	for _, tag := range []byte{tagRecord, tagMark} {
		if !meets(tag, tag) {
			continue
		}
		part := ring.Range{From: slotAt(tag, r.From), To: min(slotAt(tag, r.To)+1, ring.Slots)}
		c.store.observed.doubt(slotChanges(part)) // the sums of these slots count what may be gone
		now = now.plus(part)
	}
	return now
}

// slotAt returns the slot of the disk key of a record or mark; of one before all of that tag the first, behind them
// ring.Slots.
func slotAt(tag byte, disk []byte) ring.Slot {
	switch {
	case len(disk) == 0 || disk[0] < tag:
		return 0
	case disk[0] > tag:
		return ring.Slots
	}
	var hash [8]byte
	copy(hash[:], disk[1:])
	return ring.Slot(binary.BigEndian.Uint64(hash[:]) >> (64 - ring.SlotBits))
}

// slotChanges stands for changes of anything in the slots of r.
func slotChanges(r ring.Range) []Change {
	out := make([]Change, 0, r.Len())
	for slot := r.From; slot < r.To; slot++ {
		out = append(out, Change{Hash: uint64(slot) << (64 - ring.SlotBits)})
	}
	return out
}

// settled is what an opening found to be in doubt.
type settled struct {
	now    Doubts
	notes  [][]byte          // that told of it
	hinted []engine.KeyRange // both ends inclusive
	lines  loadedLines
	begin  bool // everything is, and that is new
	next   *state
}

// settleNotes stores what is in doubt in place of the notes that told of it, and in the same batch a commit number above all
// that anybody knows of.
func (c *committer) settleNotes(eng engine.Engine, f settled) error {
	var b engine.Batch
	for _, r := range f.hinted {
		if err := dropHints(eng, &b, r); err != nil {
			return err
		}
	}
	if len(f.hinted) > 0 || eng.Suspect() {
		if err := c.store.recountHints(eng, &b, f.hinted); err != nil {
			return err
		}
	}
	for _, k := range f.notes {
		b.Delete(k)
	}
	if f.now.Any() {
		b.Put(doubtKey, f.now.encode())
	}
	if c.store.cfg.Heal {
		f.next.commits = max(f.next.commits, c.state.commits, f.lines.least()) + 1
		b.Put(lineKey, f.lines.encode())
		b.Put(stateKey, appendState(c.stateBuf[:0], *f.next))
	}
	c.recountHints = c.recountHints || len(f.hinted) > 0
	if err := eng.Apply(&b, true); err != nil {
		return fmt.Errorf("kv: storing what is in doubt: %w", err)
	}
	if c.store.cfg.Heal {
		c.store.synced.Store(f.next.commits)
		c.store.doubts.begin(f.lines.lines, f.lines.began, f.begin)
	}
	return nil
}

// dropHints puts into b the removal of all hints in r, and writes what is too much for one batch before.
func dropHints(eng engine.Engine, b *engine.Batch, r engine.KeyRange) error {
	from, to := r.From, append(bytes.Clone(r.To), 0)
	if bytes.Compare(to, []byte{tagHint + 1}) > 0 {
		to = []byte{tagHint + 1}
	}
	if bytes.Compare(from, []byte{tagHint}) < 0 {
		from = []byte{tagHint}
	}
	for more := true; more; {
		more = false
		err := eng.Iterate(from, to, func(k, _ []byte) (bool, error) {
			b.Delete(k)
			more = b.Size() >= eng.MaxBatch()/2
			return !more, nil
		})
		if err == nil && more {
			err = eng.Apply(b, false)
			b.Reset()
		}
		if err != nil {
			return fmt.Errorf("kv: dropping hints in doubt: %w", err)
		}
	}
	return nil
}
