// Command dotring-load starts a local cluster, and loads and measures clusters.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type commands struct {
	Up upCommand `cmd:"" help:"Start a local cluster, each storage node and gateway a process of its own, until Ctrl-C."`

	Sim        simCommand        `cmd:"" help:"Simulate whole clusters under faults, each from a seed, and check what must always hold."`
	Chaos      chaosCommand      `cmd:"" help:"Break a cluster of real processes while clients work, and check what must always hold."`
	Run        runCommand        `cmd:"" help:"Load a store and measure it."`
	Compare    compareCommand    `cmd:"" help:"Start dotring and etcd, load them in turn, and print their ratio."`
	Floor      floorCommand      `cmd:"" help:"Measure what the parts of an operation cost alone, and what it costs a cluster."`
	Soak       soakCommand       `cmd:"" help:"Measure a local cluster for long, and fail where it falls short."`
	FloorServe floorServeCommand `cmd:"" hidden:"" help:"Serve one part, for floor."`
}

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	var cli commands
	parser, err := kong.New(&cli, kong.Name("dotring-load"), kong.UsageOnError(),
		kong.Description("Local clusters of dotring, load and measurements."))
	if err != nil {
		fmt.Fprintln(os.Stderr, "dotring-load:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parse, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "dotring-load:", err)
		return 2
	}
	parse.BindTo(ctx, (*context.Context)(nil))
	if err := parse.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "dotring-load:", err)
		return 1
	}
	return 0
}
