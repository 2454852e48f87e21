package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/dotring/dotring/loadtest/sim"
)

type simCommand struct {
	Seeds   int    `default:"200" help:"How many seeds that count to run: those with enough writes acknowledged during faults."`
	Seed    uint64 `default:"1" help:"The first seed."`
	Fresh   bool   `help:"Begin at a seed that nobody has seen."`
	Profile string `enum:",standing,proposals,hasty,rollbacks,leftovers,leavers,members,collection,actors" default:"" help:"Only swarms of one kind: standing, proposals, hasty, rollbacks, leftovers, leavers, members, collection or actors."`
	Bug     string `help:"Plant a bug, by name."`
	Table   bool   `help:"Look for every planted bug, or the one of --bug, in the first seeds, and print a table."`
	Trace   bool   `help:"Print all that happens."`
	Jobs    int    `help:"How many seeds at a time; 0 is one per processor."`
}

// Run simulates clusters, and fails where a promise was broken.
func (c *simCommand) Run(ctx context.Context) error {
	if c.Seeds < 1 {
		return errors.New("--seeds must be 1 or more")
	}
	if c.Jobs <= 0 {
		c.Jobs = runtime.GOMAXPROCS(0)
	}
	if c.Table {
		return c.table(ctx)
	}
	bug := sim.Bug("")
	if c.Bug != "" {
		p, err := sim.FindPlanted(c.Bug)
		if err != nil {
			return err
		}
		bug = p.Bug
	}
	if c.Fresh {
		c.Seed = uint64(time.Now().UnixNano()) / 1000 % 1e12
	}
	if c.Trace {
		res, err := sim.Run(sim.Config{Seed: c.Seed, Profile: sim.Profile(c.Profile), Bug: bug, Trace: os.Stdout})
		if err != nil {
			return err
		}
		return c.verdict(res)
	}
	if bug == "" && c.Profile == "" {
		if err := c.again(); err != nil {
			return err
		}
	}
	return c.sweep(ctx, bug)
}

// again runs every seed that ever failed.
func (c *simCommand) again() error {
	seeds, err := sim.Failed()
	if err != nil {
		return err
	}
	for _, cfg := range seeds {
		res, err := sim.Run(cfg)
		if err != nil {
			return err
		}
		if err := c.verdict(res); err != nil {
			return err
		}
	}
	fmt.Printf("%d seeds that failed once hold\n", len(seeds))
	return nil
}

// sweep runs until enough seeds have counted, or one has failed.
func (c *simCommand) sweep(ctx context.Context, bug sim.Bug) error {
	var failed error
	var stats sim.Stats
	began, tried, counted := time.Now(), 0, 0
	err := sim.Sweep(ctx, sim.Config{Seed: c.Seed, Profile: sim.Profile(c.Profile), Bug: bug}, c.Jobs, func(r sim.Result) bool {
		tried++
		if failed = c.verdict(r); failed != nil {
			return false
		}
		if r.Counted {
			counted++
		}
		stats.Writes += r.Stats.Writes
		stats.Acked += r.Stats.Acked
		stats.FaultAcks += r.Stats.FaultAcks
		stats.Reads += r.Stats.Reads
		stats.Restarts += r.Stats.Restarts
		stats.DiskLosses += r.Stats.DiskLosses
		stats.Partitions += r.Stats.Partitions
		return counted < c.Seeds && tried < 2*c.Seeds
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d seeds from %d in %.1f s: %d count, %d writes, %d acknowledged, %d of them during faults, %d reads, %d restarts, %d partitions, %d disks lost\n",
		tried, c.Seed, time.Since(began).Seconds(), counted, stats.Writes, stats.Acked, stats.FaultAcks, stats.Reads, stats.Restarts,
		stats.Partitions, stats.DiskLosses)
	if failed == nil && counted < c.Seeds {
		failed = fmt.Errorf("only %d of %d seeds had enough writes acknowledged during faults", counted, tried)
	}
	return failed
}

// verdict prints what a seed broke, and how to see it again.
func (c *simCommand) verdict(r sim.Result) error {
	if len(r.Violations) == 0 {
		if c.Trace {
			fmt.Printf("seed %d holds, trace %016x, %+v\n", r.Seed, r.Hash, r.Stats)
		}
		return nil
	}
	fmt.Printf("seed %d: %s\n", r.Seed, r.Options)
	for _, v := range r.Violations {
		fmt.Printf("  %s\n", v)
	}
	planted := ""
	if r.Profile != sim.Usual {
		planted = " --profile " + string(r.Profile)
	}
	if c.Bug != "" {
		planted += " --bug " + c.Bug
	}
	fmt.Printf("trace %016x; to see it again:\n  bin/dotring-load sim --trace --seed %d%s\n", r.Hash, r.Seed, planted)
	return fmt.Errorf("seed %d breaks promise %s", r.Seed, r.Violations[0].Promise)
}

// table looks for every planted bug.
func (c *simCommand) table(ctx context.Context) error {
	fmt.Print(sim.TableHead)
	missed := 0
	for _, p := range sim.Planted() {
		if c.Bug != "" && c.Bug != string(p.Bug) {
			continue
		}
		h, err := sim.Find(ctx, p, c.Seeds, c.Jobs)
		if err != nil {
			return err
		}
		if h.Seed == 0 {
			missed++
		}
		fmt.Println(h.Row())
	}
	if missed > 0 {
		return fmt.Errorf("%d planted bugs were not found in %d seeds", missed, c.Seeds)
	}
	return nil
}
