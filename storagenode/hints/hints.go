// Package hints decides on hints, the records that a fallback keeps for owners that were away: which are taken in, whom
// each goes to, when it may leave, and at what pace. It is pure: time, loads and answers come in as arguments.
package hints

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

// ErrFull refuses a hint: the node keeps as many as it may, or has kept some for the same target for too long.
var ErrFull = errors.New("hints: no room")

// Limits bound what a node takes in. They never make it drop a hint that it has.
type Limits struct {
	// BytesMax bounds keys and records of all hints, in bytes; 0 for no bound.
	BytesMax int64
	// AgeMax is how long hints may have been kept for one target without a break; 0 for no bound. A target that was
	// away longer gets the rest by comparison with the other owners.
	AgeMax time.Duration
	// TargetsMax bounds the nodes that hints are kept for; 0 for no bound.
	TargetsMax int
}

// Validate says which limit is negative.
func (l Limits) Validate() error {
	if l.BytesMax < 0 || l.AgeMax < 0 || l.TargetsMax < 0 {
		return errors.New("hints: a limit is negative")
	}
	return nil
}

// Load is what a node keeps at a moment, what is on its way to the disk included.
type Load struct {
	Bytes   int64
	Targets int
	// Since is when the oldest hint of the target at hand came, zero where there is none.
	Since time.Time
}

// Admit says with ErrFull, wrapped, that a hint that adds so many bytes must be refused. What adds none (a hint that
// replaces a larger one) is held to the age alone.
func (l Limits) Admit(now time.Time, load Load, add int64) error {
	switch {
	case l.BytesMax > 0 && add > 0 && load.Bytes+add > l.BytesMax:
		return fmt.Errorf("%w: %d bytes are kept, %d are the most", ErrFull, load.Bytes, l.BytesMax)
	case l.TargetsMax > 0 && load.Since.IsZero() && load.Targets >= l.TargetsMax:
		return fmt.Errorf("%w: hints for %d nodes are kept", ErrFull, load.Targets)
	case l.AgeMax > 0 && !load.Since.IsZero() && now.Sub(load.Since) > l.AgeMax:
		return fmt.Errorf("%w: hints for this node have been kept since %s", ErrFull, load.Since.UTC().Format(time.RFC3339))
	}
	return nil
}

// Route says who must have a hint's record before the hint may leave: of each group so many. Each node counts once in
// each group that it is in.
type Route struct {
	Groups []Group
	// Rerouted says that the target alone does not suffice any more.
	Rerouted bool
}

// Group is a set of nodes of which Need must confirm.
type Group struct {
	Nodes []ring.NodeID // shared, not to be modified
	Need  int
}

// RouteOf says where a hint for target belongs under the live layouts, of which there is at least one. While target
// owns the slot in all of them, the record is its own to confirm. Else the preference list has moved on, and in each
// layout as many owners must confirm as a write needs there.
func RouteOf(live []*ring.Layout, target ring.NodeID, slot ring.Slot) Route {
	owner := true
	for _, l := range live {
		owner = owner && l.Owns(target, slot)
	}
	if owner {
		return Route{Groups: []Group{{Nodes: []ring.NodeID{target}, Need: 1}}}
	}
	r := Route{Rerouted: true}
	for _, l := range live {
		r.Groups = append(r.Groups, Group{Nodes: l.Primaries(slot), Need: l.EffectiveW(l.MinW())})
	}
	return r
}

// To appends every node that the record goes to, each once.
func (r Route) To(dst []ring.NodeID) []ring.NodeID {
	for _, g := range r.Groups {
		for _, id := range g.Nodes {
			if !slices.Contains(dst, id) {
				dst = append(dst, id)
			}
		}
	}
	return dst
}

// Confirmed says whether the hint may leave, given the nodes that hold a record durably that covers it; each may be
// named more than once.
func (r Route) Confirmed(by []ring.NodeID) bool {
	if len(r.Groups) == 0 {
		return false
	}
	for _, g := range r.Groups {
		n := 0
		for i, id := range g.Nodes {
			if slices.Contains(by, id) && !slices.Contains(g.Nodes[:i], id) {
				n++
			}
		}
		if n < g.Need {
			return false
		}
	}
	return true
}

// Bounds of one delivery. A larger record travels alone.
const (
	BatchBytes   = 256 << 10
	BatchRecords = 1024
)

// Fits says whether a delivery that holds so many records and bytes takes one more.
func Fits(records, bytes, more int) bool {
	return records == 0 || records < BatchRecords && bytes+more <= BatchBytes
}

const (
	// pauseFrom is the pressure above which a receiver slows its senders down; from pauseFull on they wait PauseMax.
	pauseFrom, pauseFull = 0.05, 0.5
	// PauseMax is the longest pause a receiver asks for, and the longest that a sender honours.
	PauseMax = time.Second
)

// PauseFor is how long a receiver wants its senders to wait when its queues are filled to this share, 0 to 1: hints yield
// to clients.
func PauseFor(pressure float64) time.Duration {
	if !(pressure > pauseFrom) { // also for NaN
		return 0
	}
	share := min((pressure-pauseFrom)/(pauseFull-pauseFrom), 1)
	return time.Duration(share * float64(PauseMax))
}

// Backoff of passes that failed.
const (
	RetryMin = 100 * time.Millisecond
	RetryMax = 30 * time.Second
)

// Target is what is known of a node that hints are kept for.
type Target struct {
	Count int64 // hints that are kept
	Alive bool  // it can be reached
	Gone  bool  // no live layout has it
	// Layouts is a number that differs between different sets of live layouts.
	Layouts uint64
}

// Pass says what a pass over a target's hints is to deliver.
type Pass int

const (
	// Wait is to do nothing now.
	Wait Pass = iota
	// Moved is to deliver only the hints that belong to others by now: the target cannot be reached.
	Moved
	// All is to deliver every hint.
	All
)

// Pacer decides when the hints for one target are passed over. The zero value is ready. Not safe for concurrent use.
type Pacer struct {
	failures int
	next     time.Time
	alive    bool
	moved    uint64 // Layouts under which no hint for the unreachable target belonged to others
}

// Next says what to do now.
func (p *Pacer) Next(now time.Time, t Target) Pass {
	if t.Alive && !p.alive {
		p.failures, p.next = 0, time.Time{} // it is back: earlier failures say nothing
	}
	p.alive = t.Alive
	switch {
	case t.Count <= 0 || now.Before(p.next):
		return Wait
	case t.Alive || t.Gone:
		return All
	case p.moved != t.Layouts:
		return Moved
	}
	return Wait
}

// Passed takes note of how a pass ended: whether every hint that it had to deliver was confirmed.
func (p *Pacer) Passed(now time.Time, kind Pass, t Target, complete bool) {
	if !complete {
		p.next = now.Add(min(RetryMin<<min(p.failures, 16), RetryMax))
		p.failures++
		return
	}
	p.failures, p.next = 0, time.Time{}
	if kind == Moved {
		p.moved = t.Layouts
	}
}
