package pulse

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What falls into a gap is lost, whole or in part, and so is a gap that the pulse has not been run to see the end of.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
		p := New()
		p.begin()
		run := func(until int) { // as if this program were run all the time
			for due := p.due; !due.After(at(until)); due = p.due {
				time.Sleep(time.Until(due))
				p.tick(time.Now())
			}
		}
		run(1000)
		time.Sleep(time.Until(at(1520))) // looks at the clock at 1020, and not again
		for _, tc := range []struct{ from, to, want int }{
			{0, 1000, 0}, {0, 1520, 500}, {1100, 1200, 100}, {1500, 1520, 20}, {900, 1120, 100},
		} {
			if got := p.Lost(at(tc.from), at(tc.to)); got != time.Duration(tc.want)*time.Millisecond {
				t.Errorf("before the pulse was run again, of %d to %d are lost: %v", tc.from, tc.to, got)
			}
		}
		if late := p.tick(time.Now()); late != 500*time.Millisecond {
			t.Errorf("late by %v", late)
		}
		run(3000)
		if got := p.Lost(at(0), at(3000)); got != 500*time.Millisecond {
			t.Errorf("lost %v in all", got)
		}
		if got := p.Since(at(0)); got != time.Since(began)-500*time.Millisecond {
			t.Errorf("%v since the beginning, of %v", got, time.Since(began))
		}
		time.Sleep(Every + Least - time.Millisecond) // as late as any busy machine
		p.tick(time.Now())
		if got := p.Lost(at(0), time.Now()); got != 500*time.Millisecond {
			t.Errorf("lost %v after a lateness that counts for nothing", got)
		}
	})
}

// However many gaps there are, only so many are kept, and those are the latest.
func TestGapsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		p.begin()
		for range 2*kept + 1 {
			time.Sleep(Every + Least)
			p.tick(time.Now())
		}
		if len(p.gaps) != kept {
			t.Fatalf("%d gaps are kept", len(p.gaps))
		}
		now := time.Now()
		if got := p.Lost(now.Add(-100*(Every+Least)), now); got != 100*Least {
			t.Errorf("of the last hundred, %v are lost", got)
		}
	})
}

// Run is never late where it is run, ends with its context, and tells its lateness.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p, told := New(), 0
		var running sync.WaitGroup
		running.Go(func() {
			p.Run(ctx, func(late time.Duration) {
				if told++; late != 0 {
					t.Errorf("late by %v", late)
				}
			})
		})
		began := time.Now()
		time.Sleep(time.Second + time.Millisecond)
		cancel()
		running.Wait()
		time.Sleep(time.Minute) // is no gap of a pulse that does not run
		if p.Lost(began, time.Now()) != 0 || told != 50 {
			t.Errorf("%v are lost, %d times told", p.Lost(began, time.Now()), told)
		}
	})
}
