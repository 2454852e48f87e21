package pebble

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/dotring/dotring/storagenode/engine"
)

// retryPause is how long the library's background work waits after a table could not be written: it would try again at
// once, without end.
const retryPause = 100 * time.Millisecond

// guard stands between the library and its files.
//
// After the first failed write or sync of a log, the manifest, a marker or the directory, nothing more is written, and
// the engine is stopped. The library must not learn of such a failure: it calls its logger's Fatalf, or panics while it
// unlocks a lock that it does not hold, which ends the process. So it is told that all went well, here and from then
// on, while its writes go nowhere; the engine looks at the guard before it acknowledges anything. What the library
// would remove after a write that never happened stays where it is. The directory is thus as a crash at the moment of
// the failure would have left it.
//
// Failed writes of tables are the library's own affair: it writes the table anew. It is slowed down in that. After the
// stop all of them fail, since the library reads tables back.
//
// While the database is being opened, tables are written all the same, since opening waits for its flushes for ever;
// what no manifest names is removed by the next opening. The engine gives up when the library has opened.
type guard struct {
	vfs.FS
	failure atomic.Pointer[error]
	// stopped is closed with the first failure, quit when the engine closes.
	stopped, quit chan struct{}
	opening       atomic.Bool
	tablesFail    atomic.Bool
	lock          atomic.Pointer[heldLock]

	mu      sync.Mutex
	pace    pacer
	pressed atomic.Bool // compaction must not be held back

	syncs, written, read  atomic.Uint64
	syncNanos, pacedNanos atomic.Int64
}

var _ vfs.FS = (*guard)(nil)

func newGuard(fs vfs.FS, rate int64) *guard {
	g := &guard{FS: fs, stopped: make(chan struct{}), quit: make(chan struct{}), pace: pacer{rate: rate}}
	g.opening.Store(true)
	return g
}

// fail latches err. The library is told nothing, hence nil.
func (g *guard) fail(err error) error {
	if g.failure.CompareAndSwap(nil, &err) {
		close(g.stopped)
	}
	return nil
}

// failed returns what stopped the guard, or nil.
func (g *guard) failed() error {
	if p := g.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// muted reports whether nothing is written any more.
func (g *guard) muted() bool { return g.failure.Load() != nil }

// noTables returns why no table is written.
func (g *guard) noTables() error {
	if g.opening.Load() {
		return nil
	}
	return g.failed()
}

// isTable reports whether the library itself copes with a failure to write the file.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// Create implements vfs.FS.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.create(name, category, func() (vfs.File, error) { return g.FS.Create(name, category) })
}

// ReuseForWrite implements vfs.FS.
func (g *guard) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.create(to, category, func() (vfs.File, error) { return g.FS.ReuseForWrite(from, to, category) })
}

func (g *guard) create(name string, category vfs.DiskWriteCategory, create func() (vfs.File, error)) (vfs.File, error) {
	if isTable(name) {
		return g.createTable(name, category, create)
	}
	if g.muted() {
		return nowhere{}, nil
	}
	f, err := create()
	if err != nil {
		return nowhere{}, g.fail(fmt.Errorf("create %s: %w", name, err))
	}
	return &logFile{File: f, g: g, name: name, wal: strings.HasSuffix(name, ".log")}, nil
}

func (g *guard) createTable(name string, category vfs.DiskWriteCategory, create func() (vfs.File, error)) (vfs.File, error) {
	if g.noTables() != nil || g.tablesFail.Load() {
		t := time.NewTimer(retryPause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-g.quit:
		}
	}
	if err := g.noTables(); err != nil {
		return nil, err
	}
	f, err := create()
	if err != nil {
		g.tablesFail.Store(true)
		return nil, err
	}
	return &tableFile{File: f, g: g, paced: category == "pebble-compaction"}, nil
}

// Open implements vfs.FS.
func (g *guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return &readFile{File: f, read: &g.read}, nil
}

// OpenDir implements vfs.FS.
func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &logFile{File: f, g: g, name: name}, nil
}

// Remove implements vfs.FS. A failure leaves a file that the next opening removes, so it stops nothing.
func (g *guard) Remove(name string) error {
	if g.muted() {
		return nil
	}
	return g.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (g *guard) RemoveAll(name string) error {
	if g.muted() {
		return nil
	}
	return g.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (g *guard) Rename(from, to string) error {
	if g.muted() {
		return nil
	}
	if err := g.FS.Rename(from, to); err != nil {
		return g.fail(fmt.Errorf("rename %s: %w", from, err))
	}
	return nil
}

// Lock implements vfs.FS.
func (g *guard) Lock(name string) (io.Closer, error) {
	l, err := g.FS.Lock(name)
	switch {
	case err == nil:
		held := &heldLock{Closer: l}
		g.lock.Store(held)
		return held, nil
	case errors.Is(err, syscall.EAGAIN), err == syscall.EACCES, err.Error() == "lock held by current process":
		return nil, errors.Join(engine.ErrLocked, err)
	}
	return nil, err
}

// Unwrap implements vfs.FS.
func (g *guard) Unwrap() vfs.FS { return g.FS }

// close cuts off what may be left of the library from the files, and lets others have the directory.
func (g *guard) close() error {
	closed := engine.ErrClosed
	if g.failure.CompareAndSwap(nil, &closed) {
		close(g.stopped)
	}
	if l := g.lock.Load(); l != nil {
		return l.Close()
	}
	return nil
}

// heldLock can be closed twice: by the library, and by the guard where the library could not.
type heldLock struct {
	io.Closer
	once sync.Once
	err  error
}

// Close releases the lock.
func (l *heldLock) Close() error {
	l.once.Do(func() { l.err = l.Closer.Close() })
	return l.err
}

// logFile is a file whose failure stops the guard: a log, the manifest, a marker, the directory.
type logFile struct {
	vfs.File
	g    *guard
	name string
	wal  bool
}

// Write implements vfs.File.
func (f *logFile) Write(p []byte) (int, error) {
	if f.g.muted() {
		return len(p), nil
	}
	n, err := f.File.Write(p)
	f.g.written.Add(uint64(n))
	if err != nil {
		return len(p), f.g.fail(fmt.Errorf("write %s: %w", f.name, err))
	}
	return n, nil
}

// Preallocate implements vfs.File. It is an optimisation: without room, the write will tell.
func (f *logFile) Preallocate(offset, length int64) error {
	if f.g.failed() == nil {
		_ = f.File.Preallocate(offset, length)
	}
	return nil
}

// Sync implements vfs.File.
func (f *logFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *logFile) SyncData() error { return f.sync(f.File.SyncData) }

// SyncTo implements vfs.File.
func (f *logFile) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

func (f *logFile) sync(sync func() error) error {
	if f.g.muted() {
		return nil
	}
	start := time.Now()
	err := sync()
	if f.wal {
		f.g.syncs.Add(1)
		f.g.syncNanos.Add(int64(time.Since(start)))
	}
	if err != nil {
		return f.g.fail(fmt.Errorf("sync %s: %w", f.name, err))
	}
	return nil
}

// Close implements vfs.File.
func (f *logFile) Close() error {
	muted := f.g.muted()
	err := f.File.Close()
	if err != nil && !muted {
		return f.g.fail(fmt.Errorf("close %s: %w", f.name, err))
	}
	return nil
}

// tableFile is a table being written.
type tableFile struct {
	vfs.File
	g     *guard
	paced bool
}

// Write implements vfs.File.
func (f *tableFile) Write(p []byte) (int, error) {
	if err := f.g.noTables(); err != nil {
		return 0, err
	}
	if f.paced {
		f.g.paceTable(len(p))
	}
	n, err := f.File.Write(p)
	f.g.written.Add(uint64(n))
	if err != nil {
		f.g.tablesFail.Store(true)
	}
	return n, err
}

// Sync implements vfs.File.
func (f *tableFile) Sync() error {
	if err := f.g.noTables(); err != nil {
		return err
	}
	err := f.File.Sync()
	f.g.tablesFail.Store(err != nil)
	return err
}

// SyncData implements vfs.File.
func (f *tableFile) SyncData() error {
	if err := f.g.noTables(); err != nil {
		return err
	}
	return f.File.SyncData()
}

// paceTable holds compaction to its rate.
func (g *guard) paceTable(n int) {
	if g.pace.rate <= 0 || g.opening.Load() || g.pressed.Load() {
		return
	}
	g.mu.Lock()
	wait := g.pace.take(time.Now(), n)
	g.mu.Unlock()
	if wait <= 0 {
		return
	}
	start := time.Now()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.quit:
	}
	g.pacedNanos.Add(int64(time.Since(start)))
}

// readFile counts what is read.
type readFile struct {
	vfs.File
	read *atomic.Uint64
}

// Read implements vfs.File.
func (f *readFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.read.Add(uint64(n))
	return n, err
}

// ReadAt implements vfs.File.
func (f *readFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.read.Add(uint64(n))
	return n, err
}
