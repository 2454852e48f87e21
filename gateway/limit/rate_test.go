package limit_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/gateway/limit"
)

// bucket is the naive twin: what is there, refilled as time goes by.
type bucket struct {
	rate limit.Rate
	has  float64
	at   time.Duration
}

func (b *bucket) take(now time.Duration, n int) bool {
	b.has = min(float64(b.rate.Burst), b.has+(now-b.at).Seconds()*b.rate.PerSecond)
	b.at = now
	if b.has < min(float64(n), float64(b.rate.Burst))-1e-6 { // a nanosecond of a million a second
		return false
	}
	b.has -= float64(n)
	return true
}

func TestRateAsItsTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, err := limit.NewRate(float64(rapid.IntRange(1, 2000).Draw(t, "per second")), rapid.IntRange(0, 50).Draw(t, "burst"))
		if err != nil {
			t.Fatal(err)
		}
		twin := bucket{rate: rate, has: float64(rate.Burst)}
		var due, now time.Duration
		for range 200 {
			// Odd steps, so that a decision never hangs on the last nanosecond.
			now += time.Duration(rapid.IntRange(0, 3_000_000).Draw(t, "step"))*time.Microsecond/1000 + 333*time.Nanosecond
			n := rapid.IntRange(1, 60).Draw(t, "n")
			next, wait := rate.Take(due, now, n)
			before := twin
			if in := twin.take(now, n); in != (wait == 0) {
				// Only what is due within a microsecond may be seen either way.
				if after := before; wait > time.Microsecond || !after.take(now+time.Microsecond, n) {
					t.Fatalf("%+v at %v: let in: %v, the twin: %v", rate, now, wait == 0, in)
				}
				twin = before
				if wait == 0 {
					twin.take(now+time.Microsecond, n)
				}
			}
			if wait > 0 {
				if next != due {
					t.Fatal("a refusal is paid for")
				}
				if _, again := rate.Take(due, now+wait, n); again > 0 {
					t.Fatalf("refused for %v, and then for %v", wait, again)
				}
			}
			due = next
		}
	})
}

func TestRateInTheLongRun(t *testing.T) {
	rate, err := limit.NewRate(100, 0)
	if err != nil || rate.Burst != 100 {
		t.Fatal(rate, err)
	}
	let, due := 0, time.Duration(0)
	for now := time.Duration(0); now < 10*time.Second; now += time.Millisecond {
		next, wait := rate.Take(due, now, 1)
		if due = next; wait == 0 {
			let++
		}
	}
	if let < 1090 || let > 1100 { // a burst, and ten seconds
		t.Errorf("%d operations in 10 s at 100 a second", let)
	}
	if next, wait := (limit.Rate{}).Take(0, 0, 1_000_000); next != 0 || wait != 0 {
		t.Error("no rate is a limit")
	}
}

func TestBadRates(t *testing.T) {
	for _, c := range []struct {
		perSecond float64
		burst     int
	}{{0, 0}, {-1, 0}, {0.0001, 0}, {2e6, 0}, {math.NaN(), 0}, {math.Inf(1), 0}, {1, -1}, {1, 2_000_000}} {
		if _, err := limit.NewRate(c.perSecond, c.burst); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if r, err := limit.NewRate(0.5, 0); err != nil || r.Burst != 1 {
		t.Error(r, err)
	}
	if err := fmt.Errorf("at the door: %w", &limit.Exceeded{What: "x", Wait: 1}); !errors.Is(err, limit.ErrExceeded) {
		t.Error("an excess is none")
	}
}
