package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// getOp is one read, as the coordinator carries it out.
type getOp struct {
	opBase
	state    *gateState
	r        int
	wide     bool
	context  *causal.Context
	get      quorum.Get
	round    int // counts restarts under newer layouts
	restarts int
	marked   bool // a node answered with a tombstone that is being collected
	done     func(causal.Set, error)
}

var (
	errDeadline   = errors.New("deadline passed")
	errStale      = errors.New("stale read")
	errImpossible = errors.New("quorum impossible")
	errGone       = errors.New("the gateway is gone")
)

// startGet reads a key; done is called once.
func (g *gateway) startGet(key []byte, r int, ctx *causal.Context, due time.Duration, done func(causal.Set, error)) *getOp {
	o := &getOp{opBase: opBase{g: g, key: key, due: due}, r: r, context: ctx, state: g.state, done: done}
	o.abandon = func() { o.finish(errGone) }
	o.open(func() { o.finish(errDeadline) })
	return o
}

func (o *getOp) finish(err error) {
	if o.close() {
		o.done(o.get.Set(), err)
	}
}

// restart gives the decider the replicas under the present state, and goes on.
func (o *getOp) restart() {
	l := o.state.read
	cfg := quorum.GetConfig{R: 0, Wide: o.wide, Spread: o.g.w.Uint64(), HedgeAfter: hedgeAfter, HedgeFloor: hedgeFloor}
	if !o.wide {
		cfg.R = l.EffectiveR(min(o.r, l.N()))
	}
	for _, n := range l.Primaries(o.slot) {
		cfg.Primaries = append(cfg.Primaries, o.g.candidate(n))
	}
	if o.context != nil {
		for _, n := range others(o.state, o.slot) {
			cfg.Others = append(cfg.Others, o.g.candidate(n))
		}
	}
	o.get.Start(cfg, o.context)
	o.g.hedge.Earn(cfg.R)
	o.steps()
	o.g.later(0, o.tick)
}

// others lists the nodes beside the owners that may hold something of a slot.
func others(s *gateState, slot ring.Slot) []ring.NodeID {
	seen := append([]ring.NodeID(nil), s.read.Primaries(slot)...)
	owners := len(seen)
	add := func(ids []ring.NodeID) {
		for _, id := range ids {
			known := false
			for _, have := range seen {
				known = known || have == id
			}
			if !known {
				seen = append(seen, id)
			}
		}
	}
	for _, l := range s.live {
		add(l.Primaries(slot))
	}
	add(s.read.Fallbacks(slot, nil, s.read.Replicas()))
	return seen[owners:]
}

// steps does what the decider wants.
func (o *getOp) steps() {
	for !o.ended {
		switch s := o.get.Next(o.now()); s.Do {
		case quorum.Read, quorum.Digest:
			o.send(s)
		case quorum.Finish:
			o.decided()
			return
		default:
			return
		}
	}
}

func (o *getOp) send(s quorum.Step) {
	r := &request{op: opRead, key: o.key, left: o.due - o.g.w.now, live: o.state.names, read: o.state.names[o.state.readIndex]}
	if s.Do == quorum.Digest {
		r.op = opDigest
	}
	round, to := o.round, o.get.Node(s.Replica)
	o.g.call(to, r, func(a answer) {
		if o.ended || o.round != round {
			return
		}
		o.answer(o.get.Find(to), r.op, &a)
		if !o.ended && o.round == round {
			o.steps()
		}
	})
}

func (o *getOp) answer(i int, asked op, a *answer) {
	o.marked = o.marked || a.cause == quorum.None && a.resp.marked
	if a.cause == quorum.None {
		o.get.Retired(a.resp.retired)
	}
	switch {
	case a.cause != quorum.None:
		o.get.Failed(i, a.cause)
	case a.resp.absent:
		o.get.Absent(i)
	case a.resp.cause == quorum.Fenced:
		if newer := o.g.refreshed(o.state, a.resp.view); newer != nil && o.restarts < maxRestarts {
			o.restarts++
			o.round++
			o.state = newer
			o.restart()
			return
		}
		o.get.Failed(i, quorum.Fenced)
	case a.resp.cause != quorum.None:
		o.get.Failed(i, a.resp.cause)
	case asked == opDigest:
		o.get.Digest(i, a.resp.digest)
	default:
		if record.Verify(o.key, a.resp.record) != nil {
			o.get.Failed(i, quorum.Damaged)
			return
		}
		set, err := record.Decode(o.key, a.resp.record)
		if err != nil {
			o.get.Failed(i, quorum.Damaged)
			return
		}
		digest, err := record.DigestOf(a.resp.record)
		if err != nil {
			o.get.Failed(i, quorum.Damaged)
			return
		}
		o.get.Record(i, set, digest, a.resp.record)
	}
}

// tick looks at what is late, and at who has become suspect.
func (o *getOp) tick() {
	if o.ended {
		return
	}
	o.get.Tick(o.now(), o.g.hedge)
	for i := range o.get.Len() {
		if _, waiting := o.get.InFlight(i); waiting {
			if c := o.g.candidate(o.get.Node(i)); c.Suspect || !c.Connected {
				o.get.Suspected(i)
			}
		}
	}
	o.steps()
	wait := healthPoll
	if at, ok := o.get.HedgeAt(); ok {
		wait = min(wait, max(at-o.now(), time.Millisecond))
	}
	if !o.ended {
		o.g.later(wait, o.tick)
	}
}

func (o *getOp) decided() {
	switch o.get.Verdict() {
	case quorum.Reached:
		if !o.wide {
			o.repair()
		}
		o.finish(nil)
	case quorum.Stale:
		o.finish(errStale)
	default:
		o.finish(errImpossible)
	}
}

// repair sends the answer to the primaries that are known to lack something of it.
func (o *getOp) repair() {
	if o.marked {
		return // it would come back where it was removed already
	}
	var raw []byte
	for i := range o.get.Len() {
		if !o.get.Repair(i) {
			continue
		}
		if raw == nil {
			if raw = o.get.Raw(); raw == nil {
				raw = record.Append(nil, o.key, o.get.Set())
			}
			if o.g.w.bug == DropContext {
				raw = record.Append(nil, o.key, withoutContext(o.get.Set()))
			}
		}
		o.g.w.stats.Repairs++
		o.g.w.trace.line("%s repairs %s at %s", o.g.name, o.key, o.g.w.byID(o.get.Node(i)).name)
		o.g.call(o.get.Node(i), &request{op: opApply, key: o.key, left: replicateFor, live: o.state.names, record: raw, obtained: o.begin}, func(answer) {})
	}
}

// putOp is one write, as the coordinator carries it out.
type putOp struct {
	opBase
	state    *gateState
	need     int
	context  *causal.Context
	write    *history.Write
	seen     history.Known
	request  string
	named    bool // the client chose the request id
	sloppy   bool // others may stand in for owners
	standIns bool // and there are some
	put      quorum.Put
	base     []byte
	record   []byte
	set      causal.Set
	dot      causal.Dot
	failures int
	pauses   int
	retryAt  time.Duration
	polling  bool
	asked    causal.Actor // of the node that was asked to mint, when the link to it was opened
	done     func(*putOp, error)
}

// startPut writes a value; done is called once.
func (g *gateway) startPut(o *putOp) {
	o.g, o.state = g, g.state
	o.abandon = func() { o.finish(errGone) }
	o.open(func() { o.finish(errDeadline) })
	o.put.Start(o.config())
	o.steps()
}

func (o *putOp) finish(err error) {
	if o.close() {
		o.done(o, err)
	}
}

// config describes the live layouts to the decider.
func (o *putOp) config() quorum.PutConfig {
	cfg := quorum.PutConfig{Read: o.state.readIndex, Health: o.g.candidate}
	for _, l := range o.state.live {
		cfg.Layouts = append(cfg.Layouts, quorum.PutLayout{ID: l.ID(), Owners: l.Primaries(o.slot), Need: l.EffectiveW(min(o.need, l.N()))})
	}
	if o.g.w.bug == HintTwice && o.sloppy && !slices.ContainsFunc(o.state.read.Primaries(o.slot), o.connected) {
		for i := range cfg.Layouts { // one machine keeps the write for several owners, and is counted for each
			cfg.Layouts[i].Need = 1
		}
	}
	live := o.state.live
	if o.g.w.bug == OneEpoch {
		cfg.Layouts, cfg.Read = cfg.Layouts[len(cfg.Layouts)-1:], 0
		live = live[len(live)-1:]
	}
	o.standIns = o.sloppy && slices.ContainsFunc(live, func(l *ring.Layout) bool { return len(l.Members()) > l.Replicas() })
	if o.standIns {
		lists := make([][]ring.NodeID, len(live))
		cfg.Fallbacks = func(l int) []ring.NodeID {
			if lists[l] == nil {
				lists[l] = live[l].Fallbacks(o.slot, make([]ring.NodeID, 0, 4), maxFallbacks)
			}
			return lists[l]
		}
	}
	return cfg
}

func (o *putOp) connected(id ring.NodeID) bool { return o.g.candidate(id).Connected }

// steps does what the decider wants.
func (o *putOp) steps() {
	for !o.ended {
		switch s := o.put.Next(); s.Do {
		case quorum.Mint:
			o.sendMint(s.Replica)
		case quorum.Apply:
			left := max(replicateFor, o.due-o.g.w.now)
			o.send(s.Replica, &request{op: opApply, key: o.key, left: left, live: o.state.names, record: o.record, fenced: true, hintFor: o.put.HintFor(s.Replica)})
		case quorum.Gather:
			o.gather()
		case quorum.Finish:
			o.decided()
			return
		default:
			if _, doubtful := o.put.Doubtful(); doubtful && !o.polling {
				o.polling = true
				o.g.later(reconnectPoll, o.poll)
			}
			return
		}
	}
}

// poll asks a node again for a mint that may have happened there, once it is connected.
func (o *putOp) poll() {
	o.polling = false
	if i, doubtful := o.put.Doubtful(); !o.ended && doubtful {
		l := o.g.links[o.g.w.byID(o.put.Node(i)).idx]
		switch {
		case !l.up:
		case l.actor != o.asked && o.g.w.bug != Forgetful: // it has forgotten the request
			o.put.GiveUp()
		case o.now() >= o.retryAt:
			o.put.Again()
		}
		o.steps()
	}
}

func (o *putOp) sendMint(i int) {
	r := &request{op: opMint, key: o.key, left: o.due - o.g.w.now, live: o.state.names, write: o.write, seen: o.seen}
	r.mint.Value, r.mint.Tombstone, r.mint.ContentType = o.write.Value, o.write.Tombstone, "text/plain"
	r.mint.Checksum, r.mint.Context, r.mint.Base = record.Checksum(o.write.Value), o.context, o.base
	r.mint.RequestID, r.mint.ClientRequestID = o.request, o.named
	switch {
	case !o.put.MayBeRepeated():
		o.asked = o.g.links[o.g.w.byID(o.put.Node(i)).idx].actor
	case o.g.w.bug != Forgetful:
		r.mint.AskedActor = o.asked
	}
	r.hintFor = o.put.HintFor(i)
	o.send(i, r)
}

func (o *putOp) send(i int, r *request) {
	to, round, issued := o.put.Node(i), o.put.Round(), false
	r.obtained = o.begin
	o.g.call(to, r, func(a answer) {
		if o.ended {
			o.afterwards(to, &a)
			return
		}
		o.answer(to, round, r.op, &issued, &a)
		o.steps()
	})
}

// afterwards sees to it that a write that reached its quorum is kept also for an owner that turns out to have missed it.
func (o *putOp) afterwards(to ring.NodeID, a *answer) {
	cause := a.cause
	if cause == quorum.None {
		cause = a.resp.cause
	}
	i := o.put.Find(to)
	if !o.standIns || o.put.Verdict() != quorum.Reached || cause == quorum.None || i < 0 {
		return
	}
	for _, k := range o.put.Missed(i, cause) {
		o.send(k, &request{op: opApply, key: o.key, left: replicateFor, live: o.state.names, record: o.record, fenced: true, hintFor: o.put.HintFor(k)})
	}
}

// late lets others stand in for those that have not answered.
func (o *putOp) late() {
	if !o.ended && o.standIns {
		o.put.Late()
		o.steps()
	}
}

// gather reads all replicas for a record that covers the context's dots.
func (o *putOp) gather() {
	r := o.g.startGet(o.key, 0, &causal.Context{Dots: o.context.Dots}, o.due, nil)
	r.wide, r.state = true, o.state
	r.done = func(set causal.Set, err error) {
		if o.ended {
			return
		}
		if err == nil {
			if o.base = r.get.Raw(); o.base == nil {
				o.base = record.Append(nil, o.key, set)
			}
		}
		o.put.Gathered(err == nil)
		o.steps()
	}
	o.g.later(0, r.restart)
}

// backOff says when a doubtful mint may be asked for again.
func (o *putOp) backOff() {
	o.pauses++
	o.retryAt = o.now() + min(10*time.Millisecond<<min(o.pauses-1, 8), 250*time.Millisecond)
}

// answer tells the decider of an answer.
func (o *putOp) answer(to ring.NodeID, round int, asked op, issued *bool, a *answer) {
	i := o.put.Find(to)
	if i < 0 {
		return
	}
	switch {
	case a.cause == quorum.None && a.resp.cause == quorum.Fenced:
		if newer := o.g.refreshed(o.state, a.resp.view); newer != nil {
			o.state = newer
			o.put.Refresh(o.config())
			i = o.put.Find(to)
		}
		if i >= 0 {
			o.put.Fenced(i, round)
		}
	case asked == opMint && !*issued:
		o.minted(i, round, issued, a)
	case a.cause != quorum.None:
		o.put.Failed(i, round, a.cause)
	case a.resp.cause != quorum.None:
		o.put.Failed(i, round, a.resp.cause)
	case a.resp.durable:
		o.put.Durable(i, round)
	}
}

// minted takes the first answer to a mint.
func (o *putOp) minted(i, round int, issued *bool, a *answer) {
	cause := a.cause
	if cause == quorum.None {
		cause = a.resp.cause
	}
	switch {
	case a.cause == quorum.Lost:
		o.backOff()
		o.put.Doubt(i, cause)
	case cause == quorum.Failed:
		o.doubt(i, cause)
	case cause != quorum.None:
		o.backOff()
		o.put.Failed(i, round, cause)
	default:
		set, err := record.Decode(o.key, a.resp.record)
		if err != nil || !set.Clock.Covers(a.resp.dot) {
			o.doubt(i, quorum.Damaged)
			return
		}
		*issued = true
		o.record, o.set, o.dot = a.resp.record, set, a.resp.dot
		o.put.Issued(i)
		o.g.later(standInAfter, o.late)
		if a.resp.durable {
			o.put.Durable(i, round)
		}
	}
}

// doubt: the node failed in the middle of the mint. It is asked again, a few times.
func (o *putOp) doubt(i int, cause quorum.Cause) {
	o.backOff()
	o.put.Doubt(i, cause)
	if o.failures++; o.failures >= 3 {
		o.put.GiveUp()
	}
}

func (o *putOp) decided() {
	if o.put.Verdict() == quorum.Reached {
		o.finish(nil)
		return
	}
	o.finish(errImpossible)
}
