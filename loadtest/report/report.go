// Package report holds what a load run, a comparison and a floor measured: as JSON that later runs can be compared with,
// as text, and as one self-contained HTML page with plots.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Version of the JSON. A reader refuses others.
const Version = 1

// maxFile bounds what Read takes, in bytes.
const maxFile = 64 << 20

// Document is what one invocation measured. At least one part is set.
type Document struct {
	Version    int         `json:"version"`
	Title      string      `json:"title"`
	Machine    Machine     `json:"machine"`
	Runs       []Run       `json:"runs,omitempty"`
	Comparison *Comparison `json:"comparison,omitempty"`
	Floor      *Floor      `json:"floor,omitempty"`
}

// Machine is where it was measured.
type Machine struct {
	CPUs int    `json:"cpus"`
	OS   string `json:"os"`
	Arch string `json:"arch"`
	Go   string `json:"go"`
}

// Run is one run of one workload against one target. Durations are in the units that the names tell.
type Run struct {
	Label       string    `json:"label"`
	Target      string    `json:"target"`
	Addresses   []string  `json:"addresses"`
	Workload    Workload  `json:"workload"`
	Connections int       `json:"connections"`
	Rate        float64   `json:"rate"` // operations a second asked for; 0 is a closed loop
	Started     time.Time `json:"started"`
	WarmUpS     float64   `json:"warm_up_s"`
	ElapsedS    float64   `json:"elapsed_s"` // the measured part
	// Throughput is the operations a second that were done: neither refused nor failed.
	Throughput float64 `json:"throughput"`
	// All are the latencies of what was done; of Ops each by itself.
	All Latency   `json:"all"`
	Ops []OpStats `json:"ops"`
	// NotDone are the latencies of what was refused, failed, or never started.
	NotDone   Latency      `json:"not_done"`
	Series    []Point      `json:"series"`
	Generator Generator    `json:"generator"`
	Servers   []Usage      `json:"servers,omitempty"`
	Errors    []ErrorCount `json:"errors,omitempty"`
	// Valid says that the run may be quoted; Faults say why not.
	Valid       bool     `json:"valid"`
	Faults      []string `json:"faults,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
	Interrupted bool     `json:"interrupted,omitempty"`
}

// Workload is what was asked.
type Workload struct {
	Name         string             `json:"name"`
	Mix          map[string]float64 `json:"mix"`
	Distribution string             `json:"distribution"`
	Records      uint64             `json:"records"`
	KeySize      int                `json:"key_size"`
	ValueSize    int                `json:"value_size"`
}

// OpStats are the results of one kind of operation.
type OpStats struct {
	Op      string            `json:"op"`
	Counts  map[string]uint64 `json:"counts"`
	Latency Latency           `json:"latency"`
}

// Latency sums up a histogram, in microseconds, to three digits. In an open loop it counts from the moment an operation
// was due.
type Latency struct {
	Count  int64   `json:"count"`
	MeanUS float64 `json:"mean_us"`
	MinUS  int64   `json:"min_us"`
	P50US  int64   `json:"p50_us"`
	P75US  int64   `json:"p75_us"`
	P90US  int64   `json:"p90_us"`
	P95US  int64   `json:"p95_us"`
	P99US  int64   `json:"p99_us"`
	P999US int64   `json:"p999_us"`
	P9999  int64   `json:"p9999_us"`
	MaxUS  int64   `json:"max_us"`
	Curve  []Share `json:"curve,omitempty"`
}

// Share says that a share of the operations took at most so many microseconds.
type Share struct {
	Q  float64 `json:"q"` // 0 to 1
	US int64   `json:"us"`
}

// Point is one interval of a run.
type Point struct {
	AtS     float64 `json:"at_s"` // its end, from the start of the measured part
	Done    float64 `json:"done"` // operations a second
	NotDone float64 `json:"not_done"`
	MaxUS   int64   `json:"max_us"` // the longest latency of what ended in it
}

// Generator tells how hard the generator itself worked.
type Generator struct {
	CPUS float64 `json:"cpu_s"`
	// CPUShare is of all the machine's processors, 0 to 1.
	CPUShare float64 `json:"cpu_share"`
	// SchedP99US is the time that its goroutines were ready but did not run, by Go's scheduler alone.
	SchedP99US int64 `json:"sched_p99_us"`
	// LagP99US and LagMaxUS tell how late, in an open loop, it began operations for which a connection was free.
	LagP99US int64 `json:"lag_p99_us"`
	LagMaxUS int64 `json:"lag_max_us"`
	// LateShare is the share of an open loop's operations that had to wait because every connection was in use.
	LateShare float64 `json:"late_share"`
	// Abandoned operations of an open loop were due but never started.
	Abandoned int64 `json:"abandoned"`
}

// Usage is what a server process used during the measured part.
type Usage struct {
	Name     string  `json:"name"`
	CPUS     float64 `json:"cpu_s"`
	RSSBytes int64   `json:"rss_bytes"`
}

// ErrorCount is an error's text and how often it came. At most MaxErrors are told apart.
type ErrorCount struct {
	Text  string `json:"text"`
	Count uint64 `json:"count"`
}

// MaxErrors bounds the errors of a Run.
const MaxErrors = 10

// ServerCPU is the CPU time of all servers for each operation done, in microseconds; 0 where unknown.
func (r Run) ServerCPU() float64 {
	sum := 0.0
	for _, s := range r.Servers {
		sum += s.CPUS
	}
	ops := r.Throughput * r.ElapsedS
	if ops == 0 {
		return 0
	}
	return sum * 1e6 / ops
}

var errDocument = errors.New("report: not a result of dotring-load")

// Write writes a document as JSON.
func (d Document) Write(w io.Writer) error {
	d.Version = Version
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	if err := enc.Encode(d); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Read reads what Write wrote. Errors: one of reading, or that it is not such a document, or of another version.
func Read(r io.Reader) (Document, error) {
	var d Document
	dec := json.NewDecoder(io.LimitReader(r, maxFile))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Document{}, fmt.Errorf("%w: %w", errDocument, err)
	}
	if d.Version != Version {
		return Document{}, fmt.Errorf("%w: version %d, this program knows %d", errDocument, d.Version, Version)
	}
	return d, nil
}

// ReadFile reads a document.
func ReadFile(path string) (d Document, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Document{}, fmt.Errorf("report: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if d, err = Read(f); err != nil {
		return Document{}, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// WriteFile replaces a file by what write writes, whole or not at all, and makes the folder it lies in.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	f, err := os.CreateTemp(dir, ".report-*")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
