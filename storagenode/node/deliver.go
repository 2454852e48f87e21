package node

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/hints"
	"github.com/dotring/dotring/storagenode/internal/handoff"
	"github.com/dotring/dotring/storagenode/internal/stream"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// deliveriesServed bounds the deliveries that are taken in at once; further ones are refused and come again.
	deliveriesServed = 16
	// deliveredMost bounds the records of one delivery.
	deliveredMost = 4 * hints.BatchRecords
)

// Deliver merges records that other nodes bring: hints that they kept for this one, or repairs. They are not fenced, and
// are taken also where this node does not own the slot: then they are leftovers, as good as hints.
func (s *service) Deliver(ctx context.Context, req *storagev1.DeliverRequest) (*storagev1.DeliverResponse, error) {
	n := s.node
	switch {
	case len(req.GetFrom()) != 16 || req.GetCause() != storagev1.Cause_CAUSE_HINT && req.GetCause() != storagev1.Cause_CAUSE_REPAIR:
		return nil, status.Error(codes.InvalidArgument, "a delivery needs a sender, and hints or repairs for a cause")
	case len(req.GetRecords()) > deliveredMost:
		return nil, status.Errorf(codes.InvalidArgument, "%d records, at most %d", len(req.GetRecords()), deliveredMost)
	case n.draining.Load() || n.state.Known() == nil || !n.witness.Vouched():
		return nil, status.Error(codes.Unavailable, "node is starting or stopping")
	}
	select {
	case n.deliveries <- struct{}{}:
		defer func() { <-n.deliveries }()
	default:
		return nil, status.Error(codes.ResourceExhausted, "too many deliveries")
	}
	limit, fresh := n.limitOf(req.GetHeard())
	type outcome struct {
		at  int
		err error
	}
	records := req.GetRecords()
	outcomes := make(chan outcome, len(records))
	for i, rec := range records {
		err := kv.ErrStale
		if fresh {
			err = n.store.ApplyBefore(limit, rec.GetKey(), rec.GetRecord(), func(_ bool, err error) { outcomes <- outcome{i, err} })
		}
		if err != nil {
			outcomes <- outcome{i, err}
		}
	}
	resp := &storagev1.DeliverResponse{Statuses: make([]storagev1.Status, len(records))}
	for range records {
		select {
		case o := <-outcomes:
			resp.Statuses[o.at] = stream.StatusOf(o.err)
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	pause := hints.PauseFor(n.pressure())
	resp.Heartbeat = n.pulse.Number(time.Now())
	resp.PauseMs = uint32(math.Ceil(float64(pause) / float64(time.Millisecond)))
	return resp, nil
}

// limitOf is when records that came with this heartbeat number must not be taken any more; false for one of another life.
func (n *Node) limitOf(heard uint64) (time.Time, bool) {
	born, ok := n.pulse.Born(heard)
	return born.Add(collect.MessageAge(n.cfg.TombstoneGrace)), ok
}

// Deliver implements handoff.Peers.
func (p *peers) Deliver(ctx context.Context, addr string, obtained time.Time, records []*storagev1.PulledRecord) ([]storagev1.Status, time.Duration, error) {
	c, done, err := p.At(addr)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	req := &storagev1.DeliverRequest{From: p.self[:], Cause: storagev1.Cause_CAUSE_HINT, Heard: p.heardBy(addr, obtained), Records: records}
	if req.Heard == 0 { // ask for a number first: these records are too old for it, and come again
		req.Records = nil
	}
	resp, err := c.Deliver(ctx, req)
	if err != nil {
		return nil, 0, fmt.Errorf("deliver: %w", err)
	}
	p.heard(addr, resp.GetHeartbeat())
	if len(req.Records) < len(records) {
		return make([]storagev1.Status, len(records)), 0, nil
	}
	return resp.GetStatuses(), time.Duration(resp.GetPauseMs()) * time.Millisecond, nil
}

// handoffState is the cluster as those who deliver hints see it.
func (n *Node) handoffState() (handoff.State, <-chan struct{}) {
	snap, changed := n.watch.get()
	state := handoff.State{Alive: make(map[ring.NodeID]string, len(snap.raw))}
	if k := n.state.Known(); k != nil {
		state.Live = []*ring.Layout{k.Settled}
		if !k.IsSettled() {
			state.Live = append(state.Live, k.Newest)
		}
	}
	for _, m := range snap.raw {
		if m.Status == membership.Alive && m.GRPCAddr != "" && m.ID != n.id {
			state.Alive[m.ID] = m.GRPCAddr
		}
	}
	return state, changed
}

// peersHeardMax bounds the addresses whose heartbeats are remembered.
const peersHeardMax = 4096

// heard takes note of a heartbeat number of the node at addr, which came now.
func (p *peers) heard(addr string, number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.beats[addr]
	if h == nil {
		if len(p.beats) >= peersHeardMax {
			clear(p.beats)
		}
		h = &wire.Heard{}
		p.beats[addr] = h
	}
	h.Add(time.Now(), number)
}

// heardBy is the last number of the node at addr that had come at a moment, 0 for none.
func (p *peers) heardBy(addr string, at time.Time) uint64 {
	p.mu.Lock()
	h := p.beats[addr]
	p.mu.Unlock()
	if h == nil {
		return 0
	}
	return h.By(at)
}

// keepers lists who may keep records: the members of the settled layout, and whoever else lives.
func (n *Node) keepers(l *ring.Layout) []collect.Member {
	snap, _ := n.watch.get()
	out := make([]collect.Member, 0, len(l.Members()))
	for _, m := range l.Members() {
		out = append(out, collect.Member{ID: m.ID, Name: m.Name, Alive: m.ID == n.id})
	}
	for _, m := range snap.raw {
		alive := m.Status == membership.Alive && m.GRPCAddr != ""
		i := slices.IndexFunc(out, func(k collect.Member) bool { return k.ID == m.ID })
		switch {
		case i >= 0:
			out[i].Alive = out[i].Alive || alive
		case alive:
			out = append(out, collect.Member{ID: m.ID, Name: m.Name, Alive: true})
		}
	}
	return out
}

// living lists the actors that members mint with, as gossip knows them.
func (n *Node) living() map[causal.Actor]bool {
	out := map[causal.Actor]bool{n.store.Actor(): true}
	for _, m := range n.gossip.Members() {
		if m.Status == membership.Alive {
			out[m.Actor] = true
		}
	}
	return out
}
