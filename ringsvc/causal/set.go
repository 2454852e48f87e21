package causal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
)

var (
	// ErrBehind says that a dot of a put's context is not covered by the local clock: the node must first be brought a
	// record that covers it, or another node mints. To add the dot to the clock would claim all writes below it too.
	ErrBehind = errors.New("causal: behind the context")
	// ErrDotUsed says that the dot meant for a new write was seen before: the caller must take a new actor. A node that
	// takes one as soon as it hears a counter of its own that it never issued does not meet it.
	ErrDotUsed = errors.New("causal: dot already used")
	// ErrTooManySiblings says that a set has more siblings than its limit.
	ErrTooManySiblings = errors.New("causal: too many siblings")
	// ErrTooLarge says that a record has more bytes than its limit.
	ErrTooLarge = errors.New("causal: record too large")
	// ErrClockTooLarge says that a clock has more actors than a context token holds.
	ErrClockTooLarge = errors.New("causal: clock too large")
)

// Sibling is one of several values that no one has yet declared superseded. Its slices are never modified.
type Sibling struct {
	Dot       Dot
	Tombstone bool   // a deletion; Value is empty
	Time      uint64 // hybrid logical clock of the mint: unix milliseconds << 16 | logical; only Latest decides by it
	// ContentType is as the writer sent it.
	ContentType string
	Meta        []byte // encoded user metadata, part of the value; may be nil
	Expiry      uint64 // unix milliseconds, 0 for never; the format has room for it, nothing acts on it
	Checksum    uint32 // CRC32C (Castagnoli) of Value, computed where the value entered
	Value       []byte // aliases the buffer it was decoded from
}

// Set is all that is known of one key: the siblings, strictly increasing by Dot, and the clock, which covers their dots
// and those of every write they superseded. The zero Set is that of a key never written.
type Set struct {
	Clock    Vector
	Siblings []Sibling
}

// Merge returns what is known where a and b are. A sibling of one stays if the other has it too or has not seen it; the
// clock is the entrywise maximum. Merge is commutative, associative and idempotent, takes linear time, and the result
// shares values (and, where one side adds nothing, whole slices) with its arguments. The rule is that of dotted version
// vector sets (Preguiça et al., "Dotted Version Vectors", 2010; Almeida et al., 2014).
func Merge(a, b Set) Set {
	return Set{Clock: a.Clock.Join(b.Clock), Siblings: mergeSiblings(&a, &b)}
}

// Supersedes says whether Merge(s, o) is s, without looking at values: one is equal where its dot, time and checksum are.
func (s Set) Supersedes(o Set) bool {
	if !s.Clock.CoversVector(o.Clock) {
		return false
	}
	for i := range s.Siblings {
		x := &s.Siblings[i]
		y, found := o.Sibling(x.Dot)
		if !found && o.Clock.Covers(x.Dot) {
			return false // o has superseded it
		}
		if found && (x.Checksum != y.Checksum || x.Time != y.Time || x.Tombstone != y.Tombstone || x.Expiry != y.Expiry ||
			x.ContentType != y.ContentType || !bytes.Equal(x.Meta, y.Meta)) {
			return false
		}
	}
	return true
}

func mergeSiblings(a, b *Set) []Sibling {
	m := merger{a: a, b: b, isA: true, isB: true}
	m.run(nil)
	switch {
	case m.isA:
		return a.Siblings
	case m.isB:
		return b.Siblings
	case m.count == 0:
		return nil
	}
	out := make([]Sibling, 0, m.count)
	m = merger{a: a, b: b}
	return m.run(out)
}

// merger walks the siblings of two sets in step, each beside the other's clock.
type merger struct {
	a, b     *Set
	count    int
	isA, isB bool // the result is just that side's siblings
}

// run appends the merged siblings to out; with a nil out it only counts them.
func (m *merger) run(out []Sibling) []Sibling {
	as, bs := m.a.Siblings, m.b.Siblings
	aClock, bClock := cursor{vector: m.a.Clock}, cursor{vector: m.b.Clock}
	for len(as) > 0 || len(bs) > 0 {
		order := 0
		switch {
		case len(as) == 0:
			order = 1
		case len(bs) == 0:
			order = -1
		default:
			order = compareDots(&as[0].Dot, &bs[0].Dot)
		}
		var keep *Sibling
		switch {
		case order == 0:
			// One dot names one value. Should that ever be broken, all nodes still choose alike.
			keep = &as[0]
			if c := compareContent(&as[0], &bs[0]); c < 0 {
				keep, m.isA = &bs[0], false
			} else if c > 0 {
				m.isB = false
			}
			as, bs = as[1:], bs[1:]
		case order < 0:
			if !bClock.covers(&as[0].Dot) {
				keep, m.isB = &as[0], false
			} else {
				m.isA = false
			}
			as = as[1:]
		default:
			if !aClock.covers(&bs[0].Dot) {
				keep, m.isA = &bs[0], false
			} else {
				m.isB = false
			}
			bs = bs[1:]
		}
		if keep == nil {
			continue
		}
		m.count++
		if out != nil {
			out = append(out, *keep)
		}
	}
	return out
}

// compareContent orders two siblings by all but their dot and the bytes of the value, for which the checksum stands.
func compareContent(x, y *Sibling) int {
	if x.Checksum == y.Checksum && x.Time == y.Time && x.Tombstone == y.Tombstone && len(x.Value) == len(y.Value) &&
		x.ContentType == y.ContentType && x.Expiry == y.Expiry {
		return bytes.Compare(x.Meta, y.Meta)
	}
	tomb := 0
	if x.Tombstone != y.Tombstone {
		tomb = -1
		if x.Tombstone {
			tomb = 1
		}
	}
	return cmp.Or(cmp.Compare(x.Time, y.Time), tomb, cmp.Compare(x.Checksum, y.Checksum),
		cmp.Compare(len(x.Value), len(y.Value)), cmp.Compare(x.ContentType, y.ContentType),
		cmp.Compare(x.Expiry, y.Expiry), bytes.Compare(x.Meta, y.Meta))
}

// Latest returns s with the sibling alone that was written last: by its hybrid time, then by its dot. The clock stays, so
// that a write with the context of what was shown replaces the others too. It is for keys where someone has chosen that
// the last write wins: clocks of machines decide then, and what they decide against is lost. Merge never does this.
func (s Set) Latest() Set {
	if len(s.Siblings) < 2 {
		return s
	}
	last := &s.Siblings[0]
	for i := range s.Siblings {
		if x := &s.Siblings[i]; cmp.Or(cmp.Compare(x.Time, last.Time), compareDots(&x.Dot, &last.Dot)) > 0 {
			last = x
		}
	}
	return Set{Clock: s.Clock, Siblings: []Sibling{*last}}
}

// Mint returns local with a new write. fresh.Dot is its dot, which the minting node has never used and its clock does
// not cover. A put without context (ctx nil) replaces every sibling of local; one with a context replaces exactly those
// the context covers, so that a stale writer makes a sibling and not a lost update. The clock becomes the maximum of
// local's, the context's vector and the dot. A dot the context keeps apart must be covered by local's clock (ErrBehind);
// a dot seen before is refused (ErrDotUsed). local must be what the node really holds: a read that failed is not an
// empty set.
func Mint(local Set, ctx *Context, fresh Sibling) (Set, error) {
	if ctx != nil {
		for i := range ctx.Dots {
			if !local.Clock.Covers(ctx.Dots[i]) {
				return Set{}, fmt.Errorf("%w: dot %s was not seen here", ErrBehind, ctx.Dots[i])
			}
		}
		if ctx.Vector.Covers(fresh.Dot) {
			return Set{}, fmt.Errorf("%w: the context covers %s", ErrDotUsed, fresh.Dot)
		}
	}
	if local.Clock.Covers(fresh.Dot) {
		return Set{}, fmt.Errorf("%w: the local clock covers %s", ErrDotUsed, fresh.Dot)
	}
	return mint(local, ctx, fresh), nil
}

func mint(local Set, ctx *Context, fresh Sibling) Set {
	if ctx == nil {
		return Set{Clock: local.Clock.With(fresh.Dot), Siblings: []Sibling{fresh}}
	}
	kept := 0
	for i := range local.Siblings {
		if !ctx.Covers(local.Siblings[i].Dot) {
			kept++
		}
	}
	siblings := make([]Sibling, 0, kept+1)
	placed := false
	for i := range local.Siblings {
		if ctx.Covers(local.Siblings[i].Dot) {
			continue
		}
		if !placed && compareDots(&fresh.Dot, &local.Siblings[i].Dot) < 0 {
			siblings, placed = append(siblings, fresh), true
		}
		siblings = append(siblings, local.Siblings[i])
	}
	if !placed {
		siblings = append(siblings, fresh)
	}
	return Set{Clock: local.Clock.Join(ctx.Vector).With(fresh.Dot), Siblings: siblings}
}

// Shown returns the siblings as a client sees them: of those with equal value, metadata, content type and tombstone
// flag only the one with the latest time (then the greatest dot), since a write that was retried must not look like a
// conflict. They are ordered by dot. The result is s.Siblings itself where all differ.
func (s Set) Shown() []Sibling {
	var out []Sibling
	for i := range s.Siblings {
		if !s.hidden(i) {
			if out != nil {
				out = append(out, s.Siblings[i])
			}
			continue
		}
		if out == nil {
			out = make([]Sibling, i, len(s.Siblings)-1)
			copy(out, s.Siblings[:i])
		}
	}
	if out == nil {
		return s.Siblings
	}
	return out
}

// hidden says whether another sibling that looks like the i-th is shown in its place.
func (s Set) hidden(i int) bool {
	x := &s.Siblings[i]
	for j := range s.Siblings {
		y := &s.Siblings[j]
		if i != j && (y.Time > x.Time || y.Time == x.Time && j > i) && sameShown(x, y) {
			return true
		}
	}
	return false
}

func sameShown(x, y *Sibling) bool {
	return x.Checksum == y.Checksum && x.Tombstone == y.Tombstone && x.ContentType == y.ContentType &&
		bytes.Equal(x.Meta, y.Meta) && bytes.Equal(x.Value, y.Value)
}

// Limits bounds what a mint may leave behind. A zero field stands for its default.
type Limits struct {
	MaxSiblings int // default 64
	MaxBytes    int // default 3 MiB, compared with Size
}

const (
	defaultMaxSiblings = 64
	defaultMaxBytes    = 3 << 20
	// siblingOverhead is above what a stored record adds to the bytes of a sibling: five varints and its fixed fields.
	siblingOverhead = 72
	entryOverhead   = 26
	recordOverhead  = 32
)

// Size is an upper bound of the bytes of the stored record, within 80 bytes a sibling and 10 an actor.
func (s Set) Size() int {
	n := recordOverhead + entryOverhead*len(s.Clock)
	for i := range s.Siblings {
		n += siblingOverhead + len(s.Siblings[i].Value) + len(s.Siblings[i].Meta) + len(s.Siblings[i].ContentType)
	}
	return n
}

// Check says whether s is within l and its clock within what a context token holds: ErrTooManySiblings, ErrTooLarge or
// ErrClockTooLarge, wrapped with the numbers. It is asked of the result of a mint, never of a read or a merge.
func (s Set) Check(l Limits) error {
	l.MaxSiblings, l.MaxBytes = cmp.Or(l.MaxSiblings, defaultMaxSiblings), cmp.Or(l.MaxBytes, defaultMaxBytes)
	if len(s.Siblings) > l.MaxSiblings {
		return fmt.Errorf("%w: %d, the limit is %d", ErrTooManySiblings, len(s.Siblings), l.MaxSiblings)
	}
	if n := s.Size(); n > l.MaxBytes {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, n, l.MaxBytes)
	}
	// The answer to a put may carry this clock as a vector and one dot kept apart.
	if n := contextSize(Context{Vector: s.Clock}) + entryOverhead; n > maxContextBytes {
		return fmt.Errorf("%w: %d actors", ErrClockTooLarge, len(s.Clock))
	}
	return nil
}

// Valid says whether the clock is valid, and the siblings strictly increasing by dot, each covered by the clock; the
// error wraps ErrInvalid. Merge and Mint of valid sets are valid.
func (s Set) Valid() error {
	if err := s.Clock.Valid(); err != nil {
		return err
	}
	for i := range s.Siblings {
		d := s.Siblings[i].Dot
		if d.Counter == 0 || !s.Clock.Covers(d) {
			return fmt.Errorf("%w: sibling %s is not covered by its clock", ErrInvalid, d)
		}
		if i > 0 && compareDots(&s.Siblings[i-1].Dot, &d) >= 0 {
			return fmt.Errorf("%w: siblings are not strictly increasing at %d", ErrInvalid, i)
		}
	}
	return nil
}

// Idle returns the entries of the clock whose actors have written none of the siblings: all that such an entry says is that
// the actor's writes up to it are superseded.
func (s Set) Idle() Vector {
	out := make(Vector, 0, len(s.Clock))
	for i := range s.Clock {
		if !s.wrote(s.Clock[i].Actor) {
			out = append(out, s.Clock[i])
		}
	}
	return out
}

func (s Set) wrote(a Actor) bool {
	return slices.ContainsFunc(s.Siblings, func(x Sibling) bool { return x.Dot.Actor == a })
}

// HasIdle says whether all entries of v are entries of the clock, as they are, and idle.
func (s Set) HasIdle(v Vector) bool {
	for i := range v {
		if s.Clock.Get(v[i].Actor) != v[i].Counter || s.wrote(v[i].Actor) {
			return false
		}
	}
	return true
}

// Prune returns s without the idle entries that v covers. It is safe only where no record with a sibling of theirs is
// anywhere, nor ever will be: it would be taken for unseen.
func (s Set) Prune(v Vector) Set {
	drop := make(Vector, 0, len(v))
	for i := range v {
		if !s.wrote(v[i].Actor) {
			drop = append(drop, v[i])
		}
	}
	s.Clock = s.Clock.Without(drop)
	return s
}

// Sibling returns the sibling named d.
func (s Set) Sibling(d Dot) (Sibling, bool) {
	i, found := slices.BinarySearchFunc(s.Siblings, d, func(s Sibling, d Dot) int { return compareDots(&s.Dot, &d) })
	if !found {
		return Sibling{}, false
	}
	return s.Siblings[i], true
}
