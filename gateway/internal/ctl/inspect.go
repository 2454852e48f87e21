package ctl

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// previewBytes is how much of a value a table shows.
const previewBytes = 40

type keyCommand struct{ keyArgument }

// Help is shown by --help.
func (keyCommand) Help() string {
	return `Lists the key's replicas in the order of its preference list, and says whether they agree. For each sibling it ` +
		`shows which replica holds it: "held"; "replaced" where the replica has seen it and something newer; "unseen" where ` +
		`it never got there; "?" where the replica could not be asked. The clocks follow, entry by entry. The exit code is 0 ` +
		`whatever they hold.

` + examples("dotringctl key colour", "dotringctl key photos/cat.jpg -o json | jq '.replicas[].digest'",
		"dotringctl key --key-base64 AAEC")
}

// Run shows what each replica of a key holds.
func (k *keyCommand) Run(ctx context.Context, s *session) error {
	key, err := k.bytes()
	if err != nil {
		return err
	}
	var in clusterv1.InspectKeyResponse
	if done, err := s.ask(ctx, keyPath("/v1/cluster/keys/", key), &in); done || err != nil {
		return err
	}
	return s.print(keyText(s.out, key, &in))
}

func keyText(p palette, key []byte, in *clusterv1.InspectKeyResponse) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: slot %d, layout %s\n", p.paint(heading, quote(key)), in.Slot, layoutName(in.Layout))
	verdict, look := agreement(in.Replicas)
	fmt.Fprintf(&b, "%s\n\n", p.paint(look, verdict))
	rows := table{headings("#", "NODE", "ZONE", "ROLE", "STATE", "SIBLINGS", "BYTES", "DIGEST")}
	for _, i := range []int{5, 6} {
		rows[0][i].right = true
	}
	for i, r := range in.Replicas {
		row := []cell{text(fmt.Sprint(i + 1)), text(replicaName(r)), text(r.Zone), text(r.Role), styled(r.State, stateStyle(r.State))}
		switch {
		case answered(r) && r.State == "record":
			row = append(row, number("%d", len(r.Siblings)), number("%d", r.RecordBytes), text(short(r.Digest)))
		case r.Error != "":
			row = append(row, cell{}, cell{}, styled(r.Error, bad))
		}
		rows = append(rows, row)
	}
	b.WriteString(rows.render(p, ""))
	names := namesOfActors(in.Replicas)
	if t := siblingTable(in.Replicas, names); t != nil {
		b.WriteString("\n" + t.render(p, ""))
	}
	if t := clockTable(in.Replicas, names); t != nil {
		b.WriteString("\n" + t.render(p, ""))
	}
	return b.String()
}

func replicaName(r *clusterv1.Replica) string {
	if r.Name != "" {
		return escapeText(r.Name)
	}
	return escapeText(short(r.Node))
}

func short(hex string) string { return hex[:min(8, len(hex))] }

// answered says whether it is known what the replica holds.
func answered(r *clusterv1.Replica) bool { return r.State == "record" || r.State == "absent" }

func stateStyle(state string) style {
	switch state {
	case "record":
		return good
	case "absent":
		return doubtful
	default:
		return bad
	}
}

// holding is what a replica holds, comparable: the digest of its record, or nothing.
func holding(r *clusterv1.Replica) string {
	if r.State != "record" {
		return ""
	}
	return "record " + r.Digest
}

// agreement says in a line whether the replicas agree. It is the primaries that must; a stand-in holds records on its way.
func agreement(replicas []*clusterv1.Replica) (string, style) {
	var (
		holdings []string // distinct, in the order of the list
		holders  = map[string][]string{}
		silent   []string
		spare    []string
		asked    int
	)
	for _, r := range replicas {
		name := replicaName(r)
		switch {
		case r.Role != "primary":
			if r.State == "record" {
				spare = append(spare, name)
			}
		case !answered(r):
			silent = append(silent, name)
		default:
			asked++
			h := holding(r)
			if !slices.Contains(holdings, h) {
				holdings = append(holdings, h)
			}
			holders[h] = append(holders[h], name)
		}
	}
	out, look := "", good
	switch {
	case asked == 0:
		out, look = "No primary replica answered, so it is not known whether they agree.", bad
	case len(holdings) > 1:
		var parts []string
		for i, h := range holdings {
			parts = append(parts, strings.Join(holders[h], ", ")+" "+holdingWord(h, i, len(holders[h])))
		}
		out, look = "The replicas differ: "+strings.Join(parts, "; ")+".", bad
	case holdings[0] == "":
		out, look = "No primary replica has a record of the key.", doubtful
	case asked == 1:
		out = "One primary replica has a record, and no other answered that could differ."
	default:
		out = fmt.Sprintf("The %d primary replicas agree.", asked)
		if len(silent) > 0 {
			out = fmt.Sprintf("The %d primary replicas that answered agree.", asked)
		}
	}
	if len(silent) > 0 {
		out += " No answer: " + strings.Join(silent, ", ") + "."
		if look == good {
			look = doubtful
		}
	}
	if len(spare) > 0 {
		out += " Also held by stand-ins: " + strings.Join(spare, ", ") + "."
	}
	return out, look
}

func holdingWord(h string, place, holders int) string {
	switch {
	case h == "" && holders == 1:
		return "has nothing"
	case h == "":
		return "have nothing"
	case holders > 1:
		return "hold the same"
	case place > 0:
		return "holds something else"
	default:
		return "holds a record"
	}
}

// namesOfActors gives every actor a short name: its first 8 digits, or more where two would be the same.
func namesOfActors(replicas []*clusterv1.Replica) map[string]string {
	all := map[string]bool{}
	for _, r := range replicas {
		for _, e := range r.Clock {
			all[e.Actor] = true
		}
		for _, v := range r.Siblings {
			all[v.Actor] = true
		}
	}
	for digits := 8; ; digits += 4 {
		names, taken, clash := map[string]string{}, map[string]bool{}, false
		for a := range all {
			n := a[:min(digits, len(a))]
			clash = clash || taken[n]
			names[a], taken[n] = escapeText(n), true
		}
		if !clash || digits > 64 {
			return names
		}
	}
}

// siblingTable has a row for each sibling that any replica holds, and a column for each replica.
func siblingTable(replicas []*clusterv1.Replica, names map[string]string) table {
	var all []*clusterv1.ReplicaSibling
	for _, r := range replicas {
		for _, v := range r.Siblings {
			if !slices.ContainsFunc(all, func(o *clusterv1.ReplicaSibling) bool { return sameSibling(o, v) }) {
				all = append(all, v)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b *clusterv1.ReplicaSibling) int {
		return cmp.Or(a.LastModified.AsTime().Compare(b.LastModified.AsTime()), strings.Compare(a.Actor, b.Actor),
			cmp.Compare(a.Counter, b.Counter))
	})
	rows := table{headings("SIBLING")}
	for _, r := range replicas {
		rows[0] = append(rows[0], styled(replicaName(r), heading))
	}
	rows[0] = append(rows[0], headings("WRITTEN", "SIZE", "TYPE", "ETAG", "VALUE")...)
	rows[0][len(replicas)+2].right = true
	for _, v := range all {
		row := []cell{text(fmt.Sprintf("%s:%d", names[v.Actor], v.Counter))}
		for _, r := range replicas {
			row = append(row, holds(r, v))
		}
		value := cell{text: "deleted", style: bad}
		if !v.Tombstone {
			shown, cut := preview(v.Preview, previewBytes)
			if cut || int(v.ValueBytes) > len(v.Preview) {
				shown += "…"
			}
			value = cell{text: shown}
		}
		rows = append(rows, append(row, text(clock(v.LastModified)), number("%s", byteSize(uint64(v.ValueBytes))),
			text(v.ContentType), text(short(v.Etag)), value))
	}
	return rows
}

// sameSibling compares the values too: if two replicas ever held two values under one dot, that must be seen.
func sameSibling(a, b *clusterv1.ReplicaSibling) bool {
	return a.Actor == b.Actor && a.Counter == b.Counter && a.Etag == b.Etag && a.Tombstone == b.Tombstone &&
		a.ValueBytes == b.ValueBytes && bytes.Equal(a.Preview, b.Preview)
}

// holds says what a replica knows of a sibling.
func holds(r *clusterv1.Replica, v *clusterv1.ReplicaSibling) cell {
	switch {
	case !answered(r):
		return styled("?", doubtful)
	case slices.ContainsFunc(r.Siblings, func(o *clusterv1.ReplicaSibling) bool { return sameSibling(o, v) }):
		return styled("held", good)
	case counter(r, v.Actor) >= v.Counter:
		return styled("replaced", doubtful)
	default:
		return styled("unseen", bad)
	}
}

func counter(r *clusterv1.Replica, actor string) uint64 {
	for _, e := range r.Clock {
		if e.Actor == actor {
			return e.Counter
		}
	}
	return 0
}

// clockTable has a row for each entry of any replica's clock, and a column for each replica.
func clockTable(replicas []*clusterv1.Replica, names map[string]string) table {
	var actors []string
	for _, r := range replicas {
		for _, e := range r.Clock {
			if !slices.Contains(actors, e.Actor) {
				actors = append(actors, e.Actor)
			}
		}
	}
	if len(actors) == 0 {
		return nil
	}
	slices.Sort(actors)
	rows := table{headings("CLOCK")}
	for _, r := range replicas {
		rows[0] = append(rows[0], styled(replicaName(r), heading))
	}
	for _, a := range actors {
		var newest uint64
		for _, r := range replicas {
			newest = max(newest, counter(r, a))
		}
		row := []cell{text(names[a])}
		for _, r := range replicas {
			c := counter(r, a)
			switch {
			case !answered(r):
				row = append(row, styled("?", doubtful))
			case c == 0:
				row = append(row, styled("-", bad))
			case c < newest:
				row = append(row, cell{text: fmt.Sprint(c), style: doubtful})
			default:
				row = append(row, cell{text: fmt.Sprint(c)})
			}
		}
		rows = append(rows, row)
	}
	return rows
}
