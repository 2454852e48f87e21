package httpapi

import "sync/atomic"

// Admission bounds the requests that are under way, and the memory their bodies may take. Past the bound a request is
// refused at once, so that those under way stay fast. It is safe for concurrent use.
type Admission struct {
	maxRequests, maxBytes int64
	requests, bytes       atomic.Int64
}

// NewAdmission returns a bound of so many requests and bytes of bodies; both are above 0.
func NewAdmission(maxRequests, maxBytes int64) *Admission {
	return &Admission{maxRequests: maxRequests, maxBytes: maxBytes}
}

// Enter takes a place and room for a body of up to n bytes; false where there is none. Leave gives both back.
func (a *Admission) Enter(n int64) bool {
	if a.requests.Add(1) > a.maxRequests {
		a.requests.Add(-1)
		return false
	}
	if n > 0 && a.bytes.Add(n) > a.maxBytes {
		a.bytes.Add(-n)
		a.requests.Add(-1)
		return false
	}
	return true
}

// Leave gives back what an Enter with the same n took.
func (a *Admission) Leave(n int64) {
	if n > 0 {
		a.bytes.Add(-n)
	}
	a.requests.Add(-1)
}

// UnderWay returns the number of requests under way.
func (a *Admission) UnderWay() int64 { return a.requests.Load() }
