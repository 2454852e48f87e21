package ring

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func join(i int) Change {
	return Change{Kind: ChangeJoin, Member: modelMember(i, Slot(i)*1000+7)}
}

func leave(i int) Change { return Change{Kind: ChangeLeave, Member: Member{ID: modelID(i)}} }

func remove(i int) Change { return Change{Kind: ChangeRemove, Member: Member{ID: modelID(i)}} }

func replace(old, i int) Change {
	return Change{Kind: ChangeReplace, Old: modelID(old), Member: modelMember(i, 7)}
}

func abort(c Change) Change { return Change{Kind: ChangeAbort, Aborts: c.Name()} }

func founded() *View { return NewView(Found(ClusterID{1}, modelMember(0, 7), 3, 2)) }

// tester is what *testing.T and *rapid.T have in common here.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// settle marks everything required on the newest layout.
func settle(t tester, v *View) {
	t.Helper()
	l := v.Newest()
	for _, id := range v.Required(l) {
		v.MarkSwitched(l.ID(), id)
	}
	if v.Settled() != l || v.Newest() != l {
		t.Fatalf("%s did not settle: %s, %s", l.ID(), v.Settled().ID(), v.Newest().ID())
	}
}

func propose(t tester, v *View, changes ...Change) *Layout {
	t.Helper()
	l, err := v.Propose(changes)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func merge(t tester, v *View, others ...*View) *View {
	t.Helper()
	for _, o := range others {
		if _, err := v.Merge(o); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func members(l *Layout) (out []int) {
	for _, m := range l.Members() {
		out = append(out, int(m.ID[15])-1)
	}
	return out
}

func TestAJoinStepByStep(t *testing.T) {
	a, b := modelID(0), modelID(1)
	v := founded()
	fence := map[NodeID]Fence{}
	act := func(id NodeID, want StepKind) Step {
		t.Helper()
		s := NextStep(v, id, fence[id])
		if s.Kind != want {
			t.Fatalf("%s is to %s, want %s", id, s.Kind, want)
		}
		f := fence[id]
		switch s.Kind {
		case StepAck:
			f.Acked = s.Layout.ID()
			v.MarkAcked(s.Layout.ID(), id)
		case StepSync:
			v.MarkSynced(s.Layout.ID(), id)
		case StepSwitch:
			f.ReadEpoch = s.Layout.ID().Epoch
			v.MarkSwitched(s.Layout.ID(), id)
		}
		fence[id] = f
		return s
	}
	act(a, StepAck)
	act(a, StepNone)
	act(b, StepNone)
	old := v.Settled()
	l := propose(t, v, join(1))
	if l.ID().Epoch != 2 || l.Base() != old.ID() || len(v.Live()) != 2 || v.ReadLayout() != old {
		t.Fatalf("proposed %s on %s", l.ID(), l.Base())
	}
	act(a, StepAck)
	act(a, StepNone)
	if acked, synced, switched := v.Missing(l); !slices.Equal(acked, []NodeID{b}) || len(synced) != 2 || len(switched) != 2 {
		t.Fatalf("missing %v %v %v", acked, synced, switched)
	}
	if fence[a].AdmitWrite([]LayoutID{old.ID()}) || !fence[a].AdmitWrite(v.LiveIDs()) || !fence[a].AdmitRead(old.ID()) {
		t.Fatal("fence after acknowledging")
	}
	act(b, StepAck)
	for _, p := range act(b, StepSync).Pulls {
		if p.Need != 1 || !slices.Equal(p.Sources, []NodeID{a}) {
			t.Fatalf("pull %v", p)
		}
	}
	act(b, StepNone)
	if v.ReadLayout() != old {
		t.Fatal("read from a layout that is not synced")
	}
	act(a, StepSync)
	if v.ReadLayout() != l || v.Settled() != old {
		t.Fatal("synced, not settled")
	}
	act(a, StepSwitch)
	if fence[a].AdmitRead(old.ID()) || !fence[a].AdmitRead(l.ID()) {
		t.Fatal("fence after switching")
	}
	act(b, StepSwitch)
	if v.Settled() != l || len(v.LiveIDs()) != 1 || !v.AllSwitched(l) {
		t.Fatal("not settled")
	}
	act(a, StepNone)
	if x, y, z := v.Missing(l); x != nil || y != nil || z != nil {
		t.Fatal("something is missing of a settled layout")
	}
}

func TestPropose(t *testing.T) {
	v := founded()
	for name, c := range map[string]struct {
		changes []Change
		want    error
	}{
		"nothing":               {nil, ErrNoChange},
		"leave of a stranger":   {[]Change{leave(4)}, ErrNoChange},
		"last member leaves":    {[]Change{leave(0)}, ErrNoChange},
		"same description":      {[]Change{{Kind: ChangeJoin, Member: modelMember(0, 7)}}, ErrNoChange},
		"same replicas":         {[]Change{{Kind: ChangeReplicas, N: 3, MinW: 2}}, ErrNoChange},
		"join of nobody":        {[]Change{{Kind: ChangeJoin}}, ErrInvalid},
		"negative weight":       {[]Change{{Kind: ChangeWeight, Member: Member{ID: modelID(0), Weight: -1}}}, ErrInvalid},
		"weight of a stranger":  {[]Change{{Kind: ChangeWeight, Member: Member{ID: modelID(4), Weight: 2}}}, ErrInvalid},
		"writes above replicas": {[]Change{{Kind: ChangeReplicas, N: 2, MinW: 3}}, ErrInvalid},
		"unknown kind":          {[]Change{{Kind: 9}}, ErrInvalid},
	} {
		before := v.Hash()
		if l, err := v.Propose(c.changes); !errors.Is(err, c.want) || v.Hash() != before {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	l := propose(t, v, Change{Kind: ChangeJoin, Member: Member{ID: modelID(1), Weight: 2}}, Change{Kind: ChangeReplicas, N: 2, MinW: 1}, leave(4))
	if m, _ := l.Member(modelID(1)); len(m.Tokens) != 512 || l.N() != 2 || l.MinW() != 1 || l.ID().Epoch != 4 {
		t.Errorf("%s: %d tokens, n %d, w %d", l.ID(), len(m.Tokens), l.N(), l.MinW())
	}
	if _, err := v.Propose([]Change{join(2)}); !errors.Is(err, ErrUnsettled) {
		t.Errorf("second proposal: %v", err)
	}
}

func TestProposeRefusesAFullRing(t *testing.T) {
	var changes []Change
	for i := range MaxTokens/MaxTokensPerMember + 1 {
		id := testNode(i)
		changes = append(changes, Change{Kind: ChangeJoin, Member: Member{ID: id, Weight: MaxWeight, Tokens: RandomTokens(id, MaxTokensPerMember, nil)}})
	}
	v := founded()
	if _, err := v.Propose(changes); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over-full ring: %v", err)
	}
	// Two proposals that fit each may not fit together: everyone leaves out the same.
	w := founded()
	propose(t, v, changes[:len(changes)/2]...)
	propose(t, w, changes[len(changes)/2:]...)
	u := merge(t, v.Clone(), w)
	if merge(t, w, v).Newest().ID() != u.Newest().ID() {
		t.Error("the union depends on the order")
	}
	tokens := 0
	for _, m := range u.Newest().Members() {
		tokens += len(m.Tokens)
	}
	if tokens > MaxTokens || tokens < MaxTokens-MaxTokensPerMember {
		t.Errorf("%d tokens", tokens)
	}
	if _, err := DecodeView(u.Encode()); err != nil {
		t.Error(err)
	}
}

func TestConflictingChanges(t *testing.T) {
	heavy := Change{Kind: ChangeWeight, Member: Member{ID: modelID(1), Weight: 2, Tokens: []Slot{1, 2}}}
	for _, c := range []struct {
		name    string
		changes []Change
		members []int
		n, minW int
	}{
		{"leave wins over join", []Change{join(1), leave(1)}, []int{0}, 3, 2},
		{"leave wins over weight", []Change{join(1), heavy, leave(1)}, []int{0}, 3, 2},
		{"nobody left: the lowest id stays", []Change{leave(0)}, []int{0}, 3, 2},
		{"fewer than N would be left", []Change{leave(0), join(1)}, []int{0, 1}, 3, 2},
		{"as many as N are left", []Change{leave(0), join(1), {Kind: ChangeReplicas, N: 1, MinW: 1}}, []int{1}, 1, 1},
		{"a removal leaves however few", []Change{remove(0), join(1)}, []int{1}, 3, 2},
		{"a removal wins over a join", []Change{remove(0), join(0), join(1)}, []int{1}, 3, 2},
		{"replaced", []Change{replace(0, 1)}, []int{1}, 3, 2},
		{"a replacement wins over a removal", []Change{replace(0, 1), remove(0)}, []int{1}, 3, 2},
		{"the first replacement counts", []Change{replace(0, 2), replace(0, 1)}, []int{1}, 3, 2},
		{"a replacement that leaves again", []Change{replace(0, 1), leave(1)}, []int{0}, 3, 2},
		{"a replacement of nobody", []Change{replace(5, 1)}, []int{0}, 3, 2},
		{"aborted join", []Change{join(1), join(2), abort(join(1))}, []int{0, 2}, 3, 2},
		{"aborted replacement", []Change{replace(0, 1), abort(replace(0, 1))}, []int{0}, 3, 2},
		{"an abort of an abort aborts nothing", []Change{join(1), abort(join(1)), abort(abort(join(1)))}, []int{0}, 3, 2},
		{"highest replicas count", []Change{{Kind: ChangeReplicas, N: 2, MinW: 2}, {Kind: ChangeReplicas, N: 5, MinW: 1}}, []int{0}, 5, 2},
		{"fewer replicas", []Change{{Kind: ChangeReplicas, N: 2, MinW: 1}}, []int{0}, 2, 1},
	} {
		l := founded().Settled().next(makeChangeSet(c.changes))
		slices.Reverse(c.changes)
		if o := founded().Settled().next(makeChangeSet(c.changes)); o.ID() != l.ID() {
			t.Errorf("%s: order matters", c.name)
		}
		if !slices.Equal(members(l), c.members) || l.N() != c.n || l.MinW() != c.minW {
			t.Errorf("%s: members %v, n %d, w %d", c.name, members(l), l.N(), l.MinW())
		}
	}
	l := founded().Settled().next(makeChangeSet([]Change{heavy, join(1)}))
	if m, _ := l.Member(modelID(1)); m.Weight != 2 || m.Name != "n1" {
		t.Errorf("weight after join: %v", m)
	}
}

func TestConcurrentProposalsUnite(t *testing.T) {
	base := founded()
	x, y, z := base.Clone(), base.Clone(), base.Clone()
	propose(t, x, join(1))
	propose(t, y, join(2))
	propose(t, z, join(3), leave(4))
	one := merge(t, x.Clone(), y, z)
	two := merge(t, z.Clone(), merge(t, y.Clone(), x))
	if !bytes.Equal(one.Encode(), two.Encode()) {
		t.Error("the union depends on the order")
	}
	if l := one.Newest(); l.ID().Epoch != 5 || !slices.Equal(members(l), []int{0, 1, 2, 3}) || l.Base() != base.Settled().ID() {
		t.Errorf("union %s of %v", l.ID(), members(l))
	}
	f := Fence{Acked: x.Newest().ID()}
	if s := NextStep(one, modelID(0), f); s.Kind != StepAck || s.Layout != one.Newest() {
		t.Errorf("who promised a part is to %s", s.Kind)
	}
}

// TestMarksBeforeChanges: acknowledgements of a layout arrive before what it consists of.
func TestMarksBeforeChanges(t *testing.T) {
	full := founded()
	l := propose(t, full, join(1))
	early := founded()
	early.MarkAcked(l.ID(), modelID(0))
	early.MarkSwitched(l.ID(), modelID(1))
	if early.Newest() != early.Settled() || len(early.marks) != 1 {
		t.Fatal("marks without changes are to be kept, and no more")
	}
	again, err := DecodeView(early.Encode())
	if err != nil {
		t.Fatal(err)
	}
	merge(t, again, full)
	if acked, _, switched := again.Missing(again.Newest()); len(acked) != 0 || !slices.Equal(switched, []NodeID{modelID(0)}) {
		t.Errorf("after the changes came: %v not acked, %v not switched", acked, switched)
	}
	// All marks known, changes last: it settles on arrival.
	for _, id := range []NodeID{modelID(0), modelID(1)} {
		early.MarkSwitched(l.ID(), id)
	}
	merge(t, early, full)
	if early.Settled().ID() != l.ID() || len(early.marks)+len(early.pools) != 0 {
		t.Errorf("settled %s, %d marks, %d pools", early.Settled().ID(), len(early.marks), len(early.pools))
	}
}

// TestChangesBeforeTheirBase: a proposal arrives on a base that is not settled here yet.
func TestChangesBeforeTheirBase(t *testing.T) {
	ahead := founded()
	first := propose(t, ahead, join(1))
	behind := ahead.Clone()
	settle(t, ahead)
	second := propose(t, ahead, join(2))
	behind.pools[second.Base()] = ahead.pools[second.Base()]
	behind.MarkAcked(second.ID(), modelID(1))
	if behind.Newest().ID() != first.ID() {
		t.Fatalf("newest %s, want %s", behind.Newest().ID(), first.ID())
	}
	decoded, err := DecodeView(behind.Encode())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range decoded.Required(first) {
		decoded.MarkSwitched(first.ID(), id)
	}
	if decoded.Settled().ID() != first.ID() || decoded.Newest().ID() != second.ID() || decoded.marks[second.ID()][modelID(1)] != markAcked {
		t.Errorf("settled %s, newest %s", decoded.Settled().ID(), decoded.Newest().ID())
	}
}

func TestFarBehindJumps(t *testing.T) {
	old := founded()
	now := old.Clone()
	stale := old.Clone()
	propose(t, stale, join(1))
	stale.MarkAcked(stale.Newest().ID(), modelID(0))
	for i := 1; i < 6; i++ {
		propose(t, now, join(i))
		settle(t, now)
	}
	propose(t, now, leave(1))
	for _, v := range []*View{old, stale} {
		changed, err := v.Merge(now)
		if err != nil || !changed || !bytes.Equal(v.Encode(), now.Encode()) {
			t.Errorf("after the jump: %s and %s, %v", v.Settled().ID(), v.Newest().ID(), err)
		}
		if changed, _ := now.Merge(v); changed {
			t.Error("nothing was new")
		}
	}
	if late := founded(); merge(t, now, late).Settled().ID().Epoch != 6 {
		t.Error("an old view took something away")
	}
}

// TestMissedChangeIsCarriedOver: someone who is not asked proposes, and the layout settles without it after a member promised the union.
func TestMissedChangeIsCarriedOver(t *testing.T) {
	v := founded()
	stranger := v.Clone()
	propose(t, stranger, join(2))
	first := propose(t, v, join(1))
	member := merge(t, v.Clone(), stranger)
	f := Fence{Acked: member.Newest().ID()}
	settle(t, v)
	one := merge(t, v.Clone(), member)
	two := merge(t, member.Clone(), v)
	if !bytes.Equal(one.Encode(), two.Encode()) {
		t.Fatal("order matters")
	}
	if one.Settled().ID() != first.ID() || !slices.Equal(members(one.Newest()), []int{0, 1, 2}) {
		t.Fatalf("settled %s, newest %v", one.Settled().ID(), members(one.Newest()))
	}
	if s := NextStep(one, modelID(0), f); s.Kind != StepAck {
		t.Errorf("the member that promised %s is to %s about %s: it would refuse writes for ever", f.Acked, s.Kind, one.Newest().ID())
	}
	settle(t, one)
	if len(one.pools)+len(one.marks) != 0 {
		t.Error("something is left over")
	}
}

// A proposer loses its disk, and only a gateway remembers what it proposed. Two layouts later a member that has switched already promises
// what the gateway made of it; the others settle without. Found by the simulator.
func TestPromiseThatNothingMeetsIsOvertaken(t *testing.T) {
	v := founded()
	settle(t, v)
	propose(t, v, join(1), join(2), join(3))
	settle(t, v)
	gateway := v.Clone()
	propose(t, gateway, join(4))
	propose(t, v, Change{Kind: ChangeWeight, Member: Member{ID: modelID(1), Weight: 2}})
	settle(t, v)
	merge(t, gateway, v)
	third := propose(t, v, Change{Kind: ChangeWeight, Member: Member{ID: modelID(2), Weight: 2}})
	late := v.Clone()
	settle(t, v)
	late.MarkSwitched(third.ID(), modelID(2))
	merge(t, late, gateway)
	f := Fence{Acked: late.Newest().ID(), ReadEpoch: third.ID().Epoch}
	if s := NextStep(late, modelID(2), Fence{Acked: third.ID()}); s.Kind != StepAck || f.Acked.Epoch <= third.ID().Epoch {
		t.Fatalf("it is to %s about %s", s.Kind, f.Acked)
	}
	merge(t, late, v)
	if late.Newest().ID() != third.ID() || f.AdmitWrite(late.LiveIDs()) {
		t.Fatalf("newest %s, promised %s: nothing is wrong", late.Newest().ID(), f.Acked)
	}
	s := NextStep(late, modelID(2), f)
	if s.Kind != StepOvertake {
		t.Fatalf("it is to %s: it would refuse writes for ever", s.Kind)
	}
	other := late.Clone()
	for _, v := range []*View{late, other} {
		if err := v.Overtake(f.Acked); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(late.Encode(), other.Encode()) || !bytes.Equal(merge(t, late.Clone(), other).Encode(), late.Encode()) {
		t.Error("two that overtake one promise do not say the same")
	}
	if s := NextStep(late, modelID(2), f); s.Kind != StepAck || !slices.EqualFunc(late.Newest().Members(), third.Members(), sameMember) {
		t.Fatalf("it is to %s about %v", s.Kind, members(late.Newest()))
	}
	settle(t, late)
	if f := (Fence{Acked: late.Settled().ID()}); !f.AdmitWrite(late.LiveIDs()) || len(late.pools)+len(late.marks) != 0 {
		t.Error("it does not come to rest")
	}
	if s := NextStep(late, modelID(5), f); s.Kind != StepNone {
		t.Errorf("one that is no member is to %s", s.Kind)
	}
}

func TestMergeRefuses(t *testing.T) {
	v := founded()
	other := NewView(Found(ClusterID{2}, modelMember(0, 7), 3, 2))
	if _, err := v.Merge(other); !errors.Is(err, ErrForeignCluster) {
		t.Error(err)
	}
	crowd := founded()
	for i := range 2 * maxMarked {
		crowd.MarkAcked(LayoutID{Epoch: 9, Hash: [16]byte{byte(i), 1}}, modelID(0))
		v.MarkAcked(LayoutID{Epoch: 9, Hash: [16]byte{byte(i), 2}}, modelID(0))
	}
	before := v.Hash()
	if _, err := v.Merge(crowd); !errors.Is(err, ErrTooLarge) || v.Hash() != before || len(v.marks) != maxMarked {
		t.Errorf("%d marked layouts, %v", len(v.marks), err)
	}
}

func TestFence(t *testing.T) {
	id := func(epoch uint64, h byte) LayoutID { return LayoutID{Epoch: epoch, Hash: [16]byte{h}} }
	f := Fence{Acked: id(5, 1), ReadEpoch: 5}
	for _, c := range []struct {
		live []LayoutID
		want bool
	}{
		{[]LayoutID{id(4, 0), id(5, 1)}, true},
		{[]LayoutID{id(5, 1)}, true},
		{[]LayoutID{id(4, 0)}, false},
		{[]LayoutID{id(4, 0), id(5, 2)}, false}, // same epoch, other layout
		{[]LayoutID{id(4, 0), id(6, 2)}, false}, // newer proposal that does not know ours
		{[]LayoutID{id(5, 2)}, true},            // settled at that epoch: ours was overtaken
		{[]LayoutID{id(6, 2), id(7, 2)}, true},
		{nil, false},
	} {
		if got := f.AdmitWrite(c.live); got != c.want {
			t.Errorf("write with %v: %v", c.live, got)
		}
	}
	if f.AdmitRead(id(4, 0)) || !f.AdmitRead(id(5, 9)) || !f.AdmitRead(id(6, 0)) {
		t.Error("reads")
	}
	v := founded()
	l := propose(t, v, join(1))
	if s := NextStep(v, modelID(0), Fence{Acked: id(2, 9)}); s.Kind != StepOvertake {
		t.Errorf("a promise for another layout of epoch 2 was taken back: %s", s.Kind)
	}
	if s := NextStep(v, modelID(0), Fence{Acked: l.ID()}); s.Kind != StepAck {
		t.Errorf("a promise that the view does not show is to %s", s.Kind)
	}
	if !(Fence{}).AdmitWrite([]LayoutID{id(1, 1)}) {
		t.Error("a node that promised nothing refuses")
	}
}

// sampleViews runs the model for a while and takes the views of everyone in it, some of them in part.
func sampleViews(t *rapid.T) []*View {
	variants := []modelVariant{
		{members: 3}, {members: 4, shrink: true}, {members: 4, shrink: true, parts: true}, {members: 1, grow: true},
		{members: 4, deaths: true, aborts: true, parts: true},
	}
	variant := rapid.SampledFrom(variants).Draw(t, "variant")
	m := newModel(rapid.Uint64().Draw(t, "seed"), variant, "")
	m.gossip = 1
	var out []*View
	for _, steps := range []int{30, 60, 200, 400} {
		if !rapid.Bool().Draw(t, "sample") {
			continue
		}
		for range steps {
			if err := m.step(); err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range m.gateways {
			out = append(out, g.Clone())
		}
		for _, n := range m.nodes {
			whole := n.view.Clone()
			out = append(out, whole)
			part := n.view.Clone()
			for base := range part.pools {
				if rapid.Bool().Draw(t, "drop changes") {
					delete(part.pools, base)
				}
			}
			for id, marks := range part.marks {
				for node := range marks {
					if m.rnd.IntN(2) == 0 {
						delete(marks, node)
					}
				}
				if len(marks) == 0 {
					delete(part.marks, id)
				}
			}
			part.resolve()
			out = append(out, part)
		}
	}
	return out
}

// arbitraryViews share a settled layout and hold any changes and marks on it, also such as the protocol never brings about.
func arbitraryViews(t *rapid.T) []*View {
	base := founded()
	propose(t, base, join(1))
	settle(t, base)
	change := rapid.Custom(func(t *rapid.T) Change {
		i := rapid.IntRange(0, 4).Draw(t, "node")
		return []Change{leave(i), join(i), remove(i), replace(i, (i+1)%5), abort(join(i))}[rapid.IntRange(0, 4).Draw(t, "kind")]
	})
	var known []LayoutID
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *View {
		v := base.Clone()
		changes := rapid.SliceOfN(change, 0, 3).Draw(t, "changes")
		if len(changes) > 0 {
			at := rapid.SampledFrom([]LayoutID{base.settled.id, base.settled.base, {Epoch: 4}, {Epoch: 1}}).Draw(t, "base")
			v.pools[at] = makeChangeSet(changes)
		}
		for range rapid.IntRange(0, 2).Draw(t, "dead") {
			id := modelID(rapid.IntRange(0, 4).Draw(t, "who"))
			v.dead[id] = v.dead[id] || rapid.Bool().Draw(t, "loss")
		}
		v.resolve()
		known = append(known, v.newest.id, LayoutID{Epoch: rapid.Uint64Range(1, 6).Draw(t, "epoch")})
		for range rapid.IntRange(0, 3).Draw(t, "marks") {
			v.mark(rapid.SampledFrom(known).Draw(t, "layout"), modelID(rapid.IntRange(0, 4).Draw(t, "by")), rapid.SampledFrom([]uint8{markAcked, markSynced}).Draw(t, "mark"))
		}
		return v
	}), 3, 6).Draw(t, "views")
}

func TestMergeIsAJoin(t *testing.T) {
	check := func(sample func(*rapid.T) []*View) func(*rapid.T) {
		return func(t *rapid.T) {
			views := sample(t)
			if len(views) == 0 {
				return
			}
			pick := func(name string) *View { return views[rapid.IntRange(0, len(views)-1).Draw(t, name)] }
			for range 20 {
				a, b, c := pick("a"), pick("b"), pick("c")
				ab, ba := joined(t, a, b), joined(t, b, a)
				if !bytes.Equal(ab.Encode(), ba.Encode()) {
					t.Fatalf("not commutative:\n%s\n%s", describe(ab), describe(ba))
				}
				left, right := joined(t, ab, c), joined(t, a, joined(t, b, c))
				if !bytes.Equal(left.Encode(), right.Encode()) {
					t.Fatalf("not associative:\n%s\n%s", describe(left), describe(right))
				}
				if again := joined(t, joined(t, left, a), left); !bytes.Equal(again.Encode(), left.Encode()) {
					t.Fatal("not idempotent")
				}
				back, err := DecodeView(left.Encode())
				if err != nil || !bytes.Equal(back.Encode(), left.Encode()) || back.Newest().ID() != left.Newest().ID() {
					t.Fatalf("through bytes: %v", err)
				}
			}
		}
	}
	t.Run("of views in a running cluster", rapid.MakeCheck(check(sampleViews)))
	t.Run("of arbitrary views", rapid.MakeCheck(check(arbitraryViews)))
}

// joined merges copies, and holds the answer of Merge against what happened.
func joined(t *rapid.T, a, b *View) *View {
	out, before := a.Clone(), b.Hash()
	changed, err := out.Merge(b)
	if err != nil {
		t.Fatal(err)
	}
	if changed != (out.Hash() != a.Hash()) || changed == bytes.Equal(out.Encode(), a.Encode()) {
		t.Fatalf("merge says changed: %v", changed)
	}
	if b.Hash() != before {
		t.Fatal("merge modified its argument")
	}
	return out
}

func describe(v *View) string {
	s := "settled " + v.Settled().ID().String() + " newest " + v.Newest().ID().String()
	for base, set := range v.pools {
		s += " on " + base.String() + ":"
		for _, c := range set {
			s += " " + c.Kind.String() + c.Member.Name
		}
	}
	for id, m := range v.marks {
		s += " marks of " + id.String() + ":"
		for node, mark := range m {
			s += " " + node.String()[30:] + "=" + string('0'+rune(mark))
		}
	}
	return s
}

// TestCloneSharesNothing: a clone and its origin go apart.
func TestCloneSharesNothing(t *testing.T) {
	v := founded()
	l := propose(t, v, join(1))
	v.MarkAcked(l.ID(), modelID(0))
	c := v.Clone()
	before := v.Encode()
	settle(t, c)
	propose(t, c, join(2))
	if !bytes.Equal(v.Encode(), before) {
		t.Error("the origin changed with its clone")
	}
}

// TestHashTellsChanges: every single change to a view changes its hash.
func TestHashTellsChanges(t *testing.T) {
	v := founded()
	seen := map[uint64]bool{v.Hash(): true}
	expect := func(what string) {
		t.Helper()
		if h := v.Hash(); seen[h] {
			t.Errorf("%s: hash unchanged", what)
		} else {
			seen[h] = true
		}
	}
	l := propose(t, v, join(1))
	expect("proposed")
	for _, mark := range []func(LayoutID, NodeID){v.MarkAcked, v.MarkSynced, v.MarkSwitched} {
		for _, id := range []NodeID{modelID(0), modelID(1)} {
			mark(l.ID(), id)
			expect("marked")
		}
	}
	if v.Settled() != l {
		t.Error("not settled")
	}
	v.MarkAcked(l.ID(), modelID(0))
	if !seen[v.Hash()] {
		t.Error("a mark on a settled layout changed the view")
	}
}

// TestViewStaysBounded: a long life of changes leaves nothing behind.
func TestViewStaysBounded(t *testing.T) {
	v := founded()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		other := v.Clone()
		changes := []Change{join(1 + i%5), leave(1 + (i+2)%5)}
		a, errA := v.Propose(changes[:1])
		b, errB := other.Propose(changes[1:])
		if errA == nil {
			v.MarkSynced(a.ID(), modelID(rnd.IntN(6)))
		}
		if errB == nil {
			other.MarkSynced(b.ID(), modelID(rnd.IntN(6)))
		}
		merge(t, v, other)
		if v.Newest() != v.Settled() {
			settle(t, v)
		}
		if len(v.pools)+len(v.marks) != 0 {
			t.Fatalf("after %d changes: %d pools, %d marked layouts", i, len(v.pools), len(v.marks))
		}
	}
	if v.Settled().ID().Epoch < 100 || len(v.Encode()) > 2000 {
		t.Errorf("epoch %d in %d bytes", v.Settled().ID().Epoch, len(v.Encode()))
	}
}
