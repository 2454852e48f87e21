package kv

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dotring/dotring/storagenode/engine/memory"
)

// Who writes alone is never kept waiting. Where many writes come while others are committed, they come together for GatherFor since
// the last batch began, or until there are enough, and wait no longer.
func TestGather(t *testing.T) {
	const commit, pause = time.Millisecond, 3 * time.Millisecond
	for _, c := range []struct {
		name         string
		sync         SyncMode
		idle         time.Duration // that the one before it took longer
		before, then int           // writes of the batch before, and those that come at its end
		want         time.Duration // that the latter take
	}{
		{"alone", SyncAlways, 0, 1, 1, commit},
		{"behind few", SyncAlways, 0, gatherFrom - 1, 1, commit},
		{"behind many", SyncAlways, 0, gatherFrom, 1, pause},
		{"nearly enough behind many", SyncAlways, 0, gatherFrom, gatherItems - 1, pause},
		{"enough behind many", SyncAlways, 0, gatherFrom, gatherItems, commit},
		{"behind many that came slowly", SyncAlways, commit, gatherFrom, 1, commit},
		{"behind twice as many in the same time", SyncAlways, commit, 2 * gatherFrom, 1, pause},
		{"no sync to share", SyncNone, 0, gatherFrom, 1, commit},
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
				took := func(all []*outcome) time.Duration {
					began := time.Now()
					for _, o := range all {
						if _, err := o.wait(); err != nil {
							t.Fatal(err)
						}
					}
					return time.Since(began)
				}
				h.set(func(h *hooks) { h.takes = c.idle + commit })
				first := send(1)
				synctest.Wait() // it is a batch by itself, and the next ones come while it is written
				h.set(func(h *hooks) { h.takes = commit })
				took(append(first, send(c.before)...))
				if d := took(send(c.then)); d != c.want {
					t.Errorf("%d writes behind a batch of %d took %v, want %v", c.then, c.before, d, c.want)
				}
				// Whoever comes much later finds nobody to wait for.
				time.Sleep(time.Second)
				if d := took(send(1)); d != commit {
					t.Errorf("a write after a pause took %v", d)
				}
			})
		})
	}
}
