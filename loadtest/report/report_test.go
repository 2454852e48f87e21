package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func sampleRun(label string) Run {
	lat := Latency{Count: 1000, MeanUS: 1234.5, MinUS: 100, P50US: 1000, P75US: 1500, P90US: 2000, P95US: 3000, P99US: 9000, P999US: 20_000,
		P9999: 30_000, MaxUS: 40_000, Curve: []Share{{0, 100}, {0.5, 1000}, {0.9, 2000}, {0.99, 9000}, {0.999, 20_000}, {1, 40_000}}}
	return Run{
		Label: label, Target: "dotring-http", Addresses: []string{"127.0.0.1:8080"},
		Workload:    Workload{Name: "a", Mix: map[string]float64{"get": 0.5, "put": 0.5}, Distribution: "zipfian", Records: 10_000, KeySize: 24, ValueSize: 1024},
		Connections: 64, Rate: 3000, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), WarmUpS: 2, ElapsedS: 10, Throughput: 2999.5, All: lat,
		Ops:       []OpStats{{Op: "get", Counts: map[string]uint64{"ok": 500, "refused": 3}, Latency: lat}, {Op: "put", Counts: map[string]uint64{"ok": 500}, Latency: lat}},
		NotDone:   Latency{Count: 3, MaxUS: 5},
		Series:    []Point{{1, 3000, 0, 5000}, {2, 2800, 3, 40_000}, {3, 3100, 0, 4000}},
		Generator: Generator{CPUS: 3, CPUShare: 0.15, SchedP99US: 300, LagP99US: 900, LagMaxUS: 2000, LateShare: 0.01},
		Servers:   []Usage{{"gateway1", 3, 50 << 20}, {"node1", 2.5, 120 << 20}},
		Errors:    []ErrorCount{{"broken <pipe>", 3}}, Valid: true, Warnings: []string{"3 operations were not done"},
	}
}

func sampleDocument() Document {
	turn := func(x float64) Turn {
		return Turn{Throughput: x, P50US: 900, P99US: 9000, ServerCPU: 200, GenCPU: 0.1, Valid: true}
	}
	return Document{
		Version: Version, Title: "Load <1>", Machine: Machine{2, "linux", "amd64", "go1.26"}, Runs: []Run{sampleRun("one"), sampleRun("two & a half")},
		Comparison: &Comparison{A: "dotring", B: "etcd", Rounds: 2, Cells: []Cell{{"put", 64, []Turn{turn(4000), turn(4400)}, []Turn{turn(2000), turn(2000)}}},
			Syncs: []Syncs{{"etcd", 500, 1000}}, Notes: []string{"a note"}},
		Floor: &Floor{ValueSize: 1024, Connections: 64, Parts: []Part{{"http put", "bare", 20, 50_000}}, Notes: []string{"of costs"},
			Operations: []Operation{{Name: "put", Cluster: 120, Rate: 5000, Needs: []Need{{"http put", 1, 20}, {"frames", 3, 40}}, ByProcess: []Usage{{"node1", 1, 1}}, Valid: true}}},
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "r.json")
	want := sampleDocument()
	for range 2 { // also over an older file
		if err := WriteFile(path, want.Write); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadFile(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\n%+v", err, got, want)
	}
	broken := errors.New("half-way")
	if err := WriteFile(path, func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if again, err := ReadFile(path); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("a failed write has spoilt the file: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestReadRefuses(t *testing.T) {
	for _, bad := range []string{"", "{}", `{"version":2}`, `{"version":1,"surprise":1}`, "[]", `{"version":1,"runs":[{"rate":"x"}]}`} {
		if _, err := Read(strings.NewReader(bad)); !errors.Is(err, errDocument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := sampleDocument().Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"version":1,"runs":[{"series":[{"at_s":-1e300,"done":1e308}],"all":{"curve":[{"q":7,"us":-5}]}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := Read(bytes.NewReader(raw))
		if err != nil {
			return
		}
		var page bytes.Buffer
		if err := WriteHTML(&page, d); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, page.Bytes())
	})
}

// wellFormed looks at the page's plots, which are XML.
func wellFormed(t *testing.T, page []byte) (plots int) {
	t.Helper()
	for rest := page; ; plots++ {
		from := bytes.Index(rest, []byte("<svg"))
		if from < 0 {
			return plots
		}
		to := bytes.Index(rest[from:], []byte("</svg>"))
		if to < 0 {
			t.Fatal("a plot without an end")
		}
		svg := rest[from : from+to+len("</svg>")]
		rest = rest[from+to:]
		if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
			t.Fatalf("a plot of no number: %s", svg)
		}
		for dec := xml.NewDecoder(bytes.NewReader(svg)); ; {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
		}
	}
}

func TestPage(t *testing.T) {
	other := sampleDocument()
	other.Runs[0].Label = "earlier"
	var b bytes.Buffer
	if err := WriteHTML(&b, sampleDocument(), other); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if n := wellFormed(t, b.Bytes()); n != 5 {
		t.Errorf("%d plots, want three of the runs and one for each comparison", n)
	}
	for _, part := range []string{"Load &lt;1&gt;", "two &amp; a half", "earlier", "broken &lt;pipe&gt;", "prefers-color-scheme:dark", "×2.10", "0.50", "ratio 2.00", "of costs"} {
		if !strings.Contains(page, part) {
			t.Errorf("%q is not on the page", part)
		}
	}
	for _, part := range []string{"<script", "src=", "href=", "@import", "url("} {
		if strings.Contains(page, part) {
			t.Errorf("%q on a page that needs nothing else", part)
		}
	}
	for _, empty := range []Document{{}, {Runs: []Run{{}}}, {Comparison: &Comparison{}}, {Comparison: &Comparison{Cells: []Cell{{}}}}, {Floor: &Floor{Operations: []Operation{{}}}}} {
		b.Reset()
		if err := WriteHTML(&b, empty); err != nil {
			t.Errorf("%+v: %v", empty, err)
		}
		wellFormed(t, b.Bytes())
	}
	if WriteHTML(io.Discard) == nil {
		t.Error("a page of nothing")
	}
}

func TestText(t *testing.T) {
	d := sampleDocument()
	d.Runs[0].Faults, d.Floor.Operations[0].Valid = []string{"saturated"}, false
	var b bytes.Buffer
	for _, err := range []error{d.Runs[0].Text(&b), d.Comparison.Text(&b), d.Floor.Text(&b)} {
		if err != nil {
			t.Error(err)
		}
	}
	for _, part := range []string{"NOT VALID: saturated", "start lag", "2.10 (2.00–2.20)", "500 fsyncs for 1000 acknowledged puts, 0.50 each", "its parts 60.0 µs, ratio 2.00  NOT VALID", "ok 500, refused 3"} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("%q is not in\n%s", part, b.String())
		}
	}
}

func TestCellValid(t *testing.T) {
	ok, bad := Turn{Valid: true}, Turn{}
	for want, cells := range map[bool][]Cell{
		true:  {{A: []Turn{ok}, B: []Turn{ok}}},
		false: {{}, {A: []Turn{ok}}, {A: []Turn{ok}, B: []Turn{bad}}, {A: []Turn{bad}, B: []Turn{ok}}},
	} {
		for _, c := range cells {
			if c.Valid() != want {
				t.Errorf("%+v: %v", c, !want)
			}
		}
	}
}

// The mean of ratios is the inverse of the mean of inverses, and lies between the least and the greatest.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Float64Range(1e-3, 1e3), 1, 8).Draw(t, "ratios")
		var inverse []float64
		for _, x := range xs {
			inverse = append(inverse, 1/x)
		}
		s, r := SpreadOf(xs), SpreadOf(inverse)
		if math.Abs(s.Mean*r.Mean-1) > 1e-9 || s.Mean < s.Min*(1-1e-9) || s.Mean > s.Max*(1+1e-9) {
			t.Fatalf("%+v and %+v of %v", s, r, xs)
		}
	})
	if s := SpreadOf(nil); s != (Spread{}) {
		t.Errorf("%+v of nothing", s)
	}
	if s := SpreadOf([]float64{0, 4}); s != (Spread{0, 0, 4}) {
		t.Errorf("%+v", s)
	}
}

func TestTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := math.Pow(10, rapid.Float64Range(-5, 9).Draw(t, "magnitude"))
		if n := limit / niceStep(limit); n < 1.9 || n > ticks*1.01 {
			t.Fatalf("%v steps up to %v", n, limit)
		}
	})
}
