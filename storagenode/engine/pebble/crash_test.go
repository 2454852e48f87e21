package pebble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/dotring/dotring/storagenode/engine"
)

// counterKey holds the number of the batch that wrote it last; every batch writes it.
var counterKey = []byte("counter")

// history is what was written: batch i put key i, and batch i is number i+1.
type history struct {
	rng *rand.Rand
	// sent counts batches given to Apply; durable is the number of the last that was acknowledged with sync.
	sent, durable uint64
	acked         int
}

// write applies n batches.
func (h *history) write(e *Engine, n int) error {
	for range n {
		var b engine.Batch
		h.sent++
		b.Put(counterKey, binary.BigEndian.AppendUint64(nil, h.sent))
		b.Put(h.key(h.sent), h.value(h.sent))
		sync := h.rng.IntN(3) > 0
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

// live plays some lives of one machine, each ended by a power cut while flushes and compactions may be under way. It
// returns the first loss, and how many synced batches were acknowledged.
func live(seed uint64, m *machine) (acked int, err error) {
	h := &history{rng: rand.New(rand.NewPCG(seed, 7))}
	for life := range 4 {
		e, err := m.open()
		if err != nil {
			return 0, fmt.Errorf("life %d: %w", life, err)
		}
		if err := h.verify(e); err != nil {
			return 0, errors.Join(fmt.Errorf("life %d: %w", life, err), e.Close())
		}
		if err := h.write(e, 1+h.rng.IntN(400)); err != nil {
			return 0, errors.Join(fmt.Errorf("life %d: %w", life, err), e.Close())
		}
		old := m.disk
		m.disk = old.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: h.rng.IntN(3) * 50, RNG: h.rng})
		if err := e.Close(); err != nil { // on the disk of another world
			return 0, err
		}
	}
	e, err := m.open()
	if err != nil {
		return 0, err
	}
	return h.acked, errors.Join(h.verify(e), e.Close())
}

const crashSeeds = 40

// newCrashMachine has write buffers so small that a life sees several logs.
func newCrashMachine() *machine {
	m := newMachine()
	m.opts.WriteBuffer, m.opts.TableSize, m.opts.Level1Size = mib, mib, mib
	return m
}

func TestPowerCutsLoseNothingAcknowledged(t *testing.T) {
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

// TestPowerCutTestDetects turns syncing off and demands that the test above notices.
func TestPowerCutTestDetects(t *testing.T) {
	for seed := range uint64(crashSeeds) {
		m := newCrashMachine()
		m.hooks.noSync = true
		if _, err := live(seed, m); err != nil {
			t.Logf("found at seed %d: %v", seed, err)
			return
		}
	}
	t.Error("the loss was not found")
}
