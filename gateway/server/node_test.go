package server

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/ring"
)

// node is a storage node alone in its cluster that holds nothing: it answers reads, once they are let through.
type node struct {
	storagev1.UnimplementedStorageServer
	id          ring.NodeID
	view        *ring.View
	contextKeys [][]byte
	entered     chan struct{} // one for each read
	let         chan struct{} // closed: reads are answered
}

func startNode(t *testing.T) (*node, func(ctx context.Context, addr string) (net.Conn, error)) {
	t.Helper()
	n := &node{id: ring.NodeID{7}, entered: make(chan struct{}, 64), let: make(chan struct{})}
	n.view = ring.NewView(ring.Found(ring.ClusterID{9}, ring.Member{ID: n.id, Name: "node", Weight: 1,
		Tokens: ring.RandomTokens(n.id, 8, func(ring.Slot) bool { return false })}, 3, 2))
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()))
	storagev1.RegisterStorageServer(s, n)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it served
			t.Error(err)
		}
	})
	return n, func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
}

func (n *node) Watch(_ *storagev1.WatchRequest, stream grpc.ServerStreamingServer[storagev1.WatchResponse]) error {
	if err := stream.Send(&storagev1.WatchResponse{View: n.view.Encode(), Members: []*storagev1.Member{
		{Id: n.id[:], Name: "node", GrpcAddr: "node:1", Status: "alive"}}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (n *node) Exchange(stream grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	cluster := n.view.Cluster()
	var sending sync.Mutex
	send := func(f *storagev1.Frame) error {
		sending.Lock()
		defer sending.Unlock()
		return stream.Send(f)
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	hello := &storagev1.Hello{Version: 1, Cluster: cluster[:], Peer: n.id[:], Actor: make([]byte, 16), ContextKeys: n.contextKeys}
	if err := send(&storagev1.Frame{Hello: hello, Heartbeat: 1}); err != nil {
		return err
	}
	var beating sync.WaitGroup
	defer beating.Wait()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	beating.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for beat := uint64(2); ; beat++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if send(&storagev1.Frame{Heartbeat: beat}) != nil {
				return
			}
		}
	})
	for {
		f, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, r := range f.GetRequests() {
			id := r.GetId()
			beating.Go(func() {
				n.entered <- struct{}{}
				select {
				case <-n.let:
				case <-ctx.Done():
					return
				}
				// A stream that ended has no one to answer to.
				_ = send(&storagev1.Frame{Responses: []*storagev1.Response{{Id: id, Status: storagev1.Status_STATUS_ABSENT}}})
			})
		}
	}
}
