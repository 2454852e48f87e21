package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/transfer"
)

const (
	// leftoversEvery is how often a node looks for what it does not own, handFor how long the owners of a batch are waited for.
	leftoversEvery = 400 * time.Millisecond
	handFor        = time.Second
	// handMost is how many records are handed over together: few, so that a pass has several batches.
	handMost = 3
)

// handing is what a process knows of what it does not own.
type handing struct {
	standing transfer.Standing
	under    bool // a pass is under way
}

// leftover is a record at hand.
type leftover struct{ key, rec []byte }

// leftoverPass is one pass over what a node does not own in a layout.
type leftoverPass struct {
	n      *node
	layout *ring.Layout
	ranges []ring.Range // not looked through yet
}

// hands looks after leftovers, while the process lives.
func (n *node) hands() {
	n.later(leftoversEvery, func() { // without dice, so that runs without layout changes are what they were
		hasty := n.w.bug == DeleteBeforeConfirm
		if may := n.mayHand(); may && !n.under && !n.doubt && (hasty || n.view.Newest() == n.view.Settled()) {
			n.under = true
			l := n.view.Newest()
			(&leftoverPass{n: n, layout: l, ranges: transfer.Unowned(l, n.id)}).page(nil)
		}
		n.retire()
		n.hands()
	})
}

// retire switches off, once all faults have ended, a node that left and may hand over nothing more: its operator has waited in vain.
func (n *node) retire() {
	w := n.w
	if w.faulty || n.view == nil || n.view.IsDead(n.id) || n.view.Newest() != n.view.Settled() {
		return
	}
	if _, member := n.view.Settled().Member(n.id); member || n.mayHand() || n.leftovers() == "" || !w.without(n) || w.awaited(n) {
		return
	}
	w.trace.line("%s left, hands over nothing more, and is switched off", n.name)
	n.gone, n.lost = true, true
	n.stop(true)
}

// awaited says that somebody is still to propose n, which asked before it knew that it had left.
func (w *world) awaited(n *node) bool {
	return slices.ContainsFunc(w.nodes, func(o *node) bool {
		return o.up && slices.ContainsFunc(o.joiners, func(c ring.Change) bool { return c.Member.ID == n.id })
	})
}

// mayHand says whether the process may hand over anything now.
func (n *node) mayHand() bool {
	if n.view == nil || n.view.IsDead(n.id) {
		return false
	}
	may := n.standing.Look(n.monotonic(), n.view.Settled(), n.view.Newest(), n.id, n.sees)
	return may || n.w.bug == LeftLate
}

// page hands over the next records behind a key.
func (p *leftoverPass) page(after []byte) {
	n := p.n
	obtained := n.w.now
	if !n.mayHand() {
		n.under = false
		return
	}
	for len(p.ranges) > 0 {
		var batch []leftover
		err := n.store.Scan(p.ranges[0], after, func(key, rec []byte) (bool, error) {
			batch = append(batch, leftover{bytes.Clone(key), bytes.Clone(rec)})
			return len(batch) < handMost, nil
		})
		if err != nil {
			n.under = false
			return
		}
		if len(batch) > 0 {
			p.hand(batch, obtained)
			return
		}
		p.ranges, after = p.ranges[1:], nil
	}
	n.under = false
}

// hand has all owners confirm some records, one after the other as in production, and removes those that all did.
func (p *leftoverPass) hand(batch []leftover, obtained time.Duration) {
	n := p.n
	b := transfer.NewBatch(p.layout)
	if n.w.bug == DeleteBeforeConfirm {
		b.Without = transfer.WithoutConfirm
	}
	for _, it := range batch {
		d, err := record.DigestOf(it.rec)
		if err != nil {
			n.under = false
			return
		}
		b.Add(ring.SlotOf(it.key), d)
	}
	owners := b.Owners()
	if b.Without&transfer.WithoutConfirm != 0 {
		owners = nil // they are not even asked
	}
	var next func()
	next = func() {
		if len(owners) == 0 {
			p.remove(b, batch)
			return
		}
		to := n.w.byID(owners[0])
		owners = owners[1:]
		if to == nil || !n.sees(to.id) {
			next()
			return
		}
		ended := false
		once := func() {
			if !ended {
				ended = true
				next()
			}
		}
		n.later(handFor, once)
		p.askOwner(b, batch, to, obtained, once)
	}
	next()
}

// askOwner asks an owner what it holds, and brings it what it does not; then is called unless a message is lost.
func (p *leftoverPass) askOwner(b *transfer.Batch, batch []leftover, to *node, obtained time.Duration, then func()) {
	n := p.n
	wants := b.Wants(to.id)
	n.ask(to, func(reply func(func())) {
		if to.view == nil || to.view.IsDead(to.id) {
			return
		}
		holds := make([]bool, len(wants))
		for at, i := range wants {
			d, ok := to.digest(batch[i].key)
			holds[at] = ok && d == b.Digest(i) && !to.doubt
		}
		reply(func() {
			for at, i := range wants {
				if holds[at] {
					b.Confirm(to.id, i)
				}
			}
			left := b.Wants(to.id)
			if len(left) == 0 {
				then()
				return
			}
			p.bring(b, batch, left, to, obtained, then)
		})
	})
}

// bring delivers records to an owner, as hints are delivered.
func (p *leftoverPass) bring(b *transfer.Batch, batch []leftover, left []int, to *node, obtained time.Duration, then func()) {
	n := p.n
	var items []*hintItem
	for _, i := range left {
		items = append(items, &hintItem{key: batch[i].key, rec: batch[i].rec})
	}
	heard := n.heardBy(to.id, obtained)
	n.ask(to, func(reply func(func())) {
		if to.view == nil || to.view.IsDead(to.id) {
			return
		}
		number := to.number()
		back := func(ok []bool) {
			reply(func() {
				n.hears(to.id, number)
				for at, i := range left {
					if ok[at] {
						b.Confirm(to.id, i)
						n.w.stats.Handed++
					}
				}
				then()
			})
		}
		limit, err := to.limit(heard)
		if err != nil {
			back(make([]bool, len(left)))
			return
		}
		to.receive(items, limit, back)
	})
}

// remove removes what all owners have confirmed, and goes on behind it.
func (p *leftoverPass) remove(b *transfer.Batch, batch []leftover) {
	n := p.n
	alive := n.alive()
	waiting := 1
	one := func() {
		if waiting--; waiting == 0 && alive() {
			n.later(0, func() { p.page(batch[len(batch)-1].key) })
		}
	}
	for _, i := range b.Removable() {
		it := batch[i]
		may := transfer.MayRemove(p.layout, n.view.Settled(), n.view.Newest(), n.fence.Acked, n.id, ring.SlotOf(it.key))
		if n.view.IsDead(n.id) || !may && b.Without == 0 {
			n.under = false // the layout changes
			n.commitSoon()
			return
		}
		waiting++
		n.planted.dropping(it.key, it.rec)
		err := n.store.DropRecord(it.key, it.rec, func(dropped bool, err error) {
			if dropped && err == nil && alive() {
				n.w.stats.Dropped++
				n.w.trace.line("%s drops %s, which it does not own", n.name, it.key)
				n.forgetReplays(it.key)
			}
			one()
		})
		if err != nil {
			one()
		}
	}
	n.commitSoon()
	one()
}

// forgetReplays: what the node took and gave away again, it need not have when it owns the key again.
func (n *node) forgetReplays(key []byte) {
	n.w.replays = slices.DeleteFunc(n.w.replays, func(r replay) bool { return r.node == n.idx && bytes.Equal(r.key, key) })
}

// leftovers returns a key that the node keeps and does not own, empty where there is none.
func (n *node) leftovers() (name string) {
	for _, r := range transfer.Unowned(n.view.Settled(), n.id) {
		err := n.store.Scan(r, nil, func(key, _ []byte) (bool, error) {
			name = string(key)
			return false, nil
		})
		if err != nil {
			return err.Error()
		}
		if name != "" {
			break
		}
	}
	return name
}
