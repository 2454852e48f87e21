package slowlog

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	slow, skipped prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns, sub = "dotring", "gateway"
	m := &metrics{
		slow: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "slow_requests_total",
			Help: "Requests that took as long as --slow-after or longer."}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "slow_requests_unlogged_total",
			Help: "Slow requests without a line in the log, as there were enough in that second."}),
	}
	reg.MustRegister(m.slow, m.skipped)
	return m
}
