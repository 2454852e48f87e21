package quorum

import (
	"cmp"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// GetConfig says what one get needs. The slices are read by Start only.
type GetConfig struct {
	// Primaries are the owners in the layout that reads use, in preference order.
	Primaries []Candidate
	// Others are fallbacks and owners in other live layouts: asked only for what the primaries do not cover; their
	// records are merged and never counted.
	Others []Candidate
	// R is how many primaries have to count, 0 to len(Primaries) for a get that can succeed.
	R int
	// Wide asks every replica for its record at once, and answers as soon as R count and the context is covered.
	Wide bool
	// Spread is random: it spreads reads over replicas that are about equally fast.
	Spread uint64
	// HedgeAfter is when an answer of a replica whose usual times are not known is late, and HedgeFloor the least time
	// after which any is.
	HedgeAfter, HedgeFloor time.Duration
}

type getState uint8

const (
	idle      getState = iota
	reading            // asked for the record
	digesting          // asked for the digest
	differs            // its digest is known, and no merged record has it
	counted            // its record, absence or digest is part of the answer
	failed
)

// replica is one node in a get.
type replica struct {
	Candidate
	state  getState
	late   bool // another was asked in its place, though it may still answer
	absent bool
	merged bool // its record is in the merge
	cause  Cause
	sent   time.Duration
	digest record.Digest
	set    causal.Set
	raw    []byte
}

// Get decides one read. Start it, then do what Next says, and tell it what happened.
type Get struct {
	reps      []replica
	primaries int
	r         int
	context   *causal.Context
	wide      bool
	hedged    bool
	unhedged  bool // the budget was spent when an answer was late
	verdict   Verdict
	set       causal.Set
	retired   causal.Vector // what left the clock lately
	hedge     time.Duration
	floor     time.Duration
	digests   int // digests that differed
	buf       [5]replica
}

// Start begins a read, and forgets an earlier one. seen, where not nil, must be covered by the answer. (It stands apart
// from cfg since it is kept, so that cfg's slices may live on the caller's stack.)
func (g *Get) Start(cfg GetConfig, seen *causal.Context) {
	*g = Get{primaries: len(cfg.Primaries), r: cfg.R, context: seen, wide: cfg.Wide,
		hedge: cfg.HedgeAfter, floor: cfg.HedgeFloor}
	g.reps = g.buf[:0]
	for _, c := range cfg.Primaries {
		g.reps = append(g.reps, replica{Candidate: c})
	}
	order(g.reps, cfg.Spread)
	for _, c := range cfg.Others {
		g.reps = append(g.reps, replica{Candidate: c})
	}
}

// slack is the difference in usual times that means nothing: replicas within it, and within a quarter, of the fastest
// count as equally fast.
const slack = 200 * time.Microsecond

// order puts healthy replicas first, the fast before the slow, and the about equally fast in an order taken from spread.
// One read in 64 disregards speed, so that a replica that became fast again is noticed.
func order(reps []replica, spread uint64) {
	if len(reps) == 0 {
		return
	}
	fastest := time.Duration(-1)
	for i := range reps {
		if reps[i].standing() == 0 && (fastest < 0 || reps[i].Mean < fastest) {
			fastest = reps[i].Mean
		}
	}
	limit := fastest + fastest/4 + slack
	explore := spread&63 == 0
	turn := int((spread >> 6) % uint64(len(reps)))
	rotate(reps, turn)
	slices.SortStableFunc(reps, func(a, b replica) int {
		if c := cmp.Compare(a.standing(), b.standing()); c != 0 {
			return c
		}
		if explore {
			return 0
		}
		return cmp.Compare(max(a.Mean, limit), max(b.Mean, limit))
	})
}

func rotate(reps []replica, n int) {
	slices.Reverse(reps[:n])
	slices.Reverse(reps[n:])
	slices.Reverse(reps)
}

// Len returns the number of replicas: the primaries, in the order in which they are asked, then the others.
func (g *Get) Len() int { return len(g.reps) }

// Node returns the node of replica i.
func (g *Get) Node(i int) ring.NodeID { return g.reps[i].Node }

// Find returns the index of a node, or -1.
func (g *Get) Find(n ring.NodeID) int {
	for i := range g.reps {
		if g.reps[i].Node == n {
			return i
		}
	}
	return -1
}

// Retired takes note of entries that left the key's clock: what they stand for was seen by all owners' records.
func (g *Get) Retired(v causal.Vector) { g.retired = g.retired.Join(v) }

// Verdict returns what was decided; Pending until Next returned Finish.
func (g *Get) Verdict() Verdict { return g.verdict }

// Set returns the merge of all records so far. It is what the get answers once the verdict is Reached.
func (g *Get) Set() causal.Set { return g.set }

// Counted returns how many primaries count.
func (g *Get) Counted() int {
	n := 0
	for i := range g.reps[:g.primaries] {
		if g.reps[i].state == counted {
			n++
		}
	}
	return n
}

// Mismatches returns how many digests differed from the merged records.
func (g *Get) Mismatches() int { return g.digests }

// Hedged says whether one more replica was asked because an answer was late.
func (g *Get) Hedged() bool { return g.hedged }

// Shortfall says why the verdict is Impossible.
func (g *Get) Shortfall() Cause {
	var t tally
	for i := range g.reps[:g.primaries] {
		t[g.reps[i].cause]++
	}
	count, _, inFlight := g.count()
	return t.shortfall(g.r - count - inFlight)
}

// Clock returns the clock of replica i's record where it was read.
func (g *Get) Clock(i int) causal.Vector { return g.reps[i].set.Clock }

// Record: replica i answered with its record, whose values were verified. raw are its bytes, which are kept.
func (g *Get) Record(i int, set causal.Set, digest record.Digest, raw []byte) {
	r := &g.reps[i]
	if g.verdict != Pending || r.merged {
		return
	}
	r.set, r.digest, r.raw = set, digest, raw
	r.merged, r.absent, r.state, r.cause = true, false, counted, None
	if len(g.set.Clock) == 0 && len(g.set.Siblings) == 0 {
		g.set = set
	} else {
		g.set = causal.Merge(g.set, set)
	}
	g.match()
}

// Absent: replica i has no record.
func (g *Get) Absent(i int) {
	r := &g.reps[i]
	if g.verdict != Pending || r.merged {
		return
	}
	r.merged, r.absent, r.state, r.cause = true, true, counted, None
	r.digest = record.Digest{}
	g.match()
}

// Digest: replica i answered with the digest of its record.
func (g *Get) Digest(i int, digest record.Digest) {
	r := &g.reps[i]
	if g.verdict != Pending || r.state != digesting {
		return
	}
	r.digest = digest
	r.state = differs
	if r.late {
		r.late = false // it is no longer waited for
	}
	g.match()
}

// Failed: replica i will not answer, or not usefully.
func (g *Get) Failed(i int, cause Cause) {
	r := &g.reps[i]
	if g.verdict != Pending || r.merged || r.state != reading && r.state != digesting {
		return
	}
	r.state, r.cause = failed, cause
}

// Suspected: replica i has become suspect while it was asked. Another is asked in its place, outside of any budget:
// waiting for the dead is no saving.
func (g *Get) Suspected(i int) {
	if r := &g.reps[i]; r.state == reading || r.state == digesting {
		r.late = true
	}
}

// match lets digests count that a merged record has, also while the replica's own record is being read.
func (g *Get) match() {
	for i := range g.reps {
		r := &g.reps[i]
		told := r.state == differs || r.state == reading && r.digest != (record.Digest{})
		if told && g.known(r.digest) {
			r.state = counted
		}
	}
}

// known says whether a merged record (or absence) has that digest.
func (g *Get) known(d record.Digest) bool {
	for i := range g.reps {
		if g.reps[i].merged && g.reps[i].digest == d {
			return true
		}
	}
	return false
}

// InFlight says whether an answer of replica i is waited for, and since when.
func (g *Get) InFlight(i int) (since time.Duration, yes bool) {
	r := &g.reps[i]
	return r.sent, (r.state == reading || r.state == digesting) && g.verdict == Pending
}

// lateAt returns when an answer that is waited for becomes late.
func (g *Get) lateAt(r *replica) time.Duration {
	after := r.P95
	if after == 0 {
		after = g.hedge
	}
	return r.sent + max(after, g.floor)
}

// HedgeAt returns when Tick should be called; ok is false where there is nothing to hedge.
func (g *Get) HedgeAt() (at time.Duration, ok bool) {
	if g.hedged || g.unhedged || g.wide || g.verdict != Pending {
		return 0, false
	}
	for i := range g.reps[:g.primaries] {
		r := &g.reps[i]
		if (r.state == reading || r.state == digesting) && !r.late {
			if t := g.lateAt(r); !ok || t < at {
				at, ok = t, true
			}
		}
	}
	return at, ok && g.spare()
}

// spare says whether a healthy primary is left to hedge with.
func (g *Get) spare() bool {
	for i := range g.reps[:g.primaries] {
		if g.reps[i].state == idle && g.reps[i].standing() == 0 {
			return true
		}
	}
	return false
}

// Tick asks one more healthy primary where an answer is later than usual, once per get and within the budget. Where the
// budget is spent, it is not asked again.
func (g *Get) Tick(now time.Duration, budget *Budget) {
	if g.hedged || g.unhedged || g.wide || g.verdict != Pending || !g.spare() {
		return
	}
	for i := range g.reps[:g.primaries] {
		r := &g.reps[i]
		if (r.state == reading || r.state == digesting) && !r.late && g.lateAt(r) <= now {
			if budget.Spend() {
				r.late, g.hedged = true, true
			} else {
				g.unhedged = true
			}
			return
		}
	}
}

// Next says what to do at now. It is called until it returns Wait or Finish, and again after each event.
func (g *Get) Next(now time.Duration) Step {
	if g.verdict != Pending {
		return Step{Do: Finish}
	}
	count, hope, inFlight := g.count()
	if s, ok := g.fetch(hope); ok {
		return g.ask(s, Read, now)
	}
	if count >= g.r {
		if g.context == nil || g.context.SatisfiedBy(g.set.Clock.Join(g.retired)) {
			g.verdict = Reached
			return Step{Do: Finish}
		}
		g.wide = true
	}
	if g.wide {
		return g.nextWide(count, inFlight, now)
	}
	if hope < g.r {
		for i := range g.reps[:g.primaries] {
			if g.reps[i].state != idle {
				continue
			}
			if g.recordComing() {
				return g.ask(i, Digest, now)
			}
			return g.ask(i, Read, now)
		}
	}
	if count+inFlight < g.r {
		g.verdict = Impossible
		return Step{Do: Finish}
	}
	return Step{Do: Wait}
}

// nextWide asks all that were not asked yet, and decides once all have answered.
func (g *Get) nextWide(count, inFlight int, now time.Duration) Step {
	for i := range g.reps {
		if g.reps[i].state == idle {
			return g.ask(i, Read, now)
		}
	}
	if count+inFlight < g.r {
		g.verdict = Impossible
		return Step{Do: Finish}
	}
	for i := range g.reps {
		if s := g.reps[i].state; s == reading || s == digesting {
			return Step{Do: Wait}
		}
	}
	g.verdict = Stale
	return Step{Do: Finish}
}

func (g *Get) ask(i int, do Do, now time.Duration) Step {
	r := &g.reps[i]
	r.state, r.sent, r.late = reading, now, false
	if do == Digest {
		r.state = digesting
	}
	return Step{Do: do, Replica: i}
}

// count returns how many primaries count, how many can be hoped for without asking more, and how many may still answer.
func (g *Get) count() (count, hope, inFlight int) {
	for i := range g.reps[:g.primaries] {
		switch r := &g.reps[i]; r.state {
		case counted:
			count++
			hope++
		case reading, digesting:
			inFlight++
			if !r.late {
				hope++
			}
		case differs: // its record is fetched once there is one to compare it with
			inFlight++
			hope++
		}
	}
	return count, hope, inFlight
}

// recordComing says whether a record was merged or is on its way.
func (g *Get) recordComing() bool {
	for i := range g.reps[:g.primaries] {
		r := &g.reps[i]
		if r.merged || r.state == reading && !r.late {
			return true
		}
	}
	return false
}

// fetch names a replica whose digest differs and whose record must be read: one for each differing digest. Where no
// record is there to compare with, one is on its way, or will be read from a replica that has to be asked anyway.
func (g *Get) fetch(hope int) (int, bool) {
	if !g.anyMerged() && (g.recordComing() || hope < g.r && g.anyIdle()) {
		return 0, false
	}
	for i := range g.reps[:g.primaries] {
		r := &g.reps[i]
		if r.state != differs || g.coming(r.digest) {
			continue
		}
		if g.anyMerged() {
			g.digests++
		}
		return i, true
	}
	return 0, false
}

func (g *Get) anyIdle() bool {
	for i := range g.reps[:g.primaries] {
		if g.reps[i].state == idle {
			return true
		}
	}
	return false
}

func (g *Get) anyMerged() bool {
	for i := range g.reps {
		if g.reps[i].merged {
			return true
		}
	}
	return false
}

// coming says whether a record with that digest is being read already.
func (g *Get) coming(d record.Digest) bool {
	if d == (record.Digest{}) {
		return false
	}
	for i := range g.reps {
		if g.reps[i].state == reading && !g.reps[i].late && g.reps[i].digest == d {
			return true
		}
	}
	return false
}

// Repair says whether primary i is known to lack something of the answer: it has no record, another one, or a damaged
// one. It is asked once the verdict is Reached; others than primaries are never repaired by reads.
func (g *Get) Repair(i int) bool {
	if i >= g.primaries || g.verdict != Reached || len(g.set.Clock) == 0 {
		return false
	}
	r := &g.reps[i]
	switch {
	case r.cause == Damaged, r.state == differs:
		return true
	case r.state == counted && r.merged:
		return r.absent || !sameState(r.set, g.set)
	case r.state == counted:
		return !g.digestCurrent(r.digest)
	case r.state == reading && r.digest != (record.Digest{}): // differed, and its record has not come yet
		return true
	}
	return false
}

// digestCurrent says whether the digest is that of a replica whose record is all of the answer.
func (g *Get) digestCurrent(d record.Digest) bool {
	for i := range g.reps {
		r := &g.reps[i]
		if r.merged && !r.absent && r.digest == d {
			return sameState(r.set, g.set)
		}
	}
	return false
}

// Raw returns the stored bytes of the answer where one replica has exactly it, else nil.
func (g *Get) Raw() []byte {
	for i := range g.reps {
		r := &g.reps[i]
		if r.merged && !r.absent && sameState(r.set, g.set) {
			return r.raw
		}
	}
	return nil
}

// sameState compares clocks and dots: a dot names one value for ever.
func sameState(a, b causal.Set) bool {
	if len(a.Siblings) != len(b.Siblings) || !slices.Equal(a.Clock, b.Clock) {
		return false
	}
	for i := range a.Siblings {
		if a.Siblings[i].Dot != b.Siblings[i].Dot {
			return false
		}
	}
	return true
}

// Report is what became of replica i, for people.
type Report struct {
	Asked   bool
	Counted bool
	Absent  bool
	Digest  bool // its digest was enough
	Cause   Cause
	Waiting bool // asked, and not answered
}

// Report tells what became of replica i.
func (g *Get) Report(i int) Report {
	r := &g.reps[i]
	return Report{
		Asked: r.state != idle, Counted: r.state == counted && i < g.primaries, Absent: r.absent,
		Digest: r.state == counted && !r.merged, Cause: r.cause, Waiting: r.state == reading || r.state == digesting,
	}
}
