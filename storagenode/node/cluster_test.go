package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
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

const patience = 30 * time.Second

// freeAddr finds a loopback port that neither TCP nor UDP holds.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
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
		cfg.GRPCAddr, cfg.GossipAddr, cfg.AdminAddr = "127.0.0.1:0", gossip[i], "127.0.0.1:0"
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
				t.Logf("%s:\n%s", m.cfg.Name, m.logs)
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
	next    uint64
	err     error
}

func dial(m *member, cluster []byte) *client {
	m.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+m.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec()), grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes)))
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{t: m.t, api: storagev1.NewStorageClient(conn), answers: make(chan *storagev1.Response, 100_000)}
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

// A cluster forms from three nodes started at once, whichever is first.
func TestFormsFromAnyOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			all := members(t, 3, nil)
			began := time.Now()
			for _, i := range order {
				all[i].start()
			}
			settle(t, all)
			t.Logf("formed in %v", time.Since(began))
			founded := 0
			for _, m := range all {
				founded += m.logs.count("cluster founded")
			}
			if founded != 1 {
				t.Errorf("%d nodes founded a cluster", founded)
			}
		})
	}
}

// One node, then two, then three: what was written before is on the newcomers once the layout has settled.
func TestGrowsWithData(t *testing.T) {
	t.Parallel()
	all := members(t, 3, func(i int, c *node.Config) {
		c.Join = c.Join[:1] // the first founds alone; the others know only it
	})
	want := map[string]string{}
	write := func(upTo int, live ...ring.LayoutID) {
		// A write is complete only on all live owners; a record that the mint made goes to the others as a gateway does.
		c := dial(all[0], nil)
		for i := len(want); i < upTo; i++ {
			key, value := fmt.Sprintf("key-%d", i), strings.Repeat(fmt.Sprint(i), 50)
			c.put(names(live...), key, value)
			want[key] = value
		}
	}
	all[0].start()
	one := settle(t, all[:1])
	write(300, one)
	all[1].start()
	two := settle(t, all[:2])
	second := dial(all[1], nil)
	for key, value := range want {
		second.wantValue(names(two), key, value)
	}
	all[2].start()
	three := settle(t, all)
	third := dial(all[2], nil)
	for key, value := range want {
		third.wantValue(names(three), key, value)
	}
	if one.Epoch >= two.Epoch || two.Epoch >= three.Epoch {
		t.Errorf("epochs %v %v %v", one, two, three)
	}
	resp, err := third.api.GetNode(t.Context(), &storagev1.GetNodeRequest{})
	if err != nil || resp.GetKeys() != 300 || resp.GetState() != "ready" || resp.GetSynced().GetEpoch() != three.Epoch ||
		resp.GetAcked().GetEpoch() != three.Epoch || ring.NodeID(resp.GetId()) != all[2].ID() {
		t.Errorf("node says %v, %v", resp, err)
	}
}

// Stopped all at once and started again, the nodes come back with the same ring and data, and never with an actor used
// before.
func TestRestartKeepsRingAndData(t *testing.T) {
	t.Parallel()
	all := members(t, 3, func(_ int, c *node.Config) { c.Engine = node.EngineLevelDB })
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	ids := []ring.NodeID{all[0].ID(), all[1].ID(), all[2].ID()}
	actors := map[causal.Actor]bool{}
	for round := range 3 {
		for i, m := range all {
			c := dial(m, nil)
			key := fmt.Sprintf("key-%d-%d", round, i)
			if dot := c.put(names(id), key, "value of "+key); actors[dot.Actor] || dot.Counter != 1 {
				t.Errorf("round %d: dot %v", round, dot)
			} else {
				actors[dot.Actor] = true
			}
		}
		stopAll(all)
		for _, m := range all {
			m.start()
		}
		for i, m := range all {
			// The node serves from its own disk, whoever else is there.
			wait(t, "ready after a restart", m.Ready)
			if settled, _ := m.Layouts(); settled != id || m.ID() != ids[i] {
				t.Fatalf("%s came back with layout %v as %v, was %v as %v", m.cfg.Name, settled, m.ID(), id, ids[i])
			}
			c := dial(m, nil)
			for r := range round + 1 {
				key := fmt.Sprintf("key-%d-%d", r, i)
				c.wantValue(names(id), key, "value of "+key)
			}
		}
		if got := settle(t, all); got != id {
			t.Fatalf("layout changed from %v to %v by a restart", id, got)
		}
	}
}

// droppedData is an engine that was opened with its data gone, and noticed.
type droppedData struct{ engine.Engine }

func (droppedData) Suspect() bool { return true }

// A disk that lost what it had, the layout included, is refilled from the other owners before anything is read from it.
func TestLostDiskIsRefilled(t *testing.T) {
	t.Parallel()
	all := members(t, 3, nil)
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	var recs [][]byte
	for i, m := range all[:2] { // each holds a record that the other does not
		c := dial(m, nil)
		recs = append(recs, c.mint(names(id), fmt.Sprintf("key-%d", i), "short")[0].GetRecord())
	}
	lost := all[2]
	lost.stop()
	lost.open = func() (engine.Engine, error) { return droppedData{memory.New()}, nil }
	lost.start()
	settle(t, all)
	c := dial(lost, nil)
	for i, rec := range recs {
		if r := c.read(names(id), fmt.Sprintf("key-%d", i)); !bytes.Equal(r.GetRecord(), rec) {
			t.Errorf("key-%d after the refill: %v", i, r)
		}
	}
	if lost.logs.count("nothing here is served until") != 1 || lost.logs.count("cluster founded") != 0 {
		t.Error("there was no refill, or a cluster was founded")
	}
}

// After a change, requests that only know the layout before it are refused with the view, and their retry with the new
// one works.
func TestFencesOldLayouts(t *testing.T) {
	t.Parallel()
	all := members(t, 2, func(i int, c *node.Config) { c.Join = c.Join[:1] })
	all[0].start()
	old := settle(t, all[:1])
	c := dial(all[0], nil)
	c.put(names(old), "key", "first")
	all[1].start()
	now := settle(t, all)
	refused := c.mint(names(old), "key", "second")[0]
	if refused.GetStatus() != storagev1.Status_STATUS_FENCED {
		t.Fatalf("write by the old layout: %v", refused)
	}
	v, err := ring.DecodeView(refused.GetView())
	if err != nil || v.Settled().ID() != now {
		t.Fatalf("the refusal's view is %v, %v", v, err)
	}
	if r := c.read(names(old), "key"); r.GetStatus() != storagev1.Status_STATUS_FENCED || len(r.GetView()) == 0 {
		t.Errorf("read by the old layout: %v", r)
	}
	c.wantValue(names(now), "key", "first")
	c.put(names(now), "key", "second")
	c.wantValue(names(now), "key", "second")
	// A layout that nobody proposed is no way around the fence, however high its epoch looks beside a low settled one.
	if r := c.mint(names(old, ring.LayoutID{Epoch: 99}), "key", "third")[0]; r.GetStatus() != storagev1.Status_STATUS_FENCED {
		t.Errorf("write with a made-up layout: %v", r)
	}
}

func TestDeadlinePassed(t *testing.T) {
	all := members(t, 1, nil)
	all[0].start()
	id := settle(t, all)
	c := dial(all[0], nil)
	err := c.st.Send(&storagev1.Frame{Layouts: names(id), Requests: []*storagev1.Request{{Id: 1, Op: storagev1.Op_OP_READ, Key: []byte("k")}}})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-c.answers:
		if r.GetStatus() != storagev1.Status_STATUS_EXPIRED {
			t.Errorf("answer %v", r)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
}

// Two clusters that meet through gossip never merge, and say so.
func TestForeignCluster(t *testing.T) {
	all := members(t, 2, func(i int, c *node.Config) {
		c.Join = nil
		c.Engine = node.EngineLevelDB
	})
	for _, m := range all {
		m.start()
	}
	first, second := settle(t, all[:1]), settle(t, all[1:])
	foreign := view(all[1]).Cluster()
	c := dial(all[0], foreign[:])
	if r, ok := <-c.answers; ok {
		t.Fatalf("a stream of another cluster is answered %v", r)
	}
	if status.Code(c.err) != codes.FailedPrecondition {
		t.Errorf("refusal: %v", c.err)
	}
	_, err := c.api.ExchangeView(t.Context(), &storagev1.ExchangeViewRequest{View: all[1].View(), From: make([]byte, 16)})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a foreign view is answered %v", err)
	}
	_, err = c.api.Join(t.Context(), &storagev1.JoinRequest{Cluster: foreign[:], Id: bytes.Repeat([]byte{1}, 16), Name: "x", Weight: 1})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a foreign joiner is answered %v", err)
	}
	// They meet when one comes back with a join list that names the other.
	all[1].stop()
	all[1].cfg.Join = []string{all[0].cfg.GossipAddr}
	all[1].start()
	wait(t, "both complain", func() bool {
		return all[0].logs.count(`"peer":"node2","their_cluster"`) > 0 && all[1].logs.count(`"peer":"node1","their_cluster"`) > 0
	})
	wait(t, "the metric shows it", func() bool { return gauge(t, all[0], "dotring_node_foreign_members") == 1 })
	for i, want := range []ring.LayoutID{first, second} {
		if settled, newest := all[i].Layouts(); settled != want || newest != want {
			t.Errorf("layout of node%d changed from %v to %v", i+1, want, newest)
		}
		if n := all[i].logs.count(`"peer":"` + all[1-i].cfg.Name + `","their_cluster"`); n != 1 {
			t.Errorf("node%d complained %d times of its peer", i+1, n)
		}
	}
}

// A node that is pointed at a cluster of another label neither joins it nor founds one beside it.
func TestOtherLabel(t *testing.T) {
	all := members(t, 2, func(i int, c *node.Config) {
		c.Join, c.JoinWait = c.Join[:1], 100*time.Millisecond
		if i == 1 {
			c.Label = "other"
		}
	})
	all[0].start()
	settle(t, all[:1])
	all[1].start()
	wait(t, "a complaint", func() bool { return all[1].logs.count(`"same_label":false`) > 0 })
	if all[1].View() != nil || all[1].Ready() {
		t.Error("the node has a layout")
	}
	if settled, newest := all[0].Layouts(); settled != newest || len(view(all[0]).Settled().Members()) != 1 {
		t.Error("the node was taken in")
	}
}

// A data directory belongs to the label it was founded under.
func TestLabelStays(t *testing.T) {
	all := members(t, 1, func(_ int, c *node.Config) { c.Engine = node.EngineLevelDB })
	all[0].start()
	settle(t, all)
	all[0].stop()
	cfg := all[0].cfg
	cfg.Label = "other"
	n, err := node.New(cfg, node.Deps{Logger: zerolog.Nop(), Registry: prometheus.NewRegistry()})
	if err == nil {
		t.Error("started", n.Close())
	}
}

// gauge reads a metric without labels.
func gauge(t *testing.T, m *member, name string) float64 {
	t.Helper()
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// New releases everything when it fails half-way: what it holds can be taken at once by another.
func TestNewFailsClean(t *testing.T) {
	all := members(t, 1, nil)
	cfg := all[0].cfg
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bad := cfg
	bad.AdminAddr = taken.Addr().String()
	if _, err := node.New(bad, node.Deps{Logger: zerolog.Nop(), Registry: prometheus.NewRegistry()}); err == nil {
		t.Fatal("an address in use is accepted")
	}
	bad = cfg
	bad.GossipKeyFile = "/nonexistent"
	if _, err := node.New(bad, node.Deps{Logger: zerolog.Nop(), Registry: prometheus.NewRegistry()}); err == nil {
		t.Fatal("a missing key file is accepted")
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	all[0].start()
	settle(t, all)
	if _, err := node.New(cfg, node.Deps{Logger: zerolog.Nop(), Registry: prometheus.NewRegistry()}); err == nil {
		t.Error("a data directory in use is accepted")
	}
}

func TestAdmin(t *testing.T) {
	all := members(t, 1, nil)
	all[0].start()
	settle(t, all)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "dotring_node_layout_settled_epoch 1", "/debug/pprof/": "goroutine"} {
		resp, err := http.Get("http://" + all[0].AdminAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if cerr := resp.Body.Close(); err != nil || cerr != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(b), want) {
			t.Errorf("%s: %s %v %v, without %q", path, resp.Status, err, cerr, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	problems, err := testutil.GatherAndLint(all[0].reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "dotring_node") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// Watchers hear of every change, views and members.
func TestWatch(t *testing.T) {
	t.Parallel()
	all := members(t, 2, func(i int, c *node.Config) { c.Join = c.Join[:1] })
	all[0].start()
	settle(t, all[:1])
	c := dial(all[0], nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st, err := c.api.Watch(ctx, &storagev1.WatchRequest{Peer: make([]byte, 16)})
	if err != nil {
		t.Fatal(err)
	}
	all[1].start()
	now := settle(t, all)
	for {
		w, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		v, err := ring.DecodeView(w.GetView())
		if err != nil {
			t.Fatal(err)
		}
		alive := slices.ContainsFunc(w.GetMembers(), func(m *storagev1.Member) bool {
			return m.GetName() == "node2" && m.GetStatus() == "alive" && m.GetGrpcAddr() == all[1].GRPCAddr() && ring.NodeID(m.GetId()) == all[1].ID()
		})
		if v.Settled().ID() == now && alive {
			return
		}
	}
}
