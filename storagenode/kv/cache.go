package kv

import (
	"bytes"
	"sync"

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
	// cachedOverhead is what an entry takes beside its bytes: its slot and its place in the index, both with the room that
	// they grow into, and what the allocator rounds up.
	cachedOverhead = 256
)

// cached is a durable record, or the head of one. Its bytes are never modified.
type cached struct {
	rec  []byte
	size int // of the whole record
}

func (c cached) whole() bool { return len(c.rec) == c.size }

// cache keeps the newest durable records, those that are used again and again longest. It belongs to one life of the engine:
// whatever ends that ends the cache. What is in it was verified when it was read or written, so that damage on the disk
// beneath is for the background checks to find, not for reads that need no disk.
//
// It never holds less than what is durable and acknowledged: the committer puts what it wrote before anyone is told, and
// a reader's fill is dropped where anything was put since the reader looked.
type cache struct {
	shards [cacheShards]cacheShard
	max    int // bytes of one shard; 0 switches the cache off
}

// cacheShard is a clock: a hand goes around the slots, takes the mark of those that were used since it last came by, and
// empties those that have none. A list in the order of use would say the same more exactly, but each use would touch four
// neighbours that are seldom in the processor's caches; here it touches the slot alone, which was looked at anyway.
type cacheShard struct {
	mu    sync.Mutex
	index map[uint64]uint32 // the slot of a key's hash; of keys that share one, the last is kept
	slots []cacheSlot
	free  []uint32 // empty slots, the one that was emptied last at the end
	hand  int
	bytes int
	puts  uint64 // by the committer
}

// cacheSlot is an entry: as long as a line of the processor's caches. One without a key is empty.
type cacheSlot struct {
	hash uint64
	key  []byte
	rec  []byte
	size uint32 // of the whole record
	used bool   // since the hand came by
}

func (e *cacheSlot) weight() int { return len(e.key) + len(e.rec) + cachedOverhead }

// newCache returns a cache of at most so many bytes; 0 is a cache that keeps nothing.
func newCache(maxBytes int) *cache {
	c := &cache{max: maxBytes / cacheShards}
	for i := range c.shards {
		c.shards[i].index = make(map[uint64]uint32)
	}
	return c
}

func (c *cache) shard(hash uint64) *cacheShard { return &c.shards[hash%cacheShards] }

// get returns what is known of the key at p, if anything is. ticket is for fill, where nothing is.
func (c *cache) get(p *place) (e cached, found bool, ticket uint64) {
	if c.max == 0 {
		return cached{}, false, 0
	}
	s := c.shard(p.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.index[p.hash]
	if !found || !bytes.Equal(s.slots[i].key, p.key()) {
		return cached{}, false, s.puts
	}
	slot := &s.slots[i]
	slot.used = true
	return cached{rec: slot.rec, size: int(slot.size)}, true, 0
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
	e := cacheSlot{hash: p.hash, key: bytes.Clone(p.key()), rec: kept, size: uint32(len(rec))}
	s := c.shard(p.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.puts == ticket {
		s.putLocked(e, c.max)
	}
}

// put keeps the record of a write that is durable, copied, or drops the key where it was removed. Only the committer
// calls it, before it tells anyone that the write is durable.
func (c *cache) put(o *op) {
	if c.max == 0 {
		return
	}
	e := cacheSlot{hash: o.hash, size: uint32(len(o.rec))}
	kept, ok := keep(o.rec)
	if ok = ok && o.mark != setMark; ok {
		key := o.disk[recordPrefix:]
		b := make([]byte, 0, len(key)+len(kept))
		b = append(append(b, key...), kept...)
		e.key, e.rec = b[:len(key):len(key)], b[len(key):]
	}
	s := c.shard(o.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	if ok {
		s.putLocked(e, c.max)
	} else if i, found := s.index[o.hash]; found {
		s.emptyLocked(i)
	}
}

// drop forgets what is in the slots of r, also what is being read. Only the committer calls it.
func (c *cache) drop(r ring.Range) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.puts++
		for k := range s.slots {
			if e := &s.slots[k]; e.key != nil && r.Contains(ring.Slot(e.hash>>(64-ring.SlotBits))) {
				s.emptyLocked(uint32(k))
			}
		}
		s.mu.Unlock()
	}
}

// putLocked puts e in place of what is there of its hash, or makes room for it first: into the slot that was emptied last,
// just behind the hand.
func (s *cacheShard) putLocked(e cacheSlot, limit int) {
	if i, found := s.index[e.hash]; found {
		e.used = true
		s.bytes += e.weight() - s.slots[i].weight()
		s.slots[i] = e
		s.shrinkLocked(limit)
		return
	}
	s.shrinkLocked(limit - e.weight())
	if e.weight() > limit {
		return
	}
	i := uint32(len(s.slots))
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
		s.slots[i] = e
	} else {
		s.slots = append(s.slots, e)
	}
	s.bytes += e.weight()
	s.index[e.hash] = i
}

// shrinkLocked moves the hand until no more than so many bytes are left, or nothing is: at the latest when it comes around
// for the second time there is no mark left.
func (s *cacheShard) shrinkLocked(limit int) {
	for s.bytes > limit && len(s.index) > 0 {
		if s.hand >= len(s.slots) {
			s.hand = 0
		}
		switch e := &s.slots[s.hand]; {
		case e.key == nil:
		case e.used:
			e.used = false
		default:
			s.emptyLocked(uint32(s.hand))
		}
		s.hand++
	}
}

func (s *cacheShard) emptyLocked(i uint32) {
	e := &s.slots[i]
	s.bytes -= e.weight()
	delete(s.index, e.hash)
	*e = cacheSlot{}
	s.free = append(s.free, i)
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
