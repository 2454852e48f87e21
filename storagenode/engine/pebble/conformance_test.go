package pebble

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

// An opening that fails late leaves a goroutine of the library behind, which waits on a timer and holds no file.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

// small makes flushes and compactions happen within a test.
func small() Options {
	o := Default()
	o.WriteBuffer, o.TableSize, o.Level1Size, o.BlockCache = 4*mib, mib, 2*mib, mib
	return o
}

func TestConformanceOnFiles(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		return enginetest.Subject{Open: Opener(t.TempDir(), small(), zerolog.Nop())}
	})
}

// machine is a disk in memory that can fail, and is replaced at each crash.
type machine struct {
	disk  *vfs.MemFS
	opts  Options
	hooks hooks

	mu    sync.Mutex
	fault *fault
}

// fault makes operations of a kind, all syncs being one, fail on files with a certain part in their path.
type fault struct {
	kind errorfs.OpKind
	file string
	// skip lets that many operations pass first; times is how many then fail, 0 for all.
	skip, times int
	err         error
	hits        int
}

func newMachine() *machine { return &machine{disk: vfs.NewCrashableMem(), opts: small()} }

// MaybeError implements errorfs.Injector.
func (m *machine) MaybeError(op errorfs.Op) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.fault
	kind := op.Kind
	if kind == errorfs.OpFileSyncData || kind == errorfs.OpFileSyncTo {
		kind = errorfs.OpFileSync
	}
	if f == nil || kind != f.kind || !strings.Contains(op.Path, f.file) {
		return nil
	}
	if f.skip > 0 {
		f.skip--
		return nil
	}
	if f.times > 0 && f.hits >= f.times {
		return nil
	}
	f.hits++
	return f.err
}

// String implements errorfs.Injector.
func (m *machine) String() string { return "machine" }

func (m *machine) inject(f *fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

func (m *machine) hits() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault.hits
}

func (m *machine) open() (*Engine, error) {
	return open(errorfs.Wrap(m.disk, m), "/db", m.opts, zerolog.Nop(), m.hooks)
}

// mustOpen opens and closes at the end of the test.
func (m *machine) mustOpen(t testing.TB) *Engine {
	t.Helper()
	e, err := m.open()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = e.Close() }) // closed by the test, where that matters
	return e
}

func (m *machine) crash() { m.disk = m.disk.CrashClone(vfs.CrashCloneCfg{}) }

func TestConformanceOnDisk(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		m := newMachine()
		return enginetest.Subject{
			Open: func() (engine.Engine, error) {
				e, err := m.open()
				if err != nil {
					return nil, err
				}
				return e, nil
			},
			Fail: func(err error) {
				m.inject(&fault{kind: errorfs.OpFileSync, file: ".log", times: 1, err: err})
			},
			Crash: m.crash,
		}
	})
}

func apply(t testing.TB, e *Engine, keys ...string) {
	t.Helper()
	if err := tryApply(e, keys...); err != nil {
		t.Fatal(err)
	}
}

// tryApply puts each key, with itself as value, in one synced batch.
func tryApply(e *Engine, keys ...string) error {
	var b engine.Batch
	for _, k := range keys {
		b.Put([]byte(k), []byte(k))
	}
	return e.Apply(&b, true)
}

// missing counts the keys that are not there.
func missing(t testing.TB, e *Engine, keys []string) int {
	t.Helper()
	n := 0
	for _, k := range keys {
		switch v, err := e.Get([]byte(k), nil); {
		case errors.Is(err, engine.ErrNotFound):
			n++
		case err != nil:
			t.Errorf("get %s: %v", k, err)
		case string(v) != k:
			t.Errorf("get %s: %q", k, v)
		}
	}
	return n
}
