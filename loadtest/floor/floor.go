// Package floor measures what the parts of a request cost alone on this machine, and what the whole costs a cluster.
package floor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/localcluster"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	nodes        = 3
)

// Config describes a measurement.
type Config struct {
	// Bin is the folder of dotring's programs. Self is this program: with the arguments that ServeArgs makes it must
	// call Serve, so that servers of parts are processes of their own, whose CPU time can be told from the generator's.
	Bin, Self string
	ServeArgs func(part, addr string, valueSize int) []string
	// Data is a folder for data; each measurement makes one of its own in it, and removes it in the end.
	Data                  string
	NodeArgs, GatewayArgs []string
	Records               uint64
	ValueSize             int
	// Load is the template for the cluster and for the HTTP part; Each is how long every other part runs.
	Load load.Config
	Each time.Duration
	Say  func(string)
}

// Parts that Serve serves.
const (
	PartHTTP   = "http"
	PartFrames = "frames"
)

// Serve serves a part until ctx ends.
func Serve(ctx context.Context, part, addr string, valueSize int) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	switch part {
	case PartHTTP:
		return serveHTTP(l, valueSize, ctx.Done())
	case PartFrames:
		return serveFrames(l, valueSize, ctx.Done())
	}
	return errors.Join(fmt.Errorf("floor: no part %q", part), l.Close())
}

// meter is one measurement under way.
type meter struct {
	cfg Config
	dir string
	out *report.Floor
	// items is the mean size of the cluster's commits while it took puts.
	items float64
}

// Run measures. When ctx ends early it returns what it has with ctx's error.
func Run(ctx context.Context, cfg Config) (report.Floor, error) {
	out := report.Floor{ValueSize: cfg.ValueSize, Connections: cfg.Load.Connections}
	if err := os.MkdirAll(cfg.Data, 0o755); err != nil {
		return out, fmt.Errorf("floor: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.Data, "floor-")
	if err != nil {
		return out, fmt.Errorf("floor: %w", err)
	}
	m := &meter{cfg: cfg, dir: dir, out: &out}
	err = errors.Join(m.all(ctx), os.RemoveAll(dir))
	return out, err
}

func (m *meter) all(ctx context.Context) error {
	put, get, err := m.cluster(ctx)
	for _, o := range []report.Operation{put, get} {
		if o.Cluster > 0 { // told also where the parts are never measured
			m.out.Operations = append(m.out.Operations, o)
		}
	}
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{m.http, m.frames, m.disk} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	m.needs(put, get)
	return nil
}

// needs adds up. A put needs one exchange over HTTP; one mint; its record at two more replicas; on each of the three
// nodes a read of what is there under the key, since a write is merged with it, and its share of a synced batch. A get
// with R=2 needs one exchange over HTTP, a record from one replica and a digest from another, and a read on each, since
// a digest is made from the stored record.
func (m *meter) needs(put, get report.Operation) {
	batch := batchName(m.batchSize(), true)
	put.Needs = m.list(map[string]float64{"http put": 1, "frame mint": 1, "frame apply": 2, "leveldb get": 3, batch: 3})
	get.Needs = m.list(map[string]float64{"http get": 1, "frame read": 1, "frame digest": 1, "leveldb get": 2})
	m.out.Operations = []report.Operation{put, get}
	m.out.Notes = append(m.out.Notes,
		fmt.Sprintf("the cluster's commits held %.1f writes each, so a write's share of a synced batch is that of %d", m.items, m.batchSize()),
		"a put needs one HTTP exchange, one mint, two applies, and on three nodes a read of what it is merged with and its share of a synced batch",
		"a get needs one HTTP exchange, a record from one replica and a digest from another, and a read on each",
		"CPU time of server processes is read from /proc; of frames both ends are counted; compaction is counted with the batches that caused it")
}

// list keeps the order in which parts were measured.
func (m *meter) list(times map[string]float64) []report.Need {
	var out []report.Need
	for _, p := range m.out.Parts {
		if n := times[p.Name]; n > 0 {
			out = append(out, report.Need{Part: p.Name, Times: n, CPU: n * p.CPU})
		}
	}
	return out
}

func (m *meter) add(name, what string, cpu time.Duration, n int64, took time.Duration) error {
	if n <= 0 || took <= 0 {
		return fmt.Errorf("floor: %s: nothing was done", name)
	}
	m.out.Parts = append(m.out.Parts, report.Part{Name: name, What: what, CPU: cpu.Seconds() * 1e6 / float64(n), Rate: float64(n) / took.Seconds()})
	return nil
}

func (m *meter) spec(name string, gets float64) workload.Spec {
	return workload.Spec{Name: name, Mix: workload.Plain(gets), Records: m.cfg.Records, KeySize: keySize, ValueSize: m.cfg.ValueSize}
}

// cluster measures puts and gets of a cluster.
func (m *meter) cluster(ctx context.Context) (put, get report.Operation, err error) {
	m.cfg.Say("starting a cluster")
	c, err := localcluster.New(localcluster.Config{Bin: m.cfg.Bin, Data: filepath.Join(m.dir, "cluster"), Nodes: nodes, Gateways: 1,
		FreePorts: true, NodeArgs: m.cfg.NodeArgs, GatewayArgs: m.cfg.GatewayArgs})
	if err != nil {
		return put, get, err
	}
	err = func() error {
		ready, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		if err := errors.Join(c.Start(), c.WaitReady(ready, nodes)); err != nil {
			return err
		}
		var procs []load.Process
		for _, p := range c.All() {
			procs = append(procs, load.Process{Name: p.Name, PID: p.PID()})
		}
		addr := c.Gateways[0].HTTP
		if err := m.fill(ctx, addr); err != nil {
			return err
		}
		before, err := commits(ctx, c.Nodes)
		if err != nil {
			return err
		}
		if put, err = m.operation(ctx, "put", 0, addr, procs); err != nil {
			return err
		}
		after, err := commits(ctx, c.Nodes)
		if err != nil {
			return err
		}
		if n := after.count - before.count; n > 0 {
			m.items = (after.sum - before.sum) / n
		}
		get, err = m.operation(ctx, "get", 1, addr, procs)
		return err
	}()
	return put, get, errors.Join(err, c.Stop(stopTimeout), c.Release())
}

func (m *meter) fill(ctx context.Context, addr string) error {
	t, err := target.New(target.Config{Kind: target.DotringHTTP, Addresses: []string{addr}})
	if err != nil {
		return err
	}
	_, err = load.Fill(ctx, m.cfg.Load, m.spec("put", 0), t, nil)
	return errors.Join(err, t.Close())
}

func (m *meter) operation(ctx context.Context, name string, gets float64, addr string, procs []load.Process) (report.Operation, error) {
	m.cfg.Say("cluster: " + name)
	run, err := m.load(ctx, name, gets, addr, procs)
	return report.Operation{Name: name, Cluster: run.ServerCPU(), ByProcess: run.Servers, Rate: run.Throughput, Valid: run.Valid}, err
}

// load loads whatever speaks the HTTP API at an address.
func (m *meter) load(ctx context.Context, name string, gets float64, addr string, procs []load.Process) (run report.Run, err error) {
	shared, err := workload.NewShared(m.spec(name, gets))
	if err != nil {
		return run, err
	}
	t, err := target.New(target.Config{Kind: target.DotringHTTP, Addresses: []string{addr}})
	if err != nil {
		return run, err
	}
	cfg := m.cfg.Load
	cfg.Servers = procs
	run, err = load.Run(ctx, cfg, shared, t)
	if err = errors.Join(err, t.Close()); err != nil {
		return run, err
	}
	if run.Interrupted {
		return run, context.Cause(ctx)
	}
	for _, f := range run.Faults {
		m.cfg.Say(name + ": not valid: " + f)
	}
	return run, nil
}

// server runs a part's server in a process of its own while do runs.
func (m *meter) server(ctx context.Context, part string, do func(addr string, p load.Process) error) error {
	ports, err := localcluster.ReservePorts()
	if err != nil {
		return err
	}
	addr, err := ports.Next()
	if err != nil {
		return errors.Join(err, ports.Release())
	}
	p := localcluster.NewProcess("part", part, m.cfg.Self, filepath.Join(m.dir, part), m.cfg.ServeArgs(part, addr, m.cfg.ValueSize)...)
	if err := p.Start(); err != nil {
		return errors.Join(err, ports.Release())
	}
	err = waitListening(ctx, addr, p)
	if err == nil {
		err = do(addr, load.Process{Name: part, PID: p.PID()})
	}
	return errors.Join(err, p.Kill(), ports.Release())
}

func waitListening(ctx context.Context, addr string, p *localcluster.Process) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-p.Exited():
			return fmt.Errorf("floor: %s has ended (%w): %s", p.Name, p.Err(), p.LogTail(5))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *meter) http(ctx context.Context) error {
	return m.server(ctx, PartHTTP, func(addr string, p load.Process) error {
		for _, op := range []struct {
			name, what string
			gets       float64
		}{{"http put", "bare chi handler: body in, JSON out", 0}, {"http get", "bare chi handler: value out", 1}} {
			m.cfg.Say(op.name)
			run, err := m.load(ctx, op.name, op.gets, addr, []load.Process{p})
			if err != nil {
				return err
			}
			ops := run.Throughput * run.ElapsedS
			cpu := time.Duration(run.Servers[0].CPUS * float64(time.Second))
			if err := m.add(op.name, op.what, cpu, int64(ops), time.Duration(run.ElapsedS*float64(time.Second))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *meter) frames(ctx context.Context) error {
	return m.server(ctx, PartFrames, func(addr string, p load.Process) error {
		for _, s := range shapes(m.cfg.ValueSize) {
			m.cfg.Say(s.name)
			n, err := echoLoad(ctx, addr, s, m.cfg.Load.Connections, nodes, m.cfg.Each/4, 0) // warms up
			if err != nil || n == 0 {
				return errors.Join(err, ctx.Err(), fmt.Errorf("floor: %s: %d answers", s.name, n))
			}
			took, cpu, err := spent([]load.Process{p}, func() error {
				n, err = echoLoad(ctx, addr, s, m.cfg.Load.Connections, nodes, m.cfg.Each, 0)
				return err
			})
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			if err := m.add(s.name, s.what, cpu, n, took); err != nil {
				return err
			}
		}
		return nil
	})
}

// spent is the CPU time that this process and others use while do runs.
func spent(procs []load.Process, do func() error) (took, cpu time.Duration, err error) {
	before, err := load.Usages(procs)
	if err != nil {
		return 0, 0, err
	}
	self, err := load.SelfCPU()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	err = do()
	took = time.Since(began)
	later, selfErr := load.SelfCPU()
	after, usageErr := load.Usages(procs)
	cpu = later - self
	for _, u := range load.Since(before, after) {
		cpu += time.Duration(u.CPUS * float64(time.Second))
	}
	return took, cpu, errors.Join(err, selfErr, usageErr)
}

func (m *meter) batchSize() int { return max(1, int(math.Round(m.items))) }

func batchName(n int, sync bool) string {
	if sync {
		return fmt.Sprintf("leveldb synced 1/%d", n)
	}
	return fmt.Sprintf("leveldb unsynced 1/%d", n)
}

func (m *meter) disk(ctx context.Context) error {
	m.cfg.Say("goleveldb")
	d, err := openDisk(ctx, filepath.Join(m.dir, "leveldb"), m.cfg.Records, m.cfg.ValueSize)
	if err != nil {
		return err
	}
	return errors.Join(m.onDisk(ctx, d), d.close())
}

func (m *meter) onDisk(ctx context.Context, d *disk) error {
	err := m.repeat(ctx, "leveldb get", "one record, from cache as a rule", 1, d.get)
	if err != nil {
		return err
	}
	sizes := []int{1, 32}
	if n := m.batchSize(); n != 1 && n != 32 {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		for _, sync := range []bool{true, false} {
			what := "share of one record in a batch, flush and compaction included"
			if err := m.repeat(ctx, batchName(n, sync), what, n, func() error { return d.write(n, sync) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// repeat does something again and again for a while; each time counts for so many.
func (m *meter) repeat(ctx context.Context, name, what string, each int, do func() error) error {
	m.cfg.Say(name)
	var n int64
	took, cpu, err := spent(nil, func() error {
		for end := time.Now().Add(m.cfg.Each); time.Now().Before(end) && ctx.Err() == nil; n += int64(each) {
			if err := do(); err != nil {
				return fmt.Errorf("floor: %s: %w", name, err)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return m.add(name, what, cpu, n, took)
}

// tally is the sum and the count of a histogram.
type tally struct{ sum, count float64 }

const commitItems = "dotring_kv_commit_items"

// commits reads from the nodes how many writes they have committed, and in how many batches.
func commits(ctx context.Context, procs []*localcluster.Process) (tally, error) {
	var all tally
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for _, p := range procs {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+"/metrics", nil)
		if err != nil {
			return all, fmt.Errorf("floor: %w", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return all, fmt.Errorf("floor: metrics of %s: %w", p.Name, err)
		}
		t, err := scrape(io.LimitReader(resp.Body, 16<<20), commitItems)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return all, fmt.Errorf("floor: metrics of %s: %w", p.Name, err)
		}
		all.sum, all.count = all.sum+t.sum, all.count+t.count
	}
	return all, nil
}

var errMetric = errors.New("metric not found")

// scrape finds the sum and the count of a histogram without labels.
func scrape(r io.Reader, name string) (tally, error) {
	var t tally
	found, scan := 0, bufio.NewScanner(r)
	for scan.Scan() {
		for suffix, into := range map[string]*float64{"_sum ": &t.sum, "_count ": &t.count} {
			rest, ok := strings.CutPrefix(scan.Text(), name+suffix)
			if !ok {
				continue
			}
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				return t, fmt.Errorf("metric %s: %w", name, err)
			}
			*into = v
			found++
		}
	}
	if err := scan.Err(); err != nil {
		return t, err
	}
	if found != 2 {
		return t, fmt.Errorf("%w: %s", errMetric, name)
	}
	return t, nil
}
