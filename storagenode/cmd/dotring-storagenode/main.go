// Command dotring-storagenode is a storage node: it holds records, gossips with other nodes, and serves gateways.
//
// Exit codes: 0 after SIGTERM or SIGINT, 1 after a failure, 2 for a bad configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/internal/config"
	"github.com/dotring/dotring/storagenode/node"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// gcPercent is how much the heap may grow between two collections, in percent of what lives, where GOGC does not say. What
// lives is mostly caches and write buffers, of a fixed size: with Go's 100 a node with a million keys of 1 KiB took 437 MiB
// under full load.
const gcPercent = 55

// run is main without the exit.
func run(args []string, out, logs io.Writer) int {
	settings, err := config.Load(args, os.LookupEnv, out)
	switch {
	case errors.Is(err, config.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(logs, "dotring-storagenode: bad configuration:\n%v\n", err)
		return 2
	}
	if _, chosen := os.LookupEnv("GOGC"); !chosen {
		debug.SetGCPercent(gcPercent)
	}
	if settings.MemoryLimit > 0 {
		debug.SetMemoryLimit(settings.MemoryLimit)
	}
	log := logger(settings, logs)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, stop, settings.Node, log); err != nil {
		log.Error().Err(err).Str("node", settings.Node.Name).Msg("node failed")
		return 1
	}
	return 0
}

func serve(ctx context.Context, stop func(), cfg node.Config, log zerolog.Logger) error {
	n, err := node.New(cfg, node.Deps{Logger: log, Registry: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err = n.Run(ctx)
	return errors.Join(err, n.Close())
}

func logger(s config.Settings, w io.Writer) zerolog.Logger {
	if s.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(w).Level(s.LogLevel).With().Timestamp().Logger()
}
