package ring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
)

// ErrTooLarge says that a layout or view would pass the bounds of this package (MaxMembers, MaxChanges, and those of a view).
var ErrTooLarge = errors.New("ring: too large")

const layoutVersion = 1

// Layout is the versioned document that says which nodes hold which tokens: a base, named and carried along, and a set of changes. Its
// epoch is the base's plus the number of changes, so a layout with more changes on one base is always newer, and the union of two proposals
// is newer than both and the same whoever computes it, in whatever order. Immutable and safe for concurrent use. Slices it returns are
// shared: do not modify them.
type Layout struct {
	id      LayoutID
	cluster ClusterID

	base            LayoutID
	baseMembers     []Member // sorted by id
	baseN, baseMinW int
	changes         changeSet
	enc             []byte // canonical
	members         []Member
	kept            []NodeID // whose leave was not carried out
	n, minW         int
	required        []NodeID // members and base members, sorted
	once            sync.Once
	lazy            *table // built at first use: many documents are only compared or passed on
}

// newLayout computes the layout that changes make of a base. changes is not empty.
func newLayout(cluster ClusterID, base LayoutID, members []Member, n, minW int, changes changeSet) *Layout {
	l := &Layout{cluster: cluster, base: base, baseMembers: members, baseN: n, baseMinW: minW, changes: changes}
	l.enc = l.encode()
	l.finish()
	return l
}

// finish derives everything that is not in the document. enc is set.
func (l *Layout) finish() {
	sum := sha256.Sum256(l.enc)
	l.id = LayoutID{Epoch: l.base.Epoch + uint64(len(l.changes))}
	copy(l.id.Hash[:], sum[:])
	res := apply(l.baseMembers, l.baseN, l.baseMinW, l.changes)
	l.members, l.kept, l.n, l.minW = res.members, res.kept, res.n, res.minW
	l.required = make([]NodeID, 0, len(l.members)+len(l.baseMembers))
	for _, m := range l.members {
		l.required = append(l.required, m.ID)
	}
	for _, m := range l.baseMembers {
		l.required = append(l.required, m.ID)
	}
	slices.SortFunc(l.required, NodeID.Compare)
	l.required = slices.Clip(slices.Compact(l.required))
}

// Found makes the first layout of a cluster: epoch 1, one member, n replicas, writes of at least minW. The founder's tokens are drawn by
// RandomTokens when it has none, its weight is 1 when it is 0; numbers out of range are moved to the nearest in range and texts are cut to
// MaxTextBytes, so that the document is always one that others accept.
func Found(cluster ClusterID, founder Member, n, minW int) *Layout {
	n = min(max(n, 1), MaxReplicas)
	minW = min(max(minW, 1), n)
	founder.Name, founder.Zone = shortText(founder.Name), shortText(founder.Zone)
	if !(founder.Weight > 0) {
		founder.Weight = 1
	}
	founder.Weight = min(founder.Weight, MaxWeight)
	if founder.validatePlaces() != nil {
		founder.Tokens = RandomTokens(founder.ID, TokenCount(founder.Weight), nil)
	}
	return newLayout(cluster, LayoutID{}, nil, n, minW, makeChangeSet([]Change{{Kind: ChangeJoin, Member: founder}}))
}

// next is the layout that changes make of l.
func (l *Layout) next(changes changeSet) *Layout {
	return newLayout(l.cluster, l.id, l.members, l.n, l.minW, changes)
}

// ID names the layout by epoch and contents.
func (l *Layout) ID() LayoutID { return l.id }

// Cluster names the cluster the layout belongs to.
func (l *Layout) Cluster() ClusterID { return l.cluster }

// Base names the layout this one was proposed on; zero for the first.
func (l *Layout) Base() LayoutID { return l.base }

// Changes is what this layout does to its base, in canonical order. The caller owns the slice.
func (l *Layout) Changes() []Change { return l.changes.plain() }

// Kept is the members that were to leave and stay, since fewer than N would be left, sorted by id.
func (l *Layout) Kept() []NodeID { return l.kept }

// Members is everyone who holds tokens, sorted by ID, tokens after collisions were resolved.
func (l *Layout) Members() []Member { return l.members }

// Member finds a member by id.
func (l *Layout) Member(id NodeID) (Member, bool) {
	i, found := findMember(l.members, id)
	if !found {
		return Member{}, false
	}
	return l.members[i], true
}

// N is how many replicas the cluster was asked to keep, 1 to MaxReplicas.
func (l *Layout) N() int { return l.n }

// Replicas is how many it does keep: N, or the number of members where that is smaller.
func (l *Layout) Replicas() int { return min(l.n, len(l.members)) }

// MinW is the smallest number of acknowledgements a write may ask for, 1 to N. The proof that a change of layouts loses no write rests on it.
func (l *Layout) MinW() int { return l.minW }

// EffectiveW is what a write asking for w acknowledgements needs in this layout: w clamped to 1..Replicas. Refusing w above N or below MinW is
// the caller's part.
func (l *Layout) EffectiveW(w int) int { return min(max(w, 1), l.Replicas()) }

// EffectiveR is what a read asking for r answers needs in this layout: r clamped to 1..Replicas.
func (l *Layout) EffectiveR(r int) int { return min(max(r, 1), l.Replicas()) }

// syncNeed is how many of n owners a new owner must hear so that it meets every write that was acknowledged by w of them.
func (l *Layout) syncNeed() int {
	n := l.Replicas()
	return n - min(l.minW, n) + 1
}

// requires tells whether id is a member of l or of its base.
func (l *Layout) requires(id NodeID) bool {
	_, found := slices.BinarySearchFunc(l.required, id, NodeID.Compare)
	return found
}

// Encode returns the canonical bytes, shared with l: do not modify them.
func (l *Layout) Encode() []byte { return slices.Clip(l.enc) }

func (l *Layout) encode() []byte {
	size := 64
	for _, m := range l.baseMembers {
		size += 48 + len(m.Name) + len(m.Zone) + 2*len(m.Tokens)
	}
	dst := append(make([]byte, 0, size), layoutVersion)
	dst = append(dst, l.cluster[:]...)
	dst = AppendLayoutID(dst, l.base)
	dst = binary.AppendUvarint(dst, uint64(l.baseN))
	dst = binary.AppendUvarint(dst, uint64(l.baseMinW))
	dst = binary.AppendUvarint(dst, uint64(len(l.baseMembers)))
	for _, m := range l.baseMembers {
		dst = appendMember(dst, m)
	}
	return l.changes.encode(dst)
}

// DecodeLayout reads the bytes of Encode and nothing else: what it accepts encodes to the same bytes again. Errors wrap ErrDamaged or
// ErrVersion. The input is not kept.
func DecodeLayout(b []byte) (*Layout, error) {
	r := reader{b: b}
	r.version(layoutVersion)
	l := &Layout{cluster: r.id(), base: r.layoutID()}
	l.baseN = r.uvarint(MaxReplicas, "replicas")
	l.baseMinW = r.uvarint(MaxReplicas, "smallest write")
	if r.err == nil && (l.cluster.IsZero() || l.baseMinW < 1 || l.baseN < l.baseMinW || l.base.Epoch > maxEpoch) {
		r.fail("cluster, base epoch or quorum")
	}
	l.baseMembers = r.members()
	if r.err == nil && (len(l.baseMembers) == 0) != l.base.IsZero() {
		r.fail("base without members, or members without a base")
	}
	l.changes = r.changeSet()
	if err := r.finish(); err != nil {
		return nil, err
	}
	l.enc = bytes.Clone(b)
	l.finish()
	if len(l.members) == 0 {
		return nil, errNoMembers
	}
	return l, nil
}

// maxEpoch leaves room to add changes without overflow.
const maxEpoch = 1 << 62

var errNoMembers = errors.Join(ErrDamaged, errors.New("ring: a layout without members"))

// members reads the member set of a base: sorted by id, and within the bounds that every computed layout keeps.
func (r *reader) members() []Member {
	count := r.uvarint(MaxMembers, "number of members")
	var out []Member
	tokens := 0
	for i := 0; i < count && r.err == nil; i++ {
		m := r.member()
		tokens += len(m.Tokens)
		if r.err == nil && (tokens > MaxTokens || (i > 0 && out[i-1].ID.Compare(m.ID) >= 0)) {
			r.fail("order of members, or too many tokens")
		}
		out = append(out, m)
	}
	return out
}
