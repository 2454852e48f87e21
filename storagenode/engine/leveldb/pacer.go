package leveldb

import "time"

// burst is how far ahead of its rate a pacer may run after it was idle.
const burst = 50 * time.Millisecond

// minWait keeps a pacer from sleeping for each block; what is not waited for stays due.
const minWait = 5 * time.Millisecond

// pacer decides how long a writer waits to keep to a rate, in bytes per second. It reads no clock and is not safe for
// concurrent use.
type pacer struct {
	rate int64
	// due is when the bytes accepted so far are paid for.
	due time.Time
}

// take accounts for n bytes written at now and returns how long to wait before the next write; 0 without a rate.
func (p *pacer) take(now time.Time, n int) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	if earliest := now.Add(-burst); p.due.Before(earliest) {
		p.due = earliest
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	if wait := p.due.Sub(now); wait >= minWait {
		return wait
	}
	return 0
}

// forgive takes what was accepted by now for paid: it was not held to the rate, and must not be made up for, since
// whoever waits behind it would wait for all of that at once.
func (p *pacer) forgive(now time.Time) {
	if p.due.After(now) {
		p.due = now
	}
}
