package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dotring/dotring/loadtest/chaos"
)

type chaosCommand struct {
	Duration time.Duration `default:"90s" help:"How long faults come and go."`
	Seed     uint64        `help:"Which faults come when; 0 is a fresh one, which is printed."`
	Mixed    bool          `help:"Let faults overlap. Otherwise they come one at a time."`
	Faults   string        `default:"kill,pause,gateway,split,peers,one-way,loss,delay" help:"Kinds of faults: those, and wipe."`
	Workload string        `enum:"history,set,set-lww" default:"history" help:"What clients do: write and read, judged by their history; or add to shared sets by reading, uniting and writing with context, under siblings or under lww, and count what is gone in the end."`
	Plain    bool          `help:"Do without network namespaces, and so without the faults that need them."`
	Nodes    int           `default:"5" help:"How many storage nodes (3 to 16)."`
	Gateways int           `default:"2" help:"How many gateways (1 to 8)."`
	Clients  int           `default:"24" help:"How many clients, each doing one thing after the other."`
	Rate     int           `default:"600" help:"Requests a second, by all clients."`
	Good     float64       `help:"Fail when less than this share of the requests, 0 to 1, is served within a second."`
	First    int           `help:"How many nodes begin, where the others are to join and leave instead of faults; 0 is none of that."`
	Ballast  int           `help:"How many values of 16 KiB are written before, and read from all owners in the end."`
	Calm     float64       `help:"With --first: fail when the p99 while nodes come and go is more than so many times that of an idle cluster of all nodes."`
	Bin      string        `default:"bin" help:"Folder of the programs."`
	Data     string        `help:"Folder that keeps data, logs and the history; empty is a temporary one, which is deleted where all is well."`
}

// Run breaks a cluster and fails where a promise was broken.
func (c *chaosCommand) Run(ctx context.Context) error {
	kinds, err := chaos.ParseKinds(c.Faults)
	if err != nil {
		return err
	}
	bin, err := filepath.Abs(c.Bin)
	if err != nil {
		return err
	}
	data := c.Data
	if data == "" {
		if data, err = os.MkdirTemp("", "dotring-chaos-"); err != nil {
			return err
		}
	} else if data, err = filepath.Abs(data); err != nil {
		return err
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano()) / 1000 % 1e9
	}
	fmt.Printf("seed %d, %d nodes, %d gateways, data in %s\n", c.Seed, c.Nodes, c.Gateways, data)
	res, err := chaos.Run(ctx, chaos.Config{Bin: bin, Data: data, Out: os.Stdout, Nodes: c.Nodes, Gateways: c.Gateways,
		Seed: c.Seed, Length: c.Duration, Mixed: c.Mixed, Kinds: kinds, Clients: c.Clients, Rate: c.Rate, Plain: c.Plain,
		First: c.First, Ballast: c.Ballast,
		Sets: c.Workload != "history", LastWriteWins: c.Workload == "set-lww"})
	if err != nil {
		return errors.Join(err, fmt.Errorf("data, logs and history are kept in %s", data))
	}
	if err := c.verdict(res); err != nil {
		return fmt.Errorf("%w; data, logs and history are kept in %s", err, data)
	}
	if c.Data == "" {
		return os.RemoveAll(data)
	}
	return nil
}

func (c *chaosCommand) verdict(res chaos.Result) error {
	if res.Without != "" {
		fmt.Printf("without network namespaces (%s): processes were killed and stopped, no packet was lost or delayed\n", res.Without)
	}
	if c.Workload != "history" {
		fmt.Printf("%d elements were acknowledged, %d of them are gone\n", res.Added, res.Lost)
	}
	fmt.Printf("%d faults, %d keys, %d writes, %d acknowledged\n%s\n", res.Faults, res.Keys, res.Writes, res.Acked, res.Total)
	fmt.Printf("served within a second: %.4f %% of %d requests\n", 100*res.Total.Good(), res.Total.Requests)
	for _, v := range res.Violations {
		fmt.Printf("  %s\n", v)
	}
	if len(res.Violations) > 0 {
		return fmt.Errorf("promise %s was broken", res.Violations[0].Promise)
	}
	fmt.Println("no promise was broken")
	if g := res.Growth; g != nil {
		return c.grown(g)
	}
	if good := res.Total.Good(); good < c.Good {
		return fmt.Errorf("%.4f %% were served within a second, less than %.4f %%", 100*good, 100*c.Good)
	}
	return nil
}

// grown prints what clients saw of nodes that came and went, and fails where it was too much.
func (c *chaosCommand) grown(g *chaos.Growth) error {
	fmt.Printf("changes took %v; %d values of 16 KiB are whole at all owners\nduring changes: %s\nidle: %s\n", g.Changes, g.Ballast, g.Changing, g.Idle)
	ratio := float64(g.Changing.P99()) / float64(max(g.Idle.P99(), 1))
	fmt.Printf("p99 during changes is %.2f times that of the idle cluster\n", ratio)
	if bad := g.Changing.Failed + g.Changing.Slow; bad > 0 {
		return fmt.Errorf("%d requests failed or took longer than a second while nodes came and went", bad)
	}
	if c.Calm > 0 && ratio > c.Calm {
		return fmt.Errorf("p99 during changes is %.2f times that of the idle cluster, more than %.2f times", ratio, c.Calm)
	}
	return nil
}
