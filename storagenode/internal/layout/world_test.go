package layout

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
)

// world is a cluster of drivers with fake gossip, calls and disks, in one synctest bubble. Safe for concurrent use.
type world struct {
	t     *testing.T
	mu    sync.Mutex
	nodes map[ring.NodeID]*fakeNode
	// expect is how many nodes each was told to join; it has reached all when as many are up.
	expect int
	// pull decides about pulls, nil lets them through.
	pull func(from ring.NodeID, after []byte) error
	log  bytes.Buffer
}

type fakeNode struct {
	w       *world
	id      ring.NodeID
	store   *fifo
	reg     *prometheus.Registry
	state   *State
	driver  *Driver
	gossip  membership.Member
	up      bool
	reached bool
	standby bool
	changed chan struct{}
	cancel  context.CancelFunc
	ended   chan struct{}
}

func newWorld(t *testing.T) *world { return &world{t: t, nodes: map[ring.NodeID]*fakeNode{}} }

// Write takes log lines.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) logged(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.log.String(), text)
}

func (w *world) add(n byte) *fakeNode {
	f := &fakeNode{w: w, id: nodeID(n), store: newFifo(true), changed: make(chan struct{}, 1), reached: true}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[f.id] = f
	return f
}

// settled starts the first n nodes and waits until they are in one settled layout.
func (w *world) settled(n int) []*fakeNode {
	w.t.Helper()
	var all []*fakeNode
	for i := range n {
		all = append(all, w.add(byte(i+1)))
	}
	w.expect = n
	for _, f := range all {
		f.start()
	}
	time.Sleep(10 * time.Second)
	if settledOn(all...) == nil {
		w.t.Fatalf("%d nodes are not settled:\n%s", n, w.log.String())
	}
	return all
}

func (f *fakeNode) start() {
	w := f.w
	f.reg = prometheus.NewRegistry()
	var err error
	if f.state, err = Load(f.id, f.store); err != nil {
		w.t.Fatal(err)
	}
	me := ring.Member{ID: f.id, Name: fmt.Sprintf("node%d", f.id[0]), Weight: 1}
	w.mu.Lock()
	f.gossip = membership.Member{ID: f.id, Name: me.Name, GRPCAddr: me.Name, Weight: 1, Status: membership.Alive}
	w.mu.Unlock()
	f.driver, err = New(Config{Self: me, Label: "test", N: 3, MinW: 2, JoinWait: 5 * time.Second,
		Reached: f.hasReached, Standby: f.standby,
		State: f.state, Doubts: f.store, Members: f, Peers: f, Records: f.store, Rand: rand.Reader, Publish: func([]membership.Member) {},
		Logger: zerolog.New(w).With().Str("node", me.Name).Logger(), Registerer: f.reg})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	f.cancel, f.ended = cancel, make(chan struct{})
	f.setUp(true)
	go func() {
		defer close(f.ended)
		f.driver.Run(ctx)
	}()
}

func (f *fakeNode) hasReached() (all, tried bool) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	up := 0
	for _, n := range f.w.nodes {
		if n.up {
			up++
		}
	}
	return f.reached && up >= f.w.expect, true
}

func (f *fakeNode) stop() {
	f.setUp(false)
	f.cancel()
	<-f.ended
}

func (f *fakeNode) setUp(up bool) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.up = up
	f.w.spreadLocked()
}

func (w *world) spreadLocked() {
	for _, n := range w.nodes {
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}
}

func (f *fakeNode) Members() []membership.Member {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	var out []membership.Member
	for _, n := range f.w.nodes {
		m := n.gossip
		if m.Name == "" {
			continue // never started
		}
		if !n.up {
			m.Status = membership.Failed
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b membership.Member) int { return a.ID.Compare(b.ID) })
	return out
}

func (f *fakeNode) Changed() <-chan struct{} { return f.changed }

func (f *fakeNode) SetLocal(change func(*membership.Member)) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	change(&f.gossip)
	f.w.spreadLocked()
	return nil
}

var errAway = errors.New("connection refused")

func (f *fakeNode) peer(id ring.NodeID) (*fakeNode, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if n := f.w.nodes[id]; n != nil && n.up && f.up {
		return n, nil
	}
	return nil, errAway
}

func (f *fakeNode) ExchangeView(_ context.Context, to Peer, view []byte) (Exchanged, error) {
	n, err := f.peer(to.ID)
	if err != nil {
		return Exchanged{}, err
	}
	return n.driver.Answer(f.id, view)
}

func (f *fakeNode) Join(_ context.Context, to Peer, _ ring.ClusterID, me ring.Member) ([]byte, error) {
	n, err := f.peer(to.ID)
	if err != nil {
		return nil, err
	}
	if err := n.driver.RequestJoin(me, time.Now()); err != nil {
		return nil, err
	}
	return n.state.Encoded(), nil
}

func (f *fakeNode) Pull(_ context.Context, from Peer, id ring.LayoutID, r ring.Range, after []byte, fn func(Chunk) error) error {
	return f.pull(from, id, r, after, false, fn)
}

func (f *fakeNode) PullDoubted(_ context.Context, from Peer, id ring.LayoutID, r ring.Range, after []byte, fn func(Chunk) error) error {
	return f.pull(from, id, r, after, true, fn)
}

// PullSums stands for what a source holds by sums that never match.
func (f *fakeNode) PullSums(_ context.Context, from Peer, id ring.LayoutID, r ring.Range, after []byte, fn func(Group) error) error {
	return f.pull(from, id, r, after, false, func(c Chunk) error {
		slices.SortFunc(c.Keys, byPlace)
		return fn(Group{Last: c.Keys[len(c.Keys)-1], Sum: noSum})
	})
}

func (f *fakeNode) PullMissing(_ context.Context, from Peer, id ring.LayoutID, r ring.Range, after, _, _ []byte, fn func(Chunk) error) error {
	return f.pull(from, id, r, after, false, fn)
}

// byPlace orders keys as scans do.
func byPlace(a, b []byte) int {
	if bytes.Equal(a, b) {
		return 0
	}
	if IsBehind(a, b) {
		return 1
	}
	return -1
}

func (f *fakeNode) pull(from Peer, id ring.LayoutID, r ring.Range, after []byte, doubted bool, fn func(Chunk) error) error {
	n, err := f.peer(from.ID)
	if err != nil {
		return err
	}
	if n.state.Fence().Acked != id && n.state.Known().Settled.ID() != id {
		return errors.New("not acknowledged")
	}
	n.store.mu.Lock()
	for _, in := range n.store.doubts.Ranges {
		if !doubted && in.From < r.To && r.From < in.To {
			n.store.mu.Unlock()
			return ErrSourceInDoubt
		}
	}
	var c Chunk
	for key, rec := range n.store.kv {
		if r.Contains(ring.SlotOf([]byte(key))) {
			c.Keys, c.Records = append(c.Keys, []byte(key)), append(c.Records, rec)
		}
	}
	n.store.mu.Unlock()
	f.w.mu.Lock()
	pull := f.w.pull
	f.w.mu.Unlock()
	if pull != nil {
		if err := pull(from.ID, after); err != nil {
			return err
		}
	}
	if len(c.Keys) == 0 {
		return nil
	}
	return fn(c)
}

// settled returns the layout that all of these have settled on, nil while they have not.
func settledOn(nodes ...*fakeNode) *ring.Layout {
	var l *ring.Layout
	for _, n := range nodes {
		k := n.state.Known()
		if k == nil || !k.IsSettled() || len(k.Settled.Members()) != len(nodes) || l != nil && l.ID() != k.Settled.ID() {
			return nil
		}
		l = k.Settled
	}
	return l
}

// noSum is the sum of no records that a test has.
var noSum = bytes.Repeat([]byte{0xff}, 16)
