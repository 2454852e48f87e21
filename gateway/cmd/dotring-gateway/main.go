// Command dotring-gateway serves the HTTP and gRPC API of a Dotring cluster. It is stateless: run as many as there is load.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/internal/config"
	"github.com/dotring/dotring/gateway/server"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	host, err := os.Hostname()
	if err != nil {
		host = "gateway"
	}
	cfg, err := config.Load(config.Sources{Args: args, LookupEnv: os.LookupEnv, ReadFile: os.ReadFile, Hostname: host,
		Stdout: stdout})
	switch {
	case errors.Is(err, config.ErrHelp):
		return 0
	case errors.Is(err, config.ErrVersion):
		fmt.Fprintln(stdout, server.Version())
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "dotring-gateway: bad configuration\n%v\n", err)
		return 2
	}
	slack := gcSlack(cfg.MemoryLimit)
	defer runtime.KeepAlive(slack)
	log := newLogger(cfg, stderr)
	srv, err := server.New(cfg, log)
	if err != nil {
		fmt.Fprintf(stderr, "dotring-gateway: %v\n", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// After the first signal the next one ends the process at once, as it does by default.
	context.AfterFunc(ctx, stop)
	err = srv.Run(ctx)
	if closeErr := srv.Close(); closeErr != nil {
		log.Warn().Err(closeErr).Msg("gateway not closed")
	}
	if err != nil {
		log.Error().Err(err).Msg("gateway failed")
		return 1
	}
	return 0
}

// slackBytes is how much garbage may gather, beside as much as is in use, before it is collected.
const slackBytes = 64 << 20

// gcSlack sets the soft memory limit, where one is given, and returns memory that must stay reachable and is never
// touched. A gateway has a few MiB in use, so that by itself the runtime would collect garbage fifty times a second. The
// system gives untouched memory no pages, but the runtime counts it as in use, and so collects 64 MiB later; its limit is
// moved by as much, to mean what it says. A higher GOGC would multiply what is in use when large values pass through.
func gcSlack(limit int64) []byte {
	if limit == 0 {
		limit = debug.SetMemoryLimit(-1) // GOMEMLIMIT, or none
	}
	if limit < math.MaxInt64-slackBytes {
		debug.SetMemoryLimit(limit + slackBytes)
	}
	return make([]byte, slackBytes)
}

func newLogger(cfg config.Config, out io.Writer) zerolog.Logger {
	if cfg.LogFormat == "console" {
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(out).Level(cfg.Level()).With().Timestamp().Str("gateway", cfg.Name).Logger()
}
