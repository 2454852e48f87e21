package sim

import (
	"math"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

// faultEvery is how often the dice are thrown for new faults.
const faultEvery = 50 * time.Millisecond

// fault is one kind of fault: how often it comes, and what it does.
type fault struct {
	rate func(*Options) float64
	do   func(*world)
}

// faults lists all kinds, in a fixed order.
func faults() []fault {
	return []fault{
		{func(o *Options) float64 { return o.Partitions }, (*world).partition},
		{func(o *Options) float64 { return o.Crashes }, (*world).crash},
		{func(o *Options) float64 { return o.Pauses }, (*world).pause},
		{func(o *Options) float64 { return o.Slow }, (*world).slowDown},
		{func(o *Options) float64 { return o.DiskFails }, (*world).failDisk},
		{func(o *Options) float64 { return o.DiskFull }, (*world).fillDisk},
		{func(o *Options) float64 { return o.Flaky }, (*world).flakeDisk},
		{func(o *Options) float64 { return o.Damages }, (*world).damageDisk},
		{func(o *Options) float64 { return o.DiskLoss }, (*world).loseDisk},
		{func(o *Options) float64 { return o.ClockJumps }, (*world).jumpClock},
		{func(o *Options) float64 { return o.Gates }, (*world).cycleGateway},
		{func(o *Options) float64 { return o.Layouts }, (*world).changeLayout},
		{func(o *Options) float64 { return o.Forgets }, (*world).forget},
		{func(o *Options) float64 { return o.CutOffs }, (*world).cutOff},
		{func(o *Options) float64 { return o.Dooms }, (*world).doom},
		{func(o *Options) float64 { return o.Aborts }, (*world).abort},
		{func(o *Options) float64 { return o.Outages }, (*world).outage},
		{func(o *Options) float64 { return o.Deaf }, (*world).deafen},
	}
}

// injectFaults throws the dice, again and again while the first phase lasts.
func (w *world) injectFaults() {
	if !w.faulty {
		return
	}
	for _, f := range faults() {
		if w.chance(f.rate(&w.opt) * faultEvery.Seconds()) {
			f.do(w)
		}
	}
	w.after(faultEvery, w.injectFaults)
}

// untilHealed plans the end of a fault, should it last to the second phase, where all faults end at once.
func (w *world) untilHealed(d time.Duration, end func()) {
	w.after(d, func() {
		if w.faulty {
			end()
		}
	})
}

// running picks a node that is up, nil where none is.
func (w *world) running() *node {
	var up []*node
	for _, n := range w.nodes {
		if n.up {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return up[w.IntN(len(up))]
}

// partition cuts some places off from the others, in one direction or in both.
func (w *world) partition() {
	places := len(w.blocked)
	side := make([]bool, places)
	for _, i := range w.Perm(places)[:1+w.IntN(places/2)] {
		side[i] = true
	}
	oneWay, inward := w.chance(w.opt.OneWay), w.chance(0.5)
	for a := range places {
		for b := range places {
			if side[a] != side[b] && (!oneWay || side[a] == inward) {
				w.blocked[a][b] = true
			}
		}
	}
	w.stats.Partitions++
	w.trace.line("partition %v, one way %v", side, oneWay)
	w.untilHealed(w.between(100*time.Millisecond, max(4*time.Second, 4*w.opt.Grace)), func() {
		w.trace.line("partitions end")
		w.unblock()
	})
}

// cutOff cuts gateways off from all owners of a key, for long enough that others stand in.
func (w *world) cutOff() {
	if w.gates[0].state == nil {
		return
	}
	l, name := w.gates[0].state.read, key(w.IntN(w.opt.Keys))
	for range 4 { // rather one that a machine stands in for which may lose its disk
		if l.Owns(w.nodes[w.victims[0]].id, slotOf(name)) {
			name = key(w.IntN(w.opt.Keys))
		}
	}
	for _, g := range w.gates {
		if g != w.gates[0] && w.chance(0.5) {
			continue
		}
		for _, id := range l.Primaries(slotOf(name)) {
			at := w.byID(id).idx
			w.blocked[g.place()][at], w.blocked[at][g.place()] = true, true
		}
	}
	w.stats.Partitions++
	w.trace.line("gateways are cut off from the owners of %s", name)
	w.untilHealed(w.between(2*time.Second, 5*time.Second), func() {
		w.trace.line("partitions end")
		w.unblock()
	})
}

func (w *world) unblock() {
	for _, row := range w.blocked {
		clear(row)
	}
}

func (w *world) crash() {
	n := w.running()
	if n == nil || !w.mayStart() {
		return
	}
	clean := w.chance(w.opt.Clean)
	n.stop(clean)
	if w.chance(0.3) && slices.Contains(w.victims, n.idx) {
		if im, err := n.disk.snapshot(); err == nil {
			n.snap = &im
		}
	}
	most := max(3*time.Second, 3*w.opt.Grace)
	if w.opt.Crowd > 0 && w.chance(0.8) {
		most = time.Second // nothing leaves a clock while a member is away
	}
	n.restart(w.between(50*time.Millisecond, most))
}

func (w *world) pause() {
	if n := w.running(); n != nil {
		n.pausedTo = w.now + w.between(100*time.Millisecond, 4*time.Second)
		w.trace.line("%s is paused until %s", n.name, n.pausedTo)
	}
}

func (w *world) slowDown() {
	if n := w.running(); n != nil {
		n.slow = 2 + w.Float64()*30
		w.trace.line("%s is slow, %.1f times", n.name, n.slow)
		w.untilHealed(w.between(time.Second, 5*time.Second), func() { n.slow = 1 })
	}
}

func (w *world) failDisk() {
	if n := w.running(); n != nil && w.stats.DiskFailures < 40 {
		n.disk.failing, n.disk.half = true, w.chance(0.5)
		w.stats.DiskFailures++
		w.trace.line("%s: the next sync fails, half %v", n.name, n.disk.half)
	}
}

func (w *world) fillDisk() {
	if n := w.running(); n != nil && w.stats.DiskFailures < 40 {
		n.disk.full = true
		w.stats.DiskFailures++
		w.trace.line("%s: disk full", n.name)
		w.untilHealed(w.between(500*time.Millisecond, 3*time.Second), func() { n.disk.full = false })
	}
}

func (w *world) flakeDisk() {
	if n := w.running(); n != nil {
		n.disk.flaky = 0.02 + w.Float64()*0.3
		w.trace.line("%s: reads meet flipped bits, %.2f", n.name, n.disk.flaky)
		w.untilHealed(w.between(500*time.Millisecond, 4*time.Second), func() { n.disk.flaky = 0 })
	}
}

// damageDisk flips a bit for good: that machine has lost a record.
func (w *world) damageDisk() {
	n := w.nodes[w.victims[w.IntN(len(w.victims))]]
	if n.up && !n.gone && !n.doubt && w.copies() >= w.opt.MinW && n.disk.flip() {
		w.loses()
		w.stats.Damages++
		w.trace.line("%s: a stored record is damaged", n.name)
	}
}

// loses takes note that a machine has lost its disk, or a part of it.
func (w *world) loses() {
	w.lossAt = w.now
	w.check.Emptied(w.opt.MinW)
}

// copies is the least number of copies that any live layout of any node keeps. Members that are asked to leave at once, by
// several who do not know of each other, may shrink a cluster below W; whoever then loses the last copy loses the write,
// and no promise covers that.
func (w *world) copies() int {
	least := math.MaxInt
	for _, n := range w.nodes {
		if n.view == nil {
			continue
		}
		for _, l := range n.view.Live() {
			least = min(least, l.Replicas())
		}
	}
	return least
}

// loseDisk empties a machine's disk, or rolls it back.
func (w *world) loseDisk() {
	n := w.nodes[w.victims[w.IntN(len(w.victims))]]
	if !n.up || n.gone || !w.mayStart() || w.copies() < w.opt.MinW {
		return
	}
	if n.snap == nil && w.chance(0.6) { // what it may be rolled back to, later
		n.stop(true)
		if im, err := n.disk.snapshot(); err == nil {
			n.snap = &im
		}
		n.restart(w.between(50*time.Millisecond, time.Second))
		return
	}
	w.loseDiskOf(n)
}

func (w *world) loseDiskOf(n *node) {
	n.stop(w.chance(w.opt.Clean))
	w.loses()
	w.stats.DiskLosses++
	im, what := n.disk.blank(), "is empty"
	if n.snap != nil && w.opt.Grace == 0 && w.chance(0.7) { // what is in doubt is discarded whole where something may have been collected
		im, what = *n.snap, "is rolled back"
	}
	w.trace.line("%s: the disk %s", n.name, what)
	if err := n.disk.restore(im); err != nil {
		w.trace.line("%s: restore: %v", n.name, err)
	}
	n.restart(w.between(50*time.Millisecond, 2*time.Second))
}

// forget lets a machine propose a change and then lose its disk, so that only a gateway knows of the proposal.
func (w *world) forget() {
	n := w.nodes[w.victims[w.IntN(len(w.victims))]]
	if !n.up || n.gone || n.view == nil || n.doubt || n.view.Newest() != n.view.Settled() || !w.mayStart() || w.copies() < w.opt.MinW {
		return
	}
	n.joiners, n.forgets = nil, true
	n.request(w.otherTokens(n.view.Settled().Members()))
	n.turnSoon(0)
}

// forgetProposal is what becomes of it.
func (w *world) forgetProposal(n *node, v *ring.View) {
	g := w.gates[w.IntN(len(w.gates))]
	if !g.up {
		n.merge(v)
		return
	}
	w.stats.Forgotten++
	w.trace.line("%s tells only %s that it proposes %s", n.name, g.name, v.Newest().ID())
	g.learn(v.Clone())
	life := n.life
	w.after(0, func() { // the disk is at work at this moment
		if n.up && n.life == life {
			w.loseDiskOf(n)
		}
	})
}

func (w *world) jumpClock() {
	if n := w.running(); n != nil {
		n.skew += w.between(-time.Hour, time.Hour)
		w.jumped = true
		w.trace.line("%s: the clock jumps to %s", n.name, n.skew)
	}
}

// cycleGateway lets a gateway go, or one come back; one always stays.
func (w *world) cycleGateway() {
	g := w.gates[w.IntN(len(w.gates))]
	if !g.up {
		g.start()
		return
	}
	others := 0
	for _, o := range w.gates {
		if o.up && o != g {
			others++
		}
	}
	if others > 0 {
		g.stop()
		w.untilHealed(w.between(200*time.Millisecond, 3*time.Second), func() {
			if !g.up {
				g.start()
			}
		})
	}
}

// changeLayout lets a node join, or a member change its weight or leave.
func (w *world) changeLayout() {
	for _, n := range w.nodes {
		if !n.started && !n.gone && w.chance(w.joins()) {
			w.trace.line("%s wants to join", n.name)
			n.restart(0)
			return
		}
	}
	n := w.running()
	if n == nil || n.view == nil {
		return
	}
	changes := 1
	members := n.view.Settled().Members()
	if by := w.spare(); by != nil && w.opt.DeadAfter > 0 && w.chance(0.2) {
		old := members[w.IntN(len(members))]
		w.trace.line("%s is asked to replace %s by %s", n.name, old.Name, by.name)
		n.request(ring.Change{Kind: ring.ChangeReplace, Old: old.ID, Member: by.member()})
		by.restart(0)
		return
	}
	if w.opt.Upheaval {
		changes = []int{1, 3, 2 * len(members)}[w.IntN(3)]
	}
	for range changes {
		c := w.randomChange(members)
		w.trace.line("%s is asked for a %s of %s", n.name, c.Kind, w.byID(c.Member.ID).name)
		n.request(c)
	}
	if w.opt.Upheaval && w.chance(0.3) {
		if o := w.running(); o != nil && o != n && o.view != nil {
			o.request(w.randomChange(o.view.Settled().Members()))
		}
	}
}

// joins is how likely a node that was never in use joins when something is to change. Where machines are to be replaced some
// are kept for that.
func (w *world) joins() float64 {
	if w.opt.DeadAfter > 0 {
		return 0.15
	}
	return 0.6
}

// randomChange lets a member take other tokens, or leave.
func (w *world) randomChange(members []ring.Member) ring.Change {
	// Never so many that N do not stay: fewer machines than a promise counts on could not keep it.
	if w.chance(w.opt.Leaves) && w.leaves < w.opt.Nodes-w.opt.N {
		w.leaves++
		return ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: members[w.IntN(len(members))].ID}}
	}
	return w.otherTokens(members)
}

// otherTokens lets a member stand elsewhere on the ring.
func (w *world) otherTokens(members []ring.Member) ring.Change {
	c := ring.Change{Kind: ring.ChangeWeight, Member: members[w.IntN(len(members))]}
	if w.opt.Planned {
		c.Member.Weight, c.Member.Tokens = []float64{0.5, 1, 2}[w.IntN(3)], nil
		return c
	}
	c.Member.Tokens = ring.RandomTokens(ring.NodeID{byte(w.IntN(256)), byte(w.IntN(256)), 1}, 1+w.IntN(2*tokens), func(s ring.Slot) bool {
		return slices.ContainsFunc(members, func(o ring.Member) bool { return slices.Contains(o.Tokens, s) })
	})
	return c
}
