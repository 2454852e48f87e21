package layout

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/transfer"
)

const (
	// metaPull names the stored progress of pulls.
	metaPull = "layout/pull"
	// saveEvery is how often it is stored while pulls go on.
	saveEvery = 500 * time.Millisecond
)

// tracker keeps the progress of one task's pulls, in memory and in the store. Safe for concurrent use.
type tracker struct {
	self  ring.NodeID
	pulls []ring.Pull
	store Store // nil: nothing is stored
	log   zerolog.Logger

	mu      sync.Mutex
	p       *transfer.Progress
	began   time.Time
	from    uint64    // slots that were done then
	moved   time.Time // when something came last
	touched time.Time // when the progress was last stored

	saving  atomic.Bool // a write is on its way
	putting sync.Mutex  // held while one is queued
	stopped bool        // guarded by putting: nothing is stored any more
}

func newTracker(self ring.NodeID, id ring.LayoutID, pulls []ring.Pull, store Store, now time.Time, log zerolog.Logger) *tracker {
	t := &tracker{self: self, pulls: pulls, store: store, log: log, began: now, moved: now, touched: now}
	t.p = t.load(id)
	t.from, _ = t.p.Slots(pulls, self)
	return t
}

// load reads what an earlier life, or an earlier try, has done for the layout.
func (t *tracker) load(id ring.LayoutID) *transfer.Progress {
	if t.store == nil {
		return transfer.NewProgress(id)
	}
	b, err := get(t.store, metaPull)
	if b == nil {
		if err != nil {
			t.log.Warn().Err(err).Msg("what was pulled is not known: pulls begin anew")
		}
		return transfer.NewProgress(id)
	}
	p, err := transfer.DecodeProgress(b)
	if err != nil {
		t.log.Error().Err(err).Msg("what was pulled is not known: pulls begin anew")
		return transfer.NewProgress(id)
	}
	if p.Layout != id {
		return transfer.NewProgress(id)
	}
	return p
}

// failed takes note of an error in storing what came: where the store has forgotten what was on its way, only what is
// durable counts.
func (t *tracker) failed(err error) {
	if !errors.Is(err, kv.ErrInDoubt) && !errors.Is(err, kv.ErrReopening) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p = t.load(t.p.Layout)
}

func (t *tracker) cursor(r ring.Range, source ring.NodeID) (after []byte, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.p.Cursor(r, source)
}

// advance takes note that all up to the key after is durable; bytes of records were taken in for that.
func (t *tracker) advance(r ring.Range, source ring.NodeID, after []byte, bytes int) {
	now := time.Now()
	t.mu.Lock()
	t.p.Advance(r, source, slices.Clone(after))
	t.p.Bytes += uint64(bytes)
	t.moved = now
	due := now.Sub(t.touched) >= saveEvery
	t.mu.Unlock()
	if due {
		t.save()
	}
}

func (t *tracker) finish(r ring.Range, source ring.NodeID) {
	now := time.Now()
	t.mu.Lock()
	t.p.Finish(r, source)
	t.moved = now
	due := now.Sub(t.touched) >= saveEvery
	t.mu.Unlock()
	if due {
		t.save()
	}
}

// save queues the progress behind the records that it stands for. Should it not be stored, the next one is.
func (t *tracker) save() {
	if t.store == nil || t.saving.Swap(true) {
		return
	}
	t.putting.Lock()
	defer t.putting.Unlock()
	if t.stopped {
		return
	}
	t.mu.Lock()
	b := t.p.Append(nil, kv.MaxMetaValue)
	t.touched = time.Now()
	t.mu.Unlock()
	if err := t.store.PutMeta(metaPull, b, func(error) { t.saving.Store(false) }); err != nil {
		t.saving.Store(false)
	}
}

// stop ends all storing: when it returns, nothing more is queued.
func (t *tracker) stop() {
	t.putting.Lock()
	defer t.putting.Unlock()
	t.stopped = true
}

// Transfer is how far a node is with what it pulls for a layout change.
type Transfer struct {
	Layout ring.LayoutID
	// SlotsDone of SlotsTotal, each slot once for each source that it needs.
	SlotsDone, SlotsTotal uint64
	// BytesDone of records were taken in; BytesTotal is an estimate, 0 where there is none yet.
	BytesDone, BytesTotal uint64
	// Left is an estimate of the time left, 0 where there is none yet; Stalled how long nothing has come.
	Left, Stalled time.Duration
}

func (t *tracker) status(now time.Time) Transfer {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := Transfer{Layout: t.p.Layout, BytesDone: t.p.Bytes, Stalled: max(now.Sub(t.moved), 0)}
	out.SlotsDone, out.SlotsTotal = t.p.Slots(t.pulls, t.self)
	if out.SlotsDone > 0 {
		out.BytesTotal = uint64(float64(out.BytesDone) * float64(out.SlotsTotal) / float64(out.SlotsDone))
	}
	if more := out.SlotsDone - t.from; out.SlotsDone > t.from {
		out.Left = time.Duration(float64(now.Sub(t.began)) * float64(out.SlotsTotal-out.SlotsDone) / float64(more))
	}
	return out
}

// Transfer tells how far the pulls for a layout change are; false where none are under way. Safe for concurrent use.
func (d *Driver) Transfer() (Transfer, bool) {
	t := d.transfer.Load()
	if t == nil {
		return Transfer{}, false
	}
	return t.status(time.Now()), true
}

// endSync gives up the pulls of the sync under way.
func (d *Driver) endSync() {
	if d.sync == nil {
		return
	}
	d.sync.cancel()
	if d.sync.track != nil {
		d.sync.track.stop()
	}
	d.sync = nil
	d.transfer.Store(nil)
}

// forgetPulls makes sure that no progress of pulls outlives a doubt: what ends the doubt brings back what the node owns in
// the settled layout, and not what it had pulled for the next one.
func (d *Driver) forgetPulls(ctx context.Context) error {
	d.endSync()
	b, err := get(d.cfg.State.store, metaPull)
	if err == nil && len(b) == 0 {
		return nil
	}
	return d.cfg.State.put(ctx, metaPull, nil)
}
