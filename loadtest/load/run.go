package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

const (
	maxErrorTexts = 32
	maxErrorText  = 160
	otherErrors   = "other errors"
	// dialTogether bounds the connections that are being opened at once.
	dialTogether = 64
)

// ErrNothing means that a run ended before anything was measured.
var ErrNothing = errors.New("load: nothing was measured")

// runner is one run.
type runner struct {
	cfg    Config
	shared *workload.Shared
	// start, begin and finish bound warm-up and measured part; finish is zero where only operations end the run.
	start, begin, finish time.Time
	scheduled            int64        // operations of an open loop, warm-up included
	next                 atomic.Int64 // of an open loop: the next operation
	budget               atomic.Int64 // of a closed loop: measured operations left
	workers              []*worker
}

// Run runs a workload against a target and returns what it measured, also when ctx ends early, as long as the measured
// part had begun. It returns when every worker has ended: at most two timeouts after the end. Errors: a bad
// configuration, a connection that cannot be opened, ErrNothing.
func Run(ctx context.Context, cfg Config, shared *workload.Shared, tgt target.Target) (report.Run, error) {
	if err := cfg.Validate(); err != nil {
		return report.Run{}, fmt.Errorf("load: %w", err)
	}
	conns, err := dialAll(ctx, tgt, cfg.Connections)
	if err != nil {
		return report.Run{}, fmt.Errorf("load: %w", err)
	}
	r := &runner{cfg: cfg, shared: shared}
	for n, c := range conns {
		r.workers = append(r.workers, r.newWorker(n, c))
	}
	r.schedule(time.Now())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var wg sync.WaitGroup
		for _, w := range r.workers {
			wg.Go(func() {
				if cfg.Rate > 0 {
					w.openLoop(ctx)
				} else {
					w.closedLoop(ctx)
				}
			})
		}
		wg.Wait()
	}()
	seen, watchErr := r.watch(ctx, ended)
	<-ended
	closeErr := closeAll(conns)
	if watchErr != nil {
		return report.Run{}, errors.Join(watchErr, closeErr)
	}
	return r.result(ctx, tgt, seen), nil
}

// dialAll opens all connections.
func dialAll(ctx context.Context, tgt target.Target, n int) ([]target.Conn, error) {
	conns, errs := make([]target.Conn, n), make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, dialTogether) {
		wg.Go(func() {
			for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
				conns[i], errs[i] = tgt.Dial(ctx, i)
				if errs[i] != nil {
					next.Store(int64(n)) // the others would fail alike
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", tgt.Name(), firstOf(errs)), closeAll(conns))
	}
	return conns, nil
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func closeAll(conns []target.Conn) error {
	var errs []error
	for _, c := range conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// schedule fixes the run's moments.
func (r *runner) schedule(now time.Time) {
	r.start, r.begin = now, now.Add(r.cfg.WarmUp)
	total := math.Inf(1)
	if r.cfg.Duration > 0 {
		r.finish = r.begin.Add(r.cfg.Duration)
		total = math.Ceil(r.cfg.Rate * (r.cfg.WarmUp + r.cfg.Duration).Seconds())
	}
	r.budget.Store(math.MaxInt64)
	if r.cfg.Operations > 0 {
		r.budget.Store(r.cfg.Operations)
		total = min(total, math.Ceil(r.cfg.Rate*r.cfg.WarmUp.Seconds())+float64(r.cfg.Operations))
	}
	if r.cfg.Rate > 0 {
		r.scheduled = int64(total)
	}
}

// within says whether a moment lies in the measured part.
func (r *runner) within(t time.Time) bool {
	return !t.Before(r.begin) && (r.finish.IsZero() || t.Before(r.finish))
}

func (r *runner) isOver(now time.Time) bool { return !r.finish.IsZero() && !now.Before(r.finish) }

// tooLate says that an operation that was due is given up: no connection was free for as long as it waits for one, or the
// run's end is a timeout ago.
func (r *runner) tooLate(now, due time.Time) bool {
	return r.cfg.GiveUp > 0 && now.Sub(due) > r.cfg.GiveUp || !r.finish.IsZero() && now.Sub(r.finish) > r.cfg.Timeout
}

func (r *runner) takeBudget() bool { return r.budget.Add(-1) >= 0 }

// seen is what was watched over the measured part.
type seen struct {
	elapsed time.Duration
	done    int64
	series  []report.Point
	cpu     time.Duration
	sched   int64
	servers []report.Usage
	faults  []string
}

// sample is the state of the machine's counters at a moment.
type sample struct {
	at      time.Time
	cpu     time.Duration
	sched   *metrics.Float64Histogram
	servers []report.Usage
	err     error
}

func (r *runner) sample() sample {
	s := sample{at: time.Now(), sched: schedLatency()}
	var errs [2]error
	s.cpu, errs[0] = SelfCPU()
	s.servers, errs[1] = Usages(r.cfg.Servers)
	s.err = errors.Join(errs[:]...)
	return s
}

// watch follows the run to its end, and samples the machine's counters where the measured part begins and ends.
func (r *runner) watch(ctx context.Context, ended <-chan struct{}) (seen, error) {
	tick := time.NewTicker(r.cfg.Every)
	defer tick.Stop()
	timer := time.NewTimer(time.Until(r.begin))
	defer timer.Stop()
	for warm := true; warm; {
		select {
		case <-timer.C:
			warm = false
		case <-tick.C:
			r.progress(nil, time.Now())
		case <-ended:
			return seen{}, errors.Join(fmt.Errorf("%w: it ended while warming up", ErrNothing), context.Cause(ctx))
		case <-ctx.Done():
			return seen{}, errors.Join(fmt.Errorf("%w: it ended while warming up", ErrNothing), context.Cause(ctx))
		}
	}
	before := r.sample()
	tick.Reset(r.cfg.Every)
	var over <-chan time.Time
	if !r.finish.IsZero() {
		timer.Reset(time.Until(r.finish))
		over = timer.C
	}
	s := seen{}
	for measuring := true; measuring; {
		select {
		case now := <-tick.C:
			r.progress(&s, now)
			continue
		case <-over:
		case <-ended:
		case <-ctx.Done():
		}
		measuring = false
	}
	after := r.sample()
	r.lastPoint(&s, after.at)
	s.elapsed, s.cpu = after.at.Sub(r.begin), after.cpu-before.cpu
	s.sched, s.servers = schedP99(before.sched, after.sched), Since(before.servers, after.servers)
	if err := errors.Join(before.err, after.err); err != nil {
		s.faults = append(s.faults, err.Error())
	}
	return s, nil
}

// progress tells of an interval, and adds it to the series once the measured part has begun.
func (r *runner) progress(s *seen, now time.Time) {
	at := now.Sub(r.begin)
	p := Progress{At: at, Of: r.cfg.Duration}
	if s != nil {
		point := r.point(s, at)
		s.series = append(s.series, point)
		p.Done, p.NotDone, p.Max, p.Total = point.Done, point.NotDone, time.Duration(point.MaxUS)*time.Microsecond, s.done
	}
	if r.cfg.Progress != nil {
		r.cfg.Progress(p)
	}
}

// point reads the live counters and sets them back.
func (r *runner) point(s *seen, at time.Duration) report.Point {
	last := 0.0
	if n := len(s.series); n > 0 {
		last = s.series[n-1].AtS
	}
	var done, notDone, most int64
	for _, w := range r.workers {
		done += w.live.done.Swap(0)
		notDone += w.live.notDone.Swap(0)
		most = max(most, w.live.max.Swap(0))
	}
	s.done += done
	p := report.Point{AtS: at.Seconds(), MaxUS: most / int64(time.Microsecond)}
	if span := p.AtS - last; span > 0 {
		p.Done, p.NotDone = float64(done)/span, float64(notDone)/span
	}
	return p
}

// lastPoint takes in what is left of the last interval. One that is too short to be drawn only counts.
func (r *runner) lastPoint(s *seen, now time.Time) {
	at := now.Sub(r.begin)
	p := r.point(s, at)
	if n := len(s.series); n == 0 || p.AtS-s.series[n-1].AtS > r.cfg.Every.Seconds()/2 {
		s.series = append(s.series, p)
	}
}

// result sums up.
func (r *runner) result(ctx context.Context, tgt target.Target, s seen) report.Run {
	spec := r.shared.Spec()
	run := report.Run{
		Target: tgt.Name(), Workload: describe(spec), Connections: r.cfg.Connections, Rate: r.cfg.Rate,
		Started: r.start, WarmUpS: r.cfg.WarmUp.Seconds(), ElapsedS: s.elapsed.Seconds(), Series: s.series, Servers: s.servers,
		Interrupted: ctx.Err() != nil,
	}
	if s.elapsed > 0 {
		run.Throughput = float64(s.done) / s.elapsed.Seconds()
		run.Generator.CPUS = s.cpu.Seconds()
		run.Generator.CPUShare = s.cpu.Seconds() / s.elapsed.Seconds() / float64(runtime.NumCPU())
	}
	run.Generator.SchedP99US = s.sched
	r.collect(&run)
	r.judge(&run, s.faults)
	return run
}

func describe(spec workload.Spec) report.Workload {
	w := report.Workload{Name: spec.Name, Mix: map[string]float64{}, Distribution: spec.Distribution.String(),
		Records: spec.Records, KeySize: spec.KeySize, ValueSize: spec.ValueSize}
	for op, share := range spec.Mix {
		if share > 0 {
			w.Mix[workload.Op(op).String()] = share
		}
	}
	return w
}

// collect merges what the workers recorded.
func (r *runner) collect(run *report.Run) {
	var all, notDone, lag histogram
	var started, late int64
	failures := map[string]uint64{}
	for op := range workload.Ops {
		var h histogram
		counts := map[string]uint64{}
		for _, w := range r.workers {
			h.merge(&w.ops[op])
			for out, n := range w.counts[op] {
				if n > 0 {
					counts[target.Outcome(out).String()] += n
					started += int64(n)
				}
			}
		}
		if len(counts) > 0 {
			run.Ops = append(run.Ops, report.OpStats{Op: op.String(), Counts: counts, Latency: h.summary()})
		}
		all.merge(&h)
	}
	for _, w := range r.workers {
		notDone.merge(&w.notDone)
		lag.merge(&w.lag)
		late += w.late
		run.Generator.Abandoned += w.abandoned
		for text, n := range w.errors {
			failures[text] += n
		}
	}
	run.All, run.NotDone = all.summary(), notDone.summary()
	l := lag.summary()
	run.Generator.LagP99US, run.Generator.LagMaxUS = l.P99US, l.MaxUS
	if total := started + run.Generator.Abandoned; total > 0 {
		run.Generator.LateShare = float64(late) / float64(total)
	}
	run.Errors = mostFrequent(failures)
}

func mostFrequent(failures map[string]uint64) []report.ErrorCount {
	var out []report.ErrorCount
	for text, n := range failures {
		out = append(out, report.ErrorCount{Text: text, Count: n})
	}
	slices.SortFunc(out, func(a, b report.ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text, b.Text))
	})
	return out[:min(len(out), report.MaxErrors)]
}

// judge says whether the run may be quoted.
func (r *runner) judge(run *report.Run, faults []string) {
	g := run.Generator
	run.Faults = faults
	fault := func(format string, args ...any) { run.Faults = append(run.Faults, fmt.Sprintf(format, args...)) }
	warn := func(format string, args ...any) { run.Warnings = append(run.Warnings, fmt.Sprintf(format, args...)) }
	if g.CPUShare > r.cfg.MaxCPUShare {
		fault("the generator was saturated: it took %.0f %% of the machine's processors, more than %.0f %%", 100*g.CPUShare, 100*r.cfg.MaxCPUShare)
	}
	if lag := time.Duration(g.LagP99US) * time.Microsecond; lag > r.cfg.MaxLag {
		fault("the generator was saturated: it began one in a hundred operations more than %v late though a connection was free, the bound is %v", lag, r.cfg.MaxLag)
	}
	if run.All.Count == 0 {
		fault("no operation was done")
	}
	if g.LateShare > 0.01 {
		warn("%.1f %% of the operations waited for a free connection: the target, or the number of connections, did not keep up with the rate", 100*g.LateShare)
	}
	if g.Abandoned > 0 {
		warn("%d operations that were due never started; they count as not done, with the time they had waited by then", g.Abandoned)
	}
	if n := run.NotDone.Count; n > 0 {
		warn("%d operations (%.2f %%) were not done", n, 100*float64(n)/float64(n+run.All.Count))
	}
	if run.Interrupted {
		warn("the run was interrupted")
	}
	run.Valid = len(run.Faults) == 0
}

// volatile is what makes texts of the same error differ: ports, ids and counts.
var volatile = regexp.MustCompile(`\b\d{3,}\b|[0-9a-f]{16,}|[A-Z2-7]{20,}`)

// shorten makes a text by which like errors can be counted.
func shorten(s string) string {
	s = volatile.ReplaceAllString(s, "…")
	if len(s) > maxErrorText {
		s = s[:maxErrorText] + "…"
	}
	return s
}
