// Package quorum decides one get or one put at a time: which replica to ask for what, when there is enough to answer, and when there never will be.
//
// A decider is a plain value that is told what happened and says what to do next. It does no I/O, reads no clock and is
// not safe for concurrent use. Replicas are named by their index in the decider's own list; Find gives the index of a
// node. The split into a decider that is only told and a shell that only sends follows Riak's get and put cores.
package quorum

import (
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

// Do says what a decider wants next.
type Do uint8

const (
	// Wait: nothing until the next event.
	Wait Do = iota
	// Read: ask the replica for its record.
	Read
	// Digest: ask the replica for the digest of its record.
	Digest
	// Mint: ask the replica to issue the write's dot.
	Mint
	// Apply: send the minted record to the replica.
	Apply
	// Gather: read all replicas, so that a mint can be based on a record that covers the context; then call Gathered.
	Gather
	// Finish: the verdict is in; nothing more will be asked for.
	Finish
)

var doNames = [...]string{"wait", "read", "digest", "mint", "apply", "gather", "finish"}

// String returns the name in lower case.
func (d Do) String() string {
	if int(d) < len(doNames) {
		return doNames[d]
	}
	return "unknown"
}

// Step is one thing to do. Replica is meant for Read, Digest, Mint and Apply.
type Step struct {
	Do      Do
	Replica int
}

// Verdict is the state of a decision.
type Verdict uint8

const (
	// Pending: not decided.
	Pending Verdict = iota
	// Reached: the quorum was reached.
	Reached
	// Impossible: the quorum cannot be reached any more; Shortfall says why.
	Impossible
	// Stale: no replica that answered covers the context.
	Stale
)

// Cause says why a replica does not count.
type Cause uint8

const (
	// None: it has not failed.
	None Cause = iota
	// Away: it is not connected, so that nothing was sent.
	Away
	// Lost: the request was sent, and the connection broke before the answer.
	Lost
	// Overloaded: its queue is full.
	Overloaded
	// Expired: the deadline had passed when it came to the request.
	Expired
	// Failed: its disk or its commit failed.
	Failed
	// Unavailable: it does not take this request now.
	Unavailable
	// Fenced: it refuses the layouts of the request, and the newest known ones are no better.
	Fenced
	// Behind: its record does not cover the context of the write.
	Behind
	// TooLarge: the write would exceed the limits of a record.
	TooLarge
	// DiskFull: its disk is full.
	DiskFull
	// Invalid: the request makes no sense to it.
	Invalid
	// Damaged: it served bytes whose checksum is wrong.
	Damaged

	causes = int(Damaged) + 1
)

var causeNames = [causes]string{"", "away", "connection lost", "overloaded", "deadline passed", "failed", "unavailable",
	"layouts refused", "behind the context", "record too large", "disk full", "invalid request", "damaged record"}

// String returns a few words for people.
func (c Cause) String() string {
	if int(c) < causes {
		return causeNames[c]
	}
	return "unknown"
}

// Candidate is a node that may be asked, as the gateway sees it now.
type Candidate struct {
	Node ring.NodeID
	// Connected: a request can be sent now.
	Connected bool
	// Suspect: it has not been heard for too long; asked only when the others do not suffice.
	Suspect bool
	// Silent: it owes an answer for longer than it usually takes. That may mean nothing, and costs a write nothing to heed:
	// mints go to others while there are any, since one that is never answered leaves its write in doubt.
	Silent bool
	// Mean and P95 are the usual time to an answer; 0 where not known.
	Mean, P95 time.Duration
}

// standing orders candidates: 0 healthy, 1 suspect, 2 away.
func (c *Candidate) standing() int {
	switch {
	case !c.Connected:
		return 2
	case c.Suspect:
		return 1
	}
	return 0
}

// mintRank orders candidates for a mint, the best first.
func (c *Candidate) mintRank() int {
	if s := c.standing(); s > 0 || !c.Silent {
		return 2 * s
	}
	return 1
}

// tally counts causes, for Shortfall.
type tally [causes]int

// shortfall names the cause that, had it not been, would have left enough: the most specific one whose replicas make up
// for the missing ones, and Away where no single cause does.
func (t *tally) shortfall(missing int) Cause {
	for _, c := range [...]Cause{TooLarge, DiskFull, Overloaded, Expired, Invalid} {
		if t[c] > 0 && t[c] >= missing {
			return c
		}
	}
	return Away
}
