package soak

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/report"
)

// short says of which kinds of shortcomings an error tells.
func short(t *testing.T, err error, want ...string) {
	t.Helper()
	if (err == nil) != (len(want) == 0) || err != nil && !errors.Is(err, ErrShort) {
		t.Fatalf("verdict %v, want %q", err, want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("verdict %q lacks %q", err, w)
		}
	}
}

func ran(rate float64, p99 time.Duration) report.Run {
	l := report.Latency{Count: 1000, P99US: p99.Microseconds(), P999US: 2 * p99.Microseconds(), MaxUS: 3 * p99.Microseconds()}
	return report.Run{Throughput: rate, ElapsedS: 1, All: l, Ops: []report.OpStats{{Op: "get", Counts: map[string]uint64{"ok": 1000}, Latency: l}}}
}

func TestOverloadVerdict(t *testing.T) {
	o := Overload{Config: Config{Out: io.Discard}}
	good := func() OverloadResult {
		return OverloadResult{Capacity: 1000, Recovery: 2 * time.Second, Steps: []OverloadStep{
			{0.5, ran(500, time.Millisecond)}, {5, ran(801, 100*time.Millisecond)}}}
	}
	short(t, o.verdict(good()))
	r := good()
	r.Steps[1].Run.Throughput = 799
	short(t, o.verdict(r), "at 5 times capacity 80 % of it")
	r = good()
	r.Steps[0].Run.All.P99US = 1_000_001
	short(t, o.verdict(r), "p99 was 1.000001s")
	r = good()
	r.Steps[1].Run.Ops[0].Counts["failed"] = 1
	short(t, o.verdict(r), "1 operations failed")
	r = good()
	r.Recovery = MaxRecovery + 1
	short(t, o.verdict(r), "not back")
	o.print(r)
}

func TestSizeVerdict(t *testing.T) {
	s := Size{Config: Config{Out: io.Discard}, ValueSize: 1024}
	good := func() []SizeResult {
		few, many := ran(1000, time.Millisecond), ran(751, time.Millisecond)
		return []SizeResult{{Keys: 100_000, Puts: []report.Run{few}, Gets: []report.Run{few}},
			{Keys: 1_000_000, Puts: []report.Run{many}, Gets: []report.Run{many}, NodeRSS: MaxNodeRSS, GatewayRSS: MaxGatewayRSS},
			{Keys: 10_000_000, Puts: []report.Run{many}, Gets: []report.Run{many}, NodeRSS: 2 * MaxNodeRSS}}
	}
	short(t, s.verdict(good()))
	r := good()
	r[1].Gets[0].Throughput = 749
	short(t, s.verdict(r), "cost 25 % of the rate of gets")
	r = good()
	r[1].Puts[0].Throughput = 500
	short(t, s.verdict(r), "cost 50 % of the rate of puts")
	r = good()
	r[1].NodeRSS++
	short(t, s.verdict(r), "a node with 1000000 keys took 400 MiB")
	r = good()
	r[2].GatewayRSS = MaxGatewayRSS + 1
	short(t, s.verdict(r), "a gateway took 200 MiB")
	s.print(r)
}

func TestLatencyVerdict(t *testing.T) {
	l := Latency{Config: Config{Out: io.Discard}}
	short(t, l.judge(ran(1000, 10*time.Millisecond), 1024))
	short(t, l.judge(ran(1000, 11*time.Millisecond), 1024), "p99 11ms")
	short(t, l.judge(ran(1000, 10*time.Millisecond), 1024))
	r := ran(1000, 9*time.Millisecond)
	r.Ops[0].Latency.P999US = 25_001
	short(t, l.judge(r, 1024), "p99.9 25.001ms")
	r = ran(1000, time.Millisecond)
	r.NotDone.Count = 1
	short(t, l.judge(r, 1024), "1 operations were not done")
}

func TestHotKeyVerdict(t *testing.T) {
	h := HotKey{Config: Config{Out: io.Discard}}
	pair := func(get, put time.Duration) HotKeyPair {
		of := func(get, put time.Duration) report.Run {
			return report.Run{Ops: []report.OpStats{{Op: "get", Latency: report.Latency{P99US: get.Microseconds()}},
				{Op: "put", Latency: report.Latency{P99US: put.Microseconds()}}, {Op: "hot-get", Latency: report.Latency{P99US: 1e9}}}}
		}
		return HotKeyPair{Quiet: of(10*time.Millisecond, 20*time.Millisecond), Hot: of(get, put)}
	}
	good := func() HotKeyResult {
		return HotKeyResult{Named: 2 * time.Second, Pairs: []HotKeyPair{pair(15*time.Millisecond, 30*time.Millisecond), pair(time.Second, time.Second),
			pair(time.Millisecond, time.Millisecond)}}
	}
	short(t, h.verdict(good()))
	r := good()
	r.Pairs[0] = pair(16*time.Millisecond, 30*time.Millisecond)
	short(t, h.verdict(r), "a get took 1.60 times")
	r = good()
	r.Pairs = append(r.Pairs, pair(time.Millisecond, 40*time.Millisecond))
	short(t, h.verdict(r), "a put took 1.75 times")
	r = good()
	r.Pairs[2].Hot.NotDone.Count = 3
	short(t, h.verdict(r), "3 operations were not done")
	r = good()
	r.Named = MaxNaming + 1
	short(t, h.verdict(r), "not named")
	r = good()
	r.Pairs = []HotKeyPair{{}}
	short(t, h.verdict(r), "NaN times")
	h.print(good())
}

func TestAntiEntropyVerdict(t *testing.T) {
	a := AntiEntropy{Config: Config{Out: io.Discard}, Interval: time.Second}
	run := func(nodes float64) report.Run {
		return report.Run{Throughput: 1000, ElapsedS: 10, Servers: []report.Usage{{Name: "node1", CPUS: nodes / 2}, {Name: "node2", CPUS: nodes / 2},
			{Name: "gateway1", CPUS: 100}}}
	}
	pair := func(on, off float64) AntiEntropyPair { return AntiEntropyPair{On: run(on), Off: run(off)} }
	good := func() []AntiEntropyPair { return []AntiEntropyPair{pair(2, 1.91), pair(2, 1), pair(1, 2)} }
	short(t, a.verdict(good()))
	r := good()
	r[0] = pair(2, 1.88)
	short(t, a.verdict(r), "took 6.0 % of the nodes' processor time")
	r = good()
	r[2].On.NotDone.Count = 2
	short(t, a.verdict(r), "2 operations were not done")
	short(t, a.verdict([]AntiEntropyPair{{}}), "NaN %")
	a.print(good())
}

func TestCompactionVerdict(t *testing.T) {
	c := Compaction{Config: Config{Out: io.Discard}}
	short(t, c.verdict(CompactionResult{Before: ran(1000, 10*time.Millisecond), During: ran(1000, 20*time.Millisecond)}))
	short(t, c.verdict(CompactionResult{Before: ran(1000, 10*time.Millisecond), During: ran(1000, 21*time.Millisecond)}), "more than 2 times")
	r := CompactionResult{Before: ran(1000, 10*time.Millisecond), During: ran(1000, 10*time.Millisecond)}
	r.During.Ops[0].Latency.MaxUS = 100_001
	short(t, c.verdict(r), "waited for 100.001ms")
	c.print(r)
}

// A compaction of a few megabytes under load, from filling to the table.
func TestCompactionRuns(t *testing.T) {
	c := Compaction{Config: Config{Data: t.TempDir(), Seed: 1, Out: io.Discard, Say: func(string) {}}, Bytes: 4 << 20, ValueSize: 4096,
		CompactionRate: 64 << 20, Rate: 200, Turn: 200 * time.Millisecond}
	res, err := c.Measure(t.Context())
	if err != nil && !errors.Is(err, ErrShort) {
		t.Fatal(err)
	}
	if res.Before.All.Count == 0 || res.Took <= 0 {
		t.Errorf("%d operations before, compaction took %v", res.Before.All.Count, res.Took)
	}
	if left, err := os.ReadDir(c.Data); err != nil || len(left) > 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}

func TestProcAndDisk(t *testing.T) {
	if n, err := procNumber(os.Getpid(), "status", "VmHWM:", 1<<10); err != nil || n < 1<<20 {
		t.Errorf("%d bytes resident, %v", n, err)
	}
	if _, err := procNumber(os.Getpid(), "status", "VmNothing:", 1); err == nil {
		t.Error("a number that does not exist")
	}
	dir := t.TempDir()
	for _, name := range []string{"a", "b/c"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, 100), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := diskUsage(dir); err != nil || n != 200 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
