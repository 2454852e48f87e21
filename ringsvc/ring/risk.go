package ring

import (
	"math/bits"
	"slices"
)

// Move is slots whose copies one member gives up and another one takes. From is zero where nobody gives them up, since there will be more
// copies, and To where nobody takes them. Who gives a copy up need not be who sends it: that is any of the owners before.
type Move struct {
	From, To NodeID
	Slots    int
}

// Moves lists what changes hands from base to next, sorted by From and To, each pair once. The caller owns the slice.
func Moves(base, next *Layout) []Move {
	type pair struct{ from, to NodeID }
	slots := make(map[pair]int)
	next.table().ranges(func(r Range, owners []NodeID) {
		base.table().within(r, func(part Range, before []NodeID) {
			given := missingFrom(owners, before)
			taken := missingFrom(before, owners)
			for i := range max(len(given), len(taken)) {
				var p pair
				if i < len(given) {
					p.from = given[i]
				}
				if i < len(taken) {
					p.to = taken[i]
				}
				slots[p] += part.Len()
			}
		})
	})
	out := make([]Move, 0, len(slots))
	for p, n := range slots {
		out = append(out, Move{From: p.from, To: p.to, Slots: n})
	}
	slices.SortFunc(out, func(a, b Move) int {
		if c := a.From.Compare(b.From); c != 0 {
			return c
		}
		return a.To.Compare(b.To)
	})
	return out
}

// missingFrom lists who is in of and not in set, in order.
func missingFrom(set, of []NodeID) (out []NodeID) {
	for _, id := range of {
		if !slices.Contains(set, id) {
			out = append(out, id)
		}
	}
	return out
}

// Shortage is slots with one set of owners of which too few are usable.
type Shortage struct {
	Owners []NodeID // sorted
	Usable int      // how many of them are
	Slots  int
}

// Shortages lists the slots of l of whose owners fewer than need are usable, those with the same owners together, sorted by owners. The
// caller owns the slices.
func (l *Layout) Shortages(need int, usable func(NodeID) bool) []Shortage {
	sets, slots := l.ownerSets()
	var out []Shortage
	for i, set := range sets {
		n := 0
		for _, id := range set {
			if usable(id) {
				n++
			}
		}
		if n < need {
			out = append(out, Shortage{Owners: set, Usable: n, Slots: slots[i]})
		}
	}
	return out
}

// ownerSets lists the different sets of owners, each sorted, in the order of their ids, and how many slots each has.
func (l *Layout) ownerSets() (sets [][]NodeID, slots []int) {
	shared, count := make(map[string][]NodeID), make(map[*NodeID]int)
	l.table().ranges(func(r Range, owners []NodeID) {
		set := internSorted(shared, owners)
		count[&set[0]] += r.Len()
	})
	for _, set := range shared {
		sets = append(sets, set)
	}
	slices.SortFunc(sets, func(a, b []NodeID) int { return slices.CompareFunc(a, b, NodeID.Compare) })
	for _, set := range sets {
		slots = append(slots, count[&set[0]])
	}
	return sets, slots
}

// MaxFailures is how many members QuorumLoss lets fail at once at most.
const MaxFailures = 3

// QuorumLoss is the chance, 0 to 1, that the failure of one, two and three members at once, each choice of them as likely as any other, leaves
// some slot with fewer than need of its owners. It is exact, and takes about as long as looking at all pairs of members. Where there are
// fewer members all fail.
func QuorumLoss(l *Layout, need int) (loss [MaxFailures]float64) {
	members := len(l.members)
	fatal := l.Replicas() - need + 1 // owners of one slot that must not fail together
	sets, _ := l.ownerSets()
	var bad map[[MaxFailures]uint16]struct{}
	if fatal >= 1 && fatal <= MaxFailures {
		bad = subsets(l, sets, fatal)
	}
	for i := range loss {
		failures := min(i+1, members)
		all := choose(members, failures)
		switch {
		case fatal < 1:
			loss[i] = 1
		case failures < fatal:
		case failures == fatal:
			loss[i] = float64(len(bad)) / all
		case fatal == 1:
			loss[i] = 1 - choose(members-len(bad), failures)/all
		default: // pairs are fatal, and three fail
			loss[i] = triplesWithPair(members, bad) / all
		}
	}
	return loss
}

// subsets is all sets of size members, 1 to MaxFailures, that own a slot together, by their numbers in l.members in ascending order.
func subsets(l *Layout, sets [][]NodeID, size int) map[[MaxFailures]uint16]struct{} {
	out := make(map[[MaxFailures]uint16]struct{})
	var pick func(set []uint16, chosen [MaxFailures]uint16, n int)
	pick = func(set []uint16, chosen [MaxFailures]uint16, n int) {
		if n == size {
			out[chosen] = struct{}{}
			return
		}
		for i, m := range set {
			chosen[n] = m
			pick(set[i+1:], chosen, n+1)
		}
	}
	for _, set := range sets {
		numbers := make([]uint16, len(set))
		for i, id := range set {
			at, _ := findMember(l.members, id)
			numbers[i] = uint16(at)
		}
		pick(numbers, [MaxFailures]uint16{}, 0)
	}
	return out
}

// triplesWithPair counts the triples of members that hold at least one of the pairs. The sum of members-2 over all pairs counts a triple once
// for each of its pairs; the ways to walk over two pairs and the triangles correct that for triples with two and with three.
func triplesWithPair(members int, pairs map[[MaxFailures]uint16]struct{}) float64 {
	words := (members + 63) / 64
	with := make([]uint64, members*words)
	row := func(m uint16) []uint64 { return with[int(m)*words : (int(m)+1)*words] }
	for p := range pairs {
		row(p[0])[p[1]/64] |= 1 << (p[1] % 64)
		row(p[1])[p[0]/64] |= 1 << (p[0] % 64)
	}
	count := len(pairs) * (members - 2)
	for m := range members {
		degree := 0
		for _, w := range row(uint16(m)) {
			degree += bits.OnesCount64(w)
		}
		count -= degree * (degree - 1) / 2
	}
	triangles := 0 // each is met at all three of its pairs
	for p := range pairs {
		a, b := row(p[0]), row(p[1])
		for i := range a {
			triangles += bits.OnesCount64(a[i] & b[i])
		}
	}
	return float64(count + triangles/3)
}

// choose is n over k.
func choose(n, k int) float64 {
	out := 1.0
	for i := range k {
		out = out * float64(n-i) / float64(i+1)
	}
	return max(out, 0)
}
