package grpcapi

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// maxMessage bounds a request: the largest batch, and some room for its frame.
const maxMessage = maxBatchBytes + 64<<10

// NewServer returns a gRPC server with the public services, health and reflection. ready is asked at each health check, which needs no token.
func NewServer(i *Interceptor, kv kvv1.KVServer, cluster clusterv1.ClusterServer, ready func() (bool, string),
	more ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append([]grpc.ServerOption{
		grpc.UnaryInterceptor(i.Unary),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1024),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}, more...)...)
	kvv1.RegisterKVServer(s, kv)
	clusterv1.RegisterClusterServer(s, cluster)
	healthv1.RegisterHealthServer(s, &health{ready: ready, known: map[string]bool{
		"": true, kvv1.KV_ServiceDesc.ServiceName: true, clusterv1.Cluster_ServiceDesc.ServiceName: true}})
	reflection.Register(s)
	return s
}

// health is the gRPC health service: it says of each service what /readyz says.
type health struct {
	healthv1.UnimplementedHealthServer
	ready func() (bool, string)
	known map[string]bool
}

func (h *health) status(service string) healthv1.HealthCheckResponse_ServingStatus {
	if !h.known[service] {
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN
	}
	if ok, _ := h.ready(); !ok {
		return healthv1.HealthCheckResponse_NOT_SERVING
	}
	return healthv1.HealthCheckResponse_SERVING
}

// Check implements the health service.
func (h *health) Check(_ context.Context, m *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	s := h.status(m.GetService())
	if s == healthv1.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthv1.HealthCheckResponse{Status: s}, nil
}

// List implements the health service.
func (h *health) List(context.Context, *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
	out := &healthv1.HealthListResponse{Statuses: make(map[string]*healthv1.HealthCheckResponse, len(h.known))}
	for name := range h.known {
		out.Statuses[name] = &healthv1.HealthCheckResponse{Status: h.status(name)}
	}
	return out, nil
}

// watchEvery is how often a watched status is looked at.
const watchEvery = 500 * time.Millisecond

// Watch implements the health service: it sends the status at once, and when it has changed. It ends when the gateway
// drains, so that it does not hold up the end.
func (h *health) Watch(m *healthv1.HealthCheckRequest, stream grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := healthv1.HealthCheckResponse_UNKNOWN
	for {
		if now := h.status(m.GetService()); now != last {
			if err := stream.Send(&healthv1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		if _, reason := h.ready(); reason == "draining" {
			return status.Error(codes.Unavailable, "draining")
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-tick.C:
		}
	}
}
