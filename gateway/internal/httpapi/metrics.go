package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// op is what a request asks for; the label of its metrics.
type op uint8

const (
	opOther op = iota
	opGet
	opPut
	opDelete
	opBatchGet
	opBatchPut
	opBatchDelete
	opCluster
	opInspect
	opList
	opKV // until the method is known
	opHealth
	opBackup
	opCount
)

func (o op) String() string {
	return [...]string{"other", "get", "put", "delete", "batch_get", "batch_put", "batch_delete", "cluster", "inspect", "list", "kv", "health", "backup"}[o]
}

// maxStatus is above every status that is answered.
const maxStatus = 600

type metrics struct {
	requests *prometheus.CounterVec
	// counts holds the children of requests by op and status, each resolved when it is first used.
	counts    [opCount]statusCounters
	durations [opCount]prometheus.Observer
	bytesIn   prometheus.Counter
	bytesOut  prometheus.Counter
	inFlight  prometheus.Gauge
	rejected  prometheus.Counter
	limited   prometheus.Counter
	denied    prometheus.Counter
	heldBack  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns, sub = "dotring", "gateway_http"
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "requests_total",
			Help: "Requests answered over HTTP, by what they asked for and the status."}, []string{"op", "code"}),
		bytesIn: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "request_body_bytes_total",
			Help: "Bytes of request bodies read."}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "response_body_bytes_total",
			Help: "Bytes of response bodies written."}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "in_flight_requests",
			Help: "Requests over HTTP under way."}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "rejected_total",
			Help: "Requests refused at once because too many were under way."}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "limited_total",
			Help: "Requests answered 429 since their token, or their key, was at a limit of its own."}),
		denied: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "denied_total",
			Help: "Requests refused because their sender is not known or may not do that."}),
		heldBack: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "held_back_connections",
			Help: "Connections that are not read for a while, since a request on them was refused."}),
	}
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub,
		Name: "request_duration_seconds", Help: "Time from the request's header to the end of its answer.",
		Buckets:                     []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2, 5, 10, 60},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		NativeHistogramMinResetDuration: time.Hour}, []string{"op"})
	for o := range opCount {
		m.durations[o] = durations.WithLabelValues(o.String())
		m.counts[o].of = m.requests.MustCurryWith(prometheus.Labels{"op": o.String()})
	}
	reg.MustRegister(m.requests, durations, m.bytesIn, m.bytesOut, m.inFlight, m.rejected, m.limited, m.denied, m.heldBack)
	return m
}

// count counts one answer.
func (m *metrics) count(o op, status int) {
	if status < 100 || status >= maxStatus {
		status = maxStatus - 1
	}
	m.counts[o].get(status).Inc()
}

func statusText(status int) string { return strconv.Itoa(status) }
