package kv

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/ringsvc/causal"
)

// requestID stands for a key and a request id: a 128-bit hash, seeded at random so that no one can aim at another's.
type requestID [16]byte

// Two lists of remembered ids, each with the oldest first: those chosen by clients also leave in that order.
const (
	byClient = iota
	byDeadline
	requestLists
)

// remembered is one id. It holds no pointer, so that the garbage collector passes over all of them at once.
type remembered struct {
	id         requestID
	dot        causal.Dot
	expires    time.Duration // since requests.start
	born       uint64
	prev, next int32 // in its list, -1 at the ends; next also links free ones
	list       uint8
}

// requests remembers which dot a request id was given, for a time and up to a number. Safe for concurrent use; that a
// lookup and the put that follows are one step is the key lock's doing.
type requests struct {
	seed  uint64
	max   int
	start time.Time // times are kept as differences, on the monotonic clock

	mu      sync.Mutex
	index   map[requestID]int32
	slab    []remembered
	free    int32
	born    uint64
	heads   [requestLists]int32
	tails   [requestLists]int32
	dropped uint64 // for want of room
}

func newRequests(seed uint64, max int, now time.Time) *requests {
	r := &requests{seed: seed, max: max, start: now, index: map[requestID]int32{}, free: -1}
	for i := range requestLists {
		r.heads[i], r.tails[i] = -1, -1
	}
	return r
}

func (r *requests) hash(key []byte, id string) requestID {
	var room [MaxKey + 80]byte
	b := binary.AppendUvarint(room[:0], uint64(len(key)))
	b = append(b, key...)
	b = append(b, id...)
	return xxh3.Hash128Seed(b, r.seed).Bytes()
}

// get returns the dot that id was given, unless it was forgotten.
func (r *requests) get(id requestID, now time.Time) (causal.Dot, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, found := r.index[id]
	if !found {
		return causal.Dot{}, false
	}
	if r.slab[i].expires <= now.Sub(r.start) {
		r.remove(i)
		return causal.Dot{}, false
	}
	return r.slab[i].dot, true
}

// put remembers id, which get did not find, until expires.
func (r *requests) put(id requestID, dot causal.Dot, expires, now time.Time, chosen bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	elapsed := now.Sub(r.start)
	for _, head := range r.heads {
		// Two for each one that comes in: the table shrinks in quiet times without a pause in busy ones.
		for range 2 {
			if head < 0 || r.slab[head].expires > elapsed {
				break
			}
			next := r.slab[head].next
			r.remove(head)
			head = next
		}
	}
	if len(r.index) >= r.max {
		r.remove(r.oldest())
		r.dropped++
	}
	i := r.free
	if i >= 0 {
		r.free = r.slab[i].next
	} else {
		i = int32(len(r.slab))
		r.slab = append(r.slab, remembered{})
	}
	r.born++
	e := remembered{id: id, dot: dot, expires: expires.Sub(r.start), born: r.born, list: byDeadline, next: -1}
	if chosen {
		e.list = byClient
	}
	if e.prev = r.tails[e.list]; e.prev >= 0 {
		r.slab[e.prev].next = i
	} else {
		r.heads[e.list] = i
	}
	r.tails[e.list] = i
	r.slab[i] = e
	r.index[id] = i
}

// forget drops id where it still stands for dot.
func (r *requests) forget(id requestID, dot causal.Dot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, found := r.index[id]; found && r.slab[i].dot == dot {
		r.remove(i)
	}
}

// oldest returns the entry that came first of all; there is one.
func (r *requests) oldest() int32 {
	c, d := r.heads[byClient], r.heads[byDeadline]
	if c < 0 || d >= 0 && r.slab[d].born < r.slab[c].born {
		return d
	}
	return c
}

func (r *requests) remove(i int32) {
	e := &r.slab[i]
	if e.prev >= 0 {
		r.slab[e.prev].next = e.next
	} else {
		r.heads[e.list] = e.next
	}
	if e.next >= 0 {
		r.slab[e.next].prev = e.prev
	} else {
		r.tails[e.list] = e.prev
	}
	delete(r.index, e.id)
	*e = remembered{next: r.free}
	r.free = i
}

// count returns how many ids are remembered, and how many were dropped for want of room.
func (r *requests) count() (now int, dropped uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.index), r.dropped
}
