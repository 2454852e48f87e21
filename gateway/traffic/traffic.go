// Package traffic knows what went through a gateway in the last seconds: how many operations there were and how long they
// took, and which keys took the most requests. Times are given to it.
package traffic

import (
	"hash/maphash"
	"time"

	"github.com/dotring/dotring/gateway/limit"
)

// Traffic takes note of requests. It is safe for concurrent use, bounded, and holds no goroutine.
type Traffic struct {
	start  time.Time
	hot    hotKeys
	recent recent
	keys   limit.Rate // of each key
}

// New returns what has seen nothing before start.
func New(start time.Time) *Traffic {
	return &Traffic{start: start, hot: hotKeys{seed: maphash.MakeSeed()}}
}

// LimitKeys bounds what is let in of each single key, before the first request. It holds for keys that take one in two hundred requests or
// more; of others, which are nobody's trouble, more may be let in.
func (t *Traffic) LimitKeys(rate limit.Rate) { t.keys = rate }

// Note counts a request for a key, served or not, and says whether the key's limit lets it in: wait is 0 then, else after how long it
// would. It copies what it keeps of the key.
func (t *Traffic) Note(key []byte, write bool, now time.Time) (wait time.Duration) {
	return t.hot.note(key, write, now.Sub(t.start), t.keys)
}

// Refuse is for refusing early: where a Note of the request would not be let in it counts it and returns the wait, and else does
// nothing.
func (t *Traffic) Refuse(key []byte, write bool, now time.Time) (wait time.Duration) {
	if !t.keys.Limited() {
		return 0
	}
	return t.hot.refuse(key, write, now.Sub(t.start), t.keys)
}

// HotKeys returns at most n keys that took the most requests of late, the hottest first, and the requests a second of all keys.
// What is three seconds old counts half, what is six seconds old a quarter.
func (t *Traffic) HotKeys(n int, now time.Time) (keys []HotKey, total float64) {
	return t.hot.top(n, now.Sub(t.start))
}

// Done counts an operation that ended now.
func (t *Traffic) Done(op Op, took time.Duration, failed bool, now time.Time) {
	t.recent.add(op, took, failed, now.Sub(t.start))
}

// Operations tells of the operations that ended in the last whole seconds, ten or fewer. Over is their length, 0 in the first second.
func (t *Traffic) Operations(now time.Time) (ops [Ops]Operation, over time.Duration) {
	return t.recent.sum(now.Sub(t.start))
}
