package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// collector takes spans as an OpenTelemetry collector does.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	addr string

	mu    sync.Mutex
	spans []collected
	raw   []byte // all of it
}

// collected is a span and the process it came from.
type collected struct {
	*tracev1.Span
	from string
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: "http://" + l.Addr().String()}
	s := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(s, c)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it served
			t.Error(err)
		}
	})
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	return c
}

// Export is that of the collector's service.
func (c *collector) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	raw, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, raw...)
	for _, r := range req.GetResourceSpans() {
		from := ""
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.instance.id" {
				from = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, collected{s, from})
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// under returns the spans of a name right under the one of this id.
func (c *collector) under(parent []byte, name string) (out []collected) {
	for _, s := range c.spans {
		if bytes.Equal(s.GetParentSpanId(), parent) && s.GetName() == name {
			out = append(out, s)
		}
	}
	return out
}

// A put that is traced is one tree from the client's own span to the disk of each node. What is not sampled leaves no span, no span says
// what a key or a value is, and a gateway whose collector is away serves all the same.
func TestTraceOfAPut(t *testing.T) {
	got := startCollector(t)
	c := prepare(t, localcluster.Config{Nodes: 3, Gateways: 3, NodeArgs: []string{"--trace-endpoint", got.addr}})
	for i, set := range [][2]string{{got.addr, "1"}, {got.addr, "0"}, {"http://127.0.0.1:1", "1"}} {
		c.Gateways[i].SetArg("--trace-endpoint", set[0])
		c.Gateways[i].SetArg("--trace-sample", set[1])
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitReady(t, c, 3)
	reached(t, c)
	const id = "0af7651916cd43dd8448eb211c80319c"
	traced, unsampled, away := newClient(t, c.Gateways[0]), newClient(t, c.Gateways[1]), newClient(t, c.Gateways[2])
	// insist repeats a request until it succeeds, each time as a part of another span of the client's, and returns the last one.
	spans := byte(0)
	insist := func(cl *client, flags, method, key, query string) (parent []byte) {
		t.Helper()
		eventually(t, c, func() error {
			spans++
			parent = []byte{0xb7, 0xad, 6: 1, 7: spans}
			a, err := cl.do(method, key, query+"&timeout=30s", []byte("secret-value"), "traceparent", fmt.Sprintf("00-%s-%x-%s", id, parent, flags))
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("%s %s: %v", method, key, a)
			}
			return err
		})
		return parent
	}
	ofPut := insist(traced, "01", "PUT", "secret-key", "w=all")
	ofGet := insist(traced, "01", "GET", "secret-key", "r=all")
	for i := range 20 {
		insist(unsampled, "00", "PUT", fmt.Sprintf("unsampled-%d", i), "w=2")
		insist(away, "01", "PUT", fmt.Sprintf("away-%d", i), "w=2")
	}
	if _, err := unsampled.do("PUT", "no-client", "", nil); err != nil {
		t.Fatal(err)
	}
	// What is left is exported at the end.
	if err := c.Stop(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	if bytes.Contains(got.raw, []byte("secret")) {
		t.Error("a span tells what a key or a value is")
	}
	for _, s := range got.spans {
		if s.from == "gateway2" || s.from == "gateway3" {
			t.Errorf("span %s of %s", s.GetName(), s.from)
		}
	}
	only := func(spans []collected, what string) []byte {
		t.Helper()
		if len(spans) != 1 {
			t.Fatalf("%d spans %s, of %d", len(spans), what, len(got.spans))
		}
		return spans[0].GetSpanId()
	}
	put := only(got.under(only(got.under(ofPut, "http put"), "under the client's"), "put"), "of the put")
	mints := got.under(put, "mint")
	if len(mints) == 0 {
		t.Error("nobody minted")
	}
	committed := map[string]bool{}
	for _, call := range append(mints, got.under(put, "apply")...) {
		for _, node := range got.under(call.GetSpanId(), "node "+call.GetName()) {
			if hex.EncodeToString(node.GetTraceId()) != id {
				t.Errorf("%s is in trace %x", node.GetName(), node.GetTraceId())
			}
			stretches := 0
			for _, stretch := range []string{"queue", "prepare", "commit"} {
				stretches += len(got.under(node.GetSpanId(), stretch))
			}
			if stretches == 3 {
				committed[node.from] = true
			}
		}
	}
	if !committed["node1"] || !committed["node2"] || !committed["node3"] {
		t.Errorf("commits on %v", committed)
	}
	get := only(got.under(only(got.under(ofGet, "http get"), "under the client's"), "get"), "of the get")
	if reads := len(got.under(get, "read")) + len(got.under(get, "digest")); reads < 3 {
		t.Errorf("%d spans of reads", reads)
	}
}
