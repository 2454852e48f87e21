package scrub

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dotring/dotring/storagenode/engine"
)

const (
	planVersion = 1
	// window is what Plan.Recent sums up, in pieces of bucketTime.
	window     = 7 * 24 * time.Hour
	bucketTime = 6 * time.Hour
	buckets    = int(window / bucketTime)
	// storedMax bounds the tables in an encoded plan, and so its size to 1 MiB; those left out come first again after a restart.
	storedMax = 60_000
)

// ErrPlan says that stored bytes are no plan.
var ErrPlan = errors.New("scrub: malformed plan")

// Plan decides which table is verified next: the one that was not for the longest time, once that is an interval ago. A
// table that appears was written just then, and is due an interval later. It is a plain value, for one goroutine.
type Plan struct {
	last   map[uint64]int64 // of each table: when it was verified or written, in Unix seconds
	sizes  map[uint64]int64
	newest uint64 // the highest number ever seen
	seen   bool   // there was an observation, or a stored plan
	// recent counts the bytes verified in each bucket, that of bucket number n at n modulo buckets, of which the last is bucket.
	recent [buckets]uint64
	bucket int64
}

// NewPlan returns the plan of one who knows nothing of the tables that are there: all of them are due.
func NewPlan() *Plan { return &Plan{last: map[uint64]int64{}, sizes: map[uint64]int64{}} }

// Observe takes note of the tables there are now.
func (p *Plan) Observe(tables []engine.Table, now time.Time, interval time.Duration) {
	clear(p.sizes)
	before := p.newest
	for _, t := range tables {
		p.sizes[t.Number] = t.Size
		p.newest = max(p.newest, t.Number)
		at, known := p.last[t.Number]
		if known && at <= now.Unix() { // else the clock was set back
			continue
		}
		p.last[t.Number] = now.Unix()
		if !known && (!p.seen || t.Number <= before) {
			p.last[t.Number] = now.Add(-interval).Unix() // nobody knows for how long it has been there
		}
	}
	p.seen = true
	maps.DeleteFunc(p.last, func(num uint64, _ int64) bool { _, there := p.sizes[num]; return !there })
}

// Next returns the table to verify next, and when it was last verified or written; false where there is none.
func (p *Plan) Next() (next engine.Table, last time.Time, ok bool) {
	oldest := int64(0)
	for num, at := range p.last {
		if !ok || at < oldest || at == oldest && num < next.Number {
			next, oldest, ok = engine.Table{Number: num, Size: p.sizes[num]}, at, true
		}
	}
	return next, time.Unix(oldest, 0), ok
}

// Tried takes note that a table was verified at now, or, where that must be done again earlier than after an interval, as
// if it had been verified then.
func (p *Plan) Tried(num uint64, now time.Time) {
	if _, ok := p.last[num]; ok {
		p.last[num] = now.Unix()
	}
}

// Oldest is how long ago the data that was not verified for the longest time was verified or written; 0 without any.
func (p *Plan) Oldest(now time.Time) time.Duration {
	_, last, ok := p.Next()
	if !ok {
		return 0
	}
	return max(now.Sub(last), 0)
}

// Count takes note of bytes that were verified.
func (p *Plan) Count(bytes uint64, now time.Time) {
	p.turn(now)
	p.recent[p.bucket%int64(buckets)] += bytes
}

// Recent is how many bytes were verified in the last seven days, to a few hours.
func (p *Plan) Recent(now time.Time) (sum uint64) {
	p.turn(now)
	for _, n := range p.recent {
		sum += n
	}
	return sum
}

// turn empties the buckets that have ended their time. A clock that was set back changes nothing.
func (p *Plan) turn(now time.Time) {
	to := max(now.Unix(), 0) / int64(bucketTime/time.Second)
	for ; p.bucket < to; p.bucket++ {
		if to-p.bucket > int64(buckets) {
			p.bucket = to - int64(buckets)
		}
		p.recent[(p.bucket+1)%int64(buckets)] = 0
	}
}

// Append appends the plan in its stored form: a version, then as varints the highest number, the present bucket and the
// bytes of each from the oldest on, and for each table what its number is above the one before and its time.
func (p *Plan) Append(b []byte) []byte {
	b = append(b, planVersion)
	b = binary.AppendUvarint(binary.AppendUvarint(b, p.newest), uint64(p.bucket))
	for i := range int64(buckets) {
		b = binary.AppendUvarint(b, p.recent[(p.bucket+1+i)%int64(buckets)])
	}
	nums := slices.Collect(maps.Keys(p.last))
	if len(nums) > storedMax { // those verified last are kept
		slices.SortFunc(nums, func(a, b uint64) int {
			return cmp.Or(cmp.Compare(p.last[b], p.last[a]), cmp.Compare(a, b))
		})
		nums = nums[:storedMax]
	}
	slices.Sort(nums)
	before := uint64(0)
	for _, num := range nums {
		b = binary.AppendUvarint(binary.AppendUvarint(b, num-before), uint64(max(p.last[num], 0)))
		before = num
	}
	return b
}

// DecodePlan reads what Append wrote; the error is ErrPlan.
func DecodePlan(b []byte) (*Plan, error) {
	if len(b) == 0 || b[0] != planVersion {
		return nil, fmt.Errorf("%w of %d bytes", ErrPlan, len(b))
	}
	rest, bad := b[1:], false
	number := func() uint64 {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > 1<<62 {
			bad, rest = true, nil
			return 0
		}
		rest = rest[w:]
		return n
	}
	p := NewPlan()
	p.newest, p.bucket, p.seen = number(), int64(number()), true
	for i := range int64(buckets) {
		p.recent[(p.bucket+1+i)%int64(buckets)] = number()
	}
	for num := uint64(0); len(rest) > 0; {
		more, at := number(), int64(number())
		if num += more; more == 0 || num > p.newest {
			bad = true
		}
		p.last[num] = at
	}
	if bad || len(p.last) > storedMax {
		return nil, fmt.Errorf("%w of %d bytes", ErrPlan, len(b))
	}
	return p, nil
}

// Pace keeps reads to a rate. It is a plain value, for one goroutine.
type Pace struct {
	rate float64   // bytes a second
	due  time.Time // when the bytes read so far are paid for
}

const (
	// ahead is how far reads may run ahead of the rate after a pause.
	ahead = 50 * time.Millisecond
	// leastWait keeps a reader from waiting for each block.
	leastWait = 5 * time.Millisecond
	// busyShare is the part of the rate that is used while clients' requests queue up.
	busyShare = 0.1
)

// NewPace returns a pace of so many bytes a second.
func NewPace(rate int64) Pace { return Pace{rate: float64(rate)} }

// Take accounts for bytes that are about to be read and returns how long to wait before.
func (p *Pace) Take(bytes int, now time.Time, busy bool) time.Duration {
	rate := p.rate
	if busy {
		rate *= busyShare
	}
	if earliest := now.Add(-ahead); p.due.Before(earliest) {
		p.due = earliest
	}
	p.due = p.due.Add(time.Duration(float64(bytes) / rate * float64(time.Second)))
	if wait := p.due.Sub(now); wait >= leastWait {
		return wait
	}
	return 0
}
