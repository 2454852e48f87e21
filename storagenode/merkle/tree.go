// Package merkle keeps a 128-bit sum for every slot over the keys and records in it, and finds what two holders of a range
// have different with little traffic. It is pure.
package merkle

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Sum stands for a set of keys and their records: the sum, modulo 2^128, of the leaves of each. Being a sum it is the same
// in whatever order writes came, one write changes it in constant time, and the sum of a range is that of its parts. Two
// different sets have equal sums by accident only: with probability 2^-128 for each comparison. It is no defence against
// somebody who chooses records to that end.
type Sum struct{ Hi, Lo uint64 }

// Plus returns s + o.
func (s Sum) Plus(o Sum) Sum {
	lo, carry := bits.Add64(s.Lo, o.Lo, 0)
	hi, _ := bits.Add64(s.Hi, o.Hi, carry)
	return Sum{hi, lo}
}

// Minus returns s - o.
func (s Sum) Minus(o Sum) Sum {
	lo, borrow := bits.Sub64(s.Lo, o.Lo, 0)
	hi, _ := bits.Sub64(s.Hi, o.Hi, borrow)
	return Sum{hi, lo}
}

// SumLen is the length of an encoded sum, in bytes.
const SumLen = 16

// Append appends the encoded sum: 16 bytes, big-endian.
func (s Sum) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, s.Hi), s.Lo)
}

// sumAt reads the sum at the beginning of b, of SumLen bytes at least.
func sumAt(b []byte) Sum {
	return Sum{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// seed keys the hash of a leaf. It names the format: another way to compute leaves takes another seed, so that nodes that
// disagree about it see differences everywhere and repair nothing, instead of missing some. Its bytes are "dotring1".
const seed = 0x646f7472696e6731

// leafStack is how long a key may be for a leaf to be hashed without allocation.
const leafStack = 256

// Leaf is what a key with a record adds to its slot: the XXH3-128, with a fixed seed, of the record's digest and the key
// behind it. A key without a record (the zero digest) adds nothing.
func Leaf(key []byte, d record.Digest) Sum {
	if d == (record.Digest{}) {
		return Sum{}
	}
	var room [len(d) + leafStack]byte
	b := append(room[:0], d[:]...)
	b = append(b, key...)
	h := xxh3.Hash128Seed(b, seed)
	return Sum{h.Hi, h.Lo}
}

// fanBits is how many children a node of the tree has, as a power of two. Folding a range takes at most 2^fanBits
// additions on each side of each level.
const fanBits = 6

const (
	blocks      = ring.Slots >> fanBits
	superblocks = blocks >> fanBits
)

// Tree holds the sums of all slots, 16 MiB, and of aligned blocks of 64 and 4096 slots. Every range can be folded at any
// time, so that a layout change rebuilds nothing. The zero Tree holds nothing. Not safe for concurrent use; 17 MB large,
// so it is kept behind a pointer.
type Tree struct {
	slots  [ring.Slots]Sum
	blocks [blocks]Sum
	supers [superblocks]Sum
}

// Add adds delta to a slot, in constant time. To replace a leaf, add the new one minus the old.
func (t *Tree) Add(s ring.Slot, delta Sum) {
	if delta == (Sum{}) {
		return
	}
	t.slots[s] = t.slots[s].Plus(delta)
	b := s >> fanBits
	t.blocks[b] = t.blocks[b].Plus(delta)
	b >>= fanBits
	t.supers[b] = t.supers[b].Plus(delta)
}

// Slot returns a slot's sum.
func (t *Tree) Slot(s ring.Slot) Sum { return t.slots[s] }

// Fold returns the sum over a range; an empty range has the zero Sum.
func (t *Tree) Fold(r ring.Range) Sum {
	var sum Sum
	from, to := int(r.From), int(r.To)
	const block, super = 1 << fanBits, 1 << (2 * fanBits)
	for from < to {
		switch {
		case from%super == 0 && to-from >= super:
			sum = sum.Plus(t.supers[from/super])
			from += super
		case from%block == 0 && to-from >= block:
			sum = sum.Plus(t.blocks[from/block])
			from += block
		default:
			sum = sum.Plus(t.slots[from])
			from++
		}
	}
	return sum
}
