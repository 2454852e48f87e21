package ctl

import (
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// grammar is the parser of the command line, writing nowhere.
func grammar(t testing.TB) *kong.Kong {
	t.Helper()
	parser, err := newParser(&commands{}, Env{Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// shellWords splits a line of a shell as far as examples go: quotes, comments, and what ends a command.
func shellWords(line string) (words []string) {
	var word strings.Builder
	var quote rune
	inWord := false
	end := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ':
			end()
		case strings.ContainsRune("|&<>;)", r) || r == '#' && !inWord:
			end()
			return words
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	end()
	return words
}

// Every verb shows in its help how it is used, with lines that can be typed as they stand.
func TestEveryVerbHasExamples(t *testing.T) {
	leaves := grammar(t).Model.Leaves(true)
	if len(leaves) < 20 {
		t.Fatalf("only %d verbs were found", len(leaves))
	}
	for _, leaf := range leaves {
		_, lines, found := strings.Cut(leaf.Detail, "Examples:\n\n")
		if !found {
			t.Errorf("%s: the help has no examples", leaf.FullPath())
			continue
		}
		own := false
		for line := range strings.Lines(lines) {
			_, args, found := strings.Cut(line, "dotringctl ")
			if !found {
				continue
			}
			parse, err := grammar(t).Parse(shellWords(strings.TrimSpace(args)))
			switch {
			case err != nil:
				t.Errorf("%s: the example %q cannot be typed: %v", leaf.FullPath(), strings.TrimSpace(line), err)
			case parse.Selected().FullPath() == leaf.FullPath():
				own = true
			}
		}
		if !own {
			t.Errorf("%s: no example shows it:\n%s", leaf.FullPath(), lines)
		}
	}
}
