package kv

import (
	"errors"
	"fmt"
	"testing"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// mustDropRecord returns whether the record went.
func mustDropRecord(t testing.TB, s *Store, key string, seen []byte) bool {
	t.Helper()
	o := newOutcome(t)
	if err := s.DropRecord([]byte(key), seen, o.apply); err != nil {
		t.Fatalf("drop of %s: %v", key, err)
	}
	dropped, err := o.wait()
	if err != nil {
		t.Fatalf("drop of %s: %v", key, err)
	}
	return dropped
}

func TestDropRecordOnlyUnchanged(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		one := foreign("k", "one", dotOf(1, 1))
		two := foreign("k", "two", dotOf(1, 2))
		mustApply(t, s, "k", one)
		mustApply(t, s, "k", two)
		if mustDropRecord(t, s, "k", one) {
			t.Error("a record that has changed since was removed")
		}
		if mustDropRecord(t, s, "other", foreign("other", "x", dotOf(1, 1))) {
			t.Error("a record that is not there was removed")
		}
		if !mustDropRecord(t, s, "k", two) {
			t.Error("an unchanged record stays")
		}
		if _, err := s.Read([]byte("k")); !errors.Is(err, ErrNotFound) {
			t.Errorf("read after the removal: %v", err)
		}
		if st := s.Stats(); st.Keys != 0 || st.Bytes != 0 {
			t.Errorf("counts after the removal: %d keys, %d bytes", st.Keys, st.Bytes)
		}
		// It comes back as from anybody.
		if !mustApply(t, s, "k", two) || string(mustRead(t, s, "k")) != string(two) {
			t.Error("the record does not come back")
		}
		if err := s.DropRecord([]byte("k"), []byte("damaged"), nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("a damaged record: %v", err)
		}
	})
}

// A record on its way to the disk is one that has changed.
func TestDropRecordNotWhileWritten(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	one := foreign("k", "one", dotOf(1, 1))
	mustApply(t, s, "k", one)
	release := h.hold()
	o := newOutcome(t)
	two := foreign("k", "two", dotOf(1, 2))
	if err := s.Apply([]byte("k"), two, o.apply); err != nil {
		t.Fatal(err)
	}
	for _, seen := range [][]byte{one, two} {
		gone := newOutcome(t)
		if err := s.DropRecord([]byte("k"), seen, gone.apply); err != nil {
			t.Fatal(err)
		}
		if dropped, err := gone.wait(); dropped || err != nil {
			t.Errorf("removed while it is written: %v, %v", dropped, err)
		}
	}
	release()
	if _, err := o.wait(); err != nil {
		t.Fatal(err)
	}
	mustRead(t, s, "k")
}

// A node that removed what it minted itself must not claim, by its next dot of that key, to have seen it.
func TestDropRecordTakesANewActor(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	mine := mustMint(t, s, write("k", "mine"))
	theirs := foreign("other", "x", dotOf(7, 1))
	mustApply(t, s, "other", theirs)
	before := s.Actor()
	mustDropRecord(t, s, "other", theirs)
	if next := mustMint(t, s, write("third", "x")); next.Dot.Actor != before {
		t.Error("an actor was given up for a record that it did not write in")
	}
	moves := s.moves[ring.SlotOf([]byte("k"))].Load()
	if !mustDropRecord(t, s, "k", mine.Record) {
		t.Fatal("not removed")
	}
	if s.moves[ring.SlotOf([]byte("k"))].Load() == moves {
		t.Error("proofs about tombstones do not notice that something left")
	}
	// Another owner has the record, and a stale writer, who has seen nothing, writes here.
	next := mustMint(t, s, Mint{Key: []byte("k"), Value: []byte("new"), Checksum: write("k", "new").Checksum, Context: &causal.Context{}})
	if next.Dot.Actor == before {
		t.Fatal("the actor that wrote what was removed minted the key again")
	}
	merged := causal.Merge(decode(t, "k", next.Record), decode(t, "k", mine.Record))
	if len(merged.Siblings) != 2 {
		t.Errorf("the removed write is lost in the merge: %+v", merged)
	}
}

func TestDroppedRecordsGiveRoomBack(t *testing.T) {
	s := open(t, leveldb.Opener(t.TempDir(), smallTree()), nil)
	const keys = 400
	value := make([]byte, 10<<10)
	random := newRand(1) // values that do not compress
	for i := range keys {
		for j := range value {
			value[j] = byte(random.Uint32())
		}
		k := fmt.Sprintf("key-%d", i)
		mustApply(t, s, k, foreign(k, string(value), dotOf(1, uint64(i+1))))
	}
	size := func() (sum int64) {
		for _, l := range s.Stats().Engine.Levels {
			sum += l.Bytes
		}
		return sum
	}
	half := ring.Range{From: 0, To: ring.Slots / 2}
	if err := s.Compact(ring.Range{From: 0, To: ring.Slots}); err != nil {
		t.Fatal(err)
	}
	before := size()
	var gone [][2][]byte
	if err := s.Scan(half, nil, func(key, rec []byte) (bool, error) {
		gone = append(gone, [2][]byte{append([]byte(nil), key...), append([]byte(nil), rec...)})
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, kv := range gone {
		mustDropRecord(t, s, string(kv[0]), kv[1])
	}
	if err := s.Compact(half); err != nil {
		t.Fatal(err)
	}
	if after := size(); after > before*2/3 {
		t.Errorf("%d of %d records are gone, and the tables have %d bytes, before %d", len(gone), keys, after, before)
	}
}
