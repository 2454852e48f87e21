package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// tombstoneGrace is the shortened grace time of the test.
const tombstoneGrace = 6 * time.Second

// batch puts, deletes or gets keys, 100 at a time, and returns each one's status.
func batch(c *client, verb string, keys []string, value []byte) (map[string]int, error) {
	out := map[string]int{}
	for len(keys) > 0 {
		n := min(len(keys), 100)
		var items []map[string]any
		for _, k := range keys[:n] {
			item := map[string]any{"key": k}
			if verb == "batchPut" {
				item["value"] = base64.StdEncoding.EncodeToString(value)
			}
			items = append(items, item)
		}
		keys = keys[n:]
		body, err := json.Marshal(map[string]any{"items": items})
		if err != nil {
			return nil, err
		}
		a, err := c.raw("POST", "/v1/kv:"+verb, "", body, "Content-Type", "application/json")
		if err != nil {
			return nil, err
		}
		var got struct {
			Results []struct {
				Key    string
				Status int
			}
		}
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK {
			return nil, fmt.Errorf("%s: %v, %w", verb, a, err)
		}
		for _, it := range got.Results {
			out[it.Key] = it.Status
		}
	}
	return out, nil
}

// insist repeats a batch of writes for those keys that were not answered with 200.
func insist(t *testing.T, c *localcluster.Cluster, cl *client, verb string, keys []string, value []byte) {
	t.Helper()
	left := keys
	eventually(t, c, func() error {
		got, err := batch(cl, verb, left, value)
		if err != nil {
			return err
		}
		var again []string
		for _, k := range left {
			if got[k] != http.StatusOK {
				again = append(again, k)
			}
		}
		if left = again; len(left) > 0 {
			return fmt.Errorf("%s: %d keys are left, %s has status %d", verb, len(left), left[0], got[left[0]])
		}
		return nil
	})
}

// metricSum adds up a metric over all nodes.
func metricSum(t *testing.T, c *localcluster.Cluster, name string) (sum float64, err error) {
	for _, n := range c.Nodes {
		v, err := c.Metric(t.Context(), n, name)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// Keys are deleted while nodes restart and one is away for longer than the grace time. As long as it is away no tombstone
// leaves, and whoever asks is told why. When it is back, with all that it has missed, the proof is completed: the
// tombstones are gone on all replicas, and nothing that was deleted comes back.
func TestTombstonesLeaveByProof(t *testing.T) {
	count := 300
	if s := os.Getenv("DOTRING_TOMBSTONES"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	c := start(t, localcluster.Config{Nodes: 4, Gateways: 1, NodeArgs: []string{
		"--anti-entropy-interval", "500ms", "--tombstone-grace", tombstoneGrace.String()}})
	cl := newClient(t, c.Gateways[0])
	var keys []string
	for i := range count {
		keys = append(keys, fmt.Sprintf("deleted-%d", i))
	}
	insist(t, c, cl, "batchPut", keys, []byte(strings.Repeat("v", 200)))
	away := c.Nodes[1]
	if err := away.Kill(); err != nil {
		t.Fatal(err)
	}
	for i, part := range [][]string{keys[:count/3], keys[count/3 : 2*count/3], keys[2*count/3:]} {
		insist(t, c, cl, "batchDelete", part, nil)
		other := c.Nodes[[]int{0, 2, 3}[i]]
		if err := other.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
	}
	since := time.Now()
	eventually(t, c, func() error {
		out, err := exec.Command(program("dotringctl"), "--gateway", "http://"+c.Gateways[0].HTTP, "why", keys[0]).CombinedOutput()
		if err != nil {
			return fmt.Errorf("dotringctl why: %w: %s", err, out)
		}
		if !strings.Contains(string(out), "a member is down ("+away.Name+")") && time.Since(since) < 2*tombstoneGrace {
			return fmt.Errorf("why says %q", out)
		}
		if time.Since(since) < 2*tombstoneGrace {
			return fmt.Errorf("%s is away for %s", away.Name, time.Since(since))
		}
		return nil
	})
	for _, n := range c.Nodes {
		if n == away {
			continue
		}
		if v, err := c.Metric(t.Context(), n, "dotring_node_tombstones_collected_total"); err != nil || v != 0 {
			t.Fatalf("%s collected %v tombstones while a member was away: %v", n.Name, v, err)
		}
	}
	if err := away.Start(); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	within(t, c, generous+time.Duration(count)*2*time.Millisecond, func() error {
		for _, name := range []string{"dotring_kv_hints ", "dotring_kv_keys ", "dotring_kv_tombstone_marks ", "dotring_kv_record_bytes "} {
			if n, err := metricSum(t, c, name); err != nil || n != 0 {
				return fmt.Errorf("%s is %v, %v", name, n, err)
			}
		}
		return nil
	})
	t.Logf("%d tombstones were gone %s after the last member was back", count, time.Since(back).Round(time.Millisecond))
	got, err := batch(cl, "batchGet", keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if got[k] != http.StatusNotFound {
			t.Errorf("%s has status %d", k, got[k])
		}
	}
	if n, err := metricSum(t, c, "dotring_kv_keys "); err != nil || n != 0 {
		t.Errorf("%v keys are back, %v", n, err)
	}
	cl.want(t, http.StatusOK, "PUT", keys[0], "w=all", []byte("new"))
	if a := cl.want(t, http.StatusOK, "GET", keys[0], "r=3", nil); string(a.body) != "new" {
		t.Errorf("a new value reads as %v", a)
	}
}
