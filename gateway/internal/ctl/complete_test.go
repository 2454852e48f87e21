package ctl

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

func offered(e expected) (words []string) {
	for _, c := range e.words {
		words = append(words, c.word)
	}
	return words
}

// Whatever the grammar has is offered, and nothing else: a walk over every verb and every flag of it.
func TestCompletionWalksTheGrammar(t *testing.T) {
	app := grammar(t).Model
	verbs, flags := 0, 0
	var walk func(node *kong.Node, path []string)
	walk = func(node *kong.Node, path []string) {
		at := func(words ...string) expected { return expect(app, slices.Concat(path, words)) }
		bare := at("")
		if len(node.Children) > 0 {
			var names []string
			for _, child := range node.Children {
				names = append(names, child.Name)
			}
			if got := offered(bare); !slices.Equal(got, names) {
				t.Errorf("%q offers %q, not %q", path, got, names)
			}
			for _, child := range node.Children {
				verbs++
				if got := at(child.Name[:1]); !slices.Contains(offered(got), child.Name) {
					t.Errorf("%q and %q offer %q, not %s", path, child.Name[:1], offered(got), child.Name)
				}
				walk(child, append(slices.Clone(path), child.Name))
			}
		}
		var names []string
		for _, group := range node.AllFlags(true) {
			for _, flag := range group {
				flags++
				name := "--" + flag.Name
				names = append(names, name)
				if flag.Tag.Negatable != "" {
					names = append(names, "--no-"+flag.Name)
				}
				if got := at(name[:len(name)-1]); !slices.Contains(offered(got), name) {
					t.Errorf("%q and %q offer %q, not %s", path, name[:len(name)-1], offered(got), name)
				}
				// What follows a flag is not taken for its value, nor its value for what follows.
				with := []string{name, ""}
				if !flag.IsBool() {
					with = []string{name, "7", ""}
					joined, apart := at(name+"="), at(name, "")
					if len(joined.words) != len(apart.words) || joined.what != apart.what {
						t.Errorf("%q expects %v behind %s= and %v behind it alone", path, joined, name, apart)
					}
					checkValue(t, node, flag.Value, apart)
				}
				if got := at(with...); !slices.Equal(got.words, bare.words) || got.what != bare.what {
					t.Errorf("%q expects %v behind %q, not %v", path, got, with, bare)
				}
			}
		}
		if got := offered(at("-")); !slices.Equal(got, names) {
			t.Errorf("%q offers the flags %q, not %q", path, got, names)
		}
		var before []string
		for _, argument := range node.Positional {
			checkValue(t, node, argument, at(append(before, "")...))
			before = append(before, "x")
		}
	}
	walk(app.Node, nil)
	if verbs < 25 || flags < 200 {
		t.Errorf("the walk met %d verbs and %d flags alone", verbs, flags)
	}
}

// checkValue refuses a value of files, folders or nodes that does not say so to shells.
func checkValue(t *testing.T, node *kong.Node, v *kong.Value, e expected) {
	t.Helper()
	name, placeholder := strings.ToUpper(v.Name), strings.ToUpper(v.Tag.PlaceHolder)
	want := e.what
	switch {
	case v.Enum != "":
		if !slices.Equal(offered(e), v.EnumSlice()) {
			t.Errorf("%s %s: %q are offered, not %s", node.FullPath(), v.Name, offered(e), v.Enum)
		}
	case placeholder == "DIR" || name == "DIR":
		want = completeFolder
	case placeholder == "FILE" || name == "FILE":
		want = completeFile
	case name == "NODE" || placeholder == "NODE":
		want = completeNode
	}
	if e.what != want || !slices.Contains([]string{completeFile, completeFolder, completeNode, completeNone}, e.what) {
		t.Errorf("%s %s: expects %s, not %s", node.FullPath(), v.Name, e.what, want)
	}
}

func TestExpect(t *testing.T) {
	for _, c := range []struct{ line, want, what string }{
		{"st", "status", completeNone},
		{"-o js", "json", completeNone},
		{"-o json sta", "status", completeNone},
		{"-ojson sta", "status", completeNone},
		{"status --output=t", "--output=table", completeNone},
		{"put --no-s", "--no-sloppy", completeNone},
		{"put --write-quorum=", "--write-quorum=one --write-quorum=quorum --write-quorum=all", completeNone},
		{"get -r a", "all", completeNone},
		{"get colour ", "", completeNone},
		{"cert n", "node", completeNone},
		{"replace node1 ", "", completeNode},
		{"replace node1 node2 ", "", completeNone},
		{"replace --dry-run ", "", completeNode},
		{"weight -- --out", "", completeNode},
		{"repair --node=", "", completeNode},
		{"backup --verify ", "", completeFolder},
		{"import ", "", completeFile},
		{"--ca ", "", completeFile},
		{"--nonsense sta", "status", completeNone},
		{"nonsense sta", "status", completeNone},
		{"__", "", completeNone},
	} {
		e := expect(grammar(t).Model, strings.Split(c.line, " "))
		if got := strings.Join(offered(e), " "); got != c.want || e.what != c.what {
			t.Errorf("%q: %q and %s, want %q and %s", c.line, got, e.what, c.want, c.what)
		}
	}
}

// What shells call is no command of the grammar, and is found all the same.
func TestCompleteIsReached(t *testing.T) {
	for _, args := range [][]string{{completeVerb, "--", "hot"}, {completeVerb, "hot"}} {
		if r := run(t, terminals{}, "", nil, args...); r.code != ExitOK || r.stdout != "hot\tList the keys that take the most requests.\n:none\n" || r.stderr != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if r := run(t, terminals{}, "", nil, completeVerb); r.code != ExitOK || !strings.HasPrefix(r.stdout, "status\t") {
		t.Errorf("%+v", r)
	}
}

// Names of nodes come from the gateway that the line names, and those that would mean something to a shell are left out.
func TestCompleteNodes(t *testing.T) {
	list := nodes()
	for _, name := range []string{"$(reboot)", "a b", "--wait", "node1`", ""} {
		list.Nodes = append(list.Nodes, &clusterv1.Node{Name: name})
	}
	url, got := gateway(t, canned{200, jsonType, serverJSON(t, list)})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--gateway", url, "decommission", "--wait", ""}, "node2\tfailed\nnode9\talive\nnode10\talive\n:none\n"},
		{[]string{"can-stop", "--gateway=" + url, "node1"}, "node10\talive\n:none\n"},
		{[]string{"repair", "--gateway", url, "--node=node9"}, "--node=node9\talive\n:none\n"},
		{[]string{"--gateway", url, "status", ""}, ":none\n"},
		{[]string{"--gateway", url, "--ca", "no such file", "weight", ""}, ":none\n"},
		{[]string{"--gateway", "http://127.0.0.1:1", "weight", ""}, ":none\n"},
	} {
		var stdout, stderr bytes.Buffer
		code := complete(t.Context(), Env{Args: append([]string{completeVerb, "--"}, c.args...), Stdout: &stdout, Stderr: &stderr,
			Getenv: func(string) string { return "" }}, time.Minute)
		if code != ExitOK || stdout.String() != c.want || stderr.Len() > 0 {
			t.Errorf("%q: code %d, %q and %q, want %q", c.args, code, stdout.String(), stderr.String(), c.want)
		}
	}
	if n := len(got()); n != 3 {
		t.Errorf("the gateway was asked %d times, want 3", n)
	}
}

// actAsProgram is the variable that makes the test's program dotringctl itself.
const actAsProgram = "DOTRINGCTL_ACT_AS_PROGRAM"

// asProgram runs the command line where the variable says so. It waits longer for names of nodes: this machine may be busy.
func asProgram() {
	if os.Getenv(actAsProgram) == "" {
		return
	}
	env := Env{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
	if env.Args[0] == completeVerb {
		os.Exit(complete(context.Background(), env, time.Minute))
	}
	os.Exit(Run(context.Background(), env))
}

// The scripts work in the shells that are installed; bash and fish are asked what they would offer.
func TestShells(t *testing.T) {
	url, _ := gateway(t, canned{200, jsonType, serverJSON(t, nodes())})
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err = os.Symlink(self, filepath.Join(dir, "dotringctl")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file.one", "file.two"} {
		if err = os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err = os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	shell := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), actAsProgram+"=1", "PATH="+dir+":"+os.Getenv("PATH"), "DOTRING_GATEWAY="+url, "HOME="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Fatalf("%s: %v\n%s%s", name, err, out, stderr.String())
		}
		return string(out)
	}
	cases := []struct {
		line, bash, fish string // what is offered, in order; bash breaks words at = and :
	}{
		{"dotringctl sta", "status", "status"},
		{"dotringctl cert ", "authority client gateway node", "authority client gateway node"},
		{"dotringctl status --out", "--output", "--output"},
		{"dotringctl status --output=", "json table", "--output=json --output=table"},
		{"dotringctl status --output=js", "json", "--output=json"},
		{"dotringctl can-stop ", "node10 node2 node9", "node10 node2 node9"},
		{"dotringctl --gateway " + url + " can-stop node1", "node10", "node10"},
		{"dotringctl repair --node=node9", "node9", "--node=node9"},
		{"dotringctl import f", "file.one file.two folder", "file.one file.two folder/"},
		{"dotringctl backup f", "folder", "folder/"},
		{"dotringctl token web --file=file.", "file.one file.two", "--file=file.one --file=file.two"},
		{"dotringctl get colour ", "", ""},
	}
	sorted := func(s string) string {
		var words []string
		for line := range strings.Lines(s) {
			word, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
			words = append(words, word)
		}
		slices.Sort(words)
		return strings.Join(words, " ")
	}
	t.Run("bash", func(t *testing.T) {
		// Readline breaks the line as COMP_WORDBREAKS says; here a loop does.
		const ask = `eval "$(dotringctl completion bash)"
COMP_LINE=$1 COMP_WORDS=() COMP_CWORD=0
for word in $1; do
	while [[ $word == *[=:]* ]]; do
		head=${word%%[=:]*}; rest=${word#"$head"}
		[[ $head ]] && COMP_WORDS+=("$head")
		COMP_WORDS+=("${rest:0:1}"); word=${rest:1}
	done
	[[ $word ]] && COMP_WORDS+=("$word")
done
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
_dotringctl
((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"`
		for _, c := range cases {
			if got := sorted(shell(t, "bash", "--norc", "-c", ask, "bash", c.line)); got != c.bash {
				t.Errorf("%q: %q, want %q", c.line, got, c.bash)
			}
		}
	})
	t.Run("fish", func(t *testing.T) {
		for _, c := range cases {
			if got := sorted(shell(t, "fish", "--no-config", "-c", "dotringctl completion fish | source; complete -C $argv[1]", c.line)); got != c.fish {
				t.Errorf("%q: %q, want %q", c.line, got, c.fish)
			}
		}
	})
	t.Run("zsh", func(t *testing.T) {
		if out := shell(t, "zsh", "-f", "-c", "autoload -U compinit && compinit -u -d $HOME/dump && source <(dotringctl completion zsh) && print $_comps[dotringctl]"); out != "_dotringctl\n" {
			t.Errorf("the script is not taken for the completion of dotringctl: %q", out)
		}
	})
}
