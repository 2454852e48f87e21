package node

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/membership"
)

func registerHealth(s *grpc.Server, h *health.Server) {
	healthv1.RegisterHealthServer(s, h)
	h.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	h.SetServingStatus(storagev1.Storage_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_NOT_SERVING)
}

// followHealth keeps the gRPC health service, and the actor in gossip, in step with the node.
func (n *Node) followHealth(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	actor := n.store.Actor()
	for {
		changed := n.Changed()
		st := healthv1.HealthCheckResponse_NOT_SERVING
		if n.notReady() == "" {
			st = healthv1.HealthCheckResponse_SERVING
		}
		n.health.SetServingStatus("", st)
		n.health.SetServingStatus(storagev1.Storage_ServiceDesc.ServiceName, st)
		if now := n.store.Actor(); now != actor {
			err := n.gossip.SetLocal(func(m *membership.Member) { m.Actor = now })
			if err == nil {
				actor = now
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// notReady says why the node serves no requests, nothing where it does.
func (n *Node) notReady() string {
	switch {
	case n.draining.Load():
		return "stopping"
	case !n.state.Ready():
		return "not part of a settled layout"
	case !n.store.Stats().Available:
		return "engine is being reopened"
	case !n.witness.Vouched():
		return "waits to hear what others remember of its disk"
	case n.inDoubt():
		return "disk lost data and is being refilled"
	}
	return ""
}

// adminHandler serves metrics, health and profiles. It is for operators and scrapers, not for clients.
func (n *Node) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-n.gossip.Done():
			answer(w, http.StatusServiceUnavailable, "gossip has ended")
		default:
			answer(w, http.StatusOK, "ok")
		}
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := n.notReady(); why != "" {
			answer(w, http.StatusServiceUnavailable, why)
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	fmt.Fprintln(w, text) // who went away does not want to know
}
