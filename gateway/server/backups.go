package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dotring/dotring/gateway/backup"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/nodeclient"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
)

// backups reads and restores by way of the nodes.
type backups struct {
	client *nodeclient.Client
	coord  *coordinator.Coordinator
}

// Restore implements httpapi.Backups.
func (b backups) Restore(ctx context.Context, key, rec []byte, trace string) error {
	return b.coord.Restore(ctx, key, rec, trace)
}

// Snapshot implements httpapi.Backups.
func (b backups) Snapshot(ctx context.Context, node, part string) (backup.Head, func(func(key, rec []byte) error) error, error) {
	state := b.client.State()
	if state == nil {
		return backup.Head{}, nil, problem.ErrNoLayout
	}
	id, ok := nodeNamed(state, node)
	if !ok {
		return backup.Head{}, nil, fmt.Errorf("%w: there is no node %q", problem.ErrBadParameter, node)
	}
	req := &storagev1.SnapshotRequest{Part: storagev1.SnapshotPart_SNAPSHOT_PART_RECORDS}
	if part == backup.Hints {
		req.Part = storagev1.SnapshotPart_SNAPSHOT_PART_HINTS
	}
	fail := func(err error) error {
		kind := coordinator.QuorumImpossible
		if status.Code(err) == codes.ResourceExhausted {
			kind = coordinator.Overloaded
		}
		return &coordinator.Error{Kind: kind, Err: fmt.Errorf("node %s: %w", node, err)}
	}
	stream, err := b.client.Snapshot(ctx, id, req)
	if err != nil {
		return backup.Head{}, nil, fail(err)
	}
	first, err := stream.Recv()
	if err != nil {
		return backup.Head{}, nil, fail(err)
	}
	h := first.GetHead()
	if h == nil {
		return backup.Head{}, nil, fail(errors.New("its snapshot has no head"))
	}
	settled := h.GetSettled()
	head := backup.Head{Cluster: hex.EncodeToString(h.GetCluster()), Node: hex.EncodeToString(h.GetNode()), Name: h.GetName(), Part: part,
		Layout: fmt.Sprintf("%d-%x", settled.GetEpoch(), settled.GetHash()), GraceMS: h.GetTombstoneGraceMs()}
	return head, func(add func(key, rec []byte) error) error {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("node %s: %w", node, err)
		}
		for _, r := range m.GetRecords() {
			if err := add(r.GetKey(), r.GetRecord()); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// nodeNamed finds a node by its id, or by its name among the members.
func nodeNamed(state *nodeclient.State, name string) (ring.NodeID, bool) {
	for _, l := range state.Live {
		for _, m := range l.Members() {
			if m.ID.String() == name || state.Name(m.ID) == name {
				return m.ID, true
			}
		}
	}
	for id, m := range state.Members {
		if id.String() == name || m.Name == name && m.Status == "alive" {
			return id, true
		}
	}
	return ring.NodeID{}, false
}
