package load

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"

	"github.com/dotring/dotring/loadtest/report"
)

// SelfCPU is the CPU time that this process has used so far, user and system.
func SelfCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("load: own CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// Process is a process whose use of the machine is watched.
type Process struct {
	Name string
	PID  int
}

// userHZ is the unit of CPU time in /proc: 100 a second on every Linux that Go runs on.
const userHZ = 100

var errStat = errors.New("load: malformed /proc/PID/stat")

// parseStat reads CPU time and resident pages from the line in /proc/PID/stat. The name in it may hold any byte, so
// fields are counted from its last parenthesis.
func parseStat(b []byte) (cpu time.Duration, pages int64, err error) {
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 22 {
		return 0, 0, errStat
	}
	number := func(field int) int64 { // numbered as in proc(5)
		n, e := strconv.ParseInt(string(fields[field-3]), 10, 64)
		if e != nil || n < 0 || n > math.MaxInt64/int64(time.Second) {
			err = errStat
		}
		return n
	}
	ticks := number(14) + number(15)
	pages = number(24)
	if err != nil {
		return 0, 0, err
	}
	return time.Duration(ticks) * (time.Second / userHZ), pages, nil
}

// Usages reads what processes have used so far. Where /proc does not exist, it fails.
func Usages(procs []Process) ([]report.Usage, error) {
	out := make([]report.Usage, 0, len(procs))
	for _, p := range procs {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			return nil, fmt.Errorf("load: use of %s: %w", p.Name, err)
		}
		cpu, pages, err := parseStat(b)
		if err != nil {
			return nil, fmt.Errorf("load: use of %s: %w", p.Name, err)
		}
		out = append(out, report.Usage{Name: p.Name, CPUS: cpu.Seconds(), RSSBytes: pages * int64(os.Getpagesize())})
	}
	return out, nil
}

// Since takes the CPU time of before from that of after; memory is that of after.
func Since(before, after []report.Usage) []report.Usage {
	out := make([]report.Usage, 0, len(after))
	for i, u := range after {
		if i < len(before) {
			u.CPUS -= before[i].CPUS
		}
		out = append(out, u)
	}
	return out
}

const schedMetric = "/sched/latencies:seconds"

// schedLatency reads how long goroutines were ready before they ran, since the process began.
func schedLatency() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: schedMetric}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindFloat64Histogram {
		return nil
	}
	return s[0].Value.Float64Histogram()
}

// schedP99 is the 99th percentile of what came between two readings, in microseconds; the upper end of its bucket.
func schedP99(before, after *metrics.Float64Histogram) int64 {
	if before == nil || after == nil || len(before.Counts) != len(after.Counts) {
		return 0
	}
	total := uint64(0)
	for i := range after.Counts {
		total += after.Counts[i] - before.Counts[i]
	}
	seen := uint64(0)
	for i := range after.Counts {
		seen += after.Counts[i] - before.Counts[i]
		if total > 0 && float64(seen) >= 0.99*float64(total) {
			end := after.Buckets[i+1]
			if math.IsInf(end, 1) {
				end = after.Buckets[i]
			}
			return int64(end * 1e6)
		}
	}
	return 0
}
