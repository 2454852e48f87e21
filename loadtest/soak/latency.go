package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/workload"
)

// What gets and puts must stay under, in an open loop with latency from the moment each was due.
const (
	MaxP99  = 10 * time.Millisecond
	MaxP999 = 25 * time.Millisecond
)

// Latency describes open loops against a cluster that compares its copies meanwhile.
type Latency struct {
	Config
	Nodes, Connections int
	ValueSizes         []int
	// Rate is one open loop's, in operations a second; the other has half of what a closed loop reaches.
	Rate    float64
	Turn    time.Duration
	Records uint64
}

// antiEntropyEvery makes several rounds fall into each turn.
const antiEntropyEvery = "10s"

// Measure measures, prints a table and gives the verdict: ErrShort, wrapped, where something did not hold.
func (l Latency) Measure(ctx context.Context) (runs []report.Run, err error) {
	c, err := start(ctx, l.Config, l.Nodes, "--anti-entropy-interval", antiEntropyEvery)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	fmt.Fprintf(l.Out, "%8s %10s %10s %5s %9s %9s %9s %9s %6s\n", "value", "offered/s", "done/s", "op", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "")
	var faults []error
	for _, size := range l.ValueSizes {
		spec := workload.Spec{Name: "mix", Mix: workload.Plain(0.5), Records: l.Records, KeySize: 24, ValueSize: size}
		lc := load.Default()
		lc.Connections, lc.Duration = 64, l.Turn/4
		if _, err := load.Fill(ctx, lc, spec, c.target, nil); err != nil {
			return runs, err
		}
		full, err := c.run(ctx, fmt.Sprintf("%d B, closed loop", size), lc, spec)
		if err != nil {
			return runs, err
		}
		runs = append(runs, full)
		for _, rate := range []float64{l.Rate, full.Throughput / 2} {
			lc.Connections, lc.Duration, lc.Rate = l.Connections, l.Turn, rate
			run, err := c.run(ctx, fmt.Sprintf("%d B, %.0f a second", size, rate), lc, spec)
			if err != nil {
				return runs, err
			}
			runs = append(runs, run)
			faults = append(faults, l.judge(run, size))
		}
	}
	return runs, errors.Join(faults...)
}

// judge prints a run and says what did not hold.
func (l Latency) judge(run report.Run, size int) error {
	var faults []error
	for _, op := range run.Ops {
		verdict := "ok"
		p99, p999 := time.Duration(op.Latency.P99US)*time.Microsecond, time.Duration(op.Latency.P999US)*time.Microsecond
		if p99 > MaxP99 || p999 > MaxP999 {
			verdict = "short"
			faults = append(faults, fmt.Errorf("%w: %s of %d bytes at %.0f a second: p99 %v, p99.9 %v, more than %v and %v", ErrShort,
				op.Op, size, run.Rate, p99, p999, MaxP99, MaxP999))
		}
		fmt.Fprintf(l.Out, "%8d %10.0f %10.0f %5s %9.1f %9.1f %9.1f %9.1f %6s\n", size, run.Rate, run.Throughput, op.Op, ms(op.Latency.P50US),
			ms(op.Latency.P99US), ms(op.Latency.P999US), ms(op.Latency.MaxUS), verdict)
	}
	if run.NotDone.Count > 0 {
		faults = append(faults, fmt.Errorf("%w: at %.0f a second %d operations were not done: %v", ErrShort, run.Rate, run.NotDone.Count, run.Errors))
	}
	return errors.Join(faults...)
}
