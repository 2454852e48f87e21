// Package server is the gateway as a value: New wires it, Run serves until it is told to stop, Close releases it.
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/admission"
	"github.com/dotring/dotring/gateway/internal/config"
	"github.com/dotring/dotring/gateway/internal/grpcapi"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	"github.com/dotring/dotring/gateway/limit"
	"github.com/dotring/dotring/gateway/listing"
	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/traffic"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/mtls"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// Config is the gateway's configuration.
type Config = config.Config

// DefaultConfig returns the defaults; Name and StorageNodes have none.
func DefaultConfig() Config { return config.Default() }

const (
	// maxRequests and maxBodyBytes bound the requests under way over HTTP and gRPC together. Beyond them the answer is
	// 429 at once.
	maxRequests  = 4096
	maxBodyBytes = 512 << 20
	// finishTime is how long requests may take to end once the gateway takes no more: the longest timeout, and time to
	// write the answer.
	finishTime = edge.MaxTimeout + 10*time.Second
)

// Option changes how a Server reaches the world.
type Option func(*options)

type options struct {
	listen   func(network, addr string) (net.Listener, error)
	dial     func(ctx context.Context, addr string) (net.Conn, error)
	registry *prometheus.Registry
}

// WithListen replaces net.Listen.
func WithListen(listen func(network, addr string) (net.Listener, error)) Option {
	return func(o *options) { o.listen = listen }
}

// WithDial replaces TCP on the way to storage nodes.
func WithDial(dial func(ctx context.Context, addr string) (net.Conn, error)) Option {
	return func(o *options) { o.dial = dial }
}

// WithRegistry takes the metrics; without it the server has a registry of its own. Either is shown on the admin port.
func WithRegistry(r *prometheus.Registry) Option {
	return func(o *options) { o.registry = r }
}

// Server is a gateway. Its methods are safe for concurrent use, but Run may be called once.
type Server struct {
	cfg      Config
	log      zerolog.Logger
	registry *prometheus.Registry
	client   *nodeclient.Client
	api      *httpapi.API
	tls      *mtls.Source    // nil: in the clear
	guard    *access.Guard   // nil: everybody may do everything
	tracer   *tracing.Tracer // nil: nothing is traced
	draining atomic.Bool

	httpListener, grpcListener, adminListener net.Listener
	http, admin                               *http.Server
	grpc                                      *grpc.Server

	closing sync.Once
	quit    chan struct{} // closed by Close
}

// New checks cfg, reads the context keys, opens the three listeners and wires everything; it starts no goroutine and
// serves nothing before Run. A connection that comes earlier waits.
func New(cfg Config, logger zerolog.Logger, opts ...Option) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	o := options{listen: net.Listen, registry: prometheus.NewRegistry()}
	for _, opt := range opts {
		opt(&o)
	}
	keyring, err := readKeys(cfg.ContextKeyFile)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: logger, registry: o.registry, quit: make(chan struct{})}
	if err := s.secure(); err != nil {
		return nil, err
	}
	if err := s.wire(&o, keyring); err != nil {
		return nil, err
	}
	if err := s.listen(o.listen); err != nil {
		s.closeListeners()
		return nil, err
	}
	return s, nil
}

func readKeys(file string) (causal.Keyring, error) {
	if file == "" {
		return causal.Keyring{}, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return causal.Keyring{}, fmt.Errorf("read context keys: %w", err)
	}
	keyring, err := config.ParseContextKeys(text)
	if err != nil {
		return causal.Keyring{}, fmt.Errorf("context key file %s: %w", file, err)
	}
	return keyring, nil
}

// wire builds everything but the listeners.
func (s *Server) wire(o *options, keyring causal.Keyring) error {
	nodes := nodeclient.Default()
	nodes.Targets, nodes.StreamsPerNode, nodes.ContextKeys = s.cfg.StorageNodes, s.cfg.StreamsPerNode, keyring.Fingerprints()
	nodes.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(s.nodeCredentials())}
	nodes.Dial, nodes.Logger, nodes.Registerer = o.dial, s.log, s.registry
	if _, err := rand.Read(nodes.ID[:]); err != nil {
		return fmt.Errorf("make gateway id: %w", err)
	}
	var err error
	if s.client, err = nodeclient.New(nodes); err != nil {
		return fmt.Errorf("node client: %w", err)
	}
	cc := coordinator.DefaultConfig()
	cc.R, cc.W, cc.Logger, cc.Registerer = s.cfg.ReadQuorum, s.cfg.WriteQuorum, s.log, s.registry
	cc.Policies = s.cfg.ConflictPolicies
	coord, err := coordinator.New(cc, s.client)
	if err != nil {
		return fmt.Errorf("coordinator: %w", err)
	}
	tokens := edge.Tokens{Keyring: keyring, Cluster: func() (ring.ClusterID, bool) {
		if state := s.client.State(); state != nil {
			return state.Cluster, true
		}
		return ring.ClusterID{}, false
	}}
	seen := traffic.New(time.Now())
	if s.cfg.KeyLimit > 0 {
		keys, err := limit.NewRate(float64(s.cfg.KeyLimit), 0)
		if err != nil {
			return fmt.Errorf("key limit: %w", err)
		}
		seen.LimitKeys(keys)
	}
	limited, err := admission.New(coord, limit.Default(), seen, time.Now, s.registry)
	if err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	slow := slowlog.New(slowlog.Config{After: s.cfg.SlowAfter, PlainKeys: s.cfg.LogKeys == config.PlainKeys, Logger: s.log, Registerer: s.registry})
	s.tracer, err = tracing.New(tracing.Config{Endpoint: s.cfg.TraceEndpoint, Sample: s.cfg.TraceSample, Service: "dotring-gateway",
		Instance: s.cfg.Name, Version: Version(), Logger: s.log})
	if err != nil {
		return err
	}
	if s.guard != nil {
		if err := s.registry.Register(s.guard); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	places := httpapi.NewAdmission(maxRequests, bodyRoom())
	kv := grpcapi.NewKV(limited, tokens, s.guard, s.cfg.MaxValueBytes)
	kv.BatchesTo(limited.Background())
	kv.ListsBy(listing.New(s.client, limited.Background(), s.cfg.ReadQuorum))
	cluster := grpcapi.NewCluster(s.client, coord, grpcapi.About{Name: s.cfg.Name, Version: Version(), R: s.cfg.ReadQuorum,
		W: s.cfg.WriteQuorum, Signed: len(keyring.Fingerprints()) > 0, Guard: s.guard, Traffic: seen})
	s.api, err = httpapi.New(httpapi.Config{Store: limited, Tokens: tokens, KV: kv, Cluster: cluster, Backups: backups{s.client, coord}, Ready: s.Ready, Guard: s.guard,
		Admission: places, Overload: limited, MaxValueBytes: s.cfg.MaxValueBytes, CORSOrigins: s.cfg.CORSOrigins, Slow: slow,
		Tracer: s.tracer, Now: time.Now, Logger: s.log, Registerer: s.registry})
	if err != nil {
		return fmt.Errorf("http api: %w", err)
	}
	s.http = s.newHTTPServer(s.api)
	s.http.Protocols = new(http.Protocols)
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	// The longest a request may take, and time for a slow client to take the answer.
	s.http.WriteTimeout = finishTime + 20*time.Second
	s.admin = s.newHTTPServer(s.adminHandler())
	s.grpc = grpcapi.NewServer(grpcapi.NewInterceptor(places, places.Reserved(), s.guard, slow, s.tracer, s.log, s.registry), kv, cluster, s.Ready,
		grpc.Creds(s.publicCredentials()))
	return registerServerMetrics(s.registry, s)
}

// bodyRoom is how many bytes of bodies and answers may be held at once: a quarter of the memory limit that the process was
// given by GOMEMLIMIT, or maxBodyBytes.
func bodyRoom() int64 {
	return min(maxBodyBytes, debug.SetMemoryLimit(-1)/4)
}

func (s *Server) newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 120 * time.Second,
		MaxHeaderBytes: 64 << 10, ErrorLog: stdlog.New(libraryLog{s.log}, "", 0)}
}

// libraryLog takes the lines that net/http logs of connections: of no use but for debugging.
type libraryLog struct{ log zerolog.Logger }

func (l libraryLog) Write(b []byte) (int, error) {
	l.log.Debug().Bytes("line", b).Msg("http library")
	return len(b), nil
}

func (s *Server) listen(listen func(network, addr string) (net.Listener, error)) error {
	var faults []error
	for _, l := range []struct {
		flag, addr string
		to         *net.Listener
	}{
		{"http-addr", s.cfg.HTTPAddr, &s.httpListener}, {"grpc-addr", s.cfg.GRPCAddr, &s.grpcListener},
		{"admin-addr", s.cfg.AdminAddr, &s.adminListener},
	} {
		listener, err := listen("tcp", l.addr)
		if err != nil {
			faults = append(faults, fmt.Errorf("--%s: %w", l.flag, err))
			continue
		}
		*l.to = s.secureListener(l.flag, l.addr, listener)
	}
	return errors.Join(faults...)
}

func (s *Server) closeListeners() {
	for _, l := range []net.Listener{s.httpListener, s.grpcListener, s.adminListener} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Warn().Err(err).Msg("listener not closed")
		}
	}
}

// HTTPAddr, GRPCAddr and AdminAddr are the addresses listened on, host:port.
func (s *Server) HTTPAddr() string  { return s.httpListener.Addr().String() }
func (s *Server) GRPCAddr() string  { return s.grpcListener.Addr().String() }
func (s *Server) AdminAddr() string { return s.adminListener.Addr().String() }

// Handler is the public HTTP API, for tests and embedders without a socket. It works while Run runs.
func (s *Server) Handler() http.Handler { return s.api }

// Ready says whether requests should be sent to this gateway, and why not: it has a layout, is not draining, and shares
// the cluster's context key. A quorum that is away does not count, since one fault must not empty a balancer's pool.
func (s *Server) Ready() (ok bool, reason string) {
	if s.draining.Load() {
		return false, "draining"
	}
	if s.client.State() == nil {
		return false, "no layout is known yet"
	}
	return s.client.ContextKeysAgree()
}
