package sim

import (
	"fmt"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/causal"
)

// client does one thing after the other, and remembers what it saw of each key.
type client struct {
	w       *world
	idx     int
	gate    int
	known   []knowledge
	writes  int
	stopped bool
}

// knowledge is a client's context of one key, and what that stands for.
type knowledge struct {
	has  bool
	ctx  causal.Context
	seen history.Known
}

func newClient(w *world, i int) *client {
	c := &client{w: w, idx: i, gate: i % len(w.gates), known: make([]knowledge, w.opt.Keys)}
	c.rest()
	return c
}

// rest plans the next operation.
func (c *client) rest() {
	c.w.after(c.w.between(0, 2*c.w.opt.Think), c.next)
}

// next begins an operation.
func (c *client) next() {
	if c.stopped {
		return
	}
	g := c.gateway()
	if g == nil {
		c.rest()
		return
	}
	k := c.w.IntN(c.w.opt.Keys)
	switch p := c.w.Float64(); {
	case p < 0.35:
		c.put(g, k, c.w.chance(c.w.opt.Blind), c.rest)
	case p < 0.6: // read, change, write
		c.get(g, k, 2, false, func(ok bool) {
			if g := c.gateway(); ok && g != nil && !c.stopped {
				c.put(g, k, false, c.rest)
				return
			}
			c.rest()
		})
	default:
		c.get(g, k, 1+c.w.IntN(c.w.opt.N), c.known[k].has && c.w.chance(0.4), func(bool) { c.rest() })
	}
}

// gateway picks one that is up: mostly the same.
func (c *client) gateway() *gateway {
	if c.w.chance(0.2) || !c.ready(c.gate) {
		c.gate = c.w.IntN(len(c.w.gates))
	}
	if !c.ready(c.gate) {
		return nil
	}
	return c.w.gates[c.gate]
}

func (c *client) ready(i int) bool { return c.w.gates[i].up && c.w.gates[i].state != nil }

// due is a deadline for what begins now.
func (c *client) due() time.Duration {
	return c.w.now + c.w.between(300*time.Millisecond, 2*time.Second)
}

// get reads a key, with the client's context or without.
func (c *client) get(g *gateway, k, r int, own bool, then func(ok bool)) {
	name := key(k)
	var ctx *causal.Context
	var seen *history.Known
	if own {
		mine := c.known[k]
		ctx, seen = &mine.ctx, &mine.seen
	}
	met := r
	if r == 1 && c.w.removals > 0 {
		met = 0 // after a removal the promise holds for reads of two and more
	}
	reading := c.w.check.Reading(name, met, c.w.opt.N, seen)
	due := c.due()
	o := g.startGet([]byte(name), r, ctx, due, func(set causal.Set, err error) {
		c.w.stats.Reads++
		c.overdue(due, "get of "+name)
		if err != nil {
			c.w.stats.ReadsFailed++
			c.w.trace.line("c%d get %s r=%d at %s: %v", c.idx, name, r, g.name, err)
			c.forget(k)
			then(false)
			return
		}
		c.w.trace.line("c%d get %s r=%d at %s: %s", c.idx, name, r, g.name, describe(set))
		known := c.w.check.Answered(reading, set, fmt.Sprintf("get of client %d at %s with r=%d", c.idx, g.name, r))
		if !c.known[k].has || !c.w.chance(c.w.opt.Stubborn) {
			c.known[k] = knowledge{has: true, ctx: causal.Context{Vector: set.Clock}, seen: known}
		}
		then(true)
	})
	o.restart()
}

// put writes a key; what is in doubt is sometimes tried again through another gateway, under the same request id.
func (c *client) put(g *gateway, k int, blind bool, then func()) {
	c.writes++
	value := fmt.Appendf(nil, "client %d write %d of key %d", c.idx, c.writes, k)
	tombstone, sloppy := c.w.chance(c.w.opt.Deletes), !c.w.chance(c.w.opt.Strict)
	if tombstone {
		value = nil
	}
	w := c.w.check.Begin(key(k), value, tombstone)
	o := &putOp{need: c.w.opt.MinW, write: w, request: fmt.Sprintf("c%d-%d", c.idx, c.writes), named: c.w.chance(0.5), sloppy: sloppy}
	if c.w.chance(0.15) {
		o.need = c.w.opt.N
	}
	if mine := c.known[k]; !blind && mine.has {
		ctx := mine.ctx
		o.context, o.seen = &ctx, mine.seen
	} else if !blind {
		o.context = &causal.Context{} // that of a key that is not there
	}
	c.attempt(g, k, o, 0, then)
}

// attempt sends a put once.
func (c *client) attempt(g *gateway, k int, o *putOp, tries int, then func()) {
	o.key, o.due = []byte(key(k)), c.due()
	began := c.w.now
	o.done = func(o *putOp, err error) {
		c.overdue(o.due, "put of "+key(k))
		c.w.trace.line("c%d put %s write %d at %s w=%d: %v", c.idx, key(k), o.write.ID, g.name, o.need, err)
		if err == nil {
			c.acked(k, o, began)
			then()
			return
		}
		c.forget(k)
		outcome := history.InDoubt
		if o.put.NotApplied() {
			outcome = history.NotApplied
			c.w.stats.NotApplied++
		} else {
			c.w.stats.InDoubt++
		}
		c.w.check.Failed(o.write, outcome)
		next := c.gateway()
		if outcome == history.InDoubt && o.named && tries < 2 && next != nil && !c.stopped && c.w.chance(0.6) {
			c.w.stats.Retries++
			o.write.Repeated = true
			c.attempt(next, k, &putOp{need: o.need, write: o.write, request: o.request, named: true, sloppy: o.sloppy, context: o.context, seen: o.seen}, tries+1, then)
			return
		}
		then()
	}
	g.startPut(o)
}

// acked takes in what a put answered.
func (c *client) acked(k int, o *putOp, began time.Duration) {
	name := key(k)
	c.w.stats.Hinted += min(o.put.Hinted(), 1)
	// Only owners are met by reads.
	owners := o.need - o.put.Hinted()
	if c.w.bug == HintTwice && o.put.Hinted() == o.put.Acks() {
		owners = 0
	}
	c.w.check.Acked(o.write, o.dot, owners, c.w.lossAt >= began)
	if c.w.faulty && c.w.faultActive() {
		c.w.faultAcks++
	}
	mine := &c.known[k]
	mine.has = true
	mine.ctx = causal.Answer(o.context, o.set, o.dot)
	if c.w.bug == PutCtx || c.w.bug == RepeatCtx && o.context == nil {
		mine.ctx = causal.Context{Vector: o.set.Clock}
	}
	mine.seen = c.w.check.After(name, o.seen, o.dot)
}

// forget gives up a context that nobody may be able to cover any more, since what it stands for was collected.
func (c *client) forget(k int) {
	if c.w.opt.Grace > 0 && c.w.chance(0.5) {
		c.known[k] = knowledge{}
	}
}

// overdue checks that an operation ended in time.
func (c *client) overdue(due time.Duration, what string) {
	if c.w.now > due {
		c.w.check.Break(history.Bounded, "%s ended %s after its deadline", what, c.w.now-due)
	}
}

// describe is short and says what a trace needs.
func describe(s causal.Set) string {
	out := ""
	for _, sib := range s.Siblings {
		out += fmt.Sprintf(" %x:%d", sib.Dot.Actor[:4], sib.Dot.Counter)
	}
	return fmt.Sprintf("%d siblings%s, %d actors", len(s.Siblings), out, len(s.Clock))
}

// audit reads every key once a layout has settled, by small quorums: what the change has lost is noticed before the
// next write hides it. The reads of a change that comes on the heels of another are left out.
func (w *world) audit(epoch uint64) {
	if epoch <= w.audited || !w.faulty {
		return
	}
	w.audited = epoch
	c := w.clients[0]
	for k := range w.opt.Keys {
		w.after(w.between(0, 150*time.Millisecond), func() {
			if g := c.gateway(); g != nil && w.audited == epoch && w.faulty {
				c.get(g, k, w.opt.N-w.opt.MinW+1, false, func(bool) {})
			}
		})
	}
}
