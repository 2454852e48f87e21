package collect_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/collect"
)

// settleCalls carries out all calls of the collector, in rounds, and their answers.
func (w *model) settleCalls() {
	w.collect(w.owners[0])
	for len(w.calls) > 0 {
		w.progress()
	}
}

// advance lets time go by with the collector at work.
func (w *model) advance(ticks int) {
	for range ticks {
		w.now++
		w.settleCalls()
	}
}

// mint writes at n what replaces all that n knows, and lets the others have it or not.
func (w *model) put(n *modelNode, tomb bool) *modelRecord {
	w.clients[0].ctx, w.clients[0].heard = causal.Context{}, heard{}
	var local causal.Set
	if n.rec != nil {
		local, w.clients[0].heard = n.rec.set, n.rec.heard
	}
	n.issued++
	w.writes++
	set, err := causal.Mint(local, nil, causal.Sibling{Dot: causal.Dot{Actor: n.actor, Counter: n.issued}, Tombstone: tomb, Value: writeValue(w.writes)})
	if err != nil {
		w.fail("mint: %v", err)
	}
	if tomb {
		w.tombs.add(w.writes)
	}
	w.past[w.writes] = w.clients[0].heard
	rec := &modelRecord{set: set, heard: w.clients[0].heard}
	rec.heard.add(w.writes)
	n.rec, n.marked = rec, false
	return rec
}

// A hint comes to a member after the first round, is given away before the second, and a copy of what was given away is
// still on its way when the tombstone is marked. Only the count of what moved tells.
func TestAHintThatComesAndGoesBetweenTheRounds(t *testing.T) {
	for _, bug := range []string{"", "gc_moves"} {
		w := newModel(1, bug, modelLayout(t))
		a, b, c, f := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		old := w.put(a, false)
		hint := message{to: f, rec: old, hintFor: b, born: w.now, life: f.actor}
		tomb := w.put(a, true)
		w.acked[w.writes] = true
		w.apply(b, tomb)
		w.apply(c, tomb)
		w.advance(2) // the first round is over
		w.msgs = append(w.msgs, hint)
		w.deliver()
		w.now += 27
		w.deliverHints(f)
		copied := w.msgs[0]
		w.msgs = w.msgs[:1]
		w.deliver()
		if len(f.hints) > 0 {
			t.Fatal("the hint is still there")
		}
		w.advance(12)
		w.msgs = append(w.msgs, copied)
		w.deliver()
		w.heal()
		if came := w.fault != ""; came != (bug != "") {
			t.Errorf("with bug %q: %q", bug, w.fault)
		}
	}
}

// why gives the machine a tombstone and a cluster, and returns what keeps it.
func TestWhyNamesWhatIsInTheWay(t *testing.T) {
	l := modelLayout(t)
	key := []byte("the key")
	start := time.Unix(1000, 0)
	tomb := collect.Tomb{Key: key, Digest: [16]byte{1}}
	owners := l.Primaries(ring.SlotOf(key))
	var spare ring.NodeID
	view := collect.View{Settled: l}
	for _, m := range l.Members() {
		view.Members = append(view.Members, collect.Member{ID: m.ID, Alive: true})
		if !l.Owns(m.ID, ring.SlotOf(key)) {
			spare = m.ID
		}
	}
	held := func(id ring.NodeID) collect.Holding {
		if l.Owns(id, ring.SlotOf(key)) {
			return collect.It
		}
		return collect.Nothing
	}
	for _, c := range []struct {
		name   string
		view   func(v *collect.View)
		says   func(id ring.NodeID) collect.Holding
		phase  string
		reason collect.Reason
		member ring.NodeID
		off    bool
	}{
		{name: "alike", phase: "second round", reason: collect.Waiting},
		{name: "unsettled", view: func(v *collect.View) { v.Settled = nil }, phase: "first round", reason: collect.LayoutUnsettled},
		{name: "down", view: func(v *collect.View) { v.Members[2].Alive = false }, phase: "first round", reason: collect.MemberDown,
			member: view.Members[2].ID},
		{name: "an owner has another", says: func(id ring.NodeID) collect.Holding {
			if id == owners[1] {
				return collect.Other
			}
			return held(id)
		}, phase: "first round", reason: collect.OwnerDiffers, member: owners[1], off: true},
		{name: "an owner lacks it", says: func(id ring.NodeID) collect.Holding {
			if id == owners[2] {
				return collect.Nothing
			}
			return held(id)
		}, phase: "first round", reason: collect.OwnerLacks, member: owners[2], off: true},
		{name: "a hint", says: func(id ring.NodeID) collect.Holding {
			if id == spare {
				return collect.Nothing | collect.Kept
			}
			return held(id)
		}, phase: "first round", reason: collect.MemberKeeps, member: spare, off: true},
		{name: "a leftover", says: func(id ring.NodeID) collect.Holding {
			if id == spare {
				return collect.It
			}
			return held(id)
		}, phase: "first round", reason: collect.MemberKeeps, member: spare, off: true},
		{name: "marked everywhere", says: func(id ring.NodeID) collect.Holding {
			if held(id) == collect.It {
				return collect.Marked
			}
			return collect.Nothing
		}, phase: "removal", reason: collect.Proceeding},
		{name: "half marked, and one lacks it", says: func(id ring.NodeID) collect.Holding {
			switch id {
			case owners[0]:
				return collect.Marked
			case owners[1]:
				return collect.Nothing
			}
			return held(id)
		}, phase: "marking", reason: collect.Proceeding},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, v := collect.New(collect.Default(time.Hour)), view
			v.Members = append([]collect.Member(nil), view.Members...)
			if c.view != nil {
				c.view(&v)
			}
			if c.says == nil {
				c.says = held
			}
			m.Observe(v)
			m.Offer(start, []collect.Tomb{tomb})
			for _, a := range m.Next(start) {
				m.Replied(start, a, &collect.Reply{Holdings: []collect.Holding{c.says(a.To)}, Moves: []uint32{0}})
			}
			got, known := m.Why(start, key)
			if !known || got.Phase != c.phase || got.Reason != c.reason || got.Member != c.member || got.PutOff != c.off {
				t.Errorf("%+v, %v", got, known)
			}
			if c.reason == collect.Waiting && got.Left != time.Hour {
				t.Errorf("%s left of an hour", got.Left)
			}
		})
	}
	if _, known := collect.New(collect.Default(time.Hour)).Why(start, key); known {
		t.Error("a machine knows what it was never told")
	}
}

// A member that does not answer, or makes no sense, puts the turn off and loses nothing; late answers change nothing.
func TestATurnThatFailsIsTriedAgain(t *testing.T) {
	w := newModel(1, "", modelLayout(t))
	tomb := w.put(w.nodes[0], true)
	w.apply(w.nodes[1], tomb)
	w.apply(w.nodes[2], tomb)
	m := w.nodes[0].machine
	w.collect(w.nodes[0])
	for i, c := range w.calls {
		if i == 1 {
			m.Replied(w.time(), c.ask, &collect.Reply{Holdings: make([]collect.Holding, 3)})
			continue
		}
		m.Replied(w.time(), c.ask, w.serve(w.nodes[0], c.ask))
	}
	late := w.calls[0]
	w.calls = nil
	if st, _ := m.Why(w.time(), modelKey); st.Reason != collect.MemberUnclear || st.Phase != "first round" || st.PutOff {
		t.Fatalf("%+v", st)
	}
	m.Replied(w.time(), late.ask, nil)
	w.advance(200)
	if w.nodes[0].rec != nil || m.Counts().Collected != 1 || m.Counts().InHand != 0 {
		t.Errorf("%+v, %+v", w.nodes[0].rec, m.Counts())
	}
}

// A machine takes no more than it may, and says of the others that it is full.
func TestBoundsOfAMachine(t *testing.T) {
	cfg := collect.Default(time.Hour)
	cfg.BatchKeys, cfg.BatchesMax = 3, 2
	m, now := collect.New(cfg), time.Unix(0, 0)
	var tombs []collect.Tomb
	for i := range 8 {
		tombs = append(tombs, collect.Tomb{Key: fmt.Append(nil, "key ", i)})
	}
	if n := m.Offer(now, tombs); n != 6 || m.Room() != 0 || m.Counts().InHand != 6 {
		t.Errorf("took %d, room %d, %+v", n, m.Room(), m.Counts())
	}
	if st, known := m.Why(now, tombs[7].Key); !known || st.Reason != collect.Full || !st.PutOff {
		t.Errorf("%+v, %v", st, known)
	}
	if n := m.Offer(now, tombs[:6]); n != 6 || m.Counts().InHand != 6 {
		t.Errorf("took %d again, %+v", n, m.Counts())
	}
}

func TestConfigNamesFaults(t *testing.T) {
	if err := (collect.Config{Grace: time.Second}).Validate(); err == nil {
		t.Error("accepted")
	}
	if err := collect.Default(collect.MinGrace).Validate(); err != nil {
		t.Error(err)
	}
}
