package chaos

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/dotring/dotring/loadtest/pulse"
)

// Counts are the requests of a stretch of time.
type Counts struct {
	Requests, Failed, Slow int64
	// Stalled are those of Requests that were slow or met their deadline because the machine stood still: the rest of the time that
	// they took was less than a second. They are none of Failed and Slow.
	Stalled int64
	Why     map[string]int64 // of those that failed
	// Late is the longest that this program itself was not run when it was due: the machine had too much to do, and what
	// took long then says nothing of the cluster.
	Late    time.Duration
	latency *hdr.Histogram // of those that were served, in microseconds
}

func newCounts() *Counts {
	return &Counts{Why: make(map[string]int64), latency: hdr.New(1, time.Minute.Microseconds(), 2)}
}

func (c *Counts) add(o *Counts) {
	c.Requests += o.Requests
	c.Failed += o.Failed
	c.Slow += o.Slow
	c.Stalled += o.Stalled
	for why, n := range o.Why {
		c.Why[why] += n
	}
	c.Late = max(c.Late, o.Late)
	c.latency.Merge(o.latency)
}

// Good is the share of requests that were served within a second, 1 where there were none.
func (c *Counts) Good() float64 {
	if c.Requests == 0 {
		return 1
	}
	return 1 - float64(c.Failed+c.Slow)/float64(c.Requests)
}

// P99 is the latency that 99 of 100 requests that were served did not exceed.
func (c *Counts) P99() time.Duration {
	return time.Duration(c.latency.ValueAtQuantile(99)) * time.Microsecond
}

// String is a line for people.
func (c *Counts) String() string {
	s := fmt.Sprintf("%d requests, p50 %.1f ms, p99 %.1f ms, longest %.0f ms", c.Requests,
		float64(c.latency.ValueAtQuantile(50))/1000, float64(c.latency.ValueAtQuantile(99))/1000, float64(c.latency.Max())/1000)
	if !c.Timely() {
		s += fmt.Sprintf(", THE MACHINE WAS %d ms LATE", c.Late.Milliseconds())
	}
	if c.Stalled > 0 {
		s += fmt.Sprintf(", %d met that", c.Stalled)
	}
	if c.Slow > 0 {
		s += fmt.Sprintf(", %d SLOWER THAN 1 s", c.Slow)
	}
	if c.Failed > 0 {
		s += fmt.Sprintf(", %d FAILED:", c.Failed)
		for _, why := range slices.Sorted(maps.Keys(c.Why)) {
			s += fmt.Sprintf(" %d %s;", c.Why[why], why)
		}
	}
	return s
}

// maxDetails is how many failures of one stretch are printed whole.
const maxDetails = 3

// timeline counts requests, and prints what happened when. Safe for concurrent use.
type timeline struct {
	began time.Time
	out   io.Writer
	pulse *pulse.Pulse

	mu        sync.Mutex
	now       *Counts // since the last line
	total     *Counts
	details   []string
	stretches []Stretch
	fault     *Fault // that the requests since the last line were sent under
	ended     bool   // or after
}

// Stretch is the time between two events of a run.
type Stretch struct {
	// Fault is the one that began or, where Ended, ended before; nil before the first.
	Fault *Fault
	Ended bool
	*Counts
}

func newTimeline(out io.Writer) *timeline {
	return &timeline{began: time.Now(), out: out, pulse: pulse.New(), now: newCounts(), total: newCounts()}
}

// stalled tells of a request that has just ended whether it took longer than a second, and would not have, had the machine not stood
// still meanwhile.
func (t *timeline) stalled(took time.Duration) bool {
	end := time.Now()
	return took > goodTime && took-t.pulse.Lost(end.Add(-took), end) <= goodTime
}

func (t *timeline) served(took time.Duration) {
	stalled := t.stalled(took)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Requests++
	switch {
	case stalled:
		t.now.Stalled++
	case took > goodTime:
		t.now.Slow++
	}
	_ = t.now.latency.RecordValue(min(max(took, time.Microsecond), time.Minute).Microseconds()) // fails only outside of the bounds
}

func (t *timeline) failed(op, why, detail string, took time.Duration) {
	stalled := t.stalled(took)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Requests++
	if stalled {
		t.now.Stalled++
		why += " while the machine stood still"
	} else {
		t.now.Failed++
		t.now.Why[op+" "+why]++
	}
	if len(t.details) < maxDetails {
		t.details = append(t.details, fmt.Sprintf("%s %s after %.0f ms: %.300s", op, why, took.Seconds()*1000, detail))
	}
}

// mark prints a line, and before it what the requests since the last one were answered.
func (t *timeline) mark(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	past := t.now
	t.total.add(past)
	t.stretches = append(t.stretches, Stretch{t.fault, t.ended, past})
	t.now = newCounts()
	if past.Requests > 0 {
		fmt.Fprintf(t.out, "         | %s\n", past)
	}
	for _, d := range t.details {
		fmt.Fprintf(t.out, "         |   %s\n", d)
	}
	t.details = nil
	fmt.Fprintf(t.out, "%7.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

// Timely says whether the machine ran this program in time, so that latencies are the cluster's.
func (c *Counts) Timely() bool { return c.Late <= pulse.Least }

// watch notes how late this program is run, until ctx ends.
func (t *timeline) watch(ctx context.Context) {
	t.pulse.Run(ctx, func(late time.Duration) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.now.Late = max(t.now.Late, late)
	})
}

// turn is mark for the beginning or the end of a fault.
func (t *timeline) turn(f Fault, begins bool) {
	word := "ends   "
	if begins {
		word = "BEGINS "
	}
	t.mark("%s%s", word, f)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault, t.ended = &f, !begins
}

// say prints a line and counts on.
func (t *timeline) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%7.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}
