package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/planner"
	"github.com/dotring/dotring/ringsvc/ring"
)

// world is one simulated cluster.
type world struct {
	loop
	dice
	opt   Options
	bug   Bug
	trace *tracer
	check *history.Checker

	nodes   []*node
	gates   []*gateway
	clients []*client
	cluster ring.ClusterID

	// Faults of the network, by place: blocked says that nothing gets from one to the other.
	blocked [][]bool
	loss    float64
	tail    float64
	twice   float64

	faulty    bool // the first phase
	victims   []int
	lossAt    time.Duration // when a machine last lost a disk or a part of it, -1 for never
	faultAcks int
	jumped    bool // some clock has jumped: remembered request ids may have expired
	replays   []replay
	openOps   int
	leaves    int             // asked for
	outages   int             // of all nodes at once
	removals  int             // of members that went for good
	issued    map[string]bool // actor, key and request id of mints under ids that clients chose
	audited   uint64          // the newest layout after which all keys were read
	stats     Stats
}

// replay is a record that was delivered once, to be delivered again at the end.
type replay struct {
	node     int
	key, rec []byte
}

// maxReplays bounds what is kept for that.
const maxReplays = 200

// Stats counts what a run met.
type Stats struct {
	Writes, Acked, FaultAcks, Reads, ReadsFailed, InDoubt, NotApplied int
	Restarts, Partitions, DiskFailures, DiskLosses, Damages           int
	LayoutsSettled                                                    uint64
	Repairs, Retries                                                  int
	Collected, Stale                                                  int           // tombstones, and records refused for their age
	Pruned, Honoured                                                  int           // clocks from which entries left, and old contexts that were good
	Handed, Dropped                                                   int           // records brought to owners by who does not own them, and deleted there
	Hinted, Delivered, Fetched                                        int           // puts with a stand-in, hints that left, records fetched
	Forgotten, Spread                                                 int           // proposals that only a gateway remembers, views told to nodes by gateways
	Healed                                                            time.Duration // how long healing took
	Doomed, Removed, Replaced, Aborted, Accepted, Outages             int           // machines that went for good, dead marks, changes given up
}

func newWorld(seed uint64, opt Options, bug Bug) *world {
	w := &world{opt: opt, bug: bug, dice: newDice(seed, 2), lossAt: -1, faulty: true, issued: make(map[string]bool),
		loss: opt.Loss, tail: opt.Tail, twice: opt.Twice}
	w.check = history.New(func() time.Duration { return w.now })
	w.Read(w.cluster[:])
	return w
}

// Places on the network: nodes first, then gateways.
func (w *world) gatePlace(g int) int { return len(w.nodes) + g }

// build makes nodes, gateways and clients, with all first members in one settled layout.
func (w *world) build() error {
	for i := range w.opt.Nodes + w.opt.Spares {
		n := &node{w: w, idx: i, name: fmt.Sprintf("n%d", i), disk: newDisk(w.dice), slow: 1}
		binary.BigEndian.PutUint64(n.id[:], w.Uint64())
		binary.BigEndian.PutUint64(n.id[8:], uint64(i+1))
		w.nodes = append(w.nodes, n)
	}
	for i := range w.opt.Gateways {
		w.gates = append(w.gates, newGateway(w, i))
	}
	places := len(w.nodes) + len(w.gates)
	w.blocked = make([][]bool, places)
	for i := range w.blocked {
		w.blocked[i] = make([]bool, places)
	}
	v, err := w.firstView()
	if err != nil {
		return err
	}
	for _, n := range w.nodes[:w.opt.Nodes] {
		if err := n.format(v); err != nil {
			return err
		}
	}
	for _, g := range w.gates {
		g.learn(v.Clone())
		g.start()
	}
	for i := range w.opt.Clients {
		w.clients = append(w.clients, newClient(w, i))
	}
	// Only so many machines ever lose their disk that one of those that acknowledged a write keeps it.
	w.victims = append(w.victims, w.Perm(w.opt.Nodes)[:w.opt.MinW-1]...)
	return nil
}

// firstView is a cluster that has settled on its first members.
func (w *world) firstView() (*ring.View, error) {
	founder := w.nodes[0].member()
	if w.opt.Planned {
		founder.Tokens = planner.Found(founder)
	}
	l := ring.Found(w.cluster, founder, w.opt.N, w.opt.MinW)
	v := ring.NewView(l)
	var joins []ring.Change
	for _, n := range w.nodes[1:w.opt.Nodes] {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: n.member()})
	}
	next, err := v.Propose(w.planned(v, joins))
	if err != nil {
		return nil, fmt.Errorf("first layout: %w", err)
	}
	for _, id := range v.Required(next) {
		v.MarkSwitched(next.ID(), id)
	}
	return v, nil
}

// send carries a message: do happens at the other end, maybe late, maybe twice, maybe never.
func (w *world) send(from, to int, do func()) {
	if w.cut(from, to) || w.chance(w.loss) {
		return
	}
	w.after(w.delay(), do)
	if w.chance(w.twice) {
		w.after(w.delay()*2, do)
	}
}

func (w *world) delay() time.Duration {
	d := w.between(w.opt.Latency/2, w.opt.Latency*3/2)
	if w.chance(w.tail) {
		d *= time.Duration(1 + w.IntN(40))
	}
	if w.faulty && w.chance(w.opt.Late) {
		d += w.between(0, 2*w.opt.Grace)
	}
	return d
}

// reachable says whether messages pass in both directions.
func (w *world) reachable(a, b int) bool { return !w.cut(a, b) && !w.cut(b, a) }

// faultActive says whether something is wrong at this moment, or anything may be.
func (w *world) faultActive() bool {
	if w.loss > 0 || w.tail > 0 || w.twice > 0 {
		return true
	}
	for _, n := range w.nodes {
		if n.gone && w.without(n) {
			continue
		}
		if n.started && (!n.up || n.paused() || n.slow > 1 || n.doubt || n.disk.full || n.disk.flaky > 0 || len(n.disk.stored) > 0) {
			return true
		}
		if n.up && n.view != nil && n.view.Newest() != n.view.Settled() {
			return true
		}
	}
	for _, row := range w.blocked {
		for _, b := range row {
			if b {
				return true
			}
		}
	}
	for _, g := range w.gates {
		if !g.up {
			return true
		}
	}
	return false
}

// byID finds a node.
func (w *world) byID(id ring.NodeID) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// key names the i-th key.
func key(i int) string { return fmt.Sprintf("key-%d", i) }
