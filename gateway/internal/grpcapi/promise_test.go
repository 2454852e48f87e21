package grpcapi

import (
	"strings"
	"testing"

	"github.com/dotring/dotring/gateway/internal/httpapi/edgetest"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

func TestStatusSaysWhatIsPromised(t *testing.T) {
	for _, c := range []struct {
		name       string
		members, n int
		away       string
		change     func(*edgetest.Nodes)
		about      About
		promise    string
		warnings   []string
	}{
		{"all is well", 3, 3, "", nil, About{R: 2, W: 2, Signed: true},
			"All 3 members work: every key has 3 copies, and r and w up to 3 work, and any one machine may fail without failing requests with r=2 and w=2.", nil},
		{"one of three away", 3, 3, "b", nil, About{R: 2, W: 2, Signed: true},
			"2 of 3 members can be used: r up to 2 works for every key, w up to 2 too.", []string{"cannot use: b"}},
		{"two of three away", 3, 3, "ab", nil, About{R: 2, W: 2, Signed: true},
			"1 of 3 members can be used: r=1 works for every key; writes of some keys fail, as they need 2 machines.", []string{"cannot use: a, b"}},
		{"all away", 3, 3, "abc", nil, About{R: 2, W: 2, Signed: true},
			"None of the 3 members can be reached, so nothing can be read or written.", []string{"a, b, c"}},
		{"three of five away", 5, 3, "abc", nil, About{R: 2, W: 2, Signed: true},
			"2 of 5 members can be used: for some keys no replica can be reached, so reads of them fail; writes of some keys fail, as they need 2 machines.", []string{"a, b, c"}},
		{"one member", 1, 3, "", nil, About{R: 2, W: 2, Signed: true},
			"With 1 member of the 3 that 3 copies need, each key has one copy, which is lost with its machine: r and w up to 3 are taken for 1, and no machine may fail without failing requests with r=2 or w=2.",
			[]string{"1 of the 3 members"}},
		{"two members", 2, 3, "", nil, About{R: 2, W: 2, Signed: true},
			"With 2 members of the 3 that 3 copies need, each key has 2 copies: r and w up to 3 are taken for 2 at most, and no machine may fail without failing requests with r=2 or w=2.",
			[]string{"2 of the 3 members"}},
		{"two members, one away", 2, 3, "a", nil, About{R: 2, W: 2, Signed: true},
			"With 2 members of the 3 that 3 copies need, each key has 2 copies: r and w up to 3 are taken for 2 at most; 1 of 2 members can be used: r=1 works for every key; writes of some keys fail, as they need 2 machines.",
			[]string{"2 of the 3 members", "cannot use: a"}},
		{"weak defaults without a key", 3, 3, "", nil, About{R: 1, W: 2},
			"All 3 members work: every key has 3 copies, and r and w up to 3 work, and any one machine may fail without failing requests with r=1 and w=2.",
			[]string{"do not overlap", "no context key"}},
		{"keys differ, gossip disagrees", 3, 3, "", func(n *edgetest.Nodes) { n.Agree = false; n.Gossip["c"] = "failed" }, About{R: 2, W: 2, Signed: true},
			"All 3 members work: every key has 3 copies, and r and w up to 3 work, and any one machine may fail without failing requests with r=2 and w=2.",
			[]string{"gossip calls failed, though this gateway reaches them: c", "context keys differ"}},
		{"nothing known", 3, 3, "", func(n *edgetest.Nodes) { n.Unknown = true }, About{R: 2, W: 2, Signed: true},
			"No layout is known yet, so nothing can be read or written.", []string{"no storage node has told"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodes, err := edgetest.NewNodes(c.members, c.n)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range c.away {
				nodes.Away[string(name)] = true
			}
			if c.change != nil {
				c.change(nodes)
			}
			s, err := NewCluster(nodes, edgetest.NewStore(), c.about).GetStatus(t.Context(), &clusterv1.GetStatusRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if s.GetPromise() != c.promise {
				t.Errorf("promise\n%s\nwant\n%s", s.GetPromise(), c.promise)
			}
			if len(s.GetWarnings()) != len(c.warnings) {
				t.Fatalf("warnings %q, want %q", s.GetWarnings(), c.warnings)
			}
			for i, w := range c.warnings {
				if !strings.Contains(s.GetWarnings()[i], w) {
					t.Errorf("warning %q, want %q", s.GetWarnings()[i], w)
				}
			}
		})
	}
}

func TestChangeThatWaitsIsNamed(t *testing.T) {
	f := facts{known: true, members: 3, usable: 3, replicas: 3, configured: 3, minW: 2, r: 2, w: 2, signed: true, keysAgree: true,
		changing: "4-ab", waitsTo: "sync", waitsFor: []string{"b"}}
	if w := f.warnings(); len(w) != 1 || w[0] != "the change to layout 4-ab waits for these to sync: b" {
		t.Errorf("%q", w)
	}
}
