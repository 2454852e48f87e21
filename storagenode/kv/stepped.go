package kv

import (
	"errors"
	"fmt"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/storagenode/engine"
)

// Stepper does by hand what the committer's goroutine does for a store that Open made, so that a simulator decides when
// a batch is committed and no goroutine runs. It is for one goroutine, which must also be the only one that uses the
// store. A Stepper that is dropped without Close is a process that was killed: what was queued is gone, and nobody is
// told.
type Stepper struct{ c *committer }

// OpenStepped is Open without a goroutine: nothing is committed, and no engine reopened, but by the Stepper. Sync must be
// SyncAlways; SyncEvery, CheckEvery and ReopenMaxDelay mean nothing, since the caller chooses the time of each step.
// The store's own Close waits for the Stepper's, and is not to be called before it.
func OpenStepped(cfg Config) (*Store, *Stepper, error) {
	if cfg.Sync != SyncAlways {
		return nil, nil, fmt.Errorf("kv: a stepped store syncs always, not %s", cfg.Sync)
	}
	s, c, err := prepare(cfg)
	if err != nil {
		return nil, nil, err
	}
	return s, &Stepper{c: c}, nil
}

// Step commits one batch of what is queued, with its callbacks, or, after a failure, tries once to open the engine
// again. It returns whether it did anything, and whether more is to be done: a closed engine, or a queue not empty.
func (st *Stepper) Step() (did, more bool) {
	c := st.c
	if c.life == nil {
		did = st.reopen()
		return did, !did || st.waiting()
	}
	did = c.commitQueued()
	return did, c.life == nil || st.waiting()
}

// waiting says whether something is queued.
func (st *Stepper) waiting() bool {
	items, _ := st.c.store.queue.load()
	return items > 0
}

func (st *Stepper) reopen() bool {
	c := st.c
	if err := c.open(); err != nil {
		c.store.cfg.Logger.Error().Err(err).Msg("reopening the engine failed")
		return false
	}
	c.store.reopenings.Add(1)
	c.store.metrics.reopenings.Inc()
	return true
}

// Check does what the committer does every Config.CheckEvery: it meets failures of the engine in the background, asks
// for room on the disk, and probes a full one. An open engine may be closed afterwards; the next Step opens it again.
func (st *Stepper) Check() {
	c := st.c
	if c.life == nil {
		return
	}
	if err := c.life.eng.Err(); err != nil {
		c.fail(err)
		return
	}
	if c.tend(); c.life == nil {
		return
	}
	if room := c.store.cfg.Room; room != nil {
		if err := room(); err != nil {
			c.setFull(err)
			return
		}
	}
	if c.store.full.Load() {
		c.probe()
	}
}

// Newest returns the key's newest record, also one that is not durable yet, as a mint would see it; nil where there is
// none. It is shared and must not be modified. Errors are those of Read.
func (st *Stepper) Newest(key []byte) ([]byte, error) {
	s := st.c.store
	p, err := s.find(key)
	if err != nil {
		return nil, err
	}
	defer p.release()
	l, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer l.gate.RUnlock()
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	k, err := s.known(l, p)
	if err == nil {
		k, err = s.complete(l, p, k)
	}
	return k.rec, err
}

// NewestHeld returns the merge of all that the node holds of a key, as its own record and for others, also what is not
// durable yet: what a mint with Mint.HintFor is made upon. The zero Set where there is nothing. Errors are those of Read.
func (st *Stepper) NewestHeld(key []byte) (causal.Set, error) {
	s := st.c.store
	p, err := s.find(key)
	if err != nil {
		return causal.Set{}, err
	}
	defer p.release()
	l, err := s.acquire()
	if err != nil {
		return causal.Set{}, err
	}
	defer l.gate.RUnlock()
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	set, _, _, err := s.held(l, p)
	return set, err
}

// Close commits what is queued and closes the engine. See Store.Close.
func (st *Stepper) Close() error {
	s := st.c.store
	select {
	case <-s.done:
		return s.closeErr
	default:
	}
	st.c.finish()
	close(s.done)
	if errors.Is(s.closeErr, engine.ErrClosed) {
		return nil // the engine was closed under the store, as by a power cut
	}
	return s.closeErr
}
