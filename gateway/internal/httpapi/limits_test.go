package httpapi_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/internal/grpcapi"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/limit"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// limitedSurfaces are HTTP and gRPC for one token with limits, over one store.
func limitedSurfaces(t *testing.T, limits access.EntryLimits) (h *harness, conn *grpc.ClientConn, token string) {
	t.Helper()
	guard, token := guardedWith(t, &limits, access.EntryRule{Allow: []string{"get", "put", "delete", "admin"}})
	var kv *grpcapi.KV
	var cluster clusterv1.ClusterServer
	h = newHarness(t, func(c *httpapi.Config) {
		cluster = c.Cluster
		kv = grpcapi.NewKV(c.Store.(grpcapi.Store), c.Tokens, guard, maxValue)
		c.Guard, c.KV = guard, kv
	})
	places := httpapi.NewAdmission(64, 64<<20)
	i := grpcapi.NewInterceptor(places, places.Reserved(), guard, slowLog(time.Hour, zerolog.Nop()), nil, zerolog.Nop(), prometheus.NewRegistry())
	s := grpcapi.NewServer(i, kv, cluster, func() (bool, string) { return true, "" })
	l := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it served
			t.Error(err)
		}
	})
	return h, conn, token
}

// One token has one budget, by whichever way it comes; a batch costs as much as its items.
func TestATokenHasOneBudget(t *testing.T) {
	// 1,000 s pass until an operation is paid for: the test is over by then.
	h, conn, token := limitedSurfaces(t, access.EntryLimits{PerSecond: 0.001, Burst: 7})
	as := func(pairs ...string) http.Header { return header(append(pairs, "Authorization", "Bearer "+token)...) }
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	three := `{"items":[{"key":"a"},{"key":"b"},{"key":"c"}]}`
	if a := h.do(call{"POST", "/v1/kv:batchGet", as(), three}); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if _, err := kvv1.NewKVClient(conn).Put(ctx, &kvv1.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	// Three are left: a batch of four is refused whole, though the request itself was let in, and paid for.
	four := strings.Replace(three, "[", `[{"key":"d"},`, 1)
	p := h.problem(h.do(call{"POST", "/v1/kv:batchDelete", as(), four}), 429, "rate-limited")
	if p.Outcome != notApplied || !strings.Contains(p.Detail, "0.001 operations a second") {
		t.Errorf("%+v", p)
	}
	if h.store.Puts != 1 {
		t.Errorf("%d writes, want that of the one put", h.store.Puts)
	}
	for range 2 {
		if a := h.do(call{"GET", "/v1/kv/k", as(), ""}); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	a := h.do(call{"PUT", "/v1/kv/k", as(), "v"})
	if p := h.problem(a, 429, "rate-limited"); p.Outcome != notApplied {
		t.Errorf("outcome %q", p.Outcome)
	}
	if wait, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || wait < 900 || wait > 1000 {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	for name, do := range map[string]func() error{
		"put": func() error {
			_, err := kvv1.NewKVClient(conn).Put(ctx, &kvv1.PutRequest{Key: []byte("k")})
			return err
		},
		"inspect": func() error {
			_, err := clusterv1.NewClusterClient(conn).InspectKey(ctx, &clusterv1.InspectKeyRequest{Key: "k"})
			return err
		},
	} {
		s := status.Convert(do())
		reason, wait := "", time.Duration(0)
		for _, d := range s.Details() {
			switch d := d.(type) {
			case *errdetails.ErrorInfo:
				reason = d.GetReason()
			case *errdetails.RetryInfo:
				wait = d.GetRetryDelay().AsDuration()
			}
		}
		if s.Code() != codes.ResourceExhausted || reason != "RATE_LIMITED" || wait < 900*time.Second {
			t.Errorf("%s: %v, %s, after %v", name, s, reason, wait)
		}
	}
	// Whoever operates the cluster gets through.
	if a := h.do(call{"GET", "/v1/cluster/status", as(), ""}); a.StatusCode != 200 {
		t.Errorf("status: %d", a.StatusCode)
	}
	if _, err := clusterv1.NewClusterClient(conn).GetStatus(ctx, &clusterv1.GetStatusRequest{}); err != nil {
		t.Errorf("status over gRPC: %v", err)
	}
}

func TestATokenHasItsPlaces(t *testing.T) {
	h, conn, token := limitedSurfaces(t, access.EntryLimits{AtOnce: 1})
	as := header("Authorization", "Bearer "+token)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	get := func() error {
		_, err := kvv1.NewKVClient(conn).Get(ctx, &kvv1.GetRequest{Key: []byte("k")})
		return err
	}
	for name, hold := range map[string]func() (refused bool){
		"http": func() bool {
			return h.do(call{"GET", "/v1/kv/k?timeout=60s", as, ""}).StatusCode == http.StatusTooManyRequests
		},
		"grpc": func() bool { return status.Code(get()) == codes.ResourceExhausted },
	} {
		entered, release := h.store.Hold()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for hold() { // the server gives a place back a moment after its answer is read
			}
		}()
		<-entered
		a := h.do(call{"GET", "/v1/kv/other", as, ""})
		h.problem(a, 429, "rate-limited")
		if a.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
		}
		if code := status.Code(get()); code != codes.ResourceExhausted {
			t.Errorf("%s holds the place, and gRPC answers %v", name, code)
		}
		release()
		<-done
	}
}

// fullKey is an overload that knows of one key at its limit.
type fullKey struct{}

func (fullKey) Full(bool, bool) bool { return false }
func (fullKey) Hold() time.Duration  { return 0 }

func (fullKey) FullKey(key []byte, write bool) error {
	if string(key) == "hot" && write {
		return &limit.Exceeded{What: "this key is hot", Wait: 2500 * time.Millisecond}
	}
	return nil
}

// A write of a key at its limit is refused before its body is sent.
func TestAHotKeyIsRefusedBeforeItsBody(t *testing.T) {
	h := newHarness(t, func(c *httpapi.Config) { c.Overload = fullKey{} })
	const head = " HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
	a := h.raw("PUT", "PUT /v1/kv/hot"+head, false)
	if p := h.problem(a, 429, "rate-limited"); p.Detail != "this key is hot" || p.Outcome != notApplied || a.Header.Get("Retry-After") != "3" {
		t.Errorf("%+v, Retry-After %s", p, a.Header.Get("Retry-After"))
	}
	h.put("cold", "v")
}
