package load

import (
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/dotring/dotring/loadtest/report"
)

// Latencies are recorded from 1 µs to 10 minutes, to three digits; what lies outside is taken for the bound.
const (
	minLatency = time.Microsecond
	maxLatency = 10 * time.Minute
	digits     = 3
)

// histogram is an HDR histogram that is made when first needed. The zero value is empty. Not safe for concurrent use:
// each worker has its own, and they are merged in the end.
type histogram struct{ h *hdr.Histogram }

func (h *histogram) ready() *hdr.Histogram {
	if h.h == nil {
		h.h = hdr.New(minLatency.Microseconds(), maxLatency.Microseconds(), digits)
	}
	return h.h
}

func (h *histogram) record(d time.Duration) { h.recordMany(d, 1) }

func (h *histogram) recordMany(d time.Duration, n int64) {
	us := min(max(d, minLatency), maxLatency).Microseconds()
	_ = h.ready().RecordValues(us, n) // fails only outside of the bounds
}

func (h *histogram) merge(o *histogram) {
	if o.h != nil {
		h.ready().Merge(o.h) // drops nothing: the bounds are the same
	}
}

// curve is at which quantiles a histogram is drawn: evenly by the number of nines.
var curve = []float64{0, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98, 98.5, 99, 99.25, 99.5, 99.75, 99.9,
	99.925, 99.95, 99.975, 99.99, 99.995, 99.999, 100}

func (h *histogram) summary() report.Latency {
	if h.h == nil || h.h.TotalCount() == 0 {
		return report.Latency{}
	}
	at := h.h.ValueAtPercentile
	l := report.Latency{
		Count: h.h.TotalCount(), MeanUS: h.h.Mean(), MinUS: h.h.Min(), P50US: at(50), P75US: at(75), P90US: at(90), P95US: at(95),
		P99US: at(99), P999US: at(99.9), P9999: at(99.99), MaxUS: h.h.Max(),
	}
	for _, p := range curve {
		// Beyond one in all of them, a quantile is the maximum again.
		if p < 100 && (1-p/100)*float64(l.Count) < 1 {
			continue
		}
		l.Curve = append(l.Curve, report.Share{Q: p / 100, US: at(p)})
	}
	return l
}
