package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/internal/peer"
)

// peers calls other nodes for the layout driver. Safe for concurrent use.
type peers struct {
	self ring.NodeID
	*peer.Pool

	mu    sync.Mutex
	beats map[string]*wire.Heard // by address
}

func newPeers(self ring.NodeID, gossip *membership.Cluster, creds credentials.TransportCredentials, options ...grpc.DialOption) *peers {
	return &peers{self: self, beats: make(map[string]*wire.Heard), Pool: peer.New(creds, func(id ring.NodeID) (string, bool) {
		for _, m := range gossip.Members() {
			if m.ID == id && m.Status == membership.Alive && m.GRPCAddr != "" {
				return m.GRPCAddr, true
			}
		}
		return "", false
	}, options...)}
}

// ExchangeView implements layout.Peers.
func (p *peers) ExchangeView(ctx context.Context, to layout.Peer, view []byte) (layout.Exchanged, error) {
	c, done, err := p.At(to.Addr)
	if err != nil {
		return layout.Exchanged{}, err
	}
	defer done()
	resp, err := c.ExchangeView(ctx, &storagev1.ExchangeViewRequest{View: view, From: p.self[:]})
	if err != nil {
		return layout.Exchanged{}, fmt.Errorf("exchange views: %w", err)
	}
	return layout.Exchanged{View: resp.GetView(), Again: resp.GetAgain(), Hash: resp.GetHash()}, nil
}

// Join implements layout.Peers.
func (p *peers) Join(ctx context.Context, to layout.Peer, cluster ring.ClusterID, me ring.Member) ([]byte, error) {
	c, done, err := p.At(to.Addr)
	if err != nil {
		return nil, err
	}
	defer done()
	resp, err := c.Join(ctx, &storagev1.JoinRequest{Cluster: cluster[:], Id: me.ID[:], Name: me.Name, Zone: me.Zone, Weight: me.Weight})
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return resp.GetView(), nil
}

// Pull implements layout.Peers.
func (p *peers) Pull(ctx context.Context, from layout.Peer, id ring.LayoutID, r ring.Range, after []byte, fn func(layout.Chunk) error) error {
	return p.pull(ctx, from, pullRequest(id, r, after), records(fn))
}

// PullDoubted implements layout.Peers.
func (p *peers) PullDoubted(ctx context.Context, from layout.Peer, id ring.LayoutID, r ring.Range, after []byte, fn func(layout.Chunk) error) error {
	req := pullRequest(id, r, after)
	req.Doubted = true
	return p.pull(ctx, from, req, records(fn))
}

// PullMissing implements layout.Peers.
func (p *peers) PullMissing(ctx context.Context, from layout.Peer, id ring.LayoutID, r ring.Range, after, until, have []byte, fn func(layout.Chunk) error) error {
	req := pullRequest(id, r, after)
	req.Until, req.Have = until, have
	return p.pull(ctx, from, req, records(fn))
}

// PullSums implements layout.Peers.
func (p *peers) PullSums(ctx context.Context, from layout.Peer, id ring.LayoutID, r ring.Range, after []byte, fn func(layout.Group) error) error {
	req := pullRequest(id, r, after)
	req.Sums = true
	return p.pull(ctx, from, req, func(m *storagev1.PullResponse) error {
		for _, g := range m.GetGroups() {
			if err := fn(layout.Group{Last: g.GetLast(), Sum: g.GetSum()}); err != nil {
				return err
			}
		}
		return nil
	})
}

func pullRequest(id ring.LayoutID, r ring.Range, after []byte) *storagev1.PullRequest {
	return &storagev1.PullRequest{Layout: layoutName(id), FromSlot: uint32(r.From), ToSlot: uint32(r.To), After: after}
}

func records(fn func(layout.Chunk) error) func(*storagev1.PullResponse) error {
	return func(m *storagev1.PullResponse) error {
		var chunk layout.Chunk
		for _, rec := range m.GetRecords() {
			chunk.Keys = append(chunk.Keys, rec.GetKey())
			chunk.Records = append(chunk.Records, rec.GetRecord())
		}
		return fn(chunk)
	}
}

func (p *peers) pull(ctx context.Context, from layout.Peer, req *storagev1.PullRequest, fn func(*storagev1.PullResponse) error) error {
	c, done, err := p.At(from.Addr)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req.Peer = p.self[:]
	st, err := c.Pull(ctx, req)
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if status.Code(err) == codes.DataLoss {
			return fmt.Errorf("pull: %w: %w", layout.ErrSourceInDoubt, err)
		}
		if err != nil {
			return fmt.Errorf("pull: %w", err)
		}
		if err := fn(m); err != nil {
			return err
		}
	}
}
