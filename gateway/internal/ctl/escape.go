package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is stored, and what a server says, may hold anything, also sequences that make a terminal do things, or letters
// that make a line look like another. All of it is shown through one of the functions of this file.

// quote returns b in quotes, with all that cannot be printed escaped as Go does it.
func quote(b []byte) string { return strconv.Quote(string(b)) }

// plain says whether s can be shown as it is, on one line.
func plain(s string) bool {
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// escapeText returns s for one cell or line: itself where it is plain, else with what cannot be printed escaped.
func escapeText(s string) string {
	if plain(s) {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// escapeLines is escapeText for a text of several lines.
func escapeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = escapeText(l)
	}
	return strings.Join(lines, "\n")
}

// preview returns the first limit bytes of b in quotes, and whether that is not all of it. A rune is not cut in two.
func preview(b []byte, limit int) (text string, cut bool) {
	if len(b) <= limit {
		return quote(b), false
	}
	end := limit
	for back := range utf8.UTFMax {
		if limit-back > 0 && utf8.RuneStart(b[limit-back]) {
			end = limit - back
			break
		}
	}
	return quote(b[:end]), true
}

// forTerminal returns a value as a terminal may see it, and whether that differs from what is stored: control characters
// other than tabs and line ends, invisible ones other than spaces, and what is not UTF-8 are escaped.
func forTerminal(value []byte) (string, bool) {
	var b strings.Builder
	escaped := false
	for len(value) > 0 {
		r, n := utf8.DecodeRune(value)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, value[0])
			escaped = true
		case r == '\n', r == '\t', strconv.IsPrint(r), unicode.Is(unicode.Zs, r):
			b.WriteRune(r)
		case r == '\r' && bytes.HasPrefix(value, []byte("\r\n")):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
			escaped = true
		}
		value = value[n:]
	}
	return b.String(), escaped
}

// tidyJSON returns JSON indented, with a line end, and with all that cannot be printed escaped.
func tidyJSON(in []byte) (string, error) {
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.Trim(in, " \t\r\n"), "", "  "); err != nil {
		return "", fmt.Errorf("parse JSON: %w", err)
	}
	return escapeJSON(indented.String()) + "\n", nil
}

// lineJSON is tidyJSON on one line.
func lineJSON(in []byte) (string, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, in); err != nil {
		return "", fmt.Errorf("parse JSON: %w", err)
	}
	return escapeJSON(compact.String()) + "\n", nil
}

// escapeJSON escapes what is in JSON, other than line ends, and cannot be printed. What is not UTF-8 becomes U+FFFD.
func escapeJSON(in string) string {
	var b strings.Builder
	for _, r := range in {
		switch {
		case r == '\n' || strconv.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
