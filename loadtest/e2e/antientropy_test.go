package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// metric is the sum of a node's metrics whose name and labels begin so.
func metric(p *localcluster.Process, name string) (sum float64, err error) {
	resp, err := http.Get("http://" + p.Admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, name) {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", line, err)
			}
			sum += v
		}
	}
	return sum, lines.Err()
}

const (
	repairedKeys = "dotring_antientropy_keys_repaired_total"
	wholeRounds  = `dotring_antientropy_rounds_total{outcome="whole"}`
)

// Two nodes lose what they hold, one all of it and one some keys, at different times. Without a single read all copies
// come back, and then nothing is repaired any more.
func TestLostRecordsComeBackUnread(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1, NodeArgs: []string{"--anti-entropy-interval", "500ms"}})
	cl := newClient(t, c.Gateways[0])
	var keys []string
	for i := range 300 {
		keys = append(keys, fmt.Sprintf("%s-%d", []string{"kept", "lost"}[i%2], i))
	}
	parallel(t, keys, func(key string) error {
		a, err := cl.do("PUT", key, "w=3&timeout=20s", []byte("value of "+key))
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%s: %v", key, a)
		}
		return err
	})

	for _, loss := range []struct {
		node *localcluster.Process
		lose func(p *localcluster.Process)
		keys int
		back string // the metric that counts what came back
	}{
		{c.Nodes[1], func(p *localcluster.Process) { removeRecords(t, p, "lost-") }, len(keys) / 2, repairedKeys},
		{c.Nodes[2], func(p *localcluster.Process) {
			if err := os.RemoveAll(filepath.Join(p.DataDir(), "data")); err != nil {
				t.Fatal(err)
			}
		}, len(keys), refilled},
	} {
		if err := loss.node.Kill(); err != nil {
			t.Fatal(err)
		}
		loss.lose(loss.node)
		if err := loss.node.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, c, func() error {
			n, err := metric(loss.node, loss.back)
			if err == nil && n < float64(loss.keys) {
				err = fmt.Errorf("%s got back %v of %d keys", loss.node.Name, n, loss.keys)
			}
			return err
		})
	}
	waitReady(t, c, 3)

	for _, key := range keys {
		replicas := cl.inspect(t, key).Replicas
		if len(replicas) != 3 {
			t.Fatalf("%s has %d replicas", key, len(replicas))
		}
		for _, r := range replicas {
			if r.Digest == "" || r.Digest != replicas[0].Digest {
				t.Errorf("%s on %s has digest %q, on %s %q", key, r.Name, r.Digest, replicas[0].Name, replicas[0].Digest)
			}
		}
	}
	for _, p := range c.Nodes {
		before, err := metric(p, repairedKeys)
		if err != nil {
			t.Fatal(err)
		}
		rounds, err := metric(p, wholeRounds)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, c, func() error {
			n, err := metric(p, wholeRounds)
			if err == nil && n < rounds+4 {
				err = fmt.Errorf("%s ended %v whole rounds", p.Name, n-rounds)
			}
			return err
		})
		if after, err := metric(p, repairedKeys); err != nil || after != before {
			t.Errorf("%s repaired %v keys after all were equal, %v", p.Name, after-before, err)
		}
	}
}
