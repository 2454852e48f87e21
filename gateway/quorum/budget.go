package quorum

import "sync/atomic"

// Budget is a token bucket that bounds extra requests to a share of the ordinary ones. Every ordinary request earns
// that share of a token; an extra one spends a whole token. It holds at most its burst, so that a quiet hour does not
// pay for a storm. Safe for concurrent use.
type Budget struct {
	share int64 // earned by one request, in millionths of a token
	cap   int64 // in millionths of a token
	level atomic.Int64
}

const tokenUnits = 1_000_000

// NewBudget returns a full budget of burst tokens (0 or more) that earns share (0 to 1) of a token with each request.
func NewBudget(share float64, burst int) *Budget {
	b := &Budget{share: int64(share * tokenUnits), cap: int64(burst) * tokenUnits}
	b.level.Store(b.cap)
	return b
}

// Earn accounts n ordinary requests.
func (b *Budget) Earn(n int) {
	if b.level.Load() >= b.cap {
		return // the usual case costs one load
	}
	if over := b.level.Add(int64(n)*b.share) - b.cap; over > 0 {
		b.level.Add(-over)
	}
}

// Spend takes a token for one extra request, if there is one.
func (b *Budget) Spend() bool {
	for {
		level := b.level.Load()
		if level < tokenUnits {
			return false
		}
		if b.level.CompareAndSwap(level, level-tokenUnits) {
			return true
		}
	}
}
