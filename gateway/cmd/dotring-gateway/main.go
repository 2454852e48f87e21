// Command dotring-gateway serves the HTTP and gRPC API of a Dotring cluster. It is stateless: run as many as there is load.
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
	if cfg.MemoryLimit > 0 {
		debug.SetMemoryLimit(cfg.MemoryLimit)
	}
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

func newLogger(cfg config.Config, out io.Writer) zerolog.Logger {
	if cfg.LogFormat == "console" {
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(out).Level(cfg.Level()).With().Timestamp().Str("gateway", cfg.Name).Logger()
}
