package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// A cluster forms from three nodes started at the same moment, in whatever order they come up.
func TestFormsInAnyOrder(t *testing.T) {
	orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	for _, order := range orders[fewer(0, len(orders)-2):] {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			c := prepare(t, localcluster.Config{Nodes: 3, Gateways: 1})
			for _, i := range order {
				if err := c.Nodes[i].Start(); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Gateways[0].Start(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			waitReady(t, c, 3)
			t.Logf("formed in %v", time.Since(began).Round(time.Millisecond))
			cl := newClient(t, c.Gateways[0])
			cl.want(t, http.StatusOK, "PUT", "k", "w=all", []byte("v"))
			if a := cl.want(t, http.StatusOK, "GET", "k", "r=all", nil); string(a.body) != "v" {
				t.Fatalf("read %q", a.body)
			}
		})
	}
}

// A cluster grows from one node to two to three, keeps what was written on the way, and says at each step what it can
// promise.
func TestGrowsFromOne(t *testing.T) {
	c := prepare(t, localcluster.Config{Nodes: 3, Gateways: 1, NodeArgs: []string{"--join-wait", "300ms"}})
	if err := c.Gateways[0].Start(); err != nil {
		t.Fatal(err)
	}
	cl := newClient(t, c.Gateways[0])
	for n := 1; n <= 3; n++ {
		if err := c.Nodes[n-1].Start(); err != nil {
			t.Fatal(err)
		}
		waitReady(t, c, n)
		s, err := c.Status(t.Context(), c.Gateways[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d nodes: %s %v", n, s.Promise, s.Warnings)
		if s.Replicas != n {
			t.Errorf("with %d nodes the status says %d copies", n, s.Replicas)
		}
		if n < 3 && !strings.Contains(s.Promise+strings.Join(s.Warnings, " "), fmt.Sprint(n)) {
			t.Errorf("with %d of 3 copies the status does not say so: %q %q", n, s.Promise, s.Warnings)
		}
		for i := range 50 {
			a := cl.want(t, http.StatusOK, "PUT", fmt.Sprintf("%d/%d", n, i), "", []byte(fmt.Sprint(n, i)))
			if got := a.write(t).Acks; got < min(n, 2) {
				t.Fatalf("a write on %d nodes was acknowledged by %d", n, got)
			}
		}
		for m := 1; m <= n; m++ {
			for i := range 50 {
				key := fmt.Sprintf("%d/%d", m, i)
				if a := cl.want(t, http.StatusOK, "GET", key, "r=all", nil); string(a.body) != fmt.Sprint(m, i) {
					t.Fatalf("with %d nodes %s reads %q", n, key, a.body)
				}
			}
		}
	}
	for i := range 50 {
		for _, r := range cl.inspect(t, fmt.Sprintf("1/%d", i)).Replicas {
			if r.State != "record" {
				t.Fatalf("%s holds %s of a key written before it joined", r.Name, r.State)
			}
		}
	}
}

// Three nodes that stop at once, cleanly and by SIGKILL in turn, come back with the same ring and data, and no dot
// names two values.
func TestRestartAllTenTimes(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	cl := newClient(t, c.Gateways[0])
	first, err := c.Status(t.Context(), c.Gateways[0])
	if err != nil {
		t.Fatal(err)
	}
	const keys = 20
	rounds := fewer(10, 4)
	dots := map[string]string{}
	want := map[string]string{}
	for round := range rounds {
		for i := range keys {
			key, value := fmt.Sprintf("restart/%d", i), fmt.Sprintf("%d in round %d", i, round)
			cl.want(t, http.StatusOK, "PUT", key, "", []byte(value))
			want[key] = value
			collectDots(t, cl, key, dots)
		}
		restartAll(t, c, round%2 == 1)
		s, err := c.Status(t.Context(), c.Gateways[0])
		if err != nil {
			t.Fatal(err)
		}
		if s.Cluster != first.Cluster || s.Settled != first.Settled {
			t.Fatalf("round %d: the ring was %v, now %v", round, first, s)
		}
		for key, value := range want {
			a := cl.want(t, http.StatusOK, "GET", key, "", nil)
			if string(a.body) != value {
				t.Fatalf("round %d: %s reads %q, want %q", round, key, a.body, value)
			}
			collectDots(t, cl, key, dots)
		}
	}
	if len(dots) < rounds*keys {
		t.Errorf("%d dots were seen for %d writes", len(dots), rounds*keys)
	}
}

func restartAll(t *testing.T, c *localcluster.Cluster, kill bool) {
	t.Helper()
	for _, p := range c.Nodes {
		var err error
		if kill {
			err = p.Kill()
		} else {
			err = p.Terminate()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range c.Nodes {
		<-p.Exited()
		if !kill && p.Err() != nil {
			t.Fatalf("%s did not stop cleanly: %v\n%s", p.Name, p.Err(), p.LogTail(10))
		}
	}
	for _, p := range c.Nodes {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, c, 3)
}

// collectDots adds the dots of a key's siblings on every replica, and fails where one dot names two values.
func collectDots(t *testing.T, cl *client, key string, dots map[string]string) {
	t.Helper()
	for _, r := range cl.inspect(t, key).Replicas {
		for _, s := range r.Siblings {
			dot, value := s.Actor+"/"+s.Counter, key+" "+s.ETag
			if was, ok := dots[dot]; ok && was != value {
				t.Fatalf("dot %s names %q and %q", dot, was, value)
			}
			dots[dot] = value
		}
	}
}
