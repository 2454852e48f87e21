package leveldb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

func TestOptionsValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, tt := range []struct {
		field string
		set   func(*Options)
	}{
		{"write_buffer", func(o *Options) { o.WriteBuffer = mib - 1 }},
		{"write_buffer", func(o *Options) { o.WriteBuffer = 256*mib + 1 }},
		{"table_size", func(o *Options) { o.TableSize = 0 }},
		{"level1_size", func(o *Options) { o.Level1Size = o.TableSize - 1 }},
		{"l0_trigger", func(o *Options) { o.L0Trigger = 0 }},
		{"l0_slowdown", func(o *Options) { o.L0Slowdown = o.L0Trigger }},
		{"l0_pause", func(o *Options) { o.L0Pause = o.L0Slowdown }},
		{"block_size", func(o *Options) { o.BlockSize = 100 }},
		{"block_cache", func(o *Options) { o.BlockCache = 0 }},
		{"open_tables", func(o *Options) { o.OpenTables = 15 }},
		{"bloom_bits", func(o *Options) { o.BloomBits = 31 }},
		{"compression", func(o *Options) { o.Compression = "zip" }},
		{"compaction_rate", func(o *Options) { o.CompactionRate = 5 }},
	} {
		o := Default()
		tt.set(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), tt.field+" is ") {
			t.Errorf("%s: %v", tt.field, err)
		}
	}
	err := Options{}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") < 8 {
		t.Errorf("not all faults at once: %v", err)
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil {
		t.Error("open with invalid options")
	}
	if _, err := OpenStorage(enginetest.NewDisk().Mount(), Options{}); err == nil {
		t.Error("open storage with invalid options")
	}
}

func TestOpenStorageNeedsDirectorySync(t *testing.T) {
	if e, err := OpenStorage(storage.NewMemStorage(), Default()); err == nil {
		_ = e.Close()
		t.Error("opened on a storage that cannot sync its directory")
	}
}

// TestLevelLimits checks against the library's own arithmetic.
func TestLevelLimits(t *testing.T) {
	o := Default()
	for level := 1; level < 6; level++ {
		// The library multiplies a rounded-down tenth, so it may be a little below.
		got, want := o.levelLimit(level), o.library().GetCompactionTotalSize(level)
		if diff := float64(got-want) / float64(want); diff < 0 || diff > 1e-6 {
			t.Errorf("level %d: %d, the library has %d", level, got, want)
		}
	}
}

func TestDebt(t *testing.T) {
	o := Default()
	for _, tt := range []struct {
		name   string
		levels []engine.Level
		want   int64
	}{
		{"empty", nil, 0},
		{"level 0 below its trigger", []engine.Level{{Tables: 3, Bytes: 100}}, 0},
		{"level 0 at its trigger", []engine.Level{{Tables: 4, Bytes: 100}}, 100},
		{"level 1 above its limit", []engine.Level{{}, {Bytes: 64*mib + 5}, {Bytes: 640 * mib}}, 5},
		{"level 2 above its limit", []engine.Level{{}, {}, {Bytes: 640*mib + 7}}, 7},
	} {
		if got := o.debt(tt.levels); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestOpenMakesDirectories opens below directories that do not exist, and on what is not a directory.
func TestOpenMakesDirectories(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	e, err := Open(dir, small())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, e, "k")
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := Opener(dir, small())(); err == nil {
			t.Errorf("opened on %s", dir)
		}
	}
}

// TestDamagedTableOnFiles is the shortest path through real files: a flipped bit is damage.
func TestDamagedTableOnFiles(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, small())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, e, keys("key", 100)...)
	must(t, e.Compact(nil, nil))
	must(t, e.Close())
	// Closing may leave a table behind that compaction has replaced. Opening removes it.
	e, err = Open(dir, small())
	must(t, err)
	must(t, e.Close())
	tables, err := filepath.Glob(filepath.Join(dir, "*.ldb"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables %v, %v", tables, err)
	}
	data, err := os.ReadFile(tables[0])
	must(t, err)
	data[10] ^= 4
	must(t, os.WriteFile(tables[0], data, 0o644))
	e, err = Open(dir, small())
	must(t, err)
	var d *engine.Damage
	if _, err := e.Get([]byte("key0000"), nil); !errors.As(err, &d) || !d.Bounded {
		t.Errorf("get: %v", err)
	} else if string(d.From) != "key0000" || string(d.To) != "key0099" {
		t.Errorf("damage of %q to %q", d.From, d.To)
	}
	must(t, e.Close())
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		for range 2 {
			if !g.enter() {
				t.Fatal("an open gate refuses")
			}
		}
		var closers sync.WaitGroup
		var done atomic.Int32
		for range 2 {
			closers.Go(func() { g.close(); done.Add(1) })
		}
		synctest.Wait()
		if done.Load() != 0 || !g.closed() || g.enter() {
			t.Errorf("while two are inside: %d closers done, closed %v", done.Load(), g.closed())
		}
		g.leave()
		synctest.Wait()
		if done.Load() != 0 {
			t.Error("closed with one inside")
		}
		g.leave()
		closers.Wait()
		g.close() // again
		if done.Load() != 2 || g.enter() {
			t.Errorf("%d closers done", done.Load())
		}
	})
	newGate().close() // empty
}

func TestPacer(t *testing.T) {
	now := time.Unix(1000, 0)
	p := pacer{rate: 1 << 20}
	if w := (&pacer{}).take(now, 1<<30); w != 0 {
		t.Errorf("no rate: %v", w)
	}
	// A simulated second at 1 MiB/s in blocks of 4 KiB: all waits together let 1 MiB pass, and what burst allows.
	start, written := now, 0
	for now.Sub(start) < time.Second {
		written += 4096
		now = now.Add(p.take(now, 4096))
	}
	if lo, hi := 1<<20, 1<<20+1<<20/10; written < lo || written > hi {
		t.Errorf("%d bytes in a second, want %d to %d", written, lo, hi)
	}
	now = now.Add(time.Hour) // idle time is not saved up
	if w := p.take(now, 1<<20); w < 900*time.Millisecond {
		t.Errorf("after an idle hour: %v for a second's worth", w)
	}
}

// TestCompactionIsPaced compacts 8 MiB at 1 MiB/s on a fake clock, with and without pressure.
func TestCompactionIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.opts.CompactionRate = mib
		e := m.mustOpen(t)
		fill := func() time.Duration {
			for i := range 64 {
				var b engine.Batch
				b.Put([]byte{byte(i)}, valueOf(string(rune(i)), 32*kib))
				must(t, e.Apply(&b, false))
			}
			start := time.Now()
			must(t, e.Compact(nil, nil))
			return time.Since(start)
		}
		fill() // flushed only: nothing below to merge with
		if took := fill(); took < time.Second || took > 10*time.Second {
			t.Errorf("compaction of about 2 MiB at 1 MiB/s took %v", took)
		}
		if paced := e.Stats().PacedTime; paced < time.Second {
			t.Errorf("paced for %v", paced)
		}
		always := func() bool { return true }
		e.guard.pressed.Store(&always)
		if took := fill(); took > time.Second {
			t.Errorf("under pressure compaction took %v", took)
		}
		must(t, e.Close())
		time.Sleep(2 * time.Second)
	})
}

// TestWritesDoNotWaitForThePace writes twenty times faster than compaction may, while everything is being compacted. On the
// fake clock only the pace and the library's own slow-downs take time.
func TestWritesDoNotWaitForThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.opts.CompactionRate, m.opts.WriteBuffer, m.opts.TableSize, m.opts.Level1Size = mib, mib, mib, 4*mib
		e := m.mustOpen(t)
		put := func(i int) time.Duration {
			var b engine.Batch
			b.Put([]byte(fmt.Sprintf("%07d", i*7919%1000)), valueOf(strconv.Itoa(i), 16*kib))
			start := time.Now()
			must(t, e.Apply(&b, true))
			return time.Since(start)
		}
		for i := range 1000 {
			put(i)
		}
		before := e.Stats()
		compacted := make(chan error, 1)
		go func() { compacted <- e.Compact(nil, nil) }()
		longest := time.Duration(0)
		for i := range 3000 {
			longest = max(longest, put(i))
			time.Sleep(time.Second / (20 * mib / (16 * kib)))
		}
		must(t, <-compacted)
		after := e.Stats()
		if longest > 100*time.Millisecond || after.WriteStalls > before.WriteStalls {
			t.Errorf("a write waited for %v, and %d were slowed for %v", longest, after.WriteStalls-before.WriteStalls, after.WriteStallTime)
		}
		if after.PacedTime == before.PacedTime {
			t.Error("compaction was not paced")
		}
		must(t, e.Close())
		time.Sleep(2 * time.Second)
	})
}

// TestStatsOfTheTree fills more than one level and checks that the numbers hang together.
func TestStatsOfTheTree(t *testing.T) {
	m := newCrashMachine()
	e := m.mustOpen(t)
	ks := keys("key", 3000)
	putEach(t, e, ks, 1000)
	must(t, e.Compact(nil, nil))
	for _, k := range ks[:100] {
		if _, err := e.Get([]byte(k), nil); err != nil {
			t.Fatal(err)
		}
	}
	s := e.Stats()
	if s.Flushes == 0 || s.Compactions == 0 || len(s.Levels) < 2 {
		t.Errorf("%d flushes, %d compactions, levels %+v", s.Flushes, s.Compactions, s.Levels)
	}
	if s.TableBytes() < 3_000_000 || s.TableBytes() > m.disk.Used() {
		t.Errorf("%d bytes of tables, %d on disk", s.TableBytes(), m.disk.Used())
	}
	if a := s.WriteAmplification(); a < 2 || a > 20 { // at least once to the log and once to a table
		t.Errorf("write amplification %v", a)
	}
	if s.Syncs < 3000 || s.OpenTables == 0 || s.CacheHits+s.CacheMisses == 0 || s.CacheBytes == 0 {
		t.Errorf("%d syncs, %d open tables, %d hits, %d misses, %d bytes cached",
			s.Syncs, s.OpenTables, s.CacheHits, s.CacheMisses, s.CacheBytes)
	}
	must(t, e.Iterate(nil, nil, func(k, v []byte) (bool, error) {
		if n := e.Stats().Iterations; n != 1 {
			t.Errorf("%d iterations counted inside one", n)
		}
		return false, nil
	}))
	must(t, e.Close())
	if after := e.Stats(); after.Records != 3000 || e.Compact(nil, nil) == nil {
		t.Errorf("after close: %d records", after.Records)
	}
}

// TestIndexesStayCached reads at random after compaction: two of the three blocks each read takes, index and filter,
// come from the cache, although the data is larger.
func TestIndexesStayCached(t *testing.T) {
	m := newMachine()
	m.opts.BlockCache, m.opts.BlockSize = 3*mib, kib // so that an index is many blocks long, as in large tables
	e := m.mustOpen(t)
	ks := keys("key", 8000)
	for _, part := range [][]string{ks[:4000], ks[4000:], ks[2000:6000]} {
		for _, k := range part {
			var b engine.Batch
			b.Put([]byte(k), valueOf(k, 1000))
			must(t, e.Apply(&b, false))
		}
		must(t, e.Compact(nil, nil))
	}
	rng := rand.New(rand.NewPCG(4, 4))
	before := e.Stats()
	for range 5000 {
		if _, err := e.Get([]byte(ks[rng.IntN(len(ks))]), nil); err != nil {
			t.Fatal(err)
		}
	}
	after := e.Stats()
	hits, misses := after.CacheHits-before.CacheHits, after.CacheMisses-before.CacheMisses
	if ratio := float64(hits) / float64(hits+misses); ratio < 0.6 {
		t.Errorf("%.2f of block reads hit the cache", ratio)
	}
}
