package target

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// grpcPerAddress is how many connections share one address: gRPC multiplexes, but one connection has one reader and one
// writer goroutine at each end.
const grpcPerAddress = 4

// grpcTarget reaches dotring over gRPC. Workers share a few connections, as callers in one process do.
type grpcTarget struct {
	cfg     Config
	options []grpc.DialOption

	mu    sync.Mutex
	conns map[int]*grpc.ClientConn
}

func newGRPC(cfg Config, more ...grpc.DialOption) *grpcTarget {
	options := append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, more...)
	return &grpcTarget{cfg: cfg, options: options, conns: map[int]*grpc.ClientConn{}}
}

func (t *grpcTarget) Name() string { return t.cfg.Kind }

// Dial does not wait for the connection; the first call does.
func (t *grpcTarget) Dial(ctx context.Context, worker int) (Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := worker % (len(t.cfg.Addresses) * grpcPerAddress)
	cc := t.conns[n]
	if cc == nil {
		var err error
		cc, err = grpc.NewClient("passthrough:///"+t.cfg.Addresses[n%len(t.cfg.Addresses)], t.options...)
		if err != nil {
			return nil, fmt.Errorf("target: %w", err)
		}
		t.conns[n] = cc
	}
	return &grpcConn{ctx: ctx, kv: kvv1.NewKVClient(cc)}, nil
}

func (t *grpcTarget) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, cc := range t.conns {
		errs = append(errs, cc.Close())
	}
	clear(t.conns)
	return errors.Join(errs...)
}

type grpcConn struct {
	ctx  context.Context
	kv   kvv1.KVClient
	seen []byte
}

func (c *grpcConn) Get(key []byte, deadline time.Time) ([]byte, Outcome, error) {
	ctx, cancel := context.WithDeadline(c.ctx, deadline)
	defer cancel()
	res, err := c.kv.Get(ctx, &kvv1.GetRequest{Key: key})
	if err != nil {
		out, err := grpcRefusal(err)
		return nil, out, err
	}
	c.seen = append(c.seen[:0], res.GetContext()...)
	switch res.GetState() {
	case kvv1.State_STATE_VALUE:
		return c.seen, OK, nil
	case kvv1.State_STATE_CONFLICT:
		return c.seen, Conflict, nil
	case kvv1.State_STATE_ABSENT:
		return c.seen, Absent, nil
	}
	return nil, Failed, fmt.Errorf("%w: state %v", ErrProtocol, res.GetState())
}

func (c *grpcConn) Put(key, value, seen []byte, deadline time.Time) (Outcome, error) {
	ctx, cancel := context.WithDeadline(c.ctx, deadline)
	defer cancel()
	req := &kvv1.PutRequest{Key: key, Value: value}
	if len(seen) > 0 {
		s := string(seen)
		req.Context = &s
	}
	if _, err := c.kv.Put(ctx, req); err != nil {
		return grpcRefusal(err)
	}
	return OK, nil
}

func grpcRefusal(err error) (Outcome, error) {
	if status.Code(err) == codes.ResourceExhausted {
		return Refused, nil
	}
	return Failed, err
}

// Close does nothing: the target owns the connection.
func (c *grpcConn) Close() error { return nil }
