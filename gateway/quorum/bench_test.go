package quorum

import (
	"testing"

	"github.com/dotring/dotring/ringsvc/ring"
)

// Estimate: a decider touches three entries a few times and compares some ids; 0.3 µs, most of it clearing 1 KiB, and no
// allocation.
// Measured: 0.27 µs, no allocation (two cores shared with other work, as all figures here).
func BenchmarkGet(b *testing.B) {
	cfg := GetConfig{R: 2, Spread: 12345}
	for _, n := range []string{"a", "b", "c"} {
		cfg.Primaries = append(cfg.Primaries, Candidate{Node: node(n), Connected: true, Mean: 1000, P95: 3000})
	}
	set, digest := version("x1"), digestOf("x1")
	var g Get
	b.ReportAllocs()
	for b.Loop() {
		g.Start(cfg, nil)
		first, second := g.Next(0), g.Next(0)
		g.Next(0)
		g.Record(first.Replica, set, digest, nil)
		g.Next(0)
		g.Digest(second.Replica, digest)
		if g.Next(0).Do != Finish || g.Verdict() != Reached {
			b.Fatal("no answer")
		}
	}
}

// Estimate: as a get, with one more round; 0.3 µs and no allocation.
// Measured: 0.16 µs, no allocation.
func BenchmarkPut(b *testing.B) {
	layouts := []PutLayout{{ID: ring.LayoutID{Epoch: 1}, Owners: []ring.NodeID{node("a"), node("b"), node("c")}, Need: 2}}
	health := func(n ring.NodeID) Candidate { return Candidate{Node: n, Connected: true} }
	var p Put
	b.ReportAllocs()
	for b.Loop() {
		p.Start(PutConfig{Layouts: layouts, Health: health})
		mint := p.Next()
		p.Issued(mint.Replica)
		second := p.Next()
		p.Next()
		p.Next()
		p.Durable(mint.Replica, 0)
		p.Next()
		p.Durable(second.Replica, 0)
		if p.Next().Do != Finish || p.Verdict() != Reached {
			b.Fatal("not committed")
		}
	}
}
