package httpapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/metadata"

	"github.com/dotring/dotring/gateway/internal/httpapi"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	"github.com/dotring/dotring/ringsvc/tracing/tracingtest"
)

// TestRequestsAreTraced: one span for each request over HTTP and gRPC, under the client's, and one for each operation on a key. Logs
// name the trace, and no span tells a key.
func TestRequestsAreTraced(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	const parent = "00-" + trace + "-b7ad6b7169203331-01"
	tracer, stop := tracingtest.Start(t)
	h := newHarness(t, func(c *httpapi.Config) {
		c.Tracer = tracer
		c.Slow = slowLog(time.Nanosecond, c.Logger)
	})
	logged := func(what string) {
		t.Helper()
		if line := <-h.logs.lines; !strings.Contains(line, `"trace_id":"`+trace+`"`) {
			t.Errorf("%s is logged as %s", what, line)
		}
	}
	for _, c := range []call{
		{"PUT", "/v1/kv/secret", header("Traceparent", parent), "hidden"},
		{"GET", "/v1/kv/secret", header("Traceparent", parent), ""},
		{"GET", "/v1/kv/secret?r=9", header("Traceparent", parent), ""},
		{"GET", "/v1/kv/secret?bogus=1", header("Traceparent", parent), ""},
		{"POST", "/v1/kv:batchGet", header("Traceparent", parent), `{"items":[{"key":"secret"},{"key":"secret2"}]}`},
	} {
		h.do(c)
		logged(c.method + " " + c.target)
	}
	h.do(call{"GET", "/healthz", header("Traceparent", parent), ""})
	h.do(call{"GET", "/nowhere", header("Traceparent", parent), ""})
	for len(h.logs.lines) > 0 {
		<-h.logs.lines // which name no trace
	}
	kv := kvv1.NewKVClient(grpcWith(h, slowLog(time.Nanosecond, zerolog.New(h.logs)), tracer))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
	if _, err := kv.Put(ctx, &kvv1.PutRequest{Key: []byte("secret"), Value: []byte("hidden")}); err != nil {
		t.Fatal(err)
	}
	line := <-h.logs.lines
	for !strings.Contains(line, "slow call") { // those of HTTP may be late
		line = <-h.logs.lines
	}
	if !strings.Contains(line, `"trace_id":"`+trace+`"`) {
		t.Errorf("the call is logged as %s", line)
	}
	spans := stop()
	want := map[string]int{"http put under nothing": 1, "put under http put": 1, "http get under nothing": 3, "get under http get": 2,
		"http batch_get under nothing": 1, "get under http batch_get": 2, "grpc Put under nothing": 1, "put under grpc Put": 1}
	if got := tracingtest.Tree(spans); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("spans\n%v, want\n%v", got, want)
	}
	for _, s := range spans {
		if all := fmt.Sprint(s); strings.Contains(all, "secret") || strings.Contains(all, "hidden") {
			t.Errorf("a key or a value is told: %s", all)
		}
		if s.SpanContext.TraceID().String() != trace {
			t.Errorf("%s is in trace %s", s.Name, s.SpanContext.TraceID())
		}
		about := map[string]string{}
		for _, a := range s.Attributes {
			about[string(a.Key)] = a.Value.String()
		}
		switch {
		case s.Name == "put" && (about["dotring.key"] != "2bb80d537b1da3e3" || about["dotring.acks"] == ""),
			s.Name == "http put" && (about["http.response.status_code"] != "200" || about["url.path"] != "/v1/kv/…" || about["dotring.request_id"] == "" || s.Status.Description != ""),
			s.Name == "grpc Put" && (about["rpc.response.status_code"] != "OK" || about["dotring.request_id"] == ""):
			t.Errorf("%s is described by %v", s.Name, about)
		}
	}
}
