package kv

import (
	"errors"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// openStepped opens a store that is stepped by hand on a place.
func openStepped(t *testing.T, place *memory.Store) (*Store, *Stepper) {
	t.Helper()
	cfg := Default()
	cfg.Open, cfg.Rand = place.Open, newCountingRand(1)
	cfg.Now = func() time.Time { return time.Unix(1000, 0) }
	s, st, err := OpenStepped(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, st
}

type countingRand struct{ next byte }

func newCountingRand(seed byte) *countingRand { return &countingRand{seed} }

func (r *countingRand) Read(b []byte) (int, error) {
	for i := range b {
		r.next++
		b[i] = r.next
	}
	return len(b), nil
}

func putOne(s *Store, key, value string, done func(error)) error {
	_, err := s.Mint(Mint{Key: []byte(key), Value: []byte(value), Checksum: record.Checksum([]byte(value))}, done)
	return err
}

// Nothing is durable before a step, and a later mint sees what is not durable yet.
func TestSteppedCommitsOnlyByStep(t *testing.T) {
	s, st := openStepped(t, memory.NewStore())
	told := 0
	if err := putOne(s, "k", "v", func(err error) {
		if err != nil {
			t.Error(err)
		}
		told++
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read([]byte("k")); !errors.Is(err, ErrNotFound) || told != 0 {
		t.Fatalf("before the step: %v, told %d times", err, told)
	}
	if rec, err := st.Newest([]byte("k")); err != nil || rec == nil {
		t.Fatalf("the newest record is %x, %v", rec, err)
	}
	if did, more := st.Step(); !did || more || told != 1 {
		t.Fatalf("step: did %v, more %v, told %d times", did, more, told)
	}
	if did, more := st.Step(); did || more {
		t.Fatalf("idle step: did %v, more %v", did, more)
	}
	if _, err := s.Read([]byte("k")); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A failed commit is met as the committer's goroutine meets it: in doubt, and a new actor from the next step on.
func TestSteppedFailureReopens(t *testing.T) {
	place := memory.NewStore()
	s, st := openStepped(t, place)
	before := s.Actor()
	var outcome error
	if err := putOne(s, "k", "v", func(err error) { outcome = err }); err != nil {
		t.Fatal(err)
	}
	place.Fail(errors.New("no sync"))
	if did, more := st.Step(); !did || !more || !errors.Is(outcome, ErrInDoubt) {
		t.Fatalf("failing step: did %v, more %v, outcome %v", did, more, outcome)
	}
	if err := putOne(s, "k", "w", nil); !errors.Is(err, ErrReopening) {
		t.Fatalf("while the engine is closed: %v", err)
	}
	if did, more := st.Step(); !did || more || s.Actor() == before || s.Stats().Reopenings != 1 {
		t.Fatalf("reopening step: did %v, more %v, actor kept %v, %d reopenings", did, more, s.Actor() == before, s.Stats().Reopenings)
	}
}

// A stepper that is dropped is a killed process: the disk has what was stepped, and nothing else.
func TestSteppedDropIsACrash(t *testing.T) {
	place := memory.NewStore()
	s, st := openStepped(t, place)
	if err := putOne(s, "kept", "v", nil); err != nil {
		t.Fatal(err)
	}
	st.Step()
	if err := putOne(s, "lost", "v", func(error) { t.Error("a write was answered after its process was gone") }); err != nil {
		t.Fatal(err)
	}
	place.Crash()
	again, _ := openStepped(t, place)
	if _, err := again.Read([]byte("kept")); err != nil {
		t.Error(err)
	}
	if _, err := again.Read([]byte("lost")); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was never committed: %v", err)
	}
}

func TestSteppedNeedsSyncAlways(t *testing.T) {
	cfg := Default()
	cfg.Open, cfg.Sync = memory.NewStore().Open, SyncNone
	if _, _, err := OpenStepped(cfg); err == nil {
		t.Error("a store that does not sync was opened")
	}
}
