package layout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/transfer"
)

// pulling runs one pull against scripted sources.
func pulling(t *testing.T, store *fifo, find func(ring.NodeID) (Peer, bool), peers Peers) *puller {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry(), load(t, newFifo(true)), func() (Transfer, bool) { return Transfer{}, false })
	if err != nil {
		t.Fatal(err)
	}
	id := ring.LayoutID{Epoch: 2}
	return &puller{self: nodeID(1), layout: id, peers: peers, records: store, metrics: m, find: find,
		track: newTracker(nodeID(1), id, nil, store, time.Now(), zerolog.Nop()), throttle: NewThrottle(0, nil, nil), log: zerolog.Nop()}
}

// script answers pulls as told.
type script struct {
	Peers
	mu    sync.Mutex
	calls []string
	last  Chunk // that PullSums told of
	fn    func(call int, from ring.NodeID, after []byte, fn func(Chunk) error) error
}

// PullSums hands out sums that match nothing, and PullMissing then the records.
func (s *script) PullSums(ctx context.Context, from Peer, id ring.LayoutID, r ring.Range, after []byte, fn func(Group) error) error {
	return s.Pull(ctx, from, id, r, after, func(c Chunk) error {
		s.mu.Lock()
		s.last = c
		s.mu.Unlock()
		return fn(Group{Last: c.Keys[len(c.Keys)-1], Sum: noSum})
	})
}

func (s *script) PullMissing(_ context.Context, _ Peer, _ ring.LayoutID, _ ring.Range, _, _, _ []byte, fn func(Chunk) error) error {
	s.mu.Lock()
	c := s.last
	s.mu.Unlock()
	return fn(c)
}

func (s *script) Pull(_ context.Context, from Peer, _ ring.LayoutID, _ ring.Range, after []byte, fn func(Chunk) error) error {
	s.mu.Lock()
	call := len(s.calls)
	s.calls = append(s.calls, fmt.Sprintf("%d after %q", from.ID[0], after))
	s.mu.Unlock()
	return s.fn(call, from.ID, after, fn)
}

func chunkOf(keys ...string) Chunk {
	var c Chunk
	for _, k := range keys {
		c.Keys, c.Records = append(c.Keys, []byte(k)), append(c.Records, recordOf(k))
	}
	return c
}

// recordOf is a record of one write, which is the same for equal keys.
func recordOf(key string) []byte {
	dot := causal.Dot{Actor: causal.Actor{1}, Counter: ring.Hash([]byte(key))>>1 + 1}
	return record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{}.With(dot), Siblings: []causal.Sibling{{
		Dot: dot, Checksum: record.Checksum([]byte("value")), Value: []byte("value")}}})
}

// inOrder returns n keys in the order of scans.
func inOrder(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("key-%d", i))
	}
	slices.SortFunc(keys, func(a, b string) int { return byPlace([]byte(a), []byte(b)) })
	return keys
}

var everywhere = ring.Range{From: 0, To: ring.Slots}

func allThere(id ring.NodeID) (Peer, bool) { return Peer{ID: id}, true }

// A source that fails half-way is asked again from where it ended; another one in its place from the beginning, since it
// may hold what the first does not.
func TestPullResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, k := newFifo(true), inOrder(5)
		s := &script{fn: func(call int, from ring.NodeID, _ []byte, fn func(Chunk) error) error {
			switch call {
			case 0: // source 2 breaks after its first chunk
				return errors.Join(fn(chunkOf(k[0], k[1])), errors.New("broken"))
			case 1: // source 3 too
				return errors.Join(fn(chunkOf(k[3])), errors.New("broken"))
			case 2: // then source 2 goes on
				return fn(chunkOf(k[2]))
			}
			return fn(chunkOf(k[4]))
		}}
		p := pulling(t, store, allThere, s)
		err := p.all(t.Context(), []ring.Pull{{Range: everywhere, Sources: []ring.NodeID{nodeID(2), nodeID(3)}, Need: 2}})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{`2 after ""`, `3 after ""`, fmt.Sprintf("2 after %q", k[1]), fmt.Sprintf("3 after %q", k[3])}; !slices.Equal(s.calls, want) {
			t.Errorf("pulled %q, want %q", s.calls, want)
		}
		if len(store.kv) != 5 {
			t.Errorf("stored %d records", len(store.kv))
		}
	})
}

// A pull that a crash interrupted goes on behind what is durable, and asks no source again that was done with. For another
// layout, or after anything here was in doubt, it begins anew.
func TestPullsOutliveACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, k := newFifo(true), inOrder(4)
		pulls := []ring.Pull{{Range: everywhere, Sources: []ring.NodeID{nodeID(2), nodeID(3)}, Need: 2}}
		s := &script{fn: func(call int, from ring.NodeID, after []byte, fn func(Chunk) error) error {
			switch {
			case call == 0: // source 2 gives all
				return fn(chunkOf(k...))
			case from == nodeID(3) && after == nil:
				return errors.Join(fn(chunkOf(k[0], k[1])), errors.New("broken"))
			}
			return errors.New("away")
		}}
		run := func(id ring.LayoutID, s *script) []string {
			p := pulling(t, store, allThere, s)
			p.layout = id
			p.track = newTracker(nodeID(1), id, pulls, store, time.Now(), zerolog.Nop())
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_ = p.all(ctx, pulls)
			p.track.save()
			return s.calls
		}
		run(ring.LayoutID{Epoch: 2}, s)
		rest := func() *script {
			return &script{fn: func(_ int, _ ring.NodeID, _ []byte, fn func(Chunk) error) error { return fn(chunkOf(k[2], k[3])) }}
		}
		stored := slices.Clone(store.meta[metaPull])
		if got, want := run(ring.LayoutID{Epoch: 2}, rest()), []string{fmt.Sprintf("3 after %q", k[1])}; !slices.Equal(got, want) {
			t.Errorf("after a restart %q is pulled, want %q", got, want)
		}
		if got := run(ring.LayoutID{Epoch: 2}, rest()); len(got) != 0 {
			t.Errorf("what is done is pulled again: %q", got)
		}
		if got, want := run(ring.LayoutID{Epoch: 3}, rest()), []string{`2 after ""`, `3 after ""`}; !slices.Equal(got, want) {
			t.Errorf("for another layout %q is pulled, want %q", got, want)
		}
		store.meta[metaPull] = stored[:len(stored)-1]
		if got, want := run(ring.LayoutID{Epoch: 2}, rest()), []string{`2 after ""`, `3 after ""`}; !slices.Equal(got, want) {
			t.Errorf("with damaged progress %q is pulled, want %q", got, want)
		}
	})
}

// What a failing store has forgotten is pulled again.
func TestPullGoesBackToWhatIsDurable(t *testing.T) {
	store, k := newFifo(true), inOrder(2)
	track := newTracker(nodeID(1), ring.LayoutID{Epoch: 2}, nil, store, time.Now(), zerolog.Nop())
	track.advance(everywhere, nodeID(2), []byte(k[0]), 1)
	track.save()
	track.advance(everywhere, nodeID(2), []byte(k[1]), 1)
	track.failed(errors.New("source is away"))
	if after, _ := track.cursor(everywhere, nodeID(2)); string(after) != k[1] {
		t.Errorf("the cursor is at %q because a source failed", after)
	}
	track.failed(fmt.Errorf("store: %w", kv.ErrInDoubt))
	if after, _ := track.cursor(everywhere, nodeID(2)); string(after) != k[0] {
		t.Errorf("the cursor is at %q, durable is %q", after, k[0])
	}
	track.stop()
	track.advance(everywhere, nodeID(2), []byte(k[1]), 1)
	track.save()
	if p, err := transfer.DecodeProgress(store.meta[metaPull]); err != nil || p.Bytes != 1 {
		t.Errorf("stored after the end: %v, %v", p, err)
	}
}

// Of two sources that hold the same, one sends records and the other a sum.
func TestSecondSourceSendsWhatDiffers(t *testing.T) {
	store, k := newFifo(true), inOrder(100)
	for _, key := range k[:99] {
		store.kv[key] = recordOf(key)
	}
	p := pulling(t, store, allThere, &script{})
	have, sum, _, err := p.leaves(everywhere, nil, []byte(k[98]))
	if err != nil || len(have) != 99*16 {
		t.Fatal(len(have), err)
	}
	missing := 0
	p.peers = &groups{sums: []Group{{Last: []byte(k[98]), Sum: sum.Append(nil)}, {Last: []byte(k[99]), Sum: noSum}},
		missing: func(after, until, have []byte, fn func(Chunk) error) error {
			missing++
			if string(after) != k[98] || string(until) != k[99] || len(have) != 0 {
				t.Errorf("asked for what is between %q and %q, with %d hashes", after, until, len(have)/16)
			}
			return fn(chunkOf(k[99]))
		}}
	if err := p.attempt(t.Context(), nodeID(2), everywhere); err != nil || missing != 1 || len(store.kv) != 100 {
		t.Errorf("%v, %d times asked for records, %d are here", err, missing, len(store.kv))
	}
	if _, done := p.track.cursor(everywhere, nodeID(2)); !done {
		t.Error("the source is not done with")
	}
	// Groups must go forward.
	p = pulling(t, store, allThere, &groups{sums: []Group{{Last: []byte(k[98]), Sum: sum.Append(nil)}, {Last: []byte(k[98]), Sum: sum.Append(nil)}}})
	if p.attempt(t.Context(), nodeID(2), everywhere) == nil {
		t.Error("a group that goes back is taken")
	}
}

// groups answers with sums.
type groups struct {
	Peers
	sums    []Group
	missing func(after, until, have []byte, fn func(Chunk) error) error
}

func (g *groups) PullSums(_ context.Context, _ Peer, _ ring.LayoutID, _ ring.Range, _ []byte, fn func(Group) error) error {
	for _, s := range g.sums {
		if err := fn(s); err != nil {
			return err
		}
	}
	return nil
}

func (g *groups) PullMissing(_ context.Context, _ Peer, _ ring.LayoutID, _ ring.Range, after, until, have []byte, fn func(Chunk) error) error {
	return g.missing(after, until, have, fn)
}

// heldBack answers for what it took when it is told to.
type heldBack struct {
	Records
	bytes int
	done  []func(bool, error)
}

func (h *heldBack) Apply(_, rec []byte, done func(bool, error)) error {
	h.bytes, h.done = h.bytes+len(rec), append(h.done, done)
	return nil
}

// A client's write has no more of a pull in front of it than one piece.
func TestPullsAreStoredInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records, size = 64, 10 << 10
		h := &heldBack{}
		p := pulling(t, newFifo(true), allThere, &script{})
		p.records = h
		var c Chunk
		for _, key := range inOrder(records) {
			c.Keys, c.Records = append(c.Keys, []byte(key)), append(c.Records, make([]byte, size))
		}
		ended := make(chan error, 1)
		go func() {
			ended <- p.take(t.Context(), everywhere, c, func([]byte, int) {})
		}()
		taken := 0
		for synctest.Wait(); len(h.done) > 0; synctest.Wait() {
			if h.bytes > pieceBytes+size {
				t.Fatalf("%d bytes are queued at once", h.bytes)
			}
			done := h.done
			taken, h.bytes, h.done = taken+len(done), 0, nil
			for _, f := range done {
				f(true, nil)
			}
		}
		if err := <-ended; err != nil || taken != records {
			t.Errorf("%d of %d records were stored: %v", taken, records, err)
		}
	})
}

// The node itself counts as a source; another serves instead of one that is away; and no more are asked than needed.
func TestPullCountsSources(t *testing.T) {
	s := &script{fn: func(int, ring.NodeID, []byte, func(Chunk) error) error { return nil }}
	away := func(id ring.NodeID) (Peer, bool) { return Peer{ID: id}, id != nodeID(2) }
	p := pulling(t, newFifo(true), away, s)
	three := []ring.NodeID{nodeID(1), nodeID(2), nodeID(3)}
	if err := p.all(t.Context(), []ring.Pull{{Range: everywhere, Sources: three, Need: 2}, {Range: everywhere, Sources: three[:1], Need: 1}}); err != nil {
		t.Fatal(err)
	}
	if want := []string{`3 after ""`}; !slices.Equal(s.calls, want) {
		t.Errorf("pulled %q, want %q", s.calls, want)
	}
}

func TestPullEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s := &script{fn: func(int, ring.NodeID, []byte, func(Chunk) error) error { return errors.New("broken") }}
		p := pulling(t, newFifo(true), allThere, s)
		if err := p.all(ctx, []ring.Pull{{Range: everywhere, Sources: []ring.NodeID{nodeID(2)}, Need: 1}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		if len(s.calls) < 10 || len(s.calls) > 30 {
			t.Errorf("%d attempts in 10 s", len(s.calls))
		}
	})
}

// What does not belong to the range is not stored, and such a source does not count.
func TestPullChecksChunks(t *testing.T) {
	store := newFifo(true)
	slot := ring.SlotOf([]byte("inside"))
	bad := []Chunk{chunkOf("outside"), {}, {Keys: [][]byte{[]byte("inside")}}}
	s := &script{}
	s.fn = func(call int, _ ring.NodeID, _ []byte, fn func(Chunk) error) error {
		if call < len(bad) {
			err := fn(bad[call])
			if err == nil {
				t.Errorf("chunk %v is taken", bad[call])
			}
			return err
		}
		return fn(chunkOf("inside"))
	}
	p := pulling(t, store, allThere, s)
	r := ring.Range{From: slot, To: slot + 1}
	if err := p.all(t.Context(), []ring.Pull{{Range: r, Sources: []ring.NodeID{nodeID(2), nodeID(3), nodeID(4), nodeID(5)}, Need: 1}}); err != nil {
		t.Fatal(err)
	}
	if len(store.kv) != 1 || store.kv["inside"] == nil {
		t.Errorf("stored %q", store.kv)
	}
}
