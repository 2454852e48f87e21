package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/workload"
)

func parse(t *testing.T, args ...string) (commands, error) {
	t.Helper()
	var cli commands
	p, err := kong.New(&cli)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Parse(args)
	return cli, err
}

func TestRunFlags(t *testing.T) {
	cli, err := parse(t, "run", "--workload", "d", "--fields", "10", "--field-size", "50", "-c", "9", "--address", "a:1,b:2")
	if err != nil {
		t.Fatal(err)
	}
	s, err := cli.Run.spec()
	if err != nil || s.ValueSize != 500 || s.Distribution != workload.Latest || s.Mix[workload.Insert] != 0.05 || cli.Run.Connections != 9 || len(cli.Run.Address) != 2 {
		t.Errorf("%+v %+v %v", s, cli.Run, err)
	}
	if got := cli.Run.label(); got != "dotring-http d c9" {
		t.Errorf("label %q", got)
	}
	if cli, err = parse(t, "run", "--gets", "0.9", "--keys", "zipfian"); err != nil {
		t.Fatal(err)
	}
	if s, err = cli.Run.spec(); err != nil || s.Distribution != workload.Zipfian || s.Mix[workload.Read] != 0.9 {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range [][]string{{"run", "--workload", "e"}, {"run", "--target", "mysql"}, {"compare", "--workloads", "scan"}, {"floor-serve", "--part", "x", "--addr", "a:1"}} {
		if _, err := parse(t, bad...); err == nil {
			t.Errorf("%v accepted", bad)
		}
	}
	if cli, err = parse(t, "run", "--gets", "1.5"); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Run.spec(); err == nil {
		t.Error("one and a half of gets accepted")
	}
}

func TestOutputsAreWrittenAndReadAgain(t *testing.T) {
	dir := t.TempDir()
	o := outputs{JSON: filepath.Join(dir, "a", "r.json"), HTML: filepath.Join(dir, "r.html")}
	doc := report.Document{Title: "t", Machine: machine(), Runs: []report.Run{{Label: "first"}}}
	if err := o.write(doc, nil); err != nil {
		t.Fatal(err)
	}
	o.With = []string{o.JSON}
	earlier, err := o.earlier()
	if err != nil {
		t.Fatal(err)
	}
	doc.Runs[0].Label = "second"
	if err := o.write(doc, earlier); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(o.HTML)
	if err != nil || !strings.Contains(string(page), "first") || !strings.Contains(string(page), "second") {
		t.Errorf("%v: the page lacks a run", err)
	}
	o.With = []string{o.HTML}
	if _, err := o.earlier(); err == nil {
		t.Error("a page was read as results")
	}
}

// Where output is no terminal, progress is a line now and then, without control characters.
func TestProgressIntoAFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	p := newProgress(f)
	for i := range 25 {
		p.show(load.Progress{At: time.Duration(i) * time.Second, Of: 10 * time.Second, Done: 100, NotDone: 1})
	}
	p.filling(1, 2)
	p.clear()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil || strings.Count(string(b), "\n") != 2 || strings.ContainsAny(string(b), "\r\x1b") {
		t.Errorf("%v: %q", err, b)
	}
}
