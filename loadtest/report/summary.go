package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Text writes a run for people at a terminal.
func (r Run) Text(w io.Writer) error {
	var b strings.Builder
	loop := "closed loop"
	if r.Rate > 0 {
		loop = fmt.Sprintf("open loop at %.0f/s", r.Rate)
	}
	fmt.Fprintf(&b, "%s: %s, %s %s, %d × %d B, %d connections, %s, %.1f s\n", r.Label, r.Target, r.Workload.Name, r.Workload.Distribution,
		r.Workload.Records, r.Workload.ValueSize, r.Connections, loop, r.ElapsedS)
	fmt.Fprintf(&b, "  %.0f operations a second\n", r.Throughput)
	rows := [][]string{{"", "done", "mean ms", "p50", "p90", "p99", "p99.9", "p99.99", "max", "outcomes"}}
	for _, o := range r.Ops {
		rows = append(rows, latencyRow(o.Op, o.Latency, outcomes(o.Counts)))
	}
	if len(r.Ops) > 1 {
		rows = append(rows, latencyRow("all", r.All, ""))
	}
	if r.NotDone.Count > 0 {
		rows = append(rows, latencyRow("not done", r.NotDone, ""))
	}
	b.WriteString(Table(rows))
	fmt.Fprintf(&b, "  generator: %s of the machine, scheduling p99 %s ms", percent(r.Generator.CPUShare), millis(float64(r.Generator.SchedP99US)))
	if r.Rate > 0 {
		fmt.Fprintf(&b, ", start lag p99 %s ms", millis(float64(r.Generator.LagP99US)))
	}
	b.WriteByte('\n')
	if len(r.Servers) > 0 {
		fmt.Fprintf(&b, "  servers: %.1f µs of CPU for each operation\n", r.ServerCPU())
		for _, s := range r.Servers {
			fmt.Fprintf(&b, "    %-10s %.2f s, %.0f MiB resident\n", s.Name, s.CPUS, float64(s.RSSBytes)/(1<<20))
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "  %d × %s\n", e.Count, e.Text)
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(&b, "  note: %s\n", s)
	}
	for _, s := range r.Faults {
		fmt.Fprintf(&b, "  NOT VALID: %s\n", s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func latencyRow(name string, l Latency, tail string) []string {
	at := func(us int64) string { return millis(float64(us)) }
	return []string{name, fmt.Sprint(l.Count), millis(l.MeanUS), at(l.P50US), at(l.P90US), at(l.P99US), at(l.P999US), at(l.P9999), at(l.MaxUS), tail}
}

func outcomes(counts map[string]uint64) string {
	var parts []string
	for name, n := range counts {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Table sets rows in columns, the first and the last to the left, the others to the right.
func Table(rows [][]string) string {
	var b strings.Builder
	wide := map[int]int{}
	for _, row := range rows {
		for i, cell := range row {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		b.WriteByte(' ')
		for i, cell := range row {
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
			if i == 0 || i == len(row)-1 {
				cell, pad = cell+pad, ""
			}
			b.WriteString(" " + pad + cell + " ")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Text writes a comparison as a table.
func (c Comparison) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s against %s, %d rounds in turn; means are geometric, ratios of operations a second with the least and the greatest round\n", c.A, c.B, c.Rounds)
	b.WriteString(Table(append([][]string{c.Header()}, c.Rows()...)))
	for _, s := range c.Syncs {
		fmt.Fprintf(&b, "  %s: %d fsyncs for %.0f acknowledged puts, %.2f each\n", s.Name, s.Calls, s.Puts, s.PerPut())
	}
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "  note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Text writes a floor as tables.
func (f Floor) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "values of %d bytes, %d connections; microseconds of CPU, user and system\n", f.ValueSize, f.Connections)
	rows := [][]string{{"part", "CPU µs", "a second", "what it is"}}
	for _, p := range f.Parts {
		rows = append(rows, []string{p.Name, fmt.Sprintf("%.1f", p.CPU), fmt.Sprintf("%.0f", p.Rate), p.What})
	}
	b.WriteString(Table(rows))
	for _, o := range f.Operations {
		fmt.Fprintf(&b, "\n%s: the cluster %.1f µs at %.0f/s", o.Name, o.Cluster, o.Rate)
		if len(o.Needs) > 0 {
			fmt.Fprintf(&b, ", its parts %.1f µs, ratio %.2f", o.Sum(), o.Ratio())
		}
		if !o.Valid {
			b.WriteString("  NOT VALID")
		}
		b.WriteByte('\n')
		rows := [][]string{{"needs", "times", "CPU µs", ""}}
		for _, n := range o.Needs {
			rows = append(rows, []string{n.Part, fmt.Sprintf("%.2f", n.Times), fmt.Sprintf("%.1f", n.CPU), ""})
		}
		b.WriteString(Table(rows))
		for _, p := range o.ByProcess {
			fmt.Fprintf(&b, "    %-10s %.2f s of CPU, %.0f MiB resident\n", p.Name, p.CPUS, float64(p.RSSBytes)/(1<<20))
		}
	}
	for _, n := range f.Notes {
		fmt.Fprintf(&b, "  note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
