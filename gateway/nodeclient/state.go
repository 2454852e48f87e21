package nodeclient

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Member is a storage node as the cluster's gossip describes it.
type Member struct {
	ID         ring.NodeID
	Name, Zone string
	Weight     float64
	GRPCAddr   string // host:port
	GossipAddr string
	AdminAddr  string
	Status     string // alive, failed, leaving, left
	Actor      causal.Actor
}

// State is what the gateway knows of the cluster, at one moment. It is never modified, nor may it be.
type State struct {
	Cluster ring.ClusterID
	View    *ring.View
	// Live are the layouts that writes must satisfy, the settled one first, and Read the one that reads use.
	Live []*ring.Layout
	Read *ring.Layout
	// Names are those of Live, and travel with requests; ReadIndex is where Read's is.
	Names     []*storagev1.LayoutName
	ReadIndex uint32
	Members   map[ring.NodeID]Member
	// Generation grows with every change.
	Generation uint64
}

// Name returns a node's name for people, and its id where it has none.
func (s *State) Name(id ring.NodeID) string {
	if m, ok := s.Members[id]; ok && m.Name != "" {
		return m.Name
	}
	for _, l := range s.Live {
		if m, ok := l.Member(id); ok && m.Name != "" {
			return m.Name
		}
	}
	return id.String()
}

// NewState derives all from a view, which it keeps, as it does members: neither may be modified any more.
func NewState(view *ring.View, members map[ring.NodeID]Member, generation uint64) *State {
	s := &State{Cluster: view.Cluster(), View: view, Live: view.Live(), Read: view.ReadLayout(),
		Members: members, Generation: generation}
	for i, l := range s.Live {
		id := l.ID()
		s.Names = append(s.Names, &storagev1.LayoutName{Epoch: id.Epoch, Hash: id.Hash[:]})
		if l == s.Read {
			s.ReadIndex = uint32(i)
		}
	}
	return s
}

// errNoView says that a node told of no view, as one that has not founded or joined a cluster yet.
var errNoView = errors.New("the node belongs to no cluster yet")

// learn merges the whole view that a node told.
func (c *Client) learn(encoded []byte) error {
	told, err := follow(nil, encoded)
	if err != nil {
		return err
	}
	return c.learnView(told, nil)
}

// learnView merges what a node told, which it does not modify, and publishes the outcome. members nil says nothing of members.
func (c *Client) learnView(told *ring.View, members []*storagev1.Member) (err error) {
	c.learning.Lock()
	defer c.learning.Unlock()
	old := c.state.Load()
	view, known, changed := told.Clone(), map[ring.NodeID]Member(nil), true
	generation := uint64(1)
	if old != nil {
		view, known, generation = old.View.Clone(), old.Members, old.Generation+1
		if changed, err = view.Merge(told); err != nil {
			return fmt.Errorf("merge view: %w", err)
		}
	}
	if members != nil {
		next := membersOf(members)
		changed = changed || !maps.Equal(known, next)
		known = next
	}
	if !changed {
		return nil
	}
	s := NewState(view, known, generation)
	c.state.Store(s)
	c.log.Info().Uint64("generation", generation).Stringer("layout", s.Live[len(s.Live)-1].ID()).
		Int("live_layouts", len(s.Live)).Int("members", len(known)).Msg("cluster state changed")
	signal(c.changed)
	signal(c.reconcile)
	return nil
}

// maxMembers bounds what a node may tell of members.
const maxMembers = 4096

// membersOf reads members; those without a proper id are left out. At most one entry of an id is kept, an alive one
// where there is one.
func membersOf(told []*storagev1.Member) map[ring.NodeID]Member {
	if len(told) > maxMembers {
		told = told[:maxMembers]
	}
	out := make(map[ring.NodeID]Member, len(told))
	for _, m := range told {
		if len(m.GetId()) != 16 {
			continue
		}
		id := ring.NodeID(m.GetId())
		if had, ok := out[id]; ok && had.Status == "alive" {
			continue
		}
		next := Member{ID: id, Name: m.GetName(), Zone: m.GetZone(), Weight: m.GetWeight(), GRPCAddr: m.GetGrpcAddr(),
			GossipAddr: m.GetGossipAddr(), AdminAddr: m.GetAdminAddr(), Status: m.GetStatus()}
		if len(m.GetActor()) == 16 {
			next.Actor = causal.Actor(m.GetActor())
		}
		out[id] = next
	}
	return out
}

// wanted lists the nodes to be connected to: the members of the live layouts whose addresses are known, but for those marked
// dead, whose answers count for nothing.
func (s *State) wanted() map[ring.NodeID]string {
	out := make(map[ring.NodeID]string)
	for _, l := range s.Live {
		for _, m := range l.Members() {
			if addr := s.Members[m.ID].GRPCAddr; addr != "" && !s.View.IsDead(m.ID) {
				out[m.ID] = addr
			}
		}
	}
	return out
}

// addresses lists where the state can be learned: known members first those alive, sorted for a steady order.
func (s *State) addresses() []string {
	var alive, rest []string
	for _, m := range s.Members {
		switch {
		case m.GRPCAddr == "":
		case m.Status == "alive":
			alive = append(alive, m.GRPCAddr)
		default:
			rest = append(rest, m.GRPCAddr)
		}
	}
	slices.Sort(alive)
	slices.Sort(rest)
	return append(alive, rest...)
}

// signal leaves a token in a channel of capacity one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
