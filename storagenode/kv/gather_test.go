package kv

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dotring/dotring/storagenode/engine/memory"
)

// Who writes alone is never kept waiting. Behind a batch of many, writes come together for GatherFor since it began, or until
// there are enough, and wait no longer.
func TestGather(t *testing.T) {
	const pause = 3 * time.Millisecond
	for _, c := range []struct {
		name         string
		sync         SyncMode
		before, then int // writes of the batch before, and those that come at once behind it
		want         time.Duration
	}{
		{"alone", SyncAlways, 1, 1, 0},
		{"behind few", SyncAlways, gatherFrom - 1, 1, 0},
		{"behind many", SyncAlways, gatherFrom, 1, pause},
		{"nearly enough behind many", SyncAlways, gatherFrom, gatherItems - 1, pause},
		{"enough behind many", SyncAlways, gatherFrom, gatherItems, 0},
		{"no sync to share", SyncNone, gatherFrom, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHooks()
				s := open(t, h.opener(memory.NewStore().Open), func(cfg *Config) {
					cfg.Sync, cfg.GatherFor, cfg.CheckEvery = c.sync, pause, time.Hour
				})
				defer func() {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}()
				send := func(n int) (all []*outcome) {
					for i := range n {
						o := newOutcome(t)
						if _, err := s.Mint(write(fmt.Sprint("k", i), "v"), o.mint); err != nil {
							t.Fatal(err)
						}
						all = append(all, o)
					}
					return all
				}
				end := func(all []*outcome) {
					for _, o := range all {
						if _, err := o.wait(); err != nil {
							t.Fatal(err)
						}
					}
				}
				release := h.hold()
				first := send(1)
				synctest.Wait() // it is a batch by itself, and the next ones come while it is written
				batch := send(c.before)
				release()
				end(append(first, batch...))
				began := time.Now()
				end(send(c.then))
				if took := time.Since(began); took != c.want {
					t.Errorf("%d writes behind a batch of %d took %v, want %v", c.then, c.before, took, c.want)
				}
				// Whoever comes much later finds nobody to wait for.
				time.Sleep(time.Second)
				began = time.Now()
				end(send(1))
				if took := time.Since(began); took != 0 {
					t.Errorf("a write after a pause took %v", took)
				}
			})
		})
	}
}
