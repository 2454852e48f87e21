package ring

import (
	"slices"
	"testing"
)

func TestChangeTokens(t *testing.T) {
	give := func(i int, tokens ...Slot) Change {
		return Change{Kind: ChangeTokens, Member: Member{ID: modelID(i), Tokens: tokens}}
	}
	heavy := Change{Kind: ChangeWeight, Member: Member{ID: modelID(0), Weight: 2, Tokens: []Slot{1, 2}}}
	for _, c := range []struct {
		name    string
		changes []Change
		tokens  []Slot // of member 0
	}{
		{"moves the tokens of a member", []Change{give(0, 5, 9)}, []Slot{5, 9}},
		{"the last in canonical order counts", []Change{give(0, 7), give(0, 5)}, []Slot{7}},
		{"a weight brings its own", []Change{give(0, 5), heavy}, []Slot{1, 2}},
		{"a joiner takes its place beside them", []Change{give(0, 5), join(1)}, []Slot{5}},
		{"of a stranger says nothing", []Change{give(3, 5), give(0, 6)}, []Slot{6}},
	} {
		l := founded().Settled().next(makeChangeSet(c.changes))
		slices.Reverse(c.changes)
		if o := founded().Settled().next(makeChangeSet(c.changes)); o.ID() != l.ID() {
			t.Errorf("%s: order matters", c.name)
		}
		if m, _ := l.Member(modelID(0)); !slices.Equal(m.Tokens, c.tokens) {
			t.Errorf("%s: tokens %v", c.name, m.Tokens)
		}
		if d, err := DecodeLayout(l.Encode()); err != nil || d.ID() != l.ID() {
			t.Errorf("%s: read back: %v", c.name, err)
		}
	}
	if err := give(0).Validate(); err == nil {
		t.Error("a change without tokens is taken")
	}
}
