package ring

import "slices"

// draft is a member set under construction: base with changes applied.
type draft struct {
	members map[NodeID]Member
	tokens  int // of all members together
	n, minW int
}

// put adds or replaces a member unless the ring would overflow. Leaving it out is a pure function of the document, so everyone leaves out the same one.
func (d *draft) put(m Member) {
	old, known := d.members[m.ID]
	if (!known && len(d.members) >= MaxMembers) || d.tokens-len(old.Tokens)+len(m.Tokens) > MaxTokens {
		return
	}
	d.tokens += len(m.Tokens) - len(old.Tokens)
	d.members[m.ID] = m
}

func (d *draft) drop(id NodeID) {
	d.tokens -= len(d.members[id].Tokens)
	delete(d.members, id)
}

// apply computes the members of a layout, sorted by id, with no token held twice. It is total and depends on its arguments alone, because
// everyone computes the members of a union of proposals for themselves. In this order:
//   - a change that another of the set aborts counts for nothing;
//   - of several replica settings the highest N and the highest MinW count;
//   - members that are removed go, and so do those that are replaced, whose tokens go to the first of the set that asked for them;
//   - members take the tokens that the set gives them, of several the last in canonical order;
//   - joins add or describe anew, of several for one id the last in canonical order counts; weights act after them, likewise. Whoever is
//     removed or replaced stays out, and a leave of one that is no member cancels its join or replacement;
//   - members leave one after another, in canonical order, as long as N members stay. Several leaves that were safe one by one may not be
//     safe together, and nobody could say so in time: those that are too many are not carried out, the same for everyone.
//
// If nobody would be left, the lowest id of base stays. kept lists those whose leave was not carried out, sorted.
func apply(base []Member, n, minW int, set changeSet) draftResult {
	d := draft{members: make(map[NodeID]Member, len(base)+len(set)), n: n, minW: minW}
	for _, m := range base {
		d.put(m)
	}
	set = withoutAborted(set)
	d.setReplicas(set)
	leaving, placed := d.takeOut(set)
	for _, c := range set {
		if m, known := d.members[c.Member.ID]; known && c.Kind == ChangeTokens && !placed[c.Member.ID] {
			m.Tokens = c.Member.Tokens
			d.put(m)
		}
	}
	for _, c := range set {
		id := c.Member.ID
		if _, member := d.members[id]; c.Kind == ChangeJoin && !placed[id] && (member || !leaving[id]) {
			d.put(c.Member)
		}
	}
	for _, c := range set {
		if m, known := d.members[c.Member.ID]; known && c.Kind == ChangeWeight {
			m.Weight, m.Tokens = c.Member.Weight, c.Member.Tokens
			d.put(m)
		}
	}
	var kept []NodeID
	for _, c := range set {
		if _, member := d.members[c.Member.ID]; c.Kind != ChangeLeave || !member {
			continue
		}
		if len(d.members) > d.n {
			d.drop(c.Member.ID)
		} else {
			kept = append(kept, c.Member.ID)
		}
	}
	if len(d.members) == 0 && len(base) > 0 {
		d.put(base[0])
	}
	return d.finish(kept)
}

func withoutAborted(set changeSet) changeSet {
	var aborted map[ChangeName]bool
	for _, c := range set {
		if c.Kind == ChangeAbort {
			if aborted == nil {
				aborted = make(map[ChangeName]bool)
			}
			aborted[c.Aborts] = true
		}
	}
	if aborted == nil {
		return set
	}
	return slices.DeleteFunc(slices.Clone(set), func(c setChange) bool { return c.Kind != ChangeAbort && aborted[c.name()] })
}

func (d *draft) setReplicas(set changeSet) {
	first := true
	for _, c := range set {
		if c.Kind != ChangeReplicas {
			continue
		}
		if first {
			d.n, d.minW, first = c.N, c.MinW, false
		}
		d.n, d.minW = max(d.n, c.N), max(d.minW, c.MinW)
	}
}

// takeOut carries out removals and replacements. leaving holds the ids that are to leave, placed those that no join changes any more: they are
// out, or have the place of another.
func (d *draft) takeOut(set changeSet) (leaving, placed map[NodeID]bool) {
	leaving, placed = make(map[NodeID]bool), make(map[NodeID]bool)
	for _, c := range set {
		switch c.Kind {
		case ChangeLeave:
			leaving[c.Member.ID] = true
		case ChangeRemove:
			placed[c.Member.ID] = true
		}
	}
	for _, c := range set {
		if _, member := d.members[c.Member.ID]; c.Kind != ChangeReplace || member || leaving[c.Member.ID] || placed[c.Member.ID] {
			continue
		}
		if _, there := d.members[c.Old]; there {
			d.drop(c.Old)
			d.put(c.Member)
			placed[c.Old], placed[c.Member.ID] = true, true
		}
	}
	for _, c := range set {
		if _, there := d.members[c.Member.ID]; there && c.Kind == ChangeRemove {
			d.drop(c.Member.ID)
		}
	}
	return leaving, placed
}

// draftResult is what apply computes.
type draftResult struct {
	members []Member
	kept    []NodeID
	n, minW int
}

// finish sorts the members and resolves collisions: in order of ids each takes its tokens, and a token already taken moves to the next free
// slot clockwise.
func (d *draft) finish(kept []NodeID) draftResult {
	out := make([]Member, 0, len(d.members))
	for _, m := range d.members {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return a.ID.Compare(b.ID) })
	taken := make([]uint64, Slots/64)
	for i := range out {
		out[i].Tokens = settleTokens(taken, out[i].Tokens)
	}
	slices.SortFunc(kept, NodeID.Compare)
	return draftResult{members: out, kept: slices.Compact(kept), n: d.n, minW: d.minW}
}

// settleTokens marks tokens in the bit set taken and returns them sorted, moved where they collide. The input is not modified.
func settleTokens(taken []uint64, tokens []Slot) []Slot {
	moved := false
	out := tokens
	for i, t := range tokens {
		s := t
		for taken[s/64]&(1<<(s%64)) != 0 {
			s = (s + 1) % Slots
		}
		taken[s/64] |= 1 << (s % 64)
		if s == t {
			continue
		}
		if !moved {
			out, moved = slices.Clone(tokens), true
		}
		out[i] = s
	}
	if moved {
		slices.Sort(out)
	}
	return out
}
