package kv

import (
	"bytes"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// cacheShards is how many locks the cached records share. A power of two.
	cacheShards = 64
	// cachedWhole is the longest record that is cached with its values; of longer ones only the head is, which is all
	// that most mints and applies and every digest need.
	cachedWhole = 4 << 10
	// cachedHead is the longest head that is cached.
	cachedHead = 4 << 10
	// cachedOverhead is what an entry takes beside its bytes: two nodes of lists and maps, and the entry.
	cachedOverhead = 256
)

// cached is a durable record, or the head of one. Its bytes are never modified.
type cached struct {
	key  []byte
	rec  []byte
	size int // of the whole record
	// moved is the shard's moves when this one was moved to the front. Guarded by the shard's mu.
	moved uint64
}

func (c *cached) whole() bool { return len(c.rec) == c.size }

func (c *cached) weight() int { return len(c.key) + len(c.rec) + cachedOverhead }

// cache keeps the newest durable records, those last used longest. It belongs to one life of the engine: whatever ends
// that ends the cache. What is in it was verified when it was read or written, so that damage on the disk beneath is for
// the background checks to find, not for reads that need no disk.
//
// It never holds less than what is durable and acknowledged: the committer puts what it wrote before anyone is told, and
// a reader's fill is dropped where anything was put since the reader looked.
type cache struct {
	shards [cacheShards]cacheShard
	max    int // bytes of one shard; 0 switches the cache off
}

type cacheShard struct {
	mu      sync.Mutex
	entries *simplelru.LRU[uint64, *cached] // by the key's hash; of keys that share one, the last is kept
	bytes   int
	puts    uint64 // by the committer
	moves   uint64 // to the front of entries
}

// newCache returns a cache of at most so many bytes; 0 is a cache that keeps nothing.
func newCache(maxBytes int) (*cache, error) {
	c := &cache{max: maxBytes / cacheShards}
	if c.max == 0 {
		return c, nil
	}
	for i := range c.shards {
		s := &c.shards[i]
		var err error
		s.entries, err = simplelru.NewLRU(c.max/cachedOverhead+1, func(_ uint64, e *cached) { s.bytes -= e.weight() })
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *cache) shard(hash uint64) *cacheShard { return &c.shards[hash%cacheShards] }

// get returns what is known of the key at p, nil for nothing. ticket is for fill.
func (c *cache) get(p *place) (e *cached, ticket uint64) {
	if c.max == 0 {
		return nil, 0
	}
	s := c.shard(p.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries.Peek(p.hash)
	if !ok || !bytes.Equal(e.key, p.key()) {
		return nil, s.puts
	}
	// One of the quarter that was used last is left where it is: moving it touches four other entries, which are seldom
	// in the processor's caches.
	if s.moves-e.moved > uint64(s.entries.Len())/4 {
		s.entries.Get(p.hash)
		s.moves++
		e.moved = s.moves
	}
	return e, 0
}

// fill keeps a record that was read from the engine after get gave out the ticket. rec is the cache's from here on, and
// must not be modified.
func (c *cache) fill(p *place, rec []byte, ticket uint64) {
	if c.max == 0 {
		return
	}
	kept, ok := keep(rec)
	if !ok {
		return
	}
	if len(kept) < len(rec) {
		kept = bytes.Clone(kept) // not to hold the values too
	}
	e := &cached{key: bytes.Clone(p.key()), rec: kept, size: len(rec)}
	s := c.shard(p.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.puts == ticket {
		s.putLocked(p.hash, e, c.max)
	}
}

// put keeps the record of a write that is durable, copied, or drops the key where it was removed. Only the committer
// calls it, before it tells anyone that the write is durable.
func (c *cache) put(o *op) {
	if c.max == 0 {
		return
	}
	var e *cached
	if kept, ok := keep(o.rec); ok && o.mark != setMark {
		key := o.disk[recordPrefix:]
		b := make([]byte, 0, len(key)+len(kept))
		b = append(append(b, key...), kept...)
		e = &cached{key: b[:len(key):len(key)], rec: b[len(key):], size: len(o.rec)}
	}
	s := c.shard(o.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	if e == nil {
		s.entries.Remove(o.hash)
		return
	}
	s.putLocked(o.hash, e, c.max)
}

// drop forgets what is in the slots of r, also what is being read. Only the committer calls it.
func (c *cache) drop(r ring.Range) {
	if c.max == 0 {
		return
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.puts++
		for _, hash := range s.entries.Keys() {
			if r.Contains(ring.Slot(hash >> (64 - ring.SlotBits))) {
				s.entries.Remove(hash)
			}
		}
		s.mu.Unlock()
	}
}

func (s *cacheShard) putLocked(hash uint64, e *cached, limit int) {
	if old, ok := s.entries.Peek(hash); ok {
		s.bytes -= old.weight() // Add replaces it without telling
	}
	s.moves++
	e.moved = s.moves
	s.bytes += e.weight()
	s.entries.Add(hash, e)
	for s.bytes > limit {
		s.entries.RemoveOldest()
	}
}

// keep returns what of a record is cached: all of it, or its head, or nothing.
func keep(rec []byte) ([]byte, bool) {
	if len(rec) == 0 {
		return nil, false
	}
	if len(rec) <= cachedWhole {
		return rec, true
	}
	head, err := record.Head(rec)
	return head, err == nil && len(head) <= cachedHead
}
