package layout

import (
	"context"
	"sync"
	"time"

	"github.com/dotring/dotring/storagenode/internal/scrub"
	"github.com/dotring/dotring/storagenode/transfer"
)

const (
	// busyFrom is how full the queues of clients' requests may be for more than transfer.LeastShare of the rate. Where there
	// is no rate, every piece waits for yieldPause instead.
	busyFrom   = 0.1
	yieldPause = 20 * time.Millisecond
	// yieldMost bounds how long one piece makes way for clients' writes where the rate is low, so that what was decided for it does
	// not hold long after it has ceased to be right.
	yieldMost = 500 * time.Millisecond
)

// Throttle keeps what moves between nodes to a rate, and gives way to clients: to their queues, and to what their writes take
// (see transfer.Yield). Safe for concurrent use.
type Throttle struct {
	pressure func() float64         // of clients' requests, 0 to 1
	served   func() transfer.Served // clients' writes so far; nil: not known

	rate float64 // bytes a second, 0 for none

	mu    sync.Mutex
	pace  *scrub.Pace // nil: no rate
	yield transfer.Yield
}

// NewThrottle needs the rate in bytes a second, 0 for none; how full the queues of clients' requests are, 0 to 1; and what their
// writes took so far. Either may be nil where it is not known.
func NewThrottle(rate int64, pressure func() float64, served func() transfer.Served) *Throttle {
	t := &Throttle{pressure: pressure, served: served, rate: float64(rate)}
	if rate > 0 {
		pace := scrub.NewPace(rate)
		t.pace = &pace
	}
	return t
}

// Wait waits until so many bytes more may be taken in, or ctx ends.
func (t *Throttle) Wait(ctx context.Context, bytes int) {
	if wait := t.pause(time.Now(), bytes); wait > 0 {
		pause(ctx, wait)
	}
}

func (t *Throttle) pause(now time.Time, bytes int) time.Duration {
	busy, share := t.pressure != nil && t.pressure() > busyFrom, 1.0
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.served != nil {
		share = max(t.yield.Share(now, t.served()), min(1, float64(bytes)/(t.rate*yieldMost.Seconds())))
	}
	if busy {
		share = transfer.LeastShare
	}
	switch {
	case t.pace != nil:
		return t.pace.Take(int(float64(bytes)/share), now, false)
	case busy: // and without a rate there is none to take a part of
		return yieldPause
	}
	return 0
}

// Idle takes note of how long clients' writes take while nothing moves. It is to be called again and again then.
func (t *Throttle) Idle(now time.Time) {
	if t.served == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.yield.Idle(now, t.served())
}
