package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
	dotring "github.com/dotring/dotring/openapi/sdk/go"
)

// awkwardKeys are keys that clients, routers and balancers like to fold, decode twice, or refuse.
var awkwardKeys = []string{
	"a/b", "/", "//", "a//b", "%2F", "%252F", "%", "..", ".", "../..", "a/../b", ".hidden", "%2e%2e", "+", "a+b", " ", "a b", "äöü/日本", "\xff\xfe",
	"a\xffb", "\x00", "?r=1", "#x", "&=;,:@!$'()*", "kv:batchGet", strings.Repeat("é", 125),
}

const (
	exampleMark  = "<!-- example -->\n```"
	exampleLines = 20
)

// The clients of all languages do what their READMEs show, and take every key there can be.
func TestSDKs(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	t.Run("go", func(t *testing.T) {
		goAwkwardKeys(t, c)
		main := filepath.Join(t.TempDir(), "main.go")
		program := "package main\n\nimport (\n\"context\"\n\"errors\"\n\"fmt\"\n\"log\"\n\ndotring \"github.com/dotring/dotring/openapi/sdk/go\"\n)\n\n" +
			"func must[T any](v T, err error) T {\nif err != nil {\nlog.Fatal(err)\n}\nreturn v\n}\n\nfunc main() {\nctx := context.Background()\n" +
			sdkExample(t, c, "go") + "\n}\n"
		if err := os.WriteFile(main, []byte(program), 0o644); err != nil {
			t.Fatal(err)
		}
		requireExample(t, runSDK(t, nil, "go", "run", main))
	})
	t.Run("python", func(t *testing.T) {
		env := sdkEnv(t, c, "python3", []string{"-c", "import sys; sys.exit(sys.version_info < (3, 11))"}, "PYTHONPATH=../../openapi/sdk/python", "PYTHONDONTWRITEBYTECODE=1")
		runSDK(t, env, "python3", "-m", "unittest", "discover", "--quiet", "--start-directory", "../../openapi/sdk/python/tests", "--top-level-directory", "../../openapi/sdk/python")
		runSDK(t, env, "python3", "testdata/awkward.py", "write")
		requireAwkwardKeys(t, c, "text/x-python")
		runSDK(t, env, "python3", "testdata/awkward.py", "read")
		requireExample(t, runSDK(t, env, "python3", "-c", sdkExample(t, c, "python")))
	})
	t.Run("typescript", func(t *testing.T) {
		env := sdkEnv(t, c, "node", []string{"-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"}, "NO_COLOR=1")
		sdk := "../../openapi/sdk/typescript"
		runSDK(t, env, "node", "--test", sdk+"/test/client.test.js")
		runSDK(t, env, "node", "testdata/awkward.mjs", "write")
		requireAwkwardKeys(t, c, "text/x-node")
		runSDK(t, env, "node", "testdata/awkward.mjs", "read")
		where, err := filepath.Abs(sdk + "/src/index.js")
		if err != nil {
			t.Fatal(err)
		}
		main := strings.Replace(sdkExample(t, c, "typescript"), `from "dotring"`, `from "file://`+filepath.ToSlash(where)+`"`, 1)
		requireExample(t, runSDK(t, env, "node", "--input-type=module", "--eval", main))
	})
}

// sdkEnv is what scripts in another language are told; the test is skipped where what runs them is missing or too old.
func sdkEnv(t *testing.T, c *localcluster.Cluster, runs string, isNew []string, more ...string) []string {
	t.Helper()
	if _, err := exec.LookPath(runs); err != nil {
		t.Skipf("%s is missing: this SDK cannot be tested here", runs)
	}
	if err := exec.CommandContext(t.Context(), runs, isNew...).Run(); err != nil {
		t.Skipf("%s is too old: this SDK cannot be tested here", runs)
	}
	var raw [][]byte
	for _, key := range awkwardKeys {
		raw = append(raw, []byte(key))
	}
	keys, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return append(more, "KEYS="+string(keys), "GATEWAYS="+c.URL(c.Gateways[0])+","+c.URL(c.Gateways[1]))
}

// sdkExample returns the example of a README, for this cluster.
func sdkExample(t *testing.T, c *localcluster.Cluster, sdk string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("../../openapi/sdk", sdk, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(readme), exampleMark)
	_, block, _ = strings.Cut(block, "\n")
	block, _, closed := strings.Cut(block, fenceEnd)
	lines := strings.Count(block, "\n") + 1
	if !ok || !closed || lines > exampleLines || !strings.Contains(block, "http://"+gateway1) || !strings.Contains(block, "http://"+gateway2) {
		t.Fatalf("the example of %s has %d lines:\n%s", sdk, lines, block)
	}
	return strings.NewReplacer("http://"+gateway1, c.URL(c.Gateways[0]), "http://"+gateway2, c.URL(c.Gateways[1])).Replace(block)
}

// requireExample holds an example to what it shows: a value, a conflict, what it was resolved to.
func requireExample(t *testing.T, out string) {
	t.Helper()
	if want := "milk\n2 siblings\nmilk, eggs, bread\n"; out != want {
		t.Errorf("the example prints %q, want %q", out, want)
	}
}

// runSDK runs a program and returns what it printed.
func runSDK(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(append(os.Environ(), "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1"), env...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", name, err, out.String(), problems.String())
	}
	return out.String()
}

func goAwkwardKeys(t *testing.T, c *localcluster.Cluster) {
	t.Helper()
	client, err := dotring.New([]string{c.URL(c.Gateways[0]), c.URL(c.Gateways[1])}, dotring.Options{CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range awkwardKeys {
		s := client.Session()
		if _, err := s.Put(t.Context(), key, dotring.Value{Data: []byte("value of " + key), ContentType: "text/x-go"}); err != nil {
			t.Fatalf("put %q: %v", key, err)
		}
	}
	requireAwkwardKeys(t, c, "text/x-go")
	for _, key := range awkwardKeys {
		s := client.Session()
		for range 2 { // the second time from the cache
			if v, err := s.Get(t.Context(), key); err != nil || string(v.Data) != "value of "+key || v.ContentType != "text/x-go" {
				t.Fatalf("get %q: %+v, %v", key, v, err)
			}
		}
		if _, err := s.Delete(t.Context(), key); err != nil {
			t.Fatalf("delete %q: %v", key, err)
		}
		if _, err := s.Get(t.Context(), key); err != dotring.ErrNoValue {
			t.Fatalf("get deleted %q: %v", key, err)
		}
	}
}

// requireAwkwardKeys reads, by a client that sends paths as they are, what another has written.
func requireAwkwardKeys(t *testing.T, c *localcluster.Cluster, kind string) {
	t.Helper()
	cl := newClient(t, c.Gateways[0])
	for _, key := range awkwardKeys {
		a, err := cl.raw("GET", "/v1/kv/"+dotring.Escape(key), "", nil)
		if err != nil || a.status != 200 || string(a.body) != "value of "+key || a.header.Get("Content-Type") != kind {
			t.Errorf("%q was stored elsewhere: %v, %v", key, a, err)
		}
	}
}
