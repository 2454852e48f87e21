package scale

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/membership/memtransport"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/node"
)

var (
	nodes    = flag.Int("nodes", 24, "storage nodes")
	gateways = flag.Int("gateways", 4, "gateways")
	runs     = flag.Int("runs", 1, "times that each change is measured")
	verbose  = flag.String("log", "", "file for what all nodes log")
)

// look is how often in fake time the world is looked at.
const look = 25 * time.Millisecond

// world is a cluster in one bubble of fake time.
type world struct {
	t      *testing.T
	dir    string
	log    zerolog.Logger
	net    *network
	gossip *memtransport.Network
	all    []*member // also those that were stopped
	doors  []*gateway
}

type member struct {
	w      *world
	name   string
	count  traffic
	port   *port
	admin  *port
	gossip *gossip
	addr   string // of its gossip

	*node.Node
	id     ring.NodeID
	cancel context.CancelFunc
	ran    chan error
	down   bool
}

type gateway struct {
	*nodeclient.Client
	cancel context.CancelFunc
	ran    chan error
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), log: zerolog.Nop(), net: newNetwork(), gossip: memtransport.New(1)}
	if *verbose != "" {
		f, err := os.Create(*verbose)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		w.log = zerolog.New(f).With().Timestamp().Logger()
	}
	return w
}

func gossipAddr(i int) string { return fmt.Sprintf("10.0.%d.%d:7201", i/250, i%250+1) }

// start adds nodes at once.
func (w *world) start(n int) []*member {
	w.t.Helper()
	var fresh []*member
	for range n {
		i := len(w.all)
		m := &member{w: w, name: fmt.Sprintf("n%d", i), addr: gossipAddr(i), ran: make(chan error, 1)}
		t, err := w.gossip.Listen(m.addr)
		if err != nil {
			w.t.Fatal(err)
		}
		m.gossip = newGossip(t, &m.count)
		m.port = w.net.listen(m.name+":7101", &m.count)
		m.admin = w.net.listen(m.name+":7301", &m.count)
		cfg := node.Default()
		cfg.Name, cfg.Zone = m.name, fmt.Sprint("z", i%3)
		cfg.DataDir = filepath.Join(w.dir, m.name)
		cfg.GRPCAddr, cfg.AdminAddr, cfg.GossipAddr = m.port.addr, m.admin.addr, m.addr
		cfg.Join = []string{gossipAddr(0), gossipAddr(1), gossipAddr(2)}
		cfg.Engine, cfg.Workers, cfg.DrainWait, cfg.Insecure = node.EngineMemory, 1, time.Second, true
		cfg.AntiEntropyInterval = time.Hour // it compares data, of which there is none
		m.Node, err = node.New(cfg, node.Deps{Logger: w.log, Registry: prometheus.NewRegistry(), Network: &node.Network{
			Gossip: m.gossip, Dial: w.net.dial(&m.count), Listen: func(addr string) (net.Listener, error) {
				if addr == m.port.addr {
					return m.port, nil
				}
				return m.admin, nil
			}}})
		if err != nil {
			w.t.Fatal(err)
		}
		m.id = m.ID()
		fresh = append(fresh, m)
		w.all = append(w.all, m)
	}
	for _, m := range fresh {
		ctx, cancel := context.WithCancel(w.t.Context())
		m.cancel = cancel
		go func() { m.ran <- m.Run(ctx) }()
	}
	return fresh
}

// open adds gateways.
func (w *world) open(n int) {
	w.t.Helper()
	for range n {
		cfg := nodeclient.Default()
		cfg.Targets = []string{w.all[0].port.addr, w.all[1].port.addr}
		binary.BigEndian.PutUint64(cfg.ID[:], uint64(len(w.doors)+1)*0x9E3779B97F4A7C15)
		cfg.Dial = w.net.dial(nil)
		cfg.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithReadBufferSize(1 << 10), grpc.WithWriteBufferSize(1 << 10)}
		c, err := nodeclient.New(cfg)
		if err != nil {
			w.t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(w.t.Context())
		g := &gateway{Client: c, cancel: cancel, ran: make(chan error, 1)}
		w.doors = append(w.doors, g)
		go func() { g.ran <- c.Run(ctx) }()
	}
}

// kill ends nodes as the loss of their machines would: nothing is said to anyone.
func (w *world) kill(dying ...*member) {
	w.t.Helper()
	for _, m := range dying {
		m.down = true
		if err := m.gossip.Shutdown(); err != nil {
			w.t.Error(err)
		}
		m.port.cut()
	}
	w.end(dying)
}

// end stops nodes at the same time.
func (w *world) end(some []*member) {
	var ending sync.WaitGroup
	for _, m := range some {
		m.down = true
		ending.Go(func() {
			m.cancel()
			if err := <-m.ran; err != nil && !errors.Is(err, node.ErrGossipEnded) {
				w.t.Errorf("%s: %v", m.name, err)
			}
			if err := m.Close(); err != nil {
				w.t.Errorf("close %s: %v", m.name, err)
			}
		})
	}
	ending.Wait()
}

func (w *world) close() {
	for _, g := range w.doors {
		g.cancel()
		if err := <-g.ran; err != nil {
			w.t.Error(err)
		}
	}
	w.end(w.up())
	time.Sleep(11 * time.Second) // what serf dials ends by itself
	synctest.Wait()
}

// up lists the nodes that run.
func (w *world) up() []*member {
	return slices.DeleteFunc(slices.Clone(w.all), func(m *member) bool { return m.down })
}

// within waits in fake time until all that is asked for holds, and tells how long each took.
func (w *world) within(limit time.Duration, what string, conditions ...func() bool) []time.Duration {
	w.t.Helper()
	began := time.Now()
	took := make([]time.Duration, len(conditions))
	for left := len(conditions); left > 0; {
		for i, holds := range conditions {
			if took[i] == 0 && holds() {
				took[i] = max(time.Since(began), 1)
				left--
			}
		}
		if left > 0 {
			if time.Since(began) > limit {
				w.t.Fatalf("not within %v: %s (%v)", limit, what, took)
			}
			time.Sleep(look)
		}
	}
	return took
}

// settled tells whether all nodes and gateways have the same settled layout with as many members.
func (w *world) settled(members int) func() bool {
	return func() bool {
		up := w.up()
		settled, newest := up[0].Layouts()
		if settled != newest || settled.IsZero() {
			return false
		}
		for _, m := range up {
			if s, n := m.Layouts(); s != settled || n != settled {
				return false
			}
		}
		if !w.gatewaysKnow(settled.Epoch, true) {
			return false
		}
		v, err := ring.DecodeView(up[0].View())
		if err != nil {
			w.t.Fatal(err)
		}
		return len(v.Settled().Members()) == members
	}
}

// known tells whether all nodes and gateways know a layout of at least this epoch.
func (w *world) known(epoch uint64) func() bool {
	return func() bool {
		for _, m := range w.up() {
			if _, n := m.Layouts(); n.Epoch < epoch {
				return false
			}
		}
		return w.gatewaysKnow(epoch, false)
	}
}

func (w *world) gatewaysKnow(epoch uint64, settled bool) bool {
	for _, g := range w.doors {
		s := g.State()
		if s == nil || s.View.Newest().ID().Epoch < epoch || settled && s.View.Settled().ID().Epoch < epoch {
			return false
		}
	}
	return true
}

// seen tells whether gossip says this of some members at all others.
func (w *world) seen(status membership.Status, of ...*member) func() bool {
	ids := make(map[ring.NodeID]bool)
	for _, m := range of {
		ids[m.id] = true
	}
	told := make(map[*member]bool) // those that know already are not asked again
	return func() bool {
		for _, m := range w.up() {
			if told[m] {
				continue
			}
			count := 0
			for _, o := range m.Members() {
				if ids[o.ID] && o.Status == status {
					count++
				}
			}
			if count < len(ids) {
				return false
			}
			told[m] = true
		}
		return true
	}
}

// spent is what nodes sent and received between two looks, in bytes for each node and second.
type spent struct{ gossip, views, beats, packets float64 }

func (s spent) total() float64 { return s.gossip + s.views + s.beats }

func (s spent) String() string {
	return fmt.Sprintf("%.1f KB/s (gossip %.1f in %.0f packets, views %.1f, gateways %.1f)", s.total()/1e3, s.gossip/1e3, s.packets, s.views/1e3, s.beats/1e3)
}

// watch counts traffic until the returned function is called, which gives the mean of all nodes and the node that has most.
func (w *world) watch() func() (mean, most spent) {
	up := w.up()
	began := time.Now()
	read := func(m *member) spent {
		return spent{float64(m.count.gossip.Load()), float64(m.count.views.Load()), float64(m.count.beats.Load()), float64(m.count.packets.Load())}
	}
	before := make([]spent, len(up))
	for i, m := range up {
		before[i] = read(m)
	}
	return func() (mean, most spent) {
		for i, m := range up {
			s, b, took := read(m), before[i], time.Since(began).Seconds()
			s = spent{(s.gossip - b.gossip) / took, (s.views - b.views) / took, (s.beats - b.beats) / took, (s.packets - b.packets) / took}
			n := float64(len(up))
			mean = spent{mean.gossip + s.gossip/n, mean.views + s.views/n, mean.beats + s.beats/n, mean.packets + s.packets/n}
			if s.total() > most.total() {
				most = s
			}
		}
		return mean, most
	}
}
