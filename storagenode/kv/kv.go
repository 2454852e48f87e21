// Package kv is the node's store: the one local write path over an engine, with minting and group commit.
//
// Every write of a node ends here, whether a client's, a hint, a repair or a transfer. A write is merged under its
// key's lock with the newest record, which may not be on disk yet, and queued. One goroutine takes whatever is queued,
// writes it as one batch with one sync, and then calls back. Reads see only what was committed.
//
// The store never claims to have seen what it forgot. Each opening of the engine has an actor of its own, and any
// failed write is treated as a crash: all that was in flight is answered ErrInDoubt and forgotten, the engine is
// reopened, and the actor is new.
package kv

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/hints"
)

var (
	// ErrNotFound says that no record of the key, or no such piece of node state, is durable. It is never returned for
	// what could not be read.
	ErrNotFound = engine.ErrNotFound
	// ErrBehind refuses a mint whose context names a dot that the local clock does not cover; nothing was done.
	ErrBehind = causal.ErrBehind
	// ErrTooManySiblings refuses a mint that would exceed the limit of siblings; nothing was done.
	ErrTooManySiblings = causal.ErrTooManySiblings
	// ErrTooLarge refuses a write whose record would exceed the limit of bytes, or what the engine takes; nothing was done.
	ErrTooLarge = causal.ErrTooLarge
	// ErrClockTooLarge refuses a mint whose clock would not fit into a context token; nothing was done.
	ErrClockTooLarge = causal.ErrClockTooLarge
	// ErrOverloaded refuses a write because the queue is full; nothing was done.
	ErrOverloaded = errors.New("kv: queue is full")
	// ErrExpired refuses a mint whose deadline has passed; nothing was done.
	ErrExpired = errors.New("kv: deadline has passed")
	// ErrInvalid refuses a key, a value, a context or a record that is malformed or damaged; nothing was done.
	ErrInvalid = errors.New("kv: invalid or damaged input")
	// ErrInDoubt says that a write may or may not become durable. It wraps the cause.
	ErrInDoubt = errors.New("kv: outcome of the write is unknown")
	// ErrReopening refuses everything while the engine is being reopened after a failure; nothing was done.
	ErrReopening = errors.New("kv: engine is being reopened")
	// ErrStale refuses a record that was on its way for too long; nothing was done.
	ErrStale = errors.New("kv: record was on its way for too long")
	// ErrHintsFull refuses a hint because the node keeps as many as it may; nothing was done.
	ErrHintsFull = hints.ErrFull
	// ErrDiskFull refuses writes until a probe finds room on the disk; nothing was done.
	ErrDiskFull = errors.New("kv: disk is full")
	// ErrClosed refuses everything after Close; nothing was done.
	ErrClosed = errors.New("kv: closed")
)

// MaxKey is the longest key, in bytes; the shortest has one.
const MaxKey = 250

// SyncMode says what a durable write is.
type SyncMode int

// Modes of durability.
const (
	// SyncAlways acknowledges after the batch was synced. The only mode that survives a power cut without loss.
	SyncAlways SyncMode = iota
	// SyncInterval acknowledges after the batch was written, and syncs every Config.SyncEvery.
	SyncInterval
	// SyncNone acknowledges after the batch was written, and syncs only at Close.
	SyncNone
)

// String returns the mode's name as in a configuration.
func (m SyncMode) String() string {
	switch m {
	case SyncAlways:
		return "always"
	case SyncInterval:
		return "interval"
	case SyncNone:
		return "none"
	}
	return fmt.Sprintf("SyncMode(%d)", int(m))
}

// ParseSyncMode reads the name of a mode: always, interval or none.
func ParseSyncMode(name string) (SyncMode, error) {
	for _, m := range []SyncMode{SyncAlways, SyncInterval, SyncNone} {
		if m.String() == name {
			return m, nil
		}
	}
	return 0, fmt.Errorf("kv: sync mode %q is none of always, interval, none", name)
}

// Config is what Open needs. Start from Default.
type Config struct {
	// Open opens the engine, at first and after each failure. Required.
	Open engine.Opener
	// Sync says what durable means; SyncEvery is the interval of SyncInterval.
	Sync      SyncMode
	SyncEvery time.Duration
	// GatherFor is the least time between the beginnings of two batches under load, so that more writes share a sync; 0 for
	// none. Only for SyncAlways.
	GatherFor time.Duration
	// Limits bounds what a mint may leave behind. A zero field is the default of causal.Limits.
	Limits causal.Limits
	// BatchMaxItems and BatchMaxBytes bound one commit. The engine's own limit holds besides.
	BatchMaxItems, BatchMaxBytes int
	// QueueMaxItems and QueueMaxBytes bound what is queued or being committed. One write is always taken, however large.
	QueueMaxItems, QueueMaxBytes int
	// CacheBytes bounds what is kept in memory of durable records; 0 keeps none.
	CacheBytes int
	// Hints bounds the hints that are taken in; those that are there stay whatever it says.
	Hints hints.Limits
	// RequestIDTTL is how long an id chosen by a client is remembered, and the most that any is: a gateway's leaves 10 s after its deadline.
	// RequestIDMax bounds the ids remembered, of about 150 bytes each. The oldest leave first.
	RequestIDTTL time.Duration
	RequestIDMax int
	// ReopenMaxDelay bounds the pause between attempts to reopen the engine; the first are shorter.
	ReopenMaxDelay time.Duration
	// CheckEvery is how often the disk is asked for room, the engine for failures in the background.
	CheckEvery time.Duration
	// Room says with an error that the disk has too little room for more writes; they are then refused with ErrDiskFull
	// before the engine meets the end of the disk. Called by one goroutine, every CheckEvery. Optional.
	Room func() error
	// Heal says that someone refills what is in doubt. Damage that is met is then set aside, and what it may have held is
	// in doubt; otherwise it stays where it is and is answered as failed.
	Heal bool
	// CrowdedClock is how many entries a clock may have before Tombstones lists those that may leave, 0 for any number;
	// RetireFor is how long contexts that name what left are still honoured.
	CrowdedClock int
	RetireFor    time.Duration
	// HeldData says that the directory held data before: an engine without any is one whose data is gone.
	HeldData bool
	// Observer is told of every change of a record. Optional.
	Observer Observer
	// Rand is where actors come from: cryptographically random in a server. Used by one goroutine at a time.
	Rand io.Reader
	// Now is the clock for deadlines and all that lasts: it must not jump, as time.Now does not, which carries the monotonic clock.
	Now func() time.Time
	// Wall is the time of day that writes are stamped with, which may jump; nil is Now.
	Wall func() time.Time
	// Logger gets rare events only, never one line a request.
	Logger zerolog.Logger
	// Registerer takes the metrics until Close; nil for none.
	Registerer prometheus.Registerer
}

// Default returns a configuration that lacks only Open.
func Default() Config {
	return Config{
		Sync: SyncAlways, SyncEvery: 100 * time.Millisecond, GatherFor: 3 * time.Millisecond,
		Limits:        causal.Limits{MaxSiblings: 64, MaxBytes: 3 << 20},
		BatchMaxItems: 1024, BatchMaxBytes: 4 << 20,
		QueueMaxItems: 16 << 10, QueueMaxBytes: 64 << 20,
		CacheBytes:   32 << 20,
		Hints:        hints.Limits{BytesMax: 4 << 30, AgeMax: 24 * time.Hour, TargetsMax: 4096},
		RequestIDTTL: 10 * time.Minute, RequestIDMax: 1 << 20,
		RetireFor:      24 * time.Hour,
		ReopenMaxDelay: 5 * time.Second, CheckEvery: time.Second,
		Rand: rand.Reader, Now: time.Now, Logger: zerolog.Nop(),
	}
}

// Validate names every fault of the configuration.
func (c *Config) Validate() error {
	var faults []error
	check := func(ok bool, what string) {
		if !ok {
			faults = append(faults, errors.New("kv: "+what))
		}
	}
	check(c.Open != nil, "Open is missing")
	check(c.Sync >= SyncAlways && c.Sync <= SyncNone, "Sync is no known mode")
	check(c.Sync != SyncInterval || c.SyncEvery >= time.Millisecond, "SyncEvery must be at least 1 ms")
	check(c.GatherFor >= 0 && c.GatherFor <= time.Second, "GatherFor must be between 0 and 1 s")
	check(c.Limits.MaxSiblings >= 0 && c.Limits.MaxBytes >= 0, "Limits must not be negative")
	check(c.BatchMaxItems > 0 && c.BatchMaxBytes > 0, "BatchMaxItems and BatchMaxBytes must be positive")
	check(c.QueueMaxItems > 0 && c.QueueMaxBytes > 0, "QueueMaxItems and QueueMaxBytes must be positive")
	check(c.CacheBytes >= 0, "CacheBytes must not be negative")
	check(c.Hints.Validate() == nil, "Hints must not be negative")
	check(c.RequestIDTTL > 0, "RequestIDTTL must be positive")
	// An id of a write that is still queued must not be dropped: its repeat would make a second dot.
	check(c.RequestIDMax >= c.QueueMaxItems, "RequestIDMax must be at least QueueMaxItems")
	check(c.RequestIDMax < 1<<31, "RequestIDMax must be below 2^31")
	check(c.CrowdedClock >= 0, "CrowdedClock must not be negative")
	check(c.ReopenMaxDelay > 0, "ReopenMaxDelay must be positive")
	check(c.CheckEvery >= time.Millisecond, "CheckEvery must be at least 1 ms")
	check(c.Rand != nil, "Rand is missing")
	check(c.Now != nil, "Now is missing")
	return errors.Join(faults...)
}
