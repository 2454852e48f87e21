package ring

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/zeebo/xxh3"
)

// briefVersion is not one of a view's: a brief is never stored, and read only beside a view.
const briefVersion = 16

// EncodeBrief returns what two who know the same layouts have left to tell each other: how far each node has come, in two bits each. Of
// 300 members' view with a change under way it takes some 150 bytes in place of 100,000. The caller owns them.
func (v *View) EncodeBrief() []byte {
	universe := v.newest.required
	cluster := v.Cluster()
	dst := append(make([]byte, 0, 128), briefVersion)
	dst = append(dst, cluster[:]...)
	dst = AppendLayoutID(dst, v.settled.id)
	dst = binary.BigEndian.AppendUint64(dst, v.Frame())
	var ids []LayoutID
	for id, marks := range v.marks {
		if within(marks, universe) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, LayoutID.Compare)
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = AppendLayoutID(dst, id)
		bits := make([]byte, (len(universe)+3)/4)
		for i, node := range universe {
			bits[i/4] |= v.marks[id][node] << (2 * (i % 4))
		}
		dst = append(dst, bits...)
	}
	return dst
}

// IsBrief tells whether b is what EncodeBrief made, by its first byte.
func IsBrief(b []byte) bool { return len(b) > 0 && b[0] == briefVersion }

// BriefSettled names the settled layout of whoever made a brief. Errors wrap ErrDamaged or ErrVersion.
func BriefSettled(b []byte) (LayoutID, error) {
	r := reader{b: b}
	r.version(briefVersion)
	r.id()
	id := r.layoutID()
	return id, r.err
}

// ClusterOf names the cluster of a view's bytes, brief or whole, by their beginning; zero where they are too short.
func ClusterOf(b []byte) (id ClusterID) {
	if len(b) > len(id) {
		copy(id[:], b[1:])
	}
	return id
}

// IsShort tells whether bytes of EncodeFor leave out the settled layout's document.
func IsShort(b []byte) bool {
	const header = 1 + 16 + 8 + 16 // version, cluster, layout
	return !IsBrief(b) && len(b) > header && b[header] == 0
}

// DecodeBrief reads what EncodeBrief made into a view that is like v in all but what is in the brief. ErrMissingLayout where the maker knew
// other layouts, changes or dead marks than v: whole views must be exchanged then. ErrForeignCluster where it is another cluster's. Other
// errors wrap ErrDamaged or ErrVersion. v is not
// modified, and the input not kept.
func DecodeBrief(b []byte, v *View) (*View, error) {
	r := reader{b: b}
	r.version(briefVersion)
	cluster, settled, frame := ClusterID(r.id()), r.layoutID(), r.uint64()
	switch {
	case r.err != nil:
		return nil, r.err
	case cluster != v.Cluster():
		return nil, fmt.Errorf("%w: %s, not %s", ErrForeignCluster, cluster, v.Cluster())
	case settled != v.settled.id || frame != v.Frame():
		return nil, ErrMissingLayout
	}
	out := v.Clone()
	universe := v.newest.required
	maps.DeleteFunc(out.marks, func(_ LayoutID, marks map[NodeID]uint8) bool { return within(marks, universe) })
	count := r.uvarint(maxMarked, "number of marked layouts")
	var last LayoutID
	for i := 0; i < count && r.err == nil; i++ {
		id := r.layoutID()
		bits := r.take((len(universe) + 3) / 4)
		if r.err != nil || i > 0 && !last.Less(id) || len(out.marks[id]) > 0 {
			r.fail("order of marked layouts")
			break
		}
		last = id
		for k, b := range bits {
			for j := 4 * k; b != 0; j, b = j+1, b>>2 {
				if mark := b & 3; mark != 0 && j < len(universe) {
					out.raise(id, universe[j], mark)
				} else if mark != 0 {
					r.fail("mark of nobody")
				}
			}
		}
		if len(out.marks[id]) == 0 {
			r.fail("no marks")
		}
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	before := out.Clone()
	out.resolve()
	if !out.sameAs(before) {
		r.fail("view not resolved")
		return nil, r.err
	}
	return out, nil
}

// Frame is a hash of all in a view that a brief leaves out: two views with equal ones read each other's briefs.
func (v *View) Frame() uint64 {
	rest := &View{settled: v.settled, newest: v.newest, pools: v.pools, dead: v.dead, marks: make(map[LayoutID]map[NodeID]uint8)}
	for id, marks := range v.marks {
		if !within(marks, v.newest.required) {
			rest.marks[id] = marks
		}
	}
	return xxh3.Hash(rest.EncodeFor(rest.settled.id))
}

// within tells whether only nodes of the sorted list have marks.
func within(marks map[NodeID]uint8, universe []NodeID) bool {
	for id := range marks {
		if _, in := slices.BinarySearchFunc(universe, id, NodeID.Compare); !in {
			return false
		}
	}
	return true
}
