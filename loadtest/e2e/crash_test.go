package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// All nodes are killed at once while clients write, five times: what was acknowledged before each kill is there after it.
func TestKillAllWhileWriting(t *testing.T) {
	const clients = 8
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	var (
		mu    sync.Mutex
		acked = map[string]string{}
	)
	for round := range fewer(5, 2) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		enough := make(chan struct{}, clients)
		for w := range clients {
			cl := newClient(t, c.Gateways[0])
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					key, value := fmt.Sprintf("crash/%d/%d", w, i%50), fmt.Sprintf("%d in round %d", i, round)
					a, err := cl.do("PUT", key, "timeout=300ms", []byte(value))
					mu.Lock()
					if err == nil && a.status == http.StatusOK {
						acked[key] = value
					} else {
						// It may become visible, or not: either value may be read.
						delete(acked, key)
					}
					mu.Unlock()
					if i == 200 {
						enough <- struct{}{}
					}
				}
			})
		}
		for range clients {
			select {
			case <-enough:
			case <-time.After(generous):
				t.Error("the clients do not get on")
			}
		}
		for _, p := range c.Nodes {
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		wg.Wait()
		for _, p := range c.Nodes {
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
		}
		waitReady(t, c, 3)
		if len(acked) == 0 {
			t.Fatal("nothing was acknowledged: the test shows nothing")
		}
		cl := newClient(t, c.Gateways[0])
		for key, value := range acked {
			// A write in doubt of an earlier round, which the minting node had not seen, may stand beside it.
			a := cl.must(t, "GET", key, "", nil)
			values, err := a.values()
			if err != nil || !slices.ContainsFunc(values, func(v []byte) bool { return string(v) == value }) {
				t.Fatalf("round %d: %s reads %v, acknowledged was %q", round, key, a, value)
			}
		}
		t.Logf("round %d: %d acknowledged values are there", round, len(acked))
	}
}
