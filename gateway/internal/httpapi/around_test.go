package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

func TestHealth(t *testing.T) {
	h := newHarness(t)
	for _, target := range []string{"/healthz", "/readyz"} {
		if a := h.do(call{"GET", target, nil, ""}); a.StatusCode != 200 || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d", target, a.StatusCode)
		}
	}
	h.ready = "draining"
	if a := h.do(call{"GET", "/readyz", nil, ""}); a.StatusCode != 503 || !strings.Contains(string(a.body), "draining") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := h.do(call{"GET", "/healthz", nil, ""}); a.StatusCode != 200 {
		t.Errorf("healthz while draining: %d", a.StatusCode)
	}
}

func TestCORS(t *testing.T) {
	off := newHarness(t)
	off.put("k", "v")
	if a := off.get("k", "Origin", "https://app.example"); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS is on by itself")
	}
	h := newHarness(t, func(c *httpapi.Config) { c.CORSOrigins = []string{"https://app.example"} })
	h.put("k", "v")
	a := h.get("k", "Origin", "https://app.example")
	if a.Header.Get("Access-Control-Allow-Origin") != "https://app.example" || !strings.Contains(a.Header.Get("Vary"), "Origin") {
		t.Errorf("%v", a.Header)
	}
	for _, name := range []string{"Kv-Context", "ETag"} {
		if !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), name) {
			t.Errorf("%s is not exposed", name)
		}
	}
	if a := h.get("none", "Origin", "https://app.example"); a.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Error("a page cannot read problems")
	}
	if a := h.get("k", "Origin", "https://evil.example"); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("another origin is allowed")
	}
	preflight := h.do(call{"OPTIONS", "/v1/kv/k", header("Origin", "https://app.example", "Access-Control-Request-Method", "PUT"), ""})
	if preflight.StatusCode != 204 || !strings.Contains(preflight.Header.Get("Access-Control-Allow-Methods"), "PUT") ||
		!strings.Contains(preflight.Header.Get("Access-Control-Allow-Headers"), "Kv-Context") {
		t.Errorf("%d %v", preflight.StatusCode, preflight.Header)
	}
	anyone := newHarness(t, func(c *httpapi.Config) { c.CORSOrigins = []string{"*"} })
	if a := anyone.get("k", "Origin", "https://x.example"); a.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v", a.Header)
	}
}

// panicking is a store that panics.
type panicking struct{}

func (panicking) Get(context.Context, coordinator.GetRequest) (coordinator.GetResult, error) {
	panic("get")
}
func (panicking) Put(context.Context, coordinator.PutRequest) (coordinator.PutResult, error) {
	panic("put")
}

func TestPanicIsAnswered(t *testing.T) {
	h := newHarness(t, func(c *httpapi.Config) { c.Store = panicking{}; c.Admission = httpapi.NewAdmission(1, 1<<20) })
	for range 3 { // each time the place is given back
		h.problem(h.get("k"), 500, "internal")
		if p := h.problem(h.do(call{"PUT", "/v1/kv/k", nil, "x"}), 500, "internal"); p.Outcome != "in-doubt" {
			t.Errorf("outcome %q", p.Outcome)
		}
	}
}

func TestMetricsAndLogs(t *testing.T) {
	h := newHarness(t, func(c *httpapi.Config) { c.Logger = c.Logger.Level(zerolog.WarnLevel) })
	h.put("k", "value")
	h.get("k")
	h.get("none")
	h.do(call{"GET", "/healthz", nil, ""})
	h.store.Fail(&coordinator.Error{Kind: coordinator.QuorumImpossible})
	a := h.get("k", "Kv-Request-Id", "the-failing-one")
	want := `
# HELP dotring_gateway_http_requests_total Requests answered over HTTP, by what they asked for and the status.
# TYPE dotring_gateway_http_requests_total counter
dotring_gateway_http_requests_total{code="200",op="get"} 1
dotring_gateway_http_requests_total{code="200",op="health"} 1
dotring_gateway_http_requests_total{code="200",op="put"} 1
dotring_gateway_http_requests_total{code="404",op="get"} 1
dotring_gateway_http_requests_total{code="503",op="get"} 1
# HELP dotring_gateway_http_in_flight_requests Requests over HTTP under way.
# TYPE dotring_gateway_http_in_flight_requests gauge
dotring_gateway_http_in_flight_requests 0
# HELP dotring_gateway_http_request_body_bytes_total Bytes of request bodies read.
# TYPE dotring_gateway_http_request_body_bytes_total counter
dotring_gateway_http_request_body_bytes_total 5
`
	// An answer is read before its request is counted: the server's end waits for the counting.
	h.server.Close()
	if err := testutil.GatherAndCompare(h.reg, strings.NewReader(want), "dotring_gateway_http_requests_total",
		"dotring_gateway_http_in_flight_requests", "dotring_gateway_http_request_body_bytes_total"); err != nil {
		t.Error(err)
	}
	line := <-h.logs.lines
	for _, part := range []string{`"level":"warn"`, `"request_id":"the-failing-one"`, `"status":503`, `"message":"request failed"`} {
		if !strings.Contains(line, part) || a.StatusCode != 503 {
			t.Errorf("%s lacks %s", line, part)
		}
	}
	if len(h.logs.lines) != 0 {
		t.Errorf("more was logged: %s", <-h.logs.lines)
	}
}

// TestSlowRequestsAreLogged wants a line that leads from the request's id to the replica that was slow, whichever way the request
// came, and that does not tell the key.
func TestSlowRequestsAreLogged(t *testing.T) {
	h := newHarness(t, func(c *httpapi.Config) {
		c.Logger = c.Logger.Level(zerolog.WarnLevel)
		c.Slow = slowLog(time.Nanosecond, c.Logger)
	})
	for name, c := range map[string]struct {
		call call
		want []string
	}{
		"put":    {call{"PUT", "/v1/kv/secret", header("Kv-Request-Id", "named"), "v"}, []string{`"mint":`, `"path":"/v1/kv/…"`, `"op":"put"`}},
		"get":    {call{"GET", "/v1/kv/secret", header("Kv-Request-Id", "named"), ""}, []string{`"path":"/v1/kv/…"`, `"op":"get"`}},
		"delete": {call{"DELETE", "/v1/kv/secret", header("Kv-Request-Id", "named"), ""}, []string{`"mint":`, `"op":"delete"`}},
		"batch": {call{"POST", "/v1/kv:batchGet", header("Kv-Request-Id", "named", "Content-Type", "application/json"), `{"items":[{"key":"secret"},{"key":"secret"}]}`},
			[]string{`"operations":2`, `"op":"batch_get"`}},
	} {
		h.do(c.call)
		line := <-h.logs.lines
		// The first 16 digits of the SHA-256 of the key, and what edgetest's replicas did.
		for _, part := range append(c.want, `"message":"slow request"`, `"request_id":"named"`, `"key":"2bb80d537b1da3e3"`, `"before":`, `"quorum":`, `"after":`,
			`"slowest":"02000000000000000000000000000000"`, `"node":"a"`) {
			if !strings.Contains(line, part) {
				t.Errorf("%s: %s lacks %s", name, line, part)
			}
		}
		if strings.Contains(line, "secret") {
			t.Errorf("%s: the key is told: %s", name, line)
		}
	}
}

// TestSlowCallsAreLogged wants the same of gRPC.
func TestSlowCallsAreLogged(t *testing.T) {
	h := newHarness(t)
	kv := kvv1.NewKVClient(grpcWith(h, slowLog(time.Nanosecond, zerolog.New(h.logs)), nil))
	for len(h.logs.lines) > 0 {
		<-h.logs.lines // of the harness
	}
	for name, call := range map[string]func() error{
		"Get": func() error { _, err := kv.Get(t.Context(), &kvv1.GetRequest{Key: []byte("secret")}); return err },
		"BatchPut": func() error {
			_, err := kv.BatchPut(t.Context(), &kvv1.BatchPutRequest{Items: []*kvv1.BatchPutItem{{Key: "secret"}, {Key: "secret"}}})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Fatal(err)
		}
		line := <-h.logs.lines
		for _, part := range []string{`"message":"slow call"`, `"method":"` + name + `"`, `"request_id":"`, `"key":"2bb80d537b1da3e3"`, `"quorum":`,
			`"slowest":"02000000000000000000000000000000"`} {
			if !strings.Contains(line, part) {
				t.Errorf("%s: %s lacks %s", name, line, part)
			}
		}
	}
}

// TestWriteOutlivesItsClient goes away in the middle of a write, which is done all the same.
func TestWriteOutlivesItsClient(t *testing.T) {
	h := newHarness(t)
	entered, release := h.store.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	req := httptest.NewRequestWithContext(ctx, http.MethodPut, "/v1/kv/k", strings.NewReader("v"))
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { h.api.ServeHTTP(w, req); close(done) }()
	<-entered
	cancel()
	release()
	<-done
	if w.Code != 200 || h.store.Puts != 1 {
		t.Errorf("%d, %d puts", w.Code, h.store.Puts)
	}
	entered, release = h.store.Hold()
	defer release()
	ctx, cancel = context.WithCancel(t.Context())
	read := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/kv/k?timeout=60s", nil)
	w = httptest.NewRecorder()
	done = make(chan struct{})
	go func() { h.api.ServeHTTP(w, read); close(done) }()
	<-entered
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a read goes on without its client")
	}
}
