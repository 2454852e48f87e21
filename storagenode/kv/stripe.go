package kv

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

// stripeCount is how many locks the keys share.
const stripeCount = 1024

// stripe holds the lock of the keys that hash to it, and their writes that are not durable yet.
//
// mu is the keys' lock: whoever holds it alone decides on a next record of one of them. It is held while the engine is
// read, never while it is written. pendingMu is held for moments only, so that the committer never waits for a read.
// Order of locks: mu, pendingMu, the queue's.
type stripe struct {
	mu        sync.Mutex
	pendingMu sync.Mutex
	pending   []pendingKey // the newest write in flight of each key; few, so they are searched one by one
	_         [128 - 40]byte
}

type pendingKey struct {
	hash uint64
	op   *op
}

// op is one write on its way to the disk. Its bytes are never modified once it was queued.
type op struct {
	disk []byte
	rec  []byte
	// seq is the place in the queue; newer is that of a later write of the same key, which contains this one.
	seq   uint64
	newer atomic.Uint64
	// stripe is nil for node state.
	stripe *stripe
	hash   uint64
	call   callback
	// waiters are called after call, with the same outcome. Guarded by stripe.pendingMu until done.
	waiters []callback
	done    bool

	before, after record.Digest // of the record that is replaced, and of rec

	dot       causal.Dot
	request   requestID
	named     bool // request is set
	keysMore  int64
	bytesMore int64
	hint      *hintDelta // of a hint; a nil rec then removes it
	mark      markChange // of the key's tombstone
	note      bool       // it does not count as a commit
	// exec is what the committer does by itself instead of writing rec, alone and in its place in the queue.
	exec func(*committer) (refused, failed error)
	room [recordPrefix + 55]byte // for disk, where the key is short
}

// callback is told the outcome of a write: mint by a mint or node state, apply by an apply.
type callback struct {
	mint    func(error)
	apply   func(bool, error)
	changed bool
}

func (c callback) run(err error) {
	switch {
	case c.mint != nil:
		c.mint(err)
	case c.apply != nil:
		c.apply(c.changed && err == nil, err)
	}
}

func newOp(disk, rec []byte) *op {
	o := &op{rec: rec}
	o.disk = append(o.room[:0], disk...)
	return o
}

// size is what a write counts for in the queue and in a batch.
func (o *op) size() int {
	if o.hint != nil {
		return opSize(len(o.disk), len(o.rec)) + hintOverhead
	}
	if o.mark != keepMark {
		return opSize(2*len(o.disk), len(o.rec)) + opOverhead
	}
	return opSize(len(o.disk), len(o.rec))
}

func opSize(disk, rec int) int { return disk + rec + opOverhead }

// opOverhead is above what an engine adds to each write of a batch.
const opOverhead = 32

// newest returns the newest write of the key that is not durable yet, or nil.
func (st *stripe) newest(p *place) *op {
	st.pendingMu.Lock()
	defer st.pendingMu.Unlock()
	if i := st.search(p.hash, p.disk); i >= 0 {
		return st.pending[i].op
	}
	return nil
}

func (st *stripe) search(hash uint64, disk []byte) int {
	for i := range st.pending {
		if st.pending[i].hash == hash && bytes.Equal(st.pending[i].op.disk, disk) {
			return i
		}
	}
	return -1
}

// enqueue gives ops their places in the queue and makes each the newest of its disk key, in one step, so that the
// committer cannot be done with one before it is known as pending. All are queued or none. The caller holds mu, which
// makes the queue's order that of each key.
func (st *stripe) enqueue(q *queue, ops ...*op) error {
	st.pendingMu.Lock()
	defer st.pendingMu.Unlock()
	if err := q.push(ops...); err != nil {
		return err
	}
	for _, o := range ops {
		if i := st.search(o.hash, o.disk); i >= 0 {
			st.pending[i].op.newer.Store(o.seq)
			st.pending[i].op = o
		} else {
			st.pending = append(st.pending, pendingKey{hash: o.hash, op: o})
		}
	}
	return nil
}

// attach has c called with the outcome of o. False says that o is durable: c is the caller's to call.
func (st *stripe) attach(o *op, c callback) bool {
	st.pendingMu.Lock()
	defer st.pendingMu.Unlock()
	if o.done {
		return false
	}
	o.waiters = append(o.waiters, c)
	return true
}

// settle takes o, whose outcome is known, out of what is pending. Afterwards its waiters are final.
func (st *stripe) settle(o *op) {
	st.pendingMu.Lock()
	defer st.pendingMu.Unlock()
	o.done = true
	for i := range st.pending {
		if st.pending[i].op == o {
			last := len(st.pending) - 1
			st.pending[i] = st.pending[last]
			st.pending[last] = pendingKey{}
			st.pending = st.pending[:last]
			return
		}
	}
}
