package stream

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
)

const (
	ops      = int(storagev1.Op_OP_INSPECT) + 1
	statuses = int(storagev1.Status_STATUS_DISK_FULL) + 1
)

type metrics struct {
	requests       [ops][statuses]prometheus.Counter
	latency        [ops]prometheus.Observer
	mintIssued     prometheus.Histogram
	streams        prometheus.Gauge
	framesIn       prometheus.Counter
	framesOut      prometheus.Counter
	frameRequests  prometheus.Histogram
	frameResponses prometheus.Histogram
	frameBytes     prometheus.Histogram
}

// latencyBuckets are seconds, from what a cached read takes to the longest deadline.
var latencyBuckets = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dotring_node_requests_total", Help: "Requests answered for good, by operation and status.",
	}, []string{"op", "status"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dotring_node_request_seconds", Help: "Time from a frame's arrival to the last answer, by operation.", Buckets: latencyBuckets,
	}, []string{"op"})
	m := &metrics{
		mintIssued: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dotring_node_mint_issued_seconds", Help: "Time from a frame's arrival to a mint's first answer, where that left before the mint was durable.",
			Buckets: latencyBuckets,
		}),
		streams:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "dotring_node_streams", Help: "Open request streams."}),
		framesIn:  prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_node_frames_received_total", Help: "Frames received, heartbeats included."}),
		framesOut: prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_node_frames_sent_total", Help: "Frames sent, heartbeats included."}),
		frameRequests: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dotring_node_frame_requests", Help: "Requests per received frame that had any.", Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		frameResponses: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dotring_node_frame_responses", Help: "Answers per sent frame that had any.", Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		frameBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dotring_node_frame_sent_bytes", Help: "Payload bytes per sent frame that had answers.", Buckets: prometheus.ExponentialBuckets(64, 4, 10),
		}),
	}
	for op := range ops {
		name := label(storagev1.Op(op).String(), "OP_")
		m.latency[op] = latency.WithLabelValues(name)
		for st := range statuses {
			m.requests[op][st] = requests.WithLabelValues(name, label(storagev1.Status(st).String(), "STATUS_"))
		}
	}
	for _, c := range []prometheus.Collector{requests, latency, m.mintIssued, m.streams, m.framesIn, m.framesOut, m.frameRequests, m.frameResponses, m.frameBytes} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func label(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

// queue registers the gauges that are read when scraped.
func (m *metrics) queue(reg prometheus.Registerer, queued, pending func() float64) error {
	err := reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dotring_node_queue_requests", Help: "Requests that wait for a worker.",
	}, queued))
	if err != nil {
		return err
	}
	return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dotring_node_pending_requests", Help: "Requests received and not yet answered for good.",
	}, pending))
}

func (m *metrics) answered(op storagev1.Op, st storagev1.Status, took time.Duration) {
	if op < 0 || int(op) >= ops {
		op = storagev1.Op_OP_UNSPECIFIED
	}
	if st < 0 || int(st) >= statuses {
		st = storagev1.Status_STATUS_UNSPECIFIED
	}
	m.requests[op][st].Inc()
	m.latency[op].Observe(took.Seconds())
}

func (m *metrics) issued(took time.Duration) { m.mintIssued.Observe(took.Seconds()) }
