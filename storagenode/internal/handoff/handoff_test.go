package handoff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine/memory"
	"github.com/dotring/dotring/storagenode/hints"
	"github.com/dotring/dotring/storagenode/kv"
)

// world is a few stores, one of which keeps hints for the others, in a synctest bubble.
type world struct {
	t    *testing.T
	self ring.NodeID
	log  bytes.Buffer // read only when nothing runs

	mu      sync.Mutex
	view    *ring.View
	state   State
	changed chan struct{}
	stores  map[ring.NodeID]*kv.Store
	pause   time.Duration
	meddle  func(to ring.NodeID, records []*storagev1.PulledRecord) error
	calls   []delivery
	all     []*kv.Store
	stop    func()
}

type delivery struct {
	to      ring.NodeID
	at      time.Time
	records int
	bytes   int
}

func id(i int) ring.NodeID { return ring.NodeID{byte(i + 1)} }

// run plays a cluster of n nodes; the last one has hints to deliver.
func run(t *testing.T, n int, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, self: id(n - 1), changed: make(chan struct{}), stores: map[ring.NodeID]*kv.Store{}}
		founder := ring.Member{ID: id(0), Name: "n", Weight: 1}
		founder.Tokens = ring.RandomTokens(founder.ID, 64, nil)
		w.view = ring.NewView(ring.Found(ring.ClusterID{1}, founder, 3, 2))
		var joins []ring.Change
		for i := 1; i < n; i++ {
			joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: ring.Member{ID: id(i), Name: "n", Weight: 1}})
		}
		w.propose(joins...)
		w.settle()
		for i := range n {
			w.stores[id(i)] = w.open()
		}
		w.setAlive()
		f(w)
		w.stop()
		for _, s := range w.all {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func (w *world) open() *kv.Store {
	cfg := kv.Default()
	cfg.Open = memory.NewStore().Open
	s, err := kv.Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.all = append(w.all, s)
	return s
}

func (w *world) propose(changes ...ring.Change) {
	if _, err := w.view.Propose(changes); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) settle() {
	l := w.view.Newest()
	for _, mark := range []func(ring.LayoutID, ring.NodeID){w.view.MarkAcked, w.view.MarkSynced, w.view.MarkSwitched} {
		for _, n := range w.view.Required(l) {
			mark(l.ID(), n)
		}
	}
}

// setAlive says who lives, besides the node itself, and what the layouts are.
func (w *world) setAlive(ids ...ring.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = State{Live: w.view.Live(), Alive: map[ring.NodeID]string{}}
	for _, n := range ids {
		w.state.Alive[n] = n.String()
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// start runs the replayer.
func (w *world) start() {
	r, err := New(Config{Self: w.self, Store: w.stores[w.self], Peers: w, Logger: zerolog.New(&w.log), Registerer: prometheus.NewRegistry(),
		State: func() (State, <-chan struct{}) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.state, w.changed
		}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		r.Run(ctx)
		close(ended)
	}()
	w.stop = func() {
		cancel()
		<-ended
	}
}

func (w *world) Deliver(_ context.Context, addr string, _ time.Time, records []*storagev1.PulledRecord) ([]storagev1.Status, time.Duration, error) {
	to, err := ring.ParseNodeID(addr)
	if err != nil {
		return nil, 0, err
	}
	w.mu.Lock()
	d := delivery{to: to, at: time.Now(), records: len(records)}
	for _, r := range records {
		d.bytes += len(r.Key) + len(r.Record)
	}
	w.calls = append(w.calls, d)
	store, pause, meddle := w.stores[to], w.pause, w.meddle
	w.mu.Unlock()
	if meddle != nil {
		if err := meddle(to, records); err != nil {
			return nil, 0, err
		}
	}
	out := make([]storagev1.Status, len(records))
	var done sync.WaitGroup
	for i, r := range records {
		done.Add(1)
		if err := store.Apply(r.Key, r.Record, func(_ bool, err error) {
			if err == nil {
				out[i] = storagev1.Status_STATUS_OK
			}
			done.Done()
		}); err != nil {
			done.Done()
		}
	}
	done.Wait()
	return out, pause, nil
}

func rec(key, value string, n uint64) []byte {
	dot := causal.Dot{Actor: causal.Actor{9}, Counter: n}
	return record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{dot}, Siblings: []causal.Sibling{{
		Dot: dot, Checksum: record.Checksum([]byte(value)), Value: []byte(value)}}})
}

// hint stores a hint and waits until it is durable.
func (w *world) hint(key string, r []byte, targets ...ring.NodeID) {
	w.t.Helper()
	done := make(chan error, 1)
	if err := w.stores[w.self].ApplyHint(targets, []byte(key), r, func(err error) { done <- err }); err != nil {
		w.t.Fatal(err)
	}
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
}

// keysOf finds keys that target owns, as often as wanted, and the node itself does not.
func (w *world) keysOf(target ring.NodeID, count int) []string {
	var out []string
	for i := 0; len(out) < count; i++ {
		key := fmt.Sprint("key", i)
		slot := ring.SlotOf([]byte(key))
		if w.view.Settled().Owns(target, slot) && !w.view.Settled().Owns(w.self, slot) {
			out = append(out, key)
		}
	}
	return out
}

func (w *world) left() int64 { return w.stores[w.self].Stats().Hints }

func (w *world) has(n ring.NodeID, key string, want []byte) {
	w.t.Helper()
	if got, err := w.stores[n].Read([]byte(key)); err != nil || !bytes.Equal(got, want) {
		w.t.Errorf("%s of %s: %d bytes, %v", key, n, len(got), err)
	}
}

func (w *world) deliveries() []delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// Hints wait for their node, then reach it in bounded batches and leave.
func TestDeliversWhenTheNodeIsBack(t *testing.T) {
	run(t, 5, func(w *world) {
		gone := id(0)
		value := strings.Repeat("v", 10<<10)
		keys := w.keysOf(gone, 60)
		for i, key := range keys {
			w.hint(key, rec(key, value, uint64(i+1)), gone)
		}
		huge := rec(keys[0], strings.Repeat("h", 1<<20), 1000)
		w.hint(keys[0], huge, gone)
		w.start()
		time.Sleep(time.Minute)
		if calls := w.deliveries(); len(calls) != 0 || w.left() != 60 {
			t.Fatalf("%d deliveries to a node that is away", len(calls))
		}
		w.setAlive(gone)
		synctest.Wait() // at once, not at the next tick
		if w.left() != 0 {
			t.Fatalf("%d hints are left", w.left())
		}
		for i, key := range keys[1:] {
			w.has(gone, key, rec(key, value, uint64(i+2)))
		}
		sum := 0
		for _, d := range w.deliveries() {
			if sum += d.records; d.bytes > hints.BatchBytes && d.records > 1 {
				t.Errorf("a delivery of %d bytes", d.bytes)
			}
		}
		if sum != 60 {
			t.Errorf("%d records were sent for 60 hints", sum)
		}
		if n := strings.Count(w.log.String(), "all hints for the node are delivered"); n != 1 || !strings.Contains(w.log.String(), `"hints":60`) {
			t.Errorf("log:\n%s", &w.log)
		}
	})
}

// The receiver's pause is kept between batches.
func TestHonoursThePause(t *testing.T) {
	run(t, 5, func(w *world) {
		gone := id(0)
		for i, key := range w.keysOf(gone, 100) {
			w.hint(key, rec(key, strings.Repeat("v", 20<<10), uint64(i+1)), gone)
		}
		w.pause = 300 * time.Millisecond
		w.setAlive(gone)
		w.start()
		time.Sleep(time.Minute)
		calls := w.deliveries()
		if w.left() != 0 || len(calls) < 5 {
			t.Fatalf("%d hints left after %d deliveries", w.left(), len(calls))
		}
		for i := range calls[1:] {
			if gap := calls[i+1].at.Sub(calls[i].at); gap < 300*time.Millisecond {
				t.Errorf("%v between deliveries", gap)
			}
		}
	})
}

// What is refused or lost stays, is tried less and less often, and holds up nothing for ever.
func TestFailuresBackOff(t *testing.T) {
	run(t, 5, func(w *world) {
		gone := id(0)
		for i, key := range w.keysOf(gone, 10) {
			w.hint(key, rec(key, "v", uint64(i+1)), gone)
		}
		w.meddle = func(ring.NodeID, []*storagev1.PulledRecord) error { return errors.New("connection lost") }
		w.setAlive(gone)
		w.start()
		time.Sleep(10 * time.Minute)
		if n := len(w.deliveries()); w.left() != 10 || n < 10 || n > 40 {
			t.Fatalf("%d deliveries in ten minutes, %d hints left", n, w.left())
		}
		w.mu.Lock()
		w.meddle = nil
		w.mu.Unlock()
		time.Sleep(hints.RetryMax + tick)
		if w.left() != 0 {
			t.Errorf("%d hints left", w.left())
		}
	})
}

// A hint that changes while it is delivered stays until the newer one was delivered, too.
func TestChangedHintStays(t *testing.T) {
	run(t, 5, func(w *world) {
		gone := id(0)
		key := w.keysOf(gone, 1)[0]
		one, two := rec(key, "1", 1), rec(key, "2", 2)
		w.hint(key, one, gone)
		changed := false
		w.meddle = func(ring.NodeID, []*storagev1.PulledRecord) error {
			if !changed {
				changed = true
				w.hint(key, two, gone)
			}
			return nil
		}
		w.setAlive(gone)
		w.start()
		time.Sleep(time.Second)
		if n := len(w.deliveries()); n != 2 || w.left() != 0 {
			t.Errorf("%d deliveries, %d hints left", n, w.left())
		}
		w.has(gone, key, two)
	})
}

// When the target has left the layouts, W of the present owners in each must have it before the hint goes.
func TestReroutes(t *testing.T) {
	run(t, 6, func(w *world) {
		gone := id(0)
		keys := w.keysOf(gone, 20)
		for i, key := range keys {
			w.hint(key, rec(key, "v", uint64(i+1)), gone)
		}
		w.propose(ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: gone}})
		old := w.view.Settled()
		var living []ring.NodeID
		for i := 1; i < 5; i++ {
			living = append(living, id(i))
		}
		w.setAlive(id(1)) // one owner of three, at most, is there
		w.start()
		time.Sleep(time.Minute)
		for i, key := range keys {
			slot := ring.SlotOf([]byte(key))
			n := 0
			if err := w.stores[w.self].ScanHints(gone, nil, func(k, _ []byte) (bool, error) {
				if string(k) == key {
					n++
				}
				return true, nil
			}); err != nil {
				t.Fatal(err)
			}
			mine := w.view.Newest().Owns(w.self, slot)
			if n != 1 {
				t.Errorf("the hint of %s left with one or two owners alive (%d, %v)", key, i, mine)
			}
		}
		w.setAlive(living...)
		time.Sleep(time.Minute)
		if w.left() != 0 {
			t.Fatalf("%d hints left", w.left())
		}
		for i, key := range keys {
			slot := ring.SlotOf([]byte(key))
			for _, l := range []*ring.Layout{old, w.view.Newest()} {
				for _, n := range l.Primaries(slot) {
					if n != gone {
						w.has(n, key, rec(key, "v", uint64(i+1)))
					}
				}
			}
		}
	})
}

// While the target is away and still a member, hints that are its own by now as before wait for it.
func TestMovedPassLeavesTheRest(t *testing.T) {
	run(t, 5, func(w *world) {
		gone := id(0)
		keys := w.keysOf(gone, 50)
		for i, key := range keys {
			w.hint(key, rec(key, "v", uint64(i+1)), gone)
		}
		w.propose(ring.Change{Kind: ring.ChangeJoin, Member: ring.Member{ID: id(7), Name: "n", Weight: 1}})
		w.stores[id(7)] = w.open()
		stays := 0
		for _, key := range keys {
			if w.view.Newest().Owns(gone, ring.SlotOf([]byte(key))) {
				stays++
			}
		}
		w.setAlive(id(1), id(2), id(3), id(7))
		w.start()
		time.Sleep(time.Minute)
		if stays == 0 || stays == len(keys) || w.left() != int64(stays) {
			t.Errorf("%d hints left of %d, of which %d are still the node's own", w.left(), len(keys), stays)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, d := range w.calls {
			if d.to == gone {
				t.Error("delivered to a node that is away")
			}
		}
	})
}
