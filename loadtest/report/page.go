package report

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strconv"
	"strings"
)

// WriteHTML writes the documents as one page that needs nothing else: the first is what was measured now, the others
// what it is compared with. Runs share plots.
func WriteHTML(w io.Writer, docs ...Document) error {
	if len(docs) == 0 {
		return fmt.Errorf("report: nothing to write")
	}
	p := pageData{Title: docs[0].Title, Machine: docs[0].Machine}
	for _, d := range docs {
		for _, r := range d.Runs {
			if len(p.Runs) < maxPlotted {
				p.Runs = append(p.Runs, r)
			}
		}
		if d.Comparison != nil {
			p.Comparisons = append(p.Comparisons, comparisonView{*d.Comparison, d.Title})
		}
		if d.Floor != nil {
			p.Floors = append(p.Floors, *d.Floor)
		}
	}
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// maxPlotted bounds the runs on a page: there are no more colours that can be told apart.
const maxPlotted = 8

type pageData struct {
	Title       string
	Machine     Machine
	Runs        []Run
	Comparisons []comparisonView
	Floors      []Floor
}

type comparisonView struct {
	Comparison
	Title string
}

// Plots of all runs.
func (p pageData) Throughput() template.HTML {
	c := chart{title: "Throughput over time", xName: "seconds", yName: "operations a second"}
	for _, r := range p.Runs {
		s := series{name: r.Label}
		for _, pt := range r.Series {
			s.points = append(s.points, at(pt.AtS, pt.Done))
		}
		c.series = append(c.series, s)
	}
	return c.svg()
}

func (p pageData) Longest() template.HTML {
	c := chart{title: "Longest latency in each interval", xName: "seconds", yName: "milliseconds"}
	for _, r := range p.Runs {
		s := series{name: r.Label}
		for _, pt := range r.Series {
			s.points = append(s.points, at(pt.AtS, float64(pt.MaxUS)/1000))
		}
		c.series = append(c.series, s)
	}
	return c.svg()
}

// Latencies are plotted over the number of nines, both axes logarithmic.
func (p pageData) Latencies() template.HTML {
	c := chart{title: "Latency by percentile", xName: "percentile", yName: "milliseconds", logY: true, nines: true}
	for _, r := range p.Runs {
		s := series{name: r.Label}
		for _, q := range r.All.Curve {
			if q.Q < 1 {
				s.points = append(s.points, at(-math.Log10(1-q.Q), float64(q.US)/1000))
			}
		}
		c.series = append(c.series, s)
	}
	return c.svg()
}

// Bars plots the cells of a comparison: throughput of both, and the ratio above.
func (c comparisonView) Bars() template.HTML {
	b := bars{title: "Operations a second", names: [2]string{c.A, c.B}}
	for _, cell := range c.Cells {
		b.groups = append(b.groups, barGroup{
			name: fmt.Sprintf("%s, %d", cell.Workload, cell.Connections),
			at:   [2]Spread{cell.Of("a", throughputOf), cell.Of("b", throughputOf)},
			note: fmt.Sprintf("×%.2f", cell.Ratio().Mean),
		})
	}
	return b.svg()
}

func throughputOf(t Turn) float64 { return t.Throughput }

// Of spreads a number of the turns of "a" or "b".
func (c Cell) Of(side string, f func(Turn) float64) Spread {
	if side == "a" {
		return over(c.A, f)
	}
	return over(c.B, f)
}

// Rows are a comparison as text.
func (c Comparison) Rows() [][]string {
	var rows [][]string
	for _, cell := range c.Cells {
		for _, side := range []struct{ name, key string }{{c.A, "a"}, {c.B, "b"}} {
			rate := cell.Of(side.key, throughputOf)
			us := func(f func(Turn) int64) string {
				return millis(cell.Of(side.key, func(t Turn) float64 { return float64(f(t)) }).Mean)
			}
			row := []string{cell.Workload, strconv.Itoa(cell.Connections), side.name,
				fmt.Sprintf("%.0f", rate.Mean), fmt.Sprintf("%.0f–%.0f", rate.Min, rate.Max),
				us(func(t Turn) int64 { return t.P50US }), us(func(t Turn) int64 { return t.P99US }), us(func(t Turn) int64 { return t.P999US }),
				fmt.Sprintf("%.0f", cell.Of(side.key, func(t Turn) float64 { return t.ServerCPU }).Mean),
				fmt.Sprintf("%.0f %%", 100*cell.Of(side.key, func(t Turn) float64 { return t.GenCPU }).Mean), ""}
			if side.key == "a" {
				r := cell.Ratio()
				row[len(row)-1] = fmt.Sprintf("%.2f (%.2f–%.2f)", r.Mean, r.Min, r.Max)
				if !cell.Valid() {
					row[len(row)-1] += " not valid"
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// Header names the columns of Rows.
func (c Comparison) Header() []string {
	return []string{"workload", "connections", "target", "ops/s", "spread", "p50 ms", "p99 ms", "p99.9 ms", "server CPU µs/op", "generator CPU", "ratio"}
}

// millis writes microseconds as milliseconds, to three digits.
func millis(us float64) string {
	switch ms := us / 1000; {
	case ms >= 100:
		return fmt.Sprintf("%.0f", ms)
	case ms >= 10:
		return fmt.Sprintf("%.1f", ms)
	default:
		return fmt.Sprintf("%.2f", ms)
	}
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func (m Machine) String() string {
	return fmt.Sprintf("%d processors, %s/%s, %s", m.CPUs, m.OS, m.Arch, m.Go)
}

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"ms":      func(us int64) string { return millis(float64(us)) },
	"percent": percent,
	"whole":   func(x float64) string { return fmt.Sprintf("%.0f", x) },
	"tenth":   func(x float64) string { return fmt.Sprintf("%.1f", x) },
	"hundred": func(x float64) string { return fmt.Sprintf("%.2f", x) },
	"mib":     func(b int64) string { return fmt.Sprintf("%.0f", float64(b)/(1<<20)) },
	"join":    func(s []string) string { return strings.Join(s, ", ") },
	"div":     func(us float64) float64 { return us / 1000 },
}).Parse(pageText))
