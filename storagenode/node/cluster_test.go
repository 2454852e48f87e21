package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
	"github.com/dotring/dotring/storagenode/node"
)

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
	founded := lost.logs.count("cluster founded") // it may have been the one that founded
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
	if lost.logs.count("nothing of it is served until") != 1 || lost.logs.count("cluster founded") != founded {
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

// Watchers hear of every change, views and members; those who read briefs are sent what they do not know yet.
func TestWatch(t *testing.T) {
	t.Parallel()
	for _, brief := range []bool{false, true} {
		t.Run(fmt.Sprintf("brief=%v", brief), func(t *testing.T) {
			t.Parallel()
			all := members(t, 2, func(i int, c *node.Config) { c.Join = c.Join[:1] })
			all[0].start()
			settle(t, all[:1])
			c := dial(all[0], nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			st, err := c.api.Watch(ctx, &storagev1.WatchRequest{Peer: make([]byte, 16), Brief: brief})
			if err != nil {
				t.Fatal(err)
			}
			// Wait for the first message, so that there is something to leave out.
			first, err := st.Recv()
			if err != nil {
				t.Fatal(err)
			}
			v, err := ring.DecodeView(first.GetView())
			if err != nil {
				t.Fatal(err)
			}
			all[1].start()
			now := settle(t, all)
			alive, briefs := false, 0
			for !alive || v.Settled().ID() != now {
				w, err := st.Recv()
				if err != nil {
					t.Fatal(err)
				}
				switch b := w.GetView(); {
				case ring.IsBrief(b):
					briefs++
					v, err = ring.DecodeBrief(b, v)
				case ring.IsShort(b):
					briefs++
					v, err = ring.DecodeViewFor(b, v.Settled())
				default:
					v, err = ring.DecodeView(b)
				}
				if err != nil {
					t.Fatal(err)
				}
				alive = alive || slices.ContainsFunc(w.GetMembers(), func(m *storagev1.Member) bool {
					return m.GetName() == "node2" && m.GetStatus() == "alive" && m.GetGrpcAddr() == all[1].GRPCAddr() && ring.NodeID(m.GetId()) == all[1].ID()
				})
			}
			if !brief && briefs > 0 {
				t.Error("one who does not read briefs was sent some")
			}
		})
	}
}
