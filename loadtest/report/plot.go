package report

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type point struct{ x, y float64 }

// drawable keeps what a file may say within what a plot can show: 0, or 1e-9 to 1e12.
func drawable(v float64) float64 {
	if !(v >= 1e-9) { // also what is not a number
		return 0
	}
	return min(v, 1e12)
}

// at makes a point that can be drawn.
func at(x, y float64) point { return point{drawable(x), drawable(y)} }

type series struct {
	name   string
	points []point
}

// chart draws lines.
type chart struct {
	title, xName, yName string
	logY                bool
	nines               bool // x is minus the logarithm of the share above
	series              []series
}

// Of every plot, in its own units.
const (
	plotWidth, plotHeight = 900.0, 320.0
	plotLeft, plotRight   = 70.0, 20.0
	plotTop, plotBottom   = 34.0, 44.0
	legendRow             = 18.0
	plotAcross, plotDown  = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	ticks                 = 5
)

// bounds are the smallest ones that hold all points, begin at 0 where the axis is linear, and are never empty.
func (c chart) bounds() (maxX, minY, maxY float64) {
	minY = math.Inf(1)
	for _, s := range c.series {
		for _, p := range s.points {
			maxX, maxY = max(maxX, p.x), max(maxY, p.y)
			if p.y > 0 {
				minY = min(minY, p.y)
			}
		}
	}
	if maxX == 0 {
		maxX = 1
	}
	if maxY == 0 {
		maxY = 1
	}
	if !c.logY {
		return maxX, 0, maxY
	}
	if minY = math.Pow(10, math.Floor(math.Log10(min(minY, maxY)))); minY >= maxY {
		maxY = minY * 10
	}
	return maxX, minY, math.Pow(10, math.Ceil(math.Log10(maxY)-1e-9))
}

func (c chart) svg() template.HTML {
	maxX, minY, maxY := c.bounds()
	if !c.logY {
		maxY = niceStep(maxY) * math.Ceil(maxY/niceStep(maxY))
	}
	x := func(v float64) float64 { return plotLeft + plotAcross*v/maxX }
	y := func(v float64) float64 {
		if c.logY {
			v, lo, hi := math.Log10(max(v, minY)), math.Log10(minY), math.Log10(maxY)
			return plotTop + plotDown*(1-(v-lo)/(hi-lo))
		}
		return plotTop + plotDown*(1-v/maxY)
	}
	var b strings.Builder
	height := plotHeight + legendRow*float64(len(c.series))
	frame(&b, c.title, height)
	for _, v := range c.yTicks(minY, maxY) {
		grid(&b, plotLeft, y(v), plotLeft+plotAcross, y(v))
		label(&b, plotLeft-8, y(v)+4, "end", "axis", number(v))
	}
	for v, name := range c.xTicks(maxX) {
		label(&b, x(v), plotTop+plotDown+18, "middle", "axis", name)
	}
	label(&b, plotLeft+plotAcross/2, plotHeight-8, "middle", "axis", c.xName)
	label(&b, plotLeft, plotTop-8, "start", "axis", c.yName)
	for i, s := range c.series {
		fmt.Fprintf(&b, `<polyline class="c%d" points="`, i%maxPlotted)
		for _, p := range s.points {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(p.x), y(p.y))
		}
		b.WriteString(`"/>`)
		row := plotHeight + legendRow*float64(i)
		fmt.Fprintf(&b, `<line class="k%d" stroke-width="3" x1="%.0f" y1="%.0f" x2="%.0f" y2="%.0f"/>`, i%maxPlotted, plotLeft, row+6, plotLeft+22, row+6)
		label(&b, plotLeft+30, row+10, "start", "", s.name)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // every text in it was escaped
}

func (c chart) yTicks(minY, maxY float64) (values []float64) {
	if c.logY {
		for v := minY; v <= maxY*1.001; v *= 10 {
			values = append(values, v)
		}
		return values
	}
	for v, step := 0.0, niceStep(maxY); v <= maxY*1.001; v += step {
		values = append(values, v)
	}
	return values
}

func (c chart) xTicks(maxX float64) map[float64]string {
	names := map[float64]string{0: "0"}
	if c.nines {
		names[-math.Log10(0.5)] = "50"
		for n, name := range []string{"90", "99", "99.9", "99.99", "99.999"} {
			if v := float64(n + 1); v <= maxX*1.001 {
				names[v] = name
			}
		}
		return names
	}
	for v, step := 0.0, niceStep(maxX); v <= maxX*1.001; v += step {
		names[v] = number(v)
	}
	return names
}

// niceStep divides an axis up to limit into about as many parts as there are ticks: 1, 2 or 5 times a power of ten.
func niceStep(limit float64) float64 {
	raw := limit / ticks
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power*1.0001 {
			return m * power
		}
	}
	return 10 * power
}

func number(v float64) string { return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64) }

// printable leaves out what an SVG may not hold.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != utf8.RuneError {
			return r
		}
		return -1
	}, s)
}

func frame(b *strings.Builder, title string, height float64) {
	escaped := template.HTMLEscapeString(printable(title))
	fmt.Fprintf(b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s"><title>%s</title>`, plotWidth, height, escaped, escaped)
	label(b, plotLeft+plotAcross/2, 16, "middle", "", title)
}

func grid(b *strings.Builder, x1, y1, x2, y2 float64) {
	fmt.Fprintf(b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, x1, y1, x2, y2)
}

func label(b *strings.Builder, x, y float64, anchor, class, text string) {
	text = printable(text)
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, template.HTMLEscapeString(text))
}

// bars draws groups of two bars, each with a line from the least to the greatest.
type bars struct {
	title  string
	names  [2]string
	groups []barGroup
}

type barGroup struct {
	name, note string
	at         [2]Spread
}

func (g bars) svg() template.HTML {
	most := 0.0
	for i := range g.groups {
		for k, s := range g.groups[i].at {
			g.groups[i].at[k] = Spread{drawable(s.Mean), drawable(s.Min), drawable(s.Max)}
		}
	}
	for _, gr := range g.groups {
		most = max(most, gr.at[0].Max, gr.at[1].Max)
	}
	if most == 0 {
		most = 1
	}
	step := niceStep(most)
	most = step * math.Ceil(most*1.05/step)
	y := func(v float64) float64 { return plotTop + plotDown*(1-v/most) }
	var b strings.Builder
	frame(&b, g.title, plotHeight+legendRow*2)
	for v := 0.0; v <= most*1.001; v += step {
		grid(&b, plotLeft, y(v), plotLeft+plotAcross, y(v))
		label(&b, plotLeft-8, y(v)+4, "end", "axis", number(v))
	}
	wide := plotAcross / float64(max(1, len(g.groups)))
	bar := min(40, wide*0.32)
	for i, gr := range g.groups {
		mid := plotLeft + wide*(float64(i)+0.5)
		for k, s := range gr.at {
			left := mid + float64(k-1)*bar
			fmt.Fprintf(&b, `<rect class="b%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, k, left+1, y(s.Mean), bar-2, max(0, y(0)-y(s.Mean)))
			fmt.Fprintf(&b, `<line class="whisker" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, left+bar/2, y(s.Min), left+bar/2, y(s.Max))
		}
		label(&b, mid, min(y(gr.at[0].Max), y(gr.at[1].Max))-5, "middle", "", gr.note)
		label(&b, mid, plotTop+plotDown+18, "middle", "axis", gr.name)
	}
	for k, name := range g.names {
		row := plotHeight + legendRow*float64(k)
		fmt.Fprintf(&b, `<rect class="b%d" x="%.0f" y="%.0f" width="20" height="10"/>`, k, plotLeft, row)
		label(&b, plotLeft+30, row+10, "start", "", name)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // every text in it was escaped
}
