package ring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// ChangeKind says what a Change does. The values are part of the format.
type ChangeKind uint8

const (
	// ChangeJoin adds Member, or gives a member of that id a new description.
	ChangeJoin ChangeKind = 1
	// ChangeLeave takes the member with Member.ID out, as long as N members stay; it cancels a join or a replacement of that id.
	ChangeLeave ChangeKind = 2
	// ChangeWeight gives the member with Member.ID the weight and tokens of Member.
	ChangeWeight ChangeKind = 3
	// ChangeReplicas sets N and MinW.
	ChangeReplicas ChangeKind = 4
	// ChangeRemove takes the member with Member.ID out, which was marked dead. However few stay: it holds nothing that counts.
	ChangeRemove ChangeKind = 5
	// ChangeReplace gives the place of the member with id Old to Member, which has its tokens and weight.
	ChangeReplace ChangeKind = 6
	// ChangeAbort takes back the change of the same layout whose Name is Aborts.
	ChangeAbort ChangeKind = 7
	// ChangeTokens gives the member with Member.ID the tokens of Member, unless a join or a weight of the same set gives it others: what a
	// plan asks of those who make room or take over. Two plans that unite may each move tokens of one member; the ring is whole all the same.
	ChangeTokens ChangeKind = 8
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
	case ChangeRemove:
		return "remove"
	case ChangeReplace:
		return "replace"
	case ChangeAbort:
		return "abort"
	case ChangeTokens:
		return "tokens"
	}
	return fmt.Sprintf("change(%d)", uint8(k))
}

// Change is one difference between a layout and its base. Member without Tokens means tokens drawn by RandomTokens, and without Weight means
// weight 1, both filled in by View.Propose. For ChangeReplicas, 1 <= MinW <= N <= MaxReplicas.
type Change struct {
	Kind    ChangeKind
	Member  Member
	N, MinW int
	Old     NodeID     // ChangeReplace
	Aborts  ChangeName // ChangeAbort
}

// ChangeName is the first half of the SHA-256 of a change's bytes.
type ChangeName [16]byte

// Name identifies c by its contents, which View.Propose must have completed.
func (c Change) Name() ChangeName { return newSetChange(c).name() }

// Validate tells what is wrong with c, wrapping ErrInvalid.
func (c Change) Validate() error {
	switch c.Kind {
	case ChangeJoin:
		return c.Member.Validate()
	case ChangeLeave, ChangeRemove:
		if c.Member.ID.IsZero() {
			return fmt.Errorf("%w: %s of no member", ErrInvalid, c.Kind)
		}
		return nil
	case ChangeReplace:
		if c.Old.IsZero() || c.Old == c.Member.ID {
			return fmt.Errorf("%w: %s replaces %s", ErrInvalid, c.Member.ID, c.Old)
		}
		return c.Member.Validate()
	case ChangeAbort:
		if c.Aborts == (ChangeName{}) {
			return fmt.Errorf("%w: abort of no change", ErrInvalid)
		}
		return nil
	case ChangeWeight:
		if c.Member.ID.IsZero() {
			return fmt.Errorf("%w: weight of no member", ErrInvalid)
		}
		return c.Member.validatePlaces()
	case ChangeTokens:
		if c.Member.ID.IsZero() {
			return fmt.Errorf("%w: tokens of no member", ErrInvalid)
		}
		return c.Member.validateTokens()
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

func (c setChange) name() (n ChangeName) {
	sum := sha256.Sum256(c.enc)
	copy(n[:], sum[:])
	return n
}

func newSetChange(c Change) setChange {
	enc := make([]byte, 0, 32+len(c.Member.Name)+len(c.Member.Zone)+3*len(c.Member.Tokens))
	enc = append(enc, byte(c.Kind))
	switch c.Kind {
	case ChangeJoin:
		enc = appendMember(enc, c.Member)
	case ChangeLeave, ChangeRemove:
		enc = append(enc, c.Member.ID[:]...)
	case ChangeReplace:
		enc = append(enc, c.Old[:]...)
		enc = appendMember(enc, c.Member)
	case ChangeAbort:
		enc = append(enc, c.Aborts[:]...)
	case ChangeWeight:
		enc = append(enc, c.Member.ID[:]...)
		enc = appendPlaces(enc, c.Member)
	case ChangeTokens:
		enc = append(enc, c.Member.ID[:]...)
		enc = appendTokens(enc, c.Member.Tokens)
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
	case ChangeLeave, ChangeRemove:
		c.Member.ID = r.id()
	case ChangeReplace:
		c.Old = r.id()
		c.Member = r.member()
	case ChangeAbort:
		c.Aborts = r.id()
	case ChangeWeight:
		c.Member.ID = r.id()
		r.places(&c.Member)
	case ChangeTokens:
		c.Member.ID = r.id()
		r.tokens(&c.Member)
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
