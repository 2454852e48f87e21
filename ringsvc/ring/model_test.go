package ring

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// This file checks the layout protocol by random interleaving: nodes and gateways that hear of each other late, in parts, or not at all, and
// one key written and read all the while. Every decision about layouts is taken by the real View, Fence and NextStep. The planted bugs leave
// out one rule each, and each must be caught.

var modelSeeds = flag.Int("ring.seeds", 500, "interleavings per variant of the layout model")

// modelSlot is where the model's one key lies.
const modelSlot = Slot(500_000)

type modelVariant struct {
	name    string
	members int  // of the first settled layout
	spares  bool // nodes that are no members propose too
	parts   bool // views spread in parts: changes without marks, marks without changes
	shrink  bool // members leave, and the number of replicas changes
	grow    bool // only joins, one at a time, as a cluster forms
	deaths  bool // members are marked dead that may still run, cut off or not
	aborts  bool // changes are given up half-way
	handoff bool // stand-ins take writes, and nodes give up what they no longer own
	islands bool // one node, which may propose but is no member, and one gateway hear of nobody else for long stretches
}

var modelVariants = []modelVariant{
	{name: "owners change", members: 3, spares: true},
	{name: "only members propose", members: 3},
	{name: "documents spread in parts", members: 3, spares: true, parts: true},
	{name: "members leave and replicas change", members: 4, shrink: true, parts: true},
	{name: "one grows to three", members: 1, grow: true},
	{name: "two members", members: 2, shrink: true},
	{name: "members die and are replaced", members: 4, deaths: true},
	{name: "members die, changes are given up", members: 5, deaths: true, aborts: true, parts: true},
	{name: "what is no longer owned is handed over", members: 4, handoff: true},
	{name: "islands", members: 3, spares: true, islands: true},
}

type modelNode struct {
	id     NodeID
	view   *View
	fence  Fence
	data   map[int]bool
	pulled map[LayoutID]map[NodeID]bool // lost in a crash
	hints  map[int]NodeID               // writes kept for an owner
	giving *modelHandover               // what is no longer owned, on its way; lost in a crash
	off    bool                         // halted for good
}

type modelOp struct {
	read    bool
	view    *View // of the gateway
	live    []*Layout
	liveIDs []LayoutID
	stamp   LayoutID
	left    []NodeID
	done    bool

	standIn NodeID // writes: who takes it for instead, if anyone
	instead NodeID
	write   int             // its number
	acks    map[NodeID]bool // and who stored it

	must    map[int]bool // reads: acknowledged before it began
	seen    map[int]bool
	answers int
}

type model struct {
	rnd       *rand.Rand
	variant   modelVariant
	bug       string
	nodes     []*modelNode
	byID      map[NodeID]*modelNode
	gateways  []*View
	ops       []*modelOp
	acked     map[int]bool
	kept      map[int]bool // acknowledged with the help of stand-ins: not lost, and maybe not read yet
	writes    int
	proposals int
	gossip    float64 // how often gateways hear the news, of 1
	steps     int
	apart     bool // islands are apart now
}

// modelNodes is how many nodes there are; the last is the one that islands cut off, and never becomes a member.
const modelNodes = 7

func modelID(i int) NodeID { return NodeID{15: byte(i + 1)} }

func modelMember(i int, token Slot) Member {
	return Member{ID: modelID(i), Name: fmt.Sprint("n", i), Zone: fmt.Sprint("z", i%4), Weight: 1, Tokens: []Slot{token}}
}

func newModel(seed uint64, variant modelVariant, bug string) *model {
	rnd := rand.New(rand.NewPCG(seed, 7))
	m := &model{rnd: rnd, variant: variant, bug: bug, byID: map[NodeID]*modelNode{}, acked: map[int]bool{}, kept: map[int]bool{}}
	m.gossip = []float64{1, .3, .05}[rnd.IntN(3)]
	var joins []Change
	for i := range variant.members {
		joins = append(joins, Change{Kind: ChangeJoin, Member: modelMember(i, m.token())})
	}
	base := newLayout(ClusterID{1}, LayoutID{}, nil, 3, 2, makeChangeSet(joins))
	for i := range modelNodes {
		n := &modelNode{id: modelID(i), view: NewView(base), data: map[int]bool{}, pulled: map[LayoutID]map[NodeID]bool{}, hints: map[int]NodeID{}}
		if i < variant.members {
			n.fence = Fence{Acked: base.ID(), ReadEpoch: base.ID().Epoch}
		}
		m.nodes = append(m.nodes, n)
		m.byID[n.id] = n
	}
	for range 3 {
		m.gateways = append(m.gateways, NewView(base))
	}
	return m
}

func (m *model) token() Slot { return Slot(m.rnd.IntN(Slots)) }

func (m *model) node() *modelNode { return m.nodes[m.rnd.IntN(len(m.nodes))] }

// modelW and modelR overlap in any layout.
func modelW(l *Layout) int { return l.EffectiveW(l.MinW()) }
func modelR(l *Layout) int { return l.Replicas() - modelW(l) + 1 }

// tick lets a node act on its view.
func (m *model) tick(n *modelNode) {
	if n.off {
		return
	}
	m.tidyUp(n)
	step := NextStep(n.view, n.id, n.fence)
	if l := n.view.Newest(); m.bug == "ackall" && step.Kind == StepNone && l != n.view.Settled() && n.fence.Acked == l.ID() && n.view.marks[l.ID()][n.id] == markAcked {
		step = Step{Kind: StepSync, Layout: l, Pulls: n.view.syncPulls(l, n.id)}
	}
	switch step.Kind {
	case StepConfirm:
		n.view.ConfirmDead(step.Dead, n.id)
	case StepOvertake:
		if err := n.view.Overtake(n.fence.Acked); err != nil {
			panic(err) // a run makes few changes
		}
	case StepAck:
		n.fence.Acked = step.Layout.ID()
		n.view.MarkAcked(step.Layout.ID(), n.id)
	case StepSync:
		if m.pull(n, step) {
			n.view.MarkSynced(step.Layout.ID(), n.id)
		}
	case StepSwitch:
		if m.bug != "readfence" {
			n.fence.ReadEpoch = max(n.fence.ReadEpoch, step.Layout.ID().Epoch)
		}
		n.view.MarkSwitched(step.Layout.ID(), n.id)
	}
}

// pull fetches the key from one more source and reports whether the node is done.
func (m *model) pull(n *modelNode, step Step) bool {
	for _, p := range step.Pulls {
		if !p.Range.Contains(modelSlot) {
			continue
		}
		got := n.pulled[step.Layout.ID()]
		if got == nil {
			got = map[NodeID]bool{}
			n.pulled[step.Layout.ID()] = got
		}
		need, sources := m.bentPull(n, p)
		var rest []NodeID
		for _, s := range sources {
			if !got[s] {
				rest = append(rest, s)
			}
		}
		if len(got) < need && len(rest) > 0 {
			s := rest[m.rnd.IntN(len(rest))]
			maps.Copy(n.data, m.byID[s].data)
			got[s] = true
		}
		return len(got) >= need
	}
	return true
}

// send merges what from knows, or a part of it, into to; now and then through bytes.
func (m *model) send(to, from *View) error {
	out := from.Clone()
	if m.variant.parts {
		switch m.rnd.IntN(4) {
		case 0:
			clear(out.pools)
		case 1:
			clear(out.marks)
		case 2:
			clear(out.dead)
		}
		out.resolve()
	}
	if m.rnd.IntN(16) == 0 {
		decoded, err := DecodeViewFor(out.EncodeFor(to.Settled().ID()), to.Settled())
		if err != nil {
			return err
		}
		out = decoded
	}
	_, err := to.Merge(out)
	return err
}

func (m *model) propose(n *modelNode) {
	v := n.view
	l := v.Settled()
	if _, member := l.Member(n.id); !member && !m.variant.spares {
		return
	}
	var changes []Change
	count := 1 + m.rnd.IntN(3)
	if m.apart {
		count = 1 + m.rnd.IntN(2) // often equal on both islands, and so the epochs
	}
	for range count {
		i := m.rnd.IntN(len(m.nodes) - 1)
		if m.variant.grow {
			i %= 3
		}
		_, member := l.Member(modelID(i))
		switch {
		case m.variant.grow:
			if !member && len(changes) == 0 {
				changes = append(changes, Change{Kind: ChangeJoin, Member: modelMember(i, m.token())})
			}
		case m.variant.shrink && m.rnd.IntN(5) == 0:
			q := [][2]int{{3, 2}, {2, 2}, {1, 1}, {4, 3}, {3, 1}, {5, 3}}[m.rnd.IntN(6)]
			changes = append(changes, Change{Kind: ChangeReplicas, N: q[0], MinW: q[1]})
		case !member && m.variant.deaths && m.rnd.IntN(2) == 0:
			old := l.members[m.rnd.IntN(len(l.members))].ID
			changes = append(changes, Change{Kind: ChangeReplace, Old: old, Member: modelMember(i, m.token())})
		case !member:
			changes = append(changes, Change{Kind: ChangeJoin, Member: modelMember(i, m.token())})
		case (m.variant.shrink || m.variant.handoff) && m.rnd.IntN(2) == 0:
			changes = append(changes, Change{Kind: ChangeLeave, Member: Member{ID: modelID(i)}})
		default:
			changes = append(changes, Change{Kind: ChangeWeight, Member: Member{ID: modelID(i), Weight: 1, Tokens: []Slot{m.token()}}})
		}
	}
	if _, err := v.Propose(changes); err == nil {
		m.proposals++
	}
}

func (m *model) begin(read bool) {
	v := m.gateways[m.rnd.IntN(len(m.gateways))]
	if m.apart && !read && m.rnd.IntN(2) == 0 {
		v = m.gateways[0]
	}
	op := &modelOp{read: read, view: v}
	if read {
		op.live = []*Layout{v.ReadLayout()}
		op.must, op.seen = maps.Clone(m.acked), map[int]bool{}
	} else {
		m.writes++
		op.live, op.write, op.acks = v.Live(), m.writes, map[NodeID]bool{}
		m.chooseStandIn(op)
		if m.bug == "one_epoch" {
			op.live = op.live[len(op.live)-1:]
		}
	}
	op.stamp = v.Newest().ID()
	for _, l := range op.live {
		op.liveIDs = append(op.liveIDs, l.ID())
		for _, o := range l.Primaries(modelSlot) {
			if o == op.instead && !op.read {
				o = op.standIn
			}
			if !slices.Contains(op.left, o) {
				op.left = append(op.left, o)
			}
		}
	}
	m.rnd.Shuffle(len(op.left), func(i, j int) { op.left[i], op.left[j] = op.left[j], op.left[i] })
	m.ops = append(m.ops, op)
}

// admitWrite is the fence, or what a planted bug makes of it.
func (m *model) admitWrite(n *modelNode, op *modelOp) bool {
	switch a := n.fence.Acked; m.bug {
	case "nofence":
		return true
	case "stamp": // only the newest layout is compared, not the whole live set
		return op.stamp.Epoch > a.Epoch || op.stamp == a
	case "hash": // epoch numbers are compared, not layouts
		return a.Epoch <= op.liveIDs[0].Epoch || slices.ContainsFunc(op.liveIDs, func(id LayoutID) bool { return id.Epoch == a.Epoch })
	}
	return n.fence.AdmitWrite(op.liveIDs)
}

// advance delivers one more message of a request; the error is a broken promise to a client.
func (m *model) advance(at int) error {
	op := m.ops[at]
	if len(op.left) == 0 {
		m.ops = slices.Delete(m.ops, at, at+1)
		return nil
	}
	n := m.byID[op.left[len(op.left)-1]]
	op.left = op.left[:len(op.left)-1]
	if m.rnd.Float64() < .15 || n.off || n.view.IsDead(n.id) || op.view.IsDead(n.id) {
		return nil // lost, or of one who knows that it is no member, or who counts for nothing
	}
	if op.read {
		return m.answerRead(n, op)
	}
	if !m.admitWrite(n, op) {
		return m.send(op.view, n.view)
	}
	if n.id == op.standIn {
		n.hints[op.write] = op.instead
	} else {
		n.data[op.write] = true
	}
	op.acks[n.id] = true
	if op.done {
		return nil
	}
	for _, l := range op.live {
		have := 0
		for _, o := range l.Primaries(modelSlot) {
			if op.acks[o] || o == op.instead && op.acks[op.standIn] {
				have++
			}
		}
		if have < modelW(l) {
			return nil
		}
	}
	op.done = true
	if m.kept[op.write] = true; op.standIn.IsZero() {
		m.acked[op.write] = true
	}
	return nil
}

func (m *model) answerRead(n *modelNode, op *modelOp) error {
	l := op.live[0]
	if !n.fence.AdmitRead(l.ID()) {
		return m.send(op.view, n.view)
	}
	maps.Copy(op.seen, n.data)
	op.answers++
	if op.answers < modelR(l) || op.done {
		return nil
	}
	op.done = true
	for w := range op.must {
		if !op.seen[w] {
			return fmt.Errorf("read at %s by %d of %v misses write %d", l.ID(), modelR(l), l.Primaries(modelSlot), w)
		}
	}
	return nil
}

func (m *model) inland(n *modelNode) bool { return n != m.nodes[modelNodes-1] }

func (m *model) reach(a, b bool) bool { return a == b || !m.apart }

func (m *model) step() error {
	if m.steps++; m.variant.islands && m.steps%450 == 1 {
		m.apart = m.rnd.IntN(3) > 0
	}
	switch a := m.rnd.Float64(); {
	case a < .30:
		m.tick(m.node())
	case a < .50:
		if to, from := m.node(), m.node(); m.reach(m.inland(to), m.inland(from)) && m.hears(to, from) {
			return m.send(to.view, from.view)
		}
	case a < .54:
		g, from := m.rnd.IntN(len(m.gateways)), m.node()
		if m.apart && g == 0 {
			from = m.nodes[modelNodes-1]
		}
		if m.rnd.Float64() < m.gossip && m.reach(g > 0, m.inland(from)) {
			return m.send(m.gateways[g], from.view)
		}
	case a < .56:
		if n := m.node(); m.proposals < 4 {
			if m.apart && m.rnd.IntN(3) == 0 {
				n = m.nodes[modelNodes-1]
			}
			m.propose(n)
		}
	case a < .57:
		if m.rnd.IntN(2) == 0 { // a gateway tells what it remembers
			g, to := m.rnd.IntN(len(m.gateways)), m.node()
			if m.reach(g > 0, m.inland(to)) && (!m.variant.deaths || to.view.Accepts(NodeID{}, m.gateways[g])) {
				return m.send(to.view, m.gateways[g])
			}
			return nil
		}
		n := m.node() // a crash: views, promises and data are durable, progress is not
		clear(n.pulled)
		n.giving = nil
	case a < .58:
		m.upset(m.node())
	case a < .63:
		m.begin(false)
	case a < .69:
		m.begin(true)
	case len(m.ops) > 0:
		return m.advance(m.rnd.IntN(len(m.ops)))
	}
	return nil
}

// heal lets everyone talk and checks that the cluster comes to rest: one settled layout, known to all, that refuses nobody.
func (m *model) heal() error {
	views := slices.Clone(m.gateways)
	for _, n := range m.nodes {
		views = append(views, n.view)
	}
	for range 200 {
		idle := true
		m.acceptLoss()
		hub := m.hub()
		for _, n := range m.nodes {
			idle = idle && m.tidy(n) && NextStep(n.view, n.id, n.fence).Kind == StepNone &&
				(m.variant.deaths && (hub.IsDead(n.id) || !hub.isMember(n.id)) || n.view.Hash() == hub.Hash())
			m.tick(n)
		}
		if idle {
			break
		}
		hub = m.hub()
		for _, v := range views {
			if _, err := v.Merge(hub); err != nil {
				return err
			}
		}
	}
	hub := m.hub()
	for _, v := range views {
		if _, err := v.Merge(hub); err != nil {
			return err
		}
		// What a gateway or a node that is no member heard from one marked dead alone may stay with them; it binds nobody.
		if v.Settled().ID() != hub.Settled().ID() || !m.variant.deaths && (v.Hash() != hub.Hash() || v.Newest() != v.Settled()) {
			return fmt.Errorf("views do not come to rest: settled %s, newest %s", v.Settled().ID(), v.Newest().ID())
		}
	}
	last := hub.Settled()
	for w := range m.kept {
		copies := 0
		for _, o := range last.Primaries(modelSlot) {
			if m.byID[o].data[w] {
				copies++
			}
		}
		if m.variant.handoff && copies < modelW(last) {
			return fmt.Errorf("write %d was acknowledged, and %d owners of %s hold it", w, copies, last.ID())
		}
	}
	for _, o := range last.Primaries(modelSlot) {
		if f := m.byID[o].fence; !f.AdmitWrite(hub.LiveIDs()) || !f.AdmitRead(last.ID()) {
			return fmt.Errorf("owner %s is stuck: it promised %v, settled is %s", o, f, last.ID())
		}
	}
	return nil
}

// runModel returns what went wrong, how many writes were acknowledged, and the epochs that settled.
func runModel(seed uint64, variant modelVariant, bug string) (acked int, epochs uint64, err error) {
	m := newModel(seed, variant, bug)
	first := m.gateways[0].Settled().ID().Epoch
	for range 900 {
		if err := m.step(); err != nil {
			return 0, 0, err
		}
	}
	if bug == "" || bug == "cleanup" {
		err = m.heal()
	}
	return len(m.acked), m.nodes[0].view.Settled().ID().Epoch - first, err
}

func TestModel(t *testing.T) {
	for _, variant := range modelVariants {
		t.Run(variant.name, func(t *testing.T) {
			t.Parallel()
			acked, epochs := 0, uint64(0)
			seeds := *modelSeeds
			if testing.Short() {
				seeds /= 10
			}
			for seed := range seeds {
				a, e, err := runModel(uint64(seed), variant, "")
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				acked += a
				epochs += e
			}
			if acked < 5*seeds || epochs < uint64(seeds) {
				t.Fatalf("too little happened in %d runs: %d writes acknowledged, %d epochs settled", seeds, acked, epochs)
			}
			t.Logf("%d runs, %d writes acknowledged, %d epochs settled", seeds, acked, epochs)
		})
	}
}

func TestModelCatchesPlantedBugs(t *testing.T) {
	const enough = 6000
	dies := slices.IndexFunc(modelVariants, func(v modelVariant) bool { return v.deaths })
	gives := slices.IndexFunc(modelVariants, func(v modelVariant) bool { return v.handoff })
	// Where a bug can show at all: the islands are where comparing layouts in a lesser way is caught.
	where := map[string][]int{"deadneed": {dies, dies + 1}, "secondmark": {dies, dies + 1}, "cleanup": {gives}}
	for _, bug := range []string{"one_epoch", "nofence", "sync1", "readfence", "hash", "ackall", "stamp", "deadneed", "secondmark", "cleanup"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			for seed := range enough {
				variant := modelVariants[len(modelVariants)-1] // islands
				if at := where[bug]; at != nil {
					variant = modelVariants[at[seed%len(at)]]
				} else if seed%2 == 0 {
					variant = modelVariants[seed/2%len(modelVariants)]
				}
				if _, _, err := runModel(uint64(seed), variant, bug); err != nil {
					t.Logf("%s, seed %d: %v", variant.name, seed, err)
					return
				}
			}
			t.Fatalf("not caught in %d runs", enough)
		})
	}
}
