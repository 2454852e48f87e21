package ring

import (
	"errors"
	"slices"
	"testing"
)

// grown is a settled cluster of the first n nodes of the model.
func grown(t tester, n int) *View {
	v := founded()
	var joins []Change
	for i := 1; i < n; i++ {
		joins = append(joins, join(i))
	}
	propose(t, v, joins...)
	settle(t, v)
	return v
}

// A change that waits for a dead member goes on once that is marked, the next takes its tokens, and nothing is pulled from it.
func TestADeadMemberIsPassedOver(t *testing.T) {
	v := grown(t, 4)
	l := propose(t, v, join(4))
	for _, i := range []int{0, 1, 2, 4} {
		v.MarkSwitched(l.ID(), modelID(i))
	}
	if v.Settled() == l {
		t.Fatal("settled without member 3")
	}
	if err := v.MarkDead(modelID(6), false); !errors.Is(err, ErrInvalid) {
		t.Errorf("mark of a stranger: %v", err)
	}
	if err := v.MarkDead(modelID(3), false); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 2, 4} {
		if v.Settled() == l {
			t.Fatalf("settled before member %d confirmed that 3 is dead", i)
		}
		if s := NextStep(v, modelID(i), Fence{}); s.Kind != StepConfirm || s.Dead != modelID(3) {
			t.Errorf("member %d is to %s", i, s.Kind)
		}
		v.ConfirmDead(modelID(3), modelID(i))
	}
	if v.Settled() != l {
		t.Fatal("the change still waits for the dead member")
	}
	if v.Accepts(modelID(3), v) || v.Accepts(modelID(6), v) || !v.Accepts(modelID(4), v) {
		t.Error("accepts the wrong ones' views")
	}
	if err := v.MarkDead(modelID(2), false); !errors.Is(err, ErrRemovalPending) {
		t.Errorf("second mark: %v", err)
	}
	if _, err := v.Propose([]Change{remove(1)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("removal of the living: %v", err)
	}
	next := propose(t, v, v.Removals()...)
	for _, i := range []int{0, 1, 2, 4} {
		v.ConfirmDead(modelID(3), modelID(i))
	}
	if s := NextStep(v, modelID(3), Fence{}); s.Kind != StepNone {
		t.Errorf("the dead is to %s", s.Kind)
	}
	for _, id := range v.Required(next) {
		v.MarkAcked(next.ID(), id)
	}
	pulled := 0
	for _, p := range NextStep(v, modelID(4), Fence{Acked: next.ID()}).Pulls {
		old := l.Primaries(p.Range.From)
		if slices.Contains(p.Sources, modelID(3)) || p.Need != 2 {
			t.Errorf("%v is pulled from %v, at least %d", p.Range, p.Sources, p.Need)
		}
		if slices.Contains(old, modelID(3)) {
			pulled++
		}
	}
	if pulled == 0 {
		t.Error("nothing of the dead member's is pulled")
	}
	settle(t, v)
	if len(v.Removals()) != 0 || !slices.Equal(members(v.Settled()), []int{0, 1, 2, 4}) {
		t.Errorf("members %v", members(v.Settled()))
	}
	if err := v.MarkDead(modelID(2), false); err != nil {
		t.Errorf("second mark after the first removal: %v", err)
	}
	if _, err := v.Propose([]Change{join(3)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("the dead comes back: %v", err)
	}
}

// A change that only a dead member knew must not slip into a layout that somebody already knows to be settled: whoever might still hear of it
// from there has not confirmed, and until then nobody settles.
func TestNobodySettlesBeforeAllConfirm(t *testing.T) {
	base := grown(t, 4)
	cutOff := base.Clone()
	propose(t, cutOff, join(5)) // by member 3, before it was cut off
	v := base.Clone()
	l := propose(t, v, join(4))
	all := []int{0, 1, 2, 4}
	for _, i := range all {
		v.MarkSwitched(l.ID(), modelID(i))
	}
	marked := v.Clone()
	if err := marked.MarkDead(modelID(3), false); err != nil {
		t.Fatal(err)
	}
	for _, i := range all[1:] {
		marked.ConfirmDead(modelID(3), modelID(i))
	}
	late := merge(t, v, cutOff) // member 0, which has not heard that 3 is dead, hears of its change
	if marked.Settled() == l {
		t.Fatal("settled while member 0 may bring another change on the same base")
	}
	if u := merge(t, marked, late); u.Settled().ID() != base.Settled().ID() || u.Newest().ID() != late.Newest().ID() {
		t.Errorf("settled %s, newest %s", u.Settled().ID(), u.Newest().ID())
	}
}

// Where two are marked at once, the slots that lost their quorum are named, and wait until the loss is accepted.
func TestLossWaitsUntilItIsAccepted(t *testing.T) {
	a, b := grown(t, 4), grown(t, 4)
	for v, i := range map[*View]int{a: 2, b: 3} {
		if err := v.MarkDead(modelID(i), false); err != nil {
			t.Fatal(err)
		}
	}
	v := merge(t, a, b)
	l := propose(t, v, v.Removals()...)
	short := v.Short(l)
	for s := range Slot(Slots) {
		owners := v.Settled().Primaries(s)
		want := slices.Contains(owners, modelID(2)) && slices.Contains(owners, modelID(3))
		if got := slices.ContainsFunc(short, func(r Range) bool { return r.Contains(s) }); got != want {
			t.Fatalf("slot %d of %v is short: %v", s, owners, got)
		}
	}
	needs := func() (more, all int) {
		for _, p := range v.syncPulls(l, modelID(0)) {
			if all++; p.Need > len(p.Sources) {
				more++
			}
		}
		return more, all
	}
	if more, _ := needs(); len(short) == 0 || more == 0 {
		t.Fatal("no slot lost its quorum")
	}
	if err := v.MarkDead(modelID(3), true); err != nil {
		t.Fatal(err)
	}
	if more, all := needs(); len(v.Short(l)) > 0 || more > 0 || all == 0 {
		t.Errorf("after the loss is accepted %d of %d pulls still wait", more, all)
	}
	if u := merge(t, a, v); !u.dead[modelID(3)] {
		t.Error("that the loss is accepted does not spread")
	}
}

// An abort takes back all that is under way but removals, wins over whoever hears of it later, and comes too late once all have synced.
func TestAbort(t *testing.T) {
	v := grown(t, 4)
	if _, err := v.Abort(modelID(0)); !errors.Is(err, ErrNoChange) {
		t.Errorf("abort of nothing: %v", err)
	}
	if err := v.MarkDead(modelID(3), false); err != nil {
		t.Fatal(err)
	}
	l := propose(t, v, append(v.Removals(), join(4), leave(2))...)
	other := v.Clone()
	aborted, err := v.Abort(modelID(0))
	if err != nil || !slices.Equal(members(aborted), []int{0, 1, 2}) || !l.ID().Less(aborted.ID()) {
		t.Fatalf("%v, members %v", err, members(aborted))
	}
	if _, err := v.Abort(modelID(0)); !errors.Is(err, ErrNoChange) {
		t.Errorf("second abort: %v", err)
	}
	if merge(t, other, v).Newest().ID() != aborted.ID() {
		t.Error("the abort does not spread")
	}
	for _, id := range v.Required(aborted) {
		v.ConfirmDead(modelID(3), id)
	}
	settle(t, v)
	next := propose(t, v, join(4))
	// One that has synced cannot know whether all have: somebody may read by the layout, whom writers after the abort would not satisfy.
	v.MarkSynced(next.ID(), modelID(0))
	if _, err := v.Abort(modelID(0)); !errors.Is(err, ErrSynced) {
		t.Errorf("abort by one that has synced: %v", err)
	}
	if _, err := v.Clone().Abort(modelID(1)); err != nil {
		t.Errorf("abort by one that has not synced: %v", err)
	}
	for _, id := range v.Required(next) {
		v.MarkSynced(next.ID(), id)
	}
	if _, err := v.Abort(modelID(0)); !errors.Is(err, ErrNoChange) {
		t.Errorf("abort of what all have synced: %v", err)
	}
}

// Leaves that are safe one by one unite into a layout that keeps N members, the same for everyone, and says who stays.
func TestLeavesThatUniteKeepEnoughMembers(t *testing.T) {
	base := grown(t, 5)
	var all []*View
	for i := range 4 {
		v := base.Clone()
		if l := propose(t, v, leave(i)); len(l.Members()) != 4 || len(l.Kept()) != 0 {
			t.Fatalf("one leave: %v", members(l))
		}
		all = append(all, v)
	}
	up, down := base.Clone(), base.Clone()
	for i := range all {
		up, down = merge(t, up, all[i]), merge(t, down, all[len(all)-1-i])
	}
	l := up.Newest()
	if down.Newest().ID() != l.ID() || !slices.Equal(members(l), []int{2, 3, 4}) {
		t.Errorf("members %v, and %v", members(l), members(down.Newest()))
	}
	if !slices.Equal(l.Kept(), []NodeID{modelID(2), modelID(3)}) {
		t.Errorf("kept %v", l.Kept())
	}
}

// A replacement has the tokens and the weight of the one it replaces, so that no other member's ranges change.
func TestReplaceMovesOnePlace(t *testing.T) {
	v := grown(t, 4)
	old := v.Settled()
	l := propose(t, v, Change{Kind: ChangeReplace, Old: modelID(1), Member: Member{ID: modelID(5), Name: "new", Zone: "z1"}})
	was, _ := old.Member(modelID(1))
	is, _ := l.Member(modelID(5))
	if !slices.Equal(was.Tokens, is.Tokens) || was.Weight != is.Weight {
		t.Errorf("%v took the place of %v", is, was)
	}
	for s := range Slot(Slots) {
		want := slices.Clone(old.Primaries(s))
		if i := slices.Index(want, modelID(1)); i >= 0 {
			want[i] = modelID(5)
		}
		if !slices.Equal(want, l.Primaries(s)) {
			t.Fatalf("slot %d: %v, want %v", s, l.Primaries(s), want)
		}
	}
	moved := Gained(old, l)
	if len(moved) != 1 || moved[modelID(5)] == 0 {
		t.Errorf("moved to %v", moved)
	}
	if _, err := v.Propose([]Change{replace(1, 5)}); !errors.Is(err, ErrUnsettled) {
		t.Errorf("second proposal: %v", err)
	}
	settle(t, v)
	for name, c := range map[string]Change{"a member": replace(2, 5), "of a stranger": replace(1, 6)} {
		if _, err := v.Propose([]Change{c}); !errors.Is(err, ErrInvalid) {
			t.Errorf("replacement by or %s: %v", name, err)
		}
	}
}

// What a gateway remembers counts, though it is no member: whoever proposed it may have lost its disk. But not while a member marked dead holds
// tokens, from which the gateway may have it; afterwards it does again.
func TestWhoseViewIsAccepted(t *testing.T) {
	v := grown(t, 4)
	gateway := v.Clone()
	propose(t, gateway, join(5))
	if !v.Accepts(NodeID{}, gateway) || !v.Accepts(modelID(1), gateway) {
		t.Error("a proposal that only a gateway remembers is lost")
	}
	if err := v.MarkDead(modelID(3), false); err != nil {
		t.Fatal(err)
	}
	if v.Accepts(NodeID{}, gateway) || v.Accepts(modelID(3), gateway) || !v.Accepts(modelID(1), gateway) {
		t.Error("a proposal that may be a dead member's is taken before its removal, or a member's is not")
	}
	for _, i := range []int{0, 1, 2} {
		v.ConfirmDead(modelID(3), modelID(i))
	}
	l := propose(t, v, v.Removals()...)
	for _, i := range []int{0, 1, 2} {
		v.MarkSwitched(l.ID(), modelID(i))
	}
	if v.Settled() != l || !v.Accepts(NodeID{}, gateway) || v.Accepts(modelID(3), gateway) {
		t.Error("after the removal a gateway's proposal is not taken, or the dead member's is")
	}
	if late := grown(t, 3); !late.Accepts(modelID(6), v) {
		t.Error("a newer settled layout is not taken")
	}
}
