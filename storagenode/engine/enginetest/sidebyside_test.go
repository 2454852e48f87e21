package enginetest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/engine/pebble"
)

// BenchmarkSideBySide runs the engines that keep data on disk through the same writes and reads: an operation is a
// synced batch of 32 records at random keys, or a get. Run the writes with -benchtime=9600x for 300 MiB of 1 KiB
// values, 960x for as much at 10 KiB. Estimate: a batch costs its sync, 2 to 4 ms on a busy virtual disk, in both; a
// get 3 to 10 µs, a miss 2 µs. Measured: 0.7 to 1.8 ms and 0.7 ms a batch of 1 KiB values, gets 11 and 7 µs, misses 6
// and 9 µs; more in loadtest/RESULTS.md.
func BenchmarkSideBySide(b *testing.B) {
	engines := []struct {
		name string
		open func(dir string) engine.Opener
	}{
		{"leveldb", func(dir string) engine.Opener { return leveldb.Opener(dir, leveldb.Default()) }},
		{"pebble", func(dir string) engine.Opener { return pebble.Opener(dir, pebble.Default(), zerolog.Nop()) }},
	}
	for _, size := range []int{1 << 10, 10 << 10} {
		for _, e := range engines {
			b.Run(fmt.Sprintf("put/%dKiB/%s", size>>10, e.name), func(b *testing.B) { sidePut(b, e.open, size) })
		}
	}
	for _, what := range []string{"hit", "miss"} {
		for _, e := range engines {
			b.Run(fmt.Sprintf("get/%s/%s", what, e.name), func(b *testing.B) { sideGet(b, e.open(b.TempDir()), what == "hit") })
		}
	}
}

// sideKey spreads numbers over the key space as hashed keys are.
func sideKey(i uint64) []byte {
	return fmt.Appendf(nil, "%016x/key", i*0x9e3779b97f4a7c15)
}

func sidePut(b *testing.B, open func(dir string) engine.Opener, size int) {
	dir := b.TempDir()
	e, err := open(dir)()
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{1})
	value := make([]byte, size)
	took := make([]time.Duration, 0, b.N)
	var batch engine.Batch
	n := uint64(0)
	b.SetBytes(int64(32 * size))
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for range 32 {
			_, _ = rng.Read(value) // never fails
			batch.Put(sideKey(n), value)
			n++
		}
		start := time.Now()
		if err := e.Apply(&batch, true); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	ms := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() * 1e3 }
	s := e.Stats()
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(ms(1), "max-ms")
	b.ReportMetric(s.WriteAmplification(), "write-amp")
	b.ReportMetric(s.WriteStallTime.Seconds()*1e3, "stalled-ms")
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(onDisk(b, dir))/float64(s.UserBytes), "space-amp")
}

// onDisk is the sum of the sizes of all files below dir, in bytes.
func onDisk(b *testing.B, dir string) int64 {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return sum
}

func sideGet(b *testing.B, open engine.Opener, hit bool) {
	const keys = 100_000
	e, err := open()
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	}()
	src := rand.NewChaCha8([32]byte{2})
	value := make([]byte, 1024)
	var batch engine.Batch
	for i := range uint64(keys) {
		_, _ = src.Read(value) // never fails
		batch.Put(sideKey(i), value)
		if batch.Len() == 100 {
			if err := e.Apply(&batch, false); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var want error
	from := uint64(0)
	if !hit {
		want, from = engine.ErrNotFound, keys
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = e.Get(sideKey(from+rng.Uint64N(keys)), dst[:0]); !errors.Is(err, want) {
			b.Fatal(err)
		}
	}
}
