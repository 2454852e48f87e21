package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

type layoutCommand struct{}

// Help is shown by --help.
func (layoutCommand) Help() string {
	return `The settled layout says who owns what. While it changes, the layout that comes next follows, with the steps that each node has ` +
		`taken towards it: ACKED, it refuses writes by the old one alone; SYNCED, it has what it will own; SWITCHED, it refuses reads by the old one. ` +
		`Each step begins when all have taken the one before. The command tasks tells how far the data has come.

` + examples("dotringctl layout", "dotringctl layout -o json | jq '.layouts[].members[].name'")
}

// Run shows the layouts.
func (layoutCommand) Run(ctx context.Context, s *session) error {
	var list clusterv1.GetLayoutResponse
	if done, err := s.ask(ctx, "/v1/cluster/layout", &list); done || err != nil {
		return err
	}
	return s.print(layoutText(s.out, list.Layouts))
}

// layoutText shows the settled layout, then each that is to follow.
func layoutText(p palette, layouts []*clusterv1.Layout) string {
	if len(layouts) == 0 {
		return "No layout is known.\n"
	}
	var b strings.Builder
	for i, l := range layouts {
		state, rows := "is settled", membersTable(l)
		if i > 0 {
			state, rows = p.paint(doubtful, "comes next"), stepsTable(layouts[0], l)
			b.WriteByte('\n')
		}
		copies := fmt.Sprintf("%d copies of each key", l.Replicas)
		if l.Replicas == 1 {
			copies = "1 copy of each key"
		}
		fmt.Fprintf(&b, "%s %s: %s, %s, a write needs at least %d.\n", p.paint(heading, "Layout "+layoutName(l.Ref)), state,
			plural(len(l.Members), "member"), copies, l.MinWriteQuorum)
		b.WriteString(rows.render(p, ""))
	}
	return b.String()
}

// byName returns the members in the order of their names.
func byName(members ...*clusterv1.LayoutMember) []*clusterv1.LayoutMember {
	members = slices.Clone(members)
	slices.SortStableFunc(members, func(a, b *clusterv1.LayoutMember) int { return compareNames(a.Name, b.Name) })
	return members
}

func memberCells(m *clusterv1.LayoutMember) []cell {
	return []cell{text(m.Name), text(m.Zone), number("%.4g", m.Weight), number("%d", len(m.Tokens))}
}

func memberHeadings(more ...string) []cell {
	row := headings(append([]string{"NAME", "ZONE", "WEIGHT", "TOKENS"}, more...)...)
	row[2].right, row[3].right = true, true
	return row
}

func membersTable(l *clusterv1.Layout) table {
	rows := table{memberHeadings("ID")}
	for _, m := range byName(l.Members...) {
		rows = append(rows, append(memberCells(m), text(m.Id)))
	}
	return rows
}

// stepsTable lists who was a member or is to be one, what changes for it, and which steps it has taken.
func stepsTable(settled, next *clusterv1.Layout) table {
	with := func(l *clusterv1.Layout, id string) *clusterv1.LayoutMember {
		i := slices.IndexFunc(l.Members, func(m *clusterv1.LayoutMember) bool { return m.Id == id })
		if i < 0 {
			return nil
		}
		return l.Members[i]
	}
	step := func(taken []string, id string) cell {
		if slices.Contains(taken, id) {
			return styled("yes", good)
		}
		return styled("no", doubtful)
	}
	members := slices.Clone(next.Members)
	for _, m := range settled.Members {
		if with(next, m.Id) == nil {
			members = append(members, m)
		}
	}
	rows := table{memberHeadings("CHANGE", "ACKED", "SYNCED", "SWITCHED", "ID")}
	for _, m := range byName(members...) {
		change := text("-")
		switch before := with(settled, m.Id); {
		case before == nil:
			change = styled("joins", doubtful)
		case with(next, m.Id) == nil:
			change = styled("leaves", doubtful)
		case before.Weight != m.Weight:
			change = styled(fmt.Sprintf("had weight %.4g", before.Weight), doubtful)
		}
		rows = append(rows, append(memberCells(m), change, step(next.Acked, m.Id), step(next.Synced, m.Id), step(next.Switched, m.Id), text(m.Id)))
	}
	return rows
}
