// Package collector finds the tombstones that this node is to collect, asks the members about them as collect.Machine
// says, and answers others that ask.
package collector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// pageKeys is how many keys are looked at in one scan; tombsMost bounds what one call may ask about.
	pageKeys  = 2048
	tombsMost = 1024
	// passLeast and passMost bound the time between two passes over all records, a sixteenth of the grace time.
	passLeast = 250 * time.Millisecond
	passMost  = time.Hour
	// lookEvery is how often the machine is asked for what is due.
	lookEvery = 50 * time.Millisecond
	// callTimeout bounds one call, callsMax the calls under way.
	callTimeout = 10 * time.Second
	callsMax    = 16
	// pressureMax is how full the store's queue may be for this to go on.
	pressureMax = 0.25
	// seenMax bounds the marks of other collectors that are remembered from one pass to the next.
	seenMax = 1 << 16
)

// Store is the part of kv.Store that is used here.
type Store interface {
	Collect(step collect.Step, t collect.Tomb, done func(h collect.Holding, moves uint32, err error)) error
	Tombstones(r ring.Range, after []byte, marked bool, limit int) (tombs []collect.Tomb, last []byte, err error)
	Actor() causal.Actor
	Marks() int64
	Pressure() float64
}

// Peers connects to other nodes; see peer.Pool.
type Peers interface {
	To(id ring.NodeID) (storagev1.StorageClient, func(), error)
}

// Config is what a Service needs; all fields are required.
type Config struct {
	Self  ring.NodeID
	Store Store
	State *layout.State
	// Members lists who may keep records, by id, and who of them can be reached.
	Members func(settled *ring.Layout) []collect.Member
	// Living lists the actors that members are known to mint with.
	Living func() map[causal.Actor]bool
	// InDoubt says that what the store holds proves nothing.
	InDoubt    func() bool
	Peers      Peers
	Grace      time.Duration
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Service collects and answers. Run does the former; the other methods are safe at any time.
type Service struct {
	cfg     Config
	metrics *metrics
	calls   chan struct{} // tokens of calls under way
	results chan result

	mu      sync.Mutex // of the machines and view
	machine *collect.Machine
	pruner  *collect.Machine // of entries of clocks
	view    collect.View

	// The rest belongs to Run's goroutine.
	layout ring.LayoutID
	first  []ring.Range // of slots whose first owner this is
	pass   pass
}

// pass is how far the scan has come.
type pass struct {
	due   time.Time
	at    int // of first; beyond it, the marks
	after []byte
	found int
	crowd int             // crowded clocks
	seen  map[string]bool // marks of others' that this pass met
	last  map[string]bool // and the one before
}

type result struct {
	of    *collect.Machine
	ask   collect.Ask
	reply *collect.Reply
}

// New returns a service that answers, and collects once Run is called.
func New(cfg Config) (*Service, error) {
	own := collect.Default(cfg.Grace)
	if err := own.Validate(); err != nil {
		return nil, err
	}
	pruning := own
	pruning.Prune = true
	s := &Service{cfg: cfg, machine: collect.New(own), pruner: collect.New(pruning), calls: make(chan struct{}, callsMax), results: make(chan result, callsMax)}
	s.pass.seen = make(map[string]bool)
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer, s); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}

// Run collects until ctx ends, and returns when all it started has ended.
func (s *Service) Run(ctx context.Context) {
	var owned sync.WaitGroup
	defer owned.Wait()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		s.look()
		now := time.Now()
		if s.cfg.Store.Pressure() <= pressureMax {
			s.scan(now)
		}
		s.mu.Lock()
		asks, prunes := s.machine.Next(now), s.pruner.Next(now)
		s.mu.Unlock()
		owned.Go(func() {
			s.askAll(ctx, s.machine, asks)
			s.askAll(ctx, s.pruner, prunes)
		})
		for waiting := len(asks) + len(prunes); ; {
			select {
			case r := <-s.results:
				s.mu.Lock()
				r.of.Replied(time.Now(), r.ask, r.reply)
				s.mu.Unlock()
				if waiting--; waiting > 0 {
					continue
				}
			case <-ticker.C:
				if waiting > 0 {
					continue
				}
			case <-ctx.Done():
				for range waiting {
					<-s.results
				}
				return
			}
			break
		}
	}
}

// look takes in what is known of the cluster.
func (s *Service) look() {
	var v collect.View
	if k := s.cfg.State.Known(); k != nil && k.IsSettled() && !s.cfg.InDoubt() {
		v.Settled = k.Settled
		v.Members = s.cfg.Members(k.Settled)
		if id := k.Settled.ID(); id != s.layout {
			s.layout, s.first = id, firstOwned(k.Settled, s.cfg.Self)
			s.pass = pass{due: time.Now(), seen: make(map[string]bool)}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
	s.machine.Observe(v)
	s.pruner.Observe(v)
}

// firstOwned lists the slots whose first owner is self, in order.
func firstOwned(l *ring.Layout, self ring.NodeID) (out []ring.Range) {
	bounds := []ring.Slot{0, ring.Slots}
	for _, m := range l.Members() {
		for _, t := range m.Tokens {
			bounds = append(bounds, t+1) // a slot belongs to the first token at or after it
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	for i, from := range bounds[:len(bounds)-1] {
		if l.Primaries(from)[0] != self {
			continue
		}
		if n := len(out); n > 0 && out[n-1].To == from {
			out[n-1].To = bounds[i+1]
			continue
		}
		out = append(out, ring.Range{From: from, To: bounds[i+1]})
	}
	return out
}

// scan looks at the next records of the pass, if one is due: all pages that fit into a moment.
func (s *Service) scan(now time.Time) {
	if s.view.Settled == nil || now.Before(s.pass.due) {
		return
	}
	for time.Since(now) < lookEvery/2 {
		marks := s.pass.at >= len(s.first)
		r := ring.Range{From: 0, To: ring.Slots}
		if !marks {
			r = s.first[s.pass.at]
		}
		s.mu.Lock()
		room := s.machine.Room()
		s.mu.Unlock()
		if room < tombsMost {
			return
		}
		tombs, last, err := s.cfg.Store.Tombstones(r, s.pass.after, marks, pageKeys)
		if err != nil {
			s.cfg.Logger.Debug().Err(err).Stringer("range", r).Msg("tombstones not listed, trying again")
			last = nil // what is damaged is for others to heal; the rest of the range has its turn in the next pass
		}
		if marks {
			tombs = s.marked(tombs)
		}
		tombs, crowded := s.apart(tombs)
		if !marks {
			s.pass.found += len(tombs)
			s.pass.crowd += len(crowded)
		}
		s.mu.Lock()
		s.machine.Offer(now, tombs)
		s.pruner.Offer(now, crowded)
		s.mu.Unlock()
		if s.pass.after = last; last != nil {
			continue
		}
		if s.pass.at++; marks {
			s.metrics.seen.Set(float64(s.pass.found))
			s.metrics.crowded.Set(float64(s.pass.crowd))
			next := min(max(s.cfg.Grace/16, passLeast), passMost)
			s.pass = pass{due: now.Add(next), seen: make(map[string]bool), last: s.pass.seen}
			return
		}
	}
}

// apart divides what a scan found into tombstones and crowded clocks, of which it leaves out the entries of actors that are
// known to live: they would soon be back.
func (s *Service) apart(found []collect.Tomb) (tombs, crowded []collect.Tomb) {
	var living map[causal.Actor]bool
	for _, t := range found {
		if len(t.Entries) == 0 {
			tombs = append(tombs, t)
			continue
		}
		if living == nil {
			living = s.cfg.Living()
		}
		t.Entries = slices.DeleteFunc(t.Entries, func(e causal.Entry) bool { return living[e.Actor] })
		if len(t.Entries) > 0 {
			crowded = append(crowded, t)
		}
	}
	return tombs, crowded
}

// marked returns those of the marked tombstones here that this node is to see to: those of its own, and those that their
// collector left for a whole pass. Marks of keys that this node does not own are dropped.
func (s *Service) marked(tombs []collect.Tomb) (out []collect.Tomb) {
	l := s.view.Settled
	for _, t := range tombs {
		owners := l.Primaries(ring.SlotOf(t.Key))
		switch {
		case !slices.Contains(owners, s.cfg.Self):
			if err := s.cfg.Store.Collect(collect.Remove, t, func(collect.Holding, uint32, error) {}); err != nil {
				s.cfg.Logger.Debug().Err(err).Msg("mark of a slot that is not owned here not dropped")
			}
		case owners[0] == s.cfg.Self || s.pass.last[string(t.Key)]:
			out = append(out, t)
		case len(s.pass.seen) < seenMax:
			s.pass.seen[string(t.Key)] = true
		}
	}
	return out
}

// askAll carries out calls; each ends as a result.
func (s *Service) askAll(ctx context.Context, of *collect.Machine, asks []collect.Ask) {
	var owned sync.WaitGroup
	defer owned.Wait()
	for _, a := range asks {
		s.calls <- struct{}{}
		owned.Go(func() {
			reply, err := s.ask(ctx, a)
			if err != nil {
				s.cfg.Logger.Debug().Err(err).Stringer("peer", a.To).Stringer("step", a.Step).Msg("member does not answer about tombstones")
			}
			<-s.calls
			s.results <- result{of, a, reply}
		})
	}
}

func (s *Service) ask(ctx context.Context, a collect.Ask) (*collect.Reply, error) {
	if a.To == s.cfg.Self {
		return s.serve(ctx, a.Step, a.Tombs)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client, done, err := s.cfg.Peers.To(a.To)
	if err != nil {
		return nil, err
	}
	defer done()
	s.mu.Lock()
	settled := s.view.Settled
	s.mu.Unlock()
	if settled == nil {
		return nil, errors.New("the layout is changing")
	}
	id := settled.ID()
	req := &storagev1.CollectRequest{From: s.cfg.Self[:], Layout: &storagev1.LayoutName{Epoch: id.Epoch, Hash: id.Hash[:]},
		Step: storagev1.CollectStep(a.Step)}
	for i := range a.Tombs {
		t := &storagev1.TombstoneName{Key: a.Tombs[i].Key, Digest: a.Tombs[i].Digest[:]}
		if entries := a.Tombs[i].Entries; len(entries) > 0 {
			t.Digest, t.Entries = nil, causal.AppendContext(nil, causal.Context{Vector: entries})
		}
		req.Tombstones = append(req.Tombstones, t)
	}
	resp, err := client.Collect(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	if len(resp.GetLife()) != len(causal.Actor{}) {
		return nil, errors.New("collect: malformed answer")
	}
	reply := &collect.Reply{Life: causal.Actor(resp.GetLife()), Moves: resp.GetMoves()}
	for _, h := range resp.GetHoldings() {
		reply.Holdings = append(reply.Holdings, collect.Holding(h))
	}
	return reply, nil
}

// Collect answers another member.
func (s *Service) Collect(ctx context.Context, req *storagev1.CollectRequest) (*storagev1.CollectResponse, error) {
	k, step := s.cfg.State.Known(), collect.Step(req.GetStep())
	switch {
	case len(req.GetFrom()) != len(ring.NodeID{}) || len(req.GetLayout().GetHash()) != 16 || len(req.GetTombstones()) > tombsMost ||
		step < collect.Confirm || step > collect.Prune:
		return nil, status.Error(codes.InvalidArgument, "a collection needs a member, a layout, a step and at most 1024 tombstones")
	case k == nil || s.cfg.InDoubt():
		return nil, status.Error(codes.Unavailable, "node has no layout, or its disk lost data")
	case !k.IsMember(ring.NodeID(req.GetFrom())):
		return nil, status.Error(codes.PermissionDenied, "not a member")
	}
	id := ring.LayoutID{Epoch: req.GetLayout().GetEpoch(), Hash: [16]byte(req.GetLayout().GetHash())}
	if !k.IsSettled() || k.Settled.ID() != id {
		return nil, status.Errorf(codes.FailedPrecondition, "layout %s is not the one that is settled here", id)
	}
	tombs := make([]collect.Tomb, len(req.GetTombstones()))
	for i, t := range req.GetTombstones() {
		if b := t.GetEntries(); len(b) > 0 {
			entries, err := causal.DecodeContext(b)
			if err != nil || len(entries.Vector) == 0 {
				return nil, status.Error(codes.InvalidArgument, "what leaves a clock are entries of it")
			}
			tombs[i] = collect.Tomb{Key: t.GetKey(), Entries: entries.Vector}
			continue
		}
		switch {
		case step == collect.Prune:
			return nil, status.Error(codes.InvalidArgument, "only entries of a clock are pruned")
		case len(t.GetDigest()) != len(record.Digest{}):
			return nil, status.Error(codes.InvalidArgument, "a digest has 16 bytes")
		}
		tombs[i] = collect.Tomb{Key: t.GetKey(), Digest: record.Digest(t.GetDigest())}
	}
	reply, err := s.serve(ctx, step, tombs)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	resp := &storagev1.CollectResponse{Life: reply.Life[:], Moves: reply.Moves}
	for _, h := range reply.Holdings {
		resp.Holdings = append(resp.Holdings, byte(h))
	}
	return resp, nil
}

// serve does a step here. What cannot be done or told now is unclear.
func (s *Service) serve(ctx context.Context, step collect.Step, tombs []collect.Tomb) (*collect.Reply, error) {
	type outcome struct {
		at    int
		held  collect.Holding
		moves uint32
		err   error
	}
	outcomes := make(chan outcome, len(tombs))
	life := s.cfg.Store.Actor()
	for i, t := range tombs {
		if err := s.cfg.Store.Collect(step, t, func(h collect.Holding, moves uint32, err error) { outcomes <- outcome{i, h, moves, err} }); err != nil {
			outcomes <- outcome{at: i, err: err}
		}
	}
	r := &collect.Reply{Life: life, Holdings: make([]collect.Holding, len(tombs)), Moves: make([]uint32, len(tombs))}
	for range tombs {
		select {
		case o := <-outcomes:
			if r.Holdings[o.at], r.Moves[o.at] = o.held, o.moves; o.err != nil {
				r.Holdings[o.at] = collect.Unclear
				if errors.Is(o.err, kv.ErrClosed) || errors.Is(o.err, kv.ErrReopening) || errors.Is(o.err, kv.ErrOverloaded) {
					return nil, o.err
				}
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s.cfg.Store.Actor() != life {
		return nil, errors.New("the engine was opened again meanwhile")
	}
	return r, nil
}

// Why tells a person why a key's tombstone is still there; empty where this node does not collect it.
func (s *Service) Why(key []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view.Settled != nil && collect.Collector(s.view.Settled, key) != s.cfg.Self {
		return ""
	}
	st, known := s.machine.Why(time.Now(), key)
	if pruning, crowded := s.pruner.Why(time.Now(), key); crowded && !known {
		return "entries of its clock are to leave: " + s.tell(pruning)
	}
	if !known {
		return "not met yet: records are looked through every " + min(max(s.cfg.Grace/16, passLeast), passMost).String()
	}
	return s.tell(st)
}

// tell says a status in words.
func (s *Service) tell(st collect.Status) string {
	text := "next is the " + st.Phase
	if st.Left > 0 {
		text += " in " + st.Left.Round(time.Millisecond).String()
	}
	if st.PutOff {
		text = st.Phase + " failed, to be tried anew"
	}
	if st.Reason != collect.Proceeding {
		text += ": " + describe(st.Reason)
	}
	if !st.Member.IsZero() {
		text += " (" + s.name(st.Member) + ")"
	}
	return text
}

func (s *Service) name(id ring.NodeID) string {
	for _, m := range s.view.Members {
		if m.ID == id && m.Name != "" {
			return m.Name
		}
	}
	return id.String()
}

// describe says a reason in words.
func describe(r collect.Reason) string {
	switch r {
	case collect.Waiting:
		return "the grace time has not passed"
	case collect.LayoutUnsettled:
		return "the layout is changing, or this node's disk is being refilled"
	case collect.MemberDown:
		return "a member is down"
	case collect.MemberUnclear:
		return "a member could not answer, or a write is under way"
	case collect.OwnerDiffers:
		return "an owner holds another record"
	case collect.OwnerLacks:
		return "an owner does not hold it"
	case collect.MemberKeeps:
		return "a member keeps something of the key for others"
	case collect.SomethingMoved:
		return "something of the slot moved, or a member restarted, between the rounds"
	case collect.ComesBack:
		return "clients' contexts or records on their way bring it back"
	case collect.Full:
		return "the collector has its hands full"
	}
	return r.String()
}

func (s *Service) prunes() collect.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pruner.Counts()
}

func (s *Service) counts() collect.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine.Counts()
}
