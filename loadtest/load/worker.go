package load

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

// failurePause is how long a worker of a closed loop rests after an operation failed, so that a server that is away is
// not asked a hundred thousand times a second.
const failurePause = 10 * time.Millisecond

// worker does one operation at a time on one connection. Its histograms and counts are its own until it has ended.
type worker struct {
	run     *runner
	conn    target.Conn
	chooser *workload.Chooser
	values  *workload.Values
	key     []byte
	timer   *time.Timer

	ops     [workload.Ops]histogram
	notDone histogram
	lag     histogram
	counts  [workload.Ops][target.Outcomes]uint64
	// late operations found every connection in use when they were due; abandoned ones never found one.
	late, abandoned int64
	errors          map[string]uint64

	live live
	_    [64]byte // keeps the next worker's counters off this one's cache line
}

// live is what the watching goroutine reads while the worker runs.
type live struct {
	done, notDone atomic.Int64
	max           atomic.Int64 // nanoseconds, since it was last read
}

func (r *runner) newWorker(n int, conn target.Conn) *worker {
	rng := rand.New(rand.NewPCG(r.cfg.Seed, uint64(n)))
	return &worker{
		run: r, conn: conn, chooser: workload.NewChooser(r.shared, rng),
		values: workload.NewValues(rng.Uint64(), r.shared.Spec().ValueSize), errors: map[string]uint64{},
	}
}

// step does one operation that was due at a moment, and records it where the measured part holds that moment.
func (w *worker) step(ctx context.Context, due time.Time) (end time.Time, out target.Outcome) {
	s := w.chooser.Next()
	began := time.Now()
	out, err := w.do(s, began.Add(w.run.cfg.Timeout))
	end = time.Now()
	if s.Op == workload.Insert {
		w.run.shared.Inserted(s.Record)
	}
	if ctx.Err() != nil && !out.Done() {
		return end, out // it ended because the run did
	}
	took := end.Sub(due)
	if w.run.within(end) {
		w.count(out, took)
	}
	if w.run.within(due) {
		w.counts[s.Op][out]++
		if out.Done() {
			w.ops[s.Op].record(took)
		} else {
			w.notDone.record(took)
			w.fault(err)
		}
	}
	return end, out
}

func (w *worker) count(out target.Outcome, took time.Duration) {
	if out.Done() {
		w.live.done.Add(1)
	} else {
		w.live.notDone.Add(1)
	}
	for {
		was := w.live.max.Load()
		if int64(took) <= was || w.live.max.CompareAndSwap(was, int64(took)) {
			return
		}
	}
}

// fault counts an error by its text, without what differs each time.
func (w *worker) fault(err error) {
	if err == nil {
		return
	}
	text := shorten(err.Error())
	if _, known := w.errors[text]; !known && len(w.errors) >= maxErrorTexts {
		text = otherErrors
	}
	w.errors[text]++
}

func (w *worker) do(s workload.Step, deadline time.Time) (target.Outcome, error) {
	w.key = workload.AppendKey(w.key[:0], s.Record, w.run.shared.Spec().KeySize)
	switch s.Op {
	case workload.Read, workload.HotRead:
		_, out, err := w.conn.Get(w.key, deadline)
		return out, err
	case workload.Update, workload.Insert:
		return w.conn.Put(w.key, w.values.Next(), nil, deadline)
	case workload.ReadModifyWrite:
		seen, out, err := w.conn.Get(w.key, deadline)
		if !out.Done() {
			return out, err
		}
		return w.conn.Put(w.key, w.values.Next(), seen, deadline)
	}
	return target.Failed, fmt.Errorf("load: operation %d", s.Op)
}

// closedLoop does one operation after the other.
func (w *worker) closedLoop(ctx context.Context) {
	r := w.run
	for now := time.Now(); ctx.Err() == nil && !r.isOver(now); {
		if !now.Before(r.begin) && !r.takeBudget() {
			return
		}
		var out target.Outcome
		now, out = w.step(ctx, now)
		if out == target.Failed {
			if !w.wait(ctx, failurePause) {
				return
			}
			now = time.Now()
		}
	}
}

// openLoop does the operation that is due next, again and again. One that is due earlier than a worker comes to it is
// late, and its latency counts from when it was due all the same.
func (w *worker) openLoop(ctx context.Context) {
	r := w.run
	for ctx.Err() == nil {
		due := r.due(r.next.Add(1) - 1)
		if due.IsZero() {
			return
		}
		now := time.Now()
		if ahead := due.Sub(now); ahead > 0 {
			if !w.wait(ctx, ahead) {
				return
			}
			if r.within(due) {
				w.lag.record(time.Since(due))
			}
		} else if r.within(due) {
			w.late++
		}
		if r.tooLate(now, due) {
			if r.within(due) {
				w.abandoned++
				w.live.notDone.Add(1)
				w.notDone.record(now.Sub(due)) // it would have taken at least this long
			}
			continue
		}
		w.step(ctx, due)
	}
}

// wait rests, and says whether the run goes on.
func (w *worker) wait(ctx context.Context, d time.Duration) bool {
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	select {
	case <-w.timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// due is the moment at which operation i of an open loop is due; the zero time for those after the last.
func (r *runner) due(i int64) time.Time {
	if i >= r.scheduled {
		return time.Time{}
	}
	return r.start.Add(r.offset(i))
}

// offset is from the run's start to operation i, in exact enough arithmetic for days.
func (r *runner) offset(i int64) time.Duration {
	whole, part := math.Modf(float64(i) / r.cfg.Rate)
	return time.Duration(whole)*time.Second + time.Duration(part*float64(time.Second))
}
