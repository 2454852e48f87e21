package ring

import "testing"

// A node that forgot its layouts relies on a view once enough of those who stay members have told it theirs.
func TestInformed(t *testing.T) {
	id := func(n byte) NodeID { return NodeID{n} }
	build := func(n byte, minW int) *View {
		member := func(n byte) Member {
			return Member{ID: id(n), Name: string(rune('a' + n)), Weight: 1, Tokens: RandomTokens(id(n), 4, nil)}
		}
		v := NewView(Found(ClusterID{1}, member(1), 3, minW))
		var joins []Change
		for i := byte(2); i <= n; i++ {
			joins = append(joins, Change{Kind: ChangeJoin, Member: member(i)})
		}
		if len(joins) == 0 {
			return v
		}
		l, err := v.Propose(joins)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range v.Required(l) {
			v.MarkSwitched(l.ID(), id)
		}
		return v
	}
	for _, c := range []struct {
		what    string
		members byte
		minW    int
		leaves  byte // 0 for nobody
		heard   []byte
		want    bool
	}{
		{"alone", 1, 2, 0, nil, true},
		{"nobody heard", 5, 2, 0, nil, false},
		{"itself heard", 5, 2, 0, []byte{1}, false},
		{"a stranger heard", 5, 2, 0, []byte{9}, false},
		{"one heard", 5, 2, 0, []byte{3}, true},
		{"one heard, who may have lost his knowledge too", 5, 3, 0, []byte{3}, false},
		{"two heard", 5, 3, 0, []byte{3, 4}, true},
		{"all others heard, fewer than a write has copies", 2, 3, 0, []byte{2}, true},
		{"one heard, who is about to leave", 5, 2, 3, []byte{3}, false},
	} {
		v := build(c.members, c.minW)
		if c.leaves != 0 {
			if _, err := v.Propose([]Change{{Kind: ChangeLeave, Member: Member{ID: id(c.leaves)}}}); err != nil {
				t.Fatal(err)
			}
		}
		heard := make(map[NodeID]bool)
		for _, n := range c.heard {
			heard[id(n)] = true
		}
		if got := v.Informed(id(1), func(id NodeID) bool { return heard[id] }); got != c.want {
			t.Errorf("%s: %v, not %v", c.what, got, c.want)
		}
	}
}
