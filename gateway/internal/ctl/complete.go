package ctl

import (
	"context"
	"embed"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// Shells ask the program itself what may come next, so what they offer is the grammar of the very program that is installed:
//
//	dotringctl __complete -- WORD…   (the words after the program's name, up to the cursor; the last may be empty)
//
// prints one candidate a line, behind a tab what it is, and last a line that begins with a colon: what else may stand there.

// completeVerb is the hidden verb that shells ask.
const completeVerb = "__complete"

// completeTime is how long a shell may wait for names of nodes.
const completeTime = time.Second

// What else than the candidates may stand at the cursor. Fields of commands carry the first three, or words between commas, in a
// tag `complete`.
const (
	completeFile   = "file"
	completeFolder = "directory"
	completeNode   = "node"
	completeNone   = "none"
)

//go:embed completion
var completionScripts embed.FS

type completionCommand struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

// Help is shown by --help.
func (completionCommand) Help() string {
	return `The script asks dotringctl what may come next: verbs, flags, their values, and names of nodes, for which it asks the ` +
		`gateway, at most one second.

` + examples(`source <(dotringctl completion bash)    # in ~/.bashrc`,
		`dotringctl completion zsh > "${fpath[1]}/_dotringctl"`,
		`dotringctl completion fish > ~/.config/fish/completions/dotringctl.fish`)
}

// Run prints the script.
func (c completionCommand) Run(s *session) error {
	text, err := completionScripts.ReadFile("completion/" + c.Shell)
	if err != nil {
		return fmt.Errorf("find the script: %w", err)
	}
	return s.print(string(text))
}

// candidate is a word that may stand at the cursor, and what it is.
type candidate struct{ word, help string }

// expected is what may stand at the cursor.
type expected struct {
	words  []candidate // that begin as the word at the cursor does
	what   string      // completeFile, completeFolder, completeNode or completeNone
	before string      // what the word at the cursor begins with before a name of what, as --node= does
	global []string    // the flags of every command so far, with their values
}

// expect walks the grammar along words and says what may stand in place of the last of them.
func expect(app *kong.Application, words []string) expected {
	if len(words) == 0 {
		words = []string{""}
	}
	words, at := words[:len(words)-1], words[len(words)-1]
	e := expected{what: completeNone}
	node, position, onlyArguments := app.Node, 0, false
	var open *kong.Flag // whose value the next word is
	for _, w := range words {
		switch name, _, valued := strings.Cut(w, "="); {
		case open != nil:
			if ofEveryCommand(app, open) {
				e.global = append(e.global, w)
			}
			open = nil
		case onlyArguments:
			position++
		case w == "--":
			onlyArguments = true
		case strings.HasPrefix(w, "-") && w != "-":
			flag := flagNamed(node, name)
			if flag == nil {
				continue
			}
			if !valued && !flag.IsBool() && (strings.HasPrefix(w, "--") || len(w) == 2) { // -ojson has its value with it
				open = flag
			}
			if ofEveryCommand(app, flag) && !flag.IsBool() {
				e.global = append(e.global, w)
			}
		default:
			i := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == w || slices.Contains(n.Aliases, w) })
			if i >= 0 {
				node = node.Children[i]
			} else {
				position++
			}
		}
	}
	name, _, valued := strings.Cut(at, "=")
	switch {
	case open != nil:
		e.value(open.Value, "", at)
	case !onlyArguments && valued && strings.HasPrefix(at, "--"):
		if flag := flagNamed(node, name); flag != nil {
			e.value(flag.Value, name+"=", at)
		}
	case !onlyArguments && strings.HasPrefix(at, "-"):
		for _, group := range node.AllFlags(true) {
			for _, flag := range group {
				e.add(at, "--"+flag.Name, flag.Help)
				if flag.Tag.Negatable != "" {
					e.add(at, "--no-"+flag.Name, "Not: "+flag.Help)
				}
			}
		}
	case len(node.Children) > 0:
		for _, child := range node.Children {
			if !child.Hidden {
				e.add(at, child.Name, child.Help)
			}
		}
	case position < len(node.Positional):
		e.value(node.Positional[position], "", at)
	}
	return e
}

// value expects a value, behind before.
func (e *expected) value(v *kong.Value, before, at string) {
	if v.Enum != "" {
		for _, word := range v.EnumSlice() {
			e.add(at, before+word, "")
		}
		return
	}
	switch what := v.Tag.Get("complete"); {
	case strings.Contains(what, ","): // words, among others
		for word := range strings.SplitSeq(what, ",") {
			e.add(at, before+word, "")
		}
	case what != "":
		e.what, e.before = what, before
	}
}

// add adds a word where it begins as the one at the cursor does.
func (e *expected) add(at, word, help string) {
	if strings.HasPrefix(word, at) {
		e.words = append(e.words, candidate{word, help})
	}
}

// text is what the shells read.
func (e *expected) text() string {
	var b strings.Builder
	for _, c := range e.words {
		b.WriteString(c.word)
		if c.help != "" {
			b.WriteString("\t" + escapeText(c.help))
		}
		b.WriteByte('\n')
	}
	what := e.what
	if what == completeNode {
		what = completeNone // they are among the candidates
	}
	return b.String() + ":" + what + "\n"
}

func flagNamed(node *kong.Node, word string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if word == "--"+flag.Name || flag.Tag.Negatable != "" && word == "--no-"+flag.Name ||
				flag.Short != 0 && !strings.HasPrefix(word, "--") && strings.HasPrefix(word, "-"+string(flag.Short)) {
				return flag
			}
		}
	}
	return nil
}

func ofEveryCommand(app *kong.Application, flag *kong.Flag) bool {
	return slices.Contains(app.Flags, flag)
}

// complete answers a shell. Whoever presses a key wants no errors between what is typed: where something is wrong there is
// nothing to offer. A gateway that is asked has wait to answer.
func complete(ctx context.Context, env Env, wait time.Duration) int {
	var cmd commands
	parser, err := newParser(&cmd, env)
	if err != nil {
		return ExitError
	}
	words := env.Args[1:]
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	at := ""
	if len(words) > 0 {
		at = words[len(words)-1]
	}
	e := expect(parser.Model, words)
	s := &session{env: env}
	if e.what == completeNode {
		for _, n := range s.nodesToComplete(ctx, e.global, wait) {
			if safeInShell(n.GetName()) {
				e.add(at, e.before+n.GetName(), n.GetStatus())
			}
		}
	}
	if s.print(e.text()) != nil {
		return ExitError
	}
	return ExitOK
}

// nodesToComplete asks the gateway that the flags of every command name.
func (s *session) nodesToComplete(ctx context.Context, global []string, wait time.Duration) []*clusterv1.Node {
	var cmd commands
	parser, err := newParser(&cmd, s.env)
	if err != nil {
		return nil
	}
	if _, err = parser.Parse(append(slices.Clone(global), "nodes")); err != nil || s.configure(&cmd.options) != nil {
		return nil
	}
	var list clusterv1.ListNodesResponse
	if _, err = s.fetch(ctx, s.client, call{method: http.MethodGet, path: "/v1/cluster/nodes", wait: wait}, &list); err != nil {
		return nil
	}
	slices.SortStableFunc(list.Nodes, func(a, b *clusterv1.Node) int { return compareNames(a.Name, b.Name) })
	return list.Nodes
}

// safeInShell says whether a name means nothing to a shell, as names of nodes do: what answers may be no gateway.
func safeInShell(name string) bool {
	const letters = "-.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return name != "" && name[0] != '-' && strings.Trim(name, letters) == ""
}
