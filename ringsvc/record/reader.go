package record

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dotring/dotring/ringsvc/causal"
)

// reader walks a record whose header sum was found right. Its methods are called in the order of the format: clock or
// skipClock, siblingCount, sibling for each, finish.
type reader struct {
	b       []byte
	at      int // next byte of the header
	end     int // of the header, where its sum begins
	valueAt int // next byte of the values

	headOnly bool // b ends with the header's sum

	entries     int           // of the clock
	decoded     causal.Vector // the clock, if clock was called
	entry       entryAt       // of the sibling read last
	lastCounter uint64        // of the sibling read last
}

// entryAt is a place in the clock. Siblings are sorted like it, so that one walk over it finds all their actors.
type entryAt struct {
	index int
	entry causal.Entry
	next  int // byte after it
}

// rawSibling is a sibling whose bytes alias the record.
type rawSibling struct {
	dot         causal.Dot
	flags       byte
	time        uint64
	contentType []byte
	meta        []byte
	expiry      uint64
	checksum    uint32
	from, to    int // of its value
}

// headerEnd checks the version and that the header lies within b, and returns where its sum begins.
func headerEnd(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, fmt.Errorf("%w: empty", ErrDamaged)
	}
	if b[0] != version {
		return 0, fmt.Errorf("%w: %d", ErrVersion, b[0])
	}
	if len(b) < prefixLen+sumLen {
		return 0, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	n := binary.BigEndian.Uint32(b[1:prefixLen])
	if uint64(n) > uint64(len(b)-prefixLen-sumLen) {
		return 0, fmt.Errorf("%w: a header of %d bytes in a record of %d", ErrDamaged, n, len(b))
	}
	return prefixLen + int(n), nil
}

func open(key, b []byte) (reader, error) {
	end, err := headerEnd(b)
	if err != nil {
		return reader{}, err
	}
	if headerSum(key, b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return reader{}, fmt.Errorf("%w: the header's checksum is wrong, or it is of another key", ErrDamaged)
	}
	r := reader{b: b, at: prefixLen, end: end, valueAt: end + sumLen}
	if r.entries, err = r.count(minEntryLen); err != nil {
		return reader{}, err
	}
	r.entry = entryAt{index: -1, next: r.at}
	return r, nil
}

// clock reads the clock into memory of its own.
func (r *reader) clock() (causal.Vector, error) {
	if r.entries == 0 {
		return nil, nil
	}
	clock := make(causal.Vector, r.entries)
	at := entryAt{index: -1, next: r.at}
	for i := range clock {
		if err := r.nextEntry(&at); err != nil {
			return nil, err
		}
		clock[i] = at.entry
	}
	r.at, r.decoded = at.next, clock
	return clock, nil
}

// skipClock checks the clock and goes past it.
func (r *reader) skipClock() error {
	at := entryAt{index: -1, next: r.at}
	for range r.entries {
		if err := r.nextEntry(&at); err != nil {
			return err
		}
	}
	r.at = at.next
	return nil
}

// nextEntry moves at to the entry after it.
func (r *reader) nextEntry(at *entryAt) error {
	rest := r.b[at.next:r.end]
	if len(rest) < minEntryLen {
		return damaged("a clock cut short")
	}
	a := causal.Actor(rest[:len(causal.Actor{})])
	counter, n := uvarint(rest[len(causal.Actor{}):])
	if n == 0 || counter == 0 {
		return damaged("a counter of the clock")
	}
	if at.index >= 0 && at.entry.Actor.Compare(a) >= 0 {
		return damaged("the order of the clock")
	}
	at.entry = causal.Entry{Actor: a, Counter: counter}
	at.index++
	at.next += len(causal.Actor{}) + n
	return nil
}

func (r *reader) siblingCount() (int, error) { return r.count(minSiblingLen) }

// count reads how many items of at least size bytes follow.
func (r *reader) count(size int) (int, error) {
	n, err := r.uvarint()
	if err != nil {
		return 0, err
	}
	if n > uint64((r.end-r.at)/size) {
		return 0, damaged("a count beyond the header")
	}
	return int(n), nil
}

// sibling reads the next sibling into s, and where its value lies.
func (r *reader) sibling(s *rawSibling) error {
	*s = rawSibling{}
	if err := r.dot(s); err != nil {
		return err
	}
	fixed, err := r.bytes(9)
	if err != nil {
		return err
	}
	s.flags, s.time = fixed[0], binary.BigEndian.Uint64(fixed[1:])
	if s.flags&^flagsKnown != 0 {
		return damaged("unknown flags")
	}
	if s.contentType, err = r.sized(); err != nil {
		return err
	}
	if s.flags&flagMeta != 0 {
		if s.meta, err = r.sized(); err != nil {
			return err
		}
		if len(s.meta) == 0 {
			return damaged("empty metadata")
		}
	}
	if s.flags&flagExpiry != 0 {
		if fixed, err = r.bytes(8); err != nil {
			return err
		}
		if s.expiry = binary.BigEndian.Uint64(fixed); s.expiry == 0 {
			return damaged("an expiry of zero")
		}
	}
	if fixed, err = r.bytes(4); err != nil {
		return err
	}
	s.checksum = binary.BigEndian.Uint32(fixed)
	size, err := r.uvarint()
	if err != nil {
		return err
	}
	switch {
	case r.headOnly && size > math.MaxUint32:
		return damaged("a value beyond all bounds")
	case !r.headOnly && size > uint64(len(r.b)-r.valueAt):
		return damaged("a value cut short")
	}
	s.from, s.to = r.valueAt, r.valueAt+int(size)
	r.valueAt = s.to
	return nil
}

// dot reads a sibling's place in the clock and its counter, and checks both against the clock and the sibling before.
func (r *reader) dot(s *rawSibling) error {
	index, err := r.uvarint()
	if err != nil {
		return err
	}
	counter, err := r.uvarint()
	if err != nil {
		return err
	}
	if index >= uint64(r.entries) {
		return damaged("a dot without an entry in the clock")
	}
	if int(index) < r.entry.index || int(index) == r.entry.index && counter <= r.lastCounter {
		return damaged("the order of the siblings")
	}
	if r.decoded != nil {
		r.entry.index, r.entry.entry = int(index), r.decoded[index]
	}
	for r.entry.index < int(index) {
		if err := r.nextEntry(&r.entry); err != nil {
			return err
		}
	}
	if counter == 0 || counter > r.entry.entry.Counter {
		return damaged("a dot that the clock does not cover")
	}
	r.lastCounter = counter
	s.dot = causal.Dot{Actor: r.entry.entry.Actor, Counter: counter}
	return nil
}

func (r *reader) value(s *rawSibling) []byte {
	if s.from == s.to || r.headOnly {
		return nil
	}
	return r.b[s.from:s.to:s.to]
}

// finish checks that header and values were read to their ends.
func (r *reader) finish() error {
	if r.at != r.end {
		return damaged("bytes left over in the header")
	}
	if !r.headOnly && r.valueAt != len(r.b) {
		return damaged("bytes left over behind the values")
	}
	return nil
}

func (r *reader) bytes(n int) ([]byte, error) {
	if n > r.end-r.at {
		return nil, damaged("a header cut short")
	}
	b := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return b, nil
}

func (r *reader) sized() ([]byte, error) {
	n, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	if n > uint64(r.end-r.at) {
		return nil, damaged("a header cut short")
	}
	return r.bytes(int(n))
}

func (r *reader) uvarint() (uint64, error) {
	x, n := uvarint(r.b[r.at:r.end])
	if n == 0 {
		return 0, damaged("a number")
	}
	r.at += n
	return x, nil
}

// uvarint reads a uvarint of minimal length; n is 0 where there is none.
func uvarint(b []byte) (x uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	x, n = binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return x, n
}

func damaged(what string) error { return fmt.Errorf("%w: %s", ErrDamaged, what) }
