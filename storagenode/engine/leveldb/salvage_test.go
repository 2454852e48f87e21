package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

const noteKey = "~note"

// withNote has salvages leave a note that names the ranges.
func withNote(o Options) Options {
	o.Note = func(_ uint64, lost []engine.KeyRange) (k, v []byte) {
		for _, r := range lost {
			v = fmt.Appendf(v, "%s-%s;", r.From, r.To)
		}
		return []byte(noteKey), v
	}
	return o
}

func inside(lost []engine.KeyRange, k string) bool {
	for _, r := range lost {
		if k >= string(r.From) && (r.To == nil || k <= string(r.To)) {
			return true
		}
	}
	return false
}

// layered returns a machine, closed, with an old version of every key below a new one, in tables, and the new values.
func layered(t *testing.T, ks []string, size int) (*machine, func(k string) []byte) {
	t.Helper()
	m := newCrashMachine()
	m.opts = withNote(m.opts)
	e := m.mustOpen(t)
	putEach(t, e, ks, size)
	must(t, e.Compact(nil, nil))
	newer := func(k string) []byte { return append([]byte("new "), valueOf(k, size)...) }
	var b engine.Batch
	for _, k := range ks {
		b.Reset()
		b.Put([]byte(k), newer(k))
		must(t, e.Apply(&b, false))
	}
	must(t, e.Close())
	// Opening writes the log's records to tables of level 0 and removes what compaction has replaced.
	must(t, m.mustOpen(t).Close())
	return m, newer
}

// Bits are flipped in many blocks of all tables, and reads meet some of them. After a salvage every key has its newest
// value or is among those said to be lost; nothing is damaged any more, compaction passes, and the note is there.
func TestSalvage(t *testing.T) {
	const size = 300
	ks := keys("key", 3000)
	m, newer := layered(t, ks, size)
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := &machine{disk: m.disk.Clone(), opts: m.opts}
		tables := c.disk.Files(storage.TypeTable)
		flips := 1 + int(seed)*3
		for range flips {
			table := tables[rng.IntN(len(tables))]
			must(t, c.disk.Flip(table, rng.IntN(c.size(t, table)*9/10), uint(rng.IntN(8))))
		}
		if seed == 7 { // an index
			table := tables[0]
			must(t, c.disk.Flip(table, c.size(t, table)-60, 1))
		}
		e := c.mustOpen(t)
		met := 0
		for _, k := range ks {
			v, err := e.Get([]byte(k), nil)
			if errors.Is(err, engine.ErrDamaged) {
				met++
			} else if err != nil || !bytes.Equal(v, newer(k)) {
				t.Fatalf("seed %d: get %s: %d bytes, %v", seed, k, len(v), err)
			}
		}
		lost, err := e.Salvage()
		must(t, err)
		if met > 0 && len(lost) == 0 {
			t.Errorf("seed %d: %d keys met damage, and %d ranges are lost", seed, met, len(lost))
		}
		if met == 0 {
			continue
		}
		e = c.mustOpen(t)
		doubtful, old := 0, 0
		for _, k := range ks {
			v, err := e.Get([]byte(k), nil)
			if errors.Is(err, engine.ErrDamaged) && !inside(lost, k) {
				t.Fatalf("seed %d: %s is damaged after the salvage", seed, k)
			}
			if inside(lost, k) {
				doubtful++
				if !bytes.Equal(v, newer(k)) {
					old++
				}
			} else if err != nil || !bytes.Equal(v, newer(k)) {
				t.Fatalf("seed %d: get %s: %d bytes, %v, and it is not lost: %q", seed, k, len(v), err, lost)
			}
		}
		t.Logf("seed %d: %d flips, %d keys met damage, %d ranges of %d keys lost, of which %d are gone", seed, flips, met, len(lost), doubtful, old)
		if seed < 7 && doubtful > flips*60 {
			t.Errorf("seed %d: %d keys are in doubt after %d flips", seed, doubtful, flips)
		}
		if v, err := e.Get([]byte(noteKey), nil); err != nil || len(v) == 0 {
			t.Errorf("seed %d: note %q, %v", seed, v, err)
		}
		for again := true; again; { // what was not read the first time, below what was
			err := e.Iterate(nil, nil, func(_, _ []byte) (bool, error) { return true, nil })
			if again = err != nil; again {
				if lost, err = e.Salvage(); err != nil || len(lost) == 0 {
					t.Fatalf("seed %d: salvage: %q, %v", seed, lost, err)
				}
				e = c.mustOpen(t)
			}
		}
		must(t, e.Compact(nil, nil))
		must(t, e.Close())
	}
}

// compactionDamage returns an engine whose compaction has met damage, with its machine, its keys, and what writes them all, many times over.
func compactionDamage(t *testing.T, size int) (m *machine, e *Engine, ks []string, fill func(e *Engine) error) {
	t.Helper()
	ks = keys("key", 2000)
	m = tabled(t, ks, size)
	m.opts = withNote(m.opts)
	tables := m.disk.Files(storage.TypeTable)
	must(t, m.disk.Flip(tables[len(tables)/2], 100, 0))
	fill = func(e *Engine) error {
		var b engine.Batch
		for range 100 {
			for _, k := range ks {
				b.Reset()
				b.Put([]byte(k), valueOf(k, size))
				if err := e.Apply(&b, false); err != nil {
					return err
				}
			}
		}
		return nil
	}
	e = m.mustOpen(t)
	if err := fill(e); !errors.Is(err, engine.ErrDamaged) {
		t.Fatalf("apply: %v, want ErrDamaged", err)
	}
	return m, e, ks, fill
}

// Compaction that met damage stops all writes, whatever is done. A salvage ends that.
func TestSalvageAfterCompaction(t *testing.T) {
	skipLibraryRace(t)
	const size = 200
	m, e, ks, fill := compactionDamage(t, size)
	lost, err := e.Salvage()
	must(t, err)
	if len(lost) != 1 {
		t.Errorf("lost: %q", lost)
	}
	e = m.mustOpen(t)
	must(t, fill(e))
	must(t, e.Compact(nil, nil))
	if n := readDamaged(t, e, ks, size); n != 0 {
		t.Errorf("%d keys damaged", n)
	}
}

// Damage that compaction meets while the engine is being closed for a salvage is cut out with the rest.
func TestSalvageWhileCompactionMeetsDamage(t *testing.T) {
	skipLibraryRace(t)
	m, e, _, _ := compactionDamage(t, 200)
	e.guard.background.Store(nil) // as if the failure had come too late for Salvage to know of it
	e.latched.Store(nil)
	lost, err := e.Salvage()
	must(t, err)
	if len(lost) != 1 {
		t.Errorf("lost: %q", lost)
	}
	e = m.mustOpen(t)
	must(t, e.Compact(nil, nil))
	must(t, e.Close())
}

// A power cut at any moment of a salvage leaves the database as it was, or salvaged with its note.
func TestSalvagePowerCut(t *testing.T) {
	const size = 100
	ks := keys("key", 1000)
	m, _ := layered(t, ks, size)
	tables := m.disk.Files(storage.TypeTable)
	must(t, m.disk.Flip(tables[len(tables)-1], 1000, 3))
	before, after := 0, 0
	for cut := 1; ; cut++ {
		c := &machine{disk: m.disk.Clone(), opts: m.opts}
		e := c.mustOpen(t)
		_ = readDamagedOnly(e, ks)
		c.disk.CutAfter(cut)
		_, err := e.Salvage()
		if err == nil && c.disk.PowerOn() {
			break
		}
		c.disk = c.disk.Crash(enginetest.Discard, nil)
		e = c.mustOpen(t)
		_, noteErr := e.Get([]byte(noteKey), nil)
		damaged := readDamagedOnly(e, ks)
		switch {
		case errors.Is(noteErr, engine.ErrNotFound) && damaged > 0:
			before++
		case noteErr == nil && damaged == 0:
			after++
		default:
			t.Errorf("cut after %d: note %v, %d damaged keys", cut, noteErr, damaged)
		}
		must(t, e.Close())
	}
	if t.Logf("%d cuts before, %d after", before, after); before < 5 {
		t.Error("the salvage was not cut in the middle")
	}
}

func readDamagedOnly(e *Engine, ks []string) (n int) {
	for _, k := range ks {
		if _, err := e.Get([]byte(k), nil); errors.Is(err, engine.ErrDamaged) {
			n++
		}
	}
	return n
}

// What cannot be opened is opened: without a missing table, whose keys are lost, or empty where the list of tables is.
func TestOpenerSalvages(t *testing.T) {
	const size = 300
	ks := keys("key", 5000)
	base := filepath.Join(t.TempDir(), "base")
	o := small()
	o.Note = nil
	e, err := Open(base, o)
	must(t, err)
	putEach(t, e, ks, size)
	must(t, e.Compact(nil, nil))
	must(t, e.Close())
	files := func(dir, suffix string) []string {
		list, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
		must(t, err)
		return list
	}
	flip := func(name string) { flipBit(t, name, 10) } // in the first record of a manifest: in the last one it may be harmless
	manifest := func(dir string) string { return manifestOf(t, dir) }
	for _, test := range []struct {
		name   string
		damage func(dir string)
		all    bool
	}{
		{"table missing", func(dir string) { must(t, os.Remove(files(dir, ".ldb")[1])) }, false},
		{"CURRENT missing", func(dir string) { must(t, os.Remove(filepath.Join(dir, "CURRENT"))) }, true},
		{"CURRENT damaged", func(dir string) { flip(filepath.Join(dir, "CURRENT")) }, true},
		{"CURRENT empty", func(dir string) { must(t, os.Truncate(filepath.Join(dir, "CURRENT"), 0)) }, true},
		{"manifest missing", func(dir string) { must(t, os.Remove(manifest(dir))) }, true},
		{"manifest damaged", func(dir string) { flip(manifest(dir)) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(dir, os.DirFS(base)))
			test.damage(dir)
			if _, err := Opener(dir, o)(); !errors.Is(err, engine.ErrDamaged) {
				t.Fatalf("without a note to leave: %v, want ErrDamaged", err)
			}
			e, err := Opener(dir, withNote(o))()
			must(t, err)
			note, err := e.Get([]byte(noteKey), nil)
			must(t, err)
			present := 0
			for _, k := range ks {
				switch v, err := e.Get([]byte(k), nil); {
				case err == nil && bytes.Equal(v, valueOf(k, size)):
					present++
				case !errors.Is(err, engine.ErrNotFound):
					t.Fatalf("get %s: %v", k, err)
				}
			}
			if all := present == 0; all != test.all || present == len(ks) {
				t.Errorf("%d of %d keys are there", present, len(ks))
			}
			if all := string(note) == "-;"; all != test.all {
				t.Errorf("the note says %q", note)
			}
			must(t, e.Close())
			e, err = Opener(dir, o)()
			must(t, err)
			must(t, e.Close())
		})
	}
}

// flipBit damages one byte of a file.
func flipBit(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	b[at] ^= 4
	must(t, os.WriteFile(name, b, 0o600))
}

func manifestOf(t *testing.T, dir string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	must(t, err)
	if len(list) != 1 {
		t.Fatalf("manifests: %q", list)
	}
	return list[0]
}

// Wherever a manifest is damaged, that is noticed, or nothing is missing: damage in its last record looks like one that was never
// finished. The tables whose place others took are gone as a rule, which is noticed; where closing came before they were removed, all is
// as it was.
func TestManifestDamageLosesNothing(t *testing.T) {
	const size, places = 300, 24
	ks := keys("key", 2000)
	base, before := filepath.Join(t.TempDir(), "base"), t.TempDir()
	reopened := func() *Engine {
		e, err := Open(base, small())
		must(t, err)
		return e
	}
	for range 2 { // each opening makes a table of the log, so that there are two with the same keys
		e := reopened()
		putEach(t, e, ks, size)
		must(t, e.Close())
	}
	e := reopened()
	var old []string
	for _, pattern := range []string{"*.ldb", "*.log"} {
		list, err := filepath.Glob(filepath.Join(base, pattern))
		must(t, err)
		old = append(old, list...)
	}
	for _, name := range old {
		must(t, os.Link(name, filepath.Join(before, filepath.Base(name))))
	}
	must(t, e.Compact(nil, nil))
	must(t, e.Close())
	info, err := os.Stat(manifestOf(t, base))
	must(t, err)
	for _, kept := range []bool{false, true} {
		noticed := 0
		for i := range places {
			dir := filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(dir, os.DirFS(base)))
			for _, name := range old {
				if name = filepath.Base(name); kept {
					if err := os.Link(filepath.Join(before, name), filepath.Join(dir, name)); !errors.Is(err, os.ErrExist) {
						must(t, err)
					}
				}
			}
			at := int(info.Size()) * i / places
			flipBit(t, manifestOf(t, dir), at)
			e, err := Open(dir, small())
			if errors.Is(err, engine.ErrDamaged) {
				noticed++
				continue
			}
			must(t, err)
			for _, k := range ks {
				if v, err := e.Get([]byte(k), nil); err != nil || !bytes.Equal(v, valueOf(k, size)) {
					t.Fatalf("with byte %d of %d damaged: get %s: %v", at, info.Size(), k, err)
				}
			}
			must(t, e.Close())
		}
		t.Logf("tables from before are there: %v: damage was noticed at %d of %d places", kept, noticed, places)
		if noticed == 0 || kept && noticed == places {
			t.Errorf("with the tables from before there: %v, damage was noticed at %d of %d places", kept, noticed, places)
		}
	}
}
