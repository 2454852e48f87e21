package quorum

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/ring"
)

// standInWorld is what an observer knows of a put with fallbacks: who was sent what, and who acknowledged.
type standInWorld struct {
	t        *rapid.T
	cfg      PutConfig
	lists    [][]ring.NodeID
	sloppy   bool
	put      Put
	hints    map[ring.NodeID][]ring.NodeID // whom each machine was asked to keep the record for
	asked    map[ring.NodeID]bool
	durable  map[ring.NodeID]bool
	inFlight []putCall
}

// TestStandInsAgainstObserver: with any health and any faults, a quorum that is reached is made of different machines,
// each an owner or a healthy fallback that keeps the record for an owner of that layout which lacks it; without leave only of owners.
func TestStandInsAgainstObserver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &standInWorld{t: t, sloppy: rapid.Bool().Draw(t, "sloppy"), hints: map[ring.NodeID][]ring.NodeID{},
			asked: map[ring.NodeID]bool{}, durable: map[ring.NodeID]bool{}}
		w.start()
		for range 200 {
			if w.steps() {
				w.check()
				return
			}
			w.event()
		}
		t.Fatalf("no verdict after 200 events")
	})
}

func (w *standInWorld) start() {
	t := w.t
	const all = "abcdefgh"
	layouts := make([]PutLayout, rapid.IntRange(1, 2).Draw(t, "live"))
	for l := range layouts {
		order := rapid.Permutation([]byte(all)).Draw(t, "order")
		n := rapid.IntRange(1, 4).Draw(t, "n")
		var list []ring.NodeID
		for i, b := range order[:rapid.IntRange(n, len(order)).Draw(t, "members")] {
			if i < n {
				layouts[l].Owners = append(layouts[l].Owners, node(string(b)))
			} else {
				list = append(list, node(string(b)))
			}
		}
		layouts[l].ID, layouts[l].Need = ring.LayoutID{Epoch: uint64(l + 1)}, rapid.IntRange(1, n).Draw(t, "need")
		w.lists = append(w.lists, list)
	}
	sick := rapid.SliceOfN(rapid.SampledFrom([]byte(all)), 0, 5).Draw(t, "away")
	suspect := rapid.SliceOfN(rapid.SampledFrom([]byte(all)), 0, 3).Draw(t, "suspect")
	w.cfg = PutConfig{Layouts: layouts, Read: rapid.IntRange(0, len(layouts)-1).Draw(t, "read"), Health: func(n ring.NodeID) Candidate {
		return Candidate{Node: n, Connected: !slices.Contains(sick, n[0]), Suspect: slices.Contains(suspect, n[0])}
	}}
	if w.sloppy {
		w.cfg.Fallbacks = func(l int) []ring.NodeID { return w.lists[l] }
	}
	w.put.Start(w.cfg)
}

func (w *standInWorld) owner(n ring.NodeID) bool {
	return slices.ContainsFunc(w.cfg.Layouts, func(l PutLayout) bool { return slices.Contains(l.Owners, n) })
}

func (w *standInWorld) steps() bool {
	for {
		s := w.put.Next()
		switch s.Do {
		case Finish:
			return true
		case Wait:
			if _, doubtful := w.put.Doubtful(); len(w.inFlight) == 0 && !doubtful {
				w.t.Fatalf("waits for nothing")
			}
			return false
		case Gather:
			w.put.Gathered(false)
		case Mint, Apply:
			w.sent(s)
		}
	}
}

func (w *standInWorld) sent(s Step) {
	to, t := w.put.Node(s.Replica), w.t
	hints := w.put.HintFor(s.Replica)
	switch {
	case w.owner(to) != (len(hints) == 0):
		t.Fatalf("%s owns the key: %v, and is to keep it for %v", letter(to), w.owner(to), hints)
	case w.owner(to):
	case !w.sloppy:
		t.Fatalf("%s is asked without leave", letter(to))
	case !w.cfg.Health(to).Connected || w.cfg.Health(to).Suspect:
		t.Fatalf("%s is asked to stand in, and not healthy", letter(to))
	}
	for i, n := range hints {
		if !w.owner(n) || slices.Contains(hints[:i], n) {
			t.Fatalf("%s is to keep the record for %v", letter(to), hints)
		}
	}
	if s.Do == Mint && !w.owner(to) {
		for _, n := range w.cfg.Layouts[w.cfg.Read].Owners {
			if w.cfg.Health(n).Connected && !w.asked[n] {
				t.Fatalf("%s mints, though %s was not asked", letter(to), letter(n))
			}
		}
		for _, l := range w.cfg.Layouts {
			for _, n := range l.Owners {
				if !slices.Contains(hints, n) {
					t.Fatalf("%s mints and does not keep the record for %s", letter(to), letter(n))
				}
			}
		}
	}
	w.asked[to] = true
	w.hints[to] = hints
	w.inFlight = append(w.inFlight, putCall{to: to, do: s.Do, round: w.put.Round()})
}

func (w *standInWorld) event() {
	t := w.t
	if i, doubtful := w.put.Doubtful(); doubtful && len(w.inFlight) == 0 {
		if rapid.Bool().Draw(t, "give up") {
			w.put.GiveUp()
		} else if !w.asked[w.put.Node(i)] {
			t.Fatalf("doubtful where nobody was asked")
		}
		w.put.Again()
		return
	}
	if rapid.IntRange(0, 9).Draw(t, "late") == 0 {
		w.put.Late()
		return
	}
	at := rapid.IntRange(0, len(w.inFlight)-1).Draw(t, "call")
	c := w.inFlight[at]
	i := w.put.Find(c.to)
	what := rapid.SampledFrom([]Cause{None, None, None, Away, Lost, Overloaded, Unavailable, DiskFull, Behind}).Draw(t, "what")
	if c.do == Mint && !c.issued && what == None {
		w.inFlight[at].issued = true
		w.put.Issued(i)
		return
	}
	w.inFlight = slices.Delete(w.inFlight, at, at+1)
	switch {
	case what == None:
		w.durable[c.to] = true
		w.put.Durable(i, c.round)
	case c.do == Mint && !c.issued && what == Lost:
		w.put.Doubt(i, what)
	default:
		w.put.Failed(i, c.round, what)
	}
}

// check counts by itself.
func (w *standInWorld) check() {
	t := w.t
	if hinted := w.put.Hinted(); hinted > w.put.Acks() || w.put.Acks() != len(w.durable) && w.put.Verdict() == Reached {
		t.Fatalf("%d acks of which %d hinted, from %d machines", w.put.Acks(), hinted, len(w.durable))
	}
	for l, layout := range w.cfg.Layouts {
		have := 0
		for n := range w.durable {
			keeps := slices.ContainsFunc(w.hints[n], func(o ring.NodeID) bool { return slices.Contains(layout.Owners, o) && !w.durable[o] })
			if slices.Contains(layout.Owners, n) || keeps && slices.Contains(w.lists[l], n) {
				have++
			}
		}
		if w.put.Verdict() == Reached && have < layout.Need {
			t.Fatalf("reached, with %d of %d machines in layout %d", have, layout.Need, l)
		}
	}
	if w.put.Verdict() == Reached {
		w.checkMissed()
	}
}

// checkMissed: whoever misses the write afterwards is stood in for once, or nobody is left who could.
func (w *standInWorld) checkMissed() {
	for len(w.inFlight) > 0 {
		c := w.inFlight[0]
		w.inFlight = w.inFlight[1:]
		for _, k := range w.put.Missed(w.put.Find(c.to), Lost) {
			w.sent(Step{Do: Apply, Replica: k})
		}
	}
}

// An owner that was only late, and the machine that stands in for it: the latter hands its copy to the former and drops it, so
// that one machine has the write.
func TestStandInDoesNotCountBesideItsOwner(t *testing.T) {
	var p Put
	p.Start(PutConfig{Layouts: []PutLayout{{ID: ring.LayoutID{Epoch: 1}, Owners: []ring.NodeID{node("a"), node("b"), node("c")}, Need: 2}},
		Health:    func(n ring.NodeID) Candidate { return Candidate{Node: n, Connected: true} },
		Fallbacks: func(int) []ring.NodeID { return []ring.NodeID{node("d"), node("e"), node("f")} }})
	ask := func(what Do) (sent []ring.NodeID) {
		for {
			s := p.Next()
			if s.Do != what {
				return sent
			}
			sent = append(sent, p.Node(s.Replica))
		}
	}
	durable := func(n string) { p.Durable(p.Find(node(n)), p.Round()) }
	if sent := ask(Mint); !slices.Equal(sent, []ring.NodeID{node("a")}) {
		t.Fatalf("%v mint", sent)
	}
	p.Issued(p.Find(node("a")))
	if sent := ask(Apply); len(sent) != 2 {
		t.Fatalf("sent to %v", sent)
	}
	p.Late()
	if sent := ask(Apply); len(sent) != 3 || !slices.Equal(p.HintFor(p.Find(node("d"))), []ring.NodeID{node("a")}) {
		t.Fatalf("%v stand in, d for %v", sent, p.HintFor(p.Find(node("d"))))
	}
	durable("d")
	durable("a")
	if p.Next(); p.Verdict() != Pending || p.Lacks() != 1 {
		t.Fatalf("an owner and its own stand-in are a quorum: %v, lacks %d", p.Verdict(), p.Lacks())
	}
	durable("e") // for b
	if p.Next(); p.Verdict() != Reached {
		t.Fatalf("%v with two owners' copies", p.Verdict())
	}
}
