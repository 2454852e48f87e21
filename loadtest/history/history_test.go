package history

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

const k = "a key"

func dot(actor byte, counter uint64) causal.Dot {
	return causal.Dot{Actor: causal.Actor{actor}, Counter: counter}
}

// story is a history with two writes, the second of which replaced the first.
type story struct {
	*Checker
	first, second *Write
	one, two      causal.Sibling
}

func sibling(d causal.Dot, value string) causal.Sibling {
	return causal.Sibling{Dot: d, Value: []byte(value), Checksum: record.Checksum([]byte(value))}
}

func tell() *story {
	s := &story{Checker: New(func() time.Duration { return time.Second })}
	s.one, s.two = sibling(dot(1, 1), "one"), sibling(dot(2, 1), "two")
	s.first = s.Begin(k, s.one.Value, false)
	s.Minted(s.first, s.one.Dot, Known{})
	s.Acked(s.first, s.one.Dot, 2, false)
	s.second = s.Begin(k, s.two.Value, false)
	s.Minted(s.second, s.two.Dot, s.Knows(k, set1(s.one)))
	s.Acked(s.second, s.two.Dot, 2, false)
	return s
}

// set1 is a record that shows siblings, and has seen just them and what is named besides.
func set1(sibs ...causal.Sibling) causal.Set {
	out := causal.Set{Siblings: sibs}
	for _, sib := range sibs {
		out.Clock = out.Clock.With(sib.Dot)
	}
	return out
}

func also(s causal.Set, dots ...causal.Dot) causal.Set {
	for _, d := range dots {
		s.Clock = s.Clock.With(d)
	}
	return s
}

// Each way to break a promise is noticed, as that promise.
func TestEachPromise(t *testing.T) {
	other := sibling(dot(3, 1), "nobody's")
	for name, tc := range map[string]struct {
		do   func(*story)
		want Promise
	}{
		"all is well": {func(s *story) {
			s.Answered(s.Reading(k, 2, 3, nil), also(set1(s.two), s.one.Dot), "get")
			raw := record.Append(nil, []byte(k), also(set1(s.two), s.one.Dot))
			s.Final(k, []Replica{{"a", raw}, {"b", raw}})
			s.Finish()
		}, 0},
		"a covered write is gone": {func(s *story) { s.Observe(k, also(causal.Set{}, s.two.Dot), "x") }, Durable},
		"an acknowledged one is":  {func(s *story) { s.Final(k, []Replica{{Name: "a"}}) }, Durable},
		"a value nobody wrote":    {func(s *story) { s.Observe(k, set1(other), "x") }, Faithful},
		"a collected one may be gone": {func(s *story) {
			mine := s.Knows(k, set1(s.two))
			get := s.Reading(k, 2, 3, &mine)
			s.Collected(k, also(set1(s.two), s.one.Dot))
			s.Answered(get, causal.Set{}, "get")
			s.Final(k, []Replica{{Name: "a"}})
		}, 0},
		"a collected one came back": {func(s *story) {
			s.Collected(k, also(set1(s.two), s.one.Dot))
			s.Observe(k, set1(s.one), "x")
		}, Faithful},
		"a superseded one came back": {func(s *story) { s.Observe(k, set1(s.one, s.two), "x") }, Faithful},
		"a refused one was minted": {func(s *story) {
			w := s.Begin(k, []byte("v"), false)
			s.Minted(w, dot(4, 1), Known{})
			s.Failed(w, NotApplied)
			s.Finish()
		}, Faithful},
		"an acknowledgement of a dot that nobody issued": {func(s *story) { s.Acked(s.first, dot(9, 9), 2, false) }, Faithful},
		"a get misses an acknowledged write":             {func(s *story) { s.Answered(s.Reading(k, 2, 3, nil), set1(s.one), "get") }, Current},
		"a get of one may miss it":                       {func(s *story) { s.Answered(s.Reading(k, 1, 3, nil), set1(s.one), "get") }, 0},
		"an emptied disk is refilled by a quorum": {func(s *story) {
			s.Emptied(2)
			s.Answered(s.Reading(k, 2, 3, nil), set1(s.one), "get")
		}, Current},
		"it may have been the one owner that had it": {func(s *story) {
			w := s.Begin(k, []byte("v"), false)
			s.Minted(w, dot(4, 1), s.Knows(k, set1(s.two)))
			s.Acked(w, dot(4, 1), 1, false)
			s.Emptied(2)
			s.Answered(s.Reading(k, 3, 3, nil), also(set1(s.two), s.one.Dot), "get")
		}, 0},
		"a get misses its context": {func(s *story) {
			mine := s.Knows(k, set1(s.two))
			s.Answered(s.Reading(k, 1, 3, &mine), set1(s.one), "get")
		}, OwnWrites},
		"a dot for two writes": {func(s *story) { s.Minted(s.Begin("other key", []byte("v"), false), s.one.Dot, Known{}) }, UniqueDots},
		"a dot with two values": {func(s *story) {
			s.Observe(k, set1(sibling(s.one.Dot, "two")), "x")
		}, UniqueDots},
		"replicas that differ": {func(s *story) {
			s.Final(k, []Replica{{"a", record.Append(nil, []byte(k), also(set1(s.two), s.one.Dot))}, {"b", nil}})
		}, Convergent},
		"damaged bytes": {func(s *story) {
			bad := s.one
			bad.Value = []byte("onf")
			s.Observe(k, set1(bad), "x")
		}, Undamaged},
		"a damaged replica": {func(s *story) {
			raw := record.Append(nil, []byte(k), also(set1(s.two), s.one.Dot))
			raw[len(raw)-1] ^= 1
			s.Final(k, []Replica{{"a", raw}})
		}, Undamaged},
		"a write without an end": {func(s *story) { s.Begin(k, nil, true); s.Finish() }, Bounded},
		"a write that lost a holder meanwhile may be missed": {func(s *story) {
			w := s.Begin(k, []byte("v"), false)
			s.Minted(w, dot(4, 1), s.Knows(k, set1(s.two)))
			s.Acked(w, dot(4, 1), 2, true)
			s.Answered(s.Reading(k, 2, 3, nil), also(set1(s.two), s.one.Dot), "get")
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := tell()
			tc.do(s)
			v := s.Violations()
			switch {
			case tc.want == 0 && len(v) > 0:
				t.Errorf("found %v where all is well", v)
			case tc.want != 0 && (len(v) == 0 || v[0].Promise != tc.want):
				t.Errorf("found %v, not that %s is broken", v, tc.want)
			}
		})
	}
}

func TestViolationsAreBounded(t *testing.T) {
	c := New(func() time.Duration { return 0 })
	for range 100 {
		c.Break(Durable, "again")
	}
	if n := len(c.Violations()); n != maxViolations {
		t.Errorf("%d violations are kept", n)
	}
}

func TestOutcomeOnceInDoubtStays(t *testing.T) {
	c := New(func() time.Duration { return 0 })
	w := c.Begin(k, nil, true)
	c.Failed(w, InDoubt)
	c.Failed(w, NotApplied)
	if w.Outcome != InDoubt {
		t.Errorf("the outcome is %d", w.Outcome)
	}
}

// Sets of bits do as sets of numbers do.
func TestSetLikeMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOf(rapid.IntRange(0, 200))
		as, bs := numbers.Draw(t, "a"), numbers.Draw(t, "b")
		build := func(ns []int) (set, map[int]bool) {
			var s set
			m := map[int]bool{}
			for _, n := range ns {
				s, m[n] = s.with(n), true
			}
			return s, m
		}
		a, am := build(as)
		b, bm := build(bs)
		before := append(set(nil), a...)
		join, and, minus := a.join(b), a.and(b), a.minus(b)
		least := -1
		for n := 200; n >= 0; n-- {
			if join.has(n) != (am[n] || bm[n]) || and.has(n) != (am[n] && bm[n]) || minus.has(n) != (am[n] && !bm[n]) {
				t.Fatalf("%d: join %v, and %v, minus %v", n, join.has(n), and.has(n), minus.has(n))
			}
			if am[n] {
				least = n
			}
		}
		if got, found := a.first(); found != (least >= 0) || found && got != least {
			t.Fatalf("first is %d, %v, not %d", got, found, least)
		}
		for i := range before {
			if a[i] != before[i] {
				t.Fatal("a set was modified")
			}
		}
	})
}
