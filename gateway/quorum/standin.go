package quorum

import (
	"slices"

	"github.com/dotring/dotring/ringsvc/ring"
)

// diverts says whether a machine that fails for this cause is stood in for. One that is merely overloaded is not: when
// the cluster is short, load is shed and not diverted. Nor is what would be refused anywhere.
func (c Cause) diverts() bool {
	switch c {
	case Away, Lost, Failed, Unavailable, DiskFull, Damaged:
		return true
	}
	return false
}

// missing says whether owner t must be stood in for: it is not healthy, it failed, or its answer is late.
func (t *target) missing() bool {
	switch t.state {
	case durable:
		return false
	case lost:
		return t.cause.diverts()
	case applying:
		return t.late || t.standing() > 0
	case minted:
		return t.late
	}
	return t.standing() > 0
}

// standsIn says whether t takes an owner's place in layout l.
func (t *target) standsIn(l int) bool { return !t.of[l].IsZero() }

// counts says whether t is one of the machines that W counts in layout l: an owner, or one that stands in for an owner. Beside the owner itself,
// which was only late, a stand-in does not count: it hands its copy to that owner and drops it, and one machine is left.
func (p *Put) counts(t *target, l int) bool {
	if t.owner[l] || !t.standsIn(l) {
		return t.owner[l]
	}
	for _, n := range t.hints {
		if i := p.Find(n); slices.Contains(p.layouts[l].Owners, n) && (i < 0 || p.targets[i].state != durable) {
			return true
		}
	}
	return false
}

// stoodFor says whether a machine that has not failed stands in for n in layout l.
func (p *Put) stoodFor(n ring.NodeID, l int) bool {
	for i := range p.targets {
		if t := &p.targets[i]; t.of[l] == n && t.state != lost && t.state != refused {
			return true
		}
	}
	return false
}

// standIns finds somebody for each missing owner.
func (p *Put) standIns() {
	if p.fallbacks == nil {
		return
	}
	for l := range p.live {
		if p.dry[l] {
			continue
		}
		for _, n := range p.layouts[l].Owners {
			if i := p.Find(n); i >= 0 && p.targets[i].missing() && !p.stoodFor(n, l) {
				p.dry[l] = !p.standIn(n, l) || p.dry[l]
			}
		}
	}
}

// standIn lets the next healthy fallback of layout l stand in for its owner n; false says that there is none.
func (p *Put) standIn(n ring.NodeID, l int) bool {
	list := p.fallbacks(l)
	for i := range p.targets { // one that does so in the other layout keeps one copy for both
		if t := &p.targets[i]; slices.Contains(t.hints, n) && !t.standsIn(l) && t.state != lost && t.state != refused && slices.Contains(list, t.Node) {
			t.of[l] = n
			return true
		}
	}
	i := p.nextFallback(list)
	if i < 0 {
		return false
	}
	t := &p.targets[i]
	t.of[l], t.hints = n, []ring.NodeID{n}
	return true
}

// nextFallback returns the first healthy machine of list that has no part in the put yet.
func (p *Put) nextFallback(list []ring.NodeID) int {
	for _, id := range list {
		i := p.Find(id)
		if i >= 0 {
			if t := &p.targets[i]; t.state != unsent || t.owner != [maxLive]bool{} || t.hints != nil {
				continue
			}
		}
		c := p.health(id)
		if c.standing() > 0 {
			continue
		}
		if i < 0 {
			i = len(p.targets)
			p.targets = append(p.targets, target{since: p.round})
		}
		p.targets[i].Candidate = c
		return i
	}
	return -1
}

// mintElsewhere picks a fallback to mint, where no owner can be reached; -1 where there is none, or where some owner
// refused for a reason of its own.
func (p *Put) mintElsewhere() int {
	if p.fallbacks == nil {
		return -1
	}
	for i := range p.targets {
		// Those that were not asked are not connected.
		if t := &p.targets[i]; t.minter && t.state != unsent && t.cause != Away && t.cause != Unavailable && t.cause != DiskFull {
			return -1
		}
	}
	i := p.nextFallback(p.fallbacks(p.read))
	if i < 0 {
		return -1
	}
	t := &p.targets[i]
	for l := range p.live {
		for _, n := range p.layouts[l].Owners {
			if !slices.Contains(t.hints, n) {
				t.hints = append(t.hints, n)
			}
		}
		// It counts once, so it takes one owner's place.
		if l == p.read || slices.Contains(p.fallbacks(l), t.Node) {
			t.of[l] = p.layouts[l].Owners[0]
		}
	}
	return i
}

// fallbacksSuffice says whether so many more healthy machines can stand in in layout l.
func (p *Put) fallbacksSuffice(l, more int) bool {
	if p.fallbacks == nil {
		return false
	}
	for _, id := range p.fallbacks(l) {
		if more <= 0 {
			break
		}
		if i := p.Find(id); i >= 0 && (p.targets[i].owner != [maxLive]bool{} || p.targets[i].state == lost || p.targets[i].state == refused) {
			continue
		}
		if c := p.health(id); c.standing() == 0 {
			more--
		}
	}
	return more <= 0
}

// keepPlaces lets a fallback that minted, and so is in the put after a Refresh too, count on in the layouts that stayed.
func (p *Put) keepPlaces(t *target, was []PutLayout, of [maxLive]ring.NodeID) {
	t.of = [maxLive]ring.NodeID{}
	for k := range was {
		for l := range p.live {
			if was[k].ID == p.layouts[l].ID && !t.owner[l] && slices.Contains(p.layouts[l].Owners, of[k]) {
				t.of[l] = of[k]
			}
		}
	}
}

// Late: whoever was asked and has not answered yet is stood in for, where machines may be. It goes on being waited for.
func (p *Put) Late() {
	if p.phase != spreading {
		return
	}
	for i := range p.targets {
		if t := &p.targets[i]; t.state == applying || t.state == minted {
			t.late = true
		}
	}
}

// Missed is for what becomes known after the quorum was reached: machine i will not acknowledge the record. It returns
// the fallbacks to send the record to, whose answers matter to nobody.
func (p *Put) Missed(i int, cause Cause) (send []int) {
	t := &p.targets[i]
	if p.verdict != Reached || t.state != applying && t.state != minted {
		return nil
	}
	t.state, t.cause = lost, cause
	p.standIns()
	for k := range p.targets {
		if f := &p.targets[k]; f.state == unsent && len(f.hints) > 0 {
			f.state = applying
			send = append(send, k)
		}
	}
	return send
}

// HintFor returns the owners that machine i is to keep the record for; nil at an owner. Read-only.
func (p *Put) HintFor(i int) []ring.NodeID { return p.targets[i].hints }

// Hinted returns how many of Acks stand in for owners.
func (p *Put) Hinted() int {
	n := 0
	for i := range p.targets {
		if t := &p.targets[i]; t.state == durable && len(t.hints) > 0 {
			n++
		}
	}
	return n
}
