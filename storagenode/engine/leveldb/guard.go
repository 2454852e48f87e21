package leveldb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
)

// maxDetails bounds engine.Recovery.Details.
const maxDetails = 16

// DirSyncer is what a storage must be able to do besides the library's interface: put the directory's entries on
// stable storage.
type DirSyncer interface {
	SyncDir() error
}

// dirStorage is the library's file storage with its directory's sync.
type dirStorage struct {
	storage.Storage
	dir string
}

// openDir opens the file storage of dir, making the directory, and its entry in its parent, durable first.
func openDir(dir string) (*dirStorage, error) {
	if err := makeDurable(filepath.Clean(dir)); err != nil {
		return nil, err
	}
	stor, err := storage.OpenFile(dir, false)
	if err != nil {
		return nil, err
	}
	return &dirStorage{Storage: stor, dir: dir}, nil
}

// makeDurable creates dir and its missing parents, syncing each parent after its new entry.
func makeDurable(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDurable(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDirectory(parent)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// SyncDir implements DirSyncer.
func (d *dirStorage) SyncDir() error { return syncDirectory(d.dir) }

// guard stands between the library and its files, and adds what the library leaves out:
//
//   - a journal's directory entry is synced when the journal is created, not at the next manifest write;
//   - a journal is synced when it is left for the next one, so that a later sync cannot be durable before it;
//   - after the first failed write or sync of a journal or the manifest, or of the directory, nothing more is written.
//     The library would retry: the kernel drops pages whose sync failed, so the retry succeeds over a hole, and a
//     repeated switch of the manifest is taken for done;
//   - what opening drops from logs is inspected and judged (see logScan);
//   - compaction is paced.
//
// Failed writes of tables do not stop it: the library writes the table anew.
type guard struct {
	storage.Storage
	dir       DirSyncer
	skipSync  bool // tests: leave out the sync of a journal that is left
	skipDir   bool // tests: leave out the directory's sync
	skipLatch bool // tests: let the library go on behind a failure

	failure atomic.Pointer[error]

	mu sync.Mutex
	// journal is the log being written, nil before the first.
	journal *writer
	// Recovery, written while opening is true.
	report  engine.Recovery
	lastLog storage.FileDesc
	tornLog int64 // bytes dropped at the end of the last log that was opened
	pace    pacer

	opening    atomic.Bool
	flushing   atomic.Bool
	background atomic.Pointer[error]
	failures   atomic.Uint64
	syncs      atomic.Uint64
	syncNanos  atomic.Int64
	pacedNanos atomic.Int64
	// pressed says that compaction must not be held back; set once the database is open.
	pressed atomic.Pointer[func() bool]
	// quit ends waits of the pacer.
	quit chan struct{}
}

func newGuard(stor storage.Storage, rate int64) (*guard, error) {
	dir, ok := stor.(DirSyncer)
	if !ok {
		return nil, errors.New("storage cannot sync its directory")
	}
	g := &guard{Storage: stor, dir: dir, quit: make(chan struct{}), pace: pacer{rate: rate}}
	g.opening.Store(true)
	return g, nil
}

// fail latches err, unless it is nil, and returns it.
func (g *guard) fail(err error) error {
	if err != nil && !g.skipLatch {
		g.failure.CompareAndSwap(nil, &err)
	}
	return err
}

// failed returns what stopped the guard, or nil.
func (g *guard) failed() error {
	if p := g.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// isLog reports whether a failure to write fd must stop the engine.
func isLog(fd storage.FileDesc) bool {
	return fd.Type == storage.TypeJournal || fd.Type == storage.TypeManifest
}

// Create implements storage.Storage.
func (g *guard) Create(fd storage.FileDesc) (storage.Writer, error) {
	if err := g.failed(); err != nil {
		return nil, err
	}
	w, err := g.Storage.Create(fd)
	if err == nil && fd.Type == storage.TypeJournal && !g.skipDir {
		if err = g.dir.SyncDir(); err != nil {
			err = errors.Join(fmt.Errorf("sync directory: %w", err), w.Close())
		}
	}
	if err != nil {
		if isLog(fd) {
			return nil, g.fail(fmt.Errorf("create %v: %w", fd, err))
		}
		return nil, err
	}
	gw := &writer{Writer: w, g: g, fd: fd}
	if fd.Type == storage.TypeTable {
		gw.table = newTableBuffer()
	}
	if fd.Type == storage.TypeJournal {
		g.mu.Lock()
		g.journal = gw
		g.mu.Unlock()
	}
	return gw, nil
}

// SetMeta implements storage.Storage.
func (g *guard) SetMeta(fd storage.FileDesc) error {
	if err := g.failed(); err != nil {
		return err
	}
	return g.fail(g.Storage.SetMeta(fd))
}

// Remove implements storage.Storage. A failure leaves a file that the next open removes, so it stops nothing.
func (g *guard) Remove(fd storage.FileDesc) error {
	if err := g.failed(); err != nil {
		return err
	}
	return g.Storage.Remove(fd)
}

// Rename implements storage.Storage.
func (g *guard) Rename(from, to storage.FileDesc) error {
	if err := g.failed(); err != nil {
		return err
	}
	return g.fail(g.Storage.Rename(from, to))
}

// Open implements storage.Storage. While the database opens, each log is inspected before the library replays it,
// because replay removes it.
func (g *guard) Open(fd storage.FileDesc) (storage.Reader, error) {
	if g.opening.Load() && isLog(fd) {
		if err := g.inspect(fd); err != nil {
			return nil, fmt.Errorf("inspect %v: %w", fd, err)
		}
	}
	return g.Storage.Open(fd)
}

// inspect judges one log.
func (g *guard) inspect(fd storage.FileDesc) error {
	var m manifest
	var each func([]byte)
	malformed := false
	if fd.Type == storage.TypeManifest {
		each = func(record []byte) { malformed = m.apply(record) != nil || malformed }
	}
	scan, err := g.scan(fd, each)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lastLog = fd
	switch {
	case fd.Type == storage.TypeManifest:
		// The library would go on with the tables of an earlier time, write that down, and only then miss some.
		if scan.recordAfter || malformed {
			return &engine.Damage{File: fd.String(), Err: fmt.Errorf("list of tables: %v", scan)}
		}
		if scan.torn() > 0 && !g.hasJournal(m.journal) {
			// The unfinished record was finished once: the log that the rest counts from is gone.
			return &engine.Damage{File: fd.String(), Err: fmt.Errorf("list of tables: %v, and log %d is missing", scan, m.journal)}
		}
		if scan.torn() > 0 && !g.hasTables(m.tables) { // likewise: their files go once it is written
			return &engine.Damage{File: fd.String(), Err: fmt.Errorf("list of tables: %v, and tables are missing", scan)}
		}
	case scan.recordAfter:
		g.dropLocked(fmt.Sprintf("%v: %v", fd, scan))
	default:
		g.report.Logs++
		if g.tornLog > 0 && scan.size > 0 {
			// A log is synced before the next one gets its first record.
			g.dropLocked(fmt.Sprintf("log before %v ends early by %d bytes", fd, g.tornLog))
		}
		g.tornLog = scan.torn()
		g.report.TornBytes += scan.torn()
	}
	return nil
}

// clearUnborn removes what an interrupted creation left: a manifest that was never made current. With tables or
// journals beside it, the mark of the current manifest was lost instead, which is damage.
func (g *guard) clearUnborn() error {
	if _, err := g.Storage.GetMeta(); !errors.Is(err, os.ErrNotExist) {
		return nil // there is a database, or opening it will tell why not
	}
	data, err := g.Storage.List(storage.TypeJournal | storage.TypeTable)
	if err != nil || len(data) > 0 {
		return err
	}
	left, err := g.Storage.List(storage.TypeManifest | storage.TypeTemp)
	if err != nil {
		return err
	}
	for _, fd := range left {
		if err := g.Storage.Remove(fd); err != nil {
			return err
		}
	}
	return nil
}

// scan reads the log fd; each is as for scanLog.
func (g *guard) scan(fd storage.FileDesc, each func([]byte)) (logScan, error) {
	r, err := g.Storage.Open(fd)
	if err != nil {
		return logScan{}, err
	}
	begins := beginsBatch
	if fd.Type == storage.TypeManifest {
		begins = beginsEdit
	}
	scan, err := scanLog(r, begins, each)
	return scan, errors.Join(err, r.Close())
}

// hasJournal reports whether the log exists; 0 is the number before the first log of a new database.
func (g *guard) hasJournal(num int64) bool {
	if num == 0 {
		return true
	}
	fds, err := g.Storage.List(storage.TypeJournal)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if fd.Num == num {
			return true
		}
	}
	return false
}

// hasTables reports whether all tables of a manifest exist.
func (g *guard) hasTables(tables map[int64]tableInfo) bool {
	fds, err := g.Storage.List(storage.TypeTable)
	if err != nil {
		return false
	}
	found := 0
	for _, fd := range fds {
		if _, ok := tables[fd.Num]; ok {
			found++
		}
	}
	return found == len(tables)
}

func (g *guard) dropLocked(detail string) {
	g.report.Dropped++
	if len(g.report.Details) < maxDetails {
		g.report.Details = append(g.report.Details, detail)
	}
}

// recovery returns the report of the opening.
func (g *guard) recovery() engine.Recovery {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.report
	r.Details = append([]string(nil), r.Details...)
	return r
}

// suspect reports whether opening dropped what may have been acknowledged.
func (g *guard) suspect() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.report.Dropped > 0
}

// Log implements storage.Storage. The library tells some things only here: chunks dropped at open, and the end of its
// compaction.
func (g *guard) Log(line string) {
	switch {
	case strings.HasPrefix(line, "memdb@flush N"):
		g.flushing.Store(true)
	case strings.HasPrefix(line, "memdb@flush committed"):
		g.flushing.Store(false)
	case strings.HasPrefix(line, "journal@drop"), strings.Contains(line, "(skipped)"):
		g.dropped(line)
	case strings.Contains(line, "exiting (corruption detected)"):
		err := &engine.Damage{Err: errors.New(line)}
		var e error = err
		g.background.CompareAndSwap(nil, &e)
		g.failures.Add(1)
	case strings.Contains(line, " error I·"):
		g.failures.Add(1)
	}
	g.Storage.Log(line)
}

// dropped judges a line about something the library left out. A chunk dropped from a log whose end is torn is what
// the inspection found already. Anything else is not explained: a record whose checksum is right and that was refused,
// a drop where the inspection saw none.
func (g *guard) dropped(line string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	chunk := strings.HasPrefix(line, "journal@drop")
	if chunk && (g.tornLog > 0 || g.lastLog.Type == storage.TypeManifest) {
		return
	}
	g.dropLocked(line)
}

// syncJournal makes the current log durable.
func (g *guard) syncJournal() error {
	g.mu.Lock()
	w := g.journal
	g.mu.Unlock()
	if w == nil || !w.dirty.Load() {
		return g.failed()
	}
	return w.Sync()
}

// cut keeps the library from writing anything more.
func (g *guard) cut() {
	closed := engine.ErrClosed
	g.failure.CompareAndSwap(nil, &closed)
}

// close releases the files. The guard writes nothing afterwards.
func (g *guard) close() error {
	g.cut()
	return g.Storage.Close()
}

// writer guards one file being written.
type writer struct {
	storage.Writer
	g     *guard
	fd    storage.FileDesc
	dirty atomic.Bool
	// table gathers what is written to a table; nil for other files, and once the table was closed.
	table *tableBuffer
}

var _ io.Writer = (*writer)(nil)

// Write implements storage.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if err := w.g.failed(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if w.fd.Type == storage.TypeTable {
		w.g.paceTable(len(p))
	} else {
		w.dirty.Store(true)
	}
	if w.table != nil {
		return w.table.write(w.Writer, p)
	}
	n, err := w.Writer.Write(p)
	if err != nil && isLog(w.fd) {
		return n, w.g.fail(fmt.Errorf("write %v: %w", w.fd, err))
	}
	return n, err
}

// Sync implements storage.Writer.
func (w *writer) Sync() error {
	if err := w.g.failed(); err != nil {
		return err
	}
	if w.table != nil {
		if err := w.table.flush(w.Writer); err != nil {
			return err
		}
	}
	start := time.Now()
	err := w.Writer.Sync()
	if w.fd.Type == storage.TypeJournal {
		w.g.syncs.Add(1)
		w.g.syncNanos.Add(int64(time.Since(start)))
	}
	if err != nil {
		if isLog(w.fd) {
			return w.g.fail(fmt.Errorf("sync %v: %w", w.fd, err))
		}
		return err
	}
	w.dirty.Store(false)
	return nil
}

// Close implements storage.Writer.
func (w *writer) Close() error {
	var err error
	if w.fd.Type == storage.TypeJournal && w.dirty.Load() && w.g.failed() == nil && !w.g.skipSync {
		err = w.Sync()
	}
	if w.table != nil {
		// Nothing is left where the table was synced. After a failed write the library gives the table up, and removes it
		// once it is closed.
		if w.table.failed == nil && w.g.failed() == nil {
			err = w.table.flush(w.Writer)
		}
		w.table.release()
		w.table = nil
	}
	return errors.Join(err, w.Writer.Close())
}

// paceSlice is how long compaction waits before it looks whether writers wait for it.
const paceSlice = 10 * time.Millisecond

// paceTable holds compaction to its rate. Compaction writes from one goroutine; a flush of the memory table, from
// another, is not held back. The library lets a flush begin only when compaction begins its next table, and writers wait
// for the flush: so while one is due, or level 0 fills up, compaction is not held back either, and what it writes then is
// not made up for later.
func (g *guard) paceTable(n int) {
	if g.pace.rate <= 0 || g.opening.Load() || g.flushing.Load() {
		return
	}
	g.mu.Lock()
	wait := g.pace.take(time.Now(), n)
	g.mu.Unlock()
	if wait <= 0 {
		return
	}
	start := time.Now()
	t := time.NewTimer(0)
	defer t.Stop()
	for held := time.Duration(0); held < wait; held = time.Since(start) {
		if pressed := g.pressed.Load(); g.flushing.Load() || pressed != nil && (*pressed)() {
			g.mu.Lock()
			g.pace.forgive(time.Now())
			g.mu.Unlock()
			break
		}
		t.Reset(min(wait-held, paceSlice))
		select {
		case <-t.C:
		case <-g.quit:
			return
		}
	}
	g.pacedNanos.Add(int64(time.Since(start)))
}
