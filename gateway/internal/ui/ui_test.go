package ui_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/dotring/dotring/gateway/internal/ui"
)

var (
	reference = regexp.MustCompile(`(?:src=|href=|from )"([^"#]+)"`)
	outside   = regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]+[^\s"]*`)
	inline    = regexp.MustCompile(`(?i)<style|<script>|\sstyle=|\son[a-z]+=`)
)

// faults returns what a browser would not load, or must not.
func faults(files map[string]ui.File) (out []string) {
	for name, f := range files {
		text := string(f.Body)
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			if _, ok := files[strings.TrimPrefix(m[1], "./")]; !ok {
				out = append(out, name+" refers to "+m[1]+", which is not there")
			}
		}
		for _, m := range outside.FindAllString(text, -1) {
			if m != "http://www.w3.org/2000/svg" { // the name of a vocabulary, which nobody fetches
				out = append(out, name+" refers to "+m+", which is outside")
			}
		}
		if strings.HasSuffix(name, ".html") && inline.MatchString(text) {
			out = append(out, name+" has code or style in it, which the policy forbids")
		}
	}
	return out
}

func load(t *testing.T) map[string]ui.File {
	t.Helper()
	files, err := ui.Load()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestFilesAreWhole holds the files to needing nothing but each other.
func TestFilesAreWhole(t *testing.T) {
	files := load(t)
	for _, f := range faults(files) {
		t.Error(f)
	}
	for name, f := range files {
		if len(f.Body) == 0 || f.Type == "" || len(f.ETag) != 34 {
			t.Errorf("%s: %d bytes of %s, tag %s", name, len(f.Body), f.Type, f.ETag)
		}
	}
}

func TestFaultsAreFound(t *testing.T) {
	for name, body := range map[string]string{
		"missing part":  `<script type="module" src="gone.js"></script>`,
		"outside":       `<link rel="stylesheet" href="https://cdn.example.org/x.css">`,
		"code in it":    `<script>alert(1)</script>`,
		"handler in it": `<p onclick="x()">`,
	} {
		files := load(t)
		files[ui.Index] = ui.File{Body: []byte(body)}
		if len(faults(files)) == 0 {
			t.Errorf("%s: no complaint", name)
		}
	}
}

// TestDocumentKeepsWhatItSays reads a document back.
func TestDocumentKeepsWhatItSays(t *testing.T) {
	f, err := ui.Document([]byte("paths:\n  /a:\n    get: { responses: { '200': { description: \"it's\" } } }\n"))
	if want := `{"paths":{"/a":{"get":{"responses":{"200":{"description":"it's"}}}}}}`; err != nil || string(f.Body) != want || len(f.ETag) != 34 {
		t.Errorf("%s, tag %s, %v", f.Body, f.ETag, err)
	}
	if _, err := ui.Document([]byte("a: [")); err == nil {
		t.Error("a damaged document is taken")
	}
}
