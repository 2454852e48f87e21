package ring

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// everySegment calls fn with the owners of every part of the ring, found by a naive walk, and its width.
func everySegment(l *Layout, fn func(last Slot, width int, owners []NodeID)) {
	var tokens []Slot
	for _, m := range l.Members() {
		tokens = append(tokens, m.Tokens...)
	}
	slices.Sort(tokens)
	for i, s := range tokens {
		before := tokens[(i+len(tokens)-1)%len(tokens)]
		width := (int(s)-int(before)+Slots-1)%Slots + 1
		owners, _ := naivePreference(l.Members(), s, l.Replicas())
		fn(s, width, owners)
	}
}

func TestQuorumLossAgainstEveryChoice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t, 8)
		l := layoutOf(rapid.IntRange(1, 5).Draw(t, "n"), 1, members...)
		var sets [][]NodeID
		everySegment(l, func(_ Slot, _ int, owners []NodeID) { sets = append(sets, owners) })
		need := rapid.IntRange(1, l.Replicas()+1).Draw(t, "need")
		failures := rapid.IntRange(1, MaxFailures).Draw(t, "failures")
		chosen := min(failures, len(l.Members()))
		lost, all := 0, 0
		for mask := range 1 << len(l.Members()) {
			var failed []NodeID
			for i, m := range l.Members() {
				if mask>>i&1 == 1 {
					failed = append(failed, m.ID)
				}
			}
			if len(failed) != chosen {
				continue
			}
			all++
			bad := false
			for _, owners := range sets {
				left := slices.DeleteFunc(slices.Clone(owners), func(id NodeID) bool { return slices.Contains(failed, id) })
				bad = bad || len(left) < need
			}
			if bad {
				lost++
			}
		}
		if got, want := QuorumLoss(l, need)[failures-1], float64(lost)/float64(all); math.Abs(got-want) > 1e-12 {
			t.Fatalf("%d members, %d copies, %d needed, %d fail: %v, want %v", len(members), l.Replicas(), need, failures, got, want)
		}
	})
}

func TestShortagesAgainstEverySegment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t, 9)
		l := layoutOf(rapid.IntRange(1, 5).Draw(t, "n"), 1, members...)
		need := rapid.IntRange(0, l.Replicas()+1).Draw(t, "need")
		up := rapid.SliceOfN(rapid.Bool(), len(l.Members()), len(l.Members())).Draw(t, "up")
		usable := func(id NodeID) bool { at, _ := findMember(l.Members(), id); return up[at] }
		want := 0
		everySegment(l, func(_ Slot, width int, owners []NodeID) {
			n := 0
			for _, id := range owners {
				if usable(id) {
					n++
				}
			}
			if n < need {
				want += width
			}
		})
		got := 0
		for _, s := range l.Shortages(need, usable) {
			got += s.Slots
			n := 0
			for _, id := range s.Owners {
				if usable(id) {
					n++
				}
			}
			if n != s.Usable || n >= need || !slices.IsSortedFunc(s.Owners, NodeID.Compare) {
				t.Fatalf("%+v with %d needed", s, need)
			}
		}
		if got != want {
			t.Fatalf("%d slots, want %d", got, want)
		}
	})
}

func TestMovesAgainstGains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := layoutOf(rapid.IntRange(1, 4).Draw(t, "n"), 1, drawMembers(t, 7)...)
		next := layoutOf(rapid.IntRange(1, 4).Draw(t, "next n"), 1, drawMembers(t, 7)...)
		gained, lost := make(map[NodeID]int), make(map[NodeID]int)
		for _, m := range Moves(base, next) {
			if m.Slots <= 0 || m.From == m.To {
				t.Fatalf("%+v", m)
			}
			if !m.To.IsZero() {
				gained[m.To] += m.Slots
			}
			if !m.From.IsZero() {
				lost[m.From] += m.Slots
			}
		}
		for id, n := range Gained(base, next) {
			if gained[id] != n {
				t.Fatalf("%s takes %d slots, want %d", id, gained[id], n)
			}
		}
		for id, n := range Gained(next, base) {
			if lost[id] != n {
				t.Fatalf("%s gives %d slots, want %d", id, lost[id], n)
			}
		}
		if len(gained) != len(Gained(base, next)) || len(lost) != len(Gained(next, base)) {
			t.Fatal("somebody takes or gives what he does not")
		}
	})
}

// With random tokens nearly every pair of 300 members shares a range: the most there is to count.
func BenchmarkQuorumLoss(b *testing.B) {
	l := bigLayout(300, 3)
	l.Primaries(0)
	for b.Loop() {
		QuorumLoss(l, 2)
	}
}
