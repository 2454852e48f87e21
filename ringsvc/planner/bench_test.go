package planner

import (
	"fmt"
	"testing"

	"github.com/dotring/dotring/ringsvc/ring"
)

var sinkChanges []ring.Change

// One join. Estimate: 10 ms at 40 members; 0.2 s at 300, where each place drawn is a pass over some 3,000 ranges.
// Measured, on a machine busy with other work: 0.16 ms at 3, 6 ms at 40, 1.1 s at 300, most of it in who would be a new neighbour.
func BenchmarkPlan(b *testing.B) {
	for _, members := range []int{3, 40, 300} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			w := newWorld(b, ring.Member{ID: nodeID(1), Zone: "z0", Weight: 1}, 3)
			for have := 1; have < members; {
				var changes []ring.Change
				for k := range min(max(1, have/5), 20, members-have) {
					changes = append(changes, ring.Change{Kind: ring.ChangeJoin, Member: w.member(fmt.Sprint("z", (have+k)%3), 1)})
				}
				have += len(changes)
				w.change(changes...)
			}
			join := []ring.Change{{Kind: ring.ChangeJoin, Member: w.member("z0", 1)}}
			b.ReportAllocs()
			for b.Loop() {
				sinkChanges = Plan(w.view.Settled(), join)
			}
		})
	}
}
