package grpcapi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/syncpoint"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
)

// repairPoll is how often nodes are asked how far they are; where hints are to be counted one by one, repairPollCounting.
const (
	repairPoll         = 200 * time.Millisecond
	repairPollCounting = time.Second
)

// stalledFrom is how long nothing may come of a transfer before it is called waiting.
const stalledFrom = 10 * time.Second

// told is what one node told of its tasks, or why it told nothing.
type told struct {
	id   ring.NodeID
	resp *storagev1.GetTasksResponse
	err  error
}

// membersOf lists the members of all live layouts, by name.
func membersOf(state *nodeclient.State) []ring.NodeID {
	var out []ring.NodeID
	for _, l := range state.Live {
		for _, m := range l.Members() {
			if !slices.Contains(out, m.ID) {
				out = append(out, m.ID)
			}
		}
	}
	slices.SortFunc(out, func(a, b ring.NodeID) int {
		return cmp.Or(cmp.Compare(state.Name(a), state.Name(b)), a.Compare(b))
	})
	return out
}

// askTasks asks every member for its tasks; of those that compare names, it asks for comparisons too.
func (s *Cluster) askTasks(ctx context.Context, members []ring.NodeID, prefix []byte, compare func(ring.NodeID) bool) []told {
	out := make([]told, len(members))
	eachOf(len(members), askNodes, func(i int) {
		out[i].id = members[i]
		if !s.nodes.Health(members[i]).Connected {
			out[i].err = nodeclient.ErrNotConnected
			return
		}
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		out[i].resp, out[i].err = s.nodes.GetTasks(ctx, members[i], &storagev1.GetTasksRequest{Compare: compare(members[i]), KeyPrefix: prefix})
	})
	return out
}

// ListTasks implements the service.
func (s *Cluster) ListTasks(ctx context.Context, _ *clusterv1.ListTasksRequest) (*clusterv1.ListTasksResponse, error) {
	state := s.nodes.State()
	if state == nil {
		return nil, problem.ErrNoLayout
	}
	out := &clusterv1.ListTasksResponse{}
	if t := layoutTask(s.facts(state)); t != nil {
		out.Tasks = append(out.Tasks, t)
	}
	for _, t := range s.askTasks(ctx, membersOf(state), nil, func(ring.NodeID) bool { return false }) {
		out.Tasks = append(out.Tasks, tasksOf(state, t)...)
	}
	return out, nil
}

// layoutTask is the change of the layout under way, nil for none.
func layoutTask(f facts) *clusterv1.Task {
	if f.changing == "" {
		return nil
	}
	t := &clusterv1.Task{Kind: "layout", State: "running", Detail: "to " + f.changing}
	if len(f.waitsFor) > 0 {
		t.Detail = fmt.Sprintf("to %s, which waits for %s to %s", f.changing, strings.Join(f.waitsFor, ", "), f.waitsTo)
	}
	return t
}

// tasksOf lists one node's tasks.
func tasksOf(state *nodeclient.State, t told) (out []*clusterv1.Task) {
	node := state.Name(t.id)
	if t.err != nil {
		return []*clusterv1.Task{{Node: node, Kind: "unknown", State: "waiting", Detail: problem.FromStatus(t.err).Error()}}
	}
	if t.resp.GetRefilling() {
		out = append(out, &clusterv1.Task{Node: node, Kind: "refill", State: "running",
			Detail: "its disk lost data, which it fetches from the other owners"})
	}
	if x := t.resp.GetTransfer(); x != nil {
		task := &clusterv1.Task{Node: node, Kind: "transfer", State: "running", Done: x.GetSlotsDone(), Total: x.GetSlotsTotal(),
			BytesDone: x.GetBytesDone(), BytesTotal: x.GetBytesTotal(), SecondsLeft: x.GetSecondsLeft()}
		if stalled := time.Duration(x.GetStalledSeconds() * float64(time.Second)); stalled > stalledFrom {
			task.State, task.Detail = "waiting", fmt.Sprintf("nothing has come for %s", stalled.Round(time.Second))
		}
		out = append(out, task)
	}
	if x := t.resp.GetLeftovers(); x != nil {
		task := &clusterv1.Task{Node: node, Kind: "leftovers", State: "running", Done: x.GetSlotsDone(), Total: x.GetSlotsTotal(),
			Detail: fmt.Sprintf("%d records are confirmed by their owners and removed", x.GetRemoved())}
		if x.GetWaits() != "" {
			task.State, task.Detail = "waiting", x.GetWaits()
		}
		out = append(out, task)
	}
	age := func(at uint64) float64 {
		if at == 0 || at > t.resp.GetNowNs() {
			return 0
		}
		return time.Duration(t.resp.GetNowNs() - at).Seconds()
	}
	for _, h := range t.resp.GetHints() {
		out = append(out, &clusterv1.Task{Node: node, Kind: "hints", Peer: nameOf(state, h.GetTarget()), State: "running",
			Total: h.GetHints(), AgeSeconds: age(h.GetSinceNs())})
	}
	for _, c := range t.resp.GetCompares() {
		task := &clusterv1.Task{Node: node, Kind: "compare", Peer: nameOf(state, c.GetPeer()), State: "waiting",
			Total: uint64(c.GetRanges()), AgeSeconds: age(c.GetWholeNs())}
		if c.GetRunning() {
			task.State, task.Done = "running", uint64(c.GetDone())
		}
		out = append(out, task)
	}
	return out
}

func nameOf(state *nodeclient.State, id []byte) string {
	if len(id) != len(ring.NodeID{}) {
		return ""
	}
	return state.Name(ring.NodeID(id))
}

// Repair implements the service.
func (s *Cluster) Repair(ctx context.Context, m *clusterv1.RepairRequest) (*clusterv1.RepairResponse, error) {
	state := s.nodes.State()
	if state == nil {
		return nil, problem.ErrNoLayout
	}
	point, err := pointOf(state, m)
	if err != nil {
		return nil, err
	}
	limit := time.Duration(0)
	if m.GetTimeout() != "" {
		if limit, err = edge.ParseTimeout(m.GetTimeout()); err != nil {
			return nil, err
		}
	}
	end := time.NewTimer(limit)
	defer end.Stop()
	every := repairPoll
	if len(point.Prefix) > 0 {
		every = repairPollCounting
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		waiting, answers := s.advance(ctx, state, point)
		if len(waiting) == 0 {
			return &clusterv1.RepairResponse{Done: true}, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end.C:
			token, err := point.Encode()
			if err != nil {
				return nil, err
			}
			return &clusterv1.RepairResponse{Token: token, Waiting: waitingTasks(state, waiting, answers)}, nil
		case <-tick.C:
		}
		if newer := s.nodes.State(); newer != nil {
			state = newer
		}
	}
}

// advance asks every node once, and a second time where that lets comparisons begin.
func (s *Cluster) advance(ctx context.Context, state *nodeclient.State, point *syncpoint.Point) (waiting []syncpoint.Wait, answers []told) {
	members := membersOf(state)
	for range 2 {
		compare := make(map[ring.NodeID]bool)
		for _, id := range members {
			compare[id] = point.WantsCompare(members, id)
		}
		answers = s.askTasks(ctx, members, point.Prefix, func(id ring.NodeID) bool { return compare[id] })
		for _, a := range answers {
			if a.err == nil {
				point.Observe(a.id, reportOf(a.resp), compare[a.id])
			}
		}
		if !slices.ContainsFunc(members, func(id ring.NodeID) bool { return point.WantsCompare(members, id) }) {
			break
		}
	}
	return point.Waiting(members, state.View.LiveIDs()), answers
}

// pointOf reads which point a request is about.
func pointOf(state *nodeclient.State, m *clusterv1.RepairRequest) (*syncpoint.Point, error) {
	prefix := m.GetKeyPrefixBase64()
	if m.GetKeyPrefix() != "" {
		if len(prefix) > 0 {
			return nil, fmt.Errorf("%w: both key_prefix and key_prefix_base64 are given", problem.ErrBadParameter)
		}
		prefix = []byte(m.GetKeyPrefix())
	}
	if m.GetToken() != "" {
		if m.GetNode() != "" || len(prefix) > 0 {
			return nil, fmt.Errorf("%w: a token already says which node and which keys", problem.ErrBadParameter)
		}
		p, err := syncpoint.Decode(m.GetToken())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", problem.ErrBadParameter, err)
		}
		return p, nil
	}
	p := &syncpoint.Point{Prefix: prefix}
	if m.GetNode() != "" {
		members := membersOf(state)
		i := slices.IndexFunc(members, func(id ring.NodeID) bool { return state.Name(id) == m.GetNode() })
		if i < 0 {
			return nil, fmt.Errorf("%w: no node is named %q", problem.ErrBadParameter, m.GetNode())
		}
		p.Node = &members[i]
	}
	return p, nil
}

// reportOf reads what a node told.
func reportOf(resp *storagev1.GetTasksResponse) syncpoint.Report {
	r := syncpoint.Report{Now: resp.GetNowNs()}
	copy(r.Life[:], resp.GetLife())
	r.Layout.Epoch = resp.GetLayout().GetEpoch()
	copy(r.Layout.Hash[:], resp.GetLayout().GetHash())
	for _, h := range resp.GetHints() {
		hint := syncpoint.Hint{Count: h.GetHints(), Since: h.GetSinceNs()}
		copy(hint.Target[:], h.GetTarget())
		r.Hints = append(r.Hints, hint)
	}
	for _, c := range resp.GetCompares() {
		compare := syncpoint.Compare{Whole: c.GetWholeNs()}
		copy(compare.Peer[:], c.GetPeer())
		r.Compares = append(r.Compares, compare)
	}
	return r
}

// waitingTasks shows what a point waits for as the tasks that it is about.
func waitingTasks(state *nodeclient.State, waiting []syncpoint.Wait, answers []told) (out []*clusterv1.Task) {
	kinds := map[syncpoint.Kind]string{syncpoint.Hints: "hints", syncpoint.Comparison: "compare", syncpoint.Layout: "layout", syncpoint.Unknown: "unknown"}
	all := make(map[[3]string]*clusterv1.Task)
	for _, a := range answers {
		for _, t := range tasksOf(state, a) {
			all[[3]string{t.GetNode(), t.GetKind(), t.GetPeer()}] = t
		}
	}
	for _, w := range waiting {
		t := &clusterv1.Task{Node: state.Name(w.Node), Kind: kinds[w.Kind], State: "waiting"}
		if !w.Peer.IsZero() {
			t.Peer = state.Name(w.Peer)
		}
		if known := all[[3]string{t.Node, t.Kind, t.Peer}]; known != nil {
			t = known
		}
		out = append(out, t)
	}
	return out
}
