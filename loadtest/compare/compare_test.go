package compare

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
)

const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 93.19    0.012345          10      1234         2 fdatasync
  6.81    0.000901           9       100           fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.013246          18      1334         2 total
`

func TestParseStrace(t *testing.T) {
	for in, want := range map[string]int64{table: 1334, "": 0} {
		if got, err := parseStrace(strings.NewReader(in)); got != want || err != nil {
			t.Errorf("%d %v, want %d", got, err, want)
		}
	}
	bad := strings.Replace(table, "1234 ", "many ", 1)
	if got, err := parseStrace(strings.NewReader(bad)); err == nil {
		t.Errorf("%d from a table that is none", got)
	}
}

func FuzzParseStrace(f *testing.F) {
	f.Add(table)
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseStrace(strings.NewReader(s)); err == nil && n < 0 {
			t.Fatal(n)
		}
	})
}

// Without etcd, the error says so and how to get it, and nothing is left behind.
func TestNoEtcd(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Etcd: "no-such-etcd", Data: dir, Connections: []int{1}, Mixes: []Mix{{Name: "put"}}, Rounds: 1, Load: load.Default(), Say: func(s string) { t.Log(s) }}
	_, err := Run(t.Context(), cfg)
	if !errors.Is(err, ErrNoEtcd) || !strings.Contains(err.Error(), "apt-get install etcd-server") {
		t.Errorf("%v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := Run(t.Context(), Config{}); err == nil {
		t.Error("compared nothing")
	}
}

func TestEtcdMembersKnowEachOther(t *testing.T) {
	program := filepath.Join(t.TempDir(), "etcd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := newEtcd(program, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	addrs := map[string]bool{}
	for _, m := range e.members {
		addrs[m.HTTP] = true
		for _, other := range e.members {
			if !strings.Contains(m.Command(), other.Name+"=http://") {
				t.Errorf("%s does not know %s: %s", m.Name, other.Name, m.Command())
			}
		}
		if strings.Contains(m.Command(), "unsafe-no-fsync") {
			t.Error("etcd would not sync")
		}
	}
	if len(addrs) != etcdMembers || len(e.addresses()) != etcdMembers {
		t.Errorf("addresses %v", addrs)
	}
}

func TestOwnCPULeavesTheIdleOut(t *testing.T) {
	run := report.Run{Throughput: 100, ElapsedS: 10, Servers: []report.Usage{{CPUS: 0.1}, {CPUS: 0.2}, {CPUS: 5}}}
	if got := ownCPU(run, 2); got < 299.9 || got > 300.1 {
		t.Errorf("%v µs", got)
	}
}
