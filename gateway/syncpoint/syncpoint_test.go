package syncpoint

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/ring"
)

// cluster is a naive model: nodes that all own everything, with a clock, keys, hints, and comparisons under way, which
// bring what the peer held when they began.
type cluster struct {
	members []ring.NodeID
	now     uint64
	nodes   map[ring.NodeID]*node
}

type node struct {
	life   byte
	since  uint64 // its clock began then
	keys   map[int]bool
	hints  map[ring.NodeID]map[int]uint64 // by target: key, and when it was kept
	oldest map[ring.NodeID]uint64
	whole  map[ring.NodeID]uint64
	busy   map[ring.NodeID]*pull
}

type pull struct {
	began uint64
	keys  map[int]bool
}

var layout = ring.LayoutID{Epoch: 1}

func newCluster(n int) *cluster {
	c := &cluster{now: 10, nodes: map[ring.NodeID]*node{}}
	for i := range n {
		id := ring.NodeID{byte(i + 1)}
		c.members = append(c.members, id)
		c.nodes[id] = &node{life: 1, keys: map[int]bool{}, hints: map[ring.NodeID]map[int]uint64{}, oldest: map[ring.NodeID]uint64{},
			whole: map[ring.NodeID]uint64{}, busy: map[ring.NodeID]*pull{}}
	}
	return c
}

func (c *cluster) report(id ring.NodeID) Report {
	n := c.nodes[id]
	at := func(t uint64) uint64 { return max(t, n.since+1) - n.since }
	r := Report{Life: [16]byte{n.life}, Now: at(c.now), Layout: layout}
	for target, keys := range n.hints {
		if len(keys) > 0 {
			r.Hints = append(r.Hints, Hint{Target: target, Count: uint64(len(keys)), Since: at(n.oldest[target])})
		}
	}
	for _, peer := range c.members {
		if peer != id {
			w := n.whole[peer]
			if w > 0 {
				w = at(w)
			}
			r.Compares = append(r.Compares, Compare{Peer: peer, Whole: w})
		}
	}
	return r
}

// step lets something happen.
func (c *cluster) step(t *rapid.T, key int) {
	c.now++
	id := rapid.SampledFrom(c.members).Draw(t, "node")
	peer := rapid.SampledFrom(c.members).Draw(t, "peer")
	n := c.nodes[id]
	if id == peer {
		return
	}
	switch rapid.IntRange(0, 6).Draw(t, "what") {
	case 0: // a write that one node alone has
		n.keys[key] = true
	case 1: // a hint
		if n.hints[peer] == nil {
			n.hints[peer] = map[int]uint64{}
		}
		if len(n.hints[peer]) == 0 {
			n.oldest[peer] = c.now
		}
		n.hints[peer][key] = c.now
	case 2: // a pass that delivers all hints kept by now
		for k := range n.hints[peer] {
			c.nodes[peer].keys[k] = true
		}
		n.hints[peer] = nil
	case 3, 4: // a comparison begins
		n.busy[peer] = &pull{c.now, maps.Clone(c.nodes[peer].keys)}
	case 5: // and ends
		if p := n.busy[peer]; p != nil {
			maps.Copy(n.keys, p.keys)
			n.whole[peer] = p.began
			n.busy[peer] = nil
		}
	case 6: // a restart: hints stay, comparisons do not
		if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
			n.life, n.since = n.life+1, c.now
			n.whole, n.busy = map[ring.NodeID]uint64{}, map[ring.NodeID]*pull{}
		}
	}
}

// What was anywhere when the point began is everywhere when it is done, whatever happens meanwhile, restarts and a change
// of gateways included; and it does get done.
func TestDoneMeansEverywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(rapid.IntRange(2, 4).Draw(t, "nodes"))
		for key := range rapid.IntRange(0, 30).Draw(t, "before") {
			c.step(t, key)
		}
		known := map[int]bool{}
		for _, n := range c.nodes {
			maps.Copy(known, n.keys)
			for _, keys := range n.hints {
				for k := range keys {
					known[k] = true
				}
			}
		}
		p := &Point{}
		ask := func(id ring.NodeID) {
			compare := p.WantsCompare(c.members, id)
			p.Observe(id, c.report(id), compare)
		}
		for _, id := range c.members {
			ask(id)
		}
		steps := rapid.IntRange(0, 150).Draw(t, "steps")
		for i := range steps {
			c.step(t, 1000+i)
			ask(rapid.SampledFrom(c.members).Draw(t, "asked"))
			if rapid.IntRange(0, 20).Draw(t, "other gateway") == 0 {
				p = reencode(t, p)
			}
			if len(p.Waiting(c.members, []ring.LayoutID{layout})) == 0 {
				c.everywhere(t, known)
				return
			}
		}
		c.quiet()
		for range 3 {
			for _, id := range c.members {
				ask(id)
			}
			c.quiet()
		}
		for _, id := range c.members {
			ask(id)
		}
		if w := p.Waiting(c.members, []ring.LayoutID{layout}); len(w) > 0 {
			t.Fatalf("all is done, and it waits for %v", w)
		}
		c.everywhere(t, known)
	})
}

// quiet delivers all hints, and has every node compare with every other.
func (c *cluster) quiet() {
	for _, n := range c.nodes {
		for target, keys := range n.hints {
			for k := range keys {
				c.nodes[target].keys[k] = true
			}
			n.hints[target] = nil
		}
	}
	c.now++
	for id, n := range c.nodes {
		for _, peer := range c.members {
			if peer != id {
				maps.Copy(n.keys, c.nodes[peer].keys)
				n.whole[peer] = c.now
			}
		}
	}
	c.now++
}

func (c *cluster) everywhere(t *rapid.T, known map[int]bool) {
	for k := range known {
		for _, id := range c.members {
			if !c.nodes[id].keys[k] {
				t.Fatalf("done, and node %x lacks key %d", id[0], k)
			}
		}
	}
}

func reencode(t *rapid.T, p *Point) *Point {
	s, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := Decode(s)
	if err != nil {
		t.Fatal(err)
	}
	for id, n := range p.nodes { // as if asked again at once
		out.nodes[id].latest = n.latest
	}
	return out
}

// A point of one node waits for what is between it and others, and for nothing else.
func TestOfOneNode(t *testing.T) {
	c := newCluster(3)
	a, b, other := c.members[0], c.members[1], c.members[2]
	c.nodes[a].hints[b], c.nodes[a].oldest[b] = map[int]uint64{1: 5}, 5
	for _, tc := range []struct {
		node *ring.NodeID
		want []Wait
	}{
		{nil, []Wait{{Hints, a, b}, {Comparison, b, a}, {Comparison, b, other}, {Comparison, other, a}, {Comparison, other, b}}},
		{&b, []Wait{{Hints, a, b}, {Comparison, b, a}, {Comparison, b, other}, {Comparison, other, b}}},
		{&other, []Wait{{Comparison, a, other}, {Comparison, b, other}, {Comparison, other, a}, {Comparison, other, b}}},
	} {
		p := &Point{Node: tc.node}
		if got := p.Waiting(c.members, []ring.LayoutID{layout}); len(got) != 3 || got[0].Kind != Unknown {
			t.Errorf("before anybody was asked it waits for %v", got)
		}
		for _, id := range c.members {
			p.Observe(id, c.report(id), false)
		}
		if got := p.Waiting(c.members, []ring.LayoutID{layout}); !slices.Equal(got, tc.want) {
			t.Errorf("it waits for %v, want %v", got, tc.want)
		}
		if got := p.Waiting(c.members, nil); !slices.ContainsFunc(got, func(w Wait) bool { return w.Kind == Layout }) {
			t.Errorf("of another layout it waits for %v", got)
		}
	}
}

func TestBadTokens(t *testing.T) {
	for _, s := range []string{"", "!", "e30", "bnVsbA"} {
		if _, err := Decode(s); !errors.Is(err, ErrToken) {
			t.Errorf("%q is taken: %v", s, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	p := &Point{Node: &ring.NodeID{1}, Prefix: []byte("k")}
	p.Observe(ring.NodeID{2}, Report{Life: [16]byte{1}, Now: 7, Layout: layout}, true)
	s, err := p.Encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{s, s[:len(s)/2], "", "e30"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Decode(s)
		if err != nil {
			return
		}
		again, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		q, err := Decode(again)
		if err != nil || fmt.Sprint(q.Node) == "" || len(q.nodes) != len(p.nodes) {
			t.Fatalf("%v: %q becomes %q", err, s, again)
		}
	})
}
