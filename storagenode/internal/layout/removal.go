package layout

import (
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/transfer"
)

// BeginRemoval says whether a record of a slot that this node does not own, and that all owners in the layout under have
// confirmed, may be removed. Where it may, the caller queues the removal in the store and then calls EndRemoval, and waits
// for nothing but the store in between: so no layout is acknowledged, and nothing pulled for it, before that is queued.
func (s *State) BeginRemoval(under *ring.Layout, slot ring.Slot) bool {
	s.admit.RLock()
	k := s.known.Load()
	if k != nil && !s.removed.Load() && transfer.MayRemove(under, k.Settled, k.Newest, s.fence.Load().Acked, s.self, slot) {
		return true
	}
	s.admit.RUnlock()
	return false
}

// EndRemoval ends what a BeginRemoval that answered true began.
func (s *State) EndRemoval() { s.admit.RUnlock() }
