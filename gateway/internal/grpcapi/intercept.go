package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// Admission bounds the requests under way and the bytes they came with.
type Admission interface {
	Enter(bytes int64) bool
	Leave(bytes int64)
}

// Interceptor bounds, names, counts and logs unary calls, and turns their errors into statuses with details.
type Interceptor struct {
	admission Admission
	guard     *access.Guard
	cluster   Admission
	slow      *slowlog.Log
	tracer    *tracing.Tracer
	log       zerolog.Logger
	burst     zerolog.Logger
	metrics   *metrics
}

// NewInterceptor returns an interceptor. Calls of the Cluster service enter by cluster, all others by admission. Callers are known
// to guard, which may be nil. Calls that take long go to slow; tracer, which may be nil, chooses those that are traced.
func NewInterceptor(admission, cluster Admission, guard *access.Guard, slow *slowlog.Log, tracer *tracing.Tracer, log zerolog.Logger,
	reg prometheus.Registerer) *Interceptor {
	return &Interceptor{admission: admission, cluster: cluster, guard: guard, slow: slow, tracer: tracer, log: log,
		burst: log.Sample(&zerolog.BurstSampler{Burst: 50, Period: time.Second}), metrics: newMetrics(reg)}
}

// requestIDHeader is the metadata in which a client names a request, and in which the answer carries the name.
const requestIDHeader = "kv-request-id"

const clusterMethods = "/dotring.cluster.v1.Cluster/"

// Unary is the grpc.UnaryServerInterceptor.
func (i *Interceptor) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (
	res any, err error) {
	if !strings.HasPrefix(info.FullMethod, "/dotring.") {
		return handler(ctx, req)
	}
	method := path.Base(info.FullMethod)
	write := strings.HasSuffix(method, "Put") || strings.HasSuffix(method, "Delete")
	began := time.Now()
	id := edge.NewRequestID()
	if given := metadata.ValueFromIncomingContext(ctx, requestIDHeader); len(given) == 1 && edge.CheckRequestID(given[0]) == nil {
		id = given[0]
	} else if named, ok := req.(interface{ GetRequestId() string }); ok && edge.CheckRequestID(named.GetRequestId()) == nil {
		id = named.GetRequestId()
	}
	// A stream that is gone cannot be told its name; its call fails by itself.
	headerErr := grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, id))
	size := int64(0)
	if m, ok := req.(proto.Message); ok {
		size = int64(proto.Size(m))
	}
	admission := i.admission
	if strings.HasPrefix(info.FullMethod, clusterMethods) {
		admission = i.cluster
	}
	course := &slowlog.Course{Log: i.slow}
	if i.tracer != nil {
		course.Span = i.tracer.Start("grpc", began, metadata.ValueFromIncomingContext(ctx, "traceparent"))
	}
	var who *access.Principal
	who, err = i.authorize(ctx, info.FullMethod, id)
	if err == nil && !operates(info.FullMethod) {
		if err = who.Enter(began); err == nil {
			defer who.Leave()
		}
	}
	if err == nil {
		if admission.Enter(size) {
			i.metrics.inFlight.Inc()
			res, err = i.call(access.With(slowlog.With(edge.WithRequestID(ctx, id), course), who), req, method, handler)
			i.metrics.inFlight.Dec()
			admission.Leave(size)
		} else {
			i.metrics.rejected.Inc()
			err = problem.ErrOverloaded
		}
	}
	code, answer := codes.OK, error(nil)
	if err != nil {
		s := problem.GRPC(problem.FromStatus(err), write, id)
		code, answer, res = s.Code(), s.Err(), nil
	}
	if errors.Is(err, access.ErrUnauthenticated) || errors.Is(err, access.ErrDenied) {
		i.metrics.denied.Inc()
	}
	i.finish(method, id, began, course, code, errors.Join(err, headerErr))
	return res, answer
}

// operates says whether a method looks at the cluster or changes it, rather than to ask for keys.
func operates(method string) bool {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return service != kvv1.KV_ServiceDesc.ServiceName && name != "InspectKey"
}

// authorize says who calls. All but the inspection of a key, which the service itself allows or not, asks of the cluster
// service what only those may see and do who administer the cluster.
func (i *Interceptor) authorize(ctx context.Context, method, id string) (*access.Principal, error) {
	who, err := i.guard.Authenticate(metadata.ValueFromIncomingContext(ctx, "authorization"))
	name, cluster := path.Base(method), operates(method)
	if err == nil && cluster && !who.Administers() {
		err = fmt.Errorf("%w: it needs admin", access.ErrDenied)
	}
	if err != nil {
		i.guard.Denied(who, id, method)
		return nil, err
	}
	if cluster && !strings.HasPrefix(name, "Get") && !strings.HasPrefix(name, "List") && name != "CanStop" {
		i.guard.Administered(who, id, method)
	}
	return who, nil
}

// call calls the handler, and makes an error of a panic.
func (i *Interceptor) call(ctx context.Context, req any, method string, handler grpc.UnaryHandler) (res any, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			i.log.Error().Str("request_id", edge.RequestID(ctx)).Str("method", method).Interface("panic", fault).Stack().
				Msg("handler panicked")
			err = errors.New("handler panicked")
		}
	}()
	return handler(ctx, req)
}

func (i *Interceptor) finish(method, id string, began time.Time, course *slowlog.Course, code codes.Code, err error) {
	now := time.Now()
	took := now.Sub(began)
	i.metrics.requests.WithLabelValues(method, code.String()).Inc()
	i.metrics.durations.WithLabelValues(method).Observe(took.Seconds())
	if s := course.Span; s != nil {
		s.Name("grpc " + method)
		s.Str("dotring.request_id", id)
		s.Str("rpc.method", method)
		s.Str("rpc.response.status_code", code.String())
		if code == codes.Internal || code == codes.Unavailable || code == codes.DeadlineExceeded {
			s.Fail(code.String())
		}
		s.End()
	}
	line, message := i.slow.Line(took, now), "slow call"
	switch {
	case code == codes.Internal || code == codes.Unavailable || code == codes.DeadlineExceeded:
		message = "call failed"
		if line == nil {
			line = i.burst.Warn()
		}
	case line == nil:
		line, message = i.log.Debug(), "call"
	}
	if line == nil {
		return
	}
	line = i.slow.Describe(line, course, began, took)
	line.Str("request_id", id).Str("method", method).Stringer("code", code).Dur("took", took).AnErr("err", err).Msg(message)
}
