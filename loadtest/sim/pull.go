package sim

import (
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

// pullRetry is the pause after a source of a pull failed, or did not answer.
const pullRetry = 300 * time.Millisecond

// pullTask brings a node what it is to own, or ought to have.
type pullTask struct {
	layout  ring.LayoutID
	groups  []*pullGroup
	dropped bool // it is of use no more
}

// pullGroup is the ranges that have the same sources.
type pullGroup struct {
	ranges  []ring.Range
	left    []ring.NodeID
	need    int
	turn    int
	attempt int
}

func (t *pullTask) done() bool {
	for _, g := range t.groups {
		if g.need > 0 {
			return false
		}
	}
	return true
}

// startPulls begins to carry out pulls.
func (n *node) startPulls(layout ring.LayoutID, pulls []ring.Pull) *pullTask {
	t := &pullTask{layout: layout}
	for _, p := range pulls {
		i := slices.IndexFunc(t.groups, func(g *pullGroup) bool { return slices.Equal(g.left, p.Sources) })
		if i < 0 {
			need := p.Need
			if n.w.bug == SyncOne {
				need = 1
			}
			if n.w.bug == DeadNeed {
				need = max(1, need-len(n.view.Dead()))
			}
			i = len(t.groups)
			t.groups = append(t.groups, &pullGroup{left: slices.Clone(p.Sources), need: need})
		}
		t.groups[i].ranges = append(t.groups[i].ranges, p.Range)
	}
	for _, g := range t.groups {
		if i := slices.Index(g.left, n.id); i >= 0 {
			g.left = slices.Delete(g.left, i, i+1)
			g.need--
		}
		g.need = min(g.need, len(g.left))
		n.pull(t, g)
	}
	n.w.trace.line("%s pulls for %s from %d groups of sources", n.name, layout, len(t.groups))
	return t
}

// pull asks the next source of a group. A source counts once all of the ranges came from it and are durable.
func (n *node) pull(t *pullTask, g *pullGroup) {
	if t.dropped || g.need <= 0 || len(g.left) == 0 {
		return
	}
	g.attempt++
	attempt := g.attempt
	from := n.w.byID(g.left[g.turn%len(g.left)])
	fail := func() {
		if g.attempt == attempt {
			g.turn++
			n.pull(t, g)
		}
	}
	n.later(pullRetry, fail) // unless it has gone on by then
	n.ask(from, func(reply func(func())) {
		keys, recs, ok := from.page(t.layout, g.ranges)
		reply(func() {
			if g.attempt != attempt || !ok {
				return
			}
			n.take(keys, recs, time.Time{}, func(_ int, stored bool) {
				if g.attempt != attempt || !stored {
					return
				}
				g.attempt++
				g.left = slices.DeleteFunc(g.left, func(id ring.NodeID) bool { return id == from.id })
				g.need--
				n.pull(t, g)
				if t.done() {
					n.turnSoon(0)
				}
			})
		})
	})
}

// page reads what a node durably has of some ranges.
func (n *node) page(layout ring.LayoutID, ranges []ring.Range) (keys, recs [][]byte, ok bool) {
	if n.view == nil || n.doubt || n.view.IsDead(n.id) {
		return nil, nil, false
	}
	// A source that has acknowledged the layout takes no more writes that do not know it.
	if n.promised.Acked != layout && n.view.Settled().ID() != layout && n.w.bug != AckAll {
		return nil, nil, false
	}
	for _, r := range ranges {
		err := n.store.Scan(r, nil, func(k, rec []byte) (bool, error) {
			keys, recs = append(keys, slices.Clone(k)), append(recs, slices.Clone(rec))
			return true, nil
		})
		if err != nil {
			return nil, nil, false
		}
	}
	return keys, recs, true
}

// take stores what came from another node, and says once how much of it was new and whether all of it is durable.
func (n *node) take(keys, recs [][]byte, limit time.Time, then func(news int, stored bool)) {
	waiting, news, stored := len(keys), 0, true
	if waiting == 0 {
		then(0, true)
		return
	}
	alive := n.alive()
	done := func(i int, changed bool, err error) {
		waiting--
		stored = stored && err == nil
		switch {
		case err != nil:
		case changed:
			news++
			fallthrough
		default:
			n.keepForReplay(keys[i], recs[i])
		}
		if waiting == 0 && alive() {
			then(news, stored)
		}
	}
	for i := range keys {
		n.planted.hear(keys[i], recs[i])
		if err := n.store.ApplyBefore(limit, keys[i], recs[i], func(changed bool, err error) { done(i, changed, err) }); err != nil {
			done(i, false, err)
		}
	}
	n.commitSoon()
}

// healDoubt brings a node whose disk may lack what it acknowledged all that a read quorum of the others knows of the
// slots it owns.
func (n *node) healDoubt() {
	if n.view.IsDead(n.id) {
		return
	}
	if n.w.bug != OldView && !n.view.Informed(n.id, func(id ring.NodeID) bool { return n.heard[id] }) {
		return
	}
	settled := n.view.Settled()
	if n.refill != nil && n.refill.layout != settled.ID() {
		n.refill.dropped = true
		n.refill = nil
	}
	if n.refill == nil {
		n.refill = n.startPulls(settled.ID(), n.refillPulls(settled))
	}
	if !n.refill.done() {
		return
	}
	n.refill, n.doubt = nil, false
	n.remembered, n.born = n.store.Stats().CommitNumber, n.disk.born
	n.w.trace.line("%s is in doubt no longer", n.name)
}

// refillPulls lists what a node in doubt pulls: from n-w+1 other owners in the settled layout, for all it owns in any
// live one.
func (n *node) refillPulls(settled *ring.Layout) []ring.Pull {
	need := settled.Replicas() - settled.EffectiveW(settled.MinW()) + 1
	var out []ring.Pull
	for _, r := range segments(n.view.Live()...) {
		owned := false
		for _, l := range n.view.Live() {
			owned = owned || l.Owns(n.id, r.From)
		}
		if !owned {
			continue
		}
		owners := slices.DeleteFunc(slices.Clone(settled.Primaries(r.From)), func(id ring.NodeID) bool { return id == n.id })
		slices.SortFunc(owners, ring.NodeID.Compare)
		if len(owners) > 0 {
			out = append(out, ring.Pull{Range: r, Sources: owners, Need: min(need, len(owners))})
		}
	}
	return out
}
