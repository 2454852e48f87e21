package phi

import "time"

// Pause is a time in which this process did not run: stopped, starved of processor time, or its machine suspended.
type Pause struct{ From, To time.Duration }

// Length returns how long the pause was.
func (p Pause) Length() time.Duration { return p.To - p.From }

// Guard notices that the process itself did not run for a while, in which no peer could have been heard. Its owner calls
// Tick at a steady pace, twice per Config.SelfPause or more often, and always before it asks detectors for their
// verdict; after a pause it hands the Pause to Forgive of every Detector. A Guard is not safe for concurrent use.
type Guard struct {
	limit   time.Duration
	started bool
	last    time.Duration
}

// NewGuard returns a guard that takes gaps above cfg.SelfPause for pauses.
func NewGuard(cfg Config) *Guard { return &Guard{limit: cfg.withDefaults().SelfPause} }

// Tick records that the process runs at now. It tells whether it did not run since the last Tick, and for how long.
func (g *Guard) Tick(now time.Duration) (paused bool, pause Pause) {
	if !g.started {
		g.started, g.last = true, now
		return false, Pause{}
	}
	if now <= g.last {
		return false, Pause{}
	}
	p := Pause{From: g.last, To: now}
	g.last = now
	if p.Length() <= g.limit {
		return false, Pause{}
	}
	return true, p
}
