package kv

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

func TestMintThenReadThenReplace(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		if _, err := s.Read([]byte("k")); !errors.Is(err, ErrNotFound) {
			t.Fatalf("read of an absent key: %v", err)
		}
		first := mustMint(t, s, write("k", "one"))
		if got := mustRead(t, s, "k"); !bytes.Equal(got, first.Record) {
			t.Fatal("the durable record is not the minted one")
		}
		if first.Dot != (causal.Dot{Actor: s.Actor(), Counter: 1}) {
			t.Fatalf("first dot is %s", first.Dot)
		}
		mustMint(t, s, write("k", "two")) // no context: replaces all
		if got := values(t, "k", mustRead(t, s, "k")); !slices.Equal(got, []string{"two"}) {
			t.Fatalf("values are %q", got)
		}
		stale := write("k", "three")
		stale.Context = &causal.Context{Vector: causal.Vector{first.Dot}}
		mustMint(t, s, stale)
		if got := values(t, "k", mustRead(t, s, "k")); !slices.Equal(got, []string{"two", "three"}) {
			t.Fatalf("a stale writer must make a sibling: %q", got)
		}
		gone := Mint{Key: []byte("k"), Tombstone: true}
		mustMint(t, s, gone)
		set := decode(t, "k", mustRead(t, s, "k"))
		if len(set.Siblings) != 1 || !set.Siblings[0].Tombstone {
			t.Fatalf("after a deletion: %+v", set.Siblings)
		}
		mustMint(t, s, write("k2", ""))
		if st := s.Stats(); st.Keys != 2 || st.Minted != 5 || st.Bytes != int64(len(mustRead(t, s, "k"))+len(mustRead(t, s, "k2"))) {
			t.Fatalf("stats %+v", st)
		}
	})
}

func TestMintSeesPendingAndReadDoesNot(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s := open(t, h.opener(opener), nil)
		mustMint(t, s, write("k", "durable"))
		release := h.hold()
		one, two, three := newOutcome(t), newOutcome(t), newOutcome(t)
		m1, err := s.Mint(write("k", "one"), one.mint)
		if err != nil {
			t.Fatal(err)
		}
		ctx := causal.Context{Dots: []causal.Dot{m1.Dot}}
		next := write("k", "two")
		next.Context = &ctx // covers only a write that is not durable
		m2, err := s.Mint(next, two.mint)
		if err != nil {
			t.Fatal(err)
		}
		if got := values(t, "k", m2.Record); !slices.Equal(got, []string{"two"}) {
			t.Fatalf("the mint did not see the pending write: %q", got)
		}
		if err := s.Apply([]byte("k"), foreign("k", "other", dotOf(9, 1)), three.apply); err != nil {
			t.Fatal(err)
		}
		if got := values(t, "k", mustRead(t, s, "k")); !slices.Equal(got, []string{"durable"}) {
			t.Fatalf("a read showed what is not durable: %q", got)
		}
		err = s.Scan(ring.Range{To: ring.Slots}, nil, func(key, rec []byte) (bool, error) {
			if got := values(t, string(key), rec); !slices.Equal(got, []string{"durable"}) {
				t.Errorf("a scan showed what is not durable: %q", got)
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if one.called() || two.called() || three.called() {
			t.Fatal("called durable before the commit")
		}
		release()
		for _, o := range []*outcome{one, two, three} {
			if _, err := o.wait(); err != nil {
				t.Fatal(err)
			}
		}
		got := values(t, "k", mustRead(t, s, "k"))
		slices.Sort(got)
		if !slices.Equal(got, []string{"other", "two"}) {
			t.Fatalf("values are %q", got)
		}
		if st := s.Stats(); st.Keys != 1 || st.QueueItems != 0 || st.QueueBytes != 0 {
			t.Fatalf("stats %+v", st)
		}
	})
}

// A hot key's writes in one batch are one write to the engine, and everyone is told.
func TestGroupCommit(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	release := h.hold()
	var outs []*outcome
	for i := range 100 {
		o := newOutcome(t)
		outs = append(outs, o)
		if _, err := s.Mint(write("hot", fmt.Sprint(i)), o.mint); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, h.entered)
	release()
	for _, o := range outs {
		if _, err := o.wait(); err != nil {
			t.Fatal(err)
		}
	}
	if h.writes > 2 || h.synced != h.writes {
		t.Fatalf("%d batches, %d synced, for 100 writes that were queued together", h.writes, h.synced)
	}
	if got := s.Stats().Engine.Records; got > 4 { // a record and the state in each
		t.Fatalf("the engine got %d records", got)
	}
	if got := values(t, "hot", mustRead(t, s, "hot")); !slices.Equal(got, []string{"99"}) {
		t.Fatalf("values are %q", got)
	}
}

// What is durable earlier was queued earlier, over all keys, and node state is in the same order.
func TestDurabilityOrder(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s := open(t, h.opener(opener), func(c *Config) { c.BatchMaxItems = 3 })
		release := h.hold()
		var mu sync.Mutex
		var order []int
		all := make(chan struct{})
		note := func(i int) func(error) {
			return func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("write %d: %v", i, err)
				}
				if order = append(order, i); len(order) == 50 {
					close(all)
				}
			}
		}
		for i := range 50 {
			if i%7 == 3 {
				if err := s.PutMeta("state", []byte{byte(i)}, note(i)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if _, err := s.Mint(write(fmt.Sprint("k", i%5), fmt.Sprint(i)), note(i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.GetMeta("state"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("node state was there before its commit: %v", err)
		}
		release()
		receive(t, all)
		if !slices.IsSorted(order) {
			t.Fatalf("order of callbacks: %v", order)
		}
		if v, err := s.GetMeta("state"); err != nil || !bytes.Equal(v, []byte{45}) {
			t.Fatalf("node state is %v, %v", v, err)
		}
	})
}

func TestApply(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		a := foreign("k", "a", dotOf(1, 1))
		if !mustApply(t, s, "k", slices.Clone(a)) {
			t.Fatal("a new record changed nothing")
		}
		if !bytes.Equal(mustRead(t, s, "k"), a) {
			t.Fatal("a new record is not stored as it came")
		}
		if mustApply(t, s, "k", slices.Clone(a)) {
			t.Fatal("the same record changed something")
		}
		b := foreign("k", "b", dotOf(2, 1), dotOf(1, 1)) // supersedes a
		if !mustApply(t, s, "k", slices.Clone(b)) || !bytes.Equal(mustRead(t, s, "k"), b) {
			t.Fatal("a newer record is not stored as it came")
		}
		if mustApply(t, s, "k", slices.Clone(a)) {
			t.Fatal("an older record changed something")
		}
		c := foreign("k", "c", dotOf(3, 1))
		if !mustApply(t, s, "k", slices.Clone(c)) {
			t.Fatal("a concurrent record changed nothing")
		}
		want := record.Append(nil, []byte("k"), causal.Merge(decode(t, "k", b), decode(t, "k", c)))
		if got := mustRead(t, s, "k"); !bytes.Equal(got, want) {
			t.Fatalf("merged values are %q", values(t, "k", got))
		}
	})
}

// An apply that changes nothing waits for the pending write that it would repeat.
func TestApplyUnchangedIsDurableWithThePendingWrite(t *testing.T) {
	for _, fail := range []bool{false, true} {
		h := newHooks()
		s := open(t, h.opener(memory.NewStore().Open), nil)
		release := h.hold()
		first, again := newOutcome(t), newOutcome(t)
		rec := foreign("k", "v", dotOf(1, 1))
		if err := s.Apply([]byte("k"), rec, first.apply); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply([]byte("k"), slices.Clone(rec), again.apply); err != nil {
			t.Fatal(err)
		}
		if again.called() {
			t.Fatal("called done before the equal record was durable")
		}
		if fail {
			h.set(func(h *hooks) { h.applyErr = errInjected })
		}
		release()
		changed, err := first.wait()
		changedAgain, errAgain := again.wait()
		if fail {
			if !errors.Is(err, ErrInDoubt) || !errors.Is(errAgain, ErrInDoubt) || changed || changedAgain {
				t.Fatalf("after a failed commit: %v %v, %v %v", changed, err, changedAgain, errAgain)
			}
			continue
		}
		if err != nil || errAgain != nil || !changed || changedAgain {
			t.Fatalf("%v %v, %v %v", changed, err, changedAgain, errAgain)
		}
		now := newOutcome(t)
		if err := s.Apply([]byte("k"), slices.Clone(rec), now.apply); err != nil || !now.called() {
			t.Fatalf("an apply that changes nothing durable must be done at once: %v", err)
		}
	}
}

func TestReplayingEverythingChangesNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		rng := newRand(7)
		type piece struct {
			key string
			rec []byte
		}
		var all []piece
		for i := range 120 {
			key := fmt.Sprint("k", rng.IntN(8))
			m := write(key, fmt.Sprint("value ", i))
			if rng.IntN(2) == 0 { // a stale or empty context makes siblings
				m.Context = &causal.Context{}
				if len(all) > 0 {
					if old := all[rng.IntN(len(all))]; old.key == key {
						m.Context.Vector = decode(t, key, old.rec).Clock
					}
				}
			}
			if rng.IntN(4) == 0 {
				rec := foreign(key, fmt.Sprint("foreign ", i), dotOf(byte(rng.IntN(3)+1), uint64(i+1)))
				mustApply(t, s, key, slices.Clone(rec))
				all = append(all, piece{key, rec})
				continue
			}
			all = append(all, piece{key, slices.Clone(mustMint(t, s, m).Record)})
		}
		before := map[string][]byte{}
		for _, p := range all {
			before[p.key] = mustRead(t, s, p.key)
		}
		stats := s.Stats()
		all = append(append(slices.Clone(all), all...), all...)
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, p := range all {
			if mustApply(t, s, p.key, slices.Clone(p.rec)) {
				t.Fatalf("replaying a record of %s changed it", p.key)
			}
		}
		for key, rec := range before {
			if !bytes.Equal(mustRead(t, s, key), rec) {
				t.Fatalf("%s is different after the replay", key)
			}
		}
		if now := s.Stats(); now.CommitNumber != stats.CommitNumber || now.Bytes != stats.Bytes {
			t.Fatalf("the replay wrote: %+v, before %+v", now, stats)
		}
	})
}

func TestBehindAndBase(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		d := dotOf(7, 3)
		m := write("k", "mine")
		m.Context = &causal.Context{Dots: []causal.Dot{d}}
		if _, err := s.Mint(m, nil); !errors.Is(err, ErrBehind) {
			t.Fatalf("a mint behind its context: %v", err)
		}
		base := foreign("k", "theirs", d)
		bad := m
		bad.Base = slices.Clone(base)
		bad.Base[len(bad.Base)-1] ^= 1
		if _, err := s.Mint(bad, nil); !errors.Is(err, ErrInvalid) {
			t.Fatalf("a damaged base: %v", err)
		}
		short := m
		short.Base = foreign("k", "earlier", dotOf(7, 2))
		if _, err := s.Mint(short, nil); !errors.Is(err, ErrBehind) {
			t.Fatalf("a base that does not cover the dot: %v", err)
		}
		if _, err := s.Read([]byte("k")); !errors.Is(err, ErrNotFound) {
			t.Fatalf("a refused mint left its base behind: %v", err)
		}
		m.Base = base
		out := mustMint(t, s, m)
		set := decode(t, "k", mustRead(t, s, "k"))
		if len(set.Siblings) != 1 || string(set.Siblings[0].Value) != "mine" || !set.Clock.Covers(d) || !set.Clock.Covers(out.Dot) {
			t.Fatalf("minted over the base: %+v", set)
		}
	})
}

func TestLimitsStoreNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		m := write("k", "v")
		m.Context = &causal.Context{} // covers nothing
		for range 64 {
			mustMint(t, s, m)
		}
		before := mustRead(t, s, "k")
		if _, err := s.Mint(m, nil); !errors.Is(err, ErrTooManySiblings) {
			t.Fatalf("the 65th sibling: %v", err)
		}
		big := write("big", strings.Repeat("x", 1<<20))
		big.Context = &causal.Context{}
		mustMint(t, s, big)
		mustMint(t, s, big)
		bigBefore := mustRead(t, s, "big")
		if _, err := s.Mint(big, nil); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("a record above 3 MiB: %v", err)
		}
		clocks := write("clock", "v")
		for i := range 200 {
			clocks.Base = nil
			mustApply(t, s, "clock", foreign("clock", "v", causal.Dot{Actor: causal.Actor{1, byte(i)}, Counter: 1}))
		}
		if _, err := s.Mint(clocks, nil); !errors.Is(err, ErrClockTooLarge) {
			t.Fatalf("a clock of 200 actors: %v", err)
		}
		mustMint(t, s, write("other", "v")) // all before it is committed
		if !bytes.Equal(mustRead(t, s, "k"), before) || !bytes.Equal(mustRead(t, s, "big"), bigBefore) {
			t.Fatal("a refused write left something behind")
		}
	})
}

func TestRecordBeyondTheEngine(t *testing.T) {
	s := open(t, memory.NewStore().Open, func(c *Config) {
		c.Limits = causal.Limits{MaxSiblings: 64, MaxBytes: 64 << 20}
	})
	if _, err := s.Mint(write("k", strings.Repeat("x", 9<<20)), nil); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a record beyond the engine's batch: %v", err)
	}
	mustMint(t, s, write("k", strings.Repeat("x", 7<<20))) // beyond BatchMaxBytes: a batch of its own
}

func TestInvalidInput(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	crc := write("k", "v")
	crc.Checksum++
	tomb := write("k", "v")
	tomb.Tombstone = true
	ctx := write("k", "v")
	ctx.Context = &causal.Context{Vector: causal.Vector{dotOf(2, 1), dotOf(1, 1)}}
	for name, m := range map[string]Mint{
		"no key": write("", "v"), "long key": write(strings.Repeat("k", MaxKey+1), "v"), "checksum": crc,
		"tombstone with a value": tomb, "context out of order": ctx,
	} {
		if _, err := s.Mint(m, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("mint with %s: %v", name, err)
		}
	}
	good := foreign("k", "v", dotOf(1, 1))
	bad := slices.Clone(good)
	bad[len(bad)-1] ^= 1
	for name, rec := range map[string][]byte{
		"damaged value": bad, "cut short": good[:len(good)-1], "empty": nil, "other key": foreign("q", "v", dotOf(1, 1)),
		"no write": record.Append(nil, []byte("k"), causal.Set{}),
	} {
		if err := s.Apply([]byte("k"), rec, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("apply of %s: %v", name, err)
		}
	}
	if _, err := s.Read(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("read of no key: %v", err)
	}
	if err := s.PutMeta("", nil, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("node state without a name: %v", err)
	}
	mustMint(t, s, write(strings.Repeat("k", MaxKey), "v")) // longer than what fits into an op
	mustRead(t, s, strings.Repeat("k", MaxKey))
}

func TestOverloadIsRefusedAtOnce(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), func(c *Config) { c.QueueMaxItems, c.QueueMaxBytes = 10, 10_000 })
	release := h.hold()
	var outs []*outcome
	mint := func(m Mint) error {
		o := newOutcome(t)
		_, err := s.Mint(m, o.mint)
		if err == nil {
			outs = append(outs, o)
		}
		return err
	}
	for i := range 10 {
		if err := mint(write(fmt.Sprint("k", i), "v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := mint(write("k0", "v")); !errors.Is(err, ErrOverloaded) {
		t.Fatalf("the eleventh write: %v", err)
	}
	if err := s.Apply([]byte("a"), foreign("a", "v", dotOf(1, 1)), nil); !errors.Is(err, ErrOverloaded) {
		t.Fatalf("the eleventh write, an apply: %v", err)
	}
	meta := newOutcome(t)
	if err := s.PutMeta("layout", []byte("x"), meta.mint); err != nil {
		t.Fatalf("node state behind clients' writes: %v", err)
	}
	release()
	for _, o := range append(outs, meta) {
		if _, err := o.wait(); err != nil {
			t.Fatal(err)
		}
	}
	outs = nil
	release = h.hold()
	if err := mint(write("big", strings.Repeat("x", 20_000))); err != nil {
		t.Fatalf("one write is always taken: %v", err)
	}
	if err := mint(write("small", "v")); !errors.Is(err, ErrOverloaded) {
		t.Fatalf("beyond the bound of bytes: %v", err)
	}
	release()
	if _, err := outs[0].wait(); err != nil {
		t.Fatal(err)
	}
	mustMint(t, s, write("small", "v"))
}

func TestExpiredIsDropped(t *testing.T) {
	c := newClock()
	s := open(t, memory.NewStore().Open, func(cfg *Config) { cfg.Now = c.Now })
	m := write("k", "v")
	m.Deadline = c.Now()
	if _, err := s.Mint(m, nil); !errors.Is(err, ErrExpired) {
		t.Fatalf("a mint at its deadline: %v", err)
	}
	m.Deadline = c.Now().Add(1)
	mustMint(t, s, m)
}

// A mint that waited for its key's lock past its deadline is dropped too.
func TestExpiredWhileWaitingForTheKey(t *testing.T) {
	c := newClock()
	s := open(t, memory.NewStore().Open, func(cfg *Config) { cfg.Now = c.Now })
	p, err := s.find([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	p.stripe.mu.Lock()
	m := write("k", "v")
	m.Deadline = c.Now().Add(time.Second)
	result := make(chan error, 1)
	go func() {
		_, err := s.Mint(m, nil)
		result <- err
	}()
	c.advance(time.Second)
	p.stripe.mu.Unlock()
	if err := <-result; !errors.Is(err, ErrExpired) {
		t.Fatalf("a mint past its deadline: %v", err)
	}
}

func TestHybridTime(t *testing.T) {
	c := newClock()
	s := open(t, memory.NewStore().Open, func(cfg *Config) { cfg.Now = c.Now })
	at := func(key string, out Minted) uint64 {
		for _, sib := range decode(t, key, out.Record).Siblings {
			if sib.Dot == out.Dot {
				return sib.Time
			}
		}
		t.Fatal("no such sibling")
		return 0
	}
	now := uint64(c.Now().UnixMilli()) << 16
	first := at("k", mustMint(t, s, write("k", "1")))
	second := at("k", mustMint(t, s, write("k", "2")))
	c.advance(-time.Hour)
	third := at("k", mustMint(t, s, write("k", "3")))
	if first != now || second != now+1 || third != now+2 {
		t.Fatalf("times %x %x %x, now %x", first, second, third, now)
	}
	far := causal.Set{Clock: causal.Vector{dotOf(1, 1)}, Siblings: []causal.Sibling{{Dot: dotOf(1, 1), Time: math.MaxUint64}}}
	mustApply(t, s, "far", record.Append(nil, []byte("far"), far))
	if got := at("far", mustMint(t, s, write("far", "v"))); got != math.MaxUint64 {
		t.Fatalf("time after the last time is %x", got)
	}
}

func TestScanBySlots(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		var keys []string
		for i := range 300 {
			keys = append(keys, fmt.Sprint("key-", i))
		}
		keys = append(keys, "\x00", "\xff\xff", "key-1\x00", strings.Repeat("\xff", MaxKey))
		for _, k := range keys {
			mustMint(t, s, write(k, "value of "+k))
		}
		meta := newOutcome(t)
		if err := s.PutMeta("not a record", nil, meta.mint); err != nil {
			t.Fatal(err)
		}
		if _, err := meta.wait(); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(keys, func(a, b string) int {
			return bytes.Compare(appendRecordKey(nil, ring.Hash([]byte(a)), []byte(a)), appendRecordKey(nil, ring.Hash([]byte(b)), []byte(b)))
		})
		scan := func(r ring.Range, after []byte, limit int) (got []string) {
			err := s.Scan(r, after, func(key, rec []byte) (bool, error) {
				if v := values(t, string(key), rec); !slices.Equal(v, []string{"value of " + string(key)}) {
					t.Errorf("%q has %q", key, v)
				}
				got = append(got, string(key))
				return len(got) != limit, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		rng := newRand(3)
		for range 50 {
			from, to := ring.Slot(rng.IntN(ring.Slots+1)), ring.Slot(rng.IntN(ring.Slots+1))
			if rng.IntN(5) == 0 {
				from, to = 0, ring.Slots
			}
			var want []string
			for _, k := range keys {
				if slot := ring.SlotOf([]byte(k)); from <= slot && slot < to {
					want = append(want, k)
				}
			}
			if got := scan(ring.Range{From: from, To: to}, nil, -1); !slices.Equal(got, want) {
				t.Fatalf("slots %d to %d: %d keys, want %d", from, to, len(got), len(want))
			}
			var paged []string
			var after []byte
			for {
				page := scan(ring.Range{From: from, To: to}, after, 1+rng.IntN(40))
				if len(page) == 0 {
					break
				}
				paged = append(paged, page...)
				after = []byte(page[len(page)-1])
			}
			if !slices.Equal(paged, want) {
				t.Fatalf("slots %d to %d in pages: %d keys, want %d", from, to, len(paged), len(want))
			}
		}
		stop := errors.New("stop")
		if err := s.Scan(ring.Range{To: ring.Slots}, nil, func(_, _ []byte) (bool, error) { return true, stop }); !errors.Is(err, stop) {
			t.Fatalf("the callback's error: %v", err)
		}
	})
}

func TestCloseDrains(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		for _, mode := range []SyncMode{SyncAlways, SyncInterval, SyncNone} {
			h := newHooks()
			s := open(t, h.opener(opener), func(c *Config) { c.Sync, c.BatchMaxItems = mode, 7 })
			release := h.hold()
			var outs []*outcome
			for i := range 50 {
				o := newOutcome(t)
				outs = append(outs, o)
				if _, err := s.Mint(write(fmt.Sprint(mode, i), "v"), o.mint); err != nil {
					t.Fatal(err)
				}
			}
			var closers sync.WaitGroup
			for range 3 {
				closers.Go(func() {
					if err := s.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
			}
			eventually(t, "refusal", func() bool {
				_, err := s.Mint(write("late", "v"), nil)
				return errors.Is(err, ErrClosed)
			})
			release()
			closers.Wait()
			for _, o := range outs {
				if !o.called() {
					t.Fatal("Close returned before the outcome of a write was told")
				}
				if _, err := o.wait(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Read([]byte("late")); !errors.Is(err, ErrClosed) {
				t.Fatalf("read after Close: %v", err)
			}
			again := open(t, opener, nil)
			for i := range 50 {
				mustRead(t, again, fmt.Sprint(mode, i))
			}
			if again.Actor() == s.Actor() {
				t.Fatal("a start kept the actor")
			}
			if st := again.Stats(); st.CommitNumber != s.Stats().CommitNumber || st.Keys != s.Stats().Keys || st.Bytes != s.Stats().Bytes {
				t.Fatalf("state after a restart: %+v", st)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Where the last write wins, a mint replaces what its context does not cover, also at a node whose clock went back; but
// it is refused where the node lacks what the context names.
func TestLastWriteWinsMint(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		c := newClock()
		s := open(t, opener, func(cfg *Config) { cfg.Now = c.Now })
		mustMint(t, s, write("k", "one"))
		c.advance(-time.Hour)
		m := write("k", "two")
		m.Context = &causal.Context{}
		m.LastWriteWins = true
		got := mustMint(t, s, m)
		wantValues(t, "k", got.Record, "two")
		if set := decode(t, "k", got.Record); set.Siblings[0].Dot != got.Dot {
			t.Errorf("the record shows %v, not the new write %v", set.Siblings, got.Dot)
		}
		m.Context = &causal.Context{Dots: []causal.Dot{dotOf(9, 9)}}
		if _, err := s.Mint(m, func(error) {}); !errors.Is(err, causal.ErrBehind) {
			t.Errorf("a context that the node does not cover: %v", err)
		}
	})
}
