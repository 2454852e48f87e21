package coordinator

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// reconnectPoll is how often a put whose mint may have happened looks whether that node is connected again.
	reconnectPoll = 10 * time.Millisecond
	// mintBackoff is the pause before a mint that may have happened is asked for again, doubled each time up to the cap.
	mintBackoff    = 10 * time.Millisecond
	mintBackoffMax = 250 * time.Millisecond
	// maxMintFailures bounds how often a node may fail a mint before the put is given up: what fails thrice in a row is
	// a disk, not an accident.
	maxMintFailures = 3
)

// putOp is one write.
type putOp struct {
	c        *Coordinator
	state    *nodeclient.State
	req      *PutRequest
	slot     ring.Slot
	begin    time.Time
	deadline time.Time
	put      quorum.Put
	in       inbox
	deliver  func(nodeclient.Answer)
	sent     []sent
	scratch  []nodeclient.Answer

	context  []byte // binary form of req.Context
	base     []byte // record to mint on
	record   []byte // as minted; in joined, as a rule
	set      causal.Set
	dot      causal.Dot
	failures int           // of the mint, in the middle of it
	pauses   int           // before asking for it again
	retryAt  time.Duration // when a doubtful mint may be asked for again
	asked    causal.Actor  // the life of the node that was asked to mint
	tooMany  bool          // the refusal for size was one for siblings

	sentBuf    [4]sent
	scratchBuf [4]nodeclient.Answer
	requests   [3]storagev1.Request
	used       int
	layoutBuf  [2]quorum.PutLayout

	standIns      bool // nodes that own nothing of the key may stand in
	fallbackLists [2][]ring.NodeID
	issuedAt      time.Duration // when the dot was issued
	wasLate       bool          // those that had not answered were given up waiting for
	after         sync.Mutex    // of everything here, once the caller was answered

	// The value that came with the request and the record that was joined with it are in buffers that others use next. They
	// are held by the caller's goroutine until it leaves, and by each call until the client is done with it: only whoever has
	// a hold may look at them, or take another. What is forgotten is left to the garbage collector.
	holds  atomic.Int32
	joined *[]byte // from Coordinator.buffers
	done   func()
}

// drop gives up a hold. The last one gives the buffers back.
func (o *putOp) drop() {
	if o.holds.Add(-1) > 0 {
		return
	}
	if o.joined != nil {
		o.c.buffers.Put(o.joined)
		o.joined = nil
	}
	if o.req.Release != nil {
		o.req.Release()
	}
}

// join makes the minted record of a value and what is before and behind it. A record that was joined before may be on its
// way, so its buffer is forgotten.
func (o *putOp) join(before, value, behind []byte) []byte {
	o.joined = o.c.buffers.Get(len(before) + len(value) + len(behind))
	b := append(append(append((*o.joined)[:0], before...), value...), behind...)
	*o.joined = b
	return b
}

// put carries out one write with the replicas.
func (c *Coordinator) put(ctx context.Context, req *PutRequest) (PutResult, *Error) {
	state := c.replicas.State()
	if state == nil {
		return PutResult{}, &Error{Kind: NoLayout, Outcome: NotApplied}
	}
	if err := c.writeQuorum(req.W, state.Live); err != nil {
		return PutResult{}, &Error{Kind: BadQuorum, Outcome: NotApplied, Err: err}
	}
	o := &putOp{c: c, state: state, req: req, slot: ring.SlotOf(req.Key), begin: time.Now()}
	o.in.init(plainWrite)
	o.deliver, o.done = o.receive, o.drop
	o.holds.Store(1)
	defer o.leave()
	o.sent, o.scratch = o.sentBuf[:0], o.scratchBuf[:0]
	if req.Context != nil {
		o.context = causal.AppendContext(nil, *req.Context)
	}
	if req.RequestID == "" {
		req.RequestID = rand.Text()
	}
	if err := o.run(ctx); err != nil {
		return PutResult{}, err
	}
	res := PutResult{Context: causal.Answer(req.Context, o.set, o.dot), Siblings: len(o.set.Shown()), Acks: o.put.Acks(), Hinted: o.put.Hinted(), Minted: o.issuedAt}
	if res.Hinted > 0 {
		c.metrics.hintedPuts.Inc()
	}
	if req.Explain || slow(req.SlowAfter, o.begin) {
		res.Reports = o.reports()
	}
	return res, nil
}

// run asks until the decider has its verdict, the time is up, or the caller goes away.
func (o *putOp) run(ctx context.Context) *Error {
	o.deadline, _ = ctx.Deadline()
	o.put.Start(o.config())
	defer func() {
		if n := o.put.Retries(); n > 0 {
			o.c.metrics.mintRetries.Add(float64(n))
		}
	}()
	var timer *time.Timer
	for {
		if done := o.steps(ctx); done {
			return o.verdict()
		}
		if o.req.Explain {
			o.in.expect(1) // reports tell when each answer came
		} else {
			o.in.expect(o.put.Lacks())
		}
		wait := o.alarm()
		if timer == nil {
			timer = o.c.timer(wait)
			defer o.c.putTimer(timer)
		} else {
			timer.Reset(wait)
		}
		select {
		case <-o.in.wake:
			o.take()
		case <-timer.C:
			if err := timeUp(ctx); err != nil {
				return o.timeOut(err)
			}
			o.take() // some of what was waited for may be there
			o.retry()
			o.late()
		case <-ctx.Done():
			return o.timeOut(context.Cause(ctx))
		}
	}
}

func (o *putOp) timeOut(err error) *Error {
	return &Error{Kind: DeadlinePassed, Outcome: o.outcome(), Replicas: o.reports(), Err: err}
}

// take tells the decider of the answers that are there.
func (o *putOp) take() {
	o.scratch = o.in.take(o.scratch[:0])
	for i := range o.scratch {
		o.answer(&o.scratch[i])
	}
	clear(o.scratch)
}

// config describes the live layouts to the decider.
func (o *putOp) config() quorum.PutConfig {
	layouts := o.layoutBuf[:0]
	for _, l := range o.state.Live {
		layouts = append(layouts, quorum.PutLayout{ID: l.ID(), Owners: l.Primaries(o.slot), Need: o.c.need(o.req.W, l)})
	}
	cfg := quorum.PutConfig{Layouts: layouts, Read: int(o.state.ReadIndex), Health: o.c.look}
	if o.standIns = o.req.Sloppy && spare(o.state.Live); o.standIns {
		o.fallbackLists = [2][]ring.NodeID{}
		cfg.Fallbacks = o.fallbacks
	}
	return cfg
}

func (o *putOp) now() time.Duration { return time.Since(o.begin) }

// steps does what the decider wants, and returns whether it has decided.
func (o *putOp) steps(ctx context.Context) (done bool) {
	for {
		switch s := o.put.Next(); s.Do {
		case quorum.Mint:
			o.sendMint(s.Replica)
		case quorum.Apply:
			o.sendApply(s.Replica)
		case quorum.Gather:
			o.put.Gathered(o.gather(ctx))
		case quorum.Finish:
			return true
		default:
			return false
		}
	}
}

func (o *putOp) request() *storagev1.Request {
	if o.used < len(o.requests) {
		o.used++
		return &o.requests[o.used-1]
	}
	return &storagev1.Request{}
}

func (o *putOp) sendMint(i int) {
	r, req := o.request(), o.req
	if o.put.MayBeRepeated() {
		r.AskedActor = bytes.Clone(o.asked[:])
	} else {
		o.asked = o.c.replicas.Health(o.put.Node(i)).Actor
	}
	r.Op, r.Key, r.Trace = storagev1.Op_OP_MINT, req.Key, req.Trace
	r.Value, r.ContentType, r.Meta, r.Tombstone, r.Checksum = req.Value, req.ContentType, req.Meta, req.Tombstone, req.Checksum
	r.LastWriteWins = o.c.cfg.Policies.LastWriteWins(req.Key)
	r.HasContext, r.Context = req.Context != nil, o.context
	r.RequestId, r.ClientRequestId, r.Base = req.RequestID, req.ClientRequestID, o.base
	r.HintFor = o.hintFor(i)
	o.c.replicas.Send(o.call(i, quorum.Mint, r, o.deadline))
}

// sendApply sends the minted record. It may arrive after the client's deadline: a write that happened should be
// everywhere.
func (o *putOp) sendApply(i int) { o.c.replicas.Send(o.applyCall(i)) }

func (o *putOp) applyCall(i int) nodeclient.Call {
	r := o.request()
	r.Op, r.Key, r.Trace = storagev1.Op_OP_APPLY, o.req.Key, o.req.Trace
	r.Record, r.Cause, r.HintFor = o.record, storagev1.Cause_CAUSE_WRITE, o.hintFor(i)
	deadline := time.Now().Add(o.c.cfg.ReplicateFor)
	if deadline.Before(o.deadline) {
		deadline = o.deadline
	}
	return o.call(i, quorum.Apply, r, deadline)
}

func (o *putOp) call(i int, do quorum.Do, r *storagev1.Request, deadline time.Time) nodeclient.Call {
	to, tag := o.put.Node(i), len(o.sent)
	o.sent = append(o.sent, sent{to: to, do: do, round: o.put.Round()})
	o.holds.Add(1)
	call := nodeclient.Call{To: to, Tag: uint64(tag), Request: r, Layouts: o.state.Names, Obtained: o.begin, Deadline: deadline,
		Deliver: o.deliver, Done: o.done}
	name := do.String()
	if do == quorum.Apply && len(r.GetHintFor()) > 0 {
		name = "hint"
	}
	traced(&call, o.req.Span, name, o.state)
	return call
}

// gather reads all replicas for a record that covers the context's dots.
func (o *putOp) gather(ctx context.Context) (ok bool) {
	r := &readOp{}
	r.init(o.c, o.state, o.req.Key, o.req.Trace)
	r.span = o.req.Span
	r.wide, r.context = true, &causal.Context{Dots: o.req.Context.Dots}
	if err := r.run(ctx); err != nil {
		return false
	}
	if o.base = r.get.Raw(); o.base == nil {
		o.base = record.Append(nil, o.req.Key, r.get.Set())
	}
	return true
}

// retry asks a node again for a mint that may have happened there, once it is connected. One that lives anew has forgotten
// the request: it would mint the value again, maybe after somebody has read it, and replaced or deleted it.
func (o *putOp) retry() {
	i, doubtful := o.put.Doubtful()
	if !doubtful {
		return
	}
	switch h := o.c.replicas.Health(o.put.Node(i)); {
	case !h.Connected:
	case h.Actor != o.asked:
		o.put.GiveUp()
	case o.now() >= o.retryAt:
		o.put.Again()
	}
}

// backOff says when a doubtful mint may be asked for again.
func (o *putOp) backOff() {
	wait := mintBackoff << min(o.pauses, 8)
	o.pauses++
	o.retryAt = o.now() + min(wait, mintBackoffMax)
}

// answer tells the decider of an answer.
func (o *putOp) answer(a *nodeclient.Answer) {
	s := &o.sent[a.Tag]
	s.arrived(a, o.begin)
	i := o.put.Find(s.to)
	if i < 0 {
		return // it owns the key no more
	}
	if a.Err != nil {
		s.detail = a.Err.Error()
	} else {
		s.detail = a.Response.GetDetail()
	}
	switch {
	case a.Err == nil && a.Response.GetStatus() == storagev1.Status_STATUS_FENCED:
		if newer := o.c.refreshed(o.state, a.Response.GetView()); newer != nil {
			o.state = newer
			o.put.Refresh(o.config())
			i = o.put.Find(s.to)
		}
		if i >= 0 {
			o.put.Fenced(i, s.round)
		}
	case s.do == quorum.Mint && !s.issued:
		o.minted(i, s, a)
	case a.Err != nil:
		o.put.Failed(i, s.round, causeOfError(a.Err))
	case s.do == quorum.Mint && a.Response.GetStatus() == storagev1.Status_STATUS_OK && !a.Response.GetDurable():
		// The first answer once more.
	case a.Response.GetStatus() == storagev1.Status_STATUS_OK && a.Response.GetDurable():
		o.put.Durable(i, s.round)
	default:
		o.put.Failed(i, s.round, causeOfStatus(a.Response.GetStatus()))
	}
}

// minted takes the first answer to a mint.
func (o *putOp) minted(i int, s *sent, a *nodeclient.Answer) {
	if a.Err != nil {
		cause := causeOfError(a.Err)
		if cause == quorum.Lost {
			o.backOff()
			o.put.Doubt(i, cause)
			return
		}
		o.refused(i, s, cause)
		return
	}
	r := a.Response
	if r.GetStatus() != storagev1.Status_STATUS_OK {
		cause := causeOfStatus(r.GetStatus())
		if cause == quorum.Failed {
			o.doubt(i, cause)
			return
		}
		o.tooMany = cause == quorum.TooLarge && strings.Contains(r.GetDetail(), causal.ErrTooManySiblings.Error())
		o.refused(i, s, cause)
		return
	}
	if err := o.takeRecord(r); err != nil {
		s.detail = err.Error()
		o.c.metrics.damaged.Inc()
		o.req.Span.Log(o.c.cfg.Logger.Warn()).Err(err).Stringer("node", s.to).Str("request_id", o.req.Trace).Msg("damaged answer to a mint")
		o.doubt(i, quorum.Damaged)
		return
	}
	s.issued, o.issuedAt = true, o.now()
	o.put.Issued(i)
	if r.GetDurable() {
		o.put.Durable(i, s.round)
	}
}

// refused: the mint was not done.
func (o *putOp) refused(i int, s *sent, cause quorum.Cause) {
	o.backOff() // meant only where an earlier mint may have happened there
	o.put.Failed(i, s.round, cause)
}

// doubt: the node failed in the middle of the mint. It is asked again, a few times.
func (o *putOp) doubt(i int, cause quorum.Cause) {
	o.backOff()
	o.put.Doubt(i, cause)
	if o.failures++; o.failures >= maxMintFailures {
		o.put.GiveUp()
	}
}

// takeRecord rebuilds the minted record from the first answer: the node leaves the value out, which is here already.
func (o *putOp) takeRecord(r *storagev1.Response) error {
	raw := r.GetRecord()
	if r.GetValueCut() {
		at := int(r.GetValueAt())
		if at > len(raw) {
			return fmt.Errorf("%w: the value was cut out at %d of %d bytes", record.ErrDamaged, at, len(raw))
		}
		raw = o.join(raw[:at], o.req.Value, raw[at:])
	}
	if len(r.GetDotActor()) != len(causal.Actor{}) || r.GetDotCounter() == 0 {
		return fmt.Errorf("%w: no dot", record.ErrDamaged)
	}
	set, err := record.Decode(o.req.Key, raw)
	if err != nil {
		return err
	}
	dot := causal.Dot{Actor: causal.Actor(r.GetDotActor()), Counter: r.GetDotCounter()}
	if !set.Clock.Covers(dot) {
		return fmt.Errorf("%w: it does not cover its dot", record.ErrDamaged)
	}
	o.record, o.set, o.dot = raw, set, dot
	return nil
}

func (o *putOp) outcome() Outcome {
	if o.put.NotApplied() {
		return NotApplied
	}
	return InDoubt
}

// verdict turns what was decided into an error, nil where the quorum was reached.
func (o *putOp) verdict() *Error {
	err := &Error{Outcome: o.outcome()}
	switch o.put.Verdict() {
	case quorum.Reached:
		return nil
	case quorum.Stale:
		err.Kind = StaleContext
	default:
		err.Kind = kindOfCause(o.put.Shortfall())
		if err.Kind == TooLarge && o.tooMany {
			err.Kind = TooManySiblings
		}
	}
	err.Replicas = o.reports()
	return err
}

// reports tells what each machine did.
func (o *putOp) reports() []Report {
	out := make([]Report, 0, o.put.Len())
	for i := range o.put.Len() {
		q := o.put.Report(i)
		r := Report{Node: o.put.Node(i), Did: "not asked"}
		r.Name = o.state.Name(r.Node)
		last, asked := o.last(r.Node)
		if !asked {
			if !q.Connected {
				r.Detail = quorum.Away.String()
			}
			out = append(out, r)
			continue
		}
		r.Did, r.At, r.Queued = last.do.String(), last.at, last.queued
		if q.StandIn {
			r.Did = "hint"
		}
		switch {
		case q.Durable:
			r.Detail = "durable"
		case q.Cause != quorum.None:
			r.Detail = describe(q.Cause, last.detail)
		case q.Waiting:
			r.Detail = "no answer"
		}
		out = append(out, r)
	}
	return out
}

// last returns the latest call to a node.
func (o *putOp) last(n ring.NodeID) (sent, bool) {
	for i := len(o.sent) - 1; i >= 0; i-- {
		if o.sent[i].to == n {
			return o.sent[i], true
		}
	}
	return sent{}, false
}
