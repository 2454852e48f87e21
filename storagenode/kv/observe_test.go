package kv

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// witness is an observer that keeps the digest of every key, and insists that each change begins where the last ended.
type witness struct {
	t       testing.TB
	mu      sync.Mutex
	digests map[string]record.Digest
	unsure  map[string]bool
	changes int
	all     bool // everything is in doubt
}

func newWitness(t testing.TB) *witness {
	return &witness{t: t, digests: map[string]record.Digest{}, unsure: map[string]bool{}}
}

func (w *witness) Committed(changes []Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		w.changes++
		if !w.unsure[string(c.Key)] && w.digests[string(c.Key)] != c.Before {
			w.t.Errorf("a change of %q begins with %x, the last ended with %x", c.Key, c.Before, w.digests[string(c.Key)])
		}
		if c.Hash != ring.Hash(c.Key) || c.Before == c.Now {
			w.t.Errorf("change %+v", c)
		}
		w.digests[string(c.Key)] = c.Now
		delete(w.unsure, string(c.Key))
	}
}

func (w *witness) InDoubt(changes []Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = w.all || changes == nil
	for _, c := range changes {
		w.unsure[string(c.Key)] = true
	}
}

// sees scans all of the store, and insists that it holds what was reported, but for keys in doubt.
func (w *witness) sees(s *Store) {
	w.t.Helper()
	var want map[string]record.Digest
	got := map[string]record.Digest{}
	err := s.ScanObserved(ring.Range{From: 0, To: ring.Slots}, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		want = maps.Clone(w.digests)
		maps.DeleteFunc(want, func(k string, _ record.Digest) bool { return w.unsure[k] })
	}, func(key, rec []byte) error {
		d, err := record.DigestOf(rec)
		got[string(key)] = d
		return err
	})
	if err != nil {
		w.t.Error(err)
		return
	}
	for k, d := range want {
		if got[k] != d {
			w.t.Errorf("%q has %x, reported was %x", k, got[k], d)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range got {
		if _, known := want[k]; !known && !w.unsure[k] && w.digests[k] == (record.Digest{}) {
			w.t.Errorf("%q was never reported", k)
		}
	}
}

// An exact scan shows what was reported and nothing else, whatever is written meanwhile.
func TestObservedIsWhatScansSee(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		w := newWitness(t)
		s := open(t, opener, func(c *Config) { c.Observer = w; c.BatchMaxItems = 16 })
		var writers sync.WaitGroup
		for n := range 4 {
			writers.Go(func() {
				rnd := newRand(uint64(n))
				var last *outcome
				for i := range 500 {
					key := fmt.Sprintf("key-%d", rnd.IntN(40))
					last = newOutcome(t)
					if rnd.IntN(2) == 0 {
						if _, err := s.Mint(write(key, fmt.Sprint(n, i)), last.mint); err != nil {
							t.Error(err)
							return
						}
						continue
					}
					rec := foreign(key, "x", dotOf(byte(1+rnd.IntN(3)), uint64(1+rnd.IntN(20))))
					if err := s.Apply([]byte(key), rec, last.apply); err != nil {
						t.Error(err)
						return
					}
				}
				last.wait()
			})
		}
		ended := make(chan struct{})
		go func() { writers.Wait(); close(ended) }()
		for scanning := true; scanning; {
			select {
			case <-ended:
				scanning = false
			default:
			}
			w.sees(s)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.changes < 1000 || w.all || len(w.unsure) != 0 {
			t.Errorf("%d changes reported, %d in doubt", w.changes, len(w.unsure))
		}
	})
}

// A write that changes nothing is not reported, nor is node state.
func TestObserverHearsOfChangesAlone(t *testing.T) {
	w := newWitness(t)
	s := open(t, memory.NewStore().Open, func(c *Config) { c.Observer = w })
	rec := foreign("key", "value", dotOf(1, 1))
	mustApply(t, s, "key", rec)
	mustApply(t, s, "key", rec)
	o := newOutcome(t)
	if err := s.PutMeta("name", []byte("value"), o.mint); err != nil {
		t.Fatal(err)
	}
	o.wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changes != 1 {
		t.Errorf("%d changes reported", w.changes)
	}
}

// A batch that fails is in doubt, whether the engine took it or not, and what follows is reported upon what is there.
func TestFailedBatchIsInDoubt(t *testing.T) {
	for _, effect := range []bool{false, true} {
		t.Run(fmt.Sprint("effect ", effect), func(t *testing.T) {
			h := newHooks()
			w := newWitness(t)
			s := open(t, h.opener(memory.NewStore().Open), func(c *Config) { c.Observer = w })
			mustMint(t, s, write("before", "1"))
			h.set(func(h *hooks) { h.applyErr, h.effect = errInjected, effect })
			o := newOutcome(t)
			if _, err := s.Mint(write("lost", "1"), o.mint); err != nil {
				t.Fatal(err)
			}
			if _, err := o.wait(); err == nil {
				t.Fatal("the injected failure was not met")
			}
			w.mu.Lock()
			if !w.unsure["lost"] || w.unsure["before"] || w.all {
				t.Errorf("in doubt: %v, all %v", w.unsure, w.all)
			}
			w.mu.Unlock()
			eventually(t, "open again", func() bool { return s.Stats().Available })
			mustMint(t, s, write("before", "2"))
			mustMint(t, s, write("after", "1"))
			w.sees(s)
		})
	}
}
