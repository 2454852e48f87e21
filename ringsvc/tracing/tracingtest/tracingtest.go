// Package tracingtest keeps the spans that a test makes.
package tracingtest

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/dotring/dotring/ringsvc/tracing"
)

// keeper keeps what was exported beyond the end.
type keeper struct{ tracetest.InMemoryExporter }

// Shutdown keeps all.
func (*keeper) Shutdown(context.Context) error { return nil }

// Start runs a Tracer that samples every request. stop, which is called once, ends it and returns the spans that have ended. It may be used in a synctest bubble, in
// which a millisecond may pass then.
func Start(t testing.TB) (tracer *tracing.Tracer, stop func() tracetest.SpanStubs) {
	t.Helper()
	got := &keeper{}
	tracer, err := tracing.New(tracing.Config{Exporter: got, Sample: 1, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tracer.Run(ctx) }()
	deadline, tick := time.NewTimer(time.Minute), time.NewTicker(time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for tracer.Start("probe", time.Now(), nil) == nil {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("the tracer does not start")
		}
	}
	return tracer, func() tracetest.SpanStubs {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		return got.GetSpans()
	}
}

// Tree counts spans by their names and those of the spans that they are parts of: "commit under node put". One whose parent is not among
// them is under nothing.
func Tree(spans tracetest.SpanStubs) map[string]int {
	names := map[trace.SpanID]string{}
	for _, s := range spans {
		names[s.SpanContext.SpanID()] = s.Name
	}
	tree := map[string]int{}
	for _, s := range spans {
		under := names[s.Parent.SpanID()]
		if under == "" {
			under = "nothing"
		}
		tree[s.Name+" under "+under]++
	}
	return tree
}
