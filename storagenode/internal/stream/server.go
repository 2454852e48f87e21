// Package stream serves the data path: frames of requests in, frames of answers out.
//
// A stream has two goroutines: one receives frames and hands their requests, in chunks, to a pool of workers that all
// streams share; one sends whatever answers are ready as one frame. A slow disk read holds up one worker, not a stream.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/ringsvc/tracing"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/transfer"
)

const (
	protocolVersion = 1
	// heartbeatEvery is the longest a stream is silent.
	heartbeatEvery = 250 * time.Millisecond
	// chunk is how many requests a worker takes at once: enough that handing over costs little per request, few enough
	// that one slow read holds up few others.
	chunk = 16
	// outboxItems bounds the answers that wait on one stream. A peer that lets more pile up does not read: its stream
	// is ended.
	outboxItems = 64 << 10
	// unsentMax bounds the bytes of answers that wait on one stream; while they are more, new requests are refused.
	unsentMax = 32 << 20
	// streamsMax bounds the streams that are open at once.
	streamsMax = 4096
	// maxContextKeys bounds the fingerprints a gateway may announce.
	maxContextKeys = 4
	// valueCutMin is the shortest value that is cut out of a mint's answer.
	valueCutMin = 64
)

// Store is the local write path.
type Store interface {
	Mint(m kv.Mint, durable func(error)) (kv.Minted, error)
	ApplyBefore(limit time.Time, key, rec []byte, done func(changed bool, err error)) error
	ApplyHintBefore(limit time.Time, targets []ring.NodeID, key, rec []byte, done func(error)) error
	Read(key []byte) ([]byte, error)
	ReadMarked(key []byte) (rec []byte, marked bool, err error)
	Retired(key []byte) causal.Vector
	Digest(key []byte) (record.Digest, error)
	ReadHeld(key []byte) ([]byte, error)
	Actor() causal.Actor
	// CommitBegan is when the batch of writes began to be written whose callbacks are called now.
	CommitBegan() time.Time
}

// Layouts says what the node's place in the cluster lets it do. Safe for concurrent use.
type Layouts interface {
	// Cluster and Encoded are empty while the node belongs to none. Encoded is the view's bytes, read-only.
	Cluster() ring.ClusterID
	Encoded() []byte
	// BeginWrite says whether a client's write may be queued; EndWrite must follow where it says yes.
	BeginWrite(live []ring.LayoutID) bool
	EndWrite()
	AdmitRead(id ring.LayoutID) bool
	Owns(slot ring.Slot) bool
}

// Config is what a Server needs; all fields but Tracer are required.
type Config struct {
	Node     ring.NodeID
	Store    Store
	Layouts  Layouts
	Workers  int // goroutines that work on requests
	QueueMax int // requests that wait for a worker; those beyond are refused
	// Pulse numbers the heartbeats. Records that gateways bring are refused once they may be older than MessageAge, unless
	// that is 0.
	Pulse      wire.Pulse
	MessageAge time.Duration
	// Why says why a key's tombstone is still there; empty where the node knows of none.
	Why func(key []byte) string
	// InDoubt says whether the store may lack what this node acknowledged.
	InDoubt func() bool
	// ForeignCluster is told of a peer that speaks for another cluster.
	ForeignCluster func(peer string, cluster ring.ClusterID)
	// Tracer makes spans of the requests that gateways trace.
	Tracer     *tracing.Tracer
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Server owns the streams and the workers. Close must be called.
type Server struct {
	cfg     Config
	log     zerolog.Logger // sampled
	metrics *metrics
	jobs    chan job
	queued  atomic.Int64  // requests in jobs
	pending atomic.Int64  // requests received and not finally answered
	writes  atomic.Uint64 // that are durable and answered
	writing atomic.Int64  // nanoseconds that they took together
	idle    chan struct{}
	stop    chan struct{} // closed by Close
	owned   sync.WaitGroup
	workers sync.WaitGroup

	draining atomic.Bool

	mu    sync.Mutex
	conns []*conn // in order of arrival
	ended bool
}

// job is some requests of one frame.
type job struct {
	conn     *conn
	frame    *frame
	requests []*storagev1.Request
}

// frame is what the requests of one frame share.
type frame struct {
	live  []ring.LayoutID
	fault string // why none of its requests can be done
	at    time.Time
	spans map[uint64]*traced // by request, of those that are traced
}

// conn is one stream.
type conn struct {
	peer   string
	keys   [][]byte // fingerprints of the context keys of a gateway
	out    *wire.Outbox[*storagev1.Response]
	unsent atomic.Int64  // bytes in out
	frames atomic.Uint64 // sent
	// finish ends the sender once out is empty; abort ends it at once.
	take   context.Context
	finish context.CancelFunc
	abort  chan struct{}
	once   sync.Once
}

// New starts the workers.
func New(cfg Config) (*Server, error) {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s := &Server{
		cfg: cfg, metrics: m,
		log:  cfg.Logger.Sample(&zerolog.BurstSampler{Burst: 20, Period: time.Second}),
		jobs: make(chan job, cfg.QueueMax), idle: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	err = m.queue(cfg.Registerer, func() float64 { return float64(s.queued.Load()) }, func() float64 { return float64(s.pending.Load()) })
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	for range cfg.Workers {
		s.workers.Go(func() {
			for j := range s.jobs {
				s.queued.Add(-int64(len(j.requests)))
				s.process(j)
			}
		})
	}
	s.owned.Go(s.heartbeats)
	return s, nil
}

// Exchange serves one stream until the peer ends it, Close, or an error.
func (s *Server) Exchange(st grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	first, err := st.Recv()
	if err != nil {
		return err
	}
	c, err := s.open(st.Context(), first)
	if err != nil {
		return err
	}
	defer s.forget(c)
	if err := st.Send(s.hello(c)); err != nil {
		return err
	}
	c.frames.Add(1)
	s.receive(c, first)
	received := make(chan error, 1)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return status.Error(codes.Unavailable, "node is stopping")
	}
	s.owned.Go(func() { // ends when this handler has returned, if not before
		received <- s.receiveAll(c, st)
		c.finish()
	})
	s.mu.Unlock()
	err = s.sendAll(c, st)
	select {
	case rerr := <-received:
		err = rerr
	default:
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// open checks a stream's first frame and registers the stream.
func (s *Server) open(ctx context.Context, first *storagev1.Frame) (*conn, error) {
	h := first.GetHello()
	switch {
	case h == nil:
		return nil, status.Error(codes.InvalidArgument, "the first frame of a stream must say hello")
	case h.GetVersion() != protocolVersion:
		return nil, status.Errorf(codes.FailedPrecondition, "protocol version %d is not spoken here, only %d", h.GetVersion(), protocolVersion)
	case len(h.GetPeer()) != 16 || len(h.GetCluster()) != 0 && len(h.GetCluster()) != 16 || len(h.GetContextKeys()) > maxContextKeys:
		return nil, status.Error(codes.InvalidArgument, "malformed hello")
	}
	own := s.cfg.Layouts.Cluster()
	peer := fmt.Sprintf("%x", h.GetPeer())
	if own.IsZero() {
		return nil, status.Error(codes.Unavailable, "node belongs to no cluster yet")
	}
	if len(h.GetCluster()) == 16 && ring.ClusterID(h.GetCluster()) != own {
		s.cfg.ForeignCluster(peer, ring.ClusterID(h.GetCluster()))
		return nil, status.Errorf(codes.FailedPrecondition, "this node belongs to cluster %s, not %x", own, h.GetCluster())
	}
	c := &conn{peer: peer, out: wire.NewOutbox[*storagev1.Response](outboxItems, 1<<62), abort: make(chan struct{})}
	for _, k := range h.GetContextKeys() {
		c.keys = append(c.keys, append([]byte(nil), k...))
	}
	c.take, c.finish = context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended || s.draining.Load():
		c.finish()
		return nil, status.Error(codes.Unavailable, "node is stopping")
	case len(s.conns) >= streamsMax:
		c.finish()
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams are open", len(s.conns))
	}
	s.conns = append(s.conns, c)
	s.metrics.streams.Set(float64(len(s.conns)))
	return c, nil
}

// hello answers a hello, with the context keys of the gateway that has been connected longest.
func (s *Server) hello(c *conn) *storagev1.Frame {
	cluster, actor := s.cfg.Layouts.Cluster(), s.cfg.Store.Actor()
	h := &storagev1.Hello{Version: protocolVersion, Cluster: cluster[:], Peer: s.cfg.Node[:], Actor: actor[:]}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.conns {
		if len(o.keys) > 0 {
			h.ContextKeys = o.keys
			break
		}
	}
	return &storagev1.Frame{Heartbeat: s.cfg.Pulse.Number(time.Now()), Hello: h}
}

func (s *Server) forget(c *conn) {
	c.finish()
	s.mu.Lock()
	for i, o := range s.conns {
		if o == c {
			s.conns = append(s.conns[:i], s.conns[i+1:]...)
			break
		}
	}
	s.metrics.streams.Set(float64(len(s.conns)))
	s.mu.Unlock()
	c.out.Close()
}

// receiveAll takes frames until the stream ends.
func (s *Server) receiveAll(c *conn, st grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	for {
		f, err := st.Recv()
		if err != nil {
			return err
		}
		s.receive(c, f)
	}
}

// receive hands a frame's requests to the workers, or refuses them at once.
func (s *Server) receive(c *conn, f *storagev1.Frame) {
	reqs := f.GetRequests()
	s.metrics.framesIn.Inc()
	if len(reqs) == 0 {
		return
	}
	s.metrics.frameRequests.Observe(float64(len(reqs)))
	fr := &frame{at: time.Now()}
	fr.live, fr.fault = liveLayouts(f.GetLayouts())
	fr.spans = s.trace(reqs, fr.at)
	s.pending.Add(int64(len(reqs)))
	for len(reqs) > 0 {
		n := min(chunk, len(reqs))
		part := reqs[:n]
		reqs = reqs[n:]
		if refusal := s.refusal(c, n); refusal != storagev1.Status_STATUS_UNSPECIFIED {
			for _, r := range part {
				s.finish(c, fr, r, &storagev1.Response{Id: r.GetId(), Status: refusal})
			}
			continue
		}
		s.queued.Add(int64(n))
		s.jobs <- job{c, fr, part} // has room: fewer than QueueMax requests, so fewer chunks, are queued
	}
}

// refusal says why n more requests cannot be queued, UNSPECIFIED where they can.
func (s *Server) refusal(c *conn, n int) storagev1.Status {
	switch {
	case s.draining.Load():
		return storagev1.Status_STATUS_UNAVAILABLE
	case s.queued.Load()+int64(n) > int64(s.cfg.QueueMax), c.unsent.Load() > unsentMax:
		return storagev1.Status_STATUS_OVERLOADED
	}
	return storagev1.Status_STATUS_UNSPECIFIED
}

func liveLayouts(names []*storagev1.LayoutName) (live []ring.LayoutID, fault string) {
	if len(names) == 0 {
		return nil, "the frame names no layout"
	}
	live = make([]ring.LayoutID, len(names))
	for i, n := range names {
		if len(n.GetHash()) != 16 {
			return nil, "the frame names a layout whose hash is not 16 bytes"
		}
		live[i] = ring.LayoutID{Epoch: n.GetEpoch(), Hash: [16]byte(n.GetHash())}
	}
	return live, ""
}

// sendAll sends what is in the outbox, as much as there is in one frame, until the stream ends.
func (s *Server) sendAll(c *conn, st grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	var batch []*storagev1.Response
	f := &storagev1.Frame{}
	for {
		var err error
		if batch, err = c.out.Take(c.take, batch[:0]); err != nil {
			select {
			case <-c.abort:
				return status.Error(codes.ResourceExhausted, "answers are not being read")
			default:
				return nil
			}
		}
		f.Responses = f.Responses[:0]
		size := 0
		for _, r := range batch {
			if r != nil {
				f.Responses = append(f.Responses, r)
				size += responseSize(r)
			}
		}
		c.frames.Add(1)
		f.Heartbeat = s.cfg.Pulse.Number(time.Now())
		if err := st.Send(f); err != nil {
			return err
		}
		c.unsent.Add(-int64(size))
		s.metrics.framesOut.Inc()
		if len(f.Responses) > 0 {
			s.metrics.frameResponses.Observe(float64(len(f.Responses)))
			s.metrics.frameBytes.Observe(float64(size))
		}
		clear(batch)
		clear(f.Responses)
	}
}

// responseSize estimates what a response takes in a frame.
func responseSize(r *storagev1.Response) int {
	return 48 + len(r.Record) + len(r.View) + len(r.Detail)
}

// answer queues a response on its stream. It never blocks.
func (c *conn) answer(r *storagev1.Response) {
	size := responseSize(r)
	c.unsent.Add(int64(size))
	if errors.Is(c.out.Put(r, size), wire.ErrFull) {
		// The peer sends and does not read. What it will never hear counts as lost, which the end of the stream says.
		c.once.Do(func() { close(c.abort); c.out.Close(); c.finish() })
	}
}

// heartbeats makes silent streams speak.
func (s *Server) heartbeats() {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	last := make(map[*conn]uint64)
	for {
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		s.mu.Lock()
		now := make(map[*conn]uint64, len(s.conns))
		for _, c := range s.conns {
			now[c] = c.frames.Load()
			// A frame without answers is one queued nil; a full or closed outbox needs none.
			if sent, known := last[c]; !known || sent == now[c] {
				_ = c.out.Put(nil, 0)
			}
		}
		s.mu.Unlock()
		last = now
	}
}

// Served tells how many writes were made durable and answered since the start, and how long that took in all. Safe for
// concurrent use; writes that end meanwhile may be in one number alone.
func (s *Server) Served() transfer.Served {
	return transfer.Served{Writes: s.writes.Load(), Took: time.Duration(s.writing.Load())}
}

// done counts n requests as finally answered.
func (s *Server) done(n int) {
	if s.pending.Add(-int64(n)) == 0 && s.draining.Load() {
		select {
		case s.idle <- struct{}{}:
		default:
		}
	}
}

// Drain refuses new requests as unavailable and waits until those in flight are answered, or ctx ends. Streams stay
// open until Close, so that the answers leave.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	for s.pending.Load() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return fmt.Errorf("%d requests in flight: %w", s.pending.Load(), ctx.Err())
		}
	}
	return nil
}

// EndStreams lets every stream send what is queued and end. Handlers return soon after, or when the transport is torn
// down.
func (s *Server) EndStreams() {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, c := range s.conns {
		c.finish()
	}
}

// Close ends the workers. All Exchange handlers must have returned. Further calls do nothing.
func (s *Server) Close() {
	s.EndStreams()
	s.mu.Lock()
	select {
	case <-s.stop:
		s.mu.Unlock()
		return
	default:
		close(s.stop)
	}
	s.mu.Unlock()
	s.owned.Wait()
	close(s.jobs)
	s.workers.Wait()
}
