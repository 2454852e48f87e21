package ring

import (
	"testing"
	"time"
)

func TestDecideRemoval(t *testing.T) {
	const after = 10 * time.Minute
	three, seven := grown(t, 3), grown(t, 7)
	pending := seven.Clone()
	if err := pending.MarkDead(modelID(5), false); err != nil {
		t.Fatal(err)
	}
	joining := seven.Clone() // a joiner that is marked dead is one too, before it is a member of the settled layout
	propose(t, joining, join(9))
	if err := joining.MarkDead(modelID(9), false); err != nil {
		t.Fatal(err)
	}
	gone := func(i int, d time.Duration) Absence { return Absence{ID: modelID(i), For: d} }
	for name, c := range map[string]struct {
		v     *View
		self  int
		away  []Absence
		after time.Duration
		want  RemovalVerdict
		who   int
	}{
		"nobody is away":           {seven, 0, nil, after, RemovalNone, 0},
		"not long enough":          {seven, 0, []Absence{gone(3, after-1)}, after, RemovalNone, 0},
		"long enough":              {seven, 0, []Absence{gone(3, after)}, after, RemovalNow, 3},
		"another decides":          {seven, 1, []Absence{gone(3, after)}, after, RemovalNone, 0},
		"the lowest is away":       {seven, 1, []Absence{gone(0, after)}, after, RemovalNow, 0},
		"the longest first":        {seven, 0, []Absence{gone(2, after), gone(4, 2*after)}, after, RemovalNow, 4},
		"the lowest of equals":     {seven, 0, []Absence{gone(4, after), gone(2, after)}, after, RemovalNow, 2},
		"a third is away":          {seven, 0, []Absence{gone(2, after), gone(4, 1), gone(6, 1)}, after, RemovalUnsafe, 2},
		"counted once":             {seven, 0, []Absence{gone(2, after), gone(2, after), gone(2, after)}, after, RemovalNow, 2},
		"never in one of three":    {three, 0, []Absence{gone(2, after)}, after, RemovalUnsafe, 2},
		"switched off":             {seven, 0, []Absence{gone(3, after)}, 0, RemovalNone, 0},
		"one at a time":            {pending, 0, []Absence{gone(5, after), gone(3, after)}, after, RemovalPending, 3},
		"after a joiner":           {joining, 0, []Absence{gone(3, after)}, after, RemovalPending, 3},
		"marked already":           {pending, 0, []Absence{gone(5, after)}, after, RemovalNone, 0},
		"a stranger is away":       {seven, 0, []Absence{{ID: NodeID{9}, For: after}}, after, RemovalNone, 0},
		"the decider is marked":    {pending, 5, []Absence{gone(0, after)}, after, RemovalNone, 0},
		"the decider is no member": {three, 6, []Absence{gone(0, after)}, after, RemovalNone, 0},
	} {
		who, got := DecideRemoval(c.v, modelID(c.self), c.away, c.after)
		if got != c.want || got != RemovalNone && who != modelID(c.who) {
			t.Errorf("%s: %d of %s", name, got, who)
		}
		if got == RemovalNow { // whoever it names can be marked
			if err := c.v.Clone().MarkDead(who, false); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
