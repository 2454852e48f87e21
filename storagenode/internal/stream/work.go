package stream

import (
	"errors"
	"sync/atomic"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

// refusals maps what the store says to what a gateway hears. Anything else is FAILED. Only ErrInDoubt and FAILED leave
// it open whether a write happened.
var refusals = []struct {
	err    error
	status storagev1.Status
}{
	{kv.ErrNotFound, storagev1.Status_STATUS_ABSENT},
	{kv.ErrInDoubt, storagev1.Status_STATUS_FAILED},
	{kv.ErrBehind, storagev1.Status_STATUS_BEHIND},
	{kv.ErrOverloaded, storagev1.Status_STATUS_OVERLOADED},
	{kv.ErrStale, storagev1.Status_STATUS_UNAVAILABLE},
	{kv.ErrHintsFull, storagev1.Status_STATUS_OVERLOADED},
	{kv.ErrExpired, storagev1.Status_STATUS_EXPIRED},
	{kv.ErrTooManySiblings, storagev1.Status_STATUS_TOO_LARGE},
	{kv.ErrTooLarge, storagev1.Status_STATUS_TOO_LARGE},
	{kv.ErrClockTooLarge, storagev1.Status_STATUS_TOO_LARGE},
	{kv.ErrInvalid, storagev1.Status_STATUS_INVALID},
	{kv.ErrDiskFull, storagev1.Status_STATUS_DISK_FULL},
	{kv.ErrReopening, storagev1.Status_STATUS_UNAVAILABLE},
	{kv.ErrClosed, storagev1.Status_STATUS_UNAVAILABLE},
}

func statusOf(err error) storagev1.Status {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.status
		}
	}
	return storagev1.Status_STATUS_FAILED
}

// process works on the requests of one job, one after another.
func (s *Server) process(j job) {
	for _, r := range j.requests {
		j.frame.spans[r.GetId()].begin()
		s.request(j.conn, j.frame, r)
	}
}

func (s *Server) request(c *conn, f *frame, r *storagev1.Request) {
	switch {
	case r.GetId() == 0 || len(r.GetKey()) == 0 || len(r.GetKey()) > kv.MaxKey:
		s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, "a request needs an id, and a key of 1 to 250 bytes")
		return
	case f.fault != "":
		s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, f.fault)
		return
	case time.Since(f.at) >= time.Duration(r.GetTimeoutMs())*time.Millisecond:
		s.refuse(c, f, r, storagev1.Status_STATUS_EXPIRED, "")
		return
	case s.cfg.Layouts.Encoded() == nil:
		s.refuse(c, f, r, storagev1.Status_STATUS_UNAVAILABLE, "the node has no layout yet")
		return
	}
	if s.cfg.InDoubt() && s.doubtful(c, f, r) {
		return
	}
	switch r.GetOp() {
	case storagev1.Op_OP_MINT:
		s.mint(c, f, r)
	case storagev1.Op_OP_APPLY:
		s.apply(c, f, r)
	case storagev1.Op_OP_READ, storagev1.Op_OP_DIGEST, storagev1.Op_OP_INSPECT:
		s.read(c, f, r)
	default:
		s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, "unknown operation")
	}
}

// doubtful refuses what must not be answered from a store in doubt: reads, since neither a record nor its absence proves
// anything, and clients' writes, since the fence may have been lost too. Repairs and transfers are what heals it.
func (s *Server) doubtful(c *conn, f *frame, r *storagev1.Request) bool {
	const why = "the node's disk lost data and is being refilled"
	switch {
	case r.GetOp() == storagev1.Op_OP_READ, r.GetOp() == storagev1.Op_OP_DIGEST, r.GetOp() == storagev1.Op_OP_INSPECT:
		s.refuse(c, f, r, storagev1.Status_STATUS_FAILED, why)
	case r.GetOp() == storagev1.Op_OP_MINT, r.GetCause() == storagev1.Cause_CAUSE_WRITE:
		s.refuse(c, f, r, storagev1.Status_STATUS_UNAVAILABLE, why)
	default:
		return false
	}
	return true
}

// finish sends the final answer to a request.
func (s *Server) finish(c *conn, f *frame, r *storagev1.Request, resp *storagev1.Response) {
	took := time.Since(f.at)
	s.metrics.answered(r.GetOp(), resp.Status, took)
	if resp.Durable {
		s.writes.Add(1)
		s.writing.Add(int64(took))
	}
	f.spans[r.GetId()].end(f.at, resp.Status)
	c.answer(resp)
	s.done(1)
}

func (s *Server) refuse(c *conn, f *frame, r *storagev1.Request, st storagev1.Status, detail string) {
	resp := &storagev1.Response{Id: r.GetId(), Status: st, Detail: detail}
	if st == storagev1.Status_STATUS_FENCED {
		resp.View = s.cfg.Layouts.Encoded()
	}
	s.finish(c, f, r, resp)
}

// fail answers with what the store says. What points to trouble in this node is logged.
func (s *Server) fail(c *conn, f *frame, r *storagev1.Request, err error) {
	s.failAs(c, f, r, err, statusOf(err))
}

// failWrite answers for a write that the store would not take. Unless the store is in doubt nothing was done, whatever
// the reason (a local read that failed, say), so that another node may be asked instead.
func (s *Server) failWrite(c *conn, f *frame, r *storagev1.Request, err error) {
	st := statusOf(err)
	if st == storagev1.Status_STATUS_FAILED && !errors.Is(err, kv.ErrInDoubt) {
		line(s.log.Warn(), r).Err(err).Str("peer", c.peer).Stringer("op", r.GetOp()).Msg("write refused")
		st = storagev1.Status_STATUS_UNAVAILABLE
	}
	s.failAs(c, f, r, err, st)
}

func (s *Server) failAs(c *conn, f *frame, r *storagev1.Request, err error, st storagev1.Status) {
	detail := ""
	if st != storagev1.Status_STATUS_ABSENT {
		detail = err.Error()
	}
	if st == storagev1.Status_STATUS_FAILED {
		line(s.log.Warn(), r).Err(err).Str("peer", c.peer).Stringer("op", r.GetOp()).Msg("request failed")
	}
	s.refuse(c, f, r, st, detail)
}

func (s *Server) read(c *conn, f *frame, r *storagev1.Request) {
	if int(r.GetLayout()) >= len(f.live) {
		s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, "the read names a layout that the frame does not hold")
		return
	}
	if !s.cfg.Layouts.AdmitRead(f.live[r.GetLayout()]) {
		s.refuse(c, f, r, storagev1.Status_STATUS_FENCED, "")
		return
	}
	resp := &storagev1.Response{Id: r.GetId(), Status: storagev1.Status_STATUS_OK}
	if gone := s.cfg.Store.Retired(r.GetKey()); len(gone) > 0 {
		resp.Retired = causal.AppendContext(nil, causal.Context{Vector: gone})
	}
	if r.GetOp() != storagev1.Op_OP_DIGEST {
		rec, marked, err := s.record(r.GetKey())
		if err != nil {
			s.fail(c, f, r, err)
			return
		}
		resp.Record, resp.Marked = rec, marked
		if r.GetOp() == storagev1.Op_OP_INSPECT {
			resp.Why = s.cfg.Why(r.GetKey())
		}
		s.finish(c, f, r, resp)
		return
	}
	digest, marked, err := s.digest(r.GetKey())
	if err != nil {
		s.fail(c, f, r, err)
		return
	}
	resp.Digest, resp.Marked = digest[:], marked
	s.finish(c, f, r, resp)
}

func (s *Server) apply(c *conn, f *frame, r *storagev1.Request) {
	fenced := r.GetCause() == storagev1.Cause_CAUSE_WRITE
	if r.GetCause() == storagev1.Cause_CAUSE_UNSPECIFIED {
		s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, "an apply needs a cause")
		return
	}
	targets, fault := s.hintTargets(r)
	if fault == "" && len(targets) > 0 && !fenced {
		fault = "only a client's write is kept as a hint"
	}
	if fault != "" {
		s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, fault)
		return
	}
	limit, err := s.limit(r.GetHeard())
	if err != nil {
		s.failWrite(c, f, r, err)
		return
	}
	if fenced && !s.cfg.Layouts.BeginWrite(f.live) {
		s.refuse(c, f, r, storagev1.Status_STATUS_FENCED, "")
		return
	}
	done := func(err error) {
		s.committed(f, r)
		if err != nil {
			s.fail(c, f, r, err)
			return
		}
		s.finish(c, f, r, &storagev1.Response{Id: r.GetId(), Status: storagev1.Status_STATUS_OK, Durable: true})
	}
	if len(targets) > 0 {
		err = s.cfg.Store.ApplyHintBefore(limit, targets, r.GetKey(), r.GetRecord(), done)
	} else {
		err = s.cfg.Store.ApplyBefore(limit, r.GetKey(), r.GetRecord(), func(_ bool, err error) { done(err) })
	}
	if fenced {
		s.cfg.Layouts.EndWrite()
	}
	if err != nil {
		s.failWrite(c, f, r, err)
	}
}

func (s *Server) mint(c *conn, f *frame, r *storagev1.Request) {
	targets, fault := s.hintTargets(r)
	if fault != "" {
		s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, fault)
		return
	}
	if len(targets) == 0 && !s.cfg.Layouts.Owns(ring.SlotOf(r.GetKey())) {
		s.refuse(c, f, r, storagev1.Status_STATUS_UNAVAILABLE, "the node does not own the key")
		return
	}
	m := kv.Mint{
		Key: r.GetKey(), Value: r.GetValue(), ContentType: r.GetContentType(), Meta: r.GetMeta(), Tombstone: r.GetTombstone(),
		Checksum: r.GetChecksum(), RequestID: r.GetRequestId(), ClientRequestID: r.GetClientRequestId(), Base: r.GetBase(),
		Deadline: f.at.Add(time.Duration(r.GetTimeoutMs()) * time.Millisecond),
		HintFor:  targets, LastWriteWins: r.GetLastWriteWins(),
	}
	copy(m.AskedActor[:], r.GetAskedActor())
	if len(m.Base) > 0 {
		var err error
		if m.BaseLimit, err = s.limit(r.GetHeard()); err != nil {
			s.failWrite(c, f, r, err)
			return
		}
	}
	if r.GetHasContext() {
		ctx, err := causal.DecodeContext(r.GetContext())
		if err != nil {
			s.refuse(c, f, r, storagev1.Status_STATUS_INVALID, err.Error())
			return
		}
		m.Context = &ctx
	}
	if !s.cfg.Layouts.BeginWrite(f.live) {
		s.refuse(c, f, r, storagev1.Status_STATUS_FENCED, "")
		return
	}
	w := &minting{s: s, c: c, f: f, r: r}
	minted, err := s.cfg.Store.Mint(m, w.durable)
	s.cfg.Layouts.EndWrite()
	if err != nil {
		s.failWrite(c, f, r, err)
		return
	}
	w.issued(minted)
}

// minting joins the two ends of a mint, the worker's and the committer's, which come in either order.
type minting struct {
	s     *Server
	c     *conn
	f     *frame
	r     *storagev1.Request
	err   error       // of the commit; set before ended
	ended atomic.Bool // whichever end comes second answers for the commit
}

// durable is called by the committer, once.
func (w *minting) durable(err error) {
	w.s.committed(w.f, w.r)
	w.err = err
	if w.ended.Swap(true) {
		w.second()
	}
}

// issued is called by the worker, once. Where the commit has ended already, its outcome goes into the one answer.
func (w *minting) issued(m kv.Minted) {
	committed := w.ended.Load() // looked at once: err may be set at any moment until then
	if committed && w.err != nil {
		w.second()
		return
	}
	resp := &storagev1.Response{Id: w.r.GetId(), Status: storagev1.Status_STATUS_OK, Record: m.Record,
		DotActor: m.Dot.Actor[:], DotCounter: m.Dot.Counter}
	if len(w.r.GetValue()) >= valueCutMin && !m.Repeated {
		// A repeated mint's first value need not be the one that came now, so its record stays whole.
		if from, to, err := record.ValueSpan(w.r.GetKey(), m.Record, m.Dot); err == nil && to-from == len(w.r.GetValue()) {
			resp.Record, resp.ValueCut, resp.ValueAt = without(m.Record, from, to), true, uint32(from)
		}
	}
	if committed {
		resp.Durable = true
		w.s.finish(w.c, w.f, w.r, resp)
		return
	}
	w.s.metrics.issued(time.Since(w.f.at))
	w.f.spans[w.r.GetId()].event("dot issued")
	w.c.answer(resp)
	if w.ended.Swap(true) {
		w.second()
	}
}

// second answers for the commit.
func (w *minting) second() {
	if w.err != nil {
		w.s.fail(w.c, w.f, w.r, w.err)
		return
	}
	w.s.finish(w.c, w.f, w.r, &storagev1.Response{Id: w.r.GetId(), Status: storagev1.Status_STATUS_OK, Durable: true})
}

// without returns b without [from, to); b is not modified, and not copied where the span is at its end.
func without(b []byte, from, to int) []byte {
	if to == len(b) {
		return b[:from:from]
	}
	out := make([]byte, 0, len(b)-(to-from))
	return append(append(out, b[:from]...), b[to:]...)
}
