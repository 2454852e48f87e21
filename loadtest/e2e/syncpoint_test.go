package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// A node misses writes while it is away, hints are kept for it, and another loses records; comparisons come by themselves
// only each hour. The sync point does not answer while that node is away, says so, and once it has answered all copies
// are equal.
func TestRepairWaits(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 4, Gateways: 2, NodeArgs: []string{"--anti-entropy-interval", "1h"}})
	cl := newClient(t, c.Gateways[0])
	var keys []string
	for i := range 200 {
		keys = append(keys, fmt.Sprintf("%s-%d", []string{"kept", "lost"}[i%2], i))
	}
	put := func(round string) {
		parallel(t, keys, func(key string) error {
			a, err := cl.do("PUT", key, "timeout=20s", []byte(round+key))
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("%s: %v", key, a)
			}
			return err
		})
	}
	put("first ")
	kill := func(p *localcluster.Process) {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		noticed(t, c)
	}
	kill(c.Nodes[1])
	put("second ")
	kill(c.Nodes[2])
	removeRecords(t, c.Nodes[2], "lost-")
	if err := c.Nodes[2].Start(); err != nil {
		t.Fatal(err)
	}

	if out, code := ctl(t, c, "repair", "--wait", "--within", "2s"); code != 1 || !strings.Contains(out, "node2") {
		t.Fatalf("with node2 away the sync point ends with code %d: %s", code, out)
	}
	eventually(t, c, func() error {
		out, code := ctl(t, c, "tasks", "-o", "json")
		var list struct {
			Tasks []struct{ Node, Kind, Peer, Total string }
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			return fmt.Errorf("tasks: %v, code %d: %s", err, code, out)
		}
		for _, task := range list.Tasks {
			if task.Kind == "hints" && task.Peer == "node2" && task.Total != "0" {
				return nil
			}
		}
		return fmt.Errorf("no task tells of hints for node2: %s", out)
	})
	if err := c.Nodes[1].Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if out, code := ctl(t, c, "repair", "--wait", "--within", "1m"); code != 0 {
		t.Fatalf("the sync point ends with code %d: %s", code, out)
	}
	t.Logf("the sync point took %s", time.Since(began))
	for _, key := range keys {
		var digests []string
		for _, r := range cl.inspect(t, key).Replicas {
			if r.Role == "primary" {
				digests = append(digests, r.Digest)
			}
		}
		if len(digests) != 3 || digests[0] == "" || digests[0] != digests[1] || digests[0] != digests[2] {
			t.Errorf("%s has digests %q", key, digests)
		}
	}
	for _, args := range [][]string{{"--node", "node3"}, {"--key-prefix", "lost-"}} {
		if out, code := ctl(t, c, append([]string{"repair", "--wait", "--within", "1m"}, args...)...); code != 0 {
			t.Errorf("repair %v ends with code %d: %s", args, code, out)
		}
	}
	if out, code := ctl(t, c, "repair", "--wait", "--node", "node9"); code != 1 || !strings.Contains(out, "node9") {
		t.Errorf("of an unknown node it ends with code %d: %s", code, out)
	}
}

// ctl runs dotringctl against the second gateway.
func ctl(t *testing.T, c *localcluster.Cluster, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program("dotringctl"), append([]string{"--gateway", "http://" + c.Gateways[1].HTTP}, args...)...)
	b, _ := cmd.CombinedOutput() // the exit code says it
	return string(b), cmd.ProcessState.ExitCode()
}
