package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// history is what clients of a set saw: each adds elements by reading, merging and writing back.
type history struct {
	t       *testing.T
	s       *scene
	mu      sync.Mutex
	acked   []string
	refused []string // not applied: must never be seen
	doubts  int
	failed  int // reads
}

// elements returns the union of the siblings' elements.
func elements(set causal.Set) []string {
	var out []string
	for _, s := range set.Siblings {
		out = append(out, strings.Fields(string(s.Value))...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// check holds what a read found against what was known when it began.
func (h *history) check(when string, found, acked []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range acked {
		if !slices.Contains(found, e) {
			h.t.Errorf("%s: %s was acknowledged and is gone; found %v", when, e, found)
		}
	}
	for _, e := range h.refused {
		if slices.Contains(found, e) {
			h.t.Errorf("%s: %s was said never to become visible", when, e)
		}
	}
}

func (h *history) known() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.acked)
}

// client adds elements until it has tried so many.
func (h *history) client(name string, tries int) {
	for i := range tries {
		acked := h.known()
		ctx, cancel := context.WithTimeout(h.s.ctx, 500*time.Millisecond)
		got, err := h.s.co.Get(ctx, GetRequest{Key: []byte(testKey)})
		cancel()
		if err != nil {
			h.mu.Lock()
			h.failed++
			h.mu.Unlock()
			time.Sleep(5 * time.Millisecond) // what fails at once would otherwise fail for all tries
			continue
		}
		found := elements(got.Set)
		h.check(name, found, acked)
		e := fmt.Sprintf("%s%d", name, i)
		value := []byte(strings.Join(append(found, e), " "))
		ctx, cancel = context.WithTimeout(h.s.ctx, 500*time.Millisecond)
		_, err = h.s.co.Put(ctx, PutRequest{Key: []byte(testKey), Value: value, Checksum: record.Checksum(value), Release: h.s.lent(value),
			Context: &causal.Context{Vector: got.Set.Clock}})
		cancel()
		h.mu.Lock()
		var failure *Error
		switch {
		case err == nil:
			h.acked = append(h.acked, e)
		case errors.As(err, &failure) && failure.Outcome == NotApplied:
			h.refused = append(h.refused, e)
		default:
			h.doubts++
		}
		h.mu.Unlock()
	}
}

// faults returns a meddler that misbehaves once in so many requests.
func faults(rnd *rand.Rand, rarity int) func(r *storagev1.Request) *meddling {
	refusals := []storagev1.Status{storagev1.Status_STATUS_OVERLOADED, storagev1.Status_STATUS_UNAVAILABLE, storagev1.Status_STATUS_EXPIRED,
		storagev1.Status_STATUS_DISK_FULL, storagev1.Status_STATUS_FAILED}
	return func(r *storagev1.Request) *meddling {
		if rnd.IntN(rarity) > 0 {
			return &meddling{twice: rnd.IntN(4) == 0, extra: time.Duration(rnd.IntN(3000)) * time.Microsecond}
		}
		switch rnd.IntN(7) {
		case 0, 1:
			return &meddling{refuse: refusals[rnd.IntN(len(refusals))]}
		case 2:
			return &meddling{notSent: true}
		case 3:
			return &meddling{loseReply: true, awayFor: time.Duration(rnd.IntN(50)+1) * time.Millisecond}
		case 4:
			return &meddling{undurable: r.Op == storagev1.Op_OP_MINT}
		case 5:
			return &meddling{damage: r.Op == storagev1.Op_OP_READ}
		default:
			return &meddling{extra: time.Duration(rnd.IntN(100)) * time.Millisecond}
		}
	}
}

// changeLayout takes a layout change through its steps, while clients write.
func (s *scene) changeLayout(change ring.Change) {
	v := s.view.Clone()
	base := v.Settled()
	l := propose(s.t, v, change)
	required := v.Required(l)
	step := func(mark func(ring.LayoutID, ring.NodeID), do func(n *fakeNode)) {
		for _, id := range required {
			time.Sleep(7 * time.Millisecond)
			s.lock(func() {
				do(s.nodes[id])
				next := s.told.Clone()
				mark(l.ID(), id)
				if _, err := next.Merge(v); err != nil {
					s.t.Error(err)
				}
				s.told = next
			})
		}
	}
	s.lock(func() { s.told = v.Clone() })
	step(v.MarkAcked, func(n *fakeNode) { n.fence.Acked = l.ID() })
	step(v.MarkSynced, func(n *fakeNode) {
		if !l.Owns(n.id, s.slot()) {
			return
		}
		// N-W+1 of the owners before; which ones may well be those that missed something.
		sources := base.Primaries(s.slot())
		need := len(sources) - 2 + 1
		if base.Owns(n.id, s.slot()) {
			need--
		}
		for _, from := range sources {
			if from != n.id && need > 0 {
				need--
				if rec, ok := s.nodes[from].records[testKey]; ok {
					n.merge([]byte(testKey), rec)
				}
			}
		}
	})
	step(v.MarkSwitched, func(n *fakeNode) { n.fence.ReadEpoch = l.ID().Epoch })
}

// TestHistories: concurrent clients over faulty nodes and changing layouts lose nothing that was acknowledged, and see
// nothing that was refused.
func TestHistories(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 20
	}
	acked, refused, doubts, failed := 0, 0, 0, 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			c := newCluster(t, 5, 3, 2)
			c.rand, c.told = rnd, c.view.Clone()
			co, err := New(DefaultConfig(), c)
			if err != nil {
				t.Fatal(err)
			}
			co.buffers = &poisoned{}
			s := &scene{c, co, t.Context()}
			for _, n := range c.order {
				n.meddle = faults(rnd, 6)
			}
			h := &history{t: t, s: s}
			var running sync.WaitGroup
			for i := range 4 {
				running.Go(func() { h.client(string(rune('p'+i)), 12) })
			}
			if seed%2 == 1 {
				leaver := c.owners(testKey)[seed/2%3].id
				running.Go(func() {
					time.Sleep(20 * time.Millisecond)
					s.changeLayout(ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: leaver}})
				})
			}
			running.Wait()
			time.Sleep(10 * time.Second) // all that is under way arrives
			c.lock(func() {
				for _, n := range c.order {
					n.meddle, n.connected = nil, true
				}
			})
			got, err := co.Get(s.ctx, GetRequest{Key: []byte(testKey), R: All})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			h.check(fmt.Sprintf("seed %d, at the end", seed), elements(got.Set), h.acked)
			acked, refused, doubts, failed = acked+len(h.acked), refused+len(h.refused), doubts+h.doubts, failed+h.failed
		})
	}
	t.Logf("%d acknowledged, %d not applied, %d in doubt, %d reads failed", acked, refused, doubts, failed)
	if acked < int(seeds)*20 || refused == 0 || doubts == 0 {
		t.Fatalf("too little happened: %d acknowledged, %d not applied, %d in doubt, %d reads failed", acked, refused, doubts, failed)
	}
}
