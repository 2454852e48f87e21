package stream

import (
	"time"

	"github.com/rs/zerolog"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// traced is a request that spans are made of.
type traced struct {
	span   *tracing.Span
	taken  time.Time // by a worker; zero where none did
	commit time.Time // when the batch that it is in began to be written; zero where it is in none
}

// trace begins the spans of those requests of a frame that are traced; nil where none is.
func (s *Server) trace(reqs []*storagev1.Request, arrived time.Time) (spans map[uint64]*traced) {
	if s.cfg.Tracer == nil {
		return nil
	}
	for _, r := range reqs {
		if len(r.GetSpan()) == 0 {
			continue
		}
		span := s.cfg.Tracer.Continue(r.GetSpan(), "node "+label(r.GetOp().String(), "OP_"), arrived)
		if span == nil {
			continue
		}
		span.Str("dotring.request_id", r.GetTrace())
		if spans == nil {
			spans = make(map[uint64]*traced)
		}
		spans[r.GetId()] = &traced{span: span}
	}
	return spans
}

// begin says that a worker takes the request now.
func (t *traced) begin() {
	if t != nil {
		t.taken = time.Now()
	}
}

// committed says when a batch began to be written. A request of which nothing had to be written is in none, and is told of one that
// began before it.
func (t *traced) committed(began time.Time) {
	if !began.Before(t.taken) {
		t.commit = began
	}
}

// committed notes, in a callback of the store, when the batch that a request was in began to be written.
func (s *Server) committed(f *frame, r *storagev1.Request) {
	if t := f.spans[r.GetId()]; t != nil {
		t.committed(s.cfg.Store.CommitBegan())
	}
}

// event says that something happened to the request.
func (t *traced) event(name string) {
	if t != nil {
		t.span.Event(name)
	}
}

// end ends the spans with the last answer.
func (t *traced) end(arrived time.Time, st storagev1.Status) {
	if t == nil {
		return
	}
	if !t.taken.IsZero() {
		t.span.Past("queue", arrived, t.taken)
	}
	if !t.commit.IsZero() {
		t.span.Past("prepare", t.taken, t.commit)
		t.span.Past("commit", t.commit, time.Now())
	}
	outcome := label(st.String(), "STATUS_")
	t.span.Str("dotring.outcome", outcome)
	if st != storagev1.Status_STATUS_OK && st != storagev1.Status_STATUS_ABSENT {
		t.span.Fail(outcome)
	}
	t.span.End()
}

// line adds to a line of the log what names the request.
func line(e *zerolog.Event, r *storagev1.Request) *zerolog.Event {
	if id := tracing.TraceOf(r.GetSpan()); id != "" {
		e = e.Str("trace_id", id)
	}
	return e.Str("request_id", r.GetTrace())
}
