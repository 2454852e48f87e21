package quorum

import (
	"slices"

	"github.com/dotring/dotring/ringsvc/ring"
)

// PutLayout is one live layout as one put sees it.
type PutLayout struct {
	ID ring.LayoutID
	// Owners is the preference list of the key. It is kept and never modified.
	Owners []ring.NodeID
	// Need is how many of Owners must have the write durably: W within 1 and len(Owners).
	Need int
}

// PutConfig says what one put needs.
type PutConfig struct {
	// Layouts are the live layouts, the settled one first. The slice is read by Start and Refresh only.
	Layouts []PutLayout
	// Read is the index of the layout that reads use: its owners mint.
	Read int
	// Health gives what the gateway knows of a node; kept until the put ends.
	Health func(ring.NodeID) Candidate
	// Fallbacks gives who may stand in for owners in a layout, by its index: nodes that own nothing of the key there, in
	// preference order. Kept until the put ends, and called only when an owner has to be stood in for. nil allows nobody.
	Fallbacks func(layout int) []ring.NodeID
}

type putState uint8

const (
	unsent   putState = iota
	minting           // asked for the dot
	refused           // it will not mint
	waiting           // the mint may have happened there: asked again once it is connected
	minted            // it issued the dot, and will say when it is durable
	applying          // the record was sent
	durable           // it has the record on disk
	lost              // it will not acknowledge
)

// maxLive bounds the live layouts of a view: the settled one and the newest proposal.
const maxLive = 2

// target is one machine in a put.
type target struct {
	Candidate
	state  putState
	cause  Cause
	round  int           // in which it was last sent something
	since  int           // answers to what was sent in earlier rounds say nothing any more
	owner  [maxLive]bool // in each live layout
	minter bool          // it may mint
	late   bool          // an owner: it should have answered by now
	// hints are the owners that it is to keep the record for, and of the one whose place it takes in each live layout,
	// zero where it takes none. Only of machines that own the key in no live layout.
	hints []ring.NodeID
	of    [maxLive]ring.NodeID
}

type putPhase uint8

const (
	choosing  putPhase = iota // no mint is in flight
	inMint                    // one is
	inDoubt                   // one may have happened, and its node has to be asked again
	baseless                  // a base for the mint has to be read
	gathering                 // it is being read
	spreading                 // minted; the record is on its way to the others
)

// Put decides one write: who mints, who gets the record, and when enough machines hold it durably. A machine counts
// once in each live layout whose preference list it is in, as an owner or in an owner's place. Start it, then do what Next says, and tell it what happened.
type Put struct {
	targets  []target
	layouts  [maxLive]PutLayout
	live     int
	phase    putPhase
	round    int
	minter   int // who mints, minted or may have minted; meant from inMint on
	based    bool
	doubtful bool // some mint may have happened
	verdict  Verdict
	why      Cause // of Impossible, where one refusal decided
	retries  int
	read     int // index of the layout that reads use
	health   func(ring.NodeID) Candidate
	// fallbacks is nil where nobody may stand in; dry says where nobody is left who could.
	fallbacks func(layout int) []ring.NodeID
	dry       [maxLive]bool
	buf       [4]target
}

// maxRounds bounds how often a put follows changes of the layouts.
const maxRounds = 16

// Start begins a write, and forgets an earlier one.
func (p *Put) Start(cfg PutConfig) {
	*p = Put{minter: -1}
	p.targets = p.buf[:0]
	p.place(cfg, nil)
}

// place builds the list of targets: the owners in the layout that reads use first, in preference order.
func (p *Put) place(cfg PutConfig, old []target) {
	p.live = min(len(cfg.Layouts), maxLive)
	p.read, p.health, p.fallbacks, p.dry = cfg.Read, cfg.Health, cfg.Fallbacks, [maxLive]bool{}
	copy(p.layouts[:], cfg.Layouts[:p.live])
	for turn := range p.live {
		l := (cfg.Read + turn) % p.live
		for _, n := range p.layouts[l].Owners {
			i := p.Find(n)
			if i < 0 {
				i = len(p.targets)
				t := target{since: p.round}
				if at := slices.IndexFunc(old, func(t target) bool { return t.Node == n }); at >= 0 {
					t = old[at]
				}
				t.Candidate, t.owner, t.minter = cfg.Health(n), [maxLive]bool{}, l == cfg.Read
				t.late, t.hints, t.of = false, nil, [maxLive]ring.NodeID{}
				p.targets = append(p.targets, t)
			}
			p.targets[i].owner[l] = true
		}
	}
}

// Refresh goes on with newer layouts, after a node refused the old ones. What was minted stays minted. A machine that
// has the write counts on where it is an owner in a layout that was live before and is now, since only such a machine
// cannot have handed its copy on and deleted it in between; all others are sent the record again.
func (p *Put) Refresh(cfg PutConfig) {
	if p.verdict != Pending {
		return
	}
	old, was, wasLive := slices.Clone(p.targets), p.layouts, p.live
	minterNode := ring.NodeID{}
	if p.minter >= 0 {
		minterNode = old[p.minter].Node
	}
	p.targets = p.targets[:0]
	p.round++
	p.place(cfg, old)
	if p.minter >= 0 {
		if p.minter = p.Find(minterNode); p.minter < 0 {
			p.keepMinter(old, minterNode, cfg, was[:wasLive])
		}
	}
	for i := range p.targets {
		t := &p.targets[i]
		switch t.state {
		case refused:
			if t.cause == Fenced { // it may mint under the layouts it handed over
				t.state, t.cause = unsent, None
			}
		case durable, minted, applying, lost:
			if !p.stayed(t, was[:wasLive]) {
				t.state, t.since = unsent, p.round
			}
		}
	}
}

// keepMinter keeps the machine that has, or may have, the dot, though it owns the key no more: its answer is still needed.
func (p *Put) keepMinter(old []target, n ring.NodeID, cfg PutConfig, was []PutLayout) {
	at := slices.IndexFunc(old, func(t target) bool { return t.Node == n })
	t := old[at]
	t.Candidate, t.owner, t.minter = cfg.Health(n), [maxLive]bool{}, false
	p.keepPlaces(&t, was, t.of)
	p.minter = len(p.targets)
	p.targets = append(p.targets, t)
}

// stayed says whether t owns the key in a layout that was live before and still is.
func (p *Put) stayed(t *target, was []PutLayout) bool {
	for l := range p.live {
		if t.standsIn(l) {
			return true // only where the layout stayed
		}
		if !t.owner[l] {
			continue
		}
		for k := range was {
			if was[k].ID == p.layouts[l].ID && slices.Contains(was[k].Owners, t.Node) {
				return true
			}
		}
	}
	return false
}

// Len returns the number of machines in the put.
func (p *Put) Len() int { return len(p.targets) }

// Node returns the machine with index i. Indices change with Refresh.
func (p *Put) Node(i int) ring.NodeID { return p.targets[i].Node }

// Find returns the index of a machine, or -1.
func (p *Put) Find(n ring.NodeID) int {
	for i := range p.targets {
		if p.targets[i].Node == n {
			return i
		}
	}
	return -1
}

// Verdict returns what was decided; Pending until Next returned Finish.
func (p *Put) Verdict() Verdict { return p.verdict }

// Minted says whether the write has its dot.
func (p *Put) Minted() bool { return p.phase == spreading }

// NotApplied says that the write never happened and never will: no mint was sent, or every one was refused.
func (p *Put) NotApplied() bool {
	return p.phase != spreading && p.phase != inMint && !p.doubtful
}

// Retries returns how many mints were sent after the first.
func (p *Put) Retries() int { return max(p.retries-1, 0) }

// Acks returns how many machines hold the write durably.
func (p *Put) Acks() int {
	n := 0
	for i := range p.targets {
		if p.targets[i].state == durable {
			n++
		}
	}
	return n
}

// Next says what to do. It is called until it returns Wait or Finish, and again after each event.
func (p *Put) Next() Step {
	if p.verdict != Pending {
		return Step{Do: Finish}
	}
	switch p.phase {
	case choosing:
		return p.choose()
	case spreading:
		return p.spread()
	case baseless:
		p.phase = gathering
		return Step{Do: Gather}
	default:
		return Step{Do: Wait}
	}
}

// choose picks who mints: the first healthy owner of the layout that reads use, the same for every gateway in quiet
// times, then one that owes an answer, a suspect one, a fallback.
func (p *Put) choose() Step {
	if p.doubtful { // only the machine where it may have happened is ever asked again
		return p.mintAt(p.minter)
	}
	if !p.enoughConnected() {
		return p.impossible(Away)
	}
	for rank := range 3 {
		for i := range p.targets {
			t := &p.targets[i]
			if t.minter && t.state == unsent && t.mintRank() == rank {
				return p.mintAt(i)
			}
		}
	}
	if i := p.mintElsewhere(); i >= 0 {
		return p.mintAt(i)
	}
	return p.exhausted()
}

func (p *Put) mintAt(i int) Step {
	t := &p.targets[i]
	p.phase, p.minter = inMint, i
	p.retries++
	t.state, t.cause, t.round = minting, None, p.round
	return Step{Do: Mint, Replica: i}
}

// exhausted decides when nobody is left who might mint.
func (p *Put) exhausted() Step {
	var t tally
	behind := false
	for i := range p.targets {
		if p.targets[i].minter {
			t[p.targets[i].cause]++
			behind = behind || p.targets[i].cause == Behind
		}
	}
	switch {
	case behind && !p.based:
		p.phase = baseless
		return p.Next()
	case behind:
		p.verdict = Stale
		return Step{Do: Finish}
	}
	return p.impossible(t.shortfall(1))
}

// Gathered ends what Gather began. ok says whether a record was found that covers the context: mints are then based on it.
func (p *Put) Gathered(ok bool) {
	if p.phase != gathering || p.verdict != Pending {
		return
	}
	p.based, p.phase = true, choosing
	if !ok {
		p.verdict = Stale
		return
	}
	for i := range p.targets {
		if t := &p.targets[i]; t.state == refused && t.cause == Behind {
			t.state, t.cause = unsent, None
		}
	}
}

// enoughConnected says whether W machines of each live layout can be sent something now, stand-ins included.
func (p *Put) enoughConnected() bool {
	for l := range p.live {
		n := 0
		for i := range p.targets {
			if p.targets[i].owner[l] && p.targets[i].Connected {
				n++
			}
		}
		if n < p.layouts[l].Need && !p.fallbacksSuffice(l, p.layouts[l].Need-n) {
			return false
		}
	}
	return true
}

func (p *Put) impossible(why Cause) Step {
	p.verdict, p.why = Impossible, why
	return Step{Do: Finish}
}

// Round counts the refreshes. The answer to what was sent in a round comes with that round's number.
func (p *Put) Round() int { return p.round }

// Issued: machine i issued the dot. Its durability follows as Durable or Failed.
func (p *Put) Issued(i int) {
	if p.verdict != Pending || p.phase != inMint || i != p.minter {
		return
	}
	p.phase, p.doubtful = spreading, true
	p.targets[i].state = minted
	for k := range p.targets {
		if t := &p.targets[k]; k != i { // what was refused was the mint, not the record
			t.state, t.cause = unsent, None
		}
	}
}

// Durable: machine i has the record on disk.
func (p *Put) Durable(i, round int) {
	if t := &p.targets[i]; p.phase == spreading && round >= t.since {
		t.state, t.cause = durable, None
	}
}

// Failed: machine i will not acknowledge the record, or, while it was asked to mint, the mint was refused: it was not
// done there and never will be (also where it was never sent). For a mint that may have happened call Doubt.
func (p *Put) Failed(i, round int, cause Cause) {
	if p.verdict != Pending {
		return
	}
	t := &p.targets[i]
	if p.phase == spreading {
		if (t.state == minted || t.state == applying) && round >= t.round {
			t.state, t.cause = lost, cause
		}
		return
	}
	if t.state != minting || i != p.minter {
		return
	}
	t.cause = cause
	if cause == TooLarge || cause == Invalid && p.doubtful { // it would be refused again
		t.state, p.phase = refused, choosing
		p.impossible(cause)
		return
	}
	if p.doubtful {
		t.state, p.phase = waiting, inDoubt
		if cause == Behind && !p.based {
			t.state, p.phase = refused, baseless
		}
		return
	}
	t.state, p.phase = refused, choosing
}

// Fenced: machine i refused the layouts under which it was asked. The caller has refreshed the put before, where it
// came to know newer ones: then i is asked again, under those.
func (p *Put) Fenced(i, round int) {
	if p.verdict != Pending {
		return
	}
	t := &p.targets[i]
	newer := round < p.round && p.round < maxRounds
	switch {
	case !newer:
		p.Failed(i, round, Fenced)
	case p.phase == spreading:
		if t.state == applying && t.round == round {
			t.state = unsent
		}
	case t.state == minting && i == p.minter:
		t.state, p.phase = unsent, choosing
	}
}

// Doubt: the mint at machine i may have happened, and its answer will not come.
func (p *Put) Doubt(i int, cause Cause) {
	if p.verdict != Pending || p.phase == spreading || i != p.minter {
		return
	}
	p.doubtful, p.phase = true, inDoubt
	p.targets[i].state, p.targets[i].cause = waiting, cause
}

// Doubtful returns the machine that must be asked again for the mint that may have happened there: call Again once it
// is connected.
func (p *Put) Doubtful() (i int, yes bool) {
	return p.minter, p.phase == inDoubt && p.verdict == Pending
}

// MayBeRepeated says whether the mint may have happened before, so that asking for it is asking again.
func (p *Put) MayBeRepeated() bool { return p.doubtful }

// Again lets the machine that Doubtful named be asked again, with the same request id: it answers the same dot.
func (p *Put) Again() {
	if p.phase == inDoubt {
		p.phase = choosing
	}
}

// GiveUp ends a doubtful mint that has failed too often.
func (p *Put) GiveUp() {
	if p.verdict == Pending {
		p.impossible(p.targets[max(p.minter, 0)].cause)
	}
}

// spread sends the record to every owner that was not sent it, and to those who stand in, and counts.
func (p *Put) spread() Step {
	p.standIns()
	for i := range p.targets {
		t := &p.targets[i]
		if t.state == unsent && (t.owner != [maxLive]bool{} || len(t.hints) > 0) {
			t.state, t.round = applying, p.round
			return Step{Do: Apply, Replica: i}
		}
	}
	reached := true
	for l := range p.live {
		have, may := 0, 0
		for i := range p.targets {
			t := &p.targets[i]
			if !p.counts(t, l) {
				continue
			}
			switch t.state {
			case durable:
				have++
				may++
			case minted, applying:
				may++
			}
		}
		if may < p.layouts[l].Need {
			return p.impossible(p.shortfall(l, p.layouts[l].Need-may))
		}
		reached = reached && have >= p.layouts[l].Need
	}
	if !reached {
		return Step{Do: Wait}
	}
	p.verdict = Reached
	return Step{Do: Finish}
}

// Lacks returns how many machines more, at least, must tell that they have the record before Next says anything new, as long
// as nothing else happens: 1 or more.
func (p *Put) Lacks() int {
	most := 1
	if p.phase != spreading {
		return most
	}
	for l := range p.live {
		lacks := p.layouts[l].Need
		for i := range p.targets {
			if t := &p.targets[i]; t.state == durable && p.counts(t, l) {
				lacks--
			}
		}
		most = max(most, lacks)
	}
	return most
}

func (p *Put) shortfall(l, missing int) Cause {
	var t tally
	for i := range p.targets {
		if p.targets[i].owner[l] {
			t[p.targets[i].cause]++
		}
	}
	return t.shortfall(missing)
}

// Shortfall says why the verdict is Impossible.
func (p *Put) Shortfall() Cause { return p.why }

// PutReport is what became of one machine, for people.
type PutReport struct {
	Sent      bool
	Connected bool
	Minter    bool // it issued the dot, or was last asked for it
	Durable   bool
	Waiting   bool // asked, and not answered
	StandIn   bool // it keeps the record for owners
	Cause     Cause
}

// Report tells what became of machine i.
func (p *Put) Report(i int) PutReport {
	t := &p.targets[i]
	return PutReport{
		Sent: t.state != unsent, Connected: t.Connected, Minter: i == p.minter, Durable: t.state == durable,
		Waiting: t.state == minting || t.state == minted || t.state == applying, Cause: t.cause,
		StandIn: len(t.hints) > 0,
	}
}
