// Package antientropy compares what this node holds with what other owners of the same ranges hold, all the time, and
// fetches what it lacks.
//
// Each node pulls: a difference is listed with both sides' clocks, so that a record travels only to the side that lacks
// it, and since a node pulls from one peer at a time, only once. What the peer lacks, the peer finds in its own rounds.
package antientropy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

const (
	// firstWithin is when, at the latest, a peer that was just met or came back is compared with.
	firstWithin = 2 * time.Second
	// lookEvery is how often layouts and members are looked at without being woken.
	lookEvery = time.Second
	// retryFirst is the pause after a failed round; it doubles with each further failure, up to the interval.
	retryFirst = 250 * time.Millisecond
	// countRetry is the pause after a failed scan, countPause the longest between two scans.
	countRetry = 200 * time.Millisecond
	countPause = 100 * time.Millisecond
	// pressureMax is how full the store's queue may be for background work to go on; beyond it, a step waits, for
	// yieldsMax pauses of yieldPause at most, so that it is slow and not stopped.
	pressureMax = 0.25
	yieldPause  = 20 * time.Millisecond
	yieldsMax   = 100
	// servedMax bounds the listings and fetches that are answered at once.
	servedMax = 4
)

// Store is the part of kv.Store that is used here.
type Store interface {
	Read(key []byte) ([]byte, error)
	ApplyBefore(limit time.Time, key, rec []byte, done func(changed bool, err error)) error
	Scan(r ring.Range, after []byte, fn func(key, rec []byte) (more bool, err error)) error
	ScanObserved(r ring.Range, begin func(), fn func(key, rec []byte) error) error
	Pressure() float64
	Stats() kv.Stats
	Doubts() kv.Doubts
}

// Peers connects to other nodes; see peer.Pool.
type Peers interface {
	To(id ring.NodeID) (storagev1.StorageClient, func(), error)
}

// Config is what a Service needs; all fields are required but Registerer.
type Config struct {
	Self  ring.NodeID
	Sums  *Sums
	Store Store
	State *layout.State
	// InDoubt says that what the store holds proves nothing: then nothing is compared, here and for others.
	InDoubt func() bool
	Peers   Peers
	Members func() []membership.Member
	// Changed is closed at the next change of layouts or members.
	Changed func() <-chan struct{}
	// Interval is about how often each peer is compared with; VerifyEvery how often one of 256 slices of the sums is
	// verified against the records; Recheck how long after a difference was found it must still be there.
	Interval, VerifyEvery, Recheck time.Duration
	// MessageAge is the age at which a record that was fetched is not stored any more; 0 for none.
	MessageAge time.Duration
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Service compares and answers. Run does the former, the methods of the gRPC service the latter, at any time.
type Service struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *metrics
	serving  chan struct{} // tokens of listings and fetches being served
	anew     chan struct{} // has room for one; all peers are to be compared with from the beginning
	repaired atomic.Uint64

	mu        sync.Mutex
	exchanges map[ring.NodeID]*exchange // changed by Run's goroutine alone; last is read by others

	ranges ring.LayoutID // whose ranges exchanges are about; guarded by mu

	// The rest belongs to Run's goroutine.
	layout ring.LayoutID
	shares map[ring.NodeID][]ring.Range
}

// exchange is what is under way with one peer.
type exchange struct {
	last  time.Time // when the last whole comparison began; before the first, when the peer was met. Guarded by mu.
	began time.Time // when the one under way began; zero for none
	next  int       // of the shared ranges, the first not compared yet
	whole bool      // nothing was left out so far
	due   time.Time
	fails int
	alive bool
	actor causal.Actor

	// thorough: what changes meanwhile is fetched as well, so that no difference that was there is left.
	thorough bool
	wholeAt  time.Time // when the last whole comparison began; zero before there is one. Guarded by mu.
	// For others to read: whether it is under way, how many ranges are done with, and of how many.
	running           atomic.Bool
	rangesDone, total atomic.Int32
}

// NewSums returns the sums of a store that is still to be opened, with them as its observer.
func NewSums(logger zerolog.Logger, reg prometheus.Registerer) (*Sums, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &Sums{metrics: m, log: logger, tree: new(merkle.Tree), missing: ring.Slots, wake: make(chan struct{}, 1)}, nil
}

// New returns a service that answers others, and compares once Run is called.
func New(cfg Config) (*Service, error) {
	s := &Service{cfg: cfg, log: cfg.Logger, metrics: cfg.Sums.metrics, serving: make(chan struct{}, servedMax),
		anew: make(chan struct{}, 1), exchanges: make(map[ring.NodeID]*exchange)}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(s); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return s, nil
}

// Run compares until ctx ends, and returns when all it started has ended.
func (s *Service) Run(ctx context.Context) {
	var owned sync.WaitGroup
	defer owned.Wait()
	owned.Go(func() {
		k := keeper{sums: s.cfg.Sums, store: s.cfg.Store, every: s.cfg.VerifyEvery}
		k.run(ctx)
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		changed := s.cfg.Changed()
		timer.Reset(s.turn(ctx, time.Now()))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		case <-s.anew:
			for _, x := range s.exchanges {
				x.due, x.began, x.fails, x.thorough = time.Time{}, time.Time{}, 0, true
			}
		}
	}
}

// CompareAnew has every peer compared with from the beginning as soon as can be, and all that differs fetched. It never
// blocks.
func (s *Service) CompareAnew() {
	select {
	case s.anew <- struct{}{}:
	default:
	}
}

// Task is the comparison with one peer.
type Task struct {
	Peer         ring.NodeID
	Running      bool
	Done, Ranges int
	// Whole is when the last whole comparison began; zero before there is one.
	Whole time.Time
}

// Tasks lists the comparisons, one for each node that shares ranges in a layout; that is zero before there is one.
func (s *Service) Tasks() (ring.LayoutID, []Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Task, 0, len(s.exchanges))
	for id, x := range s.exchanges {
		out = append(out, Task{Peer: id, Running: x.running.Load(), Done: int(x.rangesDone.Load()), Ranges: int(x.total.Load()), Whole: x.wholeAt})
	}
	slices.SortFunc(out, func(a, b Task) int { return a.Peer.Compare(b.Peer) })
	return s.ranges, out
}

// Repaired counts the keys whose record here was changed by what a peer held.
func (s *Service) Repaired() uint64 { return s.repaired.Load() }

// Age is the largest age of a whole comparison over all peers that share ranges, 0 where there is none.
func (s *Service) Age() time.Duration {
	oldest := time.Duration(0)
	for _, age := range s.ages() {
		oldest = max(oldest, age)
	}
	return oldest
}

func (s *Service) ages() map[ring.NodeID]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[ring.NodeID]time.Duration, len(s.exchanges))
	for id, x := range s.exchanges {
		out[id] = time.Since(x.last)
	}
	return out
}

func (s *Service) nameOf(id ring.NodeID) string {
	if k := s.cfg.State.Known(); k != nil {
		if m, ok := k.Newest.Member(id); ok && m.Name != "" {
			return m.Name
		}
	}
	return id.String()
}

// turn runs the round that is most overdue, if any is due, and says when to look again at the latest.
func (s *Service) turn(ctx context.Context, now time.Time) time.Duration {
	l := s.agreed()
	if l == nil || s.cfg.InDoubt() {
		return lookEvery
	}
	if l.ID() != s.layout {
		s.layout, s.shares = l.ID(), sharedRanges(l, s.cfg.Self)
		for _, x := range s.exchanges {
			x.began = time.Time{} // how far it came was counted in other ranges
		}
	}
	s.look(now)
	id, x := s.mostOverdue()
	if x == nil {
		return lookEvery
	}
	if wait := x.due.Sub(now); wait > 0 {
		return min(wait, lookEvery)
	}
	ranges := s.shares[id]
	if slices.ContainsFunc(ranges, func(r ring.Range) bool { return !s.cfg.Sums.Ready(r) }) {
		return countRetry
	}
	s.exchange(ctx, id, x, l.ID(), ranges)
	return 0
}

// agreed returns the newest layout that all its members are known to have acknowledged, nil where the node has none. What
// the node still pulls for it is not compared: that has a rate, sources and a place to go on from of its own.
func (s *Service) agreed() *ring.Layout {
	k := s.cfg.State.Known()
	if k == nil {
		return nil
	}
	if !k.IsSettled() {
		if v := s.cfg.State.View(); k.Synced == v.Newest().ID() && v.AllAcked(v.Newest()) {
			return v.Newest()
		}
	}
	return k.Settled
}

// look takes note of who shares ranges, and who came back.
func (s *Service) look(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ranges = s.layout
	members := make(map[ring.NodeID]membership.Member)
	for _, m := range s.cfg.Members() {
		members[m.ID] = m
	}
	for id := range s.exchanges {
		if _, shares := s.shares[id]; !shares {
			delete(s.exchanges, id)
		}
	}
	for id := range s.shares {
		x := s.exchanges[id]
		if x == nil {
			x = &exchange{last: now, thorough: true}
			s.exchanges[id] = x
		}
		x.total.Store(int32(len(s.shares[id])))
		m := members[id]
		alive := m.Status == membership.Alive && m.GRPCAddr != ""
		if alive && (!x.alive || m.Actor != x.actor) {
			x.due, x.fails = now.Add(rand.N(min(firstWithin, s.cfg.Interval))), 0
		}
		x.alive, x.actor = alive, m.Actor
	}
}

func (s *Service) mostOverdue() (ring.NodeID, *exchange) {
	var best ring.NodeID
	var found *exchange
	for id, x := range s.exchanges {
		if x.alive && (found == nil || cmp.Or(x.due.Compare(found.due), id.Compare(best)) < 0) {
			best, found = id, x
		}
	}
	return best, found
}

// exchange goes on with the comparison with one peer, to its end if nothing fails.
func (s *Service) exchange(ctx context.Context, id ring.NodeID, x *exchange, layout ring.LayoutID, ranges []ring.Range) {
	if x.began.IsZero() || x.next >= len(ranges) {
		x.began, x.next, x.whole = time.Now(), 0, true
	}
	x.running.Store(true)
	defer x.running.Store(false)
	x.rangesDone.Store(int32(x.next))
	r := round{s: s, peer: id, thorough: x.thorough, layout: &storagev1.LayoutName{Epoch: layout.Epoch, Hash: layout.Hash[:]}, log: s.log.With().
		Str("peer", s.nameOf(id)).Logger()}
	err := r.compare(ctx, x, ranges)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	if err != nil {
		s.metrics.rounds.WithLabelValues(roundFailed).Inc()
		r.log.Debug().Err(err).Int("range", x.next).Int("ranges", len(ranges)).Msg("comparison broken off, the next round goes on")
		x.due = now.Add(jitter(min(s.cfg.Interval, retryFirst<<min(x.fails, 10))))
		x.fails++
		return
	}
	x.due, x.fails = now.Add(jitter(s.cfg.Interval)), 0
	if r.repaired > 0 {
		r.log.Info().Int("keys", r.repaired).Dur("took", now.Sub(x.began)).Msg("records that were missing here were fetched")
	}
	outcome := roundPartial
	if x.whole {
		outcome = roundWhole
		s.mu.Lock()
		x.last, x.wholeAt = x.began, x.began
		s.mu.Unlock()
		x.thorough = false
	}
	s.metrics.rounds.WithLabelValues(outcome).Inc()
	x.began = time.Time{}
}

// jitter returns a random time between 0.8 and 1.2 of d, so that nodes do not fall into step.
func jitter(d time.Duration) time.Duration { return d*4/5 + rand.N(max(d*2/5, 1)) }

// sharedRanges lists, for every other member, the slots that it and self own in l, in order, ranges that touch joined.
func sharedRanges(l *ring.Layout, self ring.NodeID) map[ring.NodeID][]ring.Range {
	bounds := []ring.Slot{0, ring.Slots}
	for _, m := range l.Members() {
		for _, t := range m.Tokens {
			bounds = append(bounds, t+1) // a slot belongs to the first token at or after it
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	out := make(map[ring.NodeID][]ring.Range)
	for i, from := range bounds[:len(bounds)-1] {
		owners := l.Primaries(from)
		if !slices.Contains(owners, self) {
			continue
		}
		for _, id := range owners {
			if id == self {
				continue
			}
			had := out[id]
			if k := len(had) - 1; k >= 0 && had[k].To == from {
				had[k].To = bounds[i+1]
				continue
			}
			out[id] = append(had, ring.Range{From: from, To: bounds[i+1]})
		}
	}
	return out
}

// yield waits while clients' writes queue up. false says that ctx ended.
func yield(ctx context.Context, store Store) bool {
	for range yieldsMax {
		if store.Pressure() <= pressureMax {
			break
		}
		if !pause(ctx, yieldPause) {
			return false
		}
	}
	return ctx.Err() == nil
}

// pause waits for d; false means that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var errMalformed = errors.New("malformed answer")
