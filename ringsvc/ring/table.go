package ring

import (
	"math/bits"
	"slices"
)

// table answers lookups. Segment i is the slots after token i-1 up to and including token i, so that every slot of a segment has the same
// owners. Immutable.
type table struct {
	tokens    []Slot   // sorted, distinct
	owners    []uint16 // index into ids, per token
	ids       []NodeID // members sorted by id
	primaries []NodeID // flat: stride per segment
	stride    int
	top       []uint32 // per bucket of slots the first token at or after its start
	shift     uint
}

func (l *Layout) table() *table {
	l.once.Do(func() { l.lazy = newTable(l.members, l.Replicas()) })
	return l.lazy
}

func newTable(members []Member, replicas int) *table {
	t := &table{stride: replicas, ids: make([]NodeID, len(members))}
	zones := make([]uint16, len(members)) // zone number per member
	zoneNumber := make(map[string]uint16)
	total := 0
	for i, m := range members {
		t.ids[i] = m.ID
		total += len(m.Tokens)
		z, known := zoneNumber[m.Zone]
		if !known {
			z = uint16(len(zoneNumber))
			zoneNumber[m.Zone] = z
		}
		zones[i] = z
	}
	t.place(members, total)
	t.index()
	t.choose(zones, len(zoneNumber))
	return t
}

// place sorts the tokens, each packed with its owner into one word.
func (t *table) place(members []Member, total int) {
	packed := make([]uint32, 0, total)
	for i, m := range members {
		for _, s := range m.Tokens {
			packed = append(packed, uint32(s)<<(32-SlotBits)|uint32(i))
		}
	}
	slices.Sort(packed)
	t.tokens, t.owners = make([]Slot, total), make([]uint16, total)
	for i, p := range packed {
		t.tokens[i], t.owners[i] = Slot(p>>(32-SlotBits)), uint16(p&(1<<(32-SlotBits)-1))
	}
}

// A member's number fits beside its slot in 32 bits.
var _ [1<<(32-SlotBits) - MaxMembers]struct{}

// index makes about one bucket per token, so that a lookup scans one or two tokens.
func (t *table) index() {
	buckets := min(bits.Len(uint(len(t.tokens))), SlotBits)
	t.shift = uint(SlotBits - buckets)
	t.top = make([]uint32, 1<<buckets)
	at := 0
	for b := range t.top {
		for at < len(t.tokens) && t.tokens[at] < Slot(b)<<t.shift {
			at++
		}
		t.top[b] = uint32(at)
	}
}

// segment finds the first token at or after s, wrapping.
func (t *table) segment(s Slot) int {
	s &= Slots - 1
	i := int(t.top[s>>t.shift])
	for i < len(t.tokens) && t.tokens[i] < s {
		i++
	}
	if i == len(t.tokens) {
		return 0
	}
	return i
}

// at returns the primaries of segment i.
func (t *table) at(i int) []NodeID {
	return t.primaries[i*t.stride : (i+1)*t.stride : (i+1)*t.stride]
}

// recency keeps items in the order of their last touch, newest first. Touching owners while walking the ring backwards keeps exactly the order
// in which a forward walk from here meets them for the first time: move-to-front, O(1) per token whatever the zones look like, where a forward
// walk per token would pass a thousand others to find a rare zone.
type recency struct {
	next, prev []int32 // item n is the head and tail sentinel
}

func newRecency(n int) recency {
	r := recency{next: make([]int32, n+1), prev: make([]int32, n+1)}
	for i := range r.next {
		r.next[i], r.prev[i] = int32((i+1)%(n+1)), int32((i+n)%(n+1))
	}
	return r
}

func (r recency) touch(i int32) {
	head := int32(len(r.next) - 1)
	if r.next[head] == i {
		return
	}
	r.next[r.prev[i]], r.prev[r.next[i]] = r.next[i], r.prev[i]
	first := r.next[head]
	r.next[head], r.prev[i] = i, head
	r.next[i], r.prev[first] = first, i
}

// choose fills the primaries of every segment: the first node of each unused zone in walk order, then the nodes skipped, in walk order.
func (t *table) choose(zones []uint16, zoneCount int) {
	count := len(t.tokens)
	t.primaries = make([]NodeID, count*t.stride)
	nodes, zoneOrder := newRecency(len(t.ids)), newRecency(zoneCount)
	first := make([]int32, zoneCount) // first node of a zone, walking on from here
	step := func(i int) {
		n := int32(t.owners[i])
		z := zones[n]
		nodes.touch(n)
		zoneOrder.touch(int32(z))
		first[z] = n
	}
	for i := count - 1; i >= 0; i-- { // one lap, so that the order is complete before it is used
		step(i)
	}
	picked := make([]int32, 0, t.stride)
	for i := count - 1; i >= 0; i-- {
		step(i)
		picked = picked[:0]
		for z := zoneOrder.next[zoneCount]; int(z) != zoneCount && len(picked) < t.stride; z = zoneOrder.next[z] {
			picked = append(picked, first[z])
		}
		for n := nodes.next[len(t.ids)]; len(picked) < t.stride; n = nodes.next[n] {
			if !slices.Contains(picked, n) {
				picked = append(picked, n)
			}
		}
		out := t.primaries[i*t.stride : (i+1)*t.stride]
		for j, n := range picked {
			out[j] = t.ids[n]
		}
	}
}

// Primaries is the preference list of s: Replicas() distinct nodes, clockwise from s, distinct zones first while there are unused ones. The
// slice is shared: do not modify it. No allocation. Dynamo (SOSP 2007), section 4.3.
func (l *Layout) Primaries(s Slot) []NodeID {
	t := l.table()
	return t.at(t.segment(s))
}

// Fallbacks appends to dst up to limit nodes that follow the primaries of s, in clockwise order: who stands in when a primary is away. No
// allocation beyond dst. It walks the ring, so the cost grows with limit, and for all members of a large ring is near a lap.
func (l *Layout) Fallbacks(s Slot, dst []NodeID, limit int) []NodeID {
	t := l.table()
	limit = min(limit, len(t.ids)-t.stride)
	var seen [MaxMembers / 64]uint64
	start := t.segment(s)
	primaries := t.at(start)
	for i := start; limit > 0; {
		n := t.owners[i]
		if bit := uint64(1) << (n % 64); seen[n/64]&bit == 0 {
			seen[n/64] |= bit
			if id := t.ids[n]; !slices.Contains(primaries, id) {
				dst = append(dst, id)
				limit--
			}
		}
		if i++; i == len(t.owners) {
			i = 0
		}
	}
	return dst
}

// Owns tells whether id is a primary of s.
func (l *Layout) Owns(id NodeID, s Slot) bool { return slices.Contains(l.Primaries(s), id) }

// SameOwnersUntil is the first slot behind s that may have other primaries than s: all from s to before it have the same
// list. At most Slots.
func (l *Layout) SameOwnersUntil(s Slot) Slot {
	t := l.table()
	if last := t.tokens[t.segment(s)]; last >= s {
		return last + 1
	}
	return Slots
}

// OwnedRanges is all slots that id is a primary of: sorted, apart from each other, none wrapping. The caller owns the slice.
func (l *Layout) OwnedRanges(id NodeID) []Range {
	var out []Range
	l.table().ranges(func(r Range, owners []NodeID) {
		if !slices.Contains(owners, id) {
			return
		}
		if k := len(out) - 1; k >= 0 && out[k].To == r.From {
			out[k].To = r.To
			return
		}
		out = append(out, r)
	})
	return out
}

// ranges calls fn for every segment in slot order; the one that wraps comes in two parts, first and last.
func (t *table) ranges(fn func(r Range, owners []NodeID)) {
	from := Slot(0)
	for i, s := range t.tokens {
		fn(Range{From: from, To: s + 1}, t.at(i))
		from = s + 1
	}
	if from < Slots {
		fn(Range{From: from, To: Slots}, t.at(0))
	}
}
