package merkle

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// The bytes that nodes compare must never change unnoticed: nodes of two versions would find everything different.
func TestLeafGolden(t *testing.T) {
	var got bytes.Buffer
	for _, key := range []string{"a", "key", string(bytes.Repeat([]byte("x"), 250))} {
		d := record.Digest{1, 2, 15: 3}
		fmt.Fprintf(&got, "%.10s %s\n", key, hex.EncodeToString(Leaf([]byte(key), d).Append(nil)))
	}
	want, err := os.ReadFile("testdata/leaf.golden")
	if err != nil || !bytes.Equal(want, got.Bytes()) {
		t.Errorf("got\n%swant\n%s%v", got.Bytes(), want, err)
	}
	if Leaf([]byte("key"), record.Digest{}) != (Sum{}) {
		t.Error("an absent record adds something")
	}
}

// side is what one holder has, and its tree kept by single updates.
type side struct {
	records map[string]record.Digest
	tree    *Tree
}

func newSide() *side { return &side{records: map[string]record.Digest{}, tree: new(Tree)} }

func (s *side) put(key string, d record.Digest) {
	k := []byte(key)
	s.tree.Add(ring.SlotOf(k), Leaf(k, d).Minus(Leaf(k, s.records[key])))
	if s.records[key] = d; d == (record.Digest{}) {
		delete(s.records, key)
	}
}

// rebuilt makes the tree of the records anew.
func (s *side) rebuilt() *Tree {
	t := new(Tree)
	for k, d := range s.records {
		t.Add(ring.SlotOf([]byte(k)), Leaf([]byte(k), d))
	}
	return t
}

func drawDigest(t *rapid.T) record.Digest {
	return record.Digest{0: byte(rapid.IntRange(0, 3).Draw(t, "digest"))}
}

func drawRange(t *rapid.T, label string) ring.Range {
	a := ring.Slot(rapid.IntRange(0, ring.Slots).Draw(t, label+" from"))
	b := ring.Slot(rapid.IntRange(0, ring.Slots).Draw(t, label+" to"))
	return ring.Range{From: min(a, b), To: max(a, b)}
}

// Updates one by one make the tree that a rebuild makes, and every fold is the sum of its slots.
func TestUpdatesEqualRebuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSide()
		for range rapid.IntRange(0, 200).Draw(t, "writes") {
			s.put(fmt.Sprintf("key-%d", rapid.IntRange(0, 80).Draw(t, "key")), drawDigest(t))
		}
		if *s.tree != *s.rebuilt() {
			t.Fatal("updates and rebuild differ")
		}
		r := drawRange(t, "fold")
		var naive Sum
		for slot := r.From; slot < r.To; slot++ {
			naive = naive.Plus(s.tree.Slot(slot))
		}
		if got := s.tree.Fold(r); got != naive {
			t.Fatalf("fold of %v is %v, its slots make %v", r, got, naive)
		}
		if r.Len() > 1 {
			mid := r.From + ring.Slot(rapid.IntRange(0, r.Len()).Draw(t, "cut"))
			if s.tree.Fold(ring.Range{From: r.From, To: mid}).Plus(s.tree.Fold(ring.Range{From: mid, To: r.To})) != naive {
				t.Fatalf("folds of two parts of %v do not make its fold", r)
			}
		}
	})
}

func TestSumArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) Sum {
			return Sum{rapid.Uint64().Draw(t, label+" hi"), rapid.Uint64().Draw(t, label+" lo")}
		}
		a, b, c := draw("a"), draw("b"), draw("c")
		if a.Plus(b).Minus(b) != a || a.Plus(b) != b.Plus(a) || a.Plus(b).Plus(c) != a.Plus(b.Plus(c)) || sumAt(a.Append(nil)) != a {
			t.Fatalf("%v %v %v", a, b, c)
		}
	})
}

// A comparison finds the slots that a full compare finds, and nothing beyond the leaves around them.
func TestDifferingAgainstFullCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := newSide(), newSide()
		for i := range rapid.IntRange(0, 150).Draw(t, "keys") {
			key, d := fmt.Sprintf("key-%d", i), record.Digest{0: 9, 1: byte(i)}
			a.put(key, d)
			b.put(key, d)
		}
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			rapid.SampledFrom([]*side{a, b}).Draw(t, "side").put(fmt.Sprintf("key-%d", rapid.IntRange(0, 200).Draw(t, "key")), drawDigest(t))
		}
		n := Narrowing{Fan: rapid.IntRange(2, MaxParts).Draw(t, "fan"), Leaf: rapid.IntRange(1, 100).Draw(t, "leaf")}
		var ranges []ring.Range
		at := ring.Slot(0)
		for at < ring.Slots && len(ranges) < 20 {
			from := at + ring.Slot(rapid.IntRange(0, 50_000).Draw(t, "gap"))
			to := from + ring.Slot(rapid.IntRange(1, 200_000).Draw(t, "width"))
			if to > ring.Slots {
				break
			}
			ranges = append(ranges, ring.Range{From: from, To: to})
			at = to
		}
		asked := 0
		got, err := n.Differing(ranges, ask(a, nil), ask(b, &asked))
		if err != nil {
			t.Fatal(err)
		}
		want := differingSlots(a, b, ranges)
		for s := range want {
			if !slices.ContainsFunc(got, func(r ring.Range) bool { return r.Contains(s) }) {
				t.Fatalf("slot %d differs and is not in %v", s, got)
			}
		}
		total := 0
		for i, r := range got {
			total += r.Len()
			if i > 0 && got[i-1].To >= r.From {
				t.Fatalf("%v touch or overlap", got)
			}
		}
		if total > len(want)*n.Leaf {
			t.Fatalf("%d slots for %d that differ, leaves are of %d", total, len(want), n.Leaf)
		}
		if len(want) == 0 && asked > len(ranges)*n.Fan {
			t.Fatalf("%d sums moved for no difference in %d ranges", asked, len(ranges))
		}
	})
}

func ask(s *side, sums *int) func(Ask) ([]byte, error) {
	return func(a Ask) ([]byte, error) {
		if err := a.Valid(); err != nil {
			return nil, err
		}
		if sums != nil {
			*sums += len(a.Ranges) * a.Parts
		}
		return s.tree.Answer(a), nil
	}
}

// differingSlots compares everything.
func differingSlots(a, b *side, ranges []ring.Range) map[ring.Slot]bool {
	out := map[ring.Slot]bool{}
	both := maps.Clone(a.records)
	maps.Copy(both, b.records)
	for k := range both {
		s := ring.SlotOf([]byte(k))
		if a.records[k] != b.records[k] && slices.ContainsFunc(ranges, func(r ring.Range) bool { return r.Contains(s) }) {
			out[s] = true
		}
	}
	return out
}

func TestMalformedComparisonsAreRefused(t *testing.T) {
	whole := ring.Range{From: 0, To: ring.Slots}
	for _, a := range []Ask{{Parts: 16}, {Ranges: []ring.Range{whole}}, {Ranges: []ring.Range{whole}, Parts: MaxParts + 1},
		{Ranges: []ring.Range{whole, whole}, Parts: MaxParts}, {Ranges: []ring.Range{{From: 3, To: 3}}, Parts: 2},
		{Ranges: []ring.Range{{From: 0, To: ring.Slots + 1}}, Parts: 2}} {
		if err := a.Valid(); !errors.Is(err, ErrAsk) {
			t.Errorf("%v: %v", a, err)
		}
	}
	s := newSide()
	n := Narrowing{Fan: 4, Leaf: 1}
	short := func(Ask) ([]byte, error) { return make([]byte, 3), nil }
	if _, err := n.Differing([]ring.Range{whole}, ask(s, nil), short); !errors.Is(err, ErrAsk) {
		t.Errorf("a short answer: %v", err)
	}
	gone := errors.New("gone")
	if _, err := n.Differing([]ring.Range{whole}, ask(s, nil), func(Ask) ([]byte, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Errorf("a failing peer: %v", err)
	}
	if _, err := (Narrowing{Fan: 1, Leaf: 1}).Differing([]ring.Range{whole}, ask(s, nil), ask(s, nil)); !errors.Is(err, ErrAsk) {
		t.Errorf("a fan of one: %v", err)
	}
}

// What is wanted is what a merge would change.
func TestWantedIsWhatAMergeAdds(t *testing.T) {
	actors := []causal.Actor{{1}, {2}, {3}}
	rapid.Check(t, func(t *rapid.T) {
		// Both sides' sets come from one history of mints and merges, as they do in a cluster.
		sets := [3]causal.Set{}
		counters := [3]uint64{}
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			i, j := rapid.IntRange(0, 2).Draw(t, "at"), rapid.IntRange(0, 2).Draw(t, "from")
			if rapid.Bool().Draw(t, "merge") {
				sets[i] = causal.Merge(sets[i], sets[j])
				continue
			}
			counters[i]++
			ctx := &causal.Context{}
			if rapid.Bool().Draw(t, "with context") {
				ctx = &causal.Context{Vector: sets[i].Clock}
			}
			next, err := causal.Mint(sets[i], ctx, causal.Sibling{Dot: causal.Dot{Actor: actors[i], Counter: counters[i]}, Time: 1})
			if err != nil {
				t.Fatal(err)
			}
			sets[i] = next
		}
		entry := func(s causal.Set) []Entry {
			if len(s.Clock) == 0 {
				return nil
			}
			d, err := record.DigestOf(record.Append(nil, []byte("k"), s))
			if err != nil {
				t.Fatal(err)
			}
			return []Entry{{Key: []byte("k"), Digest: d, Clock: s.Clock}}
		}
		mine, theirs := entry(sets[0]), entry(sets[1])
		merged := entry(causal.Merge(sets[0], sets[1]))
		changes := len(merged) > 0 && (len(mine) == 0 || mine[0].Digest != merged[0].Digest)
		if wanted := len(Wanted(mine, theirs)) > 0; wanted != changes {
			t.Fatalf("wanted %v, a merge changes: %v\nmine %+v\ntheirs %+v", wanted, changes, sets[0], sets[1])
		}
	})
}
