// Package handoff delivers hints: one worker passes over the hints for each node that can be reached.
//
// A pass is a scan, so it may end anywhere and begin again: what was delivered twice changes nothing, and a hint leaves
// only when those it is for have confirmed it, as it is stored at that moment.
package handoff

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/hints"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// tick is how often targets are looked at without being woken: hints may be stored while nothing else happens.
	tick = 500 * time.Millisecond
	// workersMax bounds the passes under way at once.
	workersMax = 8
	// callTimeout bounds one delivery.
	callTimeout = 10 * time.Second
	// scanMax bounds the hints that are looked at in one go, so that a scan never holds the engine for long.
	scanMax = 4096
)

// Store keeps the hints. See kv.Store.
type Store interface {
	HintTargets() []kv.HintTarget
	ScanHints(target ring.NodeID, after []byte, fn func(key, rec []byte) (more bool, err error)) error
	DropHint(target ring.NodeID, key, seen []byte, done func(dropped bool, err error)) error
	HintsDelivered(target ring.NodeID, before time.Time)
	Apply(key, rec []byte, done func(changed bool, err error)) error
	Pressure() float64
}

// State is what is known of the cluster at one moment. Immutable.
type State struct {
	Live  []*ring.Layout         // empty while none is known
	Alive map[ring.NodeID]string // where the nodes that live are reached
}

// Peers calls other nodes. Calls end with ctx.
type Peers interface {
	// Deliver brings records that were read from the disk after obtained to the node at addr, because of hints. It returns a
	// status for each record, in order. A node that was not called before then takes none yet.
	Deliver(ctx context.Context, addr string, obtained time.Time, records []*storagev1.PulledRecord) (statuses []storagev1.Status, pause time.Duration, err error)
}

// Config is what a Replayer needs; all fields are required.
type Config struct {
	Self  ring.NodeID
	Store Store
	// State returns the newest state, and what is closed when there is a newer one.
	State      func() (State, <-chan struct{})
	Peers      Peers
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Replayer delivers hints. Run owns all its goroutines.
type Replayer struct {
	cfg     Config
	metrics *metrics
	seed    maphash.Seed
	results chan result

	// The rest belongs to Run's goroutine.
	targets map[ring.NodeID]*target
	running int
	last    ring.NodeID // the target that a worker was started for last
}

type target struct {
	pacer     hints.Pacer
	running   bool
	delivered int // since there were none
}

// result is how a pass ended.
type result struct {
	id        ring.NodeID
	kind      hints.Pass
	as        hints.Target
	complete  bool
	delivered int
}

// New registers the metrics.
func New(cfg Config) (*Replayer, error) {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &Replayer{cfg: cfg, metrics: m, seed: maphash.MakeSeed(), results: make(chan result, workersMax), targets: map[ring.NodeID]*target{}}, nil
}

// Run delivers hints until ctx ends.
func (r *Replayer) Run(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		state, changed := r.cfg.State()
		for _, job := range r.due(time.Now(), state) {
			workers.Go(func() { r.results <- r.pass(ctx, job) }) // has room for all
		}
		r.metrics.running.Set(float64(r.running))
		select {
		case res := <-r.results:
			r.ended(time.Now(), res)
		case <-changed:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// due lists the passes to begin, and takes note that they run.
func (r *Replayer) due(now time.Time, state State) []result {
	if len(state.Live) == 0 {
		return nil
	}
	kept := r.cfg.Store.HintTargets()
	for id, t := range r.targets {
		if !t.running && !slices.ContainsFunc(kept, func(k kv.HintTarget) bool { return k.ID == id }) {
			delete(r.targets, id)
		}
	}
	// Whoever had his turn last comes last.
	from, _ := slices.BinarySearchFunc(kept, r.last, func(k kv.HintTarget, id ring.NodeID) int { return k.ID.Compare(id) })
	if from < len(kept) && kept[from].ID == r.last {
		from++
	}
	var out []result
	for i := range kept {
		k := kept[(from+i)%len(kept)]
		t := r.targets[k.ID]
		if t == nil {
			t = &target{}
			r.targets[k.ID] = t
		}
		if t.running || r.running >= workersMax {
			continue
		}
		as := r.describe(k, state)
		if kind := t.pacer.Next(now, as); kind != hints.Wait {
			t.running = true
			r.running++
			r.last = k.ID
			out = append(out, result{id: k.ID, kind: kind, as: as})
		}
	}
	return out
}

func (r *Replayer) describe(k kv.HintTarget, state State) hints.Target {
	as := hints.Target{Count: k.Count, Gone: true}
	_, as.Alive = state.Alive[k.ID]
	var h maphash.Hash
	h.SetSeed(r.seed)
	for _, l := range state.Live {
		if _, in := l.Member(k.ID); in {
			as.Gone = false
		}
		id := l.ID()
		maphash.WriteComparable(&h, id)
	}
	as.Layouts = max(h.Sum64(), 1)
	return as
}

func (r *Replayer) ended(now time.Time, res result) {
	t := r.targets[res.id]
	t.running = false
	r.running--
	t.delivered += res.delivered
	t.pacer.Passed(now, res.kind, res.as, res.complete)
	left := slices.ContainsFunc(r.cfg.Store.HintTargets(), func(k kv.HintTarget) bool { return k.ID == res.id })
	if !left && t.delivered > 0 {
		r.cfg.Logger.Info().Stringer("peer", res.id).Int("hints", t.delivered).Msg("all hints for the node are delivered")
		t.delivered = 0
	}
}

// item is a hint on its way.
type item struct {
	key, rec  []byte
	route     hints.Route
	confirmed []ring.NodeID
}

// pass delivers the hints for one target from the first to the last, and ends at the first batch of which nobody takes
// anything.
func (r *Replayer) pass(ctx context.Context, job result) result {
	began := time.Now()
	job.complete = true
	unchanged, again := true, false
	var after []byte
	for ctx.Err() == nil {
		state, _ := r.cfg.State()
		if len(state.Live) == 0 {
			break
		}
		obtained := time.Now()
		batch, last, err := r.page(job, state.Live, after)
		if err != nil {
			r.cfg.Logger.Warn().Err(err).Stringer("peer", job.id).Msg("hints not read, trying again")
			job.complete = false
			return job
		}
		if last == nil {
			if job.complete && unchanged && job.kind == hints.All {
				r.cfg.Store.HintsDelivered(job.id, began)
			}
			return job
		}
		from := after
		after = last
		if len(batch) == 0 {
			continue
		}
		pause, refused := r.deliver(ctx, state, obtained, batch)
		dropped, confirmed := r.drop(job.id, batch)
		if confirmed == 0 && refused && !again {
			// What was heard of the receivers may have been too old for them to take anything. Now it is not.
			again, after = true, from
			continue
		}
		job.delivered += dropped
		job.complete = job.complete && confirmed == len(batch)
		unchanged = unchanged && dropped == confirmed
		if confirmed == 0 {
			break
		}
		if pause = max(pause, hints.PauseFor(r.cfg.Store.Pressure())); !r.wait(ctx, pause) {
			break
		}
	}
	job.complete = false
	return job
}

// page reads the next batch behind after. last is the last key that was looked at, nil at the end.
func (r *Replayer) page(job result, live []*ring.Layout, after []byte) (batch []*item, last []byte, err error) {
	size, seen := 0, 0
	err = r.cfg.Store.ScanHints(job.id, after, func(key, rec []byte) (bool, error) {
		if seen++; seen > scanMax {
			return false, nil
		}
		route := hints.RouteOf(live, job.id, ring.SlotOf(key))
		if job.kind == hints.All || route.Rerouted {
			if !hints.Fits(len(batch), size, len(key)+len(rec)) {
				return false, nil
			}
			size += len(key) + len(rec)
			batch = append(batch, &item{key: bytes.Clone(key), rec: bytes.Clone(rec), route: route})
		}
		last = append(last[:0], key...)
		return true, nil
	})
	return batch, last, err
}

// deliver brings each hint to those it is for and notes who confirmed. It returns how long they want to be left alone, and
// whether anyone answered and took nothing.
func (r *Replayer) deliver(ctx context.Context, state State, obtained time.Time, batch []*item) (pause time.Duration, refused bool) {
	var to []ring.NodeID
	for _, it := range batch {
		to = it.route.To(to)
	}
	for _, id := range to {
		var part []*item
		for _, it := range batch {
			if slices.Contains(it.route.To(nil), id) {
				part = append(part, it)
			}
		}
		if id == r.cfg.Self {
			r.keep(part)
			continue
		}
		addr, alive := state.Alive[id]
		if !alive {
			continue
		}
		wait, taken, err := r.send(ctx, id, addr, obtained, part)
		refused = refused || err == nil && taken == 0
		if err != nil && ctx.Err() == nil {
			r.cfg.Logger.Debug().Err(err).Stringer("peer", id).Msg("hints not delivered")
		}
		pause = max(pause, min(wait, hints.PauseMax))
	}
	return pause, refused
}

// send returns how many records the node took.
func (r *Replayer) send(ctx context.Context, id ring.NodeID, addr string, obtained time.Time, part []*item) (pause time.Duration, taken int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	records := make([]*storagev1.PulledRecord, len(part))
	for i, it := range part {
		records[i] = &storagev1.PulledRecord{Key: it.key, Record: it.rec}
	}
	statuses, pause, err := r.cfg.Peers.Deliver(ctx, addr, obtained, records)
	if err == nil && len(statuses) != len(part) {
		err = fmt.Errorf("%d statuses for %d records", len(statuses), len(part))
	}
	if err != nil {
		r.metrics.failed.Inc()
		return pause, 0, err
	}
	r.metrics.deliveries.Inc()
	for i, st := range statuses {
		if st == storagev1.Status_STATUS_OK {
			part[i].confirmed = append(part[i].confirmed, id)
			taken++
		} else {
			r.metrics.refused.Inc()
		}
	}
	return pause, taken, nil
}

// keep takes hints into the node's own records: by now it owns their slots itself.
func (r *Replayer) keep(part []*item) {
	outcomes := make(chan *item, len(part))
	for _, it := range part {
		err := r.cfg.Store.Apply(it.key, bytes.Clone(it.rec), func(_ bool, err error) {
			if err != nil {
				outcomes <- nil
				return
			}
			outcomes <- it
		})
		if err != nil {
			outcomes <- nil
		}
	}
	for range part {
		if it := <-outcomes; it != nil {
			it.confirmed = append(it.confirmed, r.cfg.Self)
		}
	}
}

// drop removes the hints that were confirmed and have not changed, and returns how many went and how many were confirmed.
func (r *Replayer) drop(target ring.NodeID, batch []*item) (dropped, confirmed int) {
	outcomes := make(chan bool, len(batch))
	for _, it := range batch {
		if !it.route.Confirmed(it.confirmed) {
			continue
		}
		confirmed++
		if err := r.cfg.Store.DropHint(target, it.key, it.rec, func(gone bool, err error) { outcomes <- gone && err == nil }); err != nil {
			outcomes <- false
		}
	}
	for range confirmed {
		if <-outcomes {
			dropped++
		}
	}
	r.metrics.delivered.Add(float64(dropped))
	return dropped, confirmed
}

// wait pauses; false means that ctx ended.
func (r *Replayer) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	r.metrics.paused.Add(d.Seconds())
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
