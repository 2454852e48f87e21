package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// TestPebbleCluster puts and gets on nodes that keep their data in Pebble, ends all of them, one by the power switch,
// and finds everything again.
func TestPebbleCluster(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1, NodeArgs: []string{"--engine", "pebble"}})
	cl := newClient(t, c.Gateways[0])
	const keys = 50
	key := func(i int) string { return fmt.Sprintf("pebble/%02d", i) }
	value := func(i int) string { return fmt.Sprintf("value %d", i) }
	check := func(when string) {
		for i := range keys {
			if a := cl.want(t, http.StatusOK, http.MethodGet, key(i), "r=all", nil); string(a.body) != value(i) {
				t.Errorf("%s: %s holds %q", when, key(i), a.body)
			}
		}
		cl.want(t, http.StatusNotFound, http.MethodGet, "pebble/absent", "r=all", nil)
	}
	for i := range keys {
		cl.want(t, http.StatusOK, http.MethodPut, key(i), "w=all", []byte(value(i)))
	}
	check("after the puts")
	for i, n := range c.Nodes {
		end := n.Terminate
		if i == 0 {
			end = n.Kill
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-n.Exited():
		case <-time.After(20 * time.Second):
			t.Fatalf("%s does not end", n.Name)
		}
		logs, err := filepath.Glob(filepath.Join(n.DataDir(), "data", "pebble", "*.log"))
		if _, mark := os.Stat(filepath.Join(n.DataDir(), "data", "CURRENT")); err != nil || len(logs) == 0 || mark == nil {
			t.Errorf("%s does not keep its data in Pebble: %v, %v", n.Name, logs, err)
		}
	}
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, c, len(c.Nodes))
	check("after the restart")
}
