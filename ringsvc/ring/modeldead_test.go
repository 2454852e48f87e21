package ring

import (
	"maps"
	"slices"
)

// This file is what the model does of members that go for good, changes that are given up, and data that is no longer owned.

// modelHandover is what a node gives to all owners before it deletes it.
type modelHandover struct {
	layout LayoutID
	data   map[int]bool
	left   []NodeID
}

// hears tells whether to takes in what from knows.
func (m *model) hears(to, from *modelNode) bool {
	return !from.off && (!m.variant.deaths || to.view.Accepts(from.id, from.view))
}

// hub is the union of all that count.
func (m *model) hub() *View {
	var hub *View
	for range 2 { // the first round tells who is a member
		for _, n := range m.nodes {
			switch {
			case n.view.IsDead(n.id) || n.off:
			case hub == nil:
				if !m.variant.deaths || n.view.isMember(n.id) {
					hub = n.view.Clone()
				}
			case hub.isMember(n.id) && !hub.IsDead(n.id) || !m.variant.deaths:
				_, _ = hub.Merge(n.view) // only a foreign or an overlarge view fails
			}
		}
	}
	return hub
}

// bentPull is what a pull asks for, or what a planted bug makes of it.
func (m *model) bentPull(n *modelNode, p Pull) (need int, sources []NodeID) {
	owners := n.view.Settled().Primaries(modelSlot)
	need, sources = p.Need, p.Sources
	switch m.bug {
	case "sync1":
		need = 1
	case "deadneed": // a dead owner is taken for one that was heard
		need = max(1, need-(len(owners)-len(sources)))
	case "secondmark":
		need = min(need, len(sources))
	}
	return need, sources
}

// chooseStandIn lets a node that is no owner take a write for one, now and then.
func (m *model) chooseStandIn(op *modelOp) {
	if !m.variant.handoff || m.rnd.IntN(2) == 0 {
		return
	}
	owners := op.live[m.rnd.IntN(len(op.live))].Primaries(modelSlot)
	n := m.node()
	for _, l := range op.live {
		if slices.Contains(l.Primaries(modelSlot), n.id) {
			return
		}
	}
	op.standIn, op.instead = n.id, owners[m.rnd.IntN(len(owners))]
}

// upset lets an operator, or a timer, do something through n.
func (m *model) upset(n *modelNode) {
	if _, member := n.view.Settled().Member(n.id); n.off || n.view.IsDead(n.id) || !member {
		return
	}
	switch {
	case m.variant.aborts && m.rnd.IntN(2) == 0:
		_, _ = n.view.Abort(n.id) // an error says that there is nothing to abort
	case m.variant.deaths && m.rnd.IntN(2) == 0 && len(n.view.Dead()) < 3:
		l := n.view.Newest()
		id := l.members[m.rnd.IntN(len(l.members))].ID
		if id == n.id || len(l.members) <= 3 {
			return
		}
		before := n.view.Dead()
		if m.bug == "secondmark" {
			before = nil
			_ = n.view.MarkDead(id, true)
		} else if n.view.MarkDead(id, false) != nil {
			return
		}
		// Whoever was removed before is off by now: it had time to notice that it hears nobody, or was switched off.
		for _, gone := range before {
			m.byID[gone].off = m.byID[gone].off || gone != id
		}
	}
}

// tidyUp proposes the removal of dead members, and moves what is not where it belongs.
func (m *model) tidyUp(n *modelNode) {
	v := n.view
	if _, member := v.Settled().Member(n.id); member && !v.IsDead(n.id) && v.Newest() == v.Settled() {
		if r := v.Removals(); len(r) > 0 {
			_, _ = v.Propose(r) // an error says that there is nothing to remove
		}
	}
	if m.variant.handoff && (m.rnd.IntN(6) > 0 || !m.deliver(n)) {
		m.handOver(n)
	}
}

// tidy tells that n has nothing that belongs elsewhere, and nobody to remove.
func (m *model) tidy(n *modelNode) bool {
	if v := n.view; len(v.Removals()) > 0 && !v.IsDead(n.id) {
		return false
	}
	return !m.variant.handoff || len(n.hints) == 0 && (len(n.data) == 0 || slices.Contains(n.view.Settled().Primaries(modelSlot), n.id))
}

// deliver brings one hint to its owner, or where that is no owner in some live layout, to all that are.
func (m *model) deliver(n *modelNode) bool {
	for w, to := range n.hints {
		owns := true
		for _, l := range n.view.Live() {
			owns = owns && slices.Contains(l.Primaries(modelSlot), to)
		}
		if owns {
			m.byID[to].data[w] = true
		} else {
			for _, l := range n.view.Live() {
				for _, o := range l.Primaries(modelSlot) {
					m.byID[o].data[w] = true
				}
			}
		}
		delete(n.hints, w)
		return true
	}
	return false
}

// handOver gives what n does not own in the settled layout to one more owner, and deletes it once all have confirmed.
func (m *model) handOver(n *modelNode) {
	l := n.view.Settled()
	owners := l.Primaries(modelSlot)
	if n.view.Newest() != l || slices.Contains(owners, n.id) || len(n.data) == 0 {
		n.giving = nil
		return
	}
	if m.bug == "cleanup" {
		clear(n.data)
		return
	}
	if n.giving == nil || n.giving.layout != l.ID() {
		n.giving = &modelHandover{layout: l.ID(), data: maps.Clone(n.data), left: slices.Clone(owners)}
	}
	g := n.giving
	if len(g.left) > 0 {
		maps.Copy(m.byID[g.left[0]].data, g.data)
		g.left = g.left[1:]
		return
	}
	for w := range g.data {
		delete(n.data, w) // what came meanwhile stays
	}
	n.giving = nil
}

// acceptLoss lets operators go on where two were marked dead at once.
func (m *model) acceptLoss() {
	for _, n := range m.nodes {
		if len(n.view.Short(n.view.Newest())) > 0 {
			for _, id := range n.view.Dead() {
				if n.view.isMember(id) {
					_ = n.view.MarkDead(id, true)
				}
			}
		}
	}
}
