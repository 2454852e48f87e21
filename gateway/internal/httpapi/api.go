// Package httpapi is the gateway's public HTTP API: hand-written handlers for single keys, and grpc-gateway for batches
// and the cluster.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/mem"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	"github.com/dotring/dotring/gateway/internal/ui"
	"github.com/dotring/dotring/openapi"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// Store is what the handlers of single keys call. The slices of a request belong to the store from then on. Its calls end at
// their contexts' deadlines also where those contexts do not end then.
type Store interface {
	Get(ctx context.Context, r coordinator.GetRequest) (coordinator.GetResult, error)
	Put(ctx context.Context, r coordinator.PutRequest) (coordinator.PutResult, error)
}

// Overload is what the store knows of the load on it.
type Overload interface {
	// Full says whether a read, or a write, would be refused now. Background operations leave room for the others.
	Full(write, background bool) bool
	// FullKey says, as an error that wraps limit.ErrExceeded, that a read or write of key would be refused now.
	FullKey(key []byte, write bool) error
	// Hold returns how long a connection is not to be read after a request on it was refused.
	Hold() time.Duration
}

// Config is what New needs. All fields but CORSOrigins, Guard, Overload and Tracer must be set.
type Config struct {
	Store  Store
	Tokens edge.Tokens
	// KV and Cluster are called in this process by grpc-gateway.
	KV      kvv1.KVServer
	Cluster clusterv1.ClusterServer
	// Backups reads what nodes hold, and brings it back.
	Backups Backups
	// Ready says whether requests should be sent here, and why not.
	Ready func() (ok bool, reason string)
	// Guard knows who asks; nil lets everybody do everything.
	Guard *access.Guard
	// Admission bounds the requests under way, together with those over gRPC.
	Admission *Admission
	// Overload, where not nil, says what the store would refuse.
	Overload Overload
	// MaxValueBytes is the size of the largest value.
	MaxValueBytes int
	// CORSOrigins are origins as browsers send them, or "*"; none switches CORS off.
	CORSOrigins []string
	// Slow takes the requests that took long.
	Slow *slowlog.Log
	// Tracer chooses the requests that are traced; nil for none.
	Tracer     *tracing.Tracer
	Now        func() time.Time
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// API serves the public HTTP port. It is safe for concurrent use, and holds no goroutine.
type API struct {
	cfg       Config
	router    *chi.Mux
	transcode http.Handler
	metrics   *metrics
	common    commonHeaders
	cors      *cors
	// crossOrigin keeps pages of other origins from operating the cluster: a form needs no permission to be posted.
	crossOrigin *http.CrossOriginProtection
	exchanges   exchangePool
	bodies      mem.BufferPool     // of values; the store gives them back
	pages       map[string]ui.File // of the dashboard and the explorer
	// documentJSON makes the explorer's form of the document when it is first asked for.
	documentJSON func() (ui.File, error)
	burst        zerolog.Logger // for warnings, of which there may be as many as requests
}

// commonHeaders are header values that are the same in every answer; they are shared and never modified.
type commonHeaders struct {
	nosniff, sandbox, vary, noStore, noCache, typeJSON, typeProblem, typeSiblings, typeYAML []string
	documentETag, documentCache                                                             []string
}

const (
	kvPrefix      = "/v1/kv/"
	inspectPrefix = "/v1/cluster/keys/"
	// maxURI is the length of the longest request URI: a key of 250 escaped bytes, and parameters.
	maxURI = 4096
	// maxBatchBytes is the size of the largest batch, as JSON.
	maxBatchBytes = 3 << 20
)

// New returns the API. It errs only when the generated routes cannot be registered, or the dashboard is not whole.
func New(cfg Config) (*API, error) {
	a := &API{cfg: cfg, router: chi.NewRouter(), metrics: newMetrics(cfg.Registerer), cors: newCORS(cfg.CORSOrigins), bodies: wire.NewPool(),
		common: commonHeaders{
			nosniff: []string{"nosniff"}, sandbox: []string{"sandbox"}, noStore: []string{"no-store"},
			noCache: []string{"private, no-cache"}, typeJSON: []string{"application/json"},
			typeProblem: []string{problem.ContentType}, typeSiblings: []string{siblingsType},
			vary: []string{"Kv-Context, Accept, Authorization"}, typeYAML: []string{"application/yaml"},
			documentETag: []string{documentETag()}, documentCache: []string{"no-cache"},
		}}
	a.crossOrigin = http.NewCrossOriginProtection()
	for _, origin := range cfg.CORSOrigins {
		if origin == "*" {
			continue // any page may read and write keys then, but not operate the cluster
		}
		if err := a.crossOrigin.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("origin %q: %w", origin, err)
		}
	}
	if a.cors != nil {
		a.common.vary = []string{"Kv-Context, Accept, Authorization, Origin"}
	}
	a.burst = cfg.Logger.Sample(&zerolog.BurstSampler{Burst: 50, Period: time.Second})
	var err error
	if a.transcode, err = a.newTranscoder(); err != nil {
		return nil, fmt.Errorf("register transcoded routes: %w", err)
	}
	a.documentJSON = sync.OnceValues(func() (ui.File, error) { return ui.Document(openapi.Document) })
	if a.pages, err = ui.Load(); err != nil {
		return nil, fmt.Errorf("load dashboard: %w", err)
	}
	a.routes()
	return a, nil
}

func (a *API) routes() {
	a.router.HandleFunc(kvPrefix+"*", a.handle(opKV, a.serveKV)) // ServeHTTP goes there by itself
	a.router.HandleFunc("/v1/kv", a.handle(opList, a.list))
	for verb, op := range map[string]op{"batchGet": opBatchGet, "batchPut": opBatchPut, "batchDelete": opBatchDelete} {
		for _, colon := range []string{":", "%3A", "%3a"} {
			a.router.HandleFunc("/v1/kv"+colon+verb, a.handle(op, a.batch))
		}
	}
	for _, path := range []string{"status", "nodes", "layout", "tasks", "hotKeys", "stats"} {
		a.router.HandleFunc("/v1/cluster/"+path, a.handle(opCluster, a.cluster))
	}
	for _, colon := range []string{":", "%3A", "%3a"} {
		a.router.HandleFunc("/v1/cluster"+colon+"repair", a.handle(opCluster, a.repair))
		a.router.HandleFunc("/v1/cluster"+colon+"abort", a.handle(opCluster, a.change("dry_run")))
		for verb, takes := range nodeVerbs {
			a.router.HandleFunc("/v1/cluster/nodes/{node}"+colon+verb, a.handle(opCluster, a.change(append(takes, "dry_run")...)))
		}
		a.router.HandleFunc("/v1/cluster/nodes/{node}"+colon+"canStop", a.handle(opCluster, a.cluster))
		a.router.HandleFunc("/v1/cluster"+colon+"snapshot", a.handle(opBackup, a.snapshot))
		a.router.HandleFunc("/v1/cluster"+colon+"restore", a.handle(opBackup, a.restore))
	}
	a.router.HandleFunc(inspectPrefix+"*", a.handle(opInspect, a.inspect))
	a.router.HandleFunc("/healthz", a.handle(opHealth, a.healthz))
	a.router.HandleFunc("/readyz", a.handle(opHealth, a.readyz))
	a.router.HandleFunc("/openapi.yaml", a.handle(opOther, a.document))
	a.router.HandleFunc("/ui", a.handle(opOther, a.toPage(uiPrefix)))
	a.router.HandleFunc("/docs", a.handle(opOther, a.toPage(uiPrefix+ui.Explorer)))
	a.router.HandleFunc(uiPrefix, a.handle(opOther, a.dashboard))
	a.router.HandleFunc(uiPrefix+"*", a.handle(opOther, a.dashboard))
	unknown := a.handle(opOther, func(x *exchange, r *http.Request) { x.fail(r, problem.ErrNoPath) })
	a.router.NotFound(unknown)
	a.router.MethodNotAllowed(a.handle(opOther, a.unknownMethod))
}

// nodeVerbs are the changes of one node, and the parameters that each takes besides dry_run.
var nodeVerbs = map[string][]string{"decommission": nil, "remove": {"accept_loss"}, "replace": {"by", "accept_loss"}, "setWeight": {"weight"}}

// unknownMethod answers a request whose method the router does not even know, on a path that it may.
func (a *API) unknownMethod(x *exchange, r *http.Request) {
	path := rawPath(r.URL)
	if a.router.Find(chi.NewRouteContext(), http.MethodGet, path) == "" {
		x.fail(r, problem.ErrNoPath)
		return
	}
	allow := allowRead
	for _, prefix := range []string{"/v1/kv:", "/v1/kv%", "/v1/cluster:", "/v1/cluster%", "/v1/cluster/nodes/"} {
		if strings.HasPrefix(path, prefix) && !strings.HasSuffix(path, "canStop") && !strings.HasSuffix(path, "snapshot") {
			allow = http.MethodPost
		}
	}
	x.methodNotAllowed(r, allow)
}

const (
	allowKV   = "GET, HEAD, PUT, POST, DELETE"
	allowRead = "GET, HEAD"
)

// ServeHTTP serves one request: it counts, bounds and logs it, and answers a panic of a handler with a problem.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := a.exchanges.get()
	x.begin(a, w, r)
	defer a.end(x, r)
	if len(r.RequestURI) > maxURI {
		x.fail(r, fmt.Errorf("%w: %d bytes, the limit is %d", problem.ErrURITooLong, len(r.RequestURI), maxURI))
		return
	}
	if a.cors != nil && a.cors.handle(x, r) {
		return
	}
	// Single keys need no router: it would copy the request and note wildcards for a path that parseKey reads anyway.
	if strings.HasPrefix(rawPath(r.URL), kvPrefix) {
		a.run(opKV, a.serveKV, x, r)
		return
	}
	a.router.ServeHTTP(x, r)
}

// rawPath returns the path as it was sent, where that is not how it would be spelled by default.
func rawPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.Path
}

// handler is a handler of this package: the answer goes to x.
type handler func(x *exchange, r *http.Request)

// handle makes h a handler for the router, which hands on the exchange it was given.
func (a *API) handle(o op, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x, ok := w.(*exchange)
		if !ok {
			http.Error(w, "misrouted", http.StatusInternalServerError)
			return
		}
		a.run(o, h, x, r)
	}
}

// run is how every handler is called, by the router or without it.
func (a *API) run(o op, h handler, x *exchange, r *http.Request) {
	x.op = o
	if o == opBatchGet {
		x.write = false // a read, though it is posted
	}
	if a.cfg.Tracer != nil && o != opHealth && o != opOther {
		x.course.Span = a.cfg.Tracer.Start("http", x.started, r.Header["Traceparent"])
	}
	if a.cfg.Guard != nil && !x.enter(r) {
		return
	}
	h(x, r)
}

// end finishes an exchange, after a panic too.
func (a *API) end(x *exchange, r *http.Request) {
	fault := recover()
	if fault != nil {
		if err, ok := fault.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			a.finish(x, r)
			panic(fault)
		}
		a.cfg.Logger.Error().Str("request_id", x.requestID).Interface("panic", fault).Stack().Msg("handler panicked")
		if x.status != 0 {
			// An answer was begun, so that only a broken connection can tell that it is not whole.
			a.finish(x, r)
			panic(http.ErrAbortHandler)
		}
		x.fail(r, fmt.Errorf("handler panicked"))
	}
	a.finish(x, r)
}

// finish releases what the exchange holds, counts it and logs it.
func (a *API) finish(x *exchange, r *http.Request) {
	a.observe(x, r)
	x.release()
	w, refused := x.ResponseWriter, x.status == http.StatusTooManyRequests
	a.exchanges.put(x)
	if refused && a.cfg.Overload != nil {
		a.holdBack(w, r)
	}
}

// holdBack leaves the connection of a refused request unread for a while, once the answer is on its way. Retry-After asked
// for as much; a client that heeds it notices nothing. Streams of one HTTP/2 connection are not each other's keepers.
func (a *API) holdBack(w http.ResponseWriter, r *http.Request) {
	hold := a.cfg.Overload.Hold()
	if hold <= 0 || r.ProtoMajor != 1 || http.NewResponseController(w).Flush() != nil {
		return
	}
	wait := time.NewTimer(hold)
	defer wait.Stop()
	a.metrics.heldBack.Inc()
	defer a.metrics.heldBack.Dec()
	select {
	case <-wait.C:
	case <-r.Context().Done(): // the client is gone
	}
}

func (a *API) healthz(x *exchange, r *http.Request) {
	if !x.readOnly(r) {
		return
	}
	x.text(http.StatusOK, "ok\n")
}

func (a *API) readyz(x *exchange, r *http.Request) {
	if !x.readOnly(r) {
		return
	}
	if ok, reason := a.cfg.Ready(); !ok {
		x.text(http.StatusServiceUnavailable, reason+"\n")
		return
	}
	x.text(http.StatusOK, "ready\n")
}
