package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// hintsKept asks dotringctl how many hints each node keeps.
func hintsKept(g *localcluster.Process) (map[string]string, error) {
	out, err := exec.Command(program("dotringctl"), "--gateway", "http://"+g.HTTP, "-o", "json", "nodes").Output()
	if err != nil {
		return nil, fmt.Errorf("dotringctl nodes: %w", err)
	}
	var list struct {
		Nodes []struct{ Name, Hints, Error string }
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	kept := map[string]string{}
	for _, n := range list.Nodes {
		if kept[n.Name] = n.Hints; n.Error != "" {
			kept[n.Name] = "unknown"
		}
	}
	return kept, nil
}

// One node of five is killed. Writes that want all replicas succeed with the help of stand-ins, and only with leave to
// use them. One stand-in is killed, too, and keeps what it had. When the first is back, it is brought what it missed
// without being asked for it, nothing is left over, and all replicas are the same.
func TestHintsBringWhatANodeMissed(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 5, Gateways: 1, NodeArgs: []string{"--anti-entropy-interval", "1h"}})
	cl := newClient(t, c.Gateways[0])
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("hinted-%d", i))
	}
	put := func(key, query string) (answer, error) {
		return cl.do("PUT", key, query+"&timeout=20s", []byte("value of "+key))
	}
	down := c.Nodes[1]
	owned := map[string]bool{}
	for _, key := range keys {
		for _, r := range cl.inspect(t, key).Replicas {
			owned[key] = owned[key] || r.Name == down.Name && r.Role == "primary"
		}
	}
	if err := down.Kill(); err != nil {
		t.Fatal(err)
	}
	noticed(t, c)
	expected := 0
	for _, key := range keys {
		a, err := put(key, "w=all")
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %v %v", key, a, err)
		}
		w := a.write(t)
		if hinted := min(1, w.Hinted); w.Acks != 3 || (hinted == 1) != owned[key] {
			t.Errorf("%s, which %s owns: %v, is acknowledged by %d of which %d are stand-ins", key, down.Name, owned[key], w.Acks, w.Hinted)
		}
		expected += w.Hinted
		a, err = put(key+"-strict", "w=all&sloppy=false")
		if err != nil || a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
			t.Fatalf("%s: %v %v", key, a, err)
		}
	}
	if expected == 0 {
		t.Fatalf("%s owns none of the keys", down.Name)
	}
	for key, is := range owned {
		a, err := put(key, "w=all&sloppy=false")
		if want := map[bool]int{true: http.StatusServiceUnavailable, false: http.StatusOK}[is]; err != nil || a.status != want {
			t.Errorf("%s without stand-ins: %v %v, want %d", key, a, err, want)
		}
	}
	total := func() (n int, err error) {
		kept, err := hintsKept(c.Gateways[0])
		for name, s := range kept {
			var one int
			if name == down.Name {
				continue
			}
			if _, serr := fmt.Sscan(s, &one); serr != nil && err == nil {
				err = fmt.Errorf("%s keeps %q hints", name, s)
			}
			n += one
		}
		return n, err
	}
	before := 0
	eventually(t, c, func() (err error) { // those that nobody waited for come a little later
		if before, err = total(); err == nil && before < expected {
			err = fmt.Errorf("%d hints are kept, at least %d were acknowledged", before, expected)
		}
		return err
	})

	kept, err := hintsKept(c.Gateways[0])
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(c.Nodes, func(p *localcluster.Process) bool { return p != down && kept[p.Name] != "0" })
	standIn := c.Nodes[at]
	if err := standIn.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standIn.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, c, func() error {
		now, err := hintsKept(c.Gateways[0])
		if err == nil && now[standIn.Name] != kept[standIn.Name] {
			err = fmt.Errorf("%s keeps %s hints, and kept %s when it was killed", standIn.Name, now[standIn.Name], kept[standIn.Name])
		}
		return err
	})

	if err := down.Start(); err != nil {
		t.Fatal(err)
	}
	waitReady(t, c, 5)
	eventually(t, c, func() error {
		n, err := total()
		if err == nil && n > 0 {
			err = fmt.Errorf("%d hints are left", n)
		}
		return err
	})
	for _, key := range keys {
		replicas := cl.inspect(t, key).Replicas
		digest := ""
		for _, r := range replicas {
			if r.Role != "primary" {
				continue
			}
			if digest == "" {
				digest = r.Digest
			}
			if r.Digest == "" || r.Digest != digest {
				t.Errorf("%s on %s has digest %q, elsewhere %q", key, r.Name, r.Digest, digest)
			}
		}
	}
}
