package ctl

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

func soundFacts() facts {
	now := time.Unix(1764500000, 0)
	st := &clusterv1.GetStatusResponse{Cluster: "c1", Gateway: "gw1", Version: "v1", Members: 3, Alive: 3, ReadQuorum: 2, WriteQuorum: 2}
	f := facts{now: now, status: st, gateways: []gatewayFacts{{url: "https://gw1", status: st, ends: now.Add(300 * day)}}}
	for i := range 3 {
		f.nodes = append(f.nodes, &clusterv1.Node{Name: fmt.Sprint("node", i+1), Status: "alive", Connected: true, Tokens: 8, State: "ready", Version: "v1",
			DiskFreeBytes: 500 << 30, DiskTotalBytes: 1 << 40, CertificateEnds: timestamppb.New(now.Add(300 * day)), Phi: 0.4})
	}
	f.tasks = []*clusterv1.Task{{Node: "node1", Kind: "compare", Peer: "node2", State: "waiting", AgeSeconds: 40}}
	return f
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		wrong func(f *facts)
		want  string // of the first finding; empty: none
	}{
		{"nothing", func(*facts) {}, ""},
		{"no certificates", func(f *facts) { f.gateways[0].ends, f.nodes[0].CertificateEnds = time.Time{}, nil }, ""},
		{"a node that owns nothing is away", func(f *facts) { f.nodes[2].Connected, f.nodes[2].Tokens = false, 0 }, ""},
		{"gateway away", func(f *facts) { f.gateways[0].err = "connection refused" }, "critical gateway https://gw1: it cannot be reached"},
		{"gateway not ready", func(f *facts) { f.gateways[0].ready = "draining" }, "critical gateway https://gw1: it is not ready: draining"},
		{"gateway of another cluster", func(f *facts) {
			f.gateways = append(f.gateways, gatewayFacts{url: "https://gw2", status: &clusterv1.GetStatusResponse{Cluster: "c2"}})
		}, "critical gateway https://gw2: it serves cluster c2"},
		{"gateway's clock", func(f *facts) { f.gateways[0].apart = -time.Minute }, "warning gateway https://gw1: its clock is 1m0s"},
		{"certificate has ended", func(f *facts) { f.gateways[0].ends = f.now.Add(-day) }, "critical gateway https://gw1: its certificate ended"},
		{"certificate ends", func(f *facts) { f.nodes[1].CertificateEnds = timestamppb.New(f.now.Add(5*day + time.Hour)) }, "warning node node2: its certificate ends in 5 days"},
		{"no cluster", func(f *facts) { f.status.Cluster = "" }, "critical cluster: no storage node"},
		{"no quorum", func(f *facts) { f.status.Alive = 1 }, "critical cluster: 1 of 3 members are alive"},
		{"a warning of the gateway", func(f *facts) { f.status.Warnings = []string{"no context key"} }, "warning cluster: no context key"},
		{"node away", func(f *facts) { f.nodes[1].Connected, f.nodes[1].Status = false, "failed" }, "critical node node2: the gateway has no connection to it; gossip says failed"},
		{"gossip lost it", func(f *facts) { f.nodes[1].Status = "failed" }, "warning node node2: gossip says failed"},
		{"suspect", func(f *facts) { f.nodes[1].Phi = 9 }, "warning node node2: the gateway suspects it (phi 9.0)"},
		{"silent", func(f *facts) { f.nodes[1].Error = "deadline" }, "warning node node2: it could not be asked: deadline"},
		{"refilling", func(f *facts) { f.nodes[1].State = "refilling" }, "warning node node2: it is refilling"},
		{"disk low", func(f *facts) { f.nodes[1].DiskFreeBytes = 50 << 30 }, "warning node node2: its disk has 50.0 GiB left, 5 %"},
		{"disk full", func(f *facts) { f.nodes[1].DiskFreeBytes = 100 << 20 }, "critical node node2: its disk has 100.0 MiB left"},
		{"clock", func(f *facts) { f.nodes[1].ClockAheadSeconds = -3 }, "warning node node2: its clock is 3s"},
		{"versions", func(f *facts) { f.nodes[1].Version = "v0" }, "note versions: they differ: v0 on node2; v1 on node1, node3, gw1"},
		{"hints", func(f *facts) {
			f.tasks = append(f.tasks, &clusterv1.Task{Node: "node1", Kind: "hints", Peer: "node3", Total: 7, AgeSeconds: 3})
		}, "note node node1: it keeps 7 writes for node3"},
		{"old hints", func(f *facts) {
			f.tasks = append(f.tasks, &clusterv1.Task{Node: "node1", Kind: "hints", Peer: "node3", Total: 7, AgeSeconds: 7200})
		}, "warning node node1: it has kept writes for node3 for 2h0m0s"},
		{"comparison late", func(f *facts) { f.tasks[0].AgeSeconds = 3600 }, "warning node node1: its last whole comparison with node2"},
		{"disk lost", func(f *facts) { f.tasks = append(f.tasks, &clusterv1.Task{Node: "node1", Kind: "refill"}) }, "warning node node1: its disk lost data"},
		{"layout", func(f *facts) { f.tasks = append(f.tasks, &clusterv1.Task{Kind: "layout", Detail: "to 4-ab"}) }, "note layout: a change is under way to 4-ab"},
	} {
		f := soundFacts()
		c.wrong(&f)
		found := diagnose(f)
		if c.want == "" {
			if len(found) > 0 {
				t.Errorf("%s: %+v", c.name, found)
			}
			continue
		}
		if len(found) != 1 {
			t.Errorf("%s: %d findings: %+v", c.name, len(found), found)
			continue
		}
		if got := found[0].Level + " " + found[0].About + ": " + found[0].What; !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if text := findingsText(palette{}, found, f); !strings.Contains(text, found[0].What) || !strings.Contains(text, "1 finding") {
			t.Errorf("%s: %s", c.name, text)
		}
	}
}

// The worst comes first.
func TestDoctorOrdersFindings(t *testing.T) {
	f := soundFacts()
	f.nodes[0].Version, f.nodes[1].Phi, f.nodes[2].DiskFreeBytes = "v0", 9, 0
	found := diagnose(f)
	if len(found) != 3 || found[0].Severity != critical || found[1].Severity != warning || found[2].Severity != note {
		t.Errorf("%+v", found)
	}
}
