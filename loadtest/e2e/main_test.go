// Package e2e tests the programs as a user runs them: separate processes, real sockets, real disks, real signals.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
	"github.com/dotring/dotring/loadtest/pulse"
)

// binDir holds the programs under test, built once.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dotring-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	args := []string{"build", "-o", dir}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../../storagenode/cmd/dotring-storagenode",
		"../../gateway/cmd/dotring-gateway", "../../gateway/cmd/dotringctl", "../cmd/dotring-load")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build programs:", err)
		return 1
	}
	return m.Run()
}

// start brings a cluster up and stops it at the test's end, where it also requires that every process still running
// ends cleanly.
func start(t *testing.T, cfg localcluster.Config) *localcluster.Cluster {
	t.Helper()
	c := prepare(t, cfg)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitReady(t, c, cfg.Nodes)
	return c
}

// prepare is start without starting anything.
func prepare(t *testing.T, cfg localcluster.Config) *localcluster.Cluster {
	t.Helper()
	cfg.Bin, cfg.FreePorts = binDir, true
	if cfg.Data == "" {
		cfg.Data = t.TempDir()
	}
	c, err := localcluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range c.All() {
				t.Logf("--- end of the log of %s\n%s", p.Name, p.LogTail(15))
			}
		}
		if err := c.Stop(60 * time.Second); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
		if err := c.Release(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func waitReady(t *testing.T, c *localcluster.Cluster, nodes int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), generous)
	defer cancel()
	if err := c.WaitReady(ctx, nodes); err != nil {
		t.Fatal(err)
	}
}

// noticed waits until each gateway goes around the nodes that do not run: a write that is sent to one as it dies stays in
// doubt until its deadline.
func noticed(t *testing.T, c *localcluster.Cluster) {
	t.Helper()
	seen(t, c, func(alive, running int) bool { return alive <= running })
}

// reached waits until each gateway reaches all nodes that run.
func reached(t *testing.T, c *localcluster.Cluster) {
	t.Helper()
	seen(t, c, func(alive, running int) bool { return alive == running })
}

// seen waits until what each gateway takes to be alive is as wanted.
func seen(t *testing.T, c *localcluster.Cluster, wanted func(alive, running int) bool) {
	t.Helper()
	running := 0
	for _, n := range c.Nodes {
		if n.Running() {
			running++
		}
	}
	for _, g := range c.Gateways {
		if !g.Running() {
			continue
		}
		eventually(t, c, func() error {
			s, err := c.Status(t.Context(), g)
			if err == nil && !wanted(s.Alive, running) {
				err = fmt.Errorf("%s takes %d nodes to be alive, %d run", g.Name, s.Alive, running)
			}
			return err
		})
	}
}

// generous is how long that may take which must come: a machine that is shared may be ten times as slow as another, or stand still.
const generous = 2 * time.Minute

// fewer is how often a test does something: under the race detector programs are several times slower, and other runs do all of it.
func fewer(all, underRace int) int {
	if raceEnabled {
		return underRace
	}
	return all
}

// eventually polls until try succeeds.
func eventually(t *testing.T, c *localcluster.Cluster, try func() error) {
	t.Helper()
	within(t, c, generous, try)
}

// within polls until try succeeds, for at most limit.
func within(t *testing.T, c *localcluster.Cluster, limit time.Duration, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := c.Poll(ctx, try); err != nil {
		t.Fatal(err)
	}
}

// pulseOf notes until the test ends when this program was not run: what a promise says of time is judged without that.
func pulseOf(t *testing.T) *pulse.Pulse {
	t.Helper()
	p := pulse.New()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx, nil) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return p
}

func program(name string) string { return filepath.Join(binDir, name) }
