package collector

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dotring/dotring/storagenode/collect"
)

type metrics struct {
	seen, crowded prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	m := &metrics{seen: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dotring_node_tombstones", Help: "Tombstones that this node is to collect, as the last pass over its records found them."}),
		crowded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dotring_node_crowded_clocks", Help: "Keys whose clocks this node is to prune, as the last pass over its records found them."})}
	all := []prometheus.Collector{
		m.seen, m.crowded,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dotring_node_clocks_pruned_total", Help: "Keys whose clocks lost entries everywhere at this node's word.",
		}, func() float64 { return float64(s.prunes().Collected) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dotring_node_tombstones_in_hand", Help: "Tombstones whose collection is under way here.",
		}, func() float64 { return float64(s.counts().InHand) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dotring_node_tombstones_collected_total", Help: "Tombstones that were removed everywhere at this node's word.",
		}, func() float64 { return float64(s.counts().Collected) }),
	}
	for _, r := range collect.Reasons() {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dotring_node_clocks_postponed_total", Help: "Times that the pruning of a clock was put off, by reason.",
			ConstLabels: prometheus.Labels{"reason": r.String()},
		}, func() float64 { return float64(s.prunes().Postponed[r]) }))
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "dotring_node_tombstones_postponed_total", Help: "Times that a tombstone's collection was put off, by reason.",
			ConstLabels: prometheus.Labels{"reason": r.String()},
		}, func() float64 { return float64(s.counts().Postponed[r]) }))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
