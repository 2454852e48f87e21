package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// Store is the node's store. All methods are safe for concurrent use. Callbacks must not block, nor call Close or wait
// for another write; they may call the other methods.
type Store struct {
	cfg      Config
	metrics  *metrics
	stripes  []stripe
	queue    queue
	requests *requests
	observed observed
	minted   atomic.Uint64
	hints    hintBook
	marks    atomic.Int64    // tombstones that may be marked, at least
	moves    []atomic.Uint32 // of each slot: what was taken in for others, or left
	doubts   doubts
	retired  retirees

	life      atomic.Pointer[life] // nil while there is none
	lastActor atomic.Pointer[causal.Actor]
	lifeMu    sync.Mutex // of changes to life and closed
	closed    atomic.Bool
	full      atomic.Bool

	commits, keys, bytes atomic.Int64  // the committed state
	synced               atomic.Uint64 // the last commit number that was synced in this process
	batches, reopenings  atomic.Uint64
	lastLimitLog         atomic.Int64

	opened time.Time
	began  atomic.Int64 // nanoseconds from opened to the beginning of the last batch

	closing  chan struct{}
	done     chan struct{}
	closeErr error // valid once done is closed
}

// Open opens the engine, takes a new actor and starts the one committer goroutine, which ends with Close.
func Open(cfg Config) (*Store, error) {
	s, c, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	go c.run()
	return s, nil
}

// prepare makes a store with its first life, and the committer that is to serve it.
func prepare(cfg Config) (*Store, *committer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	var seed [8]byte
	if _, err := io.ReadFull(cfg.Rand, seed[:]); err != nil {
		return nil, nil, fmt.Errorf("kv: drawing a seed: %w", err)
	}
	s := &Store{
		cfg: cfg, stripes: make([]stripe, stripeCount), moves: make([]atomic.Uint32, ring.Slots),
		requests: newRequests(binary.BigEndian.Uint64(seed[:]), cfg.RequestIDMax, cfg.Now()),
		closing:  make(chan struct{}), done: make(chan struct{}), opened: time.Now(),
	}
	s.queue.init(cfg.QueueMaxItems, cfg.QueueMaxBytes)
	s.observed.observer = cfg.Observer
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer, s); err != nil {
		return nil, nil, err
	}
	c := &committer{store: s}
	if err := c.open(); err != nil {
		s.metrics.unregister()
		return nil, nil, err
	}
	return s, c, nil
}

// Close refuses new requests, commits what is queued, syncs, and closes the engine. It returns the first error of these;
// writes that could not be committed were told so. Idempotent.
func (s *Store) Close() error {
	s.lifeMu.Lock()
	first := !s.closed.Load()
	s.lifeMu.Unlock()
	if first {
		s.withdraw(true)
		s.signalClosing()
	}
	<-s.done
	return s.closeErr
}

func (s *Store) signalClosing() {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	select {
	case <-s.closing:
	default:
		close(s.closing)
	}
}

// Actor returns the actor that mints now; between two openings of the engine, the last one.
func (s *Store) Actor() causal.Actor {
	if l := s.life.Load(); l != nil {
		return l.actor()
	}
	return *s.lastActor.Load()
}

// Stats are counts since Open, where nothing else is said.
type Stats struct {
	Keys, Bytes       int64  // durable records, exact
	CommitNumber      uint64 // of the last batch; see Position
	Minted            uint64 // writes that were given a dot
	Commits           uint64 // batches
	Reopenings        uint64 // of the engine, after failures
	Hints, HintBytes  int64  // durable hints for other nodes
	QueueItems        int    // queued or being committed
	QueueBytes        int
	RequestIDs        int    // remembered
	RequestIDsDropped uint64 // for want of room
	DiskFull          bool   // writes are refused
	Available         bool   // the engine is open
	Engine            engine.Stats
}

// Stats returns the counts. It is cheap enough for each metrics scrape, not for each request.
func (s *Store) Stats() Stats {
	items, bytes := s.queue.load()
	ids, dropped := s.requests.count()
	st := Stats{
		Keys: s.keys.Load(), Bytes: s.bytes.Load(), CommitNumber: uint64(s.commits.Load()),
		Minted: s.minted.Load(), Commits: s.batches.Load(), Reopenings: s.reopenings.Load(),
		QueueItems: items, QueueBytes: bytes, RequestIDs: ids, RequestIDsDropped: dropped, DiskFull: s.full.Load(),
	}
	st.Hints, st.HintBytes, _ = s.HintTotals()
	if l, err := s.acquire(); err == nil {
		st.Available, st.Engine = true, l.eng.Stats()
		l.gate.RUnlock()
	}
	return st
}

// CommitBegan is when the last batch of writes began to be written: for callbacks, the one that they were in, unless nothing had to be
// written for them.
func (s *Store) CommitBegan() time.Time {
	now := time.Now() // whose wall clock it is by
	return now.Add(time.Duration(s.began.Load()) - now.Sub(s.opened))
}

// Pressure is how full the queue of writes is, 0 to 1 or a little more. It is cheap.
func (s *Store) Pressure() float64 {
	items, bytes := s.queue.load()
	return max(float64(items)/float64(s.cfg.QueueMaxItems), float64(bytes)/float64(s.cfg.QueueMaxBytes))
}

// readError says of an error of the engine that it is no absence.
func (s *Store) readError(err error) error {
	if errors.Is(err, engine.ErrDamaged) && !errors.Is(err, ErrDoubted) {
		s.metrics.damaged.Inc()
		s.met(err, 0, false)
	}
	return fmt.Errorf("kv: reading locally: %w", err)
}
