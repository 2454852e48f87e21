package coordinator

import (
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/tracing/tracingtest"
)

// Each replica's part in a put and a get is a span under the operation's, and its id goes to the replica.
func TestSpansOfReplicas(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		tracer, stop := tracingtest.Start(t)
		o := s.owners(testKey)
		told := map[string]bool{} // spans that nodes were told of
		s.lock(func() {
			o[2].connected = false
			for _, n := range s.order {
				n.meddle = func(r *storagev1.Request) *meddling {
					told[string(r.Span)] = true
					return nil
				}
			}
		})
		root := tracer.Start("root", time.Now(), nil)
		put := root.Child("put")
		value := []byte("one")
		if _, err := s.co.Put(t.Context(), PutRequest{Key: []byte(testKey), Value: value, Checksum: record.Checksum(value), Sloppy: true, Span: put}); err != nil {
			t.Fatal(err)
		}
		put.End()
		elapse(time.Second)
		s.lock(func() { delete(o[1].records, testKey) })
		get := root.Child("get")
		for range 8 { // until both that are up are asked, and the one is repaired
			if _, err := s.co.Get(t.Context(), GetRequest{Key: []byte(testKey), R: 2, Span: get}); err != nil {
				t.Fatal(err)
			}
			elapse(time.Second)
		}
		get.End()
		root.End()
		spans := stop()
		for _, span := range spans {
			if span.SpanKind != trace.SpanKindClient {
				continue
			}
			id, parent := span.SpanContext.TraceID(), span.SpanContext.SpanID()
			if !told[string(id[:])+string(parent[:])] {
				t.Errorf("no node was told of %s", span.Name)
			}
			about := map[string]string{}
			for _, a := range span.Attributes {
				about[string(a.Key)] = a.Value.String()
			}
			if about["dotring.node.id"] == o[2].id.String() {
				if span.Status.Description != nodeclient.ErrNotConnected.Error() || about["dotring.outcome"] != "" {
					t.Errorf("%s of a node that is away ended with %v, %v", span.Name, span.Status, about)
				}
				continue
			}
			if about["dotring.node.name"] == "" || about["dotring.outcome"] != "ok" && (about["dotring.outcome"] != "absent" || span.Name == "mint") {
				t.Errorf("%s is described by %v", span.Name, about)
			}
			if span.Name == "mint" && (len(span.Events) != 1 || span.Events[0].Name != "dot issued" || span.EndTime.Sub(span.StartTime) < 2*time.Millisecond) {
				t.Errorf("mint of %s with %v", span.EndTime.Sub(span.StartTime), span.Events)
			}
		}
		kinds := tracingtest.Tree(spans)
		// The mint, an owner, the owner that is away, and who keeps the record for that one.
		if fmt.Sprint(kinds["mint under put"], kinds["apply under put"], kinds["hint under put"]) != "1 2 1" {
			t.Errorf("spans %v", kinds)
		}
		for kind, least := range map[string]int{"root under nothing": 1, "put under root": 1, "get under root": 1, "read under get": 8, "repair under get": 1} {
			if kinds[kind] < least {
				t.Errorf("%d spans %s, want %d: %v", kinds[kind], kind, least, kinds)
			}
		}
	})
}
