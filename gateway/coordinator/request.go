package coordinator

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// Quorum is how many replicas a request asks for: a number of 1 to 64, or one of the names below.
type Quorum int

const (
	// Default leaves it to the gateway's configuration.
	Default Quorum = 0
	// Majority is more than half of N.
	Majority Quorum = -1
	// All is N.
	All Quorum = -2

	maxQuorum = 64
)

// ErrQuorum is wrapped by the errors of ParseQuorum.
var ErrQuorum = errors.New("bad quorum")

// ParseQuorum reads "1" to "64", "one", "quorum", "all", or "" for the default.
func ParseQuorum(s string) (Quorum, error) {
	switch s {
	case "":
		return Default, nil
	case "one":
		return 1, nil
	case "quorum":
		return Majority, nil
	case "all":
		return All, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || s != strconv.Itoa(n) || n < 1 || n > maxQuorum {
		return 0, fmt.Errorf("%w: %.20q is not 1 to %d, one, quorum or all", ErrQuorum, s, maxQuorum)
	}
	return Quorum(n), nil
}

// String returns what ParseQuorum reads.
func (q Quorum) String() string {
	switch q {
	case Default:
		return ""
	case Majority:
		return "quorum"
	case All:
		return "all"
	}
	return strconv.Itoa(int(q))
}

// Of returns the number that q means where n replicas are kept.
func (q Quorum) Of(n int) int {
	switch q {
	case Majority:
		return n/2 + 1
	case All:
		return n
	}
	return int(q)
}

// GetRequest is a read. Its deadline is its context's.
type GetRequest struct {
	// Key is 1 to 250 bytes. It is kept after the get returns and must not be modified.
	Key []byte
	// R is how many primaries must be part of the answer.
	R Quorum
	// Context, where not nil, must be covered by the answer.
	Context *causal.Context
	// Explain asks for Reports.
	Explain bool
	// SlowAfter asks for Reports where it took at least as long; 0 does not.
	SlowAfter time.Duration
	// Trace is the request's id in logs.
	Trace string
	// Span is that of the operation where it is traced, else nil. The caller ends it.
	Span *tracing.Span
}

// GetResult is what a read found.
type GetResult struct {
	// Set is the merge of the replicas' records, every value of it verified. The empty set is absence. It may be shared
	// with other readers and must not be modified.
	Set causal.Set
	// Reports tell what each replica did, where asked for.
	Reports []Report
}

// PutRequest is a write, or with Tombstone a deletion. Its deadline is its context's. Its bytes are kept after the put
// returns and must not be modified; those of Value until Release is called.
type PutRequest struct {
	Key, Value  []byte
	ContentType string
	// Meta is encoded user metadata, or nil.
	Meta      []byte
	Tombstone bool
	// Checksum is the CRC32C of Value, computed where it entered.
	Checksum uint32
	// W is how many machines must have the write durably.
	W Quorum
	// Sloppy allows machines that do not own the key to stand in for owners that are away: they keep the write for them,
	// and count towards W.
	Sloppy bool
	// Context, where not nil, says which siblings the write replaces; else it replaces what the minting node knows.
	Context *causal.Context
	// RequestID names the write; one is made up where it is empty. ClientRequestID says that the client chose it.
	RequestID       string
	ClientRequestID bool
	// Explain asks for Reports.
	Explain bool
	// SlowAfter asks for Reports where it took at least as long; 0 does not.
	SlowAfter time.Duration
	// Trace is the request's id in logs.
	Trace string
	// Span is that of the operation where it is traced, else nil. The caller ends it.
	Span *tracing.Span
	// Release, where not nil, is called at most once, maybe before the put returns or long after it, by any goroutine:
	// nobody looks at Value any more. Where it is never called Value must be left to the garbage collector. It must not block.
	Release func()
}

// PutResult is what became of a write that reached its quorum.
type PutResult struct {
	// Context is what the client has seen now.
	Context causal.Context
	// Siblings is how many values the minted record shows.
	Siblings int
	// Acks is how many machines have the write durably, Hinted how many of those stand in for owners.
	Acks, Hinted int
	// Reports tell what each machine did, where asked for.
	Reports []Report
	// Minted is when the write had its dot, from the beginning.
	Minted time.Duration
}

// Report is what one replica did for one request.
type Report struct {
	Node ring.NodeID
	Name string
	// Did is what it was asked for, or "not asked"; Detail is how that ended.
	Did, Detail string
	// At is when its last answer came, from the beginning of the request; 0 where none came.
	At time.Duration
	// Queued is how long what it was asked waited in this process before it was sent.
	Queued time.Duration
	// Clock is that of its record, where it was read.
	Clock causal.Vector
	// Repaired says that the merged record was sent to it.
	Repaired bool
}

// Kind says what went wrong.
type Kind uint8

const (
	// Internal is a fault that is not the request's.
	Internal Kind = iota
	// NoLayout: the gateway does not know the cluster yet.
	NoLayout
	// BadQuorum: r or w is outside of what the layout allows.
	BadQuorum
	// QuorumImpossible: too many replicas are away, or failed.
	QuorumImpossible
	// DeadlinePassed: the time was up, or the caller went away.
	DeadlinePassed
	// Overloaded: the replicas, or the queues to them, are full.
	Overloaded
	// StaleRead: no replica that answered covers the read's context.
	StaleRead
	// StaleContext: no replica that answered covers the write's context.
	StaleContext
	// TooManySiblings: the write would exceed the siblings of a record.
	TooManySiblings
	// TooLarge: the write would exceed the bytes of a record, or of its clock.
	TooLarge
	// DiskFull: the replicas are out of disk.
	DiskFull

	kinds = int(DiskFull) + 1
)

var kindNames = [kinds]string{"internal", "no layout", "bad quorum", "quorum impossible", "deadline passed", "overloaded",
	"stale read", "stale context", "too many siblings", "too large", "disk full"}

// String returns a few words for people.
func (k Kind) String() string {
	if int(k) < kinds {
		return kindNames[k]
	}
	return "unknown"
}

// Outcome says what became of a failed write.
type Outcome uint8

const (
	// None: the request was no write.
	None Outcome = iota
	// NotApplied: no mint was sent, or every mint was refused; the write will never become visible.
	NotApplied
	// InDoubt: the write may have happened, or may yet.
	InDoubt
)

// String returns the name as the API spells it.
func (o Outcome) String() string {
	switch o {
	case NotApplied:
		return "not-applied"
	case InDoubt:
		return "in-doubt"
	}
	return ""
}

// Error is every error of Get, Put and Inspect.
type Error struct {
	Kind    Kind
	Outcome Outcome
	// Replicas tell what each replica did, where any was chosen.
	Replicas []Report
	// Err says more; nil where Kind says it all.
	Err error
}

// Error names the kind, the cause, and the replicas that did not do their part.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.String())
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	if e.Outcome != None {
		b.WriteString(" (")
		b.WriteString(e.Outcome.String())
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }
