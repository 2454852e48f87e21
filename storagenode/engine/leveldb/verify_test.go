package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
)

func unpaced(int) error { return nil }

func mustTables(t *testing.T, e *Engine) []engine.Table {
	t.Helper()
	tables, err := e.Tables()
	must(t, err)
	if len(tables) == 0 {
		t.Fatal("no tables")
	}
	return tables
}

// Every version in every table is handed out, and as many bytes are paced as the tables have, nearly.
func TestVerifyTablesReadsAll(t *testing.T) {
	const size = 300
	ks := keys("key", 3000)
	m, newer := layered(t, ks, size)
	m.opts.L0Trigger, m.opts.L0Slowdown, m.opts.L0Pause = 100, 200, 300 // nothing is compacted meanwhile
	e := m.mustOpen(t)
	older, latest, paced, total := 0, 0, 0, int64(0)
	for _, table := range mustTables(t, e) {
		total += table.Size
		must(t, e.VerifyTable(table, func(n int) error { paced += n; return nil }, func(k, v []byte) error {
			switch {
			case bytes.Equal(v, newer(string(k))):
				latest++
			case bytes.Equal(v, valueOf(string(k), size)):
				older++
			default:
				t.Errorf("%s has a value of nobody", k)
			}
			return nil
		}))
	}
	if latest != len(ks) || older == 0 {
		t.Errorf("%d latest and %d older versions of %d keys", latest, older, len(ks))
	}
	if paced < int(total*9/10) || paced > int(total*11/10) {
		t.Errorf("%d bytes paced of %d", paced, total)
	}
	stop := errors.New("stop")
	if err := e.VerifyTable(mustTables(t, e)[0], func(int) error { return stop }, nil); !errors.Is(err, stop) {
		t.Errorf("stopped by the pace: %v", err)
	}
	if err := e.VerifyTable(mustTables(t, e)[0], unpaced, func(_, _ []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped by the reader: %v", err)
	}
	must(t, e.VerifyTable(engine.Table{Number: 1 << 40, Size: 1000}, unpaced, nil)) // as one that compaction replaced
	must(t, e.Close())
	if err := e.VerifyTable(engine.Table{}, unpaced, nil); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A flipped byte anywhere in what is checked is found under warm caches, and what is found can be cut out: nothing is
// found after it.
func TestVerifyTableFindsDamage(t *testing.T) {
	const size = 300
	ks := keys("key", 2000)
	m := tabled(t, ks, size)
	m.opts = withNote(m.opts)
	m.opts.BloomBits = 0 // a filter is not checked
	for _, test := range []struct {
		name string
		at   func(size int) int
	}{
		{"first block", func(int) int { return 10 }},
		{"in the middle", func(n int) int { return n / 2 }},
		{"index", func(n int) int { return n - 100 }},
		{"magic number", func(n int) int { return n - 3 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &machine{disk: m.disk.Clone(), opts: m.opts}
			e := c.mustOpen(t)
			if n := readDamagedOnly(e, ks); n > 0 { // fills the caches
				t.Fatalf("%d keys are damaged before", n)
			}
			table := mustTables(t, e)[0]
			fd := storage.FileDesc{Type: storage.TypeTable, Num: int64(table.Number)}
			must(t, c.disk.Flip(fd, test.at(c.size(t, fd)), 2))
			var d *engine.Damage
			err := e.VerifyTable(table, unpaced, func(_, _ []byte) error { return nil })
			if !errors.As(err, &d) || !d.Bounded || d.File != fd.String() {
				t.Fatalf("verified: %v", err)
			}
			lost, err := e.Salvage()
			if err != nil || len(lost) == 0 {
				t.Fatalf("salvage: %q, %v", lost, err)
			}
			e = c.mustOpen(t)
			for _, table := range mustTables(t, e) {
				must(t, e.VerifyTable(table, unpaced, func(_, _ []byte) error { return nil }))
			}
			must(t, e.Close())
		})
	}
}

// Tables that come and go while they are verified are no damage, and the engine can be closed meanwhile.
func TestVerifyTableBesideCompaction(t *testing.T) {
	m := newCrashMachine()
	e := m.mustOpen(t)
	ended := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			tables, err := e.Tables()
			for _, table := range tables {
				if err == nil {
					err = e.VerifyTable(table, unpaced, func(_, _ []byte) error { return nil })
				}
			}
			if err != nil {
				ended <- err
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for round := range 5 {
		putEach(t, e, keys(fmt.Sprint("key", round%2), 500), 300)
		must(t, e.Compact(nil, nil))
	}
	must(t, e.Close())
	close(stop)
	if err := <-ended; err != nil && !errors.Is(err, engine.ErrClosed) {
		t.Error(err)
	}
}
