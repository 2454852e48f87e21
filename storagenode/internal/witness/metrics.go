package witness

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	calls *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	m := &metrics{calls: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dotring_witness_calls_total", Help: "Calls that tell other nodes how far this disk has come, or ask them, by result.",
	}, []string{"result"})}
	for _, r := range []string{"ok", "failed"} {
		m.calls.WithLabelValues(r)
	}
	for _, c := range []prometheus.Collector{
		m.calls,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dotring_witness_vouched", Help: "1 once other nodes told what they remember of this disk, or nobody answered.",
		}, func() float64 {
			if s.Vouched() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dotring_witness_remembered", Help: "Nodes of which this one remembers how far their disks had come.",
		}, func() float64 { return float64(s.count()) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
