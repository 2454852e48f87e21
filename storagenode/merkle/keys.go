package merkle

import (
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

// Entry is one key in a listing of what a side holds.
type Entry struct {
	Key    []byte
	Digest record.Digest
	Clock  causal.Vector
}

// Wanted returns those of theirs that would add to mine, in their order: keys that are not in mine, and records that differ
// and whose clock is not covered by mine. A record whose clock is covered was superseded, so the other side has to ask for
// mine. Where both clocks are the same and the records are not, both sides ask, and the merge makes them equal.
func Wanted(mine, theirs []Entry) []Entry {
	own := make(map[string]int, len(mine))
	for i := range mine {
		own[string(mine[i].Key)] = i
	}
	var out []Entry
	for _, e := range theirs {
		i, ok := own[string(e.Key)]
		if ok && (mine[i].Digest == e.Digest || mine[i].Clock.CoversVector(e.Clock) && !e.Clock.CoversVector(mine[i].Clock)) {
			continue
		}
		out = append(out, e)
	}
	return out
}
