package layout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/planner"
	"github.com/dotring/dotring/ringsvc/ring"
)

// ChangeRequest is what an operator asks for.
type ChangeRequest struct {
	Kind ring.ChangeKind // leave, remove, replace, weight or abort
	Node ring.NodeID     // whom it is about; not for abort
	// By takes the place of Node: ring.ChangeReplace.
	By ring.Member
	// Weight is the new one: ring.ChangeWeight.
	Weight float64
	// AcceptLoss goes on with a removal where too few sources are left for some slots.
	AcceptLoss bool
	// DryRun changes nothing.
	DryRun bool
}

// Preview says what a change does.
type Preview struct {
	Layout *ring.Layout
	View   *ring.View          // with the change in it; the caller's own
	Gained map[ring.NodeID]int // slots that each member gains
	Short  []ring.Range        // ranges that lost their quorum: the change waits for AcceptLoss
}

// ErrRefused is wrapped by the errors about requests that would be unsafe.
var ErrRefused = errors.New("refused")

// Change carries out, or previews, what an operator asks for. It fails with ring.ErrUnsettled while another change is under way, with
// ring.ErrRemovalPending, ring.ErrNoChange, ring.ErrSynced, ring.ErrInvalid or ErrRefused. Safe for concurrent use.
func (d *Driver) Change(ctx context.Context, r ChangeRequest) (Preview, error) {
	type outcome struct {
		p   Preview
		err error
	}
	done := make(chan outcome, 1)
	select {
	case d.results <- func(ctx context.Context) {
		p, err := d.change(ctx, r)
		done <- outcome{p, err}
	}:
	case <-ctx.Done():
		return Preview{}, ctx.Err()
	}
	select {
	case o := <-done:
		return o.p, o.err
	case <-ctx.Done():
		return Preview{}, ctx.Err()
	}
}

func (d *Driver) change(ctx context.Context, r ChangeRequest) (Preview, error) {
	v := d.cfg.State.View()
	if v == nil {
		return Preview{}, ring.ErrUnsettled
	}
	if _, member := v.Settled().Member(d.cfg.Self.ID); !member {
		return Preview{}, fmt.Errorf("%w: this node is no member", ErrRefused)
	}
	plan := planOnce()
	apply := func(v *ring.View) error { return d.put(v, r, plan) }
	if err := apply(v); err != nil {
		return Preview{}, err
	}
	p := Preview{Layout: v.Newest(), View: v, Gained: ring.Gained(v.Settled(), v.Newest()), Short: v.Short(v.Newest())}
	if r.DryRun {
		return p, nil
	}
	if err := d.cfg.State.Update(ctx, apply); err != nil {
		return Preview{}, err
	}
	d.proposed = stuck{layout: p.Layout.ID(), since: time.Now()}
	d.log.Info().Stringer("kind", r.Kind).Stringer("about", r.Node).Stringer("layout", p.Layout.ID()).Msg("change asked for by an operator")
	return p, nil
}

// planFunc completes changes with tokens, as planner.Plan does.
type planFunc func(base *ring.Layout, changes []ring.Change) []ring.Change

// planOnce is planner.Plan that remembers its plan: the same change is put into a view to see what comes of it, and then into the view that is
// kept, and a plan for hundreds of members takes a second.
func planOnce() planFunc {
	var on ring.LayoutID
	var planned []ring.Change
	return func(base *ring.Layout, changes []ring.Change) []ring.Change {
		if planned == nil || on != base.ID() {
			on, planned = base.ID(), planner.Plan(base, changes)
		}
		return planned
	}
}

// put puts what was asked for into a view. All calls for one request may share a plan.
func (d *Driver) put(v *ring.View, r ChangeRequest, plan planFunc) error {
	about := ring.Change{Kind: r.Kind, Member: ring.Member{ID: r.Node}}
	switch r.Kind {
	case ring.ChangeAbort:
		_, err := v.Abort(d.cfg.Self.ID)
		return err
	case ring.ChangeRemove:
		if d.isAlive(r.Node) {
			return fmt.Errorf("%w: %s is alive; decommission it, or stop it first", ErrRefused, r.Node)
		}
		return d.remove(v, r.Node, r.AcceptLoss, plan)
	case ring.ChangeReplace:
		if !d.isAlive(r.By.ID) {
			return fmt.Errorf("%w: %s, which is to take the place, is not alive", ErrRefused, r.By.ID)
		}
		if !d.isAlive(r.Node) {
			if err := v.MarkDead(r.Node, r.AcceptLoss); err != nil {
				return err
			}
		}
		about.Old, about.Member = r.Node, r.By
	case ring.ChangeWeight:
		about.Member.Weight = r.Weight
	case ring.ChangeLeave:
	default:
		return fmt.Errorf("%w: %s", ring.ErrInvalid, r.Kind)
	}
	// Without a plan at first, which could move tokens for a change that is none.
	if _, err := v.Clone().Propose([]ring.Change{about}); err != nil {
		if errors.Is(err, ring.ErrNoChange) && r.Kind == ring.ChangeLeave {
			return fmt.Errorf("%w: fewer than %d members would stay, as many as there are copies", ErrRefused, v.Settled().N())
		}
		return err
	}
	_, err := v.Propose(plan(v.Settled(), []ring.Change{about}))
	return err
}

// remove marks a member dead, and takes its tokens at once where no change is under way.
func (d *Driver) remove(v *ring.View, id ring.NodeID, acceptLoss bool, plan planFunc) error {
	if err := v.MarkDead(id, acceptLoss); err != nil {
		return err
	}
	if r := v.Removals(); len(r) > 0 && v.Newest() == v.Settled() {
		_, err := v.Propose(plan(v.Settled(), r))
		return err
	}
	return nil
}

func (d *Driver) isAlive(id ring.NodeID) bool {
	if id == d.cfg.Self.ID {
		return true
	}
	for _, m := range d.members {
		if m.ID == id && m.Status == membership.Alive {
			return true
		}
	}
	return false
}

// watchAway keeps account of who is away, removes who has been for too long, and notices that this node is cut off.
func (d *Driver) watchAway(ctx context.Context, now time.Time) {
	k := d.cfg.State.Known()
	if k == nil || d.cfg.DeadAfter <= 0 {
		return
	}
	members := k.Settled.Members()
	var away []ring.Absence
	for _, m := range members {
		if d.isAlive(m.ID) {
			delete(d.awaySince, m.ID)
			continue
		}
		since, known := d.awaySince[m.ID]
		if !known {
			since = now
			d.awaySince[m.ID] = now
		}
		away = append(away, ring.Absence{ID: m.ID, For: now.Sub(since)})
	}
	if 2*len(away) < len(members) {
		d.heardMajority = now
	}
	cutOff := now.Sub(d.heardMajority) > d.cfg.DeadAfter/2
	if d.cfg.State.SetCutOff(cutOff) != cutOff && cutOff {
		d.log.Error().Int("away", len(away)).Int("members", len(members)).
			Msg("no majority of the members was heard for half of dead-after: reads are refused, since this node may have been removed")
	}
	id, verdict := ring.DecideRemoval(d.cfg.State.View(), d.cfg.Self.ID, away, d.cfg.DeadAfter)
	switch verdict {
	case ring.RemovalNone, ring.RemovalPending:
	case ring.RemovalUnsafe:
		d.complain("unsafe/"+id.String(), func(e *zerolog.Event) {
			e.Stringer("member", id).Int("away", len(away)).Int("members", len(members)).
				Msg("a member has been away for dead-after and is not removed, since a third of the members is away: an operator must decide")
		})
	case ring.RemovalNow:
		err := d.cfg.State.Update(ctx, func(v *ring.View) error { return d.remove(v, id, false, planner.Plan) })
		if err != nil {
			d.log.Error().Err(err).Stringer("member", id).Msg("member that is away not removed, trying again")
			return
		}
		d.metrics.removals.Inc()
		d.log.Warn().Stringer("member", id).Dur("dead_after", d.cfg.DeadAfter).Msg("member removed for good: it was away for too long")
	}
}

// hasLeft tells that this node was a member and is none any more: it must not ask to come back with its old data.
func (d *Driver) hasLeft(k *Known) bool {
	acked := d.cfg.State.Fence().Acked
	left := d.cfg.State.Removed() || !k.IsMember(d.cfg.Self.ID) && !acked.IsZero() && k.Settled.ID().Epoch >= acked.Epoch
	if left {
		d.complain("left", func(e *zerolog.Event) {
			e.Stringer("cluster", k.Cluster).Bool("removed", d.cfg.State.Removed()).
				Msg("this node is no member any more; it comes back only with an empty data directory")
		})
	}
	return left
}
