package causal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

func actor(n int) causal.Actor {
	var a causal.Actor
	a[0], a[15] = byte(n), byte(n>>8)
	return a
}

func dot(a int, counter uint64) causal.Dot { return causal.Dot{Actor: actor(a), Counter: counter} }

// siblingOf returns the one value that d names.
func siblingOf(d causal.Dot) causal.Sibling {
	value := []byte("value of " + d.String())
	return causal.Sibling{Dot: d, Time: d.Counter << 16, ContentType: "text/plain", Value: value, Checksum: record.Checksum(value)}
}

func setOf(clock causal.Vector, dots ...causal.Dot) causal.Set {
	s := causal.Set{Clock: clock}
	for _, d := range dots {
		s.Siblings = append(s.Siblings, siblingOf(d))
	}
	return s
}

func dotsOf(s causal.Set) []causal.Dot {
	var out []causal.Dot
	for i := range s.Siblings {
		out = append(out, s.Siblings[i].Dot)
	}
	return out
}

func sameSet(a, b causal.Set) bool { return bytes.Equal(encode(a), encode(b)) }

// naive is the twin of a set: every write it has heard of, whatever became of it.
type naive map[causal.Dot]bool

// universe holds what each write had seen when it was minted.
type universe map[causal.Dot]naive

func (n naive) merge(o naive) naive {
	out := naive{}
	for d := range n {
		out[d] = true
	}
	for d := range o {
		out[d] = true
	}
	return out
}

// siblings returns the writes of n that no other write of n had seen, in order.
func (u universe) siblings(n naive) []causal.Dot {
	var out []causal.Dot
	for d := range n {
		over := false
		for o := range n {
			over = over || u[o][d]
		}
		if !over {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, causal.Dot.Compare)
	return out
}

type twins struct {
	set   causal.Set
	naive naive
}

// drawHistory returns the states that replicas went through in a random history of reads, writes and exchanges, each
// beside its naive twin.
func drawHistory(t *rapid.T) (universe, []twins) {
	u := universe{}
	replicas := make([]twins, rapid.IntRange(1, 4).Draw(t, "replicas"))
	counters := make([]uint64, len(replicas))
	var states []twins
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		i := rapid.IntRange(0, len(replicas)-1).Draw(t, "replica")
		r := &replicas[i]
		switch rapid.IntRange(0, 2).Draw(t, "what") {
		case 0: // exchange with another
			o := replicas[rapid.IntRange(0, len(replicas)-1).Draw(t, "other")]
			*r = twins{set: causal.Merge(r.set, o.set), naive: r.naive.merge(o.naive)}
		case 1: // a write without context
			r.mint(t, u, nil, nil, causal.Dot{Actor: actor(40 - 10*i), Counter: next(counters, i)})
		default: // a write with the context of some earlier read
			read := twins{}
			if len(states) > 0 {
				read = states[rapid.IntRange(0, len(states)-1).Draw(t, "read")]
			}
			r.mint(t, u, &causal.Context{Vector: read.set.Clock}, read.naive, causal.Dot{Actor: actor(40 - 10*i), Counter: next(counters, i)})
		}
		states = append(states, *r)
	}
	return u, states
}

func next(counters []uint64, i int) uint64 {
	counters[i]++
	return counters[i]
}

func (r *twins) mint(t *rapid.T, u universe, ctx *causal.Context, read naive, d causal.Dot) {
	set, err := causal.Mint(r.set, ctx, siblingOf(d))
	if err != nil {
		t.Fatalf("mint of %s: %v", d, err)
	}
	u[d] = naive{}.merge(read)
	if ctx == nil {
		u[d] = r.naive.merge(nil)
	}
	*r = twins{set: set, naive: r.naive.merge(read).merge(naive{d: true})}
}

func TestMergeAgainstFullHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		u, states := drawHistory(t)
		pick := rapid.IntRange(0, len(states)-1)
		a, b, c := states[pick.Draw(t, "a")], states[pick.Draw(t, "b")], states[pick.Draw(t, "c")]
		for _, s := range states {
			if want := u.siblings(s.naive); !slices.Equal(dotsOf(s.set), want) {
				t.Fatalf("siblings %v, history says %v", dotsOf(s.set), want)
			}
			if err := s.set.Valid(); err != nil {
				t.Fatal(err)
			}
		}
		got := causal.Merge(a.set, b.set)
		if want := u.siblings(a.naive.merge(b.naive)); !slices.Equal(dotsOf(got), want) {
			t.Fatalf("merge keeps %v, history says %v", dotsOf(got), want)
		}
		checkLaws(t, a.set, b.set, c.set)
	})
}

func checkLaws(t *rapid.T, a, b, c causal.Set) {
	ab, before := causal.Merge(a, b), encode(a)
	if !sameSet(ab, causal.Merge(b, a)) {
		t.Fatal("not commutative")
	}
	if !sameSet(causal.Merge(ab, c), causal.Merge(a, causal.Merge(b, c))) {
		t.Fatal("not associative")
	}
	if !sameSet(causal.Merge(a, a), a) || !sameSet(causal.Merge(ab, b), ab) || !sameSet(causal.Merge(a, ab), ab) {
		t.Fatal("not idempotent")
	}
	if !sameSet(causal.Merge(a, causal.Set{}), a) || !sameSet(causal.Merge(causal.Set{}, a), a) {
		t.Fatal("the empty set is not neutral")
	}
	if a.Supersedes(b) != sameSet(ab, a) || b.Supersedes(a) != sameSet(ab, b) || !ab.Supersedes(a) || !ab.Supersedes(b) {
		t.Fatalf("Supersedes says %v and %v", a.Supersedes(b), b.Supersedes(a))
	}
	if err := ab.Valid(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encode(a), before) {
		t.Fatal("merge modified its argument")
	}
}

// drawSet returns any valid set, reachable or not.
func drawSet(t *rapid.T, name string) causal.Set {
	s := causal.Set{}
	for a := range 5 {
		counter := rapid.IntRange(0, 4).Draw(t, name)
		if counter == 0 {
			continue
		}
		s.Clock = append(s.Clock, dot(a, uint64(counter)))
		for c := 1; c <= counter; c++ {
			if rapid.Bool().Draw(t, name+" has") {
				s.Siblings = append(s.Siblings, siblingOf(dot(a, uint64(c))))
			}
		}
	}
	return s
}

func TestMergeLawsHoldForAnySets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawSet(t, "a"), drawSet(t, "b"), drawSet(t, "c")
		checkLaws(t, a, b, c)
		got := causal.Merge(a, b)
		var want []causal.Dot
		for _, d := range append(dotsOf(a), dotsOf(b)...) {
			_, inA := a.Sibling(d)
			_, inB := b.Sibling(d)
			if (inA || !a.Clock.Covers(d)) && (inB || !b.Clock.Covers(d)) && !slices.Contains(want, d) {
				want = append(want, d)
			}
		}
		slices.SortFunc(want, causal.Dot.Compare)
		if !slices.Equal(dotsOf(got), want) {
			t.Fatalf("merge keeps %v, the rule says %v", dotsOf(got), want)
		}
	})
}

func TestMergeOfEqualDotsChoosesAlike(t *testing.T) {
	t.Parallel()
	base := siblingOf(dot(1, 1))
	variants := []causal.Sibling{base, base, base, base, base, base, base, base}
	variants[1].Time++
	variants[2].Tombstone = true
	variants[3].Checksum++
	variants[4].Value = append([]byte("x"), base.Value...)
	variants[5].ContentType = "text/html"
	variants[6].Expiry = 7
	variants[7].Meta = []byte("m")
	clock := causal.Vector{dot(1, 1)}
	for i := range variants {
		for j := range variants {
			a := causal.Set{Clock: clock, Siblings: variants[i : i+1 : i+1]}
			b := causal.Set{Clock: clock, Siblings: variants[j : j+1 : j+1]}
			if !sameSet(causal.Merge(a, b), causal.Merge(b, a)) {
				t.Errorf("variants %d and %d: the order of the merge decides", i, j)
			}
			if alike := i == j || i == 0 && j == 4 || i == 4 && j == 0; a.Supersedes(b) != (alike || variants[i].Checksum == variants[j].Checksum && sameSet(a, b)) {
				t.Errorf("variants %d and %d: %v", i, j, a.Supersedes(b))
			}
		}
	}
}

func TestVectorAgainstMap(t *testing.T) {
	t.Parallel()
	draw := func(t *rapid.T, name string) (causal.Vector, map[causal.Actor]uint64) {
		s := drawSet(t, name)
		m := map[causal.Actor]uint64{}
		for _, e := range s.Clock {
			m[e.Actor] = e.Counter
		}
		return s.Clock, m
	}
	rapid.Check(t, func(t *rapid.T) {
		a, am := draw(t, "a")
		b, bm := draw(t, "b")
		covers, joined := true, a.Join(b)
		d := dot(rapid.IntRange(0, 5).Draw(t, "actor"), uint64(rapid.IntRange(1, 5).Draw(t, "counter")))
		with := a.With(d)
		for i := range 6 {
			x := actor(i)
			if a.Get(x) != am[x] {
				t.Fatalf("Get(%s) = %d, want %d", x, a.Get(x), am[x])
			}
			covers = covers && am[x] >= bm[x]
			if got, want := joined.Get(x), max(am[x], bm[x]); got != want {
				t.Fatalf("Join has %d, want %d", got, want)
			}
			want := am[x]
			if x == d.Actor {
				want = max(want, d.Counter)
			}
			if with.Get(x) != want {
				t.Fatalf("With has %d, want %d", with.Get(x), want)
			}
		}
		if a.CoversVector(b) != covers || a.Covers(d) != (am[d.Actor] >= d.Counter) {
			t.Fatal("covers")
		}
		if err := errors.Join(joined.Valid(), with.Valid()); err != nil {
			t.Fatal(err)
		}
		if len(a) != len(am) {
			t.Fatal("an argument was modified")
		}
	})
}

func TestValidRefuses(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]causal.Set{
		"counter zero":         {Clock: causal.Vector{dot(1, 0)}},
		"actors unsorted":      {Clock: causal.Vector{dot(2, 1), dot(1, 1)}},
		"actor twice":          {Clock: causal.Vector{dot(1, 1), dot(1, 2)}},
		"sibling not covered":  setOf(causal.Vector{dot(1, 1)}, dot(1, 2)),
		"sibling of no actor":  setOf(causal.Vector{dot(1, 1)}, dot(2, 1)),
		"sibling counter zero": setOf(causal.Vector{dot(1, 1)}, dot(1, 0)),
		"siblings unsorted":    setOf(causal.Vector{dot(1, 2)}, dot(1, 2), dot(1, 1)),
		"sibling twice":        setOf(causal.Vector{dot(1, 2)}, dot(1, 2), dot(1, 2)),
	} {
		if err := s.Valid(); !errors.Is(err, causal.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := setOf(causal.Vector{dot(1, 2), dot(2, 1)}, dot(1, 1), dot(1, 2), dot(2, 1)).Valid(); err != nil {
		t.Error(err)
	}
}

func TestMint(t *testing.T) {
	t.Parallel()
	local := setOf(causal.Vector{dot(1, 3), dot(3, 2)}, dot(1, 2), dot(1, 3), dot(3, 2))
	for _, c := range []struct {
		name  string
		ctx   *causal.Context
		fresh causal.Dot
		clock causal.Vector
		dots  []causal.Dot
		err   error
	}{
		{name: "without context replaces all", fresh: dot(2, 1),
			clock: causal.Vector{dot(1, 3), dot(2, 1), dot(3, 2)}, dots: []causal.Dot{dot(2, 1)}},
		{name: "an empty context replaces nothing", ctx: &causal.Context{}, fresh: dot(2, 1),
			clock: causal.Vector{dot(1, 3), dot(2, 1), dot(3, 2)}, dots: []causal.Dot{dot(1, 2), dot(1, 3), dot(2, 1), dot(3, 2)}},
		{name: "a stale vector replaces what it covers", ctx: &causal.Context{Vector: causal.Vector{dot(1, 2)}}, fresh: dot(4, 9),
			clock: causal.Vector{dot(1, 3), dot(3, 2), dot(4, 9)}, dots: []causal.Dot{dot(1, 3), dot(3, 2), dot(4, 9)}},
		{name: "a dot kept apart replaces only itself", ctx: &causal.Context{Dots: []causal.Dot{dot(1, 3)}}, fresh: dot(3, 3),
			clock: causal.Vector{dot(1, 3), dot(3, 3)}, dots: []causal.Dot{dot(1, 2), dot(3, 2), dot(3, 3)}},
		{name: "the clock takes in the context", ctx: &causal.Context{Vector: causal.Vector{dot(0, 7), dot(3, 5)}}, fresh: dot(1, 4),
			clock: causal.Vector{dot(0, 7), dot(1, 4), dot(3, 5)}, dots: []causal.Dot{dot(1, 2), dot(1, 3), dot(1, 4)}},
		{name: "behind", ctx: &causal.Context{Dots: []causal.Dot{dot(1, 4)}}, fresh: dot(2, 1), err: causal.ErrBehind},
		{name: "behind by an actor", ctx: &causal.Context{Dots: []causal.Dot{dot(9, 1)}}, fresh: dot(2, 1), err: causal.ErrBehind},
		{name: "dot used here", ctx: &causal.Context{}, fresh: dot(1, 1), err: causal.ErrDotUsed},
		{name: "dot used here, no context", fresh: dot(1, 3), err: causal.ErrDotUsed},
		{name: "dot used in the context", ctx: &causal.Context{Vector: causal.Vector{dot(2, 1)}}, fresh: dot(2, 1), err: causal.ErrDotUsed},
		{name: "dot without a counter", fresh: dot(2, 0), err: causal.ErrDotUsed},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := encode(local)
			got, err := causal.Mint(local, c.ctx, siblingOf(c.fresh))
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if !reflect.DeepEqual(got.Clock, c.clock) || !slices.Equal(dotsOf(got), c.dots) {
				t.Errorf("clock %v siblings %v, want %v %v", got.Clock, dotsOf(got), c.clock, c.dots)
			}
			if err := got.Valid(); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(before, encode(local)) {
				t.Error("mint modified the local set")
			}
		})
	}
}

// Two writers who interleave with their own last contexts make two siblings, however long they go on.
func TestTwoWritersLeaveTwoSiblings(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]struct {
		first *causal.Context
		nodes int
	}{
		"one node, no first context":     {nil, 1},
		"one node, after a 404":          {&causal.Context{}, 1},
		"two nodes in turn, after a 404": {&causal.Context{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := make([]causal.Set, answer.nodes)
			counters := make([]uint64, answer.nodes)
			contexts := []*causal.Context{answer.first, answer.first}
			var last [2]causal.Dot
			for i := range 200 {
				writer, n := i%2, i/3%answer.nodes
				d := causal.Dot{Actor: actor(n + 1), Counter: next(counters, n)}
				minted, err := causal.Mint(nodes[n], contexts[writer], siblingOf(d))
				if err != nil {
					t.Fatal(err)
				}
				answered := causal.Answer(contexts[writer], minted, d)
				contexts[writer], last[writer] = &answered, d
				for j := range nodes { // the record reaches every replica before the next write
					nodes[j] = causal.Merge(nodes[j], minted)
				}
				if i >= 2 && len(nodes[0].Siblings) != 2 {
					t.Fatalf("after %d writes: siblings %v", i+1, dotsOf(nodes[0]))
				}
			}
			for _, d := range last {
				if _, ok := nodes[0].Sibling(d); !ok {
					t.Errorf("the last write %s of a writer is gone", d)
				}
			}
		})
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	same := func(d causal.Dot, at uint64, change func(*causal.Sibling)) causal.Sibling {
		s := causal.Sibling{Dot: d, Time: at, ContentType: "text/plain", Value: []byte("v"), Checksum: record.Checksum([]byte("v"))}
		if change != nil {
			change(&s)
		}
		return s
	}
	for _, c := range []struct {
		name     string
		siblings []causal.Sibling
		want     []causal.Dot
	}{
		{name: "none"},
		{"a retried write shows once, by its latest time", []causal.Sibling{same(dot(1, 1), 5, nil), same(dot(2, 1), 9, nil), same(dot(3, 1), 7, nil)}, []causal.Dot{dot(2, 1)}},
		{"equal times: the greatest dot", []causal.Sibling{same(dot(1, 1), 5, nil), same(dot(2, 1), 5, nil)}, []causal.Dot{dot(2, 1)}},
		{"another value between", []causal.Sibling{same(dot(1, 1), 5, nil), siblingOf(dot(2, 1)), same(dot(3, 1), 4, nil)}, []causal.Dot{dot(1, 1), dot(2, 1)}},
		{"a tombstone is another", []causal.Sibling{same(dot(1, 1), 5, nil), same(dot(2, 1), 5, func(s *causal.Sibling) { s.Tombstone = true })}, []causal.Dot{dot(1, 1), dot(2, 1)}},
		{"so is another type", []causal.Sibling{same(dot(1, 1), 5, nil), same(dot(2, 1), 5, func(s *causal.Sibling) { s.ContentType = "x/y" })}, []causal.Dot{dot(1, 1), dot(2, 1)}},
		{"and other metadata", []causal.Sibling{same(dot(1, 1), 5, nil), same(dot(2, 1), 5, func(s *causal.Sibling) { s.Meta = []byte("m") })}, []causal.Dot{dot(1, 1), dot(2, 1)}},
		{"a checksum alone proves nothing", []causal.Sibling{same(dot(1, 1), 5, nil), same(dot(2, 1), 5, func(s *causal.Sibling) { s.Value = []byte("w") })}, []causal.Dot{dot(1, 1), dot(2, 1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := dotsOf(causal.Set{Siblings: causal.Set{Siblings: c.siblings}.Shown()})
			if !slices.Equal(got, c.want) {
				t.Errorf("shown %v, want %v", got, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	many := causal.Set{}
	for i := range 65 {
		many.Clock = append(many.Clock, dot(i, 1))
		many.Siblings = append(many.Siblings, siblingOf(dot(i, 1)))
	}
	most := causal.Set{Clock: many.Clock, Siblings: many.Siblings[:64]}
	large := setOf(causal.Vector{dot(1, 1)}, dot(1, 1))
	large.Siblings[0].Value = make([]byte, 3<<20)
	fits := setOf(causal.Vector{dot(1, 1)}, dot(1, 1))
	fits.Siblings[0].Value = make([]byte, 3<<20-512)
	actors := causal.Set{}
	for i := range 140 {
		actors.Clock = append(actors.Clock, causal.Entry{Actor: causal.Actor{byte(i)}, Counter: 1})
	}
	for _, c := range []struct {
		name   string
		set    causal.Set
		limits causal.Limits
		want   error
	}{
		{"65 siblings", many, causal.Limits{}, causal.ErrTooManySiblings},
		{"64 siblings", most, causal.Limits{}, nil},
		{"65 of 70", many, causal.Limits{MaxSiblings: 70}, nil},
		{"3 MiB and its header", large, causal.Limits{}, causal.ErrTooLarge},
		{"a little less", fits, causal.Limits{}, nil},
		{"4 MiB allowed", large, causal.Limits{MaxBytes: 4 << 20}, nil},
		{"140 actors", actors, causal.Limits{}, causal.ErrClockTooLarge},
		{"100 actors", causal.Set{Clock: actors.Clock[:100]}, causal.Limits{}, nil},
	} {
		if err := c.set.Check(c.limits); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// What Check admits has a token, whatever the counters.
func TestWhatCheckAdmitsHasAToken(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := causal.Set{}
		counter := rapid.Uint64Min(1)
		for i := range rapid.IntRange(70, 140).Draw(t, "actors") {
			e := causal.Entry{Counter: counter.Draw(t, "counter")}
			binary.BigEndian.PutUint32(e.Actor[:], uint32(i))
			s.Clock = append(s.Clock, e)
		}
		c := causal.Context{Vector: s.Clock, Dots: []causal.Dot{{Counter: counter.Draw(t, "dot")}}}
		_, err := causal.Keyring{}.EncodeToken(modelCluster, modelKey, c)
		if s.Check(causal.Limits{}) == nil && err != nil {
			t.Fatalf("%d actors: %v", len(s.Clock), err)
		}
	})
}

func TestNewActor(t *testing.T) {
	t.Parallel()
	a, err := causal.NewActor(bytes.NewReader([]byte("0123456789abcdefX")))
	if err != nil || a.String() != "30313233343536373839616263646566" {
		t.Errorf("%s, %v", a, err)
	}
	if _, err := causal.NewActor(bytes.NewReader([]byte("too short"))); err == nil {
		t.Error("an actor of too few random bytes")
	}
}

func TestDotNext(t *testing.T) {
	t.Parallel()
	if d, ok := dot(1, 41).Next(); !ok || d != dot(1, 42) {
		t.Error(d, ok)
	}
	if d, ok := dot(1, 1<<64-1).Next(); ok {
		t.Error("a counter wrapped round to", d)
	}
	if got, want := fmt.Sprint(dot(1, 7)), "01000000000000000000000000000000:7"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
