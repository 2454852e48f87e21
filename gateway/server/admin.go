package server

import (
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminHandler serves metrics and profiles, on the admin port alone.
func (s *Server) adminHandler() http.Handler {
	r := chi.NewRouter()
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: 4, Registry: s.registry}))
	r.Get("/debug/pprof/cmdline", pprof.Cmdline)
	r.Get("/debug/pprof/profile", pprof.Profile)
	r.Get("/debug/pprof/symbol", pprof.Symbol)
	r.Get("/debug/pprof/trace", pprof.Trace)
	r.Get("/debug/pprof/*", pprof.Index)
	public := func(w http.ResponseWriter, r *http.Request) { s.api.ServeHTTP(w, r) }
	r.Get("/healthz", public)
	r.Get("/readyz", public)
	return r
}

// registerServerMetrics registers the metrics of the process, and of the server as a whole.
func registerServerMetrics(reg *prometheus.Registry, s *Server) error {
	info := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "dotring", Subsystem: "gateway", Name: "build_info",
		Help: "Always 1; the version is a label.", ConstLabels: prometheus.Labels{"version": Version(), "go": runtime.Version()}})
	info.Set(1)
	ready := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "dotring", Subsystem: "gateway", Name: "ready",
		Help: "1 while /readyz succeeds, else 0."}, func() float64 {
		if ok, _ := s.Ready(); ok {
			return 1
		}
		return 0
	})
	spans := func(name, help, reason string, of func() uint64) prometheus.Collector {
		opts := prometheus.CounterOpts{Namespace: "dotring", Subsystem: "gateway", Name: name, Help: help}
		if reason != "" {
			opts.ConstLabels = prometheus.Labels{"reason": reason}
		}
		return prometheus.NewCounterFunc(opts, func() float64 { return float64(of()) })
	}
	const dropped = "Spans of traced requests that were dropped: there were too many (full), or the collector did not take them (failed)."
	for _, c := range []prometheus.Collector{info, ready,
		spans("trace_spans_exported_total", "Spans of traced requests that the collector took.", "", s.tracer.Exported),
		spans("trace_spans_dropped_total", dropped, "full", s.tracer.Full), spans("trace_spans_dropped_total", dropped, "failed", s.tracer.Failed),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Version is the version of the program, or the revision it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "devel"
}
