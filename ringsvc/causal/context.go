package causal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrContext is wrapped by every error of DecodeContext.
var ErrContext = errors.New("causal: bad context")

// Context is what a client has seen of one key: a vector, and the dots of its own writes kept apart. A dot kept apart
// says nothing of the writes before it: the node that minted it may hold siblings that the client was never shown.
// Dots is strictly increasing.
type Context struct {
	Vector Vector
	Dots   []Dot
}

// Covers says whether the client has seen the write named d.
func (c Context) Covers(d Dot) bool {
	return c.Vector.Covers(d) || slices.Contains(c.Dots, d)
}

// After returns the context that a put with context c answers once it was minted as d: c's vector, and only d kept
// apart. Dots that c kept apart are gone, as d's clock has superseded them.
func (c Context) After(d Dot) Context {
	return Context{Vector: c.Vector, Dots: []Dot{d}}
}

// Answer returns the context that a put answers: that of the put after d, or, for a put without one (ctx nil), which
// replaced all the minting node knew, the clock of the minted set. The record's clock is never the answer to a put with
// a context: it also covers siblings that the client has not seen, which its next put would then erase. Nor is it where
// minted shows anything but d, as when a put that was asked for again is answered with what the node holds by then: that
// client has seen its own write and nothing else.
func Answer(ctx *Context, minted Set, d Dot) Context {
	switch {
	case ctx != nil:
		return ctx.After(d)
	case len(minted.Siblings) == 1 && minted.Siblings[0].Dot == d:
		return Context{Vector: minted.Clock}
	}
	return Context{Dots: []Dot{d}}
}

// SatisfiedBy says whether a record with this clock has seen all that the client has (read your writes).
func (c Context) SatisfiedBy(clock Vector) bool {
	if !clock.CoversVector(c.Vector) {
		return false
	}
	for _, d := range c.Dots {
		if !clock.Covers(d) {
			return false
		}
	}
	return true
}

// Valid says whether the vector is valid and the dots are strictly increasing with counters of 1 or more; the error
// wraps ErrInvalid.
func (c Context) Valid() error {
	if err := c.Vector.Valid(); err != nil {
		return err
	}
	for i := range c.Dots {
		if c.Dots[i].Counter == 0 {
			return fmt.Errorf("%w: counter 0 of actor %s in a context", ErrInvalid, c.Dots[i].Actor)
		}
		if i > 0 && compareDots(&c.Dots[i-1], &c.Dots[i]) >= 0 {
			return fmt.Errorf("%w: dots of a context are not strictly increasing at %d", ErrInvalid, i)
		}
	}
	return nil
}

// Fit returns c itself where EncodeToken accepts it, and otherwise a part of it that EncodeToken accepts: the dots kept
// apart and the entries that cover the siblings in keep first, then entries in order while there is room. A context that
// covers less is safe: a write with it leaves siblings, it never erases more. It is for reads, which must not fail
// because a merged clock grew past what a token holds.
func (c Context) Fit(keep []Sibling) Context {
	if contextSize(c) <= maxContextBytes {
		return c
	}
	budget := maxContextBytes - 2*binary.MaxVarintLen16
	out := Context{}
	for i := range c.Dots {
		if budget -= entrySize(&c.Dots[i]); budget < 0 {
			return out
		}
		out.Dots = c.Dots[: i+1 : i+1]
	}
	wanted := make([]bool, len(c.Vector))
	for i := range keep {
		at, found := c.Vector.find(&keep[i].Dot.Actor)
		if !found || wanted[at] || entrySize(&c.Vector[at]) > budget {
			continue
		}
		wanted[at] = true
		budget -= entrySize(&c.Vector[at])
	}
	for i := range c.Vector {
		if !wanted[i] && entrySize(&c.Vector[i]) <= budget {
			wanted[i] = true
			budget -= entrySize(&c.Vector[i])
		}
		if wanted[i] {
			out.Vector = append(out.Vector, c.Vector[i])
		}
	}
	return out
}

// minEntryBytes is the least an entry takes: 16 bytes of actor and one of counter.
const minEntryBytes = 17

// AppendContext appends the binary form of c, as it travels inside frames: the number of vector entries, the number of
// dots, the entries, the dots; numbers as minimal uvarints, an entry or a dot as 16 bytes and a uvarint. c must be Valid.
func AppendContext(dst []byte, c Context) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c.Vector)))
	dst = binary.AppendUvarint(dst, uint64(len(c.Dots)))
	dst = appendDots(dst, c.Vector)
	return appendDots(dst, c.Dots)
}

func appendDots(dst []byte, dots []Dot) []byte {
	for i := range dots {
		dst = append(dst, dots[i].Actor[:]...)
		dst = binary.AppendUvarint(dst, dots[i].Counter)
	}
	return dst
}

// DecodeContext reads the whole of b as AppendContext wrote it. It never panics, accepts only the canonical form, uses
// memory in proportion to b, and keeps no reference to b. Errors wrap ErrContext.
func DecodeContext(b []byte) (Context, error) {
	entries, rest, ok := readUvarint(b)
	if !ok {
		return Context{}, fmt.Errorf("%w: number of entries", ErrContext)
	}
	dots, rest, ok := readUvarint(rest)
	if !ok {
		return Context{}, fmt.Errorf("%w: number of dots", ErrContext)
	}
	room := uint64(len(rest) / minEntryBytes)
	if entries > room || dots > room-entries {
		return Context{}, fmt.Errorf("%w: %d entries and %d dots in %d bytes", ErrContext, entries, dots, len(rest))
	}
	if entries+dots == 0 {
		if len(rest) != 0 {
			return Context{}, fmt.Errorf("%w: %d bytes left over", ErrContext, len(rest))
		}
		return Context{}, nil
	}
	all := make([]Dot, entries+dots)
	for i := range all {
		if len(rest) < minEntryBytes {
			return Context{}, fmt.Errorf("%w: cut short at entry %d", ErrContext, i)
		}
		copy(all[i].Actor[:], rest)
		if all[i].Counter, rest, ok = readUvarint(rest[len(Actor{}):]); !ok {
			return Context{}, fmt.Errorf("%w: counter of entry %d", ErrContext, i)
		}
	}
	if len(rest) != 0 {
		return Context{}, fmt.Errorf("%w: %d bytes left over", ErrContext, len(rest))
	}
	c := Context{}
	if entries > 0 {
		c.Vector = Vector(all[:entries:entries])
	}
	if dots > 0 {
		c.Dots = all[entries:]
	}
	if err := c.Valid(); err != nil {
		return Context{}, fmt.Errorf("%w: %w", ErrContext, err)
	}
	return c, nil
}

// readUvarint reads a uvarint of minimal length.
func readUvarint(b []byte) (value uint64, rest []byte, ok bool) {
	value, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, false
	}
	return value, b[n:], true
}

func uvarintSize(x uint64) int {
	n := 1
	for ; x >= 0x80; x >>= 7 {
		n++
	}
	return n
}

func entrySize(d *Dot) int { return len(d.Actor) + uvarintSize(d.Counter) }

func contextSize(c Context) int {
	n := uvarintSize(uint64(len(c.Vector))) + uvarintSize(uint64(len(c.Dots)))
	for i := range c.Vector {
		n += entrySize(&c.Vector[i])
	}
	for i := range c.Dots {
		n += entrySize(&c.Dots[i])
	}
	return n
}
