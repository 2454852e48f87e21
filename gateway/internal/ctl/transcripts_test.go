package ctl

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

const (
	actor1  = "11111111aaaaaaaaaaaaaaaaaaaaaaaa"
	actor2  = "22222222bbbbbbbbbbbbbbbbbbbbbbbb"
	hash1   = "ab12cd34000000000000000000000000"
	hash2   = "ef56ab78000000000000000000000000"
	hostile = "\x1b]0;owned\a\x1b[2J\u009b31m\u202eevil"
)

var jsonType = []string{"Content-Type", "application/json"}

func when(second int) *timestamppb.Timestamp {
	return timestamppb.New(time.Date(2026, 3, 1, 12, 0, second, 0, time.UTC))
}

func status() *clusterv1.GetStatusResponse {
	return &clusterv1.GetStatusResponse{Cluster: "c0ffee00000000000000000000000000",
		Settled: &clusterv1.LayoutRef{Epoch: 7, Hash: hash1}, Newest: &clusterv1.LayoutRef{Epoch: 7, Hash: hash1},
		Members: 3, Alive: 3, Replicas: 3, ReplicasConfigured: 3, MinWriteQuorum: 2, ReadQuorum: 2, WriteQuorum: 2,
		Promise: "Every key has 3 copies; one machine may fail.", Gateway: "gateway1", Version: "v0.1.0"}
}

func degraded() *clusterv1.GetStatusResponse {
	s := status()
	s.Alive, s.Changing, s.Newest = 2, true, &clusterv1.LayoutRef{Epoch: 8, Hash: hash2}
	s.Warnings = []string{"node3 is away since 12:00", "the name is " + hostile}
	return s
}

func nodes() *clusterv1.ListNodesResponse {
	node := func(name, status string, connected bool, phi float64) *clusterv1.Node {
		return &clusterv1.Node{Id: actor1, Name: name, Zone: "zürich", Weight: 1, Status: status, Connected: connected, Phi: phi,
			GrpcAddr: "127.0.0.1:7101", Tokens: 256, Share: 0.75, Keys: 12345, DiskBytes: 3 << 20, AckedEpoch: 7, SyncedEpoch: 7,
			Engine: "leveldb", Started: when(0)}
	}
	lost := node("node2", "failed", false, 12.34)
	lost.Error, lost.Keys, lost.DiskBytes, lost.Started = "connection refused", 0, 0, nil
	wide := node("節点1", "leaving", true, 5)
	wide.Zone = hostile
	return &clusterv1.ListNodesResponse{Nodes: []*clusterv1.Node{node("node10", "alive", true, 0.1), lost, wide, node("node9", "alive", true, 0)}}
}

// layouts is a change under way: node10 joins, node2 leaves, node9 gets twice the data.
func layouts() *clusterv1.GetLayoutResponse {
	member := func(id, name, zone string, weight float64) *clusterv1.LayoutMember {
		return &clusterv1.LayoutMember{Id: id, Name: name, Zone: zone, Weight: weight, Tokens: []uint32{1, 2, 3}}
	}
	return &clusterv1.GetLayoutResponse{Layouts: []*clusterv1.Layout{
		{Ref: status().Settled, Base: &clusterv1.LayoutRef{Epoch: 6, Hash: hash2}, Replicas: 3, MinWriteQuorum: 2, Acked: []string{"a", "b", "c"}, Synced: []string{"a", "b", "c"},
			Switched: []string{"a", "b", "c"}, Members: []*clusterv1.LayoutMember{member("a", "node9", "zürich", 1), member("b", "node2", "b", 1), member("c", "節点1", hostile, 0.5)}},
		{Ref: &clusterv1.LayoutRef{Epoch: 10, Hash: hash2}, Base: status().Settled, Replicas: 3, MinWriteQuorum: 2, Acked: []string{"a", "b", "c", "d"}, Synced: []string{"b", "d"},
			Members: []*clusterv1.LayoutMember{member("d", "node10", "b", 1), member("a", "node9", "zürich", 2), member("c", "節点1", hostile, 0.5)}}}}
}

func tasks() *clusterv1.ListTasksResponse {
	return &clusterv1.ListTasksResponse{Tasks: []*clusterv1.Task{
		{Kind: "layout", State: "running", Detail: "to 8-ef56ab78, which waits for node3 to sync"},
		{Node: "node1", Kind: "compare", Peer: "node2", State: "running", Done: 64, Total: 196, AgeSeconds: 61.44},
		{Node: "node1", Kind: "compare", Peer: hostile, State: "waiting", Total: 196},
		{Node: "node1", Kind: "hints", Peer: "node3", State: "running", Total: 1204, AgeSeconds: 12},
		{Node: "node2", Kind: "leftovers", State: "waiting", Done: 1 << 18, Total: 1 << 19, Detail: "node3 is away"},
		{Node: "node3", Kind: "unknown", State: "waiting", Detail: "no connection to the node"},
		{Node: "node4", Kind: "transfer", State: "running", Done: 1 << 19, Total: 1 << 21, BytesDone: 3 << 29, BytesTotal: 3 << 31, SecondsLeft: 754.3}}}
}

func hotKeys() *clusterv1.ListHotKeysResponse {
	return &clusterv1.ListHotKeysResponse{Gateway: "gateway1", RequestsPerSecond: 8123.4, Keys: []*clusterv1.HotKey{
		{Key: "item:42", ReadsPerSecond: 2431.2, WritesPerSecond: 3.1, Share: 0.2997},
		{Key: hostile, ReadsPerSecond: 80, Share: 0.0099}, {KeyBase64: []byte("\xff\xfe"), WritesPerSecond: 4, Share: 0.0005}}}
}

func held(actor string, counter uint64, value string) *clusterv1.ReplicaSibling {
	return &clusterv1.ReplicaSibling{Actor: actor, Counter: counter, ContentType: "text/plain", Etag: hash1, ValueBytes: uint32(len(value)),
		LastModified: when(int(counter)), Preview: []byte(value[:min(len(value), 256)])}
}

func replica(name, role, digest string, clock []*clusterv1.ClockEntry, siblings ...*clusterv1.ReplicaSibling) *clusterv1.Replica {
	r := &clusterv1.Replica{Node: actor1, Name: name, Zone: "a", Role: role, State: "absent"}
	if digest != "" {
		r.State, r.Digest, r.Clock, r.Siblings, r.RecordBytes = "record", digest, clock, siblings, 311
	}
	return r
}

func entries(counters ...uint64) []*clusterv1.ClockEntry {
	var out []*clusterv1.ClockEntry
	for i, c := range counters {
		if c > 0 {
			out = append(out, &clusterv1.ClockEntry{Actor: []string{actor1, actor2}[i], Counter: c})
		}
	}
	return out
}

func inspection(replicas ...*clusterv1.Replica) *clusterv1.InspectKeyResponse {
	return &clusterv1.InspectKeyResponse{Key: "cart", Slot: 81234, Layout: &clusterv1.LayoutRef{Epoch: 7, Hash: hash1}, Replicas: replicas}
}

func lost(name string) *clusterv1.Replica {
	return &clusterv1.Replica{Node: actor2, Name: name, Zone: "c", Role: "primary", State: "failed", Error: "no stream: connection refused"}
}

// differing is a key of which each replica knows another part.
func differing() *clusterv1.InspectKeyResponse {
	gone := held(actor2, 3, "")
	gone.Tombstone = true
	return inspection(
		replica("node1", "primary", hash1, entries(5, 3), held(actor1, 5, "apple\n"), gone),
		replica("node2", "primary", hash2, entries(4, 0), held(actor1, 4, hostile+" and so on for more than forty bytes")),
		lost("node3"),
		replica("node4", "fallback", hash1, entries(5, 3), held(actor1, 5, "apple\n"), gone),
		replica("node5", "fallback", "", nil))
}

func agreed() *clusterv1.InspectKeyResponse {
	r := func(name string) *clusterv1.Replica {
		return replica(name, "primary", hash1, entries(5), held(actor1, 5, "apple"))
	}
	return inspection(r("node1"), r("node2"), r("node3"))
}

const (
	siblings300 = `{"key":"cart","context":"TOKEN","siblings":[` +
		`{"value":"YXBwbGU=","content_type":"text/plain","etag":"e1","last_modified":"2026-03-01T12:00:01.5Z","tombstone":false},` +
		`{"value":"G10wO293bmVkBxtbMko=","content_type":"application/octet-stream","etag":"e2","last_modified":"2026-03-01T12:00:02Z","tombstone":false},` +
		`{"value":"","content_type":"application/octet-stream","etag":"e3","last_modified":"2026-03-01T12:00:03Z","tombstone":true}]}`
	noValue  = `{"type":"/problems/no-value","title":"No value","status":404,"detail":"the key has no value","request_id":"rid"}`
	noQuorum = `{"type":"/problems/quorum-impossible","title":"Quorum impossible","status":503,"detail":"1 of 3 replicas can be reached, 2 must acknowledge",` +
		`"outcome":"not-applied","replicas":[{"node":"node1","did":"skipped","detail":"","at_us":"0","clock":[],"repaired":false},` +
		`{"node":"node2","did":"failed","detail":"connection refused","at_us":"1500","clock":[],"repaired":false}],"request_id":"rid"}`
	inDoubt = `{"type":"/problems/deadline-passed","title":"Deadline passed","status":504,"detail":"1 of 2 machines has the write",` +
		`"outcome":"in-doubt","replicas":[{"node":"node1","did":"minted","detail":"","at_us":"900","clock":[{"actor":"` + actor1 + `","counter":"9"}],"repaired":false},` +
		`{"node":"\u001b[31mnode2","did":"pending","detail":"\u009b2J","at_us":"0","clock":[],"repaired":false}],"request_id":"rid"}`
	written = `{"context":"TOKEN2","siblings":1,"acks":3,"hinted":0}` + "\n"
)

var (
	value200    = []string{"Content-Type", "text/plain", "Kv-Context", "TOKEN", "Etag", `"e1"`, "Last-Modified", "Sun, 01 Mar 2026 12:00:01 GMT"}
	siblingsHdr = []string{"Content-Type", "application/vnd.dotring.siblings+json", "Kv-Context", "TOKEN", "Etag", `"e9"`}
	problemHdr  = []string{"Content-Type", "application/problem+json", "Kv-Context", "TOKEN"}
)

// Every command, in every way of printing, as a person or a script sees it.
func TestTranscripts(t *testing.T) {
	cluster := func(m proto.Message) canned { return canned{200, jsonType, serverJSON(t, m)} }
	for _, c := range []struct {
		name  string
		term  terminals
		stdin string
		a     canned
		args  []string
	}{
		{name: "status", a: cluster(status()), args: []string{"status"}},
		{name: "status-terminal", term: atTerminal, a: cluster(status()), args: []string{"status"}},
		{name: "status-degraded", term: atTerminal, a: cluster(degraded()), args: []string{"status"}},
		{name: "status-json", a: cluster(degraded()), args: []string{"status", "--output", "json"}},
		{name: "status-no-cluster", a: cluster(&clusterv1.GetStatusResponse{Gateway: "gateway1"}), args: []string{"status"}},
		{name: "nodes", a: cluster(nodes()), args: []string{"nodes"}},
		{name: "nodes-terminal", term: atTerminal, a: cluster(nodes()), args: []string{"nodes"}},
		{name: "nodes-json", a: cluster(&clusterv1.ListNodesResponse{Nodes: nodes().Nodes[1:2]}), args: []string{"-o", "json", "nodes"}},
		{name: "nodes-none", a: cluster(&clusterv1.ListNodesResponse{}), args: []string{"nodes"}},
		{name: "layout", a: cluster(&clusterv1.GetLayoutResponse{Layouts: layouts().Layouts[:1]}), args: []string{"layout"}},
		{name: "layout-changing", a: cluster(layouts()), args: []string{"layout"}},
		{name: "layout-changing-terminal", term: atTerminal, a: cluster(layouts()), args: []string{"layout"}},
		{name: "layout-json", a: cluster(&clusterv1.GetLayoutResponse{Layouts: layouts().Layouts[:1]}), args: []string{"layout", "-o", "json"}},
		{name: "layout-none", a: cluster(&clusterv1.GetLayoutResponse{}), args: []string{"layout"}},
		{name: "help-layout", args: []string{"layout", "--help"}},
		{name: "key-agree", a: cluster(agreed()), args: []string{"key", "cart"}},
		{name: "key-differ", a: cluster(differing()), args: []string{"key", "cart"}},
		{name: "key-differ-terminal", term: atTerminal, a: cluster(differing()), args: []string{"key", "cart"}},
		{name: "key-json", a: cluster(inspection(lost("node3"))), args: []string{"key", "cart", "-o", "json"}},
		{name: "key-absent", a: cluster(inspection(replica("node1", "primary", "", nil), replica("node2", "primary", "", nil))), args: []string{"key", "a b"}},
		{name: "get", a: canned{200, value200, "apple"}, args: []string{"get", "cart"}},
		{name: "get-terminal", term: atTerminal, a: canned{200, value200, "apple"}, args: []string{"get", "cart"}},
		{name: "get-terminal-hostile", term: atTerminal, a: canned{200, value200, hostile + "\n\xff"}, args: []string{"get", "cart"}},
		{name: "get-terminal-raw", term: atTerminal, a: canned{200, value200, hostile}, args: []string{"get", "--raw", "cart"}},
		{name: "get-json", a: canned{200, value200, hostile}, args: []string{"get", "cart", "-o", "json"}},
		{name: "get-options", a: canned{200, value200, "apple\n"}, args: []string{"get", "-r", "all", "--context", "SEEN", "--etag", `"e1"`, "--show-context", "--timeout", "500ms", "cart"}},
		{name: "get-conflict", a: canned{300, siblingsHdr, siblings300}, args: []string{"get", "cart"}},
		{name: "get-conflict-terminal", term: atTerminal, a: canned{300, siblingsHdr, siblings300}, args: []string{"get", "cart"}},
		{name: "get-conflict-json", a: canned{300, siblingsHdr, siblings300}, args: []string{"get", "cart", "-o", "json"}},
		{name: "get-absent", a: canned{404, problemHdr, noValue}, args: []string{"get", "--show-context", "cart"}},
		{name: "get-absent-json", a: canned{404, problemHdr, noValue}, args: []string{"get", "cart", "-o", "json"}},
		{name: "put", a: canned{200, jsonType, written}, args: []string{"put", "cart", "apple"}},
		{name: "put-terminal", term: atTerminal, a: canned{200, jsonType, `{"context":"TOKEN2","siblings":2,"acks":2,"hinted":1}`}, args: []string{"put", "cart", "apple"}},
		{name: "put-json", a: canned{200, jsonType, written}, args: []string{"put", "cart", "apple", "-o", "json"}},
		{name: "put-options", stdin: "from stdin\n", a: canned{200, jsonType, written}, args: []string{"put", "cart", "-", "-w", "3", "--context", "SEEN", "--request-id", "mine", "--content-type", "text/plain", "--sloppy=false", "--timeout", "10s"}},
		{name: "put-keyboard", term: atTerminal, stdin: "typed", a: canned{200, jsonType, written}, args: []string{"put", "cart"}},
		{name: "put-not-applied", a: canned{503, problemHdr, noQuorum}, args: []string{"put", "cart", "apple"}},
		{name: "put-in-doubt", a: canned{504, problemHdr, inDoubt}, args: []string{"put", "cart", "apple"}},
		{name: "put-in-doubt-terminal", term: atTerminal, a: canned{504, problemHdr, inDoubt}, args: []string{"put", "cart", "apple"}},
		{name: "put-in-doubt-json", a: canned{504, problemHdr, inDoubt}, args: []string{"put", "cart", "apple", "-o", "json"}},
		{name: "put-proxy-error", a: canned{502, []string{"Content-Type", "text/html"}, "<h1>\x1b[31mBad gateway</h1>\nmore"}, args: []string{"put", "cart", "apple"}},
		{name: "put-redirect", a: canned{307, []string{"Location", "http://elsewhere/"}, ""}, args: []string{"put", "cart", "apple"}},
		{name: "delete", a: canned{200, jsonType, written}, args: []string{"delete", "cart"}},
		{name: "delete-options", a: canned{200, jsonType, written}, args: []string{"delete", "cart", "-w", "all", "--context", "SEEN", "--no-sloppy", "--request-id", "mine", "-o", "json"}},
		{name: "tasks", a: cluster(tasks()), args: []string{"tasks"}},
		{name: "tasks-terminal", term: atTerminal, a: cluster(tasks()), args: []string{"tasks"}},
		{name: "tasks-json", a: cluster(&clusterv1.ListTasksResponse{Tasks: tasks().Tasks[:1]}), args: []string{"tasks", "-o", "json"}},
		{name: "tasks-none", a: cluster(&clusterv1.ListTasksResponse{}), args: []string{"tasks"}},
		{name: "hot", a: cluster(hotKeys()), args: []string{"hot"}},
		{name: "hot-terminal", term: atTerminal, a: cluster(hotKeys()), args: []string{"hot"}},
		{name: "hot-none", a: cluster(&clusterv1.ListHotKeysResponse{Gateway: "gateway1"}), args: []string{"hot"}},
		{name: "help-hot", args: []string{"hot", "--help"}},
		{name: "repair", a: cluster(&clusterv1.RepairResponse{Token: "TOKEN", Waiting: tasks().Tasks}), args: []string{"repair", "--node", "node1"}},
		{name: "repair-done", a: cluster(&clusterv1.RepairResponse{Done: true}), args: []string{"repair", "--wait"}},
		{name: "repair-json", a: cluster(&clusterv1.RepairResponse{Done: true}), args: []string{"repair", "--wait", "-o", "json", "--key-prefix", "cart/"}},
		{name: "decommission-dry-run", a: cluster(layoutChange()), args: []string{"decommission", "node4", "--dry-run"}},
		{name: "decommission", a: cluster(underWay()), args: []string{"decommission", "node4"}},
		{name: "remove-terminal", term: atTerminal, a: cluster(lossy()), args: []string{"remove", hostile, "--accept-loss", "--dry-run"}},
		{name: "replace-json", a: cluster(underWay()), args: []string{"replace", "node4", "node7", "-o", "json"}},
		{name: "weight", a: cluster(&clusterv1.LayoutChange{Settled: status().Settled, Layout: status().Settled}), args: []string{"weight", "node4", "0.5"}},
		{name: "weight-no-number", args: []string{"weight", "node4", "much"}},
		{name: "abort", a: canned{409, problemHdr, nothingToAbort}, args: []string{"abort"}},
		{name: "abort-json", a: canned{409, problemHdr, nothingToAbort}, args: []string{"abort", "-o", "json"}},
		{name: "change-both", args: []string{"abort", "--wait", "--dry-run"}},
		{name: "can-stop", a: cluster(&clusterv1.CanStopResponse{Node: "node2", CanStop: true, Verdict: "node2 may stop."}), args: []string{"can-stop", "node2"}},
		{name: "can-stop-no", a: cluster(mustNotStop()), args: []string{"can-stop", "node2"}},
		{name: "can-stop-no-terminal", term: atTerminal, a: cluster(mustNotStop()), args: []string{"can-stop", "node2"}},
		{name: "can-stop-no-json", a: cluster(mustNotStop()), args: []string{"can-stop", "node2", "-o", "json"}},
		{name: "help-decommission", args: []string{"decommission", "--help"}},
		{name: "help-remove", args: []string{"remove", "--help"}},
		{name: "help-replace", args: []string{"replace", "--help"}},
		{name: "help-weight", args: []string{"weight", "--help"}},
		{name: "help-abort", args: []string{"abort", "--help"}},
		{name: "help-can-stop", args: []string{"can-stop", "--help"}},
		{name: "help-tasks", args: []string{"tasks", "--help"}},
		{name: "help-repair", args: []string{"repair", "--help"}},
		{name: "help", args: []string{"--help"}},
		{name: "help-status", args: []string{"status", "--help"}},
		{name: "help-nodes", args: []string{"nodes", "--help"}},
		{name: "help-key", args: []string{"key", "--help"}},
		{name: "help-get", args: []string{"get", "--help"}},
		{name: "help-put", args: []string{"put", "--help"}},
		{name: "help-delete", args: []string{"delete", "-h"}},
		{name: "version", args: []string{"--version"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, got := gateway(t, c.a)
			r := run(t, c.term, c.stdin, nil, append([]string{"--gateway", url}, c.args...)...)
			golden(t, c.name, transcript(c.args, got(), r, url))
		})
	}
}
