package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dotring/dotring/loadtest/compare"
	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
)

type compareCommand struct {
	Bin         string        `default:"bin" help:"Folder of dotring's programs." type:"path"`
	Etcd        string        `default:"etcd" help:"etcd's program."`
	Leader      bool          `help:"Send all requests to etcd's leader, not to its members in turn."`
	Data        string        `default:".data/compare" help:"Folder for the data of both, removed in the end."`
	NodeArg     []string      `sep:"none" help:"Added to the command line of dotring's storage nodes."`
	GatewayArg  []string      `sep:"none" help:"Added to the command line of dotring's gateway."`
	Connections []int         `short:"c" default:"64,256" help:"Numbers of connections, one after the other."`
	Workloads   []string      `default:"put,get,mix" enum:"put,get,mix" help:"What to load with: ${enum} (half gets, half puts)."`
	Rounds      int           `default:"3" help:"Turns of each, in every workload and number of connections."`
	Turn        time.Duration `default:"8s" help:"Length of the measured part of each turn."`
	WarmUp      time.Duration `default:"2s" help:"Time before it."`
	Records     uint64        `default:"10000" help:"How many records there are."`
	KeySize     int           `default:"24" help:"Length of keys in bytes."`
	ValueSize   int           `default:"1024" help:"Length of values in bytes."`
	CountSyncs  bool          `help:"Count fsyncs for each acknowledged put, with strace, in one more turn each."`
	MaxCPU      float64       `name:"max-cpu" default:"0.5" help:"Share of the machine above which the generator counts as saturated."`
	outputs
}

// Run compares, and prints what was measured also when it was interrupted.
func (c *compareCommand) Run(ctx context.Context) error {
	earlier, err := c.earlier()
	if err != nil {
		return err
	}
	shares := map[string]float64{"put": 0, "get": 1, "mix": 0.5}
	var mixes []compare.Mix
	for _, w := range c.Workloads {
		mixes = append(mixes, compare.Mix{Name: w, Gets: shares[w]})
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return fmt.Errorf("find data folder: %w", err)
	}
	cfg := load.Default()
	cfg.Connections, cfg.Duration, cfg.WarmUp, cfg.MaxCPUShare = 64, c.Turn, c.WarmUp, c.MaxCPU
	got, err := compare.Run(ctx, compare.Config{
		Bin: c.Bin, Etcd: c.Etcd, Data: data, Leader: c.Leader, NodeArgs: c.NodeArg, GatewayArgs: c.GatewayArg,
		Connections: c.Connections, Mixes: mixes, Rounds: c.Rounds, Records: c.Records, KeySize: c.KeySize, ValueSize: c.ValueSize,
		Load: cfg, CountSyncs: c.CountSyncs, Say: func(s string) { fmt.Fprintln(os.Stderr, s) },
	})
	if len(got.Cells) == 0 {
		return err
	}
	if textErr := got.Text(os.Stdout); textErr != nil {
		return errors.Join(err, textErr)
	}
	doc := report.Document{Title: fmt.Sprintf("%s against %s", got.A, got.B), Machine: machine(), Comparison: &got}
	if err := errors.Join(err, c.write(doc, earlier)); err != nil {
		return err
	}
	for _, cell := range got.Cells {
		if !cell.Valid() {
			return errNotValid
		}
	}
	return nil
}
