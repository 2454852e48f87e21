// Package localcluster runs a whole cluster on this machine, each storage node and gateway a process of its own: what
// `make run` starts, and what the end-to-end tests break.
package localcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Ports of the first node and gateway of each kind; the next ones follow. All are on loopback.
const (
	nodeGRPCPort     = 7101
	nodeGossipPort   = 7201
	nodeAdminPort    = 7301
	gatewayHTTPPort  = 8080
	gatewayGRPCPort  = 9080
	gatewayAdminPort = 9180
)

// MaxNodes and MaxGateways bound a local cluster: with more, the port ranges above would run into each other.
const (
	MaxNodes    = 99
	MaxGateways = 99
)

// Config describes a local cluster.
type Config struct {
	// Bin is the folder of the programs dotring-storagenode and dotring-gateway.
	Bin string
	// Data is the folder that holds one folder per process (data and log); created when missing.
	Data string
	// Nodes and Gateways are how many processes to prepare, 1 to MaxNodes and 0 to MaxGateways.
	Nodes, Gateways int
	// FreePorts reserves ports until Release, instead of taking the well-known ones, so that clusters do not meet. It
	// means nothing where each process has a host of its own.
	FreePorts bool
	// Secure makes certificates, gossip keys and access rules, once per data folder, and gives them to all processes.
	Secure bool
	// NodeArgs and GatewayArgs are added to every command line.
	NodeArgs, GatewayArgs []string
	// NodeWrap and GatewayWrap, where set, are commands that run the programs, which are added to them: taskset, say.
	NodeWrap, GatewayWrap []string
	// Zones, where set, are dealt out to the nodes in turn.
	Zones []string
	// Places, where set, are the addresses of the hosts that processes run on and the words that start a command there:
	// those of the nodes first, then those of the gateways. All are then told to listen beyond loopback.
	Places []Place
}

// Place is where a process runs: in a network namespace, for example.
type Place struct {
	Host   string   // an IP address
	Prefix []string // before the command line; it must replace itself by the command
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		faults = append(faults, fmt.Errorf("nodes: %d is not between 1 and %d", c.Nodes, MaxNodes))
	}
	if c.Gateways < 0 || c.Gateways > MaxGateways {
		faults = append(faults, fmt.Errorf("gateways: %d is not between 0 and %d", c.Gateways, MaxGateways))
	}
	if len(c.Places) > 0 && len(c.Places) != c.Nodes+c.Gateways {
		faults = append(faults, fmt.Errorf("places: %d for %d processes", len(c.Places), c.Nodes+c.Gateways))
	}
	if c.Data == "" {
		faults = append(faults, errors.New("data: no folder named"))
	}
	for _, p := range []string{"dotring-storagenode", "dotring-gateway"} {
		if _, err := os.Stat(filepath.Join(c.Bin, p)); err != nil {
			faults = append(faults, fmt.Errorf("bin: %w", err))
		}
	}
	return errors.Join(faults...)
}

// Cluster is a set of prepared processes; none runs until it is started. Not safe for concurrent use, except that
// different processes may be driven by different goroutines.
type Cluster struct {
	Nodes    []*Process
	Gateways []*Process
	client   *http.Client
	ports    *Ports // nil with the well-known ports
	scheme   string // of the gateways
}

// URL is where a gateway serves HTTP, without a path.
func (c *Cluster) URL(g *Process) string { return c.scheme + "://" + g.HTTP }

// Client is an HTTP client that may do everything, for a Secure cluster too. Its requests end after 2 s.
func (c *Cluster) Client() *http.Client { return c.client }

// New prepares a cluster's folders and command lines. It starts nothing. A data folder that was used before is used
// again. The caller stops what it started, then calls Release.
func New(cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Data, 0o755); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	keyFile, err := contextKey(cfg.Data)
	if err != nil {
		return nil, err
	}
	c := &Cluster{scheme: "http", client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}}
	if cfg.Secure {
		files, err := secrets(cfg.Data)
		if err != nil {
			return nil, err
		}
		if c.client, err = files.client(); err != nil {
			return nil, err
		}
		c.scheme = "https"
		cfg.NodeArgs = append(files.nodeArgs(), cfg.NodeArgs...)
		cfg.GatewayArgs = append(files.gatewayArgs(), cfg.GatewayArgs...)
	}
	if cfg.FreePorts && len(cfg.Places) == 0 {
		if c.ports, err = ReservePorts(); err != nil {
			return nil, err
		}
	}
	if err := c.prepare(cfg, keyFile); err != nil {
		return nil, errors.Join(err, c.Release())
	}
	return c, nil
}

// prepare names every process's addresses and command line.
func (c *Cluster) prepare(cfg Config, keyFile string) error {
	ports := portPicker{reserved: c.ports, host: "127.0.0.1"}
	var beyond []string
	if len(cfg.Places) > 0 {
		beyond = []string{"--insecure=true"}
	}
	var gossip, grpc []string
	for i := range cfg.Nodes {
		prefix := append(ports.place(cfg.Places, i), cfg.NodeWrap...)
		p := &Process{
			prefix: prefix,
			Name:   fmt.Sprintf("node%d", i+1), Kind: "storage node", program: filepath.Join(cfg.Bin, "dotring-storagenode"),
			GRPC: ports.pick(nodeGRPCPort + i), Gossip: ports.pick(nodeGossipPort + i), Admin: ports.pick(nodeAdminPort + i),
		}
		gossip, grpc = append(gossip, p.Gossip), append(grpc, p.GRPC)
		c.Nodes = append(c.Nodes, p)
	}
	for i, p := range c.Nodes {
		p.dir = filepath.Join(cfg.Data, p.Name)
		p.args = []string{"--name", p.Name, "--data-dir", filepath.Join(p.dir, "data"), "--grpc-addr", p.GRPC,
			"--gossip-addr", p.Gossip, "--admin-addr", p.Admin, "--join", strings.Join(without(gossip, i), ",")}
		if len(cfg.Zones) > 0 {
			p.args = append(p.args, "--zone", cfg.Zones[i%len(cfg.Zones)])
		}
		p.args = append(append(p.args, beyond...), cfg.NodeArgs...)
	}
	for i := range cfg.Gateways {
		prefix := append(ports.place(cfg.Places, cfg.Nodes+i), cfg.GatewayWrap...)
		p := &Process{
			prefix: prefix,
			Name:   fmt.Sprintf("gateway%d", i+1), Kind: "gateway", program: filepath.Join(cfg.Bin, "dotring-gateway"),
			HTTP: ports.pick(gatewayHTTPPort + i), GRPC: ports.pick(gatewayGRPCPort + i), Admin: ports.pick(gatewayAdminPort + i),
		}
		p.dir = filepath.Join(cfg.Data, p.Name)
		p.args = append([]string{"--name", p.Name, "--http-addr", p.HTTP, "--grpc-addr", p.GRPC, "--admin-addr", p.Admin,
			"--storage-nodes", strings.Join(grpc, ","), "--context-key-file", keyFile, "--drain-delay", "0s"}, beyond...)
		p.args = append(p.args, cfg.GatewayArgs...)
		c.Gateways = append(c.Gateways, p)
	}
	return ports.err
}

// portPicker names the addresses of a cluster: well-known ones, or reserved ones.
type portPicker struct {
	reserved *Ports
	host     string
	err      error
}

// place turns to the host of the process i, and returns the words that start a command there.
func (p *portPicker) place(places []Place, i int) []string {
	if len(places) == 0 {
		return nil
	}
	p.host = places[i].Host
	return slices.Clone(places[i].Prefix)
}

func (p *portPicker) pick(port int) string {
	if p.reserved == nil {
		return net.JoinHostPort(p.host, strconv.Itoa(port))
	}
	addr, err := p.reserved.Next()
	if err != nil && p.err == nil {
		p.err = err
	}
	return addr
}

func without(all []string, i int) []string {
	return append(append([]string(nil), all[:i]...), all[i+1:]...)
}

// contextKey makes the key that the local gateways sign contexts with, once per data folder.
func contextKey(dir string) (string, error) {
	path, err := filepath.Abs(filepath.Join(dir, "context.key"))
	if err != nil {
		return "", fmt.Errorf("find data folder: %w", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find context key: %w", err)
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("make context key: %w", err)
	}
	if err := os.WriteFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write context key: %w", err)
	}
	return path, nil
}

// CheckPorts names every address of the cluster that another process holds.
func (c *Cluster) CheckPorts() error {
	var busy []error
	for _, p := range c.All() {
		for _, addr := range p.addrs() {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				busy = append(busy, fmt.Errorf("%s of %s is taken: %w", addr, p.Name, err))
				continue
			}
			if err := l.Close(); err != nil {
				busy = append(busy, err)
			}
		}
	}
	return errors.Join(busy...)
}

// All lists the processes, nodes first.
func (c *Cluster) All() []*Process {
	return append(append([]*Process(nil), c.Nodes...), c.Gateways...)
}

// Start starts every process that is not running, and returns at once; WaitReady waits.
func (c *Cluster) Start() error {
	for _, p := range c.All() {
		if p.Running() {
			continue
		}
		if err := p.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends all processes: gateways first, so that what is in flight can finish, then nodes. It waits at most timeout
// for each tier to end by itself, then kills.
func (c *Cluster) Stop(timeout time.Duration) error {
	var errs []error
	for _, tier := range [][]*Process{c.Gateways, c.Nodes} {
		for _, p := range tier {
			errs = append(errs, p.Terminate())
		}
		deadline := time.NewTimer(timeout)
		for _, p := range tier {
			select {
			case <-p.Exited():
			case <-deadline.C:
				deadline.Reset(0)
				errs = append(errs, fmt.Errorf("%s did not stop within %v", p.Name, timeout), p.Kill())
			}
		}
		deadline.Stop()
	}
	c.client.CloseIdleConnections()
	return errors.Join(errs...)
}

// Release gives reserved ports back, after Stop. Without FreePorts it does nothing.
func (c *Cluster) Release() error {
	if c.ports == nil {
		return nil
	}
	return c.ports.Release()
}

// WaitReady waits until every gateway that was started is ready and, where settled is not 0, sees a settled layout of
// that many members. A gateway that has ended is an error.
func (c *Cluster) WaitReady(ctx context.Context, settled int) error {
	for _, g := range c.Gateways {
		if !g.Started() {
			continue
		}
		if err := c.Poll(ctx, func() error { return c.gatewayReady(ctx, g, settled) }); err != nil {
			return fmt.Errorf("%s is not ready: %w", g.Name, err)
		}
	}
	return nil
}

// Poll calls try every 20 ms until it returns nil or errEnded, or ctx ends; then it returns the last error.
func (c *Cluster) Poll(ctx context.Context, try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}
