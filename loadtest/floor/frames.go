package floor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
)

// shape is what one request and its answers carry, in bytes.
type shape struct {
	name, what string
	op         storagev1.Op
	// value and record are sent; answer comes back as a record or, for a digest, as one.
	value, record, answer int
	// answers is how often the request is answered: a mint twice, when its dot is issued and when it is durable.
	answers int
}

const (
	// recordOverhead is what a record with one sibling has besides its value: header, clock of one entry, checksums.
	recordOverhead = 80
	digestSize     = 16
	keySize        = 24
)

func shapes(valueSize int) []shape {
	rec := valueSize + recordOverhead
	return []shape{
		{"frame mint", "value out, record without it back, and its durability", storagev1.Op_OP_MINT, valueSize, 0, recordOverhead, 2},
		{"frame apply", "record out, acknowledgement back", storagev1.Op_OP_APPLY, 0, rec, 0, 1},
		{"frame read", "key out, record back", storagev1.Op_OP_READ, 0, 0, rec, 1},
		{"frame digest", "key out, digest back", storagev1.Op_OP_DIGEST, 0, 0, digestSize, 1},
	}
}

// echo answers each frame with one frame, of answers as large as real ones.
type echo struct {
	storagev1.UnimplementedStorageServer
	byOp map[storagev1.Op]shape
}

func (e echo) Exchange(st grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	record := make([]byte, e.largest())
	for {
		in, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out := &storagev1.Frame{Responses: make([]*storagev1.Response, 0, 2*len(in.GetRequests()))}
		for _, r := range in.GetRequests() {
			s := e.byOp[r.GetOp()]
			res := &storagev1.Response{Id: r.GetId(), Status: storagev1.Status_STATUS_OK, Durable: s.answers == 1}
			if s.op == storagev1.Op_OP_DIGEST {
				res.Digest = record[:s.answer]
			} else {
				res.Record = record[:s.answer]
			}
			out.Responses = append(out.Responses, res)
			if s.answers == 2 {
				res.DotActor, res.DotCounter, res.ValueCut = record[:16], 12345, true
				out.Responses = append(out.Responses, &storagev1.Response{Id: r.GetId(), Status: storagev1.Status_STATUS_OK, Durable: true})
			}
		}
		if err := st.Send(out); err != nil {
			return err
		}
	}
}

// largest is the size of the longest answer.
func (e echo) largest() int {
	n := 16 // an actor
	for _, s := range e.byOp {
		n = max(n, s.answer)
	}
	return n
}

// serveFrames serves the echo until done is closed.
func serveFrames(l net.Listener, valueSize int, done <-chan struct{}) error {
	e := echo{byOp: map[storagev1.Op]shape{}}
	for _, s := range shapes(valueSize) {
		e.byOp[s.op] = s
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxRecvMsgSize(wire.MaxMessageBytes),
		experimental.BufferPool(wire.NewPool()))
	storagev1.RegisterStorageServer(srv, e)
	go func() {
		<-done
		srv.Stop()
	}()
	if err := srv.Serve(l); !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
		return err
	}
	return nil
}

// caller is one operation at a time on a stream, as a handler of the gateway is.
type caller struct {
	id   uint64
	done chan struct{} // one token for each operation that was answered
	left int
}

// lane is one stream with its sender and receiver.
type lane struct {
	conn    *grpc.ClientConn
	stream  grpc.BidiStreamingClient[storagev1.Frame, storagev1.Frame]
	out     *wire.Outbox[*storagev1.Request]
	callers map[uint64]*caller // read by the receiver alone once the lane runs
}

const laneQueue = 64 << 10

// echoLoad sends requests of one shape from as many callers as there are connections, over as many streams as there are
// nodes, for a time or until about so many were answered (0 for no such limit), and returns how many were.
func echoLoad(ctx context.Context, addr string, s shape, callers, streams int, d time.Duration, limit int64) (int64, error) {
	ctx, cancel := context.WithCancel(ctx) // without a deadline, which the server would learn of and enforce first
	defer cancel()
	defer time.AfterFunc(d, cancel).Stop()
	lanes := make([]*lane, streams)
	for i := range lanes {
		l, err := openLane(ctx, addr)
		if err != nil {
			return 0, errors.Join(err, closeLanes(lanes))
		}
		lanes[i] = l
	}
	all := make([]*caller, callers)
	for i := range all {
		all[i] = &caller{id: uint64(i + 1), done: make(chan struct{}, 1), left: s.answers}
		lanes[i%streams].callers[all[i].id] = all[i]
	}
	var total atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 2*streams+callers)
	for _, l := range lanes {
		wg.Go(func() { errs <- endOn(ctx, cancel, l.send(ctx)) })
		wg.Go(func() { errs <- endOn(ctx, cancel, l.receive(s)) })
	}
	for i, c := range all {
		wg.Go(func() {
			errs <- endOn(ctx, cancel, c.call(ctx, lanes[i%streams], s, func() {
				if total.Add(1) == limit {
					cancel()
				}
			}))
		})
	}
	wg.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return total.Load(), errors.Join(err, closeLanes(lanes))
}

// endOn ends everything when one part fails, and forgets what fails because everything ended.
func endOn(ctx context.Context, cancel context.CancelFunc, err error) error {
	if err == nil || ctx.Err() != nil {
		return nil
	}
	cancel()
	return err
}

// openLane opens a stream on a connection of its own, as a gateway has to each node.
func openLane(ctx context.Context, addr string) (*lane, error) {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes)),
		experimental.WithBufferPool(wire.NewPool()))
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	st, err := storagev1.NewStorageClient(cc).Exchange(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("floor: %w", err), cc.Close())
	}
	return &lane{conn: cc, stream: st, out: wire.NewOutbox[*storagev1.Request](laneQueue, laneQueue<<10), callers: map[uint64]*caller{}}, nil
}

func closeLanes(lanes []*lane) error {
	var errs []error
	for _, l := range lanes {
		if l != nil {
			errs = append(errs, l.conn.Close())
		}
	}
	return errors.Join(errs...)
}

func (l *lane) send(ctx context.Context) error {
	var batch []*storagev1.Request
	for {
		var err error
		if batch, err = l.out.Take(ctx, batch[:0]); err != nil {
			return err
		}
		if err := l.stream.Send(&storagev1.Frame{Requests: batch}); err != nil {
			return err
		}
	}
}

func (l *lane) receive(s shape) error {
	for {
		f, err := l.stream.Recv()
		if err != nil {
			return err
		}
		for _, r := range f.GetResponses() {
			c := l.callers[r.GetId()]
			if c == nil {
				return fmt.Errorf("floor: an answer to request %d, which nobody sent", r.GetId())
			}
			if c.left--; c.left == 0 {
				c.left = s.answers
				c.done <- struct{}{}
			}
		}
	}
}

func (c *caller) call(ctx context.Context, l *lane, s shape, answered func()) error {
	key, value, record := make([]byte, keySize), make([]byte, s.value), make([]byte, s.record)
	trace := "RRRRRRRRRRRRRRRRRRRRRRRRRR"
	for {
		r := &storagev1.Request{Id: c.id, Op: s.op, Key: key, TimeoutMs: 2000, Trace: trace, Value: value, Record: record}
		if s.op == storagev1.Op_OP_MINT {
			r.ContentType, r.Checksum, r.RequestId = "application/octet-stream", 1, trace
		}
		if err := l.out.Put(r, r.SizeVT()); err != nil {
			return err
		}
		select {
		case <-c.done:
			answered()
		case <-ctx.Done():
			return nil
		}
	}
}
