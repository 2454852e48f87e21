package quorum

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// putWorld is what an outside observer knows of one put: which machines were asked, and what they did.
type putWorld struct {
	t       *rapid.T
	cfg     PutConfig
	put     Put
	durable map[ring.NodeID]bool
	failed  map[ring.NodeID]bool
	// inFlight are the calls not answered for good.
	inFlight []putCall
	// may is the machine where a mint may have happened, minted whether one has.
	may      *ring.NodeID
	minted   bool
	tooLarge bool
	gaveUp   bool
	gathered bool
	mints    int
	refused  int
	// since is the round from which on what a machine says of itself holds.
	since   map[ring.NodeID]int
	refresh int
	// callRound is that of the mint that is being answered.
	callRound int
	// lacks is what the put said of itself when it last waited, acks how many acknowledgements and nothing else came since.
	lacks, acks int
	plain       bool
}

type putCall struct {
	to     ring.NodeID
	do     Do
	issued bool
	round  int
}

func drawLayouts(t *rapid.T, names string, epoch int) []PutLayout {
	layouts := make([]PutLayout, rapid.IntRange(1, 2).Draw(t, "live"))
	for l := range layouts {
		owners := rapid.Permutation([]byte(names)).Draw(t, "owners")[:rapid.IntRange(1, 4).Draw(t, "n")]
		for _, o := range owners {
			layouts[l].Owners = append(layouts[l].Owners, node(string(o)))
		}
		layouts[l].ID = ring.LayoutID{Epoch: uint64(epoch + l)}
		layouts[l].Need = rapid.IntRange(1, len(owners)).Draw(t, "need")
	}
	return layouts
}

// TestPutAgainstObserver holds every verdict of a put against what an observer of all messages can count.
func TestPutAgainstObserver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &putWorld{t: t, durable: map[ring.NodeID]bool{}, failed: map[ring.NodeID]bool{}, since: map[ring.NodeID]int{}}
		layouts := drawLayouts(t, "abcdef", 1)
		away := rapid.SliceOfN(rapid.SampledFrom([]byte("abcdef")), 0, 2).Draw(t, "away")
		suspect := rapid.SliceOfN(rapid.SampledFrom([]byte("abcdef")), 0, 2).Draw(t, "suspect")
		w.cfg = PutConfig{Layouts: layouts, Read: rapid.IntRange(0, len(layouts)-1).Draw(t, "read"),
			Health: func(n ring.NodeID) Candidate {
				return Candidate{Node: n, Connected: !slices.Contains(away, n[0]), Suspect: slices.Contains(suspect, n[0])}
			}}
		w.put.Start(w.cfg)
		for range 200 {
			if w.steps() {
				w.checkVerdict()
				return
			}
			if w.lacks == 0 {
				w.lacks = w.put.Lacks()
			}
			w.plain = false
			w.event()
			if w.acks++; !w.plain || w.acks >= w.lacks {
				w.lacks, w.acks = 0, 0
			} else if s := w.put.Next(); s.Do != Wait {
				t.Fatalf("%v after %d acknowledgements, though %d were lacking", s.Do, w.acks, w.lacks)
			}
		}
		t.Fatalf("no verdict after 200 events")
	})
}

// steps does what the put wants, and returns whether it has decided.
func (w *putWorld) steps() bool {
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
			w.gathered = true
			w.put.Gathered(rapid.Bool().Draw(w.t, "covered"))
		case Mint:
			to := w.put.Node(s.Replica)
			if w.minted {
				w.t.Fatalf("minted twice")
			}
			if w.may != nil && *w.may != to {
				w.t.Fatalf("mint at %s, though one may have happened at %s", letter(to), letter(*w.may))
			}
			if w.may == nil && !slices.Contains(w.cfg.Layouts[w.cfg.Read].Owners, to) {
				w.t.Fatalf("mint at %s, no owner in the layout that reads use", letter(to))
			}
			w.mints++
			w.inFlight = append(w.inFlight, putCall{to: to, do: Mint, round: w.put.Round()})
		case Apply:
			if !w.minted {
				w.t.Fatalf("applied before the mint")
			}
			to := w.put.Node(s.Replica)
			w.failed[to] = false
			w.inFlight = append(w.inFlight, putCall{to: to, do: Apply, round: w.put.Round()})
		}
	}
}

// event lets one thing happen.
func (w *putWorld) event() {
	t := w.t
	if i, doubtful := w.put.Doubtful(); doubtful && len(w.inFlight) == 0 {
		if rapid.IntRange(0, 5).Draw(t, "give up") == 0 {
			w.gaveUp = true
			w.put.GiveUp()
			return
		}
		if w.may == nil || *w.may != w.put.Node(i) {
			t.Fatalf("doubtful at a machine that was not asked")
		}
		w.put.Again()
		return
	}
	at := rapid.IntRange(0, len(w.inFlight)-1).Draw(t, "call")
	c := w.inFlight[at]
	what := rapid.SampledFrom([]string{"ok", "ok", "ok", "refused", "fenced", "newer", "lost", "behind", "large"}).Draw(t, "what")
	if what == "newer" { // fenced, and the refusal hands over newer layouts
		what = "fenced"
		if w.refresh < 3 {
			w.newer()
		}
	}
	i := w.put.Find(c.to)
	if c.do == Mint && !c.issued {
		w.mintAnswer(at, i, what)
		return
	}
	w.inFlight = slices.Delete(w.inFlight, at, at+1)
	latest := !slices.ContainsFunc(w.inFlight, func(o putCall) bool { return o.to == c.to && o.round > c.round })
	switch {
	case what == "ok":
		w.plain = true
		if c.round >= w.since[c.to] {
			w.durable[c.to] = true
		}
		if i >= 0 {
			w.put.Durable(i, c.round)
		}
	case i < 0:
	case what == "fenced" && c.do == Apply:
		w.failed[c.to] = w.failed[c.to] || latest && c.round == w.put.Round()
		w.put.Fenced(i, c.round)
	default:
		w.failed[c.to] = w.failed[c.to] || latest
		w.put.Failed(i, c.round, Lost)
	}
}

// newer changes the layouts: the newest stays, or none does.
func (w *putWorld) newer() {
	t := w.t
	w.refresh++
	old := w.cfg.Layouts
	next := drawLayouts(t, "abcdef", int(old[len(old)-1].ID.Epoch)+1)
	if rapid.Bool().Draw(t, "in steps") {
		next = []PutLayout{old[len(old)-1], next[0]}
	}
	w.cfg.Layouts, w.cfg.Read = next, rapid.IntRange(0, len(next)-1).Draw(t, "read")
	w.put.Refresh(w.cfg)
	for n := byte('a'); n <= 'f'; n++ {
		id, stays := node(string(n)), false
		for _, l := range next {
			for _, was := range old {
				stays = stays || l.ID == was.ID && slices.Contains(l.Owners, id)
			}
		}
		if !stays { // it may have handed its copy on and deleted it
			delete(w.durable, id)
			delete(w.failed, id)
			w.since[id] = w.put.Round()
		}
	}
}

func (w *putWorld) mintAnswer(at, i int, what string) {
	to := w.inFlight[at].to
	w.callRound = w.inFlight[at].round
	if what == "ok" {
		w.minted = true
		w.may = &to
		w.inFlight[at].issued = true
		w.put.Issued(i)
		return
	}
	w.inFlight = slices.Delete(w.inFlight, at, at+1)
	if what == "lost" {
		w.may = &to
		w.put.Doubt(i, Lost)
		return
	}
	w.refused++
	switch round := w.callRound; what {
	case "refused":
		w.put.Failed(i, round, Unavailable)
	case "fenced":
		w.put.Fenced(i, round)
	case "behind":
		w.put.Failed(i, round, Behind)
	case "large":
		w.tooLarge = true
		w.put.Failed(i, round, TooLarge)
	}
}

func (w *putWorld) checkVerdict() {
	t := w.t
	if w.put.NotApplied() != (w.mints == w.refused) {
		t.Fatalf("not applied is %v, after %d mints of which %d were refused", w.put.NotApplied(), w.mints, w.refused)
	}
	enough, possible, connected := true, true, true
	for _, l := range w.cfg.Layouts {
		have, may, here := 0, 0, 0
		for _, n := range l.Owners {
			if w.durable[n] {
				have++
			}
			if !w.failed[n] {
				may++
			}
			if w.cfg.Health(n).Connected {
				here++
			}
		}
		enough, possible, connected = enough && have >= l.Need, possible && may >= l.Need, connected && here >= l.Need
	}
	switch w.put.Verdict() {
	case Reached:
		if !w.minted || !enough {
			t.Fatalf("committed with %v", w.durable)
		}
	case Impossible:
		switch {
		case w.minted && possible:
			t.Fatalf("impossible, though only %v failed", w.failed)
		case !w.minted && connected && !w.tooLarge && !w.gaveUp && w.refused == 0:
			t.Fatalf("impossible before anyone refused")
		}
	case Stale:
		if w.minted || !w.gathered {
			t.Fatalf("stale without reading all")
		}
	default:
		t.Fatalf("no verdict")
	}
}

// drawHistory makes the records that replicas may hold: states of a history of mints and merges.
func drawHistory(t *rapid.T) []causal.Set {
	states := []causal.Set{{}}
	counters := map[byte]uint64{}
	for range rapid.IntRange(1, 6).Draw(t, "writes") {
		base := states[rapid.IntRange(0, len(states)-1).Draw(t, "base")]
		actor := rapid.SampledFrom([]byte("xyz")).Draw(t, "actor")
		counters[actor]++
		var ctx *causal.Context
		if rapid.Bool().Draw(t, "stale") {
			ctx = &causal.Context{}
		}
		next, err := causal.Mint(base, ctx, causal.Sibling{Dot: causal.Dot{Actor: causal.Actor{0: actor}, Counter: counters[actor]}})
		if err != nil {
			continue // a counter that the base covers: not a history
		}
		states = append(states, next)
		if rapid.Bool().Draw(t, "merge") {
			other := states[rapid.IntRange(0, len(states)-1).Draw(t, "other")]
			states = append(states, causal.Merge(next, other))
		}
	}
	return states
}

func rawOf(s causal.Set) []byte { return record.Append(nil, []byte("k"), s) }

func mustDigest(t *rapid.T, s causal.Set) record.Digest {
	d, err := record.DigestOf(rawOf(s))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func isEmpty(s causal.Set) bool { return len(s.Clock) == 0 }

// TestGetAgainstReplicas runs gets over replicas whose records are known, and holds every answer against them.
func TestGetAgainstReplicas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := drawHistory(t)
		n, others := rapid.IntRange(1, 5).Draw(t, "n"), rapid.IntRange(0, 3).Draw(t, "others")
		cfg := GetConfig{R: rapid.IntRange(1, n).Draw(t, "r"), Spread: rapid.Uint64().Draw(t, "spread")}
		has := map[ring.NodeID]causal.Set{}
		for i := range n + others {
			c := Candidate{Node: ring.NodeID{0: byte('a' + i)}, Connected: rapid.IntRange(0, 4).Draw(t, "away") > 0,
				Suspect: rapid.IntRange(0, 4).Draw(t, "suspect") == 0, Mean: time.Duration(rapid.IntRange(0, 3000).Draw(t, "mean")) * time.Microsecond}
			has[c.Node] = rapid.SampledFrom(history).Draw(t, "record")
			if i < n {
				cfg.Primaries = append(cfg.Primaries, c)
			} else {
				cfg.Others = append(cfg.Others, c)
			}
		}
		var seen *causal.Context
		if rapid.Bool().Draw(t, "with context") {
			seen = &causal.Context{Vector: rapid.SampledFrom(history).Draw(t, "seen").Clock}
		}
		g := &getWorld{t: t, cfg: cfg, seen: seen, has: has, failed: map[ring.NodeID]bool{}, answered: map[ring.NodeID]bool{}, told: map[ring.NodeID]bool{}}
		g.run()
	})
}

type getWorld struct {
	t        *rapid.T
	cfg      GetConfig
	seen     *causal.Context
	get      Get
	has      map[ring.NodeID]causal.Set
	failed   map[ring.NodeID]bool
	answered map[ring.NodeID]bool // with a record, or absence
	told     map[ring.NodeID]bool // anything at all
	inFlight []Step
	now      time.Duration
}

func (w *getWorld) run() {
	budget := NewBudget(0.05, 1)
	w.get.Start(w.cfg, w.seen)
	for range 100 {
		for {
			s := w.get.Next(w.now)
			if s.Do == Finish {
				w.check()
				return
			}
			if s.Do == Wait {
				break
			}
			w.inFlight = append(w.inFlight, s)
		}
		if len(w.inFlight) == 0 {
			w.t.Fatalf("waits for nothing")
		}
		at := rapid.IntRange(0, len(w.inFlight)-1).Draw(w.t, "call")
		switch rapid.IntRange(0, 9).Draw(w.t, "event") {
		case 0:
			w.now += time.Millisecond
			w.get.Tick(w.now, budget)
			continue
		case 1:
			w.get.Suspected(w.inFlight[at].Replica)
			continue
		}
		w.answer(at)
	}
	w.t.Fatalf("no verdict after 100 events")
}

func (w *getWorld) answer(at int) {
	s := w.inFlight[at]
	w.inFlight = slices.Delete(w.inFlight, at, at+1)
	n := w.get.Node(s.Replica)
	set := w.has[n]
	w.told[n] = true
	switch {
	case rapid.IntRange(0, 4).Draw(w.t, "fails") == 0:
		w.failed[n] = true
		w.get.Failed(s.Replica, rapid.SampledFrom([]Cause{Away, Lost, Overloaded, Failed, Damaged}).Draw(w.t, "cause"))
	case isEmpty(set):
		w.answered[n] = true
		w.get.Absent(s.Replica)
	case s.Do == Digest:
		w.get.Digest(s.Replica, mustDigest(w.t, set))
	default:
		w.answered[n] = true
		w.get.Record(s.Replica, set, mustDigest(w.t, set), rawOf(set))
	}
}

func (w *getWorld) check() {
	t, set := w.t, w.get.Set()
	want := causal.Set{}
	for n := range w.answered {
		want = causal.Merge(want, w.has[n])
	}
	if string(rawOf(set)) != string(rawOf(want)) {
		t.Fatalf("answers %v, and the records read make %v", set, want)
	}
	alive, within := 0, 0
	for _, c := range w.cfg.Primaries {
		if !w.failed[c.Node] {
			alive++
		}
		if string(rawOf(causal.Merge(set, w.has[c.Node]))) == string(rawOf(set)) {
			within++
		}
	}
	switch w.get.Verdict() {
	case Reached:
		if within < w.cfg.R {
			t.Fatalf("answers with %d replicas of %d", within, w.cfg.R)
		}
		if w.seen != nil && !w.seen.SatisfiedBy(set.Clock) {
			t.Fatalf("answers with less than the context")
		}
		w.checkRepairs(set)
		if raw := w.get.Raw(); raw != nil && string(raw) != string(rawOf(set)) {
			t.Fatalf("bytes that are not the answer's")
		}
	case Impossible:
		if alive >= w.cfg.R {
			t.Fatalf("impossible with %d replicas of %d alive", alive, w.cfg.R)
		}
	case Stale:
		if w.seen == nil || w.seen.SatisfiedBy(set.Clock) || len(w.told) < len(w.has) {
			t.Fatalf("stale after %d of %d", len(w.told), len(w.has))
		}
	}
}

// checkRepairs: who counts and lacks something is repaired; who was read and has all of it is not (of a digest alone that
// differs from each record read, nobody knows whether it is the merge's); others never are.
func (w *getWorld) checkRepairs(set causal.Set) {
	for i := range w.get.Len() {
		n := w.get.Node(i)
		same := string(rawOf(w.has[n])) == string(rawOf(set)) || isEmpty(set)
		repair, primary := w.get.Repair(i), slices.ContainsFunc(w.cfg.Primaries, func(c Candidate) bool { return c.Node == n })
		switch {
		case repair && !primary:
			w.t.Fatalf("repairs a fallback")
		case repair && same && w.answered[n]:
			w.t.Fatalf("repairs a replica that has it all")
		case !repair && !same && w.get.Report(i).Counted:
			w.t.Fatalf("%s counts, has another record, and is not repaired", fmt.Sprint(letter(n)))
		}
	}
}

// TestBudget: over any sequence, extra requests stay within the burst and the share.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		burst := rapid.IntRange(0, 5).Draw(t, "burst")
		b := NewBudget(0.05, burst)
		earned, spent := 0, 0
		for range rapid.IntRange(1, 300).Draw(t, "events") {
			if rapid.Bool().Draw(t, "earn") {
				n := rapid.IntRange(1, 5).Draw(t, "n")
				b.Earn(n)
				earned += n
			} else if b.Spend() {
				spent++
			}
			if float64(spent) > float64(burst)+0.05*float64(earned)+1e-9 {
				t.Fatalf("spent %d of a burst of %d after %d requests", spent, burst, earned)
			}
		}
	})
}
