package leveldb

import (
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"go.uber.org/goleak"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

// After Close the library drains its pool of memory tables for up to a second in a goroutine that holds nothing else.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}

// small makes flushes and compactions happen within a test.
func small() Options {
	o := Default()
	o.WriteBuffer, o.TableSize, o.Level1Size, o.BlockCache = 4*mib, mib, 2*mib, mib
	return o
}

func TestConformanceOnFiles(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		return enginetest.Subject{Open: Opener(t.TempDir(), small())}
	})
}

// machine is a disk that is mounted anew at each opening, and replaced at each crash.
type machine struct {
	disk  *enginetest.Disk
	opts  Options
	hooks hooks
}

func newMachine() *machine { return &machine{disk: enginetest.NewDisk(), opts: small()} }

func (m *machine) open() (*Engine, error) { return open(m.disk.Mount(), m.opts, m.hooks) }

// mustOpen opens and closes at the end of the test.
func (m *machine) mustOpen(t testing.TB) *Engine {
	t.Helper()
	e, err := m.open()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = e.Close() }) // the disk may be gone
	return e
}

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
				m.disk.Inject(&enginetest.Fault{Op: enginetest.OpSync, Types: storage.TypeJournal, Times: 1, Err: err})
			},
			Crash: func() { m.disk = m.disk.Crash(enginetest.Discard, nil) },
		}
	})
}
