package ring

import (
	"fmt"
	"testing"
)

// sinks keep results alive.
var (
	sinkNodes  []NodeID
	sinkLayout *Layout
	sinkSlot   Slot
	sinkPulls  []Pull
)

var benchSizes = []int{3, 300, 1000}

// Estimate: 5 ns, XXH3 of a short key. Measured: 3.5 ns (all numbers here: two shared cores, Go 1.26).
func BenchmarkSlotOf(b *testing.B) {
	key := []byte("users/1234567/profile")
	b.ReportAllocs()
	for b.Loop() {
		sinkSlot = SlotOf(key)
	}
}

// Estimate: 5 ns at 3 nodes, all in cache; 50 ns at 1,000, where index, tokens and primaries (18 MB) each miss the cache. 0 allocations.
// Measured: 5.6 ns at 3, 9.9 at 300, 15 at 1,000: the stride of the slots is regular, so that the processor reads ahead.
func BenchmarkPrimaries(b *testing.B) {
	for _, nodes := range benchSizes {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			l := bigLayout(nodes, 3)
			l.Primaries(0)
			b.ReportAllocs()
			s := Slot(0)
			for b.Loop() {
				sinkNodes = l.Primaries(s)
				s = (s + 104_729) % Slots
			}
		})
	}
}

// Estimate: 100 ns for three fallbacks, a walk of about six tokens and comparisons of 16 bytes. 0 allocations.
// Measured: 66 ns at 10, 82 at 300, 170 at 1,000: clearing 256 bytes of marks and three cache misses.
func BenchmarkFallbacks(b *testing.B) {
	for _, nodes := range []int{10, 300, 1000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			l := bigLayout(nodes, 3)
			dst := make([]NodeID, 0, 3)
			l.Primaries(0)
			b.ReportAllocs()
			s := Slot(0)
			for b.Loop() {
				sinkNodes = l.Fallbacks(s, dst[:0], 3)
				s = (s + 104_729) % Slots
			}
		})
	}
}

// Computing a layout from its document: members, collisions, name, and the lookup table. Estimate: 768 tokens, 0.1 ms; 76,800 tokens, 10 ms
// (sorting dominates); 256,000 tokens, 35 ms.
// Measured: 0.14 ms, 10 ms, 33 ms; 20 MB of memory at 1,000.
func BenchmarkLayout(b *testing.B) {
	for _, nodes := range benchSizes {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			doc := bigLayout(nodes, 3)
			b.ReportAllocs()
			for b.Loop() {
				sinkLayout = newLayout(doc.cluster, doc.base, nil, 3, 2, doc.changes)
				sinkNodes = sinkLayout.Primaries(0)
			}
		})
	}
}

// Reading a document without using it. Estimate: 10 us per 768 tokens: 1 ms at 300 nodes, 4 ms at 1,000.
// Measured: 0.04 ms at 3 (clearing the set of taken slots), 1.5 ms at 300, 4.9 ms at 1,000.
func BenchmarkDecodeLayout(b *testing.B) {
	for _, nodes := range benchSizes {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			doc := bigLayout(nodes, 3).Encode()
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				l, err := DecodeLayout(doc)
				if err != nil {
					b.Fatal(err)
				}
				sinkLayout = l
			}
		})
	}
}

func pendingView(b *testing.B, nodes int) *View {
	v := NewView(bigLayout(nodes, 3))
	l, err := v.Propose([]Change{{Kind: ChangeJoin, Member: Member{ID: testNode(nodes), Zone: "zone-1"}}})
	if err != nil {
		b.Fatal(err)
	}
	for _, id := range v.Required(l)[1:] {
		v.MarkAcked(l.ID(), id)
	}
	return v
}

// Two views of a pending change with all marks but one: nothing new, which is what most exchanges are, and one new mark. Estimate for 1,000
// nodes: 30 us to compare the marks, and as much again to copy them.
// Measured: 16 us, and 77 us for the mark; 0.2 and 1.6 us at 3.
func BenchmarkMerge(b *testing.B) {
	for _, nodes := range benchSizes {
		v := pendingView(b, nodes)
		news := v.Clone()
		news.MarkSynced(news.Newest().ID(), news.Required(news.Newest())[1])
		b.Run(fmt.Sprint(nodes, "/nothing new"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if changed, err := v.Merge(v); changed || err != nil {
					b.Fatal(changed, err)
				}
			}
		})
		b.Run(fmt.Sprint(nodes, "/one mark"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				old := *v // Merge replaces the maps, so that a shallow copy brings the old state back
				if changed, err := v.Merge(news); !changed || err != nil {
					b.Fatal(changed, err)
				}
				*v = old
			}
		})
	}
}

// What a member fetches when one joins: a pass over both tables. Estimate: 1 ms at 300 nodes, 4 ms at 1,000.
// Measured: 0.17 ms at 3, 0.77 at 300, 2.0 at 1,000.
func BenchmarkSyncPulls(b *testing.B) {
	for _, nodes := range benchSizes {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			v := pendingView(b, nodes)
			joiner := testNode(nodes)
			v.Newest().Primaries(0)
			b.ReportAllocs()
			for b.Loop() {
				sinkPulls = v.syncPulls(v.Newest(), joiner)
			}
		})
	}
}
