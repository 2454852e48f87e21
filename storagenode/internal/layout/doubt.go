package layout

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/dotring/dotring/ringsvc/ring"
)

const metaDoubt = "layout/doubt"

// Doubt is whether the store may lack what this node acknowledged: the engine dropped data when it was opened. Until the
// node has pulled all it owns from enough other owners, nothing it has, and nothing it lacks, proves anything. The doubt
// is durable, since the next start finds a tidy engine. Safe for concurrent use, but for Look and Clear, which belong to
// the driver.
type Doubt struct {
	store Store
	life  EngineLife
	in    atomic.Bool
	// cleared is the number of openings when the doubt last ended, 0 for never in this life of the process.
	cleared atomic.Uint64
	stored  bool
}

// EngineLife tells of the engine in this life of the process. Both are safe for concurrent use.
type EngineLife struct {
	Dropped  func() bool   // whether any opening dropped data
	Openings func() uint64 // how many there were, 1 or more
}

// NewDoubt reads whether an earlier life was in doubt.
func NewDoubt(store Store, life EngineLife) (*Doubt, error) {
	b, err := get(store, metaDoubt)
	if err != nil {
		return nil, err
	}
	d := &Doubt{store: store, life: life, stored: len(b) > 0}
	d.in.Store(d.stored)
	return d, nil
}

// In says whether the store is in doubt.
func (d *Doubt) In() bool { return d.in.Load() || d.cleared.Load() == 0 && d.life.Dropped() }

// Look notices that the engine was reopened and dropped data, and makes a doubt durable.
func (d *Doubt) Look(ctx context.Context, put func(context.Context, string, []byte) error) error {
	// Which opening it was cannot be told, so any after the doubt ended is one too many.
	if d.life.Dropped() && d.life.Openings() > d.cleared.Load() {
		d.in.Store(true)
	}
	if !d.in.Load() || d.stored {
		return nil
	}
	if err := put(ctx, metaDoubt, []byte{1}); err != nil {
		return err
	}
	d.stored = true
	return nil
}

// Clear ends a doubt that began at or before openings.
func (d *Doubt) Clear(ctx context.Context, openings uint64, put func(context.Context, string, []byte) error) error {
	if err := put(ctx, metaDoubt, nil); err != nil {
		return err
	}
	d.stored = false
	d.cleared.Store(openings)
	d.in.Store(false)
	return nil
}

// refillPulls lists what a node must pull to know again all that a read quorum knows of the slots it owns in l: from
// n-w+1 other owners, or all of them where there are fewer.
func refillPulls(l *ring.Layout, self ring.NodeID) []ring.Pull {
	need := l.Replicas() - l.EffectiveW(l.MinW()) + 1
	bounds := []ring.Slot{0, ring.Slots}
	for _, m := range l.Members() {
		for _, t := range m.Tokens {
			bounds = append(bounds, t+1) // a slot belongs to the first token at or after it
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	var out []ring.Pull
	for i, from := range bounds[:len(bounds)-1] {
		owners := slices.Clone(l.Primaries(from))
		at := slices.Index(owners, self)
		if at < 0 || len(owners) == 1 {
			continue
		}
		owners = slices.Delete(owners, at, at+1)
		slices.SortFunc(owners, ring.NodeID.Compare)
		out = append(out, ring.Pull{Range: ring.Range{From: from, To: bounds[i+1]}, Sources: owners, Need: min(need, len(owners))})
	}
	return coalesce(out)
}

// refill brings a node whose store is in doubt what it may have lost. It reports whether there is no doubt.
func (d *Driver) refill(ctx context.Context) bool {
	doubt := d.cfg.Doubt
	if err := doubt.Look(ctx, d.cfg.State.put); err != nil {
		d.log.Warn().Err(err).Msg("doubt about the disk not stored, trying again")
	}
	if !doubt.In() {
		return true
	}
	k := d.cfg.State.Known()
	switch {
	case k == nil: // what the node belonged to may be among what was lost
		return false
	case !k.IsMember(d.cfg.Self.ID): // it owns nothing yet: all that counts comes with the sync
		return d.clearDoubt(ctx, d.cfg.Doubt.life.Openings())
	case !d.cfg.State.Ready():
		return false
	}
	id := k.Settled.ID()
	if d.refilling != nil && d.refilling.layout != id {
		d.refilling.cancel()
		d.refilling = nil
	}
	if d.refilling == nil {
		openings := doubt.life.Openings()
		pulls := refillPulls(k.Settled, d.cfg.Self.ID)
		d.log.Error().Stringer("layout", id).Int("ranges", len(pulls)).
			Msg("the engine dropped data: nothing here is served until it was pulled from other owners")
		d.refilling = d.startPulls(ctx, id, pulls, "refill")
		d.refilling.openings = openings
	}
	if !d.refilling.ended {
		return false
	}
	done := d.refilling
	d.refilling = nil
	return d.clearDoubt(ctx, done.openings)
}

func (d *Driver) clearDoubt(ctx context.Context, openings uint64) bool {
	if err := d.cfg.Doubt.Clear(ctx, openings, d.cfg.State.put); err != nil {
		d.log.Warn().Err(fmt.Errorf("clear doubt: %w", err)).Msg("doubt about the disk stays, trying again")
		return false
	}
	d.log.Warn().Msg("the disk is in doubt no longer")
	return true
}
