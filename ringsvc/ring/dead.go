package ring

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// ErrRemovalPending says that a member marked dead still holds tokens, and another mark must wait until that removal has settled.
var ErrRemovalPending = errors.New("ring: another member that is marked dead still holds tokens")

// deathName is the name under which a view keeps who has confirmed that id is dead, beside the marks of layouts: no layout has that epoch.
func deathName(id NodeID) LayoutID { return LayoutID{Epoch: math.MaxUint64, Hash: [16]byte(id)} }

// maxDead bounds the dead marks of a view. They stay for ever, since whoever was cut off may come back at any time.
const maxDead = 1 << 14

// MarkDead marks a member as gone for good, with its data. The mark is never taken back: the machine may return only as a new node, with an
// empty disk and another id. From now on the layout under way, and those to come, wait for it no more, nothing is pulled from it, and its
// answers count for nothing; a ChangeRemove takes its tokens. acceptLoss says that changes may go on from fewer sources than would meet every
// acknowledged write, where no more are left because of this member (see Short); it may be added to a mark later.
//
// ErrInvalid (wrapped) where id is a member of no live layout; ErrRemovalPending while another marked member is one, unless acceptLoss: of
// two that went at once some key may have lost its quorum, and two that are merely cut off could still make one together. Whoever marks
// stores the view durably before anyone else sees it.
func (v *View) MarkDead(id NodeID, acceptLoss bool) error {
	if !v.isMember(id) {
		return fmt.Errorf("%w: %s is no member", ErrInvalid, id)
	}
	if !acceptLoss && v.removing(id) {
		return ErrRemovalPending
	}
	if len(v.dead) >= maxDead && !v.IsDead(id) {
		return ErrTooLarge
	}
	v.dead[id] = v.dead[id] || acceptLoss
	v.resolve()
	return nil
}

// removing says whether a member other than id is marked dead, one that was to join among them.
func (v *View) removing(id NodeID) bool {
	for other := range v.dead {
		if other != id && v.isMember(other) {
			return true
		}
	}
	return false
}

func (v *View) isMember(id NodeID) bool {
	_, settled := v.settled.Member(id)
	_, newest := v.newest.Member(id)
	return settled || newest
}

// ConfirmDead records that node, from now on and durably, takes no more views from the member id, which is marked dead.
func (v *View) ConfirmDead(id, node NodeID) {
	if v.IsDead(id) {
		v.mark(deathName(id), node, markAcked)
	}
}

// Accepts tells whether v may merge the view o that from sent. A member's word counts unless it is marked dead, and so does whoever knows a newer
// settled layout. Others, such as gateways, may be the last who remember a proposal, so that theirs counts too; but not while a member marked dead
// still holds tokens, since they may have the proposal from it (see excused).
func (v *View) Accepts(from NodeID, o *View) bool {
	switch {
	case v.IsDead(from):
		return false
	case v.isMember(from) || v.newest.id.Epoch < o.settled.id.Epoch:
		return true
	}
	for id := range v.dead {
		if v.isMember(id) {
			return false
		}
	}
	return true
}

// excused lists the required members of l that it does not wait for: those marked dead, as soon as all others have confirmed that. Until then
// somebody could still learn a change from a dead member and carry it into a larger layout, while others settled the smaller one without it.
func (v *View) excused(l *Layout) []NodeID {
	if len(v.dead) == 0 {
		return nil
	}
	var out []NodeID
	for _, id := range l.required {
		if !v.IsDead(id) {
			continue
		}
		confirmed := v.marks[deathName(id)]
		if len(confirmed) > 0 && !slices.ContainsFunc(l.required, func(o NodeID) bool { return confirmed[o] == 0 && !v.IsDead(o) }) {
			out = append(out, id)
		}
	}
	return out
}

// IsDead tells whether id is marked dead.
func (v *View) IsDead(id NodeID) bool {
	_, dead := v.dead[id]
	return dead
}

// Dead lists whoever is marked dead, members no more included, sorted. The caller owns the slice.
func (v *View) Dead() []NodeID { return slices.SortedFunc(maps.Keys(v.dead), NodeID.Compare) }

// Lost lists those marked dead whose loss is accepted, sorted: what they alone had is given up. The caller owns the slice.
func (v *View) Lost() []NodeID {
	return slices.DeleteFunc(v.Dead(), func(id NodeID) bool { return !v.dead[id] })
}

// Removals is the changes that take the tokens of members marked dead, to be proposed whenever the layout is settled and there are any.
func (v *View) Removals() []Change {
	var out []Change
	for _, m := range v.settled.members {
		if v.IsDead(m.ID) {
			out = append(out, Change{Kind: ChangeRemove, Member: Member{ID: m.ID}})
		}
	}
	return out
}

// Abort takes back the changes under way, but for removals, and returns the layout that is then newest. Their work is not undone; it is of
// no use any more. Only a member of the settled layout may abort, self, and must store the view durably before anyone else sees it. ErrNoChange
// where nothing is under way that can be taken back, or all have synced it, so that it is all but settled. ErrSynced where self has: the others
// may have synced it too, and somebody who knows of that reads by it already, while writers who know of the abort do not satisfy
// it. As long as a member takes part that has not synced it and never will, nobody reads by it.
func (v *View) Abort(self NodeID) (*Layout, error) {
	if v.newest == v.settled || v.AllSynced(v.newest) {
		return nil, ErrNoChange
	}
	if v.marks[v.newest.id][self] >= markSynced {
		return nil, ErrSynced
	}
	set := v.pending()
	active := withoutAborted(set)
	var aborts []Change
	for _, c := range active {
		if c.Kind != ChangeRemove && c.Kind != ChangeAbort {
			aborts = append(aborts, Change{Kind: ChangeAbort, Aborts: c.name()})
		}
	}
	if len(aborts) == 0 {
		return nil, ErrNoChange
	}
	all := v.pools[v.settled.id].union(makeChangeSet(aborts))
	if len(all) > MaxChanges {
		return nil, ErrTooLarge
	}
	v.pools[v.settled.id] = all
	v.resolve()
	return v.newest, nil
}

// Short lists the ranges for which the layout l, proposed on the settled one, waits in vain: fewer of their owners are left than would meet
// every acknowledged write, because of members marked dead, and no mark among them accepts the loss. Empty for the settled layout.
func (v *View) Short(l *Layout) []Range {
	var out []Range
	if l == v.settled || len(v.dead) == 0 {
		return nil
	}
	old := v.settled.table()
	need := v.settled.syncNeed()
	next := l.table()
	same := l.syncNeed() >= need
	old.ranges(func(r Range, owners []NodeID) {
		if alive, loss := v.living(owners); len(alive) >= need || loss {
			return
		}
		next.within(r, func(part Range, now []NodeID) {
			if same && sameNodes(owners, now) {
				return
			}
			if k := len(out) - 1; k >= 0 && out[k].To == part.From {
				out[k].To = part.To
				return
			}
			out = append(out, part)
		})
	})
	return out
}

// living returns owners without those marked dead, owners itself where none is, and whether a mark among them accepts the loss.
func (v *View) living(owners []NodeID) (alive []NodeID, loss bool) {
	for i, id := range owners {
		accepts, dead := v.dead[id]
		switch {
		case dead && alive == nil:
			alive = append(make([]NodeID, 0, len(owners)), owners[:i]...)
		case !dead && alive != nil:
			alive = append(alive, id)
		}
		loss = loss || accepts
	}
	if alive == nil {
		return owners, loss
	}
	return alive, loss
}

// Gained counts, for each member of next, the slots that it owns there and not in base: what a change moves to it.
func Gained(base, next *Layout) map[NodeID]int {
	out := make(map[NodeID]int)
	next.table().ranges(func(r Range, owners []NodeID) {
		base.table().within(r, func(part Range, before []NodeID) {
			for _, id := range owners {
				if !slices.Contains(before, id) {
					out[id] += part.Len()
				}
			}
		})
	})
	return out
}
