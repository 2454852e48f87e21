package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/dotring/dotring/loadtest/load"
	"github.com/dotring/dotring/loadtest/report"
	"github.com/dotring/dotring/loadtest/target"
	"github.com/dotring/dotring/loadtest/workload"
)

// outputs are where results go besides the terminal.
type outputs struct {
	JSON string   `help:"Write the results to this file." type:"path"`
	HTML string   `name:"html" help:"Write a page with plots to this file." type:"path"`
	With []string `help:"JSON results of earlier runs, shown on the page beside this one." type:"existingfile"`
}

type runCommand struct {
	Target      string        `default:"dotring-http" enum:"dotring-http,dotring-grpc,etcd-json,riak-http,redis" help:"What to load: ${enum}."`
	Address     []string      `default:"127.0.0.1:8080" help:"host:port of each gateway or server; connections are dealt out to them in turn."`
	Workload    string        `default:"mix" enum:"a,b,c,d,f,mix" help:"YCSB core workload, or a plain mix of gets and puts: ${enum}."`
	Gets        float64       `default:"0.5" help:"Share of gets in the plain mix, 0 to 1."`
	Keys        string        `default:"" enum:"uniform,zipfian,latest,steep," help:"Distribution of keys; the workload's own, or uniform for the mix, where not given."`
	Records     uint64        `default:"10000" help:"How many records exist before the run."`
	KeySize     int           `default:"24" help:"Length of keys in bytes, 8 to 250."`
	ValueSize   int           `default:"1024" help:"Length of values in bytes."`
	Fields      int           `default:"0" help:"With --field-size: values are that many fields, as YCSB has them (10 of 100 bytes there)."`
	FieldSize   int           `default:"100" help:"Length of a field in bytes."`
	Connections int           `short:"c" default:"64" help:"Workers, each with a connection and one operation at a time."`
	Rate        float64       `default:"0" help:"Operations a second of an open loop, with latency counted from when each was due; 0 is a closed loop."`
	WarmUp      time.Duration `default:"2s" help:"Time before the measured part."`
	Duration    time.Duration `short:"d" default:"10s" help:"Length of the measured part; 0 with --operations alone."`
	Operations  int64         `short:"n" default:"0" help:"End after so many measured operations."`
	GiveUp      time.Duration `default:"0" help:"How long an operation of an open loop waits for a free connection before it is given up; 0: to the end."`
	Timeout     time.Duration `default:"5s" help:"Bound of each operation."`
	Seed        uint64        `default:"1" help:"Of keys, values and the order of operations."`
	Fill        bool          `default:"true" negatable:"" help:"Write all records first."`
	Query       string        `default:"" help:"Added to every URL of dotring-http, such as r=1&w=3."`
	Bucket      string        `default:"load" help:"Riak's bucket."`
	MaxCPU      float64       `name:"max-cpu" default:"0.5" help:"Share of the machine above which the generator counts as saturated, and the run as not valid."`
	MaxLag      time.Duration `default:"5ms" help:"How late an open loop may begin one in a hundred operations though a connection is free; beyond, the run is not valid."`
	Label       string        `default:"" help:"Name of the run in results."`
	outputs
}

var errNotValid = errors.New("the run is not valid")

// Run loads and measures, and prints what was measured also when it was interrupted.
func (c *runCommand) Run(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	earlier, err := c.earlier()
	if err != nil {
		return err
	}
	tgt, err := target.New(target.Config{Kind: c.Target, Addresses: c.Address, Bucket: c.Bucket, Query: c.Query})
	if err != nil {
		return err
	}
	cfg := load.Default()
	cfg.Connections, cfg.Rate, cfg.WarmUp, cfg.Duration, cfg.Operations = c.Connections, c.Rate, c.WarmUp, c.Duration, c.Operations
	cfg.Timeout, cfg.GiveUp, cfg.Seed, cfg.MaxCPUShare, cfg.MaxLag = c.Timeout, c.GiveUp, c.Seed, c.MaxCPU, c.MaxLag
	screen := newProgress(os.Stderr)
	cfg.Progress = screen.show
	run, err := c.measure(ctx, cfg, spec, tgt, screen)
	if err = errors.Join(err, tgt.Close()); err != nil {
		return err
	}
	run.Addresses, run.Label = c.Address, c.label()
	if err := run.Text(os.Stdout); err != nil {
		return err
	}
	doc := report.Document{Title: "Load: " + run.Label, Machine: machine(), Runs: []report.Run{run}}
	if err := c.write(doc, earlier); err != nil {
		return err
	}
	if !run.Valid {
		return errNotValid
	}
	return nil
}

func (c *runCommand) measure(ctx context.Context, cfg load.Config, spec workload.Spec, tgt target.Target, screen *progress) (report.Run, error) {
	shared, err := workload.NewShared(spec)
	if err != nil {
		return report.Run{}, err
	}
	if c.Fill {
		_, err := load.Fill(ctx, cfg, spec, tgt, screen.filling)
		screen.clear()
		if err != nil {
			return report.Run{}, fmt.Errorf("write the records: %w", err)
		}
	}
	run, err := load.Run(ctx, cfg, shared, tgt)
	screen.clear()
	return run, err
}

func (c *runCommand) spec() (workload.Spec, error) {
	s := workload.Spec{Name: c.Workload, Mix: workload.Plain(c.Gets), Records: c.Records, KeySize: c.KeySize, ValueSize: c.ValueSize}
	if c.Fields > 0 {
		s.ValueSize = c.Fields * c.FieldSize
	}
	var err error
	if c.Workload != "mix" {
		if s.Mix, s.Distribution, err = workload.YCSB(c.Workload); err != nil {
			return s, err
		}
	}
	if c.Keys != "" {
		if s.Distribution, err = workload.ParseDistribution(c.Keys); err != nil {
			return s, err
		}
	}
	return s, s.Validate()
}

func (c *runCommand) label() string {
	if c.Label != "" {
		return c.Label
	}
	return fmt.Sprintf("%s %s c%d", c.Target, c.Workload, c.Connections)
}

// earlier reads the results that are shown beside the new ones.
func (o outputs) earlier() ([]report.Document, error) {
	var docs []report.Document
	for _, path := range o.With {
		d, err := report.ReadFile(path)
		if err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	return docs, nil
}

// write writes the files that were asked for.
func (o outputs) write(doc report.Document, earlier []report.Document) error {
	var errs []error
	if o.JSON != "" {
		errs = append(errs, report.WriteFile(o.JSON, doc.Write))
	}
	if o.HTML != "" {
		all := append([]report.Document{doc}, earlier...)
		errs = append(errs, report.WriteFile(o.HTML, func(w io.Writer) error { return report.WriteHTML(w, all...) }))
	}
	return errors.Join(errs...)
}

func machine() report.Machine {
	return report.Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version()}
}

// progress writes one line that is written over on a terminal; elsewhere it writes a line every ten calls.
type progress struct {
	out      *os.File
	terminal bool
	calls    int
	prefix   string
}

func newProgress(out *os.File) *progress {
	info, err := out.Stat()
	return &progress{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (p *progress) line(text string) {
	p.calls++
	text = p.prefix + text
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
	case p.calls%10 == 0:
		fmt.Fprintln(p.out, text)
	}
}

// clear makes room for results.
func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func (p *progress) filling(done, of uint64) {
	p.line(fmt.Sprintf("writing records: %d of %d", done, of))
}

func (p *progress) show(s load.Progress) {
	if s.At < 0 {
		p.line("warming up")
		return
	}
	var b strings.Builder
	if s.Of > 0 {
		share := min(1, s.At.Seconds()/s.Of.Seconds())
		full := int(share * 20)
		fmt.Fprintf(&b, "[%s%s] ", strings.Repeat("=", full), strings.Repeat(" ", 20-full))
	}
	fmt.Fprintf(&b, "%3.0f s  %8.0f ops/s", s.At.Seconds(), s.Done)
	if s.NotDone > 0 {
		fmt.Fprintf(&b, "  %.0f not done/s", s.NotDone)
	}
	fmt.Fprintf(&b, "  longest %v", s.Max.Round(100*time.Microsecond))
	p.line(b.String())
}
