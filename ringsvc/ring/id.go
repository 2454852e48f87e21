package ring

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"
)

// ErrBadID is wrapped by the errors of ParseNodeID and ParseClusterID.
var ErrBadID = errors.New("ring: an id is 32 hexadecimal digits, not all zero")

// SlotBits is the number of leading bits of a key's hash that place it.
const SlotBits = 20

// Slots is the number of places on the ring, the unit of placement, of Merkle leaves and of transfer.
const Slots = 1 << SlotBits

// Slot is a place on the ring, 0 to Slots-1.
type Slot uint32

// Hash is XXH3-64 of the raw key. It is part of the format on disk: it never changes.
func Hash(key []byte) uint64 { return xxh3.Hash(key) }

// SlotOf is the top SlotBits bits of Hash(key), so that keys ordered by hash are ordered by slot too.
func SlotOf(key []byte) Slot { return Slot(Hash(key) >> (64 - SlotBits)) }

// Range is the slots s with From <= s < To, To at most Slots. It never wraps: a range over the end of the ring is two of these.
type Range struct{ From, To Slot }

// Contains tells whether s lies in r.
func (r Range) Contains(s Slot) bool { return r.From <= s && s < r.To }

// Len is the number of slots in r.
func (r Range) Len() int { return int(r.To) - int(r.From) }

// String is "[from,to)" in decimal.
func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.From, r.To) }

// NodeID names a member for ever: 16 random bytes, kept in its data directory. The zero value names none.
type NodeID [16]byte

// ClusterID names a cluster: 16 random bytes drawn by its founder. The zero value names none.
type ClusterID [16]byte

// NewNodeID reads an id from rand. It fails only when rand does.
func NewNodeID(rand io.Reader) (NodeID, error) {
	var id NodeID
	if err := readID(rand, id[:]); err != nil {
		return NodeID{}, fmt.Errorf("ring: draw a node id: %w", err)
	}
	return id, nil
}

// NewClusterID reads an id from rand. It fails only when rand does.
func NewClusterID(rand io.Reader) (ClusterID, error) {
	var id ClusterID
	if err := readID(rand, id[:]); err != nil {
		return ClusterID{}, fmt.Errorf("ring: draw a cluster id: %w", err)
	}
	return id, nil
}

// readID refuses the zero id, which names nobody.
func readID(rand io.Reader, id []byte) error {
	if _, err := io.ReadFull(rand, id); err != nil {
		return err
	}
	if allZero(id) {
		return ErrBadID
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// ParseNodeID reads what NodeID.String writes. The zero id is refused.
func ParseNodeID(s string) (NodeID, error) {
	var id NodeID
	return id, parseID(s, id[:])
}

// ParseClusterID reads what ClusterID.String writes. The zero id is refused.
func ParseClusterID(s string) (ClusterID, error) {
	var id ClusterID
	return id, parseID(s, id[:])
}

func parseID(s string, id []byte) error {
	if len(s) != 2*len(id) {
		return fmt.Errorf("%w: %d characters", ErrBadID, len(s))
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadID, err)
	}
	if allZero(b) {
		return fmt.Errorf("%w: all zero", ErrBadID)
	}
	copy(id, b)
	return nil
}

// String is 32 hexadecimal digits.
func (id NodeID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells whether id names nobody.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// Compare orders ids by their bytes: -1, 0 or 1.
func (id NodeID) Compare(o NodeID) int { return bytes.Compare(id[:], o[:]) }

// String is 32 hexadecimal digits.
func (id ClusterID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells whether id names no cluster.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

// Compare orders ids by their bytes: -1, 0 or 1.
func (id ClusterID) Compare(o ClusterID) int { return bytes.Compare(id[:], o[:]) }

// LayoutID names a layout: its epoch, and the first 16 bytes of SHA-256 of its canonical encoding. Two layouts of one epoch differ in
// Hash, so comparing epochs alone is not comparing layouts. The zero value names none and is less than every layout.
type LayoutID struct {
	Epoch uint64
	Hash  [16]byte
}

// Less orders layouts by epoch, then by hash.
func (id LayoutID) Less(o LayoutID) bool { return id.Compare(o) < 0 }

// Compare orders layouts by epoch, then by hash: -1, 0 or 1.
func (id LayoutID) Compare(o LayoutID) int {
	if id.Epoch != o.Epoch {
		if id.Epoch < o.Epoch {
			return -1
		}
		return 1
	}
	return bytes.Compare(id.Hash[:], o.Hash[:])
}

// IsZero tells whether id names no layout.
func (id LayoutID) IsZero() bool { return id == LayoutID{} }

// String is the epoch and the first four bytes of the hash, as in "7-ab12cd34": for people, not for comparison.
func (id LayoutID) String() string { return fmt.Sprintf("%d-%x", id.Epoch, id.Hash[:4]) }

// layoutIDBytes is the length of an encoded LayoutID.
const layoutIDBytes = 8 + 16

// AppendLayoutID appends the 24 bytes of id: the epoch, big endian, and the hash.
func AppendLayoutID(dst []byte, id LayoutID) []byte {
	dst = binary.BigEndian.AppendUint64(dst, id.Epoch)
	return append(dst, id.Hash[:]...)
}

// DecodeLayoutID reads exactly the 24 bytes that AppendLayoutID writes.
func DecodeLayoutID(b []byte) (LayoutID, error) {
	r := reader{b: b}
	id := r.layoutID()
	return id, r.finish()
}
