package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/planner"
	"github.com/dotring/dotring/ringsvc/ring"
)

// operatorAfter is how many times as long as dead-after an operator waits who removes what no node removes by itself.
const operatorAfter = 2

// planned completes changes with tokens, where the planner chooses them.
func (w *world) planned(v *ring.View, changes []ring.Change) []ring.Change {
	if !w.opt.Planned {
		return changes
	}
	return planner.Plan(v.Settled(), changes)
}

// cut says that nothing gets from one place to the other.
func (w *world) cut(from, to int) bool {
	return w.blocked[from][to] || max(from, to) < len(w.nodes) && (w.nodes[from].isolated || w.nodes[to].isolated)
}

// without says whether no node knows of a live layout that holds n.
func (w *world) without(n *node) bool {
	for _, o := range w.nodes {
		if !o.up || o.view == nil || o.gone {
			continue
		}
		for _, l := range o.view.Live() {
			if _, in := l.Member(n.id); in {
				return false
			}
		}
	}
	return true
}

// marked says whether any other node knows n to be marked dead.
func (w *world) marked(n *node) bool {
	return slices.ContainsFunc(w.nodes, func(o *node) bool { return o != n && o.up && o.view != nil && o.view.IsDead(n.id) })
}

// doom takes a machine away for good: it stops, or it is cut off from the other nodes until they have removed it, and goes
// on serving whom it reaches. A joiner that is no
// owner yet may always go, but not to be of two minds: with another one that is cut off it would make a quorum.
func (w *world) doom() {
	n := w.nodes[w.victims[w.IntN(len(w.victims))]]
	j := w.joiner()
	if j != nil && w.chance(0.5) {
		n = j
	}
	if !n.up || n.gone || n.view == nil || w.copies() < w.opt.MinW {
		return
	}
	if _, in := n.view.Settled().Member(n.id); in && len(n.view.Settled().Members()) <= w.opt.MinW {
		return
	}
	n.gone = true
	w.stats.Doomed++
	if n != j && w.chance(0.5) {
		w.trace.line("%s is cut off from the other nodes, to be removed", n.name)
		n.isolated = true
		w.rejoin(n)
		return
	}
	w.trace.line("%s goes for good", n.name)
	w.loses()
	n.lost = true
	n.stop(w.chance(w.opt.Clean))
}

// joiner is a node that nobody reads from and that no settled layout holds, nil where there is none.
func (w *world) joiner() *node {
	for _, n := range w.nodes[w.opt.Nodes:] {
		settled := func(o *node) bool {
			if o.view == nil {
				return false
			}
			_, in := o.view.ReadLayout().Member(n.id)
			return in
		}
		if n.up && n.view != nil && !n.gone && !slices.ContainsFunc(w.nodes, settled) {
			return n
		}
	}
	return nil
}

// rejoin lets a machine that was cut off meet the others again, some time after one of them has marked it dead.
func (w *world) rejoin(n *node) {
	if w.marked(n) {
		w.untilHealed(w.between(0, 4*time.Second), func() {
			w.trace.line("%s meets the others again", n.name)
			n.isolated = false
		})
		return
	}
	w.untilHealed(100*time.Millisecond, func() { w.rejoin(n) })
}

// abort gives up what is under way.
func (w *world) abort() {
	n := w.running()
	if n == nil || n.view == nil || n.busy || n.paused() || n.view.IsDead(n.id) {
		return
	}
	if _, in := n.view.Settled().Member(n.id); !in {
		return
	}
	v := n.view.Clone()
	if _, err := v.Abort(n.id); err != nil {
		return // there is nothing to give up
	}
	n.putView(v, func() {
		w.stats.Aborted++
		n.merge(v)
		w.trace.line("%s gives up what is under way: %s", n.name, n.describeLayouts())
	})
}

// outage stops all nodes, mostly in the middle of a change.
func (w *world) outage() {
	amid := slices.ContainsFunc(w.nodes, func(n *node) bool { return n.up && n.view != nil && n.view.Newest() != n.view.Settled() })
	if w.outages >= 3 || w.stats.Restarts > 40 || !amid && !w.chance(0.2) {
		return
	}
	w.outages++
	w.stats.Outages++
	w.trace.line("all nodes stop")
	clean := w.chance(0.5)
	for _, n := range w.nodes {
		if n.up {
			n.stop(clean && w.chance(0.8))
			n.restart(w.between(50*time.Millisecond, 2*time.Second))
		}
	}
}

// deafen cuts a gateway off from the news: it learns of a layout only from a node that refuses it.
func (w *world) deafen() {
	g := w.gates[w.IntN(len(w.gates))]
	g.deafTo = w.now + w.between(time.Second, 10*time.Second)
	w.trace.line("%s hears no news until %s", g.name, g.deafTo)
}

// sees says whether gossip would call another node alive.
func (n *node) sees(id ring.NodeID) bool {
	to := n.w.byID(id)
	return to == n || to != nil && to.up && !to.paused() && n.w.reachable(n.idx, to.idx)
}

// watchAway keeps account of who is away, has those removed who have gone for good, and notices that this node is cut off.
func (n *node) watchAway() {
	w := n.w
	if w.opt.DeadAfter == 0 {
		return
	}
	var away []ring.Absence
	members := n.view.Settled().Members()
	for _, m := range members {
		if n.sees(m.ID) {
			delete(n.away, m.ID)
			continue
		}
		since, known := n.away[m.ID]
		if !known {
			since = w.now
			n.away[m.ID] = since
		}
		away = append(away, ring.Absence{ID: m.ID, For: w.now - since})
	}
	if 2*len(away) < len(members) {
		n.majority = w.now
	}
	n.cutOff = w.now-n.majority > w.opt.DeadAfter/2
	id, verdict := ring.DecideRemoval(n.view, n.id, away, w.opt.DeadAfter)
	if verdict == ring.RemovalUnsafe || verdict == ring.RemovalNone {
		id, verdict = n.operator(away)
	}
	// Only so many machines may go for good as a write has copies beside one.
	if to := w.byID(id); verdict == ring.RemovalNow && to != nil && to.gone && !n.busy {
		n.remove(to)
	}
	n.accept()
}

// operator decides of who has been away for longer still, and of joiners that have gone.
func (n *node) operator(away []ring.Absence) (ring.NodeID, ring.RemovalVerdict) {
	w := n.w
	for _, a := range away {
		if a.For > operatorAfter*w.opt.DeadAfter && !n.view.IsDead(a.ID) {
			return a.ID, ring.RemovalNow
		}
	}
	for _, m := range n.view.Newest().Members() {
		if _, in := n.view.Settled().Member(m.ID); !in && w.byID(m.ID).gone && !n.view.IsDead(m.ID) {
			return m.ID, ring.RemovalNow
		}
	}
	return ring.NodeID{}, ring.RemovalNone
}

// remove marks a member dead, and takes its tokens, or gives its place to another, where no change is under way.
func (n *node) remove(gone *node) {
	w := n.w
	if _, in := n.view.Settled().Member(n.id); !in || n.view.IsDead(n.id) {
		return
	}
	v, what := n.view.Clone(), "marks"
	err := v.MarkDead(gone.id, false)
	if errors.Is(err, ring.ErrRemovalPending) { // maybe of a joiner, or with one: then each waits for the other until the join is given up
		if _, aborted := v.Abort(n.id); aborted == nil {
			if err = nil; v.MarkDead(gone.id, false) != nil {
				what = "gives up the join of"
			}
		} else if w.harmless(gone) {
			what, err = "accepts the loss of", v.MarkDead(gone.id, true)
		}
	}
	if err != nil {
		return
	}
	if r := v.Removals(); len(r) > 0 && v.Newest() == v.Settled() {
		if by := w.spare(); by != nil && w.chance(0.6) {
			r, what = []ring.Change{{Kind: ring.ChangeReplace, Old: gone.id, Member: by.member()}}, "replaces"
			by.restart(0)
			w.stats.Replaced++
		}
		if _, err := v.Propose(w.planned(v, r)); err != nil {
			w.trace.line("%s does not remove %s: %v", n.name, gone.name, err)
			return
		}
	}
	w.removals++
	w.stats.Removed++
	n.putView(v, func() {
		n.merge(v)
		w.trace.line("%s %s %s: %s", n.name, what, gone.name, n.describeLayouts())
	})
}

// harmless says that of all that have gone none but this one can take or answer anything that counts: an operator has looked.
func (w *world) harmless(but *node) bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool {
		return n.gone && n != but && n.up && n.view != nil && !n.view.IsDead(n.id)
	})
}

// accept goes on with a change that waits in vain for sources that have gone.
func (n *node) accept() {
	if _, in := n.view.Settled().Member(n.id); !in || n.busy || !n.w.harmless(nil) || len(n.view.Short(n.view.Newest())) == 0 {
		return
	}
	v := n.view.Clone()
	for _, m := range v.Settled().Members() {
		if v.IsDead(m.ID) {
			_ = v.MarkDead(m.ID, true) // it is marked already
		}
	}
	n.putView(v, func() {
		n.merge(v)
		n.w.stats.Accepted++
		n.w.trace.line("%s accepts that sources have gone", n.name)
	})
}

// spare is a node that was never in use, nil where there is none.
func (w *world) spare() *node {
	for _, n := range w.nodes {
		if !n.started && !n.gone {
			return n
		}
	}
	return nil
}

// short says that too few are left to pull from.
func (n *node) short(pulls []ring.Pull) bool {
	return n.w.bug != DeadNeed && slices.ContainsFunc(pulls, func(p ring.Pull) bool { return len(p.Sources) < p.Need })
}
