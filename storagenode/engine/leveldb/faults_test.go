package leveldb

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

func keys(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return out
}

// TestFailedSync fails one sync of the journal under a batch of ten. The library goes on and hands out the same
// sequence numbers again, and the next open drops as many acknowledged records as the failed batch had.
func TestFailedSync(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hooks hooks
		lost  bool
	}{
		{"latched", hooks{}, false},
		{"without the latch", hooks{noLatch: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.hooks = tt.hooks
			e := m.mustOpen(t)
			acked := keys("before", 10)
			apply(t, e, acked...)
			m.disk.Inject(&enginetest.Fault{
				Op: enginetest.OpSync, Types: storage.TypeJournal, Times: 1, Err: syscall.EIO,
			})
			if err := tryApply(e, keys("failed", 10)...); !errors.Is(err, syscall.EIO) {
				t.Fatalf("the batch under the failing sync: %v", err)
			}
			refused := 0
			for _, k := range keys("behind", 12) {
				if err := tryApply(e, k); err != nil {
					refused++
				} else {
					acked = append(acked, k)
				}
			}
			if tt.lost == (refused > 0) {
				t.Errorf("%d of 12 writes behind the failure were refused", refused)
			}
			if err := e.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			e = m.mustOpen(t)
			if n := missing(t, e, acked); (n > 0) != tt.lost {
				t.Errorf("%d of %d acknowledged keys are lost; loss expected: %v", n, len(acked), tt.lost)
			}
			if tt.lost && !e.Suspect() {
				t.Error("the loss did not make the engine suspect")
			}
			apply(t, e, "goes on")
		})
	}
}

// TestFailedManifestSync fails one sync of the manifest while a memory table is flushed. The library tries again, the
// system call succeeds over pages that were dropped, and the journal is removed.
func TestFailedManifestSync(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hooks hooks
		lost  bool
	}{
		{"latched", hooks{}, false},
		{"without the latch", hooks{noLatch: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the library waits a second before it tries again
				m := newMachine()
				m.hooks = tt.hooks
				e := m.mustOpen(t)
				acked := keys("acked", 10)
				apply(t, e, acked...)
				fault := &enginetest.Fault{
					Op: enginetest.OpSync, Types: storage.TypeManifest, Times: 1, Err: syscall.EIO,
				}
				m.disk.Inject(fault)
				// Flush and wait, as filling the memory table would after a while.
				if err := e.Compact(nil, nil); !errors.Is(err, syscall.EIO) {
					t.Errorf("compact: %v", err)
				}
				time.Sleep(5 * time.Second)
				if fault.Hits() != 1 {
					t.Errorf("%d syncs of the manifest failed, want 1", fault.Hits())
				}
				if !tt.lost {
					if err := tryApply(e, "behind"); !errors.Is(err, engine.ErrLatched) || !errors.Is(err, syscall.EIO) {
						t.Errorf("apply: %v, want ErrLatched wrapping EIO", err)
					}
				}
				// The kernel writes directories back by itself after some seconds, here the journal's removal.
				if err := m.disk.Mount().SyncDir(); err != nil {
					t.Fatal(err)
				}
				m.disk = m.disk.Crash(enginetest.Discard, nil)
				_ = e.Close() // the power is off
				e, err := m.open()
				switch {
				case err != nil && !tt.lost:
					t.Fatal(err)
				case err == nil:
					if n := missing(t, e, acked); (n > 0) != tt.lost {
						t.Errorf("%d acknowledged keys are lost; loss expected: %v", n, tt.lost)
					}
					if tt.lost && !e.Suspect() {
						t.Error("the loss did not make the engine suspect")
					}
					if err := e.Close(); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(2 * time.Second) // the library's last goroutine
			})
		})
	}
}

// TestDiskFull fills the disk, and gives room again.
func TestDiskFull(t *testing.T) {
	m := newMachine()
	e := m.mustOpen(t)
	var acked []string
	m.disk.SetCapacity(m.disk.Used() + 100*kib)
	var failure error
	for _, k := range keys("key", 10_000) {
		if failure = tryApply(e, k); failure != nil {
			break
		}
		acked = append(acked, k)
	}
	if !errors.Is(failure, syscall.ENOSPC) || errors.Is(failure, engine.ErrLatched) {
		t.Fatalf("full disk: %v", failure)
	}
	if n := missing(t, e, acked); n > 0 {
		t.Errorf("reads while full: %d keys missing", n)
	}
	m.disk.SetCapacity(0)
	if err := tryApply(e, "room again, not reopened"); !errors.Is(err, engine.ErrLatched) {
		t.Errorf("apply before reopen: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	m.disk.SetCapacity(m.disk.Used() + 1) // opening writes, so it fails too, and must harm nothing
	for range 3 {
		if e, err := m.open(); !errors.Is(err, syscall.ENOSPC) {
			if err == nil {
				_ = e.Close()
			}
			t.Errorf("open on a full disk: %v", err)
		}
	}
	m.disk.SetCapacity(0)
	e = m.mustOpen(t)
	if n := missing(t, e, acked); n > 0 || e.Suspect() {
		t.Errorf("after reopen: %d of %d acknowledged keys missing, suspect %v", n, len(acked), e.Suspect())
	}
	apply(t, e, "goes on")
}

// TestDiskFullNeedsReopen shows why room alone does not help: the library's journal refuses every later write.
func TestDiskFullNeedsReopen(t *testing.T) {
	m := newMachine()
	m.hooks.noLatch = true
	e := m.mustOpen(t)
	m.disk.Inject(&enginetest.Fault{
		Op: enginetest.OpWrite, Types: storage.TypeJournal, Times: 1, Err: syscall.ENOSPC, Partial: true,
	})
	for _, k := range keys("key", 100) {
		if err := tryApply(e, k); err == nil {
			t.Fatal("a write succeeded: the latch may be needed less than thought")
		}
	}
}

// TestTableFailureIsRetried fails to write a table: the library writes it anew and nothing has to stop.
func TestTableFailureIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		e := m.mustOpen(t)
		apply(t, e, "acked")
		m.disk.Inject(&enginetest.Fault{
			Op: enginetest.OpSync, Types: storage.TypeTable, Times: 1, Err: syscall.EIO,
		})
		if err := e.Compact(nil, nil); !errors.Is(err, syscall.EIO) {
			t.Errorf("compact: %v", err)
		}
		time.Sleep(5 * time.Second)
		if s := e.Stats(); s.BackgroundFailures == 0 || s.TableBytes() == 0 || e.Err() != nil {
			t.Errorf("%d background failures, %d bytes of tables, %v", s.BackgroundFailures, s.TableBytes(), e.Err())
		}
		apply(t, e, "goes on")
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		e = m.mustOpen(t)
		if n := missing(t, e, []string{"acked", "goes on"}); n > 0 {
			t.Errorf("%d keys missing", n)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
	})
}

// TestLogFailures fails each operation that a log depends on: all of them stop the engine, none loses anything.
func TestLogFailures(t *testing.T) {
	logs := storage.TypeJournal | storage.TypeManifest
	for _, tt := range []struct {
		name  string
		fault enginetest.Fault
	}{
		{"create journal", enginetest.Fault{Op: enginetest.OpCreate, Types: storage.TypeJournal}},
		{"sync directory", enginetest.Fault{Op: enginetest.OpSyncDir}},
		{"write", enginetest.Fault{Op: enginetest.OpWrite, Types: logs, Skip: 3}},
		{"half a write", enginetest.Fault{Op: enginetest.OpWrite, Types: logs, Skip: 3, Partial: true}},
		{"write manifest", enginetest.Fault{Op: enginetest.OpWrite, Types: storage.TypeManifest, Partial: true}},
		{"sync journal that is left", enginetest.Fault{Op: enginetest.OpSync, Types: storage.TypeJournal}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			e := m.mustOpen(t)
			acked := keys("acked", 10)
			apply(t, e, acked...)
			tt.fault.Err, tt.fault.Times = enginetest.ErrOffline, 1
			m.disk.Inject(&tt.fault)
			var failure error
			for i := 0; i < 1000 && failure == nil; i++ {
				var b engine.Batch
				b.Put([]byte("filler"), make([]byte, 64*kib))
				failure = e.Apply(&b, false)
			}
			if !errors.Is(failure, enginetest.ErrOffline) {
				t.Fatalf("apply: %v", failure)
			}
			if err := tryApply(e, "behind"); !errors.Is(err, engine.ErrLatched) {
				t.Errorf("behind: %v", err)
			}
			if !errors.Is(e.Err(), enginetest.ErrOffline) {
				t.Errorf("Err: %v", e.Err())
			}
			m.disk = m.disk.Crash(enginetest.Discard, nil)
			e = m.mustOpen(t)
			if n := missing(t, e, acked); n > 0 || e.Suspect() {
				t.Errorf("%d keys missing, suspect %v: %+v", n, e.Suspect(), e.Recovery())
			}
		})
	}
}

// TestEveryBatchIsSynced checks that no batch, however large, goes past the journal's sync.
func TestEveryBatchIsSynced(t *testing.T) {
	m := newMachine()
	e := m.mustOpen(t)
	for _, size := range []int{0, 1, 100 * kib, e.MaxBatch() - 100, e.MaxBatch() - 100, e.MaxBatch() - 100} {
		before := m.disk.Syncs(storage.TypeJournal)
		var b engine.Batch
		b.Put([]byte("k"), make([]byte, size))
		if err := e.Apply(&b, true); err != nil {
			t.Fatal(err)
		}
		if m.disk.Syncs(storage.TypeJournal) == before {
			t.Errorf("a batch of %d bytes was acknowledged without a sync", size)
		}
	}
}

// panicky is a library that panics wherever it is called.
type panicky struct{}

func (panicky) Get([]byte, *opt.ReadOptions) ([]byte, error)                { panic("bad table") }
func (panicky) NewIterator(*util.Range, *opt.ReadOptions) iterator.Iterator { panic("bad table") }

func TestPanicsOfTheLibraryAreDamage(t *testing.T) {
	e := newMachine().mustOpen(t)
	_, getErr := e.get(panicky{}, []byte("k"), nil)
	iterErr := e.iterate(panicky{}, nil, nil, func(k, v []byte) (bool, error) { return true, nil })
	_, stepErr := step(nil, func() bool { panic("bad block") })
	for name, err := range map[string]error{"get": getErr, "iterate": iterErr, "step": stepErr} {
		if !errors.Is(err, engine.ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
	if n := e.Stats().DamagedReads; n != 2 {
		t.Errorf("%d damaged reads counted, want 2", n)
	}
}

// TestJammedWriteReleasesTheDirectory lets the library panic in a write, where it keeps its own lock.
func TestJammedWriteReleasesTheDirectory(t *testing.T) {
	m := newMachine()
	e := m.mustOpen(t)
	db := e.db
	t.Cleanup(func() { _ = db.Close() })
	e.db = nil // a nil pointer panics as well as a bug does
	if err := tryApply(e, "k"); !errors.Is(err, engine.ErrDamaged) {
		t.Errorf("apply: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	apply(t, m.mustOpen(t), "works")
}

// TestCloseEndsAStalledWrite closes while a write waits for compaction that cannot make progress.
func TestCloseEndsAStalledWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newCrashMachine()
		e := m.mustOpen(t)
		gate := make(chan struct{})
		m.disk.Block(storage.TypeTable, gate)
		done := make(chan error, 1)
		go func() {
			for {
				var b engine.Batch
				b.Put([]byte("k"), make([]byte, 64*kib))
				if err := e.Apply(&b, false); err != nil {
					done <- err
					return
				}
			}
		}()
		synctest.Wait() // the writer is stalled
		closed := make(chan error, 1)
		go func() { closed <- e.Close() }()
		synctest.Wait()
		select {
		case err := <-done:
			if !errors.Is(err, engine.ErrClosed) {
				t.Errorf("stalled write: %v, want ErrClosed", err)
			}
		default:
			t.Error("the write still waits after Close")
		}
		close(gate)
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
		time.Sleep(2 * time.Second)
	})
}
