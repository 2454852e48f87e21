package pebble

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/dotring/dotring/storagenode/engine"
)

// stall holds writes back while flushes or compactions lag.
type stall struct {
	// changed has an element when the state of memory tables and level 0 is to be looked at again.
	changed chan struct{}
	lagging bool // as last looked at; guarded by Engine.write

	count, failures atomic.Uint64
	nanos           atomic.Int64
	paused          atomic.Bool
	// background is the damage that compaction met last.
	background atomic.Pointer[engine.Damage]
}

func (s *stall) init() {
	s.changed = make(chan struct{}, 1)
	s.poke()
}

func (s *stall) poke() {
	select {
	case s.changed <- struct{}{}:
	default: // to be looked at already
	}
}

// events listens to the library. Its callbacks must not call the library.
func (e *Engine) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			if e.guard.failed() != nil {
				return // a consequence
			}
			e.stall.failures.Add(1)
			if pebble.IsCorruptionError(err) {
				e.stall.background.Store(damage(err))
			}
			e.log.log.Warn().Err(err).Msg("flush or compaction failed")
			e.stall.poke()
		},
		// The default is to end the process. A damaged read returns its error; this is for the rest.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			e.log.log.Error().Str("file", info.Path).Str("detail", info.String()).Msg("stored data is damaged")
		},
		FlushEnd:      func(pebble.FlushInfo) { e.stall.poke() },
		CompactionEnd: func(pebble.CompactionInfo) { e.stall.poke() },
		WALCreated:    func(pebble.WALCreateInfo) { e.stall.poke() },
	}
}

var errBehind = errors.New("compaction cannot catch up")

// admit waits until the library can take a write without waiting itself. Called with write held.
func (e *Engine) admit() error {
	s := &e.stall
	select {
	case <-s.changed:
		s.lagging = e.lags()
	default:
	}
	if !s.lagging {
		return nil
	}
	start := time.Now()
	s.count.Add(1)
	s.paused.Store(true)
	defer func() {
		s.paused.Store(false)
		s.nanos.Add(int64(time.Since(start)))
	}()
	for s.lagging {
		// Damage that compaction cannot get past is not waited for.
		if d := s.background.Load(); d != nil {
			return errors.Join(errBehind, d)
		}
		select {
		case <-s.changed:
			s.lagging = e.lags()
		case <-e.guard.quit:
			return engine.ErrClosed
		case <-e.guard.stopped:
			return e.guard.failed()
		}
	}
	return nil
}

// lags looks at memory tables and level 0.
func (e *Engine) lags() bool {
	m := e.db.Metrics()
	layers := int(m.Levels[0].Sublevels)
	e.guard.pressed.Store(layers >= (e.opts.L0Trigger+e.opts.L0Pause)/2)
	// Their size counts and not their number: the first ones are small, and not flushed before several are full.
	return m.MemTable.Size > maxMemTables*uint64(e.opts.WriteBuffer) || layers >= e.opts.L0Pause
}
