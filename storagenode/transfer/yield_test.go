package transfer

import (
	"testing"
	"time"
)

// served is a node whose writes take as long as told.
type served struct {
	now time.Time
	sum Served
}

// after is some time later, in which so many writes took so long each.
func (s *served) after(d time.Duration, writes int, took time.Duration) (time.Time, Served) {
	s.now = s.now.Add(d)
	s.sum.Writes += uint64(writes)
	s.sum.Took += time.Duration(writes) * took
	return s.now, s.sum
}

// Pulls begin low, take all that is spare while writes stay quick, and give way where they do not; and they never stop.
func TestYield(t *testing.T) {
	s, y := &served{now: time.Unix(1000, 0)}, &Yield{}
	for range 10 {
		y.Idle(s.after(time.Second, 100, 2*time.Millisecond))
	}
	if got := y.Share(s.after(0, 0, 0)); got != LeastShare {
		t.Errorf("pulls begin with %v", got)
	}
	share := 0.0
	for range 20 {
		share = y.Share(s.after(100*time.Millisecond, 10, 2500*time.Microsecond))
	}
	if share != 1 {
		t.Errorf("%v after two seconds in which writes stayed quick", share)
	}
	if share = y.Share(s.after(10*time.Millisecond, 1, time.Second)); share != 1 {
		t.Errorf("%v after a single slow write", share)
	}
	for range 5 {
		share = y.Share(s.after(100*time.Millisecond, 10, 4*time.Millisecond))
	}
	if share != LeastShare {
		t.Errorf("%v after half a second in which writes took twice as long", share)
	}
	for range 100 {
		if share = y.Share(s.after(100*time.Millisecond, 10, time.Second)); share < LeastShare {
			t.Fatalf("%v: the change never ends", share)
		}
	}
}

// Without clients pulls take all of their rate, soon.
func TestYieldWithoutClients(t *testing.T) {
	s, y := &served{now: time.Unix(1000, 0)}, &Yield{}
	share, took := y.Share(s.after(0, 0, 0)), time.Duration(0)
	for ; share < 1 && took < time.Minute; took += 10 * time.Millisecond {
		share = y.Share(s.after(10*time.Millisecond, 0, 0))
	}
	if took > 600*time.Millisecond {
		t.Errorf("all of the rate after %v", took)
	}
}

// A node that takes its first writes while it pulls, as a joiner does, measures by what they take while it hardly pulls; and what slows
// it down for long becomes usual.
func TestYieldWithoutAMeasure(t *testing.T) {
	s, y := &served{now: time.Unix(1000, 0)}, &Yield{}
	y.Share(s.after(0, 0, 0))
	share := func(windows int, took time.Duration) (got float64) {
		for range windows {
			got = y.Share(s.after(100*time.Millisecond, 10, took))
		}
		return got
	}
	if got := share(20, 5*time.Millisecond); got != 1 {
		t.Errorf("%v after two seconds", got)
	}
	if got := share(4, 20*time.Millisecond); got != LeastShare {
		t.Errorf("%v where writes take four times as long", got)
	}
	if got := share(40, 20*time.Millisecond); got != 1 {
		t.Errorf("%v though writes take as long without pulls", got)
	}
}
