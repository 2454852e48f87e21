package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// runCtl runs dotringctl against a gateway and returns what it printed.
func runCtl(t *testing.T, c *localcluster.Cluster, stdin []byte, args ...string) (out, errs string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program("dotringctl"), append([]string{"--gateway", c.URL(c.Gateways[0])}, args...)...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &o, &e
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("dotringctl %s: %v", strings.Join(args, " "), err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func ctlOK(t *testing.T, c *localcluster.Cluster, stdin []byte, args ...string) string {
	t.Helper()
	out, errs, code := runCtl(t, c, stdin, args...)
	if code != 0 {
		t.Fatalf("dotringctl %s exits with %d:\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// shown is what a client sees of a key, contexts aside.
func shown(t *testing.T, cl *client, key string) string {
	t.Helper()
	a := cl.must(t, "GET", key, "r=all", nil)
	values, err := a.values()
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	slices.SortFunc(values, bytes.Compare)
	return fmt.Sprintf("%d %s %s %q", a.status, a.header.Get("Content-Type"), a.header.Get("Etag"), values)
}

// A backup is taken while clients write; every node is lost; the backup is restored into a larger cluster. All that was
// acknowledged before the backup began is there byte for byte, siblings and deletions included.
func TestBackupSurvivesLossOfEveryNode(t *testing.T) {
	old := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	cl := newClient(t, old.Gateways[0])
	var keys []string
	for i := range 60 {
		conflict, deleted, plain := fmt.Sprintf("conflict/%d", i), fmt.Sprintf("deleted/%d", i), fmt.Sprintf("plain/\xff/%d", i)
		keys = append(keys, conflict, deleted, plain)
		none := cl.want(t, http.StatusNotFound, "GET", conflict, "", nil).context
		for _, v := range []string{"one", "two"} {
			cl.want(t, http.StatusOK, "PUT", conflict, "", []byte(v), "Kv-Context", none, "Content-Type", "text/plain")
		}
		cl.want(t, http.StatusOK, "PUT", deleted, "", []byte("was here"))
		cl.want(t, http.StatusOK, "DELETE", deleted, "", nil)
		cl.want(t, http.StatusOK, "PUT", plain, "", bytes.Repeat([]byte{byte(i), 0xff, '\n'}, 400), "Content-Type", "x/y")
	}
	var (
		mu    sync.Mutex
		acked = map[string]string{}
		wg    sync.WaitGroup
	)
	stop := make(chan struct{})
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("load/%d/%d", w, i)
				if a, err := cl.do("PUT", key, "", []byte("of "+key)); err == nil && a.status == http.StatusOK {
					mu.Lock()
					acked[key] = "of " + key
					mu.Unlock()
				}
			}
		})
	}
	eventually(t, old, func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(acked) < 500 {
			return fmt.Errorf("%d writes were acknowledged", len(acked))
		}
		return nil
	})
	mu.Lock()
	before := maps.Clone(acked)
	mu.Unlock()
	dir := filepath.Join(t.TempDir(), "monday")
	t.Log(ctlOK(t, old, nil, "backup", dir))
	mu.Lock()
	during := len(acked) - len(before)
	mu.Unlock()
	close(stop)
	wg.Wait()
	if during == 0 {
		t.Fatal("nothing was written during the backup")
	}
	want := map[string]string{}
	for _, k := range keys {
		want[k] = shown(t, cl, k)
	}
	for _, p := range old.Nodes {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(p.DataDir()); err != nil {
			t.Fatal(err)
		}
	}

	wider := start(t, localcluster.Config{Nodes: 4, Gateways: 1})
	requireDamageRefused(t, wider, dir)
	ctlOK(t, wider, nil, "backup", "--verify", dir)
	t.Log(ctlOK(t, wider, nil, "restore", dir))
	cl = newClient(t, wider.Gateways[0])
	for _, k := range keys {
		if got := shown(t, cl, k); got != want[k] {
			t.Fatalf("%q shows %s, it was %s", k, got, want[k])
		}
	}
	for k, v := range before {
		if a := cl.want(t, http.StatusOK, "GET", k, "r=all", nil); string(a.body) != v {
			t.Fatalf("%s reads %q, acknowledged was %q", k, a.body, v)
		}
	}
	t.Logf("%d keys acknowledged before the backup are back, %d were written during it", len(before)+len(keys), during)

	// A second time it needs to be told so, and changes nothing.
	if _, errs, code := runCtl(t, wider, nil, "restore", dir); code != 1 || !strings.Contains(errs, "not empty") {
		t.Fatalf("restored over keys: %d %s", code, errs)
	}
	a := cl.want(t, http.StatusMultipleChoices, "GET", "conflict/0", "", nil)
	cl.want(t, http.StatusOK, "PUT", "conflict/0", "", []byte("settled"), "Kv-Context", a.context)
	want["conflict/0"] = shown(t, cl, "conflict/0")
	ctlOK(t, wider, nil, "restore", "--merge", dir)
	for _, k := range keys {
		if got := shown(t, cl, k); got != want[k] {
			t.Fatalf("restored again, %q shows %s, it was %s", k, got, want[k])
		}
	}
	requireExports(t, wider, cl, keys, want)
}

// requireDamageRefused turns one bit of each file of a backup: neither verify nor restore takes it, and nothing changes.
func requireDamageRefused(t *testing.T, c *localcluster.Cluster, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(whole)
		b[len(b)/2] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"backup", "--verify", dir}, {"restore", dir}} {
			if out, errs, code := runCtl(t, c, nil, args...); code != 1 || !strings.Contains(errs, "not whole") {
				t.Fatalf("%s with a bit turned in %s: %d %s%s", strings.Join(args, " "), f.Name(), code, out, errs)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// requireExports exports, deletes and imports keys: they are what they were.
func requireExports(t *testing.T, c *localcluster.Cluster, cl *client, keys []string, want map[string]string) {
	t.Helper()
	exported := []byte(ctlOK(t, c, nil, "export"))
	if lines := strings.Count(ctlOK(t, c, nil, "export", "conflict/"), "\n"); lines != 60 {
		t.Fatalf("%d lines of conflict/, there are 60 keys", lines)
	}
	for _, k := range keys {
		if !strings.HasPrefix(k, "deleted/") {
			cl.want(t, http.StatusOK, "DELETE", k, "", nil)
		}
	}
	t.Log(ctlOK(t, c, exported, "import"))
	for _, k := range keys {
		if got := shown(t, cl, k); got != want[k] {
			t.Fatalf("imported, %q shows %s, it was %s", k, got, want[k])
		}
	}
	if _, errs, code := runCtl(t, c, []byte("{\"key\":\"a\",\"siblings\":[{\"value\":\"YQ==\"}]}\n{\"key\":\"b\"}\n"), "import"); code != 1 || !strings.Contains(errs, "line 2") {
		t.Fatalf("a line without siblings: %d %s", code, errs)
	}
}
