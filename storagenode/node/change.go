package node

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/internal/layout"
)

// changeKinds are the changes that operators ask for.
var changeKinds = map[storagev1.LayoutChange]ring.ChangeKind{
	storagev1.LayoutChange_LAYOUT_CHANGE_LEAVE:   ring.ChangeLeave,
	storagev1.LayoutChange_LAYOUT_CHANGE_REMOVE:  ring.ChangeRemove,
	storagev1.LayoutChange_LAYOUT_CHANGE_REPLACE: ring.ChangeReplace,
	storagev1.LayoutChange_LAYOUT_CHANGE_WEIGHT:  ring.ChangeWeight,
	storagev1.LayoutChange_LAYOUT_CHANGE_ABORT:   ring.ChangeAbort,
}

// ChangeLayout carries out or previews what an operator asks for.
func (s *service) ChangeLayout(ctx context.Context, req *storagev1.ChangeLayoutRequest) (*storagev1.ChangeLayoutResponse, error) {
	n := s.node
	kind, known := changeKinds[req.GetChange()]
	if !known {
		return nil, status.Error(codes.InvalidArgument, "unknown change")
	}
	r := layout.ChangeRequest{Kind: kind, Node: sender(req.GetNode()), Weight: req.GetWeight(), AcceptLoss: req.GetAcceptLoss(), DryRun: req.GetDryRun()}
	if kind == ring.ChangeReplace {
		id := sender(req.GetBy())
		for _, m := range n.gossip.Members() {
			if m.ID == id && !id.IsZero() {
				r.By = ring.Member{ID: id, Name: m.Name, Zone: m.Zone}
			}
		}
	}
	p, err := n.driver.Change(ctx, r)
	switch {
	case errors.Is(err, ring.ErrInvalid):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ring.ErrUnsettled), errors.Is(err, ring.ErrRemovalPending), errors.Is(err, ring.ErrNoChange),
		errors.Is(err, ring.ErrSynced), errors.Is(err, layout.ErrRefused):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil && ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return nil, status.Errorf(codes.Internal, "change the layout: %v", err)
	}
	resp := &storagev1.ChangeLayoutResponse{Layout: layoutName(p.Layout.ID()), View: p.View.Encode(), TransferRate: uint64(n.cfg.TransferRate)}
	for _, m := range p.Layout.Members() {
		if slots := p.Gained[m.ID]; slots > 0 {
			resp.Gained = append(resp.Gained, &storagev1.SlotGain{Node: m.ID[:], Slots: uint32(slots)})
		}
	}
	for _, r := range p.Short {
		resp.ShortSlots += uint32(r.Len())
	}
	return resp, nil
}
