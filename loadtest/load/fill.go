package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

const (
	fillTries = 20
	fillPause = 100 * time.Millisecond
)

// Fill writes every record of a workload once, and returns how many were written. A write that is refused or fails is
// tried again, twenty times with a pause between; then Fill gives up with its error. progress, where not nil, is called
// each second.
func Fill(ctx context.Context, cfg Config, spec workload.Spec, tgt target.Target, progress func(done, of uint64)) (uint64, error) {
	if err := errors.Join(cfg.Validate(), spec.Validate()); err != nil {
		return 0, fmt.Errorf("load: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns, err := dialAll(ctx, tgt, min(cfg.Connections, int(min(spec.Records, MaxConnections))))
	if err != nil {
		return 0, fmt.Errorf("load: %w", err)
	}
	var next, done atomic.Uint64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var wg sync.WaitGroup
		for n, c := range conns {
			wg.Go(func() {
				f := filler{cfg: cfg, spec: spec, conn: c, values: workload.NewValues(cfg.Seed^uint64(n+1)<<32, spec.ValueSize)}
				for i := next.Add(1) - 1; i < spec.Records && ctx.Err() == nil; i = next.Add(1) - 1 {
					if err := f.write(ctx, i); err != nil {
						cancel(err)
						return
					}
					done.Add(1)
				}
			})
		}
		wg.Wait()
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if progress != nil {
				progress(done.Load(), spec.Records)
			}
		case <-ended:
			if err := closeAll(conns); err != nil && ctx.Err() == nil {
				return done.Load(), fmt.Errorf("load: %w", err)
			}
			return done.Load(), context.Cause(ctx)
		}
	}
}

// filler writes records on one connection.
type filler struct {
	cfg    Config
	spec   workload.Spec
	conn   target.Conn
	values *workload.Values
	key    []byte
}

func (f *filler) write(ctx context.Context, record uint64) error {
	f.key = workload.AppendKey(f.key[:0], record, f.spec.KeySize)
	var last error
	for range fillTries {
		out, err := f.conn.Put(f.key, f.values.Next(), nil, time.Now().Add(f.cfg.Timeout))
		if out.Done() {
			return nil
		}
		if last = err; last == nil {
			last = fmt.Errorf("load: the store says %s", out)
		}
		pause := time.NewTimer(fillPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("load: record %d could not be written: %w", record, last)
}
