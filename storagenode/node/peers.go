package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/internal/layout"
)

// peersMax bounds the connections to other nodes that are kept; beyond it, any is closed for a new one.
const peersMax = 256

// peers calls other nodes, over one connection each. Safe for concurrent use.
type peers struct {
	self    ring.NodeID
	options []grpc.DialOption

	mu     sync.Mutex
	conns  map[string]*peerConn
	closed bool
}

// peerConn is a connection and how many calls use it.
type peerConn struct {
	conn *grpc.ClientConn
	used int
	gone bool // to be closed when no call uses it
}

func newPeers(self ring.NodeID) (*peers, error) {
	return &peers{self: self, conns: make(map[string]*peerConn), options: []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()),
			grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes), grpc.MaxCallSendMsgSize(wire.MaxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(5 * time.Minute),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	}}, nil
}

var errPeersClosed = errors.New("node is stopping")

// client returns a client for an address, and what to call when done with it.
func (p *peers) client(addr string) (storagev1.StorageClient, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errPeersClosed
	}
	c := p.conns[addr]
	if c == nil {
		if len(p.conns) >= peersMax {
			for old := range p.conns {
				p.dropLocked(old)
				break
			}
		}
		conn, err := grpc.NewClient("passthrough:///"+addr, p.options...)
		if err != nil {
			return nil, nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		c = &peerConn{conn: conn}
		p.conns[addr] = c
	}
	c.used++
	return storagev1.NewStorageClient(c.conn), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.used--
		if c.gone && c.used == 0 {
			_ = c.conn.Close() // nothing runs on it
		}
	}, nil
}

func (p *peers) dropLocked(addr string) {
	c := p.conns[addr]
	delete(p.conns, addr)
	c.gone = true
	if c.used == 0 {
		_ = c.conn.Close() // nothing runs on it
	}
}

// Close ends all connections and the calls on them.
func (p *peers) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for addr, c := range p.conns {
		errs = append(errs, c.conn.Close())
		delete(p.conns, addr)
	}
	return errors.Join(errs...)
}

// ExchangeView implements layout.Peers.
func (p *peers) ExchangeView(ctx context.Context, to layout.Peer, view []byte) ([]byte, error) {
	c, done, err := p.client(to.Addr)
	if err != nil {
		return nil, err
	}
	defer done()
	resp, err := c.ExchangeView(ctx, &storagev1.ExchangeViewRequest{View: view, From: p.self[:]})
	if err != nil {
		return nil, fmt.Errorf("exchange views: %w", err)
	}
	return resp.GetView(), nil
}

// Join implements layout.Peers.
func (p *peers) Join(ctx context.Context, to layout.Peer, cluster ring.ClusterID, me ring.Member) ([]byte, error) {
	c, done, err := p.client(to.Addr)
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
	c, done, err := p.client(from.Addr)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := c.Pull(ctx, &storagev1.PullRequest{
		Layout:   &storagev1.LayoutName{Epoch: id.Epoch, Hash: id.Hash[:]},
		FromSlot: uint32(r.From), ToSlot: uint32(r.To), After: after, Peer: p.self[:],
	})
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("pull: %w", err)
		}
		var chunk layout.Chunk
		for _, rec := range m.GetRecords() {
			chunk.Keys = append(chunk.Keys, rec.GetKey())
			chunk.Records = append(chunk.Records, rec.GetRecord())
		}
		if err := fn(chunk); err != nil {
			return err
		}
	}
}
