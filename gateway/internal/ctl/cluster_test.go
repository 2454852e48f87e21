package ctl

import (
	"slices"
	"strings"
	"testing"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

func TestAgreement(t *testing.T) {
	r := func(name, digest string) *clusterv1.Replica { return replica(name, "primary", digest, nil) }
	spare := func(name, digest string) *clusterv1.Replica { return replica(name, "fallback", digest, nil) }
	for _, c := range []struct {
		name     string
		replicas []*clusterv1.Replica
		want     string
		look     style
	}{
		{"nothing", nil, "No primary replica answered", bad},
		{"no answers", []*clusterv1.Replica{lost("n1"), lost("n2")}, "No primary replica answered, so it is not known whether they agree. No answer: n1, n2.", bad},
		{"equal", []*clusterv1.Replica{r("n1", hash1), r("n2", hash1)}, "The 2 primary replicas agree.", good},
		{"equal, one away", []*clusterv1.Replica{r("n1", hash1), r("n2", hash1), lost("n3")}, "The 2 primary replicas that answered agree. No answer: n3.", doubtful},
		{"one", []*clusterv1.Replica{r("n1", hash1)}, "One primary replica has a record", good},
		{"absent", []*clusterv1.Replica{r("n1", ""), r("n2", "")}, "No primary replica has a record of the key.", doubtful},
		{"two and one", []*clusterv1.Replica{r("n1", hash1), r("n2", hash2), r("n3", hash1)}, "The replicas differ: n1, n3 hold the same; n2 holds something else.", bad},
		{"one and absent", []*clusterv1.Replica{r("n1", ""), r("n2", hash2), r("n3", "")}, "The replicas differ: n1, n3 have nothing; n2 holds", bad},
		{"all different", []*clusterv1.Replica{r("n1", hash1), r("n2", hash2), r("n3", "")}, "n1 holds a record; n2 holds something else; n3 has nothing.", bad},
		{"a stand-in does not count", []*clusterv1.Replica{r("n1", hash1), r("n2", hash1), spare("n4", hash2), spare("n5", "")}, "The 2 primary replicas agree. Also held by stand-ins: n4.", good},
		{"only a stand-in", []*clusterv1.Replica{r("n1", ""), lost("n2"), spare("n4", hash1)}, "No primary replica has a record of the key. No answer: n2. Also held by stand-ins: n4.", doubtful},
	} {
		got, look := agreement(c.replicas)
		if !strings.Contains(got, c.want) || look != c.look {
			t.Errorf("%s: %q in %q, want %q in %q", c.name, got, look, c.want, c.look)
		}
	}
}

// Two values under one dot must never be; if they are, the table shows both.
func TestOneDotWithTwoValues(t *testing.T) {
	other := held(actor1, 5, "pear!")
	other.Etag = hash2
	text := keyText(palette{}, []byte("k"), inspection(
		replica("n1", "primary", hash1, entries(5), held(actor1, 5, "apple")), replica("n2", "primary", hash2, entries(5), other)))
	if !strings.Contains(text, `"apple"`) || !strings.Contains(text, `"pear!"`) || strings.Count(text, "11111111:5") != 2 {
		t.Error(text)
	}
}

func TestNamesOfActorsAreUnique(t *testing.T) {
	near := actor1[:20] + "cccccccccccc"
	names := namesOfActors([]*clusterv1.Replica{{Clock: []*clusterv1.ClockEntry{{Actor: actor1}, {Actor: near}, {Actor: "x"}}}})
	if names[actor1] == names[near] || !strings.HasPrefix(actor1, names[actor1]) || names["x"] != "x" {
		t.Errorf("%v", names)
	}
}

func TestHealth(t *testing.T) {
	with := func(change func(*clusterv1.GetStatusResponse)) *clusterv1.GetStatusResponse {
		s := status()
		change(s)
		return s
	}
	for _, c := range []struct {
		name string
		st   *clusterv1.GetStatusResponse
		look style
	}{
		{"healthy", status(), good},
		{"one away", with(func(s *clusterv1.GetStatusResponse) { s.Alive = 2 }), doubtful},
		{"two away", with(func(s *clusterv1.GetStatusResponse) { s.Alive = 1 }), bad},
		{"changing", with(func(s *clusterv1.GetStatusResponse) { s.Changing = true }), doubtful},
		{"too few", with(func(s *clusterv1.GetStatusResponse) { s.Members, s.Alive, s.Replicas = 2, 2, 2 }), doubtful},
		{"warned", with(func(s *clusterv1.GetStatusResponse) { s.Warnings = []string{"w"} }), doubtful},
		{"none", &clusterv1.GetStatusResponse{}, bad},
	} {
		if word, look := health(c.st); look != c.look {
			t.Errorf("%s: %q in %q, want %q", c.name, word, look, c.look)
		}
	}
}

func TestCompareNames(t *testing.T) {
	names := []string{"node10", "b", "node9", "node1b", "a10", "node1", "a9", "", "7"}
	slices.SortFunc(names, compareNames)
	if got := strings.Join(names, " "); got != " 7 a9 a10 b node1 node9 node10 node1b" {
		t.Errorf("order %q", got)
	}
}

func TestTable(t *testing.T) {
	rows := table{
		headings("A", "B", "C"),
		{text("節点"), number("%d", 5), text("x")},
		{text("e\u0301"), number("%d", 1234)},
		{styled("long one", bad), cell{}, text("y")},
	}
	want := "  A         B     C\n  節点         5  x\n  e\u0301         1234\n  long one        y\n"
	if got := rows.render(palette{}, "  "); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	coloured := rows.render(palette{on: true}, "  ")
	for _, s := range []style{heading, bad} {
		coloured = strings.ReplaceAll(coloured, "\x1b["+string(s)+"m", "")
	}
	if got := strings.ReplaceAll(coloured, "\x1b[0m", ""); got != want {
		t.Errorf("colour changes the layout:\n%s", got)
	}
}

func TestByteSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 30: "3.0 GiB", 2 << 40: "2.0 TiB", 1 << 60: "1048576.0 TiB"} {
		if got := byteSize(n); got != want {
			t.Errorf("byteSize(%d) = %q, want %q", n, got, want)
		}
	}
}
