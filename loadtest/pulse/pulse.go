// Package pulse notes when this program was not run although it was due, because its machine stood still or had too much else
// to do. What took long meanwhile says nothing of those that were waited for.
package pulse

import (
	"context"
	"sync"
	"time"
)

const (
	// Every is how often a Pulse looks at the clock.
	Every = 20 * time.Millisecond
	// Least is the shortest lateness that counts: less is what any busy machine does.
	Least = 50 * time.Millisecond
	// kept is how many gaps are remembered. The oldest are forgotten first.
	kept = 4096
)

type gap struct{ from, to time.Time }

// Pulse notes the gaps in which this program was not run. It is safe for concurrent use.
type Pulse struct {
	mu   sync.Mutex
	due  time.Time // when it is to look at the clock again; zero where it does not run
	gaps []gap     // a ring once full, from next on
	next int
}

// New returns a Pulse that has seen no gap, and sees none before Run is called.
func New() *Pulse { return &Pulse{} }

// Run looks at the clock until ctx ends, once. late, which may be nil, is called in the same goroutine with each lateness, 0 or more.
func (p *Pulse) Run(ctx context.Context, late func(time.Duration)) {
	p.begin()
	defer p.end()
	timer := time.NewTimer(Every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if by := p.tick(time.Now()); late != nil {
			late(by)
		}
		timer.Reset(Every)
	}
}

func (p *Pulse) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Now().Add(Every)
}

func (p *Pulse) end() {
	p.tick(time.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Time{}
}

// tick notes that the program runs now, and returns how late that is.
func (p *Pulse) tick(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	late := max(now.Sub(p.due), 0)
	if late >= Least {
		g := gap{p.due, now}
		if len(p.gaps) < kept {
			p.gaps = append(p.gaps, g)
		} else {
			p.gaps[p.next] = g
			p.next = (p.next + 1) % kept
		}
	}
	p.due = now.Add(Every)
	return late
}

// Lost returns how much of the time from one moment to another, which has passed, fell into gaps. A gap that has only just ended
// counts before the Pulse itself was run.
func (p *Pulse) Lost(from, to time.Time) (sum time.Duration) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(g gap) {
		if g.from.Before(from) {
			g.from = from
		}
		if g.to.After(to) {
			g.to = to
		}
		sum += max(g.to.Sub(g.from), 0)
	}
	for _, g := range p.gaps {
		add(g)
	}
	if !p.due.IsZero() && now.Sub(p.due) >= Least {
		add(gap{p.due, now})
	}
	return sum
}

// Since is how long the program was run since from: the time that passed, without what was lost of it.
func (p *Pulse) Since(from time.Time) time.Duration {
	now := time.Now()
	return now.Sub(from) - p.Lost(from, now)
}
