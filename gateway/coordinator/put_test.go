package coordinator

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// TestPutTakesTwoRoundTrips: the mint, then the others in parallel; the mint's commit is waited for only beside those.
func TestPutTakesTwoRoundTrips(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		begin := time.Now()
		s.mustPut("one", nil)
		if took := time.Since(begin); took > 5*time.Millisecond {
			t.Fatalf("took %s with round trips of 2 ms", took)
		}
		if fmt.Sprint(s.sent[0][:4], s.sent[1][:5], s.sent[2][:5]) != "mintapplyapply" || len(s.sent) != 3 {
			t.Fatalf("sent %v", s.sent)
		}
	})
}

func TestBehindMintsElsewhereOrOnABase(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		first := s.mustPut("one", &causal.Context{})
		elapse(time.Second)
		s.lock(func() { delete(o[0].records, testKey) }) // the first primary has forgotten it
		second := s.mustPut("two", &first.Context)
		if d := second.Context.Dots[0]; d.Actor != o[1].actor {
			t.Fatalf("minted by %s, want the second primary", d.Actor)
		}
		elapse(time.Second)
		wantValues(t, s.mustGet(3, nil).Set, "two")
		// None of the primaries that can be asked to mint covers the dot, but a fallback does: here, the other one, which
		// refuses to mint.
		s.lock(func() {
			delete(o[0].records, testKey)
			delete(o[1].records, testKey)
			o[2].meddle = func(r *storagev1.Request) *meddling {
				if r.Op == storagev1.Op_OP_MINT {
					return &meddling{refuse: storagev1.Status_STATUS_OVERLOADED}
				}
				return nil
			}
		})
		third := s.mustPut("three", &second.Context)
		if d := third.Context.Dots[0]; d.Actor != o[0].actor {
			t.Fatalf("minted by %s, want the first primary on a base", d.Actor)
		}
		wantValues(t, s.mustGet(3, &third.Context).Set, "three")
		// Nobody covers the context.
		s.lock(func() {
			for _, n := range o {
				n.meddle = nil
				delete(n.records, testKey)
			}
		})
		_, err := s.put("four", &third.Context)
		wantError(t, err, StaleContext, NotApplied)
	})
}

func TestLostMintAnswerIsAskedForAgain(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		s.lock(func() {
			o[0].meddle = func(r *storagev1.Request) *meddling {
				if r.Op != storagev1.Op_OP_MINT || o[0].calls[storagev1.Op_OP_MINT] > 1 {
					return nil
				}
				return &meddling{loseReply: true, awayFor: 300 * time.Millisecond}
			}
		})
		begin := time.Now()
		res := s.mustPut("one", &causal.Context{})
		if took := time.Since(begin); took < 300*time.Millisecond || took > 400*time.Millisecond {
			t.Fatalf("took %s; the node was back after 300 ms", took)
		}
		if d := res.Context.Dots[0]; d != (causal.Dot{Actor: o[0].actor, Counter: 1}) {
			t.Fatalf("the dot is %s, want the first of the first primary", d)
		}
		elapse(time.Second)
		if got := s.mustGet(3, nil); len(got.Set.Siblings) != 1 {
			t.Fatalf("%d siblings after one write", len(got.Set.Siblings))
		}
		if o[1].calls[storagev1.Op_OP_MINT]+o[2].calls[storagev1.Op_OP_MINT] != 0 {
			t.Fatal("a mint that may have happened was sent elsewhere")
		}
	})
}

func TestMintThatNeverAnswersIsInDoubt(t *testing.T) {
	for _, fault := range []meddling{{silent: true}, {loseReply: true}} {
		play(t, 3, 3, 2, func(t *testing.T, s *scene) {
			o := s.owners(testKey)
			s.lock(func() {
				o[0].meddle = func(r *storagev1.Request) *meddling { return &fault }
			})
			ctx, cancel := context.WithTimeout(s.ctx, 500*time.Millisecond)
			defer cancel()
			begin := time.Now()
			_, err := s.co.Put(ctx, PutRequest{Key: []byte(testKey), Value: []byte("x"), Checksum: record.Checksum([]byte("x"))})
			wantError(t, err, DeadlinePassed, InDoubt, o[0].name+":")
			if took := time.Since(begin); took != 500*time.Millisecond {
				t.Fatalf("took %s with a deadline of 500 ms", took)
			}
			if o[1].calls[storagev1.Op_OP_MINT]+o[2].calls[storagev1.Op_OP_MINT] != 0 {
				t.Fatal("a mint that may have happened was sent elsewhere")
			}
		})
	}
}

// TestRefusedMintGoesElsewhere: each refusal means that nothing was done.
func TestRefusedMintGoesElsewhere(t *testing.T) {
	refusals := map[storagev1.Status]Kind{
		storagev1.Status_STATUS_OVERLOADED: Overloaded, storagev1.Status_STATUS_EXPIRED: DeadlinePassed,
		storagev1.Status_STATUS_UNAVAILABLE: QuorumImpossible, storagev1.Status_STATUS_INVALID: Internal,
		storagev1.Status_STATUS_DISK_FULL: DiskFull, storagev1.Status_STATUS_FENCED: QuorumImpossible,
	}
	for status, kind := range refusals {
		play(t, 3, 3, 2, func(t *testing.T, s *scene) {
			o := s.owners(testKey)
			refuse := func(r *storagev1.Request) *meddling {
				if r.Op != storagev1.Op_OP_MINT {
					return nil
				}
				return &meddling{refuse: status, detail: "says no"}
			}
			s.lock(func() { o[0].meddle = refuse })
			res := s.mustPut("one", &causal.Context{})
			if d := res.Context.Dots[0]; d.Actor != o[1].actor {
				t.Fatalf("%s: minted by %s", status, d.Actor)
			}
			s.lock(func() { o[1].meddle, o[2].meddle = refuse, refuse })
			_, err := s.put("two", &res.Context)
			wantError(t, err, kind, NotApplied, o[0].name+":says no")
			elapse(time.Second)
			wantValues(t, s.mustGet(3, nil).Set, "one")
		})
	}
}

func TestLimits(t *testing.T) {
	for detail, kind := range map[string]Kind{
		fmt.Sprintf("%v: 65, the limit is 64", causal.ErrTooManySiblings): TooManySiblings,
		fmt.Sprintf("%v: 9 bytes", causal.ErrTooLarge):                    TooLarge,
	} {
		play(t, 3, 3, 2, func(t *testing.T, s *scene) {
			o := s.owners(testKey)
			s.lock(func() {
				o[0].meddle = func(r *storagev1.Request) *meddling {
					return &meddling{refuse: storagev1.Status_STATUS_TOO_LARGE, detail: detail}
				}
			})
			_, err := s.put("x", nil)
			wantError(t, err, kind, NotApplied)
			if len(s.sent) != 1 {
				t.Fatalf("sent %v: what is too large is too large everywhere", s.sent)
			}
		})
	}
}

func TestMintThatFailsToBecomeDurable(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		s.lock(func() {
			o[0].meddle = func(r *storagev1.Request) *meddling { return &meddling{undurable: r.Op == storagev1.Op_OP_MINT} }
		})
		res := s.mustPut("one", nil)
		if res.Acks != 2 {
			t.Fatalf("%d acknowledgements, want the two others", res.Acks)
		}
		elapse(time.Second)
		wantValues(t, s.mustGet(2, &res.Context).Set, "one")
		// With w=3 it cannot be had, and may become visible.
		_, err := s.putW("two", nil, 3)
		wantError(t, err, QuorumImpossible, InDoubt, o[0].name+":failed")
	})
}

func TestMintFailingInTheMiddleIsGivenUpInDoubt(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		s.lock(func() {
			o[0].meddle = func(r *storagev1.Request) *meddling {
				return &meddling{refuse: storagev1.Status_STATUS_FAILED, detail: "disk on fire"}
			}
		})
		begin := time.Now()
		_, err := s.put("one", nil)
		wantError(t, err, QuorumImpossible, InDoubt, o[0].name+":disk on fire")
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Fatalf("took %s", took)
		}
		if n := o[0].calls[storagev1.Op_OP_MINT]; n != maxMintFailures || o[1].calls[storagev1.Op_OP_MINT] != 0 {
			t.Fatalf("asked %d times", n)
		}
	})
}

// TestFencedByANewLayout: nodes that have acknowledged a newer layout refuse, and hand it over; the put goes on under it.
func TestFencedByANewLayout(t *testing.T) {
	for _, fenced := range []string{"all", "others"} { // the mint is refused; the mint passes and its record is refused
		play(t, 5, 3, 2, func(t *testing.T, s *scene) {
			newer := s.view.Clone()
			l := propose(t, newer, ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: s.owners(testKey)[2].id}})
			o := s.owners(testKey)
			s.lock(func() {
				s.told = newer
				for _, n := range s.order {
					if fenced == "all" || n != o[0] {
						n.fence.Acked = l.ID()
					}
				}
			})
			res, err := s.putW("one", &causal.Context{}, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.State().Live) != 2 {
				t.Fatal("the newer view was not learned")
			}
			if d := res.Context.Dots[0]; d != (causal.Dot{Actor: o[0].actor, Counter: 1}) {
				t.Fatalf("the dot is %s", d)
			}
			mints := 0
			for _, n := range s.order {
				mints += int(n.counter)
			}
			if mints != 1 || res.Acks != 4 {
				t.Fatalf("%d dots issued, %d machines acknowledged; want 1, and the 4 of both layouts", mints, res.Acks)
			}
			elapse(time.Second)
			for _, id := range l.Primaries(s.slot()) {
				wantValues(t, s.read(s.nodes[id]), "one")
			}
		})
	}
}

func TestTwoWritersLeaveTwoSiblings(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		contexts := [2]*causal.Context{{}, {}}
		for i := range 100 {
			who := i % 2
			if i == 50 { // the minting node goes away half-way
				elapse(time.Second)
				s.lock(func() { s.owners(testKey)[0].connected = false })
			}
			res := s.mustPut(fmt.Sprintf("client %d, write %d", who, i), contexts[who])
			contexts[who] = &res.Context
		}
		wantValues(t, s.mustGet(2, contexts[0]).Set, "client 0, write 98,client 1, write 99")
	})
}

// TestRequestIDMakesOneDot: a write repeated under its id is the same write.
func TestRequestIDMakesOneDot(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		req := PutRequest{Key: []byte(testKey), Value: []byte("x"), Checksum: record.Checksum([]byte("x")), RequestID: "r1",
			ClientRequestID: true, Context: &causal.Context{}}
		first, err := s.co.Put(s.ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.co.Put(s.ctx, req)
		if err != nil || again.Context.Dots[0] != first.Context.Dots[0] {
			t.Fatalf("%+v, %v; want the dot %s", again, err, first.Context.Dots[0])
		}
		if n := len(s.mustGet(3, nil).Set.Siblings); n != 1 {
			t.Fatalf("%d siblings", n)
		}
	})
}

// A put gives its buffers back once all calls are done with them, those in the background included, and never twice; a hint
// that is sent after the client was answered still holds what the client sent.
func TestPutGivesItsBuffersBack(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		pool := &poisoned{}
		s.co.buffers = pool
		var back atomic.Int64
		put := func(value string) {
			t.Helper()
			v := bytes.Repeat([]byte(value), 1000)
			lent := s.lent(v)
			res, err := s.co.Put(s.ctx, PutRequest{Key: []byte(testKey), Value: v, Checksum: record.Checksum(v), Sloppy: true,
				Release: func() { back.Add(1); lent() }})
			if err != nil || res.Acks < 2 {
				t.Fatalf("%+v, %v", res, err)
			}
		}
		put("a")
		elapse(time.Second)
		if back.Load() != 1 || pool.count() != 1 {
			t.Fatalf("%d values and %d records were given back", back.Load(), pool.count())
		}
		gone := s.owners(testKey)[2]
		s.lock(func() {
			gone.meddle = func(*storagev1.Request) *meddling { return &meddling{loseReply: true, extra: time.Second} }
		})
		put("b")
		elapse(100 * time.Millisecond)
		if back.Load() != 1 || pool.count() != 1 {
			t.Fatalf("%d values and %d records were given back while an owner had not answered", back.Load(), pool.count())
		}
		elapse(2 * time.Second)
		s.wantHints(s.fallbacks()[0], gone)
		if back.Load() != 2 || pool.count() != 2 {
			t.Fatalf("%d values and %d records were given back", back.Load(), pool.count())
		}
		for _, n := range []*fakeNode{s.owners(testKey)[0], s.fallbacks()[0]} {
			s.lock(func() {
				if err := record.Verify([]byte(testKey), n.records[testKey]); err != nil {
					t.Errorf("%s: %v", n.name, err)
				}
			})
		}
	})
}
