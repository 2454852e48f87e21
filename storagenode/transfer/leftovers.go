package transfer

import (
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Rules can be left out by tests that show what each is for.
type Rules uint

// The rules of a removal.
const (
	WithoutConfirm   Rules = 1 << iota // removed before its owners hold it
	WithoutUnchanged                   // removed as it is by then
	WithoutFence                       // removed also where the node may own it again
)

// Unowned lists the slots that a node does not own in l, in order.
func Unowned(l *ring.Layout, self ring.NodeID) (out []ring.Range) {
	at := ring.Slot(0)
	for _, r := range l.OwnedRanges(self) {
		if r.From > at {
			out = append(out, ring.Range{From: at, To: r.From})
		}
		at = max(at, r.To)
	}
	if at < ring.Slots {
		out = append(out, ring.Range{From: at, To: ring.Slots})
	}
	return out
}

// Batch is some records that a node holds and does not own: each may be removed once all its owners have confirmed that they
// hold one that covers it, as far as it has not changed since. All owners, and not W of them: what is held for a slot that
// is not owned may be the only copy beside one. For one goroutine.
type Batch struct {
	Without Rules // 0 in a server
	layout  *ring.Layout
	items   []item
}

type item struct {
	digest    record.Digest
	owners    []ring.NodeID // shared, read-only
	confirmed []ring.NodeID
}

// NewBatch returns a batch without records, whose owners are those in l.
func NewBatch(l *ring.Layout) *Batch { return &Batch{layout: l} }

// Add adds a record of a slot, with its digest; records are numbered from 0.
func (b *Batch) Add(s ring.Slot, d record.Digest) {
	b.items = append(b.items, item{digest: d, owners: b.layout.Primaries(s)})
}

// Digest is that of record number i.
func (b *Batch) Digest(i int) record.Digest { return b.items[i].digest }

// Owners lists who has to confirm anything, each once.
func (b *Batch) Owners() (out []ring.NodeID) {
	for _, it := range b.items {
		for _, id := range it.owners {
			if !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out
}

// Wants lists the records that an owner has not confirmed yet.
func (b *Batch) Wants(owner ring.NodeID) (out []int) {
	for i, it := range b.items {
		if slices.Contains(it.owners, owner) && !slices.Contains(it.confirmed, owner) {
			out = append(out, i)
		}
	}
	return out
}

// Confirm takes note that an owner durably holds a record that covers number i.
func (b *Batch) Confirm(owner ring.NodeID, i int) {
	if it := &b.items[i]; slices.Contains(it.owners, owner) && !slices.Contains(it.confirmed, owner) {
		it.confirmed = append(it.confirmed, owner)
	}
}

// Removable lists the records that may be removed, unless they have changed.
func (b *Batch) Removable() (out []int) {
	for i, it := range b.items {
		if len(it.owners) > 0 && len(it.confirmed) == len(it.owners) || b.Without&WithoutConfirm != 0 {
			out = append(out, i)
		}
	}
	return out
}

// MayRemove says whether a node that knows these layouts, and has acknowledged one, may remove what the owners in the
// layout under have confirmed: that is still the settled one, no change is known, and none was acknowledged, so that
// nothing was pulled yet for one in which the node owns the slot again. Removals are queued before it acknowledges another.
func MayRemove(under, settled, newest *ring.Layout, acked ring.LayoutID, self ring.NodeID, s ring.Slot) bool {
	if settled.ID() != under.ID() || newest.ID() != under.ID() || settled.Owns(self, s) {
		return false
	}
	_, member := settled.Member(self)
	return !member || acked == under.ID()
}

// Standing decides whether a process may hand over what its node does not own: the zero value with Grace, the grace time of
// tombstones, or 0 where none is ever collected. For one goroutine.
//
// A node that is no member is not waited for when tombstones are collected, unless it is seen alive. So it hands over only
// what it held when this process was a member, and only for as long as it has not been out of the others' sight since it was
// to leave: what it holds could otherwise have been deleted, and forgotten, meanwhile. A process that stood still was out of
// sight, and so was one that was started after the leave had begun.
type Standing struct {
	Grace   time.Duration
	member  bool      // this process was a member once
	contact time.Time // when it was to stay, or all members of the settled layout were seen alive, last
	late    bool      // it may not hand over any more
}

// Look takes in what is so now, and says whether the process may hand over. Members other than self are seen where sees says so. It is to
// be called far oftener than each quarter of the grace time.
func (s *Standing) Look(now time.Time, settled, newest *ring.Layout, self ring.NodeID, sees func(ring.NodeID) bool) bool {
	_, member := settled.Member(self)
	if s.member = s.member || member; !s.member {
		return false // it is about to join, and may be asked again; or it left before it was started, and is never a member again
	}
	if _, stays := newest.Member(self); stays {
		s.contact, s.late = now, false // no layout settles without it, and nothing is collected
		return true
	}
	// First what has been, then what is: whoever comes back sees everybody at once. And what it takes for settled may be so no more.
	s.late = s.late || s.Grace > 0 && now.Sub(s.contact) > s.Grace/4
	if !slices.ContainsFunc(settled.Members(), func(m ring.Member) bool { return m.ID != self && !sees(m.ID) }) {
		s.contact = now
	}
	return !s.late
}

// Late says that the process lost sight of the cluster that its node left, and hands over no more.
func (s *Standing) Late() bool { return s.late }
