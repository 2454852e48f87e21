package admission

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/limit"
)

const (
	// window is how long latencies are gathered before the limit is set again.
	window = 100 * time.Millisecond
	// buckets cover latencies from 65 µs to 137 s, four for each doubling.
	bucketBits = 2
	firstBit   = 16 // of nanoseconds: 65 µs
	buckets    = 21 << bucketBits
)

// gate bounds the operations of one kind that are under way. An operation costs it a handful of atomic additions.
type gate struct {
	start    time.Time
	limit    atomic.Int64
	inFlight atomic.Int64
	served   atomic.Uint64 // for good
	refused  atomic.Uint64 // for good
	due      atomic.Int64  // when the window ends, in nanoseconds since start

	// Of this window.
	peak, overloaded atomic.Int64
	counts           [buckets]atomic.Int64

	mu          sync.Mutex
	decide      limit.Limit
	refusedThen uint64 // when the window began
}

func newGate(cfg limit.Config, start time.Time) *gate {
	g := &gate{start: start, decide: limit.New(cfg)}
	g.limit.Store(int64(cfg.Initial))
	g.due.Store(int64(window))
	return g
}

// room is how many may be under way.
func (g *gate) room(background bool) int64 {
	n := g.limit.Load()
	if background {
		n -= n / 4
	}
	return n
}

func (g *gate) full(background bool) bool { return g.inFlight.Load() >= g.room(background) }

func (g *gate) refuse() { g.refused.Add(1) }

// enter takes a place; leave gives it back.
func (g *gate) enter(background bool) bool {
	n := g.inFlight.Add(1)
	if n > g.room(background) {
		g.inFlight.Add(-1)
		g.refuse()
		return false
	}
	for peak := g.peak.Load(); n > peak && !g.peak.CompareAndSwap(peak, n); peak = g.peak.Load() {
	}
	return true
}

// leave gives the place back, and takes in how long the operation took.
func (g *gate) leave(began, ended time.Time, err error) {
	g.inFlight.Add(-1)
	g.counts[bucketOf(ended.Sub(began))].Add(1)
	if err == nil {
		g.served.Add(1)
	} else if isOverloaded(err) {
		g.overloaded.Add(1)
	}
	if at := int64(ended.Sub(g.start)); at >= g.due.Load() {
		g.adapt(at)
	}
}

func isOverloaded(err error) bool {
	var failure *coordinator.Error
	return errors.As(err, &failure) && failure.Kind == coordinator.Overloaded
}

// adapt ends a window, unless another just did.
func (g *gate) adapt(at int64) {
	if !g.mu.TryLock() {
		return
	}
	defer g.mu.Unlock()
	if at < g.due.Load() {
		return
	}
	g.due.Store(at + int64(window))
	var w limit.Window
	for i := range g.counts {
		w.Ended += int(g.counts[i].Load())
	}
	if w.Ended < limit.MinEnded {
		return // gathered on
	}
	w.Ended = 0
	var counts [buckets]int64
	for i := range counts {
		counts[i] = g.counts[i].Swap(0)
		w.Ended += int(counts[i])
	}
	refused := g.refused.Load()
	w.Overloaded, w.Refused, w.Peak = int(g.overloaded.Swap(0)), int(refused-g.refusedThen), int(g.peak.Swap(g.inFlight.Load()))
	g.refusedThen = refused
	w.Median = median(&counts, int64(w.Ended))
	g.limit.Store(int64(g.decide.Next(w)))
}

// bucketOf returns the bucket of a latency: by its highest bit, and the bucketBits below that.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0)) >> (firstBit - bucketBits)
	if n < 1<<bucketBits {
		return 0
	}
	shift := bits.Len64(n) - 1 - bucketBits
	return min(shift<<bucketBits+int(n>>shift)-1<<bucketBits, buckets-1)
}

// upperBound returns the latency that the bucket's are below.
func upperBound(i int) time.Duration {
	shift, n := i>>bucketBits, uint64(1<<bucketBits+i&(1<<bucketBits-1))
	return time.Duration((n + 1) << shift << (firstBit - bucketBits))
}

// median returns the latency that half of n operations did not exceed, to a quarter of a doubling.
func median(counts *[buckets]int64, n int64) time.Duration {
	seen := int64(0)
	for i, c := range counts {
		if seen += c; 2*seen >= n && seen > 0 {
			return upperBound(i)
		}
	}
	return 0
}
