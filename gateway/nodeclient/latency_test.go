package nodeclient

import (
	"math"
	"testing"
	"time"
)

// A rate is of the last ten seconds or so, whenever it is looked at, and 0 until it is known.
func TestRate(t *testing.T) {
	var r rate
	now, count := 5*time.Second, uint64(1000)
	run := func(seconds, perSecond int) float64 {
		for range seconds * 20 {
			now += 50 * time.Millisecond
			count += uint64(perSecond / 20)
			r.look(count, now)
		}
		return math.Float64frombits(r.perSecond.Load())
	}
	if got := run(1, 100); got != 0 {
		t.Errorf("after a second: %v", got)
	}
	for _, c := range []struct {
		seconds, perSecond int
		least, most        float64
	}{{2, 100, 95, 105}, {30, 400, 395, 405}, {5, 0, 150, 250}, {15, 0, 0, 0}} {
		if got := run(c.seconds, c.perSecond); got < c.least || got > c.most {
			t.Errorf("after %d s at %d a second: %v", c.seconds, c.perSecond, got)
		}
	}
}
