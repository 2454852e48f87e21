package kv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

var wholeRing = ring.Range{From: 0, To: ring.Slots}

func tombOf(t testing.TB, key string, rec []byte) collect.Tomb {
	t.Helper()
	d, err := record.DigestOf(rec)
	if err != nil {
		t.Fatal(err)
	}
	return collect.Tomb{Key: []byte(key), Digest: d}
}

// mustCollect does a step, waits, and returns what is held then.
func mustCollect(t testing.TB, s *Store, step collect.Step, tomb collect.Tomb) (collect.Holding, uint32) {
	t.Helper()
	var held collect.Holding
	var count uint32
	o := newOutcome(t)
	if err := s.Collect(step, tomb, func(h collect.Holding, moves uint32, err error) {
		held, count = h, moves
		o.mint(err)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.wait(); err != nil {
		t.Fatal(err)
	}
	return held, count
}

func deletion(key string) Mint {
	return Mint{Key: []byte(key), Tombstone: true, Checksum: record.Checksum(nil)}
}

func listed(t testing.TB, s *Store, marked bool) (keys []string) {
	t.Helper()
	tombs, last, err := s.Tombstones(wholeRing, nil, marked, 100)
	if err != nil || last != nil {
		t.Fatal(err, last)
	}
	for _, tomb := range tombs {
		keys = append(keys, string(tomb.Key))
	}
	return keys
}

func TestAMarkedTombstone(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		mustMint(t, s, write("other", "v"))
		for _, key := range []string{"gone", "mint", "apply"} {
			mustMint(t, s, write(key, "v"))
			rec := mustMint(t, s, deletion(key)).Record
			tomb := tombOf(t, key, rec)
			if h, _ := mustCollect(t, s, collect.Confirm, tomb); h != collect.It {
				t.Fatal(h)
			}
			if h, _ := mustCollect(t, s, collect.Remove, tomb); h != collect.It {
				t.Fatal("removed without a mark: ", h)
			}
			if h, _ := mustCollect(t, s, collect.Mark, tombOf(t, key, mustRead(t, s, "other"))); h != collect.Other {
				t.Fatal("marked as another: ", h)
			}
			for range 2 {
				if h, _ := mustCollect(t, s, collect.Mark, tomb); h != collect.Marked {
					t.Fatal(h)
				}
			}
			if _, err := s.Read([]byte(key)); !errors.Is(err, ErrNotFound) {
				t.Fatal("still served to others: ", err)
			}
			if got, marked, err := s.ReadMarked([]byte(key)); err != nil || !marked || !bytes.Equal(got, rec) {
				t.Fatal(marked, err)
			}
			if mustApply(t, s, key, bytes.Clone(rec)) {
				t.Fatal("an equal record is a change")
			}
		}
		if got := fmt.Sprint(len(listed(t, s, true)), listed(t, s, false), s.Stats().Keys, s.Marks()); got != "3 [] 1 3" {
			t.Error(got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, opener, nil)
		if s.Marks() != 3 {
			t.Fatalf("%d marks after a restart", s.Marks())
		}
		mark, _, _ := s.ReadMarked([]byte("gone"))
		if h, _ := mustCollect(t, s, collect.Remove, tombOf(t, "gone", mark)); h != collect.Nothing {
			t.Error(h)
		}
		if _, _, err := s.ReadMarked([]byte("gone")); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		mark, _, _ = s.ReadMarked([]byte("mint"))
		old := decode(t, "mint", mark).Clock
		fresh := decode(t, "mint", mustMint(t, s, write("mint", "new")).Record)
		if !fresh.Clock.CoversVector(old) || len(fresh.Siblings) != 1 {
			t.Errorf("the mint does not use the mark's clock: %+v", fresh)
		}
		newer := foreign("apply", "elsewhere", dotOf(9, 1))
		if !mustApply(t, s, "apply", bytes.Clone(newer)) || !bytes.Equal(mustRead(t, s, "apply"), newer) {
			t.Error("another record did not replace the mark")
		}
		if got := fmt.Sprint(listed(t, s, true), s.Stats().Keys, s.Marks()); got != "[] 3 0" {
			t.Error(got)
		}
	})
}

// What is kept for others is told, and its coming and going is counted.
func TestWhatIsKeptIsToldAndCounted(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	rec := mustMint(t, s, deletion("k")).Record
	tomb := tombOf(t, "k", rec)
	h, before := mustCollect(t, s, collect.Confirm, tomb)
	older := foreign("k", "older", dotOf(7, 1))
	mustHint(t, s, "k", bytes.Clone(older), away(1))
	kept, moved := mustCollect(t, s, collect.Confirm, tomb)
	if h != collect.It || kept != collect.It|collect.Kept || moved == before {
		t.Errorf("%s, then %s; %d moves, then %d", h, kept, before, moved)
	}
	if h, _ = mustCollect(t, s, collect.Mark, tomb); h != kept {
		t.Errorf("marked beside a hint: %s", h)
	}
	mustDrop(t, s, away(1), "k", older)
	if h, again := mustCollect(t, s, collect.Confirm, tomb); h != collect.It || again == moved {
		t.Errorf("%s, %d moves", h, again)
	}
}

func TestRecordsThatAreTooOldAreRefused(t *testing.T) {
	clk := newClock()
	s := open(t, memory.NewStore().Open, func(c *Config) { c.Now = clk.Now })
	limit := clk.Now().Add(time.Second)
	rec := foreign("k", "v", dotOf(7, 1))
	clk.advance(time.Second)
	if err := s.ApplyBefore(limit, []byte("k"), bytes.Clone(rec), nil); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
	if err := s.ApplyHintBefore(limit, []ring.NodeID{away(1)}, []byte("k"), bytes.Clone(rec), nil); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
	m := write("k", "new")
	m.Base, m.BaseLimit = rec, limit
	if _, err := s.Mint(m, nil); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
	if s.Stats().Keys != 0 || s.Stats().Hints != 0 {
		t.Error("something was taken")
	}
	o := newOutcome(t)
	if err := s.ApplyBefore(limit.Add(1), []byte("k"), rec, o.apply); err != nil {
		t.Error(err)
	}
	if _, err := o.wait(); err != nil {
		t.Error(err)
	}
}

// follower sums up what an observer is told.
type follower map[string]record.Digest

func (f follower) Committed(changes []Change) {
	for _, c := range changes {
		if f[string(c.Key)] != c.Before {
			panic(fmt.Sprintf("change of %s from %x, had %x", c.Key, c.Before, f[string(c.Key)]))
		}
		f[string(c.Key)] = c.Now
	}
}

func (f follower) InDoubt([]Change) {}

// Any order of writes, marks, removals, commits and crashes leaves what a naive twin has.
func TestMarksAgainstANaiveTwin(t *testing.T) {
	type twin struct {
		rec    []byte
		marked bool
	}
	rapid.Check(t, func(t *rapid.T) {
		place, told := memory.NewStore(), follower{}
		cfg := Default()
		cfg.Open, cfg.Rand, cfg.Observer = place.Open, newCountingRand(1), told
		cfg.BatchMaxItems = rapid.IntRange(1, 5).Draw(t, "batch")
		s, st, err := OpenStepped(cfg)
		if err != nil {
			t.Fatal(err)
		}
		newest, durable := map[string]twin{}, map[string]twin{}
		commit := func() {
			for more := true; more; _, more = st.Step() {
			}
			clear(durable)
			for k, v := range newest {
				durable[k] = v
			}
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
			now := newest[key]
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				m := write(key, fmt.Sprint(i))
				if rapid.Bool().Draw(t, "delete") {
					m = deletion(key)
				}
				out, err := s.Mint(m, nil)
				if err != nil {
					t.Fatal(err)
				}
				newest[key] = twin{rec: out.Record}
			case 2:
				rec := foreign(key, fmt.Sprint(i), dotOf(9, uint64(i+1)))
				if now.rec != nil && rapid.Bool().Draw(t, "same") {
					rec = bytes.Clone(now.rec)
				}
				if err := s.Apply([]byte(key), rec, nil); err != nil {
					t.Fatal(err)
				}
				if now.marked && !bytes.Equal(rec, now.rec) {
					newest[key] = twin{rec: rec}
				} else if !now.marked {
					got, err := st.Newest([]byte(key))
					if err != nil {
						t.Fatal(err)
					}
					newest[key] = twin{rec: got}
				}
			case 3, 4:
				step := collect.Mark + collect.Step(rapid.IntRange(0, 1).Draw(t, "step"))
				pending := !bytes.Equal(now.rec, durable[key].rec) || now.marked != durable[key].marked
				if now.rec == nil || pending {
					commit()
					continue
				}
				d, err := record.DigestOf(now.rec)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Collect(step, collect.Tomb{Key: []byte(key), Digest: d}, func(collect.Holding, uint32, error) {}); err != nil {
					t.Fatal(err)
				}
				switch {
				case step == collect.Mark:
					newest[key] = twin{rec: now.rec, marked: true}
				case now.marked:
					delete(newest, key)
				}
			case 5:
				commit()
			case 6: // a crash: what was not committed is forgotten
				place.Crash()
				newest = maps.Clone(durable)
				if s, st, err = OpenStepped(cfg); err != nil {
					t.Fatal(err)
				}
			}
		}
		commit()
		marks, keys := int64(0), int64(0)
		for _, key := range []string{"a", "b"} {
			want := newest[key]
			got, marked, err := s.ReadMarked([]byte(key))
			if (err != nil) != (want.rec == nil) || marked != want.marked || !bytes.Equal(got, want.rec) {
				t.Fatalf("%s: marked %v, %v, want %+v", key, marked, err, want)
			}
			served := record.Digest{}
			switch {
			case marked:
				marks++
			case err == nil:
				keys++
				if served, err = record.DigestOf(got); err != nil {
					t.Fatal(err)
				}
			}
			if told[key] != served {
				t.Fatalf("%s: the observer was told of %x, served is %x", key, told[key], served)
			}
		}
		if s.Stats().Keys != keys || s.Marks() != marks {
			t.Fatalf("%d keys and %d marks, want %d and %d", s.Stats().Keys, s.Marks(), keys, marks)
		}
	})
}
