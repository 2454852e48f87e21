package coordinator

import (
	"strings"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// traced makes what a node is asked to do a part of parent, which tells the node so, and ends with its last answer. Nothing is
// done where parent is nil.
func traced(call *nodeclient.Call, parent *tracing.Span, name string, s *nodeclient.State) {
	if parent == nil {
		return
	}
	span := parent.Call(name)
	span.Str("dotring.node.id", call.To.String())
	span.Str("dotring.node.name", s.Name(call.To))
	call.Request.Span = span.Context()
	deliver, mint := call.Deliver, call.Request.GetOp() == storagev1.Op_OP_MINT
	call.Deliver = func(a nodeclient.Answer) {
		answered(span, &a, mint)
		deliver(a)
	}
}

// answered says of a call's span what came of it, and ends it unless another answer is to come.
func answered(span *tracing.Span, a *nodeclient.Answer, mint bool) {
	span.Int("dotring.queued_us", a.Queued.Microseconds())
	if a.Err != nil {
		span.Fail(a.Err.Error()) // one of the client's own
		span.End()
		return
	}
	st := a.Response.GetStatus()
	if mint && st == storagev1.Status_STATUS_OK && !a.Response.GetDurable() {
		span.Event("dot issued")
		return
	}
	outcome := strings.ToLower(strings.TrimPrefix(st.String(), "STATUS_"))
	span.Str("dotring.outcome", outcome)
	if st != storagev1.Status_STATUS_OK && st != storagev1.Status_STATUS_ABSENT {
		span.Fail(outcome)
	}
	span.End()
}
