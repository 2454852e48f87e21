// Package witness has nodes remember how far each other's disks have come, so that a disk that was rolled back, emptied or
// taken for another is noticed before it is served from.
package witness

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// tellEvery is the pause between two announcements; askEvery that between two rounds of questions after a start.
	tellEvery = time.Second
	askEvery  = 100 * time.Millisecond
	// askFor bounds how long a node waits for the first other one to answer before it serves without.
	askFor = 5 * time.Second
	// retellAfter is when others are told again what they were told: they may have lost it.
	retellAfter = time.Minute
	// keepEvery is the least time between two writes of what others told.
	keepEvery   = 10 * time.Second
	callTimeout = time.Second
	// callsMax bounds the calls under way.
	callsMax = 32
)

// Store is the part of kv.Store that is used here.
type Store interface {
	Position() (kv.Position, bool)
	Heard(kv.Position) bool
	PutNote(name string, v []byte, done func(error)) error
	GetMeta(name string) ([]byte, error)
}

// Peers connects to other nodes; see peer.Pool.
type Peers interface {
	To(id ring.NodeID) (storagev1.StorageClient, func(), error)
}

// Config is what a Service needs; all fields are required.
type Config struct {
	Self       ring.NodeID
	Store      Store
	Known      func() *layout.Known
	Peers      Peers
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Service asks, tells, and remembers. Run does the first two; the other methods are safe at any time.
type Service struct {
	cfg     Config
	metrics *metrics
	vouched atomic.Bool
	settled chan struct{} // closed once vouched is set, or Run ended
	once    sync.Once

	mu         sync.Mutex
	remembered memory
	dirty      bool // remembered is not kept as it is

	// The rest belongs to Run's goroutine.
	told  map[ring.NodeID]telling
	since time.Time // of the first round of questions
	kept  time.Time
	near  neighbours
}

// telling is what another node was told, and when.
type telling struct {
	position kv.Position
	at       time.Time
}

// New returns a service that remembers what earlier ones of this disk did. Errors are those of the store.
func New(cfg Config) (*Service, error) {
	s := &Service{cfg: cfg, told: make(map[ring.NodeID]telling), settled: make(chan struct{})}
	var err error
	if s.remembered, err = load(cfg.Store, cfg.Logger); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(cfg.Registerer, s); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return s, nil
}

// Vouched says whether this node may serve from its disk as far as others know: some other node told what it remembers,
// nobody else shares its ranges, or nobody answered for long. Where one remembered more, the store is in doubt.
func (s *Service) Vouched() bool { return s.vouched.Load() }

// Wait waits until the node is vouched for, Run ended, or ctx did.
func (s *Service) Wait(ctx context.Context) {
	select {
	case <-s.settled:
	case <-ctx.Done():
	}
}

func (s *Service) settle() { s.once.Do(func() { close(s.settled) }) }

// Run asks what others remember of this node's disk, and then tells them how far it comes, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	defer s.settle()
	s.kept = time.Now()
	for ctx.Err() == nil {
		wait := tellEvery
		if !s.vouched.Load() {
			wait = askEvery
			s.ask(ctx)
		} else {
			s.tell(ctx)
		}
		if time.Since(s.kept) >= keepEvery {
			s.keep(nil)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	s.settle()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	s.tell(ctx)
	done := make(chan error, 1)
	if !s.keep(done) {
		return
	}
	select {
	case <-done: // a failure is the store's to tell; it costs memory of the last seconds
	case <-ctx.Done():
	}
}

// ask puts one round of questions. One answer is enough, since all are told the same; but others that can be reached are
// waited for, as one of them may have been away.
func (s *Service) ask(ctx context.Context) {
	k := s.cfg.Known()
	if k == nil {
		return
	}
	now := time.Now()
	if s.since.IsZero() {
		s.since = now
	}
	near := s.near.of(k, s.cfg.Self)
	var answers atomic.Int64
	s.each(ctx, near, func(ctx context.Context, id ring.NodeID) {
		if s.call(ctx, id, &storagev1.WitnessRequest{From: s.cfg.Self[:]}) {
			answers.Add(1)
		}
	})
	switch {
	case ctx.Err() != nil:
		return
	case answers.Load() > 0, len(near) == 0:
	case time.Since(s.since) < askFor:
		return
	default:
		s.cfg.Logger.Warn().Int("nodes", len(near)).Msg("no other node said what it remembers of this disk: it is served from as it is")
	}
	s.vouched.Store(true)
	s.settle()
}

// tell tells others how far the disk has come, where that is news.
func (s *Service) tell(ctx context.Context) {
	p, ok := s.cfg.Store.Position()
	k := s.cfg.Known()
	if !ok || k == nil {
		return
	}
	now := time.Now()
	near := s.near.of(k, s.cfg.Self)
	for id := range s.told {
		if !slices.Contains(near, id) {
			delete(s.told, id)
		}
	}
	due := slices.DeleteFunc(slices.Clone(near), func(id ring.NodeID) bool {
		t := s.told[id]
		return t.position == p && now.Sub(t.at) < retellAfter
	})
	var mu sync.Mutex
	s.each(ctx, due, func(ctx context.Context, id ring.NodeID) {
		req := &storagev1.WitnessRequest{From: s.cfg.Self[:], Position: encode(p)}
		if s.call(ctx, id, req) {
			mu.Lock()
			defer mu.Unlock()
			s.told[id] = telling{position: p, at: now}
		}
	})
}

// each calls fn for all of ids, some at once, and returns when all have returned.
func (s *Service) each(ctx context.Context, ids []ring.NodeID, fn func(context.Context, ring.NodeID)) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var owned sync.WaitGroup
	defer owned.Wait()
	tokens := make(chan struct{}, callsMax)
	for _, id := range ids {
		tokens <- struct{}{}
		owned.Go(func() {
			fn(ctx, id)
			<-tokens
		})
	}
}

// call asks one node, and compares what it remembers with the disk.
func (s *Service) call(ctx context.Context, id ring.NodeID, req *storagev1.WitnessRequest) bool {
	client, done, err := s.cfg.Peers.To(id)
	if err == nil {
		defer done()
		var resp *storagev1.WitnessResponse
		if resp, err = client.Witness(ctx, req); err == nil {
			var p kv.Position
			if p, err = decode(resp.GetRemembered()); err == nil {
				s.metrics.calls.WithLabelValues("ok").Inc()
				if !s.cfg.Store.Heard(p) {
					s.cfg.Logger.Error().Stringer("peer", id).Uint64("number", p.Number).Msg("another node knows more of this disk than it holds")
				}
				return true
			}
		}
	}
	s.metrics.calls.WithLabelValues("failed").Inc()
	s.cfg.Logger.Debug().Err(err).Stringer("peer", id).Msg("node was not told how far this disk has come")
	return false
}

// Witness remembers what another node says of its disk, and answers what was known before.
func (s *Service) Witness(_ context.Context, req *storagev1.WitnessRequest) (*storagev1.WitnessResponse, error) {
	if len(req.GetFrom()) != 16 {
		return nil, status.Error(codes.InvalidArgument, "ids have 16 bytes")
	}
	from := ring.NodeID(req.GetFrom())
	p, err := decode(req.GetPosition())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	k := s.cfg.Known()
	if k == nil {
		return nil, status.Error(codes.Unavailable, "node belongs to no cluster yet")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.remembered[from]
	// The highest stays: a message that was late must not take back what a later one said.
	if p.Number > before.Number && k.IsMember(from) && !k.IsDead(from) {
		s.remembered[from], s.dirty = p, true
	}
	return &storagev1.WitnessResponse{Remembered: encode(before)}, nil
}

// keep makes durable what others told, without raising the own commit number. False says that nothing was written.
func (s *Service) keep(done chan<- error) bool {
	k := s.cfg.Known()
	s.mu.Lock()
	if !s.dirty || k == nil {
		s.mu.Unlock()
		return false
	}
	for id := range s.remembered {
		if !k.IsMember(id) || k.IsDead(id) {
			delete(s.remembered, id)
		}
	}
	b := s.remembered.encode()
	s.dirty = false
	s.mu.Unlock()
	s.kept = time.Now()
	err := s.cfg.Store.PutNote(metaName, b, func(err error) {
		if err != nil {
			s.unkept()
		}
		if done != nil {
			done <- err
		}
	})
	if err != nil {
		s.unkept()
		return false
	}
	return true
}

func (s *Service) unkept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
}

func (s *Service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.remembered)
}

// neighbours caches who shares ranges with a node.
type neighbours struct {
	settled, newest ring.LayoutID
	all             []ring.NodeID
}

// of lists who owns slots together with self in a live layout. The result is shared.
func (n *neighbours) of(k *layout.Known, self ring.NodeID) []ring.NodeID {
	if n.settled == k.Settled.ID() && n.newest == k.Newest.ID() {
		return n.all
	}
	near := make(map[ring.NodeID]struct{})
	for _, l := range []*ring.Layout{k.Settled, k.Newest} {
		for slot := ring.Slot(0); slot < ring.Slots; slot = l.SameOwnersUntil(slot) {
			owners := l.Primaries(slot)
			if !slices.Contains(owners, self) {
				continue
			}
			for _, id := range owners {
				if id != self {
					near[id] = struct{}{}
				}
			}
		}
	}
	n.settled, n.newest, n.all = k.Settled.ID(), k.Newest.ID(), n.all[:0:0]
	for id := range near {
		n.all = append(n.all, id)
	}
	slices.SortFunc(n.all, ring.NodeID.Compare)
	return n.all
}
