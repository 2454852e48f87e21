package nodeclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	protocolVersion = 1
	// helloWait bounds how long a node may take to answer a hello once it is connected.
	helloWait = 3 * time.Second
	// requestOverhead is above what a request takes in a frame beside its byte fields.
	requestOverhead = 96
)

// pending is a call that was not answered for good, or whose request may still be looked at.
type pending struct {
	call   Call
	id     uint64
	op     storagev1.Op
	sent   time.Time     // when it was queued
	queued time.Duration // until it was taken
	taken  bool          // by the sender: it may have reached the wire
	issued bool          // a mint that was answered and whose durability is to come
	holds  atomic.Int32  // one of whoever answers, and one of the sender
}

// drop gives up a hold: after the last answer was delivered, or once the request was put into a frame, which copies it, or
// never will be.
func (p *pending) drop() {
	if p.holds.Add(-1) == 0 && p.call.Done != nil {
		p.call.Done()
	}
}

// dropSent gives up the sender's hold of calls; nil among them are heartbeats.
func dropSent(calls []*pending) {
	for _, p := range calls {
		if p != nil {
			p.drop()
		}
	}
}

// stream is one open Exchange. One goroutine sends, one receives.
type stream struct {
	peer        *peer
	rpc         grpc.BidiStreamingClient[storagev1.Frame, storagev1.Frame]
	out         *wire.Outbox[*pending] // nil is a heartbeat
	contextKeys [][]byte
	actor       causal.Actor // of the node, when the stream was opened

	mu      sync.Mutex
	ended   bool
	nextID  uint64
	waiting map[uint64]*pending

	frames uint64 // sent; the heartbeat number, of the sender's goroutine
}

// hello opens a stream and waits for the node's hello. cancel ends ctx.
func (c *Client) hello(ctx context.Context, cancel context.CancelFunc, p *peer, slot int) (*stream, error) {
	rpc, err := storagev1.NewStorageClient(p.conns[slot]).Exchange(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	h := &storagev1.Hello{Version: protocolVersion, Peer: c.cfg.ID[:]}
	var cluster ring.ClusterID
	if s := c.state.Load(); s != nil {
		cluster = s.Cluster
		h.Cluster = cluster[:]
	}
	for _, k := range c.cfg.ContextKeys {
		h.ContextKeys = append(h.ContextKeys, k[:])
	}
	if err := rpc.Send(&storagev1.Frame{Hello: h, Heartbeat: 1}); err != nil {
		return nil, streamError(rpc, err)
	}
	// A timer that fires as the answer comes ends a stream that was just opened, and no harm is done.
	late := time.AfterFunc(helloWait, cancel)
	defer late.Stop()
	answer, err := rpc.Recv()
	if err != nil {
		return nil, fmt.Errorf("node's hello: %w", err)
	}
	switch a := answer.GetHello(); {
	case a == nil || a.GetVersion() != protocolVersion:
		return nil, fmt.Errorf("node speaks version %d of the protocol", a.GetVersion())
	case string(a.GetPeer()) != string(p.id[:]):
		return nil, fmt.Errorf("another node answers at the address of %s: %x", p.id, a.GetPeer())
	case !cluster.IsZero() && string(a.GetCluster()) != string(cluster[:]):
		return nil, fmt.Errorf("node belongs to cluster %x", a.GetCluster())
	default:
		p.beats.Add(time.Now(), answer.GetHeartbeat())
		var actor causal.Actor
		copy(actor[:], a.GetActor())
		return &stream{peer: p, rpc: rpc, contextKeys: a.GetContextKeys(), actor: actor, frames: 1,
			out:     wire.NewOutbox[*pending](c.cfg.QueueItems, c.cfg.QueueBytes),
			waiting: make(map[uint64]*pending)}, nil
	}
}

// streamError returns why a send failed: gRPC tells that on the receiving side.
func streamError(rpc grpc.BidiStreamingClient[storagev1.Frame, storagev1.Frame], sendErr error) error {
	if _, err := rpc.Recv(); err != nil {
		return err
	}
	return sendErr
}

// run sends and receives until either fails, and returns why.
func (s *stream) run(ctx context.Context, cancel context.CancelFunc) error {
	var sending sync.WaitGroup
	sending.Go(func() {
		s.sendAll(ctx)
		cancel()
	})
	err := s.receiveAll()
	cancel()
	sending.Wait()
	return err
}

// send queues a call.
func (s *stream) send(call Call) {
	p := &pending{call: call, op: call.Request.GetOp(), sent: time.Now()}
	p.holds.Store(2)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		s.answer(p, ErrNotConnected, reasonNotSent)
		p.drop()
		return
	}
	s.nextID++
	p.id = s.nextID
	call.Request.Id = p.id
	s.waiting[p.id] = p
	s.mu.Unlock()
	size := requestSize(call.Request) // before it is the sender's
	if err := s.out.Put(p, size); err != nil {
		if s.remove(p) {
			if errors.Is(err, wire.ErrFull) {
				s.answer(p, ErrOverloaded, reasonOverloaded)
			} else {
				s.answer(p, ErrNotConnected, reasonNotSent)
			}
		}
		p.drop() // the sender never sees it
	}
}

func requestSize(r *storagev1.Request) int {
	return requestOverhead + len(r.Key) + len(r.Value) + len(r.Meta) + len(r.Context) + len(r.Base) + len(r.Record) + len(r.Span)
}

// remove takes p out of what is waited for; false where someone else has.
func (s *stream) remove(p *pending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[p.id] != p {
		return false
	}
	delete(s.waiting, p.id)
	return true
}

// answer ends a call that gets no response.
func (s *stream) answer(p *pending, err error, why reason) {
	s.peer.metrics.failures[why].Inc()
	p.call.Deliver(Answer{From: s.peer.id, Tag: p.call.Tag, Err: err, At: time.Now(), Queued: p.queued})
	p.drop()
}

// beat queues a heartbeat: an empty frame, or nothing beside the frame that is due anyway. A full or closed outbox needs
// none.
func (s *stream) beat() { _ = s.out.Put(nil, 0) }

// sendAll sends what is queued until the stream ends.
func (s *stream) sendAll(ctx context.Context) {
	var batch, late, gone []*pending
	frame := &storagev1.Frame{}
	for {
		var err error
		if batch, err = s.out.Take(ctx, batch[:0]); err != nil {
			return
		}
		now := time.Now()
		batch, late, gone = s.take(batch, late[:0], gone[:0], now)
		for _, p := range late {
			s.answer(p, ErrTooLate, reasonLate)
		}
		dropSent(late)
		dropSent(gone)
		for first := true; first || len(batch) > 0; first = false {
			n := sameLayouts(batch)
			if err := s.sendFrame(frame, batch[:n], now); err != nil {
				dropSent(batch)
				return // the receiver learns why
			}
			dropSent(batch[:n])
			batch = slices.Delete(batch, 0, n)
		}
		clear(late)
		clear(gone)
	}
}

// take marks what goes onto the wire from here on. Calls that were answered meanwhile are left out and end up in answered;
// heartbeats are left out too: the frame itself is one. What is late is never sent.
func (s *stream) take(batch, late, gone []*pending, now time.Time) (live, expired, answered []*pending) {
	live = batch[:0]
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		if p == nil {
			continue
		}
		if s.waiting[p.id] != p {
			gone = append(gone, p)
			continue
		}
		if !now.Before(p.call.Deadline) {
			delete(s.waiting, p.id)
			late = append(late, p)
			continue
		}
		p.taken, p.queued = true, now.Sub(p.sent)
		live = append(live, p)
	}
	clear(batch[len(live):])
	return live, late, gone
}

// sameLayouts returns how many calls at the beginning of batch were made under the same live layouts.
func sameLayouts(batch []*pending) int {
	for i := 1; i < len(batch); i++ {
		if !equalLayouts(batch[0].call.Layouts, batch[i].call.Layouts) {
			return i
		}
	}
	return len(batch)
}

func equalLayouts(a, b []*storagev1.LayoutName) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true
	}
	for i := range a {
		if a[i].GetEpoch() != b[i].GetEpoch() || string(a[i].GetHash()) != string(b[i].GetHash()) {
			return false
		}
	}
	return true
}

// sendFrame sends one frame. Once it has returned, the requests are on the wire's side and not looked at again.
func (s *stream) sendFrame(f *storagev1.Frame, batch []*pending, now time.Time) error {
	s.frames++
	f.Heartbeat, f.Layouts, f.Requests = s.frames, nil, f.Requests[:0]
	for _, p := range batch {
		f.Layouts = p.call.Layouts
		left := (p.call.Deadline.Sub(now) + time.Millisecond - 1) / time.Millisecond
		p.call.Request.TimeoutMs = uint32(min(left, 1<<31))
		f.Requests = append(f.Requests, p.call.Request)
	}
	err := s.rpc.Send(f)
	clear(f.Requests)
	s.peer.client.metrics.frames.Inc()
	if len(batch) > 0 {
		s.peer.client.metrics.frameLen.Observe(float64(len(batch)))
	}
	return err
}

// arrival is a response with the call it answers.
type arrival struct {
	pending  *pending
	response *storagev1.Response
	last     bool
}

// receiveAll hands out answers until the stream ends.
func (s *stream) receiveAll() error {
	var arrived []arrival
	for {
		f := &storagev1.Frame{}
		if err := s.rpc.RecvMsg(f); err != nil {
			return err
		}
		s.peer.heard()
		s.peer.beats.Add(time.Now(), f.Heartbeat)
		if len(f.Responses) == 0 {
			continue
		}
		arrived = s.match(f.Responses, arrived[:0])
		now := time.Now()
		for _, a := range arrived {
			if !a.pending.issued || a.response.Status != storagev1.Status_STATUS_OK || !a.response.Durable {
				s.peer.observe(a.pending.op, now.Sub(a.pending.sent))
			}
			a.pending.call.Deliver(Answer{From: s.peer.id, Tag: a.pending.call.Tag, Response: a.response, At: now, Queued: a.pending.queued})
			if a.last {
				a.pending.drop()
			}
		}
		clear(arrived)
	}
}

// match finds the calls of responses. A mint that is not durable yet stays, and is answered again.
func (s *stream) match(responses []*storagev1.Response, dst []arrival) []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range responses {
		p, ok := s.waiting[r.Id]
		if !ok {
			continue // answered by its deadline
		}
		if p.op == storagev1.Op_OP_MINT && r.Status == storagev1.Status_STATUS_OK && !r.Durable && !p.issued {
			p.issued = true
			dst = append(dst, arrival{p, r, false})
			continue
		}
		delete(s.waiting, r.Id)
		dst = append(dst, arrival{p, r, true})
	}
	return dst
}

// fail answers everything once the stream has ended: what the sender never took was not sent, all else is lost.
func (s *stream) fail() {
	s.mu.Lock()
	s.ended = true
	left := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	dropSent(s.out.Close())
	for _, p := range left {
		if p.taken {
			s.answer(p, ErrLost, reasonLost)
		} else {
			s.answer(p, ErrNotConnected, reasonNotSent)
		}
	}
}

// sweep answers calls whose deadline has passed. Their coordinators have given up on them already.
func (s *stream) sweep(now time.Time) {
	var gone []*pending
	s.mu.Lock()
	for id, p := range s.waiting {
		if now.Sub(p.call.Deadline) >= sweepGrace {
			delete(s.waiting, id)
			gone = append(gone, p)
		}
	}
	s.mu.Unlock()
	for _, p := range gone {
		if p.taken {
			s.answer(p, ErrUnanswered, reasonLate)
		} else {
			s.answer(p, ErrTooLate, reasonLate)
		}
	}
}
