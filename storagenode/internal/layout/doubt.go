package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

// unitBytes is about how much of each source is held in memory to refill a part in one step.
const unitBytes = 2 << 20

// ErrSourceInDoubt is a source's refusal of a pull: what it holds of the range is in doubt itself.
var ErrSourceInDoubt = errors.New("source is in doubt")

// Doubtful is the part of kv.Store that tells what is in doubt, and ends it.
type Doubtful interface {
	Doubts() kv.Doubts
	Refill(r kv.Refill, done func(error)) error
}

// refillPart is a range that has the same owners. Sources are the others, none where the node is no owner, or the only
// one; then keep says which.
type refillPart struct {
	ring.Pull
	keep bool
}

// refillPlan cuts ranges into parts, with what a node must pull to know again all that a read quorum knows of the slots it
// owns in l or gains in next: from n-w+1 other owners in l, or all of them where there are fewer. What it gains counts, since it
// may have synced next already, and reads may use it. Owners that are lost, which is accepted, are none: whoever waited for them would
// do so for ever, and so would the change that takes their tokens.
func refillPlan(l, next *ring.Layout, self ring.NodeID, ranges []ring.Range, lost []ring.NodeID) []refillPart {
	need := l.Replicas() - l.EffectiveW(l.MinW()) + 1
	bounds := []ring.Slot{0, ring.Slots}
	for _, m := range slices.Concat(l.Members(), next.Members()) {
		for _, t := range m.Tokens {
			bounds = append(bounds, t+1) // a slot belongs to the first token at or after it
		}
	}
	for _, r := range ranges {
		bounds = append(bounds, r.From, r.To)
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	var out []refillPart
	at := 0
	for i, from := range bounds[:len(bounds)-1] {
		for at < len(ranges) && ranges[at].To <= from {
			at++
		}
		if at == len(ranges) || ranges[at].From > from {
			continue
		}
		p := refillPart{Pull: ring.Pull{Range: ring.Range{From: from, To: bounds[i+1]}}}
		if l.Owns(self, from) || next.Owns(self, from) {
			p.Sources = slices.DeleteFunc(slices.Clone(l.Primaries(from)), func(id ring.NodeID) bool { return id == self || slices.Contains(lost, id) })
			slices.SortFunc(p.Sources, ring.NodeID.Compare)
			p.Need, p.keep = min(need, len(p.Sources)), len(p.Sources) == 0
		}
		if n := len(out); n > 0 && out[n-1].Range.To == from && out[n-1].keep == p.keep && slices.Equal(out[n-1].Sources, p.Sources) {
			out[n-1].Range.To = p.Range.To
			continue
		}
		out = append(out, p)
	}
	return out
}

// refill brings a node whose store is in doubt what it may have lost. It reports whether there is no doubt.
func (d *Driver) refill(ctx context.Context) bool {
	now, k := d.cfg.Doubts.Doubts(), d.cfg.State.Known()
	if !now.Any() {
		return true
	}
	if d.cfg.Vouched != nil && !d.cfg.Vouched() {
		return false // what they say has to be among what ends with the doubt
	}
	if err := d.forgetPulls(ctx); err != nil {
		d.log.Warn().Err(err).Msg("what was pulled for a layout change is not forgotten yet: nothing is refilled before it is")
		return false
	}
	// Without a layout, what the node belonged to may be among what was lost; it is taken in again first.
	if k == nil || k.IsMember(d.cfg.Self.ID) && !d.cfg.State.Ready() {
		return false
	}
	// Layouts that are not known any more may give it slots whose doubt would end at once, since by the known ones it owns none of them.
	if now.Whole && !d.cfg.State.View().Informed(d.cfg.Self.ID, func(id ring.NodeID) bool { return d.heard[id] }) {
		return false
	}
	id, lost := k.Settled.ID(), d.cfg.State.View().Lost()
	if d.refilling != nil && (d.refilling.layout != id || d.refilling.ended || !slices.Equal(d.refilling.without, lost)) {
		d.refilling.cancel()
		d.refilling = nil
	}
	if d.refilling == nil {
		d.startRefill(ctx, id, lost, refillPlan(k.Settled, k.Newest, d.cfg.Self.ID, now.Ranges, lost), now)
	}
	return false
}

// startRefill refills parts on goroutines of their own.
func (d *Driver) startRefill(ctx context.Context, id ring.LayoutID, lost []ring.NodeID, parts []refillPart, now kv.Doubts) {
	ctx, cancel := context.WithCancel(ctx)
	t := &pullTask{layout: id, without: lost, cancel: cancel}
	d.refilling = t
	d.log.Error().Stringer("layout", id).Bool("whole", now.Whole).Int("slots", now.Slots()).Int("ranges", len(parts)).
		Msg("the disk lost data: nothing of it is served until it was pulled from other owners")
	d.calls.Go(func() {
		defer cancel()
		f := refiller{puller: puller{self: d.cfg.Self.ID, layout: id, peers: d.cfg.Peers, metrics: d.metrics, find: d.findPeer,
			throttle: d.throttle, log: d.log},
			store: d.cfg.Doubts}
		start := time.Now()
		f.all(ctx, parts)
		if ctx.Err() != nil {
			return
		}
		d.log.Warn().Stringer("layout", id).Dur("took", time.Since(start)).Msg("what was lost was refilled")
		select {
		case d.results <- func(context.Context) { t.ended = true }:
		case <-ctx.Done():
		}
	})
}

// refiller carries out one refill.
type refiller struct {
	puller
	store Doubtful
}

func (f *refiller) all(ctx context.Context, parts []refillPart) {
	work := make(chan refillPart)
	var owned sync.WaitGroup
	for range min(pullsMax, len(parts)) {
		owned.Go(func() {
			for part := range work {
				f.part(ctx, part)
			}
		})
	}
	for _, part := range parts {
		select {
		case work <- part:
		case <-ctx.Done():
		}
	}
	close(work)
	owned.Wait()
}

// part refills a range unit by unit, for as long as ctx allows.
func (f *refiller) part(ctx context.Context, p refillPart) {
	for p.Range.Len() > 0 && ctx.Err() == nil {
		unit := refillPart{Pull: p.Pull, keep: p.keep}
		got := haul{}
		f.gather(ctx, &unit, got)
		if ctx.Err() != nil || !f.put(ctx, unit, got) {
			return
		}
		p.Range.From = unit.Range.To
	}
}

// gather pulls from as many sources as are needed. The first says how much of the range is one unit.
//
// A source that is in doubt itself does not count. But where all that are left are so, and none is merely away, nothing
// better will come: each would wait for the others. Then what all of them hold is taken together, with what is here. That
// can bring less than was acknowledged only if as many machines lost data as a write needs, and is counted and logged.
func (f *refiller) gather(ctx context.Context, unit *refillPart, got haul) {
	left, need := slices.Clone(unit.Sources), unit.Need
	limit := unitBytes
	for need > 0 && ctx.Err() == nil {
		done, doubtful := -1, 0
		for i, id := range left {
			err := f.fetch(ctx, id, unit, limit, false, got)
			if err == nil {
				done = i
				break
			}
			if errors.Is(err, ErrSourceInDoubt) {
				doubtful++
			}
			if ctx.Err() != nil {
				return
			}
			f.metrics.pulls.WithLabelValues("failed").Inc()
			f.log.Warn().Err(err).Stringer("peer", id).Stringer("range", unit.Range).Msg("range not pulled, trying another source")
		}
		switch {
		case done >= 0:
			f.metrics.pulls.WithLabelValues("ok").Inc()
			left = slices.Delete(left, done, done+1)
			need, limit = need-1, 0
		case doubtful == len(left) && f.takeDoubted(ctx, left, unit, limit, got):
			unit.keep = true
			f.metrics.lastResorts.Inc()
			f.log.Error().Stringer("range", unit.Range).Int("sources", len(left)).
				Msg("all owners that are left are in doubt: what they hold together is taken for all there is")
			return
		default:
			pause(ctx, pullRetry)
		}
	}
}

// takeDoubted pulls from all of ids what they hold, in doubt as it is.
func (f *refiller) takeDoubted(ctx context.Context, ids []ring.NodeID, unit *refillPart, limit int, got haul) bool {
	for _, id := range ids {
		if err := f.fetch(ctx, id, unit, limit, true, got); err != nil {
			f.log.Warn().Err(err).Stringer("peer", id).Stringer("range", unit.Range).Msg("range in doubt not pulled")
			return false
		}
		limit = 0
	}
	return true
}

// haul is what was pulled of a unit, by key.
type haul map[string][]byte

var errEnough = errors.New("unit is full")

// fetch merges into got what a source holds of the unit. A limit above 0 bounds that in bytes, by making the unit end
// before the slot in which it is reached, unless that is its first.
func (f *refiller) fetch(ctx context.Context, id ring.NodeID, unit *refillPart, limit int, doubted bool, got haul) error {
	peer, ok := f.find(id)
	if !ok {
		return errors.New("source is away")
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	pull := f.peers.Pull
	if doubted {
		pull = f.peers.PullDoubted
	}
	own, size, end := haul{}, 0, unit.Range.To
	err := pull(ctx, peer, f.layout, unit.Range, nil, func(c Chunk) error {
		if len(c.Keys) == 0 || len(c.Keys) != len(c.Records) {
			return fmt.Errorf("malformed chunk of %d keys and %d records", len(c.Keys), len(c.Records))
		}
		for i, key := range c.Keys {
			slot := ring.SlotOf(key)
			if !unit.Range.Contains(slot) {
				return errors.New("a key outside of the range")
			}
			if limit > 0 && size >= limit && slot > unit.Range.From {
				end = slot
				return errEnough
			}
			size += len(key) + len(c.Records[i])
			f.throttle.Wait(ctx, len(key)+len(c.Records[i]))
			own[string(key)] = bytes.Clone(c.Records[i])
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	f.metrics.pulledBytes.Add(float64(size))
	f.metrics.pulledRecords.Add(float64(len(own)))
	for key, rec := range own {
		if ring.SlotOf([]byte(key)) >= end { // the last slot came in part
			continue
		}
		if got[key], err = mergeRecords([]byte(key), got[key], rec); err != nil {
			return err
		}
	}
	unit.Range.To = end
	return nil
}

// mergeRecords merges two records of a key, of which the first may be nil.
func mergeRecords(key, a, b []byte) ([]byte, error) {
	if a == nil || bytes.Equal(a, b) {
		return b, nil
	}
	for _, rec := range [][]byte{a, b} {
		if err := record.Verify(key, rec); err != nil {
			return nil, err
		}
	}
	one, err := record.Decode(key, a)
	if err != nil {
		return nil, err
	}
	other, err := record.Decode(key, b)
	if err != nil {
		return nil, err
	}
	return record.Append(nil, key, causal.Merge(one, other)), nil
}

// put makes a unit durable, however long the store is busy. false says that it is not in doubt any more, or that ctx ended.
func (f *refiller) put(ctx context.Context, unit refillPart, got haul) bool {
	for ctx.Err() == nil {
		r := kv.Refill{Range: unit.Range, Keep: unit.keep}
		for key, rec := range got {
			r.Keys, r.Records = append(r.Keys, []byte(key)), append(r.Records, rec)
		}
		ended := make(chan error, 1)
		err := f.store.Refill(r, func(err error) { ended <- err })
		if err == nil {
			err = <-ended // the store answers all it took
		}
		switch {
		case err == nil:
			return true
		case errors.Is(err, kv.ErrInvalid):
			f.log.Warn().Err(err).Stringer("range", unit.Range).Msg("range not refilled")
			return false
		}
		f.log.Warn().Err(err).Stringer("range", unit.Range).Msg("range not refilled, trying again")
		pause(ctx, pullRetry)
	}
	return false
}
