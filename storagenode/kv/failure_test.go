package kv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// waitOpen waits until the store has reopened its engine n times.
func waitOpen(t testing.TB, s *Store, n uint64) {
	t.Helper()
	eventually(t, "reopening", func() bool {
		st := s.Stats()
		return st.Reopenings >= n && st.Available
	})
}

// All that is in flight when a commit fails is in doubt, forgotten, and never named by the same dot again, whether the
// failed batch reached the disk or not.
func TestFailedCommit(t *testing.T) {
	for _, effect := range []bool{false, true} {
		t.Run(fmt.Sprintf("effect=%t", effect), func(t *testing.T) {
			eachEngine(t, func(t *testing.T, opener engine.Opener) {
				h := newHooks()
				s := open(t, h.opener(opener), func(c *Config) { c.BatchMaxItems = 10 })
				dots := map[causal.Dot]bool{}
				note := func(out Minted) {
					if dots[out.Dot] {
						t.Errorf("dot %s was issued twice", out.Dot)
					}
					dots[out.Dot] = true
				}
				note(mustMint(t, s, write("k", "durable")))
				for round := range 5 {
					before, actor := mustRead(t, s, "k"), s.Actor()
					release := h.hold()
					var outs []*outcome
					for i := range 30 {
						o := newOutcome(t)
						out, err := s.Mint(write("k", fmt.Sprint("lost ", round, i)), o.mint)
						if err != nil {
							t.Fatal(err)
						}
						note(out)
						outs = append(outs, o)
					}
					meta, applied := newOutcome(t), newOutcome(t)
					if err := s.PutMeta("m", []byte{1}, meta.mint); err != nil {
						t.Fatal(err)
					}
					if err := s.Apply([]byte("a"), foreign("a", "v", dotOf(1, uint64(round+1))), applied.apply); err != nil {
						t.Fatal(err)
					}
					h.set(func(h *hooks) { h.applyErr, h.effect = errInjected, effect })
					release()
					for _, o := range append(outs, meta, applied) {
						if changed, err := o.wait(); !errors.Is(err, ErrInDoubt) || changed {
							t.Fatalf("in flight: %v %v", changed, err)
						}
					}
					waitOpen(t, s, uint64(round+1))
					if s.Actor() == actor {
						t.Fatal("the actor is the same after a reopening")
					}
					if !effect && !bytes.Equal(mustRead(t, s, "k"), before) {
						t.Fatal("a read shows what was not committed")
					}
					next := mustMint(t, s, write("k", fmt.Sprint("after ", round)))
					note(next)
					if next.Dot.Actor == actor || next.Dot.Actor != s.Actor() {
						t.Fatalf("minted with %s", next.Dot.Actor)
					}
					for dot := range dots {
						if !effect && dot.Actor == actor && decode(t, "k", next.Record).Clock.Covers(dot) && !decode(t, "k", before).Clock.Covers(dot) {
							t.Fatalf("the clock claims the forgotten dot %s", dot)
						}
					}
				}
				if st := s.Stats(); st.QueueItems != 0 || st.QueueBytes != 0 {
					t.Fatalf("room in the queue is lost: %+v", st)
				}
			})
		})
	}
}

// While the engine is away, everything is refused at once; attempts to open it again go on.
func TestReopening(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	mustMint(t, s, write("k", "v"))
	h.set(func(h *hooks) { h.applyErr, h.openErr = errInjected, errInjected })
	o := newOutcome(t)
	if _, err := s.Mint(write("k", "w"), o.mint); err != nil {
		t.Fatal(err)
	}
	if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
		t.Fatal(err)
	}
	_, mintErr := s.Mint(write("k", "x"), nil)
	_, readErr := s.Read([]byte("k"))
	_, metaErr := s.GetMeta("m")
	for what, err := range map[string]error{
		"mint": mintErr, "read": readErr, "get meta": metaErr,
		"apply":    s.Apply([]byte("k"), foreign("k", "v", dotOf(1, 1)), nil),
		"put meta": s.PutMeta("m", nil, nil),
		"scan":     s.Scan(ring.Range{To: ring.Slots}, nil, nil),
	} {
		if !errors.Is(err, ErrReopening) {
			t.Errorf("%s while reopening: %v", what, err)
		}
	}
	h.set(func(h *hooks) { h.openErr = nil })
	waitOpen(t, s, 1)
	if got := values(t, "k", mustRead(t, s, "k")); !slices.Equal(got, []string{"v"}) {
		t.Fatalf("values are %q", got)
	}
}

func TestCloseWhileReopening(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), func(c *Config) { c.ReopenMaxDelay = time.Hour })
	h.set(func(h *hooks) { h.applyErr, h.openErr = errInjected, errInjected })
	o := newOutcome(t)
	if _, err := s.Mint(write("k", "w"), o.mint); err != nil {
		t.Fatal(err)
	}
	if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read([]byte("k")); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// A commit that fails while the store is closing is told, and Close says so.
func TestCloseWithAFailure(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	release := h.hold()
	first := newOutcome(t)
	if _, err := s.Mint(write("k", "v"), first.mint); err != nil {
		t.Fatal(err)
	}
	receive(t, h.entered) // it is being committed; what comes now is left for the end
	rest := newOutcome(t)
	if _, err := s.Mint(write("k", "w"), rest.mint); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	eventually(t, "refusal", func() bool { return errors.Is(s.PutMeta("m", nil, nil), ErrClosed) })
	h.set(func(h *hooks) { h.applyErr = errInjected })
	release()
	for _, o := range []*outcome{first, rest} {
		if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
			t.Fatal(err)
		}
	}
	<-closed
}

// A scan that goes on does not keep a failed engine open.
func TestScanEndsWhenTheEngineFails(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s := open(t, h.opener(opener), nil)
		for i := range 10 {
			mustMint(t, s, write(fmt.Sprint("k", i), "v"))
		}
		begun, failed, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			seen := 0
			ended <- s.Scan(ring.Range{To: ring.Slots}, nil, func(_, _ []byte) (bool, error) {
				if seen++; seen == 1 {
					close(begun)
					<-failed
				}
				return true, nil
			})
		}()
		receive(t, begun)
		h.set(func(h *hooks) { h.applyErr = errInjected })
		o := newOutcome(t)
		if _, err := s.Mint(write("k", "w"), o.mint); err != nil {
			t.Fatal(err)
		}
		eventually(t, "refusal", func() bool { return !s.Stats().Available })
		close(failed)
		if err := <-ended; !errors.Is(err, ErrReopening) {
			t.Fatalf("the scan ended with %v", err)
		}
		if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
			t.Fatal(err)
		}
		waitOpen(t, s, 1)
	})
}

func TestDiskFullOfADisk(t *testing.T) {
	d := enginetest.NewDisk()
	s := open(t, onDisk(d), nil)
	mustMint(t, s, write("k", "before"))
	d.SetCapacity(d.Used() + 20_000)
	acked := map[string]bool{"before": true}
	full := false
	for i := 0; i < 1000 && !full; i++ {
		key := fmt.Sprint("k", i)
		o := newOutcome(t)
		_, err := s.Mint(write(key, string(make([]byte, 5000))), o.mint)
		if err == nil {
			_, err = o.wait()
		}
		switch {
		case err == nil:
			acked[key] = true
		case errors.Is(err, ErrInDoubt) && errors.Is(err, syscall.ENOSPC):
			full = true
		default:
			t.Fatalf("a write on a full disk: %v", err)
		}
	}
	if !full {
		t.Fatal("the disk never was full")
	}
	if _, err := s.Mint(write("k", "refused"), nil); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("a write while the disk is full: %v", err)
	}
	if err := s.Apply([]byte("k"), foreign("k", "v", dotOf(1, 1)), nil); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("an apply while the disk is full: %v", err)
	}
	d.SetCapacity(0)
	eventually(t, "room", func() bool { return !s.Stats().DiskFull })
	mustMint(t, s, write("k", "after"))
	delete(acked, "before")
	for key := range acked {
		mustRead(t, s, key)
	}
}

// While a disk is full the engine meets only the probes, and reads go on.
func TestDiskFullProbes(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	mustMint(t, s, write("k", "v"))
	h.set(func(h *hooks) { h.writeErr = fmt.Errorf("write: %w", syscall.ENOSPC) })
	o := newOutcome(t)
	if _, err := s.Mint(write("k", "w"), o.mint); err != nil {
		t.Fatal(err)
	}
	if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
		t.Fatal(err)
	}
	waitOpen(t, s, 3) // each failed probe is a failed write
	if _, err := s.Mint(write("k", "x"), nil); !errors.Is(err, ErrDiskFull) {
		t.Fatal(err)
	}
	eventually(t, "a read between probes", func() bool {
		rec, err := s.Read([]byte("k"))
		return err == nil && slices.Equal(values(t, "k", rec), []string{"v"})
	})
	h.set(func(h *hooks) { h.writeErr = nil })
	eventually(t, "room", func() bool { return !s.Stats().DiskFull })
	mustMint(t, s, write("k", "y"))
}

// Config.Room refuses writes before the engine fails, and costs no reopening.
func TestNoRoom(t *testing.T) {
	var mu sync.Mutex
	var room error
	s := open(t, memory.NewStore().Open, func(c *Config) {
		c.Room = func() error {
			mu.Lock()
			defer mu.Unlock()
			return room
		}
	})
	set := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		room = err
	}
	actor := mustMint(t, s, write("k", "v")).Dot.Actor
	set(errors.New("little room"))
	eventually(t, "refusal", func() bool {
		_, err := s.Mint(write("k", "v"), nil)
		return errors.Is(err, ErrDiskFull)
	})
	mustRead(t, s, "k")
	set(nil)
	eventually(t, "room", func() bool { return !s.Stats().DiskFull })
	if mustMint(t, s, write("k", "w")).Dot.Actor != actor || s.Stats().Reopenings != 0 {
		t.Fatal("the engine was reopened")
	}
}

func TestFailedReadIsNotAbsence(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s := open(t, h.opener(opener), uncached)
		before := mustMint(t, s, write("k", "v")).Record
		h.set(func(h *hooks) { h.getErr = &engine.Damage{Err: errInjected} })
		if _, err := s.Mint(write("k", "w"), nil); !errors.Is(err, engine.ErrDamaged) {
			t.Fatalf("a mint over a failed read: %v", err)
		}
		if err := s.Apply([]byte("k"), foreign("k", "x", dotOf(1, 1)), nil); !errors.Is(err, engine.ErrDamaged) {
			t.Fatalf("an apply over a failed read: %v", err)
		}
		if _, err := s.Read([]byte("k")); !errors.Is(err, engine.ErrDamaged) || errors.Is(err, ErrNotFound) {
			t.Fatalf("a failed read: %v", err)
		}
		h.set(func(h *hooks) { h.getErr = nil })
		mustMint(t, s, write("other", "v"))
		if !bytes.Equal(mustRead(t, s, "k"), before) {
			t.Fatal("a failed read changed the record")
		}
	})
}

// A record that is damaged in the engine, header or value, is neither served nor minted upon.
func TestDamagedRecord(t *testing.T) {
	st := memory.NewStore()
	var eng engine.Engine
	s := open(t, func() (engine.Engine, error) {
		e, err := st.Open()
		eng = e
		return e, err
	}, uncached)
	rec := mustMint(t, s, write("k", "value")).Record
	p, err := s.find([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	for at := range rec {
		bad := slices.Clone(rec)
		bad[at] ^= 0x10
		var b engine.Batch
		b.Put(p.disk, bad)
		if err := eng.Apply(&b, true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read([]byte("k")); !errors.Is(err, engine.ErrDamaged) {
			t.Fatalf("read with byte %d damaged: %v", at, err)
		}
		if _, err := s.Mint(write("k", "w"), nil); !errors.Is(err, engine.ErrDamaged) {
			t.Fatalf("mint with byte %d damaged: %v", at, err)
		}
		err := s.Scan(ring.Range{To: ring.Slots}, nil, func(_, _ []byte) (bool, error) {
			t.Error("a scan showed a damaged record")
			return true, nil
		})
		if !errors.Is(err, engine.ErrDamaged) {
			t.Fatalf("scan with byte %d damaged: %v", at, err)
		}
	}
}

// fixedRand always draws the same first actor, as a machine restored from a snapshot might.
type fixedRand struct {
	mu    sync.Mutex
	draws byte
}

func (r *fixedRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p {
		p[i] = r.draws
	}
	r.draws++
	return len(p), nil
}

// A counter of the own actor that was never issued means a new actor at once, wherever it shows up.
func TestOwnUnknownCounter(t *testing.T) {
	actor := causal.Actor(bytes.Repeat([]byte{1}, 16)) // the seed takes the first draw
	unknown := causal.Dot{Actor: actor, Counter: 5}
	ways := map[string]func(t *testing.T, s *Store){
		"record": func(t *testing.T, s *Store) { mustApply(t, s, "k", foreign("k", "v", unknown)) },
		"clock of a record": func(t *testing.T, s *Store) {
			mustApply(t, s, "k", foreign("k", "v", dotOf(9, 1), unknown))
		},
		"context": func(t *testing.T, s *Store) {
			m := write("k", "v")
			m.Context = &causal.Context{Vector: causal.Vector{unknown}}
			mustMint(t, s, m)
		},
		"dot of a context": func(t *testing.T, s *Store) {
			m := write("k", "v")
			m.Context = &causal.Context{Dots: []causal.Dot{unknown}}
			if _, err := s.Mint(m, nil); !errors.Is(err, ErrBehind) {
				t.Fatal(err)
			}
		},
		"base": func(t *testing.T, s *Store) {
			m := write("k", "v")
			m.Base = foreign("k", "base", unknown)
			mustMint(t, s, m)
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			s := open(t, memory.NewStore().Open, func(c *Config) { c.Rand = &fixedRand{} })
			first := mustMint(t, s, write("q", "v"))
			if first.Dot.Actor != actor {
				t.Fatalf("the first actor is %s", first.Dot.Actor)
			}
			mustApply(t, s, "q", slices.Clone(first.Record)) // a known counter
			if s.Actor() != actor {
				t.Fatal("took a new actor for a counter it had issued")
			}
			way(t, s)
			if s.Actor() == actor {
				t.Fatal("kept the actor")
			}
			if out := mustMint(t, s, write("q", "w")); out.Dot.Actor == actor {
				t.Fatal("minted with the old actor")
			}
		})
	}
	t.Run("local record", func(t *testing.T) {
		st := memory.NewStore()
		s := open(t, st.Open, nil)
		mustApply(t, s, "k", foreign("k", "v", unknown))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, st.Open, func(c *Config) { c.Rand = &fixedRand{} })
		if out := mustMint(t, s, write("k", "w")); out.Dot.Actor == actor {
			t.Fatal("minted with an actor whose counters are on the disk already")
		}
	})
}

// brokenRand draws the seed and one actor, and then nothing until it is mended.
type brokenRand struct {
	mu     sync.Mutex
	left   int
	mended bool
}

func (r *brokenRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left--; r.left < 0 && !r.mended {
		return 0, io.ErrUnexpectedEOF
	}
	for i := range p {
		p[i] = byte(r.left)
	}
	return len(p), nil
}

// Without a new actor there is no dot, rather than one of the old.
func TestNoActorNoDot(t *testing.T) {
	r := &brokenRand{left: 2}
	s := open(t, memory.NewStore().Open, func(c *Config) { c.Rand = r })
	first := mustMint(t, s, write("k", "v"))
	mustApply(t, s, "k", foreign("k", "v", causal.Dot{Actor: first.Dot.Actor, Counter: 99}))
	if _, err := s.Mint(write("k", "w"), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a mint without an actor: %v", err)
	}
	r.mu.Lock()
	r.mended = true
	r.mu.Unlock()
	if out := mustMint(t, s, write("k", "w")); out.Dot.Actor == first.Dot.Actor {
		t.Fatal("minted with the old actor")
	}
}

// An engine that failed in the background is reopened although nobody writes.
func TestBackgroundFailure(t *testing.T) {
	st := memory.NewStore()
	var mu sync.Mutex
	var current *failing
	s := open(t, func() (engine.Engine, error) {
		e, err := st.Open()
		mu.Lock()
		defer mu.Unlock()
		current = &failing{Engine: e}
		return current, err
	}, nil)
	actor := s.Actor()
	mu.Lock()
	current.set(errInjected)
	mu.Unlock()
	waitOpen(t, s, 1)
	if s.Actor() == actor {
		t.Fatal("the actor is the same after a reopening")
	}
}

type failing struct {
	engine.Engine
	mu  sync.Mutex
	err error
}

func (e *failing) set(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

func (e *failing) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// One failed fsync of the log, at every place in a run: no acknowledged write is lost, now or after a restart.
func TestFailedSyncOfTheLog(t *testing.T) {
	for skip := range 12 {
		d := enginetest.NewDisk()
		s := open(t, onDisk(d), nil)
		d.Inject(&enginetest.Fault{Op: enginetest.OpSync, Types: storage.TypeJournal, Skip: skip, Times: 1, Err: enginetest.ErrOffline})
		acked := map[string]bool{}
		for i := range 20 {
			key := fmt.Sprint("k", i)
			eventually(t, "the mint of "+key, func() bool {
				o := newOutcome(t)
				_, err := s.Mint(write(key, "v"), o.mint)
				if err == nil {
					_, err = o.wait()
				}
				return err == nil
			})
			acked[key] = true
		}
		if s.Stats().Reopenings != 1 {
			t.Fatalf("%d reopenings", s.Stats().Reopenings)
		}
		after := open(t, onDisk(d.Crash(enginetest.Discard, nil)), nil)
		for key := range acked {
			mustRead(t, after, key)
		}
	}
}

// Counts that cannot be read begin anew; the node starts.
func TestDamagedState(t *testing.T) {
	st := memory.NewStore()
	s := open(t, st.Open, nil)
	mustMint(t, s, write("k", "v"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := st.Open()
	if err != nil {
		t.Fatal(err)
	}
	var b engine.Batch
	b.Put(stateKey, []byte("nonsense"))
	if err := errors.Join(e.Apply(&b, true), e.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, st.Open, nil)
	mustRead(t, s, "k")
	if n := s.Stats().CommitNumber; n != 0 {
		t.Fatalf("commit number %d", n)
	}
}
