package transfer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// nodes and copies of the model, and the slot of its one key.
const (
	modelNodes = 5
	modelSlot  = ring.Slot(1000)
)

// model is a cluster of five nodes with one key, of which each write is a bit: records merge by union. It is naive: changes
// of the layout are taken in one step each by all, and what is held is held durably.
type model struct {
	r       *rand.Rand
	without Rules
	settled *ring.Layout
	next    *ring.Layout // acknowledged by all and synced by some; nil for none
	synced  map[ring.NodeID]bool
	held    map[ring.NodeID]uint64
	pulled  map[ring.NodeID]uint64 // what an owner held when it had synced
	strict  uint64                 // writes that two owners in every live layout acknowledged
	any     uint64                 // writes that any two nodes acknowledged
	writes  int
	hands   []*hand
}

// hand is a removal under way: what a node saw, and who confirmed it under which layout.
type hand struct {
	node  ring.NodeID
	seen  uint64
	under *ring.Layout
	batch *Batch
}

// layouts are some in which different threes of the nodes own the slot.
var layouts = func() (out []*ring.Layout) {
	for i := range 12 {
		out = append(out, layoutOf(rand.New(rand.NewPCG(uint64(i), 1)), i))
	}
	return out
}()

func layoutOf(r *rand.Rand, epoch int) *ring.Layout {
	ids := r.Perm(modelNodes)
	v := ring.NewView(ring.Found(ring.ClusterID{1}, ring.Member{ID: node(byte(ids[0] + 1)), Name: "n", Weight: 1, Tokens: []ring.Slot{modelSlot}}, 3, 2))
	var changes []ring.Change
	for at, i := range ids[1:] {
		changes = append(changes, ring.Change{Kind: ring.ChangeJoin, Member: ring.Member{ID: node(byte(i + 1)), Name: fmt.Sprintf("n%d-%d", i, epoch), Weight: 1,
			Tokens: []ring.Slot{modelSlot + ring.Slot(at) + 1}}})
	}
	l, err := v.Propose(changes)
	if err != nil {
		panic(err)
	}
	return l
}

func (m *model) owners(l *ring.Layout) []ring.NodeID { return l.Primaries(modelSlot) }

// step does one thing at random. It returns what was lost.
func (m *model) step() string {
	anyone := func() ring.NodeID { return node(byte(m.r.IntN(modelNodes) + 1)) }
	switch m.r.IntN(10) {
	case 0: // a write that two owners in each live layout take
		if m.writes++; m.writes > 60 {
			return ""
		}
		bit := uint64(1) << m.writes
		for _, l := range []*ring.Layout{m.settled, m.next} {
			if l == nil {
				continue
			}
			to := slices.Clone(m.owners(l))
			m.r.Shuffle(len(to), func(i, j int) { to[i], to[j] = to[j], to[i] })
			for _, id := range to[:2] {
				m.held[id] |= bit
			}
		}
		m.strict |= bit
		m.any |= bit
	case 1: // a write that comes late, to two nodes that need not be owners any more
		if m.writes++; m.writes > 60 {
			return ""
		}
		bit := uint64(1) << m.writes
		a, b := anyone(), anyone()
		if a == b {
			return ""
		}
		m.held[a] |= bit
		m.held[b] |= bit
		m.any |= bit
	case 2, 3: // a change begins; or an owner in it pulls from two owners before; or all have, and it is settled
		if m.next == nil {
			m.next, m.synced = layouts[m.r.IntN(len(layouts))], map[ring.NodeID]bool{}
			if m.next == m.settled {
				m.next = nil
			}
			return ""
		}
		for _, id := range m.owners(m.next) {
			if m.synced[id] {
				continue
			}
			from := slices.Clone(m.owners(m.settled))
			m.r.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
			m.held[id] |= m.held[from[0]] | m.held[from[1]]
			m.synced[id] = true
			m.pulled[id] = m.held[id]
			return m.check()
		}
		m.settled, m.next = m.next, nil
		for id := range m.pulled {
			if !m.settled.Owns(id, modelSlot) {
				delete(m.pulled, id)
			}
		}
	case 4, 7: // a node looks at what it does not own
		id := anyone()
		if m.next == nil && m.held[id] != 0 && !m.settled.Owns(id, modelSlot) {
			h := &hand{node: id, seen: m.held[id], under: m.settled, batch: NewBatch(m.settled)}
			h.batch.Without = m.without
			h.batch.Add(modelSlot, record.Digest{1})
			m.hands = append(m.hands, h)
		}
	case 5, 6, 8: // an owner confirms, and has taken it
		if len(m.hands) == 0 {
			return ""
		}
		h := m.hands[m.r.IntN(len(m.hands))]
		owners := h.batch.Owners()
		for _, id := range owners[:1+m.r.IntN(len(owners))] {
			m.held[id] |= h.seen
			h.batch.Confirm(id, 0)
		}
	case 9: // it removes
		if len(m.hands) == 0 {
			return ""
		}
		at := m.r.IntN(len(m.hands))
		h := m.hands[at]
		if len(h.batch.Removable()) == 0 {
			return ""
		}
		m.hands = slices.Delete(m.hands, at, at+1)
		newest, acked := m.settled, m.settled.ID()
		if m.next != nil {
			newest, acked = m.next, m.next.ID()
		}
		if m.without&WithoutFence == 0 && !MayRemove(h.under, m.settled, newest, acked, h.node, modelSlot) {
			return ""
		}
		if m.without&WithoutUnchanged == 0 && m.held[h.node] != h.seen {
			return ""
		}
		m.held[h.node] = 0
	}
	return m.check()
}

// check says what does not hold any more: a write that two acknowledged is at two, and a strict one at two owners.
func (m *model) check() string {
	var one, two uint64
	for _, have := range m.held {
		two |= one & have
		one |= have
	}
	if two&m.any != m.any {
		return "of a write that two machines acknowledged there is one copy, or none"
	}
	one, two = 0, 0
	for _, id := range m.owners(m.settled) {
		two |= one & m.held[id]
		one |= m.held[id]
	}
	if two&m.strict != m.strict {
		return "a read of two owners may miss an acknowledged write"
	}
	for id, pulled := range m.pulled {
		if owner := m.next != nil && m.synced[id] || m.settled.Owns(id, modelSlot); owner && m.held[id]&pulled != pulled {
			return "an owner has less than when it said that it has everything"
		}
	}
	return ""
}

// lost runs a history and returns what it lost.
func lost(seed uint64, without Rules) string {
	r := rand.New(rand.NewPCG(seed, 5))
	m := &model{r: r, without: without, settled: layouts[r.IntN(len(layouts))], held: map[ring.NodeID]uint64{}, pulled: map[ring.NodeID]uint64{}}
	for range 200 {
		if what := m.step(); what != "" {
			return what
		}
	}
	return ""
}

func TestRemovalsLoseNothing(t *testing.T) {
	for seed := range uint64(5000) {
		if what := lost(seed, 0); what != "" {
			t.Fatalf("seed %d: %s", seed, what)
		}
	}
}

// Each rule is needed: without it some history loses a write.
func TestPlantedRemovals(t *testing.T) {
	for name, without := range map[string]Rules{
		"delete before confirm": WithoutConfirm, "delete what has changed": WithoutUnchanged, "delete what may be owned again": WithoutFence,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5000) {
				if what := lost(seed, without); what != "" {
					t.Logf("seed %d: %s", seed, what)
					return
				}
			}
			t.Error("5,000 histories lose nothing without the rule")
		})
	}
}

func TestUnownedIsTheRest(t *testing.T) {
	l := layoutOf(rand.New(rand.NewPCG(1, 1)), 0)
	for n := range byte(modelNodes + 1) {
		covered := 0
		for _, r := range Unowned(l, node(n+1)) {
			covered += r.Len()
			for _, s := range []ring.Slot{r.From, r.To - 1} {
				if l.Owns(node(n+1), s) {
					t.Errorf("node %d owns slot %d", n+1, s)
				}
			}
		}
		for _, r := range l.OwnedRanges(node(n + 1)) {
			covered += r.Len()
		}
		if covered != ring.Slots {
			t.Errorf("node %d: %d slots are owned or not", n+1, covered)
		}
	}
}

// A node that left hands over what this process held as a member, until it was out of sight for a quarter of the grace time.
func TestStanding(t *testing.T) {
	const grace = time.Minute
	in := layoutOf(rand.New(rand.NewPCG(1, 1)), 1)
	v := ring.NewView(in)
	out, err := v.Propose([]ring.Change{{Kind: ring.ChangeLeave, Member: ring.Member{ID: node(1)}}})
	if err != nil {
		t.Fatal(err)
	}
	all := func(ring.NodeID) bool { return true }
	none := func(ring.NodeID) bool { return false }
	start := time.Unix(1000, 0)
	look := func(s *Standing, after time.Duration, settled, newest *ring.Layout, sees func(ring.NodeID) bool, want bool) {
		t.Helper()
		if got := s.Look(start.Add(after), settled, newest, node(1), sees); got != want || s.Late() == want && s.member {
			t.Errorf("after %s: %v, late %v", after, got, s.Late())
		}
	}
	stranger := Standing{Grace: grace}
	look(&stranger, 0, out, out, all, false)
	if stranger.Late() {
		t.Error("one that never was a member has not lost sight of anything")
	}
	left := Standing{Grace: grace}
	look(&left, 0, in, in, none, true)
	look(&left, time.Hour, in, in, none, true)
	look(&left, time.Hour+grace/4, out, out, none, true)
	look(&left, time.Hour+grace/4, out, out, all, true)
	look(&left, time.Hour+grace/2, out, out, none, true)
	look(&left, time.Hour+grace/2+time.Second, out, out, none, false)
	look(&left, 2*time.Hour, out, out, all, false)

	slept := Standing{Grace: grace}
	look(&slept, 0, in, in, all, true)
	look(&slept, time.Second, out, out, all, true)
	look(&slept, grace, out, out, all, false) // others may have missed it, although it sees them all again

	// What is settled without it, it need not have heard.
	cut := Standing{Grace: grace}
	look(&cut, 0, in, in, all, true)
	look(&cut, time.Second, in, out, none, true)
	look(&cut, grace/2, in, out, none, false)
	look(&cut, grace, out, out, all, false)

	started := Standing{Grace: grace}
	look(&started, 0, in, out, all, false)
	look(&started, time.Second, out, out, all, false)

	stays := Standing{Grace: grace}
	look(&stays, 0, in, in, all, true)
	look(&stays, grace, in, out, none, false)
	look(&stays, grace+time.Second, in, in, none, true) // the leave was given up

	never := Standing{}
	look(&never, 0, in, out, all, true)
	look(&never, time.Hour, out, out, none, true)
}
