package slowlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	"github.com/dotring/dotring/ringsvc/ring"
)

func newLog(after time.Duration, plain bool) (*slowlog.Log, *bytes.Buffer, *prometheus.Registry) {
	out, reg := &bytes.Buffer{}, prometheus.NewRegistry()
	return slowlog.New(slowlog.Config{After: after, PlainKeys: plain, Logger: zerolog.New(out), Registerer: reg}), out, reg
}

// A cluster that has become slow as a whole must not fill the disk with lines, nor hide how many there would have been.
func TestLinesAreFewInASecond(t *testing.T) {
	l, out, reg := newLog(time.Second, false)
	now := time.Unix(1_000_000, 0)
	for i := range 2500 {
		if line := l.Line(time.Second, now.Add(time.Duration(i)*time.Millisecond)); line != nil {
			line.Msg("slow request")
		}
	}
	if l.Line(time.Second-1, now) != nil {
		t.Error("a line for what is not slow")
	}
	if n := strings.Count(out.String(), "\n"); n != 30 {
		t.Errorf("%d lines in 2.5 s", n)
	}
	if n := strings.Count(out.String(), `"left_out":990`); n != 2 {
		t.Errorf("%d lines tell of 990 left out:\n%s", n, out)
	}
	want := `
# HELP dotring_gateway_slow_requests_total Requests that took as long as --slow-after or longer.
# TYPE dotring_gateway_slow_requests_total counter
dotring_gateway_slow_requests_total 2500
# HELP dotring_gateway_slow_requests_unlogged_total Slow requests without a line in the log, as there were enough in that second.
# TYPE dotring_gateway_slow_requests_unlogged_total counter
dotring_gateway_slow_requests_unlogged_total 2470
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestSwitchedOff(t *testing.T) {
	l, _, _ := newLog(0, false)
	if l.Line(time.Hour, time.Now()) != nil {
		t.Error("a line though it is off")
	}
	var none *slowlog.Course // of operations that nobody watches
	none.Read(nil, []byte("k"), time.Now(), &coordinator.GetResult{}, nil)
	if none.SlowAfter() != 0 {
		t.Error("reports are asked for that nobody reads")
	}
}

type logged struct {
	Key, Slowest string
	Operations   int
	Phases       map[string]float64
	Replicas     []struct {
		Node, Did, Detail string
		At, Queued        float64
	}
}

func describe(t *testing.T, l *slowlog.Log, out *bytes.Buffer, c *slowlog.Course, started time.Time) (line logged) {
	t.Helper()
	out.Reset()
	took := time.Since(started)
	l.Describe(l.Line(took, time.Now()), c, started, took).Msg("slow request")
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return line
}

// A put of a batch whose body came slowly, whose dot came late, and one of whose replicas never answered.
func TestWhereTheTimeWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out, _ := newLog(time.Second, false)
		c := &slowlog.Course{Log: l}
		started := time.Now()
		time.Sleep(100 * time.Millisecond) // of the bubble's clock
		var items sync.WaitGroup
		for _, took := range []time.Duration{time.Millisecond, 1500 * time.Millisecond, 2 * time.Millisecond} {
			began := time.Now()
			items.Go(func() {
				time.Sleep(took)
				c.Wrote(nil, []byte("key of "+took.String()), began, &coordinator.PutResult{Minted: took / 2, Reports: []coordinator.Report{
					{Node: ring.NodeID{1}, Name: "n1", Did: "mint", Detail: "durable", At: took / 2, Queued: time.Millisecond},
					{Node: ring.NodeID{2}, Name: "n2", Did: "apply", Detail: "no answer"},
					{Node: ring.NodeID{3}, Name: "n3", Did: "apply", Detail: "durable", At: took},
					{Node: ring.NodeID{4}, Name: "n4", Did: "not asked"},
				}}, nil)
			})
		}
		items.Wait()
		time.Sleep(30 * time.Millisecond)
		line := describe(t, l, out, c, started)
		if line.Key != "4bb4cc7a13af0f50" || line.Operations != 3 || line.Slowest != "n2" || len(line.Replicas) != 4 { // sha256sum of "key of 1.5s"
			t.Errorf("%+v", line)
		}
		for phase, want := range map[string]float64{"before": 100, "mint": 750, "quorum": 1500, "after": 30} {
			if line.Phases[phase] != want {
				t.Errorf("%s took %v ms, want %v", phase, line.Phases[phase], want)
			}
		}
		if r := line.Replicas[0]; r.Node != "n1" || r.Did != "mint" || r.At != 750 || r.Queued != 1 {
			t.Errorf("%+v", r)
		}

		plain, out, _ := newLog(time.Second, true)
		failed := &slowlog.Course{}
		failed.Read(nil, []byte("k"), started, &coordinator.GetResult{}, errors.Join(&coordinator.Error{Kind: coordinator.DeadlinePassed,
			Replicas: []coordinator.Report{{Name: "n1", Did: "read", At: 1}, {Name: "n2", Did: "digest", At: 2}}}))
		if line := describe(t, plain, out, failed, started); line.Key != "k" || line.Slowest != "n2" || line.Phases["mint"] != 0 {
			t.Errorf("%+v", line)
		}
		if line := describe(t, plain, out, &slowlog.Course{}, started); line.Key != "" || line.Phases != nil {
			t.Errorf("a request that came to no key: %+v", line)
		}
	})
}

func TestPathsOfKeys(t *testing.T) {
	hashed, _, _ := newLog(time.Second, false)
	plain, _, _ := newLog(time.Second, true)
	for path, want := range map[string]string{"/v1/kv/alice@example.org": "/v1/kv/…", "/v1/kv": "/v1/kv", "/v1/cluster/status": "/v1/cluster/status"} {
		if got := hashed.Path(path, "/v1/kv/", "/v1/cluster/keys/"); got != want {
			t.Errorf("%s is shown as %s", path, got)
		}
		if got := plain.Path(path, "/v1/kv/"); got != path {
			t.Errorf("%s is shown as %s where keys are plain", path, got)
		}
	}
}
