package load

import (
	"math"
	"os"
	"runtime/metrics"
	"testing"
	"time"
)

const statLine = "1234 (a) b (c)) S 1 1234 1234 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 9 0 100 123456789 2560 18446744073709551615 1 1 0\n"

func TestParseStat(t *testing.T) {
	cpu, pages, err := parseStat([]byte(statLine))
	if err != nil || cpu != 2*time.Second || pages != 2560 {
		t.Errorf("%v, %d pages, %v", cpu, pages, err)
	}
	for _, bad := range []string{"", "1 (x) S", "no parenthesis 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine))
	f.Add([]byte("1 () S"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cpu, pages, err := parseStat(b)
		if err == nil && (cpu < 0 || pages < 0) {
			t.Fatalf("%v, %d pages", cpu, pages)
		}
	})
}

func TestUsagesOfThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc")
	}
	me := []Process{{Name: "me", PID: os.Getpid()}}
	before, err := Usages(me)
	if err != nil {
		t.Fatal(err)
	}
	self, err := SelfCPU()
	if err != nil {
		t.Fatal(err)
	}
	for x, end := 1.0, time.Now().Add(50*time.Millisecond); time.Now().Before(end); x = math.Sqrt(x + 1) {
		_ = x
	}
	after, err := Usages(me)
	if err != nil {
		t.Fatal(err)
	}
	later, err := SelfCPU()
	if err != nil {
		t.Fatal(err)
	}
	used := Since(before, after)
	if used[0].RSSBytes < 1<<20 || used[0].CPUS > time.Second.Seconds()*60 {
		t.Errorf("%+v", used)
	}
	if later <= self {
		t.Errorf("50 ms of work took %v of CPU", later-self)
	}
	if _, err := Usages([]Process{{Name: "nobody", PID: 1 << 30}}); err == nil {
		t.Error("a process that does not exist has used something")
	}
}

func TestSchedP99(t *testing.T) {
	buckets := []float64{0, 1e-6, 1e-5, 1e-4, math.Inf(1)}
	h := func(counts ...uint64) *metrics.Float64Histogram {
		return &metrics.Float64Histogram{Counts: counts, Buckets: buckets}
	}
	for _, c := range []struct {
		after *metrics.Float64Histogram
		want  int64
	}{
		{h(1000, 5, 0, 0), 1}, {h(10, 15, 0, 0), 10}, {h(10, 5, 90, 0), 100}, {h(10, 5, 0, 9), 100}, {h(10, 5, 0, 0), 0},
	} {
		if got := schedP99(h(10, 5, 0, 0), c.after); got != c.want {
			t.Errorf("%v: %d µs, want %d", c.after.Counts, got, c.want)
		}
	}
	if schedP99(nil, nil) != 0 {
		t.Error("nothing has a percentile")
	}
}

func TestHistogramBounds(t *testing.T) {
	var h histogram
	for _, d := range []time.Duration{-time.Hour, 0, time.Nanosecond, time.Hour} {
		h.record(d)
	}
	s := h.summary()
	if s.Count != 4 || s.MinUS != 1 || s.MaxUS < int64(599e6) {
		t.Errorf("%+v", s)
	}
	var sum histogram
	sum.merge(&h)
	sum.merge(&histogram{})
	if got := sum.summary(); got.Count != 4 {
		t.Errorf("%d after a merge", got.Count)
	}
}

// Estimate: a bucket's index by leading zeros and one increment, 5 ns.
// Measured: 20 ns, no allocation.
func BenchmarkRecord(b *testing.B) {
	var h histogram
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.record(time.Duration(i%100_000) * time.Microsecond)
	}
}
