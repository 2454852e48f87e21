package collect_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
)

// The model runs random histories of one key over three owners and two other members that stop and start, keep hints and
// deliver them, compare with one another, and collect tombstones with the real machine. Messages may take any time, and
// come twice. Every record is kept twice: as the real set, and as the naive set of all writes it ever heard of. The
// siblings of the first must always be the writes of the second that none of the others supersedes; after healing, every
// acknowledged write is visible or superseded, nothing that one superseded is visible, and no tombstone is left.

const (
	tick       = 80 * time.Millisecond
	modelGrace = 30 * tick
	modelW     = 2
	writesMax  = 250
)

var modelKey = []byte("the key")

type heard [4]uint64

func (h *heard) add(w int)     { h[w/64] |= 1 << (w % 64) }
func (h heard) has(w int) bool { return h[w/64]&(1<<(w%64)) != 0 }
func (h heard) or(o heard) heard {
	for i := range h {
		h[i] |= o[i]
	}
	return h
}
func (h heard) without(o heard) heard {
	for i := range h {
		h[i] &^= o[i]
	}
	return h
}

// modelRecord is never modified. nil is absence.
type modelRecord struct {
	set   causal.Set
	heard heard
}

func (r *modelRecord) digest() record.Digest {
	if r == nil {
		return record.Digest{}
	}
	d, err := record.DigestOf(record.Append(nil, modelKey, r.set))
	if err != nil {
		panic(err)
	}
	return d
}

func merge(a, b *modelRecord) *modelRecord {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return &modelRecord{set: causal.Merge(a.set, b.set), heard: a.heard.or(b.heard)}
}

type modelNode struct {
	id      ring.NodeID
	up      bool
	actor   causal.Actor // a new one with each life
	issued  uint64
	moves   uint32
	rec     *modelRecord
	marked  bool // rec is
	hints   map[*modelNode]*modelRecord
	machine *collect.Machine
	pruner  *collect.Machine
}

// message is a record on its way, or the delivery of a hint.
type message struct {
	born    int
	life    causal.Actor // of the receiver when the sender obtained the record
	to      *modelNode
	rec     *modelRecord
	hintFor *modelNode
	from    *modelNode // delivers a hint
	op      *modelOp
}

type modelOp struct {
	id int
	on map[*modelNode]bool
}

// call is an Ask on its way, or its answer.
type call struct {
	from  *modelNode
	life  causal.Actor
	prune bool // it is the pruner's
	ask   collect.Ask
	reply *collect.Reply
	done  bool
}

type model struct {
	rnd     *rand.Rand
	bug     string
	rules   collect.Rules
	layout  *ring.Layout
	nodes   []*modelNode
	owners  []*modelNode // first of nodes
	now     int
	actors  uint64
	writes  int
	past    map[int]heard
	tombs   heard
	acked   map[int]bool
	msgs    []message
	calls   []call
	clients [3]struct {
		ctx   causal.Context
		heard heard
	}
	collected uint64
	pruned    uint64
	fault     string
	healing   bool

	// How this history is.
	steps, stretch, dup, fast            int
	writing, downs, deletes, near, eager float64
}

func modelLayout(t testing.TB) *ring.Layout {
	t.Helper()
	member := func(i int) ring.Member {
		m := ring.Member{ID: ring.NodeID{15: byte(i + 1)}, Name: fmt.Sprint("n", i), Weight: 1}
		m.Tokens = ring.RandomTokens(m.ID, 4, func(ring.Slot) bool { return false })
		return m
	}
	var joins []ring.Change
	for i := range 4 {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: member(i + 1)})
	}
	l, err := ring.NewView(ring.Found(ring.ClusterID{1}, member(0), 3, 2)).Propose(joins)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newModel(seed uint64, bug string, l *ring.Layout) *model {
	w := &model{rnd: rand.New(rand.NewPCG(seed, 2)), bug: bug, layout: l, past: map[int]heard{}, acked: map[int]bool{}}
	w.rules = map[string]collect.Rules{"gc_owners": collect.WithoutMembers, "gc_hints": collect.WithoutKept, "gc_grace": collect.WithoutGrace,
		"gc_moves": collect.WithoutMoves, "gc_marks": collect.WithoutMarks, "prune_hints": collect.WithoutKept,
		"prune_once": collect.WithoutSecond, "prune_owners": collect.WithoutMembers, "prune_moves": collect.WithoutMoves}[bug]
	owners := l.Primaries(ring.SlotOf(modelKey))
	ids := slices.Clone(owners)
	for _, m := range l.Members() {
		if !slices.Contains(owners, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	for _, id := range ids {
		n := &modelNode{id: id, hints: map[*modelNode]*modelRecord{}}
		w.nodes = append(w.nodes, n)
		w.start(n)
	}
	w.owners = w.nodes[:len(owners)]
	return w
}

func (w *model) chance(p float64) bool { return w.rnd.Float64() < p }

func (w *model) fail(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf("t=%d ", w.now) + fmt.Sprintf(format, args...)
	}
}

func (w *model) time() time.Time { return time.Unix(0, 0).Add(time.Duration(w.now) * tick) }

// start begins a new life: another actor, no counts, nothing in hand.
func (w *model) start(n *modelNode) {
	w.actors++
	binary.BigEndian.PutUint64(n.actor[:], w.actors*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(n.actor[8:], w.actors)
	n.issued, n.moves, n.up = 0, 0, true
	cfg := collect.Default(modelGrace)
	if !strings.HasPrefix(w.bug, "prune_") {
		cfg.Without = w.rules
	}
	n.machine = collect.New(cfg)
	cfg.Prune, cfg.Without = true, 0
	if strings.HasPrefix(w.bug, "prune_") {
		cfg.Without = w.rules
	}
	n.pruner = collect.New(cfg)
}

func (w *model) pick(nodes []*modelNode) *modelNode { return nodes[w.rnd.IntN(len(nodes))] }

func up(nodes []*modelNode) []*modelNode {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *modelNode) bool { return !n.up })
}

func writeValue(id int) []byte { return binary.AppendUvarint([]byte("write "), uint64(id)) }

func visible(rec *modelRecord) (out heard) {
	if rec == nil {
		return out
	}
	for _, s := range rec.set.Siblings {
		id, _ := binary.Uvarint(bytes.TrimPrefix(s.Value, []byte("write ")))
		out.add(int(id))
	}
	return out
}

// check compares a record with its naive twin. A collected tombstone may be missing beside a later write of its own
// actor, which is harmless: values are compared.
func (w *model) check(rec *modelRecord, what string) {
	if rec == nil {
		return
	}
	over := heard{}
	for id, past := range w.past {
		if rec.heard.has(id) {
			over = over.or(past)
		}
	}
	want, have := rec.heard.without(over).without(w.tombs), visible(rec).without(w.tombs)
	if have != want {
		w.fail("%s: siblings %b, history says %b", what, have, want)
	}
}

// apply merges a record: where it is marked, the same one is ignored and any other replaces it.
func (w *model) apply(n *modelNode, rec *modelRecord) {
	if !n.marked {
		n.rec = merge(n.rec, rec)
	} else if n.rec.digest() != rec.digest() {
		n.rec, n.marked = rec, false
	}
	w.check(n.rec, "apply")
}

func (w *model) write() {
	live := up(w.owners)
	if len(live) == 0 || w.writes >= writesMax {
		return
	}
	who, p := w.rnd.IntN(len(w.clients)), w.rnd.Float64()
	if p < .6 { // it reads first, from two owners
		var got *modelRecord
		for range 2 {
			got = merge(got, w.pick(live).rec)
		}
		c := &w.clients[who]
		c.ctx, c.heard = causal.Context{}, heard{}
		if got != nil {
			c.ctx.Vector, c.heard = got.set.Clock, got.heard
		}
	}
	n := w.pick(live)
	var local causal.Set
	known := heard{}
	if n.rec != nil { // also where it is marked
		local, known = n.rec.set, n.rec.heard
	}
	var ctx *causal.Context
	past := known
	if p < .85 {
		ctx, past = &w.clients[who].ctx, w.clients[who].heard
	}
	n.issued++
	w.writes++
	id := w.writes
	s := causal.Sibling{Dot: causal.Dot{Actor: n.actor, Counter: n.issued}, Tombstone: w.chance(w.deletes), Value: writeValue(id)}
	s.Checksum = record.Checksum(s.Value)
	set, err := causal.Mint(local, ctx, s)
	if err != nil {
		w.fail("mint: %v", err)
		return
	}
	if s.Tombstone {
		w.tombs.add(id)
	}
	w.past[id] = past
	rec := &modelRecord{set: set, heard: known.or(past)}
	rec.heard.add(id)
	n.rec, n.marked = rec, false
	w.check(rec, "mint")
	w.replicate(n, rec, &modelOp{id: id, on: map[*modelNode]bool{n: true}})
}

func (w *model) replicate(n *modelNode, rec *modelRecord, op *modelOp) {
	spare := up(w.nodes[len(w.owners):])
	for _, o := range w.owners {
		switch {
		case o == n:
		case o.up && w.chance(w.near):
			w.send(message{to: o, rec: rec, op: op})
		case len(spare) > 0:
			w.send(message{to: spare[0], rec: rec, hintFor: o, op: op})
			spare = spare[1:]
		}
	}
}

// send puts a record on its way: what the sender knows of the receiver is as old as the record in its hands.
func (w *model) send(m message) {
	m.born, m.life = w.now, m.to.actor
	w.msgs = append(w.msgs, m)
}

func (w *model) deliver() {
	i := w.rnd.IntN(len(w.msgs))
	m := w.msgs[i]
	if w.rnd.IntN(100) >= w.dup || w.now-m.born > 100 { // else it comes again
		w.msgs = slices.Delete(w.msgs, i, i+1)
	}
	tooOld := time.Duration(w.now-m.born)*tick > collect.MessageAge(modelGrace)
	if !m.to.up || tooOld && w.bug != "gc_age" || m.life != m.to.actor && w.bug != "gc_age" {
		return
	}
	if m.hintFor != nil {
		m.to.hints[m.hintFor] = merge(m.to.hints[m.hintFor], m.rec)
		m.to.moves++
	} else {
		w.apply(m.to, m.rec)
	}
	if m.op != nil {
		if m.op.on[m.to] = true; len(m.op.on) >= modelW {
			w.acked[m.op.id] = true
		}
	}
	if f := m.from; f != nil && f.up && f.hints[m.to] == m.rec { // confirmed, and still what was sent
		delete(f.hints, m.to)
		f.moves++
	}
}

// deliverHints sends what a member keeps for others.
func (w *model) deliverHints(n *modelNode) {
	for _, o := range w.owners {
		if rec := n.hints[o]; rec != nil && n.up && o.up {
			w.send(message{to: o, rec: rec, from: n})
		}
	}
}

// compare has a pull from b, which leaves out what it has marked.
func (w *model) compare(a, b *modelNode) {
	if a.up && b.up && a != b && b.rec != nil && !b.marked && a.rec.digest() != b.rec.digest() {
		w.send(message{to: a, rec: b.rec})
	}
}

func (n *modelNode) isTombstone() bool {
	return n.rec != nil && !slices.ContainsFunc(n.rec.set.Siblings, func(s causal.Sibling) bool { return !s.Tombstone })
}

// collect lets a member offer what it holds, and call others.
func (w *model) collect(n *modelNode) {
	if !n.up {
		return
	}
	v := collect.View{Settled: w.layout}
	for _, m := range w.nodes {
		v.Members = append(v.Members, collect.Member{ID: m.id, Alive: m.up})
	}
	n.machine.Observe(v)
	if n.isTombstone() && (n == w.owners[0] || n.marked && w.chance(.1)) {
		n.machine.Offer(w.time(), []collect.Tomb{{Key: modelKey, Digest: n.rec.digest()}})
	}
	for _, a := range n.machine.Next(w.time()) {
		w.calls = append(w.calls, call{from: n, life: n.actor, ask: a})
	}
	if strings.HasPrefix(w.bug, "gc_") {
		return
	}
	n.pruner.Observe(v)
	if idle := w.idle(n, !w.healing && w.chance(.2)); n == w.owners[0] && len(idle) > 0 {
		n.pruner.Offer(w.time(), []collect.Tomb{{Key: modelKey, Entries: idle}})
	}
	for _, a := range n.pruner.Next(w.time()) {
		w.calls = append(w.calls, call{from: n, life: n.actor, prune: true, ask: a})
	}
}

// idle lists the entries of a node's clock that may leave; live ones would do no harm, and are soon back.
func (w *model) idle(n *modelNode, live bool) (out causal.Vector) {
	if n.rec == nil || n.marked {
		return nil
	}
	for _, e := range n.rec.set.Idle() {
		if live || !slices.ContainsFunc(w.nodes, func(o *modelNode) bool { return o.up && o.actor == e.Actor }) {
			out = append(out, e)
		}
	}
	return out
}

// holdsIdle answers about entries of a clock.
func (w *model) holdsIdle(n *modelNode, v causal.Vector) collect.Holding {
	h := collect.Other
	switch {
	case n.rec == nil:
		h = collect.Nothing
	case n.marked:
	case n.rec.set.HasIdle(v) || w.bug == "prune_idle" && n.rec.set.Clock.CoversVector(v):
		h = collect.It
	}
	if len(n.hints) > 0 {
		h |= collect.Kept
	}
	return h
}

// progress moves one call on: it is carried out at a member, or its answer arrives.
func (w *model) progress() {
	i := w.rnd.IntN(len(w.calls))
	c := &w.calls[i]
	if !c.done {
		to := w.nodes[slices.IndexFunc(w.nodes, func(n *modelNode) bool { return n.id == c.ask.To })]
		if c.done = true; to.up {
			c.reply = w.serve(to, c.ask)
		}
		return
	}
	done := *c
	w.calls = slices.Delete(w.calls, i, i+1)
	if done.from.up && done.from.actor == done.life {
		m, count := done.from.machine, &w.collected
		if done.prune {
			m, count = done.from.pruner, &w.pruned
		}
		before := m.Counts().Collected
		m.Replied(w.time(), done.ask, done.reply)
		*count += m.Counts().Collected - before
	}
}

func (w *model) holding(n *modelNode, d record.Digest) collect.Holding {
	h := collect.Other
	switch {
	case n.rec == nil:
		h = collect.Nothing
	case n.rec.digest() != d:
	case n.marked:
		h = collect.Marked
	default:
		h = collect.It
	}
	if len(n.hints) > 0 {
		h |= collect.Kept
	}
	return h
}

func (w *model) serve(n *modelNode, a collect.Ask) *collect.Reply {
	if v := a.Tombs[0].Entries; len(v) > 0 {
		h := collect.Nothing
		switch {
		case a.Step == collect.Confirm:
			h = w.holdsIdle(n, v)
		case n.rec == nil || n.marked:
		default:
			if next := n.rec.set.Prune(v); len(next.Clock) < len(n.rec.set.Clock) {
				n.rec = &modelRecord{set: next, heard: n.rec.heard}
				h = collect.It
			}
		}
		return &collect.Reply{Life: n.actor, Holdings: []collect.Holding{h}, Moves: []uint32{n.moves}}
	}
	d := a.Tombs[0].Digest
	h := w.holding(n, d)
	switch a.Step {
	case collect.Mark:
		if h.MayMark() || h&^collect.Kept == collect.Other && w.bug == "gc_equal" {
			n.marked = true
		}
		if h = w.holding(n, d); w.bug == "gc_equal" && n.marked {
			h = collect.Marked
		}
	case collect.Remove:
		if h.MayRemove() || n.rec != nil && (w.bug == "gc_equal" || w.bug == "gc_marks" && h == collect.It) {
			for _, o := range w.owners {
				if o.rec != nil && !o.marked && o.rec.digest() == d && o != n {
					w.fail("removed while another owner has not marked it")
				}
			}
			n.rec, n.marked = nil, false
		}
		h = w.holding(n, d)
	}
	return &collect.Reply{Life: n.actor, Holdings: []collect.Holding{h}, Moves: []uint32{n.moves}}
}

func (w *model) step() {
	a := w.rnd.Float64()
	if w.now/w.stretch%2 == 1 && a < w.writing { // every other stretch nobody writes, so that tombstones can go
		a = .42 + w.rnd.Float64()*.58
	}
	switch {
	case a < w.writing:
		w.write()
	case a < .35 && len(w.msgs) > 0:
		w.deliver()
	case a < .35+w.downs:
		if n := w.pick(w.nodes); n.up && len(up(w.nodes)) > 3 {
			n.up = false
		}
	case a < .42:
		for _, n := range w.nodes {
			if !n.up && w.chance(.5) {
				w.start(n)
			}
		}
	case a < .52:
		w.compare(w.pick(w.owners), w.pick(w.owners))
	case a < .60:
		if w.chance(w.eager) {
			w.deliverHints(w.pick(w.nodes))
		}
	case a < .75:
		w.collect(w.pick(w.owners))
		for n := w.fast; n > 0 && w.chance(.3); n-- { // calls take no time
			for w.collect(w.owners[0]); len(w.calls) > 0; {
				w.progress()
			}
		}
	default:
		for n := w.rnd.IntN(40); n > 0 && len(w.calls) > 0; n-- {
			w.progress()
		}
	}
}

// run plays one history and says what was wrong with it, or "".
func (w *model) run() string {
	one := func(of ...float64) float64 { return of[w.rnd.IntN(len(of))] }
	w.steps, w.stretch, w.dup = int(one(200, 600, 1200)), int(one(30, 100, 200)), int(one(5, 30, 90))
	w.writing, w.downs, w.deletes = one(.15, .05, .02), one(0, .003, .02), one(.5, .8)
	w.near, w.eager, w.fast = one(.95, .5), one(1, .1), int(one(0, 9))
	for range w.steps {
		if w.chance(.5) {
			w.now++
		}
		if w.step(); w.fault != "" {
			return w.fault
		}
	}
	w.heal()
	return w.fault
}

// heal brings everyone back and lets all that is due happen, long enough for every tombstone to go.
func (w *model) heal() {
	w.healing = true
	for _, n := range w.nodes {
		if !n.up {
			w.start(n)
		}
	}
	for range 400 {
		w.now++
		for len(w.msgs) > 0 && w.fault == "" {
			w.deliver()
		}
		for _, n := range w.nodes {
			w.deliverHints(n)
		}
		for _, a := range w.owners {
			for _, b := range w.owners {
				w.compare(a, b)
			}
			w.collect(a)
		}
		for len(w.calls) > 0 && w.fault == "" {
			w.progress()
		}
		if w.fault != "" {
			return
		}
	}
	w.verdict()
}

func (w *model) verdict() {
	for _, o := range w.owners {
		if o.rec.digest() != w.owners[0].rec.digest() {
			w.fail("replicas differ after healing")
		}
		if o.isTombstone() {
			w.fail("a tombstone is left")
		}
		if left := w.idle(o, false); len(left) > 0 {
			w.fail("%d entries of actors that live no more are left", len(left))
		}
	}
	shown, over := visible(w.owners[0].rec), heard{}
	for _, past := range w.past {
		over = over.or(past)
	}
	for id := range w.acked {
		if !shown.has(id) && !over.has(id) && !w.tombs.has(id) {
			w.fail("acknowledged write %d is lost", id)
		}
		back := heard{}
		for v := 1; v <= w.writes; v++ {
			if w.past[id].has(v) && shown.has(v) && !w.tombs.has(v) {
				back.add(v)
			}
		}
		if back != (heard{}) {
			w.fail("%b came back although the acknowledged write %d superseded it", back, id)
		}
	}
}

func TestHistoriesLoseNothingAndEveryTombstoneGoes(t *testing.T) {
	t.Parallel()
	l, collected, pruned, acked := modelLayout(t), uint64(0), uint64(0), 0
	seeds := uint64(600)
	if testing.Short() {
		seeds = 200
	}
	for seed := range seeds {
		w := newModel(seed, "", l)
		if fault := w.run(); fault != "" {
			t.Fatalf("seed %d: %s", seed, fault)
		}
		collected += w.collected
		pruned += w.pruned
		acked += len(w.acked)
	}
	t.Logf("%d tombstones collected, %d clocks pruned, %d writes acknowledged", collected, pruned, acked)
	if collected < seeds || pruned < seeds/4 || acked < int(seeds) {
		t.Fatalf("only %d tombstones were collected and %d writes acknowledged in %d histories: the test shows nothing", collected, acked, seeds)
	}
}

func TestPlantedBugsAreCaught(t *testing.T) {
	t.Parallel()
	l := modelLayout(t)
	for _, bug := range plantedBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			for seed := range bug.within {
				if fault := newModel(seed, bug.name, l).run(); fault != "" {
					t.Logf("caught by seed %d: %s", seed, fault)
					if fault := newModel(seed, "", l).run(); fault != "" {
						t.Errorf("seed %d fails without the bug too: %s", seed, fault)
					}
					return
				}
			}
			t.Fatalf("%d histories did not show that %s", bug.within, bug.what)
		})
	}
}

// plantedBugs are the rules of a proof, each left out by name. within is how many histories are tried; the comment says
// which seed was the first to fail when this was written.
var plantedBugs = []struct {
	name, what string
	within     uint64
}{
	{"gc_owners", "every member must be asked, also one that is down", 5000},
	{"gc_hints", "nobody may keep anything else of the key for others", 5000},
	{"gc_grace", "the rounds must lie further apart than records are on their way", 5000},
	{"gc_equal", "only the record that the proof is of may be marked and removed", 2000},
	{"gc_marks", "it is removed nowhere before all have marked it", 5000},
	{"gc_age", "a record that was long on its way must be refused", 5000},
	{"prune_owners", "an entry leaves only once every member was asked", 5000},
	{"prune_hints", "nor while anyone keeps something of the key for others", 5000},
	{"prune_once", "nor after one round, when records may be on their way", 5000},
	{"prune_idle", "nor while an owner shows a sibling of its actor", 5000},
}
