package ctl

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// The environment of whoever runs the tests must not reach the flags, nor the width of its terminal the help.
func TestMain(m *testing.M) {
	asProgram()
	for _, name := range []string{"DOTRING_GATEWAY", "DOTRING_OUTPUT", "DOTRING_TIMEOUT", "DOTRING_COLOR", "COLUMNS"} {
		if err := os.Unsetenv(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// canned is an answer of the gateway.
type canned struct {
	status int
	header []string // name, value, name, value …
	body   string
}

// request is what the gateway got.
type request struct {
	line   string
	header http.Header
	body   string
}

// gateway answers every request with a, and returns its URL and the requests so far.
func gateway(t testing.TB, a canned) (url string, got func() []request) {
	t.Helper()
	requests := make(chan request, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read request: %v", err)
		}
		requests <- request{r.Method + " " + r.RequestURI, r.Header, string(body)}
		for i := 0; i < len(a.header); i += 2 {
			w.Header()[a.header[i]] = []string{a.header[i+1]}
		}
		w.WriteHeader(a.status)
		if _, err := io.WriteString(w, a.body); err != nil {
			t.Errorf("write answer: %v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() []request {
		var out []request
		for {
			select {
			case r := <-requests:
				out = append(out, r)
			default:
				return out
			}
		}
	}
}

// terminals says which streams are terminals.
type terminals struct{ in, out, err bool }

var atTerminal = terminals{true, true, true}

// result is what one run left behind.
type result struct {
	code           int
	stdout, stderr string
}

// run runs one command line.
func run(t testing.TB, term terminals, stdin string, environ map[string]string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), Env{Args: args, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr,
		StdinTerminal: term.in, StdoutTerminal: term.out, StderrTerminal: term.err,
		Getenv: func(name string) string { return environ[name] },
		Random: bytes.NewReader([]byte("0123456789abcdef")), Version: "v1.2.3"})
	return result{code, stdout.String(), stderr.String()}
}

// visible makes a transcript safe to look at: what cannot be printed is spelled out.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\x1b':
			b.WriteRune('␛')
		case r == '\n' || strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "<%U>", r)
		}
	}
	return b.String()
}

// transcript is one run as a text: the command line, what the gateway got, and what came out.
func transcript(args []string, got []request, r result, url string) string {
	var b strings.Builder
	b.WriteString("$ dotringctl")
	for _, a := range args {
		if strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-=./:") != "" || a == "" {
			a = strconv.Quote(a)
		}
		b.WriteString(" " + a)
	}
	b.WriteString("\n")
	for _, q := range got {
		fmt.Fprintf(&b, "> %s\n", q.line)
		var names []string
		for name := range q.header {
			if strings.HasPrefix(name, "Kv-") || name == "Content-Type" || name == "User-Agent" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&b, ">   %s: %s\n", name, strings.Join(q.header[name], " | "))
		}
		if q.body != "" {
			fmt.Fprintf(&b, ">   %q\n", q.body)
		}
	}
	for _, stream := range []struct{ name, text string }{{"stdout", r.stdout}, {"stderr", r.stderr}} {
		if stream.text == "" {
			continue
		}
		fmt.Fprintf(&b, "--- %s\n%s", stream.name, visible(stream.text))
		if !strings.HasSuffix(stream.text, "\n") {
			b.WriteString("⏎ no line end\n")
		}
	}
	fmt.Fprintf(&b, "--- exit code %d\n", r.code)
	return strings.ReplaceAll(b.String(), url, "http://gateway")
}

// golden compares a transcript with the one in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the test with -update to write it)", err)
	}
	if got != string(want) {
		t.Errorf("transcript %s is now:\n%s\nwas:\n%s", name, got, want)
	}
}

// serverJSON is a message as the gateway prints it.
func serverJSON(t testing.TB, m proto.Message) string {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
