package layout

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	steps         *prometheus.CounterVec
	exchanges     *prometheus.CounterVec
	convergence   prometheus.Histogram
	pulls         *prometheus.CounterVec
	pulledRecords prometheus.Counter
	pulledBytes   prometheus.Counter
	lastResorts   prometheus.Counter
	foreign       prometheus.Gauge
	refused       prometheus.Counter
	removals      prometheus.Counter
	short         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, s *State, transfer func() (Transfer, bool)) (*metrics, error) {
	m := &metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dotring_node_layout_steps_total", Help: "Steps taken for layout changes, by step.",
		}, []string{"step"}),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dotring_node_view_exchanges_total", Help: "Exchanges of views begun by this node, by outcome.",
		}, []string{"outcome"}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "dotring_node_layout_convergence_seconds",
			Help:    "Time from a layout that this node proposed until every living member is known here to have acknowledged it.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 13),
		}),
		pulls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dotring_node_pulls_total", Help: "Ranges pulled from one source for a layout change, by outcome of the attempt.",
		}, []string{"outcome"}),
		pulledRecords: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dotring_node_pulled_records_total", Help: "Records taken in for layout changes.",
		}),
		pulledBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dotring_node_pulled_bytes_total", Help: "Bytes of records taken in for layout changes.",
		}),
		lastResorts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dotring_node_refills_from_doubt_total",
			Help: "Ranges refilled from owners that were all in doubt: acknowledged writes may be missing.",
		}),
		foreign: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dotring_node_foreign_members", Help: "Living members in gossip that belong to another cluster.",
		}),
		removals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dotring_node_members_removed_total", Help: "Members that this node removed for good because they were away for too long.",
		}),
		short: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dotring_node_layout_short_ranges", Help: "Ranges that a layout change cannot sync, since too few sources are left.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dotring_node_refused_peers_total", Help: "Peers refused for belonging to another cluster or for this node's own identity.",
		}),
	}
	epoch := func(name, help string, of func(*Known) uint64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if k := s.Known(); k != nil {
				return float64(of(k))
			}
			return 0
		})
	}
	pulling := func(name, help string, of func(Transfer) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			t, _ := transfer()
			return of(t)
		})
	}
	for _, c := range []prometheus.Collector{m.steps, m.exchanges, m.convergence, m.pulls, m.pulledRecords, m.pulledBytes, m.lastResorts, m.foreign, m.refused, m.removals, m.short,
		epoch("dotring_node_layout_settled_epoch", "Epoch of the settled layout, 0 while there is none.", func(k *Known) uint64 { return k.Settled.ID().Epoch }),
		epoch("dotring_node_layout_newest_epoch", "Epoch of the newest layout known, 0 while there is none.", func(k *Known) uint64 { return k.Newest.ID().Epoch }),
		epoch("dotring_node_layout_read_epoch", "Epoch of the layout that reads use, 0 while there is none.", func(k *Known) uint64 { return k.Read.ID().Epoch }),
		pulling("dotring_node_transfer_slots_done", "Slots pulled for the layout change under way, each once for each source that it needs; 0 while there is none.",
			func(t Transfer) float64 { return float64(t.SlotsDone) }),
		pulling("dotring_node_transfer_slots", "Slots to pull for the layout change under way, each once for each source that it needs; 0 while there is none.",
			func(t Transfer) float64 { return float64(t.SlotsTotal) }),
		pulling("dotring_node_transfer_left_seconds", "Estimate of the time left for the pulls of the layout change under way; 0 while there is none.",
			func(t Transfer) float64 { return t.Left.Seconds() }),
		pulling("dotring_node_transfer_stalled_seconds", "How long nothing has come of what is being pulled for a layout change; 0 while nothing is pulled.",
			func(t Transfer) float64 { return t.Stalled.Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "dotring_node_layout_acked_epoch", Help: "Epoch of the newest layout that this node has acknowledged.",
		}, func() float64 { return float64(s.Fence().Acked.Epoch) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
