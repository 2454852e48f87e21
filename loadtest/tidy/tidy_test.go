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
var cores = []string{"ringsvc/ring", "ringsvc/causal", "ringsvc/record", "ringsvc/phi", "gateway/quorum"}

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
		f, err := parser.ParseFile(fset, rel, src, 0)
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

func TestCoresDoNoIO(t *testing.T) {
	allowed := func(p string) bool {
		if own, ok := strings.CutPrefix(p, module); ok {
			return slices.Contains(cores, own)
		}
		if strings.Contains(p, ".") {
			return p == "github.com/zeebo/xxh3"
		}
		first, _, _ := strings.Cut(p, "/")
		return !slices.Contains([]string{"net", "os", "syscall", "database", "log", "plugin", "embed"}, first) && p != "io/fs" && p != "io/ioutil" && p != "sync/errgroup"
	}
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest() || !slices.Contains(cores, s.dir()) {
			continue
		}
		seen[s.dir()] = true
		for _, p := range s.imports() {
			if !allowed(p) {
				t.Errorf("%s imports %s", s.path, p)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch {
			case call(n, "time", "Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"):
				t.Errorf("%s: a core reads the clock", at(n))
			case call(n, "rand", "Int", "IntN", "Uint64", "Float64", "Read", "Shuffle", "Perm", "Uint32", "Int64"):
				if id := n.(*ast.SelectorExpr).X.(*ast.Ident); id.Obj == nil { // the package, not a variable of that name
					t.Errorf("%s: a core draws from global randomness", at(n))
				}
			}
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a core starts a goroutine", at(g))
			}
			return true
		})
	}
	if len(seen) != len(cores) {
		t.Errorf("of the cores %v only %v have files", cores, seen)
	}
}

func TestTiersDoNotMeet(t *testing.T) {
	forbidden := map[string][]string{
		"gateway/":     {"storagenode", "loadtest"},
		"storagenode/": {"gateway", "loadtest", "openapi"},
		"ringsvc/":     {"gateway", "storagenode", "loadtest", "openapi", "proto"},
		"proto/":       {"gateway", "storagenode", "loadtest", "openapi", "ringsvc"},
	}
	for _, s := range sources(t) {
		for prefix, others := range forbidden {
			if !strings.HasPrefix(s.path, prefix) {
				continue
			}
			for _, p := range s.imports() {
				own, ok := strings.CutPrefix(p, module)
				first, _, _ := strings.Cut(own, "/")
				if ok && slices.Contains(others, first) {
					t.Errorf("%s imports %s", s.path, p)
				}
			}
		}
	}
}

// A test that sleeps waits too long or not long enough. Within synctest the clock is the test's own.
func TestNoSleepInTests(t *testing.T) {
	for _, s := range sources(t) {
		if !s.isTest() {
			continue
		}
		var walk func(n ast.Node, bubble bool)
		walk = func(n ast.Node, bubble bool) {
			ast.Inspect(n, func(m ast.Node) bool {
				if m == nil || m == n {
					return true
				}
				if c, ok := m.(*ast.CallExpr); ok && call(c.Fun, "synctest", "Test") {
					walk(c, true)
					return false
				}
				if call(m, "time", "Sleep") && !bubble {
					t.Errorf("%s: time.Sleep in a test outside synctest", at(m))
				}
				return true
			})
		}
		walk(s.file, false)
	}
}

// Below main a context comes from the caller, so that everything ends when it does.
func TestNoBackgroundContext(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() || strings.Contains(s.path, "/cmd/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call(n, "context", "Background", "TODO") {
				t.Errorf("%s: a context made below main", at(n))
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	doc := map[string]bool{}
	for _, s := range sources(t) {
		path := filepath.Join("..", "..", filepath.FromSlash(s.path))
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		doc[s.dir()] = doc[s.dir()] || f.Doc != nil
	}
	for dir, ok := range doc {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}
