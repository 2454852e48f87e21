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
	Overload overloadCommand `cmd:"" help:"From half of capacity to five times as much."`
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
	if len(res.Steps) == 0 {
		return err
	}
	doc := report.Document{Title: "Overload", Machine: machine()}
	for _, s := range res.Steps {
		doc.Runs = append(doc.Runs, s.Run)
	}
	return errors.Join(err, c.write(doc, nil))
}
