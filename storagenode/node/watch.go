package node

import (
	"slices"
	"sync"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/storagenode/internal/layout"
)

// snapshot is what watchers are sent. Immutable.
type snapshot struct {
	known   *layout.Known // nil while there is none
	members []*storagev1.Member
	raw     []membership.Member // without what is not sent
	ended   bool
}

// view is the view's bytes; to a receiver that reads briefs and had the view of last, as few as it needs.
func (s snapshot) view(brief bool, last *layout.Known) []byte {
	switch {
	case s.known == nil:
		return nil
	case !brief || last == nil || last.Settled.ID() != s.known.Settled.ID():
		return s.known.Encoded
	case last.Frame == s.known.Frame:
		return s.known.Brief
	}
	return s.known.Short
}

// broadcast holds the newest snapshot and wakes those who wait for another. Safe for concurrent use.
type broadcast struct {
	mu      sync.Mutex
	now     snapshot
	changed chan struct{} // closed and replaced when now changes
}

func newBroadcast() *broadcast { return &broadcast{changed: make(chan struct{})} }

// get returns the newest snapshot, and what is closed when it is no longer the newest.
func (b *broadcast) get() (snapshot, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now, b.changed
}

func (b *broadcast) set(s snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.ended = b.now.ended
	b.now = s
	close(b.changed)
	b.changed = make(chan struct{})
}

// end makes watchers go away.
func (b *broadcast) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now.ended = true
	close(b.changed)
	b.changed = make(chan struct{})
}

// publish takes in what the driver sees, where it is news.
func (n *Node) publish(members []membership.Member) {
	last, _ := n.watch.get()
	known := n.state.Known()
	members = slices.Clone(members)
	for i := range members {
		m := &members[i]
		m.Newest, m.Acked, m.Synced = membership.Mark{}, membership.Mark{}, membership.Mark{}
	}
	if last.known == known && slices.Equal(last.raw, members) {
		return
	}
	s := snapshot{known: known, raw: members}
	for _, m := range members {
		s.members = append(s.members, &storagev1.Member{
			Id: m.ID[:], Name: m.Name, Zone: m.Zone, Weight: m.Weight, GrpcAddr: m.GRPCAddr, GossipAddr: m.GossipAddr,
			AdminAddr: m.AdminAddr, Status: m.Status.String(), Actor: m.Actor[:],
		})
	}
	n.watch.set(s)
}
