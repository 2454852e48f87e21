package layout

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dotring/dotring/storagenode/transfer"
)

// Pulls keep to their rate together, and give way to clients.
func TestPullsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := func(rate int64, pressure float64) time.Duration {
			th := NewThrottle(rate, func() float64 { return pressure }, nil)
			start := time.Now()
			var pulls sync.WaitGroup
			for range 4 {
				pulls.Go(func() {
					for range 25 {
						th.Wait(t.Context(), 1<<20)
					}
				})
			}
			pulls.Wait()
			return time.Since(start)
		}
		if d := took(10<<20, 0); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("100 MiB at 10 MiB a second took %v", d)
		}
		if d := took(10<<20, 0.5); d < 90*time.Second {
			t.Errorf("100 MiB took %v while clients wait", d)
		}
		if d := took(0, 0); d != 0 {
			t.Errorf("without a rate it took %v", d)
		}
		if d := took(0, 0.5); d == 0 {
			t.Error("clients are not given way without a rate")
		}
	})
}

// Pulls take what leaves clients' writes quick, and all of their rate where there are none.
func TestPullsGiveWayToWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const piece = 64 << 10
		var served transfer.Served
		spare := float64(100 << 20) // how many bytes a second can be pulled without making writes slow
		th := NewThrottle(10<<20, nil, func() transfer.Served { return served })
		last := time.Now()
		write := func(bytes int) { // 100 a second since the last time
			each, took := time.Millisecond, time.Since(last)
			if float64(bytes) > spare*took.Seconds() {
				each = 5 * time.Millisecond
			}
			n := took / (10 * time.Millisecond)
			served.Writes, served.Took, last = served.Writes+uint64(n), served.Took+n*each, last.Add(n*10*time.Millisecond)
		}
		for range 10 {
			time.Sleep(time.Second)
			write(0)
			th.Idle(time.Now())
		}
		pull := func(mib int, clients bool) time.Duration {
			start := time.Now()
			for pulled := 0; pulled < mib<<20; {
				before := pulled
				for at := time.Now(); time.Since(at) < 100*time.Millisecond; pulled += piece {
					th.Wait(t.Context(), piece)
				}
				if clients {
					write(pulled - before)
				}
			}
			return time.Since(start)
		}
		if d := pull(100, true); d > 14*time.Second {
			t.Errorf("100 MiB at 10 MiB a second took %v though writes stay quick", d)
		}
		spare = 3 << 20
		if d := pull(20, true); d < 5*time.Second || d > 20*time.Second {
			t.Errorf("20 MiB took %v where writes are slow beside more than 3 MiB a second", d)
		}
		if d := pull(100, false); d > 12*time.Second {
			t.Errorf("100 MiB took %v without clients", d)
		}
	})
}
