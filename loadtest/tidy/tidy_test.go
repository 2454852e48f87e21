// Package tidy holds the rules of the house as tests.
package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/dotring/dotring/"

// cores decide and do nothing else: no socket, disk, clock or goroutine.
var cores = []string{"ringsvc/ring", "ringsvc/planner", "ringsvc/causal", "ringsvc/record", "ringsvc/phi", "gateway/quorum", "gateway/limit"}

// source is one parsed Go file.
type source struct {
	path string // from the root of the repository, with slashes
	file *ast.File
}

func (s source) dir() string  { return filepath.ToSlash(filepath.Dir(s.path)) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			out = append(out, p)
		}
	}
	return out
}

var fset = token.NewFileSet()

// sources parses every Go file of the repository that a person wrote.
func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var out []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && strings.HasPrefix(d.Name(), ".") || rel == "proto/gen" || d.Name() == "testdata" || d.Name() == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, rel, src, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, source{rel, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 40 {
		t.Fatalf("only %d files found", len(out))
	}
	return out
}

// call reports whether n is a call or mention of pkg.name.
func call(n ast.Node, pkg string, names ...string) bool {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg && slices.Contains(names, sel.Sel.Name)
}

func at(n ast.Node) string { return fset.Position(n.Pos()).String() }

// rule looks at all sources and returns what is wrong with them.
type rule func([]source) []string

var rules = map[string]rule{
	"cores do no I/O":            coresDoNoIO,
	"tiers do not meet":          tiersDoNotMeet,
	"no sleep in tests":          noSleepInTests,
	"no context made below main": noBackgroundContext,
	"packages say what they are": packagesSayWhatTheyAre,
}

func TestRules(t *testing.T) {
	all := sources(t)
	for name, r := range rules {
		t.Run(name, func(t *testing.T) {
			for _, fault := range r(all) {
				t.Error(fault)
			}
		})
	}
	seen := map[string]bool{}
	for _, s := range all {
		seen[s.dir()] = true
	}
	for _, c := range cores {
		if !seen[c] {
			t.Errorf("the core %s has no files: the rules look at nothing", c)
		}
	}
}

// Each rule finds the fault it is there for, and not its innocent neighbour.
func TestRulesCanFail(t *testing.T) {
	cases := []struct {
		rule, path, src string
		faults          int
	}{
		{"cores do no I/O", "ringsvc/ring/a.go", `package ring; import "net"; var _ net.Conn`, 1},
		{"cores do no I/O", "ringsvc/ring/a.go", `package ring; import "google.golang.org/grpc"; var _ grpc.Codec`, 1},
		{"cores do no I/O", "ringsvc/ring/a.go", `package ring; import "github.com/dotring/dotring/storagenode/kv"; var _ kv.Store`, 1},
		{"cores do no I/O", "ringsvc/phi/a.go", `package phi; import "time"; var now = time.Now()`, 1},
		{"cores do no I/O", "ringsvc/phi/a.go", `package phi; import "math/rand/v2"; var x = rand.IntN(3)`, 1},
		{"cores do no I/O", "ringsvc/phi/a.go", `package phi; func f() { go f() }`, 1},
		{"cores do no I/O", "ringsvc/phi/a.go", `package phi; import "time"; const second = time.Second`, 0},
		{"cores do no I/O", "ringsvc/membership/a.go", `package membership; import "net"; var _ net.Conn`, 0},
		{"tiers do not meet", "gateway/a/a.go", `package a; import _ "github.com/dotring/dotring/storagenode/kv"`, 1},
		{"tiers do not meet", "storagenode/a/a.go", `package a; import _ "github.com/dotring/dotring/gateway/quorum"`, 1},
		{"tiers do not meet", "gateway/a/a.go", `package a; import _ "github.com/dotring/dotring/ringsvc/ring"`, 0},
		{"no sleep in tests", "x/a_test.go", `package x; import "time"; func f() { time.Sleep(1) }`, 1},
		{"no sleep in tests", "x/a_test.go", `package x; func f(t *testing.T) { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }`, 0},
		{"no sleep in tests", "x/a_test.go", `package x; func g() { time.Sleep(1) }; func f(t *testing.T) { synctest.Test(t, func(t *testing.T) { g() }) }`, 0},
		{"no sleep in tests", "x/a_test.go", `package x; func g() { time.Sleep(1) }; func h() { g() }; func f(t *testing.T) { synctest.Test(t, func(t *testing.T) { g() }) }`, 1},
		{"no sleep in tests", "x/a.go", `package x; import "time"; func f() { time.Sleep(1) }`, 0},
		{"no context made below main", "x/a.go", `package x; import "context"; var c = context.Background()`, 1},
		{"no context made below main", "x/cmd/y/a.go", `package main; import "context"; var c = context.Background()`, 0},
		{"packages say what they are", "x/a.go", `package x`, 1},
		{"packages say what they are", "x/a.go", "// Package x is.\npackage x", 0},
	}
	for _, c := range cases {
		f, err := parser.ParseFile(fset, c.path, c.src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if got := rules[c.rule]([]source{{c.path, f}}); len(got) != c.faults {
			t.Errorf("%s, %s: %q: found %q, want %d faults", c.rule, c.path, c.src, got, c.faults)
		}
	}
}

func coresDoNoIO(all []source) (faults []string) {
	for _, s := range all {
		if s.isTest() || !slices.Contains(cores, s.dir()) {
			continue
		}
		for _, p := range s.imports() {
			if !pureImport(p) {
				faults = append(faults, s.path+" imports "+p)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch {
			case call(n, "time", "Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"):
				faults = append(faults, at(n)+": a core reads the clock")
			case call(n, "rand", "Int", "IntN", "Uint64", "Float64", "Read", "Shuffle", "Perm", "Uint32", "Int64"):
				faults = append(faults, at(n)+": a core draws from global randomness")
			}
			if g, ok := n.(*ast.GoStmt); ok {
				faults = append(faults, at(g)+": a core starts a goroutine")
			}
			return true
		})
	}
	return faults
}

// pureImport tells what a core may import: other cores, a hash, and of the standard library what does no I/O.
func pureImport(p string) bool {
	if own, ok := strings.CutPrefix(p, module); ok {
		return slices.Contains(cores, own)
	}
	first, _, _ := strings.Cut(p, "/")
	if strings.Contains(first, ".") {
		return p == "github.com/zeebo/xxh3"
	}
	return !slices.Contains([]string{"net", "os", "syscall", "database", "log", "plugin", "embed", "testing"}, first) && p != "io/fs" && p != "io/ioutil"
}

func tiersDoNotMeet(all []source) (faults []string) {
	forbidden := map[string][]string{
		"gateway/":     {"storagenode", "loadtest"},
		"storagenode/": {"gateway", "loadtest", "openapi"},
		"ringsvc/":     {"gateway", "storagenode", "loadtest", "openapi", "proto"},
		"proto/":       {"gateway", "storagenode", "loadtest", "openapi", "ringsvc"},
	}
	for _, s := range all {
		for prefix, others := range forbidden {
			if !strings.HasPrefix(s.path, prefix) {
				continue
			}
			for _, p := range s.imports() {
				own, ok := strings.CutPrefix(p, module)
				first, _, _ := strings.Cut(own, "/")
				if ok && slices.Contains(others, first) {
					faults = append(faults, s.path+" imports "+p)
				}
			}
		}
	}
	return faults
}

// noSleepInTests: a test that sleeps waits too long or not long enough. Within synctest the clock is the test's own; a
// helper counts as within when all its callers are.
func noSleepInTests(all []source) (faults []string) {
	dirs := map[string]*sleepers{}
	for _, s := range all {
		if !s.isTest() {
			continue
		}
		d := dirs[s.dir()]
		if d == nil {
			d = &sleepers{starters: starters(all, s.dir()), callers: map[string][]string{}, sleeps: map[string][]string{}}
			dirs[s.dir()] = d
		}
		for _, decl := range s.file.Decls {
			name := ""
			if f, ok := decl.(*ast.FuncDecl); ok {
				name = f.Name.Name
			}
			d.walk(decl, name)
		}
	}
	for _, d := range dirs {
		for name, places := range d.sleeps {
			if name != bubble && !d.inBubble(name, map[string]bool{}) {
				for _, p := range places {
					faults = append(faults, p+": time.Sleep in a test outside synctest")
				}
			}
		}
	}
	slices.Sort(faults)
	return faults
}

// bubble stands for the body of a synctest.Test, beside the names of functions.
const bubble = "(bubble)"

// sleepers is who calls whom, and who sleeps, in one folder's tests.
type sleepers struct {
	starters []string
	callers  map[string][]string
	sleeps   map[string][]string
}

// starters are the functions of a folder's tests that run a function they are given in a bubble.
func starters(all []source, dir string) (names []string) {
	for _, s := range all {
		if !s.isTest() || s.dir() != dir {
			continue
		}
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			takesFunc := slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool { _, is := p.Type.(*ast.FuncType); return is })
			ast.Inspect(f, func(n ast.Node) bool {
				if takesFunc && call(n, "synctest", "Test") {
					names = append(names, f.Name.Name)
				}
				return true
			})
		}
	}
	return names
}

func (d *sleepers) walk(n ast.Node, within string) {
	ast.Inspect(n, func(m ast.Node) bool {
		if m == nil || m == n {
			return true
		}
		if call(m, "time", "Sleep") {
			d.sleeps[within] = append(d.sleeps[within], at(m))
		}
		switch x := m.(type) {
		case *ast.CallExpr:
			id, ok := x.Fun.(*ast.Ident)
			if call(x.Fun, "synctest", "Test") || ok && slices.Contains(d.starters, id.Name) {
				d.walk(x, bubble)
				return false
			}
		case *ast.Ident:
			d.callers[x.Name] = append(d.callers[x.Name], within)
		}
		return true
	})
}

// inBubble tells whether every mention of a function is in a bubble or in a function that only bubbles mention.
func (d *sleepers) inBubble(name string, above map[string]bool) bool {
	outside := 0
	for _, by := range d.callers[name] {
		if by == bubble || by == name || above[by] {
			continue
		}
		above[name] = true
		if !d.inBubble(by, above) {
			return false
		}
		outside++
	}
	return outside > 0 || slices.Contains(d.callers[name], bubble)
}

// noBackgroundContext: below main a context comes from the caller, so that everything ends when it does.
func noBackgroundContext(all []source) (faults []string) {
	for _, s := range all {
		if s.isTest() || strings.Contains(s.path, "/cmd/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call(n, "context", "Background", "TODO") {
				faults = append(faults, at(n)+": a context made below main")
			}
			return true
		})
	}
	return faults
}

func packagesSayWhatTheyAre(all []source) (faults []string) {
	said := map[string]bool{}
	for _, s := range all {
		said[s.dir()] = said[s.dir()] || s.file.Doc != nil
	}
	for dir, ok := range said {
		if !ok {
			faults = append(faults, dir+": no package comment")
		}
	}
	return faults
}
