package scrub

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	block = 4 << 10
	week  = 7 * 24 * time.Hour
)

// disk is a store of tables by number, read in blocks. It notes when each was verified.
type disk struct {
	mu       sync.Mutex
	sizes    map[uint64]int64
	damaged  map[uint64]bool
	opening  uint64
	closed   bool
	meta     []byte
	stores   int
	verified map[uint64][]time.Time
	read     int64
}

func newDisk(tables int, size int64) *disk {
	d := &disk{sizes: map[uint64]int64{}, damaged: map[uint64]bool{}, verified: map[uint64][]time.Time{}}
	for n := range tables {
		d.sizes[uint64(n+1)] = size
	}
	return d
}

func (d *disk) do(fn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn()
}

func (d *disk) tables() (out []engine.Table) {
	for n, size := range d.sizes {
		out = append(out, engine.Table{Number: n, Size: size})
	}
	slices.SortFunc(out, func(a, b engine.Table) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

func (d *disk) Tables() ([]engine.Table, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, 0, kv.ErrReopening
	}
	return d.tables(), d.opening, nil
}

func (d *disk) VerifyTable(ctx context.Context, t engine.Table, wait func(int) time.Duration) (damaged int, err error) {
	for range t.Size / block {
		if !pause(ctx, wait(block)) {
			return 0, ctx.Err()
		}
		d.do(func() { d.read += block })
	}
	d.do(func() {
		d.verified[t.Number] = append(d.verified[t.Number], time.Now())
		if d.damaged[t.Number] {
			damaged = 1
		}
	})
	return damaged, nil
}

func (d *disk) GetMeta(string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.meta == nil {
		return nil, kv.ErrNotFound
	}
	return bytes.Clone(d.meta), nil
}

func (d *disk) PutMeta(_ string, v []byte, done func(error)) error {
	d.do(func() { d.meta, d.stores = bytes.Clone(v), d.stores+1 })
	done(nil)
	return nil
}

// times is how often each table was verified.
func (d *disk) times() map[uint64]int {
	out := map[uint64]int{}
	d.do(func() {
		for n, at := range d.verified {
			out[n] = len(at)
		}
	})
	return out
}

// run scrubs for so long, as one life of a process.
func run(t *testing.T, d *disk, rate int64, interval, life time.Duration, pressure func() float64) *Service {
	t.Helper()
	s, err := New(Config{Store: d, Rate: rate, Interval: interval, Pressure: pressure, Now: time.Now, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	time.Sleep(life)
	cancel()
	<-ended
	return s
}

func idle() float64 { return 0 }

func each(n, times int) map[uint64]int {
	out := map[uint64]int{}
	for i := range n {
		out[uint64(i+1)] = times
	}
	return out
}

// Tables of unknown age are read at the rate, at a tenth of it while requests queue up, and then once each interval.
func TestPaceAndInterval(t *testing.T) {
	for _, test := range []struct {
		pressure float64
		want     time.Duration
	}{{0, 100 * time.Second}, {0.5, 1000 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk(100, 1<<20)
			begin := time.Now()
			s := run(t, d, 1<<20, week, 3*week-time.Hour, func() float64 { return test.pressure })
			if got := d.times(); !maps.Equal(got, each(100, 3)) {
				t.Errorf("verified %v", got)
			}
			last := begin
			for _, at := range d.verified {
				last = slices.MaxFunc([]time.Time{last, at[0]}, time.Time.Compare)
			}
			if took := last.Sub(begin); took < test.want-test.want/20 || took > test.want+test.want/20 {
				t.Errorf("pressure %v: 100 MiB at 1 MiB/s took %v, want %v", test.pressure, took, test.want)
			}
			if n := s.recent(); n != 100<<20 {
				t.Errorf("%d bytes in the last week", n)
			}
			if age := s.oldest(); age < week-2*time.Hour || age > week {
				t.Errorf("oldest %v", age)
			}
			if d.stores > 80 { // once a minute, and when a pass has ended
				t.Errorf("stored %d times", d.stores)
			}
		})
	}
}

// A restart, also in the middle of a pass and without a last word, goes on about where the life before was.
func TestResumesAfterRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tables = 600
		d := newDisk(tables, 1<<20)
		for range 10 {
			run(t, d, 1<<20, week, 150*time.Second, idle)
		}
		twice := 0
		for n, times := range d.times() {
			if twice += times - 1; times > 2 {
				t.Errorf("table %d was verified %d times", n, times)
			}
		}
		if len(d.times()) != tables || twice > 5*62 { // at most a minute's work is repeated by each life
			t.Errorf("%d of %d tables verified, %d twice", len(d.times()), tables, twice)
		}
		before := d.read
		d.sizes[tables+1] = 1 << 20 // written while the node was away for a moment
		if run(t, d, 1<<20, week, time.Hour, idle); d.read != before {
			t.Errorf("%d bytes were read again after the pass", d.read-before)
		}
	})
}

// What is damaged is counted, and looked at again before a week is over; an engine that was opened anew is another one.
func TestDamageAndReopening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(3, 1<<20)
		d.damaged[2] = true
		run(t, d, 1<<20, week, damagedAgain+5*time.Minute, idle)
		if got := d.times(); !maps.Equal(got, map[uint64]int{1: 1, 2: 2, 3: 1}) {
			t.Errorf("verified %v", got)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); run(t, d, 1<<20, week, 20*time.Minute, idle) }()
		anew := func(closed bool) { // the database was set aside, numbers begin anew
			d.closed, d.opening, d.meta, d.sizes = closed, d.opening+1, nil, map[uint64]int64{1: 1 << 20}
		}
		time.Sleep(time.Minute)
		d.do(func() { anew(false) }) // between two looks
		time.Sleep(5 * time.Minute)
		d.do(func() { anew(true) })
		time.Sleep(5 * time.Minute)
		d.do(func() { d.closed = false })
		<-ended
		if got := d.times()[1]; got != 3 {
			t.Errorf("table 1 was verified %d times, being three tables", got)
		}
	})
}

// The plan never verifies what is not due, always the oldest first, and survives being stored, whatever comes and goes.
func TestPlanAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewPlan()
		now := time.Unix(1_700_000_000, 0)
		twin := map[uint64]time.Time{}
		next := uint64(0)
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 100_000).Draw(t, "seconds")) * time.Second)
			for range rapid.IntRange(0, 3).Draw(t, "new") {
				next += uint64(rapid.IntRange(1, 5).Draw(t, "skip"))
				twin[next] = now
				if step == 0 {
					twin[next] = now.Add(-week)
				}
			}
			if len(twin) > 0 && rapid.Bool().Draw(t, "remove") {
				delete(twin, rapid.SampledFrom(slices.Sorted(maps.Keys(twin))).Draw(t, "table"))
			}
			var tables []engine.Table
			for n := range twin {
				tables = append(tables, engine.Table{Number: n, Size: 1})
			}
			p.Observe(tables, now, week)
			got, last, ok := p.Next()
			if ok != (len(twin) > 0) || ok && (twin[got.Number] != last || p.Oldest(now) != now.Sub(last)) {
				t.Fatalf("next %v, last %v, of %v", got, last, twin)
			}
			for n, at := range twin {
				if at.Before(last) || at.Equal(last) && n < got.Number {
					t.Fatalf("table %d of %v comes after %d of %v", n, at, got.Number, last)
				}
			}
			if ok && rapid.Bool().Draw(t, "verify") {
				p.Tried(got.Number, now)
				p.Count(7, now)
				twin[got.Number] = now
			}
			if rapid.Bool().Draw(t, "restart") {
				again, err := DecodePlan(p.Append(nil))
				if err != nil || again.Recent(now) != p.Recent(now) {
					t.Fatalf("stored %v, read %v, %v", p, again, err)
				}
				p = again
			}
		}
	})
}

// Only what was verified within the last week counts, to six hours.
func TestRecentForgets(t *testing.T) {
	p := NewPlan()
	begin := time.Unix(1_700_000_000, 0)
	for day := range 30 {
		now := begin.Add(time.Duration(day) * 24 * time.Hour)
		p.Count(10, now)
		if got, want := p.Recent(now), uint64(min(day+1, 7)*10); got != want {
			t.Fatalf("day %d: %d, want %d", day, got, want)
		}
	}
	if got := p.Recent(begin.Add(36*24*time.Hour + bucketTime)); got != 0 {
		t.Errorf("%d a week after the last", got)
	}
}

// A clock that was set back keeps no table from being verified.
func TestClockSetBack(t *testing.T) {
	p := NewPlan()
	now := time.Unix(1_700_000_000, 0)
	tables := []engine.Table{{Number: 1, Size: 1}}
	p.Observe(tables, now, week)
	p.Tried(1, now)
	now = now.Add(-365 * 24 * time.Hour)
	p.Observe(tables, now, week)
	if _, last, _ := p.Next(); last.After(now) {
		t.Errorf("last verified at %v, and it is %v", last, now)
	}
}

func storedPlan() *Plan {
	p := NewPlan()
	now := time.Unix(1_700_000_000, 0)
	p.Observe([]engine.Table{{Number: 3, Size: 100}, {Number: 300, Size: 200}}, now, week)
	p.Tried(3, now)
	p.Count(100, now)
	return p
}

func TestStoredForm(t *testing.T) {
	text, err := os.ReadFile("testdata/plan.golden")
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if got := storedPlan().Append(nil); !bytes.Equal(got, want) {
		t.Errorf("a plan is stored as %x", got)
	}
	p := NewPlan() // as many tables as are stored, of the largest numbers
	p.newest, p.seen = 1<<61, true
	for n := range uint64(storedMax + 10) {
		p.last[1<<60+n<<40] = int64(1_700_000_000 + n)
	}
	b := p.Append(nil)
	again, err := DecodePlan(b)
	if err != nil || len(again.last) != storedMax || len(b) > kv.MaxMetaValue {
		t.Fatalf("%d tables in %d bytes, %v", len(again.last), len(b), err)
	}
	if _, kept := again.last[1<<60]; kept {
		t.Error("the table that was not verified for the longest time is kept")
	}
}

func FuzzDecodePlan(f *testing.F) {
	f.Add(storedPlan().Append(nil))
	f.Add(NewPlan().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePlan(b)
		if err != nil {
			if !errors.Is(err, ErrPlan) {
				t.Error(err)
			}
			return
		}
		again, err := DecodePlan(p.Append(nil))
		if err != nil || !maps.Equal(again.last, p.last) || again.recent != p.recent || again.newest != p.newest {
			t.Errorf("%x: %v, again %v, %v", b, p, again, err)
		}
	})
}
