package merkle

import (
	"fmt"
	"testing"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Estimate: 150 ns: two hashes of 40 bytes, three lines of memory, one of them cold. Measured: 0.29 µs, with both processors busy, no allocation.
func BenchmarkUpdate(b *testing.B) {
	tree := new(Tree)
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "user:%012d", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := keys[i%len(keys)]
		tree.Add(ring.SlotOf(k), Leaf(k, record.Digest{1, byte(i)}).Minus(Leaf(k, record.Digest{2, byte(i)})))
	}
}

// Estimate: 0.6 µs: at most 63 additions on each side of each of two levels, and 256 blocks. Measured: 0.8 µs, no allocation.
func BenchmarkFold(b *testing.B) {
	tree := new(Tree)
	b.ReportAllocs()
	for b.Loop() {
		tree.Fold(ring.Range{From: 1, To: ring.Slots - 1})
	}
}

// Two sides of a million keys that differ in a thousand. Estimate: 3 ms: 10,000 folds on each side. Measured: 0.94 ms, 244 KB moved.
func BenchmarkCompare(b *testing.B) {
	one, two := new(Tree), new(Tree)
	for i := range 1_000_000 {
		k := fmt.Appendf(nil, "user:%012d", i)
		leaf := Leaf(k, record.Digest{1})
		one.Add(ring.SlotOf(k), leaf)
		if i%1000 != 0 {
			two.Add(ring.SlotOf(k), leaf)
		}
	}
	sums := 0
	b.ReportAllocs()
	for b.Loop() {
		sums = 0
		_, err := Narrowing{Fan: 4, Leaf: 4}.Differing([]ring.Range{{From: 0, To: ring.Slots}},
			func(a Ask) ([]byte, error) { return one.Answer(a), nil },
			func(a Ask) ([]byte, error) { sums += len(a.Ranges) * a.Parts; return two.Answer(a), nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(sums*SumLen), "bytes/compare")
}
