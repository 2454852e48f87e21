// Package leftovers hands over what a node holds and does not own any more, and removes it once all owners have it.
package leftovers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/hints"
	"github.com/dotring/dotring/storagenode/internal/handoff"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/transfer"
)

const (
	// lookEvery is how often the layout is looked at; passEvery how often a node that has nothing left looks again, since
	// late writes and hints may still come.
	lookEvery = 500 * time.Millisecond
	passEvery = 30 * time.Second
	// retryFirst is the pause after a turn that left something; it doubles up to passEvery.
	retryFirst = time.Second
	// callTimeout bounds one call; namesMost the records that one may ask about.
	callTimeout = 10 * time.Second
	namesMost   = 1024
	// compactBytes is how much is removed before the engine is asked for the room.
	compactBytes = 32 << 20
	// pageBytes is how much is looked through and handed over at once: pieces as small as those of pulls, between which clients'
	// writes come first.
	pageBytes = 64 << 10
)

// Store is the part of kv.Store that is used here.
type Store interface {
	Scan(r ring.Range, after []byte, fn func(key, rec []byte) (more bool, err error)) error
	Read(key []byte) ([]byte, error)
	DropRecord(key, seen []byte, done func(dropped bool, err error)) error
	Compact(r ring.Range) error
}

// Peers calls other nodes; see peer.Pool and handoff.Peers.
type Peers interface {
	To(id ring.NodeID) (storagev1.StorageClient, func(), error)
	handoff.Peers
}

// Config is what a Service needs; all fields are required.
type Config struct {
	Self  ring.NodeID
	Store Store
	State *layout.State
	// InDoubt says that something that the store holds is in doubt.
	InDoubt func() bool
	// Alive tells where the other nodes that live are reached.
	Alive func() map[ring.NodeID]string
	Peers Peers
	// Throttle bounds what is looked through and handed over, and gives way to clients; it is this service's alone.
	Throttle *layout.Throttle
	// Grace is the grace time of tombstones.
	Grace      time.Duration
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Service hands over and removes. Run does that; the other methods are safe at any time.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics

	mu   sync.Mutex
	task *Task // nil: nothing is left, as far as is known

	// The rest belongs to Run's goroutine.
	layout   ring.LayoutID // that of the last turn
	due      time.Time
	fails    int
	standing transfer.Standing
}

// Task is what is being handed over.
type Task struct {
	Removed               uint64
	SlotsDone, SlotsTotal uint64
	Waits                 string // for whom or what, empty for nothing
}

// New registers the metrics.
func New(cfg Config) (*Service, error) {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &Service{cfg: cfg, log: cfg.Logger, metrics: m, standing: transfer.Standing{Grace: cfg.Grace}}, nil
}

// Task tells what is being handed over; false where nothing is.
func (s *Service) Task() (Task, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.task == nil {
		return Task{}, false
	}
	return *s.task, true
}

// Run hands over until ctx ends.
func (s *Service) Run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if l := s.settled(time.Now()); l != nil {
			s.turn(ctx, l)
		}
		s.cfg.Throttle.Idle(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// mayHand says whether something may be handed over now, as far as this process has been in sight; see transfer.Standing.
func (s *Service) mayHand(now time.Time, k *layout.Known) bool {
	if s.cfg.State.Removed() {
		return false
	}
	before, alive := s.standing.Late(), s.cfg.Alive()
	may := s.standing.Look(now, k.Settled, k.Newest, s.cfg.Self, func(id ring.NodeID) bool { return alive[id] != "" })
	if s.standing.Late() && !before {
		s.log.Warn().Msg("this node lost sight of the cluster that it leaves, or was started meanwhile: what it still holds is handed over no more")
	}
	return may
}

// settled returns the layout under which something may be handed over now, nil for none.
func (s *Service) settled(now time.Time) *ring.Layout {
	k := s.cfg.State.Known()
	if k == nil || !s.mayHand(now, k) {
		return nil
	}
	if !k.IsSettled() || s.cfg.InDoubt() {
		return nil
	}
	if id := k.Settled.ID(); id != s.layout {
		s.layout, s.due, s.fails = id, time.Time{}, 0
	}
	if now.Before(s.due) {
		return nil
	}
	return k.Settled
}

// turn looks through all that the node does not own.
func (s *Service) turn(ctx context.Context, l *ring.Layout) {
	t := turn{s: s, layout: l}
	ranges := transfer.Unowned(l, s.cfg.Self)
	for _, r := range ranges {
		t.task.SlotsTotal += uint64(r.Len())
	}
	var err error
	for _, r := range ranges {
		if err = t.pass(ctx, r); err != nil {
			break
		}
		t.task.SlotsDone += uint64(r.Len())
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		t.task.Waits = err.Error()
	}
	now := time.Now()
	if t.task.Waits != "" {
		s.due = now.Add(min(retryFirst<<min(s.fails, 5), passEvery))
		s.fails++
		s.metrics.waiting.Set(1)
		t.show()
		s.log.Debug().Str("waits", t.task.Waits).Msg("what is not owned any more cannot be handed over yet")
		return
	}
	s.due, s.fails = now.Add(passEvery), 0
	s.metrics.waiting.Set(0)
	s.mu.Lock()
	s.task = nil
	s.mu.Unlock()
	if t.task.Removed > 0 {
		s.log.Info().Stringer("layout", l.ID()).Uint64("records", t.task.Removed).Msg("what is not owned any more is with its owners, and removed")
	}
}

// turn is one look through all that is not owned.
type turn struct {
	s      *Service
	layout *ring.Layout
	task   Task
}

func (t *turn) show() {
	task := t.task
	t.s.mu.Lock()
	t.s.task = &task
	t.s.mu.Unlock()
}

// leftover is a record at hand.
type leftover struct{ key, rec []byte }

// errChanged ends a turn because the layout changed.
var errChanged = errors.New("the layout is changing")

// errOutOfSight ends a turn because the node may hand over nothing more.
var errOutOfSight = errors.New("this node was out of the others' sight")

// pass goes through a range. What an owner does not confirm stays, and the next turn comes back to it.
func (t *turn) pass(ctx context.Context, r ring.Range) error {
	var after []byte
	begin, removed := r.From, 0
	compact := func(to ring.Slot) error {
		if removed == 0 {
			return nil
		}
		err := t.s.cfg.Store.Compact(ring.Range{From: begin, To: to})
		begin, removed = to, 0
		return err
	}
	for ctx.Err() == nil {
		obtained := time.Now()
		if !t.s.mayHand(obtained, t.s.cfg.State.Known()) {
			return errOutOfSight
		}
		var page []leftover
		size := 0
		err := t.s.cfg.Store.Scan(r, after, func(key, rec []byte) (bool, error) {
			if len(page) == namesMost || len(page) > 0 && size+len(key)+len(rec) > pageBytes {
				return false, nil
			}
			size += len(key) + len(rec)
			page = append(page, leftover{bytes.Clone(key), bytes.Clone(rec)})
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("read what is left: %w", err)
		}
		if len(page) == 0 {
			return compact(r.To)
		}
		t.show()
		if t.s.cfg.Throttle.Wait(ctx, size); ctx.Err() != nil {
			return ctx.Err()
		}
		n, err := t.hand(ctx, page, obtained)
		if err != nil {
			return err
		}
		removed += n
		after = page[len(page)-1].key
		if removed >= compactBytes {
			if err := compact(ring.SlotOf(after)); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// hand has all owners confirm some records, and removes those that they did. It returns the bytes removed.
func (t *turn) hand(ctx context.Context, page []leftover, obtained time.Time) (int, error) {
	b := transfer.NewBatch(t.layout)
	for _, it := range page {
		d, err := record.DigestOf(it.rec)
		if err != nil {
			return 0, err
		}
		b.Add(ring.SlotOf(it.key), d)
	}
	alive := t.s.cfg.Alive()
	for _, id := range b.Owners() {
		addr := alive[id]
		if addr == "" {
			t.task.Waits = t.name(id) + " is away"
			continue
		}
		if err := t.ask(ctx, b, page, id, addr, obtained); err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			t.task.Waits = fmt.Sprintf("%s: %v", t.name(id), err)
		} else if len(b.Wants(id)) > 0 {
			t.task.Waits = t.name(id) + " takes some records not yet"
		}
	}
	return t.remove(b, page)
}

func (t *turn) name(id ring.NodeID) string {
	if m, ok := t.layout.Member(id); ok && m.Name != "" {
		return m.Name
	}
	return id.String()
}

// ask asks an owner what it holds, and brings it what it does not.
func (t *turn) ask(ctx context.Context, b *transfer.Batch, page []leftover, id ring.NodeID, addr string, obtained time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, done, err := t.s.cfg.Peers.To(id)
	if err != nil {
		return err
	}
	defer done()
	wants := b.Wants(id)
	req := &storagev1.HoldsRequest{From: t.s.cfg.Self[:]}
	for _, i := range wants {
		d := b.Digest(i)
		req.Records = append(req.Records, &storagev1.RecordName{Key: page[i].key, Digest: d[:]})
	}
	resp, err := c.Holds(ctx, req)
	if err != nil {
		return err
	}
	if len(resp.GetHolds()) != len(wants) {
		return errors.New("malformed answer")
	}
	for at, holds := range resp.GetHolds() {
		if holds {
			b.Confirm(id, wants[at])
		}
	}
	if wants = b.Wants(id); len(wants) == 0 {
		return nil
	}
	var records []*storagev1.PulledRecord
	for _, i := range wants {
		records = append(records, &storagev1.PulledRecord{Key: page[i].key, Record: page[i].rec})
	}
	statuses, wait, err := t.s.cfg.Peers.Deliver(ctx, addr, obtained, records)
	if err != nil {
		return err
	}
	if len(statuses) != len(wants) {
		return errors.New("malformed answer")
	}
	for at, st := range statuses {
		if st == storagev1.Status_STATUS_OK {
			b.Confirm(id, wants[at])
			t.s.metrics.delivered.Inc()
		}
	}
	pause(ctx, min(wait, hints.PauseMax))
	return nil
}

// remove removes what all owners have confirmed, as far as it is still what they did, and the node owns none of it again.
func (t *turn) remove(b *transfer.Batch, page []leftover) (size int, err error) {
	type outcome struct {
		size    int
		dropped bool
		err     error
	}
	outcomes := make(chan outcome, len(page))
	asked := 0
	for _, i := range b.Removable() {
		it := page[i]
		if !t.s.cfg.State.BeginRemoval(t.layout, ring.SlotOf(it.key)) {
			err = errChanged
			break
		}
		err = t.s.cfg.Store.DropRecord(it.key, it.rec, func(dropped bool, err error) {
			outcomes <- outcome{len(it.key) + len(it.rec), dropped, err}
		})
		t.s.cfg.State.EndRemoval()
		if err != nil {
			break
		}
		asked++
	}
	for range asked { // the store answers all it took
		o := <-outcomes
		if o.err != nil {
			err = o.err
		}
		if o.dropped {
			size += o.size
			t.task.Removed++
			t.s.metrics.removed.Inc()
		}
	}
	return size, err
}

// Holds answers others: which records are held here durably, exactly as named.
func (s *Service) Holds(_ context.Context, req *storagev1.HoldsRequest) (*storagev1.HoldsResponse, error) {
	switch {
	case len(req.GetFrom()) != len(ring.NodeID{}) || len(req.GetRecords()) > namesMost:
		return nil, status.Error(codes.InvalidArgument, "a question needs a sender, and at most 1024 records")
	case s.cfg.State.Known() == nil || s.cfg.State.Removed():
		return nil, status.Error(codes.Unavailable, "node has no layout, or was removed")
	}
	resp := &storagev1.HoldsResponse{Holds: make([]bool, len(req.GetRecords()))}
	for i, name := range req.GetRecords() {
		rec, err := s.cfg.Store.Read(name.GetKey())
		if err != nil {
			continue // absent, in doubt or unreadable: it is not confirmed
		}
		d, err := record.DigestOf(rec)
		resp.Holds[i] = err == nil && bytes.Equal(d[:], name.GetDigest())
	}
	return resp, nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
