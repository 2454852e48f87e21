package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/workload"
)

// MaxUpkeep is the share of the nodes' processor time that comparing copies may take at full load, by the median of pairs.
const MaxUpkeep = 0.05

// never is the longest interval that nodes take: no comparison begins within a measurement.
const never = "1h"

// AntiEntropy describes pairs of closed loops over two clusters, one of which compares its copies all the time.
type AntiEntropy struct {
	Config
	Nodes, Connections, Pairs int
	// Interval is between comparisons with each other owner, 100 ms to 1 h; a turn should hold several.
	Interval, Turn time.Duration
	Records        uint64
	ValueSize      int
}

// AntiEntropyPair is a run of the cluster that compares, and one of that which does not.
type AntiEntropyPair struct{ On, Off report.Run }

// share is the part of the nodes' processor time, for the same number of operations, that comes with comparisons. It is below 0
// where what else the machine did weighed more.
func (p AntiEntropyPair) share() float64 { return 1 - nodeCPU(p.Off)/nodeCPU(p.On) }

// nodeCPU is the processor time of all storage nodes for an operation, in microseconds.
func nodeCPU(r report.Run) float64 {
	sum := 0.0
	for _, s := range r.Servers {
		if strings.HasPrefix(s.Name, "node") {
			sum += s.CPUS
		}
	}
	return sum * 1e6 / (r.Throughput * r.ElapsedS)
}

// Measure measures, prints a table and gives the verdict: ErrShort, wrapped, where comparisons take more than MaxUpkeep.
func (a AntiEntropy) Measure(ctx context.Context) (pairs []AntiEntropyPair, err error) {
	spec := workload.Spec{Name: "mix", Mix: workload.Plain(0.5), Records: a.Records, KeySize: 24, ValueSize: a.ValueSize}
	lc := load.Default()
	lc.Connections, lc.WarmUp, lc.Duration = a.Connections, time.Second, a.Turn
	clusters := make([]*cluster, 0, 2)
	defer func() {
		for _, c := range clusters {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, interval := range []string{a.Interval.String(), never} {
		c, err := start(ctx, a.Config, a.Nodes, "--anti-entropy-interval", interval)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, c)
		if _, err := load.Fill(ctx, lc, spec, c.target, nil); err != nil {
			return nil, err
		}
	}
	for i := range a.Pairs {
		var pair AntiEntropyPair
		turns := []func() error{
			func() (err error) { pair.On, err = clusters[0].run(ctx, "compared", lc, spec); return err },
			func() (err error) { pair.Off, err = clusters[1].run(ctx, "not compared", lc, spec); return err },
		}
		if i%2 == 1 {
			slices.Reverse(turns) // what drifts harms both alike
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return pairs, err
			}
		}
		pairs = append(pairs, pair)
	}
	a.print(pairs)
	return pairs, a.verdict(pairs)
}

func upkeepShares(pairs []AntiEntropyPair) (out []float64) {
	for _, p := range pairs {
		out = append(out, p.share())
	}
	return out
}

func (a AntiEntropy) print(pairs []AntiEntropyPair) {
	fmt.Fprintf(a.Out, "copies of %d records compared every %v, against every %s\n", a.Records, a.Interval, never)
	fmt.Fprintf(a.Out, "%4s %18s %18s %8s %12s %12s\n", "pair", "nodes' CPU µs/op", "not compared", "share", "ops/s", "not compared")
	for i, p := range pairs {
		fmt.Fprintf(a.Out, "%4d %18.1f %18.1f %7.1f%% %12.0f %12.0f\n", i+1, nodeCPU(p.On), nodeCPU(p.Off), 100*p.share(), p.On.Throughput, p.Off.Throughput)
	}
	fmt.Fprintf(a.Out, "median: %.1f %% of the nodes' processor time\n", 100*median(upkeepShares(pairs)))
}

// verdict says what did not hold.
func (a AntiEntropy) verdict(pairs []AntiEntropyPair) error {
	var faults []error
	if m := median(upkeepShares(pairs)); !(m <= MaxUpkeep) { // also where it is not a number
		faults = append(faults, fmt.Errorf("%w: comparing copies every %v took %.1f %% of the nodes' processor time, more than %.0f", ErrShort, a.Interval,
			100*m, 100*MaxUpkeep))
	}
	for _, p := range pairs {
		for _, run := range []report.Run{p.On, p.Off} {
			if run.NotDone.Count > 0 {
				faults = append(faults, fmt.Errorf("%w: %s: %d operations were not done: %v", ErrShort, run.Label, run.NotDone.Count, run.Errors))
			}
		}
	}
	return errors.Join(faults...)
}
