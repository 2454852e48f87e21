// Package memory is the engine in memory: an immutable tree whose root is swapped at each batch, so that readers take
// no lock and a snapshot costs a pointer.
package memory

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dotring/dotring/storagenode/engine"
)

// maxBatch bounds a batch as the LevelDB engine does with its default options, so that what works on one works on the
// other.
const maxBatch = 8 << 20

// Store is the place that engines are opened on: it outlives them, as a directory does. It keeps apart what was synced,
// so that a power cut can be played. Safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	root    atomic.Pointer[node]
	durable *node
	owner   *memEngine
	fail    error
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{} }

// New returns an engine on an empty store of its own.
func New() engine.Engine {
	return NewStore().newEngine()
}

// Open opens an engine on the store; ErrLocked while another is open. It is an [engine.Opener].
func (s *Store) Open() (engine.Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != nil {
		return nil, fmt.Errorf("open memory engine: %w", engine.ErrLocked)
	}
	return s.newEngine(), nil
}

func (s *Store) newEngine() *memEngine {
	e := &memEngine{store: s}
	s.owner = e
	return e
}

// Fail makes the next write of the open engine, and by its latch all later ones, fail with err. The failed batch is
// not applied.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Crash takes the state back to the last sync and closes the open engine, as a power cut would.
func (s *Store) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root.Store(s.durable)
	if s.owner != nil {
		s.owner.closed.Store(true)
		s.owner = nil
	}
}

// memEngine is one opening of a Store. The store's mutex serialises writes.
type memEngine struct {
	store   *Store
	closed  atomic.Bool
	latched error // guarded by store.mu
	stats   engine.Stats
	snaps   atomic.Int64
	iters   atomic.Int64
}

// view reads one immutable tree.
type view struct {
	root *node
	e    *memEngine
	done atomic.Bool
}

func (v *view) check() error {
	if v.done.Load() || v.e.closed.Load() {
		return engine.ErrClosed
	}
	return nil
}

func (v *view) Get(key, dst []byte) ([]byte, error) {
	if err := v.check(); err != nil {
		return dst, err
	}
	return get(v.root, key, dst)
}

func get(root *node, key, dst []byte) ([]byte, error) {
	n := find(root, key)
	if n == nil {
		return dst, engine.ErrNotFound
	}
	return append(dst, n.value...), nil
}

func (v *view) Iterate(from, to []byte, fn func(k, v []byte) (bool, error)) error {
	v.e.iters.Add(1)
	defer v.e.iters.Add(-1)
	if err := v.check(); err != nil {
		return err
	}
	_, err := walk(v.root, from, to, func(n *node) (bool, error) {
		if err := v.check(); err != nil {
			return false, err
		}
		return fn(n.key, n.value)
	})
	return err
}

// Release ends the snapshot.
func (v *view) Release() {
	if v.done.CompareAndSwap(false, true) {
		v.e.snaps.Add(-1)
	}
}

func (e *memEngine) Get(key, dst []byte) ([]byte, error) {
	if e.closed.Load() {
		return dst, engine.ErrClosed
	}
	return get(e.store.root.Load(), key, dst)
}

func (e *memEngine) Iterate(from, to []byte, fn func(k, v []byte) (bool, error)) error {
	v := view{root: e.store.root.Load(), e: e}
	return v.Iterate(from, to, fn)
}

func (e *memEngine) Snapshot() (engine.Snapshot, error) {
	if e.closed.Load() {
		return nil, engine.ErrClosed
	}
	e.snaps.Add(1)
	return &view{root: e.store.root.Load(), e: e}, nil
}

func (e *memEngine) Apply(b *engine.Batch, sync bool) error {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	if err := e.writableLocked(); err != nil {
		return err
	}
	if b.Size() > maxBatch {
		return fmt.Errorf("apply %d bytes, limit %d: %w", b.Size(), maxBatch, engine.ErrBatchTooLarge)
	}
	root := e.store.root.Load()
	b.Each(func(key, value []byte) {
		if value == nil {
			root = remove(root, key)
		} else {
			root = insert(root, key, value)
		}
		e.stats.UserBytes += uint64(len(key) + len(value))
	})
	e.stats.Batches++
	e.stats.Records += uint64(b.Len())
	e.store.root.Store(root)
	if sync {
		e.syncLocked()
	}
	return nil
}

func (e *memEngine) Sync() error {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	if err := e.writableLocked(); err != nil {
		return err
	}
	e.syncLocked()
	return nil
}

func (e *memEngine) syncLocked() {
	e.store.durable = e.store.root.Load()
	e.stats.Syncs++
}

// writableLocked returns why a write is refused, and latches an injected failure.
func (e *memEngine) writableLocked() error {
	if e.closed.Load() {
		return engine.ErrClosed
	}
	if e.latched != nil {
		return fmt.Errorf("%w: %w", engine.ErrLatched, e.latched)
	}
	if err := e.store.fail; err != nil {
		e.store.fail = nil
		e.latched = err
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

func (e *memEngine) Err() error {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	return e.latched
}

func (e *memEngine) MaxBatch() int             { return maxBatch }
func (e *memEngine) Suspect() bool             { return false }
func (e *memEngine) Recovery() engine.Recovery { return engine.Recovery{} }

func (e *memEngine) Stats() engine.Stats {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	s := e.stats
	s.Snapshots, s.Iterations = int(e.snaps.Load()), int(e.iters.Load())
	return s
}

// Close keeps the data in the store. Readers in flight go on over their own tree until their next key, where they end
// with ErrClosed; there is nothing to wait for.
func (e *memEngine) Close() error {
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	if e.closed.Swap(true) {
		return nil
	}
	e.store.owner = nil
	e.store.fail = nil
	if e.latched == nil {
		e.store.durable = e.store.root.Load()
	}
	return nil
}
