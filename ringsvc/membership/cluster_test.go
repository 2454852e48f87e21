package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/dotring/dotring/ringsvc/membership/memtransport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test in fake time. When it is over and every node closed, no goroutine may be left but those that end by
// themselves within ten seconds, which is how long serf may dwell on a dial; synctest fails the test otherwise.
func bubble(t *testing.T, test func(t *testing.T, n *memtransport.Network)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(11 * time.Second) })
		test(t, memtransport.New(1))
	})
}

func address(i int) string { return fmt.Sprintf("10.0.%d.%d:7201", i/250, i%250+1) }

// local is what the i-th node says of itself.
func local(i int) Member {
	m := Member{
		GRPCAddr: fmt.Sprintf("10.0.0.%d:7101", i), AdminAddr: fmt.Sprintf("10.0.0.%d:7301", i),
		Zone: string(rune('a' + i%3)), Weight: 1 + float64(i)/4,
		Newest: Mark{Epoch: uint64(i) + 3, Hash: [8]byte{3, byte(i)}},
		Acked:  Mark{Epoch: uint64(i) + 2, Hash: [8]byte{2, byte(i)}},
		Synced: Mark{Epoch: uint64(i) + 1, Hash: [8]byte{1, byte(i)}},
	}
	m.ID[0], m.ID[15] = byte(i>>8)+1, byte(i)
	m.Cluster[3], m.Actor[7] = 42, byte(i)+1
	return m
}

// config is that of the i-th node at its usual address.
func config(t *testing.T, n *memtransport.Network, i int) Config {
	t.Helper()
	tr, err := n.Listen(address(i))
	if err != nil {
		t.Fatal(err)
	}
	return Config{Name: fmt.Sprintf("node-%d", i), Local: local(i), Logger: zerolog.Nop(), Transport: tr}
}

// open starts a node and closes it at the end of the test.
func open(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// cluster starts count nodes that have joined the first.
func cluster(t *testing.T, n *memtransport.Network, count int) []*Cluster {
	t.Helper()
	nodes := make([]*Cluster, count)
	for i := range nodes {
		nodes[i] = open(t, config(t, n, i))
		if i > 0 {
			join(t, nodes[i], address(0))
		}
	}
	return nodes
}

// spreads is within which time news reach everyone, also one whom gossip misses by chance: with the next exchange of states.
const spreads = 2 * pushPullInterval

func join(t *testing.T, c *Cluster, addrs ...string) {
	t.Helper()
	if reached, err := c.Join(t.Context(), addrs); err != nil || reached != len(addrs) {
		t.Fatalf("joined %d of %v: %v", reached, addrs, err)
	}
}

// within waits in fake time until the condition holds, and returns how long that took.
func within(t *testing.T, limit time.Duration, what string, condition func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !condition() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// seen returns what a node knows about the i-th one.
func seen(c *Cluster, i int) Member {
	for _, m := range c.Members() {
		if m.Name == fmt.Sprintf("node-%d", i) {
			return m
		}
	}
	return Member{}
}

// status tells whether all nodes see the i-th one in a state.
func status(nodes []*Cluster, i int, want Status) func() bool {
	return func() bool {
		for _, c := range nodes {
			if seen(c, i).Status != want {
				return false
			}
		}
		return true
	}
}

// complete tells whether each of the nodes sees that many alive.
func complete(nodes []*Cluster, count int) func() bool {
	return func() bool {
		for _, c := range nodes {
			alive := 0
			for _, m := range c.Members() {
				if m.Status == Alive {
					alive++
				}
			}
			if alive != count {
				return false
			}
		}
		return true
	}
}

func TestNodesSeeEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		nodes := cluster(t, n, 3)
		within(t, spreads, "three alive everywhere", complete(nodes, 3))
		for at, c := range nodes {
			members := c.Members()
			for i := range nodes {
				want := local(i)
				want.Name, want.GossipAddr, want.Status = fmt.Sprintf("node-%d", i), address(i), Alive
				if members[i] != want {
					t.Errorf("node %d sees\n%+v, want\n%+v", at, members[i], want)
				}
			}
			if got := c.GossipAddr(); got != address(at) {
				t.Errorf("node %d gossips at %s", at, got)
			}
		}
	})
}

func TestSetLocalReachesAll(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		nodes := cluster(t, n, 5)
		within(t, spreads, "all alive", complete(nodes, 5))
		for _, c := range nodes {
			for len(c.Changed()) > 0 {
				<-c.Changed()
			}
		}
		// A burst of changes: only the last matters, and it must not be the one that is lost.
		for epoch := range uint64(100) {
			err := nodes[1].SetLocal(func(m *Member) {
				m.Newest.Epoch = 1000 + epoch
				m.Name, m.GossipAddr, m.Status = "other", "nowhere", Left
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := seen(nodes[1], 1); got.Newest.Epoch != 1099 || got.Status != Alive || got.GossipAddr != address(1) {
			t.Errorf("the node sees itself as %+v", got)
		}
		took := within(t, spreads, "the change everywhere", func() bool {
			for _, c := range nodes {
				if seen(c, 1).Newest.Epoch != 1099 {
					return false
				}
			}
			return true
		})
		t.Logf("after %v", took)
		for i, c := range nodes {
			select {
			case <-c.Changed():
			case <-time.After(time.Second):
				t.Errorf("node %d was not woken", i)
			}
		}
	})
}

// TestSettings holds what could not be noticed in a short test.
func TestSettings(t *testing.T) {
	for _, test := range []struct{ interval, probe, timeout time.Duration }{
		{0, time.Second, 500 * time.Millisecond},
		{-1, time.Second, 500 * time.Millisecond},
		{5 * time.Second, 5 * time.Second, 500 * time.Millisecond},
		{200 * time.Millisecond, 200 * time.Millisecond, 100 * time.Millisecond},
	} {
		conf, err := serfConfig(Config{Name: "node", BindAddr: "127.0.0.1:7201", Interval: test.interval}, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		ml := conf.MemberlistConfig
		if ml.ProbeInterval != test.probe || ml.ProbeTimeout != test.timeout {
			t.Errorf("interval %v: probes each %v for %v", test.interval, ml.ProbeInterval, ml.ProbeTimeout)
		}
		if conf.ReconnectTimeout < 7*24*time.Hour {
			t.Errorf("a failed member is forgotten after %v", conf.ReconnectTimeout)
		}
		if ml.RetransmitMult < 6 || conf.MinQueueDepth < 4096 {
			t.Errorf("too thrifty for hundreds of nodes: retransmissions %d, queue %d", ml.RetransmitMult, conf.MinQueueDepth)
		}
		if conf.SnapshotPath != "" || !ml.GossipVerifyIncoming || !ml.GossipVerifyOutgoing || !conf.EnableNameConflictResolution {
			t.Error("a snapshot loses events, unverified gossip is no secret, twins must not live")
		}
	}
}

func TestChangedFiresWithoutEvents(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		c := open(t, config(t, n, 0))
		for range 5 {
			select {
			case <-c.Changed():
			case <-time.After(reconcileInterval + time.Second):
				t.Fatal("no wake-up")
			}
		}
	})
}

func TestCrashAndReturn(t *testing.T) {
	tests := []struct {
		name  string
		wait  time.Duration // after the failure was noticed
		addr  int           // of the new life
		limit time.Duration
	}{
		{"same address", 0, 2, 2 * time.Second},
		{"same address, much later", 20 * time.Minute, 2, 2 * time.Second},
		{"other address", reclaimTime + time.Second, 7, 2 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *memtransport.Network) {
				nodes := cluster(t, n, 4)
				within(t, spreads, "all alive", complete(nodes, 4))
				if err := nodes[2].Close(); err != nil {
					t.Fatal(err)
				}
				others := []*Cluster{nodes[0], nodes[1], nodes[3]}
				t.Logf("failed after %v", within(t, 20*time.Second, "failed", status(others, 2, Failed)))
				if got := seen(nodes[0], 2); got.ID != local(2).ID || got.Synced != local(2).Synced {
					t.Errorf("the tags of a failed member are gone: %+v", got)
				}
				time.Sleep(test.wait)
				if !status(others, 2, Failed)() {
					t.Error("the failed member is forgotten")
				}
				cfg := config(t, n, test.addr)
				cfg.Name, cfg.Local = "node-2", local(2)
				cfg.Local.Actor[0] = 99
				back := open(t, cfg)
				join(t, back, address(0))
				all := append(others, back)
				within(t, test.limit, "alive again", func() bool {
					for _, c := range all {
						m := seen(c, 2)
						if m.Status != Alive || m.Actor != cfg.Local.Actor || m.GossipAddr != address(test.addr) {
							return false
						}
					}
					return true
				})
				time.Sleep(time.Minute)
				if !complete(all, 4)() {
					t.Error("not all alive a minute later")
				}
			})
		})
	}
}

func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		nodes := cluster(t, n, 4)
		within(t, spreads, "all alive", complete(nodes, 4))
		began := time.Now()
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- nodes[3].Leave(t.Context()) }()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("took %v", took)
		}
		if !status(nodes, 3, Left)() {
			t.Error("not seen as left everywhere")
		}
		if err := nodes[3].SetLocal(func(*Member) {}); !errors.Is(err, ErrClosed) {
			t.Errorf("SetLocal after leaving: %v", err)
		}
		if _, err := nodes[3].Join(t.Context(), []string{address(0)}); !errors.Is(err, ErrClosed) {
			t.Errorf("Join after leaving: %v", err)
		}
		select {
		case <-nodes[3].Done():
			t.Error("gossip ended by leaving alone")
		default:
		}
		if err := nodes[3].Close(); err != nil {
			t.Error(err)
		}
		if err := nodes[3].Leave(t.Context()); err != nil {
			t.Errorf("Leave after a good departure: %v", err)
		}
		time.Sleep(30 * time.Second)
		if !status(nodes[:3], 3, Left)() {
			t.Error("no longer left after half a minute")
		}
	})
}

func TestLeaveAlone(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		c := open(t, config(t, n, 0))
		if err := c.Leave(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestLeaveCutShort cancels a departure and closes at every moment of it; memberlist panics if that is not guarded.
func TestLeaveCutShort(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 1500 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *memtransport.Network) {
				nodes := cluster(t, n, 2)
				within(t, spreads, "all alive", complete(nodes, 2))
				n.Partition([]string{address(0)}) // so that the departure takes its longest
				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				if err := nodes[0].Leave(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("Leave: %v", err)
				}
				began := time.Now()
				for range 2 {
					if err := nodes[0].Close(); err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(began); took > 7*time.Second {
					t.Errorf("closing took %v", took)
				}
			})
		})
	}
}

func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		nodes := cluster(t, n, 2)
		within(t, spreads, "all alive", complete(nodes, 2))
		c := nodes[0]
		if err := c.SetLocal(func(m *Member) { m.Zone = "z" }); err != nil { // its publication is under way
			t.Error(err)
		}
		began := time.Now()
		done := make(chan error, 3)
		for range 3 {
			go func() { done <- c.Close() }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 2*broadcastTimeout {
			t.Errorf("closing took %v", took)
		}
		select {
		case <-c.Done():
		default:
			t.Error("Done is not closed")
		}
		if err := c.SetLocal(func(*Member) {}); !errors.Is(err, ErrClosed) {
			t.Errorf("SetLocal: %v", err)
		}
		if _, err := c.Join(t.Context(), []string{address(1)}); !errors.Is(err, ErrClosed) {
			t.Errorf("Join: %v", err)
		}
		if err := c.Leave(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Leave: %v", err)
		}
		if len(c.Members()) != 2 {
			t.Error("the last view is gone")
		}
	})
}

// TestEventStorm lets thirty nodes join, change and partly crash under a consumer that never takes a wake-up.
func TestEventStorm(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		const count = 30
		nodes := make([]*Cluster, count)
		for i := range nodes {
			nodes[i] = open(t, config(t, n, i))
		}
		// What is passed on while nobody knows of more than a few others can fizzle out; the exchanges of all state mend it.
		errs := make(chan error, count)
		for i := 1; i < count; i++ {
			go func() {
				_, err := nodes[i].Join(t.Context(), []string{address(0)})
				errs <- errors.Join(err, nodes[i].SetLocal(func(m *Member) { m.Newest.Epoch = 77 }))
			}()
		}
		for range count - 1 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		t.Logf("complete after %v", within(t, 3*pushPullInterval, "all see all", complete(nodes, count)))
		within(t, 3*pushPullInterval, "all changes seen", func() bool {
			for _, m := range nodes[0].Members()[1:] {
				if m.Newest.Epoch != 77 {
					return false
				}
			}
			return true
		})
		for _, c := range nodes[20:] {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		within(t, 60*time.Second, "the crashed seen as failed", complete(nodes[:20], 20))
		c := nodes[0]
		if got := len(c.Members()); got != count {
			t.Errorf("%d members known", got)
		}
		if len(c.Changed()) != 1 {
			t.Error("no wake-up is left for the consumer")
		}
	})
}

func TestPartitionHealsByJoiningAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		nodes := cluster(t, n, 4)
		within(t, spreads, "all alive", complete(nodes, 4))
		n.Partition([]string{address(0), address(1)}, []string{address(2), address(3)})
		within(t, 30*time.Second, "two halves", complete(nodes, 2))
		if got := len(nodes[0].Members()); got != 4 {
			t.Errorf("%d members known", got)
		}
		n.Heal()
		join(t, nodes[3], address(0), address(1))
		within(t, spreads, "one again", complete(nodes, 4))
	})
}

func TestLossyNetwork(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		n.SetLink(func(_, _ string) memtransport.Link {
			return memtransport.Link{Loss: 0.1, Delay: 2 * time.Millisecond, Jitter: 20 * time.Millisecond}
		})
		nodes := cluster(t, n, 12)
		within(t, 3*pushPullInterval, "all see all", complete(nodes, 12))
		if err := nodes[4].SetLocal(func(m *Member) { m.Zone = "elsewhere" }); err != nil {
			t.Fatal(err)
		}
		within(t, 3*pushPullInterval, "the change everywhere", func() bool {
			for _, c := range nodes {
				if seen(c, 4).Zone != "elsewhere" {
					return false
				}
			}
			return true
		})
	})
}

func TestNameConflictEndsTheMinority(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		nodes := cluster(t, n, 5)
		within(t, spreads, "all alive", complete(nodes, 5))
		cfg := config(t, n, 9)
		cfg.Name = "node-2"
		twin := open(t, cfg)
		if _, err := twin.Join(t.Context(), []string{address(0)}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-twin.Done():
		case <-time.After(time.Minute):
			t.Error("the twin goes on")
		}
		for i, c := range nodes {
			select {
			case <-c.Done():
				t.Errorf("node %d ended", i)
			default:
			}
		}
		if got := seen(nodes[0], 2); got.GossipAddr != address(2) || got.Status != Alive {
			t.Errorf("the true node is seen as %+v", got)
		}
		if err := twin.SetLocal(func(*Member) {}); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestJoinReportsWhoWasReached(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		nodes := cluster(t, n, 2)
		c := open(t, config(t, n, 2))
		reached, err := c.Join(t.Context(), nil)
		if reached != 0 || err != nil {
			t.Errorf("nobody to join: %d, %v", reached, err)
		}
		reached, err = c.Join(t.Context(), []string{address(0), address(50), address(1), address(2)})
		if reached != 3 || err == nil || !strings.Contains(err.Error(), address(50)) || strings.Contains(err.Error(), address(1)) {
			t.Errorf("reached %d: %v", reached, err)
		}
		within(t, spreads, "all alive", complete(append(nodes, c), 3))

		n.SetLink(func(_, to string) memtransport.Link { return memtransport.Link{Down: to == address(1)} })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		reached, err = c.Join(ctx, []string{address(0), address(1), address(0)})
		if reached != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("reached %d: %v", reached, err)
		}
		// While the abandoned dial lasts no second one starts; that wait obeys its context too.
		if reached, err = c.Join(ctx, []string{address(0)}); reached != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("reached %d: %v", reached, err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		join(t, c, address(0))
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("the abandoned dial took %v", took)
		}
	})
}

// keyFile writes a key file with keys that are filled with the given bytes.
func keyFile(t *testing.T, fill ...byte) string {
	t.Helper()
	var keys []string
	for _, b := range fill {
		keys = append(keys, encodeKey(b, 32))
	}
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGossipKeys(t *testing.T) {
	tests := []struct {
		name         string
		first, other []byte // nil: no encryption
		meet         bool
	}{
		{"same key", []byte{1}, []byte{1}, true},
		{"rotation under way", []byte{1}, []byte{1, 2}, true},
		{"rotation half done", []byte{2, 1}, []byte{1, 2}, true},
		{"wrong key", []byte{1}, []byte{2}, false},
		{"no key", []byte{1}, nil, false},
		{"needless key", nil, []byte{1}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *memtransport.Network) {
				a, b := config(t, n, 0), config(t, n, 1)
				if test.first != nil {
					a.KeyFile = keyFile(t, test.first...)
				}
				if test.other != nil {
					b.KeyFile = keyFile(t, test.other...)
				}
				nodes := []*Cluster{open(t, a), open(t, b)}
				reached, err := nodes[1].Join(t.Context(), []string{address(0)})
				if test.meet {
					if reached != 1 || err != nil {
						t.Fatalf("reached %d: %v", reached, err)
					}
					within(t, spreads, "both alive", complete(nodes, 2))
					return
				}
				if reached != 0 || err == nil {
					t.Errorf("reached %d: %v", reached, err)
				}
				time.Sleep(30 * time.Second)
				if !complete(nodes, 1)() {
					t.Error("they see each other")
				}
			})
		})
	}
}

// TestGossipKeysRotate changes the key step by step, first on one node and later on the other, and asks after each step
// whether news still passes; a damaged file changes nothing.
func TestGossipKeysRotate(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		a, b := config(t, n, 0), config(t, n, 1)
		a.KeyFile, b.KeyFile = keyFile(t, 1), keyFile(t, 1)
		nodes := []*Cluster{open(t, a), open(t, b)}
		join(t, nodes[1], address(0))
		step := 0
		for _, keys := range [][]byte{{1, 2}, {2, 1}, nil, {2}} {
			for _, path := range []string{a.KeyFile, b.KeyFile} {
				text := []byte("[half")
				if keys != nil {
					var err error
					if text, err = os.ReadFile(keyFile(t, keys...)); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				step++
				zone := fmt.Sprint("zone-", step)
				if err := nodes[step%2].SetLocal(func(m *Member) { m.Zone = zone }); err != nil {
					t.Fatal(err)
				}
				within(t, spreads, fmt.Sprintf("news after step %d", step), func() bool { return seen(nodes[(step+1)%2], step%2).Zone == zone })
			}
		}
		// Who has only the first key is not heard any more.
		c := config(t, n, 2)
		c.KeyFile = keyFile(t, 1)
		if reached, err := open(t, c).Join(t.Context(), []string{address(0)}); reached != 0 || err == nil {
			t.Errorf("with the old key %d were reached: %v", reached, err)
		}
	})
}
