package nodeclient

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/phi"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// sweepEvery is how often calls are looked through whose deadline has passed, and sweepGrace how long after it a
	// call is kept, so that answers on their way are not lost by a hair.
	sweepEvery = 100 * time.Millisecond
	sweepGrace = 100 * time.Millisecond
	// refusedWait is the pause after a node that answered but would not serve: another node, another cluster.
	refusedWait = 500 * time.Millisecond
	// brokenWait is the pause after a stream that broke. gRPC itself backs off while nobody answers.
	brokenWait = 50 * time.Millisecond
	// feedEvery bounds how often a failure detector is fed: signs of life in between tell it nothing new.
	feedEvery = 20 * time.Millisecond
	// silentMin, and silentTimes the usual time of reads, are what a node may owe a prompt answer before it is silent. Failure
	// detection takes a second; at thousands of writes a second that is hundreds that may be left in doubt.
	silentMin   = 50 * time.Millisecond
	silentTimes = 8
)

// peer is one storage node: its connections, and what is known of its health.
type peer struct {
	client  *Client
	id      ring.NodeID
	addr    string
	actor   causal.Actor // of the node's present life, as gossip tells; of connect
	conns   []*grpc.ClientConn
	slots   []atomic.Pointer[stream] // one per connection; nil while there is no stream
	turn    atomic.Uint32
	cancel  context.CancelFunc
	metrics *nodeMetrics

	reads    estimator
	answered atomic.Uint64
	rate     rate
	beats    wire.Heard // the node's heartbeat numbers

	mu       sync.Mutex
	detector *phi.Detector
	heardAt  atomic.Int64  // the last time the detector was fed
	suspect  atomic.Bool   // as last judged
	phi      atomic.Uint64 // bits of a float64, as last judged

	owing atomic.Int64 // since when it owes a prompt answer and was not heard, on Client.now; 0 for not
}

func (c *Client) newPeer(ctx context.Context, id ring.NodeID, addr string) (*peer, error) {
	p := &peer{client: c, id: id, addr: addr, metrics: c.metrics.node(id.String()),
		slots: make([]atomic.Pointer[stream], c.cfg.StreamsPerNode), detector: phi.New(c.cfg.Phi)}
	p.detector.Heard(c.now()) // silence counts from now on
	for range c.cfg.StreamsPerNode {
		conn, err := c.dial(addr, p.refused)
		if err != nil {
			p.closeConns()
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		p.conns = append(p.conns, conn)
	}
	ctx, p.cancel = context.WithCancel(ctx)
	for i := range p.conns {
		c.owned.Go(func() { p.keep(ctx, i) })
	}
	return p, nil
}

// close ends the streams; the goroutines that Run waits for end soon after.
func (p *peer) close() {
	p.cancel()
	p.closeConns()
}

func (p *peer) closeConns() {
	for _, conn := range p.conns {
		if err := conn.Close(); err != nil && status.Code(err) != codes.Canceled {
			p.client.log.Debug().Err(err).Stringer("node", p.id).Msg("connection not closed cleanly")
		}
	}
}

// restarted says that gossip saw the node come back in another life: it is worth trying at once.
func (p *peer) restarted(actor causal.Actor) {
	p.actor = actor
	for _, conn := range p.conns {
		conn.ResetConnectBackoff()
	}
}

// keep opens the stream of one connection again and again.
func (p *peer) keep(ctx context.Context, slot int) {
	log := p.client.log.With().Stringer("node", p.id).Str("addr", p.addr).Logger()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		opened, err := p.open(ctx, slot)
		if ctx.Err() != nil {
			return
		}
		pause := brokenWait
		if !opened {
			pause = refusedWait
		}
		log.Info().Err(err).Bool("opened", opened).Msg("stream to node ended")
		wait.Reset(pause)
	}
}

// open runs one stream to its end. opened says whether the node took it.
func (p *peer) open(ctx context.Context, slot int) (opened bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := p.client.hello(ctx, cancel, p, slot)
	if err != nil {
		return false, err
	}
	p.heard()
	p.slots[slot].Store(s)
	p.metrics.connected.Inc()
	p.client.log.Info().Stringer("node", p.id).Str("addr", p.addr).Msg("stream to node opened")
	err = s.run(ctx, cancel)
	p.slots[slot].Store(nil)
	p.metrics.connected.Dec()
	s.fail()
	return true, err
}

// send queues a call on one of the open streams, in turn.
func (p *peer) send(call Call) {
	if !call.Obtained.IsZero() {
		call.Request.Heard = p.beats.By(call.Obtained)
	}
	n := uint32(len(p.slots))
	first := uint32(0)
	if n > 1 {
		first = p.turn.Add(1)
	}
	for i := range n {
		if s := p.slots[(first+i)%n].Load(); s != nil {
			p.owes(call.Request.GetOp())
			s.send(call)
			return
		}
	}
	p.metrics.failures[reasonNotSent].Inc()
	call.refuse(ErrNotConnected)
}

func (p *peer) health() Health {
	h := Health{Suspect: p.suspect.Load(), Phi: math.Float64frombits(p.phi.Load())}
	for i := range p.slots {
		if s := p.slots[i].Load(); s != nil {
			h.Connected, h.Actor = true, s.actor
			break
		}
	}
	h.Mean, h.P95 = p.reads.get()
	if owing := p.owing.Load(); owing != 0 {
		h.Silent = p.client.now()-time.Duration(owing) > max(silentMin, silentTimes*h.P95)
	}
	h.PerSecond = math.Float64frombits(p.rate.perSecond.Load())
	return h
}

// owes says that a call is sent whose answer comes promptly while the node lives: it waits for no disk to sync.
func (p *peer) owes(op storagev1.Op) {
	if (op == storagev1.Op_OP_MINT || op == storagev1.Op_OP_READ || op == storagev1.Op_OP_DIGEST) && p.owing.Load() == 0 {
		p.owing.Store(max(int64(p.client.now()), 1))
	}
}

// heard feeds the failure detector: a frame came.
func (p *peer) heard() {
	p.owing.Store(0)
	now := p.client.now()
	if last := p.heardAt.Load(); last != 0 && now-time.Duration(last) < feedEvery && !p.suspect.Load() {
		return
	}
	p.heardAt.Store(int64(now))
	p.mu.Lock()
	p.detector.Heard(now)
	p.judgeLocked(now)
	p.mu.Unlock()
}

// refused: nobody listens at the node's address.
func (p *peer) refused() {
	now := p.client.now()
	p.mu.Lock()
	p.detector.Refused(now)
	p.judgeLocked(now)
	p.mu.Unlock()
}

func (p *peer) forgive(pause phi.Pause) {
	p.mu.Lock()
	p.detector.Forgive(pause)
	p.mu.Unlock()
}

// judge renews what health tells.
func (p *peer) judge(now time.Duration) {
	p.mu.Lock()
	p.judgeLocked(now)
	p.rate.look(p.answered.Load(), now)
	p.mu.Unlock()
}

func (p *peer) judgeLocked(now time.Duration) {
	value, was := p.detector.Phi(now), p.suspect.Load()
	p.phi.Store(math.Float64bits(value))
	p.metrics.phi.Set(value)
	suspect := p.detector.Suspect(now)
	p.suspect.Store(suspect)
	if suspect != was {
		p.client.log.Info().Stringer("node", p.id).Bool("suspect", suspect).Float64("phi", value).Msg("health of node changed")
	}
}

// beat makes each stream send a frame.
func (p *peer) beat() {
	for i := range p.slots {
		if s := p.slots[i].Load(); s != nil {
			s.beat()
		}
	}
}

// sweep answers calls whose deadline has passed.
func (p *peer) sweep(now time.Time) {
	for i := range p.slots {
		if s := p.slots[i].Load(); s != nil {
			s.sweep(now)
		}
	}
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// observe takes the time to a node's first answer.
func (p *peer) observe(op storagev1.Op, took time.Duration) {
	p.answered.Add(1)
	if op == storagev1.Op_OP_READ || op == storagev1.Op_OP_DIGEST {
		p.reads.add(took)
	}
	if op > 0 && int(op) < len(p.metrics.calls) {
		p.metrics.calls[op].Observe(took.Seconds())
	}
}
