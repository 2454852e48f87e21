package httpapi_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/internal/problem"
)

// FuzzParseKey holds the key of a path against the standard library's decoder, which knows another "+" but the same
// escapes.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"", "k", "a/b", "a%2Fb", "a%252Fb", "..", "//", "a+b", "a%20b", "%", "%zz", "%f", "%C3%A9", "é", "\xff", "a?b", "a#b", "%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		u, err := url.ParseRequestURI("/v1/kv/" + rest)
		if err != nil {
			return
		}
		path, _, _ := strings.Cut(rest, "?")
		want, err := url.PathUnescape(path)
		if err != nil {
			t.Fatalf("%q was parsed, and its path cannot be decoded: %v", rest, err)
		}
		key, err := httpapi.ParseKey(u, "/v1/kv/")
		if (err == nil) != (len(want) >= 1 && len(want) <= 250) {
			t.Fatalf("%q, %d bytes: %v", rest, len(want), err)
		}
		if err == nil && string(key) != want {
			t.Fatalf("%q became %q, want %q", rest, key, want)
		}
		if err != nil && !errors.Is(err, problem.ErrBadKey) {
			t.Fatal(err)
		}
	})
}

// TestKeysAreInjective escapes random keys in random ways: each comes back, so no two keys share a path.
func TestKeysAreInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 250).Draw(t, "key")
		var path strings.Builder
		for _, c := range key {
			plain := c > 0x20 && c < 0x7f && !strings.ContainsRune("%?#", rune(c))
			if plain && rapid.Bool().Draw(t, "plain") {
				path.WriteByte(c)
				continue
			}
			digits := "0123456789ABCDEF"
			if rapid.Bool().Draw(t, "lower") {
				digits = "0123456789abcdef"
			}
			path.WriteString("%" + string(digits[c>>4]) + string(digits[c&15]))
		}
		u, err := url.ParseRequestURI("/v1/kv/" + path.String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := httpapi.ParseKey(u, "/v1/kv/")
		if err != nil || !bytes.Equal(got, key) {
			t.Fatalf("%q: %q, %v", path.String(), got, err)
		}
	})
}

// FuzzQuery holds the strict parsers against the standard library's: what they accept has known names, each once.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "r=1", "r=1&timeout=2s&etag=x&conflict=error&explain=1", "w=all&sloppy=false", "r=1&r=2", "%72=1", "a", "=", "&&", "r=%zz", "r=1;w=2", "timeout=1h", "timeout=1e3s", "r=+1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		check := func(err error, timeout time.Duration, known ...string) {
			if err != nil {
				if !errors.Is(err, problem.ErrBadParameter) {
					t.Fatalf("%q: %v", raw, err)
				}
				return
			}
			if timeout <= 0 || timeout > time.Minute {
				t.Fatalf("%q: timeout %v", raw, timeout)
			}
			if strings.Contains(raw, ";") {
				return // the standard library refuses it everywhere
			}
			values, err := url.ParseQuery(raw)
			if err != nil {
				t.Fatalf("%q is accepted, and is no query: %v", raw, err)
			}
			for name, all := range values {
				if len(all) != 1 || !strings.Contains(" "+strings.Join(known, " ")+" ", " "+name+" ") {
					t.Fatalf("%q is accepted with %q=%q", raw, name, all)
				}
			}
		}
		readTimeout, err := httpapi.ReadTimeout(raw)
		check(err, readTimeout, "r", "timeout", "etag", "conflict", "explain")
		writeTimeout, err := httpapi.WriteTimeout(raw)
		check(err, writeTimeout, "w", "timeout", "sloppy")
	})
}

// FuzzBatch sends arbitrary bodies to the transcoded routes: each is answered, and none with 5xx.
func FuzzBatch(f *testing.F) {
	for _, s := range []string{"", "{}", `{"items":[{"key":"k"}]}`, `{"items":[{"key_base64":"/w=="}]}`, `{"items":[null]}`, `{"r":"x","items":[{}]}`, `[]`, `null`, `{"items":[{"key":"\ud800"}]}`, `{"timeout":1}`} {
		f.Add(s)
	}
	var h *harness
	f.Fuzz(func(t *testing.T, body string) {
		if h == nil {
			h = newHarness(t)
		}
		for _, verb := range []string{"batchGet", "batchPut", "batchDelete"} {
			w := serve(h, http.MethodPost, "/v1/kv:"+verb, body)
			if w.Code != 200 && w.Code != 400 && w.Code != 413 {
				t.Fatalf("%s %q: %d %s", verb, body, w.Code, w.Body)
			}
		}
	})
}
