package ctl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func TestWrongUsage(t *testing.T) {
	long := strings.Repeat("k", 251)
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"no command", nil, "expected one of"},
		{"unknown command", []string{"stats"}, `did you mean "status"`},
		{"unknown flag", []string{"get", "--contxt", "x", "k"}, "unknown flag --contxt"},
		{"no key", []string{"get"}, `expected "<key>"`},
		{"empty key", []string{"get", ""}, "KEY is empty"},
		{"long key", []string{"key", long}, "251 bytes, the limit is 250"},
		{"too many arguments", []string{"get", "a", "b"}, "unexpected argument b"},
		{"bad base64", []string{"get", "--key-base64", "a!"}, "not base64"},
		{"bad r", []string{"get", "-r", "x", "k"}, "-r takes one"},
		{"zero r", []string{"get", "-r", "0", "k"}, "-r takes one"},
		{"bad w", []string{"put", "-w", "1.5", "k", "v"}, "-w takes one"},
		{"bad w of a delete", []string{"delete", "-w", "most", "k"}, "-w takes one"},
		{"bad output", []string{"status", "-o", "yaml"}, `must be one of "table","json"`},
		{"bad colour", []string{"status", "--color", "red"}, "must be one of"},
		{"bad timeout", []string{"status", "--timeout", "fast"}, "--timeout"},
		{"zero timeout", []string{"get", "--timeout", "0s", "k"}, "above 0 and at most 1m0s"},
		{"long timeout", []string{"get", "--timeout", "61s", "k"}, "above 0 and at most 1m0s"},
		{"empty context", []string{"get", "--context", "", "k"}, "--context is empty"},
		{"context of two lines", []string{"put", "--context", "a\r\nX: y", "k", "v"}, "printable ASCII"},
		{"content type", []string{"put", "--content-type", "té", "k", "v"}, "printable ASCII"},
		{"long request id", []string{"put", "--request-id", strings.Repeat("i", 65), "k", "v"}, "65 characters, the limit is 64"},
		{"request id", []string{"delete", "--request-id", "a\nb", "k"}, "printable ASCII"},
		{"scheme", []string{"--gateway", "ftp://h", "status"}, "not ftp://"},
		{"no host", []string{"--gateway", "http://:80", "status"}, "names no host"},
		{"query", []string{"--gateway", "http://h/?a=b", "status"}, "no query"},
		{"secret in a bad URL", []string{"--gateway", "http://me:hunter2@h:x", "status"}, "--gateway is no URL"},
		{"hostile argument", []string{"\x1b[31mx"}, `\x1b[31mx`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, atTerminal, "", nil, c.args...)
			if r.code != ExitUsage || r.stdout != "" || !strings.Contains(r.stderr, c.says) || !strings.Contains(r.stderr, "--help") {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d, nothing, and %q with a hint at --help", r.code, r.stdout, r.stderr, ExitUsage, c.says)
			}
			if strings.ContainsAny(r.stderr, "\x1b\r") || strings.Contains(r.stderr, "hunter2") {
				t.Errorf("stderr %q", r.stderr)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	problem := func(status int, slug, outcome string) canned {
		return canned{status, problemHdr, `{"type":"/problems/` + slug + `","title":"T","status":400,"outcome":"` + outcome + `"}`}
	}
	for _, c := range []struct {
		name string
		a    canned
		args string
		want int
	}{
		{"value", canned{200, value200, ""}, "get k", ExitOK},
		{"no value", canned{404, problemHdr, noValue}, "get k", ExitNotFound},
		{"no such sibling", problem(404, "no-such-sibling", ""), "get --etag e k", ExitNotFound},
		{"no such path", problem(404, "no-such-path", ""), "get k", ExitError},
		{"404 of something else", canned{404, nil, "not here"}, "get k", ExitError},
		{"no such path of a page", problem(404, "no-such-path", ""), "status", ExitError},
		{"conflict", canned{300, siblingsHdr, siblings300}, "get k", ExitConflict},
		{"conflict that is none", canned{300, siblingsHdr, `{"siblings":[]}`}, "get k", ExitError},
		{"conflict that is no JSON", canned{300, nil, `<html>`}, "get k", ExitError},
		{"stale read", problem(503, "stale-read", ""), "get k", ExitError},
		{"read that failed within", problem(500, "internal", ""), "get k", ExitError},
		{"a read is never in doubt", problem(504, "deadline-passed", "in-doubt"), "get k", ExitError},
		{"put", canned{200, jsonType, written}, "put k v", ExitOK},
		{"delete", canned{200, jsonType, written}, "delete k", ExitOK},
		{"not applied", problem(503, "quorum-impossible", "not-applied"), "put k v", ExitError},
		{"bad w", problem(400, "bad-quorum", "not-applied"), "put k v -w 9", ExitError},
		{"in doubt", problem(504, "deadline-passed", "in-doubt"), "put k v", ExitInDoubt},
		{"delete in doubt", problem(504, "deadline-passed", "in-doubt"), "delete k", ExitInDoubt},
		{"write that failed within", problem(500, "internal", ""), "put k v", ExitInDoubt},
		{"proxy", canned{504, nil, "gateway timeout"}, "delete k", ExitInDoubt},
		{"200 of something else", canned{200, nil, "welcome"}, "put k v", ExitInDoubt},
		{"400 of something else", canned{400, nil, "bad request"}, "put k v", ExitError},
		{"key", canned{200, jsonType, "{}"}, "key k", ExitOK},
		{"page that is no JSON", canned{200, nil, "welcome"}, "nodes", ExitError},
		{"page from the future", canned{200, jsonType, `{"cluster":"c","brand_new":[1]}`}, "status", ExitOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, output := range []string{"table", "json"} {
				addr, _ := gateway(t, c.a)
				r := run(t, terminals{}, "", nil, append(strings.Fields(c.args), "--gateway", addr, "-o", output)...)
				if r.code != c.want {
					t.Errorf("%s: exit code %d, want %d; stderr %q", output, r.code, c.want, r.stderr)
				}
				if (r.code == ExitOK) != (r.stderr == "") && r.code != ExitConflict {
					t.Errorf("%s: exit code %d with stderr %q", output, r.code, r.stderr)
				}
				if output == "json" && !json.Valid([]byte(r.stdout)) {
					t.Errorf("stdout is no JSON: %q", r.stdout)
				}
				if output == "table" && r.code != ExitOK && r.stdout != "" {
					t.Errorf("a failure left %q on stdout", r.stdout)
				}
			}
		})
	}
}

// unused returns an address on which no one listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func TestUnreachableGateway(t *testing.T) {
	addr := unused(t)
	for _, args := range []string{"status", "nodes", "key k", "get k", "put k v", "delete k", "tasks", "repair --wait"} {
		r := run(t, terminals{}, "", nil, append(strings.Fields(args), "--gateway", "http://me:hunter2@"+addr)...)
		if r.code != ExitError || r.stdout != "" {
			t.Errorf("%s: exit code %d, stdout %q", args, r.code, r.stdout)
		}
		for _, want := range []string{"http://me:xxxxx@" + addr, "refused", "--gateway", "DOTRING_GATEWAY"} {
			if !strings.Contains(r.stderr, want) {
				t.Errorf("%s: stderr does not name %q: %q", args, want, r.stderr)
			}
		}
		if strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%s: stderr tells the password: %q", args, r.stderr)
		}
		write := strings.HasPrefix(args, "put") || strings.HasPrefix(args, "delete")
		if strings.Contains(r.stderr, "not applied") != write {
			t.Errorf("%s: stderr %q; a write that was never sent was not applied", args, r.stderr)
		}
	}
	r := run(t, terminals{}, "", nil, "put", "k", "v", "-o", "json", "--gateway", addr)
	var told struct {
		Error struct{ Title, Outcome string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &told); err != nil || told.Error.Outcome != outcomeNotApplied || told.Error.Title == "" {
		t.Errorf("stdout %q (%v), want an error with its outcome", r.stdout, err)
	}
}

func TestGatewayFromEnvironment(t *testing.T) {
	addr, got := gateway(t, canned{200, value200, "v"})
	t.Setenv("DOTRING_GATEWAY", addr+"/behind/a/balancer/")
	if r := run(t, terminals{}, "", nil, "get", "k"); r.code != ExitOK || r.stdout != "v" {
		t.Fatalf("%+v", r)
	}
	if q := got(); len(q) != 1 || q[0].line != "GET /behind/a/balancer/v1/kv/k" {
		t.Errorf("requests %v", q)
	}
	other, gotOther := gateway(t, canned{200, value200, "v"})
	if r := run(t, terminals{}, "", nil, "--gateway", strings.TrimPrefix(other, "http://"), "get", "k"); r.code != ExitOK {
		t.Fatalf("%+v", r)
	}
	if len(gotOther()) != 1 || len(got()) != 0 {
		t.Error("the flag does not win over the environment")
	}
	t.Setenv("DOTRING_GATEWAY", "")
	if r := run(t, terminals{}, "", nil, "get", "--timeout", "1ms", "k"); r.code == ExitUsage {
		t.Errorf("an empty variable is a mistake of the user: %+v", r)
	}
}

// A connection that breaks once the gateway may have the request leaves a write in doubt, and a read merely failed.
func TestBrokenConnection(t *testing.T) {
	for name, answer := range map[string]string{
		"no answer": "",
		"cut short": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"context\":\"T\"",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("hijack: %v", err)
				return
			}
			_, err = io.WriteString(conn, answer)
			if err = errors.Join(err, conn.Close()); err != nil {
				t.Errorf("break the connection: %v", err)
			}
		}))
		defer srv.Close()
		for args, want := range map[string]int{"put k v": ExitInDoubt, "delete k": ExitInDoubt, "get k": ExitError, "status": ExitError} {
			r := run(t, terminals{}, "", nil, append(strings.Fields(args), "--gateway", srv.URL)...)
			if r.code != want || r.stdout != "" || !strings.Contains(r.stderr, "no whole answer") {
				t.Errorf("%s, %s: exit code %d, want %d; stdout %q, stderr %q", name, args, r.code, want, r.stdout, r.stderr)
			}
			if (want == ExitInDoubt) != strings.Contains(r.stderr, "--request-id 3031323334") {
				t.Errorf("%s, %s: stderr %q; a write in doubt names its request id", name, args, r.stderr)
			}
		}
	}
}

func TestInterrupted(t *testing.T) {
	for args, want := range map[string]int{"put k v": ExitInDoubt, "get k": ExitError} {
		ctx, cancel := context.WithCancel(t.Context())
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			// Only a server that has read the body notices that the client went away.
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Errorf("read request: %v", err)
			}
			cancel()
			<-r.Context().Done()
		}))
		var stdout, stderr bytes.Buffer
		code := Run(ctx, Env{Args: append(strings.Fields(args), "--gateway", srv.URL), Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
			Getenv: func(string) string { return "" }, Random: bytes.NewReader(make([]byte, 16))})
		srv.Close()
		if code != want || !strings.Contains(stderr.String(), "interrupted") {
			t.Errorf("%s: exit code %d, want %d; stderr %q", args, code, want, stderr.String())
		}
	}
}

// silent takes every request and never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{})
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestWaitsLongerThanTheCluster(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			base, err := parseGateway("silent:1")
			if err != nil {
				t.Fatal(err)
			}
			c := newClient(base, timeout, "")
			c.http.Transport = silent{}
			start := time.Now()
			_, err = c.do(t.Context(), call{method: http.MethodPut, path: "/v1/kv/k"})
			var ce *connError
			if !errors.As(err, &ce) || !ce.sent || !strings.Contains(err.Error(), "no answer within") {
				t.Errorf("error %v", err)
			}
			want := timeout + slack
			if timeout == 0 {
				want = serverTimeout + slack
			}
			if took := time.Since(start); took != want {
				t.Errorf("gave up after %v, want %v", took, want)
			}
		})
	}
}

// Whatever bytes a key has, they arrive as they are, in one segment of the path.
func TestAwkwardKeys(t *testing.T) {
	for _, c := range []struct{ key, path string }{
		{"a/b//c/", "a%2Fb%2F%2Fc%2F"}, {"100%", "100%25"}, {"%2F", "%252F"}, {".", "%2E"}, {"..", "%2E%2E"}, {"../x", "..%2Fx"}, {"...", "..."},
		{"a+b c", "a%2Bb%20c"}, {"grüße", "gr%C3%BC%C3%9Fe"}, {"?q#f&g=h;i", "%3Fq%23f%26g%3Dh%3Bi"}, {":batchGet", "%3AbatchGet"},
		{"\x01\x7f\xff\xfe", "%01%7F%FF%FE"}, {"-_~.", "-_~."}, {"a\nb", "a%0Ab"}, {"-k", "-k"}, {"--help", "--help"},
	} {
		for verb, prefix := range map[string]string{"get": kvPath, "put": kvPath, "delete": kvPath, "key": "/v1/cluster/keys/"} {
			addr, got := gateway(t, canned{404, nil, ""})
			run(t, terminals{}, "value", nil, verb, "--gateway", addr, "--", c.key)
			q := got()
			if len(q) != 1 || strings.SplitN(q[0].line, " ", 2)[1] != prefix+c.path {
				t.Errorf("%s %q: requests %v, want the path %s", verb, c.key, q, prefix+c.path)
			}
		}
	}
	every := make([]byte, 250)
	for i := range every {
		every[i] = byte(i)
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		addr, got := gateway(t, canned{200, value200, ""})
		r := run(t, terminals{}, "", nil, "get", "--gateway", addr, "-o", "json", "--key-base64", "--", e.EncodeToString(every))
		q := got()
		if len(q) != 1 {
			t.Fatalf("%+v", r)
		}
		key, err := url.PathUnescape(strings.TrimPrefix(q[0].line, "GET "+kvPath))
		if err != nil || key != string(every) {
			t.Errorf("the gateway got the key %q (%v)", key, err)
		}
		var rec record
		if err := json.Unmarshal([]byte(r.stdout), &rec); err != nil || rec.Key != "" || !bytes.Equal(rec.KeyBase64, every) {
			t.Errorf("stdout %q (%v)", r.stdout, err)
		}
	}
}

func TestValuesAreSentAndWrittenAsTheyAre(t *testing.T) {
	for _, value := range []string{"", "\n", "a\r\nb", "\x00\xff\x1b[31m", strings.Repeat("x", 3<<20), "-x", "--", "é"} {
		addr, got := gateway(t, canned{200, jsonType, written})
		if r := run(t, terminals{}, value, nil, "put", "--gateway", addr, "k", "-"); r.code != ExitOK {
			t.Fatalf("put of %.20q: %+v", value, r)
		}
		if q := got(); q[0].body != value || q[0].header.Get("Content-Type") != "" {
			t.Errorf("the gateway got %.20q as %q, want %.20q without a type", q[0].body, q[0].header.Get("Content-Type"), value)
		}
		if !strings.Contains(value, "\x00") { // an argument holds no zero byte
			run(t, terminals{}, "not this", nil, "put", "--gateway", addr, "--", "k", value)
			if q := got(); q[0].body != value {
				t.Errorf("as an argument: the gateway got %.20q, want %.20q", q[0].body, value)
			}
		}
		addr, _ = gateway(t, canned{200, value200, value})
		if r := run(t, terminals{}, "", nil, "get", "--gateway", addr, "k"); r.stdout != value || r.stderr != "" {
			t.Errorf("get wrote %.20q and %.50q, want %.20q", r.stdout, r.stderr, value)
		}
		if r := run(t, atTerminal, "", nil, "get", "--gateway", addr, "--raw", "k"); r.stdout != strings.TrimSuffix(value, "\n")+"\n" {
			t.Errorf("get wrote %.20q to a terminal, want %.20q and one line end", r.stdout, value)
		}
	}
}

// A large value is offered before it is sent, so that a refusal arrives instead of a broken connection.
func TestRefusedLargeValue(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "100-continue" {
			t.Error("the gateway was not asked first")
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		if _, err := io.WriteString(w, `{"type":"/problems/value-too-large","title":"Value too large","status":413,"outcome":"not-applied"}`); err != nil {
			t.Errorf("write answer: %v", err)
		}
	}))
	defer srv.Close()
	r := run(t, terminals{}, strings.Repeat("x", 20<<20), nil, "put", "--gateway", srv.URL, "k")
	if r.code != ExitError || !strings.Contains(r.stderr, "Value too large (413)") || !strings.Contains(r.stderr, "not applied") {
		t.Errorf("%+v", r)
	}
	if strings.Contains(r.stderr, "tried again") {
		t.Errorf("it will be refused for ever, yet stderr is %q", r.stderr)
	}
	r = run(t, terminals{}, strings.Repeat("x", maxBody+1), nil, "put", "--gateway", srv.URL, "k")
	if r.code != ExitUsage || !strings.Contains(r.stderr, "more than 64.0 MiB") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
}

func TestOutputFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	content := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for status, a := range map[int]canned{404: {404, problemHdr, noValue}, 300: {300, siblingsHdr, siblings300}, 503: {503, nil, "no"}} {
		addr, _ := gateway(t, a)
		run(t, terminals{}, "", nil, "get", "k", "--gateway", addr, "--output-file", path)
		if content() != "before" {
			t.Errorf("an answer of %d changed the file", status)
		}
	}
	addr, _ := gateway(t, canned{200, value200, "\x00value"})
	if r := run(t, atTerminal, "", nil, "get", "k", "--gateway", addr, "--output-file", path); r.code != ExitOK || r.stdout != "" || content() != "\x00value" {
		t.Errorf("%+v, file %q", r, content())
	}
	if r := run(t, terminals{}, "", nil, "get", "k", "--gateway", addr, "--output-file", t.TempDir()); r.code != ExitError || !strings.Contains(r.stderr, "directory") {
		t.Errorf("a directory as the file: %+v", r)
	}
}

func TestColour(t *testing.T) {
	addr, _ := gateway(t, canned{200, jsonType, serverJSON(t, status())})
	for _, c := range []struct {
		name     string
		terminal bool
		environ  map[string]string
		flag     string
		want     bool
	}{
		{"terminal", true, nil, "auto", true},
		{"pipe", false, nil, "auto", false},
		{"NO_COLOR", true, map[string]string{"NO_COLOR": "1"}, "auto", false},
		{"empty NO_COLOR", true, map[string]string{"NO_COLOR": ""}, "auto", true},
		{"dumb terminal", true, map[string]string{"TERM": "dumb"}, "auto", false},
		{"always into a pipe", false, nil, "always", true},
		{"always wins over NO_COLOR", true, map[string]string{"NO_COLOR": "1"}, "always", true},
		{"never", true, nil, "never", false},
	} {
		r := run(t, terminals{out: c.terminal}, "", c.environ, "status", "--gateway", addr, "--color", c.flag)
		if got := strings.Contains(r.stdout, "\x1b["); got != c.want || r.code != ExitOK {
			t.Errorf("%s: coloured %v, want %v; exit code %d", c.name, got, c.want, r.code)
		}
	}
	// Each stream is judged by itself.
	refusing, _ := gateway(t, canned{503, problemHdr, noQuorum})
	for _, terminal := range []bool{true, false} {
		r := run(t, terminals{out: !terminal, err: terminal}, "", nil, "put", "k", "v", "--gateway", refusing)
		if strings.Contains(r.stderr, "\x1b[") != terminal {
			t.Errorf("stderr is a terminal: %v, but it got %q", terminal, r.stderr)
		}
	}
}

// brokenWriter is a full disk.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestFailingStreams(t *testing.T) {
	addr, got := gateway(t, canned{200, jsonType, serverJSON(t, status())})
	for _, args := range []string{"status", "status -o json", "get k", "get k -o json"} {
		var stderr bytes.Buffer
		code := Run(t.Context(), Env{Args: append(strings.Fields(args), "--gateway", addr), Stdout: brokenWriter{}, Stderr: &stderr,
			Getenv: func(string) string { return "" }})
		if code != ExitError || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: exit code %d, stderr %q", args, code, stderr.String())
		}
	}
	got()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), Env{Args: []string{"put", "k", "--gateway", addr}, Stdin: iotest.ErrReader(errors.New("disk on fire")), Stdout: &stdout, Stderr: &stderr,
		Getenv: func(string) string { return "" }, Random: bytes.NewReader(make([]byte, 16))})
	if code != ExitError || !strings.Contains(stderr.String(), "disk on fire") || len(got()) != 0 {
		t.Errorf("exit code %d, stderr %q; half a value must not be sent", code, stderr.String())
	}
}
