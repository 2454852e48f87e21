package nodeclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/phi"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Client holds the streams to all nodes of the live layouts, and watches the cluster's state through one of them. All
// methods are safe for concurrent use.
type Client struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	start   time.Time // zero of the monotonic times given to failure detectors

	owned   sync.WaitGroup // what Run started
	closing chan struct{}  // closed by Close
	closer  sync.Once
	runs    atomic.Bool
	done    chan struct{} // closed when Run has ended

	changed   chan struct{} // capacity 1
	reconcile chan struct{} // capacity 1

	learning sync.Mutex // held while state is replaced
	state    atomic.Pointer[State]

	peers atomic.Pointer[map[ring.NodeID]*peer] // replaced by Run, never modified
}

// ErrClosed says that the client was closed.
var ErrClosed = errors.New("node client closed")

// New checks the configuration. Nothing runs before Run.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("node client: %w", err)
	}
	if cfg.Dial == nil {
		dialer := &net.Dialer{KeepAlive: -1} // gRPC pings by itself
		cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }
	}
	c := &Client{cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), start: time.Now(),
		changed: make(chan struct{}, 1), reconcile: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{})}
	c.peers.Store(&map[ring.NodeID]*peer{})
	return c, nil
}

// Run learns the cluster's state and keeps the streams until ctx ends or Close is called, which is no error. It is called
// once.
func (c *Client) Run(ctx context.Context) error {
	if c.runs.Swap(true) {
		return errors.New("node client: Run was called twice, or after Close")
	}
	defer close(c.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.owned.Go(func() { c.watch(ctx) })
	c.owned.Go(func() { c.monitor(ctx) })
	for {
		select {
		case <-c.reconcile:
			c.connect(ctx)
			continue
		case <-ctx.Done():
		case <-c.closing:
		}
		cancel()
		for _, p := range *c.peers.Load() {
			p.close()
		}
		c.peers.Store(&map[ring.NodeID]*peer{})
		c.owned.Wait()
		return nil
	}
}

// Close ends all streams, answers all calls, and waits until Run has ended. It may be called more than once.
func (c *Client) Close() {
	c.closer.Do(func() { close(c.closing) })
	if c.runs.Swap(true) {
		<-c.done
	}
}

// State returns what is known of the cluster, nil at first.
func (c *Client) State() *State { return c.state.Load() }

// Changed has a token after the state has changed. It is for one reader.
func (c *Client) Changed() <-chan struct{} { return c.changed }

// Learn merges a view that came with a refusal. What cannot be read or belongs to another cluster is logged and left.
func (c *Client) Learn(view []byte) {
	if err := c.learn(view); err != nil {
		c.log.Warn().Err(err).Msg("view of a refusal not taken over")
	}
}

// Send hands a call to its node's stream. It never blocks; where the call cannot be sent, it is answered at once.
func (c *Client) Send(call Call) {
	p, ok := (*c.peers.Load())[call.To]
	if !ok {
		call.refuse(ErrNotConnected)
		return
	}
	p.send(call)
}

// Health returns what is known of a node; the zero Health where it is not connected to.
func (c *Client) Health(id ring.NodeID) Health {
	if p, ok := (*c.peers.Load())[id]; ok {
		return p.health()
	}
	return Health{}
}

// GetNode asks a node what it knows of itself. Errors are ErrNotConnected, or those of gRPC.
func (c *Client) GetNode(ctx context.Context, id ring.NodeID) (*storagev1.GetNodeResponse, error) {
	p, ok := (*c.peers.Load())[id]
	if !ok {
		return nil, ErrNotConnected
	}
	return storagev1.NewStorageClient(p.conns[0]).GetNode(ctx, &storagev1.GetNodeRequest{})
}

// GetTasks asks a node what it has to do besides serving. Errors are ErrNotConnected, or those of gRPC.
func (c *Client) GetTasks(ctx context.Context, id ring.NodeID, req *storagev1.GetTasksRequest) (*storagev1.GetTasksResponse, error) {
	p, ok := (*c.peers.Load())[id]
	if !ok {
		return nil, ErrNotConnected
	}
	return storagev1.NewStorageClient(p.conns[0]).GetTasks(ctx, req)
}

// ChangeLayout has a node carry out, or preview, a change of the layout. What it did is known here at once. Errors are ErrNotConnected, or
// those of gRPC.
func (c *Client) ChangeLayout(ctx context.Context, id ring.NodeID, req *storagev1.ChangeLayoutRequest) (*storagev1.ChangeLayoutResponse, error) {
	p, ok := (*c.peers.Load())[id]
	if !ok {
		return nil, ErrNotConnected
	}
	resp, err := storagev1.NewStorageClient(p.conns[0]).ChangeLayout(ctx, req)
	if err == nil && !req.GetDryRun() {
		c.Learn(resp.GetView())
	}
	return resp, err
}

// ListKeys asks a node for keys of a range. Errors are ErrNotConnected, or those of gRPC.
func (c *Client) ListKeys(ctx context.Context, id ring.NodeID, req *storagev1.ListKeysRequest) (*storagev1.ListKeysResponse, error) {
	p, ok := (*c.peers.Load())[id]
	if !ok {
		return nil, ErrNotConnected
	}
	return storagev1.NewStorageClient(p.conns[0]).ListKeys(ctx, req)
}

// Snapshot asks a node for what it holds at this moment; the stream ends with ctx. Errors are ErrNotConnected, or those of
// gRPC.
func (c *Client) Snapshot(ctx context.Context, id ring.NodeID, req *storagev1.SnapshotRequest) (grpc.ServerStreamingClient[storagev1.SnapshotResponse], error) {
	p, ok := (*c.peers.Load())[id]
	if !ok {
		return nil, ErrNotConnected
	}
	return storagev1.NewStorageClient(p.conns[0]).Snapshot(ctx, req)
}

// ContextKeysAgree says whether this gateway shares a context key with the others, as far as the connected nodes know:
// each tells the keys of the gateway that has been connected to it longest. The reason is for people.
func (c *Client) ContextKeysAgree() (agree bool, reason string) {
	for _, p := range *c.peers.Load() {
		for i := range p.slots {
			st := p.slots[i].Load()
			if st == nil || sharesKey(c.cfg.ContextKeys, st.contextKeys) {
				continue
			}
			return false, fmt.Sprintf("the gateways connected to node %s before this one use other context keys", p.id)
		}
	}
	return true, ""
}

// sharesKey says whether one fingerprint is in both lists, or both are empty.
func sharesKey(own [][8]byte, others [][]byte) bool {
	if len(own) == 0 || len(others) == 0 {
		return len(own) == len(others)
	}
	for _, k := range own {
		for _, o := range others {
			if string(k[:]) == string(o) {
				return true
			}
		}
	}
	return false
}

// dial returns a lazy connection to addr; refused is called when nobody listens there.
func (c *Client) dial(addr string, refused func()) (*grpc.ClientConn, error) {
	opts := []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := c.cfg.Dial(ctx, addr)
			if err != nil && refused != nil && isRefused(err) {
				refused()
			}
			return conn, err
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()),
			grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes), grpc.MaxCallSendMsgSize(wire.MaxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		experimental.WithBufferPool(wire.NewPool()),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	}
	return grpc.NewClient("passthrough:///"+addr, append(opts, c.cfg.DialOptions...)...)
}

// connect brings the peers in line with the state. Only Run calls it.
func (c *Client) connect(ctx context.Context) {
	s := c.state.Load()
	wanted, old := s.wanted(), *c.peers.Load()
	next := make(map[ring.NodeID]*peer, len(wanted))
	for id, addr := range wanted {
		if p, ok := old[id]; ok && p.addr == addr {
			next[id] = p
			if actor := s.Members[id].Actor; actor != p.actor {
				p.restarted(actor)
			}
			continue
		}
		p, err := c.newPeer(ctx, id, addr)
		if err != nil {
			c.log.Error().Err(err).Stringer("node", id).Str("addr", addr).Msg("node cannot be connected to")
			continue
		}
		next[id] = p
	}
	for id, p := range old {
		// A node of a live layout whose address is not known at the moment keeps its stream.
		if _, ok := next[id]; !ok && s.isLive(id) {
			next[id] = p
		}
	}
	c.peers.Store(&next)
	for id, p := range old {
		if next[id] == p {
			continue
		}
		p.close()
		if next[id] == nil {
			c.metrics.forget(id.String())
		}
	}
}

func (s *State) isLive(id ring.NodeID) bool {
	for _, l := range s.Live {
		if _, ok := l.Member(id); ok {
			return true
		}
	}
	return false
}

// monitor beats the hearts of idle streams, judges silent nodes, and removes calls whose deadline has passed.
func (c *Client) monitor(ctx context.Context) {
	tick := time.NewTicker(min(c.cfg.Heartbeat/5, 50*time.Millisecond))
	defer tick.Stop()
	guard := phi.NewGuard(c.cfg.Phi)
	var beat, sweep time.Duration
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := c.now()
		paused, pause := guard.Tick(now)
		if paused {
			c.metrics.pauses.Inc()
			c.log.Warn().Dur("pause", pause.Length()).Msg("this process did not run for a while")
		}
		doBeat, doSweep := now >= beat, now >= sweep
		for _, p := range *c.peers.Load() {
			if paused {
				p.forgive(pause)
			}
			p.judge(now)
			if doBeat {
				p.beat()
			}
			if doSweep {
				p.sweep(time.Now())
			}
		}
		if doBeat {
			beat = now + c.cfg.Heartbeat
		}
		if doSweep {
			sweep = now + sweepEvery
		}
	}
}

// now is the monotonic time of failure detectors.
func (c *Client) now() time.Duration { return time.Since(c.start) }
