package membership

import (
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/membership/memtransport"
	"github.com/dotring/dotring/ringsvc/ring"
)

// TestChangesSpreadInSeconds shows that a change reaches everyone by gossip, and that waiting for an exchange of states is the exception: of
// nine, each of which may miss someone by chance, most take no more than three seconds.
func TestChangesSpreadInSeconds(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		const changes = 9
		nodes := cluster(t, n, 5)
		within(t, spreads, "all alive", complete(nodes, 5))
		quick := 0
		for epoch := uint64(1); epoch <= changes; epoch++ {
			if err := nodes[1].SetLocal(func(m *Member) { m.Newest.Epoch = 1000 + epoch }); err != nil {
				t.Fatal(err)
			}
			took := within(t, spreads, "the change everywhere", func() bool {
				for _, c := range nodes {
					if seen(c, 1).Newest.Epoch != 1000+epoch {
						return false
					}
				}
				return true
			})
			if took <= 3*time.Second {
				quick++
			}
		}
		if quick <= changes/2 {
			t.Errorf("%d of %d changes were everywhere within 3 s", quick, changes)
		}
	})
}

// TestLargeCluster shows that gossip settles within seconds at the size the store is meant for.
func TestLargeCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds of processor time")
	}
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		const count = 60
		nodes := cluster(t, n, count)
		t.Logf("complete after %v", within(t, 3*pushPullInterval, "all see all", complete(nodes, count)))
		want := ring.NodeID{9: 9}
		if err := nodes[7].SetLocal(func(m *Member) { m.ID = want }); err != nil {
			t.Fatal(err)
		}
		t.Logf("change spread after %v", within(t, 5*time.Second, "the change everywhere", func() bool {
			for _, c := range nodes {
				if seen(c, 7).ID != want {
					return false
				}
			}
			return true
		}))
		if err := nodes[9].Close(); err != nil {
			t.Fatal(err)
		}
		others := append(append([]*Cluster(nil), nodes[:9]...), nodes[10:]...)
		t.Logf("failed after %v", within(t, 60*time.Second, "the crash everywhere", status(others, 9, Failed)))
	})
}
