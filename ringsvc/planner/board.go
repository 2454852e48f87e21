package planner

import (
	"math"
	"slices"

	"github.com/dotring/dotring/ringsvc/ring"
)

// node is one member while a plan is made. One with target 0 leaves.
type node struct {
	id     ring.NodeID
	key    uint64 // hash of id
	zone   int32
	weight float64
	target float64 // slots it should hold, each replica counted
	load   int     // slots it holds

	grows bool // new, or of more weight than in the base

	neighbours int // nodes that own something together with it, or beside it
	inner      int // those that own something together with it
}

// cell is a range of slots with one set of owners. It ends where the next begins.
type cell struct {
	from int32
	set  []int32 // indices into board.nodes; may be short of the replicas while a plan is made
	was  []int32 // owners in the base

	order []int32 // owners in the order of their tokens in the base; nil where there is none
}

// board is the ring as ranges and their owners while a plan is made.
type board struct {
	cells      []cell
	nodes      []node
	lift       float64 // how far above its target a node is filled, as a multiple
	style      style
	keep       float64 // how much of its target a node keeps at least, as a multiple
	sparse     bool    // see thin
	seamBudget int     // slots that may change owners for the order of tokens
	replicas   int     // copies kept: N, or the number of members where that is smaller
	zones      int     // zones with members that stay
	pairs      []int16
	shared     []int32 // slots that two nodes both own
}

// length is how many slots cell i has.
func (b *board) length(i int) int {
	to := int32(ring.Slots)
	if i+1 < len(b.cells) {
		to = b.cells[i+1].from
	} else {
		to += b.cells[0].from
	}
	return int(to - b.cells[i].from)
}

// excess is how far node i is above its target, in slots.
func (b *board) excess(i int32) float64 { return float64(b.nodes[i].load) - b.nodes[i].target }

// ratio is the load of node i as a multiple of its target.
func (b *board) ratio(i int32) float64 { return float64(b.nodes[i].load) / b.nodes[i].target }

// pair counts in how many places two nodes are neighbours, adding d.
func (b *board) pair(x, y int32, d int16) {
	if x == y {
		return
	}
	p := &b.pairs[int(x)*len(b.nodes)+int(y)]
	was := *p
	*p += d
	b.pairs[int(y)*len(b.nodes)+int(x)] = *p
	switch {
	case was == 0 && *p > 0:
		b.nodes[x].neighbours++
		b.nodes[y].neighbours++
	case was > 0 && *p == 0:
		b.nodes[x].neighbours--
		b.nodes[y].neighbours--
	}
}

// together tells in how many places x and y are neighbours.
func (b *board) together(x, y int32) int16 { return b.pairs[int(x)*len(b.nodes)+int(y)] }

func (b *board) prev(i int) int { return (i + len(b.cells) - 1) % len(b.cells) }
func (b *board) next(i int) int { return (i + 1) % len(b.cells) }

// near calls fn for the nodes that one in cell i is a neighbour of: those of the cell, and of the cells before and behind, whose tokens
// complete the lists of the last slots.
func (b *board) near(i int, fn func(int32)) {
	for _, o := range b.cells[i].set {
		fn(o)
	}
	if len(b.cells) < 2 {
		return
	}
	for _, o := range b.cells[b.prev(i)].set {
		fn(o)
	}
	for _, o := range b.cells[b.next(i)].set {
		fn(o)
	}
}

// share notes that x and y both own d more slots.
func (b *board) share(x, y int32, d int) {
	p := &b.shared[int(x)*len(b.nodes)+int(y)]
	was := *p
	*p += int32(d)
	b.shared[int(y)*len(b.nodes)+int(x)] = *p
	switch {
	case was == 0 && *p > 0:
		b.nodes[x].inner++
		b.nodes[y].inner++
	case was > 0 && *p == 0:
		b.nodes[x].inner--
		b.nodes[y].inner--
	}
}

// kinship is how much y already has to do with the owners of cell i but for x, summed over them: slots shared, in parts of what the two would
// share if all were mixed evenly.
func (b *board) kinship(i int, x, y int32) float64 {
	k := 0.0
	for _, o := range b.cells[i].set {
		if o != x && o != y {
			k += float64(b.shared[int(y)*len(b.nodes)+int(o)]) * ring.Slots / (b.nodes[y].target * b.nodes[o].target)
		}
	}
	return k
}

// count computes loads and pairs afresh.
func (b *board) count() {
	for i := range b.nodes {
		b.nodes[i].load, b.nodes[i].neighbours, b.nodes[i].inner = 0, 0, 0
	}
	b.pairs = make([]int16, len(b.nodes)*len(b.nodes))
	b.shared = make([]int32, len(b.nodes)*len(b.nodes))
	for i, c := range b.cells {
		n := b.length(i)
		for k, o := range c.set {
			b.nodes[o].load += n
			for _, p := range c.set[k+1:] {
				b.pair(o, p, 1)
				b.share(o, p, n)
			}
			if len(b.cells) > 1 {
				for _, p := range b.cells[b.next(i)].set {
					b.pair(o, p, 1)
				}
			}
		}
	}
}

// add makes y an owner of cell i.
func (b *board) add(i int, y int32) {
	b.near(i, func(o int32) { b.pair(o, y, 1) })
	for _, o := range b.cells[i].set {
		b.share(o, y, b.length(i))
	}
	b.cells[i].set = append(slices.Clone(b.cells[i].set), y)
	b.nodes[y].load += b.length(i)
}

// drop takes x out of the owners of cell i.
func (b *board) drop(i int, x int32) {
	set := b.cells[i].set
	k := slices.Index(set, x)
	b.cells[i].set = slices.Delete(slices.Clone(set), k, k+1)
	b.near(i, func(o int32) { b.pair(o, x, -1) })
	for _, o := range b.cells[i].set {
		b.share(o, x, -b.length(i))
	}
	b.nodes[x].load -= b.length(i)
}

// split cuts cell i after n slots; the part behind becomes cell i+1.
func (b *board) split(i, n int) {
	c := b.cells[i]
	from := c.from + int32(n)
	if from >= ring.Slots { // the last cell runs over the end: the part behind is the first cell
		b.cells = slices.Insert(b.cells, 0, cell{from - ring.Slots, c.set, c.was, c.order})
	} else {
		b.cells = slices.Insert(b.cells, i+1, cell{from, c.set, c.was, c.order})
	}
	for _, o := range c.set { // those of the parts are now beside each other too
		for _, p := range c.set {
			if o < p {
				b.pair(o, p, 3)
			}
		}
	}
}

// merge joins cell i and the next, which has the same owners.
func (b *board) merge(i int) {
	j := b.next(i)
	for _, o := range b.cells[i].set {
		for _, p := range b.cells[i].set {
			if o < p {
				b.pair(o, p, -3)
			}
		}
	}
	b.cells = slices.Delete(b.cells, j, j+1)
}

// fits tells whether y may become an owner of cell i once without (-1: nobody) is gone: the preference list keeps one node a zone where
// there are zones enough, else one of each zone.
func (b *board) fits(i int, without, y int32) bool {
	set := b.cells[i].set
	zone := b.nodes[y].zone
	distinct, others := 1, 0
	for k, o := range set {
		if o == y {
			return false
		}
		if o == without {
			continue
		}
		others++
		if b.nodes[o].zone == zone {
			if b.zones >= b.replicas {
				return false
			}
			continue
		}
		fresh := true
		for _, p := range set[:k] {
			if p != without && b.nodes[p].zone == b.nodes[o].zone {
				fresh = false
			}
		}
		if fresh {
			distinct++
		}
	}
	if b.zones >= b.replicas {
		return true
	}
	missing := b.replicas - others - 1 // places left after y
	return b.zones-distinct <= missing
}

// shyness is what it costs, in parts of a target, that y becomes an owner of cell i in place of x (-1: of nobody): new neighbours count, more
// so the more neighbours either has, and lost ones are a gain. It is nothing in a small ring, where all are neighbours anyway.
func (b *board) shyness(i int, x, y int32) float64 {
	if len(b.nodes) <= meshUpTo {
		return 0
	}
	var seen [4 * ring.MaxReplicas]int32
	n := 0
	cost := 0.0
	b.near(i, func(o int32) {
		if o == y || o == x || slices.Contains(seen[:n], o) {
			return
		}
		if n < len(seen) {
			seen[n] = o
			n++
		}
		if b.together(o, y) == 0 {
			cost += shyPer + b.crowded(o) + b.crowded(y)
		}
		if x >= 0 && b.together(o, x) <= 3 {
			cost -= shyPer / 2
		}
	})
	return cost
}

// crowded is what one more neighbour costs a node that has many.
func (b *board) crowded(o int32) float64 {
	return crowdPer * float64(max(0, b.nodes[o].neighbours-crowd))
}

// price is how many slots are moved for each slot of cell i that goes from x to y: none where y owned it in the base, or x did not.
func (b *board) price(i int, x, y int32) int {
	p := 0
	if !slices.Contains(b.cells[i].was, y) {
		p++
	}
	if x >= 0 && !slices.Contains(b.cells[i].was, x) {
		p--
	}
	return p
}

// moved is how many slots have an owner that they do not have in the base, counted once for each.
func (b *board) moved() int {
	total := 0
	for i, c := range b.cells {
		for _, o := range c.set {
			if !slices.Contains(c.was, o) {
				total += b.length(i)
			}
		}
	}
	return total
}

// worst is the highest load as a multiple of its target.
func (b *board) worst() float64 {
	w := 0.0
	for i, n := range b.nodes {
		if n.target > 0 {
			w = math.Max(w, b.ratio(int32(i)))
		}
	}
	return w
}
