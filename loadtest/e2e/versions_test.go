package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// older returns the revision that a mixed cluster is made with: that of DOTRING_OLDER, else the newest tag that is not of this
// commit.
func older(t *testing.T) string {
	t.Helper()
	if rev := os.Getenv("DOTRING_OLDER"); rev != "" {
		return rev
	}
	out, err := exec.Command("git", "tag", "--merged", "HEAD^", "--sort=-creatordate").Output()
	if err != nil {
		t.Skipf("SKIPPED: this is no git repository with history, so that there is no older version to run beside this one: %v", err)
	}
	tag, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if tag == "" {
		t.Skip("SKIPPED: there is no older tag, so that there is no older version to run beside this one; DOTRING_OLDER=REVISION names one")
	}
	return tag
}

// buildAt builds the servers of a revision, in a work tree of its own, and returns the folder of the programs.
func buildAt(t *testing.T, rev string) string {
	t.Helper()
	tree, bin := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	run := func(dir, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	run(".", "git", "worktree", "add", "--detach", tree, rev)
	t.Cleanup(func() { run(".", "git", "worktree", "remove", "--force", tree) })
	run(tree, "go", "build", "-o", bin, "./storagenode/cmd/...", "./gateway/cmd/...")
	return bin
}

// A cluster of the newest older version is upgraded under load as the runbook says, gateways first, then storage nodes, one
// process at a time. Old and new run side by side at each step, and no request fails.
func TestMixedVersions(t *testing.T) {
	rev := older(t)
	bin := buildAt(t, rev)
	c := prepare(t, localcluster.Config{Nodes: 3, Gateways: 2, GatewayArgs: []string{"--drain-delay", "2s"}})
	for _, p := range c.All() {
		p.SetProgram(filepath.Join(bin, programOf(p)))
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitReady(t, c, 3)
	upgrade := func(p *localcluster.Process) {
		t.Helper()
		if err := p.Terminate(); err != nil {
			t.Fatal(err)
		}
		<-p.Exited()
		p.SetProgram(program(programOf(p)))
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		allAlive(t, c)
	}
	behind := newClient(t, c.Gateways[0])
	_, err := exec.LookPath("haproxy")
	if balanced := err == nil; balanced {
		behind = balancer(t, c, "haproxy", "haproxy.cfg", func(config string) []string { return []string{"-W", "-db", "-f", config} })
	} else {
		t.Log("haproxy is not installed: the gateways are upgraded before the load begins")
		l := beginLoad(t, c, behind, "old", 4, 20)
		l.pass(200)
		l.end(behind)
		for _, g := range c.Gateways {
			upgrade(g)
		}
	}
	l := beginLoad(t, c, behind, "mixed", 8, 20)
	l.pass(300)
	turn := c.Nodes
	if err == nil {
		turn = append(append([]*localcluster.Process{}, c.Gateways...), c.Nodes...)
	}
	for _, p := range turn {
		upgrade(p)
		l.pass(300)
		if t.Failed() {
			t.Fatalf("after %s was upgraded from %s", p.Name, rev)
		}
	}
	l.end(behind)
	t.Logf("upgraded from %s", rev)
}

func programOf(p *localcluster.Process) string {
	if p.Kind == "gateway" {
		return "dotring-gateway"
	}
	return "dotring-storagenode"
}
