package coordinator

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"
)

// Reads of one key that are in flight together share a fetch, and a reader joins only a fetch that starts after the
// reader arrived: whatever was acknowledged before is then in what it gets. So the first reader of a key fetches at
// once, and those who come meanwhile wait together for the next fetch, which one of them carries out when the first has
// ended or has taken too long.

// flightKey is what readers must have in common.
type flightKey struct {
	key string
	r   Quorum
}

// flight is a key that is being read.
type flight struct {
	current *fetch // started last
	next    *fetch // has not started; nil where nobody waits
	first   fetch  // that of the reader that found nobody else
}

// fetch is one reading of the replicas.
type fetch struct {
	started time.Time // zero before
	waiters int       // readers that wait for it, besides the one that carries it out
	// lead holds a token when one of the waiters must carry it out; done is closed when res and err are set. Both are
	// nil in a fetch that nobody can join.
	lead chan struct{}
	done chan struct{}
	res  GetResult
	err  *Error
}

const flightShards = 64 // a power of two

type flights struct {
	seed   maphash.Seed
	shards [flightShards]flightShard
}

type flightShard struct {
	mu   sync.Mutex
	keys map[flightKey]*flight
	_    [40]byte // keeps neighbours off one cache line
}

func (f *flights) init() {
	f.seed = maphash.MakeSeed()
	for i := range f.shards {
		f.shards[i].keys = make(map[flightKey]*flight)
	}
}

func (f *flights) shard(key []byte) *flightShard {
	return &f.shards[maphash.Bytes(f.seed, key)&(flightShards-1)]
}

// coalesced reads a key alone or together with others.
func (c *Coordinator) coalesced(ctx context.Context, req *GetRequest) (GetResult, *Error) {
	s := c.flights.shard(req.Key)
	key := flightKey{string(req.Key), req.R}
	s.mu.Lock()
	fl, busy := s.keys[key]
	if !busy {
		fl = &flight{first: fetch{started: time.Now()}}
		f := &fl.first
		fl.current = f
		s.keys[key] = fl
		s.mu.Unlock()
		res, err := c.get(ctx, req)
		s.finish(key, f)
		return res, err
	}
	if fl.next == nil {
		fl.next = &fetch{lead: make(chan struct{}, 1), done: make(chan struct{})}
	}
	f := fl.next
	f.waiters++
	patience := c.cfg.CoalesceFor - time.Since(fl.current.started)
	s.mu.Unlock()
	return c.join(ctx, req, s, key, f, patience)
}

// join waits for f's result, or carries f out where that falls to this reader.
func (c *Coordinator) join(ctx context.Context, req *GetRequest, s *flightShard, key flightKey, f *fetch,
	patience time.Duration) (GetResult, *Error) {
	timer := c.timer(max(min(patience, untilDeadline(ctx)), 0))
	defer c.putTimer(timer)
	for {
		select {
		case <-f.done:
			c.metrics.coalesced.Inc()
			req.Span.Bool("dotring.coalesced", true)
			return f.res, f.err
		case <-f.lead:
			return c.lead(ctx, req, s, key, f)
		case <-timer.C:
			if err := timeUp(ctx); err != nil {
				s.leave(key, f)
				return GetResult{}, &Error{Kind: DeadlinePassed, Err: err}
			}
			if s.startNow(key, f) {
				return c.lead(ctx, req, s, key, f)
			}
			timer.Reset(untilDeadline(ctx))
		case <-ctx.Done():
			s.leave(key, f)
			return GetResult{}, &Error{Kind: DeadlinePassed, Err: context.Cause(ctx)}
		}
	}
}

// untilDeadline is the time that ctx, which has a deadline, leaves.
func untilDeadline(ctx context.Context) time.Duration {
	at, _ := ctx.Deadline()
	return time.Until(at)
}

// lead carries f out for all that wait for it.
func (c *Coordinator) lead(ctx context.Context, req *GetRequest, s *flightShard, key flightKey, f *fetch) (GetResult, *Error) {
	res, err := c.get(ctx, req)
	if up := timeUp(ctx); err != nil && up != nil && errors.Is(err, up) && s.handOver(f) {
		return res, err // it was this reader's time that was up, and not that of the others
	}
	f.res, f.err = res, err
	close(f.done)
	s.finish(key, f)
	return res, err
}

// startNow makes f the current fetch, unless it is already.
func (s *flightShard) startNow(key flightKey, f *fetch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fl := s.keys[key]
	if fl == nil || fl.next != f {
		return false
	}
	f.waiters--
	f.started = time.Now()
	fl.current, fl.next = f, nil
	return true
}

// finish starts what waits for the end of f.
func (s *flightShard) finish(key flightKey, f *fetch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishLocked(key, f)
}

func (s *flightShard) finishLocked(key flightKey, f *fetch) {
	fl := s.keys[key]
	if fl == nil || fl.current != f {
		return // a later fetch has started, and its end counts
	}
	if fl.next == nil {
		delete(s.keys, key)
		return
	}
	fl.current, fl.next = fl.next, nil
	fl.current.started = time.Now()
	fl.current.passLocked()
}

// passLocked makes one of the waiters carry the fetch out.
func (f *fetch) passLocked() {
	f.waiters--
	f.lead <- struct{}{}
}

// handOver lets another waiter carry f out; false where there is none.
func (s *flightShard) handOver(f *fetch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiters == 0 {
		return false
	}
	f.passLocked()
	return true
}

// leave is for a reader that waits no longer for f.
func (s *flightShard) leave(key flightKey, f *fetch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiters > 0 {
		f.waiters--
		if fl := s.keys[key]; f.waiters == 0 && fl != nil && fl.next == f {
			fl.next = nil
		}
		return
	}
	// All places are taken, so that the token that was passed is this reader's: nobody is left to carry f out.
	select {
	case <-f.lead:
		s.finishLocked(key, f)
	default:
	}
}
