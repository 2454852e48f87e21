package access

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/gateway/limit"
)

// EntryLimits bound what the holder of a token may ask of the keys of one gateway; what operates the cluster is not bounded. 0 stands
// for no bound.
type EntryLimits struct {
	// PerSecond is how many operations are let in a second: requests for single keys and pages of keys, and items of batches.
	PerSecond float64 `yaml:"per_second,omitempty"`
	// Burst is how many may come in an instant; where it is 0, as many as in a second.
	Burst int `yaml:"burst,omitempty"`
	// AtOnce is how many requests may be under way, a batch counting as one.
	AtOnce int `yaml:"at_once,omitempty"`
}

// maxAtOnce bounds AtOnce: no gateway has more under way.
const maxAtOnce = 1_000_000

// limits are those of one token, as compiled. The zero value bounds nothing.
type limits struct {
	rate   limit.Rate
	atOnce int64
}

func (l limits) any() bool { return l.rate.Limited() || l.atOnce > 0 }

// compile checks what a file says.
func (e *EntryLimits) compile() (l limits, err error) {
	if e == nil {
		return limits{}, nil
	}
	var faults []error
	switch {
	case e.PerSecond == 0 && e.Burst != 0:
		faults = append(faults, errors.New("limits: a burst is one of per_second, which is missing"))
	case e.PerSecond != 0:
		if l.rate, err = limit.NewRate(e.PerSecond, e.Burst); err != nil {
			faults = append(faults, fmt.Errorf("limits: %w", err))
		}
	}
	if e.AtOnce < 0 || e.AtOnce > maxAtOnce {
		faults = append(faults, fmt.Errorf("limits: at_once %d is not within 1 to %d", e.AtOnce, maxAtOnce))
	}
	l.atOnce = int64(e.AtOnce)
	return l, errors.Join(faults...)
}

// usage is what the holder of one token has taken of its limits. It lives on when the file of rules is read again.
type usage struct {
	start    time.Time
	due      atomic.Int64 // of limit.Rate, since start
	underWay atomic.Int64
	// refused counts refusals by the limit that was met.
	tooFast, tooMany atomic.Uint64
}

// take takes n operations of a rate, in place of as many as were taken before; where it does not, those stay taken.
func (u *usage) take(r limit.Rate, n, before int, now time.Time) (wait time.Duration) {
	for {
		due := u.due.Load()
		next, wait := r.Take(r.GiveBack(time.Duration(due), before), now.Sub(u.start), n)
		if wait > 0 || u.due.CompareAndSwap(due, int64(next)) {
			return wait
		}
	}
}

// atOnceWait is when it makes sense to ask again where too many requests are under way.
const atOnceWait = time.Second

// Enter takes a place among the requests of the holder that are under way, and one operation. Where it returns nil, Leave gives the place
// back; else the error is a *limit.Exceeded. It allocates nothing but the error.
func (p *Principal) Enter(now time.Time) error {
	if p == nil || p.use == nil {
		return nil
	}
	if n := p.use.underWay.Add(1); p.limits.atOnce > 0 && n > p.limits.atOnce {
		p.use.underWay.Add(-1)
		p.use.tooMany.Add(1)
		return &limit.Exceeded{What: fmt.Sprintf("%d requests of this token are under way, as many as may be", p.limits.atOnce), Wait: atOnceWait}
	}
	if err := p.charge(1, 0, now); err != nil {
		p.use.underWay.Add(-1)
		return err
	}
	return nil
}

// Leave gives back the place that an Enter of the same Principal took.
func (p *Principal) Leave() {
	if p != nil && p.use != nil {
		p.use.underWay.Add(-1)
	}
}

// Charge takes n operations, the items of a batch, in place of the one of the request that entered. The error is a *limit.Exceeded, and nothing
// more was taken. More than a burst is let in after a rest.
func (p *Principal) Charge(n int, now time.Time) error {
	if n <= 1 {
		return nil
	}
	return p.charge(n, 1, now)
}

func (p *Principal) charge(n, before int, now time.Time) error {
	if p == nil || p.use == nil || !p.limits.rate.Limited() {
		return nil
	}
	if wait := p.use.take(p.limits.rate, n, before, now); wait > 0 {
		p.use.tooFast.Add(1)
		return &limit.Exceeded{What: fmt.Sprintf("this token asks for more than the %g operations a second that it may", p.limits.rate.PerSecond), Wait: wait}
	}
	return nil
}

// follow gives those tokens their usage that have limits: that of the rules before, which may be nil, where they had one.
func (r *Rules) follow(before *Rules, now time.Time) {
	for hash, p := range r.principals {
		if before != nil {
			if was := before.principals[hash]; was != nil {
				p.use = was.use
			}
		}
		if p.use == nil && p.limits.any() {
			p.use = &usage{start: now}
		}
	}
}
