package ctl

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// harmful returns the first rune of s that a terminal must not get, if any; values may hold tabs and spaces of all kinds.
func harmful(s string, value bool) (rune, bool) {
	if !utf8.ValidString(s) {
		return utf8.RuneError, true
	}
	for _, r := range s {
		if r != '\n' && !strconv.IsPrint(r) && (!value || r != '\t' && !unicode.Is(unicode.Zs, r)) {
			return r, true
		}
	}
	return 0, false
}

func TestForTerminal(t *testing.T) {
	for _, c := range []struct {
		in, want string
		escaped  bool
	}{
		{"", "", false}, {"a\tb\nc", "a\tb\nc", false}, {"dos\r\n", "dos\r\n", false}, {"over\rwritten", `over\rwritten`, true},
		{"\x1b[31m", `\x1b[31m`, true}, {"\u009b2J", `\u009b2J`, true}, {"\x00\x7f", `\x00\x7f`, true}, {"\xff\xc3", `\xff\xc3`, true},
		{"\u202eabc", `\u202eabc`, true}, {"grüße 節 👍", "grüße 節 👍", false}, {"\ufffd", "\ufffd", false}, {"a\u00a0b\u3000c", "a\u00a0b\u3000c", false}, {"\u2028", `\u2028`, true}, {"\U000e0041", `\U000e0041`, true},
		{`back\slash "quoted"`, `back\slash "quoted"`, false},
	} {
		if got, escaped := forTerminal([]byte(c.in)); got != c.want || escaped != c.escaped {
			t.Errorf("forTerminal(%q) = %q, %v; want %q, %v", c.in, got, escaped, c.want, c.escaped)
		}
	}
}

func TestPreview(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
		cut   bool
	}{
		{"", 4, `""`, false}, {"abcd", 4, `"abcd"`, false}, {"abcde", 4, `"abcd"`, true}, {"abcé!", 4, `"abc"`, true},
		{"\xff\xff\xff\xff\xff\xff", 4, `"\xff\xff\xff\xff"`, true}, {"\"\x1b\n", 4, `"\"\x1b\n"`, false},
	} {
		if got, cut := preview([]byte(c.in), c.limit); got != c.want || cut != c.cut {
			t.Errorf("preview(%q, %d) = %s, %v; want %s, %v", c.in, c.limit, got, cut, c.want, c.cut)
		}
	}
}

func FuzzEscapes(f *testing.F) {
	for _, s := range []string{"", "plain", hostile, "\xff\xfe", "a\r\nb", `{"a":"\u001b` + "\u009b\U000e0041" + `"}`, `[1,"` + "\x7f" + `"]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		value, escaped := forTerminal([]byte(s))
		if !escaped && value != s {
			t.Errorf("%q was changed to %q without a word", s, value)
		}
		if r, bad := harmful(strings.ReplaceAll(value, "\r\n", "\n"), true); bad {
			t.Errorf("value: %U gets through in %q", r, value)
		}
		shown, _ := preview([]byte(s), 16)
		for name, out := range map[string]string{"quote": quote([]byte(s)), "preview": shown, "text": escapeText(s), "cell": table{{text(s)}}.render(palette{}, "")} {
			if r, bad := harmful(out, false); bad || strings.Contains(strings.TrimSuffix(out, "\n"), "\n") {
				t.Errorf("%s: %U gets through in %q", name, r, out)
			}
		}
		if whole, err := strconv.Unquote(quote([]byte(s))); err != nil || whole != s {
			t.Errorf("quote(%q) reads back as %q (%v)", s, whole, err)
		}
		tidy, err := tidyJSON([]byte(s))
		if err != nil {
			return
		}
		if r, bad := harmful(tidy, false); bad {
			t.Errorf("JSON: %U gets through in %q", r, tidy)
		}
		var before, after any
		errBefore, errAfter := json.Unmarshal([]byte(s), &before), json.Unmarshal([]byte(tidy), &after)
		if (errBefore == nil) != (errAfter == nil) {
			t.Fatalf("JSON %q became %q: %v, %v", s, tidy, errBefore, errAfter)
		}
		a, errA := json.Marshal(before)
		b, errB := json.Marshal(after)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("JSON %q means %s, but %q means %s", s, a, tidy, b)
		}
	})
}

func TestKeyPathReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, maxKeyBytes).Draw(t, "key")
		path := keyPath(kvPath, key)
		u, err := url.Parse("http://h" + path)
		if err != nil {
			t.Fatal(err)
		}
		if u.EscapedPath() != path {
			t.Errorf("the client would send %s for %s", u.EscapedPath(), path)
		}
		segment := strings.TrimPrefix(path, kvPath)
		back, err := url.PathUnescape(segment)
		if err != nil || back != string(key) || strings.Contains(segment, "/") || segment == "." || segment == ".." {
			t.Errorf("%q became %s, which reads back as %q (%v)", key, path, back, err)
		}
	})
}

// spoil sets every text of a message to nasty, and every byte field too.
func spoil(m protoreflect.Message, nasty string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			spoil(m.Mutable(f).List().AppendMutable().Message(), nasty)
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString(nasty))
		case f.Kind() == protoreflect.MessageKind:
			if !strings.HasSuffix(string(f.Message().Name()), "Timestamp") {
				spoil(m.Mutable(f).Message(), nasty)
			}
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(nasty))
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte(nasty)))
		case f.Kind() == protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(1))
		}
	}
}

// Nothing that a server says, in whatever field, reaches a terminal as it is.
func TestHostileServer(t *testing.T) {
	nasties := []string{"\x1b[2J", "\u009b31m", "a\rb", "two\nlines", "\u202e", "\x07", "\x7f", "\u2028"}
	for _, nasty := range nasties {
		for args, m := range map[string]proto.Message{"status": &clusterv1.GetStatusResponse{}, "nodes": &clusterv1.ListNodesResponse{}, "key k": &clusterv1.InspectKeyResponse{}} {
			spoil(m.ProtoReflect(), nasty)
			if k, ok := m.(*clusterv1.InspectKeyResponse); ok {
				for _, state := range []string{"record", "absent", "failed"} {
					r := proto.Clone(k.Replicas[0]).(*clusterv1.Replica)
					r.State, r.Role = state, "primary"
					k.Replicas = append(k.Replicas, r)
				}
			}
			expectHarmless(t, canned{200, jsonType, serverJSON(t, m)}, args)
		}
		q, err := json.Marshal(nasty)
		if err != nil {
			t.Fatal(err)
		}
		s := string(q)
		problem := `{"type":` + s + `,"title":` + s + `,"detail":` + s + `,"outcome":"in-doubt","request_id":` + s + `,"replicas":[{"node":` + s + `,"did":` + s + `,"detail":` + s + `}]}`
		expectHarmless(t, canned{500, problemHdr, problem}, "put k v")
		expectHarmless(t, canned{500, problemHdr, problem}, "get k")
		expectHarmless(t, canned{500, problemHdr, problem}, "status")
		expectHarmless(t, canned{500, nil, nasty}, "delete k")
		expectHarmless(t, canned{200, value200, nasty}, "get k")
		expectHarmless(t, canned{404, problemHdr, noValue}, "get "+strings.Map(func(r rune) rune {
			if r == '\n' || r == '\r' || r == '\u2028' {
				return 'x' // would be a separator here
			}
			return r
		}, nasty))
		expectHarmless(t, canned{300, siblingsHdr, `{"context":` + s + `,"siblings":[{"content_type":` + s + `,"etag":` + s + `,"last_modified":` + s + `}]}`}, "get k")
		expectHarmless(t, canned{200, jsonType, `{"context":` + s + `,"siblings":1,"acks":1,"hinted":0}`}, "put k v")
	}
}

func expectHarmless(t *testing.T, a canned, args string) {
	t.Helper()
	for _, output := range []string{"table", "json"} {
		addr, _ := gateway(t, a)
		r := run(t, atTerminal, "", nil, append(strings.Fields(args), "--gateway", addr, "--color", "never", "-o", output)...)
		if r.code == ExitUsage {
			t.Fatalf("%s: %+v", args, r)
		}
		if c, bad := harmful(r.stdout+r.stderr, false); bad {
			t.Errorf("%s (%d, %s): %U reaches the terminal: stdout %q, stderr %q", args, a.status, output, c, r.stdout, r.stderr)
		}
	}
}
