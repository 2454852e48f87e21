package httpapi_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/internal/grpcapi"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/httpapi/edgetest"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	"github.com/dotring/dotring/gateway/traffic"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

const maxValue = 1 << 20

// harness is the real router behind a real HTTP server, over a stand-in for the cluster.
type harness struct {
	t       testing.TB
	store   *edgetest.Store
	nodes   *edgetest.Nodes
	tokens  edge.Tokens
	cluster bool // whether the gateway knows its cluster
	ready   string
	api     *httpapi.API
	server  *httptest.Server
	reg     *prometheus.Registry
	traffic *traffic.Traffic
	logs    *syncBuffer
}

// syncBuffer takes logs.
type syncBuffer struct{ lines chan string }

func (b *syncBuffer) Write(p []byte) (int, error) {
	select {
	case b.lines <- string(p):
	default:
	}
	return len(p), nil
}

func contextKey(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func newHarness(t testing.TB, change ...func(*httpapi.Config)) *harness {
	t.Helper()
	keyring, err := causal.NewKeyring(contextKey(1))
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := edgetest.NewNodes(3, 3)
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, store: edgetest.NewStore(), nodes: nodes, cluster: true, reg: prometheus.NewRegistry(),
		traffic: traffic.New(time.Now().Add(-time.Minute)), logs: &syncBuffer{lines: make(chan string, 256)}}
	h.tokens = edge.Tokens{Keyring: keyring, Cluster: func() (ring.ClusterID, bool) { return edgetest.ClusterID, h.cluster }}
	kv := grpcapi.NewKV(h.store, h.tokens, nil, maxValue)
	kv.ListsBy(h.store)
	cfg := httpapi.Config{Store: h.store, Tokens: h.tokens, KV: kv, Backups: h.store,
		Cluster:   grpcapi.NewCluster(nodes, h.store, grpcapi.About{Name: "gateway1", Version: "v0", R: 2, W: 2, Signed: true, Traffic: h.traffic}),
		Ready:     func() (bool, string) { return h.ready == "", h.ready },
		Admission: httpapi.NewAdmission(64, 64<<20), MaxValueBytes: maxValue, Slow: slowLog(time.Hour, zerolog.Nop()), Now: time.Now,
		Logger: zerolog.New(h.logs), Registerer: h.reg}
	for _, f := range change {
		f(&cfg)
	}
	if h.api, err = httpapi.New(cfg); err != nil {
		t.Fatal(err)
	}
	h.server = httptest.NewServer(h.api)
	t.Cleanup(h.server.Close)
	return h
}

// slowLog takes requests that take so long.
func slowLog(after time.Duration, to zerolog.Logger) *slowlog.Log {
	return slowlog.New(slowlog.Config{After: after, Logger: to, Registerer: prometheus.NewRegistry()})
}

// call is one request; the target is sent as it is.
type call struct {
	method, target string
	header         http.Header
	body           string
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h[http.CanonicalHeaderKey(pairs[i])] = append(h[http.CanonicalHeaderKey(pairs[i])], pairs[i+1])
	}
	return h
}

type answer struct {
	*http.Response
	body []byte
}

// do sends a request over a fresh connection, byte for byte as given, and reads the answer.
func (h *harness) do(c call) answer {
	h.t.Helper()
	var b strings.Builder
	b.WriteString(c.method + " " + c.target + " HTTP/1.1\r\nHost: test\r\n")
	for name, lines := range c.header {
		for _, line := range lines {
			b.WriteString(name + ": " + line + "\r\n")
		}
	}
	if c.header["Content-Length"] == nil && c.header["Transfer-Encoding"] == nil && (c.body != "" || c.method == "PUT" || c.method == "POST") {
		b.WriteString("Content-Length: " + itoa(len(c.body)) + "\r\n")
	}
	b.WriteString("\r\n" + c.body)
	return h.raw(c.method, b.String(), false)
}

// raw writes text and reads one answer; closeWrite says to end the sending side after that.
func (h *harness) raw(method, text string, closeWrite bool) answer {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		h.t.Fatalf("send: %v", err)
	}
	if closeWrite {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			h.t.Fatal(err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		h.t.Fatalf("%s: %v", strings.SplitN(text, "\r\n", 2)[0], err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{Response: res, body: body}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

type problemBody struct {
	Type, Title, Detail, Outcome string
	Status                       int
	RequestID                    string `json:"request_id"`
	Replicas                     []map[string]any
}

// problem checks that an answer is a problem of this type, and returns it.
func (h *harness) problem(a answer, status int, slug string) problemBody {
	h.t.Helper()
	if a.StatusCode != status || a.Header.Get("Content-Type") != "application/problem+json" {
		h.t.Fatalf("status %d, %s: %s; want %d", a.StatusCode, a.Header.Get("Content-Type"), a.body, status)
	}
	var p problemBody
	if err := json.Unmarshal(a.body, &p); err != nil {
		h.t.Fatalf("%s: %v", a.body, err)
	}
	if p.Type != "/problems/"+slug || p.Status != status || p.Title == "" {
		h.t.Fatalf("problem %s, want %s", a.body, slug)
	}
	if p.RequestID == "" || p.RequestID != a.Header.Get("Kv-Request-Id") {
		h.t.Fatalf("request id %q in the body, %q in the header", p.RequestID, a.Header.Get("Kv-Request-Id"))
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		h.t.Fatalf("Cache-Control of a problem is %q", a.Header.Get("Cache-Control"))
	}
	return p
}

func (h *harness) get(key string, pairs ...string) answer {
	h.t.Helper()
	return h.do(call{"GET", "/v1/kv/" + key, header(pairs...), ""})
}

// put stores a value and returns the context.
func (h *harness) put(key, value string, pairs ...string) string {
	h.t.Helper()
	a := h.do(call{"PUT", "/v1/kv/" + key, header(pairs...), value})
	if a.StatusCode != 200 {
		h.t.Fatalf("put: %d %s", a.StatusCode, a.body)
	}
	return a.Header.Get("Kv-Context")
}

// conflict makes two siblings, "one" and "two", and returns their context.
func (h *harness) conflict(key string) string {
	h.t.Helper()
	none := h.get(key).Header.Get("Kv-Context")
	h.put(key, "one", "Kv-Context", none, "Content-Type", "text/plain")
	h.put(key, "two", "Kv-Context", none, "Content-Type", "text/html")
	a := h.get(key)
	if a.StatusCode != 300 {
		h.t.Fatalf("status %d: %s", a.StatusCode, a.body)
	}
	return a.Header.Get("Kv-Context")
}

func (h *harness) token(cluster ring.ClusterID, key string, keyByte byte, c causal.Context) string {
	h.t.Helper()
	var keys [][]byte
	if keyByte != 0 {
		keys = append(keys, contextKey(keyByte))
	}
	k, err := causal.NewKeyring(keys...)
	if err != nil {
		h.t.Fatal(err)
	}
	token, err := k.EncodeToken(cluster, []byte(key), c)
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}
