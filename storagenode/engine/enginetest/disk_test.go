package enginetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

var (
	journal1 = storage.FileDesc{Type: storage.TypeJournal, Num: 1}
	table2   = storage.FileDesc{Type: storage.TypeTable, Num: 2}
	manifest = storage.FileDesc{Type: storage.TypeManifest, Num: 3}
)

func create(t *testing.T, m *Mount, fd storage.FileDesc, data string) storage.Writer {
	t.Helper()
	w, err := m.Create(fd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content reads a file, "-" if there is none.
func content(t *testing.T, d *Disk, fd storage.FileDesc) string {
	t.Helper()
	r, err := d.Mount().Open(fd)
	if errors.Is(err, os.ErrNotExist) {
		return "-"
	}
	must(t, err)
	data, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	return string(data)
}

// TestCrashDiscards states what survives a power cut, case by case.
func TestCrashDiscards(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, d *Disk, m *Mount)
		want string // of journal1 after the crash
	}{
		{"nothing synced", func(t *testing.T, d *Disk, m *Mount) { create(t, m, journal1, "abc") }, "-"},
		{"file synced, directory not", func(t *testing.T, d *Disk, m *Mount) {
			must(t, create(t, m, journal1, "abc").Sync())
		}, "-"},
		{"directory synced, file not", func(t *testing.T, d *Disk, m *Mount) {
			create(t, m, journal1, "abc")
			must(t, m.SyncDir())
		}, ""},
		{"both synced, then written", func(t *testing.T, d *Disk, m *Mount) {
			w := create(t, m, journal1, "abc")
			must(t, errors.Join(m.SyncDir(), w.Sync()))
			_, err := w.Write([]byte("def"))
			must(t, err)
		}, "abc"},
		{"synced by a manifest", func(t *testing.T, d *Disk, m *Mount) {
			must(t, create(t, m, journal1, "abc").Sync())
			must(t, create(t, m, manifest, "m").Sync())
		}, "abc"},
		{"synced by the switch of the manifest", func(t *testing.T, d *Disk, m *Mount) {
			must(t, create(t, m, journal1, "abc").Sync())
			create(t, m, manifest, "m")
			must(t, m.SetMeta(manifest))
		}, "abc"},
		{"removal not synced", func(t *testing.T, d *Disk, m *Mount) {
			must(t, errors.Join(create(t, m, journal1, "abc").Sync(), m.SyncDir(), m.Remove(journal1)))
		}, "abc"},
		{"removal synced", func(t *testing.T, d *Disk, m *Mount) {
			must(t, errors.Join(create(t, m, journal1, "abc").Sync(), m.SyncDir(), m.Remove(journal1), m.SyncDir()))
		}, "-"},
		{"rename not synced", func(t *testing.T, d *Disk, m *Mount) {
			must(t, errors.Join(create(t, m, table2, "abc").Sync(), m.SyncDir(), m.Rename(table2, journal1)))
		}, "-"},
		{"rename synced", func(t *testing.T, d *Disk, m *Mount) {
			must(t, errors.Join(create(t, m, table2, "abc").Sync(), m.Rename(table2, journal1), m.SyncDir()))
		}, "abc"},
		{"sync failed, then succeeded", func(t *testing.T, d *Disk, m *Mount) {
			w := create(t, m, journal1, "abc")
			must(t, errors.Join(m.SyncDir(), w.Sync()))
			_, err := w.Write([]byte("def"))
			must(t, err)
			d.Inject(&Fault{Op: OpSync, Types: storage.TypeJournal, Times: 1, Err: syscall.EIO})
			if err := w.Sync(); !errors.Is(err, syscall.EIO) {
				t.Errorf("sync: %v", err)
			}
			_, err = w.Write([]byte("ghi"))
			must(t, errors.Join(err, w.Sync()))
			if got := content(t, d, journal1); got != "abcdefghi" {
				t.Errorf("before the crash: %q", got)
			}
		}, "abc\x00\x00\x00ghi"},
		{"truncated by a second creation", func(t *testing.T, d *Disk, m *Mount) {
			must(t, errors.Join(create(t, m, journal1, "abc").Sync(), m.SyncDir()))
			create(t, m, journal1, "x")
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDisk()
			tt.run(t, d, d.Mount())
			after := d.Crash(Discard, nil)
			if got := content(t, after, journal1); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if _, err := d.Mount().Create(table2); !errors.Is(err, ErrPowerOff) || d.PowerOn() {
				t.Errorf("the old disk still works: %v", err)
			}
		})
	}
}

// TestCrashKeeps checks the two milder modes: what was synced is there, the rest is a prefix, or has pages of zeros.
func TestCrashKeeps(t *testing.T) {
	unsynced := bytes.Repeat([]byte("x"), 5*page)
	var sizes, zeroed, entries [2]int
	for seed := range uint64(200) {
		d := NewDisk()
		m := d.Mount()
		w := create(t, m, journal1, "synced")
		must(t, errors.Join(w.Sync(), m.SyncDir()))
		_, err := w.Write(unsynced)
		must(t, err)
		create(t, m, table2, "t")
		mode := KeepPrefix + CrashMode(seed%2)
		after := d.Crash(mode, rand.New(rand.NewPCG(seed, 0)))
		got := []byte(content(t, after, journal1))
		rest, ok := bytes.CutPrefix(got, []byte("synced"))
		if !ok || len(rest) > len(unsynced) {
			t.Fatalf("seed %d: %d bytes, begins %q", seed, len(got), got[:min(6, len(got))])
		}
		if len(rest) > 0 && len(rest) < len(unsynced) {
			sizes[seed%2]++
		}
		if bytes.ContainsRune(rest, 0) {
			zeroed[seed%2]++
		}
		if content(t, after, table2) != "-" {
			entries[seed%2]++
		}
	}
	if sizes[0] < 50 || sizes[1] < 50 || zeroed[0] > 0 || zeroed[1] < 50 || entries[0] < 20 || entries[0] > 80 {
		t.Errorf("partial %v, zeroed %v, entries kept %v of 100 each", sizes, zeroed, entries)
	}
}

func TestCapacity(t *testing.T) {
	d := NewDisk()
	m := d.Mount()
	d.SetCapacity(10)
	w := create(t, m, journal1, "12345678")
	if n, err := w.Write([]byte("90ab")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d, %v", n, err)
	}
	must(t, m.Remove(journal1))
	create(t, m, table2, "12345678")
	if d.Used() != 8 {
		t.Errorf("%d bytes used", d.Used())
	}
}

func TestFaultsCount(t *testing.T) {
	d := NewDisk()
	m := d.Mount()
	f := &Fault{Op: OpWrite, Types: storage.TypeJournal, Skip: 1, Times: 2, Err: ErrOffline, Partial: true}
	d.Inject(f)
	w := create(t, m, journal1, "ab") // skipped
	for i := range 3 {
		n, err := w.Write([]byte("cdef"))
		if failed := i < 2; failed != errors.Is(err, ErrOffline) || failed != (n == 2) {
			t.Errorf("write %d: %d, %v", i, n, err)
		}
	}
	create(t, m, table2, "other type")
	if f.Hits() != 2 || content(t, d, journal1) != "abcdcdcdef" {
		t.Errorf("%d hits, %q", f.Hits(), content(t, d, journal1))
	}
	d.Inject(&Fault{Op: OpSyncDir, Err: ErrOffline})
	if err := m.SyncDir(); !errors.Is(err, ErrOffline) {
		t.Errorf("sync of the directory: %v", err)
	}
	d.Heal()
	must(t, m.SyncDir())
}

func TestCutAfter(t *testing.T) {
	d := NewDisk()
	m := d.Mount()
	d.CutAfter(3)
	w := create(t, m, journal1, "a") // two operations
	if err := w.Sync(); !errors.Is(err, ErrPowerOff) {
		t.Errorf("third operation: %v", err)
	}
	if _, err := m.Open(journal1); !errors.Is(err, ErrPowerOff) {
		t.Errorf("open: %v", err)
	}
}

func TestOneMountAtATime(t *testing.T) {
	d := NewDisk()
	a, b := d.Mount(), d.Mount()
	lock, err := a.Lock()
	must(t, err)
	if _, err := b.Lock(); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	lock.Unlock()
	_, err = b.Lock()
	must(t, err)
	must(t, a.Close()) // does not free what b holds
	if _, err := d.Mount().Lock(); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("third lock: %v", err)
	}
	if _, err := a.Create(journal1); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("create on a closed mount: %v", err)
	}
}

func TestCloneAndChange(t *testing.T) {
	d := NewDisk()
	m := d.Mount()
	must(t, create(t, m, manifest, "m").Sync())
	must(t, m.SetMeta(manifest))
	create(t, m, journal1, "abc")
	c := d.Clone()
	must(t, c.Flip(journal1, 1, 0))
	if content(t, c, journal1) != "acc" || content(t, d, journal1) != "abc" {
		t.Errorf("clone %q, original %q", content(t, c, journal1), content(t, d, journal1))
	}
	if fd, err := c.Mount().GetMeta(); err != nil || fd != manifest {
		t.Errorf("current manifest: %v, %v", fd, err)
	}
	c.Delete(manifest)
	if _, err := c.Mount().GetMeta(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("current manifest after deletion: %v", err)
	}
	if err := c.Flip(table2, 0, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("flip in a missing file: %v", err)
	}
	if after := c.Crash(Discard, nil); content(t, after, journal1) != "acc" {
		t.Error("a clone is not on stable storage")
	}
}
