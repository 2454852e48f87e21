package coordinator

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

type operation uint8

const (
	opGet operation = iota
	opPut
	operations
)

var operationNames = [operations]string{"get", "put"}

type metrics struct {
	outcomes    [operations][kinds + 1]prometheus.Counter // the last is success
	hedges      prometheus.Counter
	repairs     prometheus.Counter
	repairsOff  prometheus.Counter
	coalesced   prometheus.Counter
	mismatches  prometheus.Counter
	damaged     prometheus.Counter
	mintRetries prometheus.Counter
	restarts    prometheus.Counter
	hintsSent   prometheus.Counter
	hintedPuts  prometheus.Counter
	siblings    prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns, sub = "dotring", "gateway"
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
		if reg != nil {
			reg.MustRegister(c)
		}
		return c
	}
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "quorum_outcomes_total",
		Help: "Gets and puts by how they ended: ok, or the kind of failure."}, []string{"op", "outcome"})
	m := &metrics{
		hedges:      counter("hedged_reads_total", "Gets that asked one more replica because an answer was late."),
		repairs:     counter("read_repairs_total", "Merged records sent to stale replicas."),
		repairsOff:  counter("read_repairs_skipped_total", "Stale replicas not repaired, since too many repairs were in flight."),
		coalesced:   counter("coalesced_reads_total", "Gets answered by a fetch that another get carried out."),
		mismatches:  counter("digest_mismatches_total", "Digests that differed from the record read."),
		damaged:     counter("damaged_records_total", "Records from nodes whose checksums were wrong; never served."),
		mintRetries: counter("mint_retries_total", "Mints sent again, to the same node or another."),
		restarts:    counter("layout_refreshes_total", "Requests that went on under newer layouts after a refusal."),
		hintsSent:   counter("hints_sent_total", "Writes sent to nodes that stand in for owners."),
		hintedPuts:  counter("hinted_puts_total", "Puts acknowledged with the help of nodes that stand in for owners."),
		siblings: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "read_siblings",
			Help: "Siblings of the records that gets found; 0 is absence.", Buckets: []float64{0, 1, 2, 3, 5, 8, 16, 32, 64}}),
	}
	for op, name := range operationNames {
		for k := range kinds {
			m.outcomes[op][k] = outcomes.WithLabelValues(name, strings.ReplaceAll(Kind(k).String(), " ", "_"))
		}
		m.outcomes[op][kinds] = outcomes.WithLabelValues(name, "ok")
	}
	if reg != nil {
		reg.MustRegister(outcomes, m.siblings)
	}
	return m
}

func (m *metrics) failed(op operation, k Kind) { m.outcomes[op][k].Inc() }
func (m *metrics) succeeded(op operation)      { m.outcomes[op][kinds].Inc() }
