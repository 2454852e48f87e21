package coordinator

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
)

// TestCoalescedReads: readers of one key share a fetch, and never one that began before they arrived.
func TestCoalescedReads(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		s.lock(func() { s.sent = nil })
		var readers sync.WaitGroup
		for range 100 {
			readers.Go(func() { wantValues(t, s.mustGet(2, nil).Set, "one") })
		}
		readers.Wait()
		if got := testutil.ToFloat64(s.co.metrics.coalesced); len(s.sent) != 4 || got != 98 {
			t.Fatalf("%d calls, %v shared, for 100 readers at once; want one fetch for the first and one for the others", len(s.sent), got)
		}
		s.lock(func() { s.sent = nil })
		s.mustGet(2, nil)
		if len(s.sent) != 2 || len(s.co.flights.shard([]byte(testKey)).keys) != 0 {
			t.Fatalf("a reader alone: %v", s.sent)
		}
	})
}

// TestCoalescingKeepsCausality: a write is acknowledged while a fetch is in flight that was answered before it; a reader
// who comes after the write must see it.
func TestCoalescingKeepsCausality(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		first := s.mustPut("old", nil)
		elapse(time.Second)
		s.lock(func() { // reads take their record at once, and answer long after
			for _, n := range s.order {
				n.delay = 50 * time.Millisecond
			}
		})
		var early sync.WaitGroup
		for range 10 {
			early.Go(func() { wantValues(t, s.mustGet(2, nil).Set, "old") })
		}
		time.Sleep(70 * time.Millisecond) // the nodes have read, and the answers are on their way
		s.lock(func() {
			for _, n := range s.order {
				n.delay = time.Millisecond
			}
		})
		s.mustPut("new", &first.Context)
		wantValues(t, s.mustGet(2, nil).Set, "new")
		early.Wait()
	})
}

// TestCoalescedLeaderWithLittleTime: a reader whose own time is up does not fail those who share its fetch.
func TestCoalescedLeaderWithLittleTime(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		s.co.cfg.CoalesceFor = time.Hour
		s.lock(func() {
			for _, n := range s.order {
				n.delay = 100 * time.Millisecond
			}
		})
		var readers sync.WaitGroup
		readers.Go(func() { wantValues(t, s.mustGet(2, nil).Set, "one") }) // 200 ms
		time.Sleep(10 * time.Millisecond)
		var failed, fine int
		var mu sync.Mutex
		for i := range 20 {
			readers.Go(func() {
				timeout := 2 * time.Second
				if i%2 == 0 {
					timeout = time.Duration(195+10*i) * time.Millisecond // some end before the shared fetch starts, some within
				}
				ctx, cancel := context.WithTimeout(s.ctx, timeout)
				defer cancel()
				res, err := s.co.Get(ctx, GetRequest{Key: []byte(testKey), R: 2})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed++
					if i%2 == 1 {
						t.Errorf("a reader with time left failed: %v", err)
					}
					return
				}
				fine++
				wantValues(t, res.Set, "one")
			})
		}
		readers.Wait()
		if fine < 10 || failed == 0 || len(s.co.flights.shard([]byte(testKey)).keys) != 0 {
			t.Fatalf("%d fine, %d failed", fine, failed)
		}
	})
}

// TestCoalescedReadersDoNotWaitForAStuckFetch: one that is in flight too long is not waited for.
func TestCoalescedReadersDoNotWaitForAStuckFetch(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		s.lock(func() {
			for _, n := range s.order {
				n.meddle = func(*storagev1.Request) *meddling { return &meddling{silent: true} }
			}
		})
		var readers sync.WaitGroup
		readers.Go(func() {
			_, err := s.get(2, nil)
			wantError(t, err, DeadlinePassed, None)
		})
		time.Sleep(time.Millisecond)
		s.lock(func() {
			for _, n := range s.order {
				n.meddle = nil
			}
		})
		begin := time.Now()
		wantValues(t, s.mustGet(2, nil).Set, "one")
		if took := time.Since(begin); took > 20*time.Millisecond {
			t.Fatalf("took %s", took)
		}
		readers.Wait()
		if len(s.co.flights.shard([]byte(testKey)).keys) != 0 {
			t.Fatal("a flight was left behind")
		}
	})
}
