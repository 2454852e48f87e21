package ring

import "time"

// Absence is a member that gossip does not see alive, and for how long that has been so.
type Absence struct {
	ID  NodeID
	For time.Duration
}

// RemovalVerdict says what becomes of members that have been away for long.
type RemovalVerdict uint8

const (
	// RemovalNone: nobody has been away for long enough, or another member is to decide.
	RemovalNone RemovalVerdict = iota
	// RemovalNow: mark the one named dead.
	RemovalNow
	// RemovalPending: another that is marked dead, a member or a joiner, still holds tokens.
	RemovalPending
	// RemovalUnsafe: a third of the members or more is away. An operator must decide, who knows what became of them.
	RemovalUnsafe
)

// DecideRemoval tells a member whom to mark dead by itself: of those away for deadAfter or longer the one that has been away longest, the
// lowest id of several. One at a time, and never while a third of the members is away: then it may as well be this side that is cut off, and
// so never in a cluster of three. The lowest id among the members that are not away decides. deadAfter 0 means never. It reads its arguments only.
func DecideRemoval(v *View, self NodeID, away []Absence, deadAfter time.Duration) (NodeID, RemovalVerdict) {
	if _, member := v.settled.Member(self); !member || v.IsDead(self) || deadAfter <= 0 {
		return NodeID{}, RemovalNone
	}
	gone := make(map[NodeID]bool, len(away))
	var longest *Absence
	missing := 0
	for i, a := range away {
		if _, member := v.settled.Member(a.ID); !member || gone[a.ID] {
			continue
		}
		gone[a.ID] = true
		missing++
		if v.IsDead(a.ID) || a.For < deadAfter {
			continue
		}
		if longest == nil || a.For > longest.For || a.For == longest.For && a.ID.Compare(longest.ID) < 0 {
			longest = &away[i]
		}
	}
	for _, m := range v.settled.members {
		if !gone[m.ID] {
			if m.ID != self {
				return NodeID{}, RemovalNone
			}
			break
		}
	}
	switch {
	case longest == nil:
		return NodeID{}, RemovalNone
	case 3*missing >= len(v.settled.members):
		return longest.ID, RemovalUnsafe
	case v.removing(longest.ID):
		return longest.ID, RemovalPending
	}
	return longest.ID, RemovalNow
}
