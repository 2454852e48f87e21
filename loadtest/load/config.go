// Package load runs a workload against a target, in a closed or an open loop, and measures it without leaving out what
// a slow target kept waiting.
package load

import (
	"errors"
	"fmt"
	"time"
)

// Bounds of a Config.
const (
	MaxConnections = 65_536
	MaxRate        = 10_000_000
	MaxDuration    = 48 * time.Hour
)

// Config describes how to load.
type Config struct {
	// Connections is how many workers there are, each with one connection and one operation at a time.
	Connections int
	// Rate is the operations a second of an open loop, in which each operation is due at a fixed moment whatever became
	// of those before it, and its latency counts from then. 0 is a closed loop: each worker starts the next operation
	// when its last has ended.
	Rate float64
	// WarmUp comes before the measured part, and counts for nothing.
	WarmUp time.Duration
	// Duration of the measured part; 0 for none but that of Operations.
	Duration time.Duration
	// Operations is how many are measured; 0 for as many as Duration lets.
	Operations int64
	// GiveUp is how long an operation of an open loop that is due waits for a free connection before it is given up, as
	// clients do that are many and do not queue; 0: until the end of the run, so that a slow target delays all behind it.
	GiveUp time.Duration
	// Timeout bounds each operation.
	Timeout time.Duration
	// Seed makes the choices of operations, keys and values.
	Seed uint64
	// Every is the length of an interval in the series, and of the progress.
	Every time.Duration
	// MaxCPUShare is the share of the machine above which the generator counts as saturated, and MaxLag how late it may
	// begin one in a hundred operations of an open loop for which a connection is free.
	MaxCPUShare float64
	MaxLag      time.Duration
	// Servers are watched during the measured part.
	Servers []Process
	// Progress, where set, is told of every interval.
	Progress func(Progress)
}

// Progress is how a run stands.
type Progress struct {
	At      time.Duration // into the measured part; negative while warming up
	Of      time.Duration // its length; 0 where only operations are counted
	Done    float64       // operations a second, in the last interval
	NotDone float64
	Max     time.Duration // the longest latency in the last interval
	Total   int64         // measured operations so far
}

// Default is a closed loop over 64 connections for ten seconds.
func Default() Config {
	return Config{Connections: 64, WarmUp: 2 * time.Second, Duration: 10 * time.Second, Timeout: 5 * time.Second, Every: time.Second,
		Seed: 1, MaxCPUShare: 0.5, MaxLag: 5 * time.Millisecond}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(c.Connections >= 1 && c.Connections <= MaxConnections, "connections: %d is not between 1 and %d", c.Connections, MaxConnections)
	check(c.Rate >= 0 && c.Rate <= MaxRate, "rate: %v is not between 0 and %d", c.Rate, MaxRate)
	check(c.WarmUp >= 0 && c.WarmUp <= MaxDuration, "warm-up: %v is not between 0 and %v", c.WarmUp, MaxDuration)
	check(c.Duration >= 0 && c.Duration <= MaxDuration, "duration: %v is not between 0 and %v", c.Duration, MaxDuration)
	check(c.Operations >= 0, "operations: %d is negative", c.Operations)
	check(c.Duration > 0 || c.Operations > 0, "neither a duration nor a number of operations ends the run")
	check(c.Timeout >= time.Millisecond && c.Timeout <= maxLatency, "timeout: %v is not between 1ms and %v", c.Timeout, maxLatency)
	check(c.GiveUp >= 0 && c.GiveUp <= MaxDuration, "give up: %v is not between 0 and %v", c.GiveUp, MaxDuration)
	check(c.Every >= 10*time.Millisecond, "interval: %v is below 10ms", c.Every)
	check(c.MaxCPUShare > 0 && c.MaxCPUShare <= 1, "largest CPU share: %v is not above 0 and at most 1", c.MaxCPUShare)
	check(c.MaxLag > 0, "largest lag: %v is not positive", c.MaxLag)
	return errors.Join(faults...)
}
