package antientropy

import (
	"fmt"
	"testing"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

// What the committer does more for each write. Estimate: 0.3 µs: two hashes of 40 bytes and three additions, one of them
// in cold memory. Measured: 0.05 µs in warm memory, no allocation; the tree of a busy node is cold, which package merkle measures as 0.29 µs.
func BenchmarkCommitted(b *testing.B) {
	sums, err := NewSums(zerolog.Nop(), nil)
	if err != nil {
		b.Fatal(err)
	}
	changes := make([]kv.Change, 32)
	for i := range changes {
		key := fmt.Appendf(nil, "user:%012d", i)
		changes[i] = kv.Change{Key: key, Hash: ring.Hash(key), Before: record.Digest{1}, Now: record.Digest{2}}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(changes) == 0 {
			sums.Committed(changes)
		}
	}
}
