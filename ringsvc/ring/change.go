package ring

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// ChangeKind says what a Change does. The values are part of the format.
type ChangeKind uint8

const (
	// ChangeJoin adds Member, or gives a member of that id a new description.
	ChangeJoin ChangeKind = 1
	// ChangeLeave takes the member with Member.ID out; it wins over every other change to that id.
	ChangeLeave ChangeKind = 2
	// ChangeWeight gives the member with Member.ID the weight and tokens of Member.
	ChangeWeight ChangeKind = 3
	// ChangeReplicas sets N and MinW.
	ChangeReplicas ChangeKind = 4
)

// String is a short lower-case word.
func (k ChangeKind) String() string {
	switch k {
	case ChangeJoin:
		return "join"
	case ChangeLeave:
		return "leave"
	case ChangeWeight:
		return "weight"
	case ChangeReplicas:
		return "replicas"
	}
	return fmt.Sprintf("change(%d)", uint8(k))
}

// Change is one difference between a layout and its base. Member without Tokens means tokens drawn by RandomTokens, and without Weight means
// weight 1, both filled in by View.Propose. For ChangeReplicas, 1 <= MinW <= N <= MaxReplicas.
type Change struct {
	Kind    ChangeKind
	Member  Member
	N, MinW int
}

// Validate tells what is wrong with c, wrapping ErrInvalid.
func (c Change) Validate() error {
	switch c.Kind {
	case ChangeJoin:
		return c.Member.Validate()
	case ChangeLeave:
		if c.Member.ID.IsZero() {
			return fmt.Errorf("%w: leave of no member", ErrInvalid)
		}
		return nil
	case ChangeWeight:
		if c.Member.ID.IsZero() {
			return fmt.Errorf("%w: weight of no member", ErrInvalid)
		}
		return c.Member.validatePlaces()
	case ChangeReplicas:
		if c.MinW < 1 || c.N < c.MinW || c.N > MaxReplicas {
			return fmt.Errorf("%w: %d replicas with writes of at least %d", ErrInvalid, c.N, c.MinW)
		}
		return nil
	}
	return fmt.Errorf("%w: unknown change %d", ErrInvalid, c.Kind)
}

// MaxChanges is how many changes a layout may put on its base.
const MaxChanges = 4096

// setChange is a change with its canonical bytes, by which sets are sorted. Immutable.
type setChange struct {
	enc []byte
	Change
}

// changeSet is sorted by enc, without duplicates. Immutable once made: sets share their backing arrays.
type changeSet []setChange

func newSetChange(c Change) setChange {
	enc := make([]byte, 0, 32+len(c.Member.Name)+len(c.Member.Zone)+3*len(c.Member.Tokens))
	enc = append(enc, byte(c.Kind))
	switch c.Kind {
	case ChangeJoin:
		enc = appendMember(enc, c.Member)
	case ChangeLeave:
		enc = append(enc, c.Member.ID[:]...)
	case ChangeWeight:
		enc = append(enc, c.Member.ID[:]...)
		enc = appendPlaces(enc, c.Member)
	case ChangeReplicas:
		enc = binary.AppendUvarint(enc, uint64(c.N))
		enc = binary.AppendUvarint(enc, uint64(c.MinW))
	}
	return setChange{enc: enc, Change: c}
}

// change reads one canonical change; its bytes are copied, so that the input may be reused.
func (r *reader) change() setChange {
	start := r.b
	c := Change{Kind: ChangeKind(r.byte())}
	switch c.Kind {
	case ChangeJoin:
		c.Member = r.member()
	case ChangeLeave:
		c.Member.ID = r.id()
	case ChangeWeight:
		c.Member.ID = r.id()
		r.places(&c.Member)
	case ChangeReplicas:
		c.N = r.uvarint(MaxReplicas, "replicas")
		c.MinW = r.uvarint(MaxReplicas, "smallest write")
	}
	if r.err == nil {
		if err := c.Validate(); err != nil {
			r.fail(err.Error())
		}
	}
	if r.err != nil {
		return setChange{}
	}
	return setChange{enc: bytes.Clone(start[:len(start)-len(r.b)]), Change: c}
}

func makeChangeSet(changes []Change) changeSet {
	set := make(changeSet, 0, len(changes))
	for _, c := range changes {
		set = append(set, newSetChange(c))
	}
	slices.SortFunc(set, compareSetChange)
	return slices.CompactFunc(set, func(a, b setChange) bool { return bytes.Equal(a.enc, b.enc) })
}

func compareSetChange(a, b setChange) int { return bytes.Compare(a.enc, b.enc) }

// union returns a itself when b adds nothing.
func (a changeSet) union(b changeSet) changeSet {
	if b.subsetOf(a) {
		return a
	}
	out := make(changeSet, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := compareSetChange(a[0], b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// minus returns a itself when b takes nothing away.
func (a changeSet) minus(b changeSet) changeSet {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	var out changeSet
	for _, c := range a {
		if _, found := slices.BinarySearchFunc(b, c, compareSetChange); !found {
			out = append(out, c)
		}
	}
	if len(out) == len(a) {
		return a
	}
	return out
}

func (a changeSet) subsetOf(b changeSet) bool {
	if len(a) > len(b) {
		return false
	}
	for _, c := range a {
		i, found := slices.BinarySearchFunc(b, c, compareSetChange)
		if !found {
			return false
		}
		b = b[i+1:]
	}
	return true
}

func (a changeSet) equal(b changeSet) bool {
	return len(a) == len(b) && a.subsetOf(b)
}

func (a changeSet) encode(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(a)))
	for _, c := range a {
		dst = append(dst, c.enc...)
	}
	return dst
}

// changeSet reads what encode writes: at least one change, strictly increasing.
func (r *reader) changeSet() changeSet {
	count := r.uvarint(MaxChanges, "number of changes")
	if r.err == nil && count == 0 {
		r.fail("no changes")
	}
	var set changeSet
	for i := 0; i < count && r.err == nil; i++ {
		c := r.change()
		if r.err == nil && i > 0 && compareSetChange(set[i-1], c) >= 0 {
			r.fail("order of changes")
		}
		set = append(set, c)
	}
	return set
}

// plain returns the changes without their bytes.
func (a changeSet) plain() []Change {
	out := make([]Change, len(a))
	for i, c := range a {
		out[i] = c.Change
	}
	return out
}

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

// apply computes the members of a layout, sorted by id, with no token held twice. It is total and depends on its arguments alone, because
// everyone computes the members of a union of proposals for themselves:
//   - leave wins over every other change to the same id, unless nobody would be left: then the lowest id of base stays;
//   - of several joins, or weights, for one id, the last in canonical order counts; weights act after joins;
//   - of several replica settings the highest N and the highest MinW count.
func apply(base []Member, n, minW int, set changeSet) draftResult {
	d := draft{members: make(map[NodeID]Member, len(base)+len(set)), n: n, minW: minW}
	for _, m := range base {
		d.put(m)
	}
	leaving := make(map[NodeID]bool)
	replicas := false
	for _, c := range set {
		switch c.Kind {
		case ChangeLeave:
			leaving[c.Member.ID] = true
			d.tokens -= len(d.members[c.Member.ID].Tokens)
			delete(d.members, c.Member.ID)
		case ChangeReplicas:
			if !replicas {
				d.n, d.minW, replicas = c.N, c.MinW, true
			}
			d.n, d.minW = max(d.n, c.N), max(d.minW, c.MinW)
		}
	}
	for _, c := range set {
		if c.Kind == ChangeJoin && !leaving[c.Member.ID] {
			d.put(c.Member)
		}
	}
	for _, c := range set {
		if m, known := d.members[c.Member.ID]; known && c.Kind == ChangeWeight {
			m.Weight, m.Tokens = c.Member.Weight, c.Member.Tokens
			d.put(m)
		}
	}
	if len(d.members) == 0 && len(base) > 0 {
		d.put(base[0])
	}
	return d.finish()
}

// draftResult is what apply computes.
type draftResult struct {
	members []Member
	n, minW int
}

// finish sorts the members and resolves collisions: in order of ids each takes its tokens, and a token already taken moves to the next free
// slot clockwise.
func (d *draft) finish() draftResult {
	out := make([]Member, 0, len(d.members))
	for _, m := range d.members {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return a.ID.Compare(b.ID) })
	taken := make([]uint64, Slots/64)
	for i := range out {
		out[i].Tokens = settleTokens(taken, out[i].Tokens)
	}
	return draftResult{members: out, n: d.n, minW: d.minW}
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
