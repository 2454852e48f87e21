package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dotring/dotring/loadtest/localcluster"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// outcome is what one operation came to, told in HTTP's terms whatever it travelled over.
type outcome struct {
	status  int
	detail  string
	context string
	value   string
}

// api is one way to reach the store; the same table runs over all of them.
type api interface {
	put(key, value, w string) outcome
	get(key, r string) outcome
	del(key, w string) outcome
}

// httpAPI uses /v1/kv/{key}.
type httpAPI struct {
	t  *testing.T
	cl *client
}

func (h httpAPI) one(method, key, query string, body []byte) outcome {
	a := h.cl.must(h.t, method, key, query, body)
	o := outcome{status: a.status, context: a.context, value: string(a.body)}
	if a.status >= 400 {
		o.detail, o.value = string(a.body), ""
	}
	return o
}

func (h httpAPI) put(key, value, w string) outcome {
	return h.one("PUT", key, param("w", w), []byte(value))
}
func (h httpAPI) get(key, r string) outcome { return h.one("GET", key, param("r", r), nil) }
func (h httpAPI) del(key, w string) outcome { return h.one("DELETE", key, param("w", w), nil) }

func param(name, value string) string {
	if value == "" {
		return ""
	}
	return name + "=" + url.QueryEscape(value)
}

// batchAPI uses the batch routes with one item each.
type batchAPI struct {
	t  *testing.T
	cl *client
}

func (b batchAPI) call(verb string, body map[string]any) outcome {
	raw, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := b.cl.raw("POST", "/v1/kv:"+verb, "", raw, "Content-Type", "application/json")
	if err != nil {
		b.t.Fatal(err)
	}
	if a.status != http.StatusOK {
		return outcome{status: a.status, detail: string(a.body)}
	}
	var got struct {
		Results []struct {
			Status   int             `json:"status"`
			Context  string          `json:"context"`
			Problem  json.RawMessage `json:"problem"`
			Siblings json.RawMessage `json:"siblings"`
		} `json:"results"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil || len(got.Results) != 1 {
		b.t.Fatalf("%s answers %s (%v)", verb, a.body, err)
	}
	r := got.Results[0]
	o := outcome{status: r.Status, context: r.Context, detail: string(r.Problem)}
	var sibs []struct {
		Value []byte `json:"value"`
	}
	if verb == "batchGet" && r.Status == http.StatusOK {
		if err := json.Unmarshal(r.Siblings, &sibs); err != nil || len(sibs) != 1 {
			b.t.Fatalf("siblings %s (%v)", r.Siblings, err)
		}
		o.value = string(sibs[0].Value)
	}
	return o
}

func (b batchAPI) put(key, value, w string) outcome {
	item := map[string]any{"key": key, "value": base64.StdEncoding.EncodeToString([]byte(value))}
	return b.call("batchPut", map[string]any{"items": []any{item}, "w": w})
}

func (b batchAPI) get(key, r string) outcome {
	return b.call("batchGet", map[string]any{"items": []any{map[string]any{"key": key}}, "r": r})
}

func (b batchAPI) del(key, w string) outcome {
	return b.call("batchDelete", map[string]any{"items": []any{map[string]any{"key": key}}, "w": w})
}

// grpcAPI uses the KV service.
type grpcAPI struct {
	t  *testing.T
	kv kvv1.KVClient
}

func newGRPC(t *testing.T, g *localcluster.Process) grpcAPI {
	conn, err := grpc.NewClient("passthrough:///"+g.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return grpcAPI{t, kvv1.NewKVClient(conn)}
}

// failed tells a gRPC error in HTTP's terms, from the problem in its details.
func (g grpcAPI) failed(err error) outcome {
	s, ok := status.FromError(err)
	if !ok {
		g.t.Fatalf("not a gRPC status: %v", err)
	}
	for _, d := range s.Details() {
		if p, ok := d.(*kvv1.Problem); ok {
			return outcome{status: int(p.Status), detail: fmt.Sprint(p.Detail, p.Replicas)}
		}
	}
	g.t.Fatalf("a gRPC error without a problem: %v", err)
	return outcome{}
}

func (g grpcAPI) put(key, value, w string) outcome {
	r, err := g.kv.Put(context.Background(), &kvv1.PutRequest{Key: []byte(key), Value: []byte(value), W: w})
	if err != nil {
		return g.failed(err)
	}
	return outcome{status: http.StatusOK, context: r.Context}
}

func (g grpcAPI) get(key, r string) outcome {
	a, err := g.kv.Get(context.Background(), &kvv1.GetRequest{Key: []byte(key), R: r})
	if err != nil {
		return g.failed(err)
	}
	switch a.State {
	case kvv1.State_STATE_VALUE:
		return outcome{status: http.StatusOK, context: a.Context, value: string(a.Siblings[0].Value)}
	case kvv1.State_STATE_CONFLICT:
		return outcome{status: http.StatusMultipleChoices, context: a.Context}
	}
	return outcome{status: http.StatusNotFound, context: a.Context}
}

func (g grpcAPI) del(key, w string) outcome {
	r, err := g.kv.Delete(context.Background(), &kvv1.DeleteRequest{Key: []byte(key), W: w})
	if err != nil {
		return g.failed(err)
	}
	return outcome{status: http.StatusOK, context: r.Context}
}

// With one node of three away, quorums that need all say so and name it, those of two succeed, impossible parameters
// are refused, and a deleted key reads 404 with a context: the same over HTTP, batch and gRPC.
func TestQuorumsWithOneNodeDown(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	cl := newClient(t, c.Gateways[0])
	apis := map[string]api{"http": httpAPI{t, cl}, "batch": batchAPI{t, cl}, "grpc": newGRPC(t, c.Gateways[0])}
	for name, a := range apis {
		if o := a.put("key/"+name, "before", "all"); o.status != http.StatusOK {
			t.Fatalf("%s: put with all nodes up: %+v", name, o)
		}
	}
	down := c.Nodes[1]
	if err := down.Kill(); err != nil {
		t.Fatal(err)
	}
	noticed(t, c)
	for name, a := range apis {
		key := "key/" + name
		steps := []struct {
			what   string
			do     func() outcome
			status int
			names  string // the answer's detail names it
		}{
			{"put w=2", func() outcome { return a.put(key, "after", "2") }, 200, ""},
			{"put w=quorum", func() outcome { return a.put(key, "after", "quorum") }, 200, ""},
			{"put w=all", func() outcome { return a.put(key, "x", "all") }, 503, down.Name},
			{"get r=all", func() outcome { return a.get(key, "all") }, 503, down.Name},
			{"get r=3", func() outcome { return a.get(key, "3") }, 503, down.Name},
			{"get r=one", func() outcome { return a.get(key, "one") }, 200, ""},
			{"get", func() outcome { return a.get(key, "") }, 200, ""},
			{"put w=4", func() outcome { return a.put(key, "x", "4") }, 400, "w"},
			{"put w=0", func() outcome { return a.put(key, "x", "0") }, 400, "w"},
			{"put w=1, below the smallest", func() outcome { return a.put(key, "x", "1") }, 400, "w"},
			{"get r=x", func() outcome { return a.get(key, "x") }, 400, "r"},
			{"get r=4", func() outcome { return a.get(key, "4") }, 400, "r"},
			{"delete w=all", func() outcome { return a.del(key, "all") }, 503, down.Name},
			{"delete", func() outcome { return a.del(key, "") }, 200, ""},
			{"delete again", func() outcome { return a.del(key, "") }, 200, ""},
			{"get deleted", func() outcome { return a.get(key, "") }, 404, ""},
			{"get never written", func() outcome { return a.get(key+"/never", "") }, 404, ""},
		}
		for _, s := range steps {
			o := s.do()
			if o.status != s.status || !strings.Contains(o.detail, s.names) {
				t.Errorf("%s: %s: %+v, want %d naming %q", name, s.what, o, s.status, s.names)
			}
			if (o.status < 300 || o.status == 404) && o.context == "" {
				t.Errorf("%s: %s: no context", name, s.what)
			}
		}
	}
	for name, a := range apis {
		if o := a.put("key2/"+name, "value", "2"); o.status != http.StatusOK {
			t.Errorf("%s: %+v", name, o)
		}
		if o := a.get("key2/"+name, ""); o.value != "value" {
			t.Errorf("%s: %+v", name, o)
		}
	}
}
