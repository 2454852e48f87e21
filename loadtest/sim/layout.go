package sim

import (
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

// layoutState is what a process knows of layouts. What it promised is in the store.
type layoutState struct {
	view      *ring.View // nil while it knows none
	fence     ring.Fence // acted on, maybe not durable yet
	promised  ring.Fence // durable
	persisted uint64     // hash of the durable view
	busy      bool       // a step waits for the disk
	pulls     *pullTask
	refill    *pullTask
	joiners   []ring.Change // changes asked for, not proposed yet
	forgets   bool          // the disk will be lost once the next proposal is told to a gateway, and to nobody else
	met       time.Duration
	away      map[ring.NodeID]time.Duration // members that are not seen, and since when
	majority  time.Duration                 // when one was seen last
	cutOff    bool                          // that is so long ago that this node may have been removed
	gen       int                           // counts changes of the view
	heard     map[ring.NodeID]bool          // nodes whose views this process has taken in
}

// turnSoon plans a look at what the layouts ask of this node.
func (n *node) turnSoon(d time.Duration) {
	if n.turning {
		return
	}
	n.turning = true
	n.later(d, func() {
		n.turning = false
		n.turn()
		n.turnSoon(time.Duration(float64(n.w.between(50*time.Millisecond, 100*time.Millisecond)) * n.slow))
	})
}

// turn does all that can be done now.
func (n *node) turn() {
	if n.view == nil {
		n.askForView()
		return
	}
	if n.doubt {
		n.healDoubt()
	}
	n.watchAway()
	if !n.busy {
		n.takeStep()
	}
	n.propose()
	n.persist()
	n.meet()
}

// takeStep does what the view asks of this node next.
func (n *node) takeStep() {
	step := ring.NextStep(n.view, n.id, n.promised)
	if n.w.bug == AckAll && step.Kind == ring.StepNone {
		step = n.hastySync(step)
	}
	if n.pulls != nil && (step.Kind != ring.StepSync || n.pulls.layout != step.Layout.ID()) {
		n.pulls.dropped = true
		n.pulls = nil
	}
	switch step.Kind {
	case ring.StepConfirm:
		n.mark(func(v *ring.View) { v.ConfirmDead(step.Dead, n.id) })
	case ring.StepAck:
		if n.view.Hash() != n.persisted {
			n.putView(n.view.Clone(), n.takeStep)
			return
		}
		id := step.Layout.ID()
		n.raise(func(f *ring.Fence) { f.Acked = id }, func(v *ring.View) { v.MarkAcked(id, n.id) })
	case ring.StepOvertake:
		v := n.view.Clone()
		if err := v.Overtake(n.promised.Acked); err != nil {
			n.w.trace.line("%s does not overtake %s: %v", n.name, n.promised.Acked, err)
			return
		}
		n.putView(v, func() {
			n.w.trace.line("%s overtakes %s by %s", n.name, n.promised.Acked, v.Newest().ID())
			n.merge(v)
		})
	case ring.StepSwitch:
		id := step.Layout.ID()
		n.raise(func(f *ring.Fence) { f.ReadEpoch = max(f.ReadEpoch, id.Epoch) }, func(v *ring.View) { v.MarkSwitched(id, n.id) })
	case ring.StepSync:
		id := step.Layout.ID()
		switch {
		case n.doubt:
			// It counts as one that was pulled from, which it must not while it may lack records.
		case n.short(step.Pulls):
			// Too few are left to pull from, unless the loss is accepted.
		case n.pulls == nil:
			n.pulls = n.startPulls(id, step.Pulls)
		case n.pulls.done():
			n.mark(func(v *ring.View) { v.MarkSynced(id, n.id) })
		}
	}
}

// hastySync is the sync that does not wait for everyone to have acknowledged.
func (n *node) hastySync(none ring.Step) ring.Step {
	l := n.view.Newest()
	if l == n.view.Settled() || n.promised.Acked != l.ID() {
		return none
	}
	if _, synced, _ := n.view.Missing(l); !slices.Contains(synced, n.id) {
		return none
	}
	ahead := n.view.Clone()
	for _, id := range ahead.Required(l) {
		ahead.MarkAcked(l.ID(), id)
	}
	return ring.NextStep(ahead, n.id, n.promised)
}

// raise changes the fence at once, makes that durable, and then adds this node's mark to the view.
func (n *node) raise(change func(*ring.Fence), mark func(*ring.View)) {
	change(&n.fence)
	next := n.fence
	alive := n.alive()
	n.busy = true
	err := n.store.PutMeta(metaFence, next.Encode(), func(err error) {
		if !alive() {
			return
		}
		if n.busy = false; err == nil {
			n.promised = next
			n.mark(mark)
		}
	})
	n.queued(err)
}

// mark adds a mark to the durable view, then to the one that others see.
func (n *node) mark(set func(*ring.View)) {
	v := n.view.Clone()
	set(v)
	n.putView(v, func() {
		set(n.view)
		n.changed()
		n.w.trace.line("%s marks %s", n.name, n.describeLayouts())
	})
}

// putView makes a view durable.
func (n *node) putView(v *ring.View, then func()) {
	alive, hash := n.alive(), v.Hash()
	n.busy = true
	err := n.store.PutMeta(metaView, v.Encode(), func(err error) {
		if !alive() {
			return
		}
		if n.busy = false; err == nil {
			n.persisted = hash
			then()
		}
	})
	n.queued(err)
}

// queued takes note of whether node state was queued.
func (n *node) queued(err error) {
	if err != nil {
		n.busy = false // the disk is full or being reopened: the next turn tries again
	}
	n.commitSoon()
}

func (n *node) changed() {
	n.gen++
	n.turnSoon(0)
	for _, g := range n.w.gates {
		g.told(n)
	}
}

// persist stores the view where it has changed.
func (n *node) persist() {
	if !n.busy && n.view.Hash() != n.persisted {
		n.putView(n.view.Clone(), func() {})
	}
}

// mergeFrom takes in what another knows, if its word counts: a node's, or with the zero id a gateway's.
func (n *node) mergeFrom(from ring.NodeID, v *ring.View) {
	if n.view != nil && n.view.Accepts(from, v) {
		n.merge(v)
	}
}

// merge takes in a view.
func (n *node) merge(v *ring.View) {
	if n.view == nil {
		return
	}
	before := n.view.Settled()
	changed, err := n.view.Merge(v)
	if err != nil {
		n.w.trace.line("%s does not merge a view: %v", n.name, err)
	}
	if n.view.Settled() != before {
		n.w.trace.line("%s settles on %s", n.name, n.view.Settled().ID())
		n.w.audit(n.view.Settled().ID().Epoch)
	}
	if changed {
		n.changed()
	}
}

// meet exchanges views with someone, more often while a change is under way.
func (n *node) meet() {
	every := 500 * time.Millisecond
	if n.view.Newest() != n.view.Settled() {
		every = n.w.opt.Gossip
	}
	if n.w.now-n.met < every {
		return
	}
	n.met = n.w.now
	to := n.w.nodes[n.w.IntN(len(n.w.nodes))]
	if to == n || !to.up {
		return
	}
	mine := n.view.Clone()
	n.ask(to, func(reply func(func())) {
		if to.view == nil {
			return
		}
		to.mergeFrom(n.id, mine)
		theirs, number := to.view.Clone(), to.number()
		reply(func() {
			n.hears(to.id, number)
			n.mergeFrom(to.id, theirs)
			n.heard[to.id] = true
		})
	})
}

// tell has something happen at another node, as the network allows.
func (n *node) tell(to *node, do func()) {
	n.w.send(n.idx, to.idx, func() { to.whenAwake(to.life, do) })
}

// ask has something happen at another node, which may reply: that reaches this process and none after it.
func (n *node) ask(to *node, do func(reply func(func()))) {
	life := n.life
	n.tell(to, func() {
		do(func(back func()) { n.w.send(to.idx, n.idx, func() { n.whenAwake(life, back) }) })
	})
}

// askForView asks some member for a view, and to be proposed.
func (n *node) askForView() {
	if n.busy {
		return
	}
	to := n.w.nodes[n.w.IntN(len(n.w.nodes))]
	if to == n || !to.up {
		return
	}
	join := ring.Change{Kind: ring.ChangeJoin, Member: n.member()}
	n.ask(to, func(reply func(func())) {
		if to.view == nil || to.view.IsDead(to.id) {
			return
		}
		to.request(join)
		theirs := to.view.Clone()
		reply(func() {
			if n.view != nil || n.busy {
				return
			}
			n.putView(theirs, func() {
				n.view = theirs
				n.heard[to.id] = true
				n.w.trace.line("%s finds the cluster at %s", n.name, theirs.Newest().ID())
				n.changed()
			})
		})
	})
}

// request notes a change to propose.
func (n *node) request(c ring.Change) {
	for i := range n.joiners {
		if n.joiners[i].Member.ID == c.Member.ID {
			return
		}
	}
	n.joiners = append(n.joiners, c)
}

// propose puts the changes asked for on the settled layout.
func (n *node) propose() {
	settled := n.view.Settled()
	if _, in := settled.Member(n.id); !in || n.view.IsDead(n.id) {
		n.joiners = nil // whoever asked asks another
		return
	}
	n.joiners = slices.DeleteFunc(n.joiners, func(c ring.Change) bool { // who has joined asks no more, and may leave before this node can propose
		_, soon := n.view.Newest().Member(c.Member.ID)
		_, in := settled.Member(c.Member.ID)
		return c.Kind == ring.ChangeJoin && (soon || in)
	})
	changes := n.view.Removals()
	if n.busy || len(n.joiners)+len(changes) == 0 || n.view.Newest() != settled {
		return
	}
	leaving := 0
	for _, c := range n.joiners {
		_, in := settled.Member(c.Member.ID)
		comes := c.Kind == ring.ChangeJoin || c.Kind == ring.ChangeReplace
		if _, there := settled.Member(c.Old); c.Kind == ring.ChangeReplace && !there {
			continue
		}
		if comes == in || n.view.IsDead(c.Member.ID) {
			continue
		}
		if c.Kind == ring.ChangeLeave {
			if leaving++; len(settled.Members())-leaving < n.w.opt.N {
				continue
			}
		}
		changes = append(changes, c)
	}
	n.joiners = nil
	if len(changes) == 0 {
		return
	}
	v := n.view.Clone()
	if _, err := v.Propose(n.w.planned(v, changes)); err != nil {
		n.w.trace.line("%s does not propose: %v", n.name, err)
		return
	}
	n.putView(v, func() {
		if n.forgets {
			n.forgets = false
			n.w.forgetProposal(n, v)
			return
		}
		n.merge(v)
		n.w.trace.line("%s proposes %s with %d changes", n.name, v.Newest().ID(), len(changes))
	})
}

func (n *node) describeLayouts() string {
	l := n.view.Newest()
	acked, synced, switched := n.view.Missing(l)
	if l == n.view.Settled() {
		return l.ID().String() + " settled"
	}
	return l.ID().String() + " missing " + count(acked) + "/" + count(synced) + "/" + count(switched)
}

func count(ids []ring.NodeID) string { return string(rune('0' + min(len(ids), 9))) }
