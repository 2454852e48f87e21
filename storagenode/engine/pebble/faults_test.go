package pebble

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/dotring/dotring/storagenode/engine"
)

func keys(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return out
}

// fill writes 64 KiB batches until one fails, for at most n of them, and returns the keys that were acknowledged.
func fill(e *Engine, prefix string, n int) (acked []string, err error) {
	for i := range n {
		k := fmt.Sprintf("%s%04d", prefix, i)
		var b engine.Batch
		b.Put([]byte(k), []byte(k))
		b.Put([]byte("filler "+k), make([]byte, 64*kib))
		if err := e.Apply(&b, true); err != nil {
			return acked, err
		}
		acked = append(acked, k)
	}
	return acked, nil
}

// TestFailures fails one operation on each file that must not fail, while the engine fills several memory tables. The
// engine stops, the process lives, reads go on, and after reopening nothing acknowledged is lost.
func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind errorfs.OpKind
		file string
		skip int
		err  error
	}{
		{"sync of the log", errorfs.OpFileSync, ".log", 3, syscall.EIO},
		{"write of the log, disk full", errorfs.OpFileWrite, ".log", 3, syscall.ENOSPC},
		{"a new log, disk full", errorfs.OpCreate, ".log", 0, syscall.ENOSPC},
		{"reuse of a log", errorfs.OpReuseForWrite, ".log", 0, syscall.EIO},
		{"sync of the manifest", errorfs.OpFileSync, "MANIFEST", 0, syscall.EIO},
		{"write of the manifest, disk full", errorfs.OpFileWrite, "MANIFEST", 0, syscall.ENOSPC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newCrashMachine()
			e := m.mustOpen(t)
			first := keys("before", 10)
			apply(t, e, first...)
			m.inject(&fault{kind: tt.kind, file: tt.file, skip: tt.skip, times: 1, err: tt.err})
			acked, err := fill(e, "during", 400)
			if !errors.Is(err, tt.err) {
				t.Fatalf("after %d batches: %v, want %v", len(acked), err, tt.err)
			}
			if err := tryApply(e, "behind"); !errors.Is(err, engine.ErrLatched) || !errors.Is(err, tt.err) {
				t.Errorf("behind: %v, want ErrLatched wrapping it", err)
			}
			if !errors.Is(e.Err(), tt.err) {
				t.Errorf("Err: %v", e.Err())
			}
			acked = append(acked, first...)
			if n := missing(t, e, acked); n > 0 {
				t.Errorf("%d of %d keys cannot be read while stopped", n, len(acked))
			}
			if err := e.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			m.crash()
			e = m.mustOpen(t)
			if n := missing(t, e, acked); n > 0 {
				t.Errorf("%d of %d acknowledged keys are lost", n, len(acked))
			}
			if n := missing(t, e, []string{"behind"}); n != 1 {
				t.Error("a refused write is there")
			}
			apply(t, e, "goes on")
		})
	}
}

// TestTableWriteFails fails the first writes of tables: the library tries again, and nobody notices.
func TestTableWriteFails(t *testing.T) {
	m := newCrashMachine()
	e := m.mustOpen(t)
	m.inject(&fault{kind: errorfs.OpFileWrite, file: ".sst", times: 2, err: syscall.ENOSPC})
	acked, err := fill(e, "key", 100)
	if err != nil {
		t.Fatal(err)
	}
	if m.hits() == 0 || e.Stats().BackgroundFailures == 0 {
		t.Errorf("%d writes failed, %d failures counted", m.hits(), e.Stats().BackgroundFailures)
	}
	if n := missing(t, e, acked); n > 0 {
		t.Errorf("%d keys are missing", n)
	}
}

// TestGrows fills several memory tables with the default options, from the small ones that the library begins with, and
// compacts level 0: no write waits for what never comes.
func TestGrows(t *testing.T) {
	m := newMachine()
	m.opts = Default()
	e := m.mustOpen(t)
	acked, err := fill(e, "key", 1600)
	if err != nil {
		t.Fatal(err)
	}
	if s := e.Stats(); s.Flushes < 3 || len(s.Levels) == 0 || s.TableBytes() == 0 || s.DiskWritten < s.UserBytes {
		t.Errorf("%+v", s)
	}
	if n := missing(t, e, acked); n > 0 {
		t.Errorf("%d keys are missing", n)
	}
}

// TestStallEnds keeps every table from being written, until writes wait. Close ends the wait, and loses nothing.
func TestStallEnds(t *testing.T) {
	m := newCrashMachine()
	e := m.mustOpen(t)
	m.inject(&fault{kind: errorfs.OpCreate, file: ".sst", err: syscall.ENOSPC})
	type result struct {
		acked []string
		err   error
	}
	done := make(chan result)
	go func() {
		acked, err := fill(e, "key", 1000)
		done <- result{acked, err}
	}()
	for !e.Stats().WritesPaused {
		select {
		case r := <-done:
			t.Fatalf("no stall after %d batches: %v", len(r.acked), r.err)
		default:
		}
	}
	if err := e.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	r := <-done
	if !errors.Is(r.err, engine.ErrClosed) {
		t.Errorf("the waiting write: %v, want ErrClosed", r.err)
	}
	if s := e.Stats(); s.WriteStalls != 1 || s.WriteStallTime <= 0 {
		t.Errorf("%d stalls, %v", s.WriteStalls, s.WriteStallTime)
	}
	m.inject(nil)
	e = m.mustOpen(t)
	if n := missing(t, e, r.acked); n > 0 {
		t.Errorf("%d of %d acknowledged keys are lost", n, len(r.acked))
	}
}

// TestFatalf calls what the library calls when it gives up for a reason that is not the disk's.
func TestFatalf(t *testing.T) {
	m := newMachine()
	e := m.mustOpen(t)
	apply(t, e, "before")
	e.log.Fatalf("invariant %d", 7)
	if err := tryApply(e, "behind"); !errors.Is(err, engine.ErrLatched) {
		t.Errorf("apply: %v", err)
	}
	if _, err := e.Get([]byte("before"), nil); !errors.Is(err, engine.ErrDamaged) {
		t.Errorf("get: %v, want ErrDamaged", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	m.crash()
	e = m.mustOpen(t)
	if n := missing(t, e, []string{"before", "behind"}); n != 1 {
		t.Errorf("%d keys are missing", n)
	}
}

// TestFailedOpen fails the first opening at each step; the next one works.
func TestFailedOpen(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileSync, errorfs.OpFileWrite, errorfs.OpOpenDir, errorfs.OpList} {
		for skip := range 8 {
			m := newMachine()
			m.inject(&fault{kind: kind, file: "db", skip: skip, times: 1, err: syscall.EIO})
			e, err := m.open()
			if err == nil {
				if m.hits() > 0 && e.Err() == nil && kind != errorfs.OpList {
					t.Errorf("kind %d, skip %d: the failure is not told", kind, skip)
				}
				if err := e.Close(); err != nil && !errors.Is(err, syscall.EIO) {
					t.Error(err)
				}
			} else if !errors.Is(err, syscall.EIO) {
				t.Errorf("kind %d, skip %d: open: %v", kind, skip, err)
			}
			m.inject(nil)
			m.crash()
			e = m.mustOpen(t)
			apply(t, e, "works")
		}
	}
}
