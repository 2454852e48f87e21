package soak

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/kv"
)

// What must hold while a node compacts all it has.
const (
	// MaxSlowdown is how many times its usual value the 99th percentile may be.
	MaxSlowdown = 2.0
	// MaxStall bounds how long a write waits.
	MaxStall = 100 * time.Millisecond
)

// Compaction describes a forced compaction of everything, on a node's local write path in this process.
type Compaction struct {
	Config
	// Bytes of values are written, of ValueSize each, then compacted at CompactionRate bytes a second.
	Bytes          int64
	ValueSize      int
	CompactionRate int64
	// Rate is the open loop meanwhile, half of it gets, in operations a second; Turn is how long it runs before.
	Rate float64
	Turn time.Duration
}

// CompactionResult is what was measured.
type CompactionResult struct {
	Before, During report.Run
	Took           time.Duration // of the compaction
	Stalls         uint64        // of the engine, during it
}

// Measure fills, compacts, prints a table and gives the verdict: ErrShort, wrapped, where something did not hold.
func (c Compaction) Measure(ctx context.Context) (res CompactionResult, err error) {
	if err := os.MkdirAll(c.Data, 0o755); err != nil {
		return res, fmt.Errorf("soak: %w", err)
	}
	dir, err := os.MkdirTemp(c.Data, "compaction-")
	if err != nil {
		return res, fmt.Errorf("soak: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := c.open(dir)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	spec := workload.Spec{Name: "mix", Mix: workload.Plain(0.5), Records: uint64(c.Bytes / int64(c.ValueSize)), KeySize: 24, ValueSize: c.ValueSize}
	lc := load.Default()
	lc.Seed, lc.Connections, lc.Duration, lc.WarmUp, lc.MaxCPUShare = c.Seed, fillConnections, c.Turn, 2*time.Second, 1
	c.Say(fmt.Sprintf("writing %d keys", spec.Records))
	if _, err := load.Fill(ctx, lc, spec, s, nil); err != nil {
		return res, err
	}
	lc.Rate, lc.Connections = c.Rate, 512
	if res.Before, err = run(ctx, lc, spec, s); err != nil {
		return res, err
	}
	c.Say("compacting all of it")
	stalls := s.engine.Load().Stats().WriteStalls
	during, ended := context.WithCancel(ctx)
	defer ended()
	compacted := make(chan error, 1)
	began := time.Now()
	go func() {
		err := s.engine.Load().Compact(nil, nil)
		res.Took = time.Since(began)
		ended()
		compacted <- err
	}()
	lc.Duration, lc.WarmUp = load.MaxDuration, 0
	res.During, err = run(during, lc, spec, s)
	if err = errors.Join(err, <-compacted, ctx.Err()); err != nil {
		return res, err
	}
	res.Stalls = s.engine.Load().Stats().WriteStalls - stalls
	c.print(res)
	return res, c.verdict(res)
}

func run(ctx context.Context, lc load.Config, spec workload.Spec, t target.Target) (report.Run, error) {
	shared, err := workload.NewShared(spec)
	if err != nil {
		return report.Run{}, err
	}
	return load.Run(ctx, lc, shared, t)
}

func (c Compaction) print(res CompactionResult) {
	fmt.Fprintf(c.Out, "%d MiB compacted in %.1f s at %d MiB a second, %d stalls of the engine\n", c.Bytes>>20, res.Took.Seconds(),
		c.CompactionRate>>20, res.Stalls)
	fmt.Fprintf(c.Out, "%8s %5s %9s %9s %9s %9s\n", "", "op", "done/s", "p50 ms", "p99 ms", "max ms")
	for _, of := range []struct {
		when string
		run  report.Run
	}{{"before", res.Before}, {"during", res.During}} {
		for _, op := range of.run.Ops {
			fmt.Fprintf(c.Out, "%8s %5s %9.0f %9.2f %9.2f %9.2f\n", of.when, op.Op, float64(op.Latency.Count)/of.run.ElapsedS, ms(op.Latency.P50US),
				ms(op.Latency.P99US), ms(op.Latency.MaxUS))
		}
	}
}

func (c Compaction) verdict(res CompactionResult) error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: %s", ErrShort, fmt.Sprintf(format, args...)))
	}
	for i, op := range res.During.Ops {
		if was := res.Before.Ops[i].Latency.P99US; float64(op.Latency.P99US) > MaxSlowdown*float64(was) {
			fault("p99 of %ss was %.2f ms during compaction and %.2f ms before, more than %g times", op.Op, ms(op.Latency.P99US), ms(was), MaxSlowdown)
		}
		if longest := time.Duration(op.Latency.MaxUS) * time.Microsecond; longest > MaxStall {
			fault("a %s waited for %v, more than %v", op.Op, longest, MaxStall)
		}
	}
	return errors.Join(faults...)
}

// store is a node's local write path as a target.
type store struct {
	*kv.Store
	engine atomic.Pointer[leveldb.Engine]
}

func (c Compaction) open(dir string) (*store, error) {
	o := leveldb.Default()
	o.CompactionRate = c.CompactionRate
	s := &store{}
	cfg := kv.Default()
	cfg.Rand, cfg.Now, cfg.Logger = rand.Reader, time.Now, zerolog.Nop()
	cfg.Open = func() (engine.Engine, error) {
		e, err := leveldb.Open(dir, o)
		if err != nil {
			return nil, err
		}
		s.engine.Store(e)
		return e, nil
	}
	var err error
	s.Store, err = kv.Open(cfg)
	return s, err
}

func (s *store) Name() string { return "local write path" }

func (s *store) Dial(context.Context, int) (target.Conn, error) { return &local{store: s.Store}, nil }

// local is one worker's way to the store.
type local struct{ store *kv.Store }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (l *local) Get(key []byte, _ time.Time) ([]byte, target.Outcome, error) {
	_, err := l.store.Read(key)
	switch {
	case err == nil:
		return nil, target.OK, nil
	case errors.Is(err, kv.ErrNotFound):
		return nil, target.Absent, nil
	}
	return nil, target.Failed, err
}

func (l *local) Put(key, value, _ []byte, deadline time.Time) (target.Outcome, error) {
	done := make(chan error, 1)
	_, err := l.store.Mint(kv.Mint{Key: append([]byte(nil), key...), Value: append([]byte(nil), value...),
		Checksum: crc32.Checksum(value, castagnoli), Deadline: deadline}, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	switch {
	case err == nil:
		return target.OK, nil
	case errors.Is(err, kv.ErrOverloaded):
		return target.Refused, nil
	}
	return target.Failed, err
}

func (l *local) Close() error { return nil }
