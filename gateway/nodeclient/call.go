package nodeclient

import (
	"errors"
	"fmt"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

var (
	// ErrNotSent says that a request provably never reached the wire: the node did not and will not see it.
	ErrNotSent = errors.New("not sent")
	// ErrOverloaded is an ErrNotSent: the queue to the node is full.
	ErrOverloaded = fmt.Errorf("%w: the queue to the node is full", ErrNotSent)
	// ErrNotConnected is an ErrNotSent: there is no stream to the node.
	ErrNotConnected = fmt.Errorf("%w: not connected", ErrNotSent)
	// ErrTooLate is an ErrNotSent: the deadline passed while the request waited in the queue.
	ErrTooLate = fmt.Errorf("%w: the deadline passed in the queue", ErrNotSent)
	// ErrLost says that a request was sent, or was being sent, and its answer will not come: it may have been done.
	ErrLost = errors.New("answer lost")
	// ErrUnanswered is an ErrLost: the deadline passed.
	ErrUnanswered = fmt.Errorf("%w: the deadline passed", ErrLost)
)

// Answer is what became of a call. Exactly one of Response and Err is set.
type Answer struct {
	From     ring.NodeID
	Tag      uint64
	Response *storagev1.Response
	Err      error // wraps ErrNotSent or ErrLost
	// At is when it came. Queued is how long the request waited here before it went onto the wire, 0 where it did not.
	At     time.Time
	Queued time.Duration
}

// Call is one request to one node.
type Call struct {
	To ring.NodeID
	// Tag comes back with the answers.
	Tag uint64
	// Request belongs to the client once sent, with all its bytes, until Done is called, or for
	// ever without one: they must not be modified. Its ID and timeout are set by the client.
	Request *storagev1.Request
	// Layouts are the live layouts under which the request is made: State.Names, which is shared.
	Layouts []*storagev1.LayoutName
	// Obtained is when the record that the request brings, or an older form of it, came here; zero where it brings none.
	// The node is told the last of its heartbeats that had been heard by then, and refuses what is too old.
	Obtained time.Time
	// Deadline is when nobody waits for the answer any more.
	Deadline time.Time
	// Deliver takes the answers. It must not block and must not call the client. It is called once per response, or
	// once with an error; a mint that was answered OK before it was durable is answered a second time. It is called
	// from the client's goroutines, or from within Send.
	Deliver func(Answer)
	// Done, where not nil, is called once, as the last thing: the client will not look at Request and its bytes any more, and
	// will not call Deliver. As Deliver, it must not block and must not call the client.
	Done func()
}

// refuse answers a call that goes nowhere.
func (c *Call) refuse(err error) {
	c.Deliver(Answer{From: c.To, Tag: c.Tag, Err: err, At: time.Now()})
	if c.Done != nil {
		c.Done()
	}
}

// Health is what the gateway knows of a node.
type Health struct {
	// Connected: a stream to it is open.
	Connected bool
	// Suspect: it has been silent for too long, or refuses connections.
	Suspect bool
	// Silent: it owes the answer to a mint or a read, and nothing was heard of it for several times as long as those usually take.
	Silent bool
	// Phi is the suspicion, from 0.
	Phi float64
	// Actor is that of the node's life which its stream was opened with; zero while there is none. Another life has
	// forgotten the requests that the one before it was asked.
	Actor causal.Actor
	// P95 and Mean are how long it usually takes to answer a read, queues included; 0 where not known.
	P95, Mean time.Duration
	// PerSecond is how many answers a second came from it over the last ten seconds or so.
	PerSecond float64
}
