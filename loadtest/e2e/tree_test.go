package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// maxValue is the default limit of a value, in bytes.
const maxValue = 1 << 20

// Every regular file of Go's own source tree is stored under its path through one gateway, while a storage node is
// killed and comes back, and is read byte for byte through the other.
func TestStoresGoSourceTree(t *testing.T) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(goroot)), "src")
	files := regularFiles(t, root)
	if raceEnabled {
		files = files[:len(files)/10] // the programs under test are several times slower
	}
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	writer, reader := newClient(t, c.Gateways[0]), newClient(t, c.Gateways[1])

	var tooLarge, done atomic.Int64
	killAt := int64(len(files) / 3)
	returnAt := killAt + 1000
	if raceEnabled {
		returnAt = killAt + 100
	}
	victim := c.Nodes[2]
	parallel(t, files, func(path string) error {
		switch done.Add(1) {
		case killAt:
			if err := victim.Kill(); err != nil {
				return err
			}
		case returnAt:
			if err := victim.Start(); err != nil {
				return err
			}
		}
		body, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		return putFile(writer, path, body, &tooLarge)
	})
	waitReady(t, c, 3)
	t.Logf("%d files put, %d of them refused as too large", len(files), tooLarge.Load())
	for _, query := range []string{"", "r=3"} {
		parallel(t, files, func(path string) error {
			body, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				return err
			}
			return sameFile(reader, path, query, body)
		})
	}
	if victim.Err() != nil {
		t.Errorf("the node that was killed and started again has ended: %v", victim.Err())
	}
}

// putFile stores one file. A put may be in doubt when the node that minted it died before it answered: it is repeated
// under the same name until it is not.
func putFile(cl *client, path string, body []byte, tooLarge *atomic.Int64) error {
	for range 5 {
		a, err := cl.do("PUT", path, "timeout=10s", body, "Kv-Request-Id", fmt.Sprintf("%x", hash(path)))
		switch {
		case err != nil:
			return err
		case len(body) > maxValue:
			tooLarge.Add(1)
			if a.status != http.StatusRequestEntityTooLarge {
				return fmt.Errorf("%s of %d bytes: %v", path, len(body), a)
			}
			return nil
		case a.status == http.StatusOK:
			return nil
		case a.problem().Outcome != "in-doubt":
			return fmt.Errorf("%s: %v", path, a)
		}
	}
	return fmt.Errorf("%s stays in doubt", path)
}

func sameFile(cl *client, path, query string, body []byte) error {
	a, err := cl.do("GET", path, query, nil)
	if err != nil {
		return err
	}
	if len(body) > maxValue {
		if a.status != http.StatusNotFound {
			return fmt.Errorf("%s was refused and yet reads %d", path, a.status)
		}
		return nil
	}
	if a.status != http.StatusOK || !bytes.Equal(a.body, body) {
		return fmt.Errorf("%s?%s reads %d with %d bytes, want 200 with %d", path, query, a.status, len(a.body), len(body))
	}
	return nil
}

func hash(s string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

func regularFiles(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if len(rel) <= 250 {
			files = append(files, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5000 {
		t.Fatalf("only %d files under %s", len(files), root)
	}
	return files
}

// parallel calls do for every item on sixteen goroutines, and fails the test with the first errors.
func parallel[T any](t *testing.T, items []T, do func(T) error) {
	t.Helper()
	var (
		next atomic.Int64
		wg   sync.WaitGroup
		bad  atomic.Int64
	)
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(items)) && bad.Load() < 10; i = next.Add(1) - 1 {
				if err := do(items[i]); err != nil {
					bad.Add(1)
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
