package handoff

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	delivered, deliveries, failed, refused, paused prometheus.Counter
	running                                        prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_node_" + name, Help: help})
		all = append(all, c)
		return c
	}
	m := &metrics{
		delivered:  counter("hints_delivered_total", "Hints that left because those they were for had confirmed them."),
		deliveries: counter("hint_deliveries_total", "Batches of hints that a node answered."),
		failed:     counter("hint_deliveries_failed_total", "Batches of hints that a node did not answer."),
		refused:    counter("hint_records_refused_total", "Records of delivered batches that the receiver did not take."),
		paused:     counter("hint_pause_seconds_total", "Time that deliveries waited because nodes had more important things to do."),
		running:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "dotring_node_hint_passes", Help: "Nodes that hints are being delivered for."}),
	}
	for _, c := range append(all, m.running) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
