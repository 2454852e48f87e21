package causal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

// The model runs random histories of one key over three owners and two fallbacks that crash, stop, lose or roll back
// their disks, hint, repair and collect tombstones. Every record is kept twice: as the real stored bytes, changed by the
// real Merge and Mint and carried by the real codecs, and as the naive set of all writes it ever heard of. The siblings
// of the first must always be the writes of the second that none of the others supersedes; after healing, every
// acknowledged write is visible or superseded, and nothing that one superseded is visible.

const (
	modelNodes  = 5
	modelOwners = 3
	modelW      = 2
	modelTTL    = 8
	modelGrace  = 12
)

var (
	modelKey     = []byte("the key")
	modelCluster = [16]byte{0: 0xc1}
)

// history is a set of write numbers.
type history [6]uint64

func (h *history) add(w int)     { h[w/64] |= 1 << (w % 64) }
func (h history) has(w int) bool { return h[w/64]&(1<<(w%64)) != 0 }
func (h history) or(o history) history {
	for i := range h {
		h[i] |= o[i]
	}
	return h
}
func (h history) without(o history) history {
	for i := range h {
		h[i] &^= o[i]
	}
	return h
}
func (h history) all() []int {
	var out []int
	for i, word := range h {
		for ; word != 0; word &= word - 1 {
			out = append(out, i*64+bits.TrailingZeros64(word))
		}
	}
	return out
}

// modelRecord is a record as stored, and all writes it has heard of. It is never modified.
type modelRecord struct {
	stored []byte
	heard  history
}

// seen is what a client holds: its token, and the naive form of the same.
type seen struct {
	token string
	heard history
}

type modelOp struct {
	id int
	on [modelNodes]bool
}

type modelHint struct {
	rec  *modelRecord
	born int
}

type modelMessage struct {
	born    int
	to      *modelNode
	rec     *modelRecord
	hintFor int // -1: for the receiver itself
	op      *modelOp
}

type modelNode struct {
	w          *world
	id         int
	up, clean  bool
	actor      causal.Actor
	issued     uint64       // counter of the last dot of actor
	rec, disk  *modelRecord // in memory, and what survives a crash
	pending    []*modelOp
	hints      [modelNodes]*modelHint
	savedState *modelNode // an older disk
}

func (n *modelNode) format() {
	n.actor, n.issued, n.clean = n.w.freshActor(), 0, false
	n.rec, n.disk, n.pending, n.hints = nil, nil, nil, [modelNodes]*modelHint{}
}

func (n *modelNode) save() *modelNode {
	return &modelNode{actor: n.actor, issued: n.issued, clean: n.clean, disk: n.disk, hints: n.hints}
}

func (n *modelNode) load(s *modelNode) {
	n.actor, n.issued, n.clean, n.disk, n.hints = s.actor, s.issued, s.clean, s.disk, s.hints
	n.rec, n.pending = n.disk, nil
}

// sync puts the log on disk up to here; only now does a mint count as an acknowledgement of its own node.
func (n *modelNode) sync() {
	n.disk = n.rec
	for _, op := range n.pending {
		n.w.ack(op, n)
	}
	n.pending = nil
}

// stop is a clean stop, which leaves a marker, or a crash, which loses what was not synced.
func (n *modelNode) stop() {
	if n.w.chance(.5) {
		n.sync()
		n.clean = true
		if n.w.chance(.5) {
			n.savedState = n.save()
		}
	}
	n.rec, n.pending, n.up = n.disk, nil, false
}

// reopen is what follows a failed sync: what was not committed is forgotten, and so is the actor.
func (n *modelNode) reopen() {
	if len(n.pending) == 0 {
		return
	}
	n.rec, n.pending = n.disk, nil
	if n.w.bug != "reopen" {
		n.actor, n.issued = n.w.freshActor(), 0
	}
}

func (n *modelNode) start() {
	switch {
	case n.w.bug == "reuse":
		n.issued -= min(2, n.issued)
	case n.w.bug == "crash" && !n.clean:
		n.issued += 5 // no dot is reused, but a forgotten one is covered
	case n.w.bug == "rollback" && n.clean:
	default: // every start is a new actor
		n.actor, n.issued = n.w.freshActor(), 0
	}
	n.clean, n.up = false, true
}

// hear takes a new actor when a clock shows a counter of the own one that was never issued.
func (n *modelNode) hear(clock causal.Vector) {
	if clock.Get(n.actor) > n.issued && n.w.bug != "rollback" {
		n.actor, n.issued = n.w.freshActor(), 0
	}
}

func (n *modelNode) apply(rec *modelRecord) {
	n.hear(n.w.decode(rec).Clock)
	n.rec = n.w.merge(n.rec, rec)
	n.sync()
	n.w.check(n.rec, "apply", n.id)
}

// mint adds write id under a client's context (nil for none). It returns the dot, or ErrBehind.
func (n *modelNode) mint(id int, ctx *seen) (causal.Dot, error) {
	w := n.w
	local, heard := causal.Set{}, history{}
	if n.rec != nil && (w.bug != "absent" || !w.chance(.1)) { // a failed read taken for absence
		local, heard = w.decode(n.rec), n.rec.heard
	}
	past := heard
	var real *causal.Context
	if ctx != nil {
		c := w.open(ctx)
		real, past = &c, ctx.heard
		clock := w.decode(n.rec).Clock
		for _, d := range c.Dots {
			if w.bug == "behind" { // the node claims all below a dot that it has not seen
				real.Vector = real.Vector.With(d)
			} else if !clock.Covers(d) {
				return causal.Dot{}, causal.ErrBehind
			}
		}
		n.hear(c.Vector)
	}
	if w.bug == "perkey" {
		n.issued = local.Clock.Get(n.actor)
	}
	n.issued++
	fresh := causal.Sibling{Dot: causal.Dot{Actor: n.actor, Counter: n.issued}, Tombstone: w.tombs.has(id), Value: writeValue(id)}
	fresh.Checksum = record.Checksum(fresh.Value)
	after := causal.MintUnguarded(local, real, fresh)
	switch w.bug {
	case "ctx": // the clock leaves out what only the context had seen
		after.Clock = local.Clock.With(fresh.Dot)
	case "mintloses":
		after.Siblings = []causal.Sibling{fresh}
	case "":
		if guarded, err := causal.Mint(local, real, fresh); err != nil || !bytes.Equal(encode(guarded), encode(after)) {
			w.fail("mint at %d: %v", n.id, err)
		}
		if w.minted[fresh.Dot] {
			w.fail("dot %s was minted twice", fresh.Dot)
		}
		w.minted[fresh.Dot] = true
	}
	w.past[id] = past
	heard = heard.or(past)
	heard.add(id)
	n.rec = &modelRecord{stored: encode(after), heard: heard}
	w.check(n.rec, "mint", n.id)
	return fresh.Dot, nil
}

type world struct {
	rnd     *rand.Rand
	bug     string
	keyring causal.Keyring
	now     int
	actors  uint64
	writes  int // ids are 1..writes
	past    map[int]history
	tombs   history
	acked   map[int]bool
	minted  map[causal.Dot]bool
	msgs    []modelMessage
	nodes   [modelNodes]*modelNode
	clients [3]*seen
	since   map[string]int
	drops   []modelMessage // whose record the collector told a node to remove
	weak    *modelNode     // lost data, and is not healed yet
	deletes float64
	fault   string
}

func newWorld(seed uint64, bug string, keyring causal.Keyring) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1)), bug: bug, keyring: keyring, past: map[int]history{},
		acked: map[int]bool{}, minted: map[causal.Dot]bool{}, since: map[string]int{}}
	for i := range w.nodes {
		w.nodes[i] = &modelNode{w: w, id: i, up: true}
		w.nodes[i].format()
	}
	for i := range w.clients {
		w.clients[i] = w.seal(causal.Context{}, history{})
	}
	return w
}

func (w *world) chance(p float64) bool { return w.rnd.Float64() < p }

func (w *world) fail(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf("t=%d ", w.now) + fmt.Sprintf(format, args...)
	}
}

// freshActor is a random 128-bit actor that sorts anywhere, and is the same for the same seed.
func (w *world) freshActor() causal.Actor {
	var a causal.Actor
	w.actors++
	binary.BigEndian.PutUint64(a[:], w.actors*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(a[8:], w.actors)
	return a
}

func (w *world) seal(c causal.Context, heard history) *seen {
	token, err := w.keyring.EncodeToken(modelCluster, modelKey, c)
	if err != nil {
		w.fail("token: %v", err)
	}
	return &seen{token: token, heard: heard}
}

func (w *world) open(s *seen) causal.Context {
	c, err := w.keyring.DecodeToken(modelCluster, modelKey, s.token)
	if err != nil {
		w.fail("token: %v", err)
	}
	return c
}

func encode(s causal.Set) []byte { return record.Append(nil, modelKey, s) }

func writeValue(id int) []byte { return binary.AppendUvarint([]byte("write "), uint64(id)) }

func (w *world) decode(rec *modelRecord) causal.Set {
	if rec == nil {
		return causal.Set{}
	}
	s, err := record.Decode(modelKey, rec.stored)
	if err != nil {
		w.fail("record: %v", err)
	}
	return s
}

func (w *world) merge(a, b *modelRecord) *modelRecord {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return &modelRecord{stored: encode(causal.Merge(w.decode(a), w.decode(b))), heard: a.heard.or(b.heard)}
}

// visible returns the writes a record shows.
func (w *world) visible(rec *modelRecord) history {
	out := history{}
	for _, s := range w.decode(rec).Siblings {
		id, _ := binary.Uvarint(bytes.TrimPrefix(s.Value, []byte("write ")))
		out.add(int(id))
	}
	return out
}

// check compares a record with its naive twin. A collected tombstone may be missing beside a later write of its own
// actor, which is harmless: values are compared.
func (w *world) check(rec *modelRecord, what string, node int) {
	over := history{}
	for _, id := range rec.heard.all() {
		over = over.or(w.past[id])
	}
	want, have := rec.heard.without(over).without(w.tombs), w.visible(rec).without(w.tombs)
	if have != want {
		w.fail("%s at %d: siblings %v, history says %v", what, node, have.all(), want.all())
	}
	if err := w.decode(rec).Valid(); err != nil && w.bug == "" {
		w.fail("%s at %d: %v", what, node, err)
	}
}

func (w *world) ack(op *modelOp, n *modelNode) {
	op.on[n.id] = true
	count := 0
	for _, on := range op.on {
		if on {
			count++
		}
	}
	if count >= modelW {
		w.acked[op.id] = true
	}
}

func (w *world) owners() []*modelNode { return w.nodes[:modelOwners] }

func up(nodes []*modelNode) []*modelNode {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *modelNode) bool { return !n.up })
}

func (w *world) pick(nodes []*modelNode) *modelNode { return nodes[w.rnd.IntN(len(nodes))] }

func (w *world) shuffled(nodes []*modelNode) []*modelNode {
	nodes = slices.Clone(nodes)
	w.rnd.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

// write is one client's put, after a read in most cases, with the context it has or without one.
func (w *world) write() {
	live := up(w.owners())
	if len(live) == 0 || w.writes >= 64*len(history{})-1 {
		return
	}
	if w.chance(.05) {
		w.pick(live).reopen()
	}
	p := w.rnd.Float64()
	if p < .6 {
		var got *modelRecord
		for _, n := range w.shuffled(live)[:min(2, len(live))] {
			got = w.merge(got, n.rec)
		}
		ctx := causal.Context{Vector: w.decode(got).Clock}
		heard := history{}
		if got != nil {
			heard = got.heard
		}
		w.clients[w.rnd.IntN(len(w.clients))] = w.seal(ctx, heard)
	}
	who := w.rnd.IntN(len(w.clients))
	var ctx *seen
	if p < .85 {
		ctx = w.clients[who]
	}
	id := w.writes + 1
	deleted := w.chance(w.deletes)
	if deleted {
		w.tombs.add(id)
	}
	for _, m := range w.shuffled(live) {
		d, err := m.mint(id, ctx)
		if errors.Is(err, causal.ErrBehind) {
			continue // another mints
		}
		w.writes = id
		w.answer(who, ctx, m, id, d)
		w.replicate(m, id)
		return
	}
	w.tombs[id/64] &^= 1 << (id % 64) // nobody took it
}

// answer gives a client the context of its put.
func (w *world) answer(who int, ctx *seen, m *modelNode, id int, d causal.Dot) {
	after, heard := w.decode(m.rec), m.rec.heard
	var before *causal.Context
	if ctx != nil {
		c := w.open(ctx)
		before, heard = &c, ctx.heard
		heard.add(id)
	}
	answer := causal.Answer(before, after, d)
	if w.bug == "putctx" { // the record's clock covers siblings that the client never saw
		answer = causal.Context{Vector: after.Clock}
	}
	w.clients[who] = w.seal(answer, heard)
}

// replicate sends a minted record to the other owners, or to a fallback as a hint.
func (w *world) replicate(m *modelNode, id int) {
	op := &modelOp{id: id}
	rec := m.rec
	m.pending = append(m.pending, op)
	if w.chance(.5) {
		m.sync()
	}
	spare := w.shuffled(up(w.nodes[modelOwners:]))
	for _, n := range w.owners() {
		switch {
		case n == m:
		case n.up:
			w.msgs = append(w.msgs, modelMessage{born: w.now, to: n, rec: rec, hintFor: -1, op: op})
		case len(spare) > 0:
			w.msgs = append(w.msgs, modelMessage{born: w.now, to: spare[0], rec: rec, hintFor: n.id, op: op})
			spare = spare[1:]
		}
	}
}

func (w *world) deliver() {
	i := w.rnd.IntN(len(w.msgs))
	m := w.msgs[i]
	w.msgs = slices.Delete(w.msgs, i, i+1)
	if !m.to.up || w.now-m.born > modelTTL || w.chance(.05) {
		return
	}
	if m.hintFor < 0 {
		m.to.apply(m.rec)
	} else {
		m.to.hear(w.decode(m.rec).Clock)
		rec := m.rec
		if h := m.to.hints[m.hintFor]; h != nil {
			rec = w.merge(h.rec, rec)
		}
		m.to.hints[m.hintFor] = &modelHint{rec: rec, born: w.now}
	}
	w.ack(m.op, m.to)
}

func (w *world) pair(a, b *modelNode) {
	if !a.up || !b.up {
		return
	}
	if m := w.merge(a.rec, b.rec); m != nil {
		a.apply(m)
		b.apply(m)
	}
}

func (w *world) replay(n *modelNode) {
	for i, h := range n.hints {
		if h != nil && w.nodes[i].up && n.up {
			w.nodes[i].apply(h.rec)
			n.hints[i] = nil
		}
	}
}

func (w *world) hinted() bool {
	for _, n := range w.nodes {
		if n.hints != [modelNodes]*modelHint{} {
			return true
		}
	}
	return false
}

func (w *world) allUp() bool { return len(up(w.nodes[:])) == modelNodes }

func (w *world) alike() bool {
	for _, n := range w.owners() {
		if !sameRecord(n.rec, w.nodes[0].rec) {
			return false
		}
	}
	return true
}

func sameRecord(a, b *modelRecord) bool {
	return (a == nil) == (b == nil) && (a == nil || bytes.Equal(a.stored, b.stored))
}

// collect tells all owners to remove a tombstone once it is proven that nobody keeps anything else of the key.
func (w *world) collect() {
	c := w.pick(w.owners())
	if !c.up || c.rec == nil || w.visible(c.rec).without(w.tombs) != (history{}) {
		return
	}
	if !w.allUp() || w.hinted() || !w.alike() {
		return
	}
	first, known := w.since[string(c.rec.stored)]
	if !known {
		w.since[string(c.rec.stored)] = w.now
	}
	if !known || w.now-first <= modelGrace {
		return
	}
	for _, n := range w.owners() {
		w.drops = append(w.drops, modelMessage{to: n, rec: c.rec})
	}
}

func (w *world) drop() {
	i := w.rnd.IntN(len(w.drops))
	d := w.drops[i]
	w.drops = slices.Delete(w.drops, i, i+1)
	if d.to.up && sameRecord(d.to.rec, d.rec) {
		d.to.rec = nil
		d.to.sync()
	}
}

// loseDisk lets one node lose its disk, or find an older one, while the others are whole.
func (w *world) loseDisk() {
	if w.weak != nil || len(w.msgs) > 0 || !w.allUp() || w.hinted() || !w.alike() {
		return
	}
	n := w.pick(w.owners())
	n.stop()
	w.weak = n
	if n.savedState != nil && w.chance(.7) {
		n.load(n.savedState)
	} else {
		n.format()
	}
	n.start()
	for _, o := range w.owners() {
		if w.chance(.3) {
			w.pair(n, o)
		}
	}
}

func (w *world) heal() {
	for _, o := range w.owners() {
		w.pair(w.weak, o)
	}
	if len(up(w.owners())) == modelOwners {
		w.weak = nil
	}
}

func (w *world) step(writes, downs float64) {
	a := w.rnd.Float64()
	if w.now/30%2 == 1 && a < .25 { // every other stretch nobody writes, so that tombstones can go
		a = .53 + w.rnd.Float64()*.41
	}
	switch {
	case a < writes:
		w.write()
	case a < .45 && len(w.msgs) > 0:
		w.deliver()
	case a < .45+downs:
		n := w.pick(w.nodes[:])
		if n.up && (len(up(w.owners())) > 2 || n.id >= modelOwners) {
			n.stop()
		}
	case a < .53:
		if down := slices.DeleteFunc(slices.Clone(w.nodes[:]), func(n *modelNode) bool { return n.up }); len(down) > 0 {
			w.pick(down).start()
		}
	case a < .70:
		two := w.shuffled(w.owners())
		w.pair(two[0], two[1])
	case a < .73:
		w.replay(w.pick(w.nodes[:]))
	case a < .84:
		w.collect()
	case a < .94 && len(w.drops) > 0:
		w.drop()
	case a < .965:
		if n := w.pick(w.owners()); n.up && w.chance(.3) {
			n.savedState = n.save()
		}
	default:
		w.loseDisk()
	}
	if w.weak != nil && w.weak.up && w.chance(.1) {
		w.heal()
	}
}

// run plays one history and says what was wrong with it, or "".
func (w *world) run() string {
	steps := []int{90, 150, 330}[w.rnd.IntN(3)]
	writes := []float64{.2, .06, .02}[w.rnd.IntN(3)]
	w.deletes = []float64{.3, .7}[w.rnd.IntN(2)]
	downs := []float64{.01, .03}[w.rnd.IntN(2)]
	for w.now = range steps {
		if w.step(writes, downs); w.fault != "" {
			return w.fault
		}
	}
	for _, n := range w.nodes {
		if !n.up {
			n.start()
		}
		n.sync()
	}
	for range 3 {
		for _, n := range w.nodes {
			w.replay(n)
		}
		for _, x := range w.owners() {
			for _, y := range w.owners() {
				if x != y {
					w.pair(x, y)
				}
			}
		}
	}
	if w.fault == "" {
		w.verdict()
	}
	return w.fault
}

// verdict judges the healed replicas.
func (w *world) verdict() {
	if !w.alike() {
		w.fail("replicas differ after healing")
	}
	visible, over := w.visible(w.nodes[0].rec), history{}
	for _, past := range w.past {
		over = over.or(past)
	}
	for id := range w.acked {
		if !visible.has(id) && !over.has(id) && !w.tombs.has(id) {
			w.fail("acknowledged write %d is lost", id)
		}
	}
	for id := range w.acked {
		back := history{}
		for _, v := range w.past[id].all() {
			if visible.has(v) && !w.tombs.has(v) {
				back.add(v)
			}
		}
		if back != (history{}) {
			w.fail("%v came back although the acknowledged write %d superseded it", back.all(), id)
		}
	}
}
