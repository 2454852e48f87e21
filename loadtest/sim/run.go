package sim

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/merkle"
)

// MinAcks is how many writes must be acknowledged while something is wrong for a run to count.
const MinAcks = 300

// Config says what to run.
type Config struct {
	Seed    uint64
	Profile Profile
	// Options, where not nil, replace those that Swarm draws from the seed.
	Options *Options
	Bug     Bug
	// Most bounds the first phase, in simulated time; 0 is two minutes.
	Most time.Duration
	// Trace takes a line for each thing that happens; nil for none.
	Trace io.Writer
}

// Result is what came of a run.
type Result struct {
	Seed       uint64
	Profile    Profile
	Options    Options
	Hash       uint64 // of the trace: the same for the same Config and program
	Violations []history.Violation
	Counted    bool // enough writes were acknowledged during the faults
	Stats      Stats
	Simulated  time.Duration
}

const (
	// leastTime and mostTime bound the first phase; it ends between them, as soon as the run counts.
	leastTime = 8 * time.Second
	mostTime  = 120 * time.Second
	// healTime bounds the second.
	healTime = 120 * time.Second
)

// Run simulates one seed. The error is one of the simulator itself; broken promises are in the result.
func Run(cfg Config) (Result, error) {
	opt := Swarm(cfg.Seed, cfg.Profile)
	if cfg.Options != nil {
		opt = *cfg.Options
	}
	w := newWorld(cfg.Seed, opt, cfg.Bug)
	w.trace = newTracer(&w.loop, cfg.Trace)
	w.trace.line("seed %d: %s, bug %q", cfg.Seed, opt, cfg.Bug)
	if err := w.build(); err != nil {
		return Result{}, fmt.Errorf("seed %d: %w", cfg.Seed, err)
	}
	broken := func() bool { return len(w.check.Violations()) > 0 }
	w.injectFaults()
	if opt.Upheaval {
		w.runUntil(2*leastTime, broken)
	}
	w.runUntil(cmp.Or(opt.Least, leastTime), broken)
	w.runUntil(cmp.Or(cfg.Most, mostTime), func() bool { return broken() || w.faultAcks >= MinAcks })
	if !broken() {
		w.heal()
	}
	res := Result{Seed: cfg.Seed, Profile: cfg.Profile, Options: opt, Violations: w.check.Violations(), Counted: w.faultAcks >= MinAcks,
		Stats: w.stats, Simulated: w.now}
	res.Stats.Writes, res.Stats.Acked = w.check.Counts()
	res.Stats.FaultAcks = w.faultAcks
	for _, n := range w.nodes {
		if n.up && n.view != nil {
			res.Stats.LayoutsSettled = max(res.Stats.LayoutsSettled, n.view.Settled().ID().Epoch)
		}
	}
	for _, v := range res.Violations {
		w.trace.line("%s", v)
	}
	res.Hash = w.trace.hash()
	return res, nil
}

// heal ends all faults, and then holds the cluster to what must come true in bounded time.
func (w *world) heal() {
	w.trace.line("healing")
	begin := w.now
	w.endFaults()
	rest := healTime
	if w.opt.Grace > 0 {
		// A tombstone leaves once all owners are alike, and each compares with another by chance, seldom with the one that differs.
		rest += 20 * w.opt.Compare
	}
	w.runUntil(begin+rest, func() bool { return w.openOps == 0 && w.quiet() })
	if !w.quiet() {
		w.check.Break(history.Convergent, "the cluster has not come to rest %s after healing: %s", rest, w.unrest())
		return
	}
	w.runUntil(w.now+replicateFor+time.Second, nil) // what was sent is delivered, or has expired
	w.runUntil(w.now+healTime, w.quiet)
	if w.opt.Crowd > 0 {
		w.honours()
		w.runUntil(w.now+rest, w.quiet)
	}
	rounds := 0
	for ; rounds < 20 && (!w.compareAll() || !w.quiet()); rounds++ {
		w.runUntil(w.now+healTime, w.quiet)
	}
	w.stats.Healed = w.now - begin
	before, fetched := w.stats.Repairs, w.stats.Fetched
	w.repairRound()
	w.compareAll()
	if w.stats.Repairs != before || w.stats.Fetched != fetched {
		w.check.Break(history.Convergent, "%d repairs by reads and %d by comparison after %d rounds of comparisons", w.stats.Repairs-before,
			w.stats.Fetched-fetched, rounds)
	}
	if !w.quiet() {
		w.check.Break(history.Convergent, "the cluster does not stay at rest: %s", w.unrest())
	}
	w.check.Finish()
	w.judge()
	if len(w.check.Violations()) == 0 {
		w.replayAll()
	}
}

// endFaults makes everything whole that can be.
func (w *world) endFaults() {
	w.faulty = false
	w.loss, w.tail, w.twice = 0, 0, 0
	w.unblock()
	for _, c := range w.clients {
		c.stopped = true
	}
	for _, n := range w.nodes {
		n.slow, n.pausedTo = 1, w.now
		n.isolated = false
		n.gone = n.gone && (n.lost || w.marked(n))
		n.disk.full, n.disk.failing, n.disk.flaky = false, false, 0
		switch {
		case n.up && len(n.disk.stored) > 0:
			n.scrub()
		case !n.up && n.started && !n.lost:
			n.restart(0)
		}
	}
	for _, g := range w.gates {
		if !g.up {
			g.start()
		}
	}
}

// quiet says whether every node is up, settled on the same layout and without doubt, and all gateways know it.
func (w *world) quiet() bool { return w.unrest() == "" }

func (w *world) unrest() string {
	var id string
	for _, n := range w.nodes {
		if !n.started || n.gone && w.without(n) {
			continue
		}
		switch {
		case n.gone:
			return n.name + " is gone, and not removed"
		case !n.up || n.view == nil || !n.store.Stats().Available || n.store.Stats().DiskFull:
			return n.name + " is not up"
		case n.doubt || len(n.disk.stored) > 0:
			return n.name + " is in doubt, or damaged"
		case n.view.Newest() != n.view.Settled():
			return n.name + " is at " + n.describeLayouts()
		case n.busy || len(n.joiners) > 0:
			return n.name + " is busy with layouts"
		}
		if !n.view.IsDead(n.id) { // who is marked dead gives nothing away, and comes back only emptied
			if kept, _, _ := n.store.HintTotals(); kept > 0 {
				return fmt.Sprintf("%s keeps %d hints", n.name, kept)
			}
			if name := n.leftovers(); name != "" {
				return n.name + " keeps " + name + ", which it does not own"
			}
		}
		if w.opt.Grace > 0 {
			if why := n.tombstone(); why != "" {
				return n.name + " keeps the tombstone of " + why
			}
			if why := n.crowd(); why != "" {
				return n.name + " keeps the crowded clock of " + why
			}
		}
		if at := n.view.Settled().ID().String(); id == "" {
			id = at
		} else if id != at {
			return n.name + " settled on " + at + ", others on " + id
		}
	}
	for _, g := range w.gates {
		if g.state == nil || len(g.state.live) != 1 || g.state.read.ID().String() != id {
			return g.name + " has other layouts: " + g.describeLayouts() + ", not " + id
		}
	}
	return ""
}

// compareAll lets every node compare with every other once, and says whether that changed nothing.
func (w *world) compareAll() (quiet bool) {
	before := w.stats.Fetched
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a == b || !a.started || !b.started || a.gone || b.gone {
				continue
			}
			ended := false
			a.compare(b, func() { ended = true })
			w.runUntil(w.now+2*compareFor, func() bool { return ended })
		}
	}
	return w.stats.Fetched == before
}

// repairRound reads every key from all replicas through every gateway.
func (w *world) repairRound() {
	for _, g := range w.gates {
		for k := range w.opt.Keys {
			name, ended := key(k), false
			reading := w.check.Reading(name, w.opt.N, w.opt.N, nil)
			o := g.startGet([]byte(name), w.opt.N, nil, w.now+5*time.Second, func(set causal.Set, err error) {
				if ended = true; err != nil {
					w.check.Break(history.Convergent, "key %s cannot be read from all replicas at %s after healing: %v", name, g.name, err)
					return
				}
				w.check.Answered(reading, set, "get from all at "+g.name+" after healing")
			})
			o.restart()
			w.runUntil(w.now+10*time.Second, func() bool { return ended })
			w.runUntil(w.now+100*time.Millisecond, nil)
		}
	}
}

// judge looks at all replicas of all keys.
func (w *world) judge() {
	l := w.gates[0].state.read
	for k := range w.opt.Keys {
		name := key(k)
		var replicas []history.Replica
		for _, id := range l.Primaries(slotOf(name)) {
			n := w.byID(id)
			replicas = append(replicas, history.Replica{Name: n.name, Record: n.recordOf(name)})
		}
		w.check.Final(name, replicas)
	}
	w.judgeSums(l)
}

// judgeSums: what two owners share has the same sum at both, and each sum is that of the records.
func (w *world) judgeSums(l *ring.Layout) {
	whole := ring.Range{To: ring.Slots}
	for _, n := range w.nodes {
		if !n.started || n.gone {
			continue
		}
		kept, counted := n.sums.slots, n.sums.counted
		n.sums.slots, n.sums.counted = make(map[ring.Slot]merkle.Sum), false
		if !n.count() || counted && fold(kept, whole) != fold(n.sums.slots, whole) {
			w.check.Break(history.Convergent, "the sums that %s kept are not those of its records", n.name)
		}
	}
	for _, r := range segments(l) {
		owners := l.Primaries(r.From)
		for _, id := range owners[1:] {
			a, b := w.byID(owners[0]), w.byID(id)
			if fold(a.sums.slots, r) != fold(b.sums.slots, r) {
				w.check.Break(history.Convergent, "the sums of %v at %s and %s differ", r, a.name, b.name)
			}
		}
	}
}

// replayAll delivers once more what was delivered before: nothing changes.
func (w *world) replayAll() {
	for _, r := range w.replays {
		n := w.nodes[r.node]
		if n.gone {
			continue
		}
		before := n.recordOf(string(r.key))
		if before == nil {
			continue // an empty disk, and no owner any more
		}
		if !w.owns(n, string(r.key)) {
			continue
		}
		if err := n.store.Apply(r.key, r.rec, func(changed bool, err error) {
			if changed || err != nil {
				w.check.Break(history.Idempotent, "a record of %s delivered again to %s: changed %v, %v", r.key, n.name, changed, err)
			}
		}); err != nil {
			w.check.Break(history.Idempotent, "a record of %s delivered again to %s: %v", r.key, n.name, err)
		}
		for more := true; more; {
			_, more = n.step.Step()
		}
	}
}

func (w *world) owns(n *node, key string) bool { return w.gates[0].state.read.Owns(n.id, slotOf(key)) }
