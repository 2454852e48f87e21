package traffic

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Op is a kind of operation on a key.
type Op uint8

// The operations: a get reads, a put and a delete write.
const (
	Get Op = iota
	Put
	Delete
	Ops // how many there are
)

// String is "get", "put" or "delete".
func (o Op) String() string { return [...]string{"get", "put", "delete"}[o] }

// Operation is what one kind of operation was like lately. Latencies are of all that ended, failures included, to a
// sixteenth of themselves; 0 where none did.
type Operation struct {
	PerSecond, FailedPerSecond float64
	P50, P99                   time.Duration
}

const (
	// window is over how many whole seconds operations are summed up; some more are kept, so that one that is
	// being read is not overwritten.
	window = 10
	kept   = window + 6
	// Latencies are sorted into eight buckets for each doubling of microseconds, up to 67 s.
	fineBits   = 3
	maxBuckets = (26-fineBits)<<fineBits + 2<<fineBits
)

// second is what ended in one second.
type second struct {
	at      atomic.Int64 // which, since the start
	buckets [Ops][maxBuckets]atomic.Uint32
	failed  [Ops]atomic.Uint32
}

// recent counts what ended in each of the last seconds. It is safe for concurrent use, holds 40 KiB, and allocates nothing while it
// counts. What meets the change of a second at the same instant may be counted in neither.
type recent struct {
	mu      sync.Mutex // of who begins a new second
	seconds [kept]second
}

func (r *recent) add(op Op, took time.Duration, failed bool, now time.Duration) {
	at := int64(max(now, 0) / time.Second)
	s := &r.seconds[at%kept]
	if s.at.Load() != at && !r.begin(s, at) {
		return
	}
	s.buckets[op][bucketOf(took)].Add(1)
	if failed {
		s.failed[op].Add(1)
	}
}

// begin makes s the place of a new second, unless it is already that of a later one.
func (r *recent) begin(s *second, at int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := s.at.Load(); was >= at {
		return was == at
	}
	for op := range s.buckets {
		s.failed[op].Store(0)
		for i := range s.buckets[op] {
			s.buckets[op][i].Store(0)
		}
	}
	s.at.Store(at)
	return true
}

// sum adds up the last whole seconds, at most window of them; over how many is 0 in the first second.
func (r *recent) sum(now time.Duration) (ops [Ops]Operation, over time.Duration) {
	end := int64(max(now, 0) / time.Second)
	from := max(end-window, 0)
	over = time.Duration(end-from) * time.Second
	if over == 0 {
		return ops, 0
	}
	for op := range ops {
		var counts [maxBuckets]uint64
		var all, failed uint64
		for at := from; at < end; at++ {
			s := &r.seconds[at%kept]
			if s.at.Load() != at {
				continue // nothing ended in it
			}
			failed += uint64(s.failed[op].Load())
			for i := range counts {
				n := uint64(s.buckets[op][i].Load())
				counts[i] += n
				all += n
			}
		}
		ops[op] = Operation{PerSecond: float64(all) / over.Seconds(), FailedPerSecond: float64(failed) / over.Seconds(),
			P50: quantile(&counts, all, 0.5), P99: quantile(&counts, all, 0.99)}
	}
	return ops, over
}

// bucketOf returns the bucket of a latency: by its highest bit, and the fineBits below that.
func bucketOf(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < 1<<fineBits {
		return int(us)
	}
	shift := bits.Len64(us) - 1 - fineBits
	return min(shift<<fineBits+int(us>>shift), maxBuckets-1)
}

// boundsOf returns where a bucket begins, and how long it is.
func boundsOf(i int) (from, length time.Duration) {
	if i < 1<<fineBits {
		return time.Duration(i) * time.Microsecond, time.Microsecond
	}
	shift := i>>fineBits - 1
	return time.Duration(uint64(1<<fineBits+i&(1<<fineBits-1))<<shift) * time.Microsecond, time.Duration(1<<shift) * time.Microsecond
}

// quantile returns what a share q of all latencies did not exceed, as if those of a bucket lay evenly in it.
func quantile(counts *[maxBuckets]uint64, all uint64, q float64) time.Duration {
	rank, seen := q*float64(all), 0.0
	for i, n := range counts {
		if n > 0 && seen+float64(n) >= rank {
			from, length := boundsOf(i)
			return from + time.Duration(float64(length)*(rank-seen)/float64(n))
		}
		seen += float64(n)
	}
	return 0
}
