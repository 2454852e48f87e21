package planner

import (
	"math"
	"slices"
	"sort"

	"github.com/dotring/dotring/ringsvc/ring"
)

// leastCells is how many ranges a ring has at least, so that every one has two different ones beside it.
const leastCells = 16

// How fine the planner works, as parts of a node's target.
const (
	tolerance = 0.008 // a load within this of its target needs nothing
	leastPart = 0.008 // no cell is cut into parts smaller than this
)

// vacate takes out of all cells who leaves, and who may not stay since the zones or the number of copies changed.
func (b *board) vacate() {
	for i := range b.cells {
		for again := true; again; {
			again = false
			worst, worstRatio := int32(-1), math.Inf(-1)
			for _, o := range b.cells[i].set {
				switch {
				case b.nodes[o].target == 0:
					worst, worstRatio = o, math.Inf(1)
				case b.superfluous(i, o) && b.ratio(o) > worstRatio:
					worst, worstRatio = o, b.ratio(o)
				}
			}
			if worst >= 0 {
				b.drop(i, worst)
				again = true
			}
		}
	}
}

// superfluous tells whether o is one too many in cell i: of its zone, or of all.
func (b *board) superfluous(i int, o int32) bool {
	set := b.cells[i].set
	distinct, same := 0, 0
	for k, p := range set {
		if b.nodes[p].target == 0 {
			return false // who leaves goes first
		}
		if p != o && b.nodes[p].zone == b.nodes[o].zone {
			same++
		}
		if !slices.ContainsFunc(set[:k], func(q int32) bool { return b.nodes[q].zone == b.nodes[p].zone }) {
			distinct++
		}
	}
	if b.zones >= b.replicas {
		return same > 0 || len(set) > b.replicas
	}
	return same > 0 && (len(set) > b.replicas || b.zones-distinct > b.replicas-len(set))
}

// occupy finds an owner for every place that is vacant, longest cells first.
func (b *board) occupy() {
	for {
		at, longest := -1, 0
		for i, c := range b.cells {
			if n := b.length(i); len(c.set) < b.replicas && n > longest {
				at, longest = i, n
			}
		}
		if at < 0 {
			return
		}
		best, bestScore := int32(-1), math.Inf(1)
		for y := range b.nodes {
			y := int32(y)
			if b.nodes[y].target == 0 || !b.fits(at, -1, y) {
				continue
			}
			part := math.Min(float64(longest), math.Max(b.want(y), leastPart*b.nodes[y].target))
			s := (b.excess(y)+part)/b.nodes[y].target + b.shyness(at, -1, y) + b.style.mixing*b.kinship(at, -1, y)
			if m := b.merges(at, -1, y); m {
				s -= 0.004
			}
			if s < bestScore {
				best, bestScore = y, s
			}
		}
		if best < 0 {
			return // fewer nodes than places: cannot be, and the walk would find somebody
		}
		t := b.nodes[best].target
		want := b.want(best)
		if part := int(want); float64(longest) > want+2*tolerance*t && want >= leastPart*t && longest-part >= max(leastCell, int(leastPart*t)) && part >= leastCell {
			b.split(at, part)
			at = b.at(at)
		}
		b.add(at, best)
	}
}

// want is how many slots y takes of those that are vacant: in a large ring some more than its target, so that ranges stay whole.
func (b *board) want(y int32) float64 {
	if b.sparse {
		return thinTake*b.nodes[y].target - float64(b.nodes[y].load)
	}
	return -b.excess(y)
}

// at is where the first part of cell i is after split cut it; the index moves when the part behind went to the start of the ring.
func (b *board) at(i int) int {
	if len(b.cells) > 1 && i+1 < len(b.cells) && slices.Equal(b.cells[i].set, b.cells[i+1].set) {
		return i
	}
	return len(b.cells) - 1
}

// merges tells whether cell i would have the same owners as one beside it, with y for x.
func (b *board) merges(i int, x, y int32) bool {
	for _, j := range [...]int{b.prev(i), b.next(i)} {
		set := b.cells[j].set
		if j == i || len(set) != b.replicas || !slices.Contains(set, y) {
			continue
		}
		same := 1
		for _, o := range b.cells[i].set {
			if o != x && slices.Contains(set, o) {
				same++
			}
		}
		if same == b.replicas {
			return true
		}
	}
	return false
}

// How few neighbours are sought. All of it was chosen by growing clusters to 300 nodes in steps of 1 to 20 (TestLarge).
const (
	meshUpTo = 40  // rings up to this many nodes are a mesh
	shyPer   = 0.3 // what a new neighbour costs, in parts of a target
	crowd    = 24  // neighbours beyond which each one more costs another crowdPer
	crowdPer = 0.3
)

// draw moves load to node y, from whoever has most too much, until it has its target or the budget, in slots moved, is spent. It returns
// how much was.
func (b *board) draw(y int32, budget int) (spent int, changed bool) {
	t := b.nodes[y].target
	for {
		want := b.room(y)
		if want < leastPart*t {
			return spent, changed
		}
		at, from, part, price, best := -1, int32(-1), 0, 0, math.Inf(-1)
		for i := range b.cells {
			if slices.Contains(b.cells[i].set, y) {
				continue
			}
			n := b.length(i)
			for _, x := range b.cells[i].set {
				tx := b.nodes[x].target
				over := float64(b.nodes[x].load) - b.keep*b.nodes[x].target
				if over < leastPart*tx || !b.fits(i, x, y) {
					continue
				}
				each := b.price(i, x, y)
				p := n
				if float64(n) > over+tolerance*tx || float64(n) > want+tolerance*t {
					p = int(math.Min(over, want))
					if least := int(leastPart * math.Min(t, tx)); p < least || n-p < least {
						continue
					}
				}
				if each*p > budget-spent {
					continue
				}
				s := 1 + over/tx - b.shyness(i, x, y) + b.style.mixing*(b.kinship(i, x, x)-b.kinship(i, x, y))
				if p == n {
					s += 0.001
				}
				if each <= 0 {
					s += 10
				}
				if s > best {
					at, from, part, price, best = i, x, p, each, s
				}
			}
		}
		if at < 0 {
			return spent, changed
		}
		spent += price * part
		changed = true
		b.hand(at, part, from, y)
	}
}

// leastCell is how many slots a range has at least: room for its tokens, and enough that those weigh nothing.
const leastCell = 4 * ring.MaxReplicas

// hand gives the first part slots of cell i from x to y, or all where next to nothing would be left.
func (b *board) hand(i, part int, x, y int32) {
	if part = max(part, leastCell); part+leastCell <= b.length(i) {
		b.split(i, part)
		i = b.at(i)
	}
	b.drop(i, x)
	b.add(i, y)
}

// even draws load to those below their targets while somebody is above goal times theirs, and budget lasts.
func (b *board) even(goal, keep, lift float64, budget int) {
	b.keep, b.lift = keep, lift
	for range 4 * len(b.nodes) {
		if b.worst() <= goal {
			return
		}
		changed := false
		for _, y := range b.needy() {
			spent, some := b.draw(y, budget)
			budget -= spent
			changed = changed || some
		}
		if changed {
			continue
		}
		spent, some := b.chain(goal, budget)
		if !some {
			return
		}
		budget -= spent
	}
}

// needy lists those below their targets, neediest first.
func (b *board) needy() []int32 {
	var out []int32
	for i, n := range b.nodes {
		if n.target > 0 && b.room(int32(i)) >= leastPart*n.target {
			out = append(out, int32(i))
		}
	}
	sort.Slice(out, func(i, j int) bool { return b.ratio(out[i]) < b.ratio(out[j]) })
	return out
}

// room is how many more slots node y takes.
func (b *board) room(y int32) float64 { return b.lift*b.nodes[y].target - float64(b.nodes[y].load) }

// tidy joins cells with the same owners.
func (b *board) tidy() {
	for i := 0; i < len(b.cells) && len(b.cells) > leastCells; {
		j := b.next(i)
		if sameSet(b.cells[i].set, b.cells[j].set) && j > i {
			b.merge(i)
			continue
		}
		i++
	}
}

func sameSet(a, b []int32) bool {
	if len(a) != len(b) {
		return false
	}
	for _, o := range a {
		if !slices.Contains(b, o) {
			return false
		}
	}
	return true
}

// find is the cell that slot s lies in.
func (b *board) find(s int32) int {
	i, exact := slices.BinarySearchFunc(b.cells, s, func(c cell, s int32) int { return int(c.from - s) })
	if exact {
		return i
	}
	return (i + len(b.cells) - 1) % len(b.cells)
}
