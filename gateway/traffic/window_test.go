package traffic

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Rates and quantiles of the last ten whole seconds are held against sorted latencies.
func TestOperationsOfTheLastSeconds(t *testing.T) {
	traffic, random, now := New(start), rand.New(rand.NewPCG(7, 7)), start
	type ended struct {
		at     time.Time
		op     Op
		took   time.Duration
		failed bool
	}
	var all []ended
	for range 40_000 {
		now = now.Add(time.Duration(random.IntN(int(time.Millisecond))))
		e := ended{now, Op(random.IntN(int(Ops))), time.Duration(math.Exp(random.NormFloat64()*1.5) * float64(3*time.Millisecond)), random.IntN(50) == 0}
		traffic.Done(e.op, e.took, e.failed, e.at)
		all = append(all, e)
	}
	got, over := traffic.Operations(now)
	if over != 10*time.Second {
		t.Fatalf("over %v", over)
	}
	end := start.Add(now.Sub(start).Truncate(time.Second))
	for op := range Ops {
		var took []time.Duration
		failed := 0
		for _, e := range all {
			if e.op == op && e.at.Before(end) && !e.at.Before(end.Add(-over)) {
				took = append(took, e.took)
				if e.failed {
					failed++
				}
			}
		}
		slices.Sort(took)
		g := got[op]
		if g.PerSecond != float64(len(took))/10 || g.FailedPerSecond != float64(failed)/10 {
			t.Errorf("%v: %v and %v a second, want %v and %v", op, g.PerSecond, g.FailedPerSecond, float64(len(took))/10, float64(failed)/10)
		}
		for q, v := range map[float64]time.Duration{0.5: g.P50, 0.99: g.P99} {
			if want := took[int(q*float64(len(took)))]; math.Abs(float64(v-want)) > float64(want)/8 {
				t.Errorf("%v: quantile %v is %v, want %v", op, q, v, want)
			}
		}
	}
	if got, _ := traffic.Operations(now.Add(11 * time.Second)); got != [Ops]Operation{} {
		t.Errorf("eleven seconds later: %+v", got)
	}
	traffic.Done(Get, time.Hour, false, now.Add(time.Hour))
	traffic.Done(Get, time.Hour, false, start) // too late to count, and it must not wipe what is newer
	if got, _ := traffic.Operations(now.Add(time.Hour + time.Second)); got[Get].PerSecond != 0.1 || got[Get].P99 < 60*time.Second {
		t.Errorf("an hour later: %+v", got[Get])
	}
	if _, over := New(start).Operations(start.Add(time.Second / 2)); over != 0 {
		t.Errorf("half a second is over %v", over)
	}
}

func TestBuckets(t *testing.T) {
	last := -1
	for us := time.Duration(0); us < 100*time.Second; us += 1 + us/50 {
		i := bucketOf(us)
		from, length := boundsOf(i)
		if i < last || i >= maxBuckets || i < maxBuckets-1 && (us/time.Microsecond*time.Microsecond < from || us >= from+length) {
			t.Fatalf("%v is in bucket %d, from %v for %v, after bucket %d", us, i, from, length, last)
		}
		last = i
	}
	if bucketOf(-1) != 0 || bucketOf(math.MaxInt64) != maxBuckets-1 {
		t.Error("out of bounds")
	}
}

func BenchmarkDone(b *testing.B) {
	traffic := New(start)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			i++
			traffic.Done(Get, time.Duration(i%1000)*time.Microsecond, false, start.Add(time.Duration(i)*time.Microsecond))
		}
	})
}
