package leftovers

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	removed   prometheus.Counter
	delivered prometheus.Counter
	waiting   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		removed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dotring_leftovers_removed_total", Help: "Records that this node did not own any more, and removed once all owners had confirmed them.",
		}),
		delivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dotring_leftovers_delivered_total", Help: "Records brought to owners that lacked them, by a node that does not own them.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dotring_leftovers_waiting", Help: "1 while this node holds records that it does not own and cannot hand over.",
		}),
	}
	for _, c := range []prometheus.Collector{m.removed, m.delivered, m.waiting} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
