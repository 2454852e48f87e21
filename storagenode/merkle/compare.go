package merkle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// MaxParts is the largest number of parts a range may be cut into.
	MaxParts = 1024
	// MaxSums bounds the sums that one question may ask for.
	MaxSums = 1024
)

// ErrAsk is wrapped by what refuses a malformed question or answer.
var ErrAsk = errors.New("merkle: malformed comparison")

// Ask is one question: the sums of each range's parts.
type Ask struct {
	Ranges []ring.Range
	Parts  int // into which each range is cut, 1 to MaxParts
}

// Valid refuses what is beyond the bounds. Errors wrap ErrAsk.
func (a Ask) Valid() error {
	if a.Parts < 1 || a.Parts > MaxParts || len(a.Ranges) == 0 || len(a.Ranges) > MaxSums || len(a.Ranges)*a.Parts > MaxSums {
		return fmt.Errorf("%w: %d ranges in %d parts", ErrAsk, len(a.Ranges), a.Parts)
	}
	for _, r := range a.Ranges {
		if r.From >= r.To || r.To > ring.Slots {
			return fmt.Errorf("%w: range %v", ErrAsk, r)
		}
	}
	return nil
}

// part returns the i-th of so many parts of r: all of equal width, the last maybe narrower, and those past the end empty.
func part(r ring.Range, parts, i int) ring.Range {
	width := (r.Len() + parts - 1) / parts
	from := min(int(r.From)+i*width, int(r.To))
	to := min(from+width, int(r.To))
	return ring.Range{From: ring.Slot(from), To: ring.Slot(to)}
}

// Answer returns the encoded sums that a asks for, range by range; a must be Valid.
func (t *Tree) Answer(a Ask) []byte { return a.AnswerBy(t.Fold) }

// AnswerBy is Tree.Answer for whoever keeps sums in another form: fold returns the sum over a range.
func (a Ask) AnswerBy(fold func(ring.Range) Sum) []byte {
	out := make([]byte, 0, len(a.Ranges)*a.Parts*SumLen)
	for _, r := range a.Ranges {
		for i := range a.Parts {
			out = fold(part(r, a.Parts, i)).Append(out)
		}
	}
	return out
}

// Narrowing says how a comparison goes from ranges to what differs in them.
type Narrowing struct {
	// Fan is into how many parts a differing range is cut, 2 to MaxParts. A small one costs round trips, a large one
	// bytes: 16 for each part that does not differ, once for each difference and level.
	Fan int
	// Leaf is the width, in slots, from which a differing range is not cut any more: where listing its keys costs less.
	Leaf int
}

// Differing returns the parts of ranges, which must not overlap, in which two sides differ, in order, parts that touch joined.
// local and remote answer a question; either's error ends the comparison and is returned as it is. Each level of all
// ranges is asked for together, in questions of at most MaxSums sums. What changes on either side meanwhile may be
// reported or not, what stays different is.
func (n Narrowing) Differing(ranges []ring.Range, local, remote func(Ask) ([]byte, error)) ([]ring.Range, error) {
	if n.Fan < 2 || n.Fan > MaxParts || n.Leaf < 1 {
		return nil, fmt.Errorf("%w: narrowing by %d to %d", ErrAsk, n.Fan, n.Leaf)
	}
	var leaves []ring.Range
	for todo := ranges; len(todo) > 0; {
		var next []ring.Range
		for batch := range slices.Chunk(todo, MaxSums/n.Fan) {
			differing, err := Ask{Ranges: batch, Parts: n.Fan}.differing(local, remote)
			if err != nil {
				return nil, err
			}
			for _, r := range differing {
				if r.Len() <= n.Leaf {
					leaves = append(leaves, r)
				} else {
					next = append(next, r)
				}
			}
		}
		todo = next
	}
	slices.SortFunc(leaves, func(a, b ring.Range) int { return cmp.Compare(a.From, b.From) })
	return join(leaves), nil
}

// differing returns the parts that differ.
func (a Ask) differing(local, remote func(Ask) ([]byte, error)) (dst []ring.Range, err error) {
	mine, err := local(a)
	if err != nil {
		return nil, err
	}
	theirs, err := remote(a)
	if err != nil {
		return nil, err
	}
	if want := len(a.Ranges) * a.Parts * SumLen; len(mine) != want || len(theirs) != want {
		return nil, fmt.Errorf("%w: answers of %d and %d bytes, want %d", ErrAsk, len(mine), len(theirs), want)
	}
	for i, r := range a.Ranges {
		for j := range a.Parts {
			at := (i*a.Parts + j) * SumLen
			if p := part(r, a.Parts, j); p.Len() > 0 && sumAt(mine[at:]) != sumAt(theirs[at:]) {
				dst = append(dst, p)
			}
		}
	}
	return dst, nil
}

// join merges neighbours that touch.
func join(ranges []ring.Range) []ring.Range {
	var out []ring.Range
	for _, r := range ranges {
		if k := len(out) - 1; k >= 0 && out[k].To == r.From {
			out[k].To = r.To
			continue
		}
		out = append(out, r)
	}
	return out
}
