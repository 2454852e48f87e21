package sim

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

const (
	// recheck is how long a key must differ before it is fetched: what is being written differs until it has arrived.
	recheck = 300 * time.Millisecond
	// compareFor bounds one comparison; what is late is of no use to it.
	compareFor = 5 * time.Second
	// fan and leaf narrow a comparison down. A leaf is wide, since there are few keys.
	fan, leaf = 4, 4096
)

// sums keeps the sum of every slot in step with a store, as its observer. Its methods are called by the event loop.
type sums struct {
	slots   map[ring.Slot]merkle.Sum
	counted bool // they are those of all durable records
}

// Committed implements kv.Observer.
func (s *sums) Committed(changes []kv.Change) {
	for _, c := range changes {
		s.add(ring.Slot(c.Hash>>(64-ring.SlotBits)), merkle.Leaf(c.Key, c.Now).Minus(merkle.Leaf(c.Key, c.Before)))
	}
}

func (s *sums) add(at ring.Slot, delta merkle.Sum) { s.slots[at] = s.slots[at].Plus(delta) }

// InDoubt implements kv.Observer.
func (s *sums) InDoubt([]kv.Change) { s.counted = false }

// fold returns the sum over a range. The order of the map does not matter to it.
func fold(slots map[ring.Slot]merkle.Sum, r ring.Range) (sum merkle.Sum) {
	for at, one := range slots {
		if at >= r.From && at < r.To {
			sum = sum.Plus(one)
		}
	}
	return sum
}

// count counts the sums where that is necessary, and says whether they can be relied on.
func (n *node) count() bool {
	s := n.sums
	if s.counted {
		return true
	}
	err := n.store.ScanObserved(ring.Range{To: ring.Slots}, func() { clear(s.slots) }, func(key, rec []byte) error {
		d, err := record.DigestOf(rec)
		s.add(ring.SlotOf(key), merkle.Leaf(key, d))
		return err
	})
	s.counted = err == nil
	return s.counted
}

// agreed is the newest layout that all are known to have acknowledged.
func (n *node) agreed() *ring.Layout {
	if l := n.view.Newest(); n.view.AllAcked(l) {
		return l
	}
	return n.view.Settled()
}

// shared lists the slots that two members own in a layout.
func shared(l *ring.Layout, a, b ring.NodeID) (out []ring.Range) {
	for _, r := range segments(l) {
		if owners := l.Primaries(r.From); slices.Contains(owners, a) && slices.Contains(owners, b) {
			out = append(out, r)
		}
	}
	return out
}

// segments cuts the ring where owners may change in some layout.
func segments(layouts ...*ring.Layout) (out []ring.Range) {
	bounds := []ring.Slot{0, ring.Slots}
	for _, l := range layouts {
		for _, m := range l.Members() {
			for _, t := range m.Tokens {
				bounds = append(bounds, t+1) // a slot belongs to the first token at or after it
			}
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	for i, from := range bounds[:len(bounds)-1] {
		out = append(out, ring.Range{From: from, To: bounds[i+1]})
	}
	return out
}

// compares compares with somebody, while the process lives.
func (n *node) compares() {
	if n.w.opt.Compare == 0 {
		return
	}
	n.later(n.w.between(n.w.opt.Compare/2, n.w.opt.Compare*3/2), func() {
		if to := n.w.nodes[n.w.IntN(len(n.w.nodes))]; to != n && n.view != nil {
			n.compare(to, func() {})
		}
		n.compares()
	})
}

// comparison is one comparison with a peer: this node fetches what the peer has and it has not.
type comparison struct {
	n, with *node
	layout  *ring.Layout
	ended   bool
	step    int // guards against what the network delivers twice
	then    func()
}

// compare begins a comparison; then is called once, however it ends, unless the process does.
func (n *node) compare(with *node, then func()) {
	c := &comparison{n: n, with: with, then: then}
	if n.view == nil || n.doubt || n.view.IsDead(n.id) || n.view.IsDead(with.id) || !n.count() {
		c.end()
		return
	}
	c.layout = n.agreed()
	ranges := shared(c.layout, n.id, with.id)
	if len(ranges) == 0 {
		c.end()
		return
	}
	n.later(compareFor, c.end)
	mine := maps.Clone(n.sums.slots)
	n.ask(with, func(reply func(func())) {
		theirs, ok := with.differing(c.layout, ranges, mine)
		reply(func() {
			switch {
			case c.ended || c.step > 0:
			case !ok || len(theirs) == 0:
				c.end()
			default:
				c.step++
				c.look(theirs)
			}
		})
	})
}

func (c *comparison) end() {
	if !c.ended {
		c.ended = true
		c.then()
	}
}

// differing lists what a node holds in the slots in which it differs from a peer with these sums.
func (n *node) differing(l *ring.Layout, ranges []ring.Range, theirs map[ring.Slot]merkle.Sum) ([]merkle.Entry, bool) {
	if n.view == nil || n.doubt || n.view.IsDead(n.id) || !n.count() || n.promised.Acked != l.ID() && n.view.Settled().ID() != l.ID() {
		return nil, false
	}
	by := func(slots map[ring.Slot]merkle.Sum) func(merkle.Ask) ([]byte, error) {
		return func(a merkle.Ask) ([]byte, error) {
			return a.AnswerBy(func(r ring.Range) merkle.Sum { return fold(slots, r) }), a.Valid()
		}
	}
	leaves, err := merkle.Narrowing{Fan: fan, Leaf: leaf}.Differing(ranges, by(theirs), by(n.sums.slots))
	if err != nil {
		n.w.check.Break(history.Convergent, "%s cannot compare: %v", n.name, err)
		return nil, false
	}
	return n.list(leaves)
}

// list lists the keys of some ranges.
func (n *node) list(ranges []ring.Range) (out []merkle.Entry, ok bool) {
	for _, r := range ranges {
		err := n.store.Scan(r, nil, func(key, rec []byte) (bool, error) {
			d, err := record.DigestOf(rec)
			if err != nil {
				return false, err
			}
			clock, err := record.DecodeClock(key, rec)
			out = append(out, merkle.Entry{Key: bytes.Clone(key), Digest: d, Clock: clock})
			return true, err
		})
		if err != nil {
			return nil, false
		}
	}
	return out, true
}

// look finds the keys that the peer has and that would add to what is here, and fetches those that do so a moment later.
func (c *comparison) look(theirs []merkle.Entry) {
	var mine []merkle.Entry
	for _, e := range theirs {
		if d, ok := c.n.digest(e.Key); ok && d != (record.Digest{}) {
			rec, err := c.n.store.Read(e.Key)
			if err != nil {
				continue
			}
			if clock, err := record.DecodeClock(e.Key, rec); err == nil {
				mine = append(mine, merkle.Entry{Key: e.Key, Digest: d, Clock: clock})
			}
		}
	}
	was := make(map[string]record.Digest, len(mine))
	for _, e := range mine {
		was[string(e.Key)] = e.Digest
	}
	wanted := merkle.Wanted(mine, theirs)
	if len(wanted) == 0 {
		c.end()
		return
	}
	c.n.later(recheck, func() {
		var keys [][]byte
		for _, e := range wanted {
			if d, ok := c.n.digest(e.Key); ok && d == was[string(e.Key)] {
				keys = append(keys, e.Key)
			}
		}
		if c.ended || len(keys) == 0 {
			c.end()
			return
		}
		c.fetch(keys)
	})
}

// digest is that of a key's record here, zero where there is none; false where it cannot be read.
func (n *node) digest(key []byte) (d record.Digest, ok bool) {
	rec, err := n.store.Read(key)
	if errors.Is(err, kv.ErrNotFound) {
		return d, true
	}
	if err != nil {
		return d, false
	}
	d, err = record.DigestOf(rec)
	return d, err == nil
}

// fetch gets records from the peer and merges them.
func (c *comparison) fetch(keys [][]byte) {
	n, with := c.n, c.with
	limit := n.limitOf(n.clock())
	n.ask(with, func(reply func(func())) {
		if with.view == nil || with.doubt {
			return
		}
		var got, recs [][]byte
		for _, k := range keys {
			if rec, err := with.store.Read(k); err == nil {
				got, recs = append(got, k), append(recs, rec)
			}
		}
		reply(func() {
			if c.ended || c.step > 1 {
				return
			}
			c.step++
			n.w.trace.line("%s fetches %d keys from %s", n.name, len(got), with.name)
			n.take(got, recs, limit, func(changed int, _ bool) {
				n.w.stats.Fetched += changed
				c.end()
			})
		})
	})
}
