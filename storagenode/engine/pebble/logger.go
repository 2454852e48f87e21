package pebble

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/engine"
)

// logger takes the library's messages.
type logger struct {
	guard *guard
	log   zerolog.Logger
	fatal atomic.Pointer[engine.Damage]
	// replayed counts logs that were read when the database was opened.
	replayed atomic.Int64
}

// Infof implements the library's Logger.
func (l *logger) Infof(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if strings.Contains(line, " stopped reading at offset: ") {
		l.replayed.Add(1)
	}
	l.log.Debug().Str("detail", line).Msg("pebble")
}

// Errorf implements the library's Logger.
func (l *logger) Errorf(format string, args ...any) {
	l.log.Warn().Str("detail", fmt.Sprintf(format, args...)).Msg("pebble")
}

// Fatalf implements the library's Logger. The library expects it not to return, and calls it in any goroutine, with or
// without its locks. Failures of the disk do not come here (see guard), but broken invariants do. To end the goroutine
// could leave locks held, and the process need not end either: the guard is stopped first, so that whatever the library
// does next reaches no file, and no write is acknowledged any more. Neither are reads, if this was not the disk.
func (l *logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("library gave up: "+format, args...)
	if l.guard.failed() == nil {
		l.fatal.CompareAndSwap(nil, &engine.Damage{Err: err})
	}
	_ = l.guard.fail(err) // nil, for the library's sake
	l.log.Error().Err(err).Msg("the storage engine is stopped")
}

// broken returns why nothing that is read can be relied on.
func (l *logger) broken() error {
	if d := l.fatal.Load(); d != nil {
		return d
	}
	return nil
}
