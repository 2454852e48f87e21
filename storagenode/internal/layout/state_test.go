package layout

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fifo is a store whose one queue is committed by hand, or at once.
type fifo struct {
	mu     sync.Mutex
	atOnce bool
	fail   error
	queue  []queued
	meta   map[string][]byte
	kv     map[string][]byte
	doubts kv.Doubts
	added  chan struct{} // told of each put, if not nil
}

type queued struct {
	name string
	v    []byte
	done func(error)
}

func newFifo(atOnce bool) *fifo {
	return &fifo{atOnce: atOnce, meta: map[string][]byte{}, kv: map[string][]byte{}}
}

func (f *fifo) PutMeta(name string, v []byte, done func(error)) error {
	f.mu.Lock()
	if f.fail != nil {
		defer f.mu.Unlock()
		return f.fail
	}
	f.queue = append(f.queue, queued{name, append([]byte(nil), v...), done})
	added, atOnce := f.added, f.atOnce
	f.mu.Unlock()
	if atOnce {
		f.flush()
	}
	if added != nil {
		added <- struct{}{}
	}
	return nil
}

func (f *fifo) GetMeta(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v, ok := f.meta[name]; ok {
		return v, nil
	}
	return nil, engine.ErrNotFound
}

func (f *fifo) Apply(key, rec []byte, done func(bool, error)) error {
	f.mu.Lock()
	if f.fail != nil {
		defer f.mu.Unlock()
		return f.fail
	}
	f.kv[string(key)] = append([]byte(nil), rec...)
	f.mu.Unlock()
	done(true, nil)
	return nil
}

func (f *fifo) Scan(r ring.Range, after []byte, fn func(key, rec []byte) (bool, error)) error {
	f.mu.Lock()
	var keys [][]byte
	for key := range f.kv {
		if r.Contains(ring.SlotOf([]byte(key))) && (after == nil || IsBehind([]byte(key), after)) {
			keys = append(keys, []byte(key))
		}
	}
	slices.SortFunc(keys, byPlace)
	recs := make([][]byte, len(keys))
	for i, key := range keys {
		recs[i] = f.kv[string(key)]
	}
	f.mu.Unlock()
	for i, key := range keys {
		if more, err := fn(key, recs[i]); !more || err != nil {
			return err
		}
	}
	return nil
}

func (f *fifo) Doubts() kv.Doubts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.doubts
}

// distrust puts everything in doubt.
func (f *fifo) distrust() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.doubts = kv.Doubts{Whole: true, Ranges: []ring.Range{{To: ring.Slots}}}
}

func (f *fifo) Refill(r kv.Refill, done func(error)) error {
	f.mu.Lock()
	if f.fail != nil {
		defer f.mu.Unlock()
		return f.fail
	}
	for key := range f.kv {
		if !r.Keep && r.Range.Contains(ring.SlotOf([]byte(key))) {
			delete(f.kv, key)
		}
	}
	for i, key := range r.Keys {
		f.kv[string(key)] = r.Records[i]
	}
	var left []ring.Range
	for _, in := range f.doubts.Ranges {
		for _, part := range []ring.Range{{From: in.From, To: min(in.To, r.Range.From)}, {From: max(in.From, r.Range.To), To: in.To}} {
			if part.From < part.To {
				left = append(left, part)
			}
		}
	}
	f.doubts.Ranges = left
	f.doubts.Whole = f.doubts.Whole && len(left) > 0
	f.mu.Unlock()
	done(nil)
	return nil
}

func (f *fifo) flush() {
	f.mu.Lock()
	queue := f.queue
	f.queue = nil
	for _, q := range queue {
		f.meta[q.name] = q.v
	}
	f.mu.Unlock()
	for _, q := range queue {
		if q.done != nil {
			q.done(nil)
		}
	}
}

func nodeID(n byte) ring.NodeID { return ring.NodeID{n} }

func memberOf(n byte) ring.Member {
	id := nodeID(n)
	return ring.Member{ID: id, Name: string('a' + rune(n)), Weight: 1, Tokens: ring.RandomTokens(id, ring.TokensPerNode, nil)}
}

var cluster = ring.ClusterID{42}

func load(t *testing.T, f *fifo) *State {
	t.Helper()
	s, err := Load(nodeID(1), f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// founded returns a state of node 1 in a layout of its own, acknowledged.
func founded(t *testing.T, f *fifo) (*State, *ring.Layout) {
	t.Helper()
	s := load(t, f)
	l := ring.Found(cluster, memberOf(1), 3, 2)
	if err := s.Adopt(t.Context(), ring.NewView(l)); err != nil {
		t.Fatal(err)
	}
	if err := s.Acknowledge(t.Context(), l.ID()); err != nil {
		t.Fatal(err)
	}
	return s, l
}

func TestStateComesBack(t *testing.T) {
	f := newFifo(true)
	s, one := founded(t, f)
	two, err := s.Propose(t.Context(), []ring.Change{{Kind: ring.ChangeJoin, Member: memberOf(2)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Acknowledge(t.Context(), two.ID()); err != nil {
		t.Fatal(err)
	}
	if err := s.Switch(t.Context(), one.ID()); err != nil {
		t.Fatal(err)
	}
	again := load(t, f)
	if got, want := again.Known(), s.Known(); got.Hash != want.Hash || got.Newest.ID() != two.ID() || got.Settled.ID() != one.ID() || got.Cluster != cluster {
		t.Errorf("came back with %+v, want %+v", got, want)
	}
	if want := (ring.Fence{Acked: two.ID(), ReadEpoch: one.ID().Epoch}); again.Fence() != want {
		t.Errorf("fence %+v, want %+v", again.Fence(), want)
	}
	if again.BeginWrite([]ring.LayoutID{one.ID()}) {
		t.Error("a write is admitted that was fenced before the restart")
	}
	if !again.Ready() || !again.Owns(0) {
		t.Error("the only member of the settled layout is not ready")
	}
}

func TestDamagedStateRefused(t *testing.T) {
	for _, name := range []string{metaFence, metaView} {
		f := newFifo(true)
		f.meta[name] = []byte("nonsense")
		if _, err := Load(nodeID(1), f); !errors.Is(err, ErrStored) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While the acknowledgement is on its way to the disk the node already acts on it, but nobody is told.
func TestAcknowledgementIsDurableFirst(t *testing.T) {
	f := newFifo(true)
	s, one := founded(t, f)
	two, err := s.Propose(t.Context(), []ring.Change{{Kind: ring.ChangeJoin, Member: memberOf(2)}})
	if err != nil {
		t.Fatal(err)
	}
	f.atOnce, f.added = false, make(chan struct{}, 10)
	acked := func() bool {
		missing, _, _ := s.View().Missing(two)
		return len(missing) == 1 // node 2's
	}
	done := make(chan error, 1)
	go func() { done <- s.Acknowledge(t.Context(), two.ID()) }()
	<-f.added // the fence is queued
	if s.BeginWrite([]ring.LayoutID{one.ID()}) {
		t.Error("a write without the new layout is admitted behind its fence")
	}
	if acked() || s.Fence().Acked == two.ID() {
		t.Error("the acknowledgement is announced before its fence is durable")
	}
	f.flush()
	<-f.added // the mark is queued
	if s.Fence().Acked != two.ID() {
		t.Error("the durable fence is not known")
	}
	if acked() {
		t.Error("the acknowledgement is announced before its mark is durable")
	}
	f.flush()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !acked() {
		t.Error("the acknowledgement is not announced")
	}
}

// A fence that cannot be stored is not announced, and goes on to refuse.
func TestFenceNotStored(t *testing.T) {
	f := newFifo(true)
	s, one := founded(t, f)
	two, err := s.Propose(t.Context(), []ring.Change{{Kind: ring.ChangeJoin, Member: memberOf(2)}})
	if err != nil {
		t.Fatal(err)
	}
	f.fail = errors.New("disk")
	if err := s.Acknowledge(t.Context(), two.ID()); err == nil {
		t.Fatal("acknowledged without a disk")
	}
	if s.Fence().Acked == two.ID() || s.BeginWrite([]ring.LayoutID{one.ID()}) {
		t.Error("a promise was made, or forgotten, without a disk")
	}
	if step := ring.NextStep(s.View(), nodeID(1), s.Fence()); step.Kind != ring.StepAck {
		t.Errorf("next step %v, want another try", step.Kind)
	}
	f.fail = nil
	if err := s.Acknowledge(t.Context(), two.ID()); err != nil {
		t.Fatal(err)
	}
}

// Whatever is admitted under the old fence stands before the new fence in the store's queue.
func TestAdmissionAndFenceAreOrdered(t *testing.T) {
	for range 50 {
		f := newFifo(true)
		s, one := founded(t, f)
		two, err := s.Propose(t.Context(), []ring.Change{{Kind: ring.ChangeJoin, Member: memberOf(2)}})
		if err != nil {
			t.Fatal(err)
		}
		f.atOnce = false
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for s.BeginWrite([]ring.LayoutID{one.ID()}) {
					runtime.Gosched() // a write takes its time between its check and the queue
					f.mu.Lock()
					f.queue = append(f.queue, queued{name: "write"})
					f.mu.Unlock()
					s.EndWrite()
				}
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		acked := make(chan error, 1)
		go func() { acked <- s.Acknowledge(ctx, two.ID()) }()
		writers.Wait() // the writers end when the fence is up
		cancel()
		<-acked
		fence := false
		for _, q := range f.queue {
			switch {
			case q.name == metaFence:
				fence = true
			case q.name == "write" && fence:
				t.Fatal("a write that did not know the new layout stands behind its fence")
			}
		}
		if !fence {
			t.Fatal("no fence was queued")
		}
	}
}

func TestMerge(t *testing.T) {
	f := newFifo(true)
	s := load(t, f)
	l := ring.Found(cluster, memberOf(1), 3, 2)
	if changed, err := s.Merge(ring.NewView(l)); changed || err != nil || s.Known() != nil {
		t.Error("a view was taken before one was adopted")
	}
	s, _ = founded(t, f)
	if _, err := s.Merge(ring.NewView(ring.Found(ring.ClusterID{7}, memberOf(1), 3, 2))); !errors.Is(err, ring.ErrForeignCluster) {
		t.Errorf("foreign view: %v", err)
	}
	other := s.View()
	if _, err := other.Propose([]ring.Change{{Kind: ring.ChangeJoin, Member: memberOf(3)}}); err != nil {
		t.Fatal(err)
	}
	heard := s.Changed()
	if changed, err := s.Merge(other); !changed || err != nil {
		t.Fatal(changed, err)
	}
	<-heard
	if load(t, f).Known().Hash == s.Known().Hash {
		t.Error("the merged view is durable before Persist")
	}
	if err := s.Persist(t.Context()); err != nil {
		t.Fatal(err)
	}
	if load(t, f).Known().Hash != s.Known().Hash {
		t.Error("the merged view is not durable after Persist")
	}
}

// A proposal that only a gateway remembers, since its proposer has lost its disk, reaches the nodes again.
func TestGatewayTellsOfAProposal(t *testing.T) {
	s, _ := founded(t, newFifo(true))
	gateway := s.View()
	if _, err := gateway.Propose([]ring.Change{{Kind: ring.ChangeJoin, Member: memberOf(3)}}); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.MergeFrom(ring.NodeID{9}, gateway); !changed || err != nil || s.Known().Hash != gateway.Hash() {
		t.Errorf("changed %v, %v: the node does not know what the gateway's writes must satisfy", changed, err)
	}
}

func TestClusterIDCarriesLabel(t *testing.T) {
	for _, label := range []string{"", "a", "dotring"} {
		id, err := ClusterID(zeros{1}, label)
		if err != nil {
			t.Fatal(err)
		}
		if !LabelMatches(id, label) || LabelMatches(id, label+"x") {
			t.Errorf("label %q and id %v", label, id)
		}
	}
	if _, err := ClusterID(zeros{0}, "a"); err == nil {
		t.Error("a cluster id without randomness")
	}
}

// zeros reads one byte for ever.
type zeros struct{ b byte }

func (z zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = z.b
	}
	return len(p), nil
}
