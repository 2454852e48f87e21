package chaos

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A request that is slow, or meets its deadline, is the cluster's fault unless the machine stood still for so long that the rest is
// less than a second. What fails at once is the cluster's fault in any case.
func TestStandstillsAreNoFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline(io.Discard)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var watcher sync.WaitGroup
		var still atomic.Bool
		watcher.Go(func() {
			tl.pulse.Run(ctx, func(late time.Duration) {
				tl.mu.Lock()
				tl.now.Late = max(tl.now.Late, late)
				tl.mu.Unlock()
				if still.Swap(false) {
					time.Sleep(1200 * time.Millisecond) // as if this program were not run
				}
			})
		})
		time.Sleep(3 * time.Second)
		tl.served(1100 * time.Millisecond)
		tl.failed("put", "504 deadline-passed", "", 2*time.Second)
		tl.mark("the machine was never late")
		if got := tl.stretches[0]; got.Requests != 2 || got.Slow != 1 || got.Failed != 1 || got.Stalled != 0 || !got.Timely() {
			t.Errorf("of a machine that is never late: %s", got)
		}
		still.Store(true)
		time.Sleep(1300 * time.Millisecond)
		tl.served(1300 * time.Millisecond) // before the pulse knows that it was late, or after
		tl.failed("put", "504 deadline-passed", "", 2*time.Second)
		tl.served(2300 * time.Millisecond)
		tl.failed("put", "504 deadline-passed", "", 2300*time.Millisecond)
		tl.failed("put", "503 quorum-impossible", "", 5*time.Millisecond)
		tl.mark("the machine stood still")
		got := tl.stretches[1]
		if got.Requests != 5 || got.Slow != 1 || got.Failed != 2 || got.Stalled != 2 || got.Timely() || got.Why["put 504 deadline-passed"] != 1 {
			t.Errorf("of a machine that stood still: %s", got)
		}
		tl.mu.Lock()
		if tl.total.Stalled != 2 {
			t.Errorf("in all: %s", tl.total)
		}
		tl.mu.Unlock()
		cancel()
		watcher.Wait()
	})
}
