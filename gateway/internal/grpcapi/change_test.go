package grpcapi_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dotring/dotring/gateway/internal/grpcapi"
	"github.com/dotring/dotring/gateway/internal/httpapi/edgetest"
	"github.com/dotring/dotring/gateway/internal/problem"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
)

// cluster is a service over members nodes named a, b, c, … that keep three copies of each key.
func cluster(t *testing.T, members int) (*grpcapi.Cluster, *edgetest.Nodes) {
	t.Helper()
	nodes, err := edgetest.NewNodes(members, 3)
	if err != nil {
		t.Fatal(err)
	}
	return grpcapi.NewCluster(nodes, nil, grpcapi.About{R: 2, W: 2}), nodes
}

func TestCanStop(t *testing.T) {
	tasks := func(change func(id ring.NodeID, r *storagev1.GetTasksResponse)) func(ring.NodeID, *storagev1.GetTasksRequest) *storagev1.GetTasksResponse {
		return func(id ring.NodeID, _ *storagev1.GetTasksRequest) *storagev1.GetTasksResponse {
			r := &storagev1.GetTasksResponse{}
			change(id, r)
			return r
		}
	}
	a, b := ring.NodeID{1}, ring.NodeID{2}
	for name, c := range map[string]struct {
		members int
		change  func(*edgetest.Nodes)
		want    bool
		why     string
	}{
		"all are up":        {3, func(*edgetest.Nodes) {}, true, ""},
		"another is away":   {3, func(n *edgetest.Nodes) { n.Away["b"] = true }, false, "b does not answer"},
		"it is away itself": {3, func(n *edgetest.Nodes) { n.Away["a"] = true }, true, ""},
		"two members":       {2, func(*edgetest.Nodes) {}, false, ""},
		"one member":        {1, func(*edgetest.Nodes) {}, false, ""},
		"another's disk lost it": {3, func(n *edgetest.Nodes) {
			n.Tasks = tasks(func(id ring.NodeID, r *storagev1.GetTasksResponse) { r.Refilling = id == b })
		}, false, "b is fetching"},
		"its own disk lost it": {3, func(n *edgetest.Nodes) {
			n.Tasks = tasks(func(id ring.NodeID, r *storagev1.GetTasksResponse) { r.Refilling = id == a })
		}, true, ""},
		"it keeps writes for another": {3, func(n *edgetest.Nodes) {
			n.Tasks = tasks(func(id ring.NodeID, r *storagev1.GetTasksResponse) {
				if id == a {
					r.Hints = []*storagev1.HintTask{{Target: b[:], Hints: 7}}
				}
			})
		}, false, "b lacks 7 writes that a keeps for it"},
		"another is marked dead": {3, func(n *edgetest.Nodes) {
			if err := n.View.MarkDead(b, false); err != nil {
				t.Fatal(err)
			}
		}, false, "b is marked dead"},
		"a change is not synced": {4, func(n *edgetest.Nodes) {
			if _, err := n.View.Propose([]ring.Change{{Kind: ring.ChangeWeight, Member: ring.Member{ID: b, Weight: 2}}}); err != nil {
				t.Fatal(err)
			}
		}, false, "has not synced the layout under way"},
	} {
		t.Run(name, func(t *testing.T) {
			s, nodes := cluster(t, c.members)
			c.change(nodes)
			got, err := s.CanStop(t.Context(), &clusterv1.CanStopRequest{Node: "a"})
			if err != nil {
				t.Fatal(err)
			}
			var reasons []string
			for _, sh := range got.GetShort() {
				reasons = append(reasons, sh.GetReasons()...)
				if slices.Contains(sh.GetLeft(), "a") || !slices.Contains(sh.GetOwners(), "a") || len(sh.GetLeft()) >= int(sh.GetNeeded()) {
					t.Errorf("short: %v", sh)
				}
			}
			if got.GetCanStop() != c.want || (len(got.GetShort()) > 0) == c.want || !strings.Contains(strings.Join(reasons, "; "), c.why) {
				t.Errorf("%v", got)
			}
		})
	}
	s, nodes := cluster(t, 3)
	nodes.Outsiders = map[ring.NodeID]string{{9}: "new"}
	if got, err := s.CanStop(t.Context(), &clusterv1.CanStopRequest{Node: "new"}); err != nil || !got.GetCanStop() {
		t.Errorf("a node that is no member: %v, %v", got, err)
	}
}

// What a preview tells adds up, and it asks for nothing but a preview.
func TestPreview(t *testing.T) {
	s, nodes := cluster(t, 5)
	before := nodes.View.Newest().ID()
	nodes.Change = func(r *storagev1.ChangeLayoutRequest) error {
		if !r.GetDryRun() {
			return errors.New("asked to change")
		}
		return nil
	}
	got, err := s.DecommissionNode(t.Context(), &clusterv1.DecommissionNodeRequest{Node: "e", DryRun: true})
	if err != nil || nodes.View.Newest().ID() != before {
		t.Fatal(err)
	}
	gained, lost := make(map[string]float64), make(map[string]float64)
	for _, m := range got.GetMoves() {
		gained[m.GetTo()] += float64(m.GetSlots()) / ring.Slots
		lost[m.GetFrom()] += float64(m.GetSlots()) / ring.Slots
	}
	total := 0.0
	for _, n := range got.GetNodes() {
		change := n.GetShareAfter() - n.GetShareBefore() - gained[n.GetName()] + lost[n.GetName()]
		if change > 1e-9 || change < -1e-9 || n.GetName() == "e" && n.GetShareAfter() != 0 {
			t.Errorf("%v gains %v and loses %v", n, gained[n.GetName()], lost[n.GetName()])
		}
		total += n.GetShareAfter()
	}
	if total < 2.999 || total > 3.001 || got.GetMovedBytes() == 0 || got.GetSettled().GetEpoch() >= got.GetLayout().GetEpoch() {
		t.Errorf("%v of three copies, %v", total, got)
	}
	longest := 0.0
	for _, part := range gained {
		longest = max(longest, part)
	}
	all := 0.0
	for _, part := range gained {
		all += part
	}
	if want := float64(got.GetMovedBytes()) * longest / all / (32 << 20); got.GetAtLeastSeconds() < 0.99*want || got.GetAtLeastSeconds() > 1.01*want {
		t.Errorf("at least %v s, want %v", got.GetAtLeastSeconds(), want)
	}
	if r := got.GetRisks(); len(r) != 3 || r[0].GetBefore() != 0 || r[1].GetBefore() <= 0 || r[2].GetAfter() < r[1].GetAfter() {
		t.Errorf("risks %v", r)
	}
}

func TestNodesAreFoundByNameOrID(t *testing.T) {
	s, nodes := cluster(t, 4)
	nodes.Outsiders = map[ring.NodeID]string{{8}: "a", {9}: "twin", {10}: "twin"}
	change := func(ctx context.Context, node string) error {
		_, err := s.SetNodeWeight(ctx, &clusterv1.SetNodeWeightRequest{Node: node, Weight: 2, DryRun: true})
		return err
	}
	for _, node := range []string{"a", ring.NodeID{1}.String()} {
		if err := change(t.Context(), node); err != nil {
			t.Errorf("%s: %v", node, err)
		}
	}
	for node, want := range map[string]error{"": problem.ErrBadParameter, "twin": problem.ErrBadParameter, "z": problem.ErrNoNode, "ab": problem.ErrNoNode,
		ring.NodeID{8}.String(): problem.ErrBadParameter} { // the last is found, and is no member
		if err := change(t.Context(), node); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", node, err, want)
		}
	}
}
