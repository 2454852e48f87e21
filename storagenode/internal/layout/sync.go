package layout

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

const (
	// pullsMax bounds the ranges that are pulled at once.
	pullsMax = 4
	// pieceBytes is how much of what came is stored at once, the last record on top: a client's write has no more in front of it,
	// for each pull, and no more beside it in its commit.
	pieceBytes = 64 << 10
	// comparedPart is the part of the records that were compared that counts as taken in: to read and sum them up costs about so
	// much of what it costs to store them.
	comparedPart = 8
	// pullTimeout bounds one attempt to pull a range; the next goes on where it ended.
	pullTimeout = 10 * time.Minute
	// applyRetry is the pause when the store is busy.
	applyRetry = 20 * time.Millisecond
	// pullRetry is the pause after all sources of a range have failed.
	pullRetry = 500 * time.Millisecond
)

// pullTask brings this node what it will own, or ought to have, in one layout.
type pullTask struct {
	layout  ring.LayoutID
	without []ring.NodeID // of a refill: who is lost, and so no source
	pulls   []ring.Pull
	track   *tracker // nil where nothing is pulled, and for a refill
	cancel  context.CancelFunc
	ended   bool // all is durable; belongs to the driver's goroutine
}

// isFor says whether the task carries out these pulls.
func (t *pullTask) isFor(id ring.LayoutID, pulls []ring.Pull) bool {
	return t.layout == id && slices.EqualFunc(t.pulls, pulls, func(a, b ring.Pull) bool {
		return a.Range == b.Range && a.Need == b.Need && slices.Equal(a.Sources, b.Sources)
	})
}

// startSync carries out pulls on goroutines of their own, from where an earlier life left them; the task's ended tells
// when all is durable.
func (d *Driver) startSync(ctx context.Context, layout ring.LayoutID, pulls []ring.Pull) *pullTask {
	ctx, cancel := context.WithCancel(ctx)
	t := &pullTask{layout: layout, pulls: pulls, cancel: cancel}
	if len(pulls) == 0 {
		d.log.Info().Stringer("layout", layout).Msg("nothing is to be pulled")
		cancel()
		t.ended = true
		return t
	}
	track := newTracker(d.cfg.Self.ID, layout, pulls, d.cfg.State.store, time.Now(), d.log)
	t.track = track
	d.transfer.Store(track)
	before := track.status(time.Now())
	d.log.Info().Stringer("layout", layout).Int("ranges", len(pulls)).Uint64("slots_done", before.SlotsDone).Uint64("slots", before.SlotsTotal).
		Msg("pulls begin")
	d.calls.Go(func() {
		defer cancel()
		p := puller{self: d.cfg.Self.ID, layout: t.layout, peers: d.cfg.Peers, records: d.cfg.Records, metrics: d.metrics,
			find: d.findPeer, track: track, throttle: d.throttle, log: d.log}
		start := time.Now()
		if err := p.all(ctx, pulls); err != nil {
			return // only when ctx ended
		}
		d.transfer.CompareAndSwap(track, nil)
		d.log.Info().Stringer("layout", t.layout).Dur("took", time.Since(start)).Uint64("bytes", track.status(time.Now()).BytesDone).Msg("pulls end")
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
	self     ring.NodeID
	layout   ring.LayoutID
	peers    Peers
	records  Records
	metrics  *metrics
	find     func(ring.NodeID) (Peer, bool)
	track    *tracker // not for a refill
	throttle *Throttle
	log      zerolog.Logger
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
	left = slices.DeleteFunc(left, func(id ring.NodeID) bool {
		_, done := p.track.cursor(pull.Range, id)
		if done {
			need--
		}
		return done
	})
	for need > 0 && ctx.Err() == nil {
		done := -1
		for i, id := range left {
			err := p.attempt(ctx, id, pull.Range)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				done = i
				break
			}
			p.track.failed(err)
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

// attempt pulls a range from one source, from where the last attempt ended. Where something of it is here already (from
// another source, from clients, from an attempt whose cursor was lost) only what differs travels.
func (p *puller) attempt(ctx context.Context, id ring.NodeID, r ring.Range) error {
	peer, ok := p.find(id)
	if !ok {
		return errors.New("source is away")
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	after, done := p.track.cursor(r, id)
	if done {
		return nil
	}
	held, err := p.holdsAny(r, after)
	if err != nil {
		return fmt.Errorf("read what is here: %w", err)
	}
	if held {
		err = p.compared(ctx, peer, r, after)
	} else {
		err = p.peers.Pull(ctx, peer, p.layout, r, after, func(c Chunk) error {
			return p.take(ctx, r, c, func(last []byte, size int) { p.track.advance(r, id, last, size) })
		})
	}
	if err == nil {
		p.track.finish(r, id)
	}
	return err
}

// holdsAny says whether there is a record of the range behind the key after.
func (p *puller) holdsAny(r ring.Range, after []byte) (any bool, err error) {
	err = p.records.Scan(r, after, func(_, _ []byte) (bool, error) {
		any = true
		return false, nil
	})
	return any, err
}

// groupOverhead is about what a group costs on the wire beside its key.
const groupOverhead = merkle.SumLen + 8

// compared asks for sums over groups of records, and for the records of those that differ.
func (p *puller) compared(ctx context.Context, peer Peer, r ring.Range, after []byte) error {
	return p.peers.PullSums(ctx, peer, p.layout, r, after, func(g Group) error {
		if !r.Contains(ring.SlotOf(g.Last)) || after != nil && !IsBehind(g.Last, after) {
			return errors.New("a group outside of the range")
		}
		have, sum, read, err := p.leaves(r, after, g.Last)
		if err != nil {
			return fmt.Errorf("read what is here: %w", err)
		}
		p.throttle.Wait(ctx, len(g.Last)+groupOverhead+read/comparedPart)
		taken := 0
		if !bytes.Equal(sum.Append(nil), g.Sum) {
			err = p.peers.PullMissing(ctx, peer, p.layout, r, after, g.Last, have, func(c Chunk) error {
				return p.take(ctx, r, c, func(_ []byte, size int) { taken += size })
			})
			if err != nil {
				return err
			}
		}
		after = bytes.Clone(g.Last)
		p.track.advance(r, peer.ID, after, taken)
		return nil
	})
}

// IsBehind says whether a comes after b in the order of a scan.
func IsBehind(a, b []byte) bool {
	return cmp.Or(cmp.Compare(ring.Hash(a), ring.Hash(b)), bytes.Compare(a, b)) > 0
}

// leaves returns the hashes of the records here behind after, up to the key until, one after another, their sum, and how many
// bytes were read for that.
func (p *puller) leaves(r ring.Range, after, until []byte) (have []byte, sum merkle.Sum, read int, err error) {
	err = p.records.Scan(r, after, func(key, rec []byte) (bool, error) {
		if IsBehind(key, until) {
			return false, nil
		}
		d, err := record.DigestOf(rec)
		if err != nil {
			return false, err
		}
		leaf := merkle.Leaf(key, d)
		have, sum = leaf.Append(have), sum.Plus(leaf)
		read += len(key) + len(rec)
		return true, nil
	})
	return have, sum, read, err
}

// take checks a chunk of the range and makes it durable, piece by piece, when the rate allows that. It tells stored the last key
// of each piece that is durable, and the bytes of its records.
func (p *puller) take(ctx context.Context, r ring.Range, c Chunk, stored func(last []byte, size int)) error {
	if len(c.Keys) == 0 || len(c.Keys) != len(c.Records) {
		return fmt.Errorf("malformed chunk of %d keys and %d records", len(c.Keys), len(c.Records))
	}
	for _, key := range c.Keys {
		if !r.Contains(ring.SlotOf(key)) {
			return errors.New("a key outside of the range")
		}
	}
	for from := 0; from < len(c.Keys); {
		to, size := from, 0
		for ; to < len(c.Keys) && size < pieceBytes; to++ {
			size += len(c.Keys[to]) + len(c.Records[to])
		}
		if p.throttle.Wait(ctx, size); ctx.Err() != nil {
			return ctx.Err()
		}
		if err := p.store(ctx, Chunk{Keys: c.Keys[from:to], Records: c.Records[from:to]}); err != nil {
			return err
		}
		stored(c.Keys[to-1], size)
		from = to
	}
	return nil
}

// store returns when a piece is durable.
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
