package capacity

import (
	"os"
	"strings"
	"testing"
)

// The page's tables are what the figures give, and every figure names the command that measured it, which RESULTS.md tells of.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), Page()) {
		t.Errorf("the capacity page in ARCHITECTURE.md is not what the figures give:\n%s", Page())
	}
	results, err := os.ReadFile("../RESULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Default().List() {
		if f.Command == "" || f.Value <= 0 {
			t.Errorf("%s: figure without a command or value", f.Name)
		}
		for _, part := range strings.Split(f.Command, "`") {
			if strings.HasPrefix(part, "make ") || strings.HasPrefix(part, "dotring-load ") {
				if !strings.Contains(string(results), part) {
					t.Errorf("%s: RESULTS.md does not tell of %s", f.Name, part)
				}
			}
		}
	}
}

// Ten times as much takes ten times as many nodes, and each has as much to do as before.
func TestTenfold(t *testing.T) {
	box := Machine{DiskBytes: 4e12, DiskFull: 0.7, WriteRate: 1e12, Cores: 64, CoresBusy: 1}
	l := Load{Bytes: 30e12, ValueBytes: 1e4, Requests: 1e3, Copies: 3}
	one := Compute(l, box, Default())
	l.Bytes *= 10
	ten := Compute(l, box, Default())
	if one.NodesForDisk != 38 || ten.NodesForDisk != 380 {
		t.Errorf("%d and %d nodes for the disks", one.NodesForDisk, ten.NodesForDisk)
	}
	if one.Nodes%3 != 0 || one.Nodes < one.NodesForDisk || ten.CoresNodes != one.CoresNodes {
		t.Errorf("%+v", one)
	}
	if ten.ReplaceSeconds > one.ReplaceSeconds*1.1 || ten.ReplaceSeconds < one.ReplaceSeconds*0.9 {
		t.Errorf("a node is replaced in %v and %v s", one.ReplaceSeconds, ten.ReplaceSeconds)
	}
}
