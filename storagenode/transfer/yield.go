package transfer

import "time"

// Served sums up what clients' writes took at a node since it started.
type Served struct {
	Writes uint64        // that are durable and answered
	Took   time.Duration // all of them together, from their arrival
}

const (
	// LeastShare of their rate is what pulls use however slow clients' writes are, so that a change always ends.
	LeastShare = 0.1
	// windowWrites is how many writes tell how long they take, and windowMin for how long they are gathered at least. Where fewer
	// come within windowMax, there are no clients to give way to.
	windowWrites = 8
	windowMin    = 50 * time.Millisecond
	windowMax    = 500 * time.Millisecond
	// slowdown is how much longer than usual writes may take, on average, for pulls to go faster still.
	slowdown = 1.5
	// shareGrows and shareShrinks are what the share is multiplied by after a window.
	shareGrows, shareShrinks = 1.25, 0.5
	// usualWeight is that of a window in the average that is usual.
	usualWeight = 0.2
)

// Yield decides what part of their rate pulls use beside clients' writes: as much as leaves writes about as quick as they were
// before, all of it where hardly any come, and LeastShare always. Pulls begin with that, because how much a node and its disk
// have to spare is only known once they work: a small change is over before it could be felt, and a large one is at its full
// rate within two seconds. A queue would tell much later: writes wait for the processor and the disk long before many of them
// wait. What is usual is measured while nothing is pulled, or hardly anything: so a joiner, which had no clients before, has a
// measure too, and where something else slows a node down for long, pulls do not creep for that. Time comes in as an argument. For
// one goroutine at a time.
type Yield struct {
	usual   float64 // seconds that a write takes; 0 for not known
	share   float64
	pulling bool
	began   time.Time // of the window
	before  Served    // at its begin
}

// Idle takes note of how long writes take while nothing is pulled.
func (y *Yield) Idle(now time.Time, s Served) {
	if mean, _ := y.window(now, s, y.pulling); mean > 0 {
		y.learn(mean)
	}
	y.pulling = false
}

func (y *Yield) learn(mean float64) {
	if y.usual == 0 {
		y.usual = mean
	}
	y.usual += usualWeight * (mean - y.usual)
}

// Share is the part of their rate, LeastShare to 1, that pulls use now.
func (y *Yield) Share(now time.Time, s Served) float64 {
	mean, over := y.window(now, s, !y.pulling)
	if !y.pulling {
		y.pulling, y.share = true, LeastShare
		return y.share
	}
	if !over {
		return y.share
	}
	if mean > 0 && (y.usual == 0 || y.share == LeastShare) {
		y.learn(mean)
	}
	switch {
	case mean == 0:
		y.share = 1
	case mean > slowdown*y.usual:
		y.share = max(LeastShare, y.share*shareShrinks)
	default:
		y.share = min(1, y.share*shareGrows)
	}
	return y.share
}

// window tells whether the window is over, and the mean time of a write in it, in seconds: 0 where there were too few. anew
// begins another in any case, which is not over.
func (y *Yield) window(now time.Time, s Served, anew bool) (mean float64, over bool) {
	writes, length := s.Writes-y.before.Writes, now.Sub(y.began)
	over = !anew && !y.began.IsZero() && (writes >= windowWrites && length >= windowMin || length >= windowMax)
	if over && writes >= windowWrites {
		mean = (s.Took - y.before.Took).Seconds() / float64(writes)
	}
	if over || anew || y.began.IsZero() {
		y.began, y.before = now, s
	}
	return mean, over
}
