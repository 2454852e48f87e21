package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/grpcapi"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/internal/httpapi/edgetest"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// driver sends requests to a harness and notes them with their answers.
type driver struct {
	t *testing.T
	h *harness
	*served
}

// on returns a driver of another gateway that notes in the same place.
func (d *driver) on(change ...func(*httpapi.Config)) *driver {
	return &driver{d.t, newHarness(d.t, change...), d.served}
}

func (d *driver) note(c call, bad bool, a answer) answer {
	d.t.Helper()
	x := exchanged{call: c, bad: bad, status: a.StatusCode, header: a.Header, body: a.body}
	if kind := a.Header.Get("Content-Type"); kind != "" && c.method != http.MethodHead {
		var err error
		if x.media, _, err = mime.ParseMediaType(kind); err != nil {
			d.t.Fatal(err)
		}
	}
	if x.media == "application/problem+json" {
		var p problemBody
		if err := json.Unmarshal(a.body, &p); err != nil {
			d.t.Fatal(err)
		}
		x.slug = strings.TrimPrefix(p.Type, "/problems/")
	}
	d.exchanges = append(d.exchanges, x)
	return a
}

// good sends a request that the document allows, and expects this status.
func (d *driver) good(status int, c call) answer {
	d.t.Helper()
	return d.expect(status, c, false)
}

// bad sends a request that the document forbids, or has no words for.
func (d *driver) bad(status int, c call) answer {
	d.t.Helper()
	return d.expect(status, c, true)
}

func (d *driver) expect(status int, c call, bad bool) answer {
	d.t.Helper()
	a := d.note(c, bad, d.h.do(c))
	if a.StatusCode != status {
		d.t.Fatalf("%s %.80s: %d %s, want %d", c.method, c.target, a.StatusCode, a.body, status)
	}
	return a
}

// raw sends text, which c describes, and then ends the sending side where closeWrite says so.
func (d *driver) raw(status int, c call, text string, closeWrite bool) {
	d.t.Helper()
	if a := d.note(c, true, d.h.raw(c.method, text, closeWrite)); a.StatusCode != status {
		d.t.Fatalf("%q: %d %s, want %d", text, a.StatusCode, a.body, status)
	}
}

// failing runs f while every request to the cluster fails with err.
func (d *driver) failing(err error, f func()) {
	d.h.store.Fail(err)
	f()
	d.h.store.Fail(nil)
}

func fault(kind coordinator.Kind, err error) error {
	return &coordinator.Error{Kind: kind, Outcome: coordinator.InDoubt, Err: err, Replicas: []coordinator.Report{{Node: ring.NodeID{1},
		Name: "a", Did: "read", Detail: "refused", At: time.Millisecond, Clock: causal.Vector{{Actor: causal.Actor{1}, Counter: 1 << 60}}}}}
}

// full returns an admission without a free place, not even among those that are reserved.
func full() *httpapi.Admission {
	a := httpapi.NewAdmission(1, 1<<20)
	a.Enter(0)
	for a.Reserved().Enter(0) {
	}
	return a
}

// tooLong returns target with a query that makes it too long.
func tooLong(target string) string { return target + "?x=" + strings.Repeat("y", 4096) }

// drive sends every request that the contract is checked with.
func drive(t *testing.T) *served {
	t.Helper()
	d := &driver{t, newHarness(t), &served{methods: map[string][]string{}}}
	for _, key := range []string{"hot", "hot", "\xff"} {
		d.h.traffic.Note([]byte(key), key == "hot", time.Now())
	}
	d.values()
	for _, method := range []string{"GET", "HEAD"} {
		d.reads(method)
		d.lists(method)
		d.cluster(method)
		d.canStop(method)
		d.service(method)
		d.snapshots(method)
	}
	for _, method := range []string{"PUT", "POST", "DELETE"} {
		d.writes(method)
	}
	for _, verb := range []string{"Get", "Put", "Delete"} {
		d.batches(verb)
	}
	d.repair()
	d.changes()
	d.restore()
	d.outside()
	d.probe()
	return d.served
}

// values stores what is read later.
func (d *driver) values() {
	d.good(200, call{"PUT", "/v1/kv/text?w=all&timeout=30s&sloppy=false", header("Content-Type", "text/plain", "Kv-Request-Id", "text-1"), "hello"})
	d.good(200, call{"POST", "/v1/kv/a%2Fb//..", header("Content-Type", "image/png"), "\x89PNG"})
	d.good(200, call{"PUT", "/v1/kv/empty", nil, ""})
	d.h.conflict("both")
	d.h.conflict("%FE%FF")
	none := d.h.get("deleted").Header.Get("Kv-Context")
	d.h.put("deleted", "x", "Kv-Context", none)
	d.good(200, call{"DELETE", "/v1/kv/deleted", header("Kv-Context", none), ""})
	many := causal.Set{}
	for i := range 60 {
		dot := causal.Dot{Actor: causal.Actor{byte(i + 1)}, Counter: 1 << 60}
		many.Clock = append(many.Clock, dot)
		many.Siblings = append(many.Siblings, causal.Sibling{Dot: dot, Time: uint64(edgetest.Now.UnixMilli()) << 16, ContentType: "text/plain", Value: []byte{byte('A' + i)},
			Checksum: record.Checksum([]byte{byte('A' + i)})})
	}
	d.h.store.SetRecord("many", many)
}

func (d *driver) reads(m string) {
	d.t.Helper()
	value := d.good(200, call{m, "/v1/kv/text", nil, ""})
	seen, etag := value.Header.Get("Kv-Context"), value.Header.Get("Etag")
	d.good(200, call{m, "/v1/kv/text?r=all&timeout=30s&explain=1", header("Kv-Context", seen, "Kv-Request-Id", "read-1"), ""})
	d.good(200, call{m, "/v1/kv/a%2Fb//..", nil, ""})
	d.good(200, call{m, "/v1/kv/empty?r=one&explain=false", nil, ""})
	d.good(304, call{m, "/v1/kv/text?explain=true", header("If-None-Match", etag), ""})
	both := d.good(300, call{m, "/v1/kv/both?explain=1", nil, ""})
	d.good(304, call{m, "/v1/kv/both", header("If-None-Match", both.Header.Get("Etag")), ""})
	d.good(300, call{m, "/v1/kv/deleted", nil, ""})
	d.good(300, call{m, "/v1/kv/%FE%FF", nil, ""})
	d.good(300, call{m, "/v1/kv/many?explain=1", nil, ""})
	tag := d.h.get("deleted?explain=1")
	var siblings struct{ Siblings []struct{ Etag string } }
	if err := json.Unmarshal(tag.body, &siblings); err != nil {
		d.t.Fatal(err)
	}
	statuses := []int{}
	for _, s := range siblings.Siblings {
		c := call{m, "/v1/kv/deleted?etag=" + s.Etag, nil, ""}
		statuses = append(statuses, d.note(c, false, d.h.do(c)).StatusCode)
	}
	if slices.Sort(statuses); !slices.Equal(statuses, []int{200, 404}) {
		d.t.Fatalf("the siblings alone: %v", statuses)
	}
	for _, key := range []string{"both", "deleted", "%FE%FF"} {
		d.good(300, call{m, "/v1/kv/" + key, header("Accept", "multipart/mixed"), ""})
		d.good(409, call{m, "/v1/kv/" + key + "?conflict=error&explain=1", nil, ""})
		d.good(409, call{m, "/v1/kv/" + key + "?conflict=error", header("Accept", "multipart/mixed"), ""})
	}
	d.good(404, call{m, "/v1/kv/none?explain=1", nil, ""})
	d.good(404, call{m, "/v1/kv/both?explain=1&etag=none", nil, ""})
	d.addressFaults(m, "r")
	d.readFaults(m)
}

// addressFaults sends what is bad for reads and writes alike.
func (d *driver) addressFaults(m, quorum string) {
	d.t.Helper()
	d.bad(400, call{m, "/v1/kv/", nil, ""})
	d.bad(400, call{m, "/v1/kv/text?timeout=0s", nil, ""})
	d.bad(400, call{m, "/v1/kv/text", header("Kv-Context", "AAAA"), ""})
	d.bad(400, call{m, "/v1/kv/text", header("Kv-Request-Id", ""), ""})
	d.good(400, call{m, "/v1/kv/text?" + quorum + "=4", nil, ""})
	d.bad(414, call{m, tooLong("/v1/kv/text"), nil, ""})
	d.access(call{m, "/v1/kv/text", nil, ""})
	d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{m, "/v1/kv/text", nil, ""})
	d.failing(fault(coordinator.Overloaded, nil), func() { d.good(429, call{m, "/v1/kv/text", nil, ""}) })
	d.failing(errors.New("some fault"), func() { d.good(500, call{m, "/v1/kv/text", nil, ""}) })
	d.failing(fault(coordinator.QuorumImpossible, nil), func() { d.good(503, call{m, "/v1/kv/text", nil, ""}) })
	d.failing(fault(coordinator.NoLayout, nil), func() { d.good(503, call{m, "/v1/kv/text", nil, ""}) })
	d.failing(fault(coordinator.DeadlinePassed, errors.New("too late")), func() { d.good(504, call{m, "/v1/kv/text", nil, ""}) })
}

// access sends c without a token, and with one that may do nothing that c asks. A batch is answered, and each of its items
// is denied.
func (d *driver) access(c call) {
	d.t.Helper()
	guard, token := guarded(d.t, access.EntryRule{Prefix: "elsewhere/", Allow: []string{"get", "put", "delete"}})
	limited := d.on(func(cfg *httpapi.Config) {
		kv := grpcapi.NewKV(edgetest.NewStore(), cfg.Tokens, guard, maxValue)
		kv.ListsBy(edgetest.NewStore())
		cfg.Guard, cfg.KV = guard, kv
	})
	limited.good(401, c)
	if strings.HasPrefix(c.target, "/v1/kv") || strings.HasPrefix(c.target, "/v1/cluster/keys/") {
		d.rated(c)
	}
	c.header = c.header.Clone()
	if c.header == nil {
		c.header = http.Header{}
	}
	c.header.Set("Authorization", "Bearer "+token)
	if strings.HasPrefix(c.target, "/v1/kv:") {
		limited.good(200, c)
		return
	}
	limited.good(403, c)
}

// rated sends c with a token that had its one operation in a thousand seconds.
func (d *driver) rated(c call) {
	d.t.Helper()
	guard, token := guardedWith(d.t, &access.EntryLimits{PerSecond: 0.001}, access.EntryRule{Allow: []string{"get", "put", "delete"}})
	rated := d.on(func(cfg *httpapi.Config) {
		kv := grpcapi.NewKV(edgetest.NewStore(), cfg.Tokens, guard, maxValue)
		kv.ListsBy(edgetest.NewStore())
		cfg.Guard, cfg.KV = guard, kv
	})
	if got := rated.h.do(call{"GET", "/v1/kv/other", header("Authorization", "Bearer "+token), ""}); got.StatusCode != 404 {
		d.t.Errorf("the first operation: %d", got.StatusCode)
	}
	c.header = c.header.Clone()
	if c.header == nil {
		c.header = http.Header{}
	}
	c.header.Set("Authorization", "Bearer "+token)
	if wait, err := strconv.Atoi(rated.good(429, c).Header.Get("Retry-After")); err != nil || wait < 900 || wait > 1000 {
		d.t.Errorf("Retry-After is %d (%v)", wait, err)
	}
}

func (d *driver) readFaults(m string) {
	d.t.Helper()
	ahead := d.h.token(edgetest.ClusterID, "text", 1, causal.Context{Vector: causal.Vector{{Actor: causal.Actor{1}, Counter: 1 << 40}}})
	d.good(503, call{m, "/v1/kv/text", header("Kv-Context", ahead), ""})
}

func (d *driver) lists(m string) {
	d.t.Helper()
	d.good(200, call{m, "/v1/kv", header("Kv-Request-Id", "list-1"), ""})
	d.good(200, call{m, "/v1/kv?prefix=te&timeout=30s", nil, ""})
	d.good(200, call{m, "/v1/kv?prefix_base64=/v8=", nil, ""})
	var page struct{ Cursor string }
	first := d.good(200, call{"GET", "/v1/kv?limit=1", nil, ""})
	if err := json.Unmarshal(first.body, &page); err != nil || page.Cursor == "" {
		d.t.Fatalf("%s, %v", first.body, err)
	}
	d.good(200, call{m, "/v1/kv?limit=1000&cursor=" + page.Cursor, nil, ""})
	for _, bad := range []string{"limit=0", "limit=1001", "cursor=AAAA", "prefix=a&prefix_base64=YQ==", "prefix=", "prefix_base64=x", "verbose=1", "timeout=61s"} {
		d.bad(400, call{m, "/v1/kv?" + bad, nil, ""})
	}
	d.bad(400, call{m, "/v1/kv", header("Kv-Request-Id", ""), ""})
	d.bad(414, call{m, tooLong("/v1/kv"), nil, ""})
	d.access(call{m, "/v1/kv", nil, ""})
	d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{m, "/v1/kv", nil, ""})
	d.failing(fault(coordinator.Overloaded, nil), func() { d.good(429, call{m, "/v1/kv", nil, ""}) })
	d.failing(errors.New("some fault"), func() { d.good(500, call{m, "/v1/kv", nil, ""}) })
	d.failing(fault(coordinator.QuorumImpossible, nil), func() { d.good(503, call{m, "/v1/kv", nil, ""}) })
	d.failing(fault(coordinator.NoLayout, nil), func() { d.good(503, call{m, "/v1/kv", nil, ""}) })
	d.failing(fault(coordinator.DeadlinePassed, errors.New("too late")), func() { d.good(504, call{m, "/v1/kv", nil, ""}) })
}

func (d *driver) writes(m string) {
	d.t.Helper()
	body := "value"
	if m == "DELETE" {
		body = ""
	}
	target := "/v1/kv/written-" + m
	seen := d.good(200, call{m, target + "?w=quorum&timeout=30s&sloppy=true", header("Kv-Request-Id", "write-1"), body}).Header.Get("Kv-Context")
	d.good(200, call{m, target, header("Kv-Context", seen), body})
	d.good(200, call{m, "/v1/kv/%FF%00", nil, body})
	d.addressFaults(m, "w")
	for status, err := range map[int][]error{
		409: {fault(coordinator.TooManySiblings, nil), fault(coordinator.TooLarge, nil), fault(coordinator.TooLarge, causal.ErrClockTooLarge)},
		410: {fault(coordinator.StaleContext, nil)},
		507: {fault(coordinator.DiskFull, nil)},
	} {
		for _, e := range err {
			d.failing(e, func() { d.good(status, call{m, target, nil, body}) })
		}
	}
	for _, name := range []string{"If-Match", "If-None-Match", "If-Unmodified-Since"} {
		d.bad(501, call{m, target, header(name, "*"), body})
	}
	if m == "DELETE" {
		return
	}
	d.bad(400, call{m, target, header("Content-Type", "a/b", "Content-Type", "c/d"), body})
	d.raw(400, call{m, target, nil, ""}, m+" "+target+" HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf", true)
	d.bad(413, call{m, target, nil, strings.Repeat("x", maxValue+1)})
	d.bad(415, call{m, target, header("Content-Encoding", "gzip"), body})
}

func (d *driver) batches(verb string) {
	d.t.Helper()
	target := "/v1/kv:batch" + verb
	text := map[string]string{
		"Get":    `{"items":[{"key":"text"},{"key_base64":"/v8="},{"key":"none"},{"key":"deleted"}],"r":"all","timeout":"1s"}`,
		"Put":    `{"items":[{"key":"b1","value":"aGVsbG8=","content_type":"text/plain","context":%q,"request_id":"b-1"},{"key_base64":"//8="}],"w":"all","timeout":"1s","sloppy":true}`,
		"Delete": `{"items":[{"key":"b1","context":%q,"request_id":"b-2"},{"key_base64":"//8="}],"w":"2","timeout":"1s","sloppy":false}`,
	}[verb]
	if verb != "Get" {
		text = fmt.Sprintf(text, d.h.get("b1").Header.Get("Kv-Context"))
	}
	d.good(200, call{"POST", target, header("Kv-Request-Id", "batch-1", "Content-Type", "application/json"), text})
	d.good(200, call{"POST", "/v1/kv%3Abatch" + verb, nil, text})
	d.good(200, call{"POST", "/v1/kv%3abatch" + verb, nil, "{}"})
	d.failing(fault(coordinator.QuorumImpossible, nil), func() { d.good(200, call{"POST", target, nil, text}) })
	d.bad(400, call{"POST", target + "?w=2", nil, text})
	for _, text := range []string{`{"timeout":"90s"}`, `{"items":null}`, `{"items":[{"key":"b1","key_base64":null}]}`, ""} {
		d.bad(400, call{"POST", target, nil, text})
	}
	d.bad(400, call{"POST", target, header("Kv-Request-Id", ""), text})
	d.bad(400, call{"POST", target, nil, "{"})
	d.bad(400, call{"POST", target, nil, `{"items":[{"key":"k"}` + strings.Repeat(`,{"key":"k"}`, 100) + `]}`})
	d.raw(400, call{"POST", target, nil, ""}, "POST "+target+" HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n{", true)
	d.bad(413, call{"POST", target, nil, strings.Repeat(" ", 3<<20+1)})
	d.bad(414, call{"POST", tooLong(target), nil, text})
	d.bad(415, call{"POST", target, header("Content-Encoding", "gzip"), text})
	d.access(call{"POST", target, nil, text})
	d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{"POST", target, nil, text})
	d.on(func(c *httpapi.Config) { c.KV = grpcapi.NewKV(panicking{}, c.Tokens, nil, maxValue) }).good(500, call{"POST", target, nil, text})
	// By a clock that is an hour behind, the time for the body is over when it begins to come.
	late := d.on(func(c *httpapi.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
	late.raw(504, call{"POST", target, nil, ""}, "POST "+target+" HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n", false)
}

func (d *driver) cluster(m string) {
	d.t.Helper()
	named := header("Kv-Request-Id", "look-1")
	for _, path := range []string{"status", "nodes", "layout", "tasks", "hotKeys", "stats", "keys/both"} {
		target := "/v1/cluster/" + path
		d.good(200, call{m, target, named, ""})
		d.bad(400, call{m, target + "?verbose=1", nil, ""})
		d.bad(414, call{m, tooLong(target), nil, ""})
		d.access(call{m, target, nil, ""})
		d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{m, target, nil, ""})
		broken := d.on(func(c *httpapi.Config) { c.Cluster = grpcapi.NewCluster(nil, nil, grpcapi.About{}) })
		broken.good(500, call{m, target, nil, ""})
		ignorant := d.on()
		ignorant.h.nodes.Unknown = true
		ignorant.h.store.Fail(fault(coordinator.NoLayout, nil))
		status := 503
		if path == "status" || path == "hotKeys" || path == "stats" {
			status = 200
		}
		ignorant.good(status, call{m, target, nil, ""})
		partial := d.on()
		partial.h.nodes.Away["c"] = true
		partial.good(200, call{m, target, nil, ""})
	}
	d.good(200, call{m, "/v1/cluster/keys/%FE%FF", nil, ""})
	d.good(200, call{m, "/v1/cluster/keys/none", nil, ""})
	d.bad(400, call{m, "/v1/cluster/keys/", nil, ""})
}

func (d *driver) repair() {
	d.t.Helper()
	target, all := "/v1/cluster:repair", `{"timeout":"5s"}`
	d.good(200, call{"POST", target, header("Kv-Request-Id", "repair-1", "Content-Type", "application/json"), all})
	d.good(200, call{"POST", "/v1/cluster%3Arepair", nil, `{"node":"a","timeout":"5s"}`})
	d.good(200, call{"POST", "/v1/cluster%3arepair", nil, `{"key_prefix":"k","timeout":"5s"}`})
	d.access(call{"POST", target, nil, all})
	away := d.on()
	away.h.nodes.Away["c"] = true
	var begun struct{ Token string }
	if err := json.Unmarshal(away.good(200, call{"POST", target, nil, "{}"}).body, &begun); err != nil || begun.Token == "" {
		d.t.Fatalf("no token: %v", err)
	}
	away.h.nodes.Away["c"] = false
	away.good(200, call{"POST", target, nil, fmt.Sprintf(`{"token":%q,"timeout":"5s"}`, begun.Token)})
	d.bad(400, call{"POST", target + "?dry_run=true", nil, all})
	d.bad(400, call{"POST", target, nil, `{"timeout":"90s"}`})
	d.good(200, call{"POST", target, nil, `{"node":"a","key_prefix":"k","timeout":"5s"}`})
	d.good(200, call{"POST", target, nil, `{"key_prefix_base64":"//8=","timeout":"5s"}`})
	d.raw(400, call{"POST", target, nil, ""}, "POST "+target+" HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n{", true)
	d.bad(400, call{"POST", target, nil, `{"token":"x"}`})
	d.bad(400, call{"POST", target, nil, `{"node":"nobody"}`})
	d.bad(400, call{"POST", target, nil, "{"})
	d.bad(400, call{"POST", target, header("Kv-Request-Id", ""), all})
	d.bad(413, call{"POST", target, nil, strings.Repeat(" ", 3<<20+1)})
	d.bad(414, call{"POST", tooLong(target), nil, all})
	d.bad(415, call{"POST", target, header("Content-Encoding", "gzip"), all})
	d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{"POST", target, nil, all})
	d.on(func(c *httpapi.Config) { c.Cluster = grpcapi.NewCluster(nil, nil, grpcapi.About{}) }).good(500, call{"POST", target, nil, all})
	ignorant := d.on()
	ignorant.h.nodes.Unknown = true
	ignorant.good(503, call{"POST", target, nil, all})
	late := d.on(func(c *httpapi.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
	late.raw(504, call{"POST", target, nil, ""}, "POST "+target+" HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n", false)
}

// changes sends each change of the layout, and all that can be wrong with it.
func (d *driver) changes() {
	d.t.Helper()
	for _, c := range []struct{ path, verb, query string }{
		{"/v1/cluster/nodes/d", "decommission", ""}, {"/v1/cluster/nodes/d", "remove", "accept_loss=false"},
		{"/v1/cluster/nodes/d", "replace", "by=new&accept_loss=true"}, {"/v1/cluster/nodes/d", "setWeight", "weight=2.5"}, {"/v1/cluster", "abort", ""},
	} {
		target := c.path + ":" + c.verb
		if c.query != "" {
			target += "?" + c.query
		}
		with := func(more string) string {
			if strings.Contains(target, "?") {
				return target + "&" + more
			}
			return target + "?" + more
		}
		// four is a cluster of which one may leave, with something under way where that is to be given up.
		four := func(change ...func(*httpapi.Config)) *driver {
			nodes, err := edgetest.NewNodes(4, 3)
			if err != nil {
				d.t.Fatal(err)
			}
			nodes.Outsiders = map[ring.NodeID]string{{9}: "new"}
			if c.verb == "abort" {
				if _, err := nodes.View.Propose([]ring.Change{{Kind: ring.ChangeWeight, Member: ring.Member{ID: ring.NodeID{1}, Weight: 2}}}); err != nil {
					d.t.Fatal(err)
				}
			}
			out := d.on(append([]func(*httpapi.Config){func(cfg *httpapi.Config) {
				cfg.Cluster = grpcapi.NewCluster(nodes, edgetest.NewStore(), grpcapi.About{R: 2, W: 2})
			}}, change...)...)
			out.h.nodes = nodes
			return out
		}
		sound := four()
		sound.good(200, call{"POST", with("dry_run=true"), header("Kv-Request-Id", "change-1"), ""})
		sound.good(200, call{"POST", target, nil, ""})
		if sound.h.nodes.View.Newest() == sound.h.nodes.View.Settled() {
			d.t.Errorf("%s changed nothing", target)
		}
		for _, colon := range []string{"%3A", "%3a"} {
			four().good(200, call{"POST", strings.Replace(target, ":", colon, 1), nil, ""})
		}
		for _, bad := range []string{"dry_run=maybe", "dry_run=", "timeout=1s", "dry_run=1&dry_run=1"} {
			sound.bad(400, call{"POST", with(bad), nil, ""})
		}
		sound.bad(400, call{"POST", target, nil, "{}"})
		sound.bad(400, call{"POST", target, header("Kv-Request-Id", ""), ""})
		sound.bad(414, call{"POST", tooLong(c.path + ":" + c.verb), nil, ""})
		sound.bad(403, call{"POST", target, header("Sec-Fetch-Site", "cross-site", "Origin", "https://elsewhere.example"), ""})
		d.access(call{"POST", target, nil, ""})
		four(func(cfg *httpapi.Config) { cfg.Admission = full() }).good(429, call{"POST", target, nil, ""})
		four(func(cfg *httpapi.Config) { cfg.Cluster = grpcapi.NewCluster(nil, nil, grpcapi.About{}) }).good(500, call{"POST", target, nil, ""})
		for want, err := range map[int]error{409: status.Error(codes.FailedPrecondition, "a layout change is pending"), 503: status.Error(codes.Unavailable, "away"), 504: context.DeadlineExceeded} {
			failing := four()
			failing.h.nodes.Change = func(*storagev1.ChangeLayoutRequest) error { return err }
			failing.good(want, call{"POST", target, nil, ""})
		}
		ignorant := four()
		ignorant.h.nodes.Unknown = true
		ignorant.good(503, call{"POST", target, nil, ""})
		if c.verb == "abort" {
			d.good(409, call{"POST", target, nil, ""})
			continue
		}
		sound.good(404, call{"POST", strings.Replace(target, "/d:", "/nobody:", 1), nil, ""})
	}
	// With one copy of each key, nobody is left to bring those of a dead node.
	single, err := edgetest.NewNodes(4, 1)
	if err != nil {
		d.t.Fatal(err)
	}
	alone := d.on(func(cfg *httpapi.Config) { cfg.Cluster = grpcapi.NewCluster(single, nil, grpcapi.About{R: 1, W: 1}) })
	alone.good(200, call{"POST", "/v1/cluster/nodes/d:remove?dry_run=1", nil, ""})
	for _, bad := range []string{"d:setWeight", "d:setWeight?weight=0", "d:setWeight?weight=17", "d:setWeight?weight=NaN", "d:setWeight?weight=much", "d:replace"} {
		d.bad(400, call{"POST", "/v1/cluster/nodes/" + strings.Replace(bad, "d:", "c:", 1), nil, ""})
	}
}

// canStop asks whether a node may stop.
func (d *driver) canStop(m string) {
	d.t.Helper()
	target := "/v1/cluster/nodes/a:canStop"
	d.good(200, call{m, target, header("Kv-Request-Id", "stop-1"), ""})
	d.good(200, call{m, "/v1/cluster/nodes/a%3AcanStop", nil, ""})
	away := d.on()
	away.h.nodes.Away["b"] = true
	away.good(200, call{m, target, nil, ""})
	d.bad(400, call{m, target + "?dry_run=true", nil, ""})
	d.good(404, call{m, "/v1/cluster/nodes/nobody:canStop", nil, ""})
	d.bad(414, call{m, tooLong(target), nil, ""})
	d.access(call{m, target, nil, ""})
	d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{m, target, nil, ""})
	d.on(func(c *httpapi.Config) { c.Cluster = grpcapi.NewCluster(nil, nil, grpcapi.About{}) }).good(500, call{m, target, nil, ""})
	ignorant := d.on()
	ignorant.h.nodes.Unknown = true
	ignorant.good(503, call{m, target, nil, ""})
}

func (d *driver) service(m string) {
	d.t.Helper()
	named := header("Kv-Request-Id", "health-1")
	for _, target := range []string{"/healthz", "/readyz", "/openapi.yaml"} {
		d.good(200, call{m, target, named, ""})
		d.bad(414, call{m, tooLong(target), nil, ""})
	}
	for _, target := range []string{"/ui", "/docs"} {
		d.good(308, call{m, target, named, ""})
		d.bad(414, call{m, tooLong(target), nil, ""})
	}
	for _, target := range []string{"/ui/", "/ui/main.js", "/ui/docs.html", "/ui/openapi.json"} {
		d.bad(414, call{m, tooLong(target), nil, ""})
		page := d.good(200, call{m, target, named, ""})
		d.good(304, call{m, target, header("If-None-Match", page.Header.Get("Etag")), ""})
	}
	d.good(404, call{m, "/ui/nothing.js", nil, ""})
	draining := d.on()
	draining.h.ready = "draining"
	draining.good(503, call{m, "/readyz", nil, ""})
	draining.good(200, call{m, "/healthz", nil, ""})
	etag := d.good(200, call{m, "/openapi.yaml", nil, ""}).Header.Get("Etag")
	d.good(304, call{m, "/openapi.yaml", header("If-None-Match", etag), ""})
}

// outside asks for what belongs to no operation.
func (d *driver) outside() {
	d.t.Helper()
	for _, target := range []string{"/", "/docs/", "/metrics", "/v1/kv:batchFrob", "/v1/cluster/nope"} {
		d.bad(404, call{"GET", target, nil, ""})
	}
	shared := d.on(func(c *httpapi.Config) { c.CORSOrigins = []string{"https://app.example"} })
	shared.bad(204, call{"OPTIONS", "/v1/kv/text", header("Origin", "https://app.example", "Access-Control-Request-Method", "PUT"), ""})
}

// probe asks every pattern of the router for every method, and every operation for parameters that it does not take.
func (d *driver) probe() {
	d.t.Helper()
	patterns, err := httpapi.Patterns(d.h.api)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, pattern := range patterns {
		path := pathOf(pattern)
		target := strings.Replace(pattern, "*", "probe", 1)
		var takes []string
		allow := ""
		for _, m := range []string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "FROB"} {
			c := call{m, target, nil, ""}
			a := d.h.do(c)
			if a.StatusCode == http.StatusMethodNotAllowed {
				d.note(c, true, a)
				allow = a.Header.Get("Allow")
				continue
			}
			takes = append(takes, m)
			if !strings.HasPrefix(path, "/v1/") {
				continue
			}
			for _, name := range []string{"r", "w", "timeout", "etag", "conflict", "explain", "sloppy", "prefix", "dry_run"} {
				value := map[string]string{"conflict": "error", "timeout": "1s", "explain": "1", "sloppy": "1"}[name]
				if value == "" {
					value = "2"
				}
				c := call{m, target + "?" + name + "=" + value, nil, ""}
				if a := d.h.do(c); a.StatusCode != http.StatusBadRequest {
					d.note(c, false, a) // a parameter that is taken must be in the document
				}
			}
		}
		if said := strings.Split(allow, ", "); !slices.Equal(sorted(said), sorted(takes)) {
			d.t.Errorf("%s takes %v, and says %v", path, takes, said)
		}
		if before, ok := d.methods[path]; ok && !slices.Equal(before, takes) {
			d.t.Errorf("%s takes %v, and written otherwise %v", path, before, takes)
		}
		d.methods[path] = takes
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }
