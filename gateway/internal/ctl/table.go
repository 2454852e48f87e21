package ctl

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// style is the parameter of an SGR escape sequence; empty for none.
type style string

const (
	plainStyle style = ""
	good       style = "32"
	doubtful   style = "33"
	bad        style = "31"
	heading    style = "1"
	faint      style = "2"
)

// palette colours text where it is on.
type palette struct{ on bool }

func (p palette) paint(s style, text string) string {
	if !p.on || s == plainStyle || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// cell is one field of a table. Its text has no line ends and nothing that cannot be printed.
type cell struct {
	text  string
	style style
	right bool // aligned to the right
}

func text(s string) cell               { return cell{text: escapeText(s)} }
func styled(s string, st style) cell   { return cell{text: escapeText(s), style: st} }
func number(format string, n any) cell { return cell{text: fmt.Sprintf(format, n), right: true} }
func headings(names ...string) []cell  { return cells(heading, names) }
func cells(st style, in []string) []cell {
	out := make([]cell, len(in))
	for i, s := range in {
		out[i] = styled(s, st)
	}
	return out
}

// table is rows of cells; a row may be shorter than others.
type table [][]cell

// render returns the rows in columns, two spaces apart, without spaces at the end of lines. Colour takes no width.
func (t table) render(p palette, indent string) string {
	var widths []int
	for _, row := range t {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], displayWidth(c.text))
		}
	}
	var b strings.Builder
	for _, row := range t {
		last := len(row) - 1
		for last >= 0 && row[last].text == "" {
			last--
		}
		b.WriteString(indent)
		for i, c := range row[:last+1] {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-displayWidth(c.text))
			if c.right {
				b.WriteString(pad)
			}
			b.WriteString(p.paint(c.style, c.text))
			if !c.right && i < last {
				b.WriteString(pad)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// displayWidth returns how many columns of a terminal s takes: two for wide letters, none for those that combine.
func displayWidth(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r < 0x7f:
			n++
		case unicode.In(r, unicode.Mn, unicode.Me):
		default:
			n++
			if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
				n++
			}
		}
	}
	return n
}

// byteSize returns a number of bytes for people.
func byteSize(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB"} {
		if f /= 1024; f < 1024 {
			return fmt.Sprintf("%.1f %s", f, unit)
		}
	}
	return fmt.Sprintf("%.1f TiB", f/1024)
}

// plural returns "1 sibling", "2 siblings".
func plural[N int | uint32 | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
