// Package layout is what a node knows and has promised about the cluster's layouts, and the driver that moves it from
// one layout to the next.
package layout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dotring/dotring/ringsvc/planner"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// Names of the durable state in the store.
const (
	metaView  = "layout/view"
	metaFence = "layout/fence"
)

// ErrStored means that the durable layout state cannot be read back: the node must not guess what it promised.
var ErrStored = errors.New("stored layout state is unreadable")

// Store keeps small durable state, in one first-in-first-out queue with the writes of records: when a PutMeta is
// durable, every write queued before it is.
type Store interface {
	PutMeta(name string, v []byte, done func(error)) error
	// GetMeta fails with engine.ErrNotFound where nothing was put.
	GetMeta(name string) ([]byte, error)
}

// Known is what the node knows of the layouts at one moment. Immutable.
type Known struct {
	Cluster ring.ClusterID
	Encoded []byte // the view's bytes; read-only
	Short   []byte // those without the settled layout's document; read-only
	Brief   []byte // see ring.View.EncodeBrief; read-only
	Hash    uint64 // of the view
	Frame   uint64 // see ring.View.Frame
	Settled *ring.Layout
	Newest  *ring.Layout
	Read    *ring.Layout  // the one that reads use
	Synced  ring.LayoutID // the newest one that this node is known to have synced, zero for none

	Dead     []ring.NodeID // whoever is marked dead, sorted
	Removals []ring.Change // see ring.View.Removals
}

// IsDead says whether id is marked dead.
func (k *Known) IsDead(id ring.NodeID) bool {
	_, dead := slices.BinarySearchFunc(k.Dead, id, ring.NodeID.Compare)
	return dead
}

// IsSettled says whether no change is under way.
func (k *Known) IsSettled() bool { return k.Settled.ID() == k.Newest.ID() }

// IsMember says whether the newest or the settled layout holds id.
func (k *Known) IsMember(id ring.NodeID) bool {
	_, now := k.Settled.Member(id)
	_, soon := k.Newest.Member(id)
	return now || soon
}

// State holds the view and the fence. The view changes by merging what others know and by this node's own steps; the
// fence only by those. All methods are safe for concurrent use; the methods that take a step (Adopt, Acknowledge,
// Synced, Switch, Propose, Persist) must have one caller at a time.
type State struct {
	self  ring.NodeID
	store Store

	// admit orders writes and acknowledgements: a write holds it shared from its check until it is queued, an
	// acknowledgement alone while it raises the fence and queues the fence's record. So whatever was admitted under the
	// old fence stands before that record in the store's queue.
	admit sync.RWMutex
	fence atomic.Pointer[ring.Fence] // stored only under admit's write lock

	promised atomic.Pointer[ring.Fence] // the fence that is durable

	removed atomic.Bool // this node is marked dead
	cutOff  atomic.Bool // it heard of no majority for long

	known atomic.Pointer[Known] // nil while the node has no view

	mu        sync.Mutex
	view      *ring.View    // nil while there is none
	changed   chan struct{} // closed and replaced when view changes
	persisted uint64        // hash of the view that is durable
}

// Load reads what an earlier life stored.
func Load(self ring.NodeID, store Store) (*State, error) {
	s := &State{self: self, store: store, changed: make(chan struct{})}
	s.fence.Store(&ring.Fence{})
	s.promised.Store(&ring.Fence{})
	b, err := get(store, metaFence)
	if err != nil {
		return nil, err
	}
	if b != nil {
		f, err := ring.DecodeFence(b)
		if err != nil {
			return nil, fmt.Errorf("%w: fence: %w", ErrStored, err)
		}
		s.fence.Store(&f)
		s.promised.Store(&f)
	}
	b, err = get(store, metaView)
	if err != nil || b == nil {
		return s, err
	}
	v, err := ring.DecodeView(b)
	if err != nil {
		return nil, fmt.Errorf("%w: view: %w", ErrStored, err)
	}
	s.view = v
	s.publishLocked()
	s.persisted = v.Hash()
	return s, nil
}

// get returns nil where nothing is stored.
func get(store Store, name string) ([]byte, error) {
	b, err := store.GetMeta(name)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// Known returns the present knowledge, nil while there is none.
func (s *State) Known() *Known { return s.known.Load() }

// Fence returns what the node has promised: the fence that is durable. For a moment it may act on a newer one.
func (s *State) Fence() ring.Fence { return *s.promised.Load() }

// Changed is closed at the next change of the view.
func (s *State) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// View returns a copy of the view for the caller to keep, nil while there is none.
func (s *State) View() *ring.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return nil
	}
	return s.view.Clone()
}

// publishLocked makes the view that was just changed visible. The caller holds mu.
func (s *State) publishLocked() {
	v := s.view
	k := &Known{Cluster: v.Cluster(), Encoded: v.Encode(), Short: v.EncodeFor(v.Settled().ID()), Brief: v.EncodeBrief(), Hash: v.Hash(), Frame: v.Frame(), Settled: v.Settled(), Newest: v.Newest(), Read: v.ReadLayout(),
		Dead: v.Dead(), Removals: v.Removals()}
	s.removed.Store(v.IsDead(s.self))
	if _, in := k.Settled.Member(s.self); in {
		k.Synced = k.Settled.ID()
	}
	if _, in := k.Newest.Member(s.self); in {
		if _, missing, _ := v.Missing(k.Newest); !slices.Contains(missing, s.self) {
			k.Synced = k.Newest.ID()
		}
	}
	s.known.Store(k)
	close(s.changed)
	s.changed = make(chan struct{})
}

// BeginWrite says whether a client's write that carries these live layouts may be taken. Where it may, the caller queues
// the write in the store and then calls EndWrite; it must not wait for anything but the store in between.
func (s *State) BeginWrite(live []ring.LayoutID) bool {
	s.admit.RLock()
	if !s.removed.Load() && s.fence.Load().AdmitWrite(live) {
		return true
	}
	s.admit.RUnlock()
	return false
}

// EndWrite ends what a BeginWrite that answered true began.
func (s *State) EndWrite() { s.admit.RUnlock() }

// AdmitRead says whether a read that uses this layout may be answered.
func (s *State) AdmitRead(id ring.LayoutID) bool {
	return !s.removed.Load() && !s.cutOff.Load() && s.fence.Load().AdmitRead(id)
}

// Removed says whether this node is marked dead: it must not serve, nor give away what it holds.
func (s *State) Removed() bool { return s.removed.Load() }

// SetCutOff says whether the node has heard from no majority for so long that it may have been removed, and returns what was said before.
func (s *State) SetCutOff(now bool) (before bool) { return s.cutOff.Swap(now) }

// CutOff says what SetCutOff said last.
func (s *State) CutOff() bool { return s.cutOff.Load() }

// Cluster returns the cluster's id, zero while the node belongs to none.
func (s *State) Cluster() ring.ClusterID {
	if k := s.known.Load(); k != nil {
		return k.Cluster
	}
	return ring.ClusterID{}
}

// Encoded returns the view's bytes, read-only, nil while there is none.
func (s *State) Encoded() []byte {
	if k := s.known.Load(); k != nil {
		return k.Encoded
	}
	return nil
}

// Owns says whether reads use this node for the slot, as far as it knows.
func (s *State) Owns(slot ring.Slot) bool {
	k := s.known.Load()
	return k != nil && !s.removed.Load() && k.Read.Owns(s.self, slot)
}

// Ready says whether the node knows a settled layout that it is part of.
func (s *State) Ready() bool {
	k := s.known.Load()
	if k == nil {
		return false
	}
	_, in := k.Settled.Member(s.self)
	return in && !s.removed.Load()
}

// Merge adds what another knows. It fails with ring.ErrForeignCluster, and changes nothing, where that is another
// cluster's view; and before Adopt it does nothing.
func (s *State) Merge(o *ring.View) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return false, nil
	}
	changed, err = s.view.Merge(o)
	if changed {
		s.publishLocked()
	}
	return changed, err
}

// Union reads a view that somebody sent, brief or whole, beside the own one, and returns both together and the one that was sent. Nothing is
// changed. Without an own view nothing is known of a brief one, and both are nil, as they are where nothing was sent. It fails with
// ring.ErrMissingLayout where the sender knows other layouts, and has left out what is needed to read it, and with ring.ErrForeignCluster.
func (s *State) Union(b []byte) (union, sent *ring.View, err error) {
	own := s.View()
	switch {
	case len(b) == 0 || own == nil && ring.IsBrief(b):
		return own, nil, nil
	case own == nil:
		sent, err = ring.DecodeView(b)
		return sent, sent, err
	case ring.IsBrief(b):
		sent, err = ring.DecodeBrief(b, own)
	default:
		sent, err = ring.DecodeViewFor(b, own.Settled())
	}
	if err != nil {
		return nil, nil, err
	}
	_, err = own.Merge(sent)
	return own, sent, err
}

// MergeFrom merges what from sent, a node or a gateway, where its word counts: see ring.View.Accepts.
func (s *State) MergeFrom(from ring.NodeID, o *ring.View) (changed bool, err error) {
	s.mu.Lock()
	trusted := s.view == nil || s.view.Cluster() != o.Cluster() || s.view.Accepts(from, o)
	s.mu.Unlock()
	if !trusted {
		return false, nil
	}
	return s.Merge(o)
}

// put stores small state and waits until it is durable.
func (s *State) put(ctx context.Context, name string, v []byte) error {
	durable := make(chan error, 1)
	if err := s.store.PutMeta(name, v, func(err error) { durable <- err }); err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	select {
	case err := <-durable:
		if err != nil {
			return fmt.Errorf("store %s: %w", name, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Adopt takes the first view: the founder's own, or that of the cluster the node joins. It is durable on return.
func (s *State) Adopt(ctx context.Context, v *ring.View) error {
	if err := s.put(ctx, metaView, v.Encode()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != nil {
		_, err := s.view.Merge(v)
		s.publishLocked()
		return err
	}
	s.view = v.Clone()
	s.persisted = v.Hash()
	s.publishLocked()
	return nil
}

// raiseFence changes the fence in memory at once, and returns when that is durable. A fence that could not be stored
// stays raised: it refuses more than was promised, and the caller tries again.
func (s *State) raiseFence(ctx context.Context, change func(*ring.Fence)) error {
	durable := make(chan error, 1)
	s.admit.Lock()
	next := *s.fence.Load()
	change(&next)
	s.fence.Store(&next)
	err := s.store.PutMeta(metaFence, next.Encode(), func(err error) { durable <- err })
	s.admit.Unlock()
	if err != nil {
		return fmt.Errorf("store fence: %w", err)
	}
	select {
	case err := <-durable:
		if err != nil {
			return fmt.Errorf("store fence: %w", err)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	s.promised.Store(&next)
	return nil
}

// mark adds a mark of this node to the view: first to the durable one, then to the one that others see.
func (s *State) mark(ctx context.Context, set func(*ring.View)) error {
	v := s.View()
	if v == nil {
		return nil
	}
	set(v)
	hash := v.Hash()
	if err := s.put(ctx, metaView, v.Encode()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.view.Hash()
	set(s.view)
	s.persisted = hash
	if s.view.Hash() != before {
		s.publishLocked()
	}
	return nil
}

// Acknowledge promises to refuse writes that do not know l. On return every write admitted before is durable, and the
// acknowledgement is known to the view.
func (s *State) Acknowledge(ctx context.Context, l ring.LayoutID) error {
	if err := s.raiseFence(ctx, func(f *ring.Fence) { f.Acked = l }); err != nil {
		return err
	}
	return s.mark(ctx, func(v *ring.View) { v.MarkAcked(l, s.self) })
}

// Confirm promises to take no more views from a member that is marked dead.
func (s *State) Confirm(ctx context.Context, dead ring.NodeID) error {
	return s.mark(ctx, func(v *ring.View) { v.ConfirmDead(dead, s.self) })
}

// Synced records that all pulls for l are durable here.
func (s *State) Synced(ctx context.Context, l ring.LayoutID) error {
	return s.mark(ctx, func(v *ring.View) { v.MarkSynced(l, s.self) })
}

// Switch refuses reads of layouts older than l from now on.
func (s *State) Switch(ctx context.Context, l ring.LayoutID) error {
	err := s.raiseFence(ctx, func(f *ring.Fence) { f.ReadEpoch = max(f.ReadEpoch, l.Epoch) })
	if err != nil {
		return err
	}
	return s.mark(ctx, func(v *ring.View) { v.MarkSwitched(l, s.self) })
}

// Propose puts changes on the settled layout, with tokens as the planner chooses them. It fails with ring.ErrUnsettled where a change is under way.
func (s *State) Propose(ctx context.Context, changes []ring.Change) (l *ring.Layout, err error) {
	err = s.Update(ctx, func(v *ring.View) error {
		l, err = v.Propose(planner.Plan(v.Settled(), changes))
		return err
	})
	return l, err
}

// Update changes the view as change does a copy of it, durably before anyone sees it. Nothing changes where change fails. It
// fails with ring.ErrUnsettled where there is no view.
func (s *State) Update(ctx context.Context, change func(*ring.View) error) error {
	v := s.View()
	if v == nil {
		return ring.ErrUnsettled
	}
	if err := change(v); err != nil {
		return err
	}
	if err := s.put(ctx, metaView, v.Encode()); err != nil {
		return err
	}
	_, err := s.Merge(v)
	return err
}

// Persist stores the view where it changed since it was last stored.
func (s *State) Persist(ctx context.Context) error {
	s.mu.Lock()
	if s.view == nil || s.view.Hash() == s.persisted {
		s.mu.Unlock()
		return nil
	}
	b, hash := s.view.Encode(), s.view.Hash()
	s.mu.Unlock()
	if err := s.put(ctx, metaView, b); err != nil {
		return err
	}
	s.mu.Lock()
	s.persisted = hash
	s.mu.Unlock()
	return nil
}
