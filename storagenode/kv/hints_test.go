package kv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
	"github.com/dotring/dotring/storagenode/engine/memory"
	"github.com/dotring/dotring/storagenode/hints"
)

func away(n byte) ring.NodeID { return ring.NodeID{n} }

func mustHint(t testing.TB, s *Store, key string, rec []byte, targets ...ring.NodeID) {
	t.Helper()
	o := newOutcome(t)
	if err := s.ApplyHint(targets, []byte(key), rec, o.mint); err != nil {
		t.Fatalf("hint of %s: %v", key, err)
	}
	if _, err := o.wait(); err != nil {
		t.Fatalf("hint of %s did not become durable: %v", key, err)
	}
}

// mustDrop returns whether the hint went.
func mustDrop(t testing.TB, s *Store, target ring.NodeID, key string, seen []byte) bool {
	t.Helper()
	o := newOutcome(t)
	if err := s.DropHint(target, []byte(key), seen, o.apply); err != nil {
		t.Fatalf("drop of %s: %v", key, err)
	}
	dropped, err := o.wait()
	if err != nil {
		t.Fatalf("drop of %s: %v", key, err)
	}
	return dropped
}

type kept struct{ key, rec string }

func hintsFor(t testing.TB, s *Store, target ring.NodeID) (out []kept) {
	t.Helper()
	err := s.ScanHints(target, nil, func(key, rec []byte) (bool, error) {
		out = append(out, kept{string(key), string(rec)})
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkCounts holds the counts against what is there.
func checkCounts(t testing.TB, s *Store, targets ...ring.NodeID) {
	t.Helper()
	var count, size int64
	var with []ring.NodeID
	for _, id := range targets {
		var n, b int64
		for _, h := range hintsFor(t, s, id) {
			n++
			b += int64(hintPrefix + len(h.key) + len(h.rec))
		}
		if n > 0 {
			with = append(with, id)
		}
		i := slices.IndexFunc(s.HintTargets(), func(h HintTarget) bool { return h.ID == id })
		if n == 0 && i >= 0 || n > 0 && (i < 0 || s.HintTargets()[i].Count != n || s.HintTargets()[i].Bytes != b) {
			t.Errorf("%d hints of %d bytes for %s are counted as %+v", n, b, id, s.HintTargets())
		}
		count += n
		size += b
	}
	gotCount, gotSize, since := s.HintTotals()
	if gotCount != count || gotSize != size || since.IsZero() != (count == 0) || len(s.HintTargets()) != len(with) {
		t.Errorf("%d hints of %d bytes since %v, counted %d of %d", gotCount, gotSize, since, count, size)
	}
	if s.hints.reserved != size {
		t.Errorf("%d bytes reserved for %d", s.hints.reserved, size)
	}
}

// Hints are merged for each target, apart from the node's own records, and survive a restart with their counts.
func TestHints(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		one, two := foreign("k", "1", dotOf(1, 1)), foreign("k", "2", dotOf(2, 1))
		mustHint(t, s, "k", one, away(1), away(2))
		mustHint(t, s, "k", two, away(1))
		mustHint(t, s, "k", one, away(1)) // again
		mustHint(t, s, "other", foreign("other", "3", dotOf(1, 2)), away(2))
		both := record.Append(nil, []byte("k"), causal.Merge(decode(t, "k", one), decode(t, "k", two)))
		check := func(s *Store) {
			t.Helper()
			if got := hintsFor(t, s, away(1)); !slices.Equal(got, []kept{{"k", string(both)}}) {
				t.Errorf("for the first: %q", got)
			}
			if got := hintsFor(t, s, away(2)); len(got) != 2 || !slices.Contains(got, kept{"k", string(one)}) {
				t.Errorf("for the second: %q", got)
			}
			if got := hintsFor(t, s, away(3)); got != nil {
				t.Errorf("for nobody: %q", got)
			}
			if _, err := s.Read([]byte("k")); !errors.Is(err, ErrNotFound) {
				t.Errorf("a hint is read as an own record: %v", err)
			}
			if st := s.Stats(); st.Keys != 0 || st.Bytes != 0 || st.Hints != 3 {
				t.Errorf("stats %+v", st)
			}
			if got, err := s.ReadHeld([]byte("k")); err != nil || !bytes.Equal(got, both) {
				t.Errorf("held: %q, %v", got, err)
			}
			if _, err := s.ReadHeld([]byte("none")); !errors.Is(err, ErrNotFound) {
				t.Errorf("nothing is held: %v", err)
			}
			checkCounts(t, s, away(1), away(2), away(3))
		}
		check(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, opener, nil)
		check(s)
		// What is held is the merge with an own record, as from a time when the key was the node's.
		mustApply(t, s, "k", foreign("k", "own", dotOf(9, 1)))
		held, err := s.ReadHeld([]byte("k"))
		if got := values(t, "k", held); err != nil || !slices.Equal(got, []string{"1", "2", "own"}) {
			t.Errorf("held: %q, %v", got, err)
		}
	})
}

func TestScanHintsFromAnywhere(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	for i := range 20 {
		key := fmt.Sprint("key", i)
		mustHint(t, s, key, foreign(key, "v", dotOf(1, uint64(i+1))), away(1), ring.NodeID{1, 15: 1})
	}
	longest := string(bytes.Repeat([]byte{0xff}, MaxKey))
	mustHint(t, s, longest, foreign(longest, "v", dotOf(1, 99)), away(1))
	all := hintsFor(t, s, away(1))
	if len(all) != 21 {
		t.Fatalf("%d hints", len(all))
	}
	for i := range all {
		var rest []kept
		if err := s.ScanHints(away(1), []byte(all[i].key), func(k, r []byte) (bool, error) {
			rest = append(rest, kept{string(k), string(r)})
			return true, nil
		}); err != nil || !slices.Equal(rest, all[i+1:]) {
			t.Errorf("%d hints behind the %dth: %v", len(rest), i, err)
		}
	}
}

// A hint leaves only as it was seen.
func TestDropHintOnlyUnchanged(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s := open(t, h.opener(opener), nil)
		one, two := foreign("k", "1", dotOf(1, 1)), foreign("k", "2", dotOf(2, 1))
		mustHint(t, s, "k", one, away(1))
		if mustDrop(t, s, away(2), "k", one) || mustDrop(t, s, away(1), "k", two) {
			t.Error("another hint was dropped")
		}
		release := sync.OnceFunc(h.hold()) // a newer one is on its way to the disk
		defer release()
		newer := newOutcome(t)
		if err := s.ApplyHint([]ring.NodeID{away(1)}, []byte("k"), two, newer.mint); err != nil {
			t.Fatal(err)
		}
		if mustDrop(t, s, away(1), "k", one) {
			t.Error("a hint was dropped that is being changed")
		}
		release()
		if _, err := newer.wait(); err != nil {
			t.Fatal(err)
		}
		now := hintsFor(t, s, away(1))
		if len(now) != 1 || !mustDrop(t, s, away(1), "k", []byte(now[0].rec)) || mustDrop(t, s, away(1), "k", []byte(now[0].rec)) {
			t.Error("the hint as it is does not go, or goes twice")
		}
		checkCounts(t, s, away(1), away(2))
		// A drop that waits for the disk: what comes next begins anew, and stays.
		mustHint(t, s, "k", one, away(1))
		release = sync.OnceFunc(h.hold())
		defer release()
		gone, next := newOutcome(t), newOutcome(t)
		if err := s.DropHint(away(1), []byte("k"), one, gone.apply); err != nil {
			t.Fatal(err)
		}
		if err := s.ApplyHint([]ring.NodeID{away(1)}, []byte("k"), two, next.mint); err != nil {
			t.Fatal(err)
		}
		release()
		if dropped, err := gone.wait(); err != nil || !dropped {
			t.Error(dropped, err)
		}
		if _, err := next.wait(); err != nil {
			t.Error(err)
		}
		if got := hintsFor(t, s, away(1)); !slices.Equal(got, []kept{{"k", string(two)}}) {
			t.Errorf("left: %q", got)
		}
		checkCounts(t, s, away(1))
	})
}

// The bounds act on admission: what is there stays, what is known is no more, and what leaves makes room.
func TestHintAdmission(t *testing.T) {
	c := newClock()
	one := foreign("a", "12345678", dotOf(1, 1))
	size := int64(hintPrefix + 1 + len(one))
	s := open(t, memory.NewStore().Open, func(cfg *Config) {
		cfg.Now, cfg.Hints = c.Now, hints.Limits{BytesMax: 2 * size, AgeMax: time.Hour, TargetsMax: 2}
	})
	refused := func(key string, rec []byte, targets ...ring.NodeID) {
		t.Helper()
		if err := s.ApplyHint(targets, []byte(key), rec, nil); !errors.Is(err, ErrHintsFull) {
			t.Errorf("%s: %v", key, err)
		}
		if _, err := s.Mint(Mint{Key: []byte(key), HintFor: targets}, nil); !errors.Is(err, ErrHintsFull) {
			t.Errorf("mint of %s: %v", key, err)
		}
	}
	mustHint(t, s, "a", one, away(1))
	refused("b", foreign("b", "12345678", dotOf(1, 2)), away(1), away(2)) // both or none
	mustHint(t, s, "b", foreign("b", "12345678", dotOf(1, 2)), away(2))
	refused("c", foreign("c", "12345678", dotOf(1, 3)), away(1))
	mustHint(t, s, "a", one, away(1))
	if !mustDrop(t, s, away(1), "a", one) {
		t.Fatal("not dropped")
	}
	mustHint(t, s, "a", one, away(2))
	if !mustDrop(t, s, away(2), "a", one) {
		t.Fatal("not dropped")
	}
	c.advance(2 * time.Hour)
	refused("d", foreign("d", "1", dotOf(1, 4)), away(2))
	s.HintsDelivered(away(2), c.Now())
	tiny := foreign("d", "1", dotOf(1, 4))
	mustHint(t, s, "d", tiny, away(2))
	if !mustDrop(t, s, away(2), "d", tiny) {
		t.Fatal("not dropped")
	}
	mustHint(t, s, "e", foreign("e", "", dotOf(1, 5)), away(1))
	refused("f", foreign("f", "", dotOf(1, 6)), away(3))
	checkCounts(t, s, away(1), away(2), away(3))
	for _, bad := range [][]ring.NodeID{nil, {{}}, {away(1), away(1)}, make([]ring.NodeID, 65)} {
		if err := s.ApplyHint(bad, []byte("a"), one, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// A fallback mints upon all it holds, for every owner, and once for a request id.
func TestMintForOthers(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	mustHint(t, s, "k", foreign("k", "1", dotOf(1, 1)), away(1))
	mustHint(t, s, "k", foreign("k", "2", dotOf(2, 1)), away(2))
	mustApply(t, s, "k", foreign("k", "own", dotOf(9, 1)))
	own := mustMint(t, s, write("k2", "by the owner"))

	m := named(write("k", "3"), "r", true, time.Time{})
	m.Context, m.HintFor = &causal.Context{Vector: causal.Vector{dotOf(1, 1)}}, []ring.NodeID{away(1), away(2), away(3)}
	out := mustMint(t, s, m)
	if got := values(t, "k", out.Record); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"2", "3", "own"}) {
		t.Errorf("minted %q", got)
	}
	if out.Dot.Actor == own.Dot.Actor {
		t.Error("the owner's actor minted for others")
	}
	for n := range byte(3) {
		if got := hintsFor(t, s, away(n+1)); !slices.Equal(got, []kept{{"k", string(out.Record)}}) {
			t.Errorf("for %d: %q", n, got)
		}
	}
	if got := values(t, "k", mustRead(t, s, "k")); !slices.Equal(got, []string{"own"}) {
		t.Errorf("the own record became %q", got)
	}
	if again := mustMint(t, s, m); !again.Repeated || again.Dot != out.Dot || !bytes.Equal(again.Record, out.Record) {
		t.Errorf("repeated: %+v", again)
	}
	behind := m
	behind.RequestID, behind.Context = "r2", &causal.Context{Dots: []causal.Dot{dotOf(7, 7)}}
	if _, err := s.Mint(behind, nil); !errors.Is(err, ErrBehind) {
		t.Errorf("behind: %v", err)
	}
	checkCounts(t, s, away(1), away(2), away(3))
}

// Once a hint has left, nothing that is minted here may claim to have seen it: neither a write without a context for
// others, nor one of the owner.
func TestMintAfterHintLeft(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	m := write("k", "1")
	m.HintFor = []ring.NodeID{away(1)}
	first := mustMint(t, s, m)
	if !mustDrop(t, s, away(1), "k", first.Record) {
		t.Fatal("not dropped")
	}
	m = write("k", "2")
	m.HintFor = []ring.NodeID{away(1)}
	second := mustMint(t, s, m)
	owner := mustMint(t, s, write("k", "3"))
	for _, out := range []Minted{second, owner} {
		if clock := decode(t, "k", out.Record).Clock; clock.Covers(first.Dot) {
			t.Errorf("%v covers %v, which was forgotten", clock, first.Dot)
		}
	}
	merged := causal.Merge(causal.Merge(decode(t, "k", first.Record), decode(t, "k", second.Record)), decode(t, "k", owner.Record))
	if len(merged.Siblings) != 3 {
		t.Errorf("%d of 3 writes are left", len(merged.Siblings))
	}
}

// Counts and hints agree wherever the power is cut, and acknowledged hints survive.
func TestHintsSurviveCrashes(t *testing.T) {
	rng := newRand(3)
	d := enginetest.NewDisk()
	targets := []ring.NodeID{away(1), away(2)}
	acked := map[string]bool{} // of this life and those before
	var mu sync.Mutex
	for life := range 6 {
		s := open(t, onDisk(d), nil)
		for _, id := range targets {
			there := map[string]bool{}
			for _, h := range hintsFor(t, s, id) {
				there[h.key] = true
			}
			for key := range acked {
				if !there[key] {
					t.Fatalf("life %d: the hint of %s for %s is gone", life, key, id)
				}
			}
		}
		checkCounts(t, s, targets...)
		enough := make(chan struct{})
		for i := range 300 {
			key := fmt.Sprintf("%d/%d", life, i)
			err := s.ApplyHint(targets, []byte(key), foreign(key, key, dotOf(1, uint64(i+1))), func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if acked[key] = err == nil; i == 150 {
					close(enough)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		receive(t, enough)
		mu.Lock()
		before := maps.Clone(acked)
		mu.Unlock()
		d = d.Crash(enginetest.CrashMode(rng.IntN(3)), rng)
		if err := s.Close(); err != nil { // goes on on the old disk, for nobody
			t.Fatal(err)
		}
		acked = before
	}
	if len(acked) < 6*150 {
		t.Errorf("only %d hints were acknowledged", len(acked))
	}
}

// A failed commit forgets what was queued, and nothing else.
func TestHintsAfterFailedCommit(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	mustHint(t, s, "k", foreign("k", "1", dotOf(1, 1)), away(1))
	release := h.hold()
	var flying []*outcome
	for i := range 5 {
		o := newOutcome(t)
		key := fmt.Sprint("lost", i)
		if err := s.ApplyHint([]ring.NodeID{away(byte(i + 1))}, []byte(key), foreign(key, "v", dotOf(1, uint64(i+2))), o.mint); err != nil {
			t.Fatal(err)
		}
		flying = append(flying, o)
	}
	h.set(func(h *hooks) { h.applyErr = errInjected })
	release()
	for _, o := range flying {
		if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
			t.Errorf("in flight: %v", err)
		}
	}
	waitOpen(t, s, 1)
	checkCounts(t, s, away(1), away(2), away(3), away(4), away(5))
	if got := hintsFor(t, s, away(1)); len(got) != 1 || got[0].key != "k" {
		t.Errorf("left: %q", got)
	}
}

// Counts that are damaged are made anew from the hints.
func TestHintCountsAreMadeAnew(t *testing.T) {
	st := memory.NewStore()
	s := open(t, st.Open, nil)
	for i := range 5 {
		key := fmt.Sprint(i)
		mustHint(t, s, key, foreign(key, "v", dotOf(1, uint64(i+1))), away(1), away(2))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := st.Open()
	if err != nil {
		t.Fatal(err)
	}
	var b engine.Batch
	id := away(1)
	b.Put(append([]byte{tagHintCount}, id[:]...), []byte{9})
	if err := errors.Join(e.Apply(&b, true), e.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, st.Open, nil)
	checkCounts(t, s, away(1), away(2))
}
