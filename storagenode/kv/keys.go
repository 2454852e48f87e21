package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/dotring/dotring/ringsvc/ring"
)

// Keys on disk begin with a tag byte. FORMAT.md beside this file describes them all.
const (
	tagDoubt = 'd' // alone: what is in doubt; or with a note of a salvage, which is taken in at the next opening
	// tagHint is followed by the id of the node that the hint is for, the key's hash and the key; tagHintCount by that id.
	tagHint      = 'h'
	tagHintCount = 'i'
	tagMeta      = 'm' // then the name of a piece of node state
	tagRecord    = 'r' // then the 64-bit hash of the key, big-endian, and the key
	tagState     = 's' // alone: the state of this package, written with every batch; then 'l': the line of commits
	tagMark      = 't' // then as a record's: a tombstone that is about to be collected

	recordPrefix = 1 + 8
	stateVersion = 1
	stateLen     = 1 + 3*8
)

var stateKey = []byte{tagState}

// appendRecordKey appends the disk key of a record. The hash comes first, so that a slot is contiguous.
func appendRecordKey(dst []byte, hash uint64, key []byte) []byte {
	dst = append(dst, tagRecord)
	dst = binary.BigEndian.AppendUint64(dst, hash)
	return append(dst, key...)
}

// slotBound returns the smallest disk key of a slot and of those after it, of records or of marks. The slot behind the
// last is past them all.
func slotBound(tag byte, s ring.Slot) []byte {
	if s >= ring.Slots {
		return []byte{tag + 1}
	}
	return binary.BigEndian.AppendUint64([]byte{tag}, uint64(s)<<(64-ring.SlotBits))
}

// state is what the store counts; it is written in the batch that it describes, and so is exact after any crash.
type state struct {
	commits uint64 // number of the last batch
	keys    int64
	bytes   int64 // of records
}

func appendState(dst []byte, s state) []byte {
	dst = append(dst, stateVersion)
	dst = binary.BigEndian.AppendUint64(dst, s.commits)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.keys))
	return binary.BigEndian.AppendUint64(dst, uint64(s.bytes))
}

var errState = errors.New("kv: malformed state record")

func decodeState(b []byte) (state, error) {
	if len(b) != stateLen || b[0] != stateVersion {
		return state{}, fmt.Errorf("%w: %d bytes", errState, len(b))
	}
	s := state{
		commits: binary.BigEndian.Uint64(b[1:]),
		keys:    int64(binary.BigEndian.Uint64(b[9:])),
		bytes:   int64(binary.BigEndian.Uint64(b[17:])),
	}
	if s.keys < 0 || s.bytes < 0 {
		return state{}, fmt.Errorf("%w: negative count", errState)
	}
	return s, nil
}

// place is where a key lives: its disk key, its hash and its stripe. Taken from a pool, since an engine's interface
// makes every key passed to it escape.
type place struct {
	disk   []byte
	hash   uint64
	stripe *stripe
	from   int // of the raw key in disk
}

// key returns the raw key.
func (p *place) key() []byte { return p.disk[p.from:] }

var places = sync.Pool{New: func() any { return &place{disk: make([]byte, 0, hintPrefix+MaxKey)} }}

// find returns the place of key, to be given back with release.
func (s *Store) find(key []byte) (*place, error) {
	if len(key) == 0 || len(key) > MaxKey {
		return nil, fmt.Errorf("%w: a key of %d bytes", ErrInvalid, len(key))
	}
	p := places.Get().(*place)
	p.hash, p.from = ring.Hash(key), recordPrefix
	p.disk = appendRecordKey(p.disk[:0], p.hash, key)
	p.stripe = &s.stripes[p.hash%stripeCount]
	return p, nil
}

func (p *place) release() {
	p.stripe = nil
	places.Put(p)
}
