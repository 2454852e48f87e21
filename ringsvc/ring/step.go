package ring

import "slices"

// StepKind says what a node has to do next.
type StepKind uint8

const (
	// StepNone: nothing, until the view changes.
	StepNone StepKind = iota
	// StepAck: make the view durable if it is not, then Fence.Acked = Layout.ID(), then View.MarkAcked. A promise about a layout that is
	// forgotten would have to be overtaken.
	StepAck
	// StepSync: carry out Pulls, store durably what they bring, then View.MarkSynced. There may be none to carry out.
	StepSync
	// StepSwitch: make Fence.ReadEpoch = Layout.ID().Epoch durable, then View.MarkSwitched.
	StepSwitch
	// StepConfirm: from now on take no views from Dead, durably, then View.ConfirmDead.
	StepConfirm
	// StepOvertake: View.Overtake what was promised, in a view that is durable before anyone sees it.
	StepOvertake
)

// String is a short lower-case word.
func (k StepKind) String() string {
	switch k {
	case StepAck:
		return "ack"
	case StepSync:
		return "sync"
	case StepSwitch:
		return "switch"
	case StepConfirm:
		return "confirm"
	case StepOvertake:
		return "overtake"
	}
	return "none"
}

// Step is what a node has to do to bring a layout forward. Before acting on one again it should be asked for anew, since a merge may have
// brought a newer layout meanwhile.
type Step struct {
	Kind   StepKind
	Layout *Layout // the newest
	Pulls  []Pull
	Dead   NodeID // StepConfirm
}

// Pull asks for all records of a range from at least Need of Sources, different ones. When the node itself is among Sources it counts as one
// that was pulled. There may be fewer Sources than Need: then the pull cannot be carried out until loss is accepted (see View.MarkDead). Sources
// are sorted by id; the slice may be shared between pulls: do not modify it.
type Pull struct {
	Range   Range
	Sources []NodeID
	Need    int
}

// NextStep tells what self, whose durable promises are f, has to do in view v. It reads its arguments only.
func NextStep(v *View, self NodeID, f Fence) Step {
	l := v.newest
	if !l.requires(self) || v.IsDead(self) {
		return Step{}
	}
	for id := range v.dead {
		if v.isMember(id) && v.marks[deathName(id)][self] == 0 {
			return Step{Kind: StepConfirm, Layout: l, Dead: id}
		}
	}
	if f.Acked != l.id {
		// A promise for a layout of the same or a higher epoch is not taken back, only overtaken.
		if l.id.Epoch > f.Acked.Epoch {
			return Step{Kind: StepAck, Layout: l}
		}
		if _, member := v.settled.Member(self); member {
			return Step{Kind: StepOvertake, Layout: l}
		}
		return Step{}
	}
	if l == v.settled {
		return Step{}
	}
	switch mine := v.marks[l.id][self]; {
	case mine < markAcked:
		return Step{Kind: StepAck, Layout: l}
	case mine < markSynced && v.AllAcked(l):
		return Step{Kind: StepSync, Layout: l, Pulls: v.syncPulls(l, self)}
	case mine >= markSynced && mine < markSwitched && v.AllSynced(l):
		return Step{Kind: StepSwitch, Layout: l}
	}
	return Step{}
}

// syncPulls lists what self must fetch to serve reads by next. Where next has the very owners that base has, and asks no more of writes, a read
// quorum by next already meets every write quorum by base, and nothing is fetched. (Where next asks more of writes, reads may ask less, and
// would miss a write of before.) Where owners differ one that stays fetches too: it may be the one that missed a write, and next may have so
// few replicas that a read asks it alone. A member marked dead is no source, and none the less counts among those that may have been the only
// ones to take a write, so that as many sources are needed as without it.
func (v *View) syncPulls(next *Layout, self NodeID) []Pull {
	base := v.settled
	full := base.syncNeed()
	same := next.syncNeed() >= full
	old := base.table()
	shared := make(map[string][]NodeID)
	var out []Pull
	next.table().ranges(func(r Range, owners []NodeID) {
		if !slices.Contains(owners, self) {
			return
		}
		old.within(r, func(part Range, sources []NodeID) {
			if same && sameNodes(owners, sources) {
				return
			}
			alive, loss := v.living(sources)
			sorted, need := internSorted(shared, alive), full
			if loss {
				need = min(need, len(alive))
			}
			if k := len(out) - 1; k >= 0 && out[k].Range.To == part.From && out[k].Need == need && slices.Equal(out[k].Sources, sorted) {
				out[k].Range.To = part.To
				return
			}
			out = append(out, Pull{Range: part, Sources: sorted, Need: need})
		})
	})
	return out
}

// within calls fn for the parts of r that have the same owners in t, in slot order.
func (t *table) within(r Range, fn func(part Range, owners []NodeID)) {
	for from := r.From; from < r.To; {
		i := t.segment(from)
		to := r.To
		if end := t.tokens[i] + 1; end > from { // not the segment that wraps, or its part at the start of the ring
			to = min(to, end)
		}
		fn(Range{From: from, To: to}, t.at(i))
		from = to
	}
}

func sameNodes(a, b []NodeID) bool {
	if len(a) != len(b) {
		return false
	}
	for _, id := range a { // both hold distinct ids
		if !slices.Contains(b, id) {
			return false
		}
	}
	return true
}

// internSorted returns ids sorted, one copy for each set: a join in a large ring has tens of thousands of ranges and few sets.
func internSorted(seen map[string][]NodeID, ids []NodeID) []NodeID {
	sorted := slices.SortedFunc(slices.Values(ids), NodeID.Compare)
	var key []byte
	for _, id := range sorted {
		key = append(key, id[:]...)
	}
	if known, ok := seen[string(key)]; ok {
		return known
	}
	seen[string(key)] = sorted
	return sorted
}
