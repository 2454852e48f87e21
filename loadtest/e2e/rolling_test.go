package e2e

import (
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// patience lets a machine be slow that is busy with other things; a request that is refused or in doubt fails all the same.
const patience = "timeout=20s"

// steadyLoad writes and reads through cl until it is stopped, and takes every answer but 200 for a fault. Each worker reads its own
// writes, with the context of the last one.
type steadyLoad struct {
	t        *testing.T
	c        *localcluster.Cluster
	stop     atomic.Bool
	requests atomic.Int64
	workers  sync.WaitGroup
	mu       sync.Mutex
	last     map[string]string // acknowledged
}

func beginLoad(t *testing.T, c *localcluster.Cluster, cl *client, name string, workers, keys int) *steadyLoad {
	t.Helper()
	l := &steadyLoad{t: t, c: c, last: map[string]string{}}
	t.Cleanup(l.halt) // before what it runs against ends
	for w := range workers {
		l.workers.Go(func() {
			contexts := map[string]string{}
			for i := 0; !l.stop.Load(); i++ {
				key := fmt.Sprintf("%s-%d-%d", name, w, i%keys)
				id := fmt.Sprintf("%s-%d-%d", name, w, i)
				put := []string{"Kv-Request-Id", id}
				if known := contexts[key]; known != "" {
					put = append(put, "Kv-Context", known)
				}
				a, err := cl.do("PUT", key, patience, []byte(id), put...)
				if l.requests.Add(1); err != nil || a.status != 200 {
					t.Errorf("PUT %s: %v, %v", id, a, err)
					continue
				}
				contexts[key] = a.context
				l.mu.Lock()
				l.last[key] = id
				l.mu.Unlock()
				a, err = cl.do("GET", key, patience, nil, "Kv-Context", a.context)
				if l.requests.Add(1); err != nil || a.status != 200 || string(a.body) != id {
					t.Errorf("GET %s after %s: %v, %v", key, id, a, err)
				}
			}
		})
	}
	return l
}

// pass waits until so many more requests were answered.
func (l *steadyLoad) pass(n int64) {
	l.t.Helper()
	from := l.requests.Load()
	eventually(l.t, l.c, func() error {
		if got := l.requests.Load() - from; got < n {
			return fmt.Errorf("%d requests", got)
		}
		return nil
	})
}

func (l *steadyLoad) halt() {
	l.stop.Store(true)
	l.workers.Wait()
}

// end stops the load, and reads what was acknowledged from all copies.
func (l *steadyLoad) end(cl *client) {
	l.t.Helper()
	l.halt()
	for key, want := range maps.All(l.last) {
		if a := cl.want(l.t, 200, "GET", key, "r=all", nil); string(a.body) != want {
			l.t.Errorf("%s reads %q, acknowledged was %q", key, a.body, want)
		}
	}
	l.t.Logf("%d requests", l.requests.Load())
}

// allAlive waits until every gateway has all nodes to itself again, and each copy has what it missed.
func allAlive(t *testing.T, c *localcluster.Cluster) {
	t.Helper()
	waitReady(t, c, len(c.Nodes))
	for _, g := range c.Gateways {
		eventually(t, c, func() error {
			s, err := c.Status(t.Context(), g)
			if err == nil && s.Alive != len(c.Nodes) {
				err = fmt.Errorf("%s takes %d nodes to be alive", g.Name, s.Alive)
			}
			return err
		})
	}
}

// Every process is restarted in turn, storage nodes and gateways, behind HAProxy and under load, as the runbook says: no
// request fails, not even one that nobody repeats. Without HAProxy it is the storage nodes alone, behind a gateway.
func TestRollingRestart(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2, GatewayArgs: []string{"--drain-delay", "2s"}})
	cl, turn := newClient(t, c.Gateways[0]), c.Nodes
	if _, err := exec.LookPath("haproxy"); err == nil {
		cl, turn = balancer(t, c, "haproxy", "haproxy.cfg", func(config string) []string { return []string{"-W", "-db", "-f", config} }), c.All()
	} else {
		t.Log("haproxy is not installed: the gateways are not restarted")
	}
	l := beginLoad(t, c, cl, "rolling", 8, 20)
	l.pass(300)
	for _, p := range turn {
		if err := p.Terminate(); err != nil {
			t.Fatal(err)
		}
		<-p.Exited()
		if err := p.Err(); err != nil {
			t.Errorf("%s did not end cleanly: %v", p.Name, err)
		}
		l.pass(200)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		allAlive(t, c)
		l.pass(200)
	}
	l.end(cl)
	// The doctor finds nothing, once copies have been compared, and says which node is gone when one is.
	eventually(t, c, func() error {
		if out, errs, code := runCtl(t, c, nil, "doctor", "--also", c.URL(c.Gateways[1])); code != 0 {
			return fmt.Errorf("doctor exits with %d: %s%s", code, out, errs)
		}
		return nil
	})
	if err := c.Nodes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, c, func() error {
		if out, _, code := runCtl(t, c, nil, "doctor"); code != 1 || !strings.Contains(out, "critical  node "+c.Nodes[1].Name) {
			return fmt.Errorf("doctor exits with %d: %s", code, out)
		}
		return nil
	})
}
