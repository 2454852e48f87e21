package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/hints"
)

const (
	// handOffEvery is how often a node looks whom it keeps hints for, deliverFor bounds one delivery.
	handOffEvery = 200 * time.Millisecond
	deliverFor   = time.Second
	// batchMost is how many hints travel together: few, so that a pass has several batches.
	batchMost = 3
)

// passing is what a node remembers of the hints for one other.
type passing struct {
	pacer   hints.Pacer
	running bool
}

// hintPass is one pass over the hints for a node.
type hintPass struct {
	n        *node
	of       *passing
	target   ring.NodeID
	kind     hints.Pass
	as       hints.Target
	began    time.Time
	complete bool
	same     bool          // what was confirmed had not changed meanwhile
	from     []byte        // behind which key the batch under way begins
	refused  bool          // somebody answered, and took nothing of it
	again    bool          // a batch was sent a second time
	obtained time.Duration // when the batch under way was read
}

// hintItem is a hint on its way.
type hintItem struct {
	key, rec  []byte
	route     hints.Route
	confirmed []ring.NodeID
}

// handsOff looks after the hints, while the process lives.
func (n *node) handsOff() {
	n.later(n.w.between(handOffEvery/2, handOffEvery*3/2), func() {
		n.handOff()
		n.handsOff()
	})
}

// monotonic is time that does not jump.
func (n *node) monotonic() time.Time { return epoch0.Add(n.w.now) }

// handOff begins the passes that are due.
func (n *node) handOff() {
	if n.view == nil || n.view.IsDead(n.id) {
		return
	}
	live := n.view.Live()
	for _, k := range n.store.HintTargets() {
		p := n.passes[k.ID]
		if p == nil {
			p = &passing{}
			n.passes[k.ID] = p
		}
		if p.running {
			continue
		}
		as := hints.Target{Count: k.Count, Gone: true}
		if to := n.w.byID(k.ID); to != nil {
			as.Alive = to.up && n.w.reachable(n.idx, to.idx)
		}
		for _, l := range live {
			_, in := l.Member(k.ID)
			as.Gone = as.Gone && !in
			as.Layouts = as.Layouts*31 + l.ID().Epoch
		}
		if kind := p.pacer.Next(n.monotonic(), as); kind != hints.Wait {
			p.running = true
			(&hintPass{n: n, of: p, target: k.ID, kind: kind, as: as, began: n.clock(), complete: true, same: true}).page(nil)
		}
	}
}

func (p *hintPass) end(complete bool) {
	p.of.running = false
	p.of.pacer.Passed(p.n.monotonic(), p.kind, p.as, complete)
}

// page delivers the next hints behind a key.
func (p *hintPass) page(after []byte) {
	n, live := p.n, p.n.view.Live()
	p.obtained, p.from, p.refused = n.w.now, after, false
	var batch []*hintItem
	var last []byte
	size := 0
	err := n.store.ScanHints(p.target, after, func(key, rec []byte) (bool, error) {
		route := hints.RouteOf(live, p.target, ring.SlotOf(key))
		if p.kind == hints.All || route.Rerouted {
			if len(batch) == batchMost || !hints.Fits(len(batch), size, len(key)+len(rec)) {
				return false, nil
			}
			size += len(key) + len(rec)
			batch = append(batch, &hintItem{key: bytes.Clone(key), rec: bytes.Clone(rec), route: route})
		}
		last = bytes.Clone(key)
		return true, nil
	})
	switch {
	case err != nil:
		p.end(false)
	case last == nil:
		if p.complete && p.same && p.kind == hints.All {
			n.store.HintsDelivered(p.target, p.began)
		}
		p.end(p.complete)
	default:
		p.deliver(batch, last)
	}
}

// deliver brings each hint of a batch to those it is for.
func (p *hintPass) deliver(batch []*hintItem, last []byte) {
	n := p.n
	var to []ring.NodeID
	for _, it := range batch {
		to = it.route.To(to)
	}
	waiting, ended := len(to), false
	one := func() {
		if waiting--; waiting <= 0 && !ended {
			ended = true
			p.drop(batch, last)
		}
	}
	if waiting == 0 {
		one()
		return
	}
	n.later(deliverFor, func() { waiting = 0; one() })
	for _, id := range to {
		var part []*hintItem
		for _, it := range batch {
			if slices.Contains(it.route.To(nil), id) {
				part = append(part, it)
			}
		}
		p.send(id, part, one)
	}
}

// send brings hints to one node, maybe to this one itself; then is called once, if an answer comes.
func (p *hintPass) send(id ring.NodeID, part []*hintItem, then func()) {
	n, to := p.n, p.n.w.byID(id)
	if to == nil {
		return
	}
	ended := false
	confirm := func(ok []bool) {
		if ended {
			return // delivered twice
		}
		ended = true
		p.refused = p.refused || !slices.Contains(ok, true)
		for i, it := range part {
			if ok[i] {
				it.confirmed = append(it.confirmed, id)
			}
		}
		then()
	}
	if to == n {
		n.receive(part, time.Time{}, confirm)
		return
	}
	heard := n.heardBy(id, p.obtained)
	n.ask(to, func(reply func(func())) {
		if to.view == nil {
			return
		}
		number := to.number()
		back := func(ok []bool) {
			reply(func() {
				n.hears(id, number)
				confirm(ok)
			})
		}
		limit, err := to.limit(heard)
		if err != nil {
			back(make([]bool, len(part))) // too old, or nothing was heard yet: they come again
			return
		}
		to.receive(part, limit, back)
	})
}

// receive merges hints that were brought here, and says which of them are durable.
func (n *node) receive(part []*hintItem, limit time.Time, then func(ok []bool)) {
	ok, waiting := make([]bool, len(part)), len(part)
	alive := n.alive()
	for i, it := range part {
		done := func(err error) {
			ok[i] = err == nil
			if ok[i] {
				n.keepForReplay(it.key, it.rec)
			}
			if waiting--; waiting == 0 && alive() {
				then(ok)
			}
		}
		n.planted.hear(it.key, it.rec)
		if err := n.store.ApplyBefore(limit, it.key, bytes.Clone(it.rec), func(_ bool, err error) { done(err) }); err != nil {
			done(err)
		}
	}
	n.commitSoon()
}

// drop removes the hints that were confirmed, and goes on behind them.
func (p *hintPass) drop(batch []*hintItem, last []byte) {
	n := p.n
	alive := n.alive()
	confirmed, waiting := 0, 1
	one := func() {
		if waiting--; waiting > 0 || !alive() {
			return
		}
		if confirmed == 0 && p.refused && !p.again {
			// What was heard of the receivers may have been too old for them to take anything. Now it is not.
			p.again = true
			p.page(p.from)
			return
		}
		p.complete = p.complete && confirmed == len(batch)
		if confirmed == 0 && len(batch) > 0 {
			p.end(false)
			return
		}
		n.later(0, func() { p.page(last) })
	}
	for _, it := range batch {
		if !it.route.Confirmed(it.confirmed) {
			continue
		}
		confirmed++
		waiting++
		n.planted.dropping(it.key, it.rec)
		err := n.store.DropHint(p.target, it.key, it.rec, func(gone bool, err error) {
			if gone && err == nil {
				n.w.stats.Delivered++
			}
			p.same = p.same && gone && err == nil
			one()
		})
		if err != nil {
			p.same = false
			one()
		}
	}
	n.commitSoon()
	one()
}
