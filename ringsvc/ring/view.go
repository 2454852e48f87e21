package ring

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

var (
	// ErrForeignCluster says that two views belong to different clusters.
	ErrForeignCluster = errors.New("ring: view of another cluster")
	// ErrUnsettled says that a change is pending, and another must wait for it to settle.
	ErrUnsettled = errors.New("ring: a layout change is pending")
	// ErrNoChange says that the changes would leave the layout as it is.
	ErrNoChange = errors.New("ring: nothing would change")
	// ErrSynced says that a change cannot be taken back by this node, which has synced it.
	ErrSynced = errors.New("ring: this node has synced the change, and others may read by it: one that has not may take it back")
)

// What a view may hold besides its settled layout. Real ones stay far below: one base with pending changes, one or two layouts with marks.
const (
	maxPools  = 8
	maxMarked = 64
	maxMarks  = 2 * MaxMembers // per layout: members, and members of its base
)

// Marks of a node on a layout; each includes those before it.
const (
	markAcked    = 1
	markSynced   = 2
	markSwitched = 3
)

// View is what someone knows about the layouts of a cluster: the settled one, the changes proposed on it, and how far each node has come with
// the newest. Nodes and gateways hold one each; whenever two meet, each merges the other's. Not safe for concurrent use; the layouts it
// returns are.
//
// # Why a ring change is never a jump
//
// Suppose a node joins and every coordinator simply starts to use the new ring when it hears of it. One that has not heard writes a key to
// the old owners A, B and C; one that has reads it from B, C and the newcomer D, and B was away when the key was written. The read asks two of
// them, B and D, and neither has it: both coordinators kept to W=2 and R=2 of N=3, and still an acknowledged write was missed. Worse, two
// changes in a row can make the old and the new owners strangers to each other. So a change goes in steps, and each begins only when everyone
// who could still do harm has confirmed the one before:
//
//  1. Proposed. The new layout is known to some. Whoever knows it writes to a quorum of the old owners and to a quorum of the new.
//  2. Acknowledged. A member that has heard of it promises, on disk, to refuse writes from coordinators that do not know it. The refusal hands
//     over the view, so that the coordinator catches up and tries again. Once all have promised, no write can gather an old quorum without
//     also gathering a new one: what is missing from the new owners is now a fixed set of older writes.
//  3. Synced. Each new owner fetches that set from n-w+1 old owners. Any fewer might all have missed a write that w others acknowledged.
//  4. Switched. When all have synced, reads may use the new layout, and each member promises, on disk, to refuse reads by the old: from now
//     on somebody may stop writing to it.
//  5. Settled. When all have switched nobody reads by the old layout, and writers drop it.
//
// Members of the old and of the new layout count alike in each step: one that leaves could otherwise serve somebody on the old ring.
// Nobody decides that a step is done. Each derives it from the marks it has seen, and since marks, like proposals, are only ever added,
// one who has seen less is merely earlier.
//
// # Why merging views is a join
//
// A view's state is the settled layout, the highest known; a set of changes for each base; and for each (layout, node) the highest mark.
// Merging takes the maximum, the union and the maximum, so order and repetition do not matter. All else follows from the state:
//
//   - Newest is the settled layout with all changes known on it. The epoch counts changes, so a union has a higher epoch than its parts:
//     a node that acknowledged a part acknowledges the union next, and its promise about the part is overtaken, never broken. (Numbering the
//     union "one above the higher of the two" instead gives different epochs in different orders of arrival.)
//   - A change known on the base of the settled layout that did not make it into that layout is carried over to the next, together
//     with all that did, so that the next has a higher epoch than any layout that a node may have acknowledged meanwhile; otherwise
//     that node would refuse writes for ever.
//   - Marks are kept for layouts whose changes have not all arrived: they count once those have. Marks and changes that the settled
//     layout has overtaken are dropped, and so are marks of layouts older than Newest, which nobody completes any more.
//   - A view that is far behind takes over a settled layout that is many epochs newer at once: its document carries everything needed.
//
// # Members that are gone for good
//
// A layout waits for all its members, so one that will never come back would stop every later change. MarkDead excuses it: a fourth part of a
// view's state, that only grows, is who is marked dead. Nobody waits for such a member, nobody takes anything from it, and the next
// layout takes its tokens. Since it promised nothing, it may still take writes and answer reads by the old ring. One such node is harmless as
// long as reads ask two and writes are acknowledged by two: every other owner has promised to refuse. Two at once would not be, so a second
// mark waits until the first removal has settled. New owners need as many sources as ever: a dead one may have been among the W that
// acknowledged a write, and all N-W that missed it could be among fewer.
//
// Three rules are left to the holder. It takes in only views that it Accepts. Only a member of the settled layout proposes, and it stores its view durably before it shows it to anyone;
// likewise a mark follows what it reports. Then a change proposed on a base is in every layout that settles on that base, for its
// proposer had to switch to that layout and would have added it. A proposer that loses its disk breaks this: some may promise a layout with
// its change after others have settled one without it, and then one more. Whoever is left with a promise that no layout will meet any more
// puts changes without effect on the settled layout, until the next one overtakes the promise (Overtake). It has not acknowledged the newest
// layout, so nothing can settle meanwhile.
type View struct {
	settled *Layout
	newest  *Layout                // derived
	pools   map[LayoutID]changeSet // by base; never empty sets
	marks   map[LayoutID]map[NodeID]uint8
	dead    map[NodeID]bool // marked dead; true where loss of data is accepted
}

// NewView starts from a layout known to be settled, such as the one that Found made.
func NewView(founding *Layout) *View {
	return &View{settled: founding, newest: founding, pools: map[LayoutID]changeSet{}, marks: map[LayoutID]map[NodeID]uint8{}, dead: map[NodeID]bool{}}
}

// Clone returns an independent view. Layouts, which never change, are shared.
func (v *View) Clone() *View {
	c := &View{settled: v.settled, newest: v.newest, pools: maps.Clone(v.pools), marks: make(map[LayoutID]map[NodeID]uint8, len(v.marks)), dead: maps.Clone(v.dead)}
	for id, m := range v.marks {
		c.marks[id] = maps.Clone(m)
	}
	return c
}

// Cluster names the cluster.
func (v *View) Cluster() ClusterID { return v.settled.cluster }

// Settled is the newest layout that is known to be in use by all its members and those before.
func (v *View) Settled() *Layout { return v.settled }

// Newest is the layout under way, or the settled one.
func (v *View) Newest() *Layout { return v.newest }

// Live is what writes must satisfy: the settled layout, and the newest when that is another. The caller owns the slice.
func (v *View) Live() []*Layout {
	if v.newest == v.settled {
		return []*Layout{v.settled}
	}
	return []*Layout{v.settled, v.newest}
}

// LiveIDs names Live, settled first: what a write carries. The caller owns the slice.
func (v *View) LiveIDs() []LayoutID {
	if v.newest == v.settled {
		return []LayoutID{v.settled.id}
	}
	return []LayoutID{v.settled.id, v.newest.id}
}

// ReadLayout is what reads use: the newest once all are known to have synced it, else the settled one.
func (v *View) ReadLayout() *Layout {
	if v.AllSynced(v.newest) {
		return v.newest
	}
	return v.settled
}

// Required is everyone who must acknowledge, sync and switch before l settles: its members and those of its base, but for those marked dead,
// sorted. The slice is shared: do not modify it.
func (v *View) Required(l *Layout) []NodeID {
	alive, _ := v.living(l.required)
	return slices.Clip(alive)
}

// AllAcked tells whether all required nodes are known to have acknowledged l. It is true of the settled layout, and AllSynced and AllSwitched
// are too.
func (v *View) AllAcked(l *Layout) bool { return v.all(l, markAcked) }

// AllSynced tells whether all required nodes are known to have synced l.
func (v *View) AllSynced(l *Layout) bool { return v.all(l, markSynced) }

// AllSwitched tells whether all required nodes are known to have switched to l.
func (v *View) AllSwitched(l *Layout) bool { return v.all(l, markSwitched) }

func (v *View) all(l *Layout, mark uint8) bool {
	if l.id == v.settled.id {
		return true
	}
	marks := v.marks[l.id]
	if len(marks)+len(v.dead) < len(l.required) {
		return false
	}
	excused := v.excused(l)
	for _, id := range l.required {
		if marks[id] < mark && !slices.Contains(excused, id) {
			return false
		}
	}
	return true
}

// Missing names who has not yet acknowledged, synced and switched l, each sorted. The caller owns the slices.
func (v *View) Missing(l *Layout) (acked, synced, switched []NodeID) {
	if l.id == v.settled.id {
		return nil, nil, nil
	}
	marks := v.marks[l.id]
	required, _ := v.living(l.required)
	for _, id := range required {
		if marks[id] < markAcked {
			acked = append(acked, id)
		}
		if marks[id] < markSynced {
			synced = append(synced, id)
		}
		if marks[id] < markSwitched {
			switched = append(switched, id)
		}
	}
	return acked, synced, switched
}

// MarkAcked records that node has acknowledged the layout, once its Fence is durable. Marks of layouts already overtaken are ignored.
func (v *View) MarkAcked(id LayoutID, node NodeID) { v.mark(id, node, markAcked) }

// MarkSynced records that node has synced the layout, which includes that it acknowledged it.
func (v *View) MarkSynced(id LayoutID, node NodeID) { v.mark(id, node, markSynced) }

// MarkSwitched records that node has switched to the layout, once its Fence refuses reads of older ones durably. It may settle the layout.
func (v *View) MarkSwitched(id LayoutID, node NodeID) { v.mark(id, node, markSwitched) }

func (v *View) mark(id LayoutID, node NodeID, mark uint8) {
	if !v.keepsMarks(id) || (v.marks[id] == nil && len(v.marks) >= maxMarked) || len(v.marks[id]) >= maxMarks {
		return
	}
	if v.raise(id, node, mark) {
		v.resolve()
	}
}

// raise reports whether it changed anything.
func (v *View) raise(id LayoutID, node NodeID, mark uint8) bool {
	m := v.marks[id]
	if m == nil {
		m = make(map[NodeID]uint8)
		v.marks[id] = m
	}
	if m[node] >= mark {
		return false
	}
	m[node] = mark
	return true
}

// keepsMarks tells whether marks of the layout can still matter.
func (v *View) keepsMarks(id LayoutID) bool {
	if id.Epoch == math.MaxUint64 {
		return v.isMember(NodeID(id.Hash)) && v.IsDead(NodeID(id.Hash))
	}
	return id.Epoch > v.settled.id.Epoch && id.Epoch >= v.newest.id.Epoch
}

// Propose puts changes on the settled layout and returns the layout that is then newest. Only a member of the settled layout may propose,
// and must store the view durably before anyone else sees it. ErrUnsettled while a change is pending, ErrNoChange when the members, N and
// MinW would stay as they are, ErrInvalid (wrapped) for a change that no layout may hold, ErrTooLarge when the ring is full. The view is
// unchanged after an error.
func (v *View) Propose(changes []Change) (*Layout, error) {
	if v.newest != v.settled {
		return nil, ErrUnsettled
	}
	full := make([]Change, len(changes))
	joining := 0
	for i, c := range changes {
		full[i] = v.complete(c)
		if err := full[i].Validate(); err != nil {
			return nil, err
		}
		if _, known := v.settled.Member(c.Member.ID); !known && c.Kind == ChangeJoin {
			joining++
		}
		if err := v.allows(full[i]); err != nil {
			return nil, err
		}
	}
	set := makeChangeSet(full)
	if len(set) > MaxChanges || len(v.settled.members)+joining > MaxMembers {
		return nil, ErrTooLarge
	}
	if len(set) == 0 {
		return nil, ErrNoChange
	}
	l := v.settled.next(set)
	if l.n == v.settled.n && l.minW == v.settled.minW && slices.EqualFunc(l.members, v.settled.members, sameMember) {
		return nil, ErrNoChange
	}
	for _, c := range set {
		if m, there := l.Member(c.Member.ID); (c.Kind == ChangeJoin || c.Kind == ChangeWeight) && (!there || len(m.Tokens) != len(c.Member.Tokens)) && !leaves(set, c.Member.ID) {
			return nil, ErrTooLarge
		}
	}
	v.pools[v.settled.id] = set
	v.resolveWith(l) // marks of older layouts that were heard of before their changes are of no use any more
	return v.newest, nil
}

// Overtake makes the newest layout one of a higher epoch than promised, which its holder acknowledged and which will not come any more: by
// changes that change nothing, the same whoever overtakes that promise. Only a member of the settled layout that has not acknowledged the
// newest may do so, and must store the view durably before anyone else sees it. ErrTooLarge where there is no room for more changes.
func (v *View) Overtake(promised LayoutID) error {
	set := v.pools[v.settled.id]
	for i := uint32(0); v.settled.id.Epoch+uint64(len(v.pendingWith(set))) <= promised.Epoch; i++ {
		if len(set) >= MaxChanges {
			return ErrTooLarge
		}
		name := sha256.Sum256(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(promised.Hash[:], promised.Epoch), i))
		nothing := Change{Kind: ChangeAbort, Aborts: ChangeName(name[:16])} // takes back a change that nobody made
		set = set.union(changeSet{newSetChange(nothing)})
	}
	v.pools[v.settled.id] = set
	v.resolve()
	return nil
}

// leaves tells whether set takes id out, or gives it the place of another.
func leaves(set changeSet, id NodeID) bool {
	return slices.ContainsFunc(set, func(c setChange) bool {
		return (c.Kind == ChangeLeave || c.Kind == ChangeRemove || c.Kind == ChangeReplace) && c.Member.ID == id || c.Kind == ChangeReplace && c.Old == id
	})
}

// allows tells what forbids a completed change on the settled layout, wrapping ErrInvalid.
func (v *View) allows(c Change) error {
	_, member := v.settled.Member(c.Member.ID)
	switch {
	case c.Kind == ChangeWeight && !member:
		return fmt.Errorf("%w: weight of %s, which is no member", ErrInvalid, c.Member.ID)
	case c.Kind == ChangeRemove && !v.IsDead(c.Member.ID):
		return fmt.Errorf("%w: removal of %s, which is not marked dead", ErrInvalid, c.Member.ID)
	case c.Kind == ChangeReplace && member:
		return fmt.Errorf("%w: %s is a member already and cannot take another's place", ErrInvalid, c.Member.ID)
	case c.Kind == ChangeAbort:
		return fmt.Errorf("%w: nothing to abort", ErrInvalid)
	case (c.Kind == ChangeJoin || c.Kind == ChangeReplace) && v.IsDead(c.Member.ID):
		return fmt.Errorf("%w: %s was removed for good", ErrInvalid, c.Member.ID)
	}
	if c.Kind == ChangeReplace {
		if _, there := v.settled.Member(c.Old); !there {
			return fmt.Errorf("%w: %s, which is to be replaced, is no member", ErrInvalid, c.Old)
		}
	}
	return nil
}

func sameMember(a, b Member) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Zone == b.Zone && a.Weight == b.Weight && slices.Equal(a.Tokens, b.Tokens)
}

// complete fills in a change's weight and tokens where they were left out.
func (v *View) complete(c Change) Change {
	m := &c.Member
	if old, there := v.settled.Member(c.Old); c.Kind == ChangeReplace && there {
		m.Weight, m.Tokens = old.Weight, old.Tokens
	}
	if c.Kind != ChangeJoin && c.Kind != ChangeWeight {
		return c
	}
	if m.Weight == 0 {
		m.Weight = 1
	}
	if len(m.Tokens) > 0 || !(m.Weight > 0 && m.Weight <= MaxWeight) {
		return c
	}
	taken := make(map[Slot]struct{})
	for _, o := range v.settled.members {
		if o.ID == m.ID {
			continue
		}
		for _, s := range o.Tokens {
			taken[s] = struct{}{}
		}
	}
	m.Tokens = RandomTokens(m.ID, TokenCount(m.Weight), func(s Slot) bool { _, t := taken[s]; return t })
	return c
}

// Merge adds what o knows to v and reports whether v changed. ErrForeignCluster for a view of another cluster, ErrTooLarge when the union
// passes the bounds of a view; v is unchanged then. o is not modified and shares nothing with v afterwards but layouts.
func (v *View) Merge(o *View) (changed bool, err error) {
	if v.Cluster() != o.Cluster() {
		return false, fmt.Errorf("%w: %s, not %s", ErrForeignCluster, o.Cluster(), v.Cluster())
	}
	if v.covers(o) {
		return false, nil
	}
	next := v.Clone()
	if next.settled.id.Less(o.settled.id) {
		next.settled = o.settled
	}
	for base, set := range o.pools {
		next.pools[base] = next.pools[base].union(set)
	}
	for id, marks := range o.marks {
		for node, mark := range marks {
			next.raise(id, node, mark)
		}
	}
	for id, loss := range o.dead {
		next.dead[id] = next.dead[id] || loss
	}
	next.resolveWith(o.newest)
	if err := next.bounded(); err != nil {
		return false, err
	}
	changed = !next.sameAs(v)
	*v = *next
	return changed, nil
}

// covers tells cheaply, and only with certainty when true, that o has nothing to add.
func (v *View) covers(o *View) bool {
	if v.settled.id != o.settled.id {
		return false
	}
	for base, set := range o.pools {
		if !set.subsetOf(v.pools[base]) {
			return false
		}
	}
	for id, marks := range o.marks {
		if !v.keepsMarks(id) {
			continue
		}
		mine := v.marks[id]
		for node, mark := range marks {
			if mine[node] < mark {
				return false
			}
		}
	}
	for id, loss := range o.dead {
		if mine, known := v.dead[id]; !known || loss && !mine {
			return false
		}
	}
	return true
}

func (v *View) sameAs(o *View) bool {
	return v.settled.id == o.settled.id && maps.EqualFunc(v.pools, o.pools, changeSet.equal) && maps.Equal(v.dead, o.dead) &&
		maps.EqualFunc(v.marks, o.marks, maps.Equal[map[NodeID]uint8])
}

func (v *View) bounded() error {
	if len(v.pools) > maxPools || len(v.marks) > maxMarked || len(v.dead) > maxDead {
		return ErrTooLarge
	}
	for _, set := range v.pools {
		if len(set) > MaxChanges {
			return ErrTooLarge
		}
	}
	for _, m := range v.marks {
		if len(m) > maxMarks {
			return ErrTooLarge
		}
	}
	return nil
}

func (v *View) resolve() { v.resolveWith(nil) }

// resolveWith derives newest, drops what the settled layout has overtaken, and settles what all have switched to. hint, when it turns out to
// be the newest layout, saves computing it.
func (v *View) resolveWith(hint *Layout) {
	for {
		v.prunePools()
		v.derive(hint)
		maps.DeleteFunc(v.marks, func(id LayoutID, m map[NodeID]uint8) bool { return len(m) == 0 || !v.keepsMarks(id) })
		if v.newest == v.settled || !v.AllSwitched(v.newest) {
			return
		}
		v.settled = v.newest
	}
}

// prunePools keeps the changes on the settled layout, those on layouts that are to come, and those on its base that missed it.
func (v *View) prunePools() {
	s := v.settled
	for base, set := range v.pools {
		switch {
		case base == s.id || base.Epoch > s.id.Epoch:
		case base == s.base && len(set.minus(s.changes)) > 0:
			v.pools[base] = set.minus(s.changes)
		default:
			delete(v.pools, base)
		}
	}
}

// pending is all changes for the layout after the settled one.
func (v *View) pending() changeSet { return v.pendingWith(v.pools[v.settled.id]) }

// pendingWith is what would be pending if set were what is proposed on the settled layout.
func (v *View) pendingWith(set changeSet) changeSet {
	if missed := v.pools[v.settled.base]; len(missed) > 0 {
		set = set.union(missed).union(v.settled.changes)
	}
	return set
}

func (v *View) derive(hint *Layout) {
	set := v.pending()
	if len(set) == 0 {
		v.newest = v.settled
		return
	}
	for _, l := range []*Layout{v.newest, hint} {
		if l != nil && l.base == v.settled.id && l.changes.equal(set) {
			v.newest = l
			return
		}
	}
	v.newest = v.settled.next(set)
}
