package nodeclient

import (
	"github.com/prometheus/client_golang/prometheus"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
)

// metrics are the client's. Nodes are labelled by id, and their series go when they leave the cluster.
type metrics struct {
	calls     *prometheus.HistogramVec // node, op
	failures  *prometheus.CounterVec   // node, reason
	connected *prometheus.GaugeVec     // node
	phi       *prometheus.GaugeVec     // node
	frames    prometheus.Counter
	frameLen  prometheus.Histogram
	watches   prometheus.Counter
	spreads   prometheus.Counter
	pauses    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns, sub = "dotring", "gateway"
	m := &metrics{
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub,
			Name: "node_call_duration_seconds", Help: "Time from the call to the node's first answer, queues included.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}},
			[]string{"node", "op"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub,
			Name: "node_call_failures_total", Help: "Calls that got no answer: not_sent, overloaded, lost or late."},
			[]string{"node", "reason"}),
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub,
			Name: "node_streams", Help: "Open streams to the node."}, []string{"node"}),
		phi: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub,
			Name: "node_phi", Help: "Suspicion of the node; it is skipped from the threshold (8) on."}, []string{"node"}),
		frames: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub,
			Name: "frames_sent_total", Help: "Frames sent to nodes, heartbeats included."}),
		frameLen: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub,
			Name: "frame_requests", Help: "Requests in one frame sent to a node.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		watches: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub,
			Name: "watch_starts_total", Help: "Times that a node was asked for the cluster's state anew."}),
		spreads: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub,
			Name: "layout_spreads_total", Help: "Times that a node was told of layouts that it did not know."}),
		pauses: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub,
			Name: "own_pauses_total", Help: "Times that this process did not run long enough to be heard or to hear."}),
	}
	if reg != nil {
		reg.MustRegister(m.calls, m.failures, m.connected, m.phi, m.frames, m.frameLen, m.watches, m.spreads, m.pauses)
	}
	return m
}

// opNames label calls; ops are 1 to 5.
var opNames = [...]string{storagev1.Op_OP_MINT: "mint", storagev1.Op_OP_APPLY: "apply", storagev1.Op_OP_READ: "read",
	storagev1.Op_OP_DIGEST: "digest", storagev1.Op_OP_INSPECT: "inspect"}

type reason uint8

const (
	reasonNotSent reason = iota
	reasonOverloaded
	reasonLost
	reasonLate
)

var reasonNames = [...]string{"not_sent", "overloaded", "lost", "late"}

// nodeMetrics are one node's series, resolved once.
type nodeMetrics struct {
	calls     [len(opNames)]prometheus.Observer
	failures  [len(reasonNames)]prometheus.Counter
	connected prometheus.Gauge
	phi       prometheus.Gauge
}

func (m *metrics) node(id string) *nodeMetrics {
	n := &nodeMetrics{connected: m.connected.WithLabelValues(id), phi: m.phi.WithLabelValues(id)}
	for op, name := range opNames {
		if name != "" {
			n.calls[op] = m.calls.WithLabelValues(id, name)
		}
	}
	for r, name := range reasonNames {
		n.failures[r] = m.failures.WithLabelValues(id, name)
	}
	return n
}

func (m *metrics) forget(id string) {
	labels := prometheus.Labels{"node": id}
	m.calls.DeletePartialMatch(labels)
	m.failures.DeletePartialMatch(labels)
	m.connected.DeletePartialMatch(labels)
	m.phi.DeletePartialMatch(labels)
}
