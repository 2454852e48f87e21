// Package compare runs dotring and etcd on this machine, both with three members that sync before they acknowledge,
// loads them in turn, and tells their ratio.
package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	dotringNodes = 3
)

// Mix is a plain workload.
type Mix struct {
	Name string
	Gets float64 // share, 0 to 1
}

// Config describes a comparison.
type Config struct {
	// Bin is the folder of dotring's programs; Etcd is etcd's program, a path or a name to look for.
	Bin, Etcd string
	// Data is a folder for both; each run makes a folder of its own in it, and removes it in the end.
	Data string
	// Leader sends all requests to etcd's leader, not to its three members in turn.
	Leader bool
	// NodeArgs and GatewayArgs are added to dotring's command lines.
	NodeArgs, GatewayArgs []string
	Connections           []int
	Mixes                 []Mix
	// Rounds is how many turns each target has in each cell.
	Rounds int
	// Records, KeySize and ValueSize are as in workload.Spec; keys are chosen uniformly.
	Records            uint64
	KeySize, ValueSize int
	// Load is the template of each turn; Connections and Servers are set.
	Load load.Config
	// CountSyncs has strace count fsyncs in one more turn of puts for each target.
	CountSyncs bool
	// Say is told what is going on.
	Say func(string)
}

// side is one of the two.
type side struct {
	name    string
	kind    string
	procs   []load.Process
	address func(context.Context) ([]string, error)
}

// Run compares. When ctx ends early it returns what was measured by then, with ctx's error.
func Run(ctx context.Context, cfg Config) (report.Comparison, error) {
	cmp := report.Comparison{A: "dotring", Rounds: cfg.Rounds}
	if cfg.Rounds < 1 || len(cfg.Connections) == 0 || len(cfg.Mixes) == 0 {
		return cmp, errors.New("compare: at least one round, one number of connections and one workload are needed")
	}
	if err := os.MkdirAll(cfg.Data, 0o755); err != nil {
		return cmp, fmt.Errorf("compare: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.Data, "compare-")
	if err != nil {
		return cmp, fmt.Errorf("compare: %w", err)
	}
	e, err := newEtcd(cfg.Etcd, filepath.Join(dir, "etcd"))
	if err != nil {
		return cmp, errors.Join(err, os.RemoveAll(dir))
	}
	cluster, err := localcluster.New(localcluster.Config{Bin: cfg.Bin, Data: filepath.Join(dir, "dotring"), Nodes: dotringNodes, Gateways: 1,
		FreePorts: true, NodeArgs: cfg.NodeArgs, GatewayArgs: cfg.GatewayArgs})
	if err != nil {
		return cmp, errors.Join(err, os.RemoveAll(dir))
	}
	cmp.B = etcdVersion(ctx, cfg.Etcd)
	cmp.Notes = notes(cfg)
	err = func() error {
		sides, err := start(ctx, cfg, cluster, e)
		if err != nil {
			return err
		}
		return measure(ctx, cfg, sides, dir, &cmp)
	}()
	return cmp, errors.Join(err, cluster.Stop(stopTimeout), cluster.Release(), e.stop(stopTimeout), os.RemoveAll(dir))
}

func notes(cfg Config) []string {
	where := "etcd's three members in turn"
	if cfg.Leader {
		where = "etcd's leader alone"
	}
	return []string{
		fmt.Sprintf("dotring: %d storage nodes and one gateway, N=3 R=2 W=2; etcd: three members, linearizable reads, requests to %s over its JSON gateway", dotringNodes, where),
		fmt.Sprintf("%d records, keys of %d bytes chosen uniformly, values of %d bytes that do not compress; both sync before they acknowledge, on the same disk", cfg.Records, cfg.KeySize, cfg.ValueSize),
		fmt.Sprintf("each turn %v after %v of warm-up; servers and generator share the machine", cfg.Load.Duration, cfg.Load.WarmUp),
	}
}

// start brings both up.
func start(ctx context.Context, cfg Config, cluster *localcluster.Cluster, e *etcd) ([2]side, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cfg.Say("starting dotring and etcd")
	if err := cluster.Start(); err != nil {
		return [2]side{}, err
	}
	if err := cluster.WaitReady(ctx, dotringNodes); err != nil {
		return [2]side{}, err
	}
	if err := e.start(ctx); err != nil {
		return [2]side{}, err
	}
	http := []string{cluster.Gateways[0].HTTP}
	return [2]side{
		{name: "dotring", kind: target.DotringHTTP, procs: watched(cluster.All()),
			address: func(context.Context) ([]string, error) { return http, nil }},
		{name: "etcd", kind: target.EtcdJSON, procs: watched(e.members),
			address: func(ctx context.Context) ([]string, error) {
				if !cfg.Leader {
					return e.addresses(), nil
				}
				leader, err := e.leader(ctx)
				return []string{leader}, err
			}},
	}, nil
}

func watched(procs []*localcluster.Process) []load.Process {
	var out []load.Process
	for _, p := range procs {
		out = append(out, load.Process{Name: p.Name, PID: p.PID()})
	}
	return out
}

// measure fills both and takes turns.
func measure(ctx context.Context, cfg Config, sides [2]side, dir string, cmp *report.Comparison) error {
	for _, s := range sides {
		cfg.Say("writing records to " + s.name)
		err := s.with(ctx, func(t target.Target) error {
			_, err := load.Fill(ctx, cfg.Load, cfg.spec(cfg.Mixes[0]), t, nil)
			return err
		})
		if err != nil {
			return fmt.Errorf("write records to %s: %w", s.name, err)
		}
	}
	for _, connections := range cfg.Connections {
		for _, mix := range cfg.Mixes {
			cell := report.Cell{Workload: mix.Name, Connections: connections}
			for round := range cfg.Rounds {
				for i, s := range sides {
					cfg.Say(fmt.Sprintf("%s, %d connections, round %d of %d: %s", mix.Name, connections, round+1, cfg.Rounds, s.name))
					turn, err := cfg.turn(ctx, s, sides[1-i], mix, connections)
					if err != nil {
						if len(cell.A) > 0 { // what was measured of it is told, and is not valid
							cmp.Cells = append(cmp.Cells, cell)
						}
						return err
					}
					if i == 0 {
						cell.A = append(cell.A, turn)
					} else {
						cell.B = append(cell.B, turn)
					}
				}
			}
			cmp.Cells = append(cmp.Cells, cell)
		}
	}
	if !cfg.CountSyncs {
		return nil
	}
	for _, s := range sides {
		cfg.Say("counting the syncs of " + s.name)
		n, err := cfg.syncs(ctx, s, filepath.Join(dir, s.name+".strace"))
		if err != nil {
			return err
		}
		cmp.Syncs = append(cmp.Syncs, n)
	}
	return nil
}

func (c Config) spec(m Mix) workload.Spec {
	return workload.Spec{Name: m.Name, Mix: workload.Plain(m.Gets), Records: c.Records, KeySize: c.KeySize, ValueSize: c.ValueSize}
}

// with lends a target that leads to the side.
func (s side) with(ctx context.Context, do func(target.Target) error) error {
	addrs, err := s.address(ctx)
	if err != nil {
		return err
	}
	t, err := target.New(target.Config{Kind: s.kind, Addresses: addrs})
	if err != nil {
		return err
	}
	return errors.Join(do(t), t.Close())
}

// turn loads one side, and watches what the other does meanwhile.
func (c Config) turn(ctx context.Context, s, other side, m Mix, connections int) (report.Turn, error) {
	cfg := c.Load
	cfg.Connections, cfg.Servers = connections, s.procs
	run, err := c.run(ctx, cfg, s, m, other.procs)
	if err != nil {
		return report.Turn{}, fmt.Errorf("load %s: %w", s.name, err)
	}
	if run.Interrupted {
		return report.Turn{}, context.Cause(ctx)
	}
	for _, f := range run.Faults {
		c.Say(fmt.Sprintf("%s, %s, %d connections: not valid: %s", s.name, m.Name, connections, f))
	}
	for _, e := range run.Errors {
		c.Say(fmt.Sprintf("%s, %s, %d connections: %d × %s", s.name, m.Name, connections, e.Count, e.Text))
	}
	turn := report.TurnOf(run)
	for _, u := range run.Servers[len(s.procs):] {
		turn.OtherCPU += u.CPUS / run.ElapsedS
	}
	turn.ServerCPU = ownCPU(run, len(s.procs))
	return turn, nil
}

// ownCPU is the CPU time of the first n servers for each operation, in microseconds.
func ownCPU(run report.Run, n int) float64 {
	run.Servers = run.Servers[:n]
	return run.ServerCPU()
}

func (c Config) run(ctx context.Context, cfg load.Config, s side, m Mix, others []load.Process) (run report.Run, err error) {
	cfg.Servers = append(append([]load.Process(nil), cfg.Servers...), others...)
	shared, err := workload.NewShared(c.spec(m))
	if err != nil {
		return run, err
	}
	err = s.with(ctx, func(t target.Target) error {
		run, err = load.Run(ctx, cfg, shared, t)
		return err
	})
	return run, err
}

// syncs runs one turn of puts with strace attached. Its rate says nothing, since strace slows the servers down.
func (c Config) syncs(ctx context.Context, s side, file string) (report.Syncs, error) {
	out := report.Syncs{Name: s.name}
	var pids []int
	for _, p := range s.procs {
		pids = append(pids, p.PID)
	}
	count, err := startCounter(ctx, file, pids)
	if err != nil {
		return out, err
	}
	cfg := c.Load
	cfg.Connections, cfg.WarmUp = c.Connections[0], 0
	run, err := c.run(ctx, cfg, s, Mix{Name: "put"}, nil)
	calls, stopErr := count.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return out, err
	}
	out.Calls, out.Puts = calls, float64(run.All.Count)
	return out, nil
}
