package httpapi_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/internal/httpapi/edgetest"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

const notApplied = "not-applied"

// TestFaults holds every refusal that needs no cluster against its status, type and outcome. None may reach the store.
func TestFaults(t *testing.T) {
	h := newHarness(t)
	seen := causal.Context{Vector: causal.Vector{{Actor: causal.Actor{1}, Counter: 3}}}
	good := h.token(edgetest.ClusterID, "k", 1, seen)
	damaged := good[:10] + string(rune('A'+(good[10]-'A'+1)%26)) + good[11:]
	for _, c := range []struct {
		name   string
		call   call
		status int
		slug   string
		allow  string
	}{
		{"empty key", call{"GET", "/v1/kv/", nil, ""}, 400, "bad-key", ""},
		{"empty key of a write", call{"PUT", "/v1/kv/", nil, "x"}, 400, "bad-key", ""},
		{"key of 251 bytes", call{"GET", "/v1/kv/" + strings.Repeat("k", 251), nil, ""}, 400, "bad-key", ""},
		{"key of 251 escaped bytes", call{"GET", "/v1/kv/" + strings.Repeat("%00", 251), nil, ""}, 400, "bad-key", ""},
		{"unknown parameter", call{"GET", "/v1/kv/k?foo=1", nil, ""}, 400, "bad-parameter", ""},
		{"parameter of a write", call{"GET", "/v1/kv/k?w=2", nil, ""}, 400, "bad-parameter", ""},
		{"parameter of a read", call{"PUT", "/v1/kv/k?r=2", nil, "x"}, 400, "bad-parameter", ""},
		{"repeated parameter", call{"GET", "/v1/kv/k?r=1&r=1", nil, ""}, 400, "bad-parameter", ""},
		{"repeated under escapes", call{"GET", "/v1/kv/k?r=1&%72=1", nil, ""}, 400, "bad-parameter", ""},
		{"empty parameter", call{"GET", "/v1/kv/k?r=", nil, ""}, 400, "bad-parameter", ""},
		{"parameter without value", call{"GET", "/v1/kv/k?explain", nil, ""}, 400, "bad-parameter", ""},
		{"parameter that cannot be decoded", call{"GET", "/v1/kv/k?r=%zz", nil, ""}, 400, "bad-parameter", ""},
		{"r=x", call{"GET", "/v1/kv/k?r=x", nil, ""}, 400, "bad-parameter", ""},
		{"r=0", call{"GET", "/v1/kv/k?r=0", nil, ""}, 400, "bad-parameter", ""},
		{"r=-1", call{"GET", "/v1/kv/k?r=-1", nil, ""}, 400, "bad-parameter", ""},
		{"w=0", call{"PUT", "/v1/kv/k?w=0", nil, "x"}, 400, "bad-parameter", ""},
		{"w=2.0", call{"PUT", "/v1/kv/k?w=2.0", nil, "x"}, 400, "bad-parameter", ""},
		{"timeout=0", call{"GET", "/v1/kv/k?timeout=0s", nil, ""}, 400, "bad-parameter", ""},
		{"timeout=61s", call{"GET", "/v1/kv/k?timeout=61s", nil, ""}, 400, "bad-parameter", ""},
		{"timeout without unit", call{"GET", "/v1/kv/k?timeout=2", nil, ""}, 400, "bad-parameter", ""},
		{"negative timeout", call{"GET", "/v1/kv/k?timeout=-1s", nil, ""}, 400, "bad-parameter", ""},
		{"conflict=merge", call{"GET", "/v1/kv/k?conflict=merge", nil, ""}, 400, "bad-parameter", ""},
		{"explain=maybe", call{"GET", "/v1/kv/k?explain=maybe", nil, ""}, 400, "bad-parameter", ""},
		{"sloppy=maybe", call{"DELETE", "/v1/kv/k?sloppy=maybe", nil, ""}, 400, "bad-parameter", ""},
		{"damaged context", call{"PUT", "/v1/kv/k", header("Kv-Context", damaged), "x"}, 400, "bad-context", ""},
		{"context that is none", call{"GET", "/v1/kv/k", header("Kv-Context", "hello"), ""}, 400, "bad-context", ""},
		{"empty context", call{"GET", "/v1/kv/k", header("Kv-Context", ""), ""}, 400, "bad-context", ""},
		{"two contexts", call{"PUT", "/v1/kv/k", header("Kv-Context", good, "Kv-Context", good), "x"}, 400, "bad-context", ""},
		{"context with a comma", call{"PUT", "/v1/kv/k", header("Kv-Context", good+", "+good), "x"}, 400, "bad-context", ""},
		{"context of another key", call{"DELETE", "/v1/kv/other", header("Kv-Context", good), ""}, 400, "bad-context", ""},
		{"context of another cluster", call{"GET", "/v1/kv/k", header("Kv-Context", h.token(ring.ClusterID{9}, "k", 1, seen)), ""}, 400, "bad-context", ""},
		{"forged context", call{"PUT", "/v1/kv/k", header("Kv-Context", h.token(edgetest.ClusterID, "k", 2, seen)), "x"}, 400, "bad-context", ""},
		{"unsigned context", call{"PUT", "/v1/kv/k", header("Kv-Context", h.token(edgetest.ClusterID, "k", 0, seen)), "x"}, 400, "bad-context", ""},
		{"context of 3,073 characters", call{"GET", "/v1/kv/k", header("Kv-Context", strings.Repeat("A", 3073)), ""}, 400, "bad-context", ""},
		{"request id of 65 characters", call{"PUT", "/v1/kv/k", header("Kv-Request-Id", strings.Repeat("i", 65)), "x"}, 400, "bad-request-id", ""},
		{"request id that is not printable", call{"PUT", "/v1/kv/k", header("Kv-Request-Id", "é"), "x"}, 400, "bad-request-id", ""},
		{"empty request id", call{"GET", "/v1/kv/k", header("Kv-Request-Id", ""), ""}, 400, "bad-request-id", ""},
		{"two request ids", call{"PUT", "/v1/kv/k", header("Kv-Request-Id", "a", "Kv-Request-Id", "b"), "x"}, 400, "bad-request-id", ""},
		{"two content types", call{"PUT", "/v1/kv/k", header("Content-Type", "a/b", "Content-Type", "c/d"), "x"}, 400, "bad-content-type", ""},
		{"long content type", call{"PUT", "/v1/kv/k", header("Content-Type", "a/"+strings.Repeat("b", 255)), "x"}, 400, "bad-content-type", ""},
		{"unknown path", call{"GET", "/", nil, ""}, 404, "no-such-path", ""},
		{"the listing with an unknown parameter", call{"GET", "/v1/kv?r=1", nil, ""}, 400, "bad-parameter", ""},
		{"escaped prefix", call{"GET", "/v1%2Fkv/k", nil, ""}, 404, "no-such-path", ""},
		{"doubled slash before the API", call{"GET", "//v1/kv/k", nil, ""}, 404, "no-such-path", ""},
		{"unknown path of the cluster", call{"GET", "/v1/cluster/nope", nil, ""}, 404, "no-such-path", ""},
		{"unknown batch", call{"POST", "/v1/kv:batchFrob", nil, "{}"}, 404, "no-such-path", ""},
		{"metrics on the public port", call{"GET", "/metrics", nil, ""}, 404, "no-such-path", ""},
		{"profiles on the public port", call{"GET", "/debug/pprof/", nil, ""}, 404, "no-such-path", ""},
		{"PATCH", call{"PATCH", "/v1/kv/k", nil, ""}, 405, "method-not-allowed", "GET, HEAD, PUT, POST, DELETE"},
		{"OPTIONS", call{"OPTIONS", "/v1/kv/k", nil, ""}, 405, "method-not-allowed", "GET, HEAD, PUT, POST, DELETE"},
		{"a method of one's own", call{"FROB", "/v1/kv/k", nil, ""}, 405, "method-not-allowed", "GET, HEAD, PUT, POST, DELETE"},
		{"POST to the status", call{"POST", "/v1/cluster/status", nil, "{}"}, 405, "method-not-allowed", "GET, HEAD"},
		{"a method of one's own at the status", call{"FROB", "/v1/cluster/status", nil, ""}, 405, "method-not-allowed", "GET, HEAD"},
		{"PATCH to the nodes", call{"PATCH", "/v1/cluster/nodes", nil, ""}, 405, "method-not-allowed", "GET, HEAD"},
		{"POST to a key's inspection", call{"POST", "/v1/cluster/keys/k", nil, ""}, 405, "method-not-allowed", "GET, HEAD"},
		{"POST to readyz", call{"POST", "/readyz", nil, ""}, 405, "method-not-allowed", "GET, HEAD"},
		{"GET of a batch", call{"GET", "/v1/kv:batchGet", nil, ""}, 405, "method-not-allowed", "POST"},
		{"a method of one's own at a batch", call{"FROB", "/v1/kv%3abatchPut", nil, ""}, 405, "method-not-allowed", "POST"},
		{"method override", call{"POST", "/v1/cluster/status", header("X-HTTP-Method-Override", "GET", "Content-Type", "application/x-www-form-urlencoded"), ""}, 405, "method-not-allowed", "GET, HEAD"},
		{"Content-Length above the limit", call{"PUT", "/v1/kv/k", nil, strings.Repeat("x", maxValue+1)}, 413, "value-too-large", ""},
		{"chunks above the limit", call{"PUT", "/v1/kv/k", header("Transfer-Encoding", "chunked"), fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", maxValue+1, strings.Repeat("x", maxValue+1))}, 413, "value-too-large", ""},
		{"batch above the limit", call{"POST", "/v1/kv:batchPut", nil, strings.Repeat(" ", 3<<20+1)}, 413, "batch-too-large", ""},
		{"batch above the limit in chunks", call{"POST", "/v1/kv:batchPut", header("Transfer-Encoding", "chunked"), fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 3<<20+1, strings.Repeat(" ", 3<<20+1))}, 413, "batch-too-large", ""},
		{"long URI", call{"GET", "/v1/kv/" + strings.Repeat("k", 5000), nil, ""}, 414, "uri-too-long", ""},
		{"gzip", call{"PUT", "/v1/kv/k", header("Content-Encoding", "gzip"), "x"}, 415, "unsupported-encoding", ""},
		{"gzip after identity", call{"POST", "/v1/kv/k", header("Content-Encoding", "identity, br"), "x"}, 415, "unsupported-encoding", ""},
		{"gzip batch", call{"POST", "/v1/kv:batchGet", header("Content-Encoding", "gzip"), "x"}, 415, "unsupported-encoding", ""},
		{"If-Match on a write", call{"PUT", "/v1/kv/k", header("If-Match", "*"), "x"}, 501, "conditional-write-unsupported", ""},
		{"If-None-Match on a write", call{"POST", "/v1/kv/k", header("If-None-Match", "*"), "x"}, 501, "conditional-write-unsupported", ""},
		{"If-Unmodified-Since on a deletion", call{"DELETE", "/v1/kv/k", header("If-Unmodified-Since", "x"), ""}, 501, "conditional-write-unsupported", ""},
		{"batch that is no JSON", call{"POST", "/v1/kv:batchGet", nil, "{"}, 400, "bad-request", ""},
		{"batch with an unknown field", call{"POST", "/v1/kv:batchGet", nil, `{"itmes":[]}`}, 400, "bad-request", ""},
		{"batch with a bad timeout", call{"POST", "/v1/kv:batchPut", nil, `{"timeout":"90s"}`}, 400, "bad-parameter", ""},
		{"batch with a parameter", call{"POST", "/v1/kv:batchPut?w=2", nil, `{}`}, 400, "bad-parameter", ""},
		{"batch of 101", call{"POST", "/v1/kv:batchDelete", nil, `{"items":[{"key":"k"}` + strings.Repeat(`,{"key":"k"}`, 100) + `]}`}, 400, "too-many-items", ""},
		{"parameter of the status", call{"GET", "/v1/cluster/status?verbose=1", nil, ""}, 400, "bad-parameter", ""},
		{"inspection without key", call{"GET", "/v1/cluster/keys/", nil, ""}, 400, "bad-key", ""},
		{"inspection with a parameter", call{"GET", "/v1/cluster/keys/k?r=1", nil, ""}, 400, "bad-parameter", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := *h
			sub.t = t
			a := sub.do(c.call)
			p := sub.problem(a, c.status, c.slug)
			if got := a.Header.Get("Allow"); got != c.allow {
				t.Errorf("Allow is %q, want %q", got, c.allow)
			}
			write := strings.HasPrefix(c.call.target, "/v1/kv/") && (c.call.method == "PUT" || c.call.method == "POST" || c.call.method == "DELETE")
			if write && p.Outcome != notApplied {
				t.Errorf("outcome of a refused write is %q", p.Outcome)
			}
			if strings.HasPrefix(c.call.target, "/v1/kv") {
				requireSafe(t, a)
			}
		})
	}
	if h.store.Puts != 0 || h.store.LastGet.Key != nil {
		t.Errorf("a refused request reached the store")
	}
}

func requireSafe(t *testing.T, a answer) {
	t.Helper()
	if a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("Content-Security-Policy") != "sandbox" {
		t.Errorf("an answer under /v1/kv without nosniff or sandbox: %v", a.Header)
	}
}

// TestStoreFaults holds every failure of the cluster against its status, type and outcome, for reads and writes.
func TestStoreFaults(t *testing.T) {
	h := newHarness(t)
	reports := []coordinator.Report{{Node: ring.NodeID{7}, Name: "node7", Did: "not asked", Detail: "suspect", At: 1500 * time.Microsecond}}
	for _, c := range []struct {
		kind   coordinator.Kind
		status int
		slug   string
		retry  string
	}{
		{coordinator.Internal, 500, "internal", ""},
		{coordinator.NoLayout, 503, "no-layout", "1"},
		{coordinator.BadQuorum, 400, "bad-quorum", ""},
		{coordinator.QuorumImpossible, 503, "quorum-impossible", "1"},
		{coordinator.DeadlinePassed, 504, "deadline-passed", ""},
		{coordinator.Overloaded, 429, "overloaded", "1"},
		{coordinator.StaleRead, 503, "stale-read", "1"},
		{coordinator.StaleContext, 410, "stale-context", ""},
		{coordinator.TooManySiblings, 409, "too-many-siblings", ""},
		{coordinator.TooLarge, 409, "record-too-large", ""},
		{coordinator.DiskFull, 507, "disk-full", ""},
	} {
		for _, outcome := range []coordinator.Outcome{coordinator.NotApplied, coordinator.InDoubt} {
			t.Run(c.kind.String()+" "+outcome.String(), func(t *testing.T) {
				sub := *h
				sub.t = t
				h.store.Fail(fmt.Errorf("wrapped: %w", &coordinator.Error{Kind: c.kind, Outcome: outcome, Replicas: reports, Err: errors.New("some reason")}))
				defer h.store.Fail(nil)
				for _, method := range []string{"PUT", "POST", "DELETE", "GET", "HEAD"} {
					a := sub.do(call{method, "/v1/kv/k", nil, ""})
					if a.Header.Get("Retry-After") != c.retry {
						t.Errorf("Retry-After is %q, want %q", a.Header.Get("Retry-After"), c.retry)
					}
					if method == "HEAD" {
						if a.StatusCode != c.status || len(a.body) != 0 {
							t.Errorf("HEAD: %d, %q", a.StatusCode, a.body)
						}
						continue
					}
					p := sub.problem(a, c.status, c.slug)
					want := outcome.String()
					if method == "GET" {
						want = ""
					}
					if p.Outcome != want {
						t.Errorf("%s: outcome %q, want %q", method, p.Outcome, want)
					}
					if len(p.Replicas) != 1 || p.Replicas[0]["node"] != "node7" || p.Replicas[0]["at_us"] != "1500" {
						t.Errorf("replicas %v", p.Replicas)
					}
					if internal := c.kind == coordinator.Internal; internal != (p.Detail == "") {
						t.Errorf("detail %q", p.Detail)
					}
				}
			})
		}
	}
}

func TestUnknownErrorIsInDoubt(t *testing.T) {
	h := newHarness(t)
	h.store.Fail(errors.New("secret detail"))
	p := h.problem(h.do(call{"PUT", "/v1/kv/k", nil, "x"}), 500, "internal")
	if p.Outcome != "in-doubt" || strings.Contains(p.Detail, "secret") {
		t.Errorf("problem %+v", p)
	}
}

func TestNoLayoutBeforeContextIsRead(t *testing.T) {
	h := newHarness(t)
	h.cluster = false
	h.problem(h.get("k", "Kv-Context", "AAAA"), 503, "no-layout")
	if p := h.problem(h.do(call{"PUT", "/v1/kv/k", header("Kv-Context", "AAAA"), "x"}), 503, "no-layout"); p.Outcome != notApplied {
		t.Errorf("outcome %q", p.Outcome)
	}
}

func TestQuorumAboveN(t *testing.T) {
	h := newHarness(t)
	h.problem(h.get("k?r=4"), 400, "bad-quorum")
	if p := h.problem(h.do(call{"PUT", "/v1/kv/k?w=4", nil, "x"}), 400, "bad-quorum"); p.Outcome != notApplied {
		t.Errorf("outcome %q", p.Outcome)
	}
	h.problem(h.do(call{"DELETE", "/v1/kv/k?w=1", nil, ""}), 400, "bad-quorum")
}

func TestBodyCutShortStoresNothing(t *testing.T) {
	h := newHarness(t)
	for name, text := range map[string]string{
		"length": "PUT /v1/kv/k HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf",
		"chunks": "PUT /v1/kv/k HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf",
	} {
		if p := h.problem(h.raw("PUT", text, true), 400, "body-cut-short"); p.Outcome != notApplied {
			t.Errorf("%s: outcome %q", name, p.Outcome)
		}
	}
	if h.store.Puts != 0 {
		t.Error("half a body was stored")
	}
}

func TestSlowBodyMeetsTheDeadline(t *testing.T) {
	h := newHarness(t)
	a := h.raw("PUT", "PUT /v1/kv/k?timeout=30ms HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf", false)
	if p := h.problem(a, 504, "deadline-passed"); p.Outcome != notApplied {
		t.Errorf("outcome %q", p.Outcome)
	}
}

// TestRefusedBodyIsDrained plays a client that reads only after it has sent everything.
func TestRefusedBodyIsDrained(t *testing.T) {
	h := newHarness(t)
	body := strings.Repeat("x", 7<<20)
	a := h.do(call{"PUT", "/v1/kv/k", nil, body})
	h.problem(a, 413, "value-too-large")
	// A client that waits to be asked is not asked.
	a = h.raw("PUT", "PUT /v1/kv/k HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 7000000\r\n\r\n", false)
	h.problem(a, 413, "value-too-large")
	// Beyond what is drained the answer comes at once, and says that the connection ends.
	a = h.raw("PUT", "PUT /v1/kv/k HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000000\r\n\r\n", false)
	h.problem(a, 413, "value-too-large")
	if !a.Close {
		t.Error("the connection is kept with gigabytes to come")
	}
}

// TestConnectionGoesOn sends another request after a drained body and after a stored one.
func TestConnectionGoesOn(t *testing.T) {
	h := newHarness(t)
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	big := strings.Repeat("x", 2<<20)
	for i, c := range []struct {
		body, timeout string // what is to be stored has time to, on a machine that stands still, too
		status        int
	}{{big, "50ms", 413}, {"one", "60s", 200}, {big, "50ms", 413}, {"two", "60s", 200}} {
		text := fmt.Sprintf("PUT /v1/kv/k?timeout=%s HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s", c.timeout, len(c.body), c.body)
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != c.status {
			t.Fatalf("%d: status %d", i, res.StatusCode)
		}
	}
}

func TestOverload(t *testing.T) {
	h := newHarness(t, func(c *httpapi.Config) { c.Admission = httpapi.NewAdmission(1, 1<<20) })
	entered, release := h.store.Hold()
	done := make(chan answer)
	go func() { done <- h.get("k") }()
	<-entered
	a := h.get("k")
	h.problem(a, 429, "overloaded")
	if a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	if p := h.problem(h.do(call{"PUT", "/v1/kv/k", nil, "x"}), 429, "overloaded"); p.Outcome != notApplied {
		t.Errorf("outcome %q", p.Outcome)
	}
	h.problem(h.do(call{"POST", "/v1/kv:batchGet", nil, "{}"}), 429, "overloaded")
	if a := h.do(call{"GET", "/readyz", nil, ""}); a.StatusCode != 200 {
		t.Errorf("an overloaded gateway is not ready: %d", a.StatusCode)
	}
	release()
	if a := <-done; a.StatusCode != 404 {
		t.Errorf("status %d", a.StatusCode)
	}
	if a := h.get("k"); a.StatusCode != 404 {
		t.Errorf("the place was not given back: %d", a.StatusCode)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	h := newHarness(t, func(c *httpapi.Config) { c.Admission = httpapi.NewAdmission(10, 100) })
	h.problem(h.do(call{"PUT", "/v1/kv/k", nil, strings.Repeat("x", 101)}), 429, "overloaded")
	h.put("k", strings.Repeat("x", 100))
	h.put("k", strings.Repeat("x", 100)) // the room was given back
}

// Bodies are read into buffers that others used before; the store here writes over each that it gives back.
func TestBodiesFromUsedBuffers(t *testing.T) {
	h := newHarness(t)
	for round := range 5 {
		entered, release := h.store.Hold()
		value := func(c int) string {
			return strings.Repeat(fmt.Sprintf("round %d, client %d;", round, c), 200*(1+round))
		}
		var clients sync.WaitGroup
		const all = 8
		for c := range all {
			clients.Go(func() { h.put(fmt.Sprint(c), value(c)) })
		}
		for range all {
			<-entered // the store has what each of them sent, and has not looked at it
		}
		release()
		clients.Wait()
		for c := range all {
			if a := h.get(fmt.Sprint(c)); a.StatusCode != 200 || string(a.body) != value(c) {
				t.Fatalf("round %d, client %d: status %d, %d bytes of %d, or not the same", round, c, a.StatusCode, len(a.body), len(value(c)))
			}
		}
	}
}

func TestDeadlineOfTheStore(t *testing.T) {
	h := newHarness(t)
	_, release := h.store.Hold()
	defer release()
	began := time.Now()
	h.problem(h.get("k?timeout=20ms"), 504, "deadline-passed")
	p := h.problem(h.do(call{"PUT", "/v1/kv/k?timeout=20ms", nil, "x"}), 504, "deadline-passed")
	if p.Outcome != "in-doubt" {
		t.Errorf("outcome %q", p.Outcome)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
