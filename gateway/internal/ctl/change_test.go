package ctl

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

const nothingToAbort = `{"type":"/problems/change-refused","title":"Change refused","status":409,"detail":"the change is refused: nothing would change","request_id":"rid"}`

func layoutChange() *clusterv1.LayoutChange {
	s := status()
	return &clusterv1.LayoutChange{DryRun: true, Settled: s.Settled, Layout: &clusterv1.LayoutRef{Epoch: 9, Hash: hash2},
		Nodes: []*clusterv1.NodeShare{{Id: actor1, Name: "node1", WeightBefore: 1, WeightAfter: 1, ShareBefore: 0.75, ShareAfter: 1},
			{Id: actor2, Name: "node4", WeightBefore: 1, ShareBefore: 0.75}, {Id: actor2, Name: "node10", WeightAfter: 2, ShareAfter: 0.005}},
		Moves:      []*clusterv1.Move{{From: "node4", To: "node1", Slots: 1000, Bytes: 5 << 20}, {From: "node4", To: "node10", Slots: 262144, Bytes: 1200 << 20}},
		MovedShare: 0.0837, MovedBytes: 1205 << 20, ReplicasBefore: 3, ReplicasAfter: 3, AtLeastSeconds: 37.2,
		Risks: []*clusterv1.FailureRisk{{Failures: 1}, {Failures: 2, Before: 0.25, After: 0.5}, {Failures: 3, Before: 0.0004, After: 0.0003}}}
}

func underWay() *clusterv1.LayoutChange {
	c := layoutChange()
	c.DryRun = false
	return c
}

func lossy() *clusterv1.LayoutChange {
	c := layoutChange()
	c.ReplicasAfter, c.DegradedSlots, c.ShortSlots, c.MovedBytes, c.AtLeastSeconds = 2, slots/2, slots/1000, 0, 0
	c.ShortRanges = []*clusterv1.SlotRange{{From: 0, To: 1048}}
	c.Moves = []*clusterv1.Move{{To: hostile, Slots: 7}}
	for i := range movesShown {
		c.Moves = append(c.Moves, &clusterv1.Move{From: fmt.Sprintf("node%d", i+20), Slots: uint32(100 - i)})
	}
	return c
}

func mustNotStop() *clusterv1.CanStopResponse {
	return &clusterv1.CanStopResponse{Node: "node2", Verdict: "node2 must not stop now.", Remarks: []string{"It keeps 7 writes for node3."},
		Short: []*clusterv1.StopShortage{
			{Layout: status().Settled, Slots: slots / 2, Owners: []string{"node1", "node2", "node3"}, Left: []string{"node1"}, Needed: 2, Reasons: []string{"node3 does not answer"}},
			{Layout: status().Settled, Slots: 3, Owners: []string{hostile, "node2"}, Needed: 1}}}
}

// scripted answers each path with the next of its answers, and goes on with the last.
func scripted(t *testing.T, answers map[string][]canned) (url string) {
	t.Helper()
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		list := answers[r.URL.Path]
		if len(list) == 0 {
			t.Errorf("asked for %s", r.URL.Path)
			return
		}
		a := list[0]
		if len(list) > 1 {
			answers[r.URL.Path] = list[1:]
		}
		w.Header()["Content-Type"] = []string{a.header[1]}
		w.WriteHeader(a.status)
		if _, err := w.Write([]byte(a.body)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestWhatAChangeWaitsFor(t *testing.T) {
	got := waitsText([]*clusterv1.Task{{Node: "node1", Kind: "transfer", Done: 99, Total: 1000}, {Node: "node2", Kind: "transfer", Done: 1000, Total: 1000},
		{Node: "node2", Kind: "transfer"}, {Node: "node1", Kind: "hints", Total: 7}, {Kind: "layout", Detail: "to 9, which waits for node1 to sync"}})
	if want := "to 9, which waits for node1 to sync; node1 has fetched 5%; node2 has fetched 100%"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A change is followed over a gateway that does not answer for a moment, until it has settled with what was asked for, or without.
func TestWaitFollowsAChange(t *testing.T) {
	told := func(m proto.Message) canned { return canned{200, jsonType, serverJSON(t, m)} }
	layouts := func(epochs []uint64, members ...string) canned {
		var out clusterv1.GetLayoutResponse
		for _, e := range epochs {
			l := &clusterv1.Layout{Ref: &clusterv1.LayoutRef{Epoch: e, Hash: hash1}}
			for _, m := range members {
				l.Members = append(l.Members, &clusterv1.LayoutMember{Name: m, Weight: 1})
			}
			out.Layouts = append(out.Layouts, l)
		}
		return told(&out)
	}
	away := canned{503, problemHdr, `{"type":"/problems/no-layout","title":"No layout","status":503}`}
	for _, c := range []struct {
		name, path, args string
		layouts          []canned
		code             int
		says             string
	}{
		{"settles", "/v1/cluster/nodes/node4:decommission", "decommission node4", []canned{away, layouts([]uint64{7, 9}, "node1", "node4"), layouts([]uint64{9}, "node1")}, ExitOK, "Done."},
		{"is not known to this gateway yet", "/v1/cluster/nodes/node4:decommission", "decommission node4", []canned{layouts([]uint64{7}, "node1"), layouts([]uint64{9}, "node1")}, ExitOK, "Done."},
		{"is given up", "/v1/cluster/nodes/node4:decommission", "decommission node4", []canned{layouts([]uint64{10}, "node1", "node4")}, ExitError, "given up"},
		{"a removal has its turn later", "/v1/cluster/nodes/node4:remove", "remove node4", []canned{layouts([]uint64{10}, "node1", "node4"), layouts([]uint64{11}, "node1")}, ExitOK, "waits for its turn"},
		{"takes too long", "/v1/cluster/nodes/node4:setWeight", "weight node4 2 --within 1ms", []canned{layouts([]uint64{7, 9}, "node1", "node4")}, ExitError, "waits for node3 to sync"},
		{"weight is another", "/v1/cluster/nodes/node4:setWeight", "weight node4 2", []canned{layouts([]uint64{9}, "node1", "node4")}, ExitError, "given up"},
		{"place taken", "/v1/cluster/nodes/node4:replace", "replace node4 node7", []canned{layouts([]uint64{9}, "node1", "node7")}, ExitOK, "Done."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := scripted(t, map[string][]canned{c.path: {told(underWay())}, "/v1/cluster/layout": c.layouts, "/v1/cluster/tasks": {told(tasks())}})
			r := run(t, terminals{}, "", nil, append([]string{"--gateway", url}, append(strings.Fields(c.args), "--wait")...)...)
			if r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.says) {
				t.Errorf("code %d: %s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
}
