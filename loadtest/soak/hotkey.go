package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/workload"
)

// What must hold while one key takes HotShare of the reads.
const (
	HotShare = 0.3
	// MaxHarm is how many times its 99th percentile without the hot key an operation on other keys may take, by the median of pairs.
	MaxHarm = 1.5
	// MaxNaming is the time in which the gateway names the hot key.
	MaxNaming = 10 * time.Second
)

// readShare is the share of gets.
const readShare = 0.9

// HotKey describes pairs of open loops at the same rate over keys by the Zipf distribution with exponent 1.2: in one of a pair, one
// more key takes HotShare of the reads.
type HotKey struct {
	Config
	Nodes, Connections, Pairs int
	// Load is the rate as a share of what a closed loop without the hot key reaches, above 0 and below 1.
	Load      float64
	Turn      time.Duration
	Records   uint64
	ValueSize int
}

// HotKeyResult is what was measured.
type HotKeyResult struct {
	Pairs []HotKeyPair
	// Named is when the gateway first named the hot key as the hottest, since it was first read.
	Named time.Duration
}

// HotKeyPair is a run without the hot key, and one with it.
type HotKeyPair struct{ Quiet, Hot report.Run }

// Measure measures, prints a table and gives the verdict: ErrShort, wrapped, where something did not hold.
func (h HotKey) Measure(ctx context.Context) (res HotKeyResult, err error) {
	c, err := start(ctx, h.Config, h.Nodes)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	quiet := workload.Spec{Name: "quiet", Mix: workload.Plain(readShare), Distribution: workload.Steep, Records: h.Records, KeySize: 24,
		ValueSize: h.ValueSize}
	hot := quiet
	hot.Name = "hot"
	hot.Mix[workload.HotRead] = HotShare * readShare
	hot.Mix[workload.Read] -= hot.Mix[workload.HotRead]
	lc := load.Default()
	lc.Connections, lc.Duration = 64, h.Turn
	if _, err := load.Fill(ctx, lc, quiet, c.target, nil); err != nil {
		return res, err
	}
	full, err := c.run(ctx, "capacity", lc, quiet)
	if err != nil {
		return res, err
	}
	lc.Connections, lc.Rate = h.Connections, h.Load*full.Throughput
	fmt.Fprintf(h.Out, "capacity without the hot key: %.0f operations a second; loaded with %.0f\n", full.Throughput, lc.Rate)
	named := make(chan time.Duration, 1)
	for i := range h.Pairs {
		var pair HotKeyPair
		runs := []func() error{
			func() (err error) { pair.Quiet, err = c.run(ctx, "quiet", lc, quiet); return err },
			func() (err error) {
				lc := lc
				if i == 0 {
					lc.Duration = max(lc.Duration, MaxNaming)
					go func() { named <- c.naming(ctx, string(workload.AppendKey(nil, 0, hot.KeySize))) }()
				}
				pair.Hot, err = c.run(ctx, "hot", lc, hot)
				return err
			},
		}
		if i%2 == 1 {
			slices.Reverse(runs) // what drifts harms both alike
		}
		for _, run := range runs {
			if err := run(); err != nil {
				return res, err
			}
		}
		if i == 0 {
			res.Named = <-named
		}
		res.Pairs = append(res.Pairs, pair)
	}
	h.print(res)
	return res, h.verdict(res)
}

// naming asks the gateway for its hottest key until it is this one, and returns how long that took: more than MaxNaming where it
// did not come to be.
func (c *cluster) naming(ctx context.Context, key string) time.Duration {
	began := time.Now()
	client := http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) <= MaxNaming {
		if hottest, err := hottestKey(ctx, &client, c.URL(c.Gateways[0])); err == nil && hottest == key {
			break
		}
		select {
		case <-ctx.Done():
			return MaxNaming + 1
		case <-tick.C:
		}
	}
	return time.Since(began)
}

func hottestKey(ctx context.Context, client *http.Client, gateway string) (key string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, gateway+"/v1/cluster/hotKeys", nil)
	if err != nil {
		return "", err
	}
	a, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.Body.Close()) }()
	var list struct {
		Keys []struct {
			Key string `json:"key"`
		} `json:"keys"`
	}
	if err := json.NewDecoder(a.Body).Decode(&list); err != nil || len(list.Keys) == 0 {
		return "", err
	}
	return list.Keys[0].Key, nil
}

// p99 is that of one kind of operation, 0 where there was none.
func p99(run report.Run, op workload.Op) float64 {
	for _, o := range run.Ops {
		if o.Op == op.String() {
			return ms(o.Latency.P99US)
		}
	}
	return 0
}

// harm is how many times as long an operation on other keys took while the hot key was read, in each pair.
func (r HotKeyResult) harm(op workload.Op) []float64 {
	var out []float64
	for _, p := range r.Pairs {
		out = append(out, p99(p.Hot, op)/p99(p.Quiet, op))
	}
	return out
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

func (h HotKey) print(res HotKeyResult) {
	fmt.Fprintf(h.Out, "%4s %12s %12s %7s %12s %12s %7s %14s\n", "pair", "get p99 ms", "beside hot", "times", "put p99 ms", "beside hot", "times",
		"hot get p99 ms")
	for i, p := range res.Pairs {
		fmt.Fprintf(h.Out, "%4d %12.2f %12.2f %7.2f %12.2f %12.2f %7.2f %14.2f\n", i+1, p99(p.Quiet, workload.Read), p99(p.Hot, workload.Read),
			res.harm(workload.Read)[i], p99(p.Quiet, workload.Update), p99(p.Hot, workload.Update), res.harm(workload.Update)[i],
			p99(p.Hot, workload.HotRead))
	}
	fmt.Fprintf(h.Out, "median: gets %.2f times, puts %.2f times; the hot key was named after %.1f s\n", median(res.harm(workload.Read)),
		median(res.harm(workload.Update)), res.Named.Seconds())
}

// verdict says what did not hold.
func (h HotKey) verdict(res HotKeyResult) error {
	var faults []error
	for _, op := range []workload.Op{workload.Read, workload.Update} {
		if m := median(res.harm(op)); !(m <= MaxHarm) { // also where it is not a number
			faults = append(faults, fmt.Errorf("%w: beside a hot key a %s took %.2f times as long, more than %.1f", ErrShort, op, m, MaxHarm))
		}
	}
	for _, p := range res.Pairs {
		for _, run := range []report.Run{p.Quiet, p.Hot} {
			if run.NotDone.Count > 0 {
				faults = append(faults, fmt.Errorf("%w: %s: %d operations were not done: %v", ErrShort, run.Label, run.NotDone.Count, run.Errors))
			}
		}
	}
	if res.Named > MaxNaming {
		faults = append(faults, fmt.Errorf("%w: the hot key was not named within %v", ErrShort, MaxNaming))
	}
	return errors.Join(faults...)
}
