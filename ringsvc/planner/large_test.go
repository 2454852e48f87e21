package planner

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

var nodes = flag.Int("nodes", 80, "members of the large cluster")

// neighbours is how many others each member shares ranges with: the mean, and the most.
func neighbours(l *ring.Layout) (mean float64, most int) {
	with := make(map[ring.NodeID]map[ring.NodeID]bool)
	for _, s := range spans(l) {
		for _, x := range s.owners {
			if with[x] == nil {
				with[x] = make(map[ring.NodeID]bool)
			}
			for _, y := range s.owners {
				if x != y {
					with[x][y] = true
				}
			}
		}
	}
	for _, w := range with {
		mean += float64(len(w)) / float64(len(with))
		most = max(most, len(w))
	}
	return mean, most
}

// checkLarge holds a change to what is promised of it.
func checkLarge(t *testing.T, before, after *ring.Layout) {
	t.Helper()
	checkLists(t, after)
	n := len(after.Members())
	share := shareOf(before, after)
	if m := moved(before, after); m > 1.1*share+slack {
		t.Errorf("%d members: moved %.3f of the fair share", n, m/share)
	}
	if top := worst(after); top > 1.05 {
		t.Errorf("%d members: highest load %.3f", n, top)
	}
	for _, m := range after.Members() {
		if len(m.Tokens) > ring.TokenCount(m.Weight) {
			t.Errorf("%d members: %d tokens", n, len(m.Tokens))
		}
	}
}

// grow makes a cluster of so many members, batch at a time.
func grow(t *testing.T, members, batch, zones int) *world {
	w := newWorld(t, ring.Member{ID: nodeID(1), Zone: "z0", Weight: 1}, 3)
	for have := 1; have < members; {
		var changes []ring.Change
		for k := range min(max(1, min(batch, have/5)), members-have) {
			changes = append(changes, ring.Change{Kind: ring.ChangeJoin, Member: w.member(fmt.Sprint("z", (have+k)%zones), 1)})
		}
		have += len(changes)
		before, after := w.change(changes...)
		checkLarge(t, before, after)
	}
	return w
}

// A cluster that grows far beyond a mesh, with three zones: few neighbours, however the members came.
func TestLarge(t *testing.T) {
	for _, batch := range []int{1, 5, 20} {
		t.Run(fmt.Sprintf("%d at a time", batch), func(t *testing.T) {
			start := time.Now()
			l := grow(t, *nodes, batch, 3).view.Settled()
			mean, most := neighbours(l)
			if most > 32 {
				t.Errorf("%d members: %d neighbours, %.1f on average", *nodes, most, mean)
			}
			t.Logf("%d members in %v: highest load %.3f, neighbours mean %.1f most %d", *nodes, time.Since(start), worst(l), mean, most)
		})
	}
}

// With other numbers of zones the mean stays the same, and some members have more.
func TestLargeZones(t *testing.T) {
	for _, zones := range []int{1, 2, 5} {
		l := grow(t, *nodes, 1, zones).view.Settled()
		mean, most := neighbours(l)
		if mean > 32 || most > 56 {
			t.Errorf("%d zones: %d neighbours, %.1f on average", zones, most, mean)
		}
		t.Logf("%d zones, %d members: highest load %.3f, neighbours mean %.1f most %d", zones, *nodes, worst(l), mean, most)
	}
}

// Members that leave a large cluster, one more for each that joins.
func TestLargeChurn(t *testing.T) {
	w := grow(t, *nodes, 3, 3)
	for i := range *nodes / 3 {
		in := w.view.Settled().Members()
		c := ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: in[(i*7919)%len(in)].ID}}
		switch {
		case i%3 == 2:
			c = ring.Change{Kind: ring.ChangeJoin, Member: w.member(fmt.Sprint("z", i%3), 1)}
		case i%10 == 0:
			c = ring.Change{Kind: ring.ChangeWeight, Member: ring.Member{ID: c.Member.ID, Weight: 1.5}}
		}
		before, after := w.change(c)
		if c.Kind == ring.ChangeWeight { // no join and no removal: held to less
			checkLists(t, after)
			continue
		}
		checkLarge(t, before, after)
	}
	l := w.view.Settled()
	mean, most := neighbours(l)
	if mean > 32 || most > 40 {
		t.Errorf("%d neighbours, %.1f on average", most, mean)
	}
	t.Logf("%d members: highest load %.3f, neighbours mean %.1f most %d", len(l.Members()), worst(l), mean, most)
}
