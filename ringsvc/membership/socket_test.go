package membership

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/rs/zerolog"
)

// TestSockets runs three encrypted nodes on loopback sockets in real time: they meet, one changes, one leaves.
func TestSockets(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	keys := keyFile(t, 1)
	nodes := make([]*Cluster, 3)
	for i := range nodes {
		nodes[i] = open(t, Config{
			Name: "node-" + string(rune('0'+i)), BindAddr: "localhost:0", Interval: 200 * time.Millisecond,
			KeyFile: keys, Local: local(i), Logger: zerolog.Nop(),
		})
		if i > 0 {
			join(t, nodes[i], nodes[0].GossipAddr())
		}
	}
	until := func(what string, condition func() bool) {
		t.Helper()
		for !condition() {
			select { // the wake-up every few seconds bounds the wait should another test's look have taken this one
			case <-nodes[0].Changed():
			case <-nodes[1].Changed():
			case <-ctx.Done():
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	until("three alive", complete(nodes, 3))
	if err := nodes[2].SetLocal(func(m *Member) { m.Acked.Epoch = 50 }); err != nil {
		t.Fatal(err)
	}
	until("the change", func() bool { return seen(nodes[0], 2).Acked.Epoch == 50 && seen(nodes[1], 2).Acked.Epoch == 50 })
	if got := seen(nodes[0], 2).GossipAddr; got != nodes[2].GossipAddr() {
		t.Errorf("seen at %s, is at %s", got, nodes[2].GossipAddr())
	}
	if err := nodes[2].Leave(ctx); err != nil {
		t.Error(err)
	}
	until("left", status(nodes[:2], 2, Left))

	if c, err := New(Config{Name: "late", BindAddr: nodes[0].GossipAddr(), KeyFile: t.TempDir(), Logger: zerolog.Nop()}); err == nil {
		t.Error("a directory is no key file")
		t.Error(c.Close())
	}
	if _, err := nodes[0].Join(ctx, []string{"127.0.0.1:no-port"}); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("an address without a port: %v", err)
	}
}

func TestAdvertise(t *testing.T) {
	ml := memberlist.DefaultLANConfig()
	if err := setAddresses(ml, ":7201", "127.0.0.7:7301"); err != nil {
		t.Fatal(err)
	}
	if ml.BindAddr != "0.0.0.0" || ml.BindPort != 7201 || ml.AdvertiseAddr != "127.0.0.7" || ml.AdvertisePort != 7301 {
		t.Errorf("listens on %s:%d, advertises %s:%d", ml.BindAddr, ml.BindPort, ml.AdvertiseAddr, ml.AdvertisePort)
	}
}
