package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// A node joins three that hold 20 MB while clients write. It and one of its sources are killed by turns meanwhile: the join
// finishes, nothing that was acknowledged is missing, and what was sent again is less than a fifth.
func TestJoinWhileEitherEndIsKilled(t *testing.T) {
	const size, writers = 16 << 10, 4
	mib, rate, kills := 20, "3MiB", 3
	if text := os.Getenv("DOTRING_TRANSFER_MIB"); text != "" {
		var err error
		if mib, err = strconv.Atoi(text); err != nil || mib < 20 {
			t.Fatalf("DOTRING_TRANSFER_MIB=%s is no number of 20 or more", text)
		}
		rate, kills = "16MiB", 20
	}
	keys := mib << 20 / size
	c := prepare(t, localcluster.Config{Nodes: 4, Gateways: 1, NodeArgs: []string{"--join-wait", "1s", "--transfer-rate", rate}})
	joiner, source := c.Nodes[3], c.Nodes[1]
	for _, p := range append(slices.Clone(c.Nodes[:3]), c.Gateways...) {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, c, 3)
	value := make([]byte, size) // does not compress
	random := rand.NewChaCha8([32]byte{1})
	if _, err := random.Read(value); err != nil {
		t.Fatal(err)
	}
	var loading sync.WaitGroup
	for w := range writers {
		cl := newClient(t, c.Gateways[0])
		loading.Go(func() {
			for i := w; i < keys; i += writers {
				if a, err := cl.do("PUT", fmt.Sprintf("growth/%d", i), "w=all&timeout=30s", value); err != nil || a.status != http.StatusOK {
					t.Errorf("load: %v %v", a, err)
				}
			}
		})
	}
	loading.Wait()

	// Clients write keys of their own, one after the other, so that the last value that was acknowledged must be there.
	stop := make(chan struct{})
	acked := make([]map[string]string, writers)
	var writing sync.WaitGroup
	for w := range writers {
		acked[w] = map[string]string{}
		cl := newClient(t, c.Gateways[0])
		writing.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				key, text := fmt.Sprintf("client/%d/%d", w, i%20), fmt.Sprintf("%d", i)
				if a, err := cl.do("PUT", key, "timeout=1s", []byte(text)); err == nil && a.status == http.StatusOK {
					acked[w][key] = text
				} else {
					delete(acked[w], key) // in doubt, either value may be read
				}
			}
		})
	}
	var once sync.Once
	end := func() { once.Do(func() { close(stop) }); writing.Wait() }
	defer end()

	before, life := 0.0, 0.0 // bytes that the joiner pulled in earlier lives, and in this one when it was last asked
	pulled := func() float64 {
		if n, err := c.Metric(t.Context(), joiner, "dotring_node_pulled_bytes_total"); err == nil {
			life = n
		}
		return before + life
	}
	if err := joiner.Start(); err != nil {
		t.Fatal(err)
	}
	owned := float64(keys) * size * 3 / 4
	for turn := range kills {
		victim := joiner
		if turn%2 == 1 {
			victim = source
		}
		within(t, c, 10*time.Minute, func() error {
			if n := pulled(); n < owned*float64(turn+1)/float64(kills+2) {
				return fmt.Errorf("%.0f of about %.0f bytes were pulled", n, owned)
			}
			return nil
		})
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		if victim == joiner {
			before, life = before+life, 0
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
	}
	within(t, c, 10*time.Minute, func() error {
		pulled()
		s, err := c.Status(t.Context(), c.Gateways[0])
		if err == nil && (s.Changing || s.Members != 4) {
			err = fmt.Errorf("%d members, still changing: %v", s.Members, s.Changing)
		}
		return err
	})
	end()
	sent := pulled()
	for _, p := range c.Nodes[:3] {
		n, err := c.Metric(t.Context(), p, "dotring_node_pulled_bytes_total")
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	t.Logf("%.1f MB were sent for about %.1f MB that the joiner owns, with %d kills", sent/1e6, owned/1e6, kills)
	if sent > 1.2*owned {
		t.Errorf("%.0f bytes were sent for %.0f", sent, owned)
	}
	cl, count := newClient(t, c.Gateways[0]), 0
	for _, mine := range acked {
		for key, text := range mine {
			count++
			values, err := cl.must(t, "GET", key, "timeout=10s", nil).values()
			if err != nil || !slices.ContainsFunc(values, func(v []byte) bool { return string(v) == text }) {
				t.Errorf("%s reads %q, acknowledged was %q (%v)", key, values, text, err)
			}
		}
	}
	for i := range keys {
		if a := cl.must(t, "GET", fmt.Sprintf("growth/%d", i), "timeout=10s", nil); a.status != http.StatusOK || !bytes.Equal(a.body, value) {
			t.Fatalf("growth/%d reads %d", i, a.status)
		}
	}
	if count < writers*10 {
		t.Errorf("%d keys of clients were acknowledged: the test shows little", count)
	}
}
