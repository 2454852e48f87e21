package leveldb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

// counterKey holds the number of the batch that wrote it last; every batch writes it.
var counterKey = []byte("counter")

// history is what was written: batch i put key i, and batch i is number i+1.
type history struct {
	rng *rand.Rand
	// sent counts batches given to Apply; durable is the number of the last that was acknowledged with sync.
	sent, durable uint64
	// always syncs every batch.
	always bool
	acked  int
}

// write applies batches until one fails or n are done.
func (h *history) write(e *Engine, n int) error {
	for range n {
		var b engine.Batch
		h.sent++
		b.Put(counterKey, binary.BigEndian.AppendUint64(nil, h.sent))
		b.Put(h.key(h.sent), h.value(h.sent))
		sync := h.always || h.rng.IntN(3) > 0
		if err := e.Apply(&b, sync); err != nil {
			return err
		}
		if sync {
			h.durable = h.sent
			h.acked++
		}
	}
	return nil
}

func (h *history) key(i uint64) []byte { return fmt.Appendf(nil, "key%08d", i) }

// value is up to 16 KiB that depends on i alone.
func (h *history) value(i uint64) []byte {
	rng := rand.New(rand.NewPCG(i, 99))
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, rng.Uint64()), 1+rng.IntN(1<<rng.IntN(12)))
}

// verify returns why the engine's state is not the one after some number of batches between durable and sent, and
// lets the history go on from there.
func (h *history) verify(e *Engine) error {
	var at uint64
	switch v, err := e.Get(counterKey, nil); {
	case errors.Is(err, engine.ErrNotFound):
	case err != nil:
		return err
	default:
		at = binary.BigEndian.Uint64(v)
	}
	if at < h.durable || at > h.sent {
		return fmt.Errorf("state is that of batch %d, acknowledged %d, sent %d", at, h.durable, h.sent)
	}
	next := uint64(1)
	err := e.Iterate([]byte("key"), []byte("kez"), func(k, v []byte) (bool, error) {
		if string(k) != string(h.key(next)) || string(v) != string(h.value(next)) {
			return false, fmt.Errorf("found %s, expected %s of %d bytes", k, h.key(next), len(h.value(next)))
		}
		next++
		return true, nil
	})
	if err == nil && next-1 != at {
		err = fmt.Errorf("%d keys, but the state says %d batches", next-1, at)
	}
	h.sent, h.durable = at, at
	return err
}

// live plays some lives of one machine, each ended by a power cut at a random disk operation. It returns the first
// loss, and how many synced batches were acknowledged.
func live(seed uint64, m *machine) (acked int, err error) {
	rng := rand.New(rand.NewPCG(seed, 7))
	h := &history{rng: rng, always: seed%2 == 0}
	err = h.live(m)
	return h.acked, err
}

func (h *history) live(m *machine) error {
	rng := h.rng
	for life := range 4 {
		e, err := m.open()
		if err != nil {
			return fmt.Errorf("life %d: %w", life, err)
		}
		if err := h.verify(e); err != nil {
			return errors.Join(fmt.Errorf("life %d: %w", life, err), e.Close())
		}
		// Unsynced batches that reached the disk out of order look like damage; synced ones must not.
		if e.Suspect() && h.always {
			return errors.Join(fmt.Errorf("life %d: suspect after a power cut: %+v", life, e.Recovery()), e.Close())
		}
		m.disk.CutAfter(1 + rng.IntN(1500))
		held := rng.IntN(2) == 0
		if held {
			// Half of the lives have a disk that writes logs but, after a while, no tables.
			m.holdFlush(rng.IntN(4))
		}
		if err := h.write(e, 400); err != nil && !held && m.disk.PowerOn() {
			return errors.Join(fmt.Errorf("life %d: %w", life, err), e.Close())
		}
		old := m.disk
		m.disk = old.Crash(enginetest.CrashMode(rng.IntN(3)), rng)
		_ = e.Close() // the power is off: it cannot sync
	}
	e, err := m.open()
	if err != nil {
		return err
	}
	return errors.Join(h.verify(e), e.Close())
}

const crashSeeds = 120

// newCrashMachine has write buffers so small that a life sees many journals.
func newCrashMachine() *machine {
	m := newMachine()
	m.opts.WriteBuffer, m.opts.TableSize, m.opts.Level1Size = 256*kib, 128*kib, 256*kib
	return m
}

// skipLibraryRace skips a test in which flushes fail under waiting writers. The library then sends on a channel that
// the waiter closes, and recovers from the panic: harmless, but the race detector reports it.
func skipLibraryRace(t *testing.T) {
	if raceDetector {
		t.Skip("the library acknowledges flushes over a channel that may be closed meanwhile")
	}
}

func TestPowerCutsLoseNothingAcknowledged(t *testing.T) {
	skipLibraryRace(t)
	acked := 0
	for seed := range uint64(crashSeeds) {
		n, err := live(seed, newCrashMachine())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		acked += n
	}
	if acked < 100*crashSeeds {
		t.Errorf("only %d batches were acknowledged in %d runs", acked, crashSeeds)
	}
}

// TestPowerCutTestDetects turns off one safeguard after the other and demands that the test above notices.
func TestPowerCutTestDetects(t *testing.T) {
	skipLibraryRace(t)
	for _, tt := range []struct {
		name  string
		hooks hooks
	}{
		{"no sync", hooks{noSync: true}},
		{"no sync of a journal that is left", hooks{noLeaveSync: true}},
		{"no sync of the directory", hooks{noDirSync: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(10 * crashSeeds) {
				m := newCrashMachine()
				m.hooks = tt.hooks
				if _, err := live(seed, m); err != nil {
					t.Logf("found at seed %d: %v", seed, err)
					return
				}
			}
			t.Error("the loss was not found")
		})
	}
}

// TestPowerCutWhileCreating cuts the power at each operation of the very first opening.
func TestPowerCutWhileCreating(t *testing.T) {
	for n := 1; n < 12; n++ {
		for mode := range enginetest.CrashMode(3) {
			m := newMachine()
			m.disk.CutAfter(n)
			if e, err := m.open(); err == nil {
				_ = e.Close() // the power went off while it closed, or not at all
			}
			m.disk = m.disk.Crash(mode, rand.New(rand.NewPCG(uint64(n), uint64(mode))))
			e, err := m.open()
			if err != nil {
				t.Errorf("cut after %d operations, mode %d: %v", n, mode, err)
				continue
			}
			apply(t, e, "works")
			if err := e.Close(); err != nil || e.Suspect() {
				t.Errorf("cut after %d operations, mode %d: close %v, suspect %v", n, mode, err, e.Suspect())
			}
		}
	}
}

// holdFlush keeps memory tables, after some, from reaching a table file, so that the next journal is not covered by a
// write of the manifest.
func (m *machine) holdFlush(after int) {
	m.disk.Inject(&enginetest.Fault{
		Op: enginetest.OpCreate, Types: storage.TypeTable, Skip: after, Err: enginetest.ErrOffline,
	})
}

// rotate writes unsynced batches until the engine uses another journal, and returns how many.
func rotate(t *testing.T, m *machine, e *Engine) int {
	t.Helper()
	last := func() storage.FileDesc {
		journals := m.disk.Files(storage.TypeJournal)
		return journals[len(journals)-1]
	}
	first := last()
	for n := 1; n < 1000; n++ {
		var b engine.Batch
		b.Put(fmt.Appendf(nil, "filler%04d", n), make([]byte, 64*kib))
		if err := e.Apply(&b, false); err != nil {
			t.Fatal(err)
		}
		if last() != first {
			return n
		}
	}
	t.Fatal("no other journal")
	return 0
}

// TestNewJournalSurvives cuts the power when a batch was synced to a journal whose creation nothing else made durable.
func TestNewJournalSurvives(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hooks hooks
		kept  bool
	}{
		{"guarded", hooks{}, true},
		{"without the directory's sync", hooks{noDirSync: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.hooks = tt.hooks
			e := m.mustOpen(t)
			m.holdFlush(0)
			rotate(t, m, e)
			apply(t, e, "acknowledged")
			m.disk = m.disk.Crash(enginetest.Discard, nil)
			if _, err := m.mustOpen(t).Get([]byte("acknowledged"), nil); (err == nil) != tt.kept {
				t.Errorf("get: %v, kept should be %v", err, tt.kept)
			}
		})
	}
}

// TestSyncCoversEarlierJournals cuts the power after unsynced batches in one journal and a synced one in the next: the
// sync promises all of them.
func TestSyncCoversEarlierJournals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hooks hooks
		kept  bool
	}{
		{"guarded", hooks{}, true},
		{"without the sync of a journal that is left", hooks{noLeaveSync: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.hooks = tt.hooks
			e := m.mustOpen(t)
			m.holdFlush(0)
			n := rotate(t, m, e)
			apply(t, e, "acknowledged")
			m.disk = m.disk.Crash(enginetest.Discard, nil)
			e = m.mustOpen(t)
			found := 0
			err := e.Iterate([]byte("filler"), []byte("fillers"), func(k, v []byte) (bool, error) { found++; return true, nil })
			if err != nil || (found == n) != tt.kept {
				t.Errorf("%d of %d earlier batches, %v; all kept should be %v", found, n, err, tt.kept)
			}
			if _, err := e.Get([]byte("acknowledged"), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// apply puts each key, with itself as value, in one synced batch.
func apply(t testing.TB, e *Engine, keys ...string) {
	t.Helper()
	if err := tryApply(e, keys...); err != nil {
		t.Fatal(err)
	}
}

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
