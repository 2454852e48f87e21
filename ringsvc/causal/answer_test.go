package causal

import (
	"slices"
	"testing"
)

// A put without a context is in doubt; another client writes beside it; the put is asked for again under its request id
// and is answered with the first dot, and with the record as it is by then. The next put of that client, with the
// context it was answered, leaves the other's value alone.
func TestRepeatedPutWithoutContextHasSeenOnlyItself(t *testing.T) {
	first := Dot{Actor: Actor{1}, Counter: 1}
	other := Dot{Actor: Actor{1}, Counter: 2}
	third := Dot{Actor: Actor{1}, Counter: 3}
	held, err := Mint(Set{}, nil, Sibling{Dot: first})
	if err != nil {
		t.Fatal(err)
	}
	if got := Answer(nil, held, first); !slices.Equal(got.Vector, held.Clock) || len(got.Dots) != 0 {
		t.Fatalf("a put that replaced all the node knew was answered %v", got)
	}
	if held, err = Mint(held, &Context{}, Sibling{Dot: other}); err != nil {
		t.Fatal(err)
	}
	answered := Answer(nil, held, first)
	if answered.Covers(other) {
		t.Fatal("the context covers a value that its client has never seen")
	}
	next, err := Mint(held, &answered, Sibling{Dot: third})
	if err != nil {
		t.Fatal(err)
	}
	if _, kept := next.Sibling(other); !kept {
		t.Fatal("the other client's value is lost")
	}
	if _, kept := next.Sibling(first); kept {
		t.Fatal("the client's own earlier value is still a sibling")
	}
}

// The other client's value may have superseded the first meanwhile: it is not seen either.
func TestRepeatedPutThatWasSuperseded(t *testing.T) {
	first := Dot{Actor: Actor{1}, Counter: 1}
	later := Dot{Actor: Actor{2}, Counter: 1}
	held := Set{Clock: Vector{}.With(first).With(later), Siblings: []Sibling{{Dot: later}}}
	if got := Answer(nil, held, first); got.Covers(later) || !got.Covers(first) {
		t.Fatalf("the context is %v", got)
	}
}
