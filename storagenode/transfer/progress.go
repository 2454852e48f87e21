// Package transfer says what a node has pulled for a layout change, how long the rest will take, how fast that may go beside
// clients, and which records it may remove once others own them. It is pure: time and what others hold come in as arguments.
package transfer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	progressVersion = 1
	keyMax          = 250
	// sourcesMax and entriesMax bound what is read back.
	sourcesMax = ring.MaxMembers
	entriesMax = 1 << 16
)

// ErrProgress says that stored bytes are no progress.
var ErrProgress = errors.New("transfer: malformed progress")

// Progress is what was pulled for one layout: of each range and source, the last key that came, or that all did. It is
// true for that layout only. What is behind a cursor needs no second look:
//
//   - A source is asked only once it has acknowledged the layout, and what it holds then never gets less: a client's write
//     that it takes later names the layout, and so goes to W of its owners, this node being one of them or not. Hints and
//     repairs that reach the source later bring nothing that was acknowledged without it: of that, one of the N-W+1
//     sources held everything when it acknowledged.
//   - That promise is durable, so another life of the source changes nothing. A source that lost data gives nothing until
//     others have refilled it.
//   - With another layout the promises are others: writes may have been taken since that do not name it.
//   - The cursor is queued behind the records that it stands for, so that a crash here never leaves the one without the
//     others. When anything here comes into doubt, it must be forgotten before the doubt ends: what ends it brings back
//     only what the node owned before.
//
// For one goroutine at a time.
type Progress struct {
	Layout ring.LayoutID
	Bytes  uint64 // of records that were taken in for it
	parts  map[part]state
}

type part struct {
	r      ring.Range
	source ring.NodeID
}

type state struct {
	done  bool
	after []byte // the last key that came, nil for none
}

// NewProgress returns that of a layout for which nothing was pulled.
func NewProgress(id ring.LayoutID) *Progress {
	return &Progress{Layout: id, parts: make(map[part]state)}
}

// Cursor tells how far the pull of r from a source is: after is the last key that came, nil for none.
func (p *Progress) Cursor(r ring.Range, source ring.NodeID) (after []byte, done bool) {
	s := p.parts[part{r, source}]
	return s.after, s.done
}

// Advance takes note that all of r up to the key after came from a source and is durable. after is kept.
func (p *Progress) Advance(r ring.Range, source ring.NodeID, after []byte) {
	if at := (part{r, source}); !p.parts[at].done {
		p.parts[at] = state{after: after}
	}
}

// Finish takes note that all of r came from a source and is durable.
func (p *Progress) Finish(r ring.Range, source ring.NodeID) {
	p.parts[part{r, source}] = state{done: true}
}

// Slots tells how many slots are done of how many, over all pulls; a slot counts once for each source that it needs. self
// counts as pulled where it is among the sources.
func (p *Progress) Slots(pulls []ring.Pull, self ring.NodeID) (done, total uint64) {
	for _, pull := range pulls {
		need := pull.Need
		if slices.Contains(pull.Sources, self) {
			need--
		}
		if need <= 0 {
			continue
		}
		var each []int
		for _, id := range pull.Sources {
			s := p.parts[part{pull.Range, id}]
			switch {
			case s.done:
				each = append(each, pull.Range.Len())
			case s.after != nil:
				each = append(each, int(ring.SlotOf(s.after))-int(pull.Range.From))
			}
		}
		slices.SortFunc(each, func(a, b int) int { return cmp.Compare(b, a) })
		for _, n := range each[:min(need, len(each))] {
			done += uint64(n)
		}
		total += uint64(need * pull.Range.Len())
	}
	return done, total
}

// Append appends the stored form, of limit bytes at most: what does not fit is begun anew after a restart. A version; the
// layout's epoch (8 bytes) and hash; then as varints the bytes, the number of sources and their ids, and for each pull from
// one source, in order, what its range begins above the one before, the range's length, the source's place, and 0 where it
// is done, or 1 above the length of the last key, which follows.
func (p *Progress) Append(b []byte, limit int) []byte {
	limit += len(b)
	b = append(b, progressVersion)
	b = binary.BigEndian.AppendUint64(b, p.Layout.Epoch)
	b = append(b, p.Layout.Hash[:]...)
	b = binary.AppendUvarint(b, p.Bytes)
	var parts []part
	var sources []ring.NodeID
	for at, s := range p.parts {
		if !s.done && s.after == nil {
			continue
		}
		parts = append(parts, at)
		if !slices.Contains(sources, at.source) {
			sources = append(sources, at.source)
		}
	}
	slices.SortFunc(sources, ring.NodeID.Compare)
	slices.SortFunc(parts, comparePart)
	b = binary.AppendUvarint(b, uint64(len(sources)))
	for _, id := range sources {
		b = append(b, id[:]...)
	}
	before := ring.Slot(0)
	for _, at := range parts {
		i, _ := slices.BinarySearchFunc(sources, at.source, ring.NodeID.Compare)
		s := p.parts[at]
		if len(b)+4*binary.MaxVarintLen32+len(s.after) > limit {
			break
		}
		b = binary.AppendUvarint(b, uint64(at.r.From-before))
		b = binary.AppendUvarint(b, uint64(at.r.Len()))
		b = binary.AppendUvarint(b, uint64(i))
		if s.done {
			b = binary.AppendUvarint(b, 0)
		} else {
			b = binary.AppendUvarint(b, uint64(len(s.after)+1))
			b = append(b, s.after...)
		}
		before = at.r.From
	}
	return b
}

func comparePart(a, b part) int {
	return cmp.Or(cmp.Compare(a.r.From, b.r.From), cmp.Compare(a.r.To, b.r.To), a.source.Compare(b.source))
}

// DecodeProgress reads what Append wrote; the error is ErrProgress.
func DecodeProgress(b []byte) (*Progress, error) {
	d := decoder{rest: b}
	if version := d.take(1); d.bad || version[0] != progressVersion {
		return nil, fmt.Errorf("%w of %d bytes", ErrProgress, len(b))
	}
	var id ring.LayoutID
	if epoch := d.take(8); !d.bad {
		id.Epoch = binary.BigEndian.Uint64(epoch)
	}
	copy(id.Hash[:], d.take(16))
	p := NewProgress(id)
	p.Bytes = d.number(1 << 62)
	var sources []ring.NodeID
	for range d.number(sourcesMax) {
		var source ring.NodeID
		copy(source[:], d.take(16))
		if n := len(sources); n > 0 && sources[n-1].Compare(source) >= 0 {
			d.bad = true
		}
		if d.bad {
			break
		}
		sources = append(sources, source)
	}
	var last part
	for len(d.rest) > 0 && !d.bad && len(p.parts) < entriesMax {
		from := last.r.From + ring.Slot(d.number(ring.Slots))
		length, source, size := d.number(ring.Slots), int(d.number(sourcesMax)), int(d.number(keyMax+1))
		if d.bad || length == 0 || uint64(from)+length > ring.Slots || source >= len(sources) {
			d.bad = true
			break
		}
		at := part{ring.Range{From: from, To: from + ring.Slot(length)}, sources[source]}
		s := state{done: size == 0}
		if !s.done {
			s.after = bytes.Clone(d.take(size - 1))
			d.bad = d.bad || len(s.after) == 0 || !at.r.Contains(ring.SlotOf(s.after))
		}
		if len(p.parts) > 0 && comparePart(last, at) >= 0 {
			d.bad = true
		}
		p.parts[at], last = s, at
	}
	if d.bad || len(d.rest) > 0 {
		return nil, fmt.Errorf("%w of %d bytes", ErrProgress, len(b))
	}
	return p, nil
}

// decoder reads from rest; after the first fault everything is zero.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad = true
		return nil
	}
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out
}

func (d *decoder) number(limit uint64) uint64 {
	n, w := binary.Uvarint(d.rest)
	if d.bad || w <= 0 || n > limit || w > 1 && d.rest[w-1] == 0 { // one form for each number
		d.bad = true
		return 0
	}
	d.rest = d.rest[w:]
	return n
}
