package dotring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/openapi/sdk/go/api"
)

// TestOrderIsThatOfAllLanguages reads the orders that the tests of the other languages read as well.
func TestOrderIsThatOfAllLanguages(t *testing.T) {
	raw, err := os.ReadFile("../testdata/rendezvous.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Gateways []string
		Orders   []struct {
			Key   []byte
			Order []int
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	first := map[string]int{}
	for _, g := range golden.Orders {
		got := Order(golden.Gateways, string(g.Key))
		var want []string
		for _, i := range g.Order {
			want = append(want, golden.Gateways[i])
		}
		if !slices.Equal(got, want) {
			t.Errorf("key %q: %v, want %v", g.Key, got, want)
		}
		fewer := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s == got[1] })
		if left := Order(fewer, string(g.Key)); !slices.Equal(left, fewer) {
			t.Errorf("key %q: without %s the others change places: %v", g.Key, got[1], left)
		}
		first[got[0]]++
	}
	if len(golden.Orders) < 20 || len(first) != len(golden.Gateways) {
		t.Errorf("%d orders begin with %v", len(golden.Orders), first)
	}
}

func TestOrderSpreadsKeys(t *testing.T) {
	gateways, first := []string{"http://10.0.0.1:8080", "http://10.0.0.2:8080", "http://10.0.0.3:8080"}, map[string]int{}
	for i := range 3000 {
		first[Order(gateways, fmt.Sprintf("user/%d", i))[0]]++
	}
	for _, g := range gateways {
		if first[g] < 850 || first[g] > 1150 {
			t.Errorf("%s comes first for %d of 3000 keys", g, first[g])
		}
	}
}

func TestEscape(t *testing.T) {
	for key, want := range map[string]string{
		"a/b": "a%2Fb", "%2F": "%252F", "a+b c": "a%2Bb%20c", "..": "..", "ä": "%C3%A4", "\xff\x00": "%FF%00", "-._~": "-._~", "?#": "%3F%23",
	} {
		if got := Escape(key); got != want {
			t.Errorf("%q is escaped as %s, want %s", key, got, want)
		}
	}
}

func TestAgain(t *testing.T) {
	const sec = time.Second
	for name, c := range map[string]struct {
		a       attempt
		n       int
		write   bool
		wait    time.Duration
		repeat  bool
		doubted bool
	}{
		"no connection, another gateway": {a: attempt{}, n: 1, write: true, repeat: true},
		"no connection anywhere":         {a: attempt{}, n: 2, write: true, wait: 100 * time.Millisecond, repeat: true},
		"connection lost":                {a: attempt{sent: true}, n: 1, write: true, repeat: true, doubted: true},
		"attempts used up":               {a: attempt{sent: true}, n: 4, write: true, doubted: true},
		"overloaded":                     {a: attempt{status: 429, sent: true, outcome: NotApplied, retryAfter: sec}, n: 1, write: true, wait: sec, repeat: true},
		"unavailable read":               {a: attempt{status: 503, sent: true, retryAfter: sec}, n: 1, wait: sec, repeat: true, doubted: true},
		"asks for too much":              {a: attempt{status: 503, sent: true, outcome: NotApplied, retryAfter: 11 * sec}, n: 1},
		"deadline of a write":            {a: attempt{status: 504, sent: true, outcome: InDoubt}, n: 1, write: true, wait: 50 * time.Millisecond, repeat: true, doubted: true},
		"disk full, for certain":         {a: attempt{status: 507, sent: true, outcome: NotApplied}, n: 1, write: true},
		"disk full, in doubt":            {a: attempt{status: 507, sent: true, outcome: InDoubt}, n: 1, write: true, wait: 50 * time.Millisecond, repeat: true, doubted: true},
		"too many siblings":              {a: attempt{status: 409, sent: true, outcome: NotApplied}, n: 1, write: true},
		"balancer":                       {a: attempt{status: 502, sent: true}, n: 1, write: true, wait: 50 * time.Millisecond, repeat: true, doubted: true},
		"bad key":                        {a: attempt{status: 400, sent: true}, n: 1},
		"internal error of a read":       {a: attempt{status: 500, sent: true}, n: 1, doubted: true},
	} {
		wait, repeat := c.a.again(c.n, 4, 2, c.write, 1)
		if wait != c.wait || repeat != c.repeat || c.a.doubtful() != c.doubted {
			t.Errorf("%s: again %v after %v, in doubt %v", name, repeat, wait, c.a.doubtful())
		}
	}
}

// gateway answers with one of these after the other, and notes the requests.
type script struct {
	answers []func(w http.ResponseWriter)
	seen    []*http.Request
	bodies  []string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	s.seen, s.bodies = append(s.seen, r), append(s.bodies, string(body))
	s.answers[len(s.seen)-1](w)
}

func fails(status int, outcome string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"type":"/problems/x","title":"X","status":%d,"detail":"","request_id":"x","outcome":%q}`, status, outcome)
	}
}

func breaks(http.ResponseWriter) { panic(http.ErrAbortHandler) }

func written(token string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Kv-Context", token)
		fmt.Fprintf(w, `{"context":%q,"siblings":1,"acks":2,"hinted":0}`, token)
	}
}

func valued(value, etag, token string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Kv-Context", token)
		w.Header().Set("ETag", etag)
		if value == "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, value)
	}
}

func scripted(t *testing.T, opts Options, answers ...func(http.ResponseWriter)) (*Session, *script) {
	t.Helper()
	s := &script{answers: answers}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	opts.HTTP = srv.Client()
	c, err := New([]string{srv.URL + "/"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c.Session(), s
}

// A write keeps its name, its context and its body through all attempts.
func TestWriteKeepsItsName(t *testing.T) {
	s, got := scripted(t, Options{Token: "secret", WriteQuorum: "all"}, written("c1"), fails(503, NotApplied), breaks, written("c2"), written("c3"))
	for _, text := range []string{"one", "two", "three"} {
		if _, err := s.Put(t.Context(), "a/b", Text(text)); err != nil {
			t.Fatal(err)
		}
	}
	ids, want := map[string]int{}, []string{"one", "two", "two", "two", "three"}
	for _, r := range got.seen {
		ids[r.Header.Get("Kv-Request-Id")]++
		if r.Header.Get("Authorization") != "Bearer secret" || r.URL.RawQuery != "w=all" || r.URL.EscapedPath() != "/v1/kv/a%2Fb" {
			t.Errorf("sent %s %s %v", r.Method, r.RequestURI, r.Header)
		}
	}
	if len(ids) != 3 || !slices.Equal(got.bodies, want) {
		t.Errorf("sent %q as %v", got.bodies, ids)
	}
	for i, token := range []string{"", "c1", "c1", "c1", "c2"} {
		if seen := got.seen[i].Header.Get("Kv-Context"); seen != token {
			t.Errorf("request %d has the context %q, want %q", i, seen, token)
		}
	}
}

// What one attempt left in doubt, no later one makes certain.
func TestDoubtStays(t *testing.T) {
	for name, c := range map[string]struct {
		answers []func(http.ResponseWriter)
		want    string
	}{
		"refused":           {[]func(http.ResponseWriter){fails(409, NotApplied)}, NotApplied},
		"lost, refused":     {[]func(http.ResponseWriter){breaks, fails(409, NotApplied)}, InDoubt},
		"doubt, refused":    {[]func(http.ResponseWriter){fails(504, InDoubt), fails(507, NotApplied)}, InDoubt},
		"refused all along": {[]func(http.ResponseWriter){fails(429, NotApplied), fails(429, NotApplied)}, NotApplied},
	} {
		s, got := scripted(t, Options{Attempts: 2}, c.answers...)
		_, err := s.Delete(t.Context(), "k")
		if e, ok := errors.AsType[*Error](err); !ok || e.Outcome != c.want || len(got.seen) != len(c.answers) {
			t.Errorf("%s: %v after %d requests", name, err, len(got.seen))
		}
	}
}

func TestCacheIsRevalidated(t *testing.T) {
	s, got := scripted(t, Options{CacheBytes: 1 << 10}, valued("v1", `"e1"`, "c1"), valued("", `"e1"`, "c2"), valued("v2", `"e2"`, "c3"), valued("", `"e2"`, "c4"))
	for i, want := range []string{"v1", "v1", "v2", "v2"} {
		v, err := s.Get(t.Context(), "k")
		if err != nil || string(v.Data) != want || v.Context != fmt.Sprintf("c%d", i+1) {
			t.Errorf("read %d: %+v, %v", i, v, err)
		}
	}
	for i, want := range []string{"", `"e1"`, `"e1"`, `"e2"`} {
		if tag := got.seen[i].Header.Get("If-None-Match"); tag != want {
			t.Errorf("read %d revalidates %s, want %s", i, tag, want)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(3 * (overhead + 101))
	for i := range 10 {
		c.put(string(rune('a'+i)), Value{Data: make([]byte, 100), ETag: "e"})
		c.get("b")
	}
	c.put("z", Value{Data: make([]byte, 1000), ETag: "e"}) // more than fits
	if _, ok := c.get("b"); !ok || len(c.byKey) != 3 || c.used.Len() != 3 || c.size > c.limit {
		t.Errorf("holds %d values of %d bytes, b among them %v", len(c.byKey), c.size, ok)
	}
	c.put("b", Value{})
	if _, ok := c.get("b"); ok || c.size != 2*(overhead+101) {
		t.Errorf("a removed value is there %v, %d bytes", ok, c.size)
	}
}

func TestResolve(t *testing.T) {
	conflict := func(w http.ResponseWriter) {
		w.Header().Set("Kv-Context", "both")
		w.WriteHeader(http.StatusMultipleChoices)
		fmt.Fprint(w, `{"context":"both","siblings":[{"value":"YQ=="},{"value":"Yg=="}]}`)
	}
	join := func(_ string, all []api.Sibling) (Value, error) {
		var b strings.Builder
		for _, s := range all {
			b.Write(s.Value)
		}
		return Text(b.String()), nil
	}
	s, got := scripted(t, Options{Resolve: join}, conflict, written("c"))
	v, err := s.Get(t.Context(), "k")
	if err != nil || string(v.Data) != "ab" || v.Context != "both" {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := s.Put(t.Context(), "k", v); err != nil || got.seen[1].Header.Get("Kv-Context") != "both" {
		t.Errorf("%v, context %q", err, got.seen[1].Header.Get("Kv-Context"))
	}
}

func TestSessionIsBounded(t *testing.T) {
	s, _ := scripted(t, Options{})
	for i := range MaxSessionKeys {
		if _, err := s.reserve(fmt.Sprint("k", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Put(t.Context(), "one more", Text("x")); !errors.Is(err, ErrSessionFull) {
		t.Errorf("one key more: %v", err)
	}
	if _, err := s.Put(t.Context(), "", Text("x")); err == nil {
		t.Error("an empty key is taken")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, gateways := range [][]string{nil, {""}, {"127.0.0.1:8080"}, {"ftp://a"}, {"http://a?x=1"}} {
		if _, err := New(gateways, Options{}); err == nil {
			t.Errorf("%q is taken", gateways)
		}
	}
}
