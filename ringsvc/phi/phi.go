// Package phi holds the phi accrual failure detector that steers requests away from peers that stopped answering.
//
// It follows Hayashibara, Défago, Yared and Katayama, "The φ Accrual Failure Detector" (2004): the intervals between
// signs of life are taken as normally distributed, and phi is minus the decimal logarithm of the chance that a silence
// at least as long as the present one is mere lateness. Phi 1 convicts wrongly once in ten, phi 8 once in a hundred
// million. The acceptable pause and the rule not to learn from outages follow the detector of Akka; the tail of the
// normal distribution is the logistic approximation of Bowling, Khasawneh, Kaewkuekool and Cho, "A logistic
// approximation to the cumulative normal distribution" (2009).
//
// Nothing here reads a clock: every time is the reading of a monotonic clock, as the time since some arbitrary start
// that must be the same for all calls on one Detector and on the Guard beside it.
package phi

import (
	"math"
	"time"
)

// Config tunes a Detector and a Guard. A field that is zero or negative takes its default.
type Config struct {
	// Window is how many intervals are remembered, 100 by default.
	Window int
	// MinStdDev is the least standard deviation assumed, so that a very regular peer is not convicted for being a
	// little late; 50 ms by default.
	MinStdDev time.Duration
	// AcceptablePause is silence, beyond the usual interval, that raises no suspicion (collection of garbage, a busy
	// disk); 500 ms by default: a peer that beats each 250 ms and stops passes phi 8 after about 1.1 s.
	AcceptablePause time.Duration
	// FirstEstimate is the interval at which an idle peer beats, 250 ms by default. The window starts from it, and
	// the mean never falls below it: other traffic shortens the intervals, but a silence of one beat stays normal.
	FirstEstimate time.Duration
	// Threshold is the phi from which a peer is suspect, 8 by default.
	Threshold float64
	// SelfPause is the gap between two calls of Guard.Tick from which the process counts as having been paused itself;
	// 500 ms by default. It should not be above AcceptablePause: a shorter pause of our own is then covered by that.
	SelfPause time.Duration
}

// withDefaults returns c with every field set.
func (c Config) withDefaults() Config {
	if c.Window <= 0 {
		c.Window = 100
	}
	if c.MinStdDev <= 0 {
		c.MinStdDev = 50 * time.Millisecond
	}
	if c.AcceptablePause <= 0 {
		c.AcceptablePause = 500 * time.Millisecond
	}
	if c.FirstEstimate <= 0 {
		c.FirstEstimate = 250 * time.Millisecond
	}
	if !(c.Threshold > 0) { // also catches NaN
		c.Threshold = 8
	}
	if c.SelfPause <= 0 {
		c.SelfPause = 500 * time.Millisecond
	}
	return c
}

// Detector judges one peer. It is not safe for concurrent use. Its methods do not allocate.
type Detector struct {
	cfg     Config
	started bool          // something was heard, so silence means something
	refused bool          // the peer refused a connection after it was last heard
	last    time.Duration // when it was last heard, moved forward by our own pauses

	window []float64 // the latest intervals in seconds; a ring once full
	next   int       // where the next interval goes
	sum    float64   // of window
	sumSq  float64   // of the squares of window

	mean   float64 // seconds, with the floor and the acceptable pause
	stdDev float64 // seconds, with the floor
}

// New returns a detector that has heard nothing yet. Until the first Heard it suspects nobody, unless the peer refuses:
// whoever starts to watch a peer that may be down already calls Heard once, to start the clock.
func New(cfg Config) *Detector {
	d := &Detector{cfg: cfg.withDefaults()}
	d.window = make([]float64, 0, d.cfg.Window)
	// Two samples a quarter to either side of the estimate, so that the first intervals meet a plausible spread.
	first := d.cfg.FirstEstimate.Seconds()
	d.learn(first * 3 / 4)
	d.learn(first * 5 / 4)
	d.estimate()
	return d
}

// Heard records a sign of life: a heartbeat, an answer, any traffic. It clears what Refused said. A time before that of
// an earlier call is no new interval.
func (d *Detector) Heard(now time.Duration) {
	if d.started && now > d.last {
		// What ends an outage says nothing about how the peer beats, and would blind the detector to the next one.
		if d.Phi(now) < d.cfg.Threshold {
			d.learn((now - d.last).Seconds())
			d.estimate()
		}
	}
	d.refused = false
	if !d.started || now > d.last {
		d.last = now
	}
	d.started = true
}

// Refused records that the peer's machine answered but nothing listens there (connection refused): the peer is suspect
// from now until it is heard again. A refusal older than the last sign of life says nothing.
func (d *Detector) Refused(now time.Duration) {
	if d.started && now < d.last {
		return
	}
	d.refused = true
}

// Phi returns the suspicion at now: 0 or more, always finite, growing with the silence. It is at least the threshold
// after Refused.
func (d *Detector) Phi(now time.Duration) float64 {
	var phi float64
	if d.started && now > d.last {
		phi = tail(((now - d.last).Seconds() - d.mean) / d.stdDev)
	}
	if d.refused && phi < d.cfg.Threshold {
		return d.cfg.Threshold
	}
	return phi
}

// Suspect tells whether Phi has reached the threshold.
func (d *Detector) Suspect(now time.Duration) bool { return d.Phi(now) >= d.cfg.Threshold }

// Forgive takes the part of the present silence that fell into a pause of this process off the account, and does
// nothing if the peer was heard after the pause.
func (d *Detector) Forgive(p Pause) {
	if !d.started || d.last >= p.To {
		return
	}
	if d.last < p.From {
		d.last += p.To - p.From
		return
	}
	d.last = p.To
}

// learn adds one interval of so many seconds, in place of the oldest when the window is full.
func (d *Detector) learn(seconds float64) {
	if len(d.window) < cap(d.window) {
		d.window = append(d.window, seconds)
		d.sum += seconds
		d.sumSq += seconds * seconds
		return
	}
	old := d.window[d.next]
	d.window[d.next] = seconds
	d.next++
	if d.next < len(d.window) {
		d.sum += seconds - old
		d.sumSq += seconds*seconds - old*old
		return
	}
	// Once per round the sums are taken anew, so that rounding errors do not pile up over months.
	d.next, d.sum, d.sumSq = 0, 0, 0
	for _, s := range d.window {
		d.sum += s
		d.sumSq += s * s
	}
}

// estimate derives mean and deviation from the sums, with their floors.
func (d *Detector) estimate() {
	n := float64(len(d.window))
	mean := d.sum / n
	d.stdDev = max(math.Sqrt(max(d.sumSq/n-mean*mean, 0)), d.cfg.MinStdDev.Seconds())
	d.mean = max(mean, d.cfg.FirstEstimate.Seconds()) + d.cfg.AcceptablePause.Seconds()
}

// tail returns -log10 of the chance that a standard normal variable exceeds y, approximated by the logistic function:
// 1 / (1 + e^x) with x = 1.5976 y + 0.070566 y³. Up to 3 it is right within 0.05; beyond it comes out too large, 9.3 for 8. It is written so that
// it neither overflows nor becomes infinite.
func tail(y float64) float64 {
	x := y * (1.5976 + 0.070566*y*y)
	if x > 500 { // e^x dwarfs the 1
		return x / math.Ln10
	}
	return math.Log1p(math.Exp(x)) / math.Ln10
}
