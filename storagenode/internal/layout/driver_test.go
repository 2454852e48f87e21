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
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/transfer"
)

func TestDriversFormCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var all []*fakeNode
		for n := byte(1); n <= 5; n++ {
			all = append(all, w.add(n))
		}
		w.expect = len(all)
		for _, n := range slices.Backward(all) { // the lowest id, which founds, is the last to come
			n.start()
		}
		for _, n := range all {
			defer n.stop()
		}
		time.Sleep(10 * time.Second)
		if settledOn(all...) == nil {
			t.Fatalf("no settled layout after 10 s:\n%s", w.log.String())
		}
		if n := w.logged("cluster founded"); n != 1 {
			t.Errorf("%d founded", n)
		}
		// Once all agree there is a quiet: one exchange a second each, no more.
		before := testutil.ToFloat64(all[0].driver.metrics.exchanges.WithLabelValues("ok"))
		time.Sleep(20 * time.Second)
		if n := testutil.ToFloat64(all[0].driver.metrics.exchanges.WithLabelValues("ok")) - before; n < 15 || n > 30 {
			t.Errorf("%v exchanges in 20 quiet seconds", n)
		}
		// The marks that gossip carries are those of the layout.
		mark := membership.MarkOf(all[0].state.Known().Settled.ID())
		for _, m := range all[0].Members() {
			if m.Newest != mark || m.Acked != mark || m.Synced != mark || m.Cluster != all[0].state.Cluster() {
				t.Errorf("%s gossips %+v", m.Name, m)
			}
		}
	})
}

// Two that come together go into one proposal.
func TestJoinersShareAProposal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two, three := w.add(1), w.add(2), w.add(3)
		one.start()
		defer one.stop()
		time.Sleep(time.Second)
		two.start()
		defer two.stop()
		three.start()
		defer three.stop()
		time.Sleep(10 * time.Second)
		if settledOn(one, two, three) == nil {
			t.Fatal("not settled")
		}
		if n := w.logged("layout proposed"); n != 1 {
			t.Errorf("%d proposals for two joiners:\n%s", n, w.log.String())
		}
		for _, f := range []*fakeNode{one, two, three} {
			h := &dto.Metric{}
			if err := f.driver.metrics.convergence.Write(h); err != nil {
				t.Fatal(err)
			}
			want := uint64(0)
			if f == one {
				want = 1
			}
			if n := h.GetHistogram().GetSampleCount(); n != want || h.GetHistogram().GetSampleSum() > 5 {
				t.Errorf("%d layouts of its own confirmed by all, after %v s in all", n, h.GetHistogram().GetSampleSum())
			}
		}
	})
}

// A newcomer waits for a majority of the base's owners to pull from; one that is away is named once a minute, and when
// it is back the change goes on by itself.
func TestChangeWaitsForMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two, three := w.add(1), w.add(2), w.add(3)
		one.start()
		defer one.stop()
		two.start()
		time.Sleep(5 * time.Second)
		if settledOn(one, two) == nil {
			t.Fatal("not settled")
		}
		one.store.kv["k"], two.store.kv["k"] = []byte("v"), []byte("v")
		two.stop()
		three.start()
		defer three.stop()
		time.Sleep(5 * time.Minute)
		k := one.state.Known()
		if k.IsSettled() {
			t.Fatal("a change settled without a member of its base")
		}
		lines := w.logged(`"node":"node1","layout":"` + k.Newest.ID().String() + `","not_acked":["node2 (failed)"]`)
		if lines < 4 || lines > 5 {
			t.Errorf("said %d times in five minutes whom it waits for:\n%s", lines, w.log.String())
		}
		two.start()
		defer two.stop()
		time.Sleep(10 * time.Second)
		if settledOn(one, two, three) == nil {
			t.Fatal("not settled after the member came back")
		}
		if string(three.store.kv["k"]) != "v" {
			t.Error("the newcomer lacks a record")
		}
	})
}

// All stop and start again: the same layout, without anything proposed or founded anew.
func TestDriversRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := []*fakeNode{w.add(1), w.add(2), w.add(3)}
		w.expect = len(all)
		for _, n := range all {
			n.start()
		}
		time.Sleep(10 * time.Second)
		before := settledOn(all...)
		if before == nil {
			t.Fatal("not settled")
		}
		for range 3 {
			for _, n := range all {
				n.stop()
			}
			for _, n := range all {
				n.start()
				if !n.state.Ready() {
					t.Error("not ready at once after a restart")
				}
			}
			time.Sleep(3 * time.Second)
			if after := settledOn(all...); after == nil || after.ID() != before.ID() {
				t.Fatalf("layout %v after a restart, was %v", after, before.ID())
			}
		}
		for _, n := range all {
			n.stop()
		}
	})
}

// A node in doubt stays so until it has pulled all it owns from enough others, also across a restart. What it held itself
// goes: it may have been deleted and collected since.
func TestDoubtIsRefilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two, three := w.add(1), w.add(2), w.add(3)
		all := []*fakeNode{one, two, three}
		w.expect = len(all)
		for _, n := range all {
			n.start()
		}
		time.Sleep(10 * time.Second)
		if settledOn(all...) == nil || one.store.Doubts().Any() {
			t.Fatal("not settled, or in doubt from the start")
		}
		two.store.kv["both"], three.store.kv["both"], three.store.kv["only on three"] = []byte("v"), []byte("v"), []byte("v")
		one.store.kv["deleted since"] = []byte("v")
		one.stop()
		three.stop() // so that one cannot be refilled from two others
		one.store.distrust()
		one.start()
		time.Sleep(10 * time.Second)
		one.stop()
		one.start()
		time.Sleep(10 * time.Second)
		if !one.store.Doubts().Any() {
			t.Fatal("the doubt ended with one of two sources, or with a restart")
		}
		three.start()
		time.Sleep(10 * time.Second)
		if one.store.Doubts().Any() {
			t.Fatalf("still in doubt with all sources there:\n%s", w.log.String())
		}
		if len(one.store.kv) != 2 || one.store.kv["both"] == nil || one.store.kv["only on three"] == nil {
			t.Errorf("refilled with %q", one.store.kv)
		}
		for _, n := range all {
			n.stop()
		}
	})
}

// A disk that was rolled back to before its node became an owner must not end its doubt by the layout on it, in which the node
// owns nothing and so has nothing to refill: others may know a newer one, which they count it in.
func TestDoubtOutlivesAnOldLayout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := []*fakeNode{w.add(1), w.add(2), w.add(3)}
		w.expect = len(all)
		for _, n := range all {
			n.start()
		}
		time.Sleep(10 * time.Second)
		if settledOn(all...) == nil {
			t.Fatal("not settled")
		}
		before := all[0].state.View().Encode()
		late := w.add(4)
		late.start()
		all = append(all, late)
		time.Sleep(10 * time.Second)
		l := settledOn(all...)
		if l == nil {
			t.Fatal("the fourth did not join")
		}
		for _, n := range all {
			n.stop()
			n.store.kv["key"] = []byte("v")
		}
		key := ring.SlotOf([]byte("key"))
		late.store.meta = map[string][]byte{metaView: before}
		late.store.kv = map[string][]byte{}
		late.store.distrust()
		late.start()
		time.Sleep(20 * time.Second)
		if !late.store.Doubts().Any() {
			t.Fatal("the doubt ended by an old layout, before anyone was heard")
		}
		for _, n := range all[:3] {
			n.start()
		}
		time.Sleep(20 * time.Second)
		if late.store.Doubts().Any() {
			t.Fatalf("still in doubt with all others there:\n%s", w.log.String())
		}
		if (late.store.kv["key"] != nil) != l.Owns(late.id, key) {
			t.Errorf("refilled with %q, owner %v", late.store.kv, l.Owns(late.id, key))
		}
		for _, n := range all {
			n.stop()
		}
	})
}

// Owners that are all in doubt do not wait for each other: once none of those left is merely away, what all of them hold
// is put together. With one that is trusted, its word is taken too.
func TestAllInDoubt(t *testing.T) {
	for _, doubted := range []int{3, 2} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			all := []*fakeNode{w.add(1), w.add(2), w.add(3)}
			w.expect = len(all)
			for _, n := range all {
				n.start()
			}
			time.Sleep(10 * time.Second)
			if settledOn(all...) == nil {
				t.Fatal("not settled")
			}
			for i, n := range all {
				n.stop()
				n.store.kv[fmt.Sprint("key of ", i)] = []byte("v")
				if i < doubted {
					n.store.distrust()
				}
			}
			all[0].start()
			all[1].start()
			time.Sleep(20 * time.Second)
			if !all[0].store.Doubts().Any() || !all[1].store.Doubts().Any() {
				t.Fatal("the doubt ended while an owner that may know better was away")
			}
			all[2].start()
			time.Sleep(20 * time.Second)
			for i, n := range all[:doubted] {
				if n.store.Doubts().Any() || len(n.store.kv) != 3 {
					t.Errorf("%d in doubt: node %d holds %q, doubts %v", doubted, i, n.store.kv, n.store.Doubts())
				}
			}
			if w.logged("all owners that are left are in doubt") == 0 {
				t.Error("nothing was said of it")
			}
			for _, n := range all {
				n.stop()
			}
		})
	}
}

// A node that may have lost its layout founds no cluster beside the one it may belong to, and is taken in again by it.
func TestDoubtFoundsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two := w.add(1), w.add(2)
		one.store.distrust()
		one.start()
		defer one.stop()
		time.Sleep(time.Minute)
		if one.state.Known() != nil {
			t.Fatal("founded a cluster in doubt")
		}
		two.start()
		defer two.stop()
		time.Sleep(time.Minute)
		if settledOn(one, two) == nil || one.store.Doubts().Any() {
			t.Errorf("not taken in, or still in doubt:\n%s", w.log.String())
		}
	})
}

// What a refill asks for: every slot the node owns, from others alone.
func TestRefillPulls(t *testing.T) {
	v := ring.NewView(ring.Found(cluster, memberOf(1), 3, 2))
	var joins []ring.Change
	for n := byte(2); n <= 6; n++ {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: memberOf(n)})
	}
	l, err := v.Propose(joins)
	if err != nil {
		t.Fatal(err)
	}
	pulls := refillPlan(l, l, nodeID(1), []ring.Range{{From: 0, To: 1000}, {From: 5000, To: ring.Slots}})
	covered := 0
	for _, p := range pulls {
		covered += p.Range.Len()
		if p.Range.From < 5000 && p.Range.To > 1000 {
			t.Fatalf("part %v is not in doubt as a whole", p.Range)
		}
		for _, s := range []ring.Slot{p.Range.From, p.Range.To - 1} {
			owners := l.Primaries(s)
			if len(p.Sources) == 0 {
				if slices.Contains(owners, nodeID(1)) || p.keep {
					t.Fatalf("no pull of a slot owned by %v, keep %v", owners, p.keep)
				}
				continue
			}
			if p.keep || !slices.Contains(owners, nodeID(1)) || len(owners) != len(p.Sources)+1 || p.Need != 2 {
				t.Fatalf("pull %v of a slot owned by %v", p, owners)
			}
			for _, src := range p.Sources {
				if src == nodeID(1) || !slices.Contains(owners, src) {
					t.Fatalf("pull %v of a slot owned by %v", p, owners)
				}
			}
		}
	}
	if want := ring.Slots - 4000; covered != want {
		t.Errorf("%d of %d slots are refilled", covered, want)
	}
	one := ring.Found(cluster, memberOf(1), 3, 2)
	alone := refillPlan(one, one, nodeID(1), []ring.Range{{To: ring.Slots}})
	if len(alone) != 1 || !alone[0].keep || alone[0].Need != 0 || alone[0].Range.Len() != ring.Slots {
		t.Errorf("a node alone refills %v", alone)
	}
}

// A node that has synced a layout which is not settled yet, and then loses its disk, gets back what it gained: reads may use
// that layout already.
func TestRefillBringsWhatIsGained(t *testing.T) {
	v := ring.NewView(ring.Found(cluster, memberOf(1), 2, 1))
	propose := func(changes ...ring.Change) *ring.Layout {
		l, err := v.Propose(changes)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	var joins []ring.Change
	for n := byte(2); n <= 4; n++ {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: memberOf(n)})
	}
	old := propose(joins...)
	for _, id := range v.Required(old) {
		v.MarkSwitched(old.ID(), id)
	}
	next := propose(ring.Change{Kind: ring.ChangeJoin, Member: memberOf(5)})
	gained := 0
	for _, p := range refillPlan(old, next, nodeID(5), []ring.Range{{To: ring.Slots}}) {
		for _, s := range []ring.Slot{p.Range.From, p.Range.To - 1} {
			if !next.Owns(nodeID(5), s) {
				if len(p.Sources) > 0 {
					t.Fatalf("pull %v of a slot of others", p)
				}
				continue
			}
			gained++
			if len(p.Sources) != 2 || p.Need != 2 || p.keep || !slices.Contains(old.Primaries(s), p.Sources[0]) || !slices.Contains(old.Primaries(s), p.Sources[1]) {
				t.Fatalf("pull %v of a slot that is gained from %v", p, old.Primaries(s))
			}
		}
	}
	if gained == 0 {
		t.Fatal("nothing is gained")
	}
}

// A disk that refuses for a while delays steps and breaks nothing.
func TestStepsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two := w.add(1), w.add(2)
		one.start()
		defer one.stop()
		time.Sleep(time.Second)
		two.start()
		defer two.stop()
		one.store.mu.Lock()
		one.store.fail = errors.New("disk")
		one.store.mu.Unlock()
		time.Sleep(5 * time.Second)
		if settledOn(one, two) != nil {
			t.Fatal("settled without a disk")
		}
		one.store.mu.Lock()
		one.store.fail = nil
		one.store.mu.Unlock()
		time.Sleep(15 * time.Second)
		if settledOn(one, two) == nil {
			t.Errorf("not settled with the disk back:\n%s", w.log.String())
		}
	})
}

// A node that has not reached all it was told to waits before it founds.
func TestFoundingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one := w.add(1)
		one.reached = false
		one.start()
		defer one.stop()
		time.Sleep(4 * time.Second)
		if one.state.Known() != nil {
			t.Error("founded before it had reached all or waited")
		}
		time.Sleep(2 * time.Second)
		if one.state.Known() == nil {
			t.Error("not founded after the wait")
		}
	})
}

func TestForeignGossipIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two := w.add(1), w.add(2)
		one.start()
		defer one.stop()
		time.Sleep(time.Second)
		other := ring.Found(ring.ClusterID{1, 2, 3}, memberOf(2), 3, 2)
		s, err := Load(two.id, two.store)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Adopt(t.Context(), ring.NewView(other)); err != nil {
			t.Fatal(err)
		}
		two.start()
		defer two.stop()
		time.Sleep(time.Minute)
		if len(one.state.Known().Newest.Members()) != 1 || len(two.state.Known().Newest.Members()) != 1 {
			t.Error("clusters merged")
		}
		if n := w.logged("peer of another cluster refused"); n != 2 {
			t.Errorf("%d complaints of two nodes", n)
		}
		if testutil.ToFloat64(one.driver.metrics.foreign) != 1 {
			t.Error("the metric does not show it")
		}
		if _, err := one.driver.Answer(nodeID(2), two.state.Encoded()); !errors.Is(err, ring.ErrForeignCluster) {
			t.Errorf("a foreign view is answered %v", err)
		}
	})
}

func TestJoinersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one := w.add(1)
		one.start()
		defer one.stop()
		if err := one.driver.RequestJoin(ring.Member{}, time.Now()); !errors.Is(err, ring.ErrInvalid) {
			t.Errorf("a joiner without an id: %v", err)
		}
		one.stop()
		for i := range joinersMax {
			id := ring.NodeID{9, byte(i >> 8), byte(i)}
			if err := one.driver.RequestJoin(ring.Member{ID: id, Weight: 1}, time.Now()); err != nil {
				t.Fatal(i, err)
			}
		}
		if err := one.driver.RequestJoin(ring.Member{ID: ring.NodeID{8}}, time.Now()); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		one.start()
	})
}

// pulling runs one pull against scripted sources.
func pulling(t *testing.T, store *fifo, find func(ring.NodeID) (Peer, bool), peers Peers) *puller {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry(), load(t, newFifo(true)), func() (Transfer, bool) { return Transfer{}, false })
	if err != nil {
		t.Fatal(err)
	}
	id := ring.LayoutID{Epoch: 2}
	return &puller{self: nodeID(1), layout: id, peers: peers, records: store, metrics: m, find: find,
		track: newTracker(nodeID(1), id, nil, store, time.Now(), zerolog.Nop()), throttle: newThrottle(0, nil, nil), log: zerolog.Nop()}
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

// Pulls keep to their rate together, and give way to clients.
func TestPullsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := func(rate int64, pressure float64) time.Duration {
			th := newThrottle(rate, func() float64 { return pressure }, nil)
			start := time.Now()
			var pulls sync.WaitGroup
			for range 4 {
				pulls.Go(func() {
					for range 25 {
						th.wait(t.Context(), 1<<20)
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
		th := newThrottle(10<<20, nil, func() transfer.Served { return served })
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
			th.idle(time.Now())
		}
		pull := func(mib int, clients bool) time.Duration {
			start := time.Now()
			for pulled := 0; pulled < mib<<20; {
				before := pulled
				for at := time.Now(); time.Since(at) < 100*time.Millisecond; pulled += piece {
					th.wait(t.Context(), piece)
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

func TestCoalesce(t *testing.T) {
	a, b := []ring.NodeID{nodeID(1)}, []ring.NodeID{nodeID(1), nodeID(2)}
	in := []ring.Pull{
		{Range: ring.Range{From: 0, To: 5}, Sources: a, Need: 1}, {Range: ring.Range{From: 5, To: 9}, Sources: a, Need: 1},
		{Range: ring.Range{From: 9, To: 10}, Sources: b, Need: 1}, {Range: ring.Range{From: 11, To: 12}, Sources: b, Need: 1},
		{Range: ring.Range{From: 12, To: 13}, Sources: b, Need: 2},
	}
	out := coalesce(in)
	want := []ring.Range{{From: 0, To: 9}, {From: 9, To: 10}, {From: 11, To: 12}, {From: 12, To: 13}}
	if len(out) != len(want) {
		t.Fatalf("%v", out)
	}
	for i := range want {
		if out[i].Range != want[i] {
			t.Errorf("range %d is %v, want %v", i, out[i].Range, want[i])
		}
	}
	if in[0].Range.To != 5 {
		t.Error("the input was modified")
	}
}

func TestMetricsHaveHelp(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := newMetrics(reg, load(t, newFifo(true)), func() (Transfer, bool) { return Transfer{}, false }); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// A standby founds nothing and asks for no place, knows the cluster all the same, and takes the place that it is given.
func TestStandbyWaitsForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		standby := w.add(1) // the lowest id, which would found
		standby.standby = true
		standby.start()
		defer standby.stop()
		time.Sleep(time.Minute)
		if standby.state.Known() != nil {
			t.Fatal("a standby founded a cluster")
		}
		var members []*fakeNode
		for n := byte(2); n <= 5; n++ {
			f := w.add(n)
			f.start()
			members = append(members, f)
		}
		for _, f := range members[:3] {
			defer f.stop()
		}
		time.Sleep(time.Minute)
		if settledOn(members...) == nil || standby.state.Known() == nil || standby.state.Known().IsMember(standby.id) {
			t.Fatal("the others formed no cluster, or the standby does not know it or joined it")
		}
		dead := members[3]
		dead.stop()
		replace := ChangeRequest{Kind: ring.ChangeReplace, Node: dead.id, By: ring.Member{ID: standby.id, Name: "node1"}}
		p, err := members[0].driver.Change(t.Context(), replace)
		if err != nil {
			t.Fatal(err)
		}
		old, _ := members[0].state.View().Settled().Member(dead.id)
		if now, _ := p.View.Newest().Member(standby.id); !slices.Equal(now.Tokens, old.Tokens) {
			t.Error("the newcomer does not get the tokens of the one it replaces")
		}
		time.Sleep(time.Minute)
		if settledOn(standby, members[0], members[1], members[2]) == nil {
			t.Fatal("the place was not taken")
		}
	})
}

// Fingers are few, the same for both ends, and lead from each member to all others in a few steps.
func TestFingers(t *testing.T) {
	for _, n := range []int{2, 3, 17, 100, 300, 1000} {
		var all []membership.Member
		for i := range n {
			all = append(all, membership.Member{ID: ring.NodeID{byte(i >> 8), byte(i)}})
		}
		to := make(map[ring.NodeID][]membership.Member)
		for i, m := range all {
			to[m.ID] = fingersOf(m.ID, append(slices.Clone(all[:i]), all[i+1:]...))
		}
		steps := map[ring.NodeID]int{all[0].ID: 0}
		queue := []ring.NodeID{all[0].ID}
		far := 0
		for len(queue) > 0 {
			at := queue[0]
			queue = queue[1:]
			far = max(far, steps[at])
			for _, m := range to[at] {
				if m.ID == at || !slices.ContainsFunc(to[m.ID], func(o membership.Member) bool { return o.ID == at }) {
					t.Fatalf("%d members: a finger to oneself, or that does not point back", n)
				}
				if _, seen := steps[m.ID]; !seen {
					steps[m.ID] = steps[at] + 1
					queue = append(queue, m.ID)
				}
			}
		}
		if len(steps) != n || len(to[all[0].ID]) > 20 || far > 6 {
			t.Errorf("%d members: %d fingers reach %d in up to %d steps", n, len(to[all[0].ID]), len(steps), far)
		}
	}
}

// Convergence is measured until the last living member has confirmed the layout.
func TestConvergenceWaitsForTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two, three := w.add(1), w.add(2), w.add(3)
		one.start()
		defer one.stop()
		two.start()
		defer two.stop()
		time.Sleep(10 * time.Second)
		seen := func() (n uint64, sum float64) {
			for _, f := range []*fakeNode{one, two} {
				h := &dto.Metric{}
				if err := f.driver.metrics.convergence.Write(h); err != nil {
					t.Fatal(err)
				}
				n, sum = n+h.GetHistogram().GetSampleCount(), sum+h.GetHistogram().GetSampleSum()
			}
			return n, sum
		}
		slow := func(is bool) {
			two.store.mu.Lock()
			two.store.atOnce = !is
			two.store.mu.Unlock()
		}
		before, took := seen()
		slow(true) // its disk
		three.start()
		defer three.stop()
		time.Sleep(5 * time.Second)
		if n, _ := seen(); n != before {
			t.Error("measured before all had confirmed")
		}
		slow(false)
		two.store.flush()
		time.Sleep(5 * time.Second)
		// Both may have proposed it; then both measure.
		n, sum := seen()
		if n, sum := n-before, sum-took; settledOn(one, two, three) == nil || n < 1 || n > 2 || sum < 4*float64(n) {
			t.Errorf("%d layouts confirmed by all, after %v s", n, sum)
		}
	})
}
