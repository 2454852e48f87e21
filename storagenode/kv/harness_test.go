package kv

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

func TestMain(m *testing.M) {
	// The library drains its buffer pool for up to a second after Close.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}

var errInjected = errors.New("injected failure")

// smallTree makes the engine flush and compact within a test.
func smallTree() leveldb.Options {
	o := leveldb.Default()
	o.WriteBuffer, o.TableSize, o.Level1Size, o.BlockCache = 1<<20, 1<<20, 4<<20, 1<<20
	return o
}

// eachEngine runs a test on both engines.
func eachEngine(t *testing.T, run func(t *testing.T, open engine.Opener)) {
	t.Run("memory", func(t *testing.T) { run(t, memory.NewStore().Open) })
	t.Run("leveldb", func(t *testing.T) {
		o := smallTree()
		o.WriteBuffer = 8 << 20 // takes a record of 3 MiB
		run(t, leveldb.Opener(t.TempDir(), o))
	})
}

// onDisk opens engines on a disk that can crash.
func onDisk(d *enginetest.Disk) engine.Opener {
	return func() (engine.Engine, error) {
		e, err := leveldb.OpenStorage(d.Mount(), smallTree())
		if err != nil {
			return nil, err // no typed nil
		}
		return e, nil
	}
}

// hooks is between a store and its engine: it holds batches back, and makes operations fail.
type hooks struct {
	mu       sync.Mutex
	gate     chan struct{} // Apply waits until it is closed
	takes    time.Duration // that each Apply takes
	entered  chan struct{} // gets one for each Apply that begins, as far as there is room
	applyErr error         // the next Apply fails with it, without or with effect
	effect   bool
	reading  chan struct{} // a Get of a record sends to it and then waits for getGate, if it is set
	getGate  chan struct{}
	getErr   error // every Get of a record fails with it
	openErr  error // every opening fails with it
	writeErr error // every write fails with it
	writes   int
	synced   int
}

func newHooks() *hooks { return &hooks{entered: make(chan struct{}, 1<<16)} }

func (h *hooks) opener(open engine.Opener) engine.Opener {
	return func() (engine.Engine, error) {
		h.mu.Lock()
		err := h.openErr
		h.mu.Unlock()
		if err != nil {
			return nil, err
		}
		e, err := open()
		if err != nil {
			return nil, err
		}
		return &hooked{Engine: e, h: h}, nil
	}
}

// set changes the hooks under their lock.
func (h *hooks) set(change func(h *hooks)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// hold makes every Apply wait until the result is called.
func (h *hooks) hold() (release func()) {
	gate := make(chan struct{})
	h.set(func(h *hooks) { h.gate = gate })
	return func() {
		h.set(func(h *hooks) { h.gate = nil })
		close(gate)
	}
}

type hooked struct {
	engine.Engine
	h       *hooks
	latched error // used by the committer alone
}

func (e *hooked) Get(key, dst []byte) ([]byte, error) {
	e.h.mu.Lock()
	err := e.h.getErr
	reading, gate := e.h.reading, e.h.getGate
	e.h.mu.Unlock()
	if key[0] != tagRecord {
		return e.Engine.Get(key, dst)
	}
	if reading != nil {
		reading <- struct{}{}
		<-gate
	}
	if err != nil {
		return dst, err
	}
	return e.Engine.Get(key, dst)
}

func (e *hooked) Apply(b *engine.Batch, sync bool) error {
	e.h.mu.Lock()
	gate, takes := e.h.gate, e.h.takes
	e.h.mu.Unlock()
	if takes > 0 {
		<-time.After(takes)
	}
	select {
	case e.h.entered <- struct{}{}:
	default:
	}
	if gate != nil {
		<-gate
	}
	e.h.mu.Lock()
	err, effect := e.h.applyErr, e.h.effect
	e.h.applyErr = nil
	if e.latched == nil {
		e.latched = e.h.writeErr
	}
	if e.latched != nil {
		err, effect = e.latched, false
	}
	e.h.writes++
	if sync {
		e.h.synced++
	}
	e.h.mu.Unlock()
	if err == nil || effect {
		if applyErr := e.Engine.Apply(b, sync); applyErr != nil {
			return applyErr
		}
	}
	if err != nil {
		e.latched = err
	}
	return err
}

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.UnixMilli(1_700_000_000_000)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// open opens a store that is closed with the test; change may be nil.
func open(t testing.TB, opener engine.Opener, change func(*Config)) *Store {
	t.Helper()
	s, err := tryOpen(opener, change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a test that cares closes it itself
	return s
}

func tryOpen(opener engine.Opener, change func(*Config)) (*Store, error) {
	cfg := Default()
	cfg.Open = opener
	cfg.CheckEvery = 5 * time.Millisecond
	cfg.ReopenMaxDelay = 20 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	return Open(cfg)
}

// uncached makes every read one of the engine.
func uncached(c *Config) { c.CacheBytes = 0 }

const patience = time.Minute

// outcome collects what a callback is told; a second call fails the test.
type outcome struct {
	t       testing.TB
	mu      sync.Mutex
	calls   int
	changed bool
	err     error
	done    chan struct{}
}

func newOutcome(t testing.TB) *outcome { return &outcome{t: t, done: make(chan struct{})} }

func (o *outcome) mint(err error) { o.apply(false, err) }

func (o *outcome) apply(changed bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls++; o.calls > 1 {
		o.t.Errorf("callback called %d times, now with %v", o.calls, err)
		return
	}
	o.changed, o.err = changed, err
	close(o.done)
}

// wait returns what the callback was told.
func (o *outcome) wait() (changed bool, err error) {
	o.t.Helper()
	receive(o.t, o.done)
	return o.changed, o.err
}

func (o *outcome) called() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

func receive(t testing.TB, from <-chan struct{}) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-from:
	case <-timer.C:
		t.Fatal("waited in vain")
	}
}

// eventually retries until ok, or the test fails. It yields by a timer, for conditions that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not in time", what)
		}
	}
}

func write(key, value string) Mint {
	return Mint{Key: []byte(key), Value: []byte(value), ContentType: "text/plain", Checksum: record.Checksum([]byte(value))}
}

func named(m Mint, id string, byClient bool, deadline time.Time) Mint {
	m.RequestID, m.ClientRequestID, m.Deadline = id, byClient, deadline
	return m
}

// mustMint mints and waits until the write is durable.
func mustMint(t testing.TB, s *Store, m Mint) Minted {
	t.Helper()
	o := newOutcome(t)
	out, err := s.Mint(m, o.mint)
	if err != nil {
		t.Fatalf("mint of %s: %v", m.Key, err)
	}
	if _, err := o.wait(); err != nil {
		t.Fatalf("mint of %s did not become durable: %v", m.Key, err)
	}
	return out
}

// mustApply applies, waits, and returns whether anything changed.
func mustApply(t testing.TB, s *Store, key string, rec []byte) bool {
	t.Helper()
	o := newOutcome(t)
	if err := s.Apply([]byte(key), rec, o.apply); err != nil {
		t.Fatalf("apply of %s: %v", key, err)
	}
	changed, err := o.wait()
	if err != nil {
		t.Fatalf("apply of %s did not become durable: %v", key, err)
	}
	return changed
}

func mustRead(t testing.TB, s *Store, key string) []byte {
	t.Helper()
	rec, err := s.Read([]byte(key))
	if err != nil {
		t.Fatalf("read of %s: %v", key, err)
	}
	return rec
}

func decode(t testing.TB, key string, rec []byte) causal.Set {
	t.Helper()
	set, err := record.Decode([]byte(key), rec)
	if err != nil {
		t.Fatalf("record of %s: %v", key, err)
	}
	return set
}

// values returns the values of a record's siblings, in their order.
func values(t testing.TB, key string, rec []byte) []string {
	t.Helper()
	var out []string
	for _, sib := range decode(t, key, rec).Siblings {
		out = append(out, string(sib.Value))
	}
	return out
}

// foreign makes a record as another node would mint it.
func foreign(key, value string, dot causal.Dot, others ...causal.Dot) []byte {
	v := causal.Vector{}.With(dot)
	for _, o := range others {
		v = v.With(o)
	}
	return record.Append(nil, []byte(key), causal.Set{Clock: v, Siblings: []causal.Sibling{{
		Dot: dot, Time: 1, ContentType: "text/plain", Checksum: record.Checksum([]byte(value)), Value: []byte(value),
	}}})
}

func dotOf(actor byte, counter uint64) causal.Dot {
	return causal.Dot{Actor: causal.Actor{actor}, Counter: counter}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
