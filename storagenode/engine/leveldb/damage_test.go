package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
)

// putEach writes each key in a synced batch of its own, with a value of size bytes that starts with the key.
func putEach(t testing.TB, e *Engine, keys []string, size int) {
	t.Helper()
	for _, k := range keys {
		var b engine.Batch
		b.Put([]byte(k), valueOf(k, size))
		if err := e.Apply(&b, true); err != nil {
			t.Fatal(err)
		}
	}
}

// valueOf is size bytes that do not compress, derived from k.
func valueOf(k string, size int) []byte {
	seed := uint64(0)
	for _, c := range k {
		seed = seed*31 + uint64(c)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	v := make([]byte, size)
	for i := range v {
		v[i] = byte(rng.Uint32())
	}
	copy(v, k)
	return v
}

// crashed returns a machine whose journal holds the keys, as it is after the power was cut.
func crashed(t *testing.T, keys []string, size int) (*machine, storage.FileDesc) {
	t.Helper()
	m := newMachine()
	e := m.mustOpen(t)
	putEach(t, e, keys, size)
	m.disk = m.disk.Crash(0, nil)
	journals := m.disk.Files(storage.TypeJournal)
	if len(journals) != 1 {
		t.Fatalf("journals: %v", journals)
	}
	return m, journals[0]
}

// present counts the leading keys that are there with their value; it fails the test if one is there after one that
// is not, or differs.
func present(t *testing.T, e *Engine, keys []string, size int) (leading, total int) {
	t.Helper()
	broken := false
	for _, k := range keys {
		v, err := e.Get([]byte(k), nil)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			broken = true
			continue
		case err != nil:
			t.Errorf("get %s: %v", k, err)
		case !bytes.Equal(v, valueOf(k, size)):
			t.Errorf("get %s: wrong value", k)
		}
		total++
		if !broken {
			leading++
		}
	}
	return leading, total
}

func (m *machine) size(t *testing.T, fd storage.FileDesc) int {
	t.Helper()
	n := 0
	if err := m.disk.Change(fd, func(data []byte) []byte { n = len(data); return data }); err != nil {
		t.Fatal(err)
	}
	return n
}

// on runs fn on an engine opened on a copy of the disk that damage changed first.
func (m *machine) on(t *testing.T, damage func(c *machine), fn func(e *Engine, err error)) {
	t.Helper()
	c := &machine{disk: m.disk.Clone(), opts: m.opts}
	damage(c)
	e, err := c.open()
	fn(e, err)
	if e != nil {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestJournalFlip flips bits all over a journal. Whatever is lost, the engine either is suspect, or lost no more than
// the last record, which looks like the torn end of a crash.
func TestJournalFlip(t *testing.T) {
	for _, tt := range []struct{ keys, size, flips int }{{100, 100, 150}, {100, 2000, 60}, {1000, 1000, 12}} {
		t.Run(fmt.Sprintf("%d keys of %d bytes", tt.keys, tt.size), func(t *testing.T) {
			ks := keys("key", tt.keys)
			m, journal := crashed(t, ks, tt.size)
			length := m.size(t, journal)
			rng := rand.New(rand.NewPCG(1, 1))
			lossy := 0
			for range tt.flips {
				at, bit := rng.IntN(length), uint(rng.IntN(8))
				m.on(t, func(c *machine) { must(t, c.disk.Flip(journal, at, bit)) }, func(e *Engine, err error) {
					if err != nil {
						t.Fatalf("flip at %d: open: %v", at, err)
					}
					_, total := present(t, e, ks, tt.size)
					if total < tt.keys {
						lossy++
					}
					r := e.Recovery()
					switch {
					case e.Suspect() != (r.Dropped > 0) || e.Suspect() && len(r.Details) == 0:
						t.Errorf("flip at %d: suspect %v, report %+v", at, e.Suspect(), r)
					case e.Suspect():
					case total < tt.keys-1, total < tt.keys && r.TornBytes == 0:
						t.Errorf("flip at %d of %d: %d of %d keys, and not suspect: %+v", at, length, total, tt.keys, r)
					}
				})
			}
			if lossy < tt.flips/2 {
				t.Errorf("only %d of %d flips lost something: the test looks at the wrong place", lossy, tt.flips)
			}
		})
	}
}

// TestTornEnd cuts the journal at each byte of its last record, and zeroes it from there: what a crash leaves. All
// else is there, and the engine is not suspect.
func TestTornEnd(t *testing.T) {
	const n = 20
	ks := keys("key", n)
	for _, size := range []int{30, 5000} { // within a block, and over block borders
		m, journal := crashed(t, ks, size)
		length := m.size(t, journal)
		step := 1 + size/100
		for cut := 1; cut < size; cut += step {
			for _, zeros := range []bool{false, true} {
				m.on(t, func(c *machine) {
					must(t, c.disk.Change(journal, func(data []byte) []byte {
						if zeros {
							clear(data[length-cut:])
							return data
						}
						return data[:length-cut]
					}))
				}, func(e *Engine, err error) {
					if err != nil {
						t.Fatalf("%d bytes torn: open: %v", cut, err)
					}
					leading, total := present(t, e, ks, size)
					if leading != n-1 || total != n-1 || e.Suspect() || e.Recovery().TornBytes == 0 {
						t.Errorf("size %d, %d bytes torn, zeros %v: %d then %d keys, suspect %v, %+v",
							size, cut, zeros, leading, total, e.Suspect(), e.Recovery())
					}
				})
			}
		}
	}
}

// TestJournalTruncated cuts whole records off the end. Nothing in the file tells that from a shorter history; the
// owner's commit number does.
func TestJournalTruncated(t *testing.T) {
	ks := keys("key", 20)
	m, journal := crashed(t, ks, 100)
	m.on(t, func(c *machine) {
		must(t, c.disk.Change(journal, func(data []byte) []byte { return data[:len(data)/2] }))
	}, func(e *Engine, err error) {
		must(t, err)
		leading, total := present(t, e, ks, 100)
		if leading != total || total == len(ks) || total == 0 {
			t.Errorf("%d then %d of %d keys", leading, total, len(ks))
		}
	})
}

// tabled returns a machine, closed, whose keys are all in tables, some below level 0.
func tabled(t *testing.T, ks []string, size int) *machine {
	t.Helper()
	m := newCrashMachine()
	e := m.mustOpen(t)
	putEach(t, e, ks, size)
	must(t, e.Compact(nil, nil))
	must(t, e.Close())
	// Closing may leave tables behind that compaction has replaced. Opening removes them.
	must(t, m.mustOpen(t).Close())
	return m
}

// readAll checks every key and every iteration of an engine on damaged files: each read is right, or is damage that
// names a range with the key. It returns how many reads met damage.
func readAll(t *testing.T, e *Engine, ks []string, size int, what string) (damaged int) {
	t.Helper()
	for _, k := range ks {
		v, err := e.Get([]byte(k), nil)
		var d *engine.Damage
		switch {
		case err == nil && bytes.Equal(v, valueOf(k, size)):
		case errors.Is(err, engine.ErrDamaged) && errors.As(err, &d):
			damaged++
			if d.Bounded && (k < string(d.From) || k > string(d.To)) {
				t.Errorf("%s: get %s: %v", what, k, err)
			}
			if d.File == "" || !d.Bounded {
				t.Errorf("%s: get %s: damage without place: %v", what, k, err)
			}
		default:
			t.Fatalf("%s: get %s: %d bytes, %v", what, k, len(v), err)
		}
	}
	n := 0
	err := e.Iterate(nil, nil, func(k, v []byte) (bool, error) {
		if string(k) != ks[n] || !bytes.Equal(v, valueOf(ks[n], size)) {
			t.Fatalf("%s: iteration gives %s, expected %s: it skipped", what, k, ks[n])
		}
		n++
		return true, nil
	})
	switch {
	case err == nil && n == len(ks):
		if damaged > 0 {
			t.Errorf("%s: %d damaged keys, and the iteration met none", what, damaged)
		}
	case errors.Is(err, engine.ErrDamaged):
		damaged++
	default:
		t.Fatalf("%s: iteration: %d of %d keys, %v", what, n, len(ks), err)
	}
	if got := int(e.Stats().DamagedReads); got != damaged {
		t.Errorf("%s: %d damaged reads counted, %d met", what, got, damaged)
	}
	return damaged
}

// TestTableFlip flips bits all over the tables, blocks, indexes, filters and footers alike.
func TestTableFlip(t *testing.T) {
	const size = 200
	flips := 200
	if raceDetector {
		flips = 20
	}
	ks := keys("key", 3000)
	m := tabled(t, ks, size)
	tables := m.disk.Files(storage.TypeTable)
	rng := rand.New(rand.NewPCG(2, 2))
	hit := 0
	for i := range flips {
		table := tables[rng.IntN(len(tables))]
		at := rng.IntN(m.size(t, table))
		if i%4 == 0 {
			at = m.size(t, table) - 1 - rng.IntN(300) // indexes and footers are at the end
		}
		bit := uint(rng.IntN(8))
		m.on(t, func(c *machine) { must(t, c.disk.Flip(table, at, bit)) }, func(e *Engine, err error) {
			must(t, err)
			if readAll(t, e, ks, size, fmt.Sprintf("%v, bit %d of byte %d", table, bit, at)) > 0 {
				hit++
			}
		})
	}
	if hit < flips/2 {
		t.Errorf("only %d of %d flips were met", hit, flips)
	}
}

// TestTableShortened and the ones after it damage files as a whole.
func TestTableShortened(t *testing.T) {
	const size = 200
	ks := keys("key", 1000)
	m := tabled(t, ks, size)
	table := m.disk.Files(storage.TypeTable)[0]
	for _, part := range []int{0, 1, 50, 99} {
		m.on(t, func(c *machine) {
			must(t, c.disk.Change(table, func(data []byte) []byte { return data[:len(data)*part/100] }))
		}, func(e *Engine, err error) {
			if err != nil {
				if !errors.Is(err, engine.ErrDamaged) {
					t.Errorf("open: %v", err)
				}
				return
			}
			if readDamaged(t, e, ks, size) == 0 {
				t.Errorf("nothing damaged in a table cut to %d %%", part)
			}
		})
	}
}

// readDamaged counts keys that cannot be read; all others must be right.
func readDamaged(t *testing.T, e *Engine, ks []string, size int) int {
	t.Helper()
	n := 0
	for _, k := range ks {
		switch v, err := e.Get([]byte(k), nil); {
		case errors.Is(err, engine.ErrDamaged):
			n++
		case err != nil || !bytes.Equal(v, valueOf(k, size)):
			t.Errorf("get %s: %d bytes, %v", k, len(v), err)
		}
	}
	return n
}

func TestTableMissing(t *testing.T) {
	m := tabled(t, keys("key", 1000), 200)
	m.on(t, func(c *machine) { c.disk.Delete(c.disk.Files(storage.TypeTable)[0]) }, func(e *Engine, err error) {
		if !errors.Is(err, engine.ErrDamaged) {
			t.Errorf("open: %v, want ErrDamaged", err)
		}
	})
}

func TestCurrentMissing(t *testing.T) {
	m := tabled(t, keys("key", 1000), 200)
	m.on(t, func(c *machine) { c.disk.Delete(c.disk.Files(storage.TypeManifest)[0]) }, func(e *Engine, err error) {
		if !errors.Is(err, engine.ErrDamaged) {
			t.Errorf("open: %v, want ErrDamaged", err)
		}
	})
}

// TestManifestFlip flips bits all over the manifest: opening fails, or the engine is suspect, or nothing is missing.
func TestManifestFlip(t *testing.T) {
	const size = 200
	ks := keys("key", 3000)
	m := newCrashMachine()
	e := m.mustOpen(t)
	putEach(t, e, ks, size)
	must(t, e.Compact(nil, nil))
	m.disk = m.disk.Crash(0, nil)
	manifest := m.disk.Files(storage.TypeManifest)[0]
	failed, suspect, whole := 0, 0, 0
	for at := range m.size(t, manifest) {
		if at%7 != 0 {
			continue
		}
		m.on(t, func(c *machine) { must(t, c.disk.Flip(manifest, at, uint(at/7))) }, func(e *Engine, err error) {
			switch {
			case errors.Is(err, engine.ErrDamaged):
				failed++
			case err != nil:
				t.Errorf("flip at %d: open: %v", at, err)
			case e.Suspect():
				suspect++
			default:
				if _, total := present(t, e, ks, size); total != len(ks) {
					t.Errorf("flip at %d: %d of %d keys, and not suspect", at, total, len(ks))
				}
				whole++
			}
		})
	}
	t.Logf("%d flips failed the opening, %d made it suspect, %d did no harm", failed, suspect, whole)
	if failed+suspect == 0 {
		t.Error("no flip was noticed")
	}
}

// TestCompactionMeetsDamage lets compaction read a damaged table: writes stop with the damage, reads go on.
func TestCompactionMeetsDamage(t *testing.T) {
	const size = 200
	ks := keys("key", 2000)
	m := tabled(t, ks, size)
	tables := m.disk.Files(storage.TypeTable)
	must(t, m.disk.Flip(tables[len(tables)/2], 100, 0))
	e := m.mustOpen(t)
	var failure error
	for round := 0; round < 100 && failure == nil; round++ {
		for _, k := range keys("key", 2000) {
			var b engine.Batch
			b.Put([]byte(k), valueOf(k, size))
			if failure = e.Apply(&b, false); failure != nil {
				break
			}
		}
	}
	if !errors.Is(failure, engine.ErrDamaged) {
		t.Fatalf("apply: %v, want ErrDamaged", failure)
	}
	if !errors.Is(e.Err(), engine.ErrDamaged) || e.Stats().BackgroundFailures == 0 {
		t.Errorf("Err: %v, %d background failures", e.Err(), e.Stats().BackgroundFailures)
	}
	if n := readDamaged(t, e, ks, size); n == len(ks) {
		t.Error("no key can be read")
	}
	if err := e.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
