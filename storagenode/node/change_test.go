package node_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/node"
)

// quick makes owners notice soon what they lack. Gossip keeps its pace: with less patience it takes who is slow to be away, and nodes
// are slow where the race detector watches them on a busy machine.
func quick(_ int, c *node.Config) {
	c.AntiEntropyInterval = 100 * time.Millisecond
}

// settleWithout waits until the others know one settled layout that holds exactly them, and returns it.
func settleWithout(t *testing.T, all []*member, gone ...*member) ring.LayoutID {
	t.Helper()
	return settle(t, slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return slices.Contains(gone, m) }))
}

// fill writes keys, and waits until all owners have them.
func fill(t *testing.T, all []*member, live ring.LayoutID, keys int) {
	t.Helper()
	conns := make(map[ring.NodeID]*client)
	for _, m := range all {
		conns[m.ID()] = dial(m, nil)
	}
	for i := range keys {
		key := fmt.Sprintf("key-%d", i)
		owners := view(all[0]).Settled().Primaries(ring.SlotOf([]byte(key)))
		conns[owners[0]].put(names(live), key, "value of "+key)
		for _, o := range owners[1:] {
			wait(t, "the other owners fetch it", func() bool {
				return conns[o].read(names(live), key).GetStatus() == storagev1.Status_STATUS_OK
			})
		}
	}
}

// everyOwnerHas reads all keys at all their owners.
func everyOwnerHas(t *testing.T, all []*member, live ring.LayoutID, keys int) {
	t.Helper()
	for _, m := range all {
		c := dial(m, nil)
		for i := range keys {
			if key := fmt.Sprintf("key-%d", i); view(m).Settled().Owns(m.ID(), ring.SlotOf([]byte(key))) {
				c.wantValue(names(live), key, "value of "+key)
			}
		}
	}
}

func TestMembersLeaveAndAreReplaced(t *testing.T) {
	t.Parallel()
	const keys = 40
	all := members(t, 5, quick)
	for _, m := range all[:4] {
		m.start()
	}
	four := settle(t, all[:4])
	fill(t, all[:4], four, keys)
	api := dial(all[0], nil).api
	ask := func(req *storagev1.ChangeLayoutRequest) *storagev1.ChangeLayoutResponse {
		t.Helper()
		resp, err := api.ChangeLayout(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	id := func(i int) []byte { id := all[i].ID(); return id[:] }
	refused := func(why string, code codes.Code, req *storagev1.ChangeLayoutRequest) {
		t.Helper()
		if _, err := api.ChangeLayout(t.Context(), req); status.Code(err) != code {
			t.Errorf("%s: %v", why, err)
		}
	}
	refused("nothing is asked for", codes.InvalidArgument, &storagev1.ChangeLayoutRequest{})
	refused("a stranger gets a weight", codes.InvalidArgument, &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_WEIGHT, Node: make([]byte, 16), Weight: 1})
	refused("the living are not removed", codes.FailedPrecondition, &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_REMOVE, Node: id(3)})
	refused("nothing is to be given up", codes.FailedPrecondition, &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_ABORT})
	leave := &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_LEAVE, Node: id(3), DryRun: true}
	if p := ask(leave); len(p.GetGained()) != 3 || view(all[0]).Newest().ID() != four {
		t.Errorf("preview %v", p)
	}
	leave.DryRun = false
	ask(leave)
	three := settleWithout(t, all[:4], all[3])
	everyOwnerHas(t, all[:3], three, keys)
	wait(t, "the one that left says so", func() bool { return all[3].logs.count("comes back only with an empty data directory") == 1 })
	refused("fewer than three copies", codes.FailedPrecondition, &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_LEAVE, Node: id(2)})

	// The third dies, its removal leaves two, and a newcomer brings the copies back to three.
	all[2].stop()
	dead := view(all[0]).Settled().Members()
	gone := dead[slices.IndexFunc(dead, func(m ring.Member) bool { return m.Name == all[2].cfg.Name })].ID
	wait(t, "gossip notices", func() bool {
		_, err := api.ChangeLayout(t.Context(), &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_REMOVE, Node: gone[:]})
		return err == nil
	})
	two := settle(t, all[:2])
	everyOwnerHas(t, all[:2], two, keys)
	all[4].start()
	last := settleWithout(t, []*member{all[0], all[1], all[4]})
	everyOwnerHas(t, []*member{all[0], all[1], all[4]}, last, keys)

	// Who was removed, and comes back with its old identity, is told and stays out.
	if !view(all[0]).IsDead(gone) {
		t.Error("the mark is gone")
	}
}

// A member that is away for too long is removed by the others themselves; while a third of them is away nobody is.
func TestDeadMembersAreRemoved(t *testing.T) {
	t.Parallel()
	const keys = 40
	all := members(t, 5, func(i int, c *node.Config) {
		quick(i, c)
		// More than a busy machine may keep a living one from answering, and than gossip may notice that one is away before another.
		c.GossipInterval, c.DeadAfter = 500*time.Millisecond, 10*time.Second
	})
	for _, m := range all {
		m.start()
	}
	five := settle(t, all)
	fill(t, all, five, keys)
	all[4].stop()
	four := settle(t, all[:4])
	everyOwnerHas(t, all[:4], four, keys)
	removed := 0
	for _, m := range all[:4] {
		removed += m.logs.count("member removed for good")
	}
	if removed == 0 {
		t.Error("nobody says so")
	}
	stopAll(all[2:4])
	wait(t, "an operator is asked for", func() bool {
		return all[0].logs.count("an operator must decide")+all[1].logs.count("an operator must decide") > 0
	})
	if settled, newest := all[0].Layouts(); settled != four || newest != four {
		t.Error("removed while half of the members are away")
	}
	wait(t, "reads are refused", func() bool {
		return all[0].logs.count("reads are refused") == 1
	})
	if r := dial(all[0], nil).read(names(four), "key-0"); r.GetStatus() == storagev1.Status_STATUS_OK {
		t.Error("a node that hears no majority answers reads")
	}
}
