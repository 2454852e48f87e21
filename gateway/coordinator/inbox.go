package coordinator

import (
	"errors"
	"slices"
	"sync"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/gateway/quorum"
	"github.com/dotring/dotring/ringsvc/ring"
)

// inbox takes the answers of one request. Putting never blocks; what is in it is bounded by what the request sent.
type inbox struct {
	mu      sync.Mutex
	answers []nodeclient.Answer
	closed  bool
	// want is how many answers the request has use for at once: it is woken when there are as many, or one that is not
	// plain. plain says of an answer that it is good, and that nothing is to be done about it alone.
	want  int
	odd   bool // there is one that is not plain
	plain func(*storagev1.Response) bool
	wake  chan struct{} // capacity 1: answers are waiting
	buf   [4]nodeclient.Answer
}

func (b *inbox) init(plain func(*storagev1.Response) bool) {
	b.wake = make(chan struct{}, 1)
	b.answers = b.buf[:0]
	b.want, b.plain = 1, plain
}

// plainRead and plainWrite are for inbox.plain.
func plainRead(r *storagev1.Response) bool {
	return r.GetStatus() == storagev1.Status_STATUS_OK || r.GetStatus() == storagev1.Status_STATUS_ABSENT
}

func plainWrite(r *storagev1.Response) bool {
	return r.GetStatus() == storagev1.Status_STATUS_OK && r.GetDurable()
}

func (b *inbox) put(a nodeclient.Answer) { b.offer(a) }

// offer is put that says whether the inbox is still open.
func (b *inbox) offer(a nodeclient.Answer) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.answers = append(b.answers, a)
	b.odd = b.odd || a.Err != nil || !b.plain(a.Response)
	ready := b.readyLocked()
	b.mu.Unlock()
	if ready {
		b.rouse()
	}
	return true
}

func (b *inbox) readyLocked() bool { return len(b.answers) > 0 && (b.odd || len(b.answers) >= b.want) }

func (b *inbox) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// expect says how many answers the next wake is for.
func (b *inbox) expect(n int) {
	b.mu.Lock()
	b.want = n
	ready := b.readyLocked()
	b.mu.Unlock()
	if ready {
		b.rouse()
	}
}

// take moves the answers to dst.
func (b *inbox) take(dst []nodeclient.Answer) []nodeclient.Answer {
	b.mu.Lock()
	dst = append(dst, b.answers...)
	clear(b.answers)
	b.answers, b.odd = b.answers[:0], false
	b.mu.Unlock()
	return dst
}

// close takes in nothing more, and returns what is there.
func (b *inbox) close() []nodeclient.Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	left := slices.Clone(b.answers)
	b.answers, b.buf = nil, [4]nodeclient.Answer{}
	return left
}

// sent is one call of a request; its index is the call's tag.
type sent struct {
	to     ring.NodeID
	do     quorum.Do
	issued bool // a mint whose first answer came
	round  int
	at     time.Duration // when the last answer came, from the beginning of the request
	queued time.Duration // of that, before it was on the wire
	detail string        // what the node said
}

// arrived notes when an answer came, which may be well before the request looks at it.
func (s *sent) arrived(a *nodeclient.Answer, begin time.Time) {
	s.at, s.queued = max(a.At.Sub(begin), 0), a.Queued
}

// causeOfError reads an answer's error.
func causeOfError(err error) quorum.Cause {
	switch {
	case errors.Is(err, nodeclient.ErrOverloaded):
		return quorum.Overloaded
	case errors.Is(err, nodeclient.ErrTooLate):
		return quorum.Expired
	case errors.Is(err, nodeclient.ErrNotSent):
		return quorum.Away
	}
	return quorum.Lost
}

var statusCauses = [...]quorum.Cause{
	storagev1.Status_STATUS_UNSPECIFIED: quorum.Invalid,
	storagev1.Status_STATUS_ABSENT:      quorum.Invalid, // handled before where it makes sense
	storagev1.Status_STATUS_FENCED:      quorum.Fenced,
	storagev1.Status_STATUS_BEHIND:      quorum.Behind,
	storagev1.Status_STATUS_OVERLOADED:  quorum.Overloaded,
	storagev1.Status_STATUS_EXPIRED:     quorum.Expired,
	storagev1.Status_STATUS_TOO_LARGE:   quorum.TooLarge,
	storagev1.Status_STATUS_INVALID:     quorum.Invalid,
	storagev1.Status_STATUS_FAILED:      quorum.Failed,
	storagev1.Status_STATUS_UNAVAILABLE: quorum.Unavailable,
	storagev1.Status_STATUS_DISK_FULL:   quorum.DiskFull,
}

// causeOfStatus reads a status other than OK. One that is not known says nothing of whether the request was done.
func causeOfStatus(s storagev1.Status) quorum.Cause {
	if s <= 0 || int(s) >= len(statusCauses) || s == storagev1.Status_STATUS_OK {
		return quorum.Failed
	}
	return statusCauses[s]
}

// kindOfCause says what an impossible quorum is for the client.
func kindOfCause(c quorum.Cause) Kind {
	switch c {
	case quorum.Overloaded:
		return Overloaded
	case quorum.DiskFull:
		return DiskFull
	case quorum.Expired:
		return DeadlinePassed
	case quorum.TooLarge:
		return TooLarge
	case quorum.Invalid:
		return Internal
	}
	return QuorumImpossible
}
