package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// collectEvery is how often a node looks what the collection of tombstones asks of it.
	collectEvery = 100 * time.Millisecond
	// collectFor is how long a member's answer is waited for.
	collectFor = time.Second
	// tombsMost bounds what a node lists at once: all that it has.
	tombsMost = 1 << 20
)

// collecting is what a process knows of tombstones, and of how old messages are.
type collecting struct {
	machine   *collect.Machine
	pruner    *collect.Machine  // of entries of clocks, nil where there is none
	left      map[string][]left // what left clocks here
	pass      time.Duration     // when the next pass over the records is due
	metBefore map[string]bool   // marks of other collectors that the pass before met
	pulse     wire.Pulse
	numbers   map[ring.NodeID]*wire.Heard // of other nodes
}

func newCollecting(n *node) collecting {
	if n.w.opt.Grace == 0 {
		return collecting{}
	}
	cfg := collect.Config{Grace: n.w.opt.Grace, BatchKeys: 4, BatchesMax: 64, Asking: 4}
	switch n.w.bug {
	case GCOwners:
		cfg.Without = collect.WithoutMembers
	case GCHints:
		cfg.Without = collect.WithoutKept | collect.WithoutMoves
	case GCGrace:
		cfg.Without = collect.WithoutGrace
	}
	pulse, err := wire.NewPulse(n.w.dice, n.clock())
	if err != nil {
		n.w.trace.line("%s has no pulse: %v", n.name, err) // dice do not fail
	}
	return collecting{machine: collect.New(cfg), pruner: newPruner(n, cfg), left: make(map[string][]left), metBefore: make(map[string]bool), pulse: pulse, numbers: make(map[ring.NodeID]*wire.Heard)}
}

// number is the node's heartbeat number at this moment.
func (n *node) number() uint64 {
	if n.w.opt.Grace == 0 {
		return 0
	}
	return n.pulse.Number(n.clock())
}

// beat takes note of a node's number.
func (l *link) beat(now time.Duration, number uint64) {
	if number != 0 {
		l.beats.Add(epoch0.Add(now), number)
	}
}

// hears takes note of another node's number.
func (n *node) hears(id ring.NodeID, number uint64) {
	if number == 0 {
		return
	}
	if n.numbers[id] == nil {
		n.numbers[id] = &wire.Heard{}
	}
	n.numbers[id].Add(n.monotonic(), number)
}

// heardBy is the last number of another node that had come at a moment, 0 for none.
func (n *node) heardBy(id ring.NodeID, at time.Duration) uint64 {
	if h := n.numbers[id]; h != nil {
		return h.By(epoch0.Add(at))
	}
	return 0
}

// limit is when a record that came with this number must not be taken any more, zero for never.
func (n *node) limit(heard uint64) (time.Time, error) {
	if n.w.opt.Grace == 0 || (n.w.bug == LateRepair || n.w.bug == PruneAge) {
		return time.Time{}, nil
	}
	born, ok := n.pulse.Born(heard)
	if !ok {
		n.w.stats.Stale++
		return time.Time{}, kv.ErrStale
	}
	return n.limitOf(born), nil
}

// limitOf is when a record that was asked for at a moment must not be taken any more.
func (n *node) limitOf(asked time.Time) time.Time {
	if n.w.opt.Grace == 0 || (n.w.bug == LateRepair || n.w.bug == PruneAge) {
		return time.Time{}
	}
	return asked.Add(collect.MessageAge(n.w.opt.Grace))
}

// collects looks after tombstones, while the process lives.
func (n *node) collects() {
	if n.w.opt.Grace == 0 {
		return
	}
	n.later(n.w.between(collectEvery/2, collectEvery*3/2), func() {
		n.collectTombstones()
		n.collects()
	})
}

func (n *node) collectTombstones() {
	var v collect.View
	if n.view != nil && n.view.Newest() == n.view.Settled() && !n.doubt && !n.view.IsDead(n.id) {
		v.Settled = n.view.Settled()
		v.Members = n.keepers(v.Settled)
	}
	n.machine.Observe(v)
	if v.Settled != nil && n.w.now >= n.pass {
		n.pass = n.w.now + n.w.opt.Grace/16
		n.offer(v.Settled)
	}
	for _, a := range n.machine.Next(n.monotonic()) {
		n.askAbout(n.machine, a, v.Settled)
	}
	if n.pruner == nil {
		return
	}
	n.pruner.Observe(v)
	for _, a := range n.pruner.Next(n.monotonic()) {
		n.askAbout(n.pruner, a, v.Settled)
	}
}

// keepers lists who may keep anything.
func (n *node) keepers(l *ring.Layout) (out []collect.Member) {
	for _, o := range n.w.nodes {
		_, in := l.Member(o.id)
		if alive := n.sees(o.id); in || alive {
			out = append(out, collect.Member{ID: o.id, Name: o.name, Alive: alive})
		}
	}
	slices.SortFunc(out, func(a, b collect.Member) int { return a.ID.Compare(b.ID) })
	return out
}

// offer offers the tombstones that this node is to see to: those of slots that it owns first, and marks that their collector
// left for a whole pass.
func (n *node) offer(l *ring.Layout) {
	whole := ring.Range{To: ring.Slots}
	tombs, _, err := n.store.Tombstones(whole, nil, false, tombsMost)
	if err == nil {
		tombs, crowded := apart(slices.DeleteFunc(tombs, func(t collect.Tomb) bool { return collect.Collector(l, t.Key) != n.id }), n.living())
		n.machine.Offer(n.monotonic(), tombs)
		if n.pruner != nil {
			n.pruner.Offer(n.monotonic(), crowded)
		}
	}
	marked, _, err := n.store.Tombstones(whole, nil, true, tombsMost)
	if err != nil {
		return
	}
	met := make(map[string]bool)
	var left []collect.Tomb
	for _, t := range marked {
		if !l.Owns(n.id, ring.SlotOf(t.Key)) { // a mark of a slot that is not owned any more
			if err := n.store.Collect(collect.Remove, t, func(collect.Holding, uint32, error) {}); err == nil {
				n.commitSoon()
			}
			continue
		}
		if collect.Collector(l, t.Key) == n.id || n.metBefore[string(t.Key)] {
			left = append(left, t)
		} else {
			met[string(t.Key)] = true
		}
	}
	n.metBefore = met
	n.machine.Offer(n.monotonic(), left)
}

// askAbout asks a member; the machine that asks is told how that ends, once.
func (n *node) askAbout(of *collect.Machine, a collect.Ask, l *ring.Layout) {
	ended := false
	end := func(r *collect.Reply) {
		if !ended {
			ended = true
			of.Replied(n.monotonic(), a, r)
		}
	}
	if a.To == n.id {
		n.serveCollection(a, end)
		return
	}
	n.later(collectFor, func() { end(nil) })
	to := n.w.byID(a.To)
	n.ask(to, func(reply func(func())) {
		if to.view == nil || to.doubt || to.view.Newest() != to.view.Settled() || to.view.Settled().ID() != l.ID() {
			return
		}
		to.serveCollection(a, func(r *collect.Reply) { reply(func() { end(r) }) })
	})
}

// serveCollection does a step here.
func (n *node) serveCollection(a collect.Ask, then func(*collect.Reply)) {
	r := &collect.Reply{Life: n.store.Actor(), Holdings: make([]collect.Holding, len(a.Tombs)), Moves: make([]uint32, len(a.Tombs))}
	waiting, alive := len(a.Tombs), n.alive()
	one := func(i int, h collect.Holding, moves uint32, err error) {
		if r.Holdings[i], r.Moves[i] = h, moves; err != nil {
			r.Holdings[i] = collect.Unclear
		}
		if waiting--; waiting == 0 && alive() && n.store.Actor() == r.Life {
			then(r)
		}
	}
	for i, t := range a.Tombs {
		switch a.Step {
		case collect.Confirm:
		case collect.Prune:
			n.w.trace.line("%s is to drop %d entries of %s", n.name, len(t.Entries), t.Key)
			n.drops(t)
		default:
			n.w.trace.line("%s is to %s %s", n.name, a.Step, t.Key)
			if a.Step == collect.Mark {
				n.proven(t)
			}
			t = n.bentTomb(t)
		}
		err := n.store.Collect(a.Step, t, func(h collect.Holding, moves uint32, err error) { one(i, n.bentHolding(t, h), moves, err) })
		if err != nil {
			one(i, 0, 0, err)
		}
	}
	n.commitSoon()
}

// bentTomb is what is marked and removed, or what a planted bug makes of it.
func (n *node) bentTomb(t collect.Tomb) collect.Tomb {
	if n.w.bug != GCEqual {
		return t
	}
	if rec, _, err := n.store.ReadMarked(t.Key); err == nil {
		if d, err := record.DigestOf(rec); err == nil {
			t.Digest = d
		}
	}
	return t
}

// proven tells the history that the tombstones of a key may leave: once marked they are removed, or replaced by another record that
// knows nothing of them.
func (n *node) proven(t collect.Tomb) {
	rec, _, err := n.store.ReadMarked(t.Key)
	if err != nil {
		return
	}
	if d, err := record.DigestOf(rec); err != nil || d != t.Digest {
		return
	}
	set, err := record.Decode(t.Key, rec)
	if err != nil {
		return
	}
	n.w.stats.Collected++
	n.w.check.Collected(string(t.Key), set)
	// What was delivered before must not be delivered again: it is older than any message may be.
	n.w.replays = slices.DeleteFunc(n.w.replays, func(r replay) bool { return string(r.key) == string(t.Key) })
}

// tombstone says of one tombstone that the node keeps, marked or not, why it is still there; empty where there is none.
func (n *node) tombstone() string {
	for _, marked := range []bool{false, true} {
		tombs, _, err := n.store.Tombstones(ring.Range{To: ring.Slots}, nil, marked, tombsMost)
		if err != nil {
			return err.Error()
		}
		tombs, _ = apart(tombs, nil)
		for _, t := range tombs {
			by := n.w.byID(collect.Collector(n.view.Settled(), t.Key))
			if by == nil || by.machine == nil {
				return string(t.Key)
			}
			st, known := by.machine.Why(by.monotonic(), t.Key)
			return fmt.Sprintf("%s, marked %v; %s knows of it: %v, %s, %s", t.Key, marked, by.name, known, st.Phase, st.Reason)
		}
	}
	return ""
}
