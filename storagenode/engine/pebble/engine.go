// Package pebble is the engine on CockroachDB's Pebble. It stops at the first failed write, as every engine must, where
// the library would end the process; it waits for lagging compaction where the wait can be ended; and it turns the
// library's panics in its callers into errors.
//
// What ends the process all the same is a panic in one of the library's own goroutines, a broken invariant and not a
// failing disk. That loses nothing: a batch is acknowledged only after its sync, and the next opening replays the log.
//
// Rot in the log is found when the database is opened, which then fails with engine.ErrDamaged, if the log goes on in
// another block of 32 KiB: its pieces say up to where the log was synced. Within the last block the library takes rot
// for the torn end that a crash leaves, and drops what follows in silence: up to 32 KiB of batches that were
// acknowledged. Its reader does not tell where it stopped or what it saw there, so an engine that opened is never
// suspect. The owner's commit number, kept with its data and remembered by others, shows such a loss.
package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/engine"
)

// Engine implements engine.Engine. Build it with Open.
type Engine struct {
	db     *pebble.DB
	guard  *guard
	log    *logger
	opts   Options
	noSync bool // tests: acknowledge without sync

	// users counts readers, whom Close waits for. It is only tried for reading, and stays locked once closed: a try
	// fails from the moment that Close waits, and so a reader may enter twice.
	users   sync.RWMutex
	closed  atomic.Bool
	closing sync.Once
	result  error

	// write serialises Apply and Sync, and makes nothing succeed behind a failure.
	write sync.Mutex
	// jammed says that the library panicked in a write and may hold its own locks.
	jammed  bool
	latched atomic.Pointer[error]
	stall   stall

	batches, records, userBytes atomic.Uint64
	damagedReads                atomic.Uint64
	iterations                  atomic.Int64

	snapMu sync.Mutex
	snaps  map[*snapshot]struct{}
}

// hooks switch off safeguards, to show that tests notice.
type hooks struct {
	noSync bool
}

// Open opens the engine in dir, creating both if there is none. The library's own messages go to log, those without a
// fault at level debug. Errors: those of Options.Validate, engine.ErrLocked, engine.ErrDamaged if the database cannot
// be opened as it is, or those of the file system.
func Open(dir string, o Options, log zerolog.Logger) (*Engine, error) {
	return open(vfs.Default, dir, o, log, hooks{})
}

// Opener returns an engine.Opener for dir.
func Opener(dir string, o Options, log zerolog.Logger) engine.Opener {
	return func() (engine.Engine, error) {
		e, err := Open(dir, o, log)
		if err != nil {
			return nil, err // not e: an interface around a nil pointer is not nil
		}
		return e, nil
	}
}

func open(fs vfs.FS, dir string, o Options, log zerolog.Logger, h hooks) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	g := newGuard(fs, o.CompactionRate)
	e := &Engine{
		guard: g, opts: o, noSync: h.noSync, snaps: map[*snapshot]struct{}{},
		log: &logger{guard: g, log: log},
	}
	e.stall.init()
	if err := e.openLibrary(filepath.Clean(dir)); err != nil {
		close(g.quit)
		if cause := g.failed(); cause != nil {
			err = cause // whatever the library made of it
		}
		return nil, errors.Join(fmt.Errorf("open engine in %s: %w", dir, err), g.close())
	}
	g.opening.Store(false)
	return e, nil
}

func (e *Engine) openLibrary(dir string) (err error) {
	defer rescue(&err)
	l := e.opts.library()
	l.FS, l.Logger, l.EventListener = e.guard, e.log, e.events()
	// The library creates a database in its oldest format and raises it in the end, when the first log is there already,
	// in the old format.
	found, err := pebble.Peek(dir, e.guard.FS)
	if errors.Is(err, os.ErrNotExist) {
		found, err = &pebble.DBDesc{}, nil
	}
	if err == nil && found.FormatMajorVersion < format {
		var raised *pebble.DB
		if raised, err = pebble.Open(dir, l.Clone()); err == nil {
			err = errors.Join(raised.Close(), e.guard.failed())
		}
	}
	if err == nil {
		e.db, err = pebble.Open(dir, l)
	}
	if cause := e.guard.failed(); err == nil && cause != nil {
		return errors.Join(cause, e.db.Close())
	}
	if err != nil && !errors.Is(err, engine.ErrLocked) && unreadable(err) {
		return damage(err)
	}
	return err
}

// rescue turns a panic of the library into damage. It must be deferred itself.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = &engine.Damage{Err: fmt.Errorf("library panicked: %v", p)}
	}
}

// unreadable reports whether a read failed because of what is stored, rather than for lack of something else: corrupt,
// a bad sector, a file gone or shortened.
func unreadable(err error) bool {
	return pebble.IsCorruptionError(err) || errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrNotExist) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// damage describes a corruption, with file and range of keys if the library knows them.
func damage(err error) *engine.Damage {
	d := &engine.Damage{Err: err}
	info := pebble.ExtractDataCorruptionInfo(err)
	if info == nil {
		return d
	}
	d.File = filepath.Base(info.Path)
	if info.Bounds.End.Key != nil { // blob files come without bounds
		d.From, d.To, d.Bounded = bytes.Clone(info.Bounds.Start), bytes.Clone(info.Bounds.End.Key), true
	}
	return d
}

func (e *Engine) enter() bool { return e.users.TryRLock() }

func (e *Engine) leave() { e.users.RUnlock() }

// Get implements engine.Reader.
func (e *Engine) Get(key, dst []byte) ([]byte, error) {
	if !e.enter() {
		return dst, engine.ErrClosed
	}
	defer e.leave()
	return e.get(e.db, key, dst)
}

// get reads from the database or a snapshot; the engine was entered.
func (e *Engine) get(src pebble.Reader, key, dst []byte) ([]byte, error) {
	out, err := getRescued(src, key, dst)
	if err == nil {
		err = e.log.broken()
	}
	if err != nil {
		return dst, e.readError("get", err)
	}
	return out, nil
}

func getRescued(src pebble.Reader, key, dst []byte) (out []byte, err error) {
	defer rescue(&err)
	v, closer, err := src.Get(key)
	if err != nil {
		return nil, err
	}
	out = append(dst, v...)
	return out, closer.Close()
}

// Iterate implements engine.Reader.
func (e *Engine) Iterate(from, to []byte, fn func(k, v []byte) (bool, error)) error {
	if !e.enter() {
		return engine.ErrClosed
	}
	defer e.leave()
	return e.iterate(func(o *pebble.IterOptions) (*pebble.Iterator, error) { return newIterator(e.db, o) }, from, to, fn)
}

// iterate walks over what open opens; the engine was entered.
func (e *Engine) iterate(open func(*pebble.IterOptions) (*pebble.Iterator, error), from, to []byte,
	fn func(k, v []byte) (bool, error)) (err error) {
	if to != nil && bytes.Compare(from, to) >= 0 {
		return nil
	}
	if len(from) == 0 {
		from = nil // the same, and the library's own checks under the race detector do not expect it
	}
	e.iterations.Add(1)
	defer e.iterations.Add(-1)
	it, err := open(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if errors.Is(err, engine.ErrClosed) {
		return err
	}
	if err != nil {
		return e.readError("iterate", err)
	}
	defer func() {
		// A failure of the iterator is known from its last step already.
		_ = closeIterator(it)
	}()
	for move := it.First; ; move = it.Next {
		v, ok, err := step(it, move)
		if err == nil {
			err = e.log.broken()
		}
		if err != nil {
			return e.readError("iterate", err)
		}
		if !ok {
			return nil
		}
		if e.closed.Load() {
			return engine.ErrClosed
		}
		if more, err := fn(it.Key(), v); err != nil || !more {
			return err
		}
	}
}

func newIterator(src pebble.Reader, o *pebble.IterOptions) (it *pebble.Iterator, err error) {
	defer rescue(&err)
	return src.NewIter(o)
}

// step moves the iterator; at the end it asks whether that is the end or a failure.
func step(it *pebble.Iterator, move func() bool) (v []byte, ok bool, err error) {
	defer rescue(&err)
	if !move() {
		return nil, false, it.Error()
	}
	v, err = it.ValueAndErr()
	return v, err == nil, err
}

func closeIterator(it *pebble.Iterator) (err error) {
	defer rescue(&err)
	return it.Close()
}

// readError translates a failed read.
func (e *Engine) readError(op string, err error) error {
	var known *engine.Damage
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return engine.ErrNotFound
	case errors.Is(err, pebble.ErrClosed):
		return engine.ErrClosed
	case errors.As(err, &known):
		e.damagedReads.Add(1)
	case unreadable(err):
		e.damagedReads.Add(1)
		err = damage(err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// Apply implements engine.Engine.
func (e *Engine) Apply(b *engine.Batch, sync bool) error {
	if b.Size() > e.MaxBatch() {
		return fmt.Errorf("apply %d bytes, limit %d: %w", b.Size(), e.MaxBatch(), engine.ErrBatchTooLarge)
	}
	err := e.commit("apply", sync, func(lb *pebble.Batch) error {
		var err error
		b.Each(func(k, v []byte) {
			switch {
			case err != nil:
			case v == nil:
				err = lb.Delete(k, nil)
			default:
				err = lb.Set(k, v, nil)
			}
		})
		if err == nil && b.Len() == 0 && sync {
			err = lb.LogData(nil, nil)
		}
		return err
	})
	if err == nil && b.Len() > 0 {
		e.batches.Add(1)
		e.records.Add(uint64(b.Len()))
		e.userBytes.Add(uint64(b.Payload()))
	}
	return err
}

// Sync implements engine.Engine.
func (e *Engine) Sync() error {
	return e.commit("sync", true, func(lb *pebble.Batch) error { return lb.LogData(nil, nil) })
}

// commit gives the library one batch, filled by fill.
func (e *Engine) commit(op string, sync bool, fill func(*pebble.Batch) error) error {
	e.write.Lock()
	defer e.write.Unlock()
	if err := e.writable(); err != nil {
		return err
	}
	err := e.admit()
	if err == nil {
		err = e.commitLocked(sync && !e.noSync, fill)
	}
	if err == nil {
		err = e.guard.failed() // the library is not told
	}
	if err != nil {
		return e.stop(op, err)
	}
	return nil
}

func (e *Engine) commitLocked(sync bool, fill func(*pebble.Batch) error) (err error) {
	returned := false
	defer func() { e.jammed = !returned }()
	defer rescue(&err)
	lb := e.db.NewBatch()
	err = fill(lb)
	if err == nil {
		w := pebble.NoSync
		if sync {
			w = pebble.Sync
		}
		err = lb.Commit(w)
	}
	returned = true
	return errors.Join(err, lb.Close())
}

// writable returns why no write is taken.
func (e *Engine) writable() error {
	if e.closed.Load() {
		return engine.ErrClosed
	}
	if err := e.Err(); err != nil {
		return fmt.Errorf("%w: %w", engine.ErrLatched, err)
	}
	return nil
}

// stop latches the first failure of a write and returns it. A write that ended because the engine is closing is not
// one.
func (e *Engine) stop(op string, err error) error {
	if e.closed.Load() && errors.Is(err, engine.ErrClosed) {
		return engine.ErrClosed
	}
	err = fmt.Errorf("%s: %w", op, err)
	e.latched.CompareAndSwap(nil, &err)
	return err
}

// Err implements engine.Engine.
func (e *Engine) Err() error {
	if p := e.latched.Load(); p != nil {
		return *p
	}
	if e.closed.Load() {
		return nil
	}
	return e.guard.failed()
}

// MaxBatch implements engine.Engine.
func (e *Engine) MaxBatch() int { return e.opts.WriteBuffer / 2 }

// Suspect implements engine.Engine; see the package for why it is always false.
func (e *Engine) Suspect() bool { return false }

// Recovery implements engine.Engine. The library does not tell how long a torn end was.
func (e *Engine) Recovery() engine.Recovery { return engine.Recovery{Logs: int(e.log.replayed.Load())} }

// Close implements engine.Engine. If the library panicked in a write it cannot be shut down: its goroutines stay, cut
// off from the files, which are released.
func (e *Engine) Close() error {
	e.closing.Do(func() { e.result = e.close() })
	return e.result
}

func (e *Engine) close() error {
	known := e.Err() != nil
	e.closed.Store(true)
	close(e.guard.quit)
	e.users.Lock() // for ever
	e.write.Lock()
	defer e.write.Unlock()
	err := e.closeLibrary()
	if err == nil {
		err = e.guard.failed()
	}
	if known {
		err = nil // the caller has had it
	}
	if err := errors.Join(err, e.guard.close()); err != nil {
		return fmt.Errorf("close engine: %w", err)
	}
	return nil
}

func (e *Engine) closeLibrary() (err error) {
	if e.jammed {
		return nil
	}
	defer rescue(&err)
	return errors.Join(e.releaseAll(), e.db.Close())
}

// Stats implements engine.Engine.
func (e *Engine) Stats() engine.Stats {
	g := e.guard
	out := engine.Stats{
		Batches: e.batches.Load(), Records: e.records.Load(), UserBytes: e.userBytes.Load(),
		Syncs: g.syncs.Load(), SyncTime: time.Duration(g.syncNanos.Load()), PacedTime: time.Duration(g.pacedNanos.Load()),
		DiskRead: g.read.Load(), DiskWritten: g.written.Load(),
		WriteStalls: e.stall.count.Load(), WriteStallTime: time.Duration(e.stall.nanos.Load()), WritesPaused: e.stall.paused.Load(),
		Iterations: int(e.iterations.Load()), Snapshots: e.snapshots(),
		BackgroundFailures: e.stall.failures.Load(), DamagedReads: e.damagedReads.Load(),
	}
	if !e.enter() {
		return out
	}
	defer e.leave()
	m := e.db.Metrics()
	out.CompactionDebt = int64(m.Compact.EstimatedDebt)
	out.Flushes, out.Compactions = uint64(m.Flush.Count), uint64(m.Compact.Count)
	out.CacheBytes, out.CacheHits, out.CacheMisses = m.BlockCache.Size, uint64(m.BlockCache.Hits), uint64(m.BlockCache.Misses)
	out.OpenTables = int(m.FileCache.TableCount)
	for _, l := range m.Levels {
		out.Levels = append(out.Levels, engine.Level{
			Tables: int(l.TablesCount), Bytes: l.TablesSize,
			Read: int64(l.TableBytesRead), Written: int64(l.TableBytesCompacted + l.TableBytesFlushed),
		})
	}
	return out
}
