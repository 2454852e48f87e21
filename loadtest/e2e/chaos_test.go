package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/chaos"
	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/loadtest/localcluster"
)

// A few faults break no promise; a byte that is wrong on one replica's disk in the end does.
func TestChaos(t *testing.T) {
	for name, tc := range map[string]struct {
		length  time.Duration
		corrupt bool
	}{"faults": {16 * time.Second, false}, "a corrupted replica": {time.Second, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kinds, err := chaos.ParseKinds("kill,pause,split")
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			res, err := chaos.Run(t.Context(), chaos.Config{Bin: binDir, Data: t.TempDir(), Out: &out, Nodes: 4, Gateways: 2, Seed: 1,
				Length: tc.length, Kinds: kinds, Clients: 8, Rate: 100, Corrupt: tc.corrupt, Plain: tc.corrupt})
			if err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			t.Logf("without: %q\n%s", res.Without, &out)
			switch {
			case tc.corrupt && (len(res.Violations) == 0 || res.Violations[0].Promise != history.Convergent && res.Violations[0].Promise != history.Undamaged):
				t.Errorf("the corrupted replica is not noticed: %v", res.Violations)
			case !tc.corrupt && (len(res.Violations) > 0 || res.Faults == 0 || res.Acked < 100):
				t.Errorf("%d faults, %d writes acknowledged, broken: %v", res.Faults, res.Acked, res.Violations)
			}
		})
	}
}

// A node is killed under load, and comes back. Nobody waits for it for more than two seconds, and nothing fails for want of
// it but puts that it had been asked to mint when it died: whether those happened nobody can know before it is back. While
// it gets what it missed, others are served about as fast as before.
func TestKillUnderLoad(t *testing.T) {
	var out bytes.Buffer
	res, err := chaos.Run(t.Context(), chaos.Config{Bin: binDir, Data: t.TempDir(), Out: &out, Nodes: 4, Gateways: 2, Seed: 2,
		Length: 13 * time.Second, Kinds: []chaos.Kind{chaos.Kill}, Clients: 16, Rate: 300})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("%s", &out)
	if len(res.Violations) > 0 {
		t.Errorf("broken: %v", res.Violations)
	}
	if len(res.Steered) != res.Faults || res.Faults == 0 {
		t.Fatalf("%d faults, steered around after %v", res.Faults, res.Steered)
	}
	// Where other tests leave this program no processor, times are not the cluster's: then only promises are judged.
	if late := slices.ContainsFunc(res.Stretches, func(s chaos.Stretch) bool { return !s.Timely() }); late {
		t.Logf("the machine is too busy for times to mean something")
		return
	}
	if slices.Max(res.Steered) > 2*time.Second {
		t.Errorf("%d faults, steered around after %v", res.Faults, res.Steered)
	}
	const mintOfTheDead = "put 504 deadline-passed in-doubt"
	for _, s := range res.Stretches {
		if other := s.Failed - s.Why[mintOfTheDead]; other > 0 || s.Slow > 0 {
			t.Errorf("after %v (ended %v) %s", s.Fault, s.Ended, s.Counts)
		}
	}
	base, back := res.Stretches[1], res.Stretches[3]
	if base.Fault != nil || !back.Ended {
		t.Fatalf("the stretches are others: %v, %v", base.Fault, back.Fault)
	}
	// Other tests share the processors: the strict form is make soak-kill.
	if limit := 2*base.P99() + 100*time.Millisecond; back.P99() > limit {
		t.Errorf("p99 is %s after the node is back, before it was %s", back.P99(), base.P99())
	}
}

// A node that is stopped is passed over within two seconds; a gateway that was itself stopped for five suspects nobody.
func TestPhiOfStoppedProcesses(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	ids, err := c.NodeIDs(t.Context(), c.Gateways[0])
	if err != nil {
		t.Fatal(err)
	}
	phi := func(g *localcluster.Process, id string) float64 {
		v, err := c.Phi(t.Context(), g, id)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	signal := func(p *localcluster.Process, s syscall.Signal) {
		if err := p.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(c.Gateways[1], syscall.SIGSTOP)
	ran, stopped := pulseOf(t), time.Now()
	signal(c.Nodes[2], syscall.SIGSTOP)
	eventually(t, c, func() error {
		if v := phi(c.Gateways[0], ids[2]); v < 8 {
			return fmt.Errorf("phi is %.1f after %s", v, time.Since(stopped))
		}
		return nil
	})
	// A gateway that did not run itself takes that off the account, too.
	took := ran.Since(stopped)
	t.Logf("phi passed 8 after %s, of which this program ran %s", time.Since(stopped), took)
	if took > 2*time.Second {
		t.Errorf("phi passed 8 after %s", took)
	}
	signal(c.Nodes[2], syscall.SIGCONT)
	eventually(t, c, func() error {
		if d := 5*time.Second - time.Since(stopped); d > 0 {
			return fmt.Errorf("%s are left", d)
		}
		return nil
	})
	signal(c.Gateways[1], syscall.SIGCONT)
	resumed := time.Now()
	err = c.Poll(t.Context(), func() error {
		for _, id := range ids {
			if v := phi(c.Gateways[1], id); v >= 8 {
				t.Errorf("phi of %s is %.1f at the gateway that was stopped, %s after it went on", id, v, time.Since(resumed))
			}
		}
		if !t.Failed() && time.Since(resumed) < 2*time.Second {
			return errors.New("watching on")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
