package sim

import (
	"fmt"
	"strings"
	"time"
)

// Options says what a run is like. Swarm draws them from a seed. Rates are of events a second of simulated time.
type Options struct {
	Nodes    int // members at the beginning, at least N
	Spares   int // nodes that may join
	N, MinW  int
	Gateways int
	Clients  int
	Keys     int

	Think   time.Duration // a client's pause between operations, on average
	Latency time.Duration // one way, on average
	Tail    float64       // probability that a message takes up to forty times as long
	Loss    float64       // probability that a message is lost
	Twice   float64       // probability that a message arrives twice
	Commit  time.Duration // the disk's sync, on average
	News    time.Duration // how often a gateway hears of layouts
	Gossip  time.Duration // how often a node exchanges views while a change is under way

	Partitions float64 // rate
	OneWay     float64 // share of partitions in one direction
	Crashes    float64
	Clean      float64 // share of stops that are clean
	Pauses     float64
	Slow       float64 // rate at which a node becomes slow for a while
	DiskFails  float64
	DiskFull   float64
	Flaky      float64 // rate at which a node's reads meet flipped bits for a while
	Damages    float64 // rate of stored bytes damaged for good
	DiskLoss   float64 // rate at which one machine finds its disk empty or rolled back
	ClockJumps float64
	Gates      float64       // rate at which a gateway goes or comes
	Layouts    float64       // rate of layout changes: joins, weights, leaves
	CutOffs    float64       // rate at which gateways are cut off from the owners of a key
	Least      time.Duration // of the first phase, in simulated time; 0 is the usual
	Forgets    float64       // rate of proposals that only a gateway remembers
	Upheaval   bool          // layout changes concern several members, and come from several members at once
	Blind      float64       // share of writes without a context
	Deletes    float64       // share of writes that delete
	Strict     float64       // share of writes that only owners may take
	HintBytes  int64         // that a node keeps for others
	Compare    time.Duration // how often a node compares what it holds with another's; 0 for never before healing

	// Collection of tombstones.
	Grace time.Duration // 0 for none
	Late  float64       // probability that a message is on its way for up to twice that time
	// Crowd is how many entries a clock has before those of dead actors leave it, 0 for never; Retire is how long what left is
	// vouched for, and Stubborn the probability that a client goes on with an older context than it could have.
	Crowd    int
	Retire   time.Duration
	Stubborn float64

	// Faults of membership.
	Dooms     float64       // rate at which a machine goes for good; of those that may lose their disk, so that few ever do
	Aborts    float64       // rate at which a change is given up
	Outages   float64       // rate at which all nodes stop at once, mostly in the middle of a change
	Deaf      float64       // rate at which a gateway hears no news for a while, but from nodes that refuse it
	DeadAfter time.Duration // a member is removed that was away for so long, if it is one that went for good; 0 for never
	Leaves    float64       // probability that a change of layout is a member that leaves
	Planned   bool          // tokens are chosen by the planner, and not by chance
}

// quiet is a cluster without faults.
func quiet() Options {
	return Options{
		Nodes: 4, Spares: 2, N: 3, MinW: 2, Gateways: 2, Clients: 6, Keys: 5,
		Think: 20 * time.Millisecond, Latency: time.Millisecond, Commit: 2 * time.Millisecond, News: 200 * time.Millisecond, Gossip: 60 * time.Millisecond,
		Leaves: 0.15, Blind: 0.2, Deletes: 0.15, OneWay: 0.3, Clean: 0.3, Strict: 0.2, HintBytes: 1 << 20, Compare: 2 * time.Second,
	}
}

// Profile is a kind of swarm that makes one family of mistakes likely.
type Profile string

// The profiles. The usual mix holds a few runs of each of the others.
const (
	Usual      Profile = ""
	Standing   Profile = "standing"   // gateways are cut off from owners, and others stand in
	Proposals  Profile = "proposals"  // proposals meet, and their proposers forget them
	Hasty      Profile = "hasty"      // changes of layouts while gateways and messages lag behind
	Rollbacks  Profile = "rollbacks"  // disks are rolled back, all the time
	Leftovers  Profile = "leftovers"  // layouts change while others stand in, and machines lose their disks
	Leavers    Profile = "leavers"    // members leave while tombstones are collected
	Collection Profile = "collection" // tombstones are collected, while nodes are down and messages late
	Actors     Profile = "actors"     // nodes live anew all the time, and what their dead actors have left behind leaves clocks
	Members    Profile = "members"    // members come, leave, go for good, and are replaced; changes are given up, and all nodes stop amid them
)

// Profiles lists all but the usual mix.
func Profiles() []Profile {
	return []Profile{Standing, Proposals, Hasty, Rollbacks, Leftovers, Leavers, Members, Collection, Actors}
}

// Swarm draws options from a seed.
func Swarm(seed uint64, p Profile) Options {
	d, more := newDice(seed, 1), newDice(seed, 3)
	o := usual(d)
	if p == Usual && d.chance(0.25) {
		p = Profiles()[d.IntN(7)] // those before collection
	} else if p == Usual && more.chance(0.35) {
		o.membership(more)
	} else if p == Usual && more.chance(0.06) {
		p = Collection
	} else if p == Usual && more.chance(0.06) {
		p = Actors
	}
	switch p {
	case Standing:
		o.standing(d)
	case Proposals:
		o.proposals(d)
	case Hasty:
		o.hasty(d)
	case Rollbacks:
		o.rollbacks(d)
	case Members:
		o.members(d)
	case Leftovers:
		o.leftovers(d)
	case Leavers:
		o.leavers(d)
	case Collection:
		o.collection(d)
	case Actors:
		o.actors(d)
	}
	return o
}

// calm turns off what a profile does not need.
func (o *Options) calm() {
	o.Upheaval, o.N, o.MinW = false, 3, 2
	for _, f := range []*float64{&o.Tail, &o.Loss, &o.Twice, &o.Partitions, &o.Crashes, &o.Pauses, &o.Slow, &o.DiskFails, &o.DiskFull, &o.Flaky,
		&o.Damages, &o.DiskLoss, &o.ClockJumps, &o.Gates, &o.Layouts, &o.Dooms, &o.Aborts, &o.Outages, &o.Deaf} {
		*f = 0
	}
}

func (o *Options) standing(d dice) {
	o.calm()
	o.Spares, o.Gateways, o.Clients = 0, 2+d.IntN(3), 8
	o.CutOffs, o.DiskLoss, o.Least = 0.2+0.2*d.Float64(), 0.2+0.3*d.Float64(), 15*time.Second
	o.Nodes, o.Keys, o.Think = 4+d.IntN(2), 2+d.IntN(4), 100*time.Millisecond
	o.Strict, o.HintBytes, o.Compare = 0, 1<<20, 0
}

func (o *Options) proposals(d dice) {
	o.upheaval(d)
	o.calm()
	o.Nodes, o.Spares, o.Gateways, o.Keys = 4+d.IntN(3), 0, 3+d.IntN(6), 80
	o.Layouts, o.Forgets, o.Loss = 0.5+d.Float64(), 0.3+0.7*d.Float64(), 0.1*d.Float64()
	o.News, o.Compare, o.Strict = 15*time.Second, 0, 1
}

func (o *Options) hasty(d dice) {
	o.upheaval(d)
	o.calm()
	o.Upheaval, o.Nodes, o.Gateways, o.Clients, o.Keys = true, 5+d.IntN(3), 12+d.IntN(12), 24, 80
	o.Layouts, o.Loss, o.Tail = 2+3*d.Float64(), 0.1+0.1*d.Float64(), 0.2*d.Float64()
	o.News, o.Gossip, o.Compare, o.Strict = 30*time.Second, time.Second, 0, 1
}

func (o *Options) rollbacks(d dice) {
	o.calm()
	o.Keys, o.Clients, o.Spares = 2+d.IntN(3), 6+d.IntN(6), 0
	o.DiskLoss, o.Clean = 1+2*d.Float64(), 0.5+0.5*d.Float64()
	o.Loss, o.Crashes = 0.02*d.Float64(), 0.3*d.Float64()
}

func (o *Options) members(d dice) {
	o.calm()
	o.Nodes, o.Spares, o.Gateways, o.Clients, o.Keys = 4+d.IntN(3), 2+d.IntN(3), 2+d.IntN(6), 8+d.IntN(9), []int{8, 40}[d.IntN(2)]
	o.Layouts, o.Loss, o.Tail, o.Upheaval = 0.2+0.8*d.Float64(), 0.05*d.Float64(), 0.1*d.Float64(), d.chance(0.3)
	o.Strict, o.Compare, o.Least = 1, 0, 14*time.Second
	o.News = []time.Duration{200 * time.Millisecond, 4 * time.Second, 15 * time.Second}[d.IntN(3)]
	if d.chance(0.5) {
		o.Crashes, o.Partitions, o.Strict = 0.2*d.Float64(), 0.2*d.Float64(), 0.5
	}
	o.membership(d)
	o.Dooms = max(o.Dooms, 0.3)
}

func (o *Options) collection(d dice) {
	o.calm()
	o.Nodes, o.Spares, o.Gateways, o.Clients, o.Keys = 4+d.IntN(2), 0, 2+d.IntN(3), 6+d.IntN(5), 12+d.IntN(30)
	o.Think, o.Deletes, o.Blind = 150*time.Millisecond, 0.3+0.4*d.Float64(), 0.5*d.Float64()
	o.Grace, o.Least = d.between(2*time.Second, 3500*time.Millisecond), 25*time.Second
	o.Late, o.Loss, o.Twice = []float64{0, 0.01, 0.05}[d.IntN(3)], 0.02*d.Float64(), 0.05*d.Float64()
	o.Strict, o.HintBytes, o.News = []float64{0, 0.3}[d.IntN(2)], 1<<20, 200*time.Millisecond
	o.Compare = []time.Duration{500 * time.Millisecond, 2 * time.Second, 8 * time.Second}[d.IntN(3)]
	for _, f := range []struct {
		rate *float64
		most float64
	}{{&o.Crashes, 0.3}, {&o.Partitions, 0.3}, {&o.Pauses, 0.3}, {&o.DiskFails, 0.2}, {&o.DiskLoss, 0.08}, {&o.CutOffs, 0.3}} {
		if d.chance(0.6) {
			*f.rate = f.most * d.Float64()
		}
	}
}

// actors makes few keys that are written by many lives: nodes start anew, and their engines are opened anew, all the time.
func (o *Options) actors(d dice) {
	o.collection(d)
	o.Keys, o.Deletes, o.Crowd = 3+d.IntN(6), 0.2*d.Float64(), 4
	o.Retire, o.Stubborn = []time.Duration{o.Grace, time.Minute}[d.IntN(2)], 0.5*d.Float64()
	o.Crashes, o.Clean, o.DiskFails, o.DiskFull = 0.3+0.3*d.Float64(), 0.5*d.Float64(), 0.3*d.Float64(), []float64{0, 0.15}[d.IntN(2)]
	o.Compare = []time.Duration{500 * time.Millisecond, 2 * time.Second}[d.IntN(2)]
}

func (o *Options) leftovers(d dice) {
	o.calm()
	o.Nodes, o.Spares, o.Gateways, o.Clients = 5+d.IntN(3), d.IntN(2), 2+d.IntN(3), 8
	o.Keys, o.Think, o.Least = 4+d.IntN(8), 100*time.Millisecond, 20*time.Second
	o.CutOffs, o.DiskLoss, o.Layouts = 0.2+0.3*d.Float64(), 0.2+0.3*d.Float64(), 0.3+0.7*d.Float64()
	o.Strict, o.HintBytes, o.Compare, o.News = 0, 1<<20, []time.Duration{0, 3 * time.Second}[d.IntN(2)], 200*time.Millisecond
}

func (o *Options) leavers(d dice) {
	o.collection(d)
	o.DiskLoss = 0 // what a member that left still holds may be the only copy beside one
	o.Nodes, o.Spares, o.Layouts, o.Leaves = 5+d.IntN(2), d.IntN(2), 0.2+0.2*d.Float64(), 0.7
	o.Partitions, o.Pauses = max(o.Partitions, 0.3), max(o.Pauses, 0.2)
}

// membership adds the faults of membership, each in about two of three runs.
func (o *Options) membership(d dice) {
	some := func(rate float64) float64 {
		if d.chance(0.35) {
			return 0
		}
		return rate * (0.5 + d.Float64())
	}
	o.Dooms, o.Aborts, o.Outages, o.Deaf = some(0.4), some(0.4), some(0.15), some(0.5)
	o.DeadAfter, o.Planned = d.between(time.Second, 4*time.Second), d.chance(0.3)
}

// usual draws each fault off in about half of all runs, so that one cannot always hide another, and sometimes extreme
// (Groce et al., "Swarm Testing", 2012).
func usual(d dice) Options {
	o := quiet()
	o.Nodes, o.Spares = 3+d.IntN(3), d.IntN(4)
	if d.chance(0.15) {
		o.N, o.MinW, o.Nodes = 5, 3, 5+d.IntN(2)
	}
	o.Gateways, o.Clients, o.Keys = 1+d.IntN(3), 4+d.IntN(7), 2+d.IntN(7)
	o.Blind, o.Deletes = d.Float64()*0.5, d.Float64()*0.4
	o.Commit = d.between(500*time.Microsecond, 8*time.Millisecond)
	o.News = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 4 * time.Second}[d.IntN(3)]
	o.Strict = []float64{0, 0.2, 1}[d.IntN(3)]
	o.HintBytes = []int64{1 << 20, 1 << 20, 2000}[d.IntN(3)]
	o.Compare = []time.Duration{0, 500 * time.Millisecond, 3 * time.Second}[d.IntN(3)]
	rate := func(on, usual float64) float64 {
		if !d.chance(on) {
			return 0
		}
		if d.chance(0.2) {
			usual *= 3
		}
		return usual * (0.3 + d.Float64())
	}
	o.Tail, o.Loss, o.Twice = rate(0.6, 0.05), rate(0.5, 0.02), rate(0.5, 0.05)
	o.Partitions, o.OneWay = rate(0.5, 0.4), d.Float64()
	o.Crashes, o.Clean = rate(0.5, 0.4), d.Float64()
	o.Pauses, o.Slow = rate(0.4, 0.4), rate(0.4, 0.4)
	o.DiskFails, o.DiskFull = rate(0.4, 0.4), rate(0.2, 0.1)
	o.Flaky, o.Damages = rate(0.3, 0.3), rate(0.2, 0.2)
	o.DiskLoss = rate(0.35, 0.2)
	o.ClockJumps = rate(0.3, 0.5)
	o.Gates = rate(0.4, 0.3)
	o.Layouts = rate(0.6, 0.4)
	if d.chance(0.3) {
		o.upheaval(d)
	}
	if d.chance(0.2) {
		o.Commit = d.between(20*time.Millisecond, 120*time.Millisecond)
	}
	if o.Crashes+o.Partitions+o.Pauses+o.DiskFails+o.Layouts == 0 && o.Loss == 0 {
		o.Crashes, o.Loss = 0.4, 0.01
	}
	return o
}

// upheaval makes layouts the main thing: all the time most owners change, and gateways hear of it late.
func (o *Options) upheaval(d dice) {
	o.Upheaval = true
	o.N, o.MinW, o.Nodes, o.Spares, o.Gateways = 3, 2, 5+d.IntN(5), d.IntN(2), 2+d.IntN(12)
	o.Layouts = 1 + 3*d.Float64()
	o.News = []time.Duration{500 * time.Millisecond, 4 * time.Second, 15 * time.Second}[d.IntN(3)]
	// Many gateways that are slow to hear news: each learns of a layout from the first node that refuses it.
	o.Clients, o.Think, o.Latency = 8+d.IntN(9), 15*time.Millisecond, d.between(time.Millisecond, 15*time.Millisecond)
	o.Gossip = []time.Duration{60 * time.Millisecond, 400 * time.Millisecond}[d.IntN(2)]
	// Keys that are written seldom: the next write would hide that one was missed.
	o.Keys = []int{4, 24, 80}[d.IntN(3)]
	for _, f := range []*float64{&o.Tail, &o.Loss, &o.Partitions, &o.Crashes, &o.Pauses, &o.DiskFails, &o.DiskLoss, &o.DiskFull, &o.Gates} {
		*f *= 0.4 // a layout settles only when all members can be reached
	}
}

// String lists what is not zero.
func (o Options) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "nodes %d+%d N=%d W=%d gateways %d clients %d keys %d", o.Nodes, o.Spares, o.N, o.MinW, o.Gateways, o.Clients, o.Keys)
	fmt.Fprintf(&b, " strict %.3g hint-bytes %d compare %s", o.Strict, o.HintBytes, o.Compare)
	for _, f := range []struct {
		name string
		v    float64
	}{
		{"tail", o.Tail}, {"loss", o.Loss}, {"twice", o.Twice}, {"partitions", o.Partitions}, {"crashes", o.Crashes},
		{"pauses", o.Pauses}, {"slow", o.Slow}, {"disk-fails", o.DiskFails}, {"disk-full", o.DiskFull}, {"flaky", o.Flaky},
		{"damages", o.Damages}, {"disk-loss", o.DiskLoss}, {"clock-jumps", o.ClockJumps}, {"gateways", o.Gates},
		{"layouts", o.Layouts}, {"forgets", o.Forgets}, {"cut-offs", o.CutOffs},
		{"grace", o.Grace.Seconds()}, {"crowd", float64(o.Crowd)}, {"retire", o.Retire.Seconds()}, {"stubborn", o.Stubborn}, {"late", o.Late}, {"dooms", o.Dooms}, {"aborts", o.Aborts}, {"outages", o.Outages}, {"deaf", o.Deaf}, {"dead-after", o.DeadAfter.Seconds()},
	} {
		if f.v > 0 {
			fmt.Fprintf(&b, " %s %.3g", f.name, f.v)
		}
	}
	if o.Upheaval {
		b.WriteString(" upheaval")
	}
	if o.Planned {
		b.WriteString(" planned")
	}
	return b.String()
}
