package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dotring/dotring/ringsvc/membership"
)

// newMetrics registers what is read when scraped.
func newMetrics(reg prometheus.Registerer, n *Node) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	spans := func(name, help string, labels prometheus.Labels, of func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(of()) })
	}
	const dropped = "Spans of traced requests that were dropped: there were too many (full), or the collector did not take them (failed)."
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("dotring_node_ready", "1 while the node serves requests.", func() float64 {
			if n.notReady() == "" {
				return 1
			}
			return 0
		}),
		gauge("dotring_node_members_alive", "Living members that gossip knows, this one included.", func() float64 {
			alive := 0
			for _, m := range n.gossip.Members() {
				if m.Status == membership.Alive {
					alive++
				}
			}
			return float64(alive)
		}),
		spans("dotring_node_trace_spans_exported_total", "Spans of traced requests that the collector took.", nil, n.tracer.Exported),
		spans("dotring_node_trace_spans_dropped_total", dropped, prometheus.Labels{"reason": "full"}, n.tracer.Full),
		spans("dotring_node_trace_spans_dropped_total", dropped, prometheus.Labels{"reason": "failed"}, n.tracer.Failed),
		gauge("dotring_node_pulls_served", "Pulls being served to other nodes.", func() float64 { return float64(len(n.pulls)) }),
	} {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
