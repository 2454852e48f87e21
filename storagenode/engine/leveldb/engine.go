// Package leveldb is the engine on goleveldb, with the care that library needs to lose nothing it acknowledged: it
// stops at the first failed write, syncs what the library forgets, judges what opening dropped, and turns its panics
// into errors.
//
// The library's repair (Recover) is never called, since it can hide damage; a damaged engine is for its owner to
// refill. After Close one goroutine of the library lives on for up to a second.
package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	goleveldb "github.com/syndtr/goleveldb/leveldb"
	lerrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/dotring/dotring/storagenode/engine"
)

// Engine implements engine.Engine. Build it with Open or OpenStorage.
type Engine struct {
	db      *goleveldb.DB
	guard   *guard
	opts    Options
	noSync  bool // tests: acknowledge without sync
	noLatch bool // tests: go on behind a failure

	// users counts readers, whom Close waits for.
	users *gate

	// write serialises Apply and Sync, and makes nothing succeed behind a failure.
	write sync.Mutex
	batch goleveldb.Batch // guarded by write
	// jammed says that the library panicked in a write and still holds its own lock.
	jammed atomic.Bool

	latched atomic.Pointer[error]
	closing sync.Once
	closed  error

	batches, records, userBytes atomic.Uint64
	damagedReads                atomic.Uint64
	iterations                  atomic.Int64

	damageMu sync.Mutex
	ranges   map[int64]keyRange // of damaged tables; bounded by maxRanges
	hurt     map[int64]struct{} // numbers of tables in which damage was met; bounded by maxRanges
}

// maxRanges bounds the damaged tables whose key range is remembered; beyond it ranges are looked up again.
const maxRanges = 256

// hooks switch off safeguards, to show that tests notice.
type hooks struct {
	noSync, noLeaveSync, noDirSync, noLatch bool
}

var (
	readPoint = &opt.ReadOptions{Strict: opt.StrictReader}
	readScan  = &opt.ReadOptions{Strict: opt.StrictReader, DontFillCache: true}
	writeOpts = [2]*opt.WriteOptions{{}, {Sync: true}}
)

// Open opens the engine in dir, creating both if there is none. Errors: those of Options.Validate, engine.ErrLocked,
// engine.ErrDamaged if the database cannot be opened as it is, or those of the file system.
func Open(dir string, o Options) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	stor, err := openDir(dir)
	if err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.Join(engine.ErrLocked, err)
		}
		return nil, fmt.Errorf("open engine in %s: %w", dir, err)
	}
	return open(stor, o, hooks{})
}

// OpenStorage opens the engine on files reached through stor, which must be a [DirSyncer] too. It owns stor from here
// on: Close closes it, and so does a failed OpenStorage.
func OpenStorage(stor storage.Storage, o Options) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, errors.Join(err, stor.Close())
	}
	return open(stor, o, hooks{})
}

// Opener returns an engine.Opener for dir. With Options.Note, it also opens what Open cannot: a database that lacks
// tables goes on without them, and one whose list of tables is lost is set aside, in a folder beside dir, for an empty one.
func Opener(dir string, o Options) engine.Opener {
	return func() (engine.Engine, error) {
		e, err := openSalvaged(dir, o)
		if err != nil {
			return nil, err // not e: an interface around a nil pointer is not nil
		}
		return e, nil
	}
}

func open(stor storage.Storage, o Options, h hooks) (*Engine, error) {
	g, err := newGuard(stor, o.CompactionRate)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open engine: %w", err), stor.Close())
	}
	g.skipSync, g.skipDir, g.skipLatch = h.noSync || h.noLeaveSync, h.noDirSync, h.noLatch
	e := &Engine{guard: g, opts: o, noSync: h.noSync, noLatch: h.noLatch, users: newGate(), ranges: map[int64]keyRange{}, hurt: map[int64]struct{}{}}
	lib := o.library()
	lib.NoSync = h.noSync
	if err := e.openLibrary(lib); err != nil {
		return nil, errors.Join(fmt.Errorf("open engine: %w", err), g.close())
	}
	pressed := e.pressed
	g.pressed.Store(&pressed)
	g.opening.Store(false)
	return e, nil
}

// openLibrary opens the database. A panic leaves goroutines of the library behind, which hold no file.
func (e *Engine) openLibrary(o *opt.Options) (err error) {
	defer rescue(&err)
	if err := e.guard.clearUnborn(); err != nil {
		return err
	}
	e.db, err = goleveldb.Open(e.guard, o)
	switch {
	case errors.Is(err, storage.ErrLocked):
		return errors.Join(engine.ErrLocked, err)
	case corrupt(err):
		return e.damage(err)
	}
	return err
}

// rescue turns a panic of the library into damage: it panics on malformed tables and logs. It must be deferred itself.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = &engine.Damage{Err: fmt.Errorf("library panicked: %v", p)}
	}
}

// corrupt reports whether the library found stored bytes to be wrong.
func corrupt(err error) bool {
	var lc *lerrors.ErrCorrupted
	var sc *storage.ErrCorrupted
	return errors.As(err, &lc) || errors.As(err, &sc)
}

// unreadable reports whether a read failed because of what is stored, rather than for lack of something else: corrupt,
// a bad sector, a file gone or shortened.
func unreadable(err error) bool {
	return corrupt(err) || errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrNotExist) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Get implements engine.Reader.
func (e *Engine) Get(key, dst []byte) ([]byte, error) { return e.get(e.db, key, dst) }

// Iterate implements engine.Reader.
func (e *Engine) Iterate(from, to []byte, fn func(k, v []byte) (bool, error)) error {
	return e.iterate(e.db, from, to, fn)
}

// source is what the library's database and snapshot have in common.
type source interface {
	Get(key []byte, ro *opt.ReadOptions) ([]byte, error)
	NewIterator(slice *util.Range, ro *opt.ReadOptions) iterator.Iterator
}

func (e *Engine) get(src source, key, dst []byte) ([]byte, error) {
	if !e.users.enter() {
		return dst, engine.ErrClosed
	}
	defer e.users.leave()
	v, err := getRescued(src, key)
	if err != nil {
		return dst, e.readError("get", err)
	}
	// Without the library's buffer pool v may lie in a cached block, so it is copied for a nil dst too.
	return append(dst, v...), nil
}

func getRescued(src source, key []byte) (v []byte, err error) {
	defer rescue(&err)
	return src.Get(key, readPoint)
}

func (e *Engine) iterate(src source, from, to []byte, fn func(k, v []byte) (bool, error)) error {
	if !e.users.enter() {
		return engine.ErrClosed
	}
	defer e.users.leave()
	if to != nil && bytes.Compare(from, to) >= 0 {
		return nil
	}
	e.iterations.Add(1)
	defer e.iterations.Add(-1)
	it, err := newIterator(src, from, to)
	if err != nil {
		return e.readError("iterate", err)
	}
	defer it.Release()
	for move := it.First; ; move = it.Next {
		ok, err := step(it, move)
		if err != nil {
			return e.readError("iterate", err)
		}
		if !ok {
			return nil
		}
		if e.users.closed() {
			return engine.ErrClosed
		}
		if more, err := fn(it.Key(), it.Value()); err != nil || !more {
			return err
		}
	}
}

func newIterator(src source, from, to []byte) (it iterator.Iterator, err error) {
	defer rescue(&err)
	return src.NewIterator(&util.Range{Start: from, Limit: to}, readScan), nil
}

// step moves the iterator; at the end it asks whether that is the end or a failure.
func step(it iterator.Iterator, move func() bool) (ok bool, err error) {
	defer rescue(&err)
	if move() {
		return true, nil
	}
	return false, it.Error()
}

// readError translates a failed read.
func (e *Engine) readError(op string, err error) error {
	var known *engine.Damage
	switch {
	case errors.Is(err, goleveldb.ErrNotFound):
		return engine.ErrNotFound
	case errors.Is(err, goleveldb.ErrClosed), errors.Is(err, goleveldb.ErrSnapshotReleased),
		errors.Is(err, goleveldb.ErrIterReleased):
		return engine.ErrClosed
	case errors.As(err, &known):
		e.damagedReads.Add(1)
		return fmt.Errorf("%s: %w", op, err)
	case unreadable(err):
		e.damagedReads.Add(1)
		return fmt.Errorf("%s: %w", op, e.damage(err))
	default:
		return fmt.Errorf("%s: %w", op, err)
	}
}

// damage describes a corruption, with the range of keys if a table of the present state is meant.
func (e *Engine) damage(err error) *engine.Damage {
	d := &engine.Damage{Err: err}
	var lc *lerrors.ErrCorrupted
	if !errors.As(err, &lc) || lc.Fd.Zero() {
		return d
	}
	d.File = lc.Fd.String()
	if lc.Fd.Type != storage.TypeTable {
		return d
	}
	if r, ok := e.tableRange(lc.Fd.Num); ok {
		d.From, d.To, d.Bounded = r.from, r.to, true
	}
	return d
}

// tableRange looks up the keys of a table in the manifest.
func (e *Engine) tableRange(num int64) (keyRange, bool) {
	e.damageMu.Lock()
	defer e.damageMu.Unlock()
	if len(e.hurt) < maxRanges {
		e.hurt[num] = struct{}{}
	}
	if r, ok := e.ranges[num]; ok {
		return r, true
	}
	fd, err := e.guard.Storage.GetMeta()
	if err != nil {
		return keyRange{}, false
	}
	var m manifest
	whole := true
	// The end of the manifest may be in the middle of being written; what was there before counts.
	if _, err := e.guard.scan(fd, func(record []byte) { whole = m.apply(record) == nil && whole }); err != nil || !whole {
		return keyRange{}, false
	}
	t, ok := m.tables[num]
	if !ok {
		return keyRange{}, false
	}
	r := keyRange{from: userKey(t.min), to: userKey(t.max)}
	if len(e.ranges) < maxRanges {
		e.ranges[num] = r
	}
	return r, true
}

// Apply implements engine.Engine.
func (e *Engine) Apply(b *engine.Batch, sync bool) error {
	e.write.Lock()
	defer e.write.Unlock()
	if err := e.writable(); err != nil {
		return err
	}
	if b.Size() > e.MaxBatch() {
		return fmt.Errorf("apply %d bytes, limit %d: %w", b.Size(), e.MaxBatch(), engine.ErrBatchTooLarge)
	}
	if b.Len() == 0 {
		if !sync {
			return nil
		}
		return e.syncLocked()
	}
	if err := e.applyLocked(b, sync); err != nil {
		return e.stop("apply", err)
	}
	e.batches.Add(1)
	e.records.Add(uint64(b.Len()))
	e.userBytes.Add(uint64(b.Payload()))
	return nil
}

func (e *Engine) applyLocked(b *engine.Batch, sync bool) (err error) {
	returned := false
	defer func() { e.jammed.Store(!returned) }()
	defer rescue(&err)
	err = e.batch.Load(b.Encoded())
	if err == nil {
		w := writeOpts[0]
		if sync {
			w = writeOpts[1]
		}
		err = e.db.Write(&e.batch, w)
	}
	returned = true
	// Do not keep the caller's memory. Loading nothing cannot fail.
	return errors.Join(err, e.batch.Load(nil))
}

// Sync implements engine.Engine.
func (e *Engine) Sync() error {
	e.write.Lock()
	defer e.write.Unlock()
	if err := e.writable(); err != nil {
		return err
	}
	return e.syncLocked()
}

func (e *Engine) syncLocked() error {
	if e.noSync {
		return nil
	}
	if err := e.guard.syncJournal(); err != nil {
		return e.stop("sync", err)
	}
	return nil
}

// writable returns why no write is taken.
func (e *Engine) writable() error {
	if e.users.closed() {
		return engine.ErrClosed
	}
	if err := e.Err(); err != nil && !e.noLatch {
		return fmt.Errorf("%w: %w", engine.ErrLatched, err)
	}
	return nil
}

// stop latches the first failure of a write and returns it. A write that ended because the engine is closing is not
// one.
func (e *Engine) stop(op string, err error) error {
	if e.users.closed() && (errors.Is(err, goleveldb.ErrClosed) || errors.Is(err, engine.ErrClosed)) {
		return engine.ErrClosed
	}
	var known *engine.Damage
	if corrupt(err) && !errors.As(err, &known) {
		err = e.damage(err)
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
	if e.users.closed() {
		return nil
	}
	if err := e.guard.failed(); err != nil {
		return err
	}
	if p := e.guard.background.Load(); p != nil {
		return *p
	}
	return nil
}

// MaxBatch implements engine.Engine.
func (e *Engine) MaxBatch() int { return e.opts.maxBatch() }

// Suspect implements engine.Engine.
func (e *Engine) Suspect() bool { return e.guard.suspect() }

// Recovery implements engine.Engine.
func (e *Engine) Recovery() engine.Recovery { return e.guard.recovery() }

// Snapshot implements engine.Engine.
func (e *Engine) Snapshot() (engine.Snapshot, error) {
	if !e.users.enter() {
		return nil, engine.ErrClosed
	}
	defer e.users.leave()
	s, err := e.db.GetSnapshot()
	if err != nil {
		return nil, e.readError("snapshot", err)
	}
	return &snapshot{e: e, s: s}, nil
}

type snapshot struct {
	e *Engine
	s *goleveldb.Snapshot
}

func (s *snapshot) Get(key, dst []byte) ([]byte, error) { return s.e.get(s.s, key, dst) }

func (s *snapshot) Iterate(from, to []byte, fn func(k, v []byte) (bool, error)) error {
	return s.e.iterate(s.s, from, to, fn)
}

// Release implements engine.Snapshot.
func (s *snapshot) Release() { s.s.Release() }

// Compact merges the tables of [from, to] down, bounds as for Iterate, and waits. Close waits for it, so ask for little at a time.
func (e *Engine) Compact(from, to []byte) (err error) {
	if !e.users.enter() {
		return engine.ErrClosed
	}
	defer e.users.leave()
	defer rescue(&err)
	if err := e.db.CompactRange(util.Range{Start: from, Limit: to}); err != nil {
		return e.readError("compact", err)
	}
	return nil
}

// pressed says that compaction is so far behind that writes will soon be slowed.
func (e *Engine) pressed() bool {
	var s goleveldb.DBStats
	if err := e.db.Stats(&s); err != nil || len(s.LevelTablesCounts) == 0 {
		return err != nil
	}
	return s.LevelTablesCounts[0] >= (e.opts.L0Trigger+e.opts.L0Slowdown)/2
}

// Stats implements engine.Engine.
func (e *Engine) Stats() engine.Stats {
	g := e.guard
	out := engine.Stats{
		Batches: e.batches.Load(), Records: e.records.Load(), UserBytes: e.userBytes.Load(),
		Syncs: g.syncs.Load(), SyncTime: time.Duration(g.syncNanos.Load()),
		PacedTime:          time.Duration(g.pacedNanos.Load()),
		Iterations:         int(e.iterations.Load()),
		BackgroundFailures: g.failures.Load(), DamagedReads: e.damagedReads.Load(),
	}
	if !e.users.enter() {
		return out
	}
	defer e.users.leave()
	var s goleveldb.DBStats
	if err := e.db.Stats(&s); err != nil {
		return out // closed, the only error there is
	}
	out.WriteStalls, out.WriteStallTime = uint64(s.WriteDelayCount), s.WriteDelayDuration
	out.WritesPaused = s.WritePaused
	out.DiskRead, out.DiskWritten = s.IORead, s.IOWrite
	out.CacheBytes = int64(s.BlockCacheSize)
	out.CacheHits, out.CacheMisses = uint64(s.BlockCache.HitCount), uint64(s.BlockCache.MissCount)
	out.OpenTables, out.Snapshots = s.OpenedTablesCount, int(s.AliveSnapshots)
	out.Flushes = uint64(s.MemComp)
	out.Compactions = uint64(s.Level0Comp) + uint64(s.NonLevel0Comp) + uint64(s.SeekComp)
	for n := range s.LevelSizes {
		out.Levels = append(out.Levels, engine.Level{
			Tables: s.LevelTablesCounts[n], Bytes: s.LevelSizes[n],
			Read: s.LevelRead[n], Written: s.LevelWrite[n], Compacting: s.LevelDurations[n],
		})
	}
	out.CompactionDebt = e.opts.debt(out.Levels)
	return out
}

// debt sums what each level holds beyond its limit; level 0 counts whole once its compaction is due.
func (o Options) debt(levels []engine.Level) int64 {
	var sum int64
	for n, l := range levels {
		switch {
		case n > 0:
			sum += max(0, l.Bytes-o.levelLimit(n))
		case l.Tables >= o.L0Trigger:
			sum += l.Bytes
		}
	}
	return sum
}

// Close implements engine.Engine. A write stalled behind compaction ends with ErrClosed. If the library panicked in a
// write it cannot be shut down: its goroutines stay, cut off from the files, which are released.
func (e *Engine) Close() error {
	e.closing.Do(func() { e.closed = e.close() })
	return e.closed
}

func (e *Engine) close() error {
	known := e.Err() != nil
	if err := errors.Join(e.shut(known), e.guard.close()); err != nil {
		return fmt.Errorf("close engine: %w", err)
	}
	return nil
}

// shut ends the library's work and keeps the files. known says that the caller has had the engine's failure.
func (e *Engine) shut(known bool) error {
	e.users.close()
	close(e.guard.quit)
	err := e.closeLibrary()
	e.write.Lock()
	defer e.write.Unlock()
	if err == nil {
		err = e.guard.failed()
	}
	e.guard.cut()
	if known {
		return nil
	}
	return err
}

func (e *Engine) closeLibrary() (err error) {
	if e.jammed.Load() {
		return nil
	}
	defer rescue(&err)
	return e.db.Close()
}
