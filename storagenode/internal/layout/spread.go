package layout

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
)

// announce keeps the gossiped marks current, and says when to look again. Gossip carries each change of them to every member some ten times
// over, so in large clusters they follow late and spread out: they only help to find those who heard nothing otherwise.
func (d *Driver) announce(now time.Time) time.Duration {
	k := d.cfg.State.Known()
	if k == nil {
		return tick
	}
	newest, acked, synced := membership.MarkOf(k.Newest.ID()), membership.MarkOf(d.cfg.State.Fence().Acked), membership.MarkOf(k.Synced)
	first := false
	for _, m := range d.members {
		if m.Name != d.cfg.Self.Name {
			continue
		}
		if m.Cluster == k.Cluster && m.Newest == newest && m.Acked == acked && m.Synced == synced {
			d.announced = time.Time{}
			return tick
		}
		first = m.Cluster != k.Cluster
	}
	if many := len(d.members); many > meetAll && !first {
		if d.announced.IsZero() {
			d.announced = now.Add(rand.N(time.Duration(many) * announcePer))
		}
		if wait := d.announced.Sub(now); wait > 0 {
			return wait
		}
	}
	d.announced = time.Time{}
	err := d.cfg.Members.SetLocal(func(m *membership.Member) {
		m.Cluster, m.Newest, m.Acked, m.Synced = k.Cluster, newest, acked, synced
	})
	if err != nil {
		d.log.Warn().Err(err).Msg("gossip tags not changed")
	}
	return tick
}

// meet exchanges views: after a change with everyone, or with some of many; with whoever gossips other marks; and with
// one at random each second, so that whatever was lost arrives in the end. It says when to look again.
func (d *Driver) meet(ctx context.Context, now time.Time) time.Duration {
	k := d.cfg.State.Known()
	if k == nil {
		return tick
	}
	peers := d.alive(k.Cluster)
	if len(peers) == 0 {
		return tick
	}
	d.retryMeet = false
	d.forgetAbsent(peers)
	next := tick
	if len(peers) <= meetAll {
		d.meetEach(ctx, now, peers, k)
	} else {
		next = d.meetMany(ctx, now, peers, k)
	}
	if d.retryMeet {
		return meetPause
	}
	return next
}

// meetEach is for few peers.
func (d *Driver) meetEach(ctx context.Context, now time.Time, peers []membership.Member, k *Known) {
	newest := membership.MarkOf(k.Newest.ID())
	for _, m := range peers {
		if d.told[m.ID] != k.Hash || m.Newest != newest && now.Sub(d.asked[m.ID]) >= tick {
			d.exchange(ctx, now, m, k)
		}
	}
	if now.Sub(d.random) >= tick {
		d.random = now
		d.exchange(ctx, now, peers[rand.IntN(len(peers))], k)
	}
}

// meetMany is for many peers: a change goes out in rounds, to a few of those who are this node's fingers.
func (d *Driver) meetMany(ctx context.Context, now time.Time, peers []membership.Member, k *Known) time.Duration {
	next := tick
	fingers := fingersOf(d.cfg.Self.ID, peers)
	some := func(of []membership.Member, n int) {
		for _, i := range rand.Perm(len(of))[:min(n, len(of))] {
			d.exchange(ctx, now, of[i], k)
		}
	}
	if d.published != k.Hash {
		if wait := roundPause - now.Sub(d.round); wait > 0 {
			next = wait
		} else {
			d.published, d.round = k.Hash, now
			some(fingers, meetSome)
		}
	}
	if now.Sub(d.chased) >= tick {
		d.chased = now
		newest := membership.MarkOf(k.Newest.ID())
		var ahead, others []membership.Member
		for _, m := range peers {
			switch {
			case m.Newest.Epoch > newest.Epoch:
				ahead = append(ahead, m)
			case m.Newest != newest:
				others = append(others, m)
			}
		}
		some(ahead, 1)
		if d.announced.IsZero() { // else the marks of many are merely late, as this node's are
			some(others, 1)
		}
	}
	if now.Sub(d.random) >= tick {
		d.random = now
		if rand.IntN(strangers) == 0 {
			some(peers, 1)
		} else {
			some(fingers, 1)
		}
	}
	return next
}

// fingersOf are the peers, sorted by id, that stand 1, 2, 4, 8 and so on places before and behind self: few, so that connections stay few,
// and from each to all others it is a few steps.
func fingersOf(self ring.NodeID, peers []membership.Member) []membership.Member {
	at, _ := slices.BinarySearchFunc(peers, self, func(m membership.Member, id ring.NodeID) int { return m.ID.Compare(id) })
	n := len(peers) + 1 // self stands at at
	var out []membership.Member
	seen := make(map[int]bool)
	for d := 1; d <= n/2; d *= 2 {
		for _, place := range [...]int{(at + d) % n, (at - d + n) % n} {
			if place == at || seen[place] {
				continue
			}
			seen[place] = true
			if place > at {
				place--
			}
			out = append(out, peers[place])
		}
	}
	return out
}

// forgetAbsent drops what is remembered of peers that are away, which may come back knowing less.
func (d *Driver) forgetAbsent(peers []membership.Member) {
	here := make(map[ring.NodeID]bool, len(peers))
	for _, m := range peers {
		here[m.ID] = true
	}
	for id := range d.told {
		if !here[id] {
			delete(d.told, id)
		}
	}
	for id := range d.asked {
		if !here[id] {
			delete(d.asked, id)
		}
	}
}

// exchange swaps views with one peer, unless that is under way already or many others are; what it leaves out is done
// when a call returns, or by the next tick.
func (d *Driver) exchange(ctx context.Context, now time.Time, m membership.Member, k *Known) {
	if d.busy[m.ID] || len(d.busy) >= callsMax {
		return
	}
	if now.Sub(d.asked[m.ID]) < meetPause {
		d.retryMeet = true
		return
	}
	d.busy[m.ID] = true
	d.asked[m.ID] = now
	peer := peerOf(m)
	d.call(ctx, func(ctx context.Context) func(context.Context) {
		views, hash, whole, err := d.swap(ctx, peer, k)
		return func(context.Context) {
			delete(d.busy, m.ID)
			if err != nil {
				d.metrics.exchanges.WithLabelValues("failed").Inc()
				delete(d.told, m.ID)
				d.asked[m.ID] = time.Now().Add(stepRetry) // leave it in peace for a moment
				d.log.Debug().Err(err).Str("peer", peer.Name).Msg("views not exchanged")
				return
			}
			d.metrics.exchanges.WithLabelValues("ok").Inc()
			d.told[m.ID] = hash
			for _, v := range views {
				d.merge(peer, v)
			}
			if whole {
				d.heard[m.ID] = true
			}
		}
	})
}

// swap tells a peer what it lacks, and returns what it answered and the hash of the view that it has then. Two who know the same layouts
// only tell each other who has come how far; else the peer's view comes, and this node's goes where it holds more. With whole, what was
// answered is all that the peer knew.
func (d *Driver) swap(ctx context.Context, peer Peer, k *Known) (views []*ring.View, hash uint64, whole bool, err error) {
	a, err := d.cfg.Peers.ExchangeView(ctx, peer, k.Brief)
	if err != nil {
		return nil, 0, false, err
	}
	for try := 0; ; try++ {
		union, v, err := d.cfg.State.Union(a.View)
		switch {
		case errors.Is(err, ring.ErrMissingLayout): // this node went on meanwhile
			return views, a.Hash, false, nil
		case errors.Is(err, ring.ErrForeignCluster):
			d.Foreign(peer.Name, ring.ClusterOf(a.View))
			return nil, 0, false, err
		case err != nil:
			return nil, 0, false, err
		}
		if v != nil {
			views = append(views, v)
		}
		if !a.Again || union.Hash() == a.Hash || try == 2 {
			return views, a.Hash, len(views) > 0, nil
		}
		settled := ring.LayoutID{}
		if v != nil {
			settled = v.Settled().ID()
		}
		if a, err = d.cfg.Peers.ExchangeView(ctx, peer, union.EncodeFor(settled)); err != nil {
			return nil, 0, false, err
		}
	}
}

// Answer takes in a view that a peer sent, brief or whole, and returns this node's. A whole view that leaves out a settled layout which is not
// this node's is asked for again, and so is what is behind a brief one of other layouts. Safe for concurrent use.
func (d *Driver) Answer(from ring.NodeID, b []byte) (Exchanged, error) {
	brief := ring.IsBrief(b)
	again := false
	if len(b) > 0 {
		_, v, err := d.cfg.State.Union(b)
		switch {
		case errors.Is(err, ring.ErrMissingLayout):
			again = true
		case err != nil:
			return Exchanged{}, err
		case v != nil:
			if _, err := d.cfg.State.MergeFrom(from, v); err != nil {
				return Exchanged{}, err
			}
		default:
			again = true // a brief tells nothing to one who knows nothing
		}
	}
	k := d.cfg.State.Known()
	switch {
	case k == nil:
		return Exchanged{}, nil
	case brief && !again:
		return Exchanged{View: k.Brief, Hash: k.Hash}, nil
	case brief:
		settled, err := ring.BriefSettled(b)
		if err != nil {
			return Exchanged{}, err
		}
		if settled == k.Settled.ID() {
			return Exchanged{View: k.Short, Again: true, Hash: k.Hash}, nil
		}
	case ring.IsShort(b) && !again: // the second part of an exchange, whose sender has this view
		return Exchanged{Hash: k.Hash}, nil
	}
	return Exchanged{View: k.Encoded, Again: again, Hash: k.Hash}, nil
}

// watchSpread measures, on this node's clock alone, how long it takes until every living member has confirmed a layout that this node proposed.
// One that others changed or overtook meanwhile is not counted.
func (d *Driver) watchSpread(now time.Time) {
	k := d.cfg.State.Known()
	switch {
	case d.proposed.since.IsZero() || k == nil:
		return
	case k.Newest.ID() != d.proposed.layout:
		d.proposed = stuck{}
		return
	}
	missing, _, _ := d.cfg.State.View().Missing(k.Newest)
	for _, m := range d.members {
		if m.Status == membership.Alive && slices.Contains(missing, m.ID) {
			return
		}
	}
	d.metrics.convergence.Observe(now.Sub(d.proposed.since).Seconds())
	d.proposed = stuck{}
}

// watchStuck says once a minute whom a change waits for.
func (d *Driver) watchStuck(now time.Time) {
	k := d.cfg.State.Known()
	if k == nil || k.IsSettled() {
		d.stuck = stuck{}
		return
	}
	if id := k.Newest.ID(); d.stuck.layout != id {
		d.stuck = stuck{layout: id, since: now}
		return
	}
	if now.Sub(d.stuck.since) < stuckAfter {
		return
	}
	d.stuck.since = now
	v := d.cfg.State.View()
	acked, synced, switched := v.Missing(v.Newest())
	d.log.Warn().Stringer("layout", k.Newest.ID()).Strs("not_acked", d.names(k, acked)).Strs("not_synced", d.names(k, synced)).
		Strs("not_switched", d.names(k, switched)).Msg("layout change waits for members")
}

// names translates at most 16 ids for people, with what gossip says of each.
func (d *Driver) names(k *Known, ids []ring.NodeID) []string {
	status := make(map[ring.NodeID]string, len(d.members))
	for _, m := range d.members {
		status[m.ID] = m.Name + " (" + m.Status.String() + ")"
	}
	var out []string
	for _, id := range ids[:min(len(ids), 16)] {
		name := status[id]
		if name == "" {
			name = id.String() + " (unknown)"
			if m, ok := k.Newest.Member(id); ok {
				name = m.Name + " (unknown)"
			}
		}
		out = append(out, name)
	}
	return out
}
