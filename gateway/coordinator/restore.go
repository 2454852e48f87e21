package coordinator

import (
	"context"
	"slices"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// restoreRounds bounds how often one record follows newer layouts.
const restoreRounds = 16

// Restore brings a record of a backup to all owners of its key, which merge it with what they have, and returns once enough
// of each live layout have it durably, and all others have answered or the time is up. Its dots stay what they were: whoever
// minted them mints no more, or knows them. Doing it again changes nothing. Errors are *Error.
func (c *Coordinator) Restore(ctx context.Context, key, raw []byte, trace string) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := record.Verify(key, raw); err != nil {
		return &Error{Kind: Internal, Outcome: NotApplied, Err: err}
	}
	state := c.replicas.State()
	if state == nil {
		return &Error{Kind: NoLayout, Outcome: NotApplied}
	}
	for range restoreRounds {
		newer, err := c.restore(ctx, state, key, raw, trace)
		if newer == nil {
			return err
		}
		state = newer
	}
	return &Error{Kind: QuorumImpossible, Outcome: InDoubt}
}

// restore is one attempt; where a node knows a newer layout, it returns the state with that.
func (c *Coordinator) restore(ctx context.Context, state *nodeclient.State, key, raw []byte, trace string) (*nodeclient.State, error) {
	slot := ring.SlotOf(key)
	var owners []ring.NodeID
	for _, l := range state.Live {
		for _, n := range l.Primaries(slot) {
			if !slices.Contains(owners, n) {
				owners = append(owners, n)
			}
		}
	}
	begin := time.Now()
	deadline, _ := ctx.Deadline()
	var in inbox
	in.init(plainWrite)
	defer in.close()
	reports := make([]Report, len(owners))
	for i, n := range owners {
		reports[i] = Report{Node: n, Name: state.Name(n), Did: quorum.Apply.String(), Detail: "no answer"}
		c.replicas.Send(nodeclient.Call{To: n, Tag: uint64(i), Layouts: state.Names, Obtained: begin, Deadline: deadline, Deliver: in.put,
			Request: &storagev1.Request{Op: storagev1.Op_OP_APPLY, Key: key, Record: raw, Cause: storagev1.Cause_CAUSE_WRITE, Trace: trace}})
	}
	durable := make([]bool, len(owners))
	worst := quorum.None
	for left := len(owners); left > 0; {
		select {
		case <-in.wake:
		case <-ctx.Done():
			left = 0
			continue
		}
		for _, a := range in.take(nil) {
			left--
			r := &reports[a.Tag]
			r.At = time.Since(begin)
			cause, detail := quorum.None, ""
			switch {
			case a.Err != nil:
				cause, detail = causeOfError(a.Err), a.Err.Error()
			case a.Response.GetStatus() == storagev1.Status_STATUS_FENCED:
				if newer := c.refreshed(state, a.Response.GetView()); newer != nil {
					return newer, nil
				}
				cause = quorum.Fenced
			case a.Response.GetStatus() != storagev1.Status_STATUS_OK || !a.Response.GetDurable():
				cause, detail = causeOfStatus(a.Response.GetStatus()), a.Response.GetDetail()
			}
			if durable[a.Tag], r.Detail = cause == quorum.None, "durable"; cause != quorum.None {
				worst, r.Detail = cause, describe(cause, detail)
			}
		}
	}
	for _, l := range state.Live {
		have := 0
		for i, n := range owners {
			if durable[i] && l.Owns(n, slot) {
				have++
			}
		}
		if have >= c.need(Default, l) {
			continue
		}
		e := &Error{Kind: kindOfCause(worst), Outcome: InDoubt, Replicas: reports}
		if ctx.Err() != nil {
			e.Kind, e.Err = DeadlinePassed, context.Cause(ctx)
		}
		return nil, e
	}
	return nil, nil
}
