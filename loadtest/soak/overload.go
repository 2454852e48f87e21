package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

// What must hold beyond capacity.
const (
	// MinGoodput is the share of its capacity that a cluster must serve while more is asked of it.
	MinGoodput = 0.8
	// MaxAccepted bounds the 99th percentile of the latency of what is served then.
	MaxAccepted = time.Second
	// MaxRecovery is the time after the overload in which the 99th percentile is what it was before.
	MaxRecovery = 10 * time.Second
)

const (
	// giveUp is how long an operation waits for a free connection. Clients that are many do not queue behind each other.
	giveUp = 20 * time.Millisecond
	// slice is the length of the pieces in which the latency before and after is measured.
	slice  = 2 * time.Second
	pieces = 5
	// calmLoad is the share of capacity at which it is.
	calmLoad = 0.5
)

// Overload describes a measurement from little load to several times capacity.
type Overload struct {
	Config
	Nodes, Connections int
	// Factors of capacity, in order; Turn is how long each lasts.
	Factors []float64
	Turn    time.Duration
	// Records and ValueSize are as in workload.Spec; half of the operations are gets.
	Records   uint64
	ValueSize int
}

// OverloadResult is what was measured.
type OverloadResult struct {
	Capacity float64 // operations a second
	// CalmP99 is the longest 99th percentile of the pieces before; Recovery is the time to the first piece after that was
	// no worse; more than MaxRecovery where there was none.
	CalmP99  time.Duration
	Recovery time.Duration
	Steps    []OverloadStep
}

// OverloadStep is one factor.
type OverloadStep struct {
	Factor float64
	Run    report.Run
}

// Goodput is the operations a second that were done.
func (s OverloadStep) Goodput() float64 { return s.Run.Throughput }

// Measure measures, prints a table and gives the verdict: ErrShort, wrapped, where something did not hold.
func (o Overload) Measure(ctx context.Context) (res OverloadResult, err error) {
	c, err := start(ctx, o.Config, o.Nodes)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	spec := workload.Spec{Name: "mix", Mix: workload.Plain(0.5), Records: o.Records, KeySize: 24, ValueSize: o.ValueSize}
	lc := load.Default()
	lc.Connections, lc.WarmUp, lc.Duration = 64, 0, o.Turn
	if _, err := load.Fill(ctx, lc, spec, c.target, nil); err != nil {
		return res, err
	}
	lc.WarmUp, lc.Connections = 2*time.Second, 128
	full, err := c.run(ctx, "capacity", lc, spec)
	if err != nil {
		return res, err
	}
	res.Capacity = full.Throughput
	fmt.Fprintf(o.Out, "capacity: %.0f operations a second in a closed loop of %d connections, p99 %.1f ms, generator %.0f %% of the machine\n",
		res.Capacity, lc.Connections, ms(full.All.P99US), 100*full.Generator.CPUShare)
	lc.Connections, lc.GiveUp, lc.WarmUp = o.Connections, giveUp, 0
	for range pieces {
		run, err := o.calm(ctx, c, lc, spec, res.Capacity)
		if err != nil {
			return res, err
		}
		res.CalmP99 = max(res.CalmP99, time.Duration(run.All.P99US)*time.Microsecond)
	}
	for _, f := range o.Factors {
		lc.Rate, lc.Duration = f*res.Capacity, o.Turn
		run, err := c.run(ctx, fmt.Sprintf("x%g", f), lc, spec)
		if err != nil {
			return res, err
		}
		res.Steps = append(res.Steps, OverloadStep{Factor: f, Run: run})
	}
	if res.Recovery, err = o.recovery(ctx, c, lc, spec, res); err != nil {
		return res, err
	}
	o.print(res)
	return res, o.verdict(res)
}

// calm loads with half of what the cluster can do, for one piece.
func (o Overload) calm(ctx context.Context, c *cluster, lc load.Config, spec workload.Spec, capacity float64) (report.Run, error) {
	lc.Rate, lc.Duration = calmLoad*capacity, slice
	return c.run(ctx, "calm", lc, spec)
}

// recovery is called at the end of an overload.
func (o Overload) recovery(ctx context.Context, c *cluster, lc load.Config, spec workload.Spec, res OverloadResult) (time.Duration, error) {
	began := time.Now()
	for time.Since(began) <= MaxRecovery+slice {
		run, err := o.calm(ctx, c, lc, spec, res.Capacity)
		if err != nil {
			return 0, err
		}
		if time.Duration(run.All.P99US)*time.Microsecond <= res.CalmP99 && run.NotDone.Count == 0 {
			break
		}
	}
	return time.Since(began), nil
}

func (o Overload) print(res OverloadResult) {
	fmt.Fprintf(o.Out, "calm, at %.1f of it: p99 at most %.1f ms in %d pieces of %v; after the overload again after %.1f s\n",
		calmLoad, res.CalmP99.Seconds()*1000, pieces, slice, res.Recovery.Seconds())
	fmt.Fprintf(o.Out, "%6s %9s %9s %8s %9s %9s %8s %8s %8s %10s %10s\n", "load", "offered/s", "done/s", "goodput", "refused/s", "no conn/s",
		"failed/s", "p50 ms", "p99 ms", "generator", "servers")
	for _, s := range res.Steps {
		r, cpu := s.Run, 0.0
		for _, u := range r.Servers {
			cpu += u.CPUS
		}
		fmt.Fprintf(o.Out, "x%-5g %9.0f %9.0f %7.0f%% %9.0f %9.0f %8.0f %8.1f %8.1f %9.2f %10.2f\n", s.Factor, r.Rate, r.Throughput,
			100*s.Goodput()/res.Capacity, count(r, target.Refused)/r.ElapsedS, float64(r.Generator.Abandoned)/r.ElapsedS,
			count(r, target.Failed)/r.ElapsedS, ms(r.All.P50US), ms(r.All.P99US), r.Generator.CPUS/r.ElapsedS, cpu/r.ElapsedS)
	}
	fmt.Fprintln(o.Out, "generator and servers: processors in use; no conn: due while every connection waited for an answer, and given up")
}

// verdict says what did not hold.
func (o Overload) verdict(res OverloadResult) error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: %s", ErrShort, fmt.Sprintf(format, args...)))
	}
	for _, s := range res.Steps {
		if s.Factor > 1 && s.Goodput() < MinGoodput*res.Capacity {
			fault("at %g times capacity %.0f %% of it was served, less than %.0f %%", s.Factor, 100*s.Goodput()/res.Capacity, 100*MinGoodput)
		}
		if p99 := time.Duration(s.Run.All.P99US) * time.Microsecond; p99 > MaxAccepted {
			fault("at %g times capacity p99 was %v, more than %v", s.Factor, p99, MaxAccepted)
		}
		if n := count(s.Run, target.Failed); n > 0 {
			fault("at %g times capacity %.0f operations failed instead of being refused: %v", s.Factor, n, s.Run.Errors)
		}
	}
	if res.Recovery > MaxRecovery {
		fault("p99 was not back within %v of the overload", MaxRecovery)
	}
	return errors.Join(faults...)
}
