package admission

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// registerMetrics exports what the store counts. They are read when asked for, so that operations pay nothing.
func registerMetrics(reg prometheus.Registerer, s *Store) error {
	const ns, sub = "dotring", "gateway_limit"
	var errs []error
	for op, g := range map[string]*gate{"get": s.reads, "put": s.writes} {
		labels := prometheus.Labels{"op": op}
		errs = append(errs,
			reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "operations",
				Help: "Operations that may be under way at once, by the limit that follows their latency.", ConstLabels: labels},
				func() float64 { return float64(g.limit.Load()) })),
			reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "in_flight_operations",
				Help: "Operations that are under way.", ConstLabels: labels},
				func() float64 { return float64(g.inFlight.Load()) })),
			reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "refused_total",
				Help: "Operations that the limit kept out.", ConstLabels: labels},
				func() float64 { return float64(g.refused.Load()) })))
	}
	errs = append(errs, reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "refused_by_key_total",
		Help: "Operations refused since their key was at its limit (--key-limit)."}, func() float64 { return float64(s.byKey.Load()) })))
	return errors.Join(errs...)
}
