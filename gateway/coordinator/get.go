package coordinator

import (
	"context"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/ringsvc/tracing"
)

const (
	// healthPoll is how often a request that waits looks whether the nodes it waits for have become suspect.
	healthPoll = 100 * time.Millisecond
	// maxRestarts bounds how often a read follows changes of the layouts.
	maxRestarts = 16
)

// readOp is one read of one key: a get, or the gathering of a base for a put.
type readOp struct {
	c        *Coordinator
	state    *nodeclient.State
	key      []byte
	slot     ring.Slot
	trace    string
	span     *tracing.Span // of the operation; nil: it is not traced
	q        Quorum
	context  *causal.Context
	begin    time.Time
	deadline time.Time
	get      quorum.Get
	in       inbox
	deliver  func(nodeclient.Answer)
	sent     []sent
	base     int  // calls before it were under older layouts
	wide     bool // ask everyone, for the context alone
	marked   bool // a node answered with a tombstone that is being collected
	// patient: nothing is to be done before all that was asked for is there, so that the request is woken once.
	patient  bool
	restarts uint8
	heard    int // answers that came
	scratch  []nodeclient.Answer

	sentBuf    [4]sent
	scratchBuf [4]nodeclient.Answer
	requests   [3]storagev1.Request
	used       int
}

func (o *readOp) init(c *Coordinator, state *nodeclient.State, key []byte, trace string) {
	o.c, o.state, o.key, o.trace = c, state, key, trace
	o.slot = ring.SlotOf(key)
	o.begin = time.Now()
	o.in.init(plainRead)
	o.deliver = o.in.put
	o.sent, o.scratch = o.sentBuf[:0], o.scratchBuf[:0]
}

// get carries out one read with the replicas.
func (c *Coordinator) get(ctx context.Context, req *GetRequest) (GetResult, *Error) {
	state := c.replicas.State()
	if state == nil {
		return GetResult{}, &Error{Kind: NoLayout}
	}
	o := &readOp{}
	o.init(c, state, req.Key, req.Trace)
	o.q, o.context, o.span = req.R, req.Context, req.Span
	o.patient = req.Context == nil && !req.Explain // reports tell when each answer came
	if err := o.run(ctx); err != nil {
		return GetResult{}, err
	}
	repaired := o.repair()
	res := GetResult{Set: o.get.Set()}
	if req.Explain || slow(req.SlowAfter, o.begin) {
		res.Reports = o.reports(repaired)
	}
	return res, nil
}

// slow says whether what began then has taken so long that its reports are asked for.
func slow(after time.Duration, begin time.Time) bool { return after > 0 && time.Since(begin) >= after }

// run asks until the decider has its verdict, the time is up, or the caller goes away.
func (o *readOp) run(ctx context.Context) *Error {
	defer o.in.close()
	o.deadline, _ = ctx.Deadline()
	if err := o.start(); err != nil {
		return err
	}
	var timer *time.Timer
	for {
		if done := o.steps(); done {
			return o.verdict()
		}
		o.in.expect(o.awaited())
		wait := o.untilTick()
		if timer == nil {
			timer = o.c.timer(wait)
			defer o.c.putTimer(timer)
		} else {
			timer.Reset(wait)
		}
		select {
		case <-o.in.wake:
			if err := o.take(); err != nil {
				return err
			}
		case <-timer.C:
			if err := timeUp(ctx); err != nil {
				return o.late(err)
			}
			o.patient = false // some of what was waited for may be there
			before := o.heard
			if err := o.take(); err != nil {
				return err
			}
			if o.heard == before {
				o.tick()
			}
		case <-ctx.Done():
			return o.late(context.Cause(ctx))
		}
	}
}

func (o *readOp) late(err error) *Error {
	return &Error{Kind: DeadlinePassed, Replicas: o.reports(nil), Err: err}
}

// take tells the decider of the answers that are there.
func (o *readOp) take() *Error {
	o.scratch = o.in.take(o.scratch[:0])
	defer clear(o.scratch)
	for i := range o.scratch {
		o.heard++
		if err := o.answer(&o.scratch[i]); err != nil {
			return err
		}
	}
	return nil
}

// awaited returns how many answers must come before there is something to do.
func (o *readOp) awaited() int {
	if !o.patient {
		return 1
	}
	return max(len(o.sent)-o.heard, 1)
}

// start gives the decider the replicas under the present state.
func (o *readOp) start() *Error {
	l := o.state.Read
	r := 0
	if !o.wide {
		var err error
		if r, err = o.c.readQuorum(o.q, l); err != nil {
			return &Error{Kind: BadQuorum, Err: err}
		}
	}
	var primaries, others [8]quorum.Candidate
	cfg := quorum.GetConfig{Primaries: primaries[:0], Others: others[:0], R: r, Wide: o.wide,
		Spread: spread(), HedgeAfter: o.c.cfg.HedgeAfter, HedgeFloor: o.c.cfg.HedgeFloor}
	owners := l.Primaries(o.slot)
	for _, n := range owners {
		cfg.Primaries = append(cfg.Primaries, o.c.candidate(n))
	}
	if o.context != nil {
		for _, n := range o.c.others(o.state, o.slot) {
			cfg.Others = append(cfg.Others, o.c.candidate(n))
		}
	}
	o.get.Start(cfg, o.context)
	o.c.budget.Earn(r)
	return nil
}

// others lists the nodes that may hold something of a slot beside the owners in the layout that reads use: the owners in
// the other live layout, and as many fallbacks as there are replicas.
func (c *Coordinator) others(s *nodeclient.State, slot ring.Slot) []ring.NodeID {
	owners := s.Read.Primaries(slot)
	var out []ring.NodeID
	add := func(n ring.NodeID) {
		for _, have := range owners {
			if have == n {
				return
			}
		}
		for _, have := range out {
			if have == n {
				return
			}
		}
		out = append(out, n)
	}
	for _, l := range s.Live {
		if l != s.Read {
			for _, n := range l.Primaries(slot) {
				add(n)
			}
		}
	}
	for _, n := range s.Read.Fallbacks(slot, nil, s.Read.Replicas()) {
		add(n)
	}
	return out
}

func (o *readOp) now() time.Duration { return time.Since(o.begin) }

// steps does what the decider wants, and returns whether it has decided.
func (o *readOp) steps() (done bool) {
	now := o.now()
	for {
		switch s := o.get.Next(now); s.Do {
		case quorum.Read, quorum.Digest:
			o.send(s)
		case quorum.Finish:
			return true
		default:
			return false
		}
	}
}

func (o *readOp) send(s quorum.Step) {
	var r *storagev1.Request
	if o.used < len(o.requests) {
		r = &o.requests[o.used]
		o.used++
	} else {
		r = &storagev1.Request{}
	}
	r.Op = storagev1.Op_OP_READ
	if s.Do == quorum.Digest {
		r.Op = storagev1.Op_OP_DIGEST
	}
	r.Key, r.Trace, r.Layout = o.key, o.trace, o.state.ReadIndex
	to := o.get.Node(s.Replica)
	tag := len(o.sent)
	o.sent = append(o.sent, sent{to: to, do: s.Do})
	call := nodeclient.Call{To: to, Tag: uint64(tag), Request: r, Layouts: o.state.Names, Deadline: o.deadline, Deliver: o.deliver}
	traced(&call, o.span, s.Do.String(), o.state)
	o.c.replicas.Send(call)
}

// untilTick returns how long to wait at most before tick.
func (o *readOp) untilTick() time.Duration {
	wait := min(healthPoll, time.Until(o.deadline))
	if at, ok := o.get.HedgeAt(); ok {
		wait = min(wait, at-o.now())
	}
	return max(wait, 0)
}

// tick looks at what is late, and at who has become suspect.
func (o *readOp) tick() {
	hedged := o.get.Hedged()
	o.get.Tick(o.now(), o.c.budget)
	if !hedged && o.get.Hedged() {
		o.c.metrics.hedges.Inc()
	}
	for i := range o.get.Len() {
		if _, waiting := o.get.InFlight(i); waiting {
			if h := o.c.replicas.Health(o.get.Node(i)); h.Suspect || !h.Connected {
				o.get.Suspected(i)
			}
		}
	}
}

// answer tells the decider of an answer.
func (o *readOp) answer(a *nodeclient.Answer) *Error {
	s := &o.sent[a.Tag]
	s.arrived(a, o.begin)
	if int(a.Tag) < o.base {
		return nil
	}
	i := o.get.Find(s.to)
	if a.Err != nil {
		s.detail = a.Err.Error()
		o.get.Failed(i, causeOfError(a.Err))
		return nil
	}
	r := a.Response
	s.detail = r.GetDetail()
	switch r.GetStatus() {
	case storagev1.Status_STATUS_OK:
		o.answered(i, s, r)
	case storagev1.Status_STATUS_ABSENT:
		o.get.Absent(i)
	case storagev1.Status_STATUS_FENCED:
		if newer := o.c.refreshed(o.state, r.GetView()); newer != nil && o.restarts < maxRestarts {
			o.restarts++
			o.state, o.base = newer, len(o.sent)
			return o.start()
		}
		o.get.Failed(i, quorum.Fenced)
	default:
		o.get.Failed(i, causeOfStatus(r.GetStatus()))
	}
	return nil
}

// answered takes a record or a digest.
func (o *readOp) answered(i int, s *sent, r *storagev1.Response) {
	mismatches := o.get.Mismatches()
	o.marked = o.marked || r.GetMarked()
	if b := r.GetRetired(); len(b) > 0 {
		gone, err := causal.DecodeContext(b)
		if err != nil {
			s.detail = err.Error()
			o.get.Failed(i, quorum.Invalid)
			return
		}
		o.get.Retired(gone.Vector)
	}
	if s.do == quorum.Digest {
		if len(r.GetDigest()) != len(record.Digest{}) {
			o.get.Failed(i, quorum.Invalid)
			return
		}
		o.get.Digest(i, record.Digest(r.GetDigest()))
	} else {
		set, digest, err := decode(o.key, r.GetRecord())
		if err != nil {
			s.detail = err.Error()
			o.c.metrics.damaged.Inc()
			o.span.Log(o.c.cfg.Logger.Warn()).Err(err).Stringer("node", s.to).Str("request_id", o.trace).Msg("damaged record from node")
			o.get.Failed(i, quorum.Damaged)
			return
		}
		o.get.Record(i, set, digest, r.GetRecord())
	}
	if n := o.get.Mismatches() - mismatches; n > 0 {
		o.c.metrics.mismatches.Add(float64(n))
	}
}

// decode reads a record and verifies all of it.
func decode(key, raw []byte) (causal.Set, record.Digest, error) {
	set, err := record.Decode(key, raw)
	if err != nil {
		return causal.Set{}, record.Digest{}, err
	}
	for i := range set.Siblings {
		if s := &set.Siblings[i]; record.Checksum(s.Value) != s.Checksum {
			return causal.Set{}, record.Digest{}, record.ErrDamaged
		}
	}
	digest, err := record.DigestOf(raw)
	return set, digest, err
}

// refreshed merges the view of a refusal and returns the newest state if it is newer than old, else nil.
func (c *Coordinator) refreshed(old *nodeclient.State, view []byte) *nodeclient.State {
	if s := c.replicas.State(); s.Generation != old.Generation {
		return s // another request has learned it, or the watch
	}
	if len(view) == 0 {
		return nil
	}
	c.replicas.Learn(view)
	if s := c.replicas.State(); s.Generation != old.Generation {
		c.metrics.restarts.Inc()
		return s
	}
	return nil
}

// verdict turns what was decided into an error, nil where the quorum was reached.
func (o *readOp) verdict() *Error {
	switch o.get.Verdict() {
	case quorum.Reached:
		return nil
	case quorum.Stale:
		return &Error{Kind: StaleRead, Replicas: o.reports(nil)}
	default:
		return &Error{Kind: kindOfCause(o.get.Shortfall()), Replicas: o.reports(nil)}
	}
}

// repair sends the answer to the primaries that are known to lack something of it, and returns which.
func (o *readOp) repair() map[ring.NodeID]bool {
	if o.marked {
		return nil // it would come back where it was removed already
	}
	var raw []byte
	var repaired map[ring.NodeID]bool
	for i := range o.get.Len() {
		if !o.get.Repair(i) {
			continue
		}
		if raw == nil {
			if raw = o.get.Raw(); raw == nil {
				raw = record.Append(nil, o.key, o.get.Set())
			}
		}
		if n := o.get.Node(i); o.repairNode(n, raw) {
			if repaired == nil {
				repaired = make(map[ring.NodeID]bool)
			}
			repaired[n] = true
		}
	}
	return repaired
}

// repairNode sends a merged record to a stale replica and does not wait. It returns false where too many such are in
// flight, or the node is away.
func (o *readOp) repairNode(to ring.NodeID, raw []byte) bool {
	c := o.c
	if !c.replicas.Health(to).Connected {
		return false
	}
	if c.repairs.Add(1) > int64(c.cfg.MaxRepairs) {
		c.repairs.Add(-1)
		c.metrics.repairsOff.Inc()
		return false
	}
	c.metrics.repairs.Inc()
	call := nodeclient.Call{To: to, Layouts: o.state.Names, Obtained: o.begin, Deadline: time.Now().Add(c.cfg.ReplicateFor), Deliver: c.mended,
		Request: &storagev1.Request{Op: storagev1.Op_OP_APPLY, Key: o.key, Record: raw, Cause: storagev1.Cause_CAUSE_REPAIR, Trace: o.trace}}
	traced(&call, o.span, "repair", o.state)
	c.replicas.Send(call)
	return true
}

// repaired ends a repair: what failed is left to the next read and to anti-entropy.
func (c *Coordinator) repaired(nodeclient.Answer) { c.repairs.Add(-1) }

// reports tells what each replica did.
func (o *readOp) reports(repaired map[ring.NodeID]bool) []Report {
	out := make([]Report, 0, o.get.Len())
	for i := range o.get.Len() {
		q := o.get.Report(i)
		r := Report{Node: o.get.Node(i), Did: "not asked", Clock: o.get.Clock(i)}
		r.Name, r.Repaired = o.state.Name(r.Node), repaired[r.Node]
		if !q.Asked {
			if h := o.c.replicas.Health(r.Node); !h.Connected {
				r.Detail = quorum.Away.String()
			} else if h.Suspect {
				r.Detail = "suspect"
			}
			out = append(out, r)
			continue
		}
		last := o.last(r.Node)
		r.Did, r.At, r.Queued, r.Detail = last.do.String(), last.at, last.queued, last.detail
		switch {
		case q.Waiting:
			r.Detail = "no answer"
		case q.Cause != quorum.None:
			r.Detail = describe(q.Cause, last.detail)
		case q.Absent:
			r.Detail = "no record"
		case q.Digest:
			r.Detail = "same digest"
		case q.Counted:
			r.Detail = "record merged"
		}
		out = append(out, r)
	}
	return out
}

// describe joins a cause with what the node said.
func describe(c quorum.Cause, detail string) string {
	if detail == "" {
		return c.String()
	}
	return c.String() + ": " + detail
}

// last returns the latest call to a node.
func (o *readOp) last(n ring.NodeID) sent {
	for i := len(o.sent) - 1; i >= o.base; i-- {
		if o.sent[i].to == n {
			return o.sent[i]
		}
	}
	return sent{}
}
