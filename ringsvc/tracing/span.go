package tracing

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Span is a part of the work for a sampled request. Nil stands for that of one which is not sampled; all methods do nothing then. It
// is safe for concurrent use, and what is said of a span that has ended is lost.
type Span struct {
	run  *running
	ctx  context.Context // has span in it
	span trace.Span
}

// contextLen is the length of Span.Context.
const contextLen = len(trace.TraceID{}) + len(trace.SpanID{})

// Child begins a part of s that happens in this process.
func (s *Span) Child(name string) *Span {
	if s == nil {
		return nil
	}
	return s.run.start(s.ctx, name)
}

// Call begins a part of s that another process is asked to do.
func (s *Span) Call(name string) *Span {
	if s == nil {
		return nil
	}
	return s.run.start(s.ctx, name, trace.WithSpanKind(trace.SpanKindClient))
}

// Past adds a part of s that is over.
func (s *Span) Past(name string, from, to time.Time) {
	if s == nil || to.Before(from) {
		return
	}
	_, span := s.run.tracer.Start(s.ctx, name, trace.WithTimestamp(from))
	span.End(trace.WithTimestamp(to))
}

// Context names s to another process, for Tracer.Continue: the trace's id and the span's. Nil of a nil Span.
func (s *Span) Context() []byte {
	if s == nil {
		return nil
	}
	sc := s.span.SpanContext()
	id, span := sc.TraceID(), sc.SpanID()
	return append(append(make([]byte, 0, contextLen), id[:]...), span[:]...)
}

func decodeContext(b []byte) trace.SpanContext {
	var id trace.TraceID
	var span trace.SpanID
	copy(span[:], b[copy(id[:], b):])
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled, Remote: true})
}

// TraceOf returns the id of the trace in what Context returned, as logs show it; empty where there is none.
func TraceOf(context []byte) string {
	if len(context) != contextLen {
		return ""
	}
	return hex.EncodeToString(context[:len(trace.TraceID{})])
}

// Log adds the id of the trace to a line of the log.
func (s *Span) Log(line *zerolog.Event) *zerolog.Event {
	if s == nil {
		return line
	}
	return line.Stringer("trace_id", s.span.SpanContext().TraceID())
}

// Str, Int and Bool say something of s.
func (s *Span) Str(key, value string) {
	if s != nil {
		s.span.SetAttributes(attribute.String(key, strings.ToValidUTF8(value, "\uFFFD"))) // what is no text fails its whole batch
	}
}

// Int is as Str.
func (s *Span) Int(key string, value int64) {
	if s != nil {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// Bool is as Str.
func (s *Span) Bool(key string, value bool) {
	if s != nil {
		s.span.SetAttributes(attribute.Bool(key, value))
	}
}

// Name gives s another name.
func (s *Span) Name(name string) {
	if s != nil {
		s.span.SetName(name)
	}
}

// Event says that something happened now.
func (s *Span) Event(name string) {
	if s != nil {
		s.span.AddEvent(name)
	}
}

// Fail says that what s is of went wrong, and in a few words how. They must not be of the client's making.
func (s *Span) Fail(how string) {
	if s != nil {
		s.span.SetStatus(codes.Error, how)
	}
}

// End ends s. Only the first call counts.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}
