package httpapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/httpapi/edgetest"
	"github.com/dotring/dotring/ringsvc/causal"
)

func castagnoliOf(s string) uint32 {
	return crc32.Checksum([]byte(s), crc32.MakeTable(crc32.Castagnoli))
}

func TestKeysRoundTrip(t *testing.T) {
	h := newHarness(t)
	keys := map[string]string{ // as sent: as meant
		"k":                        "k",
		"a/b":                      "a/b",
		"a%2Fb":                    "a/b",
		"a%252Fb":                  "a%2Fb",
		"a%25252Fb":                "a%252Fb",
		"a+b":                      "a+b",
		"a%2Bb":                    "a+b",
		"a%20b":                    "a b",
		"..":                       "..",
		".":                        ".",
		"../../etc/passwd":         "../../etc/passwd",
		"a/../b":                   "a/../b",
		"a/./b":                    "a/./b",
		"%2E%2E":                   "..",
		"/":                        "/",
		"//":                       "//",
		"a//b":                     "a//b",
		"a/":                       "a/",
		"/a":                       "/a",
		"a%00b":                    "a\x00b",
		"%ff%FE":                   "\xff\xfe",
		"%C3%A9":                   "é",
		"\u00e9":                   "é", // not escaped, as careless clients send it
		"%e2%98%83/%F0%9F%98%80":   "☃/😀",
		"a%3Fb":                    "a?b",
		"a%23b":                    "a#b",
		"a:b":                      "a:b",
		"a;b":                      "a;b",
		"a%3Bb":                    "a;b",
		":batchGet":                ":batchGet",
		"a%0d%0ab":                 "a\r\nb",
		"a\"b":                     "a\"b",
		"%7e~":                     "~~",
		"a*b{c}":                   "a*b{c}",
		"http://x/v1/kv/k":         "http://x/v1/kv/k",
		strings.Repeat("k", 250):   strings.Repeat("k", 250),
		strings.Repeat("%FF", 250): strings.Repeat("\xff", 250),
	}
	for sent, meant := range keys {
		value := fmt.Sprintf("value of %x", meant)
		h.put(sent, value)
		if got := string(h.store.LastPut.Key); got != meant {
			t.Errorf("%q came as %q, want %q", sent, got, meant)
		}
		if a := h.get(sent); a.StatusCode != 200 || string(a.body) != value {
			t.Errorf("%q: %d %q", sent, a.StatusCode, a.body)
		}
		a := h.do(call{"GET", "/v1/cluster/keys/" + sent, nil, ""})
		var seen struct {
			Key, KeyBase64 string
			Base64         []byte `json:"key_base64"`
		}
		if err := json.Unmarshal(a.body, &seen); err != nil || a.StatusCode != 200 {
			t.Fatalf("inspect %q: %d %s %v", sent, a.StatusCode, a.body, err)
		}
		if seen.Key != meant && string(seen.Base64) != meant {
			t.Errorf("inspect %q: key %q, base64 %q", sent, seen.Key, seen.Base64)
		}
	}
	// Different keys are different values: every key still has its own.
	meant := map[string]bool{}
	for sent, key := range keys {
		meant[key] = true
		if a := h.get(sent); string(a.body) != fmt.Sprintf("value of %x", key) {
			t.Errorf("%q was overwritten: %q", sent, a.body)
		}
	}
	for sent := range keys {
		if a := h.do(call{"DELETE", "/v1/kv/" + sent, nil, ""}); a.StatusCode != 200 {
			t.Errorf("delete %q: %d", sent, a.StatusCode)
		}
	}
	for key := range meant {
		if v := h.get(url.PathEscape(key)); v.StatusCode != 404 {
			t.Errorf("%q: status %d after its deletion", key, v.StatusCode)
		}
	}
}

func TestReadValue(t *testing.T) {
	h := newHarness(t)
	token := h.put("k", "hello", "Content-Type", "text/plain; charset=utf-8")
	a := h.get("k")
	if a.StatusCode != 200 || string(a.body) != "hello" {
		t.Fatalf("%d %q", a.StatusCode, a.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "Content-Length": "5", "Kv-Context": token,
		"Last-Modified": "Sun, 22 Nov 2026 12:00:00 GMT", "Cache-Control": "private, no-cache",
		"Vary": "Kv-Context, Accept, Authorization",
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	requireSafe(t, a)
	if etag := a.Header.Get("Etag"); len(etag) != 34 || etag[0] != '"' {
		t.Errorf("ETag %q", etag)
	}
	if id := a.Header.Get("Kv-Request-Id"); len(id) != 32 {
		t.Errorf("request id %q", id)
	}
	if a := h.get("k", "Kv-Context", token); a.Header.Get("Cache-Control") != "no-store" || a.StatusCode != 200 {
		t.Errorf("asked with a context: %d, %q", a.StatusCode, a.Header.Get("Cache-Control"))
	}
	if a := h.get("k", "Range", "bytes=0-1"); a.StatusCode != 200 || string(a.body) != "hello" {
		t.Errorf("Range: %d %q", a.StatusCode, a.body)
	}
}

func TestETagIsOfBytesAndType(t *testing.T) {
	h, other := newHarness(t), newHarness(t)
	h.put("a", "x", "Content-Type", "text/plain")
	h.put("b", "x", "Content-Type", "text/html")
	h.put("c", "y", "Content-Type", "text/plain")
	other.put("z", "x", "Content-Type", "text/plain")
	tag := func(h *harness, key string) string { return h.get(key).Header.Get("Etag") }
	if tag(h, "a") != tag(other, "z") {
		t.Error("the tags of one value differ between gateways")
	}
	if tag(h, "a") == tag(h, "b") || tag(h, "a") == tag(h, "c") {
		t.Error("different values have one tag")
	}
	// The tag is part of the API: clients keep it across releases.
	if got := tag(h, "a"); got != `"f7bae0259909b9dd3c77a2dc334e5d44"` {
		t.Errorf("the tag of x as text/plain became %s", got)
	}
}

func TestEmptyValue(t *testing.T) {
	h := newHarness(t)
	for name, text := range map[string]string{
		"length 0":  "PUT /v1/kv/k HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n",
		"no length": "PUT /v1/kv/k HTTP/1.1\r\nHost: t\r\n\r\n",
		"chunked":   "PUT /v1/kv/k HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		if a := h.raw("PUT", text, false); a.StatusCode != 200 {
			t.Fatalf("%s: %d %s", name, a.StatusCode, a.body)
		}
		a := h.get("k")
		if a.StatusCode != 200 || a.Header.Get("Content-Length") != "0" || len(a.body) != 0 ||
			a.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
		}
	}
}

func TestBodiesAreStoredRaw(t *testing.T) {
	h := newHarness(t)
	body := "a=b&c=%41\x00\xff"
	h.put("k", body, "Content-Type", "application/x-www-form-urlencoded")
	if a := h.get("k"); string(a.body) != body || a.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		t.Errorf("%q %s", a.body, a.Header.Get("Content-Type"))
	}
	h.put("k", body, "Content-Encoding", "Identity")
	if h.store.LastPut.Checksum != castagnoliOf(body) {
		t.Error("the checksum is not that of the value")
	}
	big := strings.Repeat("0123456789abcdef", maxValue/16)
	chunked := &strings.Builder{}
	for part := range slices.Chunk([]byte(big), 70_000) {
		fmt.Fprintf(chunked, "%x\r\n%s\r\n", len(part), part)
	}
	chunked.WriteString("0\r\n\r\n")
	if a := h.do(call{"POST", "/v1/kv/big", header("Transfer-Encoding", "chunked"), chunked.String()}); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if a := h.get("big"); string(a.body) != big || h.store.LastPut.Checksum != castagnoliOf(big) {
		t.Error("the largest value, in chunks, came back changed")
	}
}

func TestWriteAnswer(t *testing.T) {
	h := newHarness(t)
	a := h.do(call{"POST", "/v1/kv/k?w=3&timeout=30s&sloppy=false", header("Kv-Request-Id", "my id"), "v"})
	var body struct {
		Context                string
		Siblings, Acks, Hinted *int
	}
	if err := json.Unmarshal(a.body, &body); err != nil || a.StatusCode != 200 {
		t.Fatalf("%d %s %v", a.StatusCode, a.body, err)
	}
	if body.Context == "" || body.Context != a.Header.Get("Kv-Context") || *body.Siblings != 1 || *body.Acks != 2 || *body.Hinted != 0 {
		t.Errorf("%s", a.body)
	}
	if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Kv-Request-Id") != "my id" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.Header)
	}
	requireSafe(t, a)
	p := h.store.LastPut
	if p.W != 3 || p.Sloppy || p.RequestID != "my id" || !p.ClientRequestID || p.Trace != "my id" || p.Context != nil {
		t.Errorf("%+v", p)
	}
	// The same name makes no second write.
	again := h.do(call{"PUT", "/v1/kv/k?w=3", header("Kv-Request-Id", "my id"), "v"})
	if again.Header.Get("Kv-Context") != body.Context {
		t.Error("a repetition has another context")
	}
	h.put("k", "v")
	if p := h.store.LastPut; p.RequestID == "" || p.ClientRequestID || !p.Sloppy || p.W != 0 {
		t.Errorf("%+v", p)
	}
}

func TestDeleteThenGet(t *testing.T) {
	h := newHarness(t)
	h.problem(h.get("k"), 404, "no-value")
	if h.get("k").Header.Get("Kv-Context") == "" {
		t.Error("a 404 without context")
	}
	if a := h.do(call{"DELETE", "/v1/kv/k", nil, ""}); a.StatusCode != 200 {
		t.Errorf("deleting nothing: %d", a.StatusCode)
	}
	seen := h.put("k", "v")
	a := h.do(call{"DELETE", "/v1/kv/k", header("Kv-Context", seen), ""})
	if a.StatusCode != 200 || a.Header.Get("Kv-Context") == "" {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	a = h.get("k", "Kv-Context", a.Header.Get("Kv-Context"))
	h.problem(a, 404, "no-value")
	h.put("k", "w", "Kv-Context", a.Header.Get("Kv-Context"))
	if a := h.get("k"); a.StatusCode != 200 || string(a.body) != "w" {
		t.Errorf("after the context of a 404: %d %q", a.StatusCode, a.body)
	}
}

func TestReadYourWrites(t *testing.T) {
	h := newHarness(t)
	token := h.put("k", "v")
	h.store.SetRecord("k", causal.Set{})
	p := h.problem(h.get("k", "Kv-Context", token), 503, "stale-read")
	if len(p.Replicas) != 2 {
		t.Errorf("replicas %v", p.Replicas)
	}
}

func TestConflict(t *testing.T) {
	h := newHarness(t)
	token := h.conflict("k")
	a := h.get("k")
	if a.Header.Get("Content-Type") != "application/vnd.dotring.siblings+json" || a.Header.Get("Cache-Control") != "no-store" ||
		a.Header.Get("Kv-Context") != token || a.Header.Get("Last-Modified") == "" {
		t.Fatalf("%v", a.Header)
	}
	requireSafe(t, a)
	var doc struct {
		Key, Context string
		Siblings     []struct {
			Value, ContentType string
			CT                 string `json:"content_type"`
			Etag               string
			LastModified       string `json:"last_modified"`
			Tombstone          *bool
		}
		Explain []any
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	if doc.Key != "k" || doc.Context != token || len(doc.Siblings) != 2 || doc.Explain != nil {
		t.Fatalf("%s", a.body)
	}
	for i, want := range []struct{ value, kind string }{{"one", "text/plain"}, {"two", "text/html"}} {
		s := doc.Siblings[i]
		if s.Value != base64.StdEncoding.EncodeToString([]byte(want.value)) || s.CT != want.kind || *s.Tombstone ||
			s.LastModified != "2026-11-22T12:00:00Z" {
			t.Errorf("%+v", s)
		}
		// The one that was picked comes with the context of all.
		one := h.get("k?etag=" + s.Etag)
		if one.StatusCode != 200 || string(one.body) != want.value || one.Header.Get("Kv-Context") != token ||
			one.Header.Get("Etag") != `"`+s.Etag+`"` || one.Header.Get("Content-Type") != want.kind {
			t.Errorf("picked: %d %q %v", one.StatusCode, one.body, one.Header)
		}
		if quoted := h.get("k?etag=%22" + s.Etag + "%22"); quoted.StatusCode != 200 {
			t.Errorf("picked with quotes: %d", quoted.StatusCode)
		}
	}
	miss := h.get("k?etag=nope")
	h.problem(miss, 404, "no-such-sibling")
	if miss.Header.Get("Kv-Context") != token {
		t.Error("no context beside no-such-sibling")
	}
	conflict := h.get("k?conflict=error")
	if conflict.StatusCode != 409 || !bytes.Equal(conflict.body, a.body) || conflict.Header.Get("Kv-Context") != token {
		t.Errorf("conflict=error: %d %s", conflict.StatusCode, conflict.body)
	}
	// The context of the 300 resolves it.
	h.put("k", "both", "Kv-Context", token)
	if a := h.get("k?conflict=error"); a.StatusCode != 200 || string(a.body) != "both" {
		t.Errorf("resolved: %d %q", a.StatusCode, a.body)
	}
}

func TestConflictOfAKeyThatIsNoText(t *testing.T) {
	h := newHarness(t)
	h.conflict("%ff")
	var doc map[string]any
	if err := json.Unmarshal(h.get("%ff").body, &doc); err != nil {
		t.Fatal(err)
	}
	if _, ok := doc["key"]; ok || doc["key_base64"] != "/w==" {
		t.Errorf("%v", doc)
	}
}

func TestTombstoneBesideAValue(t *testing.T) {
	h := newHarness(t)
	none := h.get("k").Header.Get("Kv-Context")
	h.put("k", "v", "Kv-Context", none)
	if a := h.do(call{"DELETE", "/v1/kv/k", header("Kv-Context", none), ""}); a.StatusCode != 200 {
		t.Fatal(a.StatusCode)
	}
	a := h.get("k")
	if a.StatusCode != 300 || !strings.Contains(string(a.body), `"tombstone":true`) {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	var doc struct {
		Siblings []struct {
			Etag      string
			Tombstone bool
		}
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	for _, s := range doc.Siblings {
		want := 200
		if s.Tombstone {
			want = 404
		}
		if got := h.get("k?etag=" + s.Etag); got.StatusCode != want || got.Header.Get("Kv-Context") == "" {
			t.Errorf("picked: %d, want %d", got.StatusCode, want)
		}
	}
}

func TestEqualSiblingsAreOne(t *testing.T) {
	h := newHarness(t)
	none := h.get("k").Header.Get("Kv-Context")
	h.put("k", "same", "Kv-Context", none)
	h.put("k", "same", "Kv-Context", none)
	a := h.get("k?explain=1")
	if a.StatusCode != 200 || string(a.body) != "same" {
		t.Fatalf("%d %q", a.StatusCode, a.body)
	}
	var e struct {
		Replicas []map[string]any
		Siblings []map[string]any
	}
	if err := json.Unmarshal([]byte(a.Header.Get("Kv-Explain")), &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Siblings) != 2 || len(e.Replicas) != 2 {
		t.Errorf("%+v", e)
	}
}

func TestMultipart(t *testing.T) {
	h := newHarness(t)
	h.conflict("k")
	jsonTag := h.get("k").Header.Get("Etag")
	a := h.get("k", "Accept", "multipart/mixed")
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || a.StatusCode != 300 || a.Header.Get("Etag") != jsonTag {
		t.Fatalf("%d %v %v", a.StatusCode, a.Header, err)
	}
	r := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	var got []string
	for {
		part, err := r.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part.Header.Get("Content-Type")+" "+string(text))
		if part.Header.Get("Content-Length") != strconv.Itoa(len(text)) || part.Header.Get("Etag") == "" {
			t.Errorf("%v", part.Header)
		}
	}
	if !slices.Equal(got, []string{"text/plain one", "text/html two"}) {
		t.Errorf("%q", got)
	}
	for accept, multi := range map[string]bool{
		"":                                      false,
		"*/*":                                   false,
		"application/json":                      false,
		"multipart/*":                           true,
		"multipart/mixed, */*":                  true,
		"multipart/mixed, */*;q=0.5":            true,
		"multipart/mixed;q=0.2, */*":            false,
		"multipart/mixed;q=0":                   false,
		"multipart/mixed, application/json":     false,
		"application/json;q=.5,multipart/mixed": true,
		"MULTIPART/MIXED; q=1":                  true,
		"multipart/mixed;q=nonsense":            false,
	} {
		a := h.get("k", "Accept", accept)
		if got := strings.HasPrefix(a.Header.Get("Content-Type"), "multipart/mixed"); got != multi || a.StatusCode != 300 {
			t.Errorf("Accept %q: %d %s", accept, a.StatusCode, a.Header.Get("Content-Type"))
		}
	}
}

// TestBoundaryIsInNoValue asks for a boundary that a value already has: the tag of a conflict is kept by an empty value.
func TestBoundaryIsInNoValue(t *testing.T) {
	siblings := []causal.Sibling{{Value: []byte("x")}, {Value: []byte("y")}}
	first := httpapi.ChooseBoundary(siblings)
	if !strings.HasPrefix(first, "dotring-") || len(first) > 70 {
		t.Errorf("boundary %q", first)
	}
	view := edge.View{Shown: siblings, Status: 300}
	if !httpapi.BoundaryTaken(view, "x") || httpapi.BoundaryTaken(view, "z") {
		t.Error("a boundary inside a value is not seen")
	}
}

func TestNotModified(t *testing.T) {
	h := newHarness(t)
	h.put("k", "v", "Content-Type", "text/plain")
	etag := h.get("k").Header.Get("Etag")
	newer := h.put("k", "v", "Content-Type", "text/plain")
	for line, want := range map[string]int{
		etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, `"x"`: 200, strings.Trim(etag, `"`): 200, "": 200,
	} {
		a := h.get("k", "If-None-Match", line)
		if a.StatusCode != want {
			t.Errorf("If-None-Match %q: %d, want %d", line, a.StatusCode, want)
		}
		if a.Header.Get("Kv-Context") != newer || a.Header.Get("Etag") != etag || a.Header.Get("Cache-Control") != "private, no-cache" {
			t.Errorf("If-None-Match %q: %v", line, a.Header)
		}
		if want == 304 && (len(a.body) != 0 || a.Header.Get("Content-Type") != "") {
			t.Errorf("304 with a body: %q %v", a.body, a.Header)
		}
	}
	h.problem(h.get("none", "If-None-Match", "*"), 404, "no-value")
	h.conflict("c")
	all := h.get("c").Header.Get("Etag")
	if a := h.get("c", "If-None-Match", all); a.StatusCode != 304 || a.Header.Get("Kv-Context") == "" {
		t.Errorf("the same siblings: %d", a.StatusCode)
	}
	if a := h.get("c", "If-None-Match", "*"); a.StatusCode != 300 {
		t.Errorf("a conflict was hidden by *: %d", a.StatusCode)
	}
	if a := h.get("c?conflict=error", "If-None-Match", all); a.StatusCode != 409 {
		t.Errorf("conflict=error: %d", a.StatusCode)
	}
}

// TestHeadIsGetWithoutBody compares the headers of both for every kind of answer.
func TestHeadIsGetWithoutBody(t *testing.T) {
	h := newHarness(t)
	h.put("k", strings.Repeat("long ", 10_000), "Content-Type", "text/plain")
	h.conflict("c")
	etag := h.get("k").Header.Get("Etag")
	for _, c := range []call{
		{"GET", "/v1/kv/k", nil, ""},
		{"GET", "/v1/kv/none", nil, ""},
		{"GET", "/v1/kv/c", nil, ""},
		{"GET", "/v1/kv/c", header("Accept", "multipart/mixed"), ""},
		{"GET", "/v1/kv/c?conflict=error", nil, ""},
		{"GET", "/v1/kv/k", header("If-None-Match", etag), ""},
		{"GET", "/v1/kv/k?r=9", nil, ""},
		{"GET", "/v1/kv/", nil, ""},
		{"GET", "/nope", nil, ""},
		{"GET", "/healthz", nil, ""},
		{"GET", "/readyz", nil, ""},
		{"GET", "/v1/cluster/status", nil, ""},
		{"GET", "/v1/cluster/nodes", nil, ""},
		{"GET", "/v1/cluster/layout", nil, ""},
		{"GET", "/v1/cluster/keys/k", nil, ""},
	} {
		c.header = cloneWith(c.header, "Kv-Request-Id", "same")
		get := h.do(c)
		c.method = "HEAD"
		head := h.do(c)
		if len(head.body) != 0 || head.StatusCode != get.StatusCode {
			t.Errorf("%s: GET %d, HEAD %d with %d bytes", c.target, get.StatusCode, head.StatusCode, len(head.body))
		}
		if get.StatusCode != 304 && get.Header.Get("Content-Length") != strconv.Itoa(len(get.body)) {
			t.Errorf("%s: Content-Length %q of %d bytes", c.target, get.Header.Get("Content-Length"), len(get.body))
		}
		get.Header.Del("Date")
		head.Header.Del("Date")
		// The JSON of proto messages has spaces at random, by design of its library.
		if strings.HasPrefix(c.target, "/v1/cluster") {
			get.Header.Del("Content-Length")
			head.Header.Del("Content-Length")
		}
		if a, b := fmt.Sprint(get.Header), fmt.Sprint(head.Header); a != b {
			t.Errorf("%s:\nGET  %s\nHEAD %s", c.target, a, b)
		}
	}
}

func cloneWith(h http.Header, pairs ...string) http.Header {
	out := header(pairs...)
	for k, v := range h {
		out[k] = v
	}
	return out
}

func TestExplain(t *testing.T) {
	h := newHarness(t)
	h.put("k", "v")
	h.conflict("c")
	if got := h.get("k").Header["Kv-Explain"]; got != nil {
		t.Errorf("not asked for: %q", got)
	}
	for target, status := range map[string]int{"k?explain=1": 200, "c?explain=true": 300, "none?explain=1": 404} {
		a := h.get(target)
		line := a.Header.Get("Kv-Explain")
		if a.StatusCode != status || !strings.Contains(line, `"counter":"1152921504606846976"`) || !strings.Contains(line, `"repaired":true`) {
			t.Errorf("%s: %d %s", target, a.StatusCode, line)
		}
		in := map[int]string{300: `"explain":[{`, 404: `"replicas":[{`}[status]
		if !strings.Contains(string(a.body), in) {
			t.Errorf("%s: %s", target, a.body)
		}
	}
}

func TestExplainFitsAHeader(t *testing.T) {
	h := newHarness(t)
	set := causal.Set{}
	for i := range 64 {
		d := causal.Dot{Actor: causal.Actor{byte(i + 1)}, Counter: 1 << 50}
		set.Clock = append(set.Clock, d)
		set.Siblings = append(set.Siblings, causal.Sibling{Dot: d, Value: []byte{byte(i)}, Time: uint64(edgetest.Now.UnixMilli()) << 16})
	}
	h.store.SetRecord("k", set)
	a := h.get("k?explain=1")
	line := a.Header.Get("Kv-Explain")
	if len(line) > 4096 || !strings.Contains(line, `"omitted":["clocks","siblings"]`) {
		t.Errorf("%d characters: %s", len(line), line)
	}
	if len(a.Header.Get("Kv-Context")) > 3072 {
		t.Error("the context is too long")
	}
}

// TestReadNeverFailsForItsClock reads a record whose clock no token holds, and resolves it with the context it got.
func TestReadNeverFailsForItsClock(t *testing.T) {
	h := newHarness(t)
	set := causal.Set{}
	for i := range 200 {
		set.Clock = append(set.Clock, causal.Dot{Actor: causal.Actor{byte(i/100 + 2), byte(i)}, Counter: 1 << 40})
	}
	for _, i := range []int{3, 150, 199} {
		set.Siblings = append(set.Siblings, causal.Sibling{Dot: set.Clock[i], Value: []byte{byte(i)}, Time: 1 << 40})
	}
	h.store.SetRecord("k", set)
	a := h.get("k")
	token := a.Header.Get("Kv-Context")
	if a.StatusCode != 300 || len(token) > 3072 || token == "" {
		t.Fatalf("%d, %d characters", a.StatusCode, len(token))
	}
	h.put("k", "resolved", "Kv-Context", token)
	if a := h.get("k"); a.StatusCode != 200 || string(a.body) != "resolved" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
