package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/zeebo/xxh3"
)

// A view that marks nobody dead is written in the older version, which every program reads.
const (
	viewVersion     = 1
	viewVersionDead = 2
)

// ErrMissingLayout says that a view was sent without its settled layout, and the receiver does not know that layout: ask for the whole view.
var ErrMissingLayout = errors.New("ring: view without its settled layout")

// Encode returns the canonical bytes of the whole view. The caller owns them.
func (v *View) Encode() []byte { return v.EncodeFor(LayoutID{}) }

// EncodeFor returns the bytes of the view for a receiver whose settled layout is known: when it is v's too, its document, most of the
// bytes of a large cluster's view, is left out. The caller owns the bytes.
func (v *View) EncodeFor(settled LayoutID) []byte {
	version := byte(viewVersion)
	if len(v.dead) > 0 {
		version = viewVersionDead
	}
	dst := append(make([]byte, 0, 256), version)
	cluster := v.Cluster()
	dst = append(dst, cluster[:]...)
	dst = AppendLayoutID(dst, v.settled.id)
	if settled == v.settled.id {
		dst = binary.AppendUvarint(dst, 0)
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(v.settled.enc)))
		dst = append(dst, v.settled.enc...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(v.pools)))
	for _, base := range slices.SortedFunc(maps.Keys(v.pools), LayoutID.Compare) {
		dst = AppendLayoutID(dst, base)
		dst = v.pools[base].encode(dst)
	}
	dst = binary.AppendUvarint(dst, uint64(len(v.marks)))
	for _, id := range slices.SortedFunc(maps.Keys(v.marks), LayoutID.Compare) {
		dst = AppendLayoutID(dst, id)
		marks := v.marks[id]
		dst = binary.AppendUvarint(dst, uint64(len(marks)))
		for _, node := range slices.SortedFunc(maps.Keys(marks), NodeID.Compare) {
			dst = append(dst, node[:]...)
			dst = append(dst, marks[node])
		}
	}
	if len(v.dead) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(v.dead)))
	for _, node := range v.Dead() {
		dst = append(dst, node[:]...)
		if v.dead[node] {
			dst = append(dst, 1)
		} else {
			dst = append(dst, 0)
		}
	}
	return dst
}

// Hash is a number that changes whenever anything in the view does, for telling cheaply whether two views differ. It is not a secret nor a
// proof against forgery.
func (v *View) Hash() uint64 { return xxh3.Hash(v.EncodeFor(v.settled.id)) }

// DecodeView reads the bytes of Encode and nothing else. Errors wrap ErrDamaged, ErrVersion or ErrMissingLayout. The input is not kept.
func DecodeView(b []byte) (*View, error) { return DecodeViewFor(b, nil) }

// DecodeViewFor reads the bytes of EncodeFor. settled, the receiver's settled layout (nil for none), stands in for the document that was left
// out, and is taken instead of an equal one that was not. The input is not kept.
func DecodeViewFor(b []byte, settled *Layout) (*View, error) {
	r := reader{b: b}
	known := byte(viewVersion)
	if len(b) > 0 && b[0] == viewVersionDead {
		known = viewVersionDead
	}
	r.version(known)
	cluster, id := ClusterID(r.id()), r.layoutID()
	doc := r.take(r.uvarint(uint64(len(r.b)), "length of the layout"))
	if r.err != nil {
		return nil, r.err
	}
	l, err := settledLayout(cluster, id, doc, settled)
	if err != nil {
		return nil, err
	}
	v := NewView(l)
	r.pools(v)
	r.marks(v)
	if known == viewVersionDead {
		r.dead(v)
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	before := v.Clone()
	v.resolve()
	if !v.sameAs(before) {
		return nil, fmt.Errorf("%w: view not resolved", ErrDamaged)
	}
	return v, nil
}

func settledLayout(cluster ClusterID, id LayoutID, doc []byte, known *Layout) (*Layout, error) {
	if known != nil && known.id == id && known.cluster == cluster && (len(doc) == 0 || slices.Equal(doc, known.enc)) {
		return known, nil
	}
	if len(doc) == 0 {
		return nil, fmt.Errorf("%w %s", ErrMissingLayout, id)
	}
	l, err := DecodeLayout(doc)
	if err != nil {
		return nil, err
	}
	if l.id != id || l.cluster != cluster {
		return nil, fmt.Errorf("%w: layout %s named %s", ErrDamaged, l.id, id)
	}
	return l, nil
}

func (r *reader) pools(v *View) {
	count := r.uvarint(maxPools, "number of pools")
	var last LayoutID
	for i := 0; i < count && r.err == nil; i++ {
		base := r.layoutID()
		if r.err == nil && (i > 0 && !last.Less(base) || base.Epoch > maxEpoch) {
			r.fail("order of pools")
		}
		last = base
		if set := r.changeSet(); r.err == nil {
			v.pools[base] = set
		}
	}
}

func (r *reader) marks(v *View) {
	count := r.uvarint(maxMarked, "number of marked layouts")
	var last LayoutID
	for i := 0; i < count && r.err == nil; i++ {
		id := r.layoutID()
		if r.err == nil && i > 0 && !last.Less(id) {
			r.fail("order of marked layouts")
		}
		last = id
		nodes := r.uvarint(maxMarks, "number of marks")
		if r.err == nil && nodes == 0 {
			r.fail("no marks")
		}
		var lastNode NodeID
		for j := 0; j < nodes && r.err == nil; j++ {
			node, mark := NodeID(r.id()), r.byte()
			if r.err != nil || mark < markAcked || mark > markSwitched || (j > 0 && lastNode.Compare(node) >= 0) {
				r.fail("mark")
				return
			}
			lastNode = node
			v.raise(id, node, mark)
		}
	}
}

// dead reads the marks of those that are gone for good: at least one, strictly increasing.
func (r *reader) dead(v *View) {
	count := r.uvarint(maxDead, "number of dead marks")
	if r.err == nil && count == 0 {
		r.fail("no dead marks")
	}
	var last NodeID
	for i := 0; i < count && r.err == nil; i++ {
		node, loss := NodeID(r.id()), r.byte()
		if r.err != nil || node.IsZero() || loss > 1 || i > 0 && last.Compare(node) >= 0 {
			r.fail("dead mark")
			return
		}
		last = node
		v.dead[node] = loss == 1
	}
}
