// Package tracing makes OpenTelemetry spans of the few requests that are sampled, and brings them to a collector.
//
// Whether a request is sampled is decided once, at the gateway where it enters. All others have a nil Span, whose methods do
// nothing: they cost a comparison and no allocation.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// DefaultSample is the share of requests that are sampled where nothing else is said.
const DefaultSample = 0.001

// Config is what New needs.
type Config struct {
	// Endpoint is the URL of a collector that takes OTLP over gRPC; see CheckEndpoint. Empty: there is no tracing.
	Endpoint string
	// Sample is the share of requests that Start samples, 0 to 1.
	Sample float64
	// Service, Instance and Version tell of each span where it comes from.
	Service, Instance, Version string
	Logger                     zerolog.Logger
	// Exporter, where not nil, takes the spans in the place of the collector; for tests.
	Exporter sdktrace.SpanExporter
}

// CheckEndpoint says what is wrong with the URL of a collector. http is in the clear, https is TLS by the authorities of the
// system or of OTEL_EXPORTER_OTLP_CERTIFICATE. That and the other standard variables (OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE,
// _CLIENT_KEY, _HEADERS, _COMPRESSION) are heeded as everywhere. The empty endpoint is right.
func CheckEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Path != "" && u.Path != "/" {
		return fmt.Errorf("%q is not the URL of a collector that takes OTLP over gRPC, such as http://127.0.0.1:4317", endpoint)
	}
	if _, err := net.LookupPort("tcp", u.Port()); err != nil || u.Port() == "" {
		return fmt.Errorf("%q has no port from 1 to 65535; collectors take OTLP over gRPC at 4317 as a rule", endpoint)
	}
	return nil
}

// CheckSample says what is wrong with a share.
func CheckSample(share float64) error {
	if !(share >= 0 && share <= 1) { // not a number is neither
		return fmt.Errorf("%v is not within 0 to 1", share)
	}
	return nil
}

// Tracer makes spans while Run runs, and none before and after. A nil Tracer makes none. It is safe for concurrent use.
type Tracer struct {
	cfg     Config
	running atomic.Pointer[running]
	invited invitations
	counts  counts
}

// running is what there is only while Run runs.
type running struct {
	ctx    context.Context // never ends
	tracer trace.Tracer
}

// New returns a Tracer; nil where cfg names neither an endpoint nor an exporter. It starts nothing.
func New(cfg Config) (*Tracer, error) {
	if err := errors.Join(CheckEndpoint(cfg.Endpoint), CheckSample(cfg.Sample)); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if cfg.Endpoint == "" && cfg.Exporter == nil {
		return nil, nil
	}
	return &Tracer{cfg: cfg}, nil
}

// Run brings spans to the collector until ctx ends, and then for flushWait at most those that are left. A collector that is away is no error: spans are
// dropped and counted, and the log says so once a minute. Run is called once.
func (t *Tracer) Run(ctx context.Context) error {
	if t == nil {
		return nil
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	to := t.cfg.Exporter
	if to == nil {
		var err error
		if to, err = otlptracegrpc.New(work, otlptracegrpc.WithEndpointURL(t.cfg.Endpoint)); err != nil {
			return fmt.Errorf("tracing: %w", err)
		}
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()), // whoever is not sampled has no span
		sdktrace.WithSpanProcessor(newQueue(work, to, &t.counts, t.cfg.Logger)),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", t.cfg.Service),
			attribute.String("service.instance.id", t.cfg.Instance), attribute.String("service.version", t.cfg.Version))))
	t.running.Store(&running{ctx: work, tracer: provider.Tracer("github.com/dotring/dotring")})
	<-ctx.Done()
	t.running.Store(nil)
	flush, stop := context.WithTimeout(work, flushWait)
	defer stop()
	if err := provider.Shutdown(flush); err != nil {
		t.cfg.Logger.Warn().Err(err).Msg("the last spans may not have reached the collector")
	}
	return nil
}

// Start begins the span of a request that came in at began, nil where it is not sampled. traceparent is what the client says
// in the header of this name (W3C Trace Context), none where it says nothing: then a share of Config.Sample is sampled. A client's trace is
// joined; where it says that it is not sampled, it is not, and where it says that it is, ten a second are, and of others the same share.
func (t *Tracer) Start(name string, began time.Time, traceparent []string) *Span {
	if t == nil {
		return nil
	}
	run := t.running.Load()
	if run == nil {
		return nil
	}
	ctx := run.ctx
	if parent, ok := parseParent(traceparent); ok {
		if !parent.IsSampled() || !t.invited.take(began) && !t.chance() {
			return nil
		}
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	} else if !t.chance() {
		return nil
	}
	return run.start(ctx, name, trace.WithTimestamp(began), trace.WithSpanKind(trace.SpanKindServer))
}

func (t *Tracer) chance() bool { return rand.Float64() < t.cfg.Sample }

// Continue begins the span of what another process asked for, which came in at began. parent is the other's Span.Context; nil is
// returned where it is empty, since that one is not sampled.
func (t *Tracer) Continue(parent []byte, name string, began time.Time) *Span {
	if t == nil || len(parent) != contextLen {
		return nil
	}
	run := t.running.Load()
	if run == nil {
		return nil
	}
	sc := decodeContext(parent)
	if !sc.IsValid() {
		return nil
	}
	return run.start(trace.ContextWithRemoteSpanContext(run.ctx, sc), name, trace.WithTimestamp(began), trace.WithSpanKind(trace.SpanKindServer))
}

func (r *running) start(ctx context.Context, name string, opts ...trace.SpanStartOption) *Span {
	ctx, span := r.tracer.Start(ctx, name, opts...)
	return &Span{run: r, ctx: ctx, span: span}
}
