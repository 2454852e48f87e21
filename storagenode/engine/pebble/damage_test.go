package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/dotring/dotring/storagenode/engine"
)

// noise is size bytes that do not compress, and begin with k.
func noise(k string, size int) []byte {
	v := make([]byte, size)
	src := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", k))))
	_, _ = src.Read(v) // never fails
	copy(v, k)
	return v
}

// put writes each key in a synced batch of its own.
func put(t testing.TB, e *Engine, keys []string, size int) {
	t.Helper()
	for _, k := range keys {
		var b engine.Batch
		b.Put([]byte(k), noise(k, size))
		if err := e.Apply(&b, true); err != nil {
			t.Fatal(err)
		}
	}
}

// file returns the name of the only non-empty file with a suffix.
func (m *machine) file(t *testing.T, suffix string) (name string, size int64) {
	t.Helper()
	names, err := m.disk.List("/db")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !strings.HasSuffix(n, suffix) {
			continue
		}
		info, err := m.disk.Stat("/db/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size {
			name, size = "/db/"+n, info.Size()
		}
	}
	if name == "" {
		t.Fatalf("no file %s among %v", suffix, names)
	}
	return name, size
}

// copyWith is a copy of the machine in which change was applied to a file's bytes.
func (m *machine) copyWith(t *testing.T, name string, change func([]byte) []byte) *machine {
	t.Helper()
	c := &machine{opts: m.opts, disk: m.disk.CrashClone(vfs.CrashCloneCfg{})}
	f, err := c.disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	w, err := c.disk.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(change(data))
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return c
}

func flip(at int64, bit int) func([]byte) []byte {
	return func(data []byte) []byte {
		data[at] ^= 1 << bit
		return data
	}
}

// logBlock is the size of the pieces that the library's logs are made of.
const logBlock = 32 * kib

// TestLogFlip flips bits all over a log as it is after a crash. Opening finds each one that has a block of the log
// behind it. One in the last block may look like a torn end: then batches of that block are missing, and no others.
func TestLogFlip(t *testing.T) {
	for _, tt := range []struct{ keys, size, flips int }{{100, 100, 30}, {100, 2000, 60}, {1000, 1000, 10}} {
		t.Run(fmt.Sprintf("%d keys of %d bytes", tt.keys, tt.size), func(t *testing.T) {
			ks := keys("key", tt.keys)
			m := newMachine()
			put(t, m.mustOpen(t), ks, tt.size)
			m.crash()
			log, length := m.file(t, ".log")
			last := length / logBlock * logBlock
			rng := rand.New(rand.NewPCG(1, 1))
			silent := 0
			for range tt.flips {
				at, bit := rng.Int64N(length), rng.IntN(8)
				e, err := m.copyWith(t, log, flip(at, bit)).open()
				if err != nil {
					if !errors.Is(err, engine.ErrDamaged) {
						t.Fatalf("flip at %d: %v, want ErrDamaged", at, err)
					}
					continue
				}
				lost := 0
				for _, k := range ks {
					switch v, err := e.Get([]byte(k), nil); {
					case errors.Is(err, engine.ErrNotFound):
						lost++
					case err != nil || !bytes.Equal(v, noise(k, tt.size)):
						t.Errorf("flip at %d: get %s: %d bytes, %v", at, k, len(v), err)
					}
				}
				if lost > 0 {
					silent++
				}
				if lost > 0 && at < last || lost > 1+logBlock/tt.size {
					t.Errorf("flip at %d of %d: %d keys lost in silence", at, length, lost)
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}
			t.Logf("%d of %d flips lost batches of the last block in silence", silent, tt.flips)
			if silent == tt.flips && last > 0 {
				t.Error("no flip was found")
			}
		})
	}
}

// TestTornEnd cuts the log within its last batch, which a crash may do, and finds all others.
func TestTornEnd(t *testing.T) {
	ks := keys("key", 20)
	for _, size := range []int{30, 5000} {
		m := newMachine()
		put(t, m.mustOpen(t), ks, size)
		m.crash()
		log, _ := m.file(t, ".log")
		for cut := 1; cut < size; cut += 1 + size/20 {
			c := m.copyWith(t, log, func(data []byte) []byte { return data[:len(data)-cut] })
			e := c.mustOpen(t)
			for _, k := range ks[:len(ks)-1] {
				if _, err := e.Get([]byte(k), nil); err != nil {
					t.Errorf("%d bytes torn: get %s: %v", cut, k, err)
				}
			}
			if e.Suspect() || e.Recovery().Logs == 0 {
				t.Errorf("suspect %v, %+v", e.Suspect(), e.Recovery())
			}
		}
	}
}

// TestTableFlip flips bits in a table: reads say so, with file and range, iterations stop there, and nothing that is
// served is wrong.
func TestTableFlip(t *testing.T) {
	ks := keys("key", 500)
	m := newMachine()
	e := m.mustOpen(t)
	put(t, e, ks, 1000)
	if err := e.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	m.crash()
	table, length := m.file(t, ".sst")
	rng := rand.New(rand.NewPCG(2, 2))
	told := 0
	for range 30 {
		at := rng.Int64N(length)
		c := m.copyWith(t, table, flip(at, rng.IntN(8)))
		e, err := c.open()
		if err != nil {
			if !errors.Is(err, engine.ErrDamaged) {
				t.Fatalf("flip at %d: open: %v", at, err)
			}
			told++
			continue
		}
		bad := 0
		for _, k := range ks {
			v, err := e.Get([]byte(k), nil)
			var d *engine.Damage
			switch {
			case err == nil && bytes.Equal(v, noise(k, 1000)):
			case !errors.Is(err, engine.ErrDamaged) || !errors.As(err, &d):
				t.Fatalf("flip at %d: get %s: %d bytes, %v", at, k, len(v), err)
			case !d.Bounded || !strings.HasSuffix(table, d.File) || k < string(d.From) || k > string(d.To):
				t.Errorf("flip at %d: get %s: damage %+v", at, k, d)
			default:
				bad++
			}
		}
		n := 0
		err = e.Iterate(nil, nil, func(k, v []byte) (bool, error) { n++; return true, nil })
		if (bad > 0) != errors.Is(err, engine.ErrDamaged) || err == nil && n != len(ks) {
			t.Errorf("flip at %d: %d bad keys, iterated %d, %v", at, bad, n, err)
		}
		if bad > 0 {
			told++
		}
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if told < 15 {
		t.Errorf("only %d of 30 flips were told", told)
	}
}

// TestTableMissing removes a table: the engine does not open.
func TestTableMissing(t *testing.T) {
	m := newMachine()
	e := m.mustOpen(t)
	put(t, e, keys("key", 10), 100)
	if err := errors.Join(e.db.Flush(), e.Close()); err != nil {
		t.Fatal(err)
	}
	table, _ := m.file(t, ".sst")
	if err := m.disk.Remove(table); err != nil {
		t.Fatal(err)
	}
	if _, err := m.open(); !errors.Is(err, engine.ErrDamaged) {
		t.Errorf("open: %v, want ErrDamaged", err)
	}
}
