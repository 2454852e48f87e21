package leveldb

import (
	"math"
	"sync/atomic"
)

// gate counts users of a resource and lets its owner wait for them: after close no one enters, and close returns when
// the last one left. Unlike a read-write lock, a user that enters twice cannot block behind a waiting close.
type gate struct {
	state atomic.Int64 // number inside; closedBit added once closed
	idle  chan struct{}
}

const closedBit = math.MinInt64

func newGate() *gate { return &gate{idle: make(chan struct{})} }

// enter reports whether the gate was open; if so, leave must follow.
func (g *gate) enter() bool {
	for {
		s := g.state.Load()
		if s < 0 {
			return false
		}
		if g.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

func (g *gate) leave() {
	if g.state.Add(-1) == closedBit {
		close(g.idle)
	}
}

// closed reports whether close was called, which asks those inside to hurry.
func (g *gate) closed() bool { return g.state.Load() < 0 }

// close shuts the gate and waits until it is empty. Further calls wait too.
func (g *gate) close() {
	for {
		s := g.state.Load()
		if s < 0 {
			break
		}
		if g.state.CompareAndSwap(s, s+closedBit) {
			if s == 0 {
				close(g.idle)
			}
			break
		}
	}
	<-g.idle
}
