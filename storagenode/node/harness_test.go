package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/node"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, leaks...)
}

// leaks are goroutines that libraries end in their own time.
var leaks = []goleak.Option{
	goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb/util.(*BufferPool).drain"), // up to a second after Close
	goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
	goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"), // until its probe times out
}

// patience is how long something that must come may take: a shared machine may stand still for longer than anyone would think.
const patience = 90 * time.Second

// The harness's own ports: below those that the system gives to outgoing connections, which could take one before the
// node listens on it, and above those of the clusters that other packages' tests run meanwhile.
const lowestPort, highestPort = 27_500, 31_000

// ports counts the ports given, so that none is given twice in a run.
var ports atomic.Uint32

// freeAddr finds a loopback port that neither TCP nor UDP holds.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 200 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lowestPort+ports.Add(1)%(highestPort-lowestPort)))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		addr := l.Addr().String()
		if cerr := l.Close(); cerr != nil {
			t.Fatal(cerr)
		}
		if err != nil {
			continue
		}
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port")
	return ""
}

// member is a node that can be stopped and started again.
type member struct {
	t    *testing.T
	cfg  node.Config
	logs *logs
	reg  *prometheus.Registry
	open engine.Opener // instead of the one that cfg names

	*node.Node
	cancel context.CancelFunc
	ran    chan error
}

// logs keeps what a node logs. Safe for concurrent use.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// essence is what is logged without the lines that come again while one of the join list is not there, from the last ones back as much as one
// reads.
func (l *logs) essence() string {
	const most = 60
	var kept []string
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, "gossip address not reached") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(len(kept)-most, 0):], "")
}

func (l *logs) count(text string) int { return strings.Count(l.String(), text) }

// members prepares nodes whose join lists name all of them.
func members(t *testing.T, n int, change func(i int, c *node.Config)) []*member {
	t.Helper()
	dir := t.TempDir()
	var gossip []string
	for range n {
		gossip = append(gossip, freeAddr(t))
	}
	var out []*member
	for i := range n {
		cfg := node.Default()
		cfg.Name = fmt.Sprintf("node%d", i+1)
		cfg.DataDir = filepath.Join(dir, cfg.Name)
		cfg.GRPCAddr, cfg.GossipAddr, cfg.AdminAddr = freeAddr(t), gossip[i], "127.0.0.1:0"
		cfg.Join = gossip
		cfg.Engine = node.EngineMemory
		cfg.Workers = 4
		cfg.DrainWait = 2 * time.Second
		if change != nil {
			change(i, &cfg)
		}
		out = append(out, &member{t: t, cfg: cfg, logs: &logs{}})
	}
	t.Cleanup(func() {
		stopAll(out)
		for _, m := range out {
			if t.Failed() {
				t.Logf("%s:\n%s", m.cfg.Name, m.logs.essence())
			}
		}
	})
	return out
}

func (m *member) start() {
	m.t.Helper()
	m.reg = prometheus.NewRegistry()
	n, err := node.New(m.cfg, node.Deps{Logger: zerolog.New(m.logs), Registry: m.reg, Open: m.open})
	if err != nil {
		m.t.Fatal(err)
	}
	m.Node = n
	m.cfg.GRPCAddr = n.GRPCAddr() // a restart keeps the address
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.ran = make(chan error, 1)
	go func() { m.ran <- n.Run(ctx) }()
}

// stopAll stops nodes at the same time: each may wait for gossip that is under way.
func stopAll(all []*member) {
	var stopping sync.WaitGroup
	for _, m := range all {
		stopping.Go(m.stop)
	}
	stopping.Wait()
}

// stop ends the node as a signal does.
func (m *member) stop() {
	m.t.Helper()
	if m.Node == nil {
		return
	}
	m.cancel()
	select {
	case err := <-m.ran:
		if err != nil {
			m.t.Errorf("%s ended with %v", m.cfg.Name, err)
		}
	case <-time.After(patience):
		m.t.Errorf("%s does not stop", m.cfg.Name)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		m.t.Errorf("close %s: %v", m.cfg.Name, err)
	}
	m.Node = nil
}

// wait waits for a condition, asked again at each tick.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still not: %s", what)
		}
	}
}

// settle waits until all know one settled layout with as many members, and returns it.
func settle(t *testing.T, all []*member) ring.LayoutID {
	t.Helper()
	var id ring.LayoutID
	wait(t, fmt.Sprintf("%d nodes in one settled layout", len(all)), func() bool {
		for i, m := range all {
			v := view(m)
			if v == nil || v.Settled().ID() != v.Newest().ID() || len(v.Settled().Members()) != len(all) || !m.Ready() {
				return false
			}
			if i == 0 {
				id = v.Settled().ID()
			}
			if v.Settled().ID() != id {
				return false
			}
		}
		return true
	})
	return id
}

func view(m *member) *ring.View {
	b := m.View()
	if b == nil {
		return nil
	}
	v, err := ring.DecodeView(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

// client speaks to one node over one stream.
type client struct {
	t       *testing.T
	api     storagev1.StorageClient
	st      grpc.BidiStreamingClient[storagev1.Frame, storagev1.Frame]
	answers chan *storagev1.Response
	first   chan struct{} // closed when beat is first set
	beat    atomic.Uint64 // the node's last heartbeat number
	next    uint64
	err     error
}

// heard is the node's last heartbeat number, once it has sent one.
func (c *client) heard() uint64 {
	c.t.Helper()
	select {
	case <-c.first:
	case <-time.After(patience):
		c.t.Fatal("no heartbeat")
	}
	return c.beat.Load()
}

func dial(m *member, cluster []byte) *client {
	m.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+m.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes)))
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{t: m.t, api: storagev1.NewStorageClient(conn), answers: make(chan *storagev1.Response, 100_000), first: make(chan struct{})}
	if c.st, err = c.api.Exchange(ctx); err != nil {
		m.t.Fatal(err)
	}
	if err := c.st.Send(&storagev1.Frame{Hello: &storagev1.Hello{Version: 1, Cluster: cluster, Peer: make([]byte, 16)}}); err != nil {
		m.t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(c.answers)
		for {
			f, err := c.st.Recv()
			if err != nil {
				c.err = err
				return
			}
			if n := f.GetHeartbeat(); n != 0 && c.beat.Swap(n) == 0 {
				close(c.first)
			}
			for _, r := range f.GetResponses() {
				c.answers <- r
			}
		}
	})
	m.t.Cleanup(func() {
		cancel()
		reading.Wait()
		if err := conn.Close(); err != nil {
			m.t.Error(err)
		}
	})
	return c
}

func names(ids ...ring.LayoutID) []*storagev1.LayoutName {
	var out []*storagev1.LayoutName
	for _, id := range ids {
		out = append(out, &storagev1.LayoutName{Epoch: id.Epoch, Hash: id.Hash[:]})
	}
	return out
}

// do sends one request and returns its answers, the last one final.
func (c *client) do(layouts []*storagev1.LayoutName, r *storagev1.Request) []*storagev1.Response {
	c.t.Helper()
	c.next++
	r.Id, r.TimeoutMs = c.next, 20_000
	r.Heard = c.heard()
	if err := c.st.Send(&storagev1.Frame{Layouts: layouts, Requests: []*storagev1.Request{r}}); err != nil {
		c.t.Fatal(err)
	}
	var out []*storagev1.Response
	for {
		select {
		case resp, ok := <-c.answers:
			if !ok {
				c.t.Fatalf("stream ended: %v", c.err)
			}
			if resp.GetId() != r.GetId() {
				c.t.Fatalf("answer %v to request %d", resp, r.GetId())
			}
			out = append(out, resp)
			if r.GetOp() != storagev1.Op_OP_MINT || resp.GetStatus() != storagev1.Status_STATUS_OK || resp.GetDurable() {
				return out
			}
		case <-time.After(patience):
			c.t.Fatalf("no answer to %v", r)
		}
	}
}

func (c *client) mint(layouts []*storagev1.LayoutName, key, value string) []*storagev1.Response {
	c.t.Helper()
	return c.do(layouts, &storagev1.Request{Op: storagev1.Op_OP_MINT, Key: []byte(key), Value: []byte(value), ContentType: "text/plain",
		Checksum: record.Checksum([]byte(value))})
}

func (c *client) read(layouts []*storagev1.LayoutName, key string) *storagev1.Response {
	c.t.Helper()
	return c.do(layouts, &storagev1.Request{Op: storagev1.Op_OP_READ, Key: []byte(key)})[0]
}

// put mints a key and insists that it is durable.
func (c *client) put(layouts []*storagev1.LayoutName, key, value string) causal.Dot {
	c.t.Helper()
	all := c.mint(layouts, key, value)
	last := all[len(all)-1]
	if last.GetStatus() != storagev1.Status_STATUS_OK || !last.GetDurable() {
		c.t.Fatalf("put %s: %v", key, last)
	}
	return causal.Dot{Actor: causal.Actor(all[0].GetDotActor()), Counter: all[0].GetDotCounter()}
}

// wantValue insists that the node holds the value, byte for byte.
func (c *client) wantValue(layouts []*storagev1.LayoutName, key, value string) {
	c.t.Helper()
	r := c.read(layouts, key)
	if r.GetStatus() != storagev1.Status_STATUS_OK {
		c.t.Fatalf("read %s: %v", key, r)
	}
	set, err := record.Decode([]byte(key), r.GetRecord())
	if err != nil || len(set.Siblings) != 1 || string(set.Siblings[0].Value) != value {
		c.t.Fatalf("read %s: %+v, %v", key, set, err)
	}
}
