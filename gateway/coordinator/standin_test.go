package coordinator

import (
	"slices"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// sloppy writes with stand-ins allowed.
func (s *scene) sloppy(value string, w Quorum) (PutResult, error) {
	v := []byte(value)
	return s.co.Put(s.ctx, PutRequest{Key: []byte(testKey), Value: v, Checksum: record.Checksum(v), W: w, Sloppy: true, Explain: true, Release: s.lent(v)})
}

// fallbacks returns the nodes after the owners, in preference order.
func (s *scene) fallbacks() []*fakeNode {
	var out []*fakeNode
	for _, id := range s.state.Read.Fallbacks(s.slot(), nil, 16) {
		out = append(out, s.nodes[id])
	}
	return out
}

func (s *scene) wantHints(n *fakeNode, owners ...*fakeNode) {
	s.t.Helper()
	var got, want []ring.NodeID
	s.lock(func() { got = slices.Clone(n.hinted[testKey]) })
	for _, o := range owners {
		want = append(want, o.id)
	}
	slices.SortFunc(got, ring.NodeID.Compare)
	slices.SortFunc(want, ring.NodeID.Compare)
	if !slices.Equal(got, want) {
		s.t.Errorf("%s keeps hints for %v, want %v", n.name, got, want)
	}
}

func (s *scene) wantAcks(res PutResult, err error, acks, hinted int) {
	s.t.Helper()
	if err != nil || res.Acks != acks || res.Hinted != hinted {
		s.t.Fatalf("%d acks, %d of them hinted, %v; want %d and %d: %+v", res.Acks, res.Hinted, err, acks, hinted, res.Reports)
	}
}

// For an owner that is away or suspect the next fallback keeps the write, and counts.
func TestStandInForOneOwner(t *testing.T) {
	for which := range 3 {
		for _, fault := range []func(*fakeNode){
			func(n *fakeNode) { n.connected = false },
			func(n *fakeNode) {
				n.suspect, n.meddle = true, func(*storagev1.Request) *meddling { return &meddling{silent: true} }
			},
			func(n *fakeNode) {
				n.meddle = func(*storagev1.Request) *meddling { return &meddling{refuse: storagev1.Status_STATUS_UNAVAILABLE} }
			},
		} {
			play(t, 5, 3, 2, func(t *testing.T, s *scene) {
				gone := s.owners(testKey)[which]
				s.lock(func() { fault(gone) })
				res, err := s.sloppy("v", All)
				s.wantAcks(res, err, 3, 1)
				s.wantHints(s.fallbacks()[0], gone)
				s.wantHints(s.fallbacks()[1])
				if i := slices.IndexFunc(res.Reports, func(r Report) bool { return r.Node == s.fallbacks()[0].id }); i < 0 || res.Reports[i].Did != "hint" {
					t.Errorf("the fallback is not reported: %+v", res.Reports)
				}
			})
		}
	}
}

// Without leave, nobody but owners is asked.
func TestNoStandInUnlessSloppy(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		s.lock(func() { o[0].connected = false })
		_, err := s.putW("v", nil, All)
		wantError(t, err, QuorumImpossible, NotApplied, o[0].name+":away")
		if _, err = s.putW("v", nil, 2); err != nil {
			t.Fatal(err)
		}
		elapse(6 * time.Second)
		for _, f := range s.fallbacks() {
			if len(f.calls) != 0 {
				t.Errorf("%s was asked: %v", f.name, f.calls)
			}
		}
	})
}

// With as many nodes as replicas there is nobody to stand in, and nothing changes.
func TestNoStandInAmongThree(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		s.lock(func() { o[1].connected = false })
		res, err := s.sloppy("v", 2)
		s.wantAcks(res, err, 2, 0)
		_, err = s.sloppy("v", All)
		wantError(t, err, QuorumImpossible, NotApplied, o[1].name+":away")
	})
}

// A full fallback refuses, and the next one is asked.
func TestFullFallbackIsPassedOver(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		gone, f := s.owners(testKey)[2], s.fallbacks()
		s.lock(func() { gone.connected, f[0].full = false, true })
		res, err := s.sloppy("v", All)
		s.wantAcks(res, err, 3, 1)
		s.wantHints(f[1], gone)
		s.lock(func() { f[1].full = true })
		_, err = s.sloppy("v", All)
		wantError(t, err, QuorumImpossible, InDoubt)
	})
}

// Where no owner can be reached, a fallback mints for all of them, and another one makes up the quorum.
func TestFallbackMintsWhereNoOwnerIsReached(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		o, f := s.owners(testKey), s.fallbacks()
		s.lock(func() {
			for _, n := range o {
				n.connected = false
			}
		})
		res, err := s.sloppy("v", 2)
		s.wantAcks(res, err, 2, 2)
		if f[0].calls[storagev1.Op_OP_MINT] != 1 || f[1].calls[storagev1.Op_OP_MINT] != 0 {
			t.Errorf("mints: %v and %v", f[0].calls, f[1].calls)
		}
		s.wantHints(f[0], o...)
		_, err = s.sloppy("v", All) // two machines are no three
		wantError(t, err, QuorumImpossible, NotApplied)
		_, err = s.put("v", nil)
		wantError(t, err, QuorumImpossible, NotApplied)
		// An owner that is reached mints, however few there are.
		s.lock(func() { o[2].connected = true })
		before := f[0].calls[storagev1.Op_OP_MINT]
		res, err = s.sloppy("w", All)
		s.wantAcks(res, err, 3, 2)
		if o[2].calls[storagev1.Op_OP_MINT] != 1 || f[0].calls[storagev1.Op_OP_MINT] != before {
			t.Error("the owner did not mint")
		}
	})
}

// An owner that sits on the record is stood in for after a while, and its own answer still counts.
func TestStandInForALateOwner(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		late := s.owners(testKey)[1]
		s.lock(func() { late.meddle = func(*storagev1.Request) *meddling { return &meddling{extra: 10 * time.Second} } })
		begin := time.Now()
		res, err := s.sloppy("v", All)
		s.wantAcks(res, err, 3, 1)
		if took := time.Since(begin); took < 400*time.Millisecond || took > 450*time.Millisecond {
			t.Errorf("took %s", took)
		}
		s.wantHints(s.fallbacks()[0], late)
		begin = time.Now()
		res, err = s.sloppy("v", 2) // nobody waits for it where the others suffice
		s.wantAcks(res, err, 2, 0)
		if took := time.Since(begin); took > 50*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

// What an owner misses after the client was answered is kept for it all the same.
func TestHintAfterTheAnswer(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		gone, f := s.owners(testKey)[2], s.fallbacks()
		s.lock(func() {
			gone.meddle = func(*storagev1.Request) *meddling { return &meddling{loseReply: true, extra: time.Second} }
			f[0].meddle = func(*storagev1.Request) *meddling { return &meddling{notSent: true} }
		})
		res, err := s.sloppy("v", 2)
		s.wantAcks(res, err, 2, 0)
		s.wantHints(f[1])
		elapse(2 * time.Second)
		s.wantHints(f[0])
		s.wantHints(f[1], gone)
	})
}

// In a change of the layout each live layout's quorum is made up by itself, and one machine counts once in each.
func TestStandInsInTwoLayouts(t *testing.T) {
	play(t, 6, 3, 2, func(t *testing.T, s *scene) {
		leaving := s.owners(testKey)[0]
		v := s.view.Clone()
		propose(t, v, ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: leaving.id}})
		s.lock(func() { s.setView(v) })
		slot := ring.SlotOf([]byte(testKey))
		old, next := s.state.Live[0], s.state.Live[1]
		var both *fakeNode // owns the key in both
		for _, id := range next.Primaries(slot) {
			if id != leaving.id && old.Owns(id, slot) {
				both = s.nodes[id]
			}
		}
		s.lock(func() { both.connected = false })
		res, err := s.sloppy("v", All)
		if err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, n := range s.order {
			s.lock(func() {
				if owners := n.hinted[testKey]; len(owners) > 0 {
					kept++
					if !slices.Equal(owners, []ring.NodeID{both.id}) || old.Owns(n.id, slot) || next.Owns(n.id, slot) {
						t.Errorf("%s keeps hints for %v", n.name, owners)
					}
				}
			})
		}
		if kept == 0 || res.Hinted != kept {
			t.Errorf("%d machines keep hints, %d are said to", kept, res.Hinted)
		}
		set := causal.Set{}
		for _, n := range s.order {
			if n != both && (old.Owns(n.id, slot) || next.Owns(n.id, slot)) {
				if set = s.read(n); len(set.Siblings) != 1 {
					t.Errorf("%s has %d siblings", n.name, len(set.Siblings))
				}
			}
		}
	})
}
