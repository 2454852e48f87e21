package leftovers

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/internal/layout"
)

// meta stores small state in memory.
type meta map[string][]byte

func (m meta) PutMeta(name string, v []byte, done func(error)) error {
	m[name] = v
	done(nil)
	return nil
}

func (m meta) GetMeta(name string) ([]byte, error) {
	if v, ok := m[name]; ok {
		return v, nil
	}
	return nil, engine.ErrNotFound
}

func memberOf(id byte) ring.Member {
	return ring.Member{ID: ring.NodeID{id}, Name: string('a' + rune(id)), Weight: 1, Tokens: ring.RandomTokens(ring.NodeID{id}, 4, nil)}
}

// A node that looks before it is a member has not left: once it was one, and leaves, it hands over. One that was none in this
// process never does.
func TestJoinersHaveNotLeft(t *testing.T) {
	me := ring.NodeID{2}
	state, err := layout.Load(me, meta{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Self: me, State: state, InDoubt: func() bool { return false }, Grace: time.Hour, Logger: zerolog.Nop(),
		Alive:      func() map[ring.NodeID]string { return map[ring.NodeID]string{{1}: "x", {3}: "x"} },
		Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	v := ring.NewView(ring.Found(ring.ClusterID{1}, memberOf(1), 1, 1))
	settle := func(c ring.Change) {
		t.Helper()
		l, err := v.Propose([]ring.Change{c})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range v.Required(l) {
			v.MarkSwitched(l.ID(), id)
		}
		if _, err := state.Merge(v); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if err := state.Adopt(t.Context(), v.Clone()); err != nil {
		t.Fatal(err)
	}
	if s.settled(now) != nil {
		t.Error("it hands over before it is a member")
	}
	settle(ring.Change{Kind: ring.ChangeJoin, Member: memberOf(2)})
	if s.settled(now) == nil {
		t.Error("a member does not hand over what it does not own")
	}
	settle(ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: me}})
	if s.settled(now.Add(time.Second)) == nil {
		t.Error("a member that left hands nothing over")
	}
}
