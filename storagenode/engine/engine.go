// Package engine is the ordered key-value store a storage node keeps on one disk directory, seen through the few
// operations the node needs.
//
// An engine is fail-stop: the first write that fails is the last one tried. Stores that go on writing behind a failed
// write lose what they acknowledge afterwards (a log whose fsync failed once has a hole that recovery stops at), so
// every later Apply and Sync returns the first failure until the engine is closed and opened again by its [Opener].
// That reopening is a crash as far as the caller is concerned: a batch that failed may or may not be there afterwards,
// every batch acknowledged with sync before it is.
package engine

import "errors"

var (
	// ErrNotFound says that the key has no value. It is never returned for a key that could not be read.
	ErrNotFound = errors.New("engine: key not found")

	// ErrDamaged says that stored bytes are corrupt, missing or unreadable. The key may or may not exist. Errors that
	// wrap it carry a [*Damage] where the place is known.
	ErrDamaged = errors.New("engine: stored data damaged")

	// ErrClosed says that the engine, or the snapshot, was closed.
	ErrClosed = errors.New("engine: closed")

	// ErrLatched is wrapped by every write error after the first, beside the error that stopped the engine.
	ErrLatched = errors.New("engine: stopped by an earlier write failure, reopen to go on")

	// ErrBatchTooLarge refuses a batch above [Engine.MaxBatch]. Nothing was written and the engine goes on.
	ErrBatchTooLarge = errors.New("engine: batch too large")

	// ErrLocked says that another process, or another engine of this one, holds the directory.
	ErrLocked = errors.New("engine: directory is locked by another owner")
)

// Reader reads one consistent state.
type Reader interface {
	// Get appends the value of key to dst and returns the result, as append does; the caller owns it. The result is
	// nil for an empty value if dst was. Errors: ErrNotFound, ErrDamaged, ErrClosed, or a transient failure to read (such as too many open
	// files); dst is returned unchanged with each.
	Get(key, dst []byte) ([]byte, error)

	// Iterate calls fn for each key in [from, to) in ascending byte order, on the state as it was when Iterate was
	// called. A nil from is the first key, a nil to is past the last. k and v are valid only until fn returns and
	// must not be modified. It ends with nil after the last key or when fn answers false, and with fn's error as it
	// is. It never skips what it cannot read: it ends with ErrDamaged there. fn may use the engine, except Close.
	Iterate(from, to []byte, fn func(k, v []byte) (more bool, err error)) error
}

// Snapshot is a Reader of the state at the moment it was taken. It keeps superseded data on disk, so it must be
// released; Release is idempotent, and the engine's Close releases what was left.
type Snapshot interface {
	Reader
	Release()
}

// Engine is an ordered map on disk. All methods are safe for concurrent use; writes are serialised.
type Engine interface {
	Reader

	// Apply makes all of b visible at once, or nothing of it. With sync it returns after the batch, and every batch
	// applied before it, is on stable storage; without, a power cut may lose it, but only together with every batch
	// applied after it. Apply does not keep b. The first failure, other than ErrBatchTooLarge, stops the engine: its
	// outcome is unknown, and every later Apply and Sync returns ErrLatched wrapping it.
	Apply(b *Batch, sync bool) error

	// Sync puts every batch applied so far on stable storage. It fails and latches as Apply does.
	Sync() error

	// MaxBatch is the largest [Batch.Size] that Apply takes, in bytes.
	MaxBatch() int

	// Snapshot pins the present state.
	Snapshot() (Snapshot, error)

	// Err returns the failure that stopped the engine, nil while it takes writes. Failures in the background
	// (compaction meeting a damaged table) are known here before the next Apply returns them.
	Err() error

	// Suspect says that opening this engine dropped data it could not tell from data that was acknowledged: absence
	// of a key proves nothing. An unfinished last write, cut off by a crash, does not make an engine suspect.
	Suspect() bool

	// Recovery tells what opening found.
	Recovery() Recovery

	// Stats returns counters and sizes. It is cheap enough to call for each metrics scrape, not for each request.
	Stats() Stats

	// Close waits for readers in flight, of which iterations stop with ErrClosed, and releases everything. It is
	// idempotent and releases also when it returns an error. Close syncs what was applied, unless the engine had
	// been stopped by a failure.
	Close() error
}

// Opener opens an engine on a place it knows, anew each time: the earlier engine on that place must have been closed.
type Opener func() (Engine, error)

// Recovery is what opening an engine found in its logs.
type Recovery struct {
	// Logs counts log files that were replayed.
	Logs int
	// TornBytes counts bytes dropped at the end of the last log, where a crash interrupts a write.
	TornBytes int64
	// Dropped counts pieces that were dropped elsewhere. Each makes the engine suspect.
	Dropped int
	// Details describes the first drops, at most 16 lines.
	Details []string
}
