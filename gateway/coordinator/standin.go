package coordinator

import (
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/ringsvc/ring"
)

// maxFallbacks bounds the nodes that are considered for standing in.
const maxFallbacks = 16

// spare says whether some layout has nodes beside the owners of a key.
func spare(live []*ring.Layout) bool {
	for _, l := range live {
		if len(l.Members()) > l.Replicas() {
			return true
		}
	}
	return false
}

// fallbacks lists who may stand in in a live layout.
func (o *putOp) fallbacks(l int) []ring.NodeID {
	if o.fallbackLists[l] == nil {
		o.fallbackLists[l] = o.state.Live[l].Fallbacks(o.slot, make([]ring.NodeID, 0, 4), maxFallbacks)
	}
	return o.fallbackLists[l]
}

// hintFor names the owners that machine i is to keep the record for.
func (o *putOp) hintFor(i int) [][]byte {
	owners := o.put.HintFor(i)
	if len(owners) == 0 {
		return nil
	}
	out := make([][]byte, len(owners))
	for k := range owners {
		out[k] = owners[k][:]
	}
	o.c.metrics.hintsSent.Inc()
	return out
}

// alarm returns how long to wait for answers before something else is due.
func (o *putOp) alarm() time.Duration {
	wait := time.Until(o.deadline)
	if _, doubtful := o.put.Doubtful(); doubtful {
		wait = min(wait, reconnectPoll)
	} else if o.standIns && !o.wasLate && o.put.Minted() {
		wait = min(wait, o.issuedAt+o.c.cfg.StandInAfter-o.now())
	}
	return max(wait, 0)
}

// late lets others stand in for the machines that have not answered in time.
func (o *putOp) late() {
	if o.standIns && !o.wasLate && o.put.Minted() && o.now() >= o.issuedAt+o.c.cfg.StandInAfter {
		o.wasLate = true
		o.put.Late()
	}
}

// receive takes an answer, also one that comes when the caller was answered.
func (o *putOp) receive(a nodeclient.Answer) {
	if !o.in.offer(a) {
		o.afterwards(&a)
	}
}

// leave ends what the caller waits for. What comes later is looked at by whoever brings it.
func (o *putOp) leave() {
	for _, a := range o.in.close() {
		o.afterwards(&a)
	}
	o.drop()
}

// afterwards sees to it that a write that reached its quorum is kept also for an owner that turns out to have missed it.
// Nobody waits for that.
func (o *putOp) afterwards(a *nodeclient.Answer) {
	o.after.Lock()
	var calls []nodeclient.Call
	if o.standIns && o.put.Verdict() == quorum.Reached {
		if cause := failure(a); cause != quorum.None {
			if i := o.put.Find(o.sent[a.Tag].to); i >= 0 {
				for _, k := range o.put.Missed(i, cause) {
					calls = append(calls, o.applyCall(k))
				}
			}
		}
	}
	o.after.Unlock()
	for _, call := range calls { // may be answered, and so end up here, at once
		o.c.replicas.Send(call)
	}
}

// failure returns why an answer is no acknowledgement and none will follow; None where that cannot be said.
func failure(a *nodeclient.Answer) quorum.Cause {
	if a.Err != nil {
		return causeOfError(a.Err)
	}
	if a.Response.GetStatus() == storagev1.Status_STATUS_OK {
		return quorum.None
	}
	return causeOfStatus(a.Response.GetStatus())
}
