package node

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/hints"
	"github.com/dotring/dotring/storagenode/internal/handoff"
	"github.com/dotring/dotring/storagenode/internal/stream"
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
	case n.draining.Load() || n.state.Known() == nil:
		return nil, status.Error(codes.Unavailable, "node is starting or stopping")
	}
	select {
	case n.deliveries <- struct{}{}:
		defer func() { <-n.deliveries }()
	default:
		return nil, status.Error(codes.ResourceExhausted, "too many deliveries")
	}
	type outcome struct {
		at  int
		err error
	}
	records := req.GetRecords()
	outcomes := make(chan outcome, len(records))
	for i, rec := range records {
		if err := n.store.Apply(rec.GetKey(), rec.GetRecord(), func(_ bool, err error) { outcomes <- outcome{i, err} }); err != nil {
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
	pause := hints.PauseFor(max(n.store.Pressure(), n.stream.Pressure()))
	resp.PauseMs = uint32(math.Ceil(float64(pause) / float64(time.Millisecond)))
	return resp, nil
}

// Deliver implements handoff.Peers.
func (p *peers) Deliver(ctx context.Context, addr string, records []*storagev1.PulledRecord) ([]storagev1.Status, time.Duration, error) {
	c, done, err := p.At(addr)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	resp, err := c.Deliver(ctx, &storagev1.DeliverRequest{From: p.self[:], Cause: storagev1.Cause_CAUSE_HINT, Records: records})
	if err != nil {
		return nil, 0, fmt.Errorf("deliver: %w", err)
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
