package kv

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/storagenode/engine/memory"
)

// The queue against a plain list: order, bounds, numbering, and a wake-up whenever it stops being empty.
func TestQueueAgainstANaiveList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maxItems, maxBytes := rapid.IntRange(1, 8).Draw(t, "items"), rapid.IntRange(1, 400).Draw(t, "bytes")
		var q queue
		q.init(maxItems, maxBytes)
		var list, taken []*op
		bytes, seq := 0, uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				o := newOp([]byte("r"), make([]byte, rapid.IntRange(0, 200).Draw(t, "size")))
				o.stripe = &stripe{}
				inside := len(list) + len(taken)
				full := inside >= maxItems || inside > 0 && bytes+o.size() > maxBytes
				if err := q.push(o); errors.Is(err, ErrOverloaded) != full {
					t.Fatalf("%d items, %d bytes, %d more: %v", inside, bytes, o.size(), err)
				}
				if full {
					return
				}
				if len(list) == 0 && len(q.wake) == 0 {
					t.Fatal("nobody was woken")
				}
				if seq++; o.seq != seq {
					t.Fatalf("number %d, want %d", o.seq, seq)
				}
				list, bytes = append(list, o), bytes+o.size()
			},
			"take": func(t *rapid.T) {
				items, limit := rapid.IntRange(1, 4).Draw(t, "items"), rapid.IntRange(0, 300).Draw(t, "bytes")
				want, sum := 0, 0
				for want < len(list) && want < items {
					if sum += list[want].size(); want > 0 && sum > limit {
						break
					}
					want++
				}
				got := q.take(nil, items, limit)
				if len(got) != want {
					t.Fatalf("took %d, want %d", len(got), want)
				}
				for i := range got {
					if got[i] != list[i] {
						t.Fatal("out of order")
					}
				}
				list, taken = list[want:], append(taken, got...)
			},
			"settle": func(*rapid.T) {
				q.settled(taken)
				for _, o := range taken {
					bytes -= o.size()
				}
				taken = nil
			},
			"wait": func(*rapid.T) {
				select {
				case <-q.wake:
				default:
				}
				if len(list) > 0 { // whoever was woken takes all before it waits again
					taken, list = append(taken, q.take(nil, len(list), 1<<30)...), nil
				}
			},
			"": func(t *rapid.T) {
				if n, b := q.load(); n != len(list)+len(taken) || b != bytes {
					t.Fatalf("%d items, %d bytes, want %d, %d", n, b, len(list)+len(taken), bytes)
				}
			},
		})
	})
}

// Whatever was taken before Close is committed and told, however close the two are.
func TestCloseRacingWithMints(t *testing.T) {
	for round := range 300 {
		st := memory.NewStore()
		s := open(t, st.Open, nil)
		var mu sync.Mutex
		var outs []*outcome
		var keys []string
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				for i := 0; ; i++ {
					o, key := newOutcome(t), fmt.Sprint(round, g, i)
					_, err := s.Mint(write(key, "v"), o.mint)
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					outs, keys = append(outs, o), append(keys, key)
					mu.Unlock()
				}
			})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		for _, o := range outs {
			if !o.called() {
				t.Fatal("Close returned before the outcome of a write was told")
			}
			if _, err := o.wait(); err != nil {
				t.Fatal(err)
			}
		}
		s = open(t, st.Open, nil)
		for _, key := range keys {
			mustRead(t, s, key)
		}
	}
}

// A mint that was under way when Close began, and is queued after the committer stopped waiting, is committed too.
func TestCloseWaitsForWhatIsUnderWay(t *testing.T) {
	h, st := newHooks(), memory.NewStore()
	s := open(t, h.opener(st.Open), nil)
	h.set(func(h *hooks) { h.reading, h.getGate = make(chan struct{}), make(chan struct{}) })
	o, minted, closed := newOutcome(t), make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Mint(write("k", "v"), o.mint)
		minted <- err
	}()
	receive(t, h.reading)
	l := s.life.Load()
	go func() { closed <- s.Close() }()
	eventually(t, "the committer's end", func() bool {
		// A pending Lock of the gate keeps further readers out.
		if l.gate.TryRLock() {
			l.gate.RUnlock()
			return false
		}
		return true
	})
	close(h.getGate)
	if err := errors.Join(<-minted, <-closed); err != nil {
		t.Fatal(err)
	}
	if !o.called() {
		t.Fatal("Close returned before the outcome of a write was told")
	}
	if _, err := o.wait(); err != nil {
		t.Fatal(err)
	}
	mustRead(t, open(t, st.Open, nil), "k")
}

// Reads of a key that is slow to read do not hold up the commits of others in its stripe.
func TestSlowReadDoesNotHoldUpCommits(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	release := h.hold()
	first := newOutcome(t)
	if _, err := s.Mint(write("k", "v"), first.mint); err != nil {
		t.Fatal(err)
	}
	receive(t, h.entered)
	h.set(func(h *hooks) { h.reading, h.getGate = make(chan struct{}), make(chan struct{}) })
	p, err := s.find([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	other := ""
	for i := 0; other == ""; i++ { // another key of the stripe
		key := fmt.Sprint("other", i)
		q, err := s.find([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		if q.stripe == p.stripe {
			other = key
		}
		q.release()
	}
	second, minted := newOutcome(t), make(chan error, 1)
	go func() {
		_, err := s.Mint(write(other, "v"), second.mint)
		minted <- err
	}()
	receive(t, h.reading) // it holds the key's lock now
	release()
	if _, err := first.wait(); err != nil {
		t.Fatal(err)
	}
	close(h.getGate)
	if err := <-minted; err != nil {
		t.Fatal(err)
	}
	if _, err := second.wait(); err != nil {
		t.Fatal(err)
	}
}
