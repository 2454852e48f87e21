package httpapi

import "sync/atomic"

// Admission bounds the requests that are under way, and the memory their bodies may take. Past the bound a request is
// refused at once, so that those under way stay fast. It is safe for concurrent use.
type Admission struct {
	maxRequests, maxBytes int64
	requests, bytes       atomic.Int64
	reserved              *Admission
}

const (
	// reservedRequests and reservedBytes are kept for what operates the cluster.
	reservedRequests = 64
	reservedBytes    = 1 << 20
)

// NewAdmission returns a bound of so many requests and bytes of bodies; both are above 0.
func NewAdmission(maxRequests, maxBytes int64) *Admission {
	return &Admission{maxRequests: maxRequests, maxBytes: maxBytes,
		reserved: &Admission{maxRequests: reservedRequests, maxBytes: reservedBytes}}
}

// Reserved returns the places and the room that are kept for requests that look at the cluster or operate it: those must
// get through when the others are too many.
func (a *Admission) Reserved() *Admission { return a.reserved }

// Enter takes a place and room for a body of up to n bytes; false where there is none. Leave gives both back.
func (a *Admission) Enter(n int64) bool {
	if a.requests.Add(1) > a.maxRequests {
		a.requests.Add(-1)
		return false
	}
	// Answers take room too, also those that came to more than there was: then nothing is let in until some have left.
	if a.bytes.Add(n) > a.maxBytes {
		a.bytes.Add(-n)
		a.requests.Add(-1)
		return false
	}
	return true
}

// Hold takes room for n bytes that are there already, beyond the bound if need be; Leave gives it back.
func (a *Admission) Hold(n int64) { a.bytes.Add(n) }

// Leave gives back what an Enter took, of n bytes in all.
func (a *Admission) Leave(n int64) {
	a.bytes.Add(-n)
	a.requests.Add(-1)
}

// UnderWay returns the number of requests under way.
func (a *Admission) UnderWay() int64 { return a.requests.Load() }
