package planner

import (
	"flag"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

var (
	nodes = flag.Int("nodes", 80, "members of the large cluster")
	batch = flag.Int("batch", 20, "members that join it at once")
)

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

// A cluster that grows far beyond a mesh. At 300 members 32 neighbours are wanted; make soak-planner tells how far that is reached.
func TestLarge(t *testing.T) {
	w := newWorld(t, ring.Member{ID: nodeID(1), Zone: "z0", Weight: 1}, 3)
	for have := 1; have < *nodes; {
		var changes []ring.Change
		for k := range min(max(1, min(*batch, have/5)), *nodes-have) {
			changes = append(changes, ring.Change{Kind: ring.ChangeJoin, Member: w.member(fmt.Sprint("z", (have+k)%3), 1)})
		}
		have += len(changes)
		start := time.Now()
		before, after := w.change(changes...)
		took := time.Since(start)
		checkLists(t, after)
		mean, most := neighbours(after)
		tokens := 0
		for _, m := range after.Members() {
			tokens = max(tokens, len(m.Tokens))
		}
		share := shareOf(before, after)
		if m := moved(before, after); m > 1.1*share+slack {
			t.Errorf("%d members: moved %.3f of the fair share", have, m/share)
		}
		if top := worst(after); top > 1.05 {
			t.Errorf("%d members: highest load %.3f", have, top)
		}
		if have == 300 && most > 32 {
			t.Errorf("%d members: %d neighbours, %.1f on average", have, most, mean)
		}
		t.Logf("%d members, %d joined: %v, moved %.3f, highest load %.3f, tokens %d, neighbours mean %.1f most %d", have, len(changes), took, moved(before, after)/math.Max(share, 1e-9), worst(after), tokens, mean, most)
	}
}
