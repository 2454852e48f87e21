package node

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// listScanKeys and listScanBytes bound what one listing looks at before it answers with what it has.
	listScanKeys  = 20_000
	listScanBytes = 8 << 20
	// listKeysMax is the most keys of an answer.
	listKeysMax = 1000
	// listsServed bounds the listings that are served at once; further ones are refused, since gets and puts come first.
	listsServed = 2
)

// ListKeys implements the service.
func (s *service) ListKeys(ctx context.Context, req *storagev1.ListKeysRequest) (*storagev1.ListKeysResponse, error) {
	n := s.node
	r := ring.Range{From: ring.Slot(req.GetFromSlot()), To: ring.Slot(req.GetToSlot())}
	name := req.GetLayout()
	if r.From >= r.To || r.To > ring.Slots || len(name.GetHash()) != 16 || req.GetLimit() < 1 || req.GetLimit() > listKeysMax {
		return nil, status.Error(codes.InvalidArgument, "a listing needs a layout, a range of slots and a limit from 1 to 1000")
	}
	id := ring.LayoutID{Epoch: name.GetEpoch(), Hash: [16]byte(name.GetHash())}
	switch {
	case !n.state.AdmitRead(id):
		return nil, status.Errorf(codes.FailedPrecondition, "layout %s is not in use any more", id)
	case !n.ownsAll(id, r):
		return nil, status.Errorf(codes.FailedPrecondition, "%s is not all owned here in layout %s", r, id)
	case n.inDoubt():
		return nil, status.Error(codes.DataLoss, "this node's disk lost data and is being refilled")
	}
	select {
	case n.lists <- struct{}{}:
		defer func() { <-n.lists }()
	default:
		return nil, status.Error(codes.ResourceExhausted, "too many listings")
	}
	return n.listKeys(ctx, r, req)
}

// ownsAll says whether this node owns all of r in a layout that it knows.
func (n *Node) ownsAll(id ring.LayoutID, r ring.Range) bool {
	k := n.state.Known()
	if k == nil {
		return false
	}
	for _, l := range []*ring.Layout{k.Settled, k.Newest} {
		if l.ID() != id {
			continue
		}
		return slices.ContainsFunc(l.OwnedRanges(n.id), func(o ring.Range) bool { return o.From <= r.From && r.To <= o.To })
	}
	return false
}

func (n *Node) listKeys(ctx context.Context, r ring.Range, req *storagev1.ListKeysRequest) (*storagev1.ListKeysResponse, error) {
	after := req.GetAfter()
	if len(after) == 0 {
		after = nil
	}
	out := &storagev1.ListKeysResponse{Complete: true}
	seen, size := 0, 0
	err := n.store.Scan(r, after, func(key, rec []byte) (bool, error) {
		if seen == listScanKeys || seen > 0 && size+len(rec) > listScanBytes || len(out.Keys) == int(req.GetLimit()) || ctx.Err() != nil {
			out.Complete = false
			return false, nil
		}
		seen++
		size += len(key) + len(rec)
		out.Last = append(out.Last[:0], key...)
		if !bytes.HasPrefix(key, req.GetPrefix()) {
			return true, nil
		}
		set, err := record.Decode(key, rec)
		if err != nil {
			return false, err
		}
		deleted := true
		for i := range set.Siblings {
			deleted = deleted && set.Siblings[i].Tombstone
		}
		out.Keys = append(out.Keys, &storagev1.ListedKey{Key: bytes.Clone(key), Deleted: deleted})
		return true, nil
	})
	if errors.Is(err, kv.ErrDoubted) {
		return nil, status.Error(codes.DataLoss, err.Error())
	}
	if err != nil {
		n.log.Warn().Err(err).Stringer("range", r).Msg("range not read for a listing")
		return nil, status.Errorf(codes.Internal, "read range: %v", err)
	}
	return out, nil
}
