package planner

import (
	"math"
	"slices"
)

// How a large ring is planned. There everyone cannot give a little of all they have: that would cut the ring into ranges so short that nearly
// all are neighbours. So loads spread between thinFloor and thinCeil times their targets. Whoever is to be filled takes whole ranges, or
// parts of thinPiece, from those who are above thinCeil, and from others only while there is none; each gives as much at once as brings it
// well below the mean, and then nothing for many changes. All of it was chosen by growing clusters to 300 nodes one by one and in steps, with 1 to
// 5 zones, and by letting nodes leave them (TestLarge, TestLargeChurn).
const (
	thinCeil  = 1.047 // above this multiple of its target a node must give
	thinFloor = 0.90  // and it keeps at least this
	thinPiece = 0.085 // what a node gives at once, as a part of a target
	thinPart  = 0.06  // no range is cut into parts smaller than this
	thinLow   = 0.85  // who is new or has more weight is filled where it is below this
	thinTake  = 1.03  // what is vacant is given to nodes up to this

	overWorth  = 8.0 // how much the load of who gives counts
	tieCost    = 0.1 // what a new neighbour costs for each target's worth of slots
	lostWorth  = 0.5 // what a neighbour lost is worth of that
	innerCrowd = 24  // co-owners beyond which each one more costs innerPer of that besides
	innerPer   = 0.3
	mergeWorth = 0.3 // what it is worth that a range joins the one beside it

	seamFree  = 24.0 // neighbours beyond which the order of tokens is changed to spare some
	seamPrice = 5    // slots that change owners when the tokens at the end of a range change places
	seamPart  = 0.06 // how many slots may do so, as a part of the fair share
	seamMost  = 4    // with more copies the orders are too many to try
)

// large tells whether the ring is planned by thin.
func (b *board) large() bool {
	live := 0
	for _, n := range b.nodes {
		if n.target > 0 {
			live++
		}
	}
	return live > meshUpTo
}

// thin fills who is new from few others, and relieves who has too much.
func (b *board) thin(fair int) {
	for range b.nodes {
		y := b.thinnest()
		if y < 0 || !b.thinFill(y) {
			break
		}
	}
	b.thinRelieve()
	b.seamBudget = int(math.Min(seamPart*float64(fair), thrift*float64(fair)-float64(b.moved())))
}

// thinnest is who has least of those that are to be filled, -1 for none.
func (b *board) thinnest() int32 {
	best, ratio := int32(-1), thinLow
	for i, n := range b.nodes {
		if n.target > 0 && n.grows && b.ratio(int32(i)) < ratio {
			best, ratio = int32(i), b.ratio(int32(i))
		}
	}
	return best
}

// thinFill gives y its target, and tells whether it got anything.
func (b *board) thinFill(y int32) bool {
	done := false
	t := b.nodes[y].target
	for range b.cells {
		room := 1 - b.ratio(y)
		if room < thinLeast {
			break
		}
		heavy := 0
		for i, n := range b.nodes {
			if n.target > 0 && b.ratio(int32(i)) > thinCeil && b.mayGive(int32(i), y) {
				heavy++
			}
		}
		if heavy == 0 && room < thinPart {
			break
		}
		size := thinPiece
		if heavy > 0 { // all of them are to be relieved by what is still to be filled
			size = math.Max(thinLeast/2, math.Min(size, math.Max(room, b.hunger()/t)/float64(heavy)))
		}
		m := b.thinMove(y, -1, math.Min(size, room), heavy > 0)
		if m.at < 0 {
			break
		}
		b.hand(m.at, m.part, m.from, y)
		done = true
	}
	return done
}

// thinLeast is what is not worth a range, as a part of a target.
const thinLeast = 0.02

// hunger is how much all that are to be filled still take.
func (b *board) hunger() float64 {
	sum := 0.0
	for i, n := range b.nodes {
		if n.grows && b.ratio(int32(i)) < thinLow {
			sum += n.target - float64(n.load)
		}
	}
	return sum
}

// mayGive tells whether zones let what x owns go to y: where a copy is kept in each zone, only within one.
func (b *board) mayGive(x, y int32) bool {
	return b.zones != b.replicas || b.nodes[x].zone == b.nodes[y].zone
}

// thinRelieve takes from those above thinCeil what they have too much.
func (b *board) thinRelieve() {
	for range 4 * len(b.nodes) {
		x, ratio := int32(-1), thinCeil
		for i, n := range b.nodes {
			if n.target > 0 && b.ratio(int32(i)) > ratio {
				x, ratio = int32(i), b.ratio(int32(i))
			}
		}
		if x < 0 {
			return
		}
		best := thinStep{at: -1, score: math.Inf(-1)}
		to := int32(-1)
		for y := range b.nodes {
			y := int32(y)
			if y == x || b.nodes[y].target == 0 || b.ratio(y) > 1-thinLeast/2 {
				continue
			}
			if m := b.thinMove(y, x, b.ratio(x)-thinCeil+thinLeast/2, true); m.at >= 0 && m.score > best.score {
				best, to = m, y
			}
		}
		if best.at < 0 {
			return
		}
		b.hand(best.at, best.part, x, to)
	}
}

// thinStep hands part slots of cell at over; at is -1 where there is nothing to hand over.
type thinStep struct {
	at, part int
	from     int32
	score    float64
}

// thinMove is the best range, or part of about size of y's target, that y can have of only (-1: of anyone); must leaves only those who are
// above thinCeil.
func (b *board) thinMove(y, only int32, size float64, must bool) thinStep {
	t := b.nodes[y].target
	want := t - float64(b.nodes[y].load)
	best := thinStep{at: -1, score: math.Inf(-1)}
	for i := range b.cells {
		if slices.Contains(b.cells[i].set, y) {
			continue
		}
		n := b.length(i)
		for _, x := range b.cells[i].set {
			if only >= 0 && x != only {
				continue
			}
			tx := b.nodes[x].target
			give := float64(b.nodes[x].load) - thinFloor*tx
			if tx == 0 || give <= 0 || must && b.ratio(x) <= thinCeil || !b.fits(i, x, y) {
				continue
			}
			p := n
			if most := math.Min(give, want+thinLeast*t); float64(n) > math.Min(most, 1.4*size*t) {
				p = int(math.Min(most, size*t))
				if least := int(math.Min(thinPart, 0.7*size) * t); p < least || n-p < least {
					continue
				}
			}
			each := b.price(i, x, y)
			fresh, lost := b.ties(i, x, y, p < n)
			s := overWorth*(b.ratio(x)-1) - (fresh-lostWorth*lost)*tieCost*t/float64(p)
			if p == n && b.merges(i, x, y) {
				s += mergeWorth
			}
			if each <= 0 {
				s += 10
			}
			if s > best.score {
				best = thinStep{i, p, x, s}
			}
		}
	}
	return best
}

// ties is how many neighbours are new when y takes cell i, or its first part, from x, those of the crowded counted higher; and how many are lost.
func (b *board) ties(i int, x, y int32, cut bool) (fresh, lost float64) {
	n := b.length(i)
	crowd := func(o int32) float64 { return innerPer * float64(max(0, b.nodes[o].inner-innerCrowd)) }
	for _, o := range b.cells[i].set {
		if o == x {
			continue
		}
		if b.shared[int(y)*len(b.nodes)+int(o)] == 0 {
			fresh += 1 + crowd(o) + crowd(y)
		}
		if !cut && int(b.shared[int(x)*len(b.nodes)+int(o)]) == n {
			lost += 1 + crowd(o) + crowd(x)
		}
	}
	return fresh, lost
}

// seams is the ring while the order of the tokens at the end of each range is chosen: the lists of a range's last slots are completed from
// the range behind, and so make neighbours of nodes that own no range together.
type seams struct {
	b      *board
	orders [][]int32
	count  []int16 // of seams at which two are neighbours
	degree []int   // neighbours of each
}

// pair adds d to the seams of two nodes.
func (s *seams) pair(x, y int32, d int16) {
	n := len(s.b.nodes)
	p := &s.count[int(x)*n+int(y)]
	was := *p
	*p += d
	s.count[int(y)*n+int(x)] = *p
	if s.b.shared[int(x)*n+int(y)] > 0 || (was > 0) == (*p > 0) {
		return
	}
	if *p > 0 {
		s.degree[x]++
		s.degree[y]++
	} else {
		s.degree[x]--
		s.degree[y]--
	}
}

// add counts the seam between cell i and the next d times.
func (s *seams) add(i int, d int16) {
	order := s.orders[i]
	walk := append(append(make([]int32, 0, 16), order...), s.orders[s.b.next(i)]...)
	for k := 1; k < len(order); k++ {
		list := s.b.walk(walk[k:])
		for j, x := range list {
			for _, y := range list[j+1:] {
				s.pair(x, y, d)
			}
		}
	}
}

// cost is what the neighbours of all are worth to avoid.
func (s *seams) cost(of []int32) float64 {
	c := 0.0
	for _, x := range of {
		d := float64(s.degree[x])
		c += 0.1*d + math.Pow(math.Max(0, d-seamFree), 2)
	}
	return c
}

// orders chooses the order of tokens at the end of each range: as in the base, but where another one spares crowded nodes some neighbours.
func (b *board) orders() [][]int32 {
	s := &seams{b: b, orders: make([][]int32, len(b.cells))}
	for i := range b.cells {
		s.orders[i] = b.inherited(i)
	}
	if !b.sparse || b.replicas > seamMost {
		return s.orders
	}
	s.count, s.degree = make([]int16, len(b.nodes)*len(b.nodes)), make([]int, len(b.nodes))
	for i, n := range b.nodes {
		s.degree[i] = n.inner
	}
	for i := range b.cells {
		s.add(i, 1)
	}
	budget := b.seamBudget
	for range 3 {
		changed := false
		for i := range b.cells {
			p, nx := b.prev(i), b.next(i)
			involved := slices.Concat(b.cells[p].set, b.cells[i].set, b.cells[nx].set)
			slices.Sort(involved)
			involved = slices.Compact(involved)
			crowded := false
			for _, x := range involved {
				crowded = crowded || float64(s.degree[x]) > seamFree
			}
			fresh := !sameSet(b.cells[i].set, b.cells[i].was)
			if !crowded && !fresh || !fresh && budget < seamPrice {
				continue
			}
			old := s.orders[i]
			s.add(p, -1)
			s.add(i, -1)
			best, least := old, math.Inf(1)
			permute(slices.Clone(old), 0, func(o []int32) {
				s.orders[i] = o
				s.add(p, 1)
				s.add(i, 1)
				c := s.cost(involved)
				if !slices.Equal(o, old) {
					c += 0.5
				}
				if c < least {
					best, least = slices.Clone(o), c
				}
				s.add(p, -1)
				s.add(i, -1)
			})
			s.orders[i] = best
			s.add(p, 1)
			s.add(i, 1)
			if !slices.Equal(best, old) {
				changed = true
				if !fresh {
					budget -= seamPrice
				}
			}
		}
		if !changed {
			break
		}
	}
	return s.orders
}

// inherited is the order of the base where the owners are those of the base, whoever is new in the place of who is gone; else a drawn one.
func (b *board) inherited(i int) []int32 {
	c := b.cells[i]
	if !b.sparse || len(c.order) != len(c.set) {
		return b.hashed(i)
	}
	out := slices.Clone(c.order)
	at := -1
	for k, o := range out {
		if !slices.Contains(c.set, o) {
			if at >= 0 {
				return b.hashed(i)
			}
			at = k
		}
	}
	for _, o := range c.set {
		if !slices.Contains(out, o) {
			out[at] = o
		}
	}
	return out
}

// walk takes the first nodes of a walk as ring.Layout does: other zones first while there are any.
func (b *board) walk(w []int32) []int32 {
	var list, later []int32
	for _, x := range w {
		switch {
		case slices.Contains(list, x) || slices.Contains(later, x):
		case len(list) < b.zones && slices.ContainsFunc(list, func(o int32) bool { return b.nodes[o].zone == b.nodes[x].zone }):
			later = append(later, x)
		default:
			list = append(list, x)
		}
		if len(list) == b.replicas {
			return list
		}
	}
	return append(list, later[:min(len(later), b.replicas-len(list))]...)
}

// permute calls fn with all orders of p from k on.
func permute(p []int32, k int, fn func([]int32)) {
	if k == len(p) {
		fn(p)
		return
	}
	for i := k; i < len(p); i++ {
		p[k], p[i] = p[i], p[k]
		permute(p, k+1, fn)
		p[k], p[i] = p[i], p[k]
	}
}
