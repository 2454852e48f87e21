// Package peer holds a node's connections to other nodes: one each, shared by all that calls them.
package peer

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/ring"
)

var (
	// ErrAway says that no address of a node is known, or that it is not alive.
	ErrAway = errors.New("peer is away")
	// ErrClosed says that the node is stopping.
	ErrClosed = errors.New("node is stopping")
)

// connsMax bounds the connections that are kept; beyond it, any is closed for a new one as soon as no call uses it.
const connsMax = 256

// Pool connects on demand. All methods are safe for concurrent use.
type Pool struct {
	find    func(ring.NodeID) (addr string, ok bool)
	options []grpc.DialOption

	mu     sync.Mutex
	conns  map[string]*conn
	closed bool
}

// conn is a connection and how many calls use it.
type conn struct {
	conn *grpc.ClientConn
	used int
	gone bool // to be closed when no call uses it
}

// New returns a pool without connections, which are made with creds. find tells where a living node is reached now; it must be safe for concurrent
// use and must not block. Further options are added to the pool's own.
func New(creds credentials.TransportCredentials, find func(ring.NodeID) (addr string, ok bool), further ...grpc.DialOption) *Pool {
	return &Pool{find: find, conns: make(map[string]*conn), options: append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()),
			grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes), grpc.MaxCallSendMsgSize(wire.MaxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(5 * time.Minute),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	}, further...)}
}

// To returns a client for a node, and what to call when done with it. Errors: ErrAway, ErrClosed.
func (p *Pool) To(id ring.NodeID) (storagev1.StorageClient, func(), error) {
	addr, ok := p.find(id)
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s", ErrAway, id)
	}
	return p.At(addr)
}

// At returns a client for an address, and what to call when done with it. The error is ErrClosed, or that of an address
// that is none.
func (p *Pool) At(addr string) (storagev1.StorageClient, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, ErrClosed
	}
	c := p.conns[addr]
	if c == nil {
		if len(p.conns) >= connsMax {
			for old := range p.conns {
				p.dropLocked(old)
				break
			}
		}
		cc, err := grpc.NewClient("passthrough:///"+addr, p.options...)
		if err != nil {
			return nil, nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		c = &conn{conn: cc}
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

func (p *Pool) dropLocked(addr string) {
	c := p.conns[addr]
	delete(p.conns, addr)
	c.gone = true
	if c.used == 0 {
		_ = c.conn.Close() // nothing runs on it
	}
}

// Close ends all connections and the calls on them. Idempotent.
func (p *Pool) Close() error {
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
