package kv

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/dotring/dotring/storagenode/engine"
)

const (
	reopenMinDelay = 10 * time.Millisecond
	// steadyAfter is how long an engine must have worked for the next failure to be met without delay.
	steadyAfter = 10 * time.Second
	// keepOps bounds what the committer keeps allocated between batches.
	keepOps = 4096
	// gatherFrom is how many writes come while a batch is committed where one that waits is in company: below it, nobody does.
	gatherFrom = 2
	// gatherItems is how many writes share a sync so well that waiting for more gains little.
	gatherItems = 32
)

// committer is the one goroutine that writes to the engine, closes it and opens it again, so that nothing can succeed
// behind a failed write. Its fields are its own.
type committer struct {
	store *Store
	life  *life // nil while the engine is closed
	state state
	// recountHints says that hints were dropped at the opening.
	recountHints bool
	ops          []*op
	batch        engine.Batch
	hints        []hintDelta // what the batch changes of the counts of hints
	stateBuf     [stateLen]byte
	line         *lines    // that the batch begins
	dirty        bool      // something was applied without a sync
	began        time.Time // when the last batch did
	arriving     float64   // how many writes came while it was committed, as far as it tells
	synced       time.Time
	checked      time.Time
	delay        time.Duration // before the last attempt to reopen
	// While the disk is full, a probe is due at probeAt; probeDelay grows with each that fails.
	probeAt    time.Time
	probeDelay time.Duration
}

// run commits until the store is closed.
func (c *committer) run() {
	s := c.store
	defer close(s.done)
	every := s.cfg.CheckEvery
	if s.cfg.Sync == SyncInterval {
		every = min(every, s.cfg.SyncEvery)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if c.life == nil && !c.reopen() {
			c.finish()
			return
		}
		select {
		case <-ticker.C:
			c.tick()
		default:
		}
		if c.life != nil {
			c.tend()
		}
		if c.life == nil {
			continue
		}
		if c.commitQueued() {
			continue
		}
		select {
		case <-s.queue.wake:
		case <-ticker.C:
			c.tick()
		case <-s.closing:
			c.finish()
			return
		}
	}
}

// commitQueued commits one batch of what is queued; false says that there was nothing.
func (c *committer) commitQueued() bool {
	s := c.store
	c.gather()
	c.ops = s.queue.take(c.ops[:0], s.cfg.BatchMaxItems, min(s.cfg.BatchMaxBytes, c.life.maxRecord))
	if len(c.ops) == 0 {
		return false
	}
	if c.ops[0].exec != nil {
		c.execute()
		return true
	}
	next := c.build()
	begin := time.Now()
	s.began.Store(int64(begin.Sub(s.opened)))
	err := c.write()
	took := time.Since(begin)
	c.arriving = arriving(len(c.ops), took, begin.Sub(c.began))
	c.began = begin
	s.metrics.commit(took, len(c.ops), c.batch.Size())
	if err == nil {
		err = c.applied(next)
	}
	if err != nil {
		c.fail(err)
		return true
	}
	c.settle(nil)
	return true
}

// arriving tells how many writes come while a batch is committed, from one that had so many, which came since the one before
// began, and took so long.
func arriving(writes int, took, since time.Duration) float64 {
	return float64(writes) * min(1, float64(took)/float64(max(since, 1)))
}

// gather lets writes come together before they are synced, while many are on their way: a sync costs the processor as much
// as dozens of writes, so that under load the pause is won back. It ends GatherFor after the last batch began, or as soon as
// gatherItems are there; so nobody waits longer than GatherFor. Where few would come while others are committed anyway, the
// machine is not that busy, and nobody waits.
func (c *committer) gather() {
	s := c.store
	if s.cfg.Sync != SyncAlways || c.arriving < gatherFrom {
		return
	}
	pause := time.Until(c.began.Add(s.cfg.GatherFor))
	if pause <= 0 {
		return
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for s.queue.items.Load() < gatherItems { // nothing that was taken is unsettled
		select {
		case <-s.queue.wake:
		case <-s.closing:
			return
		case <-timer.C:
			return
		}
	}
}

// execute does what the only one of c.ops asks for.
func (c *committer) execute() {
	refused, failed := c.ops[0].exec(c)
	if failed != nil {
		c.fail(failed)
		return
	}
	c.settle(refused)
}

// build fills the batch with c.ops and the state after them.
func (c *committer) build() state {
	next := c.state
	if slices.ContainsFunc(c.ops, func(o *op) bool { return !o.note }) {
		next.commits++
	}
	c.batch.Reset()
	c.hints = c.hints[:0]
	if next.commits > c.state.commits {
		c.nextLine(&c.batch)
	}
	last := c.ops[len(c.ops)-1].seq
	for _, o := range c.ops {
		next.keys += o.keysMore
		next.bytes += o.bytesMore
		if o.hint != nil {
			c.countHint(o.hint)
		}
		// A later write of the same key in the same batch contains this one, but for what it does to a mark.
		if newer := o.newer.Load(); newer != 0 && newer <= last && o.mark == keepMark {
			continue
		}
		o.put(&c.batch)
	}
	for _, d := range c.hints {
		t := c.store.hints.after(d)
		key, value := appendHintCount(t)
		if t.Count > 0 {
			c.batch.Put(key, value)
		} else {
			c.batch.Delete(key)
		}
	}
	c.batch.Put(stateKey, appendState(c.stateBuf[:0], next))
	return next
}

// countHint adds what a write changes to the sum of its target.
func (c *committer) countHint(d *hintDelta) {
	for i := range c.hints {
		if sum := &c.hints[i]; sum.target == d.target {
			sum.more += d.more
			sum.bytes += d.bytes
			sum.ops += d.ops
			return
		}
	}
	c.hints = append(c.hints, *d)
}

// applied takes note of a batch that the engine took, and syncs where that is due.
func (c *committer) applied(next state) error {
	s := c.store
	c.setState(next)
	c.lineBegan()
	s.batches.Add(1)
	if s.cfg.Sync == SyncAlways {
		s.synced.Store(next.commits)
		return nil
	}
	c.dirty = true
	if s.cfg.Sync == SyncInterval && time.Since(c.synced) >= s.cfg.SyncEvery {
		return c.sync()
	}
	return nil
}

func (c *committer) setState(next state) {
	c.state = next
	c.store.commits.Store(int64(next.commits))
	c.store.keys.Store(next.keys)
	c.store.bytes.Store(next.bytes)
	c.store.hints.commit(c.hints)
	c.hints = c.hints[:0]
}

func (c *committer) sync() error {
	c.synced = time.Now()
	if err := c.life.eng.Sync(); err != nil {
		return err
	}
	c.dirty = false
	c.store.synced.Store(c.state.commits)
	return nil
}

// settle ends the writes in c.ops: they stop being pending, their room in the queue is given back, and then, outside of
// all locks, everyone who waits for them is told, in the order of the queue.
func (c *committer) settle(outcome error) {
	s := c.store
	if outcome == nil {
		c.cacheCommitted()
	}
	for _, o := range c.ops {
		if o.stripe != nil {
			o.stripe.settle(o)
		}
		if outcome == nil && (o.mark == clearMark || o.mark == dropMark) {
			s.marks.Add(-1)
		}
		if outcome != nil && o.named {
			s.requests.forget(o.request, o.dot)
		}
	}
	s.queue.settled(c.ops)
	for _, o := range c.ops {
		o.call.run(outcome)
		for _, w := range o.waiters {
			w.run(outcome)
		}
	}
	clear(c.ops)
	if c.ops = c.ops[:0]; cap(c.ops) > keepOps {
		c.ops = nil
	}
}

// cacheCommitted has the cache hold what was committed, before it leaves what is pending and anyone is told.
func (c *committer) cacheCommitted() {
	last := c.ops[len(c.ops)-1].seq
	for _, o := range c.ops {
		if o.exec != nil || o.disk[0] != tagRecord {
			continue
		}
		if newer := o.newer.Load(); newer == 0 || newer > last {
			c.life.cache.put(o)
		}
	}
}

// fail is what a crash would be, without one: the engine may or may not hold the failed batch, and goleveldb would lose
// what is written behind it. Nobody may use this life any more; all that is in flight is in doubt and forgotten.
func (c *committer) fail(cause error) {
	s := c.store
	s.metrics.failures.Inc()
	if errors.Is(cause, syscall.ENOSPC) {
		c.setFull(cause)
	}
	s.withdraw(false)
	c.life.retire()
	c.ops = s.queue.take(c.ops, math.MaxInt, math.MaxInt)
	s.cfg.Logger.Error().Err(cause).Int("in_flight", len(c.ops)).
		Msg("a write to the engine failed: all writes in flight are in doubt, and the engine is reopened")
	c.settle(fmt.Errorf("%w: %w", ErrInDoubt, cause))
	if time.Since(c.life.opened) > steadyAfter {
		c.delay = 0
	}
	if s.full.Load() {
		c.delay = 0 // no write but the next probe can fail this again, and reads wait for the engine
	}
	c.shut(cause)
}

// reopen opens the engine again, however long that takes; false says that the store is being closed.
func (c *committer) reopen() bool {
	s := c.store
	for {
		if c.delay > 0 {
			timer := time.NewTimer(c.delay)
			select {
			case <-timer.C:
			case <-s.closing:
				timer.Stop()
				return false
			}
		}
		c.delay = min(max(2*c.delay, reopenMinDelay), s.cfg.ReopenMaxDelay)
		select {
		case <-s.closing:
			return false
		default:
		}
		err := c.open()
		if err == nil {
			s.reopenings.Add(1)
			s.metrics.reopenings.Inc()
			s.cfg.Logger.Info().Stringer("actor", s.Actor()).Msg("the engine is open again, with a new actor")
			return true
		}
		if errors.Is(err, ErrClosed) {
			return false
		}
		if errors.Is(err, syscall.ENOSPC) {
			c.setFull(err)
		}
		s.cfg.Logger.Error().Err(err).Dur("retry_after", c.delay).Msg("reopening the engine failed")
	}
}

// open starts a new life.
func (c *committer) open() error {
	s := c.store
	eng, err := s.cfg.Open()
	if err != nil {
		return fmt.Errorf("kv: opening the engine: %w", err)
	}
	l := &life{
		eng: eng, maxRecord: eng.MaxBatch() - opSize(len(stateKey), stateLen), opened: time.Now(),
		rand: s.cfg.Rand, logger: s.cfg.Logger, metrics: s.metrics, cache: newCache(s.cfg.CacheBytes),
	}
	l.fallback.stale = true // drawn when it is needed
	next, fresh, err := c.load(eng)
	if err == nil {
		err = c.loadDoubts(eng, fresh, &next)
	}
	if err == nil {
		err = c.loadHints(eng)
	}
	if err == nil {
		err = s.countMarks(eng)
	}
	if err == nil {
		err = l.renew(&l.own)
	}
	if err != nil {
		return errors.Join(err, eng.Close())
	}
	// A salvage may have cut out the newest state; in one life of the process it is known.
	next.commits = max(next.commits, c.state.commits)
	c.setState(next)
	c.life, c.dirty, c.synced, c.checked = l, false, l.opened, l.opened
	c.probeAt = l.opened.Add(c.probeDelay)
	if !s.publish(l) {
		return ErrClosed // finish closes the engine
	}
	return nil
}

// load reads the state. Counts are not worth a node that does not start: damaged ones begin anew, which others that
// remember the commit number notice, as they should.
func (c *committer) load(eng engine.Engine) (next state, fresh bool, err error) {
	b, err := eng.Get(stateKey, nil)
	if errors.Is(err, engine.ErrNotFound) {
		return state{}, true, nil
	}
	if err == nil {
		next, err = decodeState(b)
	}
	if errors.Is(err, engine.ErrDamaged) || errors.Is(err, errState) {
		c.store.cfg.Logger.Error().Err(err).Msg("the store's counts are damaged and begin anew")
		return state{}, false, nil
	}
	if err != nil {
		return state{}, false, fmt.Errorf("kv: reading the store's state: %w", err)
	}
	return next, false, nil
}

// loadHints counts the hints that the engine holds, and forgets those of the life before that were queued.
func (c *committer) loadHints(eng engine.Engine) error {
	durable, err := c.store.readHintCounts(eng, c.recountHints)
	if err != nil {
		return err
	}
	c.recountHints = false
	c.hints = c.hints[:0]
	c.store.hints.reset(durable)
	return nil
}

// tick does what is due now and then: the sync of SyncInterval, the engine's own failures, room on the disk.
func (c *committer) tick() {
	s := c.store
	if c.dirty && s.cfg.Sync == SyncInterval && time.Since(c.synced) >= s.cfg.SyncEvery {
		if err := c.sync(); err != nil {
			c.fail(err)
			return
		}
	}
	if time.Since(c.checked) < s.cfg.CheckEvery {
		return
	}
	c.checked = time.Now()
	if err := c.life.eng.Err(); err != nil {
		c.fail(err)
		return
	}
	if s.cfg.Room != nil {
		if err := s.cfg.Room(); err != nil {
			c.setFull(err)
			return
		}
	}
	if s.full.Load() && !time.Now().Before(c.probeAt) {
		c.probe()
	}
}

func (c *committer) setFull(cause error) {
	if !c.store.full.Swap(true) {
		c.probeDelay = c.store.cfg.CheckEvery
		c.probeAt = time.Now().Add(c.probeDelay)
		c.store.cfg.Logger.Error().Err(cause).Msg("the disk is full: writes are refused")
	}
}

// probe finds out with a small synced write whether a full disk has room again. If not, the engine has to be reopened,
// which takes it from readers for a moment: so the next probe waits longer.
func (c *committer) probe() {
	if err := c.putState(c.state, nil); err != nil {
		c.probeDelay = min(2*c.probeDelay, max(c.store.cfg.ReopenMaxDelay, c.store.cfg.CheckEvery))
		c.fail(err)
		return
	}
	c.store.full.Store(false)
	c.store.cfg.Logger.Info().Msg("the disk has room again: writes are taken")
}

// finish commits what is left and closes the engine.
func (c *committer) finish() {
	s := c.store
	s.withdraw(true)
	var err error
	if c.life != nil {
		c.life.retire()
		err = c.drain()
		if closeErr := c.life.eng.Close(); err == nil {
			err = closeErr
		}
		c.life = nil
	}
	s.metrics.unregister()
	if err != nil {
		s.closeErr = fmt.Errorf("kv: closing: %w", err)
	}
}

// drain commits the rest of the queue, and syncs. At the first error the rest is in doubt.
func (c *committer) drain() error {
	s := c.store
	for {
		c.ops = s.queue.take(c.ops[:0], s.cfg.BatchMaxItems, min(s.cfg.BatchMaxBytes, c.life.maxRecord))
		if len(c.ops) == 0 {
			break
		}
		if c.ops[0].exec != nil {
			c.settle(ErrReopening)
			continue
		}
		next := c.build()
		if err := c.write(); err != nil {
			c.ops = s.queue.take(c.ops, math.MaxInt, math.MaxInt)
			c.settle(fmt.Errorf("%w: %w", ErrInDoubt, err))
			return err
		}
		c.setState(next)
		c.lineBegan()
		s.batches.Add(1)
		c.dirty = c.dirty || s.cfg.Sync != SyncAlways
		c.settle(nil)
	}
	if c.dirty {
		return c.sync()
	}
	return nil
}
