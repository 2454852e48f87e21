package limit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/gateway/limit"
)

const tick = 100 * time.Millisecond

// world is a cluster that serves so many operations a second, each in at least base, in a fluid model: what is let in
// beyond capacity waits in one queue.
type world struct {
	capacity float64
	base     time.Duration
	inside   float64
}

// step runs one window: offered operations a second come, limit may be inside at once.
func (w *world) step(offered float64, room int) (limit.Window, float64) {
	const parts = 50
	served, refused, peak, area := 0.0, 0.0, 0.0, 0.0
	for range parts {
		come := offered * tick.Seconds() / parts
		in := min(come, max(0, float64(room)-w.inside))
		refused += come - in
		w.inside += in
		peak = max(peak, w.inside)
		// A pipe of length base, that passes on at most capacity.
		out := min(w.inside/w.base.Seconds(), w.capacity) * tick.Seconds() / parts
		out = min(out, w.inside)
		area += w.inside / parts
		w.inside -= out
		served += out
	}
	took := time.Duration(area / max(served/tick.Seconds(), 1) * float64(time.Second))
	return limit.Window{Median: max(took, w.base), Ended: int(served), Peak: int(peak), Refused: int(refused)}, served / tick.Seconds()
}

func TestGoodputAndLatencyHoldBeyondCapacity(t *testing.T) {
	for _, c := range []struct {
		capacity float64
		base     time.Duration
	}{{5000, 2 * time.Millisecond}, {20000, time.Millisecond}, {1500, 20 * time.Millisecond}, {3000, 60 * time.Millisecond}} {
		for _, factor := range []float64{0.5, 2, 5, 50} {
			l, w := limit.New(limit.Default()), world{capacity: c.capacity, base: c.base}
			run := func(windows int, load float64) (goodput float64, longest time.Duration) {
				for i := range windows {
					seen, served := w.step(load*c.capacity, l.Now())
					l.Next(seen)
					if i >= 30 { // 3 s to settle
						goodput += served / c.capacity / float64(windows-30)
						longest = max(longest, seen.Median)
					}
				}
				return goodput, longest
			}
			run(100, 0.15) // calm, so that the unloaded time is known
			goodput, longest := run(600, factor)
			if want := min(1, factor); goodput < 0.98*want {
				t.Errorf("capacity %v, base %v, %v times: goodput %.2f", c.capacity, c.base, factor, goodput)
			}
			if bound := l.Target() * 5 / 4; longest > bound {
				t.Errorf("capacity %v, base %v, %v times: an operation took %v, more than %v", c.capacity, c.base, factor, longest, bound)
			}
			seen, _ := w.step(0.5*c.capacity, l.Now())
			for range 15 { // what waited is worked off at half of capacity
				seen, _ = w.step(0.5*c.capacity, l.Now())
			}
			if seen.Refused > 0 || seen.Median > 2*c.base {
				t.Errorf("capacity %v, base %v, after %v times: %d refused, took %v", c.capacity, c.base, factor, seen.Refused, seen.Median)
			}
		}
	}
}

// A cluster that stood still for a while is given its full load again soon.
func TestLimitComesBack(t *testing.T) {
	l, w := limit.New(limit.Default()), world{capacity: 20000, base: time.Millisecond}
	slow := limit.Window{Median: 2 * time.Second, Ended: 100, Peak: 1000}
	for range 100 {
		l.Next(slow)
	}
	if l.Now() != limit.Default().Min {
		t.Fatalf("limit %d under a stall", l.Now())
	}
	windows := 0
	for served := 0.0; served < 0.98*w.capacity; windows++ {
		var seen limit.Window
		seen, served = w.step(2*w.capacity, l.Now())
		l.Next(seen)
		if windows > 50 {
			t.Fatalf("serves %.0f of %.0f a second 5 s after the stall, limit %d", served, w.capacity, l.Now())
		}
	}
}

func TestFullQueuesLowerTheLimit(t *testing.T) {
	l := limit.New(limit.Default())
	for range 20 {
		l.Next(limit.Window{Median: time.Millisecond, Ended: 1000, Overloaded: 30, Peak: 1000})
	}
	if l.Now() != limit.Default().Min {
		t.Errorf("limit %d though queues are full", l.Now())
	}
}

// Slow operations that are few are no reason to refuse others: the limit never passes its bounds, and without a word on
// latency it stays.
func TestLimitStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := limit.Config{Min: rapid.IntRange(1, 50).Draw(t, "min"), Target: time.Duration(rapid.IntRange(1, 1e9).Draw(t, "target")),
			Tolerance: rapid.Float64Range(1, 20).Draw(t, "tolerance")}
		cfg.Initial = cfg.Min + rapid.IntRange(0, 100).Draw(t, "initial")
		cfg.Max = cfg.Initial + rapid.IntRange(0, 100).Draw(t, "max")
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		l := limit.New(cfg)
		for range 100 {
			w := limit.Window{Median: time.Duration(rapid.Int64Range(0, 1e11).Draw(t, "median")), Ended: rapid.IntRange(0, 1000).Draw(t, "ended"),
				Overloaded: rapid.IntRange(0, 10).Draw(t, "overloaded"), Peak: rapid.IntRange(0, 300).Draw(t, "peak"),
				Refused: rapid.IntRange(0, 10).Draw(t, "refused")}
			was, target := l.Now(), l.Target()
			now := l.Next(w)
			switch {
			case now < cfg.Min || now > cfg.Max || now != l.Now():
				t.Fatalf("limit %d outside of %d to %d", now, cfg.Min, cfg.Max)
			case w.Ended == 0 && now != was:
				t.Fatalf("from %d to %d on nothing", was, now)
			case now > was && (w.Median > max(target, l.Target()) || w.Refused == 0 && w.Peak < was/2):
				t.Fatalf("from %d to %d for %+v, target %v", was, now, w, target)
			}
		}
	})
}

func TestConfig(t *testing.T) {
	if err := limit.Default().Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []func(*limit.Config){
		func(c *limit.Config) { c.Min = 0 }, func(c *limit.Config) { c.Initial = c.Min - 1 }, func(c *limit.Config) { c.Max = c.Initial - 1 },
		func(c *limit.Config) { c.Target = 0 }, func(c *limit.Config) { c.Tolerance = 0.5 },
	} {
		c := limit.Default()
		bad(&c)
		if c.Validate() == nil {
			t.Errorf("%+v accepted", c)
		}
	}
}

// Clients that come back at once are refused no faster than operations are served, and wait no longer than they were
// asked to.
func TestPacer(t *testing.T) {
	for _, c := range []struct {
		connections int
		served      float64 // a second
	}{{10, 5000}, {1000, 9000}, {1000, 0}, {8_000, 1000}} {
		var p limit.Pacer
		ready := make([]time.Duration, c.connections) // when each comes back
		refused, longest := 0, time.Duration(0)
		const cost, end = 50 * time.Microsecond, 20 * time.Second
		for now := time.Duration(0); now < end; now += cost {
			i := refused % c.connections // holds never overtake each other by much
			if ready[i] > now {
				continue
			}
			hold := p.Hold(now, uint64(c.served*now.Seconds()))
			longest = max(longest, hold)
			ready[i] = now + hold
			refused++
		}
		rate := float64(refused) / end.Seconds()
		// What cannot be held any longer is refused all the same.
		if bound := 1.1 * max(c.served, limit.MinPace, float64(c.connections)/limit.MaxHold.Seconds()); rate > bound {
			t.Errorf("%+v: %.0f refusals a second, more than %.0f", c, rate, bound)
		}
		if longest > limit.MaxHold {
			t.Errorf("%+v: held for %v", c, longest)
		}
	}
	// Few refusals are not held back at all.
	var p limit.Pacer
	for now := time.Duration(0); now < 10*time.Second; now += 20 * time.Millisecond {
		if hold := p.Hold(now, 0); hold != 0 {
			t.Fatalf("held for %v at %v", hold, now)
		}
	}
}
