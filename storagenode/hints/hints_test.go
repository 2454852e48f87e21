package hints

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/ring"
)

var epoch = time.Unix(1_700_000_000, 0)

func TestAdmit(t *testing.T) {
	limits := Limits{BytesMax: 100, AgeMax: time.Hour, TargetsMax: 2}
	for _, c := range []struct {
		name   string
		limits Limits
		load   Load
		add    int64
		full   bool
	}{
		{"first", limits, Load{}, 100, false},
		{"too large", limits, Load{}, 101, true},
		{"last byte", limits, Load{Bytes: 60, Targets: 1, Since: epoch}, 40, false},
		{"one more", limits, Load{Bytes: 60, Targets: 1, Since: epoch}, 41, true},
		{"smaller than what it replaces, beyond the bound", limits, Load{Bytes: 200, Targets: 1, Since: epoch}, -1, false},
		{"another node", limits, Load{Targets: 1}, 1, false},
		{"one node too many", limits, Load{Targets: 2}, 1, true},
		{"a known node", limits, Load{Targets: 2, Since: epoch}, 1, false},
		{"old enough", limits, Load{Targets: 1, Since: epoch.Add(-time.Hour)}, 1, false},
		{"too old", limits, Load{Targets: 1, Since: epoch.Add(-time.Hour - 1)}, 1, true},
		{"too old, and smaller", limits, Load{Targets: 1, Since: epoch.Add(-time.Hour - 1)}, -1, true},
		{"no bounds", Limits{}, Load{Bytes: math.MaxInt64 / 2, Targets: 1 << 20, Since: time.Unix(0, 0)}, 1 << 40, false},
	} {
		err := c.limits.Admit(epoch, c.load, c.add)
		if errors.Is(err, ErrFull) != c.full || err != nil && !c.full {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, bad := range []Limits{{BytesMax: -1}, {AgeMax: -1}, {TargetsMax: -1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func member(i int) ring.Member {
	return ring.Member{ID: ring.NodeID{byte(i + 1)}, Name: "n", Weight: 1}
}

// layouts returns a settled layout of n nodes and the proposal that replaces one of them.
func layouts(t testing.TB, n int) (*ring.Layout, *ring.Layout) {
	founder := member(0)
	founder.Tokens = ring.RandomTokens(founder.ID, 32, nil)
	v := ring.NewView(ring.Found(ring.ClusterID{1}, founder, 3, 2))
	var changes []ring.Change
	for i := 1; i < n; i++ {
		changes = append(changes, ring.Change{Kind: ring.ChangeJoin, Member: member(i)})
	}
	settle := func() {
		l := v.Newest()
		for _, mark := range []func(ring.LayoutID, ring.NodeID){v.MarkAcked, v.MarkSynced, v.MarkSwitched} {
			for _, id := range v.Required(l) {
				mark(l.ID(), id)
			}
		}
	}
	if _, err := v.Propose(changes); err != nil {
		t.Fatal(err)
	}
	settle()
	settled := v.Settled()
	next, err := v.Propose([]ring.Change{{Kind: ring.ChangeLeave, Member: member(0)}, {Kind: ring.ChangeJoin, Member: member(n)}})
	if err != nil {
		t.Fatal(err)
	}
	return settled, next
}

// A hint leaves when its target has it, while the target owns the slot everywhere; else when W owners of each layout do.
func TestRoute(t *testing.T) {
	settled, next := layouts(t, 6)
	rapid.Check(t, func(t *rapid.T) {
		live := [][]*ring.Layout{{settled}, {next}, {settled, next}}[rapid.IntRange(0, 2).Draw(t, "live")]
		slot := ring.Slot(rapid.IntRange(0, ring.Slots-1).Draw(t, "slot"))
		target := ring.NodeID{byte(rapid.IntRange(1, 9).Draw(t, "target"))}
		by := make([]ring.NodeID, rapid.IntRange(0, 8).Draw(t, "n"))
		for i := range by {
			by[i] = ring.NodeID{byte(rapid.IntRange(1, 7).Draw(t, "by"))}
		}
		r := RouteOf(live, target, slot)
		everywhere, enough := true, true
		for _, l := range live {
			everywhere = everywhere && slices.Contains(l.Primaries(slot), target)
			machines := map[ring.NodeID]bool{}
			for _, id := range by {
				if slices.Contains(l.Primaries(slot), id) {
					machines[id] = true
				}
			}
			enough = enough && len(machines) >= 2
		}
		want := enough
		if everywhere {
			want = slices.Contains(by, target)
		}
		if r.Rerouted == everywhere || r.Confirmed(by) != want {
			t.Fatalf("confirmed %v by %v, rerouted %v: %+v", r.Confirmed(by), by, r.Rerouted, r)
		}
		to := r.To(nil)
		if !r.Confirmed(to) || everywhere && !slices.Equal(to, []ring.NodeID{target}) {
			t.Fatalf("to %v: %+v", to, r)
		}
		for i, id := range to {
			if slices.Contains(to[:i], id) {
				t.Fatalf("%v names one twice", to)
			}
		}
		if !everywhere {
			for _, l := range live {
				for _, id := range l.Primaries(slot) {
					if !slices.Contains(to, id) {
						t.Fatalf("%v lacks the owner %v", to, id)
					}
				}
			}
		}
	})
	if (Route{}).Confirmed([]ring.NodeID{{1}}) {
		t.Error("a route to nobody is confirmed")
	}
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		records, bytes, more int
		want                 bool
	}{
		{0, 0, 1, true}, {0, 0, 3 << 20, true}, {1, 1, BatchBytes - 1, true}, {1, 1, BatchBytes, false},
		{BatchRecords - 1, 0, 1, true}, {BatchRecords, 0, 1, false},
	} {
		if got := Fits(c.records, c.bytes, c.more); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestPauseFor(t *testing.T) {
	last := time.Duration(0)
	for p := -0.5; p < 1.5; p += 0.01 {
		d := PauseFor(p)
		if d < last || d > PauseMax || p <= 0.05 && d != 0 || p >= 0.5 && d != PauseMax || p > 0.06 && d == 0 {
			t.Fatalf("%v at %v after %v", d, p, last)
		}
		last = d
	}
	if PauseFor(math.NaN()) != 0 || PauseFor(math.Inf(1)) != PauseMax {
		t.Error("odd pressures")
	}
}

func TestPacer(t *testing.T) {
	var p Pacer
	now := epoch
	expect := func(target Target, want Pass) {
		t.Helper()
		if got := p.Next(now, target); got != want {
			t.Fatalf("%+v: pass %d, want %d", target, got, want)
		}
	}
	alive, dead := Target{Count: 1, Alive: true, Layouts: 1}, Target{Count: 1, Layouts: 1}
	expect(Target{Alive: true}, Wait)
	expect(alive, All)
	p.Passed(now, All, alive, false)
	expect(alive, Wait)
	now = now.Add(RetryMin)
	expect(alive, All)
	for range 20 { // longer and longer, to a bound
		p.Passed(now, All, alive, false)
		expect(alive, Wait)
		now = now.Add(RetryMax)
		expect(alive, All)
	}
	p.Passed(now, All, alive, true)
	expect(alive, All)
	p.Passed(now, All, alive, false)
	// While it is away, only what belongs to others by now is looked for, once for each change of the layouts.
	now = now.Add(RetryMax)
	expect(dead, Moved)
	p.Passed(now, Moved, dead, false)
	expect(dead, Wait)
	now = now.Add(RetryMax)
	expect(dead, Moved)
	p.Passed(now, Moved, dead, true)
	expect(dead, Wait)
	dead.Layouts = 2
	expect(dead, Moved)
	p.Passed(now, Moved, dead, false)
	expect(dead, Wait)
	expect(alive, All) // it is back: what failed before says nothing
	p.Passed(now, All, alive, true)
	dead.Gone = true
	expect(dead, All)
}
