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
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
	"github.com/dotring/dotring/storagenode/transfer"
)

// epoch0 is what a clock shows at the beginning of a run.
var epoch0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// tokens is how many a member has: few, so that layouts are small.
const tokens = 6

// Names of a node's durable state in its store.
const (
	metaView  = "sim/view"
	metaFence = "sim/fence"
)

// node is one storage node: a machine, its disk, and now and then a process.
type node struct {
	w       *world
	idx     int
	id      ring.NodeID
	name    string
	disk    *disk
	started bool // it has been in use
	// gone says that it was taken away for good: it is lost, or cut off to be removed. While isolated it does not reach other nodes.
	gone, lost, isolated bool

	// What is gone with the process.
	up        bool
	life      int // counts processes, so that what was planned for an earlier one does not happen
	store     *kv.Store
	step      *kv.Stepper
	planted   *planted
	sums      *sums
	passes    map[ring.NodeID]*passing
	committed bool // a commit is planned
	turning   bool // a turn of the layout driver is planned
	layoutState
	collecting
	handing

	pausedTo time.Duration
	slow     float64       // times as slow as usual
	skew     time.Duration // of its clock
	snap     *image        // an older state of the disk, for a rollback

	// What the machine or its peers remember when the disk does not.
	doubt      bool   // the disk may lack what was acknowledged; durable
	remembered uint64 // the highest commit number told to peers
	born       uint64 // of the disk that it is of: an emptied disk begins to count again, and an older one may come back
}

func (n *node) member() ring.Member {
	m := ring.Member{ID: n.id, Name: n.name, Weight: 1}
	if !n.w.opt.Planned {
		m.Tokens = ring.RandomTokens(n.id, tokens, nil)
	}
	return m
}

func (n *node) paused() bool { return n.pausedTo > n.w.now }

// clock never jumps, as a process's monotonic clock does not; wall, the time of day, does.
func (n *node) clock() time.Time { return epoch0.Add(n.w.now) }
func (n *node) wall() time.Time  { return epoch0.Add(n.w.now + n.skew) }

// format gives a new node its first view, and starts it.
func (n *node) format(v *ring.View) error {
	if err := n.start(); err != nil {
		return err
	}
	err := n.store.PutMeta(metaView, v.Encode(), nil)
	if err == nil {
		err = n.store.PutMeta(metaFence, ring.Fence{Acked: v.Settled().ID(), ReadEpoch: v.Settled().ID().Epoch}.Encode(), nil)
	}
	if err != nil {
		return err
	}
	n.step.Step()
	return n.load()
}

// start opens the store on the disk as it is.
func (n *node) start() error {
	cfg := kv.Default()
	cfg.Open, cfg.Rand, cfg.Now, cfg.Wall = n.disk.Open, n.w.dice, n.clock, n.wall
	cfg.RequestIDMax = 1 << 16
	if n.life%2 == 1 {
		cfg.CacheBytes = 0
	}
	cfg.Hints.BytesMax = n.w.opt.HintBytes
	if cfg.CrowdedClock, cfg.RetireFor = n.w.opt.Crowd, n.w.opt.Retire; n.w.bug == PruneForget {
		cfg.RetireFor = 0
	}
	n.sums = &sums{slots: make(map[ring.Slot]merkle.Sum)}
	cfg.Observer = n.sums
	store, step, err := kv.OpenStepped(cfg)
	if err != nil {
		return err
	}
	n.store, n.step = store, step
	n.up, n.started, n.committed, n.turning = true, true, false, false
	n.life++
	n.passes = make(map[ring.NodeID]*passing)
	n.planted = newPlanted(n)
	n.collecting = newCollecting(n)
	n.handing = handing{standing: transfer.Standing{Grace: n.w.opt.Grace}}
	n.layoutState = layoutState{heard: make(map[ring.NodeID]bool), away: make(map[ring.NodeID]time.Duration), majority: n.w.now}
	now := store.Stats().CommitNumber
	if n.born == 0 {
		n.born = n.disk.born
	}
	other := n.disk.born != n.born && n.w.bug != Recount
	if (now < n.remembered || other) && n.w.bug != TrustDisk {
		n.doubt = true
	}
	n.w.trace.line("%s starts, life %d, commit %d of %d, doubt %v", n.name, n.life, now, n.remembered, n.doubt)
	if err := n.load(); err != nil {
		return err
	}
	n.turnSoon(0)
	n.later(100*time.Millisecond, n.housekeep)
	n.handsOff()
	n.compares()
	n.collects()
	n.hands()
	return nil
}

// load reads the durable layout state.
func (n *node) load() error {
	if b, err := n.store.GetMeta(metaView); err == nil {
		v, err := ring.DecodeView(b)
		if err != nil {
			return err
		}
		n.view, n.persisted = v, v.Hash()
	} else if !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	if b, err := n.store.GetMeta(metaFence); err == nil {
		f, err := ring.DecodeFence(b)
		if err != nil {
			return err
		}
		n.fence, n.promised = f, f
	} else if !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	return nil
}

// stop ends the process: cleanly, or as a power cut would. A last batch may reach the disk without anyone being told.
func (n *node) stop(clean bool) {
	n.w.stats.Restarts++
	n.w.trace.line("%s stops, clean %v", n.name, clean)
	if clean {
		n.planted.stopped()
		if err := n.step.Close(); err != nil {
			n.w.trace.line("%s: close: %v", n.name, err)
		}
	}
	n.up = false
	n.life++
	if !clean && n.w.chance(0.3) {
		n.step.Step() // its callbacks find that the process is gone
	}
	n.disk.crash()
	for _, g := range n.w.gates {
		g.lose(n.idx, n.w.between(0, 20*time.Millisecond))
	}
}

// later plans something for this process only.
func (n *node) later(d time.Duration, do func()) {
	life := n.life
	n.w.after(d, func() { n.whenAwake(life, do) })
}

// whenAwake does something unless the process is gone; while it is paused, it waits.
func (n *node) whenAwake(life int, do func()) {
	if n.life != life || !n.up {
		return
	}
	if n.paused() {
		n.w.after(n.pausedTo-n.w.now, func() { n.whenAwake(life, do) })
		return
	}
	do()
}

// alive wraps a callback that is of no use once the process is gone.
func (n *node) alive() func() bool {
	life := n.life
	return func() bool { return n.up && n.life == life }
}

// commitSoon plans a commit, if there is none.
func (n *node) commitSoon() {
	if n.committed {
		return
	}
	n.committed = true
	d := n.w.between(n.w.opt.Commit/2, n.w.opt.Commit*3/2)
	if n.w.chance(0.02) {
		d *= 10
	}
	// Bounded, so that what was begun on a slow disk ends soon after faults do.
	n.later(min(time.Duration(float64(d)*n.slow), 5*time.Second), func() {
		n.committed = false
		before := n.store.Stats().Reopenings
		did, more := n.step.Step()
		if n.store.Stats().Reopenings != before {
			n.planted.reopened()
		}
		if n.store.Stats().Available && n.disk.born == n.born {
			n.remembered = max(n.remembered, n.store.Stats().CommitNumber)
		}
		if more {
			n.commitSoon()
		} else if did {
			n.turnSoon(0)
		}
	})
}

// housekeep looks at the disk, and at what may need a commit.
func (n *node) housekeep() {
	n.step.Check()
	n.commitSoon()
	if len(n.disk.stored) > 0 && (!n.w.faulty || n.w.chance(0.05)) {
		n.scrub()
		return
	}
	n.later(500*time.Millisecond, n.housekeep)
}

// scrub finds the damage on the disk: what is damaged is set aside, and the node starts anew and in doubt.
func (n *node) scrub() {
	n.stop(false)
	count, err := n.disk.discard()
	n.w.trace.line("%s scrubs: %d damaged records set aside, %v", n.name, count, err)
	n.doubt = n.doubt || n.w.bug != TrustDisk
	n.w.loses()
	n.restart(10 * time.Millisecond)
}

// restart starts the process after a pause, however often that takes.
func (n *node) restart(d time.Duration) {
	life := n.life
	n.w.after(d, func() {
		if n.up || n.life != life {
			return
		}
		if err := n.start(); err != nil {
			n.w.trace.line("%s does not start: %v", n.name, err)
			n.disk.crash()
			n.restart(200 * time.Millisecond)
		}
	})
}

// op is what a request asks for.
type op int

const (
	opMint op = iota
	opApply
	opRead
	opDigest
)

// request is what a gateway sends.
type request struct {
	op       op
	key      []byte
	left     time.Duration   // until its deadline, when it was sent
	live     []ring.LayoutID // as the coordinator knew them
	read     ring.LayoutID   // of reads
	mint     kv.Mint         // without key and deadline
	write    *history.Write
	seen     history.Known // what the mint's context stands for
	record   []byte
	fenced   bool          // a client's write, and no repair
	obtained time.Duration // when the gateway had what it brings, or an older form of it
	heard    uint64        // the last number of the receiver that the gateway had heard by then
	// hintFor are the owners that a mint or a write is to be kept for.
	hintFor []ring.NodeID
}

// response is what a node answers.
type response struct {
	cause   quorum.Cause // None where it was done
	absent  bool
	marked  bool // it is a tombstone that is being collected
	record  []byte
	retired causal.Vector // what left the clock lately
	digest  record.Digest
	dot     causal.Dot
	durable bool
	view    *ring.View // of a refusal for layouts
}

// causeOf reads an error of the store.
func causeOf(err error) quorum.Cause {
	for _, c := range []struct {
		err   error
		cause quorum.Cause
	}{
		{kv.ErrInDoubt, quorum.Failed}, {kv.ErrBehind, quorum.Behind}, {kv.ErrOverloaded, quorum.Overloaded},
		{kv.ErrExpired, quorum.Expired}, {kv.ErrTooManySiblings, quorum.TooLarge}, {kv.ErrTooLarge, quorum.TooLarge},
		{kv.ErrClockTooLarge, quorum.TooLarge}, {kv.ErrInvalid, quorum.Invalid}, {kv.ErrDiskFull, quorum.DiskFull},
		{kv.ErrStale, quorum.Unavailable}, {kv.ErrReopening, quorum.Unavailable}, {kv.ErrClosed, quorum.Unavailable},
	} {
		if errors.Is(err, c.err) {
			return c.cause
		}
	}
	return quorum.Failed
}

// handle works on a request; answer is called once, or, for a mint, twice.
func (n *node) handle(r *request, answer func(response)) {
	switch {
	case n.view == nil:
		answer(response{cause: quorum.Unavailable})
	case n.doubt && (r.op == opRead || r.op == opDigest):
		answer(response{cause: quorum.Failed})
	case n.doubt && (r.op == opMint || r.fenced):
		answer(response{cause: quorum.Unavailable})
	case r.op == opRead || r.op == opDigest:
		answer(n.read(r))
	case r.op == opMint:
		n.mint(r, answer)
	default:
		n.apply(r, answer)
	}
}

func (n *node) read(r *request) response {
	if !n.admitRead(r.read) {
		return n.refusal()
	}
	rec, marked, err := n.recordHere(r.key)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return response{absent: true}
	case err != nil:
		return response{cause: causeOf(err)}
	case r.op == opRead:
		return response{record: rec, marked: marked, retired: n.store.Retired(r.key)}
	}
	digest, err := record.DigestOf(rec)
	if err != nil {
		return response{cause: quorum.Failed}
	}
	return response{digest: digest, marked: marked, retired: n.store.Retired(r.key)}
}

// recordHere is what a read is answered from: at a node that does not own the key, what it keeps for others.
func (n *node) recordHere(key []byte) (rec []byte, marked bool, err error) {
	if n.view.ReadLayout().Owns(n.id, ring.SlotOf(key)) {
		rec, err = n.store.Read(key)
		if errors.Is(err, kv.ErrNotFound) && n.w.opt.Grace > 0 {
			return n.store.ReadMarked(key)
		}
		return rec, false, err
	}
	rec, err = n.store.ReadHeld(key)
	return rec, false, err
}

func (n *node) refusal() response { return response{cause: quorum.Fenced, view: n.view.Clone()} }

func (n *node) apply(r *request, answer func(response)) {
	if r.fenced && !n.admitWrite(r.live) {
		answer(n.refusal())
		return
	}
	limit, err := n.limit(r.heard)
	if err != nil {
		answer(response{cause: causeOf(err)})
		return
	}
	alive := n.alive()
	n.planted.hear(r.key, r.record)
	done := func(err error) {
		if !alive() || n.w.bug == EarlyAck {
			return
		}
		if err != nil {
			answer(response{cause: causeOf(err)})
			return
		}
		if len(r.hintFor) == 0 {
			n.keepForReplay(r.key, r.record)
		}
		answer(response{durable: true})
	}
	if len(r.hintFor) > 0 {
		err = n.store.ApplyHintBefore(limit, r.hintFor, r.key, r.record, done)
	} else {
		err = n.store.ApplyBefore(limit, r.key, r.record, func(_ bool, err error) { done(err) })
	}
	n.commitSoon()
	switch {
	case err != nil:
		answer(response{cause: causeOf(err)})
	case n.w.bug == EarlyAck:
		answer(response{durable: true})
	}
}

// keepForReplay keeps some of what became durable here, unless this is a machine that may forget it.
func (n *node) keepForReplay(key, rec []byte) {
	if !slices.Contains(n.w.victims, n.idx) && len(n.w.replays) < maxReplays && n.w.chance(0.1) {
		n.w.replays = append(n.w.replays, replay{n.idx, slices.Clone(key), slices.Clone(rec)})
	}
}

func (n *node) mint(r *request, answer func(response)) {
	if len(r.hintFor) == 0 && !n.view.ReadLayout().Owns(n.id, ring.SlotOf(r.key)) {
		answer(response{cause: quorum.Unavailable})
		return
	}
	if !n.admitWrite(r.live) {
		answer(n.refusal())
		return
	}
	m := r.mint
	m.Key, m.Deadline, m.HintFor = r.key, n.clock().Add(r.left), r.hintFor
	if len(m.Base) > 0 {
		var err error
		if m.BaseLimit, err = n.limit(r.heard); err != nil {
			answer(response{cause: causeOf(err)})
			return
		}
	}
	seen := r.seen
	if m.Context == nil {
		if local, err := n.newest(r.key, len(r.hintFor) > 0); err == nil {
			seen = n.w.check.Knows(string(r.key), local)
		}
	}
	n.bendContext(&m)
	alive := n.alive()
	var issued, ended bool
	var outcome error
	second := func() {
		if outcome != nil {
			answer(response{cause: causeOf(outcome)})
			return
		}
		answer(response{durable: true})
	}
	minted, err := n.planted.mint(m, func(err error) {
		if !alive() || n.w.bug == EarlyAck {
			return
		}
		if ended, outcome = true, err; issued {
			second()
		}
	})
	n.commitSoon()
	if err != nil {
		answer(response{cause: causeOf(err)})
		return
	}
	n.journal(r, minted, seen)
	issued = true
	if ended && outcome != nil {
		second()
		return
	}
	answer(response{record: minted.Record, dot: minted.Dot, durable: ended || n.w.bug == EarlyAck})
}

// journal tells the history of a dot.
func (n *node) journal(r *request, m kv.Minted, seen history.Known) {
	n.w.trace.line("%s mints %s for write %d as %x:%d, repeated %v", n.name, r.key, r.write.ID, m.Dot.Actor[:4], m.Dot.Counter, m.Repeated)
	if m.Repeated {
		return
	}
	if r.mint.ClientRequestID && !n.w.jumped && !n.planted.byHand {
		id := string(m.Dot.Actor[:]) + string(r.key) + "/" + r.mint.RequestID
		if n.w.issued[id] {
			n.w.check.Break(history.Idempotent, "%s gave request %s of key %s a second dot", n.name, r.mint.RequestID, r.key)
		}
		n.w.issued[id] = true
	}
	n.w.check.Minted(r.write, m.Dot, seen)
	set, err := record.Decode(r.key, m.Record)
	if err != nil {
		n.w.check.Break(history.Undamaged, "%s minted a record that cannot be read: %v", n.name, err)
		return
	}
	n.w.check.Observe(string(r.key), set, "mint at "+n.name)
}

// newest returns the key's newest local state, as an observer sees it whom a flaky disk does not trouble: with held, also
// what is kept for others.
func (n *node) newest(key []byte, held bool) (causal.Set, error) {
	flaky := n.disk.flaky
	n.disk.flaky = 0
	defer func() { n.disk.flaky = flaky }()
	if held {
		return n.step.NewestHeld(key)
	}
	rec, err := n.step.Newest(key)
	if err == nil && rec == nil && n.w.opt.Grace > 0 {
		if rec, _, err = n.store.ReadMarked(key); errors.Is(err, kv.ErrNotFound) {
			rec, err = nil, nil
		}
	}
	if err != nil || rec == nil {
		return causal.Set{}, err
	}
	return record.Decode(key, rec)
}

// admitWrite says whether a write that knows these layouts is taken.
func (n *node) admitWrite(live []ring.LayoutID) bool {
	f := n.fence
	if n.view.IsDead(n.id) {
		return false
	}
	switch n.w.bug {
	case NoFence:
		return true
	case Stamp:
		newest := live[len(live)-1]
		return !(newest.Epoch < f.Acked.Epoch || newest.Epoch == f.Acked.Epoch && newest != f.Acked)
	case HashBlind:
		if f.Acked.Epoch <= live[0].Epoch {
			return true
		}
		for _, l := range live {
			if l.Epoch == f.Acked.Epoch {
				return true
			}
		}
		return false
	}
	return f.AdmitWrite(live)
}

// admitRead says whether a read by that layout is answered.
func (n *node) admitRead(id ring.LayoutID) bool {
	return !n.view.IsDead(n.id) && !n.cutOff && (n.w.bug == ReadFence || n.fence.AdmitRead(id))
}

// recordOf returns the durable record of a key, nil where there is none.
func (n *node) recordOf(key string) []byte {
	var rec []byte
	slot := slotOf(key)
	// A scan, since it sees the disk: a read may be answered from memory.
	err := n.store.Scan(ring.Range{From: slot, To: slot + 1}, nil, func(k, r []byte) (bool, error) {
		if string(k) == key {
			rec = slices.Clone(r)
		}
		return rec == nil, nil
	})
	if err != nil {
		n.w.check.Break(history.Undamaged, "%s cannot read %s after healing: %v", n.name, key, err)
	}
	return rec
}

func slotOf(key string) ring.Slot { return ring.SlotOf([]byte(key)) }
