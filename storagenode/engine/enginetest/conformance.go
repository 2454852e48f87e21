package enginetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/dotring/dotring/storagenode/engine"
)

// Subject is one place that engines are opened on, fresh for each test.
type Subject struct {
	// Open opens the engine.
	Open engine.Opener
	// Fail makes the next Sync, or Apply with sync, of the open engine fail with err; nil if the subject cannot.
	Fail func(err error)
	// Crash cuts the power: the open engine is useless from here on, and Open finds what was durable. nil if the
	// subject cannot.
	Crash func()
}

// Run checks that engines keep the contract of engine.Engine. fresh makes a new subject.
func Run(t *testing.T, fresh func(t *testing.T) Subject) {
	tests := []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"order and bounds", testBounds},
		{"get appends", testGetAppends},
		{"empty key, empty value, large value", testExtremes},
		{"delete and overwrite", testDelete},
		{"batch applies in order", testBatchOrder},
		{"batch is atomic to readers", testBatchAtomic},
		{"batch is not kept", testBatchReuse},
		{"too large a batch is refused alone", testTooLarge},
		{"iterate sees one state", testIterateIsolation},
		{"iterate ends as told", testIterateEnds},
		{"snapshot", testSnapshot},
		{"reopen keeps data", testReopen},
		{"one owner at a time", testOneOwner},
		{"close is idempotent and final", testClose},
		{"close stops an iteration", testCloseDuringIterate},
		{"latch", testLatch},
		{"power cut", testPowerCut},
		{"many readers, one writer", testConcurrent},
		{"stats count", testStats},
		{"random history against a sorted map", testModel},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &bench{t: t, s: fresh(t)}
			b.open()
			t.Cleanup(func() { b.close() })
			tt.run(t, b)
		})
	}
}

// bench is the subject of one test with its open engine.
type bench struct {
	t *testing.T
	s Subject
	engine.Engine
}

func (b *bench) open() {
	b.t.Helper()
	e, err := b.s.Open()
	if err != nil {
		b.t.Fatalf("open: %v", err)
	}
	b.Engine = e
}

func (b *bench) close() {
	if b.Engine == nil {
		return
	}
	if err := b.Engine.Close(); err != nil && !errors.Is(err, ErrPowerOff) {
		b.t.Errorf("close: %v", err)
	}
	b.Engine = nil
}

func (b *bench) reopen() {
	b.t.Helper()
	b.close()
	b.open()
}

func (b *bench) put(sync bool, pairs ...string) {
	b.t.Helper()
	var batch engine.Batch
	for i := 0; i < len(pairs); i += 2 {
		batch.Put([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	if err := b.Apply(&batch, sync); err != nil {
		b.t.Fatalf("apply: %v", err)
	}
}

func (b *bench) want(r engine.Reader, key, value string) {
	b.t.Helper()
	got, err := r.Get([]byte(key), nil)
	if err != nil || string(got) != value {
		b.t.Errorf("get %q: %q, %v; want %q", key, got, err, value)
	}
}

func (b *bench) wantNone(r engine.Reader, key string) {
	b.t.Helper()
	if got, err := r.Get([]byte(key), nil); !errors.Is(err, engine.ErrNotFound) || len(got) != 0 {
		b.t.Errorf("get %q: %q, %v; want not found", key, got, err)
	}
}

// list is what an iteration finds, as "k=v" joined by blanks.
func (b *bench) list(r engine.Reader, from, to []byte) string {
	b.t.Helper()
	var out bytes.Buffer
	err := r.Iterate(from, to, func(k, v []byte) (bool, error) {
		if out.Len() > 0 {
			out.WriteByte(' ')
		}
		fmt.Fprintf(&out, "%s=%s", k, v)
		return true, nil
	})
	if err != nil {
		b.t.Errorf("iterate: %v", err)
	}
	return out.String()
}

func testBounds(t *testing.T, b *bench) {
	b.put(true, "b", "2", "\xff\xff", "z", "a", "1", "bb", "3", "c", "4")
	tests := []struct {
		name     string
		from, to []byte
		want     string
	}{
		{"all", nil, nil, "a=1 b=2 bb=3 c=4 \xff\xff=z"},
		{"from is inclusive", []byte("b"), nil, "b=2 bb=3 c=4 \xff\xff=z"},
		{"to is exclusive", nil, []byte("c"), "a=1 b=2 bb=3"},
		{"both", []byte("b"), []byte("c"), "b=2 bb=3"},
		{"between keys", []byte("ba"), []byte("bz"), "bb=3"},
		{"empty range", []byte("b"), []byte("b"), ""},
		{"backward range", []byte("c"), []byte("a"), ""},
		{"nothing is below the empty key", nil, []byte{}, ""},
		{"the empty key is before all", []byte{}, nil, "a=1 b=2 bb=3 c=4 \xff\xff=z"},
		{"past the last", []byte("\xff\xff\x00"), nil, ""},
	}
	for _, where := range []string{"written", "reopened"} {
		for _, tt := range tests {
			if got := b.list(b, tt.from, tt.to); got != tt.want {
				t.Errorf("%s, %s: %q, want %q", where, tt.name, got, tt.want)
			}
		}
		b.reopen()
	}
}

func testGetAppends(t *testing.T, b *bench) {
	b.put(true, "k", "value")
	got, err := b.Get([]byte("k"), []byte("before "))
	if err != nil || string(got) != "before value" {
		t.Errorf("get: %q, %v", got, err)
	}
	got, err = b.Get([]byte("absent"), []byte("before "))
	if !errors.Is(err, engine.ErrNotFound) || string(got) != "before " {
		t.Errorf("get absent: %q, %v", got, err)
	}
	mine, err := b.Get([]byte("k"), nil)
	if err != nil {
		t.Fatal(err)
	}
	copy(mine, "xxxxx")
	b.want(b, "k", "value")
}

func testExtremes(t *testing.T, b *bench) {
	large := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16)) // 1 MiB
	b.put(true, "", "of the empty key", "empty", "", "large", large)
	for range 2 {
		b.want(b, "", "of the empty key")
		b.want(b, "empty", "")
		b.want(b, "large", large)
		n := 0
		err := b.Iterate(nil, nil, func(k, v []byte) (bool, error) { n++; return true, nil })
		if n != 3 || err != nil {
			t.Errorf("%d keys, %v; want 3", n, err)
		}
		b.reopen()
	}
}

func testDelete(t *testing.T, b *bench) {
	b.put(true, "a", "1", "b", "2", "c", "3")
	b.put(true, "b", "two")
	var batch engine.Batch
	batch.Delete([]byte("a"))
	batch.Delete([]byte("never there"))
	if err := b.Apply(&batch, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b.wantNone(b, "a")
		if got := b.list(b, nil, nil); got != "b=two c=3" {
			t.Errorf("list: %q", got)
		}
		b.reopen()
	}
}

func testBatchOrder(t *testing.T, b *bench) {
	var batch, more engine.Batch
	batch.Put([]byte("a"), []byte("first"))
	batch.Put([]byte("a"), []byte("second"))
	batch.Put([]byte("b"), []byte("put, then deleted"))
	batch.Delete([]byte("b"))
	batch.Delete([]byte("c"))
	more.Put([]byte("c"), []byte("deleted, then put"))
	batch.Append(&more)
	if err := b.Apply(&batch, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := b.list(b, nil, nil); got != "a=second c=deleted, then put" {
			t.Errorf("list: %q", got)
		}
		b.reopen()
	}
	var empty engine.Batch
	if err := errors.Join(b.Apply(&empty, false), b.Apply(&empty, true)); err != nil {
		t.Errorf("empty batch: %v", err)
	}
}

// testBatchAtomic writes one number under two keys in each batch; a reader never sees two different ones.
func testBatchAtomic(t *testing.T, b *bench) {
	b.put(false, "x", "0", "y", "0")
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if x, y := b.pair(); x != y {
					t.Errorf("half a batch: x=%s y=%s", x, y)
					return
				}
			}
		})
	}
	for i := range 500 {
		v := fmt.Sprint(i)
		b.put(false, "x", v, "y", v)
	}
	close(done)
	readers.Wait()
}

func (b *bench) pair() (x, y string) {
	err := b.Iterate(nil, nil, func(k, v []byte) (bool, error) {
		if string(k) == "x" {
			x = string(v)
		} else {
			y = string(v)
		}
		return true, nil
	})
	if err != nil {
		b.t.Errorf("iterate: %v", err)
	}
	return x, y
}

func testBatchReuse(t *testing.T, b *bench) {
	var batch engine.Batch
	for i := range 3 {
		batch.Reset()
		batch.Put(fmt.Append(nil, "key", i), fmt.Append(nil, "value", i))
		if err := b.Apply(&batch, false); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.list(b, nil, nil); got != "key0=value0 key1=value1 key2=value2" {
		t.Errorf("list: %q", got)
	}
}

func testTooLarge(t *testing.T, b *bench) {
	var batch engine.Batch
	batch.Put([]byte("k"), make([]byte, b.MaxBatch()))
	if err := b.Apply(&batch, true); !errors.Is(err, engine.ErrBatchTooLarge) {
		t.Errorf("apply: %v, want ErrBatchTooLarge", err)
	}
	b.wantNone(b, "k")
	if b.Err() != nil {
		t.Errorf("the engine stopped: %v", b.Err())
	}
	batch.Reset()
	batch.Put([]byte("k"), make([]byte, b.MaxBatch()-100))
	if err := b.Apply(&batch, true); err != nil {
		t.Errorf("apply the largest: %v", err)
	}
}

func testIterateIsolation(t *testing.T, b *bench) {
	for i := range 100 {
		b.put(false, fmt.Sprintf("%03d", i), "old")
	}
	n := 0
	err := b.Iterate(nil, nil, func(k, v []byte) (bool, error) {
		var batch engine.Batch
		batch.Put(fmt.Append(nil, string(k), "x"), []byte("new"))
		batch.Put(fmt.Appendf(nil, "%03d", n+1), []byte("new"))
		batch.Delete(fmt.Appendf(nil, "%03d", n+2))
		if string(v) != "old" {
			t.Errorf("%s is %s: iteration sees later writes", k, v)
		}
		n++
		return true, b.Apply(&batch, false)
	})
	if n != 100 || err != nil {
		t.Errorf("%d keys, %v; want 100", n, err)
	}
}

func testIterateEnds(t *testing.T, b *bench) {
	b.put(false, "a", "1", "b", "2", "c", "3")
	n := 0
	if err := b.Iterate(nil, nil, func(k, v []byte) (bool, error) { n++; return n < 2, nil }); n != 2 || err != nil {
		t.Errorf("no more: %d keys, %v", n, err)
	}
	mine := errors.New("mine")
	if err := b.Iterate(nil, nil, func(k, v []byte) (bool, error) { return true, mine }); err != mine {
		t.Errorf("fn's error: %v", err)
	}
	defer func() {
		if p := recover(); p != "mine" {
			t.Errorf("fn's panic: %v", p)
		}
		b.want(b, "a", "1")
	}()
	_ = b.Iterate(nil, nil, func(k, v []byte) (bool, error) { panic("mine") })
}

func testSnapshot(t *testing.T, b *bench) {
	b.put(false, "a", "1", "b", "2")
	s, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	b.put(false, "a", "later", "c", "3")
	var batch engine.Batch
	batch.Delete([]byte("b"))
	if err := b.Apply(&batch, false); err != nil {
		t.Fatal(err)
	}
	b.want(s, "a", "1")
	b.wantNone(s, "c")
	if got := b.list(s, nil, nil); got != "a=1 b=2" {
		t.Errorf("snapshot: %q", got)
	}
	if n := b.Stats().Snapshots; n != 1 {
		t.Errorf("%d snapshots counted, want 1", n)
	}
	s.Release()
	s.Release()
	if _, err := s.Get([]byte("a"), nil); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("get after release: %v", err)
	}
	if err := s.Iterate(nil, nil, func(k, v []byte) (bool, error) { return true, nil }); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("iterate after release: %v", err)
	}
	if n := b.Stats().Snapshots; n != 0 {
		t.Errorf("%d snapshots counted, want 0", n)
	}
	left, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	if _, err := left.Get([]byte("a"), nil); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("get of a snapshot after close: %v", err)
	}
	left.Release()
}

func testReopen(t *testing.T, b *bench) {
	b.put(true, "synced", "1")
	b.put(false, "unsynced", "2")
	for i := range 3 {
		b.reopen()
		if b.Suspect() || b.Recovery().Dropped != 0 {
			t.Errorf("reopen %d: suspect: %+v", i, b.Recovery())
		}
		b.want(b, "synced", "1")
		b.want(b, "unsynced", "2") // an orderly close loses nothing
	}
}

func testOneOwner(t *testing.T, b *bench) {
	if e, err := b.s.Open(); !errors.Is(err, engine.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
		if err == nil {
			_ = e.Close()
		}
	}
	b.put(true, "a", "1") // and the first one is unharmed
	b.reopen()
	b.want(b, "a", "1")
}

func testClose(t *testing.T, b *bench) {
	b.put(true, "a", "1")
	e := b.Engine
	if err := errors.Join(e.Close(), e.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	var batch engine.Batch
	batch.Put([]byte("b"), []byte("2"))
	_, getErr := e.Get([]byte("a"), nil)
	_, snapErr := e.Snapshot()
	for name, err := range map[string]error{
		"get": getErr, "snapshot": snapErr, "apply": e.Apply(&batch, true), "sync": e.Sync(),
		"iterate": e.Iterate(nil, nil, func(k, v []byte) (bool, error) { return true, nil }),
	} {
		if !errors.Is(err, engine.ErrClosed) {
			t.Errorf("%s after close: %v, want ErrClosed", name, err)
		}
	}
	_ = e.Stats() // must not panic
	if err := e.Err(); err != nil {
		t.Errorf("an orderly close is not a failure: %v", err)
	}
	b.Engine = nil
	b.open()
	b.wantNone(b, "b")
}

func testCloseDuringIterate(t *testing.T, b *bench) {
	b.put(false, "a", "1", "b", "2", "c", "3")
	closed := make(chan error)
	started := false
	n := 0
	e := b.Engine
	err := e.Iterate(nil, nil, func(k, v []byte) (bool, error) {
		n++
		if !started {
			started = true
			go func() { closed <- e.Close() }()
		}
		// Wait until close has begun; a read inside the iteration must fail then and not block.
		for {
			if _, err := e.Get([]byte("a"), nil); errors.Is(err, engine.ErrClosed) {
				return true, nil
			}
		}
	})
	if !errors.Is(err, engine.ErrClosed) || n != 1 {
		t.Errorf("iterate: %v after %d keys, want ErrClosed after 1", err, n)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	b.Engine = nil
}

func testLatch(t *testing.T, b *bench) {
	if b.s.Fail == nil {
		t.Skip("the subject injects no failures")
	}
	for _, op := range []string{"apply", "sync"} {
		b.put(true, "kept", op)
		if op == "sync" {
			b.put(false, "unsynced", "?")
		}
		b.s.Fail(ErrOffline)
		var batch engine.Batch
		batch.Put([]byte("failed"), []byte("?"))
		write := func() error { return b.Apply(&batch, true) }
		if op == "sync" {
			write = b.Sync
		}
		err := write()
		if !errors.Is(err, ErrOffline) || errors.Is(err, engine.ErrLatched) {
			t.Fatalf("%s: first failure: %v", op, err)
		}
		batch.Reset()
		batch.Put([]byte("behind"), []byte("?"))
		for _, err := range []error{b.Apply(&batch, true), b.Apply(&batch, false), b.Sync()} {
			if !errors.Is(err, engine.ErrLatched) || !errors.Is(err, ErrOffline) {
				t.Errorf("%s: behind the failure: %v, want ErrLatched wrapping it", op, err)
			}
		}
		if !errors.Is(b.Err(), ErrOffline) {
			t.Errorf("%s: Err: %v", op, b.Err())
		}
		b.wantNone(b, "behind")
		b.want(b, "kept", op) // reads go on
		b.reopen()
		b.want(b, "kept", op)
		b.wantNone(b, "behind")
		if b.Err() != nil {
			t.Errorf("%s: Err after reopen: %v", op, b.Err())
		}
		b.put(true, "resumed", op)
	}
}

func testPowerCut(t *testing.T, b *bench) {
	if b.s.Crash == nil {
		t.Skip("the subject has no power to cut")
	}
	b.put(true, "synced", "1")
	b.put(false, "covered", "2") // by the sync of the next
	b.put(true, "later", "3")
	b.put(false, "covered too", "4")
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	b.put(false, "unsynced", "5")
	b.s.Crash()
	b.reopen()
	b.want(b, "synced", "1")
	b.want(b, "covered", "2")
	b.want(b, "later", "3")
	b.want(b, "covered too", "4")
	b.wantNone(b, "unsynced")
	if b.Suspect() {
		t.Errorf("suspect: %+v", b.Recovery())
	}
}

// testConcurrent lets readers check while one writer counts up that no key goes backwards and none is missing.
func testConcurrent(t *testing.T, b *bench) {
	const keys, rounds = 16, 150
	write := func(round uint64) {
		var batch engine.Batch
		for k := range keys {
			batch.Put([]byte{byte(k)}, binary.BigEndian.AppendUint64(nil, round))
		}
		if err := b.Apply(&batch, round%50 == 0); err != nil {
			t.Error(err)
		}
	}
	write(0)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 4 {
		readers.Go(func() {
			var last [keys]uint64
			see := func(k byte, v []byte) {
				round := binary.BigEndian.Uint64(v)
				if round < last[k] {
					t.Errorf("key %d went back from %d to %d", k, last[k], round)
				}
				last[k] = round
			}
			var dst []byte
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if r%2 == 0 {
					k := byte(i % keys)
					v, err := b.Get([]byte{k}, dst[:0])
					if err != nil {
						t.Error(err)
						return
					}
					see(k, v)
					dst = v
					continue
				}
				n := 0
				err := b.Iterate(nil, nil, func(k, v []byte) (bool, error) { n++; see(k[0], v); return true, nil })
				if err != nil || n != keys {
					t.Errorf("iterate: %d keys, %v", n, err)
					return
				}
			}
		})
	}
	for round := uint64(1); round <= rounds; round++ {
		write(round)
	}
	close(done)
	readers.Wait()
}

func testStats(t *testing.T, b *bench) {
	b.put(true, "key1", "value", "key2", "value")
	b.put(false, "key3", "value")
	s := b.Stats()
	if s.Batches != 2 || s.Records != 3 || s.UserBytes != 27 {
		t.Errorf("%d batches, %d records, %d bytes; want 2, 3, 27", s.Batches, s.Records, s.UserBytes)
	}
	if s.Syncs < 1 {
		t.Errorf("%d syncs, want at least 1", s.Syncs)
	}
}
