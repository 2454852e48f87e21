package node

import (
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/storagenode/kv"
)

// snapshotsServed bounds the snapshots that are served at once, since each keeps superseded data on the disk.
const snapshotsServed = 4

// Snapshot streams what this node holds as it was at one moment, which has passed when the first message is sent.
func (s *service) Snapshot(req *storagev1.SnapshotRequest, st grpc.ServerStreamingServer[storagev1.SnapshotResponse]) error {
	n := s.node
	part := kv.Records
	switch req.GetPart() {
	case storagev1.SnapshotPart_SNAPSHOT_PART_HINTS:
		part = kv.Hints
	case storagev1.SnapshotPart_SNAPSHOT_PART_RECORDS:
	default:
		return status.Error(codes.InvalidArgument, "a snapshot is of hints or of records")
	}
	k := n.state.Known()
	if k == nil || !n.state.Ready() || n.draining.Load() {
		return status.Error(codes.Unavailable, "node is starting or stopping")
	}
	select {
	case n.snapshots <- struct{}{}:
		defer func() { <-n.snapshots }()
	default:
		return status.Error(codes.ResourceExhausted, "too many snapshots")
	}
	snap, err := n.store.Snapshot(part)
	if errors.Is(err, kv.ErrDoubted) {
		return status.Error(codes.DataLoss, "this node's disk lost data and is being refilled")
	}
	if err != nil {
		return status.Errorf(codes.Unavailable, "snapshot: %v", err)
	}
	defer snap.Release()
	cluster := k.Cluster
	if err := st.Send(&storagev1.SnapshotResponse{Head: &storagev1.SnapshotHead{Cluster: cluster[:], Node: n.id[:], Name: n.cfg.Name,
		Settled: layoutName(k.Settled.ID()), TombstoneGraceMs: uint64(n.cfg.TombstoneGrace / time.Millisecond)}}); err != nil {
		return err
	}
	for {
		page, err := snap.Next(chunkBytes)
		if err != nil {
			n.log.Warn().Err(err).Msg("not read for a backup")
			return status.Errorf(codes.Internal, "read for a snapshot: %v", err)
		}
		if len(page) == 0 {
			return nil
		}
		out := &storagev1.SnapshotResponse{Records: make([]*storagev1.PulledRecord, len(page))}
		for i, e := range page {
			out.Records[i] = &storagev1.PulledRecord{Key: e.Key, Record: e.Record}
		}
		if err := st.Send(out); err != nil {
			return err
		}
	}
}
