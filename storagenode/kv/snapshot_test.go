package kv

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// all reads a part of a store to its end, in small pages.
func all(t *testing.T, s *Snapshot) (keys []string, recs []string) {
	t.Helper()
	for {
		page, err := s.Next(100)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return keys, recs
		}
		for _, e := range page {
			keys, recs = append(keys, string(e.Key)), append(recs, string(e.Record))
		}
	}
}

// A snapshot shows what was durable when it was taken, whatever is written, overwritten or delivered while it is read.
func TestSnapshotIsOfOneMoment(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		want := map[string]string{}
		for i := range 50 {
			key := fmt.Sprint("key", i)
			want[key] = string(mustMint(t, s, write(key, "before")).Record)
			mustRead(t, s, key)
		}
		hint := foreign("hinted", "for others", dotOf(9, 1))
		mustHint(t, s, "hinted", hint, away(3), away(2))
		records, err := s.Snapshot(Records)
		if err != nil {
			t.Fatal(err)
		}
		defer records.Release()
		kept, err := s.Snapshot(Hints)
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Release()
		for i := range 60 { // ten keys are new
			mustMint(t, s, write(fmt.Sprint("key", i), "after"))
		}
		mustDrop(t, s, away(2), "hinted", hint)
		keys, recs := all(t, records)
		if len(keys) != len(want) || !slices.IsSortedFunc(keys, func(a, b string) int { return cmpHash(a, b) }) {
			t.Fatalf("%d keys: %v", len(keys), keys)
		}
		for i, k := range keys {
			if recs[i] != want[k] {
				t.Errorf("%s is not what it was", k)
			}
		}
		if keys, recs := all(t, kept); fmt.Sprint(keys) != "[hinted hinted]" || recs[0] != string(hint) || recs[1] != string(hint) {
			t.Errorf("hints: %v", keys)
		}
	})
}

func cmpHash(a, b string) int {
	if ring.Hash([]byte(a)) < ring.Hash([]byte(b)) {
		return -1
	}
	return 1
}

// What is in doubt is no backup, and a snapshot does not outlive the engine.
func TestSnapshotEndsWithTheStore(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		mustMint(t, s, write("key", "value"))
		snap, err := s.Snapshot(Records)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if page, err := snap.Next(100); err == nil {
			t.Errorf("%d records of a store that is closed", len(page))
		}
		snap.Release()
		if _, err := s.Snapshot(Records); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := s.Snapshot('m'); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	})
	held := healing(t, memory.NewStore().Open, func(c *Config) { c.HeldData = true }) // empty where data was
	if _, err := held.Snapshot(Records); !errors.Is(err, ErrDoubted) {
		t.Errorf("a snapshot of a store in doubt: %v", err)
	}
}
