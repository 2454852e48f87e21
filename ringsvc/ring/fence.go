package ring

import (
	"encoding/binary"
	"slices"
)

// Fence is what a node has promised, kept durably: written and synced to disk before the mark that tells others of it. It only moves up.
type Fence struct {
	Acked     LayoutID // writes from coordinators that do not know this layout are refused
	ReadEpoch uint64   // reads by layouts of lower epochs are refused
}

// AdmitWrite tells whether a write by a coordinator that knows the given live layouts, its settled one first, may be stored. Comparing whole
// names matters, and so does the whole set: a coordinator whose newest layout has the same or a higher epoch may still not know the one
// acknowledged here. An empty set is refused.
func (f Fence) AdmitWrite(live []LayoutID) bool {
	if len(live) == 0 {
		return false
	}
	return f.Acked.Epoch <= live[0].Epoch || slices.Contains(live, f.Acked)
}

// AdmitRead tells whether a read by the given layout may be answered.
func (f Fence) AdmitRead(id LayoutID) bool { return id.Epoch >= f.ReadEpoch }

const fenceVersion = 1

// Encode returns the 33 bytes of the fence. The caller owns them.
func (f Fence) Encode() []byte {
	b := append(make([]byte, 0, 1+layoutIDBytes+8), fenceVersion)
	b = AppendLayoutID(b, f.Acked)
	return binary.BigEndian.AppendUint64(b, f.ReadEpoch)
}

// DecodeFence reads the bytes of Encode. Errors wrap ErrDamaged or ErrVersion.
func DecodeFence(b []byte) (Fence, error) {
	r := reader{b: b}
	r.version(fenceVersion)
	f := Fence{Acked: r.layoutID(), ReadEpoch: r.uint64()}
	if err := r.finish(); err != nil {
		return Fence{}, err
	}
	return f, nil
}
