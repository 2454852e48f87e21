package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dotring/dotring/ringsvc/membership"
)

// reach remembers how the attempts to meet the join list went. Safe for concurrent use.
type reach struct {
	mu         sync.Mutex
	all, tried bool
}

func (r *reach) get() (all, tried bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all, r.tried
}

func (r *reach) set(all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all, r.tried = all, true
}

// joinGossip meets every address of the join list once, then goes on to look for those that are not there.
func (n *Node) joinGossip(ctx context.Context) {
	missing := slices.DeleteFunc(slices.Clone(n.cfg.Join), func(a string) bool { return a == n.gossip.GossipAddr() })
	started := time.Now()
	warned := false
	for len(missing) > 0 && ctx.Err() == nil {
		missing = n.tryJoin(ctx, missing)
		n.reach.set(len(missing) == 0)
		n.driver.Wake()
		wait := joinPause
		if time.Since(started) > n.cfg.JoinWait {
			if !warned {
				n.log.Warn().Strs("addresses", missing).Msg("not all of the join list reached, trying on")
				warned = true
			}
			wait = rejoinEvery
		}
		if !pause(ctx, wait) {
			return
		}
	}
	n.reach.set(true)
	n.driver.Wake()
	for pause(ctx, rejoinEvery) {
		n.tryJoin(ctx, n.absent())
	}
}

// tryJoin returns the addresses that did not answer.
func (n *Node) tryJoin(ctx context.Context, addrs []string) []string {
	var missing []string
	for _, addr := range addrs {
		if reached, err := n.gossip.Join(ctx, []string{addr}); err != nil || reached == 0 {
			n.log.Debug().Err(err).Str("peer", addr).Msg("gossip address not reached")
			missing = append(missing, addr)
		}
	}
	return missing
}

// absentMax bounds the addresses that are tried in one round.
const absentMax = 8

// absent lists known addresses where nobody is alive: of the join list, and of members that failed.
func (n *Node) absent() []string {
	alive := map[string]bool{n.gossip.GossipAddr(): true}
	var failed []string
	for _, m := range n.gossip.Members() {
		switch m.Status {
		case membership.Alive:
			alive[m.GossipAddr] = true
		case membership.Failed:
			failed = append(failed, m.GossipAddr)
		}
	}
	var out []string
	for _, a := range append(slices.Clone(n.cfg.Join), failed...) {
		if !alive[a] && !slices.Contains(out, a) && len(out) < absentMax {
			out = append(out, a)
		}
	}
	return out
}

// pause waits for d; false means that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
