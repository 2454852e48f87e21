// Package collect decides which tombstones may leave a cluster, by proof and not by time alone.
//
// A deletion is a record of tombstones alone, and it can go once nothing is left that it must keep down: no older record
// of the key in any form, on any machine or on its way. The collector of a key asks every member twice, with the grace
// time in between. If every owner holds exactly the tombstone both times, nobody else keeps anything of the key, and
// nobody gave anything of its slot away meanwhile, then no other record of the key was anywhere in all that time, and
// what was on its way before is refused by its receiver for its age. Then all owners mark the record, and once all have
// marked, all remove it.
//
// A mark is a certificate: it exists only where a proof was complete, and what a proof excluded cannot come to be again.
// So whoever finds a mark may go on with the other owners' marks and the removal, whatever became of the collector.
//
// Entries of actors that live no more leave clocks by the same proof (Config.Prune). An entry (a, c) without a sibling of a
// says that a's writes up to c are superseded. It is needed for as long as a record with one of them as a sibling may come
// from anywhere. So every owner must have that very entry, and no sibling of a, both times, and nobody else anything of the
// key; what else is written meanwhile does not matter, since what derives from such a record has no sibling of a either.
// That this is so stays true for ever, so that owners may drop the entry at different times, and once more where a record
// that was on its way brought it back: merging takes the maximum of clocks, which can bring back an entry and no value. It
// is dropped again until no owner has it. Should the collector go away in between, the owners' copies become equal with the
// entry, and it all begins anew.
//
// All of it is plain values: time is an argument, calls to members are listed by Machine.Next, and their answers come in
// by Machine.Replied.
package collect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Holding is what a member keeps of a key beside, or instead of, the tombstone that it is asked about.
type Holding byte

// Kept is added where the member keeps something of the key for others: a hint.
const Kept Holding = 0x80

// What the member's own record of the key is.
const (
	Unclear Holding = iota // a write is under way, or nothing could be read
	Nothing                // there is none
	It                     // the tombstone, durable and served
	Marked                 // the tombstone, durably marked
	Other                  // another record
	holdings
)

var holdingNames = [holdings]string{"unclear", "nothing", "the tombstone", "the tombstone, marked", "another record"}

// Valid says whether h is what a member may answer.
func (h Holding) Valid() bool { return h&^Kept < holdings }

// String tells a person.
func (h Holding) String() string {
	if !h.Valid() {
		return fmt.Sprintf("holding %d", byte(h))
	}
	if h&Kept != 0 {
		return holdingNames[h&^Kept] + ", and something kept for others"
	}
	return holdingNames[h&^Kept]
}

// MayMark says whether a member that holds this may mark the tombstone; MayRemove whether it may remove the mark.
func (h Holding) MayMark() bool { return h == It }

// MayRemove says whether a member that holds this may remove the mark.
func (h Holding) MayRemove() bool { return h&^Kept == Marked }

// Step is what a member is asked to do.
type Step byte

// The steps in their order.
const (
	Confirm Step = iota + 1 // say what is held
	Mark                    // mark the tombstones that are held, durably, and say what is held then
	Remove                  // remove the marks, durably, and say what is held then
	Prune                   // drop entries of a clock, durably, and say whether there were any
)

// String names the step.
func (s Step) String() string {
	switch s {
	case Confirm:
		return "confirm"
	case Mark:
		return "mark"
	case Remove:
		return "remove"
	case Prune:
		return "prune"
	}
	return fmt.Sprintf("step %d", byte(s))
}

// Tomb names one tombstone, a key and the digest of its record; or, where Entries is not empty, what is to leave the clock of
// a key's record, whatever else is in it. Immutable.
type Tomb struct {
	Key     []byte
	Digest  record.Digest
	Entries causal.Vector
}

// Ask is one call to a member. Tombs is read-only.
type Ask struct {
	To    ring.NodeID
	Step  Step
	Tombs []Tomb
	batch uint64
	turn  uint32
}

// Reply is a member's answer to an Ask: for each tombstone what it holds and, to Confirm, the count of its slot, which
// changes whenever something of the slot was taken in for others, given away or dropped. Life names the time that the
// counts are of: with another one they prove nothing.
type Reply struct {
	Life     causal.Actor
	Holdings []Holding
	Moves    []uint32
}

// Member is someone who may keep records.
type Member struct {
	ID    ring.NodeID
	Name  string
	Alive bool
}

// View is what the collector knows of the cluster. Immutable.
type View struct {
	Settled *ring.Layout // the one layout that is live; nil while there is none, or more than one
	Members []Member     // sorted by id: those of the layout, and whoever else may keep anything
}

// Rules can be left out by tests that show what each is for.
type Rules uint

// The rules of a proof.
const (
	WithoutMembers Rules = 1 << iota // members that are down are passed over
	WithoutKept                      // what members keep for others does not matter
	WithoutGrace                     // nothing is waited for
	WithoutMoves                     // what was moved between the rounds does not matter
	WithoutMarks                     // what is proven is removed at once
	WithoutSecond                    // entries leave after one round
)

// Config is what a Machine needs.
type Config struct {
	// Grace is how long a tombstone must have been the same at all owners; MessageAge of it is the most that a record may
	// have been on its way. At least MinGrace.
	Grace time.Duration
	// BatchKeys bounds the tombstones that are asked about together, BatchesMax the batches.
	BatchKeys, BatchesMax int
	// Asking bounds the batches that members are being asked about at once.
	Asking int
	// Prune has the machine take entries out of clocks, in place of tombstones.
	Prune bool
	// Without leaves rules out. 0 in a server.
	Without Rules
}

// MinGrace is the shortest grace time: records on their way need some seconds even where nothing is slow.
const MinGrace = 2 * time.Second

// MessageAge is the age from which on a receiver refuses a record: half of the grace time.
func MessageAge(grace time.Duration) time.Duration { return grace / 2 }

// Default returns a configuration for servers: batches of 1,024, of which 256 may wait and 4 are asked about at once.
func Default(grace time.Duration) Config {
	return Config{Grace: grace, BatchKeys: 1024, BatchesMax: 256, Asking: 4}
}

// Validate names every fault.
func (c Config) Validate() error {
	var faults []error
	if c.Grace < MinGrace {
		faults = append(faults, fmt.Errorf("collect: a grace time of %s, at least %s", c.Grace, MinGrace))
	}
	if c.BatchKeys <= 0 || c.BatchesMax <= 0 || c.Asking <= 0 {
		faults = append(faults, errors.New("collect: bounds of batches must be positive"))
	}
	return errors.Join(faults...)
}

// spacing is the least time between the two rounds. It exceeds the age at which messages are refused by a quarter, since
// that is measured by the receivers' clocks, which may run a little slower.
func (c Config) spacing() time.Duration { return MessageAge(c.Grace) * 5 / 4 }

// retry is the pause before a member that could not answer is asked again.
func (c Config) retry() time.Duration {
	return min(max(c.Grace/64, 50*time.Millisecond), 10*time.Second)
}

// Reason is why a tombstone is still there.
type Reason int

// The reasons, a closed set.
const (
	Proceeding Reason = iota // nothing is in its way
	Waiting                  // for the grace time
	LayoutUnsettled
	MemberDown
	MemberUnclear // it answered that it cannot tell now, or not at all
	OwnerDiffers
	OwnerLacks
	MemberKeeps
	SomethingMoved
	Full      // the collector has as many in hand as it may
	ComesBack // an entry of a clock, as often as it was dropped
	reasons
)

var reasonNames = [reasons]string{"proceeding", "waiting", "layout_unsettled", "member_down", "member_unclear", "owner_differs",
	"owner_lacks", "member_keeps", "something_moved", "full", "comes_back"}

// String is the reason's name, fit for a metric's label.
func (r Reason) String() string {
	if r < 0 || r >= reasons {
		return fmt.Sprintf("reason %d", int(r))
	}
	return reasonNames[r]
}

// Reasons lists all reasons.
func Reasons() []Reason {
	out := make([]Reason, reasons)
	for i := range out {
		out[i] = Reason(i)
	}
	return out
}

// Status answers the question why a tombstone is still there.
type Status struct {
	Phase  string        // what comes next: "first round", "second round", "marking" or "removal"
	PutOff bool          // that did not succeed, and begins anew when the tombstone is met again
	Reason Reason        // why it is not done yet
	Member ring.NodeID   // whom it is for; zero for nobody
	Left   time.Duration // until the next step, if nothing keeps it
}

// Counts of a machine. The first two are since it was made.
type Counts struct {
	Collected uint64          // tombstones that all members removed at this one's word, or keys whose clocks were pruned
	Postponed [reasons]uint64 // tombstones put off, each time
	InHand    int             // tombstones under way
}

// sum adds up what was answered about a tombstone, in whatever order: equal sums mean equal counts of equal lives.
func sum(id ring.NodeID, life causal.Actor, moves uint32) uint64 {
	var b [36]byte
	copy(b[:], id[:])
	copy(b[16:], life[:])
	binary.BigEndian.PutUint32(b[32:], moves)
	return xxh3.Hash(b[:])
}

// Collector is the member that collects the key's tombstone: its first owner.
func Collector(l *ring.Layout, key []byte) ring.NodeID {
	owners := l.Primaries(ring.SlotOf(key))
	if len(owners) == 0 {
		return ring.NodeID{}
	}
	return owners[0]
}
