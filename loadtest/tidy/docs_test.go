package tidy

import (
	"go/ast"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// pages are the documents that people begin with.
var pages = []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md"}

// root is the repository's folder, as the tests of this package see it.
var root = filepath.Join("..", "..")

// Every relative link of the pages points to a file that exists, and to a heading that it has.
func TestLinks(t *testing.T) {
	for _, page := range pages {
		for _, fault := range badLinks(page, readPage(t, page)) {
			t.Errorf("%s: %s", page, fault)
		}
	}
}

// Every name in backticks in ARCHITECTURE.md exists: packages, files, functions, types, flags, make targets, statuses.
func TestArchitectureNamesExist(t *testing.T) {
	text := readPage(t, "ARCHITECTURE.md")
	names := namesOf(t, sources(t))
	spans := spansOf(text)
	if len(spans) < 200 {
		t.Fatalf("only %d names found", len(spans))
	}
	for _, span := range spans {
		if fault := names.check(span); fault != "" {
			t.Errorf("ARCHITECTURE.md: `%s`: %s", span, fault)
		}
	}
}

// Every package of the product has its place in ARCHITECTURE.md.
func TestArchitectureNamesPackages(t *testing.T) {
	text := readPage(t, "ARCHITECTURE.md")
	for _, s := range sources(t) {
		if top, _, _ := strings.Cut(s.path, "/"); s.isTest() || top == "loadtest" {
			continue // the tools are described as a whole
		}
		if !strings.Contains(text, "`"+s.dir()+"`") {
			t.Errorf("%s is not described", s.dir())
		}
	}
}

// The checks find what they are there for.
func TestDocumentChecksCanFail(t *testing.T) {
	names := namesOf(t, sources(t))
	for span, bad := range map[string]bool{
		"ring.SlotOf": false, "ring.View.Merge": false, "kv.committer.fail": false, "wire.Outbox": false, "engine.Engine": false,
		"engine.Engine.Apply": false, "causal.Sibling.Dot": false, "causal.MaxToken": false, "enginetest.Run": false,
		"ring.SlotFor": true, "ring.View.Frobnicate": true, "kv.fail": true, "nowhere.Thing": true,
		"ringsvc/ring": false, "loadtest/e2e": false, ".ci/run": false, "proto/gen": false, "ringsvc/rings": true, "gateway/nodeclient/no.go": true,
		"STATUS_FENCED": false, "STATUS_FRIED": true, "make test": false, "make tea": true,
		"--sync always": false, "--max-value-bytes": false, "--http-addr": false, "--colour": true,
		"go test ./ringsvc/... ./gateway/quorum": false, "go test ./rings/...": true, "Kv-Context": false, "/v1/kv/{key}": false,
	} {
		if got := names.check(span) != ""; got != bad {
			t.Errorf("`%s`: found bad %v, want %v", span, got, bad)
		}
	}
	for text, faults := range map[string]int{
		"[a](README.md)": 0, "[a](ARCHITECTURE.md#limits)": 0, "[a](https://example.org/x)": 0, "# One two\n[a](#one-two)": 0,
		"[a](NOWHERE.md)": 1, "[a](ARCHITECTURE.md#nowhere)": 1, "[a](#nowhere)": 1, "[a](proto) [b](protos)": 1,
	} {
		if got := badLinks("page.md", text); len(got) != faults {
			t.Errorf("%q: found %q, want %d faults", text, got, faults)
		}
	}
	if got := spansOf("a `b` c\n```\n`d`\n```\n`e`"); !slices.Equal(got, []string{"b", "e"}) {
		t.Errorf("names %q", got)
	}
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func badLinks(page, text string) (faults []string) {
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		target, heading, _ := strings.Cut(m[1], "#")
		if strings.Contains(target, "://") {
			continue
		}
		in := text
		if target != "" && target != page {
			path := filepath.Join(root, filepath.FromSlash(target))
			info, err := os.Stat(path)
			if err != nil {
				faults = append(faults, "the link to "+m[1]+" leads nowhere")
				continue
			}
			if heading == "" || info.IsDir() {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				faults = append(faults, err.Error())
				continue
			}
			in = string(b)
		}
		if heading != "" && !slices.Contains(headings(in), heading) {
			faults = append(faults, "the link to "+m[1]+" names no heading")
		}
	}
	return faults
}

// headings returns the anchors of a page's headings, as the usual viewers spell them.
func headings(text string) (anchors []string) {
	for _, line := range strings.Split(text, "\n") {
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		anchors = append(anchors, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title)))
	}
	return anchors
}

var (
	fence = regexp.MustCompile("(?ms)^```.*?^```")
	span  = regexp.MustCompile("`([^`\n]+)`")
)

// spansOf returns what stands in backticks, outside of fenced blocks.
func spansOf(text string) (spans []string) {
	for _, m := range span.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		spans = append(spans, m[1])
	}
	return spans
}

// names is what documents may speak of.
type names struct {
	packages map[string]map[string]bool // by package: Func, Type, Type.Method, Type.Field, Const
	tops     map[string]bool            // files and folders of the root
	flags    map[string]bool
	targets  map[string]bool
	proto    string
}

func namesOf(t *testing.T, all []source) *names {
	t.Helper()
	n := &names{packages: map[string]map[string]bool{}, tops: map[string]bool{}, flags: map[string]bool{}, targets: map[string]bool{}}
	for _, s := range all {
		if s.isTest() {
			continue
		}
		in := n.packages[s.file.Name.Name]
		if in == nil {
			in = map[string]bool{}
			n.packages[s.file.Name.Name] = in
		}
		for _, d := range s.file.Decls {
			n.declare(in, d)
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n.tops[e.Name()] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(readPage(t, "Makefile"), -1) {
		n.targets[m[1]] = true
	}
	for _, f := range []string{"storage", "kv", "cluster"} {
		n.proto += readPage(t, filepath.Join("proto", f, "v1", f+".proto"))
	}
	return n
}

func (n *names) declare(in map[string]bool, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			in[d.Name.Name] = true
			return
		}
		in[receiver(d.Recv.List[0].Type)+"."+d.Name.Name] = true
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, id := range spec.Names {
					in[id.Name] = true
				}
			case *ast.TypeSpec:
				in[spec.Name.Name] = true
				n.members(in, spec)
			}
		}
	}
}

// members declares the fields of a struct and the methods of an interface.
func (n *names) members(in map[string]bool, spec *ast.TypeSpec) {
	var fields *ast.FieldList
	switch x := spec.Type.(type) {
	case *ast.StructType:
		fields = x.Fields
	case *ast.InterfaceType:
		fields = x.Methods
	default:
		return
	}
	for _, f := range fields.List {
		for _, id := range f.Names {
			in[spec.Name.Name+"."+id.Name] = true
			if spec.Name.Name == "flags" || spec.Name.Name == "options" || strings.HasSuffix(spec.Name.Name, "Command") {
				n.flags[flagName(id.Name, f.Tag)] = true
			}
		}
	}
}

// flagName is what the command line calls a field: its name tag, or its name with dashes.
func flagName(field string, tag *ast.BasicLit) string {
	if tag != nil {
		if text, err := strconv.Unquote(tag.Value); err == nil {
			if name := reflect.StructTag(text).Get("name"); name != "" {
				return name
			}
		}
	}
	var b strings.Builder
	for i, r := range field {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

var (
	dotted  = regexp.MustCompile(`^([a-z]\w*)\.([A-Za-z]\w*(\.[A-Za-z]\w*)?)$`)
	shouted = regexp.MustCompile(`^[A-Z]+_[A-Z_]+$`)
)

// check says what is wrong with a name; empty for what exists, and for what is no name of this repository's.
func (n *names) check(s string) string {
	first, _, _ := strings.Cut(s, "/")
	words := strings.Fields(s)
	switch m := dotted.FindStringSubmatch(s); {
	case n.tops[s]:
		return ""
	case m != nil:
		switch in := n.packages[m[1]]; {
		case in == nil:
			return "no package has this name"
		case !in[m[2]]:
			return "the package has no such name"
		}
	case shouted.MatchString(s):
		if !strings.Contains(n.proto, s) {
			return "no .proto file has this name"
		}
	case strings.HasPrefix(s, "--"):
		if name, _, _ := strings.Cut(words[0][2:], "="); !n.flags[name] {
			return "no program has this flag"
		}
	case words[0] == "make":
		if len(words) > 1 && !n.targets[words[1]] {
			return "the Makefile has no such target"
		}
	case words[0] == "go" || strings.HasPrefix(s, "./"):
		for _, w := range words {
			if strings.HasPrefix(w, "./") && !exists(strings.TrimSuffix(w, "/...")) {
				return w + " does not exist"
			}
		}
	case n.tops[first] && len(words) == 1 && !exists(s):
		return "this path does not exist"
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(root, filepath.FromSlash(path)))
	return err == nil
}
