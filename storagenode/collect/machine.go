package collect

import (
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

// putOffMax bounds the tombstones of which it is remembered why they were put off.
const putOffMax = 1 << 16

type phase byte

const (
	first phase = iota
	second
	marking
	removing
	pruning
)

// prunesMost bounds how often entries are dropped that come back.
const prunesMost = 16

func (p phase) String() string {
	return [...]string{"first round", "second round", "marking", "removal", "pruning"}[p]
}

// batch is some tombstones that are asked about together. All are in the same phase.
type batch struct {
	id     uint64
	phase  phase
	layout ring.LayoutID // the layout that its last round was under
	items  []*item
	// certified says that a mark was found, so that owners may also hold nothing any more.
	certified bool
	since     time.Time // when the first round ended that found them alike
	due       time.Time // when the next turn may begin

	asking  bool
	turn    uint32 // of asking; answers to an earlier one are late
	waiting int    // answers that are still to come in this turn
	failed  bool   // one of them did not come

	reason Reason // why the last turn came to nothing
	member ring.NodeID
}

type item struct {
	tomb   Tomb
	batch  *batch
	owners []ring.NodeID // in the batch's layout; shared, read-only
	sum    uint64        // of the round before
	prunes int           // how often it was asked to be dropped
	// The rest is of the turn under way.
	now          uint64
	reason       Reason
	member       ring.NodeID
	holds, marks int // owners that hold it, members that have marked it
}

type putOff struct {
	reason Reason
	member ring.NodeID
	phase  phase
}

// Machine decides for one node which tombstones leave and how. Not safe for concurrent use.
type Machine struct {
	cfg     Config
	view    View
	batches []*batch // oldest first
	index   map[string]*item
	putOff  map[string]putOff
	lastID  uint64
	counts  Counts
}

// New returns a machine without anything in hand. cfg must be valid.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, index: make(map[string]*item), putOff: make(map[string]putOff)}
}

// Observe takes in what is known of the cluster now. Under another layout everything begins anew.
func (m *Machine) Observe(v View) { m.view = v }

// Room is how many tombstones Offer would take.
func (m *Machine) Room() int {
	return max(0, m.cfg.BatchesMax-len(m.batches)) * m.cfg.BatchKeys
}

// Offer takes tombstones that this node holds or has marked, where they are not in hand yet, and returns how many of
// them it took or had. The slice and the keys must not be modified afterwards.
func (m *Machine) Offer(now time.Time, tombs []Tomb) int {
	for at := range tombs {
		t := tombs[at]
		if _, known := m.index[string(t.Key)]; known {
			continue
		}
		b := m.open(now)
		if b == nil {
			for _, t := range tombs[at:] {
				if _, known := m.index[string(t.Key)]; !known {
					m.remember(&item{tomb: t, reason: Full}, first)
				}
			}
			return at
		}
		it := &item{tomb: t, batch: b}
		b.items = append(b.items, it)
		m.index[string(t.Key)] = it
		m.counts.InHand++
	}
	return len(tombs)
}

// open returns the batch that still takes tombstones, nil where there is none and no room for one.
func (m *Machine) open(now time.Time) *batch {
	if n := len(m.batches); n > 0 {
		b := m.batches[n-1]
		if b.phase == first && b.turn == 0 && len(b.items) < m.cfg.BatchKeys {
			return b
		}
	}
	if len(m.batches) >= m.cfg.BatchesMax {
		return nil
	}
	return m.add(&batch{due: now})
}

func (m *Machine) add(b *batch) *batch {
	m.lastID++
	b.id = m.lastID
	m.batches = append(m.batches, b)
	for _, it := range b.items {
		it.batch = b
	}
	return b
}

// Next lists the calls that are due. Each must be answered by Replied, once, however it ends.
func (m *Machine) Next(now time.Time) []Ask {
	asking := 0
	for _, b := range m.batches {
		if b.asking {
			asking++
		}
	}
	var out []Ask
	for _, b := range slices.Clone(m.batches) {
		if asking >= m.cfg.Asking {
			break
		}
		if b.asking || now.Before(b.due) {
			continue
		}
		asks := m.begin(now, b)
		if len(asks) == 0 {
			continue
		}
		asking++
		out = append(out, asks...)
	}
	m.sweep()
	return out
}

// Due is when Next may have something to do, at the latest; ok is false where nothing is in hand.
func (m *Machine) Due() (at time.Time, ok bool) {
	for _, b := range m.batches {
		if !b.asking && (!ok || b.due.Before(at)) {
			at, ok = b.due, true
		}
	}
	return at, ok
}

// begin starts the next turn of a batch, if the cluster lets it.
func (m *Machine) begin(now time.Time, b *batch) []Ask {
	if m.view.Settled == nil {
		m.delay(now, b, LayoutUnsettled, ring.NodeID{})
		return nil
	}
	if id := m.view.Settled.ID(); b.layout != id {
		if b.turn > 0 { // other owners, so another proof
			m.drop(b, LayoutUnsettled)
			return nil
		}
		b.layout = id
	}
	var to []ring.NodeID
	for _, member := range m.view.Members {
		if member.Alive {
			to = append(to, member.ID)
		} else if m.cfg.Without&WithoutMembers == 0 {
			m.delay(now, b, MemberDown, member.ID)
			return nil
		}
	}
	b.turn++
	b.failed = false
	for _, it := range b.items {
		it.owners = m.view.Settled.Primaries(ring.SlotOf(it.tomb.Key))
		it.now, it.reason, it.holds, it.marks = 0, Proceeding, 0, 0
	}
	asks := m.asks(b, to)
	b.asking, b.waiting = len(asks) > 0, len(asks)
	return asks
}

func (m *Machine) asks(b *batch, to []ring.NodeID) []Ask {
	step := Confirm
	switch b.phase {
	case marking:
		step = Mark
	case removing:
		step = Remove
	case pruning:
		step = Prune
	}
	all := make([]Tomb, len(b.items))
	for i, it := range b.items {
		all[i] = it.tomb
	}
	var out []Ask
	for _, id := range to {
		tombs := all
		if step == Mark || step == Prune {
			tombs = nil
			for _, it := range b.items {
				if slices.Contains(it.owners, id) {
					tombs = append(tombs, it.tomb)
				}
			}
			if len(tombs) == 0 {
				continue
			}
		}
		out = append(out, Ask{To: id, Step: step, Tombs: tombs, batch: b.id, turn: b.turn})
	}
	return out
}

// Replied takes in how a call ended: with a member's reply, or with nil where there is none.
func (m *Machine) Replied(now time.Time, a Ask, r *Reply) {
	i := slices.IndexFunc(m.batches, func(b *batch) bool { return b.id == a.batch })
	if i < 0 || m.batches[i].turn != a.turn || !m.batches[i].asking {
		return
	}
	b := m.batches[i]
	b.waiting--
	if valid(a, r) {
		m.take(b, a, r)
	} else {
		b.failed, b.member = true, a.To
	}
	if b.waiting > 0 {
		return
	}
	b.asking = false
	switch {
	case b.failed:
		m.delay(now, b, MemberUnclear, b.member)
	case b.phase == marking:
		m.marked(now, b)
	case b.phase == removing:
		m.removed(b)
	case b.phase == pruning:
		m.pruned(now, b)
	default:
		m.confirmed(now, b)
	}
	m.sweep()
}

// valid says whether a reply answers all that was asked.
func valid(a Ask, r *Reply) bool {
	return r != nil && len(r.Holdings) == len(a.Tombs) && (a.Step != Confirm || len(r.Moves) == len(a.Tombs)) &&
		!slices.ContainsFunc(r.Holdings, func(h Holding) bool { return !h.Valid() })
}

// take adds one member's reply to what is known of each tombstone.
func (m *Machine) take(b *batch, a Ask, r *Reply) {
	for i, t := range a.Tombs {
		it := m.index[string(t.Key)]
		if it == nil || it.batch != b {
			continue
		}
		h := r.Holdings[i]
		if h&^Kept == Marked {
			it.marks++
		}
		if h&^Kept == It {
			it.holds++
		}
		owner := slices.Contains(it.owners, a.To)
		var why Reason
		switch a.Step {
		case Confirm:
			it.now += sum(a.To, r.Life, r.Moves[i])
			why = m.objection(h, owner)
		case Mark:
			if h&^Kept != Marked && (!b.certified || h != Nothing) {
				why = OwnerDiffers
			}
		case Remove:
			if h&^Kept == Marked {
				why = MemberUnclear
			}
		case Prune:
			if h != Nothing && h != It {
				why = MemberUnclear
			}
		}
		// An owner that lacks it is no objection where the tombstone turns out to be marked.
		if why != Proceeding && (it.reason == Proceeding || it.reason == OwnerLacks) {
			it.reason, it.member = why, a.To
		}
	}
}

// objection is what a member's holding says against a tombstone's leaving.
func (m *Machine) objection(h Holding, owner bool) Reason {
	if m.cfg.Without&WithoutKept != 0 {
		if h &^= Kept; !owner {
			return Proceeding
		}
	}
	switch {
	case h&Kept != 0:
		return MemberKeeps
	case h == Unclear:
		return MemberUnclear
	case h == Marked && m.cfg.Prune:
		return OwnerDiffers
	case h == Marked:
		return Proceeding
	case !owner && h == Nothing:
		return Proceeding
	case !owner:
		return MemberKeeps
	case h == It:
		return Proceeding
	case h == Nothing:
		return OwnerLacks
	}
	return OwnerDiffers
}

// confirmed ends a round to which every member has answered.
func (m *Machine) confirmed(now time.Time, b *batch) {
	var stay, proven, toMark, toRemove []*item
	round := b.phase
	for _, it := range b.items {
		certified := it.marks > 0 && (it.reason == Proceeding || it.reason == OwnerLacks)
		switch {
		case certified && it.holds > 0:
			toMark = append(toMark, it)
		case certified:
			toRemove = append(toRemove, it)
		case it.reason != Proceeding:
			m.forget(it, round)
		case round == first && m.cfg.Without&WithoutSecond == 0 || round == second && it.sum != it.now && m.cfg.Without&WithoutMoves == 0:
			if round == second {
				m.counts.Postponed[SomethingMoved]++
				b.reason = SomethingMoved
			}
			it.sum = it.now
			stay = append(stay, it)
		default:
			proven = append(proven, it)
		}
	}
	after := marking
	if m.cfg.Without&WithoutMarks != 0 {
		after = removing
	}
	if m.cfg.Prune {
		after = pruning
	}
	m.split(now, b, proven, after, false)
	m.split(now, b, toMark, marking, true)
	m.split(now, b, toRemove, removing, true)
	b.items = stay
	if round == first {
		b.since, b.reason = now, Waiting
	}
	b.member = ring.NodeID{}
	b.phase, b.due = second, b.since.Add(m.cfg.Grace)
	// Entries need not have been there for the grace time: that no record is on its way any more is enough.
	if next := now.Add(m.cfg.spacing()); m.cfg.Prune || b.due.Before(next) {
		b.due = next
	}
	if m.cfg.Without&WithoutGrace != 0 {
		b.due = now
	}
}

// split makes a batch of its own of some items. It may exceed the bound of batches, since its items were in hand before.
func (m *Machine) split(now time.Time, b *batch, items []*item, p phase, certified bool) {
	if len(items) == 0 {
		return
	}
	next := &batch{phase: p, layout: b.layout, items: items, certified: certified, due: now, turn: 1}
	if p == removing {
		next.due = m.settled(now)
	}
	m.add(next)
}

// settled is when marks that all have now may be removed: when copies of the tombstone that were on their way before are
// too old to be taken, so that it does not come back where it was removed first.
func (m *Machine) settled(now time.Time) time.Time {
	if m.cfg.Without&(WithoutGrace|WithoutMarks) != 0 {
		return now
	}
	return now.Add(m.cfg.spacing())
}

// marked ends the marking.
func (m *Machine) marked(now time.Time, b *batch) {
	var done []*item
	for _, it := range b.items {
		if it.reason != Proceeding {
			m.forget(it, marking)
			continue
		}
		done = append(done, it)
	}
	b.items, b.phase, b.due, b.reason = done, removing, m.settled(now), Waiting
}

// removed ends the removal.
func (m *Machine) removed(b *batch) {
	for _, it := range b.items {
		if it.reason != Proceeding {
			m.forget(it, removing)
			continue
		}
		m.release(it)
		delete(m.putOff, string(it.tomb.Key))
		m.counts.Collected++
	}
	b.items = nil
}

// pruned ends a turn of pruning: what some owner still had is asked for again.
func (m *Machine) pruned(now time.Time, b *batch) {
	var left []*item
	for _, it := range b.items {
		it.prunes++
		switch {
		case it.reason != Proceeding:
			m.forget(it, pruning)
		case it.holds == 0:
			m.release(it)
			delete(m.putOff, string(it.tomb.Key))
			m.counts.Collected++
		case it.prunes >= prunesMost:
			it.reason = ComesBack
			m.forget(it, pruning)
		default:
			left = append(left, it)
		}
	}
	b.items, b.due, b.reason = left, now.Add(m.cfg.retry()), Proceeding
}

// delay has a batch try its turn again.
func (m *Machine) delay(now time.Time, b *batch, why Reason, id ring.NodeID) {
	if b.reason != why || b.member != id {
		m.counts.Postponed[why] += uint64(len(b.items))
	}
	b.reason, b.member, b.due = why, id, now.Add(m.cfg.retry())
}

// drop gives up a batch; what is still there is offered again.
func (m *Machine) drop(b *batch, why Reason) {
	for _, it := range b.items {
		it.reason, it.member = why, ring.NodeID{}
		m.forget(it, b.phase)
	}
	b.items = nil
}

// forget gives up a tombstone, and remembers why.
func (m *Machine) forget(it *item, at phase) {
	m.release(it)
	m.counts.Postponed[it.reason]++
	m.remember(it, at)
}

func (m *Machine) release(it *item) {
	delete(m.index, string(it.tomb.Key))
	m.counts.InHand--
}

func (m *Machine) remember(it *item, at phase) {
	if len(m.putOff) >= putOffMax {
		clear(m.putOff)
	}
	m.putOff[string(it.tomb.Key)] = putOff{reason: it.reason, member: it.member, phase: at}
}

// sweep drops batches without items.
func (m *Machine) sweep() {
	m.batches = slices.DeleteFunc(m.batches, func(b *batch) bool { return len(b.items) == 0 && !b.asking })
}

// Counts returns the counts.
func (m *Machine) Counts() Counts { return m.counts }

// Why says what keeps a key's tombstone, if this machine knows of it.
func (m *Machine) Why(now time.Time, key []byte) (Status, bool) {
	it := m.index[string(key)]
	if it == nil {
		p, known := m.putOff[string(key)]
		return Status{Phase: p.phase.String(), Reason: p.reason, Member: p.member, PutOff: known}, known
	}
	b := it.batch
	st := Status{Phase: b.phase.String(), Reason: b.reason, Member: b.member, Left: max(0, b.due.Sub(now))}
	if p, before := m.putOff[string(key)]; before && b.phase == first && b.reason == Proceeding {
		st.Reason, st.Member = p.reason, p.member
	}
	return st, true
}
