package layout

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
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
		all := w.settled(3)
		one, two, three := all[0], all[1], all[2]
		if one.store.Doubts().Any() {
			t.Fatal("in doubt from the start")
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

// A node in doubt waits for an owner that is away, also where that is marked dead: it may have what nobody else has. Once that loss
// is accepted, it does with whoever is left, so that the change which takes the dead one's tokens gets on, too.
func TestDoubtAndALostOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.settled(3)
		one, two, three := all[0], all[1], all[2]
		two.store.kv["on two"] = recordOf("on two")
		one.stop()
		three.stop()
		one.store.distrust()
		one.start()
		remove := ChangeRequest{Kind: ring.ChangeRemove, Node: three.id}
		for _, accept := range []bool{false, true} {
			remove.AcceptLoss = accept
			if _, err := two.driver.Change(t.Context(), remove); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if one.store.Doubts().Any() == accept {
				t.Fatalf("in doubt: %v, with the loss accepted: %v\n%s", !accept, accept, w.log.String())
			}
		}
		if one.store.kv["on two"] == nil {
			t.Errorf("refilled with %q", one.store.kv)
		}
		if l := settledOn(one, two); l == nil || len(l.Members()) != 2 {
			t.Errorf("the dead one keeps its tokens: %v\n%s", l, w.log.String())
		}
		one.stop()
		two.stop()
	})
}

// A disk that was rolled back to before its node became an owner must not end its doubt by the layout on it, in which the node
// owns nothing and so has nothing to refill: others may know a newer one, which they count it in.
func TestDoubtOutlivesAnOldLayout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		all := w.settled(3)
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
			all := w.settled(3)
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
	pulls := refillPlan(l, l, nodeID(1), []ring.Range{{From: 0, To: 1000}, {From: 5000, To: ring.Slots}}, nil)
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
	alone := refillPlan(one, one, nodeID(1), []ring.Range{{To: ring.Slots}}, nil)
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
	for _, p := range refillPlan(old, next, nodeID(5), []ring.Range{{To: ring.Slots}}, nil) {
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
