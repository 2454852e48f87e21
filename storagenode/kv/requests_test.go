package kv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

func TestRepeatBeforeAndAfterDurable(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s := open(t, h.opener(opener), nil)
		release := h.hold()
		m := named(write("k", "v"), "request-1", true, time.Time{})
		first, second := newOutcome(t), newOutcome(t)
		one, err := s.Mint(m, first.mint)
		if err != nil {
			t.Fatal(err)
		}
		two, err := s.Mint(m, second.mint)
		if err != nil {
			t.Fatal(err)
		}
		if one.Repeated || !two.Repeated || one.Dot != two.Dot || !bytes.Equal(one.Record, two.Record) {
			t.Fatalf("first %v, repeat %v", one.Dot, two.Dot)
		}
		if second.called() {
			t.Fatal("the repeat was durable before the write was")
		}
		other, err := s.Mint(named(write("k2", "v"), "request-1", true, time.Time{}), func(error) {})
		if err != nil || other.Repeated {
			t.Fatalf("the same id for another key: %+v %v", other, err)
		}
		release()
		for _, o := range []*outcome{first, second} {
			if _, err := o.wait(); err != nil {
				t.Fatal(err)
			}
		}
		third := newOutcome(t)
		three, err := s.Mint(m, third.mint)
		if err != nil || three.Dot != one.Dot || !three.Repeated || !third.called() {
			t.Fatalf("a repeat after the commit: %+v %v, durable at once: %t", three, err, third.called())
		}
		// A later write supersedes the first; the repeat answers with the record that covers it.
		later := mustMint(t, s, write("k", "later"))
		four := mustMint(t, s, m)
		if four.Dot != one.Dot || !bytes.Equal(four.Record, later.Record) {
			t.Fatal("a repeat after a later write")
		}
		if got := s.Stats().Minted; got != 3 {
			t.Fatalf("%d dots for 3 writes", got)
		}
	})
}

// A repeat of a durable write waits for the pending one whose record it answers with.
func TestRepeatAnswersWithAPendingRecord(t *testing.T) {
	h := newHooks()
	s := open(t, h.opener(memory.NewStore().Open), nil)
	m := named(write("k", "v"), "id", true, time.Time{})
	first := mustMint(t, s, m)
	release := h.hold()
	later, err := s.Mint(write("k", "later"), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	o := newOutcome(t)
	again, err := s.Mint(m, o.mint)
	if err != nil || again.Dot != first.Dot || !bytes.Equal(again.Record, later.Record) || o.called() {
		t.Fatalf("%+v %v %t", again, err, o.called())
	}
	release()
	if _, err := o.wait(); err != nil {
		t.Fatal(err)
	}
}

func TestRacingRepeatsMakeOneDot(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		for round := range 30 {
			m := named(write(fmt.Sprint("k", round), "v"), "id", true, time.Time{})
			var mu sync.Mutex
			dots := map[causal.Dot]int{}
			firsts := 0
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					o := newOutcome(t)
					out, err := s.Mint(m, o.mint)
					if err != nil {
						t.Errorf("mint: %v", err)
						return
					}
					if _, err := o.wait(); err != nil {
						t.Errorf("durable: %v", err)
					}
					mu.Lock()
					defer mu.Unlock()
					dots[out.Dot]++
					if !out.Repeated {
						firsts++
					}
				})
			}
			all.Wait()
			if len(dots) != 1 || firsts != 1 {
				t.Fatalf("%d dots, %d first", len(dots), firsts)
			}
		}
	})
}

func TestRequestIDsExpire(t *testing.T) {
	c := newClock()
	s := open(t, memory.NewStore().Open, func(cfg *Config) { cfg.Now = c.Now })
	soon := c.Now().Add(2 * time.Second)
	chosen := named(write("chosen", "v"), "a", true, soon)
	made := named(write("made", "v"), "b", false, soon)
	first, other := mustMint(t, s, chosen), mustMint(t, s, made)
	c.advance(2*time.Second - 1)
	if out := mustMint(t, s, chosen); out.Dot != first.Dot {
		t.Fatal("an id was forgotten within its deadline")
	}
	if out := mustMint(t, s, made); out.Dot != other.Dot {
		t.Fatal("an id was forgotten within its deadline")
	}
	c.advance(lateMost)
	made.Deadline = c.Now().Add(time.Second)
	if out := mustMint(t, s, made); out.Dot != other.Dot {
		t.Fatal("what was sent first and came late, on a connection that stalled, got a second dot")
	}
	c.advance(1)
	made.Deadline, chosen.Deadline = c.Now().Add(time.Second), c.Now().Add(time.Second)
	if out := mustMint(t, s, made); out.Repeated || out.Dot == other.Dot {
		t.Fatal("an id that the gateway made up was remembered for too long")
	}
	if out := mustMint(t, s, chosen); out.Dot != first.Dot {
		t.Fatal("a client's id was forgotten at its deadline")
	}
	c.advance(10*time.Minute - 2*time.Second - lateMost - 1)
	chosen.Deadline = time.Time{}
	if out := mustMint(t, s, chosen); out.Dot != first.Dot {
		t.Fatal("a client's id was forgotten within ten minutes")
	}
	c.advance(1)
	if out := mustMint(t, s, chosen); out.Repeated {
		t.Fatal("a client's id was remembered for more than ten minutes")
	}
}

func TestRequestIDsAreBounded(t *testing.T) {
	s := open(t, memory.NewStore().Open, func(c *Config) { c.QueueMaxItems, c.RequestIDMax = 4, 4 })
	mint := func(i int) Minted {
		return mustMint(t, s, named(write("k", "v"), fmt.Sprint("id", i), i%2 == 0, time.Time{}))
	}
	var first []Minted
	for i := range 7 {
		first = append(first, mint(i))
	}
	if st := s.Stats(); st.RequestIDs != 4 || st.RequestIDsDropped != 3 {
		t.Fatalf("%d remembered, %d dropped", st.RequestIDs, st.RequestIDsDropped)
	}
	for i := 3; i < 7; i++ {
		if out := mint(i); out.Dot != first[i].Dot {
			t.Fatalf("id %d was dropped before an older one", i)
		}
	}
	if out := mint(2); out.Repeated {
		t.Fatal("the oldest id was kept")
	}
}

// The id of a write whose commit failed is forgotten: its repeat is a new write with a new dot.
func TestRequestIDOfAFailedWriteIsForgotten(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		h := newHooks()
		s := open(t, h.opener(opener), nil)
		kept := mustMint(t, s, named(write("kept", "v"), "kept", true, time.Time{}))
		h.set(func(h *hooks) { h.applyErr = errInjected })
		m := named(write("k", "v"), "id", true, time.Time{})
		o := newOutcome(t)
		first, err := s.Mint(m, o.mint)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.wait(); !errors.Is(err, ErrInDoubt) || !errors.Is(err, errInjected) {
			t.Fatalf("a failed commit: %v", err)
		}
		waitOpen(t, s, 1)
		again := mustMint(t, s, m)
		if again.Repeated || again.Dot.Actor == first.Dot.Actor {
			t.Fatalf("the repeat of a failed write: %+v, first %v", again, first.Dot)
		}
		if out := mustMint(t, s, named(write("kept", "v"), "kept", true, time.Time{})); out.Dot != kept.Dot {
			t.Fatal("an id of a durable write was forgotten")
		}
	})
}

// A repeat whose record is gone must not mint again, as that would bring a write back.
func TestRepeatWithoutItsRecord(t *testing.T) {
	st := memory.NewStore()
	h := newHooks()
	var eng engine.Engine
	s := open(t, func() (engine.Engine, error) {
		e, err := h.opener(st.Open)()
		eng = e
		return e, err
	}, nil)
	m := named(write("k", "v"), "id", true, time.Time{})
	mustMint(t, s, m)
	p, err := s.find([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	var b engine.Batch
	b.Delete(p.disk)
	if err := eng.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mint(m, nil); !errors.Is(err, ErrInDoubt) {
		t.Fatalf("a repeat without its record: %v", err)
	}
	h.set(func(h *hooks) { h.getErr = errInjected })
	if _, err := s.Mint(m, nil); !errors.Is(err, errInjected) {
		t.Fatalf("a repeat that cannot read: %v", err)
	}
}

type naiveRequest struct {
	id      requestID
	dot     causal.Dot
	expires time.Time
}

// naiveRequests is a plain list, the oldest first, beside the table that it checks.
type naiveRequests struct {
	r       *requests
	limit   int
	now     time.Time
	list    []naiveRequest
	counter uint64
}

func (n *naiveRequests) find(id requestID) int {
	return slices.IndexFunc(n.list, func(e naiveRequest) bool { return e.id == id && e.expires.After(n.now) })
}

// ask looks an id up, and remembers it where it is unknown, as a mint does.
func (n *naiveRequests) ask(t *rapid.T) {
	id := requestID{rapid.Byte().Draw(t, "id") % 9}
	dot, known := n.r.get(id, n.now)
	i := n.find(id)
	if known != (i >= 0) || known && dot != n.list[i].dot {
		t.Fatalf("id %d: %v %v, list %+v", id[0], dot, known, n.list)
	}
	if known {
		return
	}
	n.counter++
	e := naiveRequest{id, dotOf(1, n.counter), n.now.Add(100 * time.Second)}
	chosen := rapid.Bool().Draw(t, "chosen")
	if !chosen {
		e.expires = n.now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds")) * time.Second)
	}
	n.list = slices.DeleteFunc(n.list, func(o naiveRequest) bool { return !o.expires.After(n.now) || o.id == id })
	before, dropped := n.r.count()
	n.r.put(e.id, e.dot, e.expires, n.now, chosen)
	after, droppedAfter := n.r.count()
	if after > n.limit || after > before+1 {
		t.Fatalf("%d ids, the limit is %d", after, n.limit)
	}
	if droppedAfter > dropped {
		if before < n.limit {
			t.Fatalf("dropped one of %d, the limit is %d", before, n.limit)
		}
		// Only the oldest of those within their time may be gone; none is where it was one that had expired.
		if len(n.list) > 0 {
			if _, known := n.r.get(n.list[0].id, n.now); !known {
				n.list = n.list[1:]
			}
		}
	}
	n.list = append(n.list, e)
}

// check looks all ids up.
func (n *naiveRequests) check(t *rapid.T) {
	for _, e := range n.list {
		if n.find(e.id) < 0 {
			continue
		}
		if dot, known := n.r.get(e.id, n.now); !known || dot != e.dot {
			t.Fatalf("id %d is %v %v", e.id[0], dot, known)
		}
	}
}

func TestRequestsAgainstANaiveList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 6).Draw(t, "limit")
		n := &naiveRequests{r: newRequests(1, limit, time.UnixMilli(0)), limit: limit, now: time.UnixMilli(0)}
		t.Repeat(map[string]func(*rapid.T){
			"ask":   n.ask,
			"ask 2": n.ask,
			"forget": func(t *rapid.T) {
				if len(n.list) == 0 {
					t.Skip("nothing to forget")
				}
				i := rapid.IntRange(0, len(n.list)-1).Draw(t, "which")
				n.r.forget(n.list[i].id, dotOf(2, 1)) // of another write
				n.r.forget(n.list[i].id, n.list[i].dot)
				n.list = slices.Delete(n.list, i, i+1)
			},
			"pass": func(t *rapid.T) {
				n.now = n.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			},
			"": n.check,
		})
	})
}

// A write that may have been minted before, by another actor, is answered if it is remembered, and never minted anew.
func TestAskedAgainUnderAnotherActor(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := open(t, opener, nil)
		m := Mint{Key: []byte("k"), Value: []byte("v"), Checksum: record.Checksum([]byte("v")), RequestID: "first"}
		out := mustMint(t, s, m)
		m.AskedActor = causal.Actor{1}
		if again := mustMint(t, s, m); !again.Repeated || again.Dot != out.Dot {
			t.Errorf("remembered: %+v, want %+v", again, out)
		}
		m.RequestID = "forgotten"
		if again, err := s.Mint(m, nil); !errors.Is(err, ErrInDoubt) {
			t.Errorf("forgotten: minted as %v, %v", again.Dot, err)
		}
		m.AskedActor = s.Actor()
		if again := mustMint(t, s, m); again.Repeated {
			t.Error("what this actor was asked and did not do was taken for done")
		}
	})
}
