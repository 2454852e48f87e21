package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

var (
	// ErrDamaged is wrapped by every decoder's error about bytes that no encoder writes.
	ErrDamaged = errors.New("ring: damaged bytes")
	// ErrVersion is wrapped when bytes carry a format version this program does not know.
	ErrVersion = errors.New("ring: unknown format version")
)

// reader consumes canonical bytes. The first fault sticks; later reads return zero values, so that callers check once, at loops and at the end.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrDamaged, what)
	}
	r.b = nil
}

// take returns the next n bytes, aliasing the input, or nil after a fault.
func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || len(r.b) < n {
		r.fail("too short")
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) id() (id [16]byte) {
	copy(id[:], r.take(16))
	return id
}

func (r *reader) layoutID() LayoutID { return LayoutID{Epoch: r.uint64(), Hash: r.id()} }

// uvarint reads a number of at most limit in its shortest form: a longer form would give one value two encodings.
func (r *reader) uvarint(limit uint64, what string) int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || (n > 1 && r.b[n-1] == 0) || v > limit {
		r.fail(what)
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// text reads a short UTF-8 string with its length before it.
func (r *reader) text(limit int, what string) string {
	b := r.take(r.uvarint(uint64(limit), what))
	if !utf8.Valid(b) {
		r.fail(what)
		return ""
	}
	return string(b)
}

// version checks the first byte of a document.
func (r *reader) version(want byte) {
	if v := r.byte(); r.err == nil && v != want {
		r.err = fmt.Errorf("%w: %d, this program knows %d", ErrVersion, v, want)
		r.b = nil
	}
}

// finish reports the first fault; bytes left over are one.
func (r *reader) finish() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("trailing bytes")
	}
	return r.err
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
