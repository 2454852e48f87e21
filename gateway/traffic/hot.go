package traffic

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/dotring/dotring/gateway/limit"
)

const (
	// halfLife is the time in which what was counted loses half of its weight.
	halfLife = 3 * time.Second
	// tick is how finely weights follow time.
	tick = halfLife / 64
	// mostDoublings is how far weights grow before counts are scaled back.
	mostDoublings = 32
	// shards is a power of two; each watches places of its keys.
	shards = 16
	places = 32
	// maxKey is the length of the longest key that is named; longer ones are cut.
	maxKey = 250
)

// HotKey is one of the keys that take the most requests. Its rates are of what was certainly asked of it: the true ones may be
// higher by what was asked before it was watched.
type HotKey struct {
	Key []byte
	// Reads and Writes are requests a second, weighted by age.
	Reads, Writes float64
	// Share is its part of all requests, 0 to 1.
	Share float64
}

// sketch is Space-Saving of Metwally, Agrawal and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
// Streams" (2005), over requests that weigh less the older they are: rather than that all counts shrink, what is new weighs
// more. A key that takes more than one in places of the requests is in it for certain. It is not safe for concurrent use.
//
// Places are searched one after the other. Hashes and counts fill four lines of cache each, and a table and a heap that are
// changed by every key that is new would take longer.
type sketch struct {
	hashes [places]uint64
	counts [places]float64 // what the place was taken with included
	held   [places]held
	all    float64       // requests, whatever their key
	since  time.Duration // when a request weighed 1
	at     time.Duration // when weight was last set
	weight float64       // of a request now
}

// held is a key, and what was asked since it took its place.
type held struct {
	reads, writes float64
	length        int
	key           [maxKey]byte
	due           time.Duration // of limit.Rate
}

// add counts a request, and returns the place of its key.
func (s *sketch) add(hash uint64, key []byte, write bool, now time.Duration) *held {
	if now-s.at >= tick || s.weight == 0 {
		s.advance(now)
	}
	s.all += s.weight
	i := s.find(hash)
	if i < 0 {
		i = s.smallest()
		h := &s.held[i]
		s.hashes[i], h.reads, h.writes, h.due, h.length = hash, 0, 0, 0, copy(h.key[:], key)
	}
	s.counts[i] += s.weight
	if write {
		s.held[i].writes += s.weight
	} else {
		s.held[i].reads += s.weight
	}
	return &s.held[i]
}

func (s *sketch) find(hash uint64) int {
	for i := range s.hashes {
		if s.hashes[i] == hash {
			return i
		}
	}
	return -1
}

func (s *sketch) smallest() int {
	best := 0
	for i := range s.counts {
		if s.counts[i] < s.counts[best] {
			best = i
		}
	}
	return best
}

// advance sets the weight of requests from now on. Time that goes back counts as standing still.
func (s *sketch) advance(now time.Duration) {
	s.at = max(s.at, now)
	doublings := float64(s.at-s.since) / float64(halfLife)
	if doublings > mostDoublings {
		scale := math.Exp2(-doublings)
		s.all *= scale
		for i := range s.counts {
			s.counts[i] *= scale
			s.held[i].reads *= scale
			s.held[i].writes *= scale
		}
		s.since, doublings = s.at, 0
	}
	s.weight = math.Exp2(doublings)
}

// perSecond turns what was counted, at the weight of now, into a rate: were it steady, the counts would be those of this time.
func perSecond(now time.Duration) float64 {
	mean := halfLife.Seconds() / math.Ln2
	return 1 / max(mean*(1-math.Exp2(-float64(now)/float64(halfLife))), tick.Seconds())
}

// shard is a sketch of some of the keys.
type shard struct {
	mu sync.Mutex
	sketch
	_ [64]byte // keeps neighbours off one cache line
}

// hotKeys finds the keys that take the most requests. It is safe for concurrent use, holds 150 KiB, and allocates nothing while
// it counts.
type hotKeys struct {
	seed   maphash.Seed // nobody outside can make keys whose hashes are equal
	shards [shards]shard
}

// note counts a request, and takes it from the key's limit: wait is 0 where it is let in.
func (h *hotKeys) note(key []byte, write bool, now time.Duration, rate limit.Rate) (wait time.Duration) {
	hash := maphash.Bytes(h.seed, key)
	s := &h.shards[hash%shards]
	s.mu.Lock()
	k := s.add(hash, key, write, now)
	k.due, wait = rate.Take(k.due, now, 1)
	s.mu.Unlock()
	return wait
}

// refuse counts a request for a key at its limit; where the key has room it does nothing, and wait is 0.
func (h *hotKeys) refuse(key []byte, write bool, now time.Duration, rate limit.Rate) (wait time.Duration) {
	hash := maphash.Bytes(h.seed, key)
	s := &h.shards[hash%shards]
	s.mu.Lock()
	if i := s.find(hash); i >= 0 {
		if _, wait = rate.Take(s.held[i].due, now, 1); wait > 0 {
			s.add(hash, key, write, now)
		}
	}
	s.mu.Unlock()
	return wait
}

// top returns at most n keys, the hottest first, and how many requests a second there are of all keys. Keys whose count is
// more of a guess than not are left out: where no key is hot, there is nothing to tell.
func (h *hotKeys) top(n int, now time.Duration) (keys []HotKey, total float64) {
	rate := perSecond(now)
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		s.advance(now)
		scale := rate / s.weight
		total += s.all * scale
		for j := range s.held {
			k := &s.held[j]
			if own := k.reads + k.writes; own > 0 && own >= s.counts[j]/2 {
				keys = append(keys, HotKey{Key: slices.Clone(k.key[:k.length]), Reads: k.reads * scale, Writes: k.writes * scale})
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(keys, func(a, b HotKey) int {
		return cmp.Or(cmp.Compare(b.Reads+b.Writes, a.Reads+a.Writes), slices.Compare(a.Key, b.Key))
	})
	keys = keys[:min(n, len(keys))]
	for i := range keys {
		if total > 0 {
			keys[i].Share = min((keys[i].Reads+keys[i].Writes)/total, 1)
		}
	}
	return keys, total
}
