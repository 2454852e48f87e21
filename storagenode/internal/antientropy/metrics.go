package antientropy

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rounds     *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	repaired   prometheus.Counter
	passing    prometheus.Counter
	failed     prometheus.Counter
	served     *prometheus.CounterVec
	rebuild    prometheus.Gauge
	counted    prometheus.Counter
	mismatches prometheus.Counter
	damaged    prometheus.Counter
}

// Outcomes of a round.
const (
	roundWhole   = "whole"   // all shared ranges were compared, and what was missing was fetched
	roundPartial = "partial" // something could not be read or stored
	roundFailed  = "failed"  // the peer failed, the next round goes on
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dotring_antientropy_rounds_total",
			Help: "Rounds of comparison with a peer, by outcome (whole, partial, failed)."}, []string{"outcome"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dotring_antientropy_bytes_total",
			Help: "Bytes of messages in rounds that this node began, by direction (sent, received)."}, []string{"direction"}),
		repaired: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_antientropy_keys_repaired_total",
			Help: "Keys whose record here was changed by what a peer held."}),
		passing: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_antientropy_passing_differences_total",
			Help: "Differing keys that were equal, or changing, a moment later, and so were not fetched."}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_antientropy_keys_failed_total",
			Help: "Keys that could not be fetched or stored."}),
		served: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dotring_antientropy_served_total",
			Help: "Calls of peers that were answered, by kind (compare, digests, fetch)."}, []string{"kind"}),
		rebuild: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dotring_antientropy_rebuild_seconds",
			Help: "How long it last took to count the records of all slots, or of those in doubt."}),
		counted: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_antientropy_counted_bytes_total",
			Help: "Bytes of records read to count or verify sums."}),
		mismatches: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_antientropy_verify_mismatches_total",
			Help: "Slots whose sum did not match the records when it was verified."}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_antientropy_damaged_slots_total",
			Help: "Scans of a slot that met a damaged record."}),
	}
	for _, outcome := range []string{roundWhole, roundPartial, roundFailed} {
		m.rounds.WithLabelValues(outcome)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.rounds, m.bytes, m.repaired, m.passing, m.failed, m.served, m.rebuild, m.counted,
		m.mismatches, m.damaged} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

var ageDesc = prometheus.NewDesc("dotring_antientropy_age_seconds",
	"Seconds since the last whole comparison with a peer began, or since the peer was first seen.", []string{"peer"}, nil)

// Describe implements prometheus.Collector.
func (s *Service) Describe(ch chan<- *prometheus.Desc) { ch <- ageDesc }

// Collect implements prometheus.Collector: one age for each peer that shares ranges, as many as members at most.
func (s *Service) Collect(ch chan<- prometheus.Metric) {
	for id, age := range s.ages() {
		ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, age.Seconds(), s.nameOf(id))
	}
}
