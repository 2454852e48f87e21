package coordinator

import (
	"errors"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// old is a record of another life: two siblings of an actor that mints no more.
func old() []byte {
	a := causal.Actor{0xee}
	set := causal.Set{Clock: causal.Vector{{Actor: a, Counter: 9}}}
	for i, v := range []string{"one", "two"} {
		set.Siblings = append(set.Siblings, causal.Sibling{Dot: causal.Dot{Actor: a, Counter: uint64(8 + i)}, Value: []byte(v), Checksum: record.Checksum([]byte(v))})
	}
	return record.Append(nil, []byte(testKey), set)
}

func TestRestoreBringsTheRecordToAllOwners(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		for range 2 { // a second time changes nothing
			if err := s.co.Restore(s.ctx, []byte(testKey), old(), "trace"); err != nil {
				t.Fatal(err)
			}
			for _, o := range s.owners(testKey) {
				s.lock(func() {
					if string(o.records[testKey]) != string(old()) {
						t.Errorf("%s has another record", o.name)
					}
				})
			}
		}
		got := s.mustGet(3, nil)
		wantValues(t, got.Set, "one,two")
		// What is minted then has a dot of its own.
		next := s.mustPut("three", nil)
		if d := next.Context; d.Vector.Get(causal.Actor{0xee}) != 9 {
			t.Errorf("the context of a write without one is %+v", d)
		}
		wantValues(t, s.mustGet(3, nil).Set, "three")
		if err := s.co.Restore(s.ctx, []byte(testKey), old(), "trace"); err != nil {
			t.Fatal(err)
		}
		wantValues(t, s.mustGet(3, nil).Set, "three")
	})
}

func TestRestoreNeedsAQuorum(t *testing.T) {
	play(t, 3, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		s.lock(func() { o[0].connected = false })
		if err := s.co.Restore(s.ctx, []byte(testKey), old(), ""); err != nil {
			t.Errorf("with two of three: %v", err)
		}
		s.lock(func() {
			o[1].meddle = func(*storagev1.Request) *meddling { return &meddling{refuse: storagev1.Status_STATUS_DISK_FULL} }
		})
		var e *Error
		if err := s.co.Restore(s.ctx, []byte(testKey), old(), ""); !errors.As(err, &e) || e.Kind != DiskFull && e.Kind != QuorumImpossible || len(e.Replicas) != 3 {
			t.Errorf("with one of three: %v", err)
		}
		s.lock(func() {
			o[1].meddle = func(*storagev1.Request) *meddling { return &meddling{silent: true} }
		})
		begin := time.Now()
		if err := s.co.Restore(s.ctx, []byte(testKey), old(), ""); !errors.As(err, &e) || e.Kind != DeadlinePassed || time.Since(begin) > 3*time.Second {
			t.Errorf("with one that is silent: %v after %s", err, time.Since(begin))
		}
		damaged := old()
		damaged[len(damaged)-1] ^= 1
		if err := s.co.Restore(s.ctx, []byte(testKey), damaged, ""); !errors.As(err, &e) || e.Outcome != NotApplied {
			t.Errorf("a damaged record: %v", err)
		}
	})
}

// A node that knows a newer layout refuses; the record goes to the owners in that one.
func TestRestoreFollowsTheLayout(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		newer := s.view.Clone()
		l := propose(t, newer, ring.Change{Kind: ring.ChangeLeave, Member: ring.Member{ID: s.owners(testKey)[0].id}})
		settle(t, newer)
		s.lock(func() {
			s.told = newer
			for _, n := range s.order {
				n.fence.Acked = l.ID()
			}
		})
		if err := s.co.Restore(s.ctx, []byte(testKey), old(), ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range l.Primaries(s.slot()) {
			s.lock(func() {
				if s.nodes[id].records[testKey] == nil {
					t.Errorf("%s owns the key and lacks it", s.nodes[id].name)
				}
			})
		}
	})
}
