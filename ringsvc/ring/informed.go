package ring

// Informed says whether a node that may have lost what it knew of layouts can rely on v again: it has taken in since what enough other members
// know, namely those that heard says yes to.
//
// Such a node may have acknowledged, and synced, layouts that it remembers nothing of. But each member had to acknowledge those before anyone
// synced, so one that is a member of all layouts it knows of knows them. A member may have lost its own knowledge too, but fewer machines lose
// their disks than a write has copies: so one member less than that is enough, this node being the other one.
func (v *View) Informed(self NodeID, heard func(NodeID) bool) bool {
	others, count := 0, 0
	for _, m := range v.settled.Members() {
		if _, stays := v.newest.Member(m.ID); !stays || m.ID == self || v.IsDead(m.ID) {
			continue
		}
		others++
		if heard(m.ID) {
			count++
		}
	}
	return count >= min(others, max(1, v.settled.EffectiveW(v.settled.MinW())-1))
}
