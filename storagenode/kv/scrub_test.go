package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

func unpaced(int) time.Duration { return 0 }

// verifyAll verifies what there is; it waits while the engine is being reopened.
func verifyAll(t *testing.T, s *Store) (damaged int) {
	t.Helper()
	var tables []engine.Table
	eventually(t, "tables are listed", func() bool {
		var err error
		if tables, _, err = s.Tables(); err != nil && !errors.Is(err, ErrReopening) {
			t.Fatal(err)
		}
		return err == nil
	})
	for _, table := range tables {
		n, err := s.VerifyTable(t.Context(), table, unpaced)
		if err != nil && !errors.Is(err, ErrReopening) {
			t.Fatal(err)
		}
		damaged += n
	}
	return damaged
}

// Damage below hot keys, which every read finds in memory, is found by verification and heals as any other.
func TestScrubFindsDamageBelowTheCache(t *testing.T) {
	disk := enginetest.NewDisk()
	opts := smallTree()
	opts.Note = DamageNote
	opener := func() (engine.Engine, error) { return leveldb.OpenStorage(disk.Mount(), opts) }
	s := healing(t, opener, nil)
	known := map[string][]byte{}
	for i := range 2000 {
		key := fmt.Sprintf("key-%d", i)
		o := newOutcome(t)
		out, err := s.Mint(write(key, fmt.Sprintf("%0300d", i)), o.mint)
		if err != nil {
			t.Fatal(err)
		}
		known[key] = out.Record
		if i%100 == 99 {
			if _, err := o.wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = healing(t, opener, nil) // brings the log's records into tables
	readAll := func() {
		t.Helper()
		for key, rec := range known {
			if got, err := s.Read([]byte(key)); err != nil || !bytes.Equal(got, rec) {
				t.Fatalf("read of %s: %d bytes, %v", key, len(got), err)
			}
		}
	}
	readAll()
	if n := verifyAll(t, s); n != 0 {
		t.Fatalf("%d damaged before", n)
	}
	largest := slices.MaxFunc(disk.Files(storage.TypeTable), func(a, b storage.FileDesc) int { return sizeOf(t, disk, a) - sizeOf(t, disk, b) })
	if err := disk.Flip(largest, sizeOf(t, disk, largest)/2, 3); err != nil {
		t.Fatal(err)
	}
	readAll() // from memory
	if s.Doubts().Any() {
		t.Fatal("in doubt before anything could be met")
	}
	if n := verifyAll(t, s); n != 1 {
		t.Errorf("%d damaged tables found, want 1", n)
	}
	eventually(t, "damage is set aside", func() bool { return s.Doubts().Any() })
	waitOpen(t, s, 1)
	refillFrom(t, s, known, false)
	readAll()
	if n := verifyAll(t, s); n != 0 {
		t.Errorf("%d damaged after the refill", n)
	}
}

func sizeOf(t *testing.T, disk *enginetest.Disk, fd storage.FileDesc) (n int) {
	t.Helper()
	if err := disk.Change(fd, func(b []byte) []byte { n = len(b); return b }); err != nil {
		t.Fatal(err)
	}
	return n
}

// A record whose own checksum is wrong, while the engine's is right, is found under a warm cache; one that a newer version
// covers is nobody's.
func TestScrubChecksRecords(t *testing.T) {
	for _, covered := range []bool{false, true} {
		disk := enginetest.NewDisk()
		opener := onDisk(disk)
		s := healing(t, opener, nil)
		good := mustMint(t, s, write("k", "value")).Record
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		e, err := opener()
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.find([]byte("k"))
		if err != nil {
			t.Fatal(err)
		}
		bad := slices.Clone(good)
		bad[len(bad)-1] ^= 1
		for i, rec := range [][]byte{bad, good} {
			var b engine.Batch
			if b.Put(p.disk, rec); i == 0 || covered {
				if err := e.Apply(&b, true); err != nil {
					t.Fatal(err)
				}
			}
		}
		p.release()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		s = healing(t, opener, nil) // the log becomes a table
		want := 1
		if covered {
			want = 0
		}
		if n := verifyAll(t, s); n != want {
			t.Errorf("covered %v: %d damaged, want %d", covered, n, want)
		}
		if !covered {
			eventually(t, "its slot is in doubt", func() bool { return s.Doubts().Slots() == 1 })
			refillFrom(t, s, map[string][]byte{"k": good}, false)
			if n := verifyAll(t, s); n != 0 {
				t.Errorf("%d damaged after the refill", n)
			}
		}
		if got := mustRead(t, s, "k"); !bytes.Equal(got, good) {
			t.Error("another record is read")
		}
	}
}

// A verification that waits for its turn keeps nobody from closing the store, and ends with its context.
func TestScrubEndsSoon(t *testing.T) {
	opener := onDisk(enginetest.NewDisk())
	s := healing(t, opener, nil)
	mustMint(t, s, write("k", "value"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = healing(t, opener, nil)
	tables, _, err := s.Tables()
	if err != nil || len(tables) == 0 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.VerifyTable(ctx, tables[0], func(int) time.Duration { cancel(); return time.Hour })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ended := make(chan error, 1)
	waiting := make(chan struct{}, 1)
	go func() {
		_, err := s.VerifyTable(t.Context(), tables[0], func(int) time.Duration { waiting <- struct{}{}; return time.Hour })
		ended <- err
	}()
	receive(t, waiting)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	other := healing(t, memory.NewStore().Open, nil)
	if _, _, err := other.Tables(); !errors.Is(err, ErrNoTables) {
		t.Errorf("engine without files: %v", err)
	}
}
