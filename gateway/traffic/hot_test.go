package traffic

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dotring/dotring/gateway/limit"
)

var start = time.Unix(1_800_000_000, 0)

// zipf draws keys of a skewed workload in which one key takes a share by itself.
func zipf(seed uint64, share float64) func() []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	z := rand.NewZipf(random, 1.2, 1, 100_000)
	return func() []byte {
		if random.Float64() < share {
			return []byte("hot")
		}
		return fmt.Appendf(nil, "key%d", z.Uint64())
	}
}

// A key that becomes hot is named within ten seconds, with a rate that is right, and is forgotten when it has cooled.
func TestHotKeyIsNamedAndForgotten(t *testing.T) {
	traffic, quiet, hot := New(start), zipf(1, 0), zipf(2, 0.3)
	const perSecond = 2000
	now := start
	feed := func(seconds int, draw func() []byte) {
		for range seconds * perSecond {
			now = now.Add(time.Second / perSecond)
			traffic.Note(draw(), false, now)
		}
	}
	feed(20, quiet)
	for _, k := range first(traffic.HotKeys(10, now)) {
		if string(k.Key) == "hot" {
			t.Fatal("the key is named before it was asked for")
		}
	}
	feed(10, hot)
	keys, total := traffic.HotKeys(10, now)
	if len(keys) < 5 || string(keys[0].Key) != "hot" {
		t.Fatalf("after ten seconds: %+v", keys)
	}
	if rate := keys[0].Reads; rate < 480 || rate > 720 || keys[0].Writes != 0 {
		t.Errorf("the key is read %.0f times and written %.0f times a second, not 600 and 0", rate, keys[0].Writes)
	}
	if total < 0.9*perSecond || total > 1.1*perSecond || math.Abs(keys[0].Share-0.3) > 0.06 {
		t.Errorf("%.0f requests a second in all, %.2f of them for the key", total, keys[0].Share)
	}
	feed(30, quiet)
	for _, k := range first(traffic.HotKeys(10, now)) {
		if string(k.Key) == "hot" {
			t.Errorf("half a minute after it cooled the key is still named: %+v", k)
		}
	}
	if keys, total := traffic.HotKeys(10, now.Add(time.Hour)); total > 1e-9 {
		t.Errorf("after an hour of silence: %.3f requests a second, %+v", total, keys)
	}
}

func first[A, B any](a A, _ B) A { return a }

// With few keys the sketch is exact: it is held against plain counts.
func TestRatesOfFewKeys(t *testing.T) {
	traffic, random := New(start), rand.New(rand.NewPCG(3, 3))
	now, reads, writes := start, map[string]float64{}, map[string]float64{}
	for range 60_000 {
		now = now.Add(time.Millisecond)
		key, write := fmt.Sprintf("k%d", min(random.IntN(9), random.IntN(9))), random.IntN(4) == 0
		for _, m := range []map[string]float64{reads, writes} {
			for k := range m {
				m[k] *= math.Exp2(-float64(time.Millisecond) / float64(halfLife))
			}
		}
		if write {
			writes[key]++
		} else {
			reads[key]++
		}
		traffic.Note([]byte(key), write, now)
	}
	keys, _ := traffic.HotKeys(100, now)
	if len(keys) != 9 {
		t.Fatalf("%d keys, not 9", len(keys))
	}
	mean := halfLife.Seconds() / math.Ln2
	for _, k := range keys {
		if r, w := reads[string(k.Key)]/mean, writes[string(k.Key)]/mean; math.Abs(k.Reads-r) > 0.02*r || math.Abs(k.Writes-w) > 0.02*w {
			t.Errorf("%s: %.2f reads and %.2f writes a second, not %.2f and %.2f", k.Key, k.Reads, k.Writes, r, w)
		}
	}
}

// Where every key is asked for as often as any other, none is called hot.
func TestNothingIsHot(t *testing.T) {
	traffic, random, now := New(start), rand.New(rand.NewPCG(5, 5)), start
	for range 200_000 {
		now = now.Add(time.Millisecond / 10)
		traffic.Note(fmt.Appendf(nil, "key%d", random.IntN(1_000_000)), false, now)
	}
	keys, total := traffic.HotKeys(20, now)
	if len(keys) > 5 {
		t.Errorf("%d keys are named by guess: %+v", len(keys), keys)
	}
	for _, k := range keys {
		if k.Share > 0.002 {
			t.Errorf("%s is said to take %.4f of all requests", k.Key, k.Share)
		}
	}
	if total < 9_000 || total > 11_000 {
		t.Errorf("%.0f requests a second", total)
	}
}

// The first seconds are not held against what would have been counted in more of them, and a clock that goes back does no harm.
func TestEarlyAndOddTimes(t *testing.T) {
	traffic, long := New(start), bytes.Repeat([]byte("x"), 400)
	for i := range 1000 {
		traffic.Note(long, true, start.Add(time.Duration(i)*time.Millisecond))
	}
	keys, total := traffic.HotKeys(3, start.Add(time.Second))
	if len(keys) != 1 || len(keys[0].Key) != maxKey || math.Abs(keys[0].Writes-1000) > 50 || math.Abs(total-1000) > 50 || keys[0].Share != 1 {
		t.Errorf("after a second: %.0f a second, %+v", total, keys)
	}
	traffic.Note([]byte("past"), false, start.Add(-time.Hour))
	if _, total := traffic.HotKeys(3, start.Add(time.Second)); math.IsNaN(total) || total < 900 {
		t.Errorf("after a step back: %f", total)
	}
	if keys, total := New(start).HotKeys(3, start); len(keys) != 0 || total != 0 {
		t.Errorf("of nothing: %f, %v", total, keys)
	}
}

func BenchmarkNote(b *testing.B) {
	for _, c := range []struct {
		name string
		draw func(i int) int
	}{
		{"one key", func(int) int { return 0 }},
		{"a million keys", func(i int) int { return i * 7919 % 1_000_000 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			keys := make([][]byte, 1<<16)
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "user:%010d:cart", c.draw(i))
			}
			traffic := New(start)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				i := rand.IntN(len(keys))
				for pb.Next() {
					i++
					traffic.Note(keys[i&(len(keys)-1)], false, start.Add(time.Duration(i)*time.Microsecond))
				}
			})
		})
	}
}

// One key is let in as often as its limit says, whatever is asked of others, and what is refused is counted as asked for.
func TestAKeyIsHeldToItsLimit(t *testing.T) {
	traffic := New(start)
	if wait := traffic.Refuse([]byte("hot"), false, start); wait != 0 {
		t.Error("refused without a limit")
	}
	rate, err := limit.NewRate(100, 0)
	if err != nil {
		t.Fatal(err)
	}
	traffic.LimitKeys(rate)
	in, others := 0, 0
	for i := range 20_000 { // 2,000 a second for ten seconds, half of them for one key
		now := start.Add(time.Duration(i) * 500 * time.Microsecond)
		if i%2 == 1 {
			if traffic.Note(fmt.Appendf(nil, "cold-%d", i), true, now) > 0 {
				others++
			}
			continue
		}
		early := traffic.Refuse([]byte("hot"), false, now)
		if early == 0 {
			if wait := traffic.Note([]byte("hot"), false, now); wait > 0 {
				t.Fatalf("let in early, and then refused for %v", wait)
			}
			in++
		} else if early > time.Second {
			t.Fatalf("refused for %v", early)
		}
	}
	if in < 1090 || in > 1101 || others > 0 {
		t.Errorf("let in %d of the hot key at 100 a second in 10 s, refused %d of the others", in, others)
	}
	keys, _ := traffic.HotKeys(1, start.Add(10*time.Second))
	if len(keys) != 1 || string(keys[0].Key) != "hot" || keys[0].Reads < 900 {
		t.Errorf("asked for: %+v", keys)
	}
}
