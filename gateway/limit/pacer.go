package limit

import "time"

const (
	// MaxHold is the longest that a refused connection waits: as long as Retry-After asks its client to.
	MaxHold = time.Second
	// pacerWindow is how often the pace is measured anew.
	pacerWindow = 100 * time.Millisecond
	// pacerBurst is for how long refusals may come ahead of the pace.
	pacerBurst = 100 * time.Millisecond
	// MinPace is the slowest pace, in refusals a second: they take a gateway about a tenth of a processor.
	MinPace = 4000
)

// Pacer holds refused connections back, so that refusing never costs more than a fixed part of serving: refusals go on at
// the pace at which operations are served, or at MinPace, and the rest waits, unread, up to MaxHold. Without it, clients that come back at
// once can use up a gateway's processors with requests that it refuses. It is a plain value, not safe for concurrent use.
type Pacer struct {
	rate   float64 // refusals a second
	since  time.Duration
	served uint64 // at since
	due    time.Duration
}

// Hold returns how long a connection that was refused at now is to wait. served counts all operations served so far.
func (p *Pacer) Hold(now time.Duration, served uint64) time.Duration {
	if span := now - p.since; span >= pacerWindow || p.rate == 0 {
		p.rate = max(MinPace, float64(served-p.served)/max(span, pacerWindow).Seconds())
		p.since, p.served = now, served
	}
	p.due = max(p.due, now) + time.Duration(float64(time.Second)/p.rate)
	hold := p.due - now - pacerBurst
	if hold > MaxHold {
		p.due -= hold - MaxHold
		hold = MaxHold
	}
	return max(hold, 0)
}
