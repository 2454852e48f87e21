package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/dotring/dotring/loadtest/floor"
	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
)

type floorCommand struct {
	Bin         string        `default:"bin" help:"Folder of dotring's programs." type:"path"`
	Data        string        `default:".data/floor" help:"Folder for data, removed in the end; on the disk that nodes would use."`
	NodeArg     []string      `sep:"none" help:"Added to the command line of the storage nodes."`
	GatewayArg  []string      `sep:"none" help:"Added to the command line of the gateway."`
	Connections int           `short:"c" default:"64" help:"Connections to the cluster and to the bare handler, and callers of the echo."`
	Turn        time.Duration `default:"8s" help:"Length of the measured part of puts and of gets."`
	WarmUp      time.Duration `default:"2s" help:"Time before it."`
	Each        time.Duration `default:"3s" help:"Length of every other part."`
	Records     uint64        `default:"10000" help:"How many records there are."`
	ValueSize   int           `default:"1024" help:"Length of values in bytes."`
	MaxCPU      float64       `name:"max-cpu" default:"0.9" help:"Share of the machine above which the generator counts as saturated; here the servers' CPU time is what matters, not their rate."`
	outputs
}

// Run measures, and prints what was measured also when it was interrupted.
func (c *floorCommand) Run(ctx context.Context) error {
	earlier, err := c.earlier()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return fmt.Errorf("find data folder: %w", err)
	}
	cfg := load.Default()
	cfg.Connections, cfg.Duration, cfg.WarmUp, cfg.MaxCPUShare = c.Connections, c.Turn, c.WarmUp, c.MaxCPU
	got, err := floor.Run(ctx, floor.Config{
		Bin: c.Bin, Self: self, Data: data, NodeArgs: c.NodeArg, GatewayArgs: c.GatewayArg,
		ServeArgs: func(part, addr string, valueSize int) []string {
			return []string{"floor-serve", "--part", part, "--addr", addr, "--value-size", strconv.Itoa(valueSize)}
		},
		Records: c.Records, ValueSize: c.ValueSize, Load: cfg, Each: c.Each, Say: func(s string) { fmt.Fprintln(os.Stderr, s) },
	})
	if len(got.Parts) == 0 && len(got.Operations) == 0 {
		return err
	}
	if textErr := got.Text(os.Stdout); textErr != nil {
		return errors.Join(err, textErr)
	}
	doc := report.Document{Title: "What operations cost, and what their parts cost alone", Machine: machine(), Floor: &got}
	if err := errors.Join(err, c.write(doc, earlier)); err != nil {
		return err
	}
	for _, o := range got.Operations {
		if !o.Valid {
			return errNotValid
		}
	}
	return nil
}

// floorServeCommand is how floor starts the server of a part.
type floorServeCommand struct {
	Part      string `required:"" enum:"http,frames" help:"Which part."`
	Addr      string `required:"" help:"host:port to listen on."`
	ValueSize int    `default:"1024" help:"Length of values in bytes."`
}

// Run serves until ctx ends.
func (c *floorServeCommand) Run(ctx context.Context) error {
	return floor.Serve(ctx, c.Part, c.Addr, c.ValueSize)
}
