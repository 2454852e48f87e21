package limit

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Rate is how many operations are let in: PerSecond in the long run, and Burst in an instant after a rest. The zero Rate lets all
// in.
//
// It is the generic cell rate algorithm (ITU-T I.371): what is remembered of whoever is limited is one time, when what was let in
// will have been paid for.
type Rate struct {
	PerSecond float64
	Burst     int
}

// MinPerSecond, MaxPerSecond and MaxBurst bound a Rate.
const (
	MinPerSecond = 0.001
	MaxPerSecond = 1e6
	MaxBurst     = 1_000_000
)

// NewRate returns a rate whose burst is that of one second, and at least 1, where burst is 0. An error says what is out of bounds.
func NewRate(perSecond float64, burst int) (Rate, error) {
	if !(perSecond >= MinPerSecond && perSecond <= MaxPerSecond) {
		return Rate{}, fmt.Errorf("%v operations a second are not within %v to %.0f", perSecond, MinPerSecond, MaxPerSecond)
	}
	if burst < 0 || burst > MaxBurst {
		return Rate{}, fmt.Errorf("a burst of %d is not within 1 to %d", burst, MaxBurst)
	}
	if burst == 0 {
		burst = int(math.Ceil(perSecond))
	}
	return Rate{PerSecond: perSecond, Burst: burst}, nil
}

// Limited says whether r limits anything.
func (r Rate) Limited() bool { return r.PerSecond > 0 }

// Take asks for n operations at once, n above 0. due is what the Take before returned, 0 the first time. Where wait is 0 they are
// let in, and next is remembered; else they are refused, would be let in after wait, and next is due. More than a burst is let in after a
// rest, and paid for after that: else it would never be.
func (r Rate) Take(due, now time.Duration, n int) (next, wait time.Duration) {
	if !r.Limited() {
		return due, 0
	}
	// In whole nanoseconds, so that what is refused for some time is let in after just that.
	base, room := max(due, now), max(r.cost(r.Burst-n), 0)
	if owed := base - now; owed > room {
		return due, owed - room
	}
	return base + r.cost(n), 0
}

// cost is how long n operations take to be paid for.
func (r Rate) cost(n int) time.Duration {
	return time.Duration(float64(n) * float64(time.Second) / r.PerSecond)
}

// GiveBack returns what due is without n operations that were let in.
func (r Rate) GiveBack(due time.Duration, n int) time.Duration {
	if !r.Limited() {
		return due
	}
	return due - r.cost(n)
}

// ErrExceeded is what an Exceeded is.
var ErrExceeded = errors.New("a limit is exceeded")

// Exceeded is the error of an operation that was refused, before anything was done, since someone asks for more than is let in.
type Exceeded struct {
	// What says which limit, for people.
	What string
	// Wait is after how long it makes sense to ask again; above 0.
	Wait time.Duration
}

func (e *Exceeded) Error() string { return e.What }

// Is says that e is an ErrExceeded.
func (e *Exceeded) Is(target error) bool { return target == ErrExceeded }
