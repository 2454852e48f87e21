// Package planner chooses the tokens of a layout, so that data is spread evenly, changes move little, and failures of several nodes seldom
// meet in one key.
//
// # How
//
// A plan is made of ranges ("cells"), each with a set of owners, and not of single tokens: N tokens in a row at the end of a range make
// the walk of ring.Layout give just those owners to all of it but its last N-1 slots. So a place in a range goes from one node to another
// with nothing else moved, a range can be cut anywhere, and the whole problem is to hand places from those who have too much to those who have
// too little. Tables of a fixed number of ranges with free owners, as in Riak's claim, are the nearest relative; copysets (Cidon et al.,
// USENIX ATC 2013) give the reason to keep neighbours few, and Cassandra's allocator the aim to choose tokens by load and not by chance.
//
// A plan is carried by the changes it completes. Two that were made apart on one base unite into a layout that is whole, since tokens are
// only places; it is at worst less even, and the next change mends it.
package planner

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/ringsvc/ring"
)

// Plan completes changes that lack tokens, for View.Propose on base: joins and weights get theirs, and members who make room or take over
// get a ChangeTokens each. Changes that have tokens already are kept, and then nothing is planned. The same arguments give the same
// plan. Pure; a plan takes milliseconds at 40 nodes and about a second at 300 (BenchmarkPlan).
func Plan(base *ring.Layout, changes []ring.Change) []ring.Change {
	after, n, ok := outcome(base, changes)
	if !ok {
		return changes
	}
	b := best(base, after, n)
	b.tidy()
	tokens := b.tokens()
	out := make([]ring.Change, 0, len(changes))
	done := make(map[ring.NodeID]bool)
	for _, c := range changes {
		if c.Kind == ring.ChangeJoin || c.Kind == ring.ChangeWeight {
			c.Member.Tokens = tokens[c.Member.ID]
			if c.Member.Weight == 0 {
				c.Member.Weight = 1
			}
			done[c.Member.ID] = true
		}
		out = append(out, c)
	}
	for _, m := range base.Members() {
		if _, stays := after[m.ID]; stays && !done[m.ID] && !slices.Equal(m.Tokens, tokens[m.ID]) {
			out = append(out, ring.Change{Kind: ring.ChangeTokens, Member: ring.Member{ID: m.ID, Tokens: tokens[m.ID]}})
		}
	}
	return out
}

// styles are ways to solve a board, the usual one first.
var styles = []style{
	{mixing: 0.03, keep: limit - leastPart},
	{mixing: 0.03, keep: 1},
	{mixing: 0, keep: limit - leastPart},
	{mixing: 0.1, keep: 1},
	{mixing: 0.3, keep: limit - leastPart},
}

// style is what a solution may do in one way or another.
type style struct {
	mixing float64 // how much a node prefers to share ranges with those it shares little with so far
	keep   float64 // how much of its target a node keeps when it is drawn from beyond thrift, as a multiple
}

// best solves in the usual way, and where that moves more than it should in the others too, of which it takes the one that moves least.
func best(base *ring.Layout, after map[ring.NodeID]ring.Member, n int) *board {
	var found *board
	least := 0
	for _, s := range styles {
		b := newBoard(base, after, n)
		b.style = s
		fair := b.fair(base)
		b.solve(fair)
		moved := b.moved()
		if b.worst() > limit+tolerance {
			moved += ring.Slots * b.replicas
		}
		if found == nil || moved < least {
			found, least = b, moved
		}
		if b.sparse || float64(least) <= thrift*float64(fair) {
			break // a large ring is solved in one way only
		}
	}
	return found
}

// Found chooses the tokens of the first member of a cluster.
func Found(founder ring.Member) []ring.Slot {
	b := &board{replicas: 1, zones: 1, nodes: []node{{id: founder.ID, key: keyOf(founder.ID)}}}
	for k := range leastCells {
		b.cells = append(b.cells, cell{from: int32(k * ring.Slots / leastCells), set: []int32{0}})
	}
	return b.tokens()[founder.ID]
}

// outcome is who is a member after changes, and N. ok is false where there is nothing to plan: a change the planner does not know, or one
// that came with tokens.
func outcome(base *ring.Layout, changes []ring.Change) (after map[ring.NodeID]ring.Member, n int, ok bool) {
	after = make(map[ring.NodeID]ring.Member)
	for _, m := range base.Members() {
		after[m.ID] = m
	}
	n = base.N()
	for _, c := range changes {
		m := c.Member
		if m.Weight == 0 {
			m.Weight = 1
		}
		switch c.Kind {
		case ring.ChangeJoin, ring.ChangeWeight:
			if len(m.Tokens) > 0 || !(m.Weight > 0 && m.Weight <= ring.MaxWeight) {
				return nil, 0, false
			}
			if c.Kind == ring.ChangeWeight {
				old, known := after[m.ID]
				if !known {
					return nil, 0, false
				}
				old.Weight = m.Weight
				m = old
			}
			after[m.ID] = m
		case ring.ChangeLeave, ring.ChangeRemove:
		case ring.ChangeReplicas:
			n = c.N
		default:
			return nil, 0, false
		}
	}
	for _, c := range changes {
		if c.Kind == ring.ChangeLeave || c.Kind == ring.ChangeRemove {
			delete(after, c.Member.ID)
		}
	}
	return after, n, len(after) > 0 && len(after) <= ring.MaxMembers
}

func keyOf(id ring.NodeID) uint64 { return xxh3.Hash(id[:]) }

// newBoard lays base out as ranges, with the targets of those who are members after the change.
func newBoard(base *ring.Layout, after map[ring.NodeID]ring.Member, n int) *board {
	b := &board{}
	number := make(map[ring.NodeID]int32)
	for _, m := range base.Members() {
		number[m.ID] = -1
		if _, stays := after[m.ID]; !stays {
			b.nodes = append(b.nodes, node{id: m.ID, key: keyOf(m.ID), zone: -1})
		}
	}
	for _, m := range after {
		b.nodes = append(b.nodes, node{id: m.ID, key: keyOf(m.ID), weight: m.Weight})
	}
	slices.SortFunc(b.nodes, func(x, y node) int { return x.id.Compare(y.id) })
	zones := make(map[string]int32)
	var claims []claim
	var staying []int
	for i := range b.nodes {
		id := b.nodes[i].id
		number[id] = int32(i)
		m, stays := after[id]
		if !stays {
			continue
		}
		z, known := zones[m.Zone]
		if !known {
			z = int32(len(zones))
			zones[m.Zone] = z
		}
		b.nodes[i].zone = z
		claims, staying = append(claims, claim{z, m.Weight}), append(staying, i)
	}
	b.zones = len(zones)
	b.replicas = min(n, len(claims))
	for k, t := range targets(claims, b.replicas) {
		b.nodes[staying[k]].target = t * ring.Slots
	}
	b.lay(base, number)
	b.count()
	return b
}

// lay reads the ranges of base: a segment each, but for those too short to be anything else than what is between the tokens at the end of one.
func (b *board) lay(base *ring.Layout, number map[ring.NodeID]int32) {
	var ends []ring.Slot
	at := make(map[ring.Slot]int32) // who has a token there
	for _, m := range base.Members() {
		ends = append(ends, m.Tokens...)
		for _, s := range m.Tokens {
			at[s] = number[m.ID]
		}
	}
	slices.Sort(ends)
	short := 2 * base.N()
	for i, e := range ends {
		from := ends[(i+len(ends)-1)%len(ends)]
		if len(ends) > 1 && gap(from, e) < short {
			continue
		}
		var set []int32
		for _, id := range base.Primaries(e) {
			set = append(set, number[id])
		}
		var order []int32
		for k := range set {
			if o, there := at[ring.Slot((int(e)+k)%ring.Slots)]; there {
				order = append(order, o)
			}
		}
		b.cells = append(b.cells, cell{from: int32((from + 1) % ring.Slots), set: set, was: set, order: order})
	}
	slices.SortFunc(b.cells, func(x, y cell) int { return cmp.Compare(x.from, y.from) })
	// The tokens at the end of a range stand in its last slots, so the next begins behind the last of them: from is right as it is.
	for len(b.cells) < leastCells {
		longest := 0
		for i := range b.cells {
			if b.length(i) > b.length(longest) {
				longest = i
			}
		}
		c := b.cells[longest]
		from := (c.from + int32(b.length(longest)/2)) % ring.Slots
		b.cells = append(b.cells, cell{from: from, set: c.set, was: c.was, order: c.order})
		slices.SortFunc(b.cells, func(x, y cell) int { return cmp.Compare(x.from, y.from) })
	}
}

// gap is the number of slots behind from, up to and including to, clockwise.
func gap(from, to ring.Slot) int {
	d := int(to) - int(from)
	if d <= 0 {
		d += ring.Slots
	}
	return d
}

// fair is how many slots the change has to move: those of who comes and who goes, and what changed weights make of targets.
func (b *board) fair(base *ring.Layout) int {
	f := 0.0
	for i := range b.nodes {
		n := &b.nodes[i]
		m, was := base.Member(n.id)
		switch {
		case !was:
			f += n.target
			n.grows = true
		case n.target == 0:
			f += float64(n.load)
		case m.Weight != n.weight:
			n.grows = n.weight > m.Weight
			f += max(n.target-float64(n.load), float64(n.load)-n.target)
		}
	}
	return int(f)
}

// What a plan may spend and aims at. Up to thrift times the fair share it goes on until no load is above goal times its target; beyond that
// it goes on, where zones force load to travel by way of other nodes, only until none is above limit.
const (
	thrift = 1.07
	goal   = 1.01
	limit  = 1.04
)

// solve hands places on until the targets are met.
func (b *board) solve(fair int) {
	b.tidy()
	b.sparse = b.large()
	b.vacate()
	b.occupy()
	if b.sparse {
		b.thin(fair)
		b.coarsen()
		return
	}
	budget := int(thrift * float64(fair))
	b.even(goal, 1, 1, 0)
	b.even(goal, 1, 1, budget-b.moved())
	b.even(limit, b.style.keep, 1, ring.Slots*b.replicas)
	b.even(limit, 1, limit-0.02, ring.Slots*b.replicas)
	b.coarsen()
}

// lone tells whether node i is the only one of its zone and zones are so few that it owns everything whether it has a token near or not.
func (b *board) lone(i int32) bool {
	if b.zones > b.replicas || b.zones < 2 {
		return false
	}
	for k, n := range b.nodes {
		if n.target > 0 && int32(k) != i && n.zone == b.nodes[i].zone {
			return false
		}
	}
	return true
}

// tokens writes the ranges as tokens: in the last slots of each those of its owners, in an order drawn from the range and the nodes, so that
// every owner is as often the first and a change moves no others. The nodes that own everything need few.
func (b *board) tokens() map[ring.NodeID][]ring.Slot {
	out := make(map[ring.NodeID][]ring.Slot, len(b.nodes))
	lone := make([]bool, len(b.nodes))
	for i, n := range b.nodes {
		lone[i] = n.target > 0 && b.lone(int32(i))
	}
	orders := b.orders()
	for i, c := range b.cells {
		end := int(c.from) + b.length(i) - 1
		order := orders[i]
		for k, o := range order {
			if lone[o] && i > 0 && mix(b.nodes[o].key, ^uint64(end))%lonePart != 0 {
				continue
			}
			s := ring.Slot((end - len(order) + 1 + k) % ring.Slots)
			out[b.nodes[o].id] = append(out[b.nodes[o].id], s)
		}
	}
	for _, t := range out {
		slices.Sort(t)
	}
	return out
}

// hashed is the owners of cell i in an order drawn from where it ends.
func (b *board) hashed(i int) []int32 {
	end := int(b.cells[i].from) + b.length(i) - 1
	order := slices.Clone(b.cells[i].set)
	slices.SortFunc(order, func(x, y int32) int {
		return cmp.Compare(mix(b.nodes[x].key, uint64(end)), mix(b.nodes[y].key, uint64(end)))
	})
	return order
}

// lonePart is in one of how many ranges a node stands that owns them all anyway.
const lonePart = 32

func mix(a, b uint64) uint64 {
	var buf [16]byte
	binary.LittleEndian.PutUint64(buf[:], a)
	binary.LittleEndian.PutUint64(buf[8:], b)
	return xxh3.Hash(buf[:])
}

// coarsen makes ranges longer until nobody has more tokens than ring.TokenCount allows: the shortest range of who has too many takes
// the owners of the one before.
func (b *board) coarsen() {
	tokens := make([]int, len(b.nodes))
	for _, c := range b.cells {
		for _, o := range c.set {
			tokens[o]++
		}
	}
	for o := range b.nodes {
		if b.nodes[o].target == 0 || b.lone(int32(o)) {
			continue
		}
		for tokens[o] > ring.TokenCount(b.nodes[o].weight) && len(b.cells) > leastCells {
			at := -1
			for i, c := range b.cells {
				if slices.Contains(c.set, int32(o)) && (at < 0 || b.length(i) < b.length(at)) {
					at = i
				}
			}
			for _, x := range b.cells[at].set {
				tokens[x]--
			}
			b.absorb(at)
		}
	}
}

// absorb gives cell i to the owners of the one before.
func (b *board) absorb(i int) {
	p := b.prev(i)
	for _, x := range b.cells[i].set {
		b.nodes[x].load -= b.length(i)
	}
	for _, x := range b.cells[p].set {
		b.nodes[x].load += b.length(i)
	}
	if i == 0 { // the last cell runs over the end already: it grows by this one
		b.cells = b.cells[1:]
		return
	}
	b.cells = slices.Delete(b.cells, i, i+1)
}
