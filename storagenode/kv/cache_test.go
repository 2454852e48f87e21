package kv

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
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
	c, err := newCache(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	older, newer := foreign("k", "older", dotOf(1, 1)), foreign("k", "newer", dotOf(1, 2))
	_, ticket := c.get(p)
	c.fill(p, older, ticket)
	if e, _ := c.get(p); e == nil || !bytes.Equal(e.rec, older) {
		t.Fatal("not filled")
	}
	c.shard(p.hash).entries.Purge()
	_, ticket = c.get(p)
	o := newOp(p.disk, newer)
	o.hash = p.hash
	c.put(o)
	c.fill(p, older, ticket)
	if e, _ := c.get(p); e == nil || !bytes.Equal(e.rec, newer) {
		t.Fatal("an older record is cached over a newer one")
	}
	o.rec = nil
	c.put(o)
	if e, _ := c.get(p); e != nil {
		t.Fatal("a record that was removed is still cached")
	}
}

func TestCacheIsBounded(t *testing.T) {
	const bound = 1 << 20
	c, err := newCache(bound)
	if err != nil {
		t.Fatal(err)
	}
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
		if e, _ := c.get(p); e == nil || e.size != len(o.rec) || e.whole() != (len(o.rec) <= cachedWhole) || !bytes.HasPrefix(o.rec, e.rec) {
			t.Fatalf("record %d of %d bytes: %+v", i, len(o.rec), e)
		}
	}
	total := 0
	for i := range c.shards {
		sum := 0
		for _, e := range c.shards[i].entries.Values() {
			sum += e.weight()
		}
		if sum != c.shards[i].bytes {
			t.Fatalf("shard %d counts %d bytes and holds %d", i, c.shards[i].bytes, sum)
		}
		total += sum
	}
	if total > bound || total < bound/2 {
		t.Fatalf("%d bytes, the bound is %d", total, bound)
	}
}

// Keys that are read again and again stay, though they are not moved to the front each time.
func TestWhatIsReadOftenStays(t *testing.T) {
	c, err := newCache(cacheShards * 64 << 10)
	if err != nil {
		t.Fatal(err)
	}
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
			if e, _ := c.get(p); e == nil {
				t.Fatalf("key %d, read %d writes ago, is gone", i%hot, hot)
			}
		}
	}
	if p, _ := at(hot + 1); func() bool { e, _ := c.get(p); return e != nil }() {
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
