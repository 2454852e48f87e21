package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// startsMost bounds how often nodes start where no entry ever leaves a clock, startsMore where entries do.
	startsMost, startsMore = 60, 200
	// honourFor is how long a client may wait for what it asks for with an old context, once all is quiet.
	honourFor = 5 * time.Second
)

// mayStart says whether a fault may make one more node start: each start adds an actor to clocks, and a token holds about 125.
func (w *world) mayStart() bool {
	if w.opt.Crowd > 0 {
		return w.stats.Restarts <= startsMore
	}
	return w.stats.Restarts <= startsMost
}

// left is what left the clock of a key at one moment.
type left struct {
	entries causal.Vector
	at      time.Duration
}

// newPruner takes entries of actors that live no more out of clocks; nil where none does.
func newPruner(n *node, cfg collect.Config) *collect.Machine {
	if n.w.opt.Crowd == 0 {
		return nil
	}
	cfg.Prune, cfg.Without = true, 0
	switch n.w.bug {
	case PruneOwners:
		cfg.Without = collect.WithoutMembers
	case PruneHints:
		cfg.Without = collect.WithoutKept | collect.WithoutMoves
	case PruneOnce:
		cfg.Without = collect.WithoutSecond
	}
	return collect.New(cfg)
}

// living lists the actors that nodes are known to mint with.
func (n *node) living() map[causal.Actor]bool {
	out := map[causal.Actor]bool{n.store.Actor(): true}
	for _, o := range n.w.nodes {
		if o != n && n.sees(o.id) {
			out[o.store.Actor()] = true
		}
	}
	return out
}

// apart divides what a scan found into tombstones and crowded clocks, of which it leaves out the entries of actors that are
// known to live: they would soon be back.
func apart(found []collect.Tomb, living map[causal.Actor]bool) (tombs, crowded []collect.Tomb) {
	for _, t := range found {
		if len(t.Entries) == 0 {
			tombs = append(tombs, t)
			continue
		}
		t.Entries = slices.DeleteFunc(t.Entries, func(e causal.Entry) bool { return living[e.Actor] })
		if len(t.Entries) > 0 {
			crowded = append(crowded, t)
		}
	}
	return tombs, crowded
}

// drops takes note that entries are to leave the clock of a key here. What was delivered before must not be delivered again: it
// is older than any message may be.
func (n *node) drops(t collect.Tomb) {
	n.w.stats.Pruned++
	n.left[string(t.Key)] = append(n.left[string(t.Key)], left{t.Entries, n.w.now})
	n.w.replays = slices.DeleteFunc(n.w.replays, func(r replay) bool { return string(r.key) == string(t.Key) })
}

// bentHolding is what a node says of entries of a clock, or what a planted bug makes of it.
func (n *node) bentHolding(t collect.Tomb, h collect.Holding) collect.Holding {
	if n.w.bug != PruneIdle || len(t.Entries) == 0 || h&^collect.Kept != collect.Other {
		return h
	}
	rec, err := n.store.Read(t.Key)
	if err != nil {
		return h
	}
	if clock, err := record.DecodeClock(t.Key, rec); err == nil && clock.CoversVector(t.Entries) {
		return collect.It | h&collect.Kept
	}
	return h
}

// bendContext is where a planted bug has a stale writer replace what it has not seen.
func (n *node) bendContext(m *kv.Mint) {
	if n.w.bug != PruneStale || m.Context == nil {
		return
	}
	for _, e := range n.store.Retired(m.Key) {
		if m.Context.Vector.Get(e.Actor) > 0 {
			m.Context = nil
			return
		}
	}
}

// crowd says of one clock that the node keeps why it is still crowded; empty where none is.
func (n *node) crowd() string {
	tombs, _, err := n.store.Tombstones(ring.Range{To: ring.Slots}, nil, false, tombsMost)
	if err != nil {
		return err.Error()
	}
	_, crowded := apart(tombs, n.living())
	if len(crowded) == 0 {
		return ""
	}
	t := crowded[0]
	by := n.w.byID(collect.Collector(n.view.Settled(), t.Key))
	if by == nil || by.pruner == nil {
		return string(t.Key)
	}
	st, known := by.pruner.Why(by.monotonic(), t.Key)
	return fmt.Sprintf("%s with %d entries that may leave; %s knows of it: %v, %s, %s", t.Key, len(t.Entries), by.name, known, st.Phase, st.Reason)
}

// honours has every client ask for what it knows, once all is quiet: a context is good for as long as it names nothing but
// what is in clocks, or left them lately. Then its client has seen nothing that the owners have not, and is neither refused
// nor answered less; what it writes stands beside what it has not seen.
func (w *world) honours() {
	for _, c := range w.clients {
		for k := range c.known {
			if mine := c.known[k]; mine.has && w.vouched(key(k), &mine.ctx) {
				w.stats.Honoured++
				c.honoured(k)
			}
			if len(w.check.Violations()) > 0 {
				return
			}
		}
	}
}

// vouched says whether an owner of a key knows all that a context names that is no more in its clock to have left it.
func (w *world) vouched(name string, ctx *causal.Context) bool {
	old := false
	for _, id := range w.gates[0].state.read.Primaries(slotOf(name)) {
		n := w.byID(id)
		rec, _, err := n.store.ReadMarked([]byte(name))
		if err != nil {
			return false // it was collected, and that is no concern of this
		}
		clock, err := record.DecodeClock([]byte(name), rec)
		if err != nil {
			return false
		}
		for _, l := range n.left[name] {
			// What leaves soon must not do so while it is asked for.
			if w.now-l.at+2*honourFor < n.retireFor() {
				clock = clock.Join(l.entries)
				old = true
			}
		}
		if old && ctx.SatisfiedBy(clock) {
			return true
		}
	}
	return false
}

// retireFor is how long what left a clock is remembered here.
func (n *node) retireFor() time.Duration { return n.w.opt.Retire }

// honoured reads and writes a key with what the client knows of it.
func (c *client) honoured(k int) {
	w, name, mine, g := c.w, key(k), c.known[k], c.w.gates[c.w.IntN(len(c.w.gates))]
	ended := false
	reading := w.check.Reading(name, w.opt.N-w.opt.MinW+1, w.opt.N, &mine.seen)
	o := g.startGet([]byte(name), w.opt.N-w.opt.MinW+1, &mine.ctx, w.now+honourFor, func(set causal.Set, err error) {
		if ended = true; err != nil {
			w.check.Break(history.Convergent, "client %d cannot read %s with a context of which only left what may leave: %v", c.idx, name, err)
			return
		}
		w.check.Answered(reading, set, fmt.Sprintf("get of client %d with an old context", c.idx))
	})
	o.restart()
	w.runUntil(w.now+2*honourFor, func() bool { return ended })
	c.writes++
	ended = false
	p := &putOp{need: w.opt.MinW, write: w.check.Begin(name, fmt.Appendf(nil, "client %d write %d of key %d", c.idx, c.writes, k), false),
		request: fmt.Sprintf("c%d-%d", c.idx, c.writes), context: &mine.ctx, seen: mine.seen}
	p.opBase = opBase{key: []byte(name), due: w.now + honourFor}
	p.done = func(p *putOp, err error) {
		if ended = true; err != nil {
			w.check.Break(history.Convergent, "client %d cannot write %s with a context of which only left what may leave: %v", c.idx, name, err)
			w.check.Failed(p.write, history.InDoubt)
			return
		}
		w.check.Acked(p.write, p.dot, p.need, false)
	}
	g.startPut(p)
	w.runUntil(w.now+2*honourFor, func() bool { return ended })
}
