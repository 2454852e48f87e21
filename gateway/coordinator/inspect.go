package coordinator

import (
	"context"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Role says what a node is to a key.
type Role string

// The roles of a node.
const (
	// Primary: an owner in the layout that reads use.
	Primary Role = "primary"
	// Pending: an owner in the other live layout alone.
	Pending Role = "pending"
	// Fallback: one of the nodes that stand in for owners.
	Fallback Role = "fallback"
)

// Inspection is one key as each replica has it.
type Inspection struct {
	Slot ring.Slot
	// Layouts are the live layouts, settled first, and Read the one that reads use.
	Layouts []ring.LayoutID
	Read    ring.LayoutID
	// Replicas are the primaries in preference order, then pending owners, then fallbacks.
	Replicas []Inspected
}

// Inspected is what one replica has. Err is empty where it answered.
type Inspected struct {
	Node      ring.NodeID
	Name      string
	Role      Role
	Connected bool
	Suspect   bool
	// Set is its record, verified; Absent says that it has none. Bytes is the size of the record.
	Set    causal.Set
	Absent bool
	Bytes  int
	Err    string
	// Marked says that the record is a tombstone that is being collected; Why, of an owner that collects the key, why its
	// tombstone is still there.
	Marked bool
	Why    string
	// At is when it answered, from the beginning.
	At time.Duration
}

// Inspect reads a key from every replica, fallbacks included, and changes nothing. A replica that does not answer in
// time has that as its Err. The only error is *Error of kind NoLayout.
func (c *Coordinator) Inspect(ctx context.Context, key []byte) (Inspection, error) {
	state := c.replicas.State()
	if state == nil {
		return Inspection{}, &Error{Kind: NoLayout}
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	slot := ring.SlotOf(key)
	out := Inspection{Slot: slot, Layouts: state.View.LiveIDs(), Read: state.Read.ID()}
	for _, n := range state.Read.Primaries(slot) {
		out.Replicas = append(out.Replicas, Inspected{Node: n, Role: Primary})
	}
	for _, n := range c.others(state, slot) {
		role := Fallback
		for _, l := range state.Live {
			if l.Owns(n, slot) {
				role = Pending
			}
		}
		out.Replicas = append(out.Replicas, Inspected{Node: n, Role: role})
	}
	deadline, _ := ctx.Deadline()
	begin := time.Now()
	var in inbox
	in.init(plainRead)
	defer in.close()
	for i := range out.Replicas {
		r := &out.Replicas[i]
		h := c.replicas.Health(r.Node)
		r.Name, r.Connected, r.Suspect, r.Err = state.Name(r.Node), h.Connected, h.Suspect, "no answer"
		c.replicas.Send(nodeclient.Call{To: r.Node, Tag: uint64(i), Layouts: state.Names, Deadline: deadline, Deliver: in.put,
			Request: &storagev1.Request{Op: storagev1.Op_OP_INSPECT, Key: key, Layout: state.ReadIndex}})
	}
	for left := len(out.Replicas); left > 0; {
		select {
		case <-in.wake:
			for _, a := range in.take(nil) {
				left--
				out.Replicas[a.Tag].take(key, a, time.Since(begin))
			}
		case <-ctx.Done():
			return out, nil
		}
	}
	return out, nil
}

// take notes what a replica answered.
func (r *Inspected) take(key []byte, a nodeclient.Answer, at time.Duration) {
	r.At, r.Err = at, ""
	if a.Err != nil {
		r.Err = a.Err.Error()
		return
	}
	switch st := a.Response.GetStatus(); st {
	case storagev1.Status_STATUS_OK:
		set, _, err := decode(key, a.Response.GetRecord())
		if err != nil {
			r.Err = err.Error()
			return
		}
		r.Set, r.Bytes = set, len(a.Response.GetRecord())
		r.Marked, r.Why = a.Response.GetMarked(), a.Response.GetWhy()
	case storagev1.Status_STATUS_ABSENT:
		r.Absent = true
	default:
		r.Err = describe(causeOfStatus(st), a.Response.GetDetail())
	}
}
