package layout

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
)

// announce keeps the gossiped marks current.
func (d *Driver) announce() {
	k := d.cfg.State.Known()
	if k == nil {
		return
	}
	newest, acked, synced := membership.MarkOf(k.Newest.ID()), membership.MarkOf(d.cfg.State.Fence().Acked), membership.MarkOf(k.Synced)
	for _, m := range d.members {
		if m.Name == d.cfg.Self.Name && m.Cluster == k.Cluster && m.Newest == newest && m.Acked == acked && m.Synced == synced {
			return
		}
	}
	err := d.cfg.Members.SetLocal(func(m *membership.Member) {
		m.Cluster, m.Newest, m.Acked, m.Synced = k.Cluster, newest, acked, synced
	})
	if err != nil {
		d.log.Warn().Err(err).Msg("gossip tags not changed")
	}
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
	if len(peers) <= meetAll {
		for _, m := range peers {
			if d.told[m.ID] != k.Hash {
				d.exchange(ctx, now, m, k)
			}
		}
	} else if d.published != k.Hash {
		d.published = k.Hash
		for _, i := range rand.Perm(len(peers))[:meetSome] {
			d.exchange(ctx, now, peers[i], k)
		}
	}
	newest := membership.MarkOf(k.Newest.ID())
	for _, m := range peers {
		if m.Newest != newest && now.Sub(d.asked[m.ID]) >= tick {
			d.exchange(ctx, now, m, k)
		}
	}
	if now.Sub(d.random) >= tick {
		d.random = now
		d.exchange(ctx, now, peers[rand.IntN(len(peers))], k)
	}
	if d.retryMeet {
		return meetPause
	}
	return tick
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
		b, err := d.cfg.Peers.ExchangeView(ctx, peer, k.Encoded)
		var v *ring.View
		if err == nil {
			v, err = ring.DecodeViewFor(b, k.Settled)
		}
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
			d.told[m.ID] = v.Hash()
			d.merge(peer, v)
		}
	})
}

// Answer takes in a view that a peer sent and returns the union's bytes, nil where this node has none. Safe for
// concurrent use.
func (d *Driver) Answer(from ring.NodeID, b []byte) ([]byte, error) {
	if len(b) > 0 {
		var settled *ring.Layout
		if k := d.cfg.State.Known(); k != nil {
			settled = k.Settled
		}
		v, err := ring.DecodeViewFor(b, settled)
		if err != nil {
			return nil, err
		}
		if _, err := d.cfg.State.MergeFrom(from, v); err != nil {
			return nil, err
		}
	}
	return d.cfg.State.Encoded(), nil
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
