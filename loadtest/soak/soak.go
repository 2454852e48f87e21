// Package soak holds long measurements of a local cluster with a verdict each: overload, size, compaction, latency, hot keys, and what comparing copies costs.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/localcluster"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// Config is what all measurements need.
type Config struct {
	// Bin is the folder of dotring's programs. Data is a folder in which each measurement makes one of its own, and
	// removes it in the end.
	Bin, Data string
	// NodeWrap and GatewayWrap are commands in front of the programs' command lines, such as taskset and its arguments.
	NodeWrap, GatewayWrap []string
	// NodeArgs and GatewayArgs are added to the programs' command lines.
	NodeArgs, GatewayArgs []string
	// Seed is that of keys, values and operations.
	Seed uint64
	// Out takes the results, Say is told what is going on.
	Out io.Writer
	Say func(string)
}

// ErrShort means that something that must hold was not reached. What was measured is printed all the same.
var ErrShort = errors.New("soak: fell short")

// cluster is a running local cluster with a client of its gateways.
type cluster struct {
	*localcluster.Cluster
	cfg    Config
	dir    string
	target target.Target
}

// start brings a cluster of so many nodes and one gateway up.
func start(ctx context.Context, cfg Config, nodes int, nodeArgs ...string) (*cluster, error) {
	if err := os.MkdirAll(cfg.Data, 0o755); err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.Data, "soak-")
	if err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	c := &cluster{cfg: cfg, dir: dir}
	c.Cluster, err = localcluster.New(localcluster.Config{Bin: cfg.Bin, Data: dir, Nodes: nodes, Gateways: 1, FreePorts: true,
		NodeWrap: cfg.NodeWrap, GatewayWrap: cfg.GatewayWrap, NodeArgs: append(nodeArgs, cfg.NodeArgs...), GatewayArgs: cfg.GatewayArgs})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cfg.Say(fmt.Sprintf("starting %d storage nodes and a gateway", nodes))
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.Start(); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	if err := c.WaitReady(ctx, nodes); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.target, err = target.New(target.Config{Kind: target.DotringHTTP, Addresses: []string{c.Gateways[0].HTTP}})
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// stop ends all and removes the data.
func (c *cluster) stop() error {
	var err error
	if c.target != nil {
		err = c.target.Close()
	}
	return errors.Join(err, c.Stop(stopTimeout), c.Release(), os.RemoveAll(c.dir))
}

// watched are the servers, for their use of the machine.
func (c *cluster) watched() []load.Process {
	var out []load.Process
	for _, p := range c.All() {
		out = append(out, load.Process{Name: p.Name, PID: p.PID()})
	}
	return out
}

// run loads the cluster once.
func (c *cluster) run(ctx context.Context, label string, lc load.Config, spec workload.Spec) (report.Run, error) {
	lc.Servers, lc.Seed = c.watched(), c.cfg.Seed
	shared, err := workload.NewShared(spec)
	if err != nil {
		return report.Run{}, err
	}
	run, err := load.Run(ctx, lc, shared, c.target)
	if err != nil {
		return run, fmt.Errorf("%s: %w", label, err)
	}
	run.Label = label
	if run.Interrupted {
		return run, context.Cause(ctx)
	}
	return run, nil
}

// count sums the operations that ended in an outcome.
func count(run report.Run, outcome target.Outcome) float64 {
	n := uint64(0)
	for _, op := range run.Ops {
		n += op.Counts[outcome.String()]
	}
	return float64(n)
}

// ms is a latency in milliseconds.
func ms(us int64) float64 { return float64(us) / 1000 }
