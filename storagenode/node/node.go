// Package node is the storage node as a program: it owns the data directory, the store, gossip, the layout driver and
// the servers, and brings them up and down in order.
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/keepalive"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/mtls"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/ringsvc/tracing"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
	"github.com/dotring/dotring/storagenode/internal/antientropy"
	"github.com/dotring/dotring/storagenode/internal/collector"
	"github.com/dotring/dotring/storagenode/internal/datadir"
	"github.com/dotring/dotring/storagenode/internal/handoff"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/internal/leftovers"
	"github.com/dotring/dotring/storagenode/internal/scrub"
	"github.com/dotring/dotring/storagenode/internal/stream"
	"github.com/dotring/dotring/storagenode/internal/witness"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/transfer"
)

// ErrGossipEnded means that serf shut itself down, as it does when another node of the same name is in the majority.
var ErrGossipEnded = errors.New("gossip has ended: does another node run under this name?")

const (
	// diskReserve is the room on the disk, in bytes, below which writes are refused, so that the engine itself never
	// meets the end of the disk.
	diskReserve = 64 << 20
	// verifyEvery is how often one of 256 slices of the sums that other owners compare is checked against the records,
	// so all of them in less than a day.
	verifyEvery = 5 * time.Minute
	// recheckAfter is how long a difference must last before it is repaired: writes on their way take less.
	recheckAfter = 250 * time.Millisecond
	// stopWait bounds what the servers may take to end after the drain.
	stopWait = 3 * time.Second
	// rejoinEvery is how often known addresses that are not alive are tried again: parts of a cluster that never met
	// find each other in no other way.
	rejoinEvery = 10 * time.Second
	// crowdedClock is how many entries a clock has before those that may leave it are looked for. A token holds about 125.
	crowdedClock = 16
	// retireForMin is the least time that contexts are honoured which name what left a clock, for grace times of trials: it
	// is people and programs that hold contexts, and they are no faster there.
	retireForMin = time.Minute
	// joinPause is the pause between attempts to reach the join list at first.
	joinPause = 100 * time.Millisecond
)

// Deps are what a node is given besides its configuration.
type Deps struct {
	Logger zerolog.Logger
	// Registry takes the node's metrics and is what /metrics shows. One per node. Required.
	Registry *prometheus.Registry
	// Open replaces the engine that Config names; for tests. Optional.
	Open engine.Opener
	// Network replaces the machine's; for tests. Optional.
	Network *Network
}

// Network is what a node uses in place of sockets. Everything in it must be safe for concurrent use.
type Network struct {
	Gossip memberlist.Transport
	// Listen takes a configured address, of the gRPC or the admin port.
	Listen func(addr string) (net.Listener, error)
	// Dial reaches another node's gRPC port.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Node is one storage node. Run may be called once.
type Node struct {
	cfg     Config
	log     zerolog.Logger
	reg     *prometheus.Registry
	network *Network // nil: the machine's
	started time.Time
	life    [16]byte // random

	sums    *antientropy.Sums
	repair  *antientropy.Service
	collect *collector.Service
	witness *witness.Service
	scrub   *scrub.Service // nil: never
	pulse   wire.Pulse
	dir     *datadir.Dir
	id      ring.NodeID
	store   *kv.Store
	state   *layout.State
	gossip  *membership.Cluster
	driver  *layout.Driver
	handoff *handoff.Replayer
	left    *leftovers.Service
	stream  *stream.Server
	peers   *peers
	watch   *broadcast
	tls     *mtls.Source    // nil: in the clear
	tracer  *tracing.Tracer // nil: nothing is traced

	grpcListener  net.Listener
	adminListener net.Listener
	grpc          *grpc.Server
	admin         *http.Server
	health        *health.Server
	pulls         chan struct{} // tokens of pulls being served
	fewPulls      chan struct{} // of those that ask for few records
	deliveries    chan struct{} // and of deliveries
	lists         chan struct{} // and of listings
	snapshots     chan struct{} // and of snapshots

	reach    reach
	ran      atomic.Bool
	draining atomic.Bool
	closing  sync.Once
	closeErr error
}

// New validates the configuration, locks the data directory, opens the store and listens. It serves nothing until Run;
// Close releases what it took.
func New(cfg Config, deps Deps) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if deps.Registry == nil {
		return nil, errors.New("configuration: a metrics registry is needed")
	}
	n := &Node{cfg: cfg, reg: deps.Registry, network: deps.Network, started: time.Now(), watch: newBroadcast(), pulls: make(chan struct{}, pullsServed),
		fewPulls: make(chan struct{}, pullsServed), deliveries: make(chan struct{}, deliveriesServed), lists: make(chan struct{}, listsServed), snapshots: make(chan struct{}, snapshotsServed)}
	n.log = deps.Logger.With().Str("node", cfg.Name).Logger()
	if err := n.open(deps); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// open takes all resources in order; Close releases those that were taken.
func (n *Node) open(deps Deps) (err error) {
	if _, err := io.ReadFull(rand.Reader, n.life[:]); err != nil {
		return fmt.Errorf("draw a name for this life: %w", err)
	}
	if n.dir, err = datadir.Open(n.cfg.DataDir, rand.Reader, n.started); err != nil {
		return err
	}
	n.id = n.dir.Identity().Node
	if n.cfg.TLS.Any() {
		if n.tls, err = mtls.Load(n.cfg.TLS, time.Now, n.log); err != nil {
			return err
		}
	}
	if err := n.listen(); err != nil {
		return err
	}
	if n.pulse, err = wire.NewPulse(rand.Reader, n.started); err != nil {
		return err
	}
	if n.sums, err = antientropy.NewSums(n.log, n.reg); err != nil {
		return err
	}
	if err := n.openStore(deps.Open); err != nil {
		return err
	}
	if n.state, err = layout.Load(n.id, n.store); err != nil {
		return err
	}
	if k := n.state.Known(); k != nil && !layout.LabelMatches(k.Cluster, n.cfg.Label) {
		return fmt.Errorf("data directory belongs to a cluster of another label than %q", n.cfg.Label)
	}
	if n.gossip, err = membership.New(membership.Config{
		Name: n.cfg.Name, BindAddr: n.cfg.GossipAddr, AdvertiseAddr: n.cfg.AdvertiseGossip, Interval: n.cfg.GossipInterval,
		KeyFile: n.cfg.GossipKeyFile, Local: n.localMember(), Logger: n.log, Transport: n.gossipTransport(),
	}); err != nil {
		return err
	}
	n.peers = newPeers(n.id, n.gossip, n.clientCredentials(), n.dialOptions()...)
	if err := n.openServices(); err != nil {
		return err
	}
	n.serveWhat()
	return newMetrics(n.reg, n)
}

// openServices makes what works on the store and with other nodes. Those further down use those above.
func (n *Node) openServices() (err error) {
	if n.witness, err = witness.New(witness.Config{
		Self: n.id, Store: n.store, Known: n.state.Known, Peers: n.peers, Logger: n.log, Registerer: n.reg,
	}); err != nil {
		return err
	}
	if n.driver, err = layout.New(layout.Config{
		Self: n.self(), Label: n.cfg.Label, N: n.cfg.Replicas, MinW: n.cfg.MinWrite, JoinWait: n.cfg.JoinWait, DeadAfter: n.cfg.DeadAfter, Standby: n.cfg.Standby,
		Reached: n.reach.get, TransferRate: n.cfg.TransferRate, Pressure: n.pressure, Served: n.served,
		State: n.state, Doubts: n.store, Vouched: n.witness.Vouched, Members: n.gossip, Peers: n.peers, Records: n.store, Rand: rand.Reader,
		Publish: n.publish, Logger: n.log, Registerer: n.reg,
	}); err != nil {
		return err
	}
	if n.handoff, err = handoff.New(handoff.Config{
		Self: n.id, Store: n.store, State: n.handoffState, Peers: n.peers, Logger: n.log, Registerer: n.reg,
	}); err != nil {
		return err
	}
	if n.left, err = leftovers.New(leftovers.Config{
		Self: n.id, Store: n.store, State: n.state, InDoubt: func() bool { return n.store.Doubts().Any() },
		Alive: func() map[ring.NodeID]string { state, _ := n.handoffState(); return state.Alive }, Peers: n.peers,
		Throttle: layout.NewThrottle(n.cfg.TransferRate, n.pressure, n.served), Grace: n.cfg.TombstoneGrace, Logger: n.log, Registerer: n.reg,
	}); err != nil {
		return err
	}
	if n.collect, err = collector.New(collector.Config{
		Self: n.id, Store: n.store, State: n.state, Members: n.keepers, Living: n.living, InDoubt: func() bool { return n.inDoubt() || n.store.Doubts().Any() }, Peers: n.peers,
		Grace: n.cfg.TombstoneGrace, Logger: n.log, Registerer: n.reg,
	}); err != nil {
		return err
	}
	if n.tracer, err = tracing.New(tracing.Config{Endpoint: n.cfg.TraceEndpoint, Service: "dotring-storagenode", Instance: n.cfg.Name,
		Version: version(), Logger: n.log}); err != nil {
		return err
	}
	if n.stream, err = stream.New(stream.Config{
		Node: n.id, Store: n.store, Layouts: n.state, Workers: n.cfg.Workers, QueueMax: n.cfg.QueueMax,
		Pulse: n.pulse, MessageAge: collect.MessageAge(n.cfg.TombstoneGrace), Why: n.collect.Why,
		InDoubt: n.inDoubt, ForeignCluster: n.driver.Foreign, Tracer: n.tracer, Logger: n.log, Registerer: n.reg,
	}); err != nil {
		return err
	}
	if n.repair, err = antientropy.New(antientropy.Config{
		Self: n.id, Sums: n.sums, Store: n.store, State: n.state, InDoubt: n.inDoubt, Peers: n.peers, Members: n.gossip.Members,
		Changed: n.Changed, Interval: n.cfg.AntiEntropyInterval, VerifyEvery: verifyEvery, Recheck: recheckAfter,
		MessageAge: collect.MessageAge(n.cfg.TombstoneGrace),
		Logger:     n.log, Registerer: n.reg,
	}); err != nil {
		return err
	}
	return n.openScrub()
}

func (n *Node) openScrub() (err error) {
	if n.cfg.ScrubRate == 0 {
		return nil
	}
	n.scrub, err = scrub.New(scrub.Config{
		Store: n.store, Rate: n.cfg.ScrubRate, Interval: n.cfg.ScrubInterval,
		Pressure: n.pressure,
		Now:      time.Now, Logger: n.log, Registerer: n.reg,
	})
	return err
}

func (n *Node) listen() (err error) {
	listen := func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	if n.network != nil {
		listen = n.network.Listen
	}
	if n.grpcListener, err = listen(n.cfg.GRPCAddr); err != nil {
		return fmt.Errorf("grpc-addr: %w", err)
	}
	if n.adminListener, err = listen(n.cfg.AdminAddr); err != nil {
		return fmt.Errorf("admin-addr: %w", err)
	}
	n.adminListener = n.secureAdmin(n.adminListener)
	return nil
}

// gossipTransport is nil for the machine's network.
func (n *Node) gossipTransport() memberlist.Transport {
	if n.network == nil {
		return nil
	}
	return n.network.Gossip
}

func (n *Node) dialOptions() []grpc.DialOption {
	if n.network == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(n.network.Dial)}
}

func (n *Node) openStore(open engine.Opener) (err error) {
	cfg := kv.Default()
	cfg.GatherFor = n.cfg.CommitGather
	cfg.Open, cfg.Sync, cfg.Observer, cfg.Logger, cfg.Registerer = open, n.cfg.Sync, n.sums, n.log, n.reg
	cfg.Hints.BytesMax, cfg.Hints.AgeMax = n.cfg.HintBytesMax, n.cfg.HintAgeMax
	if cfg.Open == nil {
		switch n.cfg.Engine {
		case EngineMemory:
			cfg.Open = memory.NewStore().Open // lives as long as the process
		default:
			if cfg.Open, err = diskEngine(n.cfg, n.dir.EnginePath(), n.log); err != nil {
				return err
			}
			cfg.Room = func() error { return roomFor(n.cfg.DataDir) }
		}
	}
	cfg.CrowdedClock, cfg.RetireFor = crowdedClock, max(n.cfg.TombstoneGrace, retireForMin)
	cfg.Heal, cfg.HeldData = true, n.dir.HeldData()
	if n.store, err = kv.Open(cfg); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if n.cfg.Engine == EngineMemory || open != nil {
		return nil
	}
	return n.dir.MarkHeldData()
}

// pressure is how full the queues of clients' requests are, 0 to 1.
func (n *Node) pressure() float64 { return max(n.store.Pressure(), n.stream.Pressure()) }

// served sums up what clients' writes took.
func (n *Node) served() transfer.Served { return n.stream.Served() }

// inDoubt says that what is on this node's disk proves nothing at all, or that others were not asked yet whether it does.
func (n *Node) inDoubt() bool { return !n.witness.Vouched() || n.store.Doubts().Whole }

var errNoRoom = errors.New("disk is nearly full")

// roomOn returns the bytes that are left for this process on the disk under path, and how many it has in all.
func roomOn(path string) (free, total uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for room on the disk: %w", err)
	}
	return uint64(st.Bavail) * uint64(st.Bsize), uint64(st.Blocks) * uint64(st.Bsize), nil
}

// roomFor says whether the disk under path has room for more writes.
func roomFor(path string) error {
	free, _, err := roomOn(path)
	if err != nil {
		return err
	}
	if free < diskReserve {
		return fmt.Errorf("%w: %d bytes left, %d are kept free", errNoRoom, free, uint64(diskReserve))
	}
	return nil
}

// advertised is the address that others use: the one given, or the one that is listened on.
func advertised(given string, l net.Listener) string {
	if given != "" {
		return given
	}
	return l.Addr().String()
}

func (n *Node) localMember() membership.Member {
	m := membership.Member{
		ID: n.id, Actor: n.store.Actor(), Zone: n.cfg.Zone, Weight: n.cfg.Weight,
		GRPCAddr:  advertised(n.cfg.AdvertiseGRPC, n.grpcListener),
		AdminAddr: advertised(n.cfg.AdvertiseAdmin, n.adminListener),
	}
	if k := n.state.Known(); k != nil {
		m.Cluster = k.Cluster
		m.Newest = membership.MarkOf(k.Newest.ID())
	}
	return m
}

// self is this node as it wants to be in a layout.
func (n *Node) self() ring.Member {
	return ring.Member{ID: n.id, Name: n.cfg.Name, Zone: n.cfg.Zone, Weight: n.cfg.Weight}
}

// serveWhat builds the servers.
func (n *Node) serveWhat() {
	n.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(wire.Codec()), experimental.BufferPool(wire.NewPool()),
		grpc.Creds(n.serverCredentials()),
		grpc.MaxRecvMsgSize(wire.MaxMessageBytes), grpc.MaxSendMsgSize(wire.MaxMessageBytes),
		grpc.MaxConcurrentStreams(1024),
		grpc.StaticStreamWindowSize(1<<20), grpc.StaticConnWindowSize(4<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.WaitForHandlers(true),
	)
	storagev1.RegisterStorageServer(n.grpc, &service{node: n})
	n.health = health.NewServer()
	registerHealth(n.grpc, n.health)
	n.admin = &http.Server{Handler: n.adminHandler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 60 * time.Second}
}

// ID is the node's identity.
func (n *Node) ID() ring.NodeID { return n.id }

// GRPCAddr, GossipAddr and AdminAddr are where the node listens or is reached, host:port.
func (n *Node) GRPCAddr() string { return advertised(n.cfg.AdvertiseGRPC, n.grpcListener) }

// GossipAddr is where other nodes reach this one's gossip.
func (n *Node) GossipAddr() string { return n.gossip.GossipAddr() }

// AdminAddr is where metrics and health are served.
func (n *Node) AdminAddr() string { return advertised(n.cfg.AdvertiseAdmin, n.adminListener) }

// Ready says whether the node serves requests: it is part of a settled layout, has its disk, and is not stopping.
func (n *Node) Ready() bool { return n.notReady() == "" }

// Layouts names the settled and the newest layout that the node knows, zero while it knows none.
func (n *Node) Layouts() (settled, newest ring.LayoutID) {
	if k := n.state.Known(); k != nil {
		return k.Settled.ID(), k.Newest.ID()
	}
	return ring.LayoutID{}, ring.LayoutID{}
}

// Members returns all members that gossip knows, as membership.Cluster does.
func (n *Node) Members() []membership.Member { return n.gossip.Members() }

// View returns the encoded view of the layouts, nil while the node has none. Read-only.
func (n *Node) View() []byte { return n.state.Encoded() }

// Changed is closed at the next change of the layouts or the members that the node knows.
func (n *Node) Changed() <-chan struct{} {
	_, changed := n.watch.get()
	return changed
}

// Run serves until ctx ends, then stops taking requests, finishes those in flight, and returns nil; or returns the first
// failure. It does not leave the cluster: the node is expected back with its data. Call Close afterwards.
func (n *Node) Run(ctx context.Context) error {
	if n.ran.Swap(true) {
		return errors.New("node was run before")
	}
	// What runs in the background outlives ctx until requests in flight are done.
	back, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var owned sync.WaitGroup
	// Spans end with what they are of, so that they go last.
	traces, endTraces := context.WithCancel(context.WithoutCancel(ctx))
	defer endTraces()
	failed := make(chan error, 4)
	owned.Go(func() {
		if err := n.tracer.Run(traces); err != nil {
			failed <- err
		}
	})
	owned.Go(func() { n.driver.Run(back) })
	owned.Go(func() { n.handoff.Run(back) })
	owned.Go(func() { n.left.Run(back) })
	owned.Go(func() { n.joinGossip(back) })
	owned.Go(func() { n.repair.Run(back) })
	owned.Go(func() { n.collect.Run(back) })
	owned.Go(func() { n.witness.Run(back) })
	if n.scrub != nil {
		owned.Go(func() { n.scrub.Run(back) })
	}
	owned.Go(func() { n.followHealth(back) })
	owned.Go(func() {
		if err := n.grpc.Serve(n.grpcListener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			failed <- fmt.Errorf("serve gRPC: %w", err)
		}
	})
	owned.Go(func() {
		if err := n.admin.Serve(n.adminListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serve admin: %w", err)
		}
	})
	n.logStart()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	case <-n.gossip.Done():
		err = ErrGossipEnded
	}
	n.drain(context.WithoutCancel(ctx))
	stop()
	n.stopServers(context.WithoutCancel(ctx))
	endTraces()
	owned.Wait()
	return err
}

func (n *Node) logStart() {
	e := n.log.Info().Stringer("id", n.id).Stringer("actor", n.store.Actor()).Str("grpc", n.GRPCAddr()).Str("gossip", n.GossipAddr()).
		Str("admin", n.AdminAddr()).Str("engine", n.cfg.Engine).Str("sync", n.cfg.Sync.String())
	k := n.state.Known()
	if k == nil {
		e.Msg("node started without a layout")
		return
	}
	e.Stringer("cluster", k.Cluster).Stringer("settled", k.Settled.ID()).Stringer("newest", k.Newest.ID()).Msg("node started")
	m, in := k.Newest.Member(n.id)
	if in && (m.Name != n.cfg.Name || m.Zone != n.cfg.Zone || m.Weight != n.cfg.Weight) {
		n.log.Warn().Str("layout_name", m.Name).Str("layout_zone", m.Zone).Float64("layout_weight", m.Weight).
			Msg("name, zone or weight differ from the layout's, which stay in force until the layout is changed")
	}
	if k.Newest.N() != n.cfg.Replicas || k.Newest.MinW() != n.cfg.MinWrite {
		n.log.Warn().Int("layout_replicas", k.Newest.N()).Int("layout_min_write", k.Newest.MinW()).
			Msg("replicas or min-write differ from the layout's, which stay in force")
	}
}

// drain refuses new requests and waits for those in flight.
func (n *Node) drain(ctx context.Context) {
	n.draining.Store(true)
	n.health.Shutdown()
	n.log.Info().Msg("node is stopping")
	ctx, cancel := context.WithTimeout(ctx, n.cfg.DrainWait)
	defer cancel()
	if err := n.stream.Drain(ctx); err != nil {
		n.log.Warn().Err(err).Msg("requests left unanswered")
	}
}

// stopServers lets answers leave and ends all connections, within a bounded time.
func (n *Node) stopServers(ctx context.Context) {
	n.stream.EndStreams()
	n.watch.end()
	ended := make(chan struct{})
	var owned sync.WaitGroup
	owned.Go(func() {
		n.grpc.GracefulStop()
		close(ended)
	})
	t := time.NewTimer(stopWait)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	}
	n.grpc.Stop()
	owned.Wait()
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	if err := n.admin.Shutdown(ctx); err != nil {
		n.log.Warn().Err(err).Msg("admin server cut off")
	}
}

// Close releases everything; Run must have returned, or never have been called. Idempotent.
func (n *Node) Close() error {
	n.closing.Do(func() {
		var errs []error
		if n.grpc != nil {
			n.grpc.Stop()
		}
		if n.admin != nil {
			errs = append(errs, n.admin.Close())
		}
		for _, l := range []net.Listener{n.grpcListener, n.adminListener} {
			if l == nil {
				continue
			}
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
		if n.stream != nil {
			n.stream.Close()
		}
		if n.peers != nil {
			errs = append(errs, n.peers.Close())
		}
		if n.gossip != nil {
			errs = append(errs, n.gossip.Close())
		}
		if n.store != nil {
			errs = append(errs, n.store.Close())
		}
		if n.dir != nil {
			errs = append(errs, n.dir.Close())
		}
		n.closeErr = errors.Join(errs...)
		if n.closeErr == nil && n.ran.Load() {
			n.log.Info().Msg("node stopped")
		}
	})
	return n.closeErr
}
