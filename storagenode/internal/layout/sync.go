package layout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

const (
	// pullsMax bounds the ranges that are pulled at once.
	pullsMax = 4
	// pullTimeout bounds one attempt to pull a range; the next goes on where it ended.
	pullTimeout = 10 * time.Minute
	// applyRetry is the pause when the store is busy.
	applyRetry = 20 * time.Millisecond
	// pullRetry is the pause after all sources of a range have failed.
	pullRetry = 500 * time.Millisecond
)

// pullTask brings this node what it will own, or ought to have, in one layout.
type pullTask struct {
	layout ring.LayoutID
	cancel context.CancelFunc
	ended  bool // all is durable; belongs to the driver's goroutine
}

// startPulls carries out pulls on goroutines of their own; the task's ended tells when all is durable.
func (d *Driver) startPulls(ctx context.Context, layout ring.LayoutID, pulls []ring.Pull, what string) *pullTask {
	ctx, cancel := context.WithCancel(ctx)
	t := &pullTask{layout: layout, cancel: cancel}
	d.log.Info().Stringer("layout", layout).Int("ranges", len(pulls)).Str("task", what).Msg("pulls begin")
	if len(pulls) == 0 {
		cancel()
		t.ended = true
		return t
	}
	d.calls.Go(func() {
		defer cancel()
		p := puller{self: d.cfg.Self.ID, layout: t.layout, peers: d.cfg.Peers, records: d.cfg.Records, metrics: d.metrics,
			find: d.findPeer, log: d.log}
		start := time.Now()
		if err := p.all(ctx, pulls); err != nil {
			return // only when ctx ended
		}
		d.log.Info().Stringer("layout", t.layout).Dur("took", time.Since(start)).Str("task", what).Msg("pulls end")
		select {
		case d.results <- func(context.Context) { t.ended = true }:
		case <-ctx.Done():
		}
	})
	return t
}

// findPeer tells where a node is now. Safe for concurrent use.
func (d *Driver) findPeer(id ring.NodeID) (Peer, bool) {
	for _, m := range d.cfg.Members.Members() {
		if m.ID == id && m.Status == membership.Alive && m.GRPCAddr != "" {
			return peerOf(m), true
		}
	}
	return Peer{}, false
}

// coalesce joins ranges that lie side by side and have the same sources.
func coalesce(pulls []ring.Pull) []ring.Pull {
	var out []ring.Pull
	for _, p := range pulls {
		if n := len(out); n > 0 && out[n-1].Range.To == p.Range.From && out[n-1].Need == p.Need && slices.Equal(out[n-1].Sources, p.Sources) {
			out[n-1].Range.To = p.Range.To
			continue
		}
		out = append(out, p)
	}
	return out
}

// puller carries out the pulls of one task.
type puller struct {
	self    ring.NodeID
	layout  ring.LayoutID
	peers   Peers
	records Records
	metrics *metrics
	find    func(ring.NodeID) (Peer, bool)
	log     zerolog.Logger
}

// all returns nil once every range is pulled and durable, and ctx's error otherwise.
func (p *puller) all(ctx context.Context, pulls []ring.Pull) error {
	work := make(chan ring.Pull)
	var owned sync.WaitGroup
	for range min(pullsMax, len(pulls)) {
		owned.Go(func() {
			for pull := range work {
				p.one(ctx, pull)
			}
		})
	}
	for _, pull := range pulls {
		select {
		case work <- pull:
		case <-ctx.Done():
		}
	}
	close(work)
	owned.Wait()
	return ctx.Err()
}

// one pulls a range from as many sources as it needs, whichever of them are there, for as long as ctx allows. A source
// counts only when all of the range came from it: each may hold what no other does.
func (p *puller) one(ctx context.Context, pull ring.Pull) {
	left := slices.Clone(pull.Sources)
	need := pull.Need
	if i := slices.Index(left, p.self); i >= 0 {
		left = slices.Delete(left, i, i+1)
		need--
	}
	need = min(need, len(left))
	progress := make(map[ring.NodeID][]byte)
	for need > 0 && ctx.Err() == nil {
		done := -1
		for i, id := range left {
			err := p.attempt(ctx, id, pull.Range, progress)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				done = i
				break
			}
			p.metrics.pulls.WithLabelValues("failed").Inc()
			p.log.Warn().Err(err).Stringer("peer", id).Stringer("range", pull.Range).Msg("range not pulled, trying another source")
		}
		if done < 0 {
			pause(ctx, pullRetry)
			continue
		}
		p.metrics.pulls.WithLabelValues("ok").Inc()
		left = slices.Delete(left, done, done+1)
		need--
	}
}

// attempt pulls a range from one source, from where the last attempt ended.
func (p *puller) attempt(ctx context.Context, id ring.NodeID, r ring.Range, progress map[ring.NodeID][]byte) error {
	peer, ok := p.find(id)
	if !ok {
		return errors.New("source is away")
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	return p.peers.Pull(ctx, peer, p.layout, r, progress[id], func(c Chunk) error {
		if len(c.Keys) == 0 || len(c.Keys) != len(c.Records) {
			return fmt.Errorf("malformed chunk of %d keys and %d records", len(c.Keys), len(c.Records))
		}
		for _, key := range c.Keys {
			if !r.Contains(ring.SlotOf(key)) {
				return errors.New("a key outside of the range")
			}
		}
		if err := p.store(ctx, c); err != nil {
			return err
		}
		progress[id] = slices.Clone(c.Keys[len(c.Keys)-1])
		return nil
	})
}

// store returns when a chunk is durable.
func (p *puller) store(ctx context.Context, c Chunk) error {
	ended := make(chan error, len(c.Keys))
	waiting := 0
	var failed error
	for i, key := range c.Keys {
		for {
			err := p.records.Apply(key, c.Records[i], func(_ bool, err error) { ended <- err })
			if errors.Is(err, kv.ErrOverloaded) || errors.Is(err, kv.ErrReopening) {
				if pause(ctx, applyRetry); ctx.Err() == nil {
					continue
				}
			}
			if err != nil {
				failed = err
			} else {
				waiting++
				p.metrics.pulledBytes.Add(float64(len(c.Records[i])))
			}
			break
		}
		if failed != nil {
			break
		}
	}
	for range waiting { // the store answers everything it took
		if err := <-ended; err != nil && failed == nil {
			failed = err
		}
	}
	p.metrics.pulledRecords.Add(float64(waiting))
	return failed
}

// pause waits for d or for ctx to end.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
