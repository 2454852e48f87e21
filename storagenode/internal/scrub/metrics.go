package scrub

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	bytes, damaged prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	m := &metrics{
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_scrub_verified_bytes_total",
			Help: "Bytes of tables that were read from the disk to verify them."}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_scrub_damage_total",
			Help: "Damaged tables, and records that only their own checksum shows to be damaged, that were found so."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.bytes, m.damaged,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dotring_scrub_verified_week_bytes",
			Help: "Bytes of tables that were verified in the last seven days."}, func() float64 { return float64(s.recent()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dotring_scrub_oldest_unverified_seconds",
			Help: "Longest that any table has not been verified, since then or since it was written."}, func() float64 { return s.oldest().Seconds() }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
