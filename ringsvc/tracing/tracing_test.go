package tracing

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/dotring/dotring/ringsvc/mtls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCollector takes spans, or does not.
type fakeCollector struct {
	tracetest.InMemoryExporter
	fail error
	wait bool // until nobody waits any more
}

func (f *fakeCollector) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if f.wait {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.fail != nil {
		return f.fail
	}
	return f.InMemoryExporter.ExportSpans(ctx, spans)
}

// Shutdown keeps what came.
func (f *fakeCollector) Shutdown(context.Context) error { return nil }

// scene is a Tracer that runs, in a bubble. What was exported is there once stop has returned.
func scene(t *testing.T, sample float64, to *fakeCollector) (tracer *Tracer, log *bytes.Buffer, stop func()) {
	log = &bytes.Buffer{}
	tracer, err := New(Config{Sample: sample, Exporter: to, Service: "test", Logger: zerolog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- tracer.Run(ctx) }()
	synctest.Wait()
	return tracer, log, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// A request and what it asks of another process are one tree.
func TestSpansMakeATree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := &fakeCollector{}
		gateway, _, stop := scene(t, 1, got)
		began := time.Now()
		root := gateway.Start("http", began, nil)
		root.Name("http put")
		call := root.Child("put").Call("mint")
		node := gateway.Continue(call.Context(), "node mint", time.Now())
		time.Sleep(time.Millisecond)
		node.Past("queue", began, time.Now())
		node.Past("never", time.Now(), began)
		node.Str("text", "no \xff text")
		for _, s := range []*Span{node, call, root} {
			s.End()
		}
		stop()
		names := map[trace.SpanID]string{}
		for _, s := range got.GetSpans() {
			names[s.SpanContext.SpanID()] = s.Name
		}
		tree := map[string]string{}
		for _, s := range got.GetSpans() {
			tree[s.Name] = names[s.Parent.SpanID()]
			if s.SpanContext.TraceID().String() != TraceOf(call.Context()) {
				t.Errorf("%s is in another trace", s.Name)
			}
			if s.Name == "node mint" && (len(s.Attributes) != 1 || s.Attributes[0].Value.AsString() != "no \uFFFD text") {
				t.Errorf("attributes %v", s.Attributes)
			}
		}
		want := map[string]string{"http put": "", "mint": "", "node mint": "mint", "queue": "node mint"} // put has not ended
		if fmt.Sprint(tree) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", tree, want)
		}
		if gateway.Exported() != 4 || gateway.Full() != 0 || gateway.Failed() != 0 {
			t.Errorf("counted %d %d %d", gateway.Exported(), gateway.Full(), gateway.Failed())
		}
		if gateway.Start("late", time.Now(), nil) != nil || gateway.Continue(call.Context(), "late", time.Now()) != nil {
			t.Error("a span after the end")
		}
		root.Child("late").End() // harmless
	})
}

const (
	sampledParent   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	unsampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

// A client's trace is joined, and a stranger cannot have everything exported.
func TestClientsAskForTraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			sample float64
			parent string
			want   int // of a thousand within two seconds
		}{
			{0, "", 0}, {1, "", 1000}, {0, sampledParent, 2 * invitedPerSecond}, {1, sampledParent, 1000}, {0, unsampledParent, 0}, {1, unsampledParent, 0},
			{0, "nonsense", 0}, {1, "nonsense", 1000},
		} {
			got := &fakeCollector{}
			tracer, _, stop := scene(t, c.sample, got)
			var parent []string
			if c.parent != "" {
				parent = []string{c.parent}
			}
			n := 0
			for range 1000 {
				if s := tracer.Start("r", time.Now(), parent); s != nil {
					n++
					s.End()
				}
				time.Sleep(2 * time.Millisecond)
			}
			stop()
			if n != c.want || len(got.GetSpans()) != n {
				t.Errorf("%v of %q: %d sampled, %d exported, want %d", c.sample, c.parent, n, len(got.GetSpans()), c.want)
			}
			for _, s := range got.GetSpans() {
				joined := s.SpanContext.TraceID().String() == sampledParent[3:35] && s.Parent.SpanID().String() == sampledParent[36:52]
				if joined != (c.parent == sampledParent) {
					t.Errorf("%v of %q: trace %s under %s", c.sample, c.parent, s.SpanContext.TraceID(), s.Parent.SpanID())
					break
				}
			}
		}
	})
}

func TestParseParent(t *testing.T) {
	for text, ok := range map[string]bool{
		sampledParent: true, unsampledParent: true,
		"01" + sampledParent[2:]: true, "01" + sampledParent[2:] + "-more": true, "fe" + sampledParent[2:53] + "ff": true,
		sampledParent + "-more": false, "01" + sampledParent[2:] + "more": false, "ff" + sampledParent[2:]: false, strings.ToUpper(sampledParent): false,
		"": false, sampledParent[:54]: false, "00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false, "0g" + sampledParent[2:]: false,
		strings.ReplaceAll(sampledParent, "-", "_"): false, strings.Replace(sampledParent, "b7ad", "b7a-", 1): false,
	} {
		if sc, got := parseParent([]string{text}); got != ok || ok && sc.IsSampled() != (text[54] != '0') {
			t.Errorf("%q: %v %v", text, sc, got)
		}
	}
	if _, ok := parseParent([]string{sampledParent, sampledParent}); ok {
		t.Error("two headers are one")
	}
}

func FuzzParseParent(f *testing.F) {
	f.Add(sampledParent)
	f.Add("01" + sampledParent[2:] + "-more")
	f.Fuzz(func(t *testing.T, text string) {
		sc, ok := parseParent([]string{text})
		if ok && (text[3:35] != sc.TraceID().String() || text[36:52] != sc.SpanID().String()) {
			t.Errorf("%q is read as %v", text, sc)
		}
	})
}

// What another process sends is not believed blindly.
func TestContinueWantsAContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer, _, stop := scene(t, 1, &fakeCollector{})
		for _, b := range [][]byte{nil, {}, make([]byte, contextLen), []byte("short"), make([]byte, contextLen+1)} {
			if tracer.Continue(b, "n", time.Now()) != nil {
				t.Errorf("%x is continued", b)
			}
		}
		stop()
		if got := TraceOf([]byte("short")); got != "" {
			t.Errorf("trace %q", got)
		}
	})
}

// A collector that does not answer, or is away, costs spans, which are counted, and a line of the log a minute.
func TestCollectorAway(t *testing.T) {
	for name, to := range map[string]*fakeCollector{"silent": {wait: true}, "refusing": {fail: errors.New("not now")}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tracer, log, stop := scene(t, 1, to)
				began := time.Now()
				const n = 20_000
				for i := range n {
					tracer.Start("r", time.Now(), nil).End()
					if i%100 == 0 {
						time.Sleep(time.Second)
					}
				}
				if d := time.Since(began); d != n/100*time.Second {
					t.Errorf("requests were held up: %s", d)
				}
				ending := time.Now()
				stop()
				synctest.Wait()
				if d := time.Since(ending); d > flushWait {
					t.Errorf("ended after %s", d)
				}
				if tracer.Exported() != 0 || tracer.Full()+tracer.Failed() != n || to.wait && tracer.Full() == 0 {
					t.Errorf("exported %d, dropped %d and %d of %d", tracer.Exported(), tracer.Full(), tracer.Failed(), n)
				}
				if lines := strings.Count(log.String(), "\n"); lines < 1 || lines > 1+n/100/60+1 {
					t.Errorf("%d lines:\n%s", lines, log)
				}
			})
		})
	}
}

// The real exporter, with nobody at the other end.
func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tracer, err := New(Config{Endpoint: "http://" + addr, Sample: 1, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tracer.Run(ctx) }()
	var s *Span
	for s == nil {
		runtime.Gosched()
		s = tracer.Start("r", time.Now(), nil)
	}
	s.End()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// collector counts the spans that come over gRPC.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	spans atomic.Int64
}

func (c *collector) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	for _, r := range req.GetResourceSpans() {
		for _, s := range r.GetScopeSpans() {
			c.spans.Add(int64(len(s.GetSpans())))
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// An https endpoint is TLS, with the authority that the standard variable names.
func TestCollectorOverTLS(t *testing.T) {
	now := time.Now()
	ca, err := mtls.NewAuthority("authority", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := mtls.Issue(ca, "collector", []string{"127.0.0.1"}, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.Cert, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := &collector{}
	s := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	collectorv1.RegisterTraceServiceServer(s, got)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it served
			t.Error(err)
		}
	}()
	tracer, err := New(Config{Endpoint: "https://" + l.Addr().String(), Sample: 1, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tracer.Run(ctx) }()
	deadline := time.After(time.Minute)
	for got.spans.Load() == 0 { // a span a tick: the first batch goes a second after the first
		tracer.Start("r", time.Now(), nil).End()
		select {
		case <-deadline:
			t.Fatal("nothing came")
		case <-time.After(20 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for _, good := range []string{"", "http://127.0.0.1:4317", "https://collector.example:4317", "http://[::1]:4317/"} {
		if err := CheckEndpoint(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"127.0.0.1:4317", "grpc://a:1", "http://a", "http://:4317", "http://a:99999", "http://a:1/v1/traces", "http://u:p@a:1", "http://a:1?x", "http://a:1#x", "%"} {
		if CheckEndpoint(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []float64{-0.1, 1.1, math.NaN(), math.Inf(1)} {
		if CheckSample(bad) == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if _, err := New(Config{Endpoint: "x", Sample: 2}); err == nil || !strings.Contains(err.Error(), "collector") || !strings.Contains(err.Error(), "0 to 1") {
		t.Errorf("error %v", err)
	}
	if none, err := New(Config{Sample: 1}); none != nil || err != nil {
		t.Errorf("%v %v", none, err)
	}
}

// work is what a traced put does with spans.
func work(tracer *Tracer, parent []string) {
	root := tracer.Start("http", time.Time{}, parent)
	root.Name("http put")
	op := root.Child("put")
	call := op.Call("mint")
	node := tracer.Continue(call.Context(), "node mint", time.Time{})
	node.Past("queue", time.Time{}, time.Time{})
	for _, s := range []*Span{node, call, op, root} {
		s.Str("key", "value")
		s.Int("key", 1)
		s.Bool("key", true)
		s.Event("now")
		s.Fail("why")
		s.Log(nil)
		s.End()
	}
}

// Whoever is not sampled pays nothing that the garbage collector sees.
func TestUnsampledAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on, _, stop := scene(t, 0, &fakeCollector{})
		defer stop()
		for name, f := range map[string]func(){
			"off": func() { work(nil, nil) }, "on": func() { work(on, nil) }, "on, with a parent": func() { work(on, []string{unsampledParent}) },
		} {
			if n := testing.AllocsPerRun(1000, f); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	})
}

// Estimate: a random number 5 ns, forty calls that compare with nil 20 to 40 ns; off, the latter alone.
// Measured: 40 ns off and on, on a busy machine, and no allocation.
func BenchmarkUnsampled(b *testing.B) {
	tracer, err := New(Config{Sample: 0, Exporter: &fakeCollector{}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- tracer.Run(ctx) }()
	for tracer.running.Load() == nil {
		runtime.Gosched()
	}
	for name, t := range map[string]*Tracer{"off": nil, "on": tracer} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				work(t, nil)
			}
		})
	}
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

func TestContextGoesAround(t *testing.T) {
	b, err := hex.DecodeString("0af7651916cd43dd8448eb211c80319cb7ad6b7169203331")
	if err != nil {
		t.Fatal(err)
	}
	sc := decodeContext(b)
	if sc.TraceID().String()+sc.SpanID().String() != hex.EncodeToString(b) || !sc.IsSampled() || !sc.IsRemote() || TraceOf(b) != sc.TraceID().String() {
		t.Errorf("%v", sc)
	}
}
