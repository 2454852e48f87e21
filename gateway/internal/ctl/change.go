package ctl

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

const (
	// changeTime is what a gateway gives a change to be proposed.
	changeTime = 15 * time.Second
	// followEvery is how often a change is looked at that is waited for.
	followEvery = 500 * time.Millisecond
	// movesShown is how many moves a table lists.
	movesShown = 20
	// slots is how many there are.
	slots = 1 << 20
)

// changeFlags are the flags of every change.
type changeFlags struct {
	DryRun bool          `help:"Tell what would happen, and change nothing." xor:"what"`
	Wait   bool          `help:"Answer when the change is done, and show what it waits for." xor:"what"`
	Within time.Duration `help:"With --wait, fail after this time; the change goes on. Default: 1h." default:"1h" placeholder:"DURATION"`
}

type nodeArgument struct {
	Node string `arg:"" help:"Name or id of the node." placeholder:"NODE" complete:"node"`
}

type decommissionCommand struct {
	nodeArgument
	changeFlags
}

// Help is shown by --help.
func (decommissionCommand) Help() string {
	return `The node's copies move to the others while requests go on; then it is no member any more and can be stopped. It comes back only ` +
		`with an empty data directory. Refused where fewer nodes would stay than there are copies.

` + examples("dotringctl decommission node4 --dry-run", "dotringctl decommission node4 --wait")
}

// Run begins, previews or carries through the change.
func (c *decommissionCommand) Run(ctx context.Context, s *session) error {
	gone := func(l *clusterv1.Layout) bool { return memberOf(l, c.Node) == nil }
	return s.change(ctx, change{title: "Decommission " + c.Node, path: verbPath(c.Node, "decommission"), flags: c.changeFlags, reached: gone})
}

type removeCommand struct {
	nodeArgument
	AcceptLoss bool `help:"Go on where so few copies are left that acknowledged writes may be lost."`
	changeFlags
}

// Help is shown by --help.
func (removeCommand) Help() string {
	return `The node must be stopped. It is marked dead, which is never taken back: it comes back only with an empty data directory. Its ` +
		`copies are made anew from the other owners. Where so few of these are left that acknowledged writes may be lost, the change ` +
		`waits until it is asked for again with --accept-loss.

` + examples("dotringctl remove node4 --dry-run", "dotringctl remove node4 --wait")
}

// Run begins, previews or carries through the change.
func (c *removeCommand) Run(ctx context.Context, s *session) error {
	gone := func(l *clusterv1.Layout) bool { return memberOf(l, c.Node) == nil }
	q := url.Values{}
	if c.AcceptLoss {
		q.Set("accept_loss", "true")
	}
	return s.change(ctx, change{title: "Remove " + c.Node, path: verbPath(c.Node, "remove"), query: q, flags: c.changeFlags, reached: gone, patient: true})
}

type replaceCommand struct {
	nodeArgument
	By         string `arg:"" help:"Name or id of the node that takes the place; it was started with --standby." placeholder:"BY" complete:"node"`
	AcceptLoss bool   `help:"Go on where so few copies are left that acknowledged writes may be lost."`
	changeFlags
}

// Help is shown by --help.
func (replaceCommand) Help() string {
	return `The newcomer takes over tokens and weight, so that nothing else moves. A node that is not alive is marked dead, as by remove; a ` +
		`living one hands over what it holds, and leaves.

` + examples("dotringctl replace node2 node7 --dry-run", "dotringctl replace node2 node7 --wait")
}

// Run begins, previews or carries through the change.
func (c *replaceCommand) Run(ctx context.Context, s *session) error {
	taken := func(l *clusterv1.Layout) bool { return memberOf(l, c.Node) == nil && memberOf(l, c.By) != nil }
	q := url.Values{"by": {c.By}}
	if c.AcceptLoss {
		q.Set("accept_loss", "true")
	}
	return s.change(ctx, change{title: "Replace " + c.Node + " by " + c.By, path: verbPath(c.Node, "replace"), query: q, flags: c.changeFlags, reached: taken})
}

type weightCommand struct {
	nodeArgument
	Weight float64 `arg:"" help:"The new weight, above 0 and at most 16." placeholder:"WEIGHT"`
	changeFlags
}

// Help is shown by --help.
func (weightCommand) Help() string {
	return `A node of weight 2 holds twice as much as one of weight 1.

` + examples("dotringctl weight node4 2 --dry-run", "dotringctl weight node4 0.5 --wait")
}

// Run begins, previews or carries through the change.
func (c *weightCommand) Run(ctx context.Context, s *session) error {
	weight := strconv.FormatFloat(c.Weight, 'g', -1, 64)
	set := func(l *clusterv1.Layout) bool {
		m := memberOf(l, c.Node)
		return m != nil && m.Weight == c.Weight
	}
	return s.change(ctx, change{title: "Weight of " + c.Node + ": " + weight, path: verbPath(c.Node, "setWeight"),
		query: url.Values{"weight": {weight}}, flags: c.changeFlags, reached: set})
}

type abortCommand struct{ changeFlags }

// Help is shown by --help.
func (abortCommand) Help() string {
	return `What was begun is taken back by a further change; removals of dead nodes go on. Refused where nothing is under way that could be ` +
		`given up: once all nodes have synced a change it is all but done. Nodes whose joining was given up ask again, unless they are stopped.

` + examples("dotringctl abort --dry-run", "dotringctl abort --wait")
}

// Run gives up what is under way.
func (c *abortCommand) Run(ctx context.Context, s *session) error {
	return s.change(ctx, change{title: "Abort", path: "/v1/cluster:abort", flags: c.changeFlags, reached: func(*clusterv1.Layout) bool { return true }})
}

func verbPath(node, verb string) string {
	return "/v1/cluster/nodes/" + url.PathEscape(node) + ":" + verb
}

// memberOf finds a member by name or id.
func memberOf(l *clusterv1.Layout, node string) *clusterv1.LayoutMember {
	i := slices.IndexFunc(l.Members, func(m *clusterv1.LayoutMember) bool { return m.Name == node || m.Id == node })
	if i < 0 {
		return nil
	}
	return l.Members[i]
}

// change is a change that someone asks for.
type change struct {
	title, path string
	query       url.Values
	flags       changeFlags
	reached     func(*clusterv1.Layout) bool // whether a settled layout is what was asked for
	// patient: where a layout has settled without the change, it is still to come.
	patient bool
}

// change asks for a change or its preview, and waits where asked to.
func (s *session) change(ctx context.Context, c change) error {
	began := time.Now()
	q := url.Values{}
	for name, values := range c.query {
		q[name] = values
	}
	if c.flags.DryRun {
		q.Set("dry_run", "true")
	}
	client := *s.client
	client.timeout = max(client.timeout, changeTime)
	var told clusterv1.LayoutChange
	body, err := s.fetch(ctx, &client, call{method: http.MethodPost, path: c.path, query: q}, &told)
	if err != nil {
		return err
	}
	if !s.json {
		if err := s.print(changeText(s.out, c.title, &told)); err != nil {
			return err
		}
	}
	if c.flags.Wait {
		if err := s.follow(ctx, c, &told, began); err != nil {
			return err
		}
	}
	switch {
	case s.json:
		return s.printRawJSON(body)
	case c.flags.Wait:
		return s.print("Done.\n")
	case !told.DryRun:
		return s.print("It is under way; follow it with dotringctl tasks.\n")
	}
	return nil
}

// follow waits until a change has settled, and says on stderr what it waits for, whenever that is another.
func (s *session) follow(ctx context.Context, c change, told *clusterv1.LayoutChange, began time.Time) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	said := ""
	for {
		done, waits, err := s.settled(ctx, c, told)
		if done || err != nil {
			return err
		}
		if waits != "" && waits != said {
			complain(s.env.Stderr, "%s\n", escapeText(waits))
			said = waits
		}
		if time.Since(began) >= c.flags.Within {
			return &failure{code: ExitError, title: "not done in time", detail: fmt.Sprintf("after %s: %s\nThe change goes on by itself.", c.flags.Within, waits)}
		}
		select {
		case <-ctx.Done():
			return &failure{code: ExitError, title: "interrupted", detail: "The change goes on by itself."}
		case <-tick.C:
		}
	}
}

// settled looks whether a change is done, and else what it waits for. A gateway that does not answer is one of those things.
func (s *session) settled(ctx context.Context, c change, told *clusterv1.LayoutChange) (done bool, waits string, err error) {
	get := func(path string, m proto.Message) error {
		_, err := s.fetch(ctx, s.client, call{method: http.MethodGet, path: path}, m)
		return err
	}
	var now clusterv1.GetLayoutResponse
	if err := get("/v1/cluster/layout", &now); err != nil {
		return false, "the gateway does not tell: " + err.Error(), nil
	}
	if len(now.Layouts) == 0 {
		return false, "the gateway knows no layout", nil
	}
	settled := now.Layouts[0]
	if len(now.Layouts) == 1 && settled.GetRef().GetEpoch() >= told.GetLayout().GetEpoch() {
		if c.reached(settled) {
			return true, "", nil
		}
		if !c.patient {
			return false, "", &failure{code: ExitError, title: "the change was given up", detail: "layout " + layoutName(settled.GetRef()) + " has settled without it"}
		}
		return false, "waits for its turn", nil
	}
	var tasks clusterv1.ListTasksResponse
	if err := get("/v1/cluster/tasks", &tasks); err != nil {
		return false, "the gateway does not tell: " + err.Error(), nil
	}
	return false, waitsText(tasks.Tasks), nil
}

// waitsText says what a change waits for, and how far those are that fetch, in steps of five percent: it is said whenever it is another.
func waitsText(tasks []*clusterv1.Task) string {
	var parts []string
	for _, t := range tasks {
		switch {
		case t.Kind == "layout":
			parts = append([]string{t.Detail}, parts...)
		case t.Kind == "transfer" && t.Total > 0:
			parts = append(parts, fmt.Sprintf("%s has fetched %d%%", t.Node, 100*t.Done/t.Total/5*5))
		}
	}
	return strings.Join(parts, "; ")
}

func changeText(p palette, title string, c *clusterv1.LayoutChange) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: layout %s to %s\n", p.paint(heading, escapeText(title)), layoutName(c.Settled), layoutName(c.Layout))
	if c.DryRun {
		b.WriteString(p.paint(doubtful, "A preview: nothing was changed.") + "\n")
	}
	b.WriteString("\n" + shareTable(c.Nodes).render(p, ""))
	if len(c.Moves) == 0 {
		b.WriteString("\nNothing moves.\n")
	} else {
		b.WriteString("\n" + moveTable(c.Moves).render(p, ""))
		if more := len(c.Moves) - movesShown; more > 0 {
			fmt.Fprintf(&b, "… and %d smaller moves\n", more)
		}
		size := ""
		if c.MovedBytes > 0 {
			size = ", about " + byteSize(c.MovedBytes)
		}
		if c.AtLeastSeconds > 0 {
			size += fmt.Sprintf(", which takes %s at least", time.Duration(math.Ceil(c.AtLeastSeconds))*time.Second)
		}
		fmt.Fprintf(&b, "In all %s of all copies change hands%s.\n", percent(c.MovedShare), size)
	}
	if c.ReplicasBefore != c.ReplicasAfter {
		fmt.Fprintf(&b, "%s\n", p.paint(doubtful, fmt.Sprintf("Each key will have %s instead of %d.", copies(c.ReplicasAfter), c.ReplicasBefore)))
	}
	if c.DegradedSlots > 0 {
		fmt.Fprintf(&b, "%s\n", p.paint(doubtful, fmt.Sprintf("%s of the keys have an owner that does not answer, and fewer copies until the change is done.",
			percent(float64(c.DegradedSlots)/slots))))
	}
	if c.ShortSlots > 0 {
		fmt.Fprintf(&b, "%s\n", p.paint(bad, fmt.Sprintf("For %s of the keys too few copies are left to be sure of every acknowledged write: the change "+
			"waits for --accept-loss.", percent(float64(c.ShortSlots)/slots))))
	}
	b.WriteString("\nThe chance that failures at once cost some key its quorum:\n\n" + riskTable(c.Risks).render(p, ""))
	return b.String()
}

func shareTable(nodes []*clusterv1.NodeShare) table {
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b *clusterv1.NodeShare) int { return compareNames(a.Name, b.Name) })
	rows := table{headings("NODE", "WEIGHT", "AFTER", "SHARE", "AFTER")}
	for i := 1; i < 5; i++ {
		rows[0][i].right = true
	}
	for _, n := range nodes {
		row := []cell{text(n.Name), number("%.4g", n.WeightBefore), number("%.4g", n.WeightAfter), number("%s", percent(n.ShareBefore)), number("%s", percent(n.ShareAfter))}
		if n.WeightBefore == 0 {
			row[1].text, row[3].text = "-", "-"
		}
		if n.WeightAfter == 0 {
			row[2].text, row[4].text = "-", "-"
		}
		rows = append(rows, row)
	}
	return rows
}

// moveTable lists the largest moves.
func moveTable(moves []*clusterv1.Move) table {
	moves = slices.Clone(moves)
	slices.SortStableFunc(moves, func(a, b *clusterv1.Move) int { return int(b.Slots) - int(a.Slots) })
	rows := table{headings("FROM", "TO", "SLOTS", "OF THE KEYS", "BYTES")}
	for i := 2; i < 5; i++ {
		rows[0][i].right = true
	}
	orDash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, m := range moves[:min(len(moves), movesShown)] {
		size := number("%s", byteSize(m.Bytes))
		if m.Bytes == 0 {
			size.text = "?"
		}
		rows = append(rows, []cell{text(orDash(m.From)), text(orDash(m.To)), number("%d", m.Slots), number("%s", percent(float64(m.Slots)/slots)), size})
	}
	return rows
}

func riskTable(risks []*clusterv1.FailureRisk) table {
	rows := table{headings("FAILURES", "BEFORE", "AFTER")}
	for i := range rows[0] {
		rows[0][i].right = true
	}
	for _, r := range risks {
		after := number("%s", percent(r.After))
		if r.After > r.Before {
			after.style = doubtful
		}
		rows = append(rows, []cell{number("%d", r.Failures), number("%s", percent(r.Before)), after})
	}
	return rows
}

// percent is a part for people, with two digits at least.
func percent(part float64) string {
	if part > 0 && part < 0.01 {
		return fmt.Sprintf("%.2g%%", 100*part)
	}
	return fmt.Sprintf("%.1f%%", 100*part)
}

func copies(n uint32) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}

type canStopCommand struct{ nodeArgument }

// Help is shown by --help.
func (canStopCommand) Help() string {
	return `Looks at every layout that is in use: a copy counts where its node answers, lacks nothing that is known of (writes that others keep ` +
		`for it, data that its disk lost), and has synced the layout. The exit code is 0 where the node may stop without any key having fewer ` +
		`copies than reads and writes need, and 6 where it must not.

` + examples("dotringctl can-stop node2", "dotringctl can-stop node2 && systemctl restart dotring-storagenode")
}

// Run asks, and answers with the exit code.
func (c *canStopCommand) Run(ctx context.Context, s *session) error {
	var r clusterv1.CanStopResponse
	done, err := s.ask(ctx, "/v1/cluster/nodes/"+url.PathEscape(c.Node)+":canStop", &r)
	if err == nil && !done {
		err = s.print(canStopText(s.out, &r))
	}
	if err == nil && !r.CanStop {
		err = exitCode(ExitNo)
	}
	return err
}

func canStopText(p palette, r *clusterv1.CanStopResponse) string {
	var b strings.Builder
	look := good
	if !r.CanStop {
		look = bad
	}
	fmt.Fprintf(&b, "%s\n", p.paint(look, escapeText(r.Verdict)))
	if len(r.Short) > 0 {
		rows := table{headings("LAYOUT", "OF THE KEYS", "OWNERS", "LEFT", "NEEDED", "WHY")}
		rows[0][1].right, rows[0][4].right = true, true
		for _, sh := range r.Short {
			left := strings.Join(sh.Left, ", ")
			if left == "" {
				left = "none"
			}
			rows = append(rows, []cell{text(layoutName(sh.Layout)), number("%s", percent(float64(sh.Slots)/slots)), text(strings.Join(sh.Owners, ", ")),
				text(left), number("%d", sh.Needed), text(strings.Join(sh.Reasons, "; "))})
		}
		b.WriteString("\n" + rows.render(p, ""))
	}
	for i, remark := range r.Remarks {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s\n", p.paint(doubtful, escapeText(remark)))
	}
	return b.String()
}
