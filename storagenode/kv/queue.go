package kv

import (
	"math"
	"sync"
	"sync/atomic"
)

// metaHeadroom is how many pieces of node state fit above the bound of items: layouts must not wait behind clients.
const metaHeadroom = 64

// queue is what waits to be committed, first in first out. Its bounds count what was taken but is not settled yet too.
type queue struct {
	maxItems, maxBytes int
	wake               chan struct{} // has room for one; filled when the queue stops being empty, and when it has gatherItems

	items, bytes atomic.Int64 // changed under mu, or by settled

	mu   sync.Mutex
	seq  uint64
	ops  []*op
	head int // of those not taken yet
}

func (q *queue) init(maxItems, maxBytes int) {
	q.maxItems, q.maxBytes, q.wake = maxItems, maxBytes, make(chan struct{}, 1)
}

// isFull says that no write is taken now.
func (q *queue) isFull() bool {
	return q.items.Load() >= int64(q.maxItems) || q.bytes.Load() >= int64(q.maxBytes)
}

// push queues ops, of which there is at least one, and numbers them, or returns ErrOverloaded at once.
func (q *queue) push(ops ...*op) error {
	var size int64
	for _, o := range ops {
		size += int64(o.size())
	}
	state, limit := ops[0].stripe == nil, int64(q.maxItems)
	if state {
		limit += metaHeadroom
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	items, bytes := q.items.Load(), q.bytes.Load()
	if items+int64(len(ops)) > limit || items > 0 && bytes+size > int64(q.maxBytes) && !state {
		return ErrOverloaded
	}
	q.items.Add(int64(len(ops)))
	q.bytes.Add(size)
	before := len(q.ops) - q.head
	for _, o := range ops {
		q.seq++
		o.seq = q.seq
		q.ops = append(q.ops, o)
	}
	if before == 0 || before < gatherItems && before+len(ops) >= gatherItems {
		q.rouse()
	}
	return nil
}

// take appends to dst what is queued, in order, within the bounds, but at least one where there is any.
func (q *queue) take(dst []*op, maxItems, maxBytes int) []*op {
	q.mu.Lock()
	defer q.mu.Unlock()
	bytes := 0
	for n := 0; q.head < len(q.ops) && n < maxItems; n++ {
		o := q.ops[q.head]
		if bytes += o.size(); n > 0 && (bytes > maxBytes || o.exec != nil && maxBytes < math.MaxInt) {
			break
		}
		dst = append(dst, o)
		q.ops[q.head] = nil
		q.head++
		if o.exec != nil && maxBytes < math.MaxInt {
			break
		}
	}
	switch {
	case q.head == len(q.ops):
		q.ops, q.head = q.ops[:0], 0
	case q.head > len(q.ops)/2:
		n := copy(q.ops, q.ops[q.head:])
		clear(q.ops[n:])
		q.ops, q.head = q.ops[:n], 0
	}
	return dst
}

// rouse wakes the committer.
func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// settled makes room for as much as ops took.
func (q *queue) settled(ops []*op) {
	bytes := 0
	for _, o := range ops {
		bytes += o.size()
	}
	q.items.Add(-int64(len(ops)))
	q.bytes.Add(-int64(bytes))
}

func (q *queue) load() (items, bytes int) { return int(q.items.Load()), int(q.bytes.Load()) }
