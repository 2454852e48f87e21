// Package limit decides how many operations may be under way at once, and how long a client that is refused has to wait
// before it is heard again.
//
// The limit is found as TCP Vegas finds a window (Brakmo and Peterson, "TCP Vegas: End to End Congestion Avoidance on a
// Global Internet", 1995): by the delay that the work itself shows, and not by losses. Where operations take longer than
// they should, fewer are let in, since what is let in beyond capacity only waits; where they are quick and the limit is in
// use, it grows. By Little's law it settles at what the cluster serves within the target time.
//
// Nothing here reads a clock: times are readings of a monotonic clock, as the time since some start.
package limit

import (
	"errors"
	"fmt"
	"time"
)

// Config tunes a Limit.
type Config struct {
	// Min and Max bound the limit; Initial is where it begins. 1 <= Min <= Initial <= Max.
	Min, Max, Initial int
	// Target is the median time of an operation that is worth waiting for; above 0.
	Target time.Duration
	// Tolerance is how many times its unloaded time an operation may take where that is more than Target; at least 1.
	Tolerance float64
}

// Default is for operations of a cluster whose clients wait 2 s by default: a twentieth of that. With Min under way at
// once even a cluster that serves only a thousand operations a second answers in about a quarter of a second.
func Default() Config {
	return Config{Min: 256, Max: 4096, Initial: 1024, Target: 100 * time.Millisecond, Tolerance: 8}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.Min < 1 || c.Min > c.Initial || c.Initial > c.Max {
		faults = append(faults, fmt.Errorf("limit: not 1 <= Min %d <= Initial %d <= Max %d", c.Min, c.Initial, c.Max))
	}
	if c.Target <= 0 {
		faults = append(faults, fmt.Errorf("limit: Target %v is not above 0", c.Target))
	}
	if c.Tolerance < 1 {
		faults = append(faults, fmt.Errorf("limit: Tolerance %v is below 1", c.Tolerance))
	}
	return errors.Join(faults...)
}

// Window is what was seen of operations for a while, a tenth of a second or more.
type Window struct {
	// Median is how long an operation took, of those that ended.
	Median time.Duration
	// Ended is how many did; Overloaded of them found replicas or queues full.
	Ended, Overloaded int
	// Peak is the most that were under way at once.
	Peak int
	// Refused is how many the limit kept out.
	Refused int
}

const (
	// MinEnded is how many operations must have ended for their median to say something. A window with fewer is better
	// gathered on.
	MinEnded = 16
	// shrink is the most a limit loses in a window: what is under way was let in under the old limit, so that the delay
	// that is seen lags behind.
	shrink = 0.8
	// grow is what a limit gains in a window in which it kept operations out that would have been quick.
	grow = 1.1
	// calm is the share of the target below which the limit may grow; between it and the target it holds.
	calm = 0.8
	// overloadedShare is the share of operations that found queues full from which there are too many.
	overloadedShare = 0.02
	// fewShare is the part of Min that may be under way for an operation to count as unloaded.
	fewShare = 8
	// baseWeight is the weight of a new unloaded time in the running mean.
	baseWeight = 0.2
)

// Limit is a limit that adapts. It is a plain value, not safe for concurrent use.
type Limit struct {
	cfg   Config
	limit float64
	base  time.Duration // of an operation when few are under way; 0: not known yet
}

// New returns a limit at cfg.Initial. cfg must be valid.
func New(cfg Config) Limit { return Limit{cfg: cfg, limit: float64(cfg.Initial)} }

// Now returns the limit.
func (l *Limit) Now() int { return int(l.limit) }

// Target returns the time that operations should not exceed, as known now.
func (l *Limit) Target() time.Duration {
	return max(l.cfg.Target, time.Duration(l.cfg.Tolerance*float64(l.base)))
}

// Next takes in a window and returns the limit for the next.
func (l *Limit) Next(w Window) int {
	if w.Ended < MinEnded {
		return l.Now()
	}
	if w.Peak <= max(1, l.cfg.Min/fewShare) {
		l.learn(w.Median)
	}
	target := l.Target()
	inUse := w.Refused > 0 || float64(w.Peak) >= calm*l.limit
	switch {
	case float64(w.Overloaded) > overloadedShare*float64(w.Ended):
		l.cut(w, shrink)
	case w.Median > target:
		l.cut(w, max(shrink, float64(target)/float64(w.Median)))
	case inUse && float64(w.Median) < calm*float64(target):
		l.limit = min(float64(l.cfg.Max), l.limit*grow+1)
	}
	return l.Now()
}

// learn takes in the time of operations that did not have to wait for one another.
func (l *Limit) learn(unloaded time.Duration) {
	if l.base == 0 {
		l.base = unloaded
		return
	}
	l.base += time.Duration(baseWeight * float64(unloaded-l.base))
}

// cut lowers the limit to a part of what was under way, but to no less than that part of itself: what was never in use
// can be taken back at once only as far as it is not needed.
func (l *Limit) cut(w Window, part float64) {
	l.limit = max(float64(l.cfg.Min), part*min(l.limit, max(float64(w.Peak), shrink*l.limit)))
}
