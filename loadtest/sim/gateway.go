package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/phi"
	"github.com/dotring/dotring/ringsvc/ring"
)

// What the coordinator of production has as defaults.
const (
	replicateFor  = 5 * time.Second
	hedgeAfter    = 20 * time.Millisecond
	hedgeFloor    = time.Millisecond
	healthPoll    = 100 * time.Millisecond
	reconnectPoll = 10 * time.Millisecond
	beat          = 250 * time.Millisecond
	breakAfter    = 1500 * time.Millisecond // of silence on a link, it is taken for broken
	maxRestarts   = 16
	standInAfter  = 400 * time.Millisecond
	spreadAfter   = time.Second
	maxFallbacks  = 16
)

// gateway is one gateway process.
type gateway struct {
	w    *world
	idx  int
	name string
	up   bool
	life int
	view *ring.View
	// changed is when that last changed.
	changed time.Duration
	state   *gateState
	links   []*link
	ops     []*opBase // under way
	hedge   *quorum.Budget
	deafTo  time.Duration // it hears no news
}

// gateState is what a gateway knows of the layouts at one moment. Never modified.
type gateState struct {
	live       []*ring.Layout
	names      []ring.LayoutID
	read       *ring.Layout
	readIndex  int
	generation int
}

// link is a gateway's stream to a node.
type link struct {
	up     bool
	epoch  int
	life   int          // of the node's process
	actor  causal.Actor // of the node, when the link was opened
	heard  time.Duration
	detect *phi.Detector
	calls  []*call
	beats  wire.Heard // the node's numbers
}

// call is a request in flight.
type call struct {
	deliver func(answer)
	done    bool
	first   bool      // a mint's first answer came
	early   *response // its second, which came before the first: a stream keeps the order
}

// answer is what becomes of a call: a response, or a cause why there is none: Away where it was not sent, Lost where it
// may have been done.
type answer struct {
	cause quorum.Cause
	resp  response
}

func newGateway(w *world, i int) *gateway {
	return &gateway{w: w, idx: i, name: fmt.Sprintf("g%d", i)}
}

func (g *gateway) place() int { return g.w.gatePlace(g.idx) }

// start makes a new process; what it knows of layouts it keeps only for its first start, or until it asks a node.
func (g *gateway) start() {
	g.up = true
	g.life++
	g.hedge = quorum.NewBudget(0.05, 50)
	g.links = nil
	for range g.w.nodes {
		g.links = append(g.links, &link{detect: phi.New(phi.Config{})})
	}
	g.connect()
	g.later(beat, g.beats)
	g.later(g.w.opt.News, g.watch)
}

// stop ends the process; what it was doing is never answered.
func (g *gateway) stop() {
	g.w.trace.line("%s stops", g.name)
	g.up = false
	g.life++
	g.view, g.state = nil, nil
	ops := g.ops
	g.ops = nil
	for _, o := range ops {
		o.abandon()
	}
}

func (g *gateway) later(d time.Duration, do func()) {
	life := g.life
	g.w.after(d, func() {
		if g.up && g.life == life {
			do()
		}
	})
}

// learn merges a view.
func (g *gateway) learn(v *ring.View) {
	if g.view == nil {
		g.view = v
	} else if changed, err := g.view.Merge(v); err != nil || !changed {
		if err != nil {
			g.w.trace.line("%s does not merge a view: %v", g.name, err)
		}
		return
	}
	g.changed = g.w.now
	known := g.view.Clone()
	s := &gateState{live: known.Live(), names: known.LiveIDs(), read: known.ReadLayout(), generation: 1}
	if g.state != nil {
		s.generation = g.state.generation + 1
	}
	s.readIndex = slices.Index(s.live, s.read)
	g.state = s
}

// describeLayouts names the layouts that writes must satisfy.
func (g *gateway) describeLayouts() string {
	if g.state == nil {
		return "none"
	}
	return fmt.Sprint(g.state.names)
}

// watch asks some node for news.
func (g *gateway) watch() {
	to := g.w.nodes[g.w.IntN(len(g.w.nodes))]
	every := g.w.opt.News
	switch {
	case to.up && g.w.reachable(g.place(), to.idx) && to.view != nil:
		g.hear(to)
	case to.gone:
		every = min(every, time.Second) // there is another to ask
	}
	if g.state == nil {
		every = 50 * time.Millisecond
	}
	g.later(g.w.between(every/2, every*3/2), g.watch)
}

// told is that a node's view changed: one that is quick to hear news hears this, too.
func (g *gateway) told(n *node) {
	if g.up && g.w.opt.News < 300*time.Millisecond && g.links[n.idx].up && g.w.chance(0.3) {
		g.hear(n)
	}
}

func (g *gateway) hear(n *node) {
	if g.w.now < g.deafTo {
		return
	}
	v := n.view.Clone()
	life := g.life
	g.w.send(n.idx, g.place(), func() {
		if g.up && g.life == life {
			g.learn(v)
			g.spread(n, v)
		}
	})
}

// spread tells a node what it does not know though it has been known here for a while: maybe whoever else knew it has
// lost its disk.
func (g *gateway) spread(to *node, told *ring.View) {
	if g.w.bug == Mute || g.w.now-g.changed < spreadAfter || g.view.Hash() == told.Hash() {
		return
	}
	g.w.stats.Spread++
	g.w.trace.line("%s tells %s of %s", g.name, to.name, g.view.Newest().ID())
	mine := g.view.Clone()
	g.w.send(g.place(), to.idx, func() { to.whenAwake(to.life, func() { to.mergeFrom(ring.NodeID{}, mine) }) })
}

// connect opens the links that can be opened.
func (g *gateway) connect() {
	for i, l := range g.links {
		n := g.w.nodes[i]
		if !l.up && n.up && n.view != nil && !n.paused() && g.w.reachable(g.place(), i) {
			l.up, l.life, l.actor, l.heard = true, n.life, n.store.Actor(), g.w.now
			l.detect.Heard(g.w.now)
			l.beat(g.w.now, n.number())
		}
	}
}

// beats lets every node that can be heard be heard, and breaks links that are silent.
func (g *gateway) beats() {
	for i, l := range g.links {
		n := g.w.nodes[i]
		if !l.up {
			continue
		}
		if n.up && n.life == l.life && !n.paused() && g.w.reachable(g.place(), i) && !g.w.chance(g.w.loss) {
			l.heard = g.w.now
			l.detect.Heard(g.w.now)
			l.beat(g.w.now, n.number())
		}
		if n.life != l.life || g.w.now-l.heard > breakAfter {
			g.lose(i, 0)
		}
	}
	g.connect()
	g.later(beat, g.beats)
}

// lose breaks a link soon: what is in flight on it may have been done.
func (g *gateway) lose(i int, d time.Duration) {
	if !g.up || !g.links[i].up {
		return
	}
	epoch := g.links[i].epoch
	g.later(d, func() {
		l := g.links[i]
		if !l.up || l.epoch != epoch {
			return
		}
		l.up = false
		l.epoch++
		calls := l.calls
		l.calls = nil
		for _, c := range calls {
			if !c.done {
				c.done = true
				c.deliver(answer{cause: quorum.Lost})
			}
		}
	})
}

// candidate tells a decider of a node.
func (g *gateway) candidate(id ring.NodeID) quorum.Candidate {
	c := quorum.Candidate{Node: id}
	if n := g.w.byID(id); n != nil {
		l := g.links[n.idx]
		c.Connected, c.Suspect = l.up && !g.view.IsDead(id), l.detect.Suspect(g.w.now)
		c.Mean, c.P95 = g.w.opt.Latency*2, g.w.opt.Latency*6
	}
	return c
}

// call sends a request to a node. deliver is called once for each response, or once where none will come.
func (g *gateway) call(id ring.NodeID, r *request, deliver func(answer)) {
	n := g.w.byID(id)
	if n == nil || !g.links[n.idx].up {
		g.later(0, func() { deliver(answer{cause: quorum.Away}) })
		return
	}
	l := g.links[n.idx]
	epoch, life := l.epoch, g.life
	c := &call{deliver: deliver}
	l.calls = append(slices.DeleteFunc(l.calls, func(c *call) bool { return c.done }), c)
	due := g.w.now + r.left
	answered := func(resp response) {
		number := n.number()
		g.w.send(n.idx, g.place(), func() {
			if !g.up || g.life != life || l.epoch != epoch || c.done {
				return
			}
			l.heard = g.w.now
			l.detect.Heard(g.w.now)
			l.beat(g.w.now, number)
			c.arrived(r.op, resp)
		})
	}
	nodeLife, arrived := l.life, false
	if r.heard == 0 && g.w.opt.Grace > 0 {
		r.heard = l.beats.By(epoch0.Add(r.obtained))
	}
	g.w.send(g.place(), n.idx, func() {
		if arrived && r.op == opMint {
			return // a stream delivers once; only what may be done twice is also delivered twice
		}
		arrived = true
		n.whenAwake(nodeLife, func() {
			work := time.Duration(float64(50*time.Microsecond) * n.slow * n.slow)
			n.later(work, func() {
				if g.w.now >= due && g.w.opt.Grace == 0 { // how long a message was on its way no deadline tells
					answered(response{cause: quorum.Expired})
					return
				}
				sent := *r
				sent.left = max(due-g.w.now, 100*time.Millisecond)
				n.handle(&sent, answered)
			})
		})
	})
	if r.left > 0 {
		g.later(r.left+time.Second, func() { c.done = true })
	}
}

// arrived delivers a response, those of a mint in their order.
func (c *call) arrived(asked op, resp response) {
	if asked == opMint && resp.cause == quorum.None && resp.record == nil && !c.first {
		c.early = &resp
		return
	}
	if asked == opMint && resp.cause == quorum.None && c.first && resp.record != nil {
		return // the first answer once more
	}
	c.first = true
	c.done = asked != opMint || resp.durable || resp.cause != quorum.None
	c.deliver(answer{resp: resp})
	if c.early != nil && !c.done {
		c.done = true
		c.deliver(answer{resp: *c.early})
	}
}

// refreshed merges the view of a refusal and returns the newest state if it is newer than old, else nil.
func (g *gateway) refreshed(old *gateState, v *ring.View) *gateState {
	if g.state.generation == old.generation && v != nil {
		g.learn(v.Clone())
	}
	if g.state.generation != old.generation {
		return g.state
	}
	return nil
}

// opBase is what a get and a put have in common.
type opBase struct {
	g       *gateway
	key     []byte
	slot    ring.Slot
	begin   time.Duration
	due     time.Duration
	ended   bool
	abandon func() // the gateway is gone
}

// open registers an operation with its gateway; late is called at its deadline.
func (o *opBase) open(late func()) {
	o.slot = ring.SlotOf(o.key)
	o.begin = o.g.w.now
	o.g.ops = append(o.g.ops, o)
	o.g.w.openOps++
	o.g.later(o.due-o.g.w.now, func() {
		if !o.ended {
			late()
		}
	})
}

// close ends an operation; false says that it had ended.
func (o *opBase) close() bool {
	if o.ended {
		return false
	}
	o.ended = true
	o.g.w.openOps--
	if at := slices.Index(o.g.ops, o); at >= 0 {
		o.g.ops = slices.Delete(o.g.ops, at, at+1)
	}
	return true
}

func (o *opBase) now() time.Duration { return o.g.w.now - o.begin }
