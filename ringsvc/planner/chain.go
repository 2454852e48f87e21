package planner

import (
	"slices"
)

// link is a way for load from one node to another: a cell that the first owns and the second may.
type link struct {
	from  int32 // start of the cell
	slots int   // its length
	price int
	known bool
}

// chainPrice is the most that a slot may cost on its way from one node to another.
const chainPrice = 3

// chain passes load from nodes above goal times their targets to those below theirs by way of others, where zones leave no direct way, along
// the cheapest ways first (Bellman and Ford). It reports what it spent, and whether it did anything.
func (b *board) chain(goal float64, budget int) (spent int, changed bool) {
	links := b.links()
	touched := make(map[int32]bool)
	for _, s := range b.heavy(goal) {
		path := b.cheapest(links, touched, s)
		if len(path) == 0 {
			continue
		}
		last := path[len(path)-1]
		part := min(float64(b.nodes[s].load)-b.keep*b.nodes[s].target, b.room(last.to))
		price := 0
		for _, p := range path {
			part = min(part, float64(p.slots))
			price += p.price
		}
		if price > 0 {
			part = min(part, float64((budget-spent)/price))
		}
		if part < leastPart*b.nodes[s].target/4 {
			continue
		}
		for _, p := range path {
			touched[p.from] = true
			i := b.find(p.from)
			if b.cells[i].from != p.from || b.length(i) < int(part) || !slices.Contains(b.cells[i].set, p.x) || !b.fits(i, p.x, p.to) {
				break // changed by an earlier step of this path; what was done until here is repaired by the next round
			}
			spent += b.price(i, p.x, p.to) * int(part)
			b.hand(i, int(part), p.x, p.to)
			changed = true
		}
	}
	return spent, changed
}

// heavy lists those above goal times their targets, heaviest first.
func (b *board) heavy(goal float64) []int32 {
	var out []int32
	for i, n := range b.nodes {
		if n.target > 0 && b.ratio(int32(i)) > goal {
			out = append(out, int32(i))
		}
	}
	slices.SortFunc(out, func(x, y int32) int {
		if b.ratio(x) > b.ratio(y) {
			return -1
		}
		return 1
	})
	return out
}

// links finds for each pair of nodes the cheapest cell that can go from one to the other, and of those the longest.
func (b *board) links() []link {
	n := len(b.nodes)
	out := make([]link, n*n)
	for i, c := range b.cells {
		length := b.length(i)
		for _, x := range c.set {
			for y := range n {
				if b.nodes[y].target == 0 || !b.fits(i, x, int32(y)) {
					continue
				}
				price := max(0, b.price(i, x, int32(y)))
				l := &out[int(x)*n+y]
				if !l.known || price < l.price || price == l.price && length > l.slots {
					*l = link{c.from, length, price, true}
				}
			}
		}
	}
	return out
}

// hop is one step of a path: a cell goes from x to another.
type hop struct {
	link
	x, to int32
}

// cheapest finds the cheapest way from s to somebody below target, the neediest of equals.
func (b *board) cheapest(links []link, touched map[int32]bool, s int32) []hop {
	n := len(b.nodes)
	const far = 1 << 30
	cost, via := make([]int, n), make([]int32, n)
	for i := range cost {
		cost[i], via[i] = far, -1
	}
	cost[s] = 0
	for range 6 { // hops
		changed := false
		for x := range n {
			if cost[x] == far {
				continue
			}
			for y := range n {
				l := links[x*n+y]
				if !l.known || touched[l.from] || int32(y) == s {
					continue
				}
				if c := cost[x] + 100*l.price + 1; c < cost[y] {
					cost[y], via[y], changed = c, int32(x), true
				}
			}
		}
		if !changed {
			break
		}
	}
	best := int32(-1)
	for y := range n {
		if b.nodes[y].target == 0 || cost[y] >= 100*(chainPrice+1) || b.room(int32(y)) < leastPart*b.nodes[y].target {
			continue
		}
		if best < 0 || cost[y]/100 < cost[best]/100 || cost[y]/100 == cost[best]/100 && b.ratio(int32(y)) < b.ratio(best) {
			best = int32(y)
		}
	}
	if best < 0 {
		return nil
	}
	var path []hop
	for y := best; y != s && len(path) < n; y = via[y] {
		x := via[y]
		path = append(path, hop{links[int(x)*n+int(y)], x, y})
	}
	slices.Reverse(path)
	return path
}
