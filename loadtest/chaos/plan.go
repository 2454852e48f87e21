// Package chaos breaks a cluster of real processes, or has its nodes come and go, while clients write and read, and judges what they were told by the same history as the simulator.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	Kill    Kind = "kill"    // SIGKILL of a node, started again later
	Pause   Kind = "pause"   // SIGSTOP of a node, SIGCONT later
	Gateway Kind = "gateway" // SIGKILL of a gateway, started again later
	Split   Kind = "split"   // a node and all others lose each other's packets
	Peers   Kind = "peers"   // a node and the other nodes lose each other's packets; gateways reach all
	OneWay  Kind = "one-way" // what a node sends is lost, what is sent to it arrives
	Loss    Kind = "loss"    // a share of a node's packets is lost, both ways
	Delay   Kind = "delay"   // a node's packets are late, both ways
	Wipe    Kind = "wipe"    // SIGKILL of a node, and its records are gone when it starts again
)

// kindInfo says what a kind needs.
type kindInfo struct {
	kind    Kind
	network bool // namespaces
	gateway bool // it hits a gateway
}

var kinds = []kindInfo{
	{Kill, false, false}, {Pause, false, false}, {Gateway, false, true}, {Split, true, false}, {Peers, true, false},
	{OneWay, true, false}, {Loss, true, false}, {Delay, true, false}, {Wipe, false, false},
}

// ParseKinds reads names separated by commas; empty is all.
func ParseKinds(names string) ([]Kind, error) {
	var out []Kind
	for _, name := range strings.Split(names, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !slices.ContainsFunc(kinds, func(k kindInfo) bool { return k.kind == Kind(name) }) {
			return nil, fmt.Errorf("no kind of fault is named %q; there are %s", name, kindNames())
		}
		out = append(out, Kind(name))
	}
	if len(out) == 0 {
		for _, k := range kinds {
			out = append(out, k.kind)
		}
	}
	return out, nil
}

func kindNames() string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k.kind)
	}
	return strings.Join(names, ", ")
}

func (k Kind) info() kindInfo {
	return kinds[slices.IndexFunc(kinds, func(i kindInfo) bool { return i.kind == k })]
}

// Fault is one fault of a plan.
type Fault struct {
	Kind   Kind
	Target int           // which node, or which gateway
	At     time.Duration // since the faults began
	For    time.Duration
	Share  float64       // of packets lost
	Late   time.Duration // how late packets are, and up to as much more
}

// String is short, for people.
func (f Fault) String() string {
	who := fmt.Sprintf("node%d", f.Target+1)
	if f.Kind.info().gateway {
		who = fmt.Sprintf("gateway%d", f.Target+1)
	}
	s := fmt.Sprintf("%s %s for %.1f s", f.Kind, who, f.For.Seconds())
	switch f.Kind {
	case Loss:
		s += fmt.Sprintf(", %.0f %% of its packets", 100*f.Share)
	case Delay:
		s += fmt.Sprintf(", %d to %d ms", f.Late.Milliseconds(), 2*f.Late.Milliseconds())
	}
	return s
}

// planConfig says what to plan.
type planConfig struct {
	seed            uint64
	length          time.Duration
	mixed           bool
	kinds           []Kind
	nodes, gateways int
}

const (
	calm        = 3 * time.Second // before the first fault, and at least between two in turn
	shortFault  = 3 * time.Second
	longFault   = 9 * time.Second
	mixedWithin = 6 * time.Second // the longest between two beginnings where faults overlap
)

// plan draws the faults of a run, in order of their beginning: one at a time, or overlapping where mixed. Each kind comes
// as often as any other, but a node's records are wiped once at most where faults overlap, since two copies that go
// before the first is back are more than W=2 promises to survive.
func plan(c planConfig) []Fault {
	rnd := rand.New(rand.NewPCG(c.seed, 0xc4a05))
	var out []Fault
	var round []Kind
	wiped := false
	until := make([]time.Duration, c.nodes+c.gateways) // each target is hit by one fault at a time
	for at := calm; ; {
		if len(round) == 0 {
			round = slices.Clone(c.kinds)
			rnd.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		}
		f := Fault{Kind: round[0], At: at, For: shortFault + rand2(rnd, longFault-shortFault)}
		round = round[1:]
		f.Share, f.Late = 0.02+0.28*rnd.Float64(), 5*time.Millisecond+rand2(rnd, 95*time.Millisecond)
		f.Target = rnd.IntN(c.nodes)
		slot := f.Target
		if f.Kind.info().gateway {
			f.Target = rnd.IntN(max(c.gateways, 1))
			slot = c.nodes + f.Target
		}
		room := c.length - calm - f.At
		if room < shortFault {
			return out
		}
		f.For = min(f.For, room)
		skip := c.mixed && (until[slot] > f.At || f.Kind == Wipe && wiped)
		if !skip {
			out = append(out, f)
			until[slot] = f.At + f.For + calm
			wiped = wiped || f.Kind == Wipe
		}
		at += f.For + calm + rand2(rnd, calm)
		if c.mixed {
			at = f.At + rand2(rnd, mixedWithin)
		}
	}
}

func rand2(rnd *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(rnd.Int64N(int64(below)))
}
