package causal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dotring/dotring/ringsvc/causal"
)

// Riak calls it key amnesia: a node mints under a name whose past it has forgotten, and the write is taken for one that
// everybody has seen and superseded. Each history here is one of its reports, played twice: with the rule that prevents
// it, where every acknowledged write stays, and with the practice that the report was about, where one is lost.

// replica is what a history needs of a node.
type replica struct {
	t      *testing.T
	actor  causal.Actor
	issued uint64
	set    causal.Set
}

// put mints a value under a context (nil for none).
func (r *replica) put(value string, ctx *causal.Context) causal.Set {
	r.t.Helper()
	r.issued++
	s := causal.Sibling{Dot: causal.Dot{Actor: r.actor, Counter: r.issued}, Value: []byte(value), Tombstone: strings.HasPrefix(value, "deleted")}
	r.set = causal.MintUnguarded(r.set, ctx, s)
	return r.set
}

func (r *replica) take(sets ...causal.Set) {
	for _, s := range sets {
		r.set = causal.Merge(r.set, s)
	}
}

// forget drops the record of the key but not the rest of the node.
func (r *replica) forget() { r.set = causal.Set{} }

// restart gives the node a new actor.
func (r *replica) restart(n int) { r.actor, r.issued = actor(n), 0 }

func values(sets ...causal.Set) []string {
	all := causal.Set{}
	for _, s := range sets {
		all = causal.Merge(all, s)
	}
	var out []string
	for _, s := range all.Siblings {
		out = append(out, string(s.Value))
	}
	slices.Sort(out)
	return out
}

// read is the context of a get that saw these records.
func read(sets ...causal.Set) *causal.Context {
	all := causal.Set{}
	for _, s := range sets {
		all = causal.Merge(all, s)
	}
	return &causal.Context{Vector: all.Clock}
}

var amnesia = []struct {
	name  string
	rule  string
	play  func(a, b *replica, safe bool) []string
	want  []string // with the rule
	loses []string // without it
}{
	{
		name: "riak 679: the coordinator's copy is corrupt and taken for not found, no context",
		rule: "removed records mean a new actor",
		play: func(a, b *replica, safe bool) []string {
			b.take(a.put("one", nil), a.put("two", read(a.set)))
			a.forget()
			if safe {
				a.restart(8)
			} else {
				a.issued = 0 // counters taken from the record
			}
			a.put("three", nil)
			return values(a.set, b.set)
		},
		want: []string{"three", "two"}, loses: []string{"two"},
	},
	{
		name: "riak 679: the same with a client's context, whose counter is claimed again",
		rule: "removed records mean a new actor",
		play: func(a, b *replica, safe bool) []string {
			first := a.put("one", nil)
			b.take(first, a.put("two", read(a.set)))
			a.forget()
			if safe {
				a.restart(8)
			} else {
				a.issued = first.Clock.Get(a.actor) // as the context says
			}
			a.put("three", read(first)) // has not seen "two"
			return values(a.set, b.set)
		},
		want: []string{"three", "two"}, loses: []string{"three"},
	},
	{
		name: "riak 679: a failed local read taken for absence claims what the node forgot",
		rule: "a mint whose local read failed fails",
		play: func(a, b *replica, safe bool) []string {
			b.take(a.put("one", nil))
			if safe {
				return values(a.set, b.set)
			}
			a.forget()
			b.take(a.put("two", &causal.Context{})) // replaces nothing, and yet its clock covers "one"
			return append(values(a.set, b.set), "acknowledged: two")
		},
		want: []string{"one"}, loses: []string{"two", "acknowledged: two"},
	},
	{
		name: "riak 1094: doomstone, a fallback's old tombstone subsumes the key written anew",
		rule: "counters are the node's and not the key's",
		play: func(a, b *replica, safe bool) []string {
			a.put("one", nil)
			fallback := a.put("deleted", read(a.set))
			b.take(fallback)
			a.forget()
			b.forget()
			if !safe {
				a.issued = 0
			}
			b.take(a.put("new", nil))
			b.take(fallback) // hands off late
			a.take(b.set)
			return values(a.set, b.set)
		},
		want: []string{"new"}, loses: []string{"deleted"},
	},
	{
		name: "riak 1070: a disk restored from a backup counts again from where it was",
		rule: "every start is a new actor, a clean one too",
		play: func(a, b *replica, safe bool) []string {
			b.take(a.put("one", nil))
			backup := *a
			b.take(a.put("two", read(a.set)))
			*a = backup
			if safe {
				a.restart(8)
			}
			a.put("three", read(a.set)) // has seen "one" only
			return values(a.set, b.set)
		},
		want: []string{"three", "two"}, loses: []string{"three"},
	},
	{
		name: "riak 1070: a crash forgets a write that was sent on, and the counter skips ahead",
		rule: "skipping ahead does not help, a new actor does",
		play: func(a, b *replica, safe bool) []string {
			b.take(a.put("one", nil))
			a.forget() // was not synced
			if safe {
				a.restart(8)
			} else {
				a.issued += 1000
			}
			a.put("two", &causal.Context{}) // after a 404: replaces nothing
			return values(a.set, b.set)
		},
		want: []string{"one", "two"}, loses: []string{"two"},
	},
	{
		name: "riak 1643: amnesia found on a write that another coordinated, and the next mint repeats an event",
		rule: "a counter of one's own that was never issued means a new actor at once",
		play: func(a, b *replica, safe bool) []string {
			b.take(a.put("one", nil), a.put("two", read(a.set)))
			a.forget()
			a.issued = 1 // an older disk
			heard := b.put("three", read(b.set))
			if safe && heard.Clock.Get(a.actor) > a.issued {
				a.restart(8)
			}
			a.take(heard)
			a.put("four", &causal.Context{}) // replaces nothing
			return values(a.set, b.set)
		},
		want: []string{"four", "three"}, loses: []string{"three"},
	},
	{
		name: "riak 1865: two nodes of one preference list bear one actor",
		rule: "an actor is 128 random bits, drawn at each start",
		play: func(a, b *replica, safe bool) []string {
			if !safe {
				b.actor = a.actor
			}
			one := a.put("one", nil)
			two := b.put("two", nil)
			a.take(two)
			b.take(one)
			return values(a.set, b.set)
		},
		want: []string{"one", "two"}, loses: []string{"one"},
	},
	{
		name: "a node behind a client's own write claims all below it",
		rule: "a mint is refused where the clock does not cover a dot of the context",
		play: func(a, b *replica, safe bool) []string {
			a.put("one", nil)
			a.put("two", &causal.Context{})
			two := causal.Dot{Actor: a.actor, Counter: 2}
			ctx := (causal.Context{}).After(two) // has seen "two", its own, and not "one"
			if !safe {
				ctx.Vector = ctx.Vector.With(two)
				b.put("three", &ctx)
				return values(a.set, b.set)
			}
			fresh := causal.Sibling{Dot: causal.Dot{Actor: b.actor, Counter: 1}}
			if _, err := causal.Mint(b.set, &ctx, fresh); err == nil {
				return []string{"minted"}
			}
			b.take(a.set)
			b.put("three", &ctx)
			return values(a.set, b.set)
		},
		want: []string{"one", "three"}, loses: []string{"three"},
	},
}

func TestAmnesia(t *testing.T) {
	t.Parallel()
	for _, h := range amnesia {
		t.Run(h.name, func(t *testing.T) {
			for _, safe := range []bool{true, false} {
				a, b := &replica{t: t, actor: actor(1)}, &replica{t: t, actor: actor(2)}
				want := h.loses
				if safe {
					want = h.want
				}
				if got := h.play(a, b, safe); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("rule %q kept %v: siblings %v, want %v", h.rule, safe, got, want)
				}
			}
		})
	}
}

// Riak's endless read repair of 1865: replicas that bear one actor must still come to equal bytes.
func TestEqualDotsConverge(t *testing.T) {
	t.Parallel()
	a, b := &replica{t: t, actor: actor(1)}, &replica{t: t, actor: actor(1)}
	one, two := a.put("one", nil), b.put("zwei", nil)
	one.Siblings[0].Checksum, two.Siblings[0].Checksum = 1, 2
	a.take(two)
	b.take(one)
	if !sameSet(a.set, b.set) {
		t.Errorf("%v and %v repair each other for ever", values(a.set), values(b.set))
	}
}
