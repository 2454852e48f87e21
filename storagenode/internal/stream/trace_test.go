package stream

import (
	"maps"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/tracing"
	"github.com/dotring/dotring/ringsvc/tracing/tracingtest"
	"github.com/dotring/dotring/storagenode/kv"
)

// eventually waits until try says yes.
func eventually(t *testing.T, try func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !try() {
		select {
		case <-deadline:
			t.Fatal("it does not come true")
		case <-tick.C:
		}
	}
}

// A traced request has spans for each stretch of its way through the node, under the one that asked; others have none.
func TestSpansFromFrameToCommit(t *testing.T) {
	tracer, stop := tracingtest.Start(t)
	h := newHarness(t, func(c *Config) { c.Tracer = tracer })
	c := h.greeted(1)
	caller := tracer.Start("gateway", time.Now(), nil)
	traced := func(r *storagev1.Request) *storagev1.Request {
		r.Span, r.Trace = caller.Context(), "the-request"
		return r
	}
	c.send(traced(mintOf(1, "k", "v")), mintOf(2, "untraced", "v"), traced(readOf(3, "absent")))
	for range 3 {
		c.answer()
	}
	h.store.flush()
	for range 2 {
		c.answer()
	}
	c.send(traced(applyOf(4, "k", "v")))
	eventually(t, func() bool { return h.store.flush() == 1 })
	h.wantStatus(c.answer(), 4, storagev1.Status_STATUS_OK)
	h.store.mu.Lock()
	h.store.refuse = kv.ErrDiskFull
	h.store.mu.Unlock()
	c.send(traced(mintOf(5, "k", "v")))
	h.wantStatus(c.answer(), 5, storagev1.Status_STATUS_DISK_FULL)
	c.send(&storagev1.Request{Id: 6, Op: storagev1.Op_OP_READ, Key: []byte("k"), Span: []byte("nonsense")})
	h.wantStatus(c.answer(), 6, storagev1.Status_STATUS_DISK_FULL)
	spans, outcomes := stop(), map[string]int{}
	for _, s := range spans {
		if s.SpanContext.TraceID().String() != tracing.TraceOf(caller.Context()) || s.EndTime.Before(s.StartTime) {
			t.Errorf("span %+v", s)
		}
		if s.Name == "node mint" && s.Status.Description == "" && (len(s.Events) != 1 || s.Events[0].Name != "dot issued") {
			t.Errorf("events %v of a mint", s.Events)
		}
		outcome := s.Status.Description
		for _, a := range s.Attributes {
			if a.Key == "dotring.outcome" {
				outcomes[s.Name+" "+a.Value.String()]++
				outcome = ""
			}
		}
		if outcome != "" {
			t.Errorf("%s failed without an outcome", s.Name)
		}
	}
	if want := (map[string]int{"node mint ok": 1, "node mint disk_full": 1, "node read absent": 1, "node apply ok": 1}); !maps.Equal(outcomes, want) {
		t.Errorf("outcomes %v, want %v", outcomes, want)
	}
	want := map[string]int{
		"node mint under nothing": 2, "node read under nothing": 1, "node apply under nothing": 1, // the caller's has not ended
		"queue under node mint": 2, "queue under node read": 1, "queue under node apply": 1,
		"prepare under node mint": 1, "commit under node mint": 1, "prepare under node apply": 1, "commit under node apply": 1,
	}
	if got := tracingtest.Tree(spans); !maps.Equal(got, want) {
		t.Errorf("spans\n%v, want\n%v", got, want)
	}
}
