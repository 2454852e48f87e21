package causal

import (
	"reflect"
	"testing"
)

func TestIdleEntriesLeave(t *testing.T) {
	a, b, c := Actor{1}, Actor{2}, Actor{3}
	s := Set{Clock: Vector{{a, 4}, {b, 2}, {c, 9}}, Siblings: []Sibling{{Dot: Dot{b, 1}}}}
	if got := s.Idle(); !reflect.DeepEqual(got, Vector{{a, 4}, {c, 9}}) {
		t.Errorf("idle are %v", got)
	}
	for _, test := range []struct {
		v    Vector
		has  bool
		left Vector
	}{
		{nil, true, s.Clock},
		{Vector{{a, 4}}, true, Vector{{b, 2}, {c, 9}}},
		{Vector{{a, 4}, {c, 9}}, true, Vector{{b, 2}}},
		{Vector{{a, 3}}, false, s.Clock},                        // more is known
		{Vector{{a, 5}}, false, Vector{{b, 2}, {c, 9}}},         // less is
		{Vector{{b, 2}}, false, s.Clock},                        // one of its writes is there
		{Vector{{a, 4}, {b, 2}}, false, Vector{{b, 2}, {c, 9}}}, // and leaves with none
		{Vector{{Actor{9}, 1}}, false, s.Clock},                 // nobody knows it
		{Vector{{a, 4}, {b, 7}, {c, 8}}, false, Vector{{b, 2}, {c, 9}}},
	} {
		if got := s.HasIdle(test.v); got != test.has {
			t.Errorf("%v are idle: %v", test.v, got)
		}
		got := s.Prune(test.v)
		if !reflect.DeepEqual(got.Clock, test.left) || got.Valid() != nil || len(got.Siblings) != 1 {
			t.Errorf("without %v: %v, want %v", test.v, got.Clock, test.left)
		}
		// Merging brings entries back, and no value: pruned and unpruned records agree in what they show.
		if back := Merge(got, s); !reflect.DeepEqual(back, s) {
			t.Errorf("merged with what it was: %v", back)
		}
	}
	if v := s.Clock; !reflect.DeepEqual(v.Without(v), Vector{}) || len(Vector(nil).Without(v)) != 0 {
		t.Error("a vector without itself is not empty")
	}
}
