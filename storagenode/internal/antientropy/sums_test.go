package antientropy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

var whole = ring.Range{From: 0, To: ring.Slots}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still not: %s", what)
		}
	}
}

// failing is an engine of which a batch can be made to fail, with or without effect.
type failing struct {
	engine.Engine
	on *failures
}

type failures struct {
	mu     sync.Mutex
	next   bool
	effect bool
}

func (f *failing) Apply(b *engine.Batch, sync bool) error {
	f.on.mu.Lock()
	fail, effect := f.on.next, f.on.effect
	f.on.next = false
	f.on.mu.Unlock()
	if !fail {
		return f.Engine.Apply(b, sync)
	}
	if effect {
		if err := f.Engine.Apply(b, sync); err != nil {
			return err
		}
	}
	return errors.New("injected failure")
}

func open(t *testing.T, opener engine.Opener) (*kv.Store, *Sums) {
	t.Helper()
	sums, err := NewSums(zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := kv.Default()
	cfg.Open, cfg.Observer, cfg.ReopenMaxDelay, cfg.BatchMaxItems = opener, sums, 10*time.Millisecond, 8
	s, err := kv.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, sums
}

// keep runs a keeper until the result is called.
func keep(sums *Sums, store Store, verify time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	k := keeper{sums: sums, store: store, every: verify}
	owned.Go(func() { k.run(ctx) })
	return func() { cancel(); owned.Wait() }
}

func put(s *kv.Store, key, value string, done chan<- error) error {
	_, err := s.Mint(kv.Mint{Key: []byte(key), Value: []byte(value), Checksum: record.Checksum([]byte(value))}, func(err error) { done <- err })
	return err
}

// rebuilt makes the tree of what the store holds, naively.
func rebuilt(t *testing.T, s *kv.Store) *merkle.Tree {
	t.Helper()
	tree := new(merkle.Tree)
	err := s.Scan(whole, nil, func(key, rec []byte) (bool, error) {
		d, err := record.DigestOf(rec)
		tree.Add(ring.SlotOf(key), merkle.Leaf(key, d))
		return true, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func same(t *testing.T, s *kv.Store, sums *Sums) bool {
	t.Helper()
	want := rebuilt(t, s)
	sums.mu.Lock()
	defer sums.mu.Unlock()
	return *want == *sums.tree
}

// Counted while it is written to, with batches that fail, the sums are exact in the end and were never found wrong.
func TestSumsAreExactUnderWritesAndFailures(t *testing.T) {
	for _, effect := range []bool{false, true} {
		t.Run(fmt.Sprint("effect ", effect), func(t *testing.T) {
			disk, on := memory.NewStore(), &failures{effect: effect}
			opener := func() (engine.Engine, error) {
				e, err := disk.Open()
				if err != nil {
					return nil, err
				}
				return &failing{Engine: e, on: on}, nil
			}
			for life := range 3 { // each finds what the one before left
				s, sums := open(t, opener)
				stop := keep(sums, s, time.Millisecond)
				var writers sync.WaitGroup
				for n := range 4 {
					writers.Go(func() {
						rnd := rand.New(rand.NewPCG(uint64(n), uint64(life)))
						done := make(chan error, 1)
						for i := range 300 {
							if n == 0 && i%100 == 50 {
								on.mu.Lock()
								on.next = true
								on.mu.Unlock()
							}
							if put(s, fmt.Sprintf("key-%d", rnd.IntN(200)), fmt.Sprint(i), done) == nil {
								<-done // also ErrInDoubt
							}
						}
					})
				}
				writers.Wait()
				eventually(t, "open and counted", func() bool { return s.Stats().Available && sums.Ready(whole) })
				stop()
				if !same(t, s, sums) {
					t.Fatalf("life %d: sums and records differ", life)
				}
				if n := testutil.ToFloat64(sums.metrics.mismatches); n != 0 {
					t.Errorf("life %d: %v slots were found wrong", life, n)
				}
				if s.Stats().Reopenings == 0 {
					t.Errorf("life %d: no batch failed", life)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A sum that is wrong, for whatever reason, is noticed and corrected.
func TestVerificationCorrectsASum(t *testing.T) {
	s, sums := open(t, memory.NewStore().Open)
	done := make(chan error, 1)
	for i := range 100 {
		if err := put(s, fmt.Sprint("key-", i), "value", done); err != nil {
			t.Fatal(err)
		}
		<-done
	}
	stop := keep(sums, s, time.Millisecond)
	eventually(t, "counted", func() bool { return sums.Ready(whole) })
	sums.mu.Lock()
	sums.tree.Add(ring.SlotOf([]byte("key-7")), merkle.Sum{Hi: 1})
	sums.tree.Add(12345, merkle.Sum{Lo: 1})
	sums.mu.Unlock()
	eventually(t, "corrected", func() bool { return testutil.ToFloat64(sums.metrics.mismatches) == 2 })
	stop()
	if !same(t, s, sums) {
		t.Error("sums and records differ")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// damagedAt refuses to scan a slot whole.
type damagedAt struct {
	*kv.Store
	slot ring.Slot
}

func (d damagedAt) ScanObserved(r ring.Range, begin func(), fn func(key, rec []byte) error) error {
	err := d.Store.ScanObserved(r, begin, fn)
	if err == nil && r.Contains(d.slot) {
		return fmt.Errorf("%w: slot %d", engine.ErrDamaged, d.slot)
	}
	return err
}

// A record that cannot be read holds up no other slot.
func TestADamagedSlotHoldsUpNoOther(t *testing.T) {
	s, sums := open(t, memory.NewStore().Open)
	stop := keep(sums, damagedAt{s, 777}, time.Hour)
	eventually(t, "counted", func() bool { return sums.Ready(whole) })
	stop()
	if n := testutil.ToFloat64(sums.metrics.damaged); n != 1 {
		t.Errorf("%v damaged slots", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadyTellsGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sums, err := NewSums(zerolog.Nop(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range sums.counted {
			sums.counted[i] = ^uint64(0)
		}
		sums.missing = 0
		var lost []kv.Change
		for range rapid.IntRange(0, 5).Draw(t, "lost") {
			lost = append(lost, kv.Change{Hash: rapid.Uint64().Draw(t, "hash")})
		}
		if lost != nil {
			sums.InDoubt(lost)
		}
		r := ring.Range{From: ring.Slot(rapid.IntRange(0, ring.Slots-1).Draw(t, "from"))}
		r.To = r.From + ring.Slot(rapid.IntRange(1, ring.Slots-int(r.From)).Draw(t, "width"))
		want := true
		for _, c := range lost {
			want = want && !r.Contains(ring.Slot(c.Hash>>(64-ring.SlotBits)))
		}
		if got := sums.Ready(r); got != want {
			t.Fatalf("%v ready: %v, want %v", r, got, want)
		}
	})
}

// Shared ranges against the owners of every slot.
func TestSharedRangesAgainstOwners(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		self := l.Members()[0].ID
		shares := sharedRanges(l, self)
		for s := ring.Slot(0); s < ring.Slots; s += ring.Slot(rapid.IntRange(1, 5000).Draw(t, "step")) {
			for _, m := range l.Members()[1:] {
				want := l.Owns(self, s) && l.Owns(m.ID, s)
				got := false
				for _, r := range shares[m.ID] {
					got = got || r.Contains(s)
				}
				if got != want {
					t.Fatalf("slot %d with %v: %v, want %v", s, m.ID, got, want)
				}
			}
		}
		for id, ranges := range shares {
			for i := 1; i < len(ranges); i++ {
				if ranges[i-1].To >= ranges[i].From {
					t.Fatalf("ranges with %v touch or overlap: %v", id, ranges)
				}
			}
		}
	})
}

func drawLayout(t *rapid.T) *ring.Layout {
	member := func(i int) ring.Member {
		m := ring.Member{ID: ring.NodeID{15: byte(i + 1)}, Name: fmt.Sprint("n", i), Weight: 1}
		m.Tokens = ring.RandomTokens(m.ID, 16, func(ring.Slot) bool { return false })
		return m
	}
	v := ring.NewView(ring.Found(ring.ClusterID{1}, member(0), 3, 2))
	var joins []ring.Change
	for i := range rapid.IntRange(1, 6).Draw(t, "joiners") {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: member(i + 1)})
	}
	l, err := v.Propose(joins)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// What is cut off and what is left make what was there.
func TestTakeSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ranges []ring.Range
		at := ring.Slot(0)
		for range rapid.IntRange(1, 6).Draw(t, "ranges") {
			from := at + ring.Slot(rapid.IntRange(1, 5).Draw(t, "gap"))
			at = from + ring.Slot(rapid.IntRange(1, 9).Draw(t, "width"))
			ranges = append(ranges, ring.Range{From: from, To: at})
		}
		n := rapid.IntRange(1, 60).Draw(t, "slots")
		first, rest := takeSlots(ranges, n)
		if got := slotsOf(first); got != min(n, slotsOf(ranges)) {
			t.Fatalf("%d slots taken of %v, want %d", got, ranges, n)
		}
		var a, b []ring.Slot
		for _, r := range ranges {
			for s := r.From; s < r.To; s++ {
				a = append(a, s)
			}
		}
		for _, r := range append(first, rest...) {
			for s := r.From; s < r.To; s++ {
				b = append(b, s)
			}
		}
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%v became %v and %v", ranges, first, rest)
		}
	})
}
