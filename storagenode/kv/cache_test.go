package kv

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// A reader that was slow must not put what it read over what was written meanwhile.
func TestFillBehindAPutIsDropped(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	p, err := s.find([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	c := newCache(1 << 20)
	older, newer := foreign("k", "older", dotOf(1, 1)), foreign("k", "newer", dotOf(1, 2))
	_, _, ticket := c.get(p)
	c.fill(p, older, ticket)
	if e, _, _ := c.get(p); !bytes.Equal(e.rec, older) {
		t.Fatal("not filled")
	}
	everything := ring.Range{To: ring.Slots}
	c.drop(everything)
	_, found, ticket := c.get(p)
	if found {
		t.Fatal("what was dropped is still cached")
	}
	o := newOp(p.disk, newer)
	o.hash = p.hash
	c.put(o)
	c.fill(p, older, ticket)
	if e, _, _ := c.get(p); !bytes.Equal(e.rec, newer) {
		t.Fatal("an older record is cached over a newer one")
	}
	o.rec = nil
	c.put(o)
	if _, found, _ := c.get(p); found {
		t.Fatal("a record that was removed is still cached")
	}
	_, _, ticket = c.get(p)
	c.drop(everything)
	c.fill(p, older, ticket)
	if _, found, _ := c.get(p); found {
		t.Fatal("what was read before everything was dropped is cached")
	}
}

func TestCacheIsBounded(t *testing.T) {
	const bound = 1 << 20
	c := newCache(bound)
	p := &place{from: recordPrefix}
	for i := range 5000 {
		key := fmt.Appendf(nil, "key %d", i)
		p.hash = uint64(i) * 0x9E3779B97F4A7C15
		p.disk = appendRecordKey(p.disk[:0], p.hash, key)
		o := newOp(p.disk, foreign(string(key), strings.Repeat("v", i%6000), dotOf(1, 1)))
		o.hash = p.hash
		if i%3 == 0 {
			c.fill(p, o.rec, c.shard(p.hash).puts)
		} else {
			c.put(o)
		}
		if e, found, _ := c.get(p); !found || e.size != len(o.rec) || e.whole() != (len(o.rec) <= cachedWhole) || !bytes.HasPrefix(o.rec, e.rec) {
			t.Fatalf("record %d of %d bytes: %+v", i, len(o.rec), e)
		}
	}
	total := 0
	for i := range c.shards {
		total += checkShard(t, &c.shards[i])
	}
	if total > bound || total < bound/2 {
		t.Fatalf("%d bytes, the bound is %d", total, bound)
	}
}

// checkShard fails unless a shard's index, slots, free slots and bytes agree, and returns its bytes.
func checkShard(t *testing.T, s *cacheShard) (sum int) {
	t.Helper()
	empty := make(map[uint32]bool)
	for _, i := range s.free {
		if empty[i] || s.slots[i].key != nil || s.slots[i].rec != nil {
			t.Fatalf("slot %d is free twice, or not empty", i)
		}
		empty[i] = true
	}
	for i := range s.slots {
		e := &s.slots[i]
		if empty[uint32(i)] {
			continue
		}
		if at, found := s.index[e.hash]; e.key == nil || !found || at != uint32(i) {
			t.Fatalf("slot %d holds key %q, and the index says %d, %v", i, e.key, at, found)
		}
		sum += e.weight()
	}
	if sum != s.bytes || len(s.index) != len(s.slots)-len(s.free) {
		t.Fatalf("%d bytes are counted and %d held, in %d of %d slots, %d of them free", s.bytes, sum, len(s.index), len(s.slots), len(s.free))
	}
	return sum
}

// The cache beside a plain map of what it was given: whatever it finds is the last of that, and nothing is found of what was
// removed, dropped, or read before the last put.
func TestCacheTellsTheLastOrNothing(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newCache(cacheShards * (2 + rng.IntN(30)) << 10)
		last := make(map[uint64][]byte)
		p := &place{from: recordPrefix}
		for step := range 3000 {
			n := rng.IntN(60)
			key := fmt.Appendf(nil, "key %d", n)
			p.hash = uint64(n)<<(64-ring.SlotBits) + uint64(n%3) // in three shards
			p.disk = appendRecordKey(p.disk[:0], p.hash, key)
			e, found, ticket := c.get(p)
			if want := last[p.hash]; found && (want == nil || e.size != len(want) || !bytes.HasPrefix(want, e.rec) || e.whole() != (e.size <= cachedWhole)) {
				t.Fatalf("seed %d, step %d: of %q there are %d bytes of %d, and there should be %d", seed, step, key, len(e.rec), e.size, len(want))
			}
			rec := foreign(string(key), strings.Repeat("v", rng.IntN(5000)), dotOf(1, uint64(step+1)))
			o := newOp(p.disk, rec)
			o.hash = p.hash
			switch rng.IntN(10) {
			case 0:
				o.rec = nil
				c.put(o)
				delete(last, p.hash)
			case 1:
				o.mark = setMark
				c.put(o)
				delete(last, p.hash)
			case 2:
				from := ring.Slot(rng.IntN(60))
				r := ring.Range{From: from, To: from + 10}
				c.drop(r)
				for hash := range last {
					if r.Contains(ring.Slot(hash >> (64 - ring.SlotBits))) {
						delete(last, hash)
					}
				}
			case 3, 4, 5:
				if last[p.hash] == nil {
					c.fill(p, rec, ticket)
					last[p.hash] = rec
				}
			case 6: // too late
				c.put(o)
				last[p.hash] = rec
				c.fill(p, foreign(string(key), "older", dotOf(1, 1)), ticket)
			default:
				c.put(o)
				last[p.hash] = rec
			}
			checkShard(t, c.shard(p.hash))
		}
	}
}

// Keys that are read again and again stay.
func TestWhatIsReadOftenStays(t *testing.T) {
	c := newCache(cacheShards * 64 << 10)
	at := func(i int) (*place, *op) {
		p := &place{from: recordPrefix, hash: uint64(i) * cacheShards} // all in one shard
		p.disk = appendRecordKey(nil, p.hash, fmt.Appendf(nil, "key %d", i))
		o := newOp(p.disk, foreign(string(p.key()), strings.Repeat("v", 500), dotOf(1, 1)))
		o.hash = p.hash
		return p, o
	}
	const hot = 5
	for i := range 2000 {
		_, o := at(i)
		c.put(o)
		if i >= hot {
			p, _ := at(i % hot)
			if _, found, _ := c.get(p); !found {
				t.Fatalf("key %d, read %d writes ago, is gone", i%hot, hot)
			}
		}
	}
	if p, _ := at(hot + 1); func() bool { _, found, _ := c.get(p); return found }() {
		t.Error("a key that was never read is still there")
	}
}

// Whatever was acknowledged is read, while a small cache is filled and emptied all the time.
func TestCacheNeverHidesWhatWasAcknowledged(t *testing.T) {
	s := open(t, memory.NewStore().Open, func(c *Config) { c.CacheBytes = cacheShards * 3 << 10 })
	const keys, writes = 8, 300
	var acked [keys]atomic.Uint64
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for k := range keys {
		key := fmt.Sprintf("key %d", k)
		writers.Go(func() {
			for i := range writes {
				m := write(key, strings.Repeat("v", i*37%6000))
				out := newOutcome(t)
				minted, err := s.Mint(m, out.mint)
				if err == nil {
					_, err = out.wait()
				}
				if err != nil {
					t.Error(err)
					return
				}
				acked[k].Store(minted.Dot.Counter)
			}
		})
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := acked[k].Load()
				if least == 0 {
					continue
				}
				rec, err := s.Read([]byte(key))
				digest, digestErr := s.Digest([]byte(key))
				if err != nil || digestErr != nil {
					t.Error(err, digestErr)
					return
				}
				set := decode(t, key, rec)
				if got := set.Clock.Get(s.Actor()); got < least || record.Verify([]byte(key), rec) != nil || digest == (record.Digest{}) {
					t.Errorf("%s: read %d, and %d was acknowledged before", key, got, least)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// With heads alone in memory, writes come out as without a cache: those that replace everything, those that keep siblings,
// merges either way, and repeats.
func TestHeadsSuffice(t *testing.T) {
	cachedStore := open(t, memory.NewStore().Open, nil)
	plain := open(t, memory.NewStore().Open, uncached)
	long := strings.Repeat("long value ", 1000)
	script := [][]byte{
		foreign("k", long+"1", dotOf(1, 1)),
		foreign("k", long+"2", dotOf(2, 1), dotOf(1, 1)), // supersedes
		foreign("k", long+"1", dotOf(1, 1)),              // superseded
		foreign("k", long+"3", dotOf(3, 1)),              // beside it
		foreign("k", long+"3", dotOf(3, 1)),
		foreign("k", long+"4", dotOf(4, 1), dotOf(2, 1)), // supersedes one of two
	}
	for i, rec := range script {
		if a, b := mustApply(t, cachedStore, "k", bytes.Clone(rec)), mustApply(t, plain, "k", bytes.Clone(rec)); a != b {
			t.Fatalf("step %d changes %v with a cache and %v without", i, a, b)
		}
		if !bytes.Equal(mustRead(t, cachedStore, "k"), mustRead(t, plain, "k")) {
			t.Fatalf("step %d leaves different records", i)
		}
	}
	before := plain.Stats().Bytes
	if before != cachedStore.Stats().Bytes {
		t.Fatalf("%d bytes counted with a cache, %d without", cachedStore.Stats().Bytes, before)
	}
	m := write("k", long+"5")
	m.Context = &causal.Context{Vector: causal.Vector{dotOf(3, 1)}} // keeps the other sibling
	mustMint(t, cachedStore, m)
	wantValues(t, "k", mustRead(t, cachedStore, "k"), long+"4", long+"5")
	mustMint(t, cachedStore, write("k", long+"6"))
	wantValues(t, "k", mustRead(t, cachedStore, "k"), long+"6")
	if n := cachedStore.Stats(); n.Keys != 1 || n.Bytes != int64(len(mustRead(t, cachedStore, "k"))) {
		t.Fatalf("%d keys, %d bytes", n.Keys, n.Bytes)
	}
}

// Values that a write needs and only the disk has are read there, and a failure of that is none of absence.
func TestHeadWithoutItsValues(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	mustMint(t, s, write("k", strings.Repeat("v", 2*cachedWhole)))
	h.set(func(h *hooks) { h.getErr = &engine.Damage{Err: errInjected} })
	if _, err := s.Digest([]byte("k")); err != nil {
		t.Fatalf("a digest needs no disk: %v", err)
	}
	if _, err := s.Read([]byte("k")); !errors.Is(err, engine.ErrDamaged) {
		t.Fatalf("a read: %v", err)
	}
	m := write("k", "beside")
	m.Context = &causal.Context{}
	if _, err := s.Mint(m, nil); !errors.Is(err, engine.ErrDamaged) {
		t.Fatalf("a mint that keeps a sibling: %v", err)
	}
	if err := s.Apply([]byte("k"), foreign("k", "x", dotOf(1, 1)), nil); !errors.Is(err, engine.ErrDamaged) {
		t.Fatalf("an apply that keeps a sibling: %v", err)
	}
	mustMint(t, s, write("k", "instead"))
}
