package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/localcluster"
	"github.com/dotring/dotring/loadtest/workload"
)

// MaxAllocated is how many bytes a put of AllocValue may allocate on each node and on the gateway: less than a copy of the
// value.
const (
	MaxAllocated = 1536
	AllocValue   = 10 << 10
)

// allocBytes counts all bytes ever allocated on the heap of a Go process.
const allocBytes = "go_memstats_alloc_bytes_total"

// Allocs measures what a put allocates in the servers' processes, everything in them counted: the HTTP server, gossip, and
// the engine's compaction of what was put.
type Allocs struct {
	Config
	Connections int
	// Turn is how long puts last; as many before it are not counted, so that pools are warm.
	Turn time.Duration
	// Records is how many keys there are.
	Records uint64
}

// Allocated is what one process allocated.
type Allocated struct {
	Process string
	PerPut  float64 // bytes
	// By tells whose code allocates them, as samples estimate it: the engine's library, net/http, gRPC, dotring itself.
	By map[string]float64
}

// Measure measures, prints a table and gives the verdict: ErrShort, wrapped, where a process allocates more than
// MaxAllocated for each put.
func (a Allocs) Measure(ctx context.Context) (out []Allocated, err error) {
	c, err := start(ctx, a.Config, 3)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	spec := workload.Spec{Name: "put", Mix: workload.Plain(0), Records: a.Records, KeySize: 24, ValueSize: AllocValue}
	lc := load.Default()
	lc.Connections, lc.WarmUp, lc.Duration = a.Connections, 0, a.Turn
	if _, err := load.Fill(ctx, lc, spec, c.target, nil); err != nil {
		return nil, err
	}
	if _, err := c.run(ctx, "warm-up", lc, spec); err != nil {
		return nil, err
	}
	before, err := allocated(ctx, c.All())
	if err != nil {
		return nil, err
	}
	sampledBefore, err := sampled(ctx, c.All())
	if err != nil {
		return nil, err
	}
	run, err := c.run(ctx, "puts", lc, spec)
	if err != nil {
		return nil, err
	}
	after, err := allocated(ctx, c.All())
	if err != nil {
		return nil, err
	}
	sampledAfter, err := sampled(ctx, c.All())
	if err != nil {
		return nil, err
	}
	puts := run.Throughput * run.ElapsedS
	if puts < 1 {
		return nil, fmt.Errorf("soak: no put was done in %v", a.Turn)
	}
	var short error
	fmt.Fprintf(a.Out, "%.0f puts of %d bytes\n%-10s %12s   of these, by whose code, about:\n%23s", puts, AllocValue, "process", "bytes a put", "")
	for _, whose := range columns() {
		fmt.Fprintf(a.Out, " %10s", whose)
	}
	fmt.Fprintln(a.Out)
	for i, p := range c.All() {
		r := Allocated{Process: p.Name, PerPut: (after[i] - before[i]) / puts}
		r.By = shares(sampledBefore[i], sampledAfter[i], r.PerPut)
		out = append(out, r)
		fmt.Fprintf(a.Out, "%-10s %12.0f", r.Process, r.PerPut)
		for _, whose := range columns() {
			fmt.Fprintf(a.Out, " %10.0f", r.By[whose])
		}
		fmt.Fprintln(a.Out)
		if r.PerPut > MaxAllocated {
			short = errors.Join(short, fmt.Errorf("%w: %s allocates %.0f bytes a put, the bound is %d", ErrShort, r.Process, r.PerPut, MaxAllocated))
		}
	}
	return out, short
}

// columns are whose code may allocate.
func columns() []string {
	var out []string
	for _, a := range allocators {
		out = append(out, a.name)
	}
	return append(out, others)
}

// shares divides what was allocated as the samples are divided.
func shares(before, after map[string]float64, total float64) map[string]float64 {
	out, sum := make(map[string]float64), 0.0
	for whose, n := range after {
		out[whose] = max(n-before[whose], 0)
		sum += out[whose]
	}
	for whose := range out {
		out[whose] *= total / max(sum, 1)
	}
	return out
}

// allocated asks each process what it has allocated so far.
func allocated(ctx context.Context, procs []*localcluster.Process) (out []float64, err error) {
	err = each(ctx, procs, "/metrics", func(r io.Reader) error {
		v, err := sample(r, allocBytes)
		out = append(out, v)
		return err
	})
	return out, err
}

// sampled asks each process whose code that was.
func sampled(ctx context.Context, procs []*localcluster.Process) (out []map[string]float64, err error) {
	err = each(ctx, procs, "/debug/pprof/allocs?debug=1", func(r io.Reader) error {
		v, err := byAllocator(r)
		out = append(out, v)
		return err
	})
	return out, err
}

// each reads a page of each process's admin port.
func each(ctx context.Context, procs []*localcluster.Process, page string, read func(io.Reader) error) error {
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for _, p := range procs {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+page, nil)
		if err != nil {
			return fmt.Errorf("soak: %w", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("soak: %s of %s: %w", page, p.Name, err)
		}
		if err = errors.Join(read(io.LimitReader(resp.Body, 64<<20)), resp.Body.Close()); err != nil {
			return fmt.Errorf("soak: %s of %s: %w", page, p.Name, err)
		}
	}
	return nil
}

// sample finds the value of a metric without labels.
func sample(r io.Reader, name string) (float64, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("no metric %s", name))
}
