package ctl

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// What doctor takes for a finding.
const (
	hintsLate     = 10 * time.Minute // hints are kept for as long
	comparedLate  = 10 * time.Minute // ten times the usual interval
	clockApart    = 500 * time.Millisecond
	gatewayApart  = 2 * time.Second // its Date header has whole seconds
	certificateOf = 30 * 24 * time.Hour
	diskLow       = 0.15 // of the disk is free
	diskReserve   = 1 << 30
)

// severity orders findings; all but note make the exit code 1.
type severity int

const (
	note severity = iota
	warning
	critical
)

func (s severity) String() string { return [...]string{"note", "warning", "critical"}[s] }

// finding is one thing that an operator should know, and what to do about it.
type finding struct {
	Severity severity `json:"-"`
	Level    string   `json:"severity"`
	About    string   `json:"about"`
	What     string   `json:"what"`
	Do       string   `json:"do,omitempty"`
}

// facts is what doctor looks at. Diagnose is a function of it alone.
type facts struct {
	now      time.Time
	gateways []gatewayFacts
	// Of the first gateway that answers; nil where none does.
	status *clusterv1.GetStatusResponse
	nodes  []*clusterv1.Node
	tasks  []*clusterv1.Task
}

type gatewayFacts struct {
	url    string
	err    string // it cannot be reached
	ready  string // why it is not ready; empty where it is
	status *clusterv1.GetStatusResponse
	apart  time.Duration // its clock from ours, as far as its Date header tells
	ends   time.Time     // of its certificate; zero without one
}

type findings []finding

func (f *findings) add(s severity, about, do, what string, args ...any) {
	*f = append(*f, finding{s, s.String(), about, fmt.Sprintf(what, args...), do})
}

// diagnose says what is wrong, worst first.
func diagnose(f facts) []finding {
	var out findings
	f.judgeGateways(&out)
	if st := f.status; st != nil {
		switch {
		case st.GetCluster() == "":
			out.add(critical, "cluster", "start the storage nodes, and name them in the gateways' --storage-nodes", "no storage node has told the gateway of a cluster")
		case st.GetAlive() < max(st.GetReadQuorum(), st.GetWriteQuorum()):
			out.add(critical, "cluster", "start the nodes that are away", "%d of %d members are alive, fewer than a quorum needs", st.GetAlive(), st.GetMembers())
		}
		for _, w := range st.GetWarnings() {
			out.add(warning, "cluster", "", "%s", w)
		}
	}
	for _, n := range f.nodes {
		judgeNode(&out, n, f.now)
	}
	f.judgeVersions(&out)
	for _, t := range f.tasks {
		judgeTask(&out, t)
	}
	slices.SortStableFunc(out, func(a, b finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return out
}

func (f facts) judgeGateways(out *findings) {
	for _, g := range f.gateways {
		about := "gateway " + g.url
		if g.err != "" {
			out.add(critical, about, "start it, or take it out of the balancer", "it cannot be reached: %s", g.err)
			continue
		}
		if g.ready != "" {
			out.add(critical, about, "balancers leave it out until that has passed", "it is not ready: %s", g.ready)
		}
		if f.status != nil && g.status != nil && g.status.GetCluster() != f.status.GetCluster() {
			out.add(critical, about, "correct its --storage-nodes", "it serves cluster %s, the others %s", g.status.GetCluster(), f.status.GetCluster())
		}
		if g.apart.Abs() > gatewayApart {
			out.add(warning, about, "synchronise the clocks", "its clock is %s from the one here", g.apart.Abs().Round(time.Second))
		}
		judgeCertificate(out, about, g.ends, f.now)
	}
}

func judgeCertificate(out *findings, about string, ends, now time.Time) {
	const do = "issue another with dotringctl cert and put it in its place; no restart is needed"
	switch left := ends.Sub(now); {
	case ends.IsZero() || left > certificateOf:
	case left <= 0:
		out.add(critical, about, do, "its certificate ended on %s", ends.UTC().Format(time.DateOnly))
	default:
		out.add(warning, about, do, "its certificate ends in %s", plural(uint64(left.Hours()/24), "day"))
	}
}

func judgeNode(out *findings, n *clusterv1.Node, now time.Time) {
	about := "node " + n.GetName()
	const start = "start it again; when it is gone for good: dotringctl replace or remove"
	switch {
	case !n.GetConnected() && n.GetTokens() == 0:
		return // it owns nothing
	case !n.GetConnected():
		out.add(critical, about, start, "the gateway has no connection to it; gossip says %s", cmp.Or(n.GetStatus(), "nothing"))
		return
	case n.GetStatus() != "alive":
		out.add(warning, about, "see whether its gossip port can be reached by the other nodes", "gossip says %s, though the gateway reaches it", cmp.Or(n.GetStatus(), "nothing"))
	}
	if phi := n.GetPhi(); phi >= suspect || math.IsNaN(phi) {
		out.add(warning, about, "it is silent or slow: see its log, its disk and its CPU", "the gateway suspects it (phi %.1f) and goes around it", phi)
	}
	if n.GetError() != "" {
		out.add(warning, about, "see its log", "it could not be asked: %s", n.GetError())
		return
	}
	if s := n.GetState(); s != "" && s != "ready" {
		out.add(warning, about, "it serves again when that is over; see dotringctl tasks and its log", "it is %s", s)
	}
	if total := n.GetDiskTotalBytes(); total > 0 {
		free := n.GetDiskFreeBytes()
		const room = "give it room, or add nodes: below 64 MiB it refuses writes"
		switch share := float64(free) / float64(total); {
		case free < diskReserve:
			out.add(critical, about, room, "its disk has %s left", byteSize(free))
		case share < diskLow:
			out.add(warning, about, room, "its disk has %s left, %.0f %%", byteSize(free), 100*share)
		}
	}
	if ahead := time.Duration(n.GetClockAheadSeconds() * float64(time.Second)); ahead.Abs() > clockApart {
		out.add(warning, about, "synchronise the clocks: Last-Modified and lww go by them", "its clock is %s from the gateway's", ahead.Abs().Round(100*time.Millisecond))
	}
	if n.GetCertificateEnds() != nil {
		judgeCertificate(out, about, n.GetCertificateEnds().AsTime(), now)
	}
}

// judgeVersions tells of versions that differ: a rolling upgrade is under way, or was not finished.
func (f facts) judgeVersions(out *findings) {
	seen := map[string][]string{}
	for _, n := range f.nodes {
		if n.GetVersion() != "" {
			seen[n.GetVersion()] = append(seen[n.GetVersion()], n.GetName())
		}
	}
	for _, g := range f.gateways {
		if v := g.status.GetVersion(); v != "" && g.status.GetGateway() != "" {
			seen[v] = append(seen[v], g.status.GetGateway())
		}
	}
	if len(seen) < 2 {
		return
	}
	var all []string
	for v, who := range seen {
		all = append(all, fmt.Sprintf("%s on %s", v, strings.Join(who, ", ")))
	}
	slices.Sort(all)
	out.add(note, "versions", "finish the upgrade", "they differ: %s", strings.Join(all, "; "))
}

func judgeTask(out *findings, t *clusterv1.Task) {
	age := time.Duration(t.GetAgeSeconds() * float64(time.Second)).Round(time.Second)
	about := "node " + t.GetNode()
	switch {
	case t.GetKind() == "hints" && age > hintsLate:
		out.add(warning, about, "start "+t.GetPeer()+", or replace it; its log says why deliveries fail if it lives", "it has kept writes for %s for %s, %d now",
			t.GetPeer(), age, t.GetTotal())
	case t.GetKind() == "hints":
		out.add(note, about, "", "it keeps %d writes for %s", t.GetTotal(), t.GetPeer())
	case t.GetKind() == "compare" && age > comparedLate:
		out.add(warning, about, "see dotringctl tasks: the peer is away, or they differ in much", "its last whole comparison with %s began %s ago", t.GetPeer(), age)
	case t.GetKind() == "refill":
		out.add(warning, about, "it heals by itself; when it comes again, replace the disk", "its disk lost data, which it fetches from the other owners")
	case t.GetKind() == "layout":
		out.add(note, "layout", "", "a change is under way %s", t.GetDetail())
	}
}

type doctorCommand struct {
	Also []string `help:"URL of a further gateway to look at; may be repeated." placeholder:"URL"`
}

// Help is shown by --help.
func (doctorCommand) Help() string {
	return `Looks at what an operator would look at: whether gateways answer and are ready, which nodes are away or suspected, room on ` +
		`disks, clocks, certificates that end within 30 days, writes kept for others and comparisons that are late, versions. Each finding ` +
		`says what to do. The exit code is 1 where there is more than notes.

` + examples("dotringctl doctor", "dotringctl doctor --also https://gw2.example.org --also https://gw3.example.org", "dotringctl doctor -o json | jq -r '.findings[].what'")
}

// Run examines.
func (c *doctorCommand) Run(ctx context.Context, s *session) error {
	f := facts{now: time.Now()}
	clients := []*client{s.client}
	for _, also := range c.Also {
		base, err := parseGateway(also)
		if err != nil {
			return usageError(strings.Replace(err.Error(), "--gateway", "--also", 1))
		}
		other := *s.client
		other.base = base
		clients = append(clients, &other)
	}
	for _, cl := range clients {
		one := *s
		one.client = cl
		g := one.examine(ctx)
		f.gateways = append(f.gateways, g)
		if g.status == nil || f.status != nil {
			continue
		}
		f.status = g.status
		var nodes clusterv1.ListNodesResponse
		var tasks clusterv1.ListTasksResponse
		if g.status.GetCluster() == "" {
			continue
		}
		if err := one.get(ctx, "/v1/cluster/nodes", &nodes); err != nil {
			return err
		}
		if err := one.get(ctx, "/v1/cluster/tasks", &tasks); err != nil {
			return err
		}
		f.nodes, f.tasks = nodes.GetNodes(), tasks.GetTasks()
	}
	return s.tellFindings(diagnose(f), f)
}

// examine looks at one gateway.
func (s *session) examine(ctx context.Context) gatewayFacts {
	g := gatewayFacts{url: s.client.base.Redacted()}
	a, err := s.client.do(ctx, call{method: http.MethodGet, path: "/readyz"})
	if err != nil {
		g.err = plainError(failed(err, ""))
		return g
	}
	if a.status != http.StatusOK {
		g.ready = cmp.Or(strings.TrimSpace(excerpt(a)), http.StatusText(a.status))
	}
	if sent, err := http.ParseTime(a.header.Get("Date")); err == nil {
		g.apart = time.Until(sent)
	}
	g.ends = a.certificateEnds
	if a, err = s.client.do(ctx, call{method: http.MethodGet, path: "/v1/cluster/status"}); err != nil {
		g.err = plainError(failed(err, ""))
		return g
	}
	var st clusterv1.GetStatusResponse
	if a.status != http.StatusOK {
		g.ready = cmp.Or(g.ready, plainError(refused(a, "")))
	} else if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(a.body, &st); err == nil {
		g.status = &st
	}
	return g
}

// tellFindings prints them; more than notes are a failure.
func (s *session) tellFindings(found []finding, f facts) error {
	bad := slices.ContainsFunc(found, func(f finding) bool { return f.Severity > note })
	if s.json {
		out := struct {
			Healthy  bool      `json:"healthy"`
			Findings []finding `json:"findings"`
		}{!bad, append([]finding{}, found...)}
		if err := s.printJSON(out); err != nil {
			return err
		}
	} else if err := s.print(findingsText(s.out, found, f)); err != nil {
		return err
	}
	if bad {
		return exitCode(ExitError)
	}
	return nil
}

func findingsText(p palette, found []finding, f facts) string {
	var b strings.Builder
	looks := map[severity]style{note: faint, warning: doubtful, critical: bad}
	for _, x := range found {
		fmt.Fprintf(&b, "%s  %s: %s\n", p.paint(looks[x.Severity], fmt.Sprintf("%-8s", x.Level)), escapeText(x.About), escapeText(x.What))
		if x.Do != "" {
			fmt.Fprintf(&b, "          %s\n", escapeText(x.Do))
		}
	}
	looked := fmt.Sprintf("Looked at %s and %s", plural(uint64(len(f.gateways)), "gateway"), plural(uint64(len(f.nodes)), "node"))
	if len(found) == 0 {
		fmt.Fprintf(&b, "%s: %s\n", looked, p.paint(good, "nothing to do"))
	} else {
		fmt.Fprintf(&b, "%s: %s\n", looked, plural(uint64(len(found)), "finding"))
	}
	return b.String()
}
