package kv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// The tests of this file are the histories by which a node forgets and then claims to have seen what it forgot ("key
// amnesia"). In each, a write that another replica holds must survive what the forgetful node does next.

// exchange merges the records of a key both ways until both replicas are the same, and returns their bytes.
func exchange(t *testing.T, key string, stores ...*Store) []byte {
	t.Helper()
	for range 2 {
		for _, from := range stores {
			rec, err := from.Read([]byte(key))
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range stores {
				if to != from {
					mustApply(t, to, key, slices.Clone(rec))
				}
			}
		}
	}
	first := mustRead(t, stores[0], key)
	for _, s := range stores[1:] {
		if !bytes.Equal(mustRead(t, s, key), first) {
			t.Fatal("replicas differ after an exchange")
		}
	}
	return first
}

func wantValues(t *testing.T, key string, rec []byte, want ...string) {
	t.Helper()
	got := values(t, key, rec)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("values are %q, want %q", got, want)
	}
}

// crashed leaves a node that minted "one", durable, and then "two", of which only a peer knows, and lost its power.
// The peer holds "two".
func crashed(t *testing.T) (disk *enginetest.Disk, peer *Store, two Minted) {
	disk = enginetest.NewDisk()
	h := newHooks()
	s := open(t, h.opener(onDisk(disk)), nil)
	peer = open(t, memory.NewStore().Open, nil)
	mustMint(t, s, write("k", "one"))
	release := h.hold()
	two, err := s.Mint(write("k", "two"), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, peer, "k", slices.Clone(two.Record)) // it was sent before it was durable
	after := disk.Crash(enginetest.Discard, nil)
	release()
	_ = s.Close() // the power is off: it can only fail
	return after, peer, two
}

// Bug "reuse": a restart goes on with a counter it has used, and one dot names two values.
func TestAmnesiaReuse(t *testing.T) {
	disk, peer, two := crashed(t)
	s := open(t, onDisk(disk), nil)
	for i := range 5 {
		out := mustMint(t, s, write("k", fmt.Sprint("new ", i)))
		if out.Dot == two.Dot {
			t.Fatalf("dot %s was issued again", out.Dot)
		}
	}
	wantValues(t, "k", exchange(t, "k", s, peer), "two", "new 4")
}

// Bug "crash": a restart after a crash skips ahead in the counter of its actor; no dot is used twice, but the clock of
// the next write covers the forgotten one.
func TestAmnesiaCrash(t *testing.T) {
	disk, peer, two := crashed(t)
	s := open(t, onDisk(disk), nil)
	out := mustMint(t, s, write("k", "new"))
	if decode(t, "k", out.Record).Clock.Covers(two.Dot) {
		t.Fatalf("the clock covers %s, which was forgotten", two.Dot)
	}
	wantValues(t, "k", exchange(t, "k", s, peer), "two", "new")
}

// Bug "reopen": a commit fails, the engine is reopened without what was pending, and the same actor mints on.
func TestAmnesiaReopen(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s, peer := open(t, h.opener(opener), nil), open(t, memory.NewStore().Open, nil)
		mustMint(t, s, write("k", "one"))
		h.set(func(h *hooks) { h.applyErr = errInjected })
		o := newOutcome(t)
		two, err := s.Mint(write("k", "two"), o.mint)
		if err != nil {
			t.Fatal(err)
		}
		mustApply(t, peer, "k", slices.Clone(two.Record))
		if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
			t.Fatal(err)
		}
		waitOpen(t, s, 1)
		out := mustMint(t, s, write("k", "new"))
		if decode(t, "k", out.Record).Clock.Covers(two.Dot) {
			t.Fatalf("the clock covers %s, which was forgotten", two.Dot)
		}
		wantValues(t, "k", exchange(t, "k", s, peer), "two", "new")
	})
}

// Bug "rollback": after a clean stop the directory is an older copy of itself, and the actor in it mints on.
func TestAmnesiaRollback(t *testing.T) {
	dir, old := t.TempDir(), t.TempDir()
	s, peer := open(t, leveldb.Opener(dir, smallTree()), nil), open(t, memory.NewStore().Open, nil)
	mustMint(t, s, write("k", "one"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	copyDir(t, old, dir)
	s = open(t, leveldb.Opener(dir, smallTree()), nil)
	two, three := mustMint(t, s, write("k", "two")), mustMint(t, s, write("k2", "three"))
	mustApply(t, peer, "k", slices.Clone(two.Record))
	mustApply(t, peer, "k2", slices.Clone(three.Record))
	commits := s.Stats().CommitNumber
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, leveldb.Opener(old, smallTree()), nil)
	if s.Stats().CommitNumber >= commits {
		t.Fatal("the commit number does not tell that the disk was rolled back")
	}
	for i := range 3 {
		out := mustMint(t, s, write("k", fmt.Sprint("new ", i)))
		if out.Dot == two.Dot || out.Dot == three.Dot || decode(t, "k", out.Record).Clock.Covers(two.Dot) {
			t.Fatalf("%s after a rollback", out.Dot)
		}
	}
	mustMint(t, s, write("k2", "new"))
	wantValues(t, "k", exchange(t, "k", s, peer), "two", "new 2")
	wantValues(t, "k2", exchange(t, "k2", s, peer), "three", "new")
}

func copyDir(t *testing.T, to, from string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Bug "absent": a read that failed is taken for absence, and the mint forgets what is there.
func TestAmnesiaAbsent(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), uncached)
	mustApply(t, s, "k", foreign("k", "theirs", dotOf(1, 1)))
	m := write("k", "mine")
	m.Context = &causal.Context{} // has seen nothing: "theirs" must stay
	h.set(func(h *hooks) { h.getErr = errInjected })
	if _, err := s.Mint(m, nil); !errors.Is(err, errInjected) {
		t.Fatalf("a mint over a failed read: %v", err)
	}
	h.set(func(h *hooks) { h.getErr = nil })
	mustMint(t, s, m)
	wantValues(t, "k", mustRead(t, s, "k"), "theirs", "mine")
}

// Bug "perkey": the counter is read from the key's own clock, so that a key that was lost begins anew with the dots it
// has used.
func TestAmnesiaPerKey(t *testing.T) {
	st := memory.NewStore()
	var eng engine.Engine
	s := open(t, func() (engine.Engine, error) {
		e, err := st.Open()
		eng = e
		return e, err
	}, nil)
	dots := map[causal.Dot]string{}
	for i := range 20 {
		key := fmt.Sprint("k", i%2)
		out := mustMint(t, s, write(key, fmt.Sprint(i)))
		if old, used := dots[out.Dot]; used {
			t.Fatalf("dot %s names writes %s and %d", out.Dot, old, i)
		}
		dots[out.Dot] = fmt.Sprint(i)
		p, err := s.find([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		var b engine.Batch
		b.Delete(p.disk) // the key is lost
		if err := eng.Apply(&b, true); err != nil {
			t.Fatal(err)
		}
		p.release()
	}
}

// A clone of the whole machine, running beside the original with the same actor, is noticed at the first record.
func TestAmnesiaClone(t *testing.T) {
	same := func(c *Config) { c.Rand = &fixedRand{} }
	s, clone := open(t, memory.NewStore().Open, same), open(t, memory.NewStore().Open, same)
	if s.Actor() != clone.Actor() {
		t.Fatal("not a clone")
	}
	mustMint(t, s, write("k", "one"))
	two := mustMint(t, s, write("k", "two"))
	mustApply(t, clone, "k", slices.Clone(two.Record))
	if clone.Actor() == s.Actor() {
		t.Fatal("the clone kept the actor")
	}
	mustMint(t, s, write("k", "three"))
	m := write("k", "of the clone")
	m.Context = &causal.Context{Vector: decode(t, "k", two.Record).Clock}
	mustMint(t, clone, m)
	wantValues(t, "k", exchange(t, "k", s, clone), "three", "of the clone")
}
