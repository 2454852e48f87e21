package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

// fake is a store that takes a time for each operation, and nothing of the machine.
type fake struct {
	// takes says how long an operation takes that begins at a moment of the store's life.
	takes func(at time.Duration) time.Duration
	// answer, where set, says what comes of operation n.
	answer  func(n int64) (target.Outcome, error)
	refused error // of Dial

	born   time.Time
	n      atomic.Int64
	inside atomic.Int64
	most   atomic.Int64
	open   atomic.Int64

	mu      sync.Mutex
	written map[string]int
	shown   int // writes that showed what a read had seen
}

func newFake(takes func(time.Duration) time.Duration) *fake {
	return &fake{takes: takes, born: time.Now(), written: map[string]int{}}
}

func always(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

func (f *fake) Name() string { return "fake" }
func (f *fake) Close() error { return nil }

func (f *fake) Dial(ctx context.Context, _ int) (target.Conn, error) {
	if f.refused != nil {
		return nil, f.refused
	}
	f.open.Add(1)
	return &fakeConn{f: f, ctx: ctx}, nil
}

type fakeConn struct {
	f   *fake
	ctx context.Context
}

func (c *fakeConn) do(deadline time.Time) (target.Outcome, error) {
	f := c.f
	n := f.n.Add(1) - 1
	if now := f.inside.Add(1); now > f.most.Load() {
		f.most.Store(now)
	}
	defer f.inside.Add(-1)
	ready := time.NewTimer(f.takes(time.Since(f.born)))
	defer ready.Stop()
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case <-ready.C:
	case <-late.C:
		return target.Failed, context.DeadlineExceeded
	case <-c.ctx.Done():
		return target.Failed, c.ctx.Err()
	}
	if f.answer != nil {
		return f.answer(n)
	}
	return target.OK, nil
}

func (c *fakeConn) Get(_ []byte, deadline time.Time) ([]byte, target.Outcome, error) {
	out, err := c.do(deadline)
	return []byte("seen"), out, err
}

func (c *fakeConn) Put(key, _, seen []byte, deadline time.Time) (target.Outcome, error) {
	out, err := c.do(deadline)
	if out.Done() {
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		c.f.written[string(key)]++
		if string(seen) == "seen" {
			c.f.shown++
		}
	}
	return out, err
}

func (c *fakeConn) Close() error { c.f.open.Add(-1); return nil }

func shared(t testing.TB, mix workload.Mix) *workload.Shared {
	t.Helper()
	s, err := workload.NewShared(workload.Spec{Name: "t", Mix: mix, Records: 50, KeySize: 24, ValueSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func config() Config {
	c := Default()
	c.Connections, c.WarmUp, c.Duration, c.Timeout = 4, time.Second, 10*time.Second, 5*time.Second
	c.MaxCPUShare = 1 // fake time passes fast
	return c
}

// run runs in fake time and looks after what every run must keep.
func run(t *testing.T, cfg Config, f *fake) report.Run {
	t.Helper()
	got, err := Run(t.Context(), cfg, shared(t, workload.Plain(0.5)), f)
	if err != nil {
		t.Fatal(err)
	}
	if f.open.Load() != 0 {
		t.Errorf("%d connections are left open", f.open.Load())
	}
	if f.most.Load() > int64(cfg.Connections) {
		t.Errorf("%d operations at once over %d connections", f.most.Load(), cfg.Connections)
	}
	return got
}

func within(t *testing.T, what string, got, low, high float64) {
	t.Helper()
	if got < low || got > high || math.IsNaN(got) {
		t.Errorf("%s: %v is not between %v and %v", what, got, low, high)
	}
}

func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(always(10 * time.Millisecond))
		got := run(t, config(), f)
		within(t, "throughput", got.Throughput, 399, 401) // 4 connections, 100 a second each
		within(t, "median", float64(got.All.P50US), 9990, 10010)
		within(t, "operations", float64(got.All.Count), 3996, 4004)
		within(t, "asked", float64(f.n.Load()), 4396, 4408) // warm-up included
		within(t, "elapsed", got.ElapsedS, 10, 10.001)
		if !got.Valid || len(got.Warnings) != 0 || len(got.Ops) != 2 {
			t.Errorf("valid %v, faults %v, warnings %v, %d kinds of operation", got.Valid, got.Faults, got.Warnings, len(got.Ops))
		}
		within(t, "intervals", float64(len(got.Series)), 10, 10)
		for _, p := range got.Series {
			within(t, "interval's rate", p.Done, 390, 410)
		}
	})
}

// A store that stalls for two of ten seconds delays a fifth of what was due, evenly up to two seconds. A generator that
// waits with it sees four slow operations, one for each connection.
func TestOpenLoopLeavesNothingOut(t *testing.T) {
	stall := func(at time.Duration) time.Duration {
		if from, to := 4*time.Second, 6*time.Second; at >= from && at < to {
			return to - at
		}
		return time.Millisecond / 2
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Rate = 100
		got := run(t, cfg, newFake(stall))
		if got.All.Count != 1000 {
			t.Errorf("%d operations measured, 1000 were due", got.All.Count)
		}
		within(t, "p75", float64(got.All.P75US), 490, 510)
		within(t, "p90", float64(got.All.P90US), 0.9e6, 1.1e6)
		within(t, "p95", float64(got.All.P95US), 1.4e6, 1.6e6)
		within(t, "p99", float64(got.All.P99US), 1.85e6, 2e6)
		within(t, "late", got.Generator.LateShare, 0.15, 0.25)
		within(t, "lag", float64(got.Generator.LagMaxUS), 0, 1) // fake time wakes nobody late
	})
	synctest.Test(t, func(t *testing.T) { // the same store, in a closed loop
		cfg := config()
		got := run(t, cfg, newFake(stall))
		within(t, "p99 of a closed loop", float64(got.All.P99US), 490, 510)
		within(t, "longest of a closed loop", float64(got.All.MaxUS), 1.99e6, 2.01e6)
	})
}

// What a stall at the very end holds up is measured too.
func TestStallAtTheEnd(t *testing.T) {
	stall := func(at time.Duration) time.Duration {
		if at >= 10*time.Second {
			return max(0, 12*time.Second-at)
		}
		return time.Millisecond
	}
	for _, rate := range []float64{0, 100} {
		synctest.Test(t, func(t *testing.T) {
			cfg := config()
			cfg.Rate = rate
			got := run(t, cfg, newFake(stall))
			within(t, "longest", float64(got.All.MaxUS), 1.98e6, 2.01e6)
			if rate > 0 && got.All.Count != 1000 {
				t.Errorf("%d operations measured, 1000 were due", got.All.Count)
			}
		})
	}
}

// A store that never answers: the run ends two timeouts after its time, and everything that was due is accounted for.
func TestEverythingTimesOut(t *testing.T) {
	for _, rate := range []float64{0, 50} {
		synctest.Test(t, func(t *testing.T) {
			cfg := config()
			cfg.Rate, cfg.Timeout = rate, 2*time.Second
			began := time.Now()
			got := run(t, cfg, newFake(always(time.Hour)))
			within(t, "length", time.Since(began).Seconds(), 11, 15.1)
			if got.All.Count != 0 || got.Valid || len(got.Faults) != 1 {
				t.Errorf("%d done, valid %v, faults %v", got.All.Count, got.Valid, got.Faults)
			}
			if rate == 0 && (len(got.Errors) != 1 || !strings.Contains(got.Errors[0].Text, "deadline")) {
				t.Errorf("errors %v", got.Errors)
			}
			if rate > 0 {
				if got.NotDone.Count != 500 || got.Generator.Abandoned < 400 {
					t.Errorf("%d not done, of which %d never started; 500 were due", got.NotDone.Count, got.Generator.Abandoned)
				}
				within(t, "longest", float64(got.NotDone.MaxUS), 10e6, 14.1e6)
			}
		})
	}
}

func TestRateIsKept(t *testing.T) {
	for _, rate := range []float64{0.7, 33, 1000} {
		synctest.Test(t, func(t *testing.T) {
			cfg := config()
			cfg.Rate = rate
			got := run(t, cfg, newFake(always(time.Microsecond)))
			within(t, "rate", float64(got.All.Count), 10*rate-1, 10*rate+1)
		})
	}
}

func TestOffsetsAreEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &runner{cfg: Config{Rate: rapid.Float64Range(0.1, 1e6).Draw(t, "rate")}}
		i := int64(rapid.Float64Range(0, 2*MaxDuration.Seconds()).Draw(t, "at") * r.cfg.Rate)
		step := float64(r.offset(i+1) - r.offset(i))
		if want := 1e9 / r.cfg.Rate; math.Abs(step-want) > 3000 { // nanoseconds
			t.Fatalf("operation %d comes %v ns after the one before it, want %v", i+1, step, want)
		}
	})
}

func TestOperationsEndARun(t *testing.T) {
	for _, rate := range []float64{0, 200} {
		synctest.Test(t, func(t *testing.T) {
			cfg := config()
			cfg.Rate, cfg.Duration, cfg.Operations = rate, 0, 777
			got := run(t, cfg, newFake(always(10*time.Millisecond)))
			if got.All.Count != 777 {
				t.Errorf("rate %v: %d operations, asked for 777", rate, got.All.Count)
			}
			want := 400.0
			if rate > 0 {
				want = rate
			}
			within(t, "throughput", got.Throughput, want*0.98, want*1.02)
		})
	}
}

func TestCancel(t *testing.T) {
	for _, rate := range []float64{0, 200} {
		synctest.Test(t, func(t *testing.T) {
			cfg := config()
			cfg.Rate = rate
			cfg.WarmUp = 2 * time.Second
			early, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			f := newFake(always(10 * time.Millisecond))
			if _, err := Run(early, cfg, shared(t, workload.Plain(1)), f); !errors.Is(err, ErrNothing) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("cancelled while warming up: %v", err)
			}
			later, stop := context.WithTimeout(t.Context(), 5*time.Second)
			defer stop()
			began := time.Now()
			got, err := Run(later, cfg, shared(t, workload.Plain(1)), f)
			if err != nil || !got.Interrupted || got.All.Count == 0 || got.NotDone.Count != 0 {
				t.Errorf("cancelled after 3 of 10 s: %v, interrupted %v, %d done, %d not", err, got.Interrupted, got.All.Count, got.NotDone.Count)
			}
			within(t, "length", time.Since(began).Seconds(), 5, 5.1)
			within(t, "elapsed", got.ElapsedS, 3, 3.1)
			if f.open.Load() != 0 {
				t.Errorf("%d connections are left open", f.open.Load())
			}
		})
	}
}

func TestRefusalsAndFailuresCountApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(always(10 * time.Millisecond))
		f.answer = func(n int64) (target.Outcome, error) {
			switch n % 4 {
			case 0:
				return target.Refused, nil
			case 1:
				return target.Failed, fmt.Errorf("broken pipe on port %d", 40000+n)
			case 2:
				return target.Absent, nil
			}
			return target.OK, nil
		}
		got := run(t, config(), f)
		sum := map[string]uint64{}
		for _, op := range got.Ops {
			for out, n := range op.Counts {
				sum[out] += n
			}
		}
		for _, out := range []string{"ok", "absent", "refused", "failed"} {
			within(t, out, float64(sum[out]), float64(sum["ok"])-5, float64(sum["ok"])+5)
		}
		if int64(sum["ok"]+sum["absent"]) != got.All.Count || int64(sum["refused"]+sum["failed"]) != got.NotDone.Count {
			t.Errorf("%v; %d done, %d not", sum, got.All.Count, got.NotDone.Count)
		}
		if len(got.Errors) != 1 || got.Errors[0].Count != sum["failed"] {
			t.Errorf("like errors are not one: %v", got.Errors)
		}
		within(t, "throughput", got.Throughput, float64(got.All.Count)/10-2, float64(got.All.Count)/10+2)
	})
}

func TestErrorsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(always(10 * time.Millisecond))
		f.answer = func(n int64) (target.Outcome, error) {
			return target.Failed, errors.New(strings.Repeat("long ", 100) + strings.Repeat("x", int(n)))
		}
		short := newFake(always(10 * time.Millisecond))
		short.answer = func(n int64) (target.Outcome, error) {
			return target.Failed, errors.New(strings.Repeat("x", int(n%150)))
		}
		for _, f := range []*fake{f, short} {
			got := run(t, config(), f)
			var sum uint64
			for _, e := range got.Errors {
				sum += e.Count
				if len(e.Text) > maxErrorText+4 {
					t.Errorf("a text of %d bytes", len(e.Text))
				}
			}
			if len(got.Errors) > report.MaxErrors || sum == 0 {
				t.Errorf("%d texts", len(got.Errors))
			}
		}
	})
}

func TestReadModifyWriteShowsWhatItRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(always(10 * time.Millisecond))
		got, err := Run(t.Context(), config(), shared(t, workload.Mix{workload.ReadModifyWrite: 1}), f)
		if err != nil {
			t.Fatal(err)
		}
		within(t, "latency of both", float64(got.All.P50US), 19980, 20020)
		if f.shown == 0 || int64(f.shown) < got.All.Count {
			t.Errorf("%d writes showed what was read, %d operations", f.shown, got.All.Count)
		}
	})
}

func TestInsertsBecomeKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shared(t, workload.Mix{workload.Read: 0.5, workload.Insert: 0.5})
		f := newFake(always(10 * time.Millisecond))
		if _, err := Run(t.Context(), config(), s, f); err != nil {
			t.Fatal(err)
		}
		if int(s.Known()) != 50+len(f.written) {
			t.Errorf("%d records known, %d written to 50", s.Known(), len(f.written))
		}
	})
}

func TestDialFails(t *testing.T) {
	f := newFake(always(0))
	f.refused = errors.New("nobody home")
	if _, err := Run(t.Context(), config(), shared(t, workload.Plain(1)), f); err == nil || !strings.Contains(err.Error(), "nobody home") {
		t.Errorf("%v", err)
	}
}

func TestFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(always(10 * time.Millisecond))
		f.answer = func(n int64) (target.Outcome, error) { // every third write must be tried again
			if n%3 == 0 {
				return target.Refused, nil
			}
			return target.OK, nil
		}
		spec := workload.Spec{Name: "t", Mix: workload.Plain(1), Records: 500, KeySize: 24, ValueSize: 10}
		n, err := Fill(t.Context(), config(), spec, f, nil)
		if err != nil || n != 500 || len(f.written) != 500 {
			t.Fatalf("%d written, %d keys: %v", n, len(f.written), err)
		}
		for key, times := range f.written {
			if times != 1 {
				t.Errorf("%s written %d times", key, times)
			}
		}
		f.answer = func(int64) (target.Outcome, error) { return target.Failed, errors.New("disk gone") }
		if _, err := Fill(t.Context(), config(), spec, f, nil); err == nil || !strings.Contains(err.Error(), "disk gone") {
			t.Errorf("a store that fails for good: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Fill(ctx, config(), spec, f, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if f.open.Load() != 0 {
			t.Errorf("%d connections are left open", f.open.Load())
		}
	})
}

func TestJudge(t *testing.T) {
	ok := report.Run{All: report.Latency{Count: 100}}
	for name, c := range map[string]struct {
		change func(*report.Run)
		valid  bool
		says   string
	}{
		"nothing wrong":      {func(*report.Run) {}, true, ""},
		"processors":         {func(r *report.Run) { r.Generator.CPUShare = 0.51 }, false, "saturated"},
		"just not":           {func(r *report.Run) { r.Generator.CPUShare = 0.5 }, true, ""},
		"lag":                {func(r *report.Run) { r.Generator.LagP99US = 5001 }, false, "saturated"},
		"nothing done":       {func(r *report.Run) { r.All.Count = 0 }, false, "no operation"},
		"few connections":    {func(r *report.Run) { r.Generator.LateShare = 0.5 }, true, "free connection"},
		"never started":      {func(r *report.Run) { r.Generator.Abandoned = 3 }, true, "never started"},
		"something not done": {func(r *report.Run) { r.NotDone.Count = 100 }, true, "50.00 %"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ok
			c.change(&got)
			(&runner{cfg: Default()}).judge(&got, nil)
			text := strings.Join(append(got.Faults, got.Warnings...), "\n")
			if got.Valid != c.valid || !strings.Contains(text, c.says) || (text == "") != (c.says == "") {
				t.Errorf("valid %v, says %q", got.Valid, text)
			}
		})
	}
	got := ok
	(&runner{cfg: Default()}).judge(&got, []string{"no counters"})
	if got.Valid {
		t.Error("valid in spite of a fault")
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Connections: -1, Rate: -1, WarmUp: -1, Duration: -1, Operations: -1, MaxLag: -1}.Validate()
	for _, part := range []string{"connections", "rate", "warm-up", "duration", "operations", "ends the run", "timeout", "interval", "CPU", "lag"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not named in %v", part, err)
		}
	}
}
