// Package record holds the stored bytes of a key: one canonical form of a causal.Set, whose header can be read and compared without its values.
//
// FORMAT.md beside this file describes every byte. All functions are pure and safe for concurrent use.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/ringsvc/causal"
)

var (
	// ErrDamaged says that bytes are not what Append wrote for this key.
	ErrDamaged = errors.New("record: damaged")
	// ErrVersion says that a record was written by a newer version of the program.
	ErrVersion = errors.New("record: unknown version")
	// ErrNoSibling says that a record has no sibling of that dot.
	ErrNoSibling = errors.New("record: no such sibling")
)

const (
	version   = 1
	prefixLen = 5 // version byte, length of the header
	sumLen    = 4 // CRC32C of the header

	flagTombstone = 1 << 0
	flagMeta      = 1 << 1
	flagExpiry    = 1 << 2
	flagsKnown    = flagTombstone | flagMeta | flagExpiry

	minEntryLen   = 17 // actor, counter
	minSiblingLen = 17 // index, counter, flags, time, content type's length, checksum, value's length
)

// Checksum returns the CRC32C (Castagnoli) of a value.
func Checksum(value []byte) uint32 { return crc32.Checksum(value, crc32.MakeTable(crc32.Castagnoli)) }

// headerSum covers the key and all of the record before the sum, so that a record found under another key is damage.
func headerSum(key, head []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, key), table, head)
}

// Append appends the record of s under key to dst. s must be Valid; equal sets give equal bytes. Checksums are written
// as they are in s. It does not panic, also where s is not Valid, but Decode then refuses the result.
func Append(dst []byte, key []byte, s causal.Set) []byte {
	dst = slices.Grow(dst, s.Size())
	start := len(dst)
	dst = append(dst, version, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, uint64(len(s.Clock)))
	for i := range s.Clock {
		dst = append(dst, s.Clock[i].Actor[:]...)
		dst = binary.AppendUvarint(dst, s.Clock[i].Counter)
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Siblings)))
	for i := range s.Siblings {
		dst = appendSibling(dst, s.Clock, &s.Siblings[i])
	}
	head := dst[start:]
	binary.BigEndian.PutUint32(head[1:prefixLen], uint32(len(head)-prefixLen))
	dst = binary.BigEndian.AppendUint32(dst, headerSum(key, head))
	for i := range s.Siblings {
		dst = append(dst, s.Siblings[i].Value...)
	}
	return dst
}

func appendSibling(dst []byte, clock causal.Vector, s *causal.Sibling) []byte {
	index, found := clock.Find(s.Dot.Actor)
	if !found {
		index = len(clock) // not Valid; no reader accepts it
	}
	dst = binary.AppendUvarint(dst, uint64(index))
	dst = binary.AppendUvarint(dst, s.Dot.Counter)
	flags := byte(0)
	if s.Tombstone {
		flags |= flagTombstone
	}
	if len(s.Meta) > 0 {
		flags |= flagMeta
	}
	if s.Expiry != 0 {
		flags |= flagExpiry
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint64(dst, s.Time)
	dst = binary.AppendUvarint(dst, uint64(len(s.ContentType)))
	dst = append(dst, s.ContentType...)
	if len(s.Meta) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(s.Meta)))
		dst = append(dst, s.Meta...)
	}
	if s.Expiry != 0 {
		dst = binary.BigEndian.AppendUint64(dst, s.Expiry)
	}
	dst = binary.BigEndian.AppendUint32(dst, s.Checksum)
	return binary.AppendUvarint(dst, uint64(len(s.Value)))
}

// Decode reads the whole of b as the record of key. Values and metadata alias b, which must not be modified while they
// are in use; empty ones are nil. It checks the structure and the header's checksum, not those of the values. It never
// panics, accepts only what Append writes, and uses memory in proportion to b. Errors wrap ErrDamaged or ErrVersion.
func Decode(key, b []byte) (causal.Set, error) {
	r, err := open(key, b)
	if err != nil {
		return causal.Set{}, err
	}
	return decode(&r)
}

// Head returns the beginning of b that holds its header and the header's checksum: all of a record but its values. It
// aliases b. Errors wrap ErrDamaged or ErrVersion.
func Head(b []byte) ([]byte, error) {
	end, err := headerEnd(b)
	if err != nil {
		return nil, err
	}
	return b[: end+sumLen : end+sumLen], nil
}

// DecodeHead is Decode for the beginning of a record, which Head returned: its siblings have no values. size is the
// length of the whole record.
func DecodeHead(key, head []byte) (set causal.Set, size int, err error) {
	r, err := open(key, head)
	if err != nil {
		return causal.Set{}, 0, err
	}
	r.headOnly = true
	set, err = decode(&r)
	return set, r.valueAt, err
}

func decode(r *reader) (causal.Set, error) {
	clock, err := r.clock()
	if err != nil {
		return causal.Set{}, err
	}
	count, err := r.siblingCount()
	if err != nil {
		return causal.Set{}, err
	}
	s := causal.Set{Clock: clock}
	if count > 0 {
		s.Siblings = make([]causal.Sibling, count)
	}
	raw := rawSibling{}
	for i := range s.Siblings {
		if err := r.sibling(&raw); err != nil {
			return causal.Set{}, err
		}
		last := ""
		if i > 0 {
			last = s.Siblings[i-1].ContentType
		}
		s.Siblings[i] = causal.Sibling{
			Dot: raw.dot, Tombstone: raw.flags&flagTombstone != 0, Time: raw.time,
			ContentType: contentType(raw.contentType, last), Meta: raw.meta, Expiry: raw.expiry,
			Checksum: raw.checksum, Value: r.value(&raw),
		}
	}
	if err := r.finish(); err != nil {
		return causal.Set{}, err
	}
	return s, nil
}

// Verify checks all of b as Decode does, and the checksum of every value, without allocating.
func Verify(key, b []byte) error {
	_, _, err := scan(key, b, causal.Dot{}, true)
	return err
}

// ValueSpan says where in b the value of the sibling named d lies: b[from:to]. It checks what Decode checks. Errors wrap
// ErrDamaged, ErrVersion or ErrNoSibling.
func ValueSpan(key, b []byte, d causal.Dot) (from, to int, err error) {
	from, to, err = scan(key, b, d, false)
	if err == nil && from == 0 {
		return 0, 0, fmt.Errorf("%w: %s", ErrNoSibling, d)
	}
	return from, to, err
}

// scan walks all of b, checks values' sums if asked, and returns the span of d's value, which is 0, 0 where d is not there.
func scan(key, b []byte, d causal.Dot, values bool) (from, to int, err error) {
	r, err := open(key, b)
	if err != nil {
		return 0, 0, err
	}
	if err := r.skipClock(); err != nil {
		return 0, 0, err
	}
	count, err := r.siblingCount()
	if err != nil {
		return 0, 0, err
	}
	raw := rawSibling{}
	for range count {
		if err := r.sibling(&raw); err != nil {
			return 0, 0, err
		}
		if raw.dot == d {
			from, to = raw.from, raw.to
		}
		if values && Checksum(b[raw.from:raw.to]) != raw.checksum {
			return 0, 0, fmt.Errorf("%w: the checksum of value %s is wrong", ErrDamaged, raw.dot)
		}
	}
	if err := r.finish(); err != nil {
		return 0, 0, err
	}
	return from, to, nil
}

// DecodeClock reads the clock alone, with the header's checksum but without looking at siblings or values. b may be a
// record's beginning, as long as it holds the header. Errors wrap ErrDamaged or ErrVersion.
func DecodeClock(key, b []byte) (causal.Vector, error) {
	r, err := open(key, b)
	if err != nil {
		return nil, err
	}
	return r.clock()
}

// Digest stands for a record's clock, dots and checksums. The zero Digest is that of an absent record.
type Digest [16]byte

// DigestOf returns the XXH3-128 of the header, its checksum included. It reads nothing behind the header and verifies
// nothing in it: equal digests mean equal headers, damaged ones included, so a node verifies a record before it answers
// with its digest. An empty b is an absent record. Errors wrap ErrDamaged or ErrVersion.
func DigestOf(b []byte) (Digest, error) {
	if len(b) == 0 {
		return Digest{}, nil
	}
	end, err := headerEnd(b)
	if err != nil {
		return Digest{}, err
	}
	return xxh3.Hash128(b[:end+sumLen]).Bytes(), nil
}

// contentType returns b as a string, without allocating for the common types and for last, the one before it.
func contentType(b []byte, last string) string {
	switch string(b) {
	case last:
		return last
	case "":
		return ""
	case "application/octet-stream":
		return "application/octet-stream"
	case "application/json":
		return "application/json"
	case "application/x-www-form-urlencoded":
		return "application/x-www-form-urlencoded"
	case "application/protobuf":
		return "application/protobuf"
	case "application/xml":
		return "application/xml"
	case "text/plain":
		return "text/plain"
	case "text/plain; charset=utf-8":
		return "text/plain; charset=utf-8"
	case "text/html":
		return "text/html"
	case "text/html; charset=utf-8":
		return "text/html; charset=utf-8"
	case "image/png":
		return "image/png"
	case "image/jpeg":
		return "image/jpeg"
	}
	return string(b)
}
