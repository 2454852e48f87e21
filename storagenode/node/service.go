package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

const (
	// chunkBytes is about how much a pull sends in one message; a larger record travels alone.
	chunkBytes = 256 << 10
	// groupKeys and groupBytes bound what one sum of a pull stands for.
	groupKeys, groupBytes = 256, 1 << 20
	// pullsServed bounds the pulls that are served at once; further ones are refused and come again.
	pullsServed = 16
	// watchPause is the least time between two messages to one watcher.
	watchPause = 50 * time.Millisecond
)

// service is the node's gRPC service.
type service struct {
	storagev1.UnimplementedStorageServer
	node *Node
}

// Exchange is the data path. A stream opens once the node may serve from its disk, so that gateways use others until then.
func (s *service) Exchange(st grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	if s.node.state.Known() != nil {
		s.node.witness.Wait(st.Context())
	}
	return s.node.stream.Exchange(st)
}

// ExchangeView merges the caller's view and answers with the union.
func (s *service) ExchangeView(_ context.Context, req *storagev1.ExchangeViewRequest) (*storagev1.ExchangeViewResponse, error) {
	a, err := s.node.driver.Answer(sender(req.GetFrom()), req.GetView())
	switch {
	case errors.Is(err, ring.ErrForeignCluster):
		s.node.driver.Foreign(hexID(req.GetFrom()), ring.ClusterOf(req.GetView()))
		return nil, status.Error(codes.FailedPrecondition, "this node belongs to another cluster")
	case err != nil:
		return nil, status.Errorf(codes.InvalidArgument, "view: %v", err)
	}
	return &storagev1.ExchangeViewResponse{View: a.View, Again: a.Again, Hash: a.Hash}, nil
}

// sender reads the id of a node, zero where it is malformed: nobody's.
func sender(b []byte) (id ring.NodeID) {
	if len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

func hexID(b []byte) string {
	if len(b) != 16 {
		return "unknown"
	}
	return ring.NodeID(b).String()
}

// Join notes that the caller wants to be a member, and answers with the view as it is now: the caller asks again until
// it finds itself in it.
func (s *service) Join(_ context.Context, req *storagev1.JoinRequest) (*storagev1.JoinResponse, error) {
	n := s.node
	k := n.state.Known()
	switch {
	case len(req.GetId()) != 16 || len(req.GetCluster()) != 16:
		return nil, status.Error(codes.InvalidArgument, "ids have 16 bytes")
	case k == nil:
		return nil, status.Error(codes.Unavailable, "node belongs to no cluster yet")
	case ring.ClusterID(req.GetCluster()) != k.Cluster:
		n.driver.Foreign(req.GetName(), ring.ClusterID(req.GetCluster()))
		return nil, status.Errorf(codes.FailedPrecondition, "this node belongs to cluster %s", k.Cluster)
	}
	if id := ring.NodeID(req.GetId()); !k.IsMember(id) {
		err := n.driver.RequestJoin(ring.Member{ID: id, Name: req.GetName(), Zone: req.GetZone(), Weight: req.GetWeight()}, time.Now())
		switch {
		case errors.Is(err, layout.ErrBusy):
			return nil, status.Error(codes.ResourceExhausted, err.Error())
		case err != nil:
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	return &storagev1.JoinResponse{View: k.Encoded}, nil
}

// Watch sends the cluster's state now and after every change, at most 20 times a second: after the first time only what the
// change is, since at 300 members all of it has 100 KB and a layout change makes hundreds of steps.
func (s *service) Watch(req *storagev1.WatchRequest, st grpc.ServerStreamingServer[storagev1.WatchResponse]) error {
	var last snapshot
	for {
		snap, changed := s.node.watch.get()
		if snap.ended {
			return status.Error(codes.Unavailable, "node is stopping")
		}
		m := &storagev1.WatchResponse{View: snap.view(req.GetBrief(), last.known)}
		if !slices.Equal(snap.raw, last.raw) {
			m.Members = snap.members
		}
		if err := st.Send(m); err != nil {
			return err
		}
		last = snap
		if !pause(st.Context(), watchPause) {
			return st.Context().Err()
		}
		select {
		case <-changed:
		case <-st.Context().Done():
			return st.Context().Err()
		}
	}
}

// Pull streams the durable records of a range, to a node that syncs to a layout which this one has acknowledged: then
// every write that was taken without knowing that layout is durable here.
func (s *service) Pull(req *storagev1.PullRequest, st grpc.ServerStreamingServer[storagev1.PullResponse]) error {
	n := s.node
	r := ring.Range{From: ring.Slot(req.GetFromSlot()), To: ring.Slot(req.GetToSlot())}
	name := req.GetLayout()
	if r.From >= r.To || r.To > ring.Slots || len(name.GetHash()) != 16 {
		return status.Error(codes.InvalidArgument, "a pull needs a layout and a range of slots")
	}
	id := ring.LayoutID{Epoch: name.GetEpoch(), Hash: [16]byte(name.GetHash())}
	// A refill names the settled layout: it asks for what is durable, whatever change may be under way.
	acked, k := n.state.Fence().Acked, n.state.Known()
	if acked != id && (k == nil || k.Settled.ID() != id) {
		return status.Errorf(codes.FailedPrecondition, "layout %s is neither settled nor the one acknowledged here, %s is", id, acked)
	}
	if !n.witness.Vouched() {
		return status.Error(codes.Unavailable, "this node waits to hear what others remember of its disk")
	}
	if n.inDoubt() && !req.GetDoubted() {
		return status.Error(codes.DataLoss, "this node's disk lost data and is being refilled")
	}
	if len(req.GetHave())%merkle.SumLen != 0 {
		return status.Error(codes.InvalidArgument, "what the caller has is hashes of 16 bytes")
	}
	leave, err := n.enterPull(st.Context(), len(req.GetUntil()) > 0)
	if err != nil {
		return err
	}
	defer leave()
	after := req.GetAfter()
	if len(after) == 0 {
		after = nil
	}
	have := make(map[string]bool)
	for leaf := range slices.Chunk(req.GetHave(), merkle.SumLen) {
		have[string(leaf)] = true
	}
	for {
		page, last, err := n.page(r, after, req, have)
		if errors.Is(err, kv.ErrDoubted) {
			return status.Error(codes.DataLoss, err.Error())
		}
		if err != nil {
			n.log.Warn().Err(err).Str("peer", hexID(req.GetPeer())).Stringer("range", r).Msg("range not read for a pull")
			return status.Errorf(codes.Internal, "read range: %v", err)
		}
		if last == nil {
			return nil
		}
		if len(page.GetRecords())+len(page.GetGroups()) > 0 {
			if err := st.Send(page); err != nil {
				return err
			}
		}
		after = last
	}
}

// enterPull takes a turn. A pull of few records, which its caller asks for while another one waits for him, has a turn of its
// own kind, for which it waits.
func (n *Node) enterPull(ctx context.Context, few bool) (leave func(), err error) {
	if few {
		select {
		case n.fewPulls <- struct{}{}:
			return func() { <-n.fewPulls }, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	select {
	case n.pulls <- struct{}{}:
		return func() { <-n.pulls }, nil
	default:
		return nil, status.Error(codes.ResourceExhausted, "too many pulls")
	}
}

// page reads the next chunk of a pull up to the key last, which is nil at the end. Each page is a scan of its own, so that
// a slow receiver pins nothing.
func (n *Node) page(r ring.Range, after []byte, req *storagev1.PullRequest, have map[string]bool) (page *storagev1.PullResponse, last []byte, err error) {
	page = &storagev1.PullResponse{}
	size, keys := 0, 0
	var sum merkle.Sum
	scan := n.store.Scan
	if req.GetDoubted() {
		scan = n.store.ScanDoubted
	}
	err = scan(r, after, func(key, rec []byte) (bool, error) {
		if len(req.GetUntil()) > 0 && layout.IsBehind(key, req.GetUntil()) {
			return false, nil
		}
		most := chunkBytes
		if req.GetSums() {
			most = groupBytes
		}
		if keys > 0 && (size+len(key)+len(rec) > most || keys >= groupKeys && req.GetSums()) {
			return false, nil
		}
		keys++
		size += len(key) + len(rec)
		if req.GetSums() || len(have) > 0 {
			d, err := record.DigestOf(rec)
			if err != nil {
				return false, err
			}
			leaf := merkle.Leaf(key, d)
			sum = sum.Plus(leaf)
			if have[string(leaf.Append(nil))] {
				last = append(last[:0], key...)
				return true, nil
			}
		}
		last = append(last[:0], key...)
		if !req.GetSums() {
			page.Records = append(page.Records, &storagev1.PulledRecord{Key: bytes.Clone(key), Record: bytes.Clone(rec)})
		}
		return true, nil
	})
	if req.GetSums() && last != nil {
		page.Groups = []*storagev1.PulledGroup{{Last: last, Sum: sum.Append(nil)}}
	}
	return page, last, err
}

// Compare answers with sums over parts of ranges, for anti-entropy.
func (s *service) Compare(ctx context.Context, req *storagev1.CompareRequest) (*storagev1.CompareResponse, error) {
	return s.node.repair.Compare(ctx, req)
}

// Digests lists the keys of some slots with digests and clocks.
func (s *service) Digests(req *storagev1.DigestsRequest, st grpc.ServerStreamingServer[storagev1.DigestsResponse]) error {
	return s.node.repair.Digests(st.Context(), req, st.Send)
}

// Fetch returns the records of some keys.
func (s *service) Fetch(ctx context.Context, req *storagev1.FetchRequest) (*storagev1.FetchResponse, error) {
	return s.node.repair.Fetch(ctx, req)
}

// Holds tells of which records this node holds exactly what it is asked about.
func (s *service) Holds(ctx context.Context, req *storagev1.HoldsRequest) (*storagev1.HoldsResponse, error) {
	return s.node.left.Holds(ctx, req)
}

// Collect answers about tombstones that may be needed no more, marks and removes them.
func (s *service) Collect(ctx context.Context, req *storagev1.CollectRequest) (*storagev1.CollectResponse, error) {
	return s.node.collect.Collect(ctx, req)
}

// Witness remembers how far another node's disk has come.
func (s *service) Witness(ctx context.Context, req *storagev1.WitnessRequest) (*storagev1.WitnessResponse, error) {
	return s.node.witness.Witness(ctx, req)
}

// GetNode tells what the node knows of itself.
func (s *service) GetNode(context.Context, *storagev1.GetNodeRequest) (*storagev1.GetNodeResponse, error) {
	n := s.node
	stats, actor, fence := n.store.Stats(), n.store.Actor(), n.state.Fence()
	resp := &storagev1.GetNodeResponse{
		Id: n.id[:], Name: n.cfg.Name, Actor: actor[:], Keys: uint64(max(stats.Keys, 0)), DotsIssued: stats.Minted,
		State: n.describe(), Engine: n.cfg.Engine, StartUnixMs: uint64(n.started.UnixMilli()),
		Acked: layoutName(fence.Acked), AntiEntropyAgeSeconds: n.repair.Age().Seconds(), Repairs: n.repair.Repaired(),
	}
	resp.NowUnixMs, resp.Version = uint64(time.Now().UnixMilli()), version()
	if n.cfg.Engine != EngineMemory {
		free, total, err := roomOn(n.cfg.DataDir)
		if err != nil {
			n.log.Warn().Err(err).Msg("room on the disk is not known")
		}
		resp.DiskFreeBytes, resp.DiskTotalBytes = free, total
	}
	if n.tls != nil {
		resp.CertificateEndsUnixMs = uint64(n.tls.Expires().UnixMilli())
	}
	for _, l := range stats.Engine.Levels {
		resp.DiskBytes += uint64(max(l.Bytes, 0))
	}
	if resp.DiskBytes == 0 {
		resp.DiskBytes = uint64(max(stats.Bytes, 0)) // still in the engine's log or memory
	}
	resp.Hints, resp.HintBytes = uint64(max(stats.Hints, 0)), uint64(max(stats.HintBytes, 0))
	resp.SeesAlive, resp.GossipDigest = seen(n.gossip.Members())
	if k := n.state.Known(); k != nil {
		resp.Synced = layoutName(k.Synced)
	}
	return resp, nil
}

func layoutName(id ring.LayoutID) *storagev1.LayoutName {
	if id.IsZero() {
		return nil
	}
	return &storagev1.LayoutName{Epoch: id.Epoch, Hash: id.Hash[:]}
}

// version is the version of the program, as the toolchain put it in.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// describe is the node's state in one word.
func (n *Node) describe() string {
	k := n.state.Known()
	switch {
	case n.draining.Load():
		return "draining"
	case k == nil:
		return "starting"
	case !n.state.Ready():
		return "joining"
	case !n.store.Stats().Available:
		return "reopening"
	case !n.witness.Vouched():
		return "starting"
	case n.store.Doubts().Any():
		return "refilling"
	case n.state.Removed():
		return "removed"
	default:
		return "ready"
	}
}

// seen sums up what gossip tells of the members: how many are alive, and a digest that is equal on nodes that see the same.
func seen(members []membership.Member) (alive uint32, digest []byte) {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b membership.Member) int { return a.ID.Compare(b.ID) })
	h := sha256.New()
	for _, m := range members {
		if m.Status == membership.Alive {
			alive++
		}
		fmt.Fprintf(h, "%s %s %s\n", m.ID, m.Status, m.Actor)
	}
	return alive, h.Sum(nil)[:8]
}
