package coordinator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

const testKey = "user:1"

// scene is a coordinator over a small cluster, in a synctest bubble.
type scene struct {
	*cluster
	co  *Coordinator
	ctx context.Context
}

// play runs a scene with fake time.
func play(t *testing.T, nodes, n, minW int, f func(t *testing.T, s *scene)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nodes, n, minW)
		co, err := New(DefaultConfig(), c)
		if err != nil {
			t.Fatal(err)
		}
		co.buffers = &poisoned{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f(t, &scene{c, co, ctx})
		synctest.Wait()
	})
}

func (s *scene) put(value string, c *causal.Context) (PutResult, error) {
	return s.putW(value, c, Default)
}

func (s *scene) putW(value string, c *causal.Context, w Quorum) (PutResult, error) {
	v := []byte(value)
	return s.co.Put(s.ctx, PutRequest{Key: []byte(testKey), Value: v, Checksum: record.Checksum(v), Context: c, W: w, Explain: true, Release: s.lent(v)})
}

// lent writes over a value when it is given back, which must happen once.
func (s *scene) lent(value []byte) func() {
	var back atomic.Bool
	return func() {
		if back.Swap(true) {
			s.t.Error("a value was given back twice")
		}
		poison(value)
	}
}

func (s *scene) get(r Quorum, c *causal.Context) (GetResult, error) {
	return s.co.Get(s.ctx, GetRequest{Key: []byte(testKey), R: r, Context: c})
}

func (s *scene) mustPut(value string, c *causal.Context) PutResult {
	s.t.Helper()
	res, err := s.put(value, c)
	if err != nil {
		s.t.Fatalf("put: %v", err)
	}
	return res
}

func (s *scene) mustGet(r Quorum, c *causal.Context) GetResult {
	s.t.Helper()
	res, err := s.get(r, c)
	if err != nil {
		s.t.Fatalf("get: %v", err)
	}
	return res
}

// values returns the sorted values of a set.
func values(set causal.Set) string {
	var out []string
	for _, s := range set.Siblings {
		out = append(out, string(s.Value))
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func wantValues(t *testing.T, set causal.Set, want string) {
	t.Helper()
	if got := values(set); got != want {
		t.Fatalf("values are %q, want %q", got, want)
	}
}

// wantError checks kind and outcome, and that the named replicas are in the reports with that detail.
func wantError(t *testing.T, err error, kind Kind, outcome Outcome, details ...string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want %s", err, kind)
	}
	if e.Kind != kind || e.Outcome != outcome {
		t.Fatalf("error is %v, want %s (%s)", e, kind, outcome)
	}
	for _, d := range details {
		name, detail, _ := strings.Cut(d, ":")
		if !slices.ContainsFunc(e.Replicas, func(r Report) bool { return r.Name == name && strings.Contains(r.Detail, detail) }) {
			t.Fatalf("no report %q in %+v", d, e.Replicas)
		}
	}
	return e
}

// elapse lets the bubble's time go on, for what goes on in the background.
func elapse(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (s *scene) read(n *fakeNode) (set causal.Set) {
	s.lock(func() { set = n.set(testKey) })
	return set
}

func TestPutThenGet(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		if res := s.mustGet(Default, nil); len(res.Set.Siblings) != 0 || len(res.Set.Clock) != 0 {
			t.Fatalf("found %+v before anything was written", res.Set)
		}
		put := s.mustPut("one", nil)
		if put.Siblings != 1 || put.Acks < 2 || len(put.Context.Vector) != 1 || len(put.Reports) != 3 {
			t.Fatalf("put answers %+v", put)
		}
		for _, r := range []Quorum{1, 2, 3, Majority, All, Default} {
			wantValues(t, s.mustGet(r, &put.Context).Set, "one")
		}
		second := s.mustPut("two", &put.Context)
		wantValues(t, s.mustGet(All, &second.Context).Set, "two")
		elapse(time.Second)
		for _, n := range s.owners(testKey) {
			wantValues(t, s.read(n), "two")
		}
	})
}

func TestQuorumParameters(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		for _, w := range []Quorum{1, 4, 64} {
			_, err := s.putW("x", nil, w)
			wantError(t, err, BadQuorum, NotApplied)
		}
		for _, r := range []Quorum{4, 64} {
			_, err := s.get(r, nil)
			wantError(t, err, BadQuorum, None)
		}
		if len(s.sent) != 0 {
			t.Fatalf("sent %v", s.sent)
		}
		for _, w := range []Quorum{2, 3, Majority, All, Default} {
			if _, err := s.putW("x", nil, w); err != nil {
				t.Fatalf("w=%s: %v", w, err)
			}
		}
	})
	// A young cluster has fewer members than replicas asked for: values up to N are lowered to what there is.
	for members := 1; members <= 2; members++ {
		play(t, members, 3, 2, func(t *testing.T, s *scene) {
			for _, w := range []Quorum{2, 3, All} {
				if res, err := s.putW("x", nil, w); err != nil || res.Acks != members {
					t.Fatalf("w=%s: %+v, %v", w, res, err)
				}
			}
			wantValues(t, s.mustGet(3, nil).Set, "x")
			_, err := s.putW("x", nil, 4)
			wantError(t, err, BadQuorum, NotApplied)
		})
	}
	for _, bad := range []string{"0", "65", "-1", "x", "01", "+1", " 1", "ONE", "1.0"} {
		if q, err := ParseQuorum(bad); !errors.Is(err, ErrQuorum) {
			t.Errorf("%q is read as %v, %v", bad, q, err)
		}
	}
	for good, want := range map[string]Quorum{"": Default, "one": 1, "1": 1, "64": 64, "quorum": Majority, "all": All} {
		if q, err := ParseQuorum(good); err != nil || q != want {
			t.Errorf("%q is read as %v, %v", good, q, err)
		}
	}
}

func TestOneNodeAway(t *testing.T) {
	for away := range 3 {
		play(t, 3, 3, 2, func(t *testing.T, s *scene) {
			s.mustPut("before", nil)
			gone := s.owners(testKey)[away]
			s.lock(func() { gone.connected = false })
			s.mustPut("after", nil)
			wantValues(t, s.mustGet(2, nil).Set, "after")
			_, err := s.putW("x", nil, 3)
			wantError(t, err, QuorumImpossible, NotApplied, gone.name+":away")
			_, err = s.get(3, nil)
			wantError(t, err, QuorumImpossible, None, gone.name+":")
			// It comes back with an old record, and is repaired by a read that sees it.
			s.lock(func() { gone.connected = true })
			wantValues(t, s.mustGet(3, nil).Set, "after")
			elapse(time.Second)
			wantValues(t, s.read(gone), "after")
		})
	}
}

// A tombstone that is being collected is answered with its clock, and brought to nobody who lacks it.
func TestAMarkedTombstoneRepairsNobody(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("before", nil)
		elapse(time.Second)
		o := s.owners(testKey)
		s.lock(func() {
			o[0].marked, o[1].marked = true, true
			delete(o[2].records, string(testKey)) // removed it already
		})
		if got := s.mustGet(3, nil); len(got.Set.Clock) == 0 {
			t.Error("the clock is not answered")
		}
		elapse(time.Second)
		if _, there := o[2].records[string(testKey)]; there {
			t.Error("it is back")
		}
	})
}

func TestTwoNodesAway(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		s.lock(func() { o[0].connected, o[1].connected = false, false })
		begin := time.Now()
		_, err := s.put("x", nil)
		wantError(t, err, QuorumImpossible, NotApplied, o[0].name+":away", o[1].name+":away")
		_, err = s.get(2, nil)
		wantError(t, err, QuorumImpossible, None)
		if time.Since(begin) > 10*time.Millisecond {
			t.Fatalf("took %s to say what was known", time.Since(begin))
		}
		if o[2].calls[storagev1.Op_OP_MINT] != 0 {
			t.Fatal("a mint was sent that could not be acknowledged")
		}
	})
}

func TestSilentNodeIsPassedOver(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		s.co.budget = quorum.NewBudget(0, 0)
		silent := s.owners(testKey)[0]
		s.lock(func() { silent.meddle = func(*storagev1.Request) *meddling { return &meddling{silent: true} } })
		time.AfterFunc(300*time.Millisecond, func() { s.lock(func() { silent.suspect = true }) })
		begin := time.Now()
		for range 20 { // the silent one is among those asked in most of them
			wantValues(t, s.mustGet(2, nil).Set, "one")
		}
		if took := time.Since(begin); took < 300*time.Millisecond || took > 600*time.Millisecond {
			t.Fatalf("took %s; the node became suspect after 300 ms", took)
		}
	})
}

func TestHedgeWithinBudget(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		s.co.budget = quorum.NewBudget(0, 1)
		slow := s.owners(testKey)[0]
		s.lock(func() {
			for _, n := range s.order {
				n.p95 = 5 * time.Millisecond
			}
			slow.meddle = func(*storagev1.Request) *meddling { return &meddling{extra: time.Second} }
		})
		slowReads := 0
		for testutil.ToFloat64(s.co.metrics.hedges) == 0 {
			begin := time.Now()
			wantValues(t, s.mustGet(2, nil).Set, "one")
			if took := time.Since(begin); took > 10*time.Millisecond {
				t.Fatalf("took %s though one more could be asked", took)
			}
		}
		for range 10 {
			begin := time.Now()
			wantValues(t, s.mustGet(2, nil).Set, "one")
			if time.Since(begin) > 900*time.Millisecond {
				slowReads++
			}
		}
		if hedges := testutil.ToFloat64(s.co.metrics.hedges); hedges != 1 || slowReads == 0 {
			t.Fatalf("%v hedges with a budget of one, %d slow reads after it", hedges, slowReads)
		}
	})
}

func TestDigestMismatchIsMergedAndRepaired(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		first := s.mustPut("one", nil)
		elapse(time.Second)
		o := s.owners(testKey)
		s.lock(func() { // b misses the next write; c never had any
			o[1].meddle = func(r *storagev1.Request) *meddling { return &meddling{notSent: r.Op == storagev1.Op_OP_APPLY} }
			delete(o[2].records, testKey)
		})
		s.mustPut("two", &first.Context)
		elapse(time.Second)
		s.lock(func() { o[1].meddle = nil; delete(o[2].records, testKey) })
		wantValues(t, s.mustGet(3, nil).Set, "two")
		elapse(time.Second)
		for _, n := range o {
			wantValues(t, s.read(n), "two")
		}
		if testutil.ToFloat64(s.co.metrics.repairs) < 2 || s.co.repairs.Load() != 0 {
			t.Fatalf("%v repairs sent, %d in flight", testutil.ToFloat64(s.co.metrics.repairs), s.co.repairs.Load())
		}
		// Once all are whole, nothing is repaired any more.
		before := testutil.ToFloat64(s.co.metrics.repairs)
		for range 10 {
			wantValues(t, s.mustGet(3, nil).Set, "two")
		}
		if testutil.ToFloat64(s.co.metrics.repairs) != before {
			t.Fatal("whole replicas were repaired")
		}
	})
}

func TestRepairsAreBounded(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		s.co.cfg.MaxRepairs = 1
		o := s.owners(testKey)
		s.lock(func() { delete(o[1].records, testKey); delete(o[2].records, testKey) })
		wantValues(t, s.mustGet(3, nil).Set, "one")
		if got := testutil.ToFloat64(s.co.metrics.repairsOff); got != 1 {
			t.Fatalf("%v repairs left out, want 1", got)
		}
	})
}

func TestDamagedRecordIsNeverServed(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		bad := s.owners(testKey)[0]
		s.lock(func() {
			bad.records[testKey] = append([]byte(nil), bad.records[testKey]...)
			bad.meddle = func(*storagev1.Request) *meddling { return &meddling{damage: true} }
		})
		for range 20 {
			wantValues(t, s.mustGet(2, nil).Set, "one")
		}
		if testutil.ToFloat64(s.co.metrics.damaged) == 0 || testutil.ToFloat64(s.co.metrics.repairs) == 0 {
			t.Fatal("no damaged record was noticed, or it was not repaired")
		}
		o := s.owners(testKey)
		s.lock(func() { o[1].connected = false })
		for range 20 { // a digest of damaged bytes may still tell that they are the same; the record never counts
			res, err := s.get(2, nil)
			if err == nil {
				wantValues(t, res.Set, "one")
				continue
			}
			wantError(t, err, QuorumImpossible, None, bad.name+":damaged")
		}
	})
}

func TestReadYourWrites(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		first := s.mustPut("one", nil)
		elapse(time.Second)
		second := s.mustPut("two", &first.Context)
		elapse(time.Second)
		o := s.owners(testKey)
		// Two owners fall back to before the second write; the third, and no other, has it.
		s.lock(func() {
			for _, n := range o[:2] {
				n.records[testKey] = record.Append(nil, []byte(testKey), causal.Set{Clock: first.Context.Vector})
			}
		})
		wantValues(t, s.mustGet(2, &second.Context).Set, "two")
		wantValues(t, s.mustGet(3, nil).Set, "two") // whoever was not asked before is repaired now
		elapse(time.Second)
		for _, n := range o {
			wantValues(t, s.read(n), "two")
		}
		// Only a fallback has it.
		fallback := s.nodes[s.state.Read.Fallbacks(s.slot(), nil, 1)[0]]
		s.lock(func() {
			fallback.records[testKey] = o[0].records[testKey]
			for _, n := range o {
				delete(n.records, testKey)
			}
		})
		wantValues(t, s.mustGet(2, &second.Context).Set, "two")
		elapse(time.Second)
		// Nobody has it: the answer is never less than the context.
		s.lock(func() {
			for _, n := range s.order {
				n.records = map[string][]byte{}
			}
		})
		_, err := s.get(2, &second.Context)
		wantError(t, err, StaleRead, None)
	})
}

func (s *scene) slot() ring.Slot { return ring.SlotOf([]byte(testKey)) }

func TestFencedReadStartsAnew(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		newer := s.view.Clone()
		l := propose(t, newer, ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: s.owners(testKey)[0].id}})
		settle(t, newer)
		s.lock(func() {
			s.told = newer
			raw := s.owners(testKey)[1].records[testKey]
			for _, n := range s.order {
				n.fence.ReadEpoch = l.ID().Epoch
			}
			for _, id := range l.Primaries(s.slot()) {
				s.nodes[id].records[testKey] = raw
			}
		})
		wantValues(t, s.mustGet(3, nil).Set, "one")
		if s.State().Read.ID() != l.ID() {
			t.Fatal("the newer view was not learned")
		}
		// A node that refuses and knows nothing better is one that failed.
		s.lock(func() { s.owners(testKey)[0].fence.ReadEpoch = 99 })
		wantValues(t, s.mustGet(2, nil).Set, "one")
	})
}

func TestDeadlineAndCancel(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		for _, n := range s.order {
			n.meddle = func(*storagev1.Request) *meddling { return &meddling{silent: true} }
		}
		begin := time.Now()
		_, err := s.get(2, nil)
		wantError(t, err, DeadlinePassed, None)
		if took := time.Since(begin); took != DefaultConfig().Timeout {
			t.Fatalf("took %s without a deadline of its own", took)
		}
		ctx, cancel := context.WithCancel(s.ctx)
		time.AfterFunc(time.Millisecond, cancel)
		_, err = s.co.Get(ctx, GetRequest{Key: []byte(testKey)})
		if e := wantError(t, err, DeadlinePassed, None); !errors.Is(e, context.Canceled) {
			t.Fatalf("error is %v", e)
		}
	})
}

func TestNoLayout(t *testing.T) {
	co, err := New(DefaultConfig(), nobody{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = co.Get(t.Context(), GetRequest{Key: []byte("k")})
	wantError(t, err, NoLayout, None)
	_, err = co.Put(t.Context(), PutRequest{Key: []byte("k")})
	wantError(t, err, NoLayout, NotApplied)
	_, err = co.Inspect(t.Context(), []byte("k"))
	wantError(t, err, NoLayout, None)
}

type nobody struct{ Replicas }

func (nobody) State() *nodeclient.State { return nil }

func TestInspect(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		o := s.owners(testKey)
		s.lock(func() {
			o[1].connected = false
			delete(o[2].records, testKey)
		})
		got, err := s.co.Inspect(s.ctx, []byte(testKey))
		if err != nil || len(got.Replicas) != 5 {
			t.Fatalf("%+v, %v", got, err)
		}
		wantValues(t, got.Replicas[0].Set, "one")
		if r := got.Replicas[0]; r.Role != Primary || r.Name != o[0].name || r.Err != "" || r.Bytes == 0 {
			t.Fatalf("%+v", r)
		}
		if r := got.Replicas[1]; !strings.Contains(r.Err, "not connected") || r.Connected {
			t.Fatalf("%+v", r)
		}
		if r := got.Replicas[2]; !r.Absent || r.Err != "" {
			t.Fatalf("%+v", r)
		}
		if r := got.Replicas[3]; r.Role != Fallback || !r.Absent {
			t.Fatalf("%+v", r)
		}
	})
}

func TestExplain(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		s.mustPut("one", nil)
		elapse(time.Second)
		s.lock(func() { delete(s.owners(testKey)[0].records, testKey) })
		res, err := s.co.Get(s.ctx, GetRequest{Key: []byte(testKey), R: All, Explain: true})
		if err != nil || len(res.Reports) != 3 {
			t.Fatalf("%+v, %v", res, err)
		}
		repaired := 0
		for _, r := range res.Reports {
			if r.Did == "not asked" || r.At == 0 || r.Detail == "" || r.Name == "" {
				t.Errorf("report %+v", r)
			}
			if r.Repaired {
				repaired++
			}
		}
		if repaired != 1 {
			t.Errorf("%d repaired in %+v", repaired, res.Reports)
		}
	})
}

// A request that took long tells which replica was the slow one, also where it waits for all answers at once; a quick one has
// nothing to tell.
func TestSlowRequestsTellTheirReplicas(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		after := 500 * time.Millisecond
		quick, err := s.co.Put(s.ctx, PutRequest{Key: []byte(testKey), Value: []byte("one"), Checksum: record.Checksum([]byte("one")), W: All, SlowAfter: after})
		if err != nil || quick.Reports != nil {
			t.Fatalf("%+v, %v", quick, err)
		}
		late := s.owners(testKey)[1]
		s.lock(func() {
			late.meddle = func(*storagev1.Request) *meddling { return &meddling{extra: time.Second} }
		})
		put, err := s.co.Put(s.ctx, PutRequest{Key: []byte(testKey), Value: []byte("two"), Checksum: record.Checksum([]byte("two")), W: All, SlowAfter: after})
		if err != nil || len(put.Reports) != 3 || put.Minted == 0 || put.Minted > after {
			t.Fatalf("%+v, %v", put, err)
		}
		get, err := s.co.Get(s.ctx, GetRequest{Key: []byte(testKey), R: All, SlowAfter: after})
		if err != nil || len(get.Reports) != 3 {
			t.Fatalf("%+v, %v", get, err)
		}
		for _, r := range append(put.Reports, get.Reports...) {
			if isLate := r.At >= time.Second; r.At == 0 || isLate != (r.Name == late.name) {
				t.Errorf("%s is the late one: %+v", late.name, r)
			}
		}
	})
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{R: 99, W: 0, HedgeShare: 2, HedgeBurst: -1, MaxRepairs: -1}, nobody{})
	for _, want := range []string{"read quorum", "write quorum", "timeout", "replication time", "stand in", "share", "burst", "hedging times",
		"coalescing", "repairs"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}
