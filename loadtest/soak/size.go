package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/workload"
)

// What must hold as a node fills.
const (
	// MaxRateLoss is the share of the rate that ten times the keys may cost.
	MaxRateLoss = 0.25
	// MaxNodeRSS bounds the memory of a storage node with up to LimitedKeys of 1 KiB under full load, MaxGatewayRSS that of
	// a gateway.
	MaxNodeRSS    = 400 << 20
	MaxGatewayRSS = 200 << 20
	LimitedKeys   = 1_000_000
)

// fillConnections are few enough that no write is refused.
const fillConnections = 64

// sayEvery is how many seconds lie between two words on how far filling is.
const sayEvery = 30

// Size describes a measurement of single nodes that keep different numbers of keys.
type Size struct {
	Config
	Keys        []uint64 // each for a node of its own; ascending
	ValueSize   int
	Connections int
	// Rounds is how many turns each node has with puts, and with gets, of length Turn.
	Rounds int
	Turn   time.Duration
}

// SizeResult is what was measured of one node.
type SizeResult struct {
	Keys       uint64
	Puts, Gets []report.Run
	FillRate   float64 // keys a second
	Disk       int64   // bytes
	NodeRSS    int64   // the most so far, in bytes
	GatewayRSS int64
	Written    int64   // bytes that the node gave the disk to write
	Given      float64 // bytes of values that it was given
}

// rate is the median rate of some turns.
func rate(runs []report.Run) float64 {
	var all []float64
	for _, r := range runs {
		all = append(all, r.Throughput)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// kept is the median, over rounds, of the share of the rate that is left with more keys. Turns of one round follow each other, so
// that a machine which is quicker at one time than at another counts for little.
func kept(few, now []report.Run) float64 {
	var all []float64
	for i := range min(len(few), len(now)) {
		all = append(all, now[i].Throughput/few[i].Throughput)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// worst is the median of the turns' 99th percentiles, in milliseconds.
func worst(runs []report.Run) float64 {
	var all []int64
	for _, r := range runs {
		all = append(all, r.All.P99US)
	}
	slices.Sort(all)
	return ms(all[len(all)/2])
}

// Measure fills the nodes, loads them in turn, prints a table and gives the verdict: ErrShort, wrapped, where something did
// not hold.
func (s Size) Measure(ctx context.Context) (res []SizeResult, err error) {
	if len(s.Keys) == 0 || s.Rounds < 1 {
		return nil, errors.New("soak: at least one number of keys and one round are needed")
	}
	var clusters []*cluster
	defer func() {
		for _, c := range clusters {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, keys := range s.Keys {
		c, err := start(ctx, s.Config, 1)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, c)
		r, err := s.fill(ctx, c, keys)
		if err != nil {
			return nil, err
		}
		res = append(res, r)
	}
	for round := range s.Rounds {
		for i, c := range clusters {
			s.Say(fmt.Sprintf("round %d of %d, %d keys", round+1, s.Rounds, s.Keys[i]))
			if err := s.turn(ctx, c, &res[i]); err != nil {
				return nil, err
			}
		}
	}
	for i, c := range clusters {
		if err := s.weigh(c, &res[i]); err != nil {
			return nil, err
		}
	}
	s.print(res)
	return res, s.verdict(res)
}

func (s Size) load() load.Config {
	lc := load.Default()
	lc.Connections, lc.WarmUp, lc.Duration = s.Connections, time.Second, s.Turn
	return lc
}

func (s Size) spec(keys uint64, gets float64) workload.Spec {
	return workload.Spec{Name: "size", Mix: workload.Plain(gets), Records: keys, KeySize: 24, ValueSize: s.ValueSize}
}

func (s Size) fill(ctx context.Context, c *cluster, keys uint64) (SizeResult, error) {
	s.Say(fmt.Sprintf("writing %d keys", keys))
	began := time.Now()
	lc := s.load()
	lc.Connections = min(lc.Connections, fillConnections)
	seconds := 0
	done, err := load.Fill(ctx, lc, s.spec(keys, 0), c.target, func(done, of uint64) {
		if seconds++; seconds%sayEvery == 0 {
			s.Say(fmt.Sprintf("%d of %d keys", done, of))
		}
	})
	return SizeResult{Keys: keys, FillRate: float64(done) / time.Since(began).Seconds(), Given: float64(done) * float64(s.ValueSize)}, err
}

func (s Size) turn(ctx context.Context, c *cluster, r *SizeResult) error {
	for _, gets := range []float64{0, 1} {
		run, err := c.run(ctx, fmt.Sprintf("%d keys", r.Keys), s.load(), s.spec(r.Keys, gets))
		if err != nil {
			return err
		}
		if gets == 0 {
			r.Puts = append(r.Puts, run)
			r.Given += float64(run.All.Count) * float64(s.ValueSize)
		} else {
			r.Gets = append(r.Gets, run)
		}
	}
	return nil
}

// weigh reads what a cluster has used.
func (s Size) weigh(c *cluster, r *SizeResult) error {
	var errs [4]error
	r.Disk, errs[0] = diskUsage(c.Nodes[0].DataDir())
	r.NodeRSS, errs[1] = procNumber(c.Nodes[0].PID(), "status", "VmHWM:", 1<<10)
	r.GatewayRSS, errs[2] = procNumber(c.Gateways[0].PID(), "status", "VmHWM:", 1<<10)
	r.Written, errs[3] = procNumber(c.Nodes[0].PID(), "io", "write_bytes:", 1)
	return errors.Join(errs[:]...)
}

// procNumber reads a number from a file of a process in /proc.
func procNumber(pid int, file, name string, unit int64) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0, fmt.Errorf("soak: %w", err)
	}
	for line := range bytes.Lines(b) {
		if fields := bytes.Fields(line); len(fields) >= 2 && string(fields[0]) == name {
			n, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return n * unit, err
		}
	}
	return 0, fmt.Errorf("soak: /proc/%d/%s has no %s", pid, file, name)
}

// diskUsage sums the sizes of the files below dir. One that goes away meanwhile counts for nothing.
func diskUsage(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

func (s Size) print(res []SizeResult) {
	fmt.Fprintf(s.Out, "%10s %8s %8s %10s %8s %10s %9s %11s %9s %10s\n", "keys", "fill/s", "puts/s", "p99 ms", "gets/s", "p99 ms",
		"node MiB", "gateway MiB", "disk", "written")
	for _, r := range res {
		fmt.Fprintf(s.Out, "%10d %8.0f %8.0f %10.1f %8.0f %10.1f %9d %11d %8.2fx %9.2fx\n", r.Keys, r.FillRate, rate(r.Puts), worst(r.Puts),
			rate(r.Gets), worst(r.Gets), r.NodeRSS>>20, r.GatewayRSS>>20, float64(r.Disk)/(float64(r.Keys)*float64(s.ValueSize)),
			float64(r.Written)/r.Given)
	}
	fmt.Fprintln(s.Out, "MiB: the most resident since the start. disk: bytes kept for each byte of the keys' values; written: for each byte put.")
}

func (s Size) verdict(res []SizeResult) error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: %s", ErrShort, fmt.Sprintf(format, args...)))
	}
	for i, r := range res {
		if r.Keys <= LimitedKeys && r.NodeRSS > MaxNodeRSS {
			fault("a node with %d keys took %d MiB, more than %d", r.Keys, r.NodeRSS>>20, MaxNodeRSS>>20)
		}
		if r.GatewayRSS > MaxGatewayRSS {
			fault("a gateway took %d MiB, more than %d", r.GatewayRSS>>20, MaxGatewayRSS>>20)
		}
		if i == 0 || r.Keys < 10*res[0].Keys {
			continue
		}
		for _, of := range []struct {
			what     string
			few, now []report.Run
		}{{"puts", res[0].Puts, r.Puts}, {"gets", res[0].Gets, r.Gets}} {
			if loss := 1 - kept(of.few, of.now); loss > MaxRateLoss {
				fault("%d keys instead of %d cost %.0f %% of the rate of %s, more than %.0f %%", r.Keys, res[0].Keys, 100*loss, of.what, 100*MaxRateLoss)
			}
		}
	}
	return errors.Join(faults...)
}
