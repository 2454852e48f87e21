package grpcapi

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/nodeclient"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// listedRanges is how many ranges or sets of owners an answer names.
	listedRanges = 64
	// changeTime is how long a change may take until it is proposed: a plan for hundreds of nodes takes a second.
	changeTime = 15 * time.Second
)

// DecommissionNode implements the service.
func (s *Cluster) DecommissionNode(ctx context.Context, m *clusterv1.DecommissionNodeRequest) (*clusterv1.LayoutChange, error) {
	return s.change(ctx, m.GetNode(), &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_LEAVE, DryRun: m.GetDryRun()})
}

// RemoveNode implements the service.
func (s *Cluster) RemoveNode(ctx context.Context, m *clusterv1.RemoveNodeRequest) (*clusterv1.LayoutChange, error) {
	return s.change(ctx, m.GetNode(), &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_REMOVE, DryRun: m.GetDryRun(),
		AcceptLoss: m.GetAcceptLoss()})
}

// ReplaceNode implements the service.
func (s *Cluster) ReplaceNode(ctx context.Context, m *clusterv1.ReplaceNodeRequest) (*clusterv1.LayoutChange, error) {
	state := s.nodes.State()
	if state == nil {
		return nil, problem.ErrNoLayout
	}
	by, err := findNode(m.GetBy(), "by", outsiders(state), membersOf(state), state.Name)
	if err != nil {
		return nil, err
	}
	return s.change(ctx, m.GetNode(), &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_REPLACE, DryRun: m.GetDryRun(),
		By: by[:], AcceptLoss: m.GetAcceptLoss()})
}

// SetNodeWeight implements the service.
func (s *Cluster) SetNodeWeight(ctx context.Context, m *clusterv1.SetNodeWeightRequest) (*clusterv1.LayoutChange, error) {
	if w := m.GetWeight(); !(w > 0 && w <= ring.MaxWeight) {
		return nil, fmt.Errorf("%w: weight must be above 0 and at most %v, not %v", problem.ErrBadParameter, ring.MaxWeight, w)
	}
	return s.change(ctx, m.GetNode(), &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_WEIGHT, DryRun: m.GetDryRun(),
		Weight: m.GetWeight()})
}

// AbortChange implements the service.
func (s *Cluster) AbortChange(ctx context.Context, m *clusterv1.AbortChangeRequest) (*clusterv1.LayoutChange, error) {
	return s.change(ctx, "", &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_ABORT, DryRun: m.GetDryRun()})
}

// outsiders are the living nodes that are members of no live layout.
func outsiders(state *nodeclient.State) (out []ring.NodeID) {
	members := membersOf(state)
	for id, m := range state.Members {
		if m.Status == "alive" && !slices.Contains(members, id) {
			out = append(out, id)
		}
	}
	return out
}

// findNode finds a node by its name or id, in the first list that has one.
func findNode(name, parameter string, first, then []ring.NodeID, nameOf func(ring.NodeID) string) (ring.NodeID, error) {
	if name == "" {
		return ring.NodeID{}, fmt.Errorf("%w: %s is missing", problem.ErrBadParameter, parameter)
	}
	for _, list := range [][]ring.NodeID{first, then} {
		var found []ring.NodeID
		for _, id := range list {
			if id.String() == name {
				return id, nil
			}
			if nameOf(id) == name {
				found = append(found, id)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return ring.NodeID{}, fmt.Errorf("%w: several nodes are named %q, name one by its id: %s and %s", problem.ErrBadParameter, name, found[0], found[1])
		}
	}
	return ring.NodeID{}, fmt.Errorf("%w: %.140q", problem.ErrNoNode, name)
}

// change has a member carry out or preview a change about the node of that name, and tells what it does.
func (s *Cluster) change(ctx context.Context, name string, req *storagev1.ChangeLayoutRequest) (*clusterv1.LayoutChange, error) {
	state := s.nodes.State()
	if state == nil {
		return nil, problem.ErrNoLayout
	}
	var about ring.NodeID
	if req.GetChange() != storagev1.LayoutChange_LAYOUT_CHANGE_ABORT {
		var err error
		if about, err = findNode(name, "node", membersOf(state), outsiders(state), state.Name); err != nil {
			return nil, err
		}
		req.Node = about[:]
	}
	var able []ring.NodeID
	if req.GetChange() == storagev1.LayoutChange_LAYOUT_CHANGE_ABORT {
		_, able, _ = state.View.Missing(state.View.Newest()) // one that has synced the change cannot take it back
	}
	by, ok := s.proposer(state, about, able)
	if !ok {
		return nil, status.Error(codes.Unavailable, "no member can be reached that could propose the change")
	}
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	resp, err := s.nodes.ChangeLayout(ctx, by, req)
	if err != nil {
		return nil, changeError(state, err)
	}
	v, err := ring.DecodeView(resp.GetView())
	if err != nil {
		return nil, fmt.Errorf("the view that %s answered: %w", state.Name(by), err)
	}
	out := s.effect(ctx, state, v)
	out.DryRun, out.AtLeastSeconds = req.GetDryRun(), longestFetch(out.GetMoves(), resp.GetTransferRate())
	return out, nil
}

// longestFetch is how long the node that takes most fetches at that many bytes a second, in seconds; 0 for no limit.
func longestFetch(moves []*clusterv1.Move, rate uint64) float64 {
	if rate == 0 {
		return 0
	}
	most := uint64(0)
	taken := make(map[string]uint64)
	for _, m := range moves {
		if m.GetTo() != "" {
			taken[m.GetTo()] += m.GetBytes()
			most = max(most, taken[m.GetTo()])
		}
	}
	return float64(most) / float64(rate)
}

// proposer chooses who is to make a change: a member of the settled layout that can be reached, the one it is about only where there is no other, and
// rather one of able than another.
func (s *Cluster) proposer(state *nodeclient.State, about ring.NodeID, able []ring.NodeID) (id ring.NodeID, ok bool) {
	best := 0
	for _, m := range state.View.Settled().Members() {
		h := s.nodes.Health(m.ID)
		if !h.Connected || state.View.IsDead(m.ID) {
			continue
		}
		score := 1
		if !h.Suspect {
			score += 2
		}
		if m.ID != about {
			score++
		}
		if slices.Contains(able, m.ID) {
			score += 4
		}
		if score > best {
			best, id, ok = score, m.ID, true
		}
	}
	return id, ok
}

// changeError turns what a member answered into what clients are told, with names for ids.
func changeError(state *nodeclient.State, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := st.Message()
	for _, id := range slices.Concat(membersOf(state), outsiders(state)) {
		text = strings.ReplaceAll(text, id.String(), state.Name(id))
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "refused: "), "ring: ")
	switch st.Code() {
	case codes.InvalidArgument:
		return fmt.Errorf("%w: %s", problem.ErrBadParameter, text)
	case codes.FailedPrecondition:
		return fmt.Errorf("%w: %s", problem.ErrChangeRefused, text)
	default:
		return err
	}
}

// effect tells what the change under way in v does.
func (s *Cluster) effect(ctx context.Context, state *nodeclient.State, v *ring.View) *clusterv1.LayoutChange {
	base, next := v.Settled(), v.Newest()
	out := &clusterv1.LayoutChange{Settled: layoutRef(base.ID()), Layout: layoutRef(next.ID()),
		ReplicasBefore: uint32(base.Replicas()), ReplicasAfter: uint32(next.Replicas())}
	name := func(id ring.NodeID) string {
		for _, l := range []*ring.Layout{next, base} {
			if m, ok := l.Member(id); ok && m.Name != "" {
				return m.Name
			}
		}
		if id.IsZero() {
			return ""
		}
		return state.Name(id)
	}
	out.Nodes = shareTable(base, next, name)
	perSlot := s.bytesPerSlot(ctx, base)
	moved := 0
	for _, m := range ring.Moves(base, next) {
		bytes := uint64(perSlot * float64(m.Slots))
		out.Moves = append(out.Moves, &clusterv1.Move{From: name(m.From), To: name(m.To), Slots: uint32(m.Slots), Bytes: bytes})
		if !m.To.IsZero() {
			moved += m.Slots
			out.MovedBytes += bytes
		}
	}
	slices.SortFunc(out.Moves, func(a, b *clusterv1.Move) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	out.MovedShare = float64(moved) / float64(ring.Slots*base.Replicas())
	up := func(id ring.NodeID) bool {
		h := s.nodes.Health(id)
		return h.Connected && !h.Suspect && !v.IsDead(id)
	}
	for _, short := range base.Shortages(base.Replicas(), up) {
		out.DegradedSlots += uint32(short.Slots)
	}
	for _, r := range v.Short(next) {
		out.ShortSlots += uint32(r.Len())
		if len(out.ShortRanges) < listedRanges {
			out.ShortRanges = append(out.ShortRanges, &clusterv1.SlotRange{From: uint32(r.From), To: uint32(r.To)})
		}
	}
	before, after := ring.QuorumLoss(base, s.quorum(base)), ring.QuorumLoss(next, s.quorum(next))
	for i := range before {
		out.Risks = append(out.Risks, &clusterv1.FailureRisk{Failures: uint32(i + 1), Before: before[i], After: after[i]})
	}
	return out
}

// quorum is how many copies reads and writes need by this gateway's defaults, whichever is more.
func (s *Cluster) quorum(l *ring.Layout) int {
	return max(l.EffectiveR(s.about.R.Of(l.N())), l.EffectiveW(s.about.W.Of(l.N())))
}

// shareTable lists the members of both layouts.
func shareTable(base, next *ring.Layout, name func(ring.NodeID) string) (out []*clusterv1.NodeShare) {
	share := func(l *ring.Layout, id ring.NodeID) float64 {
		slots := 0
		for _, r := range l.OwnedRanges(id) {
			slots += r.Len()
		}
		return float64(slots) / ring.Slots
	}
	for _, m := range base.Members() {
		n := &clusterv1.NodeShare{Id: m.ID.String(), Name: name(m.ID), WeightBefore: m.Weight, ShareBefore: share(base, m.ID)}
		if now, stays := next.Member(m.ID); stays {
			n.WeightAfter, n.ShareAfter = now.Weight, share(next, m.ID)
		}
		out = append(out, n)
	}
	for _, m := range next.Members() {
		if _, was := base.Member(m.ID); !was {
			out = append(out, &clusterv1.NodeShare{Id: m.ID.String(), Name: name(m.ID), WeightAfter: m.Weight, ShareAfter: share(next, m.ID)})
		}
	}
	slices.SortFunc(out, func(a, b *clusterv1.NodeShare) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Id, b.Id))
	})
	return out
}

// bytesPerSlot is what one copy of a slot takes on disk, on average over the members that can be asked; 0 where none can.
func (s *Cluster) bytesPerSlot(ctx context.Context, l *ring.Layout) float64 {
	members := l.Members()
	answers := make([]*clusterv1.Node, len(members))
	eachOf(len(members), askNodes, func(i int) {
		answers[i] = &clusterv1.Node{Connected: s.nodes.Health(members[i].ID).Connected}
		s.askNode(ctx, members[i].ID, answers[i])
	})
	shares := s.sharesIn(l)
	bytes, slots := 0.0, 0.0
	for i, a := range answers {
		if a.GetError() == "" {
			bytes += float64(a.GetDiskBytes())
			slots += shares[members[i].ID] * ring.Slots
		}
	}
	return bytes / math.Max(slots, 1)
}

// CanStop implements the service.
func (s *Cluster) CanStop(ctx context.Context, m *clusterv1.CanStopRequest) (*clusterv1.CanStopResponse, error) {
	state := s.nodes.State()
	if state == nil {
		return nil, problem.ErrNoLayout
	}
	members := membersOf(state)
	id, err := findNode(m.GetNode(), "node", members, outsiders(state), state.Name)
	if err != nil {
		return nil, err
	}
	name := state.Name(id)
	out := &clusterv1.CanStopResponse{Node: name, CanStop: true}
	if !slices.Contains(members, id) {
		out.Verdict = name + " may stop: it is no member, and no key is kept on it."
		return out, nil
	}
	told := s.askTasks(ctx, members, nil, func(ring.NodeID) bool { return false })
	lacking := s.lacking(state, told)
	slots, worst, others := uint32(0), 0, uint32(0) // the most that are short in one live layout, of how many, and of other owners
	for _, l := range state.Live {
		need := s.quorum(l)
		reasons := notSynced(state, l, lacking)
		usable := func(o ring.NodeID) bool { return o != id && len(reasons[o]) == 0 }
		short, sum, rest := shortagesOf(l, need, id, usable)
		others = max(others, rest)
		for _, sh := range short {
			out.Short = append(out.Short, describe(state, l, sh, need, id, reasons))
		}
		if sum > slots {
			slots, worst = sum, need
		}
	}
	switch {
	case slots > 0:
		out.CanStop = false
		out.Verdict = fmt.Sprintf("%s must not stop now: %.1f %% of the keys would have fewer than %d copies that are up and complete.",
			name, 100*float64(slots)/ring.Slots, worst)
	default:
		out.Verdict = fmt.Sprintf("%s may stop: every key keeps at least %d copies that are up and complete.", name, s.quorum(state.Read))
	}
	slices.SortStableFunc(out.Short, func(a, b *clusterv1.StopShortage) int { return cmp.Compare(b.GetSlots(), a.GetSlots()) })
	out.Short = out.Short[:min(len(out.Short), listedRanges)]
	out.Remarks = s.stopRemarks(state, id, told, others)
	return out, nil
}

// shortagesOf lists the slots of id that are short, and counts them, and those of others that are.
func shortagesOf(l *ring.Layout, need int, id ring.NodeID, usable func(ring.NodeID) bool) (own []ring.Shortage, sum, rest uint32) {
	for _, sh := range l.Shortages(need, usable) {
		if !slices.Contains(sh.Owners, id) {
			rest += uint32(sh.Slots)
			continue
		}
		own = append(own, sh)
		sum += uint32(sh.Slots)
	}
	return own, sum, rest
}

// lacking says of each member why its copies do not count, where there are reasons.
func (s *Cluster) lacking(state *nodeclient.State, told []told) map[ring.NodeID][]string {
	out := make(map[ring.NodeID][]string)
	for _, t := range told {
		h := s.nodes.Health(t.id)
		switch {
		case state.View.IsDead(t.id):
			out[t.id] = append(out[t.id], "is marked dead")
		case !h.Connected || h.Suspect:
			out[t.id] = append(out[t.id], "does not answer")
		case t.err != nil:
			out[t.id] = append(out[t.id], "does not say what it lacks")
		case t.resp.GetRefilling():
			out[t.id] = append(out[t.id], "is fetching what its disk lost")
		}
		for _, k := range t.resp.GetHints() {
			if len(k.GetTarget()) == len(ring.NodeID{}) && k.GetHints() > 0 {
				target := ring.NodeID(k.GetTarget())
				out[target] = append(out[target], fmt.Sprintf("lacks %d writes that %s keeps for it", k.GetHints(), state.Name(t.id)))
			}
		}
	}
	return out
}

// notSynced adds to lacking who has not synced l yet.
func notSynced(state *nodeclient.State, l *ring.Layout, lacking map[ring.NodeID][]string) map[ring.NodeID][]string {
	out := make(map[ring.NodeID][]string, len(lacking))
	for id, reasons := range lacking {
		out[id] = slices.Clone(reasons)
	}
	_, missing, _ := state.View.Missing(l)
	for _, id := range missing {
		out[id] = append(out[id], "has not synced the layout under way")
	}
	return out
}

func describe(state *nodeclient.State, l *ring.Layout, sh ring.Shortage, need int, id ring.NodeID, reasons map[ring.NodeID][]string) *clusterv1.StopShortage {
	out := &clusterv1.StopShortage{Layout: layoutRef(l.ID()), Slots: uint32(sh.Slots), Needed: uint32(need)}
	for _, o := range sh.Owners {
		out.Owners = append(out.Owners, state.Name(o))
		switch {
		case o == id:
		case len(reasons[o]) == 0:
			out.Left = append(out.Left, state.Name(o))
		default:
			out.Reasons = append(out.Reasons, state.Name(o)+" "+strings.Join(reasons[o], ", and "))
		}
	}
	slices.Sort(out.Owners)
	slices.Sort(out.Left)
	slices.Sort(out.Reasons)
	return out
}

// stopRemarks is what to know of a stop besides.
func (s *Cluster) stopRemarks(state *nodeclient.State, id ring.NodeID, told []told, others uint32) (out []string) {
	for _, t := range told {
		if t.id != id {
			continue
		}
		for _, k := range t.resp.GetHints() {
			out = append(out, fmt.Sprintf("It keeps %d writes for %s, which would wait until it is back.", k.GetHints(), nameOf(state, k.GetTarget())))
		}
	}
	if f := s.facts(state); f.changing != "" {
		out = append(out, fmt.Sprintf("The layout change to %s would wait until it is back.", f.changing))
	}
	if others > 0 {
		out = append(out, fmt.Sprintf("%.1f %% of the keys, none of them on it, are short of copies already.", 100*float64(others)/ring.Slots))
	}
	return out
}
