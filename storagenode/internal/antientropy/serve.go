package antientropy

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

const (
	// pageKeys bounds the keys of one message of a listing.
	pageKeys = 512
	// fetchBytes is about how much one fetch answers with; a larger record travels alone.
	fetchBytes = 1 << 20
	// fetchMost bounds the keys of one fetch.
	fetchMost = 1024
)

// admit refuses a peer that this node does not share the named layout with, and answers while it must not.
func (s *Service) admit(from []byte, name *storagev1.LayoutName) error {
	k := s.cfg.State.Known()
	switch {
	case len(from) != len(ring.NodeID{}) || len(name.GetHash()) != 16:
		return status.Error(codes.InvalidArgument, "a comparison needs a node and a layout")
	case k == nil:
		return status.Error(codes.Unavailable, "node belongs to no cluster yet")
	case s.cfg.InDoubt():
		return status.Error(codes.Unavailable, "this node's disk lost data and is being refilled")
	case !k.IsMember(ring.NodeID(from)):
		return status.Error(codes.PermissionDenied, "not a member")
	}
	id := ring.LayoutID{Epoch: name.GetEpoch(), Hash: [16]byte(name.GetHash())}
	if acked := s.cfg.State.Fence().Acked; acked != id && k.Settled.ID() != id {
		return status.Errorf(codes.FailedPrecondition, "layout %s is neither settled nor the one acknowledged here, %s is", id, acked)
	}
	return nil
}

// ready refuses ranges that are not counted yet.
func (s *Service) ready(ranges []ring.Range) error {
	for _, r := range ranges {
		if !s.cfg.Sums.Ready(r) {
			return status.Errorf(codes.Unavailable, "range %v is still being counted", r)
		}
	}
	return nil
}

// unpair reads ranges, from and to in turn.
func unpair(dst []ring.Range, slots []uint32) ([]ring.Range, error) {
	if len(slots)%2 != 0 {
		return nil, status.Error(codes.InvalidArgument, "a range without an end")
	}
	for i := 0; i < len(slots); i += 2 {
		r := ring.Range{From: ring.Slot(slots[i]), To: ring.Slot(slots[i+1])}
		if r.From >= r.To || r.To > ring.Slots {
			return nil, status.Errorf(codes.InvalidArgument, "range %v", r)
		}
		dst = append(dst, r)
	}
	return dst, nil
}

// Compare answers with the sums that a peer asks for.
func (s *Service) Compare(_ context.Context, req *storagev1.CompareRequest) (*storagev1.CompareResponse, error) {
	if err := s.admit(req.GetFrom(), req.GetLayout()); err != nil {
		return nil, err
	}
	ranges, err := unpair(nil, []uint32{req.GetFromSlot(), req.GetToSlot()})
	if err == nil {
		ranges, err = unpair(ranges, req.GetMore())
	}
	if err != nil {
		return nil, err
	}
	a := merkle.Ask{Ranges: ranges, Parts: int(req.GetParts())}
	if err := a.Valid(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.ready(ranges); err != nil {
		return nil, err
	}
	s.metrics.served.WithLabelValues("compare").Inc()
	return &storagev1.CompareResponse{Hashes: s.cfg.Sums.Answer(a)}, nil
}

// Digests lists the keys of some slots, in pages.
func (s *Service) Digests(ctx context.Context, req *storagev1.DigestsRequest, send func(*storagev1.DigestsResponse) error) error {
	if err := s.admit(req.GetFrom(), req.GetLayout()); err != nil {
		return err
	}
	ranges, err := unpair(nil, req.GetRanges())
	if err != nil {
		return err
	}
	for _, slot := range req.GetSlots() {
		if slot >= ring.Slots {
			return status.Errorf(codes.InvalidArgument, "slot %d", slot)
		}
		ranges = append(ranges, ring.Range{From: ring.Slot(slot), To: ring.Slot(slot) + 1})
	}
	if slotsOf(ranges) > listSlots {
		return status.Errorf(codes.InvalidArgument, "%d slots, at most %d", slotsOf(ranges), listSlots)
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	s.metrics.served.WithLabelValues("digests").Inc()
	page := &storagev1.DigestsResponse{}
	for _, r := range ranges {
		for more, after := true, []byte(nil); more; {
			if !yield(ctx, s.cfg.Store) {
				return ctx.Err()
			}
			var entries []merkle.Entry
			if entries, more, err = s.list(r, after, pageKeys-len(page.Keys)); err != nil {
				return failure(err)
			}
			for _, e := range entries {
				page.Keys = append(page.Keys, &storagev1.KeyDigest{Key: e.Key, Digest: e.Digest[:],
					Clock: causal.AppendContext(nil, causal.Context{Vector: e.Clock})})
				after = e.Key
			}
			if len(page.Keys) < pageKeys {
				continue
			}
			if err := send(page); err != nil {
				return err
			}
			page = &storagev1.DigestsResponse{}
		}
	}
	if len(page.Keys) == 0 {
		return nil
	}
	return send(page)
}

// enter waits for a turn among the calls that read records.
func (s *Service) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s.serving <- struct{}{}:
		return func() { <-s.serving }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func failure(err error) error {
	switch {
	case errors.Is(err, engine.ErrDamaged):
		return status.Errorf(codes.DataLoss, "read: %v", err)
	case errors.Is(err, kv.ErrReopening), errors.Is(err, kv.ErrClosed):
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Errorf(codes.Internal, "read: %v", err)
}

// list lists the first keys of r behind after, limit at most; more says that there may be others.
func (s *Service) list(r ring.Range, after []byte, limit int) (out []merkle.Entry, more bool, err error) {
	err = s.cfg.Store.Scan(r, after, func(key, rec []byte) (bool, error) {
		if len(out) >= limit {
			more = true
			return false, nil
		}
		digest, err := record.DigestOf(rec)
		if err != nil {
			return false, err
		}
		clock, err := record.DecodeClock(key, rec)
		if err != nil {
			return false, err
		}
		out = append(out, merkle.Entry{Key: bytes.Clone(key), Digest: digest, Clock: clock})
		return true, nil
	})
	return out, more, err
}

// listAll lists all keys of some ranges.
func (s *Service) listAll(ranges []ring.Range) (out []merkle.Entry, err error) {
	for _, r := range ranges {
		part, more, err := s.list(r, nil, listMax-len(out))
		if err != nil {
			return nil, err
		}
		if out = append(out, part...); more {
			return nil, errors.New("too many keys in one listing")
		}
	}
	return out, nil
}

// digestOf returns the digest of a key's record here, zero where there is none.
func (s *Service) digestOf(key []byte) (record.Digest, error) {
	rec, err := s.cfg.Store.Read(key)
	if errors.Is(err, kv.ErrNotFound) {
		return record.Digest{}, nil
	}
	if err != nil {
		return record.Digest{}, err
	}
	return record.DigestOf(rec)
}

// Fetch answers with the records of the first of some keys, as many as fit into a message. It fails with DataLoss where
// the first cannot be read.
func (s *Service) Fetch(ctx context.Context, req *storagev1.FetchRequest) (*storagev1.FetchResponse, error) {
	k := s.cfg.State.Known()
	switch {
	case len(req.GetKeys()) == 0 || len(req.GetKeys()) > fetchMost || len(req.GetFrom()) != len(ring.NodeID{}):
		return nil, status.Errorf(codes.InvalidArgument, "a fetch of %d keys", len(req.GetKeys()))
	case k == nil || s.cfg.InDoubt():
		return nil, status.Error(codes.Unavailable, "node has no layout, or its disk lost data")
	case !k.IsMember(ring.NodeID(req.GetFrom())):
		return nil, status.Error(codes.PermissionDenied, "not a member")
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	s.metrics.served.WithLabelValues("fetch").Inc()
	resp := &storagev1.FetchResponse{}
	size := 0
	for _, key := range req.GetKeys() {
		rec, err := s.cfg.Store.Read(key)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			if len(resp.Records) == 0 {
				return nil, failure(err)
			}
			break
		}
		if size += len(key) + len(rec); size > fetchBytes && len(resp.Records) > 0 {
			break
		}
		resp.Records = append(resp.Records, &storagev1.PulledRecord{Key: key, Record: rec})
	}
	return resp, nil
}
