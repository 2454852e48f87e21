package httpapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/grpcapi"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/internal/httpapi/edgetest"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	"github.com/dotring/dotring/gateway/traffic"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// grpcOf serves the gRPC API of a harness in memory.
func grpcOf(h *harness) *grpc.ClientConn {
	h.t.Helper()
	return grpcWith(h, slowLog(time.Hour, zerolog.Nop()), nil)
}

// grpcWith is grpcOf with a log of slow calls and a tracer.
func grpcWith(h *harness, slow *slowlog.Log, tracer *tracing.Tracer) *grpc.ClientConn {
	h.t.Helper()
	places := httpapi.NewAdmission(64, 64<<20)
	i := grpcapi.NewInterceptor(places, places.Reserved(), nil, slow, tracer, zerolog.Nop(), prometheus.NewRegistry())
	s := grpcapi.NewServer(i, grpcapi.NewKV(h.store, h.tokens, nil, maxValue),
		grpcapi.NewCluster(h.nodes, h.store, grpcapi.About{Name: "gateway1", R: 2, W: 2}),
		func() (bool, string) { return h.ready == "", h.ready })
	l := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			h.t.Error(err)
		}
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it served
			h.t.Error(err)
		}
	})
	return conn
}

// op is one operation, in terms of no surface.
type op struct {
	kind      string // get, put, delete
	key       string
	value     string
	quorum    string
	context   *string
	requestID string
}

// outcome is what became of it, in terms of every surface.
type outcome struct {
	status  int // as HTTP says it
	problem string
	outcome string
	values  []string // sorted by the server; "-" for a tombstone
	context string
	etag    string
}

// surface carries out operations in one of the ways the gateway offers.
type surface struct {
	name string
	do   func(t *testing.T, o op) outcome
}

func surfaces(h *harness) []surface {
	conn := grpcOf(h)
	return []surface{
		{"http", func(t *testing.T, o op) outcome { return overHTTP(t, h, o) }},
		{"grpc", func(t *testing.T, o op) outcome { return overGRPC(t, kvv1.NewKVClient(conn), o) }},
		{"batch over http", func(t *testing.T, o op) outcome { return overBatch(t, h, o) }},
		{"batch over grpc", func(t *testing.T, o op) outcome { return overBatchGRPC(t, kvv1.NewKVClient(conn), o) }},
	}
}

func escape(key string) string {
	var b strings.Builder
	for i := range len(key) {
		fmt.Fprintf(&b, "%%%02X", key[i])
	}
	return b.String()
}

func overHTTP(t *testing.T, h *harness, o op) outcome {
	t.Helper()
	c := call{method: map[string]string{"get": "GET", "put": "PUT", "delete": "DELETE"}[o.kind], target: "/v1/kv/" + escape(o.key),
		header: header(), body: o.value}
	name := "w"
	if o.kind == "get" {
		name = "r"
	}
	if o.quorum != "" {
		c.target += "?" + name + "=" + o.quorum
	}
	if o.context != nil {
		c.header["Kv-Context"] = []string{*o.context}
	}
	if o.requestID != "" {
		c.header["Kv-Request-Id"] = []string{o.requestID}
	}
	a := h.do(c)
	out := outcome{status: a.StatusCode, context: a.Header.Get("Kv-Context"), etag: strings.Trim(a.Header.Get("Etag"), `"`)}
	switch {
	case strings.HasPrefix(a.Header.Get("Content-Type"), "application/problem"):
		var p problemBody
		if err := json.Unmarshal(a.body, &p); err != nil {
			t.Fatal(err)
		}
		if p.Type != "/problems/no-value" {
			out.problem, out.outcome = p.Type, p.Outcome
		}
	case o.kind == "get" && a.StatusCode == 200:
		out.values = []string{string(a.body)}
	case o.kind == "get":
		var doc struct {
			Siblings []struct {
				Value     []byte
				Tombstone bool
			}
		}
		if err := json.Unmarshal(a.body, &doc); err != nil {
			t.Fatal(err)
		}
		for _, s := range doc.Siblings {
			out.values = append(out.values, valueOf(s.Value, s.Tombstone))
		}
	}
	return out
}

func valueOf(v []byte, tombstone bool) string {
	if tombstone {
		return "-"
	}
	return string(v)
}

func overGRPC(t *testing.T, c kvv1.KVClient, o op) outcome {
	t.Helper()
	var out outcome
	var err error
	switch o.kind {
	case "get":
		token := ""
		if o.context != nil {
			token = *o.context
		}
		var res *kvv1.GetResponse
		if res, err = c.Get(t.Context(), &kvv1.GetRequest{Key: []byte(o.key), R: o.quorum, Context: token}); err == nil {
			out.status = map[kvv1.State]int{kvv1.State_STATE_VALUE: 200, kvv1.State_STATE_CONFLICT: 300, kvv1.State_STATE_ABSENT: 404}[res.GetState()]
			out.context, out.etag = res.GetContext(), res.GetEtag()
			for _, s := range res.GetSiblings() {
				out.values = append(out.values, valueOf(s.GetValue(), s.GetTombstone()))
			}
		}
	case "put":
		var res *kvv1.PutResponse
		if res, err = c.Put(t.Context(), &kvv1.PutRequest{Key: []byte(o.key), Value: []byte(o.value), W: o.quorum, Context: o.context,
			RequestId: o.requestID}); err == nil {
			out.status, out.context = 200, res.GetContext()
		}
	default:
		var res *kvv1.DeleteResponse
		if res, err = c.Delete(t.Context(), &kvv1.DeleteRequest{Key: []byte(o.key), W: o.quorum, Context: o.context,
			RequestId: o.requestID}); err == nil {
			out.status, out.context = 200, res.GetContext()
		}
	}
	if err != nil {
		p := detailsOf(t, err)
		return outcome{status: int(p.GetStatus()), problem: p.GetType(), outcome: p.GetOutcome()}
	}
	return out
}

// detailsOf returns the problem in the details of a gRPC error, which must have an ErrorInfo too.
func detailsOf(t *testing.T, err error) *kvv1.Problem {
	t.Helper()
	var p *kvv1.Problem
	var info *errdetails.ErrorInfo
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *kvv1.Problem:
			p = d
		case *errdetails.ErrorInfo:
			info = d
		}
	}
	if p == nil || info == nil || info.GetDomain() != "dotring" || info.GetReason() == "" || info.GetMetadata()["type"] != p.GetType() {
		t.Fatalf("details of %v: %v, %v", err, p, info)
	}
	return p
}

func batchItem(o op) string {
	item := map[string]any{"key_base64": []byte(o.key)}
	if o.kind == "put" {
		item["value"] = []byte(o.value)
	}
	if o.kind != "get" && o.context != nil {
		item["context"] = *o.context
	}
	if o.kind != "get" && o.requestID != "" {
		item["request_id"] = o.requestID
	}
	doc := map[string]any{"items": []any{item}}
	if o.quorum != "" {
		doc[map[bool]string{true: "r", false: "w"}[o.kind == "get"]] = o.quorum
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func overBatch(t *testing.T, h *harness, o op) outcome {
	t.Helper()
	verb := map[string]string{"get": ":batchGet", "put": "%3AbatchPut", "delete": "%3abatchDelete"}[o.kind]
	a := h.do(call{"POST", "/v1/kv" + verb, nil, batchItem(o)})
	if a.StatusCode != 200 {
		t.Fatalf("batch: %d %s", a.StatusCode, a.body)
	}
	requireSafe(t, a)
	var doc struct {
		Results []struct {
			Key       *string
			KeyBase64 []byte `json:"key_base64"`
			Status    int
			Context   string
			Etag      string
			Siblings  json.RawMessage
			Problem   *problemBody
		}
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || len(doc.Results) != 1 {
		t.Fatalf("%s: %v", a.body, err)
	}
	r := doc.Results[0]
	if *r.Key != o.key && string(r.KeyBase64) != o.key {
		t.Errorf("key %q, %q", *r.Key, r.KeyBase64)
	}
	out := outcome{status: r.Status, context: r.Context, etag: r.Etag}
	if r.Problem != nil {
		return outcome{status: r.Status, problem: r.Problem.Type, outcome: r.Problem.Outcome}
	}
	if o.kind == "get" {
		var siblings []struct {
			Value     []byte
			Tombstone bool
		}
		if err := json.Unmarshal(r.Siblings, &siblings); err != nil {
			t.Fatal(err)
		}
		for _, s := range siblings {
			out.values = append(out.values, valueOf(s.Value, s.Tombstone))
		}
	}
	return out
}

func overBatchGRPC(t *testing.T, c kvv1.KVClient, o op) outcome {
	t.Helper()
	if o.kind == "get" {
		res, err := c.BatchGet(t.Context(), &kvv1.BatchGetRequest{Items: []*kvv1.BatchKey{{KeyBase64: []byte(o.key)}}, R: o.quorum})
		if err != nil {
			t.Fatal(err)
		}
		r := res.GetResults()[0]
		out := outcome{status: int(r.GetStatus()), problem: r.GetProblem().GetType(), outcome: r.GetProblem().GetOutcome(),
			context: r.GetContext(), etag: r.GetEtag()}
		for _, s := range r.GetSiblings() {
			out.values = append(out.values, valueOf(s.GetValue(), s.GetTombstone()))
		}
		return out
	}
	var results []*kvv1.BatchWriteResult
	if o.kind == "put" {
		res, err := c.BatchPut(t.Context(), &kvv1.BatchPutRequest{W: o.quorum, Items: []*kvv1.BatchPutItem{{KeyBase64: []byte(o.key),
			Value: []byte(o.value), Context: o.context, RequestId: o.requestID}}})
		if err != nil {
			t.Fatal(err)
		}
		results = res.GetResults()
	} else {
		res, err := c.BatchDelete(t.Context(), &kvv1.BatchDeleteRequest{W: o.quorum, Items: []*kvv1.BatchDeleteItem{{KeyBase64: []byte(o.key),
			Context: o.context, RequestId: o.requestID}}})
		if err != nil {
			t.Fatal(err)
		}
		results = res.GetResults()
	}
	r := results[0]
	return outcome{status: int(r.GetStatus()), problem: r.GetProblem().GetType(), outcome: r.GetProblem().GetOutcome(), context: r.GetContext()}
}

// TestSurfacesAgree runs one table over HTTP, gRPC, and batches over both.
func TestSurfacesAgree(t *testing.T) {
	forged := func(h *harness, key string) string {
		return h.token(edgetest.ClusterID, key, 2, causal.Context{Vector: causal.Vector{{Actor: causal.Actor{1}, Counter: 1}}})
	}
	table := []struct {
		name string
		run  func(h *harness, do func(op) outcome, is func(o outcome, status int, problem, outcome string, values ...string))
	}{
		{"absence has a context", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			o := do(op{kind: "get", key: "k"})
			is(o, 404, "", "")
			if o.context == "" {
				is(o, -1, "", "")
			}
		}},
		{"put, get, delete, get", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			is(do(op{kind: "put", key: "k", value: "v"}), 200, "", "")
			got := do(op{kind: "get", key: "k"})
			is(got, 200, "", "", "v")
			gone := do(op{kind: "delete", key: "k", context: &got.context})
			is(gone, 200, "", "")
			is(do(op{kind: "get", key: "k"}), 404, "", "")
		}},
		{"keys are bytes", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			for _, k := range []string{"\xff\xfe", "a/../b", "\x00", "é", "a b", strings.Repeat("k", 250)} {
				is(do(op{kind: "put", key: k, value: "of " + k}), 200, "", "")
				is(do(op{kind: "get", key: k}), 200, "", "", "of "+k)
			}
		}},
		{"an empty value is a value", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			is(do(op{kind: "put", key: "k"}), 200, "", "")
			is(do(op{kind: "get", key: "k"}), 200, "", "", "")
		}},
		{"conflict", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			none := do(op{kind: "get", key: "k"}).context
			is(do(op{kind: "put", key: "k", value: "one", context: &none}), 200, "", "")
			is(do(op{kind: "put", key: "k", value: "two", context: &none}), 200, "", "")
			is(do(op{kind: "delete", key: "k", context: &none}), 200, "", "")
			both := do(op{kind: "get", key: "k"})
			is(both, 300, "", "", "one", "two", "-")
			is(do(op{kind: "put", key: "k", value: "three", context: &both.context}), 200, "", "")
			is(do(op{kind: "get", key: "k"}), 200, "", "", "three")
		}},
		{"key of 251 bytes", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			k := strings.Repeat("k", 251)
			is(do(op{kind: "get", key: k}), 400, "/problems/bad-key", "")
			is(do(op{kind: "put", key: k}), 400, "/problems/bad-key", notApplied)
			is(do(op{kind: "delete", key: k}), 400, "/problems/bad-key", notApplied)
		}},
		{"empty key", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			is(do(op{kind: "get"}), 400, "/problems/bad-key", "")
			is(do(op{kind: "put"}), 400, "/problems/bad-key", notApplied)
		}},
		{"quorums", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			for _, q := range []string{"2", "3", "quorum", "all"} {
				is(do(op{kind: "put", key: "k", value: "v", quorum: q}), 200, "", "")
				is(do(op{kind: "get", key: "k", quorum: q}), 200, "", "", "v")
			}
			is(do(op{kind: "get", key: "k", quorum: "one"}), 200, "", "", "v")
			is(do(op{kind: "get", key: "k", quorum: "4"}), 400, "/problems/bad-quorum", "")
			is(do(op{kind: "put", key: "k", quorum: "4"}), 400, "/problems/bad-quorum", notApplied)
			is(do(op{kind: "delete", key: "k", quorum: "1"}), 400, "/problems/bad-quorum", notApplied)
			for _, q := range []string{"0", "x", "-1", "1.5", "65"} {
				is(do(op{kind: "get", key: "k", quorum: q}), 400, "/problems/bad-parameter", "")
				is(do(op{kind: "put", key: "k", quorum: q}), 400, "/problems/bad-parameter", notApplied)
			}
		}},
		{"bad contexts of writes", func(h *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			seen := causal.Context{}
			for _, token := range []string{"", "x", forged(h, "k"), h.token(edgetest.ClusterID, "other", 1, seen), h.token(ring.ClusterID{5}, "k", 1, seen)} {
				is(do(op{kind: "put", key: "k", context: &token}), 400, "/problems/bad-context", notApplied)
				is(do(op{kind: "delete", key: "k", context: &token}), 400, "/problems/bad-context", notApplied)
			}
		}},
		{"request ids", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			first := do(op{kind: "put", key: "k", value: "v", requestID: "same"})
			is(first, 200, "", "")
			again := do(op{kind: "put", key: "k", value: "v", requestID: "same"})
			is(again, 200, "", "")
			if first.context != again.context {
				is(again, -1, "", "")
			}
			is(do(op{kind: "put", key: "k", requestID: strings.Repeat("i", 65)}), 400, "/problems/bad-request-id", notApplied)
		}},
		{"value above the limit", func(_ *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			is(do(op{kind: "put", key: "k", value: strings.Repeat("x", maxValue+1)}), 413, "/problems/value-too-large", notApplied)
			is(do(op{kind: "put", key: "k", value: strings.Repeat("x", maxValue)}), 200, "", "")
		}},
		{"no layout", func(h *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			h.store.Fail(&coordinator.Error{Kind: coordinator.NoLayout, Outcome: coordinator.NotApplied})
			is(do(op{kind: "get", key: "k"}), 503, "/problems/no-layout", "")
			is(do(op{kind: "put", key: "k"}), 503, "/problems/no-layout", notApplied)
		}},
		{"quorum impossible", func(h *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			h.store.Fail(&coordinator.Error{Kind: coordinator.QuorumImpossible, Outcome: coordinator.InDoubt})
			is(do(op{kind: "get", key: "k", quorum: "all"}), 503, "/problems/quorum-impossible", "")
			is(do(op{kind: "delete", key: "k", quorum: "all"}), 503, "/problems/quorum-impossible", "in-doubt")
		}},
		{"overloaded", func(h *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			h.store.Fail(&coordinator.Error{Kind: coordinator.Overloaded, Outcome: coordinator.NotApplied})
			is(do(op{kind: "put", key: "k"}), 429, "/problems/overloaded", notApplied)
		}},
		{"something else", func(h *harness, do func(op) outcome, is func(outcome, int, string, string, ...string)) {
			h.store.Fail(errors.New("secret"))
			is(do(op{kind: "get", key: "k"}), 500, "/problems/internal", "")
			is(do(op{kind: "put", key: "k"}), 500, "/problems/internal", "in-doubt")
		}},
	}
	for _, c := range table {
		tags := map[string]string{}
		for _, name := range []string{"http", "grpc", "batch over http", "batch over grpc"} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				h := newHarness(t)
				for _, s := range surfaces(h) {
					if s.name != name {
						continue
					}
					c.run(h, func(o op) outcome { return s.do(t, o) },
						func(o outcome, status int, problem, result string, values ...string) {
							t.Helper()
							if o.status != status || o.problem != problem || o.outcome != result || strings.Join(o.values, "|") != strings.Join(values, "|") {
								t.Errorf("%+v, want status %d %s %s %.100q", o, status, problem, result, values)
							}
							if len(values) > 0 {
								all := strings.Join(values, "|")
								if tags[all] == "" {
									tags[all] = o.etag
								}
								if o.etag == "" || tags[all] != o.etag {
									t.Errorf("etag %q of %.100q, elsewhere %q", o.etag, values, tags[all])
								}
							}
						})
				}
			})
		}
	}
}

func TestReadYourWritesOverGRPC(t *testing.T) {
	h := newHarness(t)
	token := h.put("k", "v")
	h.store.SetRecord("k", causal.Set{})
	_, err := kvv1.NewKVClient(grpcOf(h)).Get(t.Context(), &kvv1.GetRequest{Key: []byte("k"), Context: token})
	if p := detailsOf(t, err); p.GetStatus() != 503 || p.GetType() != "/problems/stale-read" || len(p.GetReplicas()) != 2 {
		t.Errorf("%v", p)
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("code %v", status.Code(err))
	}
}

// The deadline of a call ends it at the store, too. A machine that stands still may let it pass before the call is there: then a longer
// one is tried.
func TestGRPCDeadline(t *testing.T) {
	h := newHarness(t)
	entered, release := h.store.Hold()
	defer release()
	kv := kvv1.NewKVClient(grpcOf(h))
	for limit := 50 * time.Millisecond; ; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err := kv.Get(ctx, &kvv1.GetRequest{Key: []byte("k")})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
		select {
		case <-entered:
			return
		default:
			if limit > 30*time.Second {
				t.Fatalf("no call reached the store within %v", limit)
			}
		}
	}
}

func TestBatchHasManyItems(t *testing.T) {
	h := newHarness(t)
	var puts, gets []string
	for i := range 100 {
		key := fmt.Sprintf("key %d", i)
		puts = append(puts, fmt.Sprintf(`{"key":%q,"value":%q,"content_type":"text/plain"}`, key, base64.StdEncoding.EncodeToString([]byte(key))))
		gets = append(gets, fmt.Sprintf(`{"key":%q}`, key))
	}
	puts[50] = `{"key":""}`
	a := h.do(call{"POST", "/v1/kv:batchPut", nil, `{"items":[` + strings.Join(puts, ",") + `]}`})
	var written struct {
		Results []struct {
			Key    string
			Status int
		}
	}
	if err := json.Unmarshal(a.body, &written); err != nil || a.StatusCode != 200 || len(written.Results) != 100 {
		t.Fatalf("%d %.200s %v", a.StatusCode, a.body, err)
	}
	for i, r := range written.Results {
		if want := map[bool]int{true: 400, false: 200}[i == 50]; r.Status != want || (i != 50 && r.Key != fmt.Sprintf("key %d", i)) {
			t.Errorf("%d: %+v", i, r)
		}
	}
	var done kvResults
	a = h.do(call{"POST", "/v1/kv:batchGet", nil, `{"items":[` + strings.Join(gets, ",") + `],"r":"3","timeout":"1s"}`})
	if err := json.Unmarshal(a.body, &done); err != nil || len(done.Results) != 100 {
		t.Fatal(err)
	}
	for i, r := range done.Results {
		if i != 50 && (r.Status != 200 || string(r.Siblings[0].Value) != r.Key || r.Siblings[0].ContentType != "text/plain") {
			t.Errorf("%d: %+v", i, r)
		}
	}
	if done.Results[50].Status != 404 || done.Results[50].Context == "" {
		t.Errorf("%+v", done.Results[50])
	}
	if h.store.LastGet.R != 3 {
		t.Errorf("r was %v", h.store.LastGet.R)
	}
}

type kvResults struct {
	Results []struct {
		Key      string
		Status   int
		Context  string
		Siblings []struct {
			Value       []byte
			ContentType string `json:"content_type"`
		}
		Problem *problemBody
	}
}

// TestBatchAnswerIsBounded reads more than an answer holds.
func TestBatchAnswerIsBounded(t *testing.T) {
	h := newHarness(t)
	big := strings.Repeat("x", maxValue)
	var items []string
	for i := range 5 {
		h.put(fmt.Sprintf("k%d", i), big)
		items = append(items, fmt.Sprintf(`{"key":"k%d"}`, i))
	}
	a := h.do(call{"POST", "/v1/kv:batchGet", nil, `{"items":[` + strings.Join(items, ",") + `]}`})
	var got kvResults
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatal(err)
	}
	count := map[int]int{}
	for _, r := range got.Results {
		count[r.Status]++
		if r.Status == 413 && (r.Problem == nil || r.Problem.Type != "/problems/batch-too-large" || len(r.Siblings) > 0) {
			t.Errorf("%+v", r.Problem)
		}
	}
	if count[200] != 3 || count[413] != 2 {
		t.Errorf("%v", count)
	}
}

func TestBothKeysOfAnItem(t *testing.T) {
	h := newHarness(t)
	a := h.do(call{"POST", "/v1/kv:batchGet", nil, `{"items":[{"key":"a","key_base64":"Yg=="}]}`})
	var got kvResults
	if err := json.Unmarshal(a.body, &got); err != nil || got.Results[0].Status != 400 || got.Results[0].Problem.Type != "/problems/bad-key" {
		t.Errorf("%s %v", a.body, err)
	}
}

func TestCluster(t *testing.T) {
	h := newHarness(t)
	h.put("k", "v")
	var st map[string]any
	get := func(target string) map[string]any {
		t.Helper()
		a := h.do(call{"GET", target, nil, ""})
		st = nil
		if err := json.Unmarshal(a.body, &st); err != nil || a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/json" ||
			a.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %s %v", target, a.StatusCode, a.body, err)
		}
		return st
	}
	s := get("/v1/cluster/status")
	if s["cluster"] != edgetest.ClusterID.String() || s["members"] != 3.0 || s["alive"] != 3.0 || s["changing"] != false ||
		s["read_quorum"] != 2.0 || s["min_write_quorum"] != 2.0 || s["gateway"] != "gateway1" || s["settled"].(map[string]any)["epoch"] != "3" {
		t.Errorf("%v", s)
	}
	n := get("/v1/cluster/nodes")["nodes"].([]any)
	first := n[0].(map[string]any)
	if len(n) != 3 || first["name"] != "a" || first["status"] != "alive" || first["connected"] != true || first["share"] != 1.0 ||
		first["disk_bytes"] != "18014398509481984" || first["error"] != "" || first["started"] != "2026-11-22T12:00:00Z" {
		t.Errorf("%v", n)
	}
	l := get("/v1/cluster/layout")["layouts"].([]any)
	layout := l[0].(map[string]any)
	if len(l) != 1 || len(layout["members"].([]any)) != 3 || layout["replicas"] != 3.0 {
		t.Errorf("%v", l)
	}
	r := get("/v1/cluster/keys/k")["replicas"].([]any)
	one := r[0].(map[string]any)
	if len(r) != 3 || one["state"] != "record" || one["role"] != "primary" || one["siblings"].([]any)[0].(map[string]any)["preview"] != "dg==" ||
		one["digest"] == "" || one["zone"] != "z" {
		t.Errorf("%v", one)
	}
	if r[1].(map[string]any)["state"] != "absent" || r[2].(map[string]any)["state"] != "failed" || r[2].(map[string]any)["error"] != "not connected" {
		t.Errorf("%v", r)
	}
	for _, key := range []string{"hot", "hot", "\xff"} {
		h.traffic.Note([]byte(key), key == "hot", time.Now())
	}
	h.traffic.Done(traffic.Delete, 5*time.Millisecond, true, time.Now().Add(-2*time.Second))
	stats := get("/v1/cluster/stats")
	if ops := stats["operations"].([]any); len(ops) != 3 || ops[2].(map[string]any)["failed_per_second"] != 0.1 || ops[0].(map[string]any)["operation"] != "get" || stats["gateway"] != "gateway1" {
		t.Errorf("%v", stats)
	}
	hot := get("/v1/cluster/hotKeys")
	keys := hot["keys"].([]any)
	if hot["gateway"] != "gateway1" || len(keys) != 2 || keys[0].(map[string]any)["key"] != "hot" || keys[1].(map[string]any)["key_base64"] != "/w==" {
		t.Errorf("%v", hot)
	}
	h.nodes.Unknown = true
	h.problem(h.do(call{"GET", "/v1/cluster/nodes", nil, ""}), 503, "no-layout")
	h.problem(h.do(call{"GET", "/v1/cluster/layout", nil, ""}), 503, "no-layout")
	if s := get("/v1/cluster/status"); !strings.Contains(s["promise"].(string), "No layout") {
		t.Errorf("%v", s)
	}
	_, err := clusterv1.NewClusterClient(grpcOf(h)).ListNodes(t.Context(), &clusterv1.ListNodesRequest{})
	if status.Code(err) != codes.Unavailable || detailsOf(t, err).GetType() != "/problems/no-layout" {
		t.Errorf("%v", err)
	}
}
