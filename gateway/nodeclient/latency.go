package nodeclient

import (
	"math"
	"sync/atomic"
	"time"
)

// estimator follows the mean and the 95th percentile of a stream of durations in constant space. Safe for concurrent
// use: a sample that meets another at the same instant may be lost, which does no harm.
//
// The mean is exponentially weighted. The percentile moves up by 19 parts for each sample above it and down by one part
// for each below, so that it rests where one in twenty is above: the frugal estimator of Ma, Muthukrishnan and Sandler,
// "Frugal Streaming for Estimating Quantiles" (2013), with a step in proportion to the estimate.
type estimator struct {
	mean, p95 atomic.Int64 // nanoseconds; 0 before the first sample
}

const (
	meanWeight  = 16 // a sample counts a sixteenth
	stepShare   = 256
	leastStep   = int64(500 * time.Nanosecond)
	stepsUp     = 19
	firstFactor = 2 // the percentile starts at twice the first sample
)

func (e *estimator) add(d time.Duration) {
	x := max(int64(d), 1)
	mean := e.mean.Load()
	if mean == 0 {
		e.mean.Store(x)
		e.p95.Store(firstFactor * x)
		return
	}
	e.mean.Store(max(mean+(x-mean)/meanWeight, 1))
	p := e.p95.Load()
	step := max(p/stepShare, leastStep)
	if x > p {
		p += stepsUp * step
	} else {
		p -= step
	}
	e.p95.Store(max(p, 1))
}

func (e *estimator) get() (mean, p95 time.Duration) {
	return time.Duration(e.mean.Load()), time.Duration(e.p95.Load())
}

// rate follows how fast a counter grows: it looks at it about once a second, so that counting costs nothing but the addition. All but
// perSecond belongs to the one who looks.
type rate struct {
	perSecond atomic.Uint64 // bits of a float64
	last      time.Duration
	seen      [rateLooks]look
	next      int
}

type look struct {
	at    time.Duration
	count uint64
}

const (
	rateEvery = time.Second
	rateLooks = 10
)

// look is told the counter at a reading of the clock, as often as its owner likes.
func (r *rate) look(count uint64, now time.Duration) {
	if now-r.last < rateEvery {
		return
	}
	oldest := r.seen[r.next]
	if oldest.at == 0 {
		oldest = r.seen[0] // there are not as many yet
	}
	if oldest.at > 0 && now > oldest.at {
		r.perSecond.Store(math.Float64bits(float64(count-oldest.count) / (now - oldest.at).Seconds()))
	}
	r.seen[r.next], r.last = look{now, count}, now
	r.next = (r.next + 1) % rateLooks
}
