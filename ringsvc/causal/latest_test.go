package causal

import "testing"

func TestLatest(t *testing.T) {
	at := func(actor byte, counter, time uint64) Sibling {
		return Sibling{Dot: Dot{Actor: Actor{actor}, Counter: counter}, Time: time}
	}
	clock := Vector(nil).With(Dot{Actor: Actor{1}, Counter: 9}).With(Dot{Actor: Actor{2}, Counter: 9})
	for name, tc := range map[string]struct {
		in   []Sibling
		want int // index; -1 for none
	}{
		"nothing":             {nil, -1},
		"one":                 {[]Sibling{at(1, 1, 5)}, 0},
		"by time":             {[]Sibling{at(1, 1, 5), at(1, 2, 7), at(2, 1, 6)}, 1},
		"equal times: by dot": {[]Sibling{at(1, 1, 5), at(1, 2, 5), at(2, 1, 5)}, 2},
	} {
		got := Set{Clock: clock, Siblings: tc.in}.Latest()
		if len(got.Clock) != len(clock) {
			t.Errorf("%s: the clock is %v", name, got.Clock)
		}
		if tc.want < 0 && len(got.Siblings) != 0 || tc.want >= 0 && (len(got.Siblings) != 1 || got.Siblings[0].Dot != tc.in[tc.want].Dot) {
			t.Errorf("%s: %v", name, got.Siblings)
		}
	}
}
