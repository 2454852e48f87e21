package sim

import (
	"slices"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/storagenode/kv"
)

// byHand is no bug: mints are made as for the bugs of minting, and rightly.
const byHand Bug = "by hand"

// plantedState is what a planted bug keeps on the disk.
type plantedState struct {
	actor   causal.Actor
	counter uint64
	clean   bool
}

// planted mints for one process of a node: through the store where no bug of minting is planted, else by hand and wrongly.
type planted struct {
	n       *node
	bug     Bug
	byHand  bool
	actor   causal.Actor
	counter uint64
	// others is the actor of what is minted for others, and how far it has counted.
	others  causal.Actor
	counted uint64
}

func newPlanted(n *node) *planted {
	p := &planted{n: n, bug: n.w.bug}
	p.byHand = slices.Contains([]Bug{Reuse, Crash, Reopen, Rollback, Absent, PerKey, Ctx, MintLoses, HintActor, byHand}, p.bug)
	if !p.byHand {
		return p
	}
	last := n.disk.planted
	again := last.counter > 0
	switch {
	case p.bug == Reuse && again:
		p.actor, p.counter = last.actor, max(last.counter, 2)-2
	case p.bug == Crash && again && !last.clean:
		p.actor, p.counter = last.actor, last.counter+5
	case p.bug == Rollback && again && last.clean:
		p.actor, p.counter = last.actor, last.counter
	default:
		p.renew()
	}
	p.renewOthers()
	n.disk.planted.clean = false
	return p
}

func (p *planted) renew() {
	p.n.w.Read(p.actor[:])
	p.counter = 0
}

func (p *planted) renewOthers() {
	p.n.w.Read(p.others[:])
	p.counted = 0
}

// dropping gives up the actor for others, before a hint that it has written in leaves.
func (p *planted) dropping(key, rec []byte) {
	if !p.byHand || p.bug == HintActor {
		return
	}
	if clock, err := record.DecodeClock(key, rec); err != nil || clock.Get(p.others) > 0 {
		p.renewOthers()
	}
}

// stopped leaves the mark of a clean stop.
func (p *planted) stopped() {
	p.n.disk.planted.clean = true
}

// reopened: the engine was reopened after a failure.
func (p *planted) reopened() {
	if p.byHand && p.bug != Reopen {
		p.renew()
		p.renewOthers()
	}
}

// hear takes a new actor where a record shows a counter that was never issued.
func (p *planted) hear(key, rec []byte) {
	if !p.byHand || p.bug == Rollback {
		return
	}
	clock, err := record.DecodeClock(key, rec)
	if err == nil && clock.Get(p.actor) > p.counter && p.bug != PerKey {
		p.renew()
	}
	if err == nil && clock.Get(p.others) > p.counted {
		p.renewOthers()
	}
}

// mint is kv.Store.Mint, or what the bug makes of it.
func (p *planted) mint(m kv.Mint, durable func(error)) (kv.Minted, error) {
	if !p.byHand {
		return p.n.store.Mint(m, durable)
	}
	local, err := p.n.newest(m.Key, len(m.HintFor) > 0)
	if err != nil {
		return kv.Minted{}, err
	}
	if p.bug == Absent && p.n.w.chance(0.1) {
		local = causal.Set{}
	}
	if len(m.Base) > 0 {
		if base, err := record.Decode(m.Key, m.Base); err == nil {
			local = causal.Merge(local, base)
		}
	}
	if m.Context != nil {
		for _, d := range m.Context.Dots {
			if !local.Clock.Covers(d) {
				return kv.Minted{}, kv.ErrBehind
			}
		}
	}
	dot := p.issue(local, m)
	set := p.merge(local, m, dot)
	rec := record.Append(nil, m.Key, set)
	if len(m.HintFor) > 0 {
		err = p.n.store.ApplyHint(m.HintFor, m.Key, slices.Clone(rec), durable)
	} else {
		err = p.n.store.Apply(m.Key, slices.Clone(rec), func(_ bool, err error) { durable(err) })
	}
	if err != nil {
		return kv.Minted{}, err
	}
	return kv.Minted{Record: rec, Dot: dot}, nil
}

// issue returns the dot of a mint.
func (p *planted) issue(local causal.Set, m kv.Mint) causal.Dot {
	if len(m.HintFor) > 0 {
		p.counted++
		return causal.Dot{Actor: p.others, Counter: p.counted}
	}
	p.counter++
	if p.bug == PerKey {
		p.counter = local.Clock.Get(p.actor) + 1
	}
	p.n.disk.planted.actor, p.n.disk.planted.counter = p.actor, p.counter
	return causal.Dot{Actor: p.actor, Counter: p.counter}
}

// merge is causal.Mint without its checks, and with the bug.
func (p *planted) merge(local causal.Set, m kv.Mint, dot causal.Dot) causal.Set {
	fresh := causal.Sibling{Dot: dot, Tombstone: m.Tombstone, Time: uint64(p.n.wall().UnixMilli()) << 16,
		ContentType: m.ContentType, Checksum: m.Checksum, Value: m.Value}
	out := causal.Set{Clock: local.Clock, Siblings: []causal.Sibling{fresh}}
	if m.Context != nil {
		for _, s := range local.Siblings {
			if !m.Context.Covers(s.Dot) && s.Dot != dot && p.bug != MintLoses {
				out.Siblings = append(out.Siblings, s)
			}
		}
		if p.bug != Ctx {
			out.Clock = out.Clock.Join(m.Context.Vector)
		}
	}
	if out.Clock.Get(dot.Actor) < dot.Counter {
		out.Clock = out.Clock.With(dot)
	}
	slices.SortFunc(out.Siblings, func(a, b causal.Sibling) int { return a.Dot.Compare(b.Dot) })
	return out
}

// withoutContext forgets what the siblings of a set superseded.
func withoutContext(s causal.Set) causal.Set {
	var v causal.Vector
	for _, sib := range s.Siblings {
		if v.Get(sib.Dot.Actor) < sib.Dot.Counter {
			v = v.With(sib.Dot)
		}
	}
	return causal.Set{Clock: v, Siblings: s.Siblings}
}
