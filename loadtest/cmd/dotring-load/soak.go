package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/soak"
)

type soakCommand struct {
	Allocs      allocsCommand      `cmd:"" help:"What a put of 10 KiB allocates in each process."`
	Overload    overloadCommand    `cmd:"" help:"From half of capacity to five times as much."`
	Size        sizeCommand        `cmd:"" help:"Single nodes with few keys and with many."`
	Latency     latencyCommand     `cmd:"" help:"Open loops while copies are compared."`
	Hotkey      hotkeyCommand      `cmd:"" help:"What other keys suffer while one takes 30 % of the reads."`
	AntiEntropy antiEntropyCommand `cmd:"" help:"What comparing copies costs at full load."`
	Compaction  compactionCommand  `cmd:"" help:"A forced compaction of everything, under load."`
}

// soakFlags are what all soaks share.
type soakFlags struct {
	Bin         string   `default:"bin" help:"Folder of dotring's programs." type:"path"`
	Data        string   `default:".data/soak" help:"Folder for the data, removed in the end."`
	NodeArg     []string `sep:"none" help:"Added to the command line of the storage nodes."`
	GatewayArg  []string `sep:"none" help:"Added to the command line of the gateway."`
	ServersWrap string   `help:"Command that runs the servers, such as 'taskset -c 0'."`
	Seed        uint64   `default:"1" help:"Of keys, values and the order of operations."`
	outputs
}

func (f soakFlags) config() (soak.Config, error) {
	data, err := filepath.Abs(f.Data)
	if err != nil {
		return soak.Config{}, fmt.Errorf("find data folder: %w", err)
	}
	wrap := strings.Fields(f.ServersWrap)
	return soak.Config{Bin: f.Bin, Data: data, NodeWrap: wrap, GatewayWrap: wrap, NodeArgs: f.NodeArg,
		GatewayArgs: f.GatewayArg, Seed: f.Seed, Out: os.Stdout, Say: func(s string) { fmt.Fprintln(os.Stderr, s) }}, nil
}

type overloadCommand struct {
	Nodes       int           `default:"3" help:"Storage nodes."`
	Connections int           `short:"c" default:"1000" help:"Connections of the open loop, each with one operation at a time."`
	Factors     []float64     `default:"0.5,1,2,3,5" help:"What is offered, as multiples of capacity."`
	Turn        time.Duration `default:"60s" help:"How long each lasts."`
	Records     uint64        `default:"10000" help:"How many records there are."`
	ValueSize   int           `default:"1024" help:"Length of values in bytes."`
	soakFlags
}

// Run measures, and prints what was measured also where it falls short.
func (c *overloadCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	res, err := soak.Overload{Config: cfg, Nodes: c.Nodes, Connections: c.Connections, Factors: c.Factors, Turn: c.Turn,
		Records: c.Records, ValueSize: c.ValueSize}.Measure(ctx)
	doc := report.Document{Title: "Overload", Machine: machine()}
	for _, s := range res.Steps {
		doc.Runs = append(doc.Runs, s.Run)
	}
	return c.finish(doc, err)
}

// finish writes what was measured, also where it falls short, and nothing where it broke off.
func (f soakFlags) finish(doc report.Document, err error) error {
	if err != nil && !errors.Is(err, soak.ErrShort) {
		return err
	}
	return errors.Join(err, f.write(doc, nil))
}

type sizeCommand struct {
	Keys        []uint64      `default:"100000,1000000" help:"Numbers of keys, each for a node of its own, ascending."`
	ValueSize   int           `default:"1024" help:"Length of values in bytes."`
	Connections int           `short:"c" default:"256" help:"Connections of the closed loop."`
	Rounds      int           `default:"5" help:"Turns of each node with puts, and with gets."`
	Turn        time.Duration `default:"5s" help:"Length of each."`
	soakFlags
}

// Run measures, and prints what was measured also where it falls short.
func (c *sizeCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	res, err := soak.Size{Config: cfg, Keys: c.Keys, ValueSize: c.ValueSize, Connections: c.Connections, Rounds: c.Rounds,
		Turn: c.Turn}.Measure(ctx)
	doc := report.Document{Title: "Size", Machine: machine()}
	for _, r := range res {
		doc.Runs = append(append(doc.Runs, r.Puts...), r.Gets...)
	}
	return c.finish(doc, err)
}

type latencyCommand struct {
	Nodes       int           `default:"3" help:"Storage nodes."`
	Connections int           `short:"c" default:"256" help:"Connections of the open loops."`
	ValueSizes  []int         `default:"1024,10240" help:"Lengths of values in bytes."`
	Rate        float64       `default:"3000" help:"Operations a second of one open loop; the other has half of what a closed loop reaches."`
	Turn        time.Duration `default:"60s" help:"Length of each open loop."`
	Records     uint64        `default:"10000" help:"How many records there are."`
	soakFlags
}

// Run measures, and prints what was measured also where it falls short.
func (c *latencyCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	runs, err := soak.Latency{Config: cfg, Nodes: c.Nodes, Connections: c.Connections, ValueSizes: c.ValueSizes, Rate: c.Rate,
		Turn: c.Turn, Records: c.Records}.Measure(ctx)
	return c.finish(report.Document{Title: "Latency", Machine: machine(), Runs: runs}, err)
}

type antiEntropyCommand struct {
	Nodes       int           `default:"3" help:"Storage nodes."`
	Connections int           `short:"c" default:"64" help:"Connections of the closed loops."`
	Pairs       int           `default:"6" help:"Pairs of a run with comparisons and one without."`
	Interval    time.Duration `default:"5s" help:"Time between comparisons; a node's default is a minute."`
	Turn        time.Duration `default:"15s" help:"Length of each run."`
	Records     uint64        `default:"100000" help:"How many records there are."`
	ValueSize   int           `default:"1024" help:"Length of values in bytes."`
	soakFlags
}

// Run measures, and prints what was measured also where it is too much.
func (c *antiEntropyCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	pairs, err := soak.AntiEntropy{Config: cfg, Nodes: c.Nodes, Connections: c.Connections, Pairs: c.Pairs, Interval: c.Interval, Turn: c.Turn,
		Records: c.Records, ValueSize: c.ValueSize}.Measure(ctx)
	doc := report.Document{Title: "What comparing copies costs", Machine: machine()}
	for _, p := range pairs {
		doc.Runs = append(doc.Runs, p.On, p.Off)
	}
	return c.finish(doc, err)
}

type compactionCommand struct {
	MiB            int64         `name:"mib" default:"2048" help:"How much to write and to compact."`
	ValueSize      int           `default:"1024" help:"Length of values in bytes."`
	CompactionRate int64         `default:"16" help:"MiB a second that compaction may write."`
	Rate           float64       `default:"1000" help:"Operations a second meanwhile, half of them gets."`
	Turn           time.Duration `default:"30s" help:"How long they are measured before."`
	soakFlags
}

// Run measures, and prints what was measured also where it falls short.
func (c *compactionCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	res, err := soak.Compaction{Config: cfg, Bytes: c.MiB << 20, ValueSize: c.ValueSize, CompactionRate: c.CompactionRate << 20,
		Rate: c.Rate, Turn: c.Turn}.Measure(ctx)
	res.Before.Label, res.During.Label = "before compaction", "during compaction"
	return c.finish(report.Document{Title: "Compaction", Machine: machine(), Runs: []report.Run{res.Before, res.During}}, err)
}

type allocsCommand struct {
	Connections int           `short:"c" default:"64" help:"Connections of the closed loop."`
	Turn        time.Duration `default:"10s" help:"How long puts are counted, and as long before."`
	Records     uint64        `default:"1000" help:"How many keys are put."`
	soakFlags
}

// Run measures, and prints what was measured also where it is too much.
func (c *allocsCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	_, err = soak.Allocs{Config: cfg, Connections: c.Connections, Turn: c.Turn, Records: c.Records}.Measure(ctx)
	return err
}

type hotkeyCommand struct {
	Nodes       int           `default:"3" help:"Storage nodes."`
	Connections int           `short:"c" default:"256" help:"Connections of the open loops."`
	Pairs       int           `default:"6" help:"Pairs of a run without the hot key and one with it."`
	Load        float64       `default:"0.5" help:"What is offered, as a share of what a closed loop reaches."`
	Turn        time.Duration `default:"20s" help:"Length of each run."`
	Records     uint64        `default:"100000" help:"How many records there are."`
	ValueSize   int           `default:"1024" help:"Length of values in bytes."`
	soakFlags
}

// Run measures, and prints what was measured also where it falls short.
func (c *hotkeyCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if c.Pairs < 1 || !(c.Load > 0 && c.Load < 1) {
		return errors.New("--pairs must be at least 1, and --load above 0 and below 1")
	}
	res, err := soak.HotKey{Config: cfg, Nodes: c.Nodes, Connections: c.Connections, Pairs: c.Pairs, Load: c.Load, Turn: c.Turn,
		Records: c.Records, ValueSize: c.ValueSize}.Measure(ctx)
	doc := report.Document{Title: "Hot key", Machine: machine()}
	for _, p := range res.Pairs {
		doc.Runs = append(doc.Runs, p.Quiet, p.Hot)
	}
	return c.finish(doc, err)
}
