package quorum

import (
	"testing"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// A context that names what left the clock is covered as far as the owners say so, and no further.
func TestContextOfWhatLeft(t *testing.T) {
	a, b := causal.Actor{1}, causal.Actor{2}
	for _, test := range []struct {
		name    string
		retired causal.Vector
		want    Verdict
	}{
		{"nothing left", nil, Stale},
		{"less left", causal.Vector{{Actor: a, Counter: 3}}, Stale},
		{"it left", causal.Vector{{Actor: a, Counter: 4}}, Reached},
	} {
		var g Get
		owner := ring.NodeID{1}
		g.Start(GetConfig{Primaries: []Candidate{{Node: owner, Connected: true}}, R: 1},
			&causal.Context{Vector: causal.Vector{{Actor: a, Counter: 4}}, Dots: []causal.Dot{{Actor: a, Counter: 2}}})
		if s := g.Next(0); s.Do != Read {
			t.Fatalf("%s: begins with %v", test.name, s.Do)
		}
		if test.retired != nil {
			g.Retired(test.retired)
		}
		g.Record(0, causal.Set{Clock: causal.Vector{{Actor: b, Counter: 1}}}, record.Digest{1}, nil)
		if s := g.Next(0); s.Do != Finish || g.Verdict() != test.want {
			t.Errorf("%s: %v, %v", test.name, s.Do, g.Verdict())
		}
	}
}
