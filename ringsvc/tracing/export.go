package tracing

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// queueMax bounds the spans that have ended and are not exported; those beyond are dropped. A span takes a KiB or so.
	queueMax = 2048
	// batchMax is how many go at once, batchWait how long one waits for others at most.
	batchMax  = 512
	batchWait = time.Second
	// exportWait is how long a batch is tried before it is dropped.
	exportWait = 10 * time.Second
	// flushWait bounds what exporting the rest may take once Run is to end.
	flushWait = 3 * time.Second
	// complainEvery is the least time between two lines of the log that say that spans are dropped.
	complainEvery = time.Minute
)

// counts are what became of spans.
type counts struct{ exported, full, failed atomic.Uint64 }

// Exported is how many spans the collector took; Full how many were dropped since there were too many, and Failed how many since
// the collector did not take them. All are 0 of a nil Tracer.
func (t *Tracer) Exported() uint64 {
	if t == nil {
		return 0
	}
	return t.counts.exported.Load()
}

// Full is described at Exported.
func (t *Tracer) Full() uint64 {
	if t == nil {
		return 0
	}
	return t.counts.full.Load()
}

// Failed is described at Exported.
func (t *Tracer) Failed() uint64 {
	if t == nil {
		return 0
	}
	return t.counts.failed.Load()
}

// queue is the library's batches behind a bound that counts what it refuses, which theirs does not tell.
type queue struct {
	sdktrace.SpanProcessor
	counts *counts
	held   atomic.Int64 // ended and not exported
}

// newQueue returns a queue in front of an exporter. When ctx ends what is left is dropped at once.
func newQueue(ctx context.Context, to sdktrace.SpanExporter, c *counts, log zerolog.Logger) *queue {
	q := &queue{counts: c}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(&exporter{SpanExporter: to, ctx: ctx, queue: q, log: log}, sdktrace.WithMaxQueueSize(queueMax),
		sdktrace.WithMaxExportBatchSize(batchMax), sdktrace.WithBatchTimeout(batchWait), sdktrace.WithExportTimeout(exportWait))
	return q
}

// OnEnd never blocks.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if q.held.Add(1) > queueMax {
		q.held.Add(-1)
		q.counts.full.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// exporter counts what becomes of batches, and keeps their errors from the library, which would print every one.
type exporter struct {
	sdktrace.SpanExporter
	ctx        context.Context
	queue      *queue
	log        zerolog.Logger
	complained time.Time // exports follow each other
	lost       int       // since then
}

// ExportSpans returns nil always.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.queue.held.Add(-int64(len(spans)))
	if err == nil {
		e.queue.counts.exported.Add(uint64(len(spans)))
		return nil
	}
	e.queue.counts.failed.Add(uint64(len(spans)))
	e.lost += len(spans)
	if now := time.Now(); now.Sub(e.complained) >= complainEvery {
		e.log.Warn().Err(err).Int("spans", e.lost).Msg("spans were dropped: the collector does not take them")
		e.complained, e.lost = now, 0
	}
	return nil
}
