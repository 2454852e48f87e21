package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// nodeJSON is what the tests read of a node.
type nodeJSON struct {
	Name, Status string
	Weight       float64
	Share        float64
	Tokens       int
}

// nodesOf lists the nodes as dotringctl does, by name.
func nodesOf(t *testing.T, c *localcluster.Cluster) map[string]nodeJSON {
	t.Helper()
	out, code := ctl(t, c, "nodes", "-o", "json")
	var list struct{ Nodes []nodeJSON }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatalf("nodes: %v, code %d: %s", err, code, out)
	}
	byName := make(map[string]nodeJSON)
	for _, n := range list.Nodes {
		byName[n.Name] = n
	}
	return byName
}

// layoutMembers names the members of the settled layout; nil while a change is under way.
func layoutMembers(t *testing.T, c *localcluster.Cluster) (names []string) {
	t.Helper()
	a, err := newClient(t, c.Gateways[1]).raw(http.MethodGet, "/v1/cluster/layout", "", nil)
	var list struct {
		Layouts []struct{ Members []struct{ Name string } }
	}
	if err == nil {
		err = json.Unmarshal(a.body, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Layouts) != 1 {
		return nil
	}
	for _, m := range list.Layouts[0].Members {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return names
}

// An operator previews and makes every change of the layout, and asks whether nodes may stop, while all keys stay readable at all their owners.
func TestOperatorsChangeTheLayout(t *testing.T) {
	c := prepare(t, localcluster.Config{Nodes: 5, Gateways: 2,
		NodeArgs: []string{"--gossip-interval", "200ms", "--anti-entropy-interval", "1s", "--dead-after", "0s"}})
	for _, p := range slices.Concat(c.Nodes[:4], c.Gateways) {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, c, 4)
	cl := newClient(t, c.Gateways[0])
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("key-%d", i))
	}
	parallel(t, keys, func(key string) error {
		a, err := cl.do("PUT", key, "w=3&timeout=20s", []byte("value of "+key))
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%s: %v", key, a)
		}
		return err
	})
	readable := func(when string) {
		t.Helper()
		parallel(t, keys, func(key string) error {
			a, err := cl.do("GET", key, "r=3&timeout=20s", nil)
			if err == nil && (a.status != http.StatusOK || string(a.body) != "value of "+key) {
				err = fmt.Errorf("%s: %s: %v", when, key, a)
			}
			return err
		})
	}
	operate := func(want int, says string, args ...string) {
		t.Helper()
		if out, code := ctl(t, c, args...); code != want || !strings.Contains(out, says) {
			t.Fatalf("dotringctl %s: code %d, want %d and %q:\n%s", strings.Join(args, " "), code, want, says, out)
		}
	}
	kill := func(p *localcluster.Process) {
		t.Helper()
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		noticed(t, c)
		eventually(t, c, func() error {
			if n := nodesOf(t, c)[p.Name]; n.Status == "alive" {
				return fmt.Errorf("gossip takes %s to be alive", p.Name)
			}
			return nil
		})
	}
	members := func(want ...string) {
		t.Helper()
		if got := layoutMembers(t, c); !slices.Equal(got, want) {
			t.Fatalf("members %v, want %v", got, want)
		}
	}

	// What makes no sense is told so, and changes nothing.
	for path, want := range map[string]int{
		"nodes/node9:decommission": 404, "nodes/node1:setWeight?weight=0": 400, "nodes/node1:setWeight?weight=17": 400, "nodes/node1:setWeight": 400,
		"nodes/node1:replace?by=node9": 404, "nodes/node1:replace?by=node2": 400, "nodes/node1:remove": 409, "nodes/node1:frob": 404,
		"nodes/node1:decommission?force=true": 400,
	} {
		path, query, _ := strings.Cut(path, "?")
		if a, err := cl.raw(http.MethodPost, "/v1/cluster/"+path, query, nil); err != nil || a.status != want {
			t.Errorf("POST %s?%s: %v %v, want %d", path, query, a, err, want)
		}
	}
	operate(1, "nothing would change", "abort")
	operate(1, "No such node", "can-stop", "node9")
	operate(0, "A preview: nothing was changed.", "decommission", "node4", "--dry-run")
	members("node1", "node2", "node3", "node4")

	operate(0, "Done.", "weight", "node2", "2", "--wait")
	if n := nodesOf(t, c); n["node2"].Weight != 2 || n["node2"].Share <= n["node1"].Share {
		t.Errorf("after the change of weight: %+v", n)
	}
	readable("after a change of weight")
	operate(0, "Done.", "decommission", "node4", "--wait")
	members("node1", "node2", "node3")
	readable("after a node left")
	operate(1, "fewer than 3 members would stay", "decommission", "node3")
	if err := c.Nodes[3].Terminate(); err != nil {
		t.Fatal(err)
	}

	// Of three copies one may be away, and not two.
	mayStop := func(node string, want int) {
		t.Helper()
		eventually(t, c, func() error {
			if out, code := ctl(t, c, "can-stop", node); code != want {
				return fmt.Errorf("can-stop %s: code %d, want %d: %s", node, code, want, out)
			}
			return nil
		})
	}
	mayStop("node1", 0)

	// A standby is given a place, hangs, and the change is given up; the others settle without it.
	t.Setenv("DOTRING_STANDBY", "true")
	if err := c.Nodes[4].Start(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOTRING_STANDBY", "false")
	eventually(t, c, func() error {
		if n := nodesOf(t, c)["node5"]; n.Status != "alive" {
			return fmt.Errorf("the standby is %+v", n)
		}
		return nil
	})
	if err := c.Nodes[4].Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	operate(1, "waits for node5", "replace", "node3", "node5", "--wait", "--within", "1s")
	operate(0, "Done.", "abort", "--wait")
	members("node1", "node2", "node3")
	if err := c.Nodes[4].Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	readable("after a node that hung was not taken in")

	// The standby takes the place of a dead node.
	kill(c.Nodes[2])
	operate(6, "node3 does not answer", "can-stop", "node1")
	eventually(t, c, func() error {
		if n := nodesOf(t, c)["node5"]; n.Status != "alive" {
			return fmt.Errorf("the standby is %+v", n)
		}
		return nil
	})
	operate(0, "A preview", "replace", "node3", "node5", "--dry-run")
	members("node1", "node2", "node3")
	operate(0, "Done.", "replace", "node3", "node5", "--wait")
	members("node1", "node2", "node5")
	readable("after a dead node was replaced")
	mayStop("node1", 0)

	// A change waits for a member that is away, and is given up.
	kill(c.Nodes[4])
	operate(1, "waits for node5", "weight", "node2", "1", "--wait", "--within", "1s")
	operate(1, "a layout change is pending", "weight", "node1", "2")
	operate(0, "Abort", "abort")
	if err := c.Nodes[4].Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, c, func() error {
		if got := layoutMembers(t, c); len(got) != 3 {
			return fmt.Errorf("members %v", got)
		}
		return nil
	})
	if n := nodesOf(t, c)["node2"]; n.Weight != 2 {
		t.Errorf("the change of weight was not given up: %+v", n)
	}
	reached(t, c)
	readable("after a change was given up")

	// A node is gone for good.
	kill(c.Nodes[4])
	eventually(t, c, func() error { // the node that is asked may have heard of its return later than of its end
		if out, code := ctl(t, c, "remove", "node5", "--dry-run"); code != 0 || !strings.Contains(out, "Each key will have 2 copies instead of 3.") {
			return fmt.Errorf("code %d: %s", code, out)
		}
		return nil
	})
	operate(0, "Done.", "remove", "node5", "--wait")
	members("node1", "node2")
	readable("after a removal")
	operate(6, "must not stop", "can-stop", "node1")
}
