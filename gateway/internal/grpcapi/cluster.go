package grpcapi

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/traffic"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Nodes is what the Cluster service asks of the node client.
type Nodes interface {
	State() *nodeclient.State
	Health(id ring.NodeID) nodeclient.Health
	GetNode(ctx context.Context, id ring.NodeID) (*storagev1.GetNodeResponse, error)
	GetTasks(ctx context.Context, id ring.NodeID, req *storagev1.GetTasksRequest) (*storagev1.GetTasksResponse, error)
	ChangeLayout(ctx context.Context, id ring.NodeID, req *storagev1.ChangeLayoutRequest) (*storagev1.ChangeLayoutResponse, error)
	ContextKeysAgree() (agree bool, reason string)
}

// Inspector reads all replicas of one key.
type Inspector interface {
	Inspect(ctx context.Context, key []byte) (coordinator.Inspection, error)
}

// About is what the gateway says of itself.
type About struct {
	Name, Version string
	R, W          coordinator.Quorum // the defaults
	Signed        bool               // a context key is configured
	// Guard knows who asks; nil lets everybody.
	Guard *access.Guard
	// Traffic knows what went through the gateway.
	Traffic *traffic.Traffic
}

// Cluster is the cluster service. It is safe for concurrent use. Its errors are plain ones, as those of KV.
type Cluster struct {
	clusterv1.UnimplementedClusterServer
	nodes     Nodes
	inspector Inspector
	about     About

	mu       sync.Mutex
	sharesOf ring.LayoutID // the layout that shares is of
	shares   map[ring.NodeID]float64
}

// NewCluster returns the service.
func NewCluster(nodes Nodes, inspector Inspector, about About) *Cluster {
	return &Cluster{nodes: nodes, inspector: inspector, about: about}
}

// GetStatus implements the service.
func (s *Cluster) GetStatus(_ context.Context, _ *clusterv1.GetStatusRequest) (*clusterv1.GetStatusResponse, error) {
	out := &clusterv1.GetStatusResponse{Gateway: s.about.Name, Version: s.about.Version}
	f := facts{signed: s.about.Signed}
	if state := s.nodes.State(); state != nil {
		f = s.facts(state)
		settled, newest := state.View.Settled(), state.View.Newest()
		out.Cluster, out.Settled, out.Newest = state.Cluster.String(), layoutRef(settled.ID()), layoutRef(newest.ID())
		out.Changing = settled.ID() != newest.ID()
		out.ReadQuorum, out.WriteQuorum = uint32(f.r), uint32(f.w)
	}
	f.keysAgree, f.keysReason = s.nodes.ContextKeysAgree()
	out.Members, out.Alive = uint32(f.members), uint32(f.usable)
	out.Replicas, out.ReplicasConfigured, out.MinWriteQuorum = uint32(f.replicas), uint32(f.configured), uint32(f.minW)
	out.Promise, out.Warnings = f.promise(), f.warnings()
	return out, nil
}

// facts gathers what promise and warnings depend on.
func (s *Cluster) facts(state *nodeclient.State) facts {
	l := state.Read
	f := facts{known: true, signed: s.about.Signed, members: len(l.Members()), replicas: l.Replicas(), configured: l.N(),
		minW: l.MinW()}
	f.r, f.w = min(s.about.R.Of(l.N()), l.N()), min(s.about.W.Of(l.N()), l.N())
	for _, m := range l.Members() {
		h := s.nodes.Health(m.ID)
		known := state.Members[m.ID]
		if h.Connected && !h.Suspect {
			f.usable++
			if known.Status == "failed" {
				f.disputed = append(f.disputed, state.Name(m.ID))
			}
			continue
		}
		f.away = append(f.away, state.Name(m.ID))
	}
	slices.Sort(f.away)
	slices.Sort(f.disputed)
	zones := make(map[string]bool)
	for _, m := range l.Members() {
		zones[m.Zone] = true
	}
	f.zones = len(zones)
	if newest := state.View.Newest(); newest.ID() != state.View.Settled().ID() {
		f.changing = newest.ID().String()
		acked, synced, switched := state.View.Missing(newest)
		for _, w := range []struct {
			what string
			who  []ring.NodeID
		}{{"acknowledge it", acked}, {"sync", synced}, {"switch", switched}} {
			if len(w.who) > 0 {
				f.waitsTo = w.what
				for _, id := range w.who {
					f.waitsFor = append(f.waitsFor, state.Name(id))
				}
				break
			}
		}
	}
	return f
}

func layoutRef(id ring.LayoutID) *clusterv1.LayoutRef {
	return &clusterv1.LayoutRef{Epoch: id.Epoch, Hash: fmt.Sprintf("%x", id.Hash[:])}
}

const (
	// askNodes is how many nodes are asked for themselves at once, and askTime how long each has.
	askNodes = 16
	askTime  = time.Second
)

// ListNodes implements the service. Nodes that gossip knows are listed too when no layout names them.
func (s *Cluster) ListNodes(ctx context.Context, _ *clusterv1.ListNodesRequest) (*clusterv1.ListNodesResponse, error) {
	state := s.nodes.State()
	if state == nil {
		return nil, problem.ErrNoLayout
	}
	nodes := make(map[ring.NodeID]*clusterv1.Node)
	for _, l := range state.Live {
		for _, m := range l.Members() {
			nodes[m.ID] = &clusterv1.Node{Id: m.ID.String(), Name: m.Name, Zone: m.Zone, Weight: m.Weight,
				Status: "unknown", Tokens: uint32(len(m.Tokens))}
		}
	}
	for id, m := range state.Members {
		n := nodes[id]
		if n == nil {
			n = &clusterv1.Node{Id: id.String(), Name: m.Name, Zone: m.Zone, Weight: m.Weight}
			nodes[id] = n
		}
		n.Status, n.GrpcAddr, n.GossipAddr, n.AdminAddr = m.Status, m.GRPCAddr, m.GossipAddr, m.AdminAddr
		n.Actor = m.Actor.String()
	}
	shares := s.sharesIn(state.Read)
	ids := make([]ring.NodeID, 0, len(nodes))
	for id, n := range nodes {
		ids = append(ids, id)
		h := s.nodes.Health(id)
		n.Connected, n.Phi, n.Share = h.Connected, h.Phi, shares[id]
		n.AnswersPerSecond, n.ReadMeanSeconds, n.ReadP95Seconds = h.PerSecond, h.Mean.Seconds(), h.P95.Seconds()
	}
	slices.SortFunc(ids, func(a, b ring.NodeID) int {
		return cmp.Or(cmp.Compare(nodes[a].Name, nodes[b].Name), a.Compare(b))
	})
	out := &clusterv1.ListNodesResponse{Nodes: make([]*clusterv1.Node, len(ids))}
	eachOf(len(ids), askNodes, func(i int) {
		out.Nodes[i] = nodes[ids[i]]
		s.askNode(ctx, ids[i], out.Nodes[i])
	})
	return out, nil
}

// askNode fills in what only the node itself knows.
func (s *Cluster) askNode(ctx context.Context, id ring.NodeID, n *clusterv1.Node) {
	if !n.GetConnected() {
		n.Error = "not connected"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	asked := time.Now()
	got, err := s.nodes.GetNode(ctx, id)
	answered := time.Now()
	if err != nil {
		n.Error = problem.FromStatus(err).Error()
		return
	}
	n.Keys, n.DiskBytes, n.Engine = got.GetKeys(), got.GetDiskBytes(), got.GetEngine()
	n.Hints, n.HintBytes = got.GetHints(), got.GetHintBytes()
	n.SeesAlive, n.GossipDigest = got.GetSeesAlive(), hex.EncodeToString(got.GetGossipDigest())
	n.AckedEpoch, n.SyncedEpoch = got.GetAcked().GetEpoch(), got.GetSynced().GetEpoch()
	if len(got.GetActor()) == len(causal.Actor{}) {
		n.Actor = causal.Actor(got.GetActor()).String()
	}
	n.State, n.Version, n.AntiEntropyAgeSeconds = got.GetState(), got.GetVersion(), got.GetAntiEntropyAgeSeconds()
	n.DiskFreeBytes, n.DiskTotalBytes = got.GetDiskFreeBytes(), got.GetDiskTotalBytes()
	if ms := got.GetNowUnixMs(); ms > 0 {
		n.ClockAheadSeconds = ahead(asked, answered, time.UnixMilli(int64(ms))).Seconds()
	}
	if ms := got.GetCertificateEndsUnixMs(); ms > 0 {
		n.CertificateEnds = timestamppb.New(time.UnixMilli(int64(ms)))
	}
	if ms := got.GetStartUnixMs(); ms > 0 {
		n.Started = timestamppb.New(time.UnixMilli(int64(ms)))
	}
}

// ahead is how far a clock that showed a time between asked and answered is certainly before this one; below 0 it is behind.
func ahead(asked, answered, showed time.Time) time.Duration {
	switch {
	case showed.After(answered):
		return showed.Sub(answered)
	case showed.Before(asked.Truncate(time.Millisecond)):
		return showed.Sub(asked)
	}
	return 0
}

// sharesIn returns which part of all keys each member holds a replica of. It walks all slots, so that the shares of one
// layout are kept.
func (s *Cluster) sharesIn(l *ring.Layout) map[ring.NodeID]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shares != nil && s.sharesOf == l.ID() {
		return s.shares
	}
	shares := make(map[ring.NodeID]float64, len(l.Members()))
	for _, m := range l.Members() {
		slots := 0
		for _, r := range l.OwnedRanges(m.ID) {
			slots += r.Len()
		}
		shares[m.ID] = float64(slots) / ring.Slots
	}
	s.shares, s.sharesOf = shares, l.ID()
	return shares
}

// GetLayout implements the service.
func (s *Cluster) GetLayout(_ context.Context, _ *clusterv1.GetLayoutRequest) (*clusterv1.GetLayoutResponse, error) {
	state := s.nodes.State()
	if state == nil {
		return nil, problem.ErrNoLayout
	}
	out := &clusterv1.GetLayoutResponse{}
	for _, l := range state.Live {
		m := &clusterv1.Layout{Ref: layoutRef(l.ID()), Base: layoutRef(l.Base()), Replicas: uint32(l.N()),
			MinWriteQuorum: uint32(l.MinW())}
		for _, member := range l.Members() {
			tokens := make([]uint32, len(member.Tokens))
			for i, t := range member.Tokens {
				tokens[i] = uint32(t)
			}
			m.Members = append(m.Members, &clusterv1.LayoutMember{Id: member.ID.String(), Name: member.Name,
				Zone: member.Zone, Weight: member.Weight, Tokens: tokens})
		}
		acked, synced, switched := state.View.Missing(l)
		required := state.View.Required(l)
		m.Acked, m.Synced, m.Switched = without(required, acked), without(required, synced), without(required, switched)
		out.Layouts = append(out.Layouts, m)
	}
	return out, nil
}

// without returns the ids of all that are not missing.
func without(all, missing []ring.NodeID) []string {
	var out []string
	for _, id := range all {
		if !slices.Contains(missing, id) {
			out = append(out, id.String())
		}
	}
	return out
}

// InspectKey implements the service.
func (s *Cluster) InspectKey(ctx context.Context, m *clusterv1.InspectKeyRequest) (*clusterv1.InspectKeyResponse, error) {
	key, err := keyOf(m)
	if err != nil {
		return nil, err
	}
	if err := allow(ctx, s.about.Guard, access.Get, key); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, 0, false)
	defer cancel()
	found, err := s.inspector.Inspect(ctx, key)
	if err != nil {
		return nil, err
	}
	out := &clusterv1.InspectKeyResponse{Slot: uint32(found.Slot), Layout: layoutRef(found.Read)}
	if utf8.Valid(key) {
		out.Key = string(key)
	} else {
		out.KeyBase64 = key
	}
	state := s.nodes.State()
	for i := range found.Replicas {
		r := inspected(key, &found.Replicas[i])
		if state != nil {
			r.Zone = zoneOf(state, found.Replicas[i].Node)
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out, nil
}

// zoneOf returns the zone of a node, empty where it is not known.
func zoneOf(state *nodeclient.State, id ring.NodeID) string {
	for _, l := range state.Live {
		if m, ok := l.Member(id); ok {
			return m.Zone
		}
	}
	return state.Members[id].Zone
}
