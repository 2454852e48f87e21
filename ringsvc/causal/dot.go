// Package causal holds what decides which write supersedes which: dots, version vectors, sibling sets, their merge, the minting of a write, and context tokens.
//
// Everything here is a value: no goroutine, socket, clock or disk. Vectors, contexts and sets are immutable once built
// and may be shared between goroutines; functions return new values, which may share memory with their arguments.
package causal

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrInvalid is wrapped by the errors of the Valid methods.
var ErrInvalid = errors.New("causal: invalid")

// Actor is the random 128-bit id of one life of one process on one data directory. It is never used again after a
// restart: what a node may have forgotten must not be claimed by a counter it reuses or skips.
type Actor [16]byte

// NewActor draws an actor from rand, which must be cryptographically random in a server. The error is that of rand.
func NewActor(rand io.Reader) (Actor, error) {
	var a Actor
	if _, err := io.ReadFull(rand, a[:]); err != nil {
		return Actor{}, fmt.Errorf("causal: drawing an actor: %w", err)
	}
	return a, nil
}

// String returns 32 lower-case hexadecimal digits.
func (a Actor) String() string { return hex.EncodeToString(a[:]) }

// Compare orders actors by their bytes: -1, 0 or 1.
func (a Actor) Compare(b Actor) int { return compareActors(&a, &b) }

func compareActors(a, b *Actor) int {
	x, y := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(b[:8])
	if x == y {
		x, y = binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:])
	}
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// Dot names one write: the Counter-th that Actor minted. Counter is 1 or more. A dot names one value for ever.
type Dot struct {
	Actor   Actor
	Counter uint64
}

// Entry is an entry of a Vector: all dots of Actor up to and including Counter.
type Entry = Dot

// Compare orders dots by actor bytes, then by counter: -1, 0 or 1.
func (d Dot) Compare(o Dot) int { return compareDots(&d, &o) }

func compareDots(a, b *Dot) int {
	if c := compareActors(&a.Actor, &b.Actor); c != 0 {
		return c
	}
	switch {
	case a.Counter < b.Counter:
		return -1
	case a.Counter > b.Counter:
		return 1
	}
	return 0
}

// String returns the actor in hexadecimal, a colon, and the counter.
func (d Dot) String() string { return fmt.Sprintf("%s:%d", d.Actor, d.Counter) }

// Vector is a version vector: for each actor the highest counter seen, which stands for all below it too. It is
// strictly increasing by Actor with counters of 1 or more; nil is the empty vector. It is never modified once published.
type Vector []Entry

// Get returns the counter of a, and 0 where the vector has none. It takes logarithmic time.
func (v Vector) Get(a Actor) uint64 {
	if i, found := v.find(&a); found {
		return v[i].Counter
	}
	return 0
}

// Find returns the index of a's entry.
func (v Vector) Find(a Actor) (index int, found bool) { return v.find(&a) }

func (v Vector) find(a *Actor) (int, bool) {
	low, high := 0, len(v)
	for low < high {
		mid := int(uint(low+high) >> 1)
		switch c := compareActors(&v[mid].Actor, a); {
		case c == 0:
			return mid, true
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return low, false
}

// Covers says whether the write named d was seen.
func (v Vector) Covers(d Dot) bool { return v.Get(d.Actor) >= d.Counter }

// CoversVector says whether v has seen all that o has. It takes linear time.
func (v Vector) CoversVector(o Vector) bool {
	if len(o) > len(v) {
		return false
	}
	c := cursor{vector: v}
	for i := range o {
		if !c.covers(&o[i]) {
			return false
		}
	}
	return true
}

// Join returns the entrywise maximum in linear time. Where one covers the other, that one is returned as it is.
func (v Vector) Join(o Vector) Vector {
	if v.CoversVector(o) {
		return v
	}
	if o.CoversVector(v) {
		return o
	}
	size := len(v) + len(o)
	for i, j := 0, 0; i < len(v) && j < len(o); {
		switch c := compareActors(&v[i].Actor, &o[j].Actor); {
		case c < 0:
			i++
		case c > 0:
			j++
		default:
			i, j, size = i+1, j+1, size-1
		}
	}
	out := make(Vector, 0, size)
	i, j := 0, 0
	for i < len(v) && j < len(o) {
		switch c := compareActors(&v[i].Actor, &o[j].Actor); {
		case c < 0:
			out = append(out, v[i])
			i++
		case c > 0:
			out = append(out, o[j])
			j++
		default:
			out = append(out, Entry{Actor: v[i].Actor, Counter: max(v[i].Counter, o[j].Counter)})
			i, j = i+1, j+1
		}
	}
	return append(append(out, v[i:]...), o[j:]...)
}

// With returns v with d, and all writes of d's actor before it, seen. v itself is returned where it covers d.
func (v Vector) With(d Dot) Vector {
	i, found := v.find(&d.Actor)
	if d.Counter == 0 || found && v[i].Counter >= d.Counter {
		return v
	}
	if found {
		out := make(Vector, len(v))
		copy(out, v)
		out[i].Counter = d.Counter
		return out
	}
	out := make(Vector, len(v)+1)
	copy(out, v[:i])
	out[i] = d
	copy(out[i+1:], v[i:])
	return out
}

// Without returns v without the entries that o has too, with a counter as high or higher. v itself is returned where there
// are none.
func (v Vector) Without(o Vector) Vector {
	if len(o) == 0 {
		return v
	}
	var out Vector
	c := cursor{vector: o}
	for i := range v {
		switch gone := c.covers(&v[i]); {
		case gone && out == nil:
			out = append(make(Vector, 0, len(v)-1), v[:i]...)
		case !gone && out != nil:
			out = append(out, v[i])
		}
	}
	if out == nil {
		return v
	}
	return out
}

// Valid says whether v is strictly increasing by actor with counters of 1 or more; the error wraps ErrInvalid.
func (v Vector) Valid() error {
	for i := range v {
		if v[i].Counter == 0 {
			return fmt.Errorf("%w: counter 0 of actor %s in a vector", ErrInvalid, v[i].Actor)
		}
		if i > 0 && compareActors(&v[i-1].Actor, &v[i].Actor) >= 0 {
			return fmt.Errorf("%w: actors of a vector are not strictly increasing at entry %d", ErrInvalid, i)
		}
	}
	return nil
}

// cursor answers whether a vector covers dots that are asked for in increasing order of actors, in linear time overall.
type cursor struct {
	vector Vector
	next   int
}

func (c *cursor) covers(d *Dot) bool {
	for ; c.next < len(c.vector); c.next++ {
		switch o := compareActors(&c.vector[c.next].Actor, &d.Actor); {
		case o == 0:
			return c.vector[c.next].Counter >= d.Counter
		case o > 0:
			return d.Counter == 0
		}
	}
	return d.Counter == 0
}

// Next returns the dot after d of the same actor. ok is false where the counter is exhausted: a new actor is due then.
func (d Dot) Next() (next Dot, ok bool) {
	if d.Counter == math.MaxUint64 {
		return Dot{}, false
	}
	return Dot{Actor: d.Actor, Counter: d.Counter + 1}, true
}
