package antientropy

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

const (
	// countWidth is the largest number of slots that are counted in one scan, countBytes about how much one reads.
	countWidth = 4096
	countBytes = 1 << 20
	// verifySlices is into how many slices the ring is cut for verification.
	verifySlices = 256
)

// errMoved says that what was counted became doubtful meanwhile.
var errMoved = errors.New("a write in the range failed while it was counted")

// Sums keeps a node's tree in step with its store. It is the store's observer from the store's opening on, so it is made
// before the store; Keep then counts what the store holds. Safe for concurrent use.
type Sums struct {
	metrics *metrics
	log     zerolog.Logger

	mu      sync.Mutex
	tree    *merkle.Tree
	counted [ring.Slots / 64]uint64 // a bit for each slot whose sum is that of all its records
	missing int                     // slots that are not counted
	doubts  uint64                  // times that anything became doubtful
	wake    chan struct{}           // has room for one; filled when something is not counted any more
}

// delta is what a change adds to a slot.
type delta struct {
	slot ring.Slot
	sum  merkle.Sum
}

// Committed implements kv.Observer.
func (s *Sums) Committed(changes []kv.Change) {
	var room [64]delta
	for len(changes) > 0 {
		n := min(len(changes), len(room))
		for i, c := range changes[:n] {
			room[i] = delta{ring.Slot(c.Hash >> (64 - ring.SlotBits)), merkle.Leaf(c.Key, c.Now).Minus(merkle.Leaf(c.Key, c.Before))}
		}
		s.mu.Lock()
		for _, d := range room[:n] {
			s.tree.Add(d.slot, d.sum)
		}
		s.mu.Unlock()
		changes = changes[n:]
	}
}

// InDoubt implements kv.Observer: the slots of the changes are counted again.
func (s *Sums) InDoubt(changes []kv.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubts++
	if changes == nil {
		clear(s.counted[:])
		s.missing = ring.Slots
	}
	for _, c := range changes {
		slot := c.Hash >> (64 - ring.SlotBits)
		if bit := uint64(1) << (slot % 64); s.counted[slot/64]&bit != 0 {
			s.counted[slot/64] &^= bit
			s.missing++
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Ready says whether all of a range is counted.
func (s *Sums) Ready(r ring.Range) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing == 0 {
		return true
	}
	return s.gapLocked(r.From) >= r.To
}

// gapLocked returns the first slot at or after from that is not counted, ring.Slots where all are.
func (s *Sums) gapLocked(from ring.Slot) ring.Slot {
	for at := int(from); at < ring.Slots; at = (at/64 + 1) * 64 {
		if w := ^s.counted[at/64] >> (at % 64); w != 0 {
			return ring.Slot(at + bits.TrailingZeros64(w))
		}
	}
	return ring.Slots
}

func (s *Sums) gap() (ring.Slot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing == 0 {
		return 0, false
	}
	return s.gapLocked(0), true
}

// Answer returns the encoded sums that a valid question asks for.
func (s *Sums) Answer(a merkle.Ask) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tree.Answer(a)
}

// count makes the sums of r, of countWidth slots at most, those of the records in the store. It returns in how many slots
// that were counted before the sum was wrong, and about how many bytes were read. Writes go on meanwhile: the scan is of
// the state that the tree had when it began, so the error found then is what is corrected, whatever was added since.
//
// doubted says that r is in doubt: then it counts as empty, differs from the peers' and holds up no other slot.
func (s *Sums) count(store Store, r ring.Range, doubted bool) (wrong, size int, err error) {
	before, found := make([]merkle.Sum, r.Len()), make([]merkle.Sum, r.Len())
	known := make([]bool, r.Len())
	var doubts uint64
	err = store.ScanObserved(r, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		doubts = s.doubts
		for i := range before {
			slot := r.From + ring.Slot(i)
			before[i], known[i] = s.tree.Slot(slot), s.counted[slot/64]>>(slot%64)&1 != 0
		}
	}, func(key, rec []byte) error {
		d, err := record.DigestOf(rec)
		if err != nil {
			return err
		}
		i := ring.SlotOf(key) - r.From
		found[i] = found[i].Plus(merkle.Leaf(key, d))
		size += len(key) + len(rec)
		return nil
	})
	// A slot that cannot be read whole counts for what can: it then differs from the peers' and holds up no other slot.
	damaged := errors.Is(err, engine.ErrDamaged) && r.Len() == 1
	doubted = doubted && errors.Is(err, kv.ErrDoubted)
	if err != nil && !damaged && !doubted {
		return 0, size, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubts != doubts {
		return 0, size, errMoved
	}
	for i := range found {
		slot := r.From + ring.Slot(i)
		if known[i] && found[i] != before[i] && !damaged && !doubted {
			wrong++
		}
		s.tree.Add(slot, found[i].Minus(before[i]))
		if !known[i] {
			s.counted[slot/64] |= 1 << (slot % 64)
			s.missing--
		}
	}
	if damaged && !doubted {
		return 0, size, err
	}
	return wrong, size, nil
}

// keeper counts what is not counted, and verifies what is.
type keeper struct {
	sums  *Sums
	store Store
	every time.Duration // between two slices of verification
	width int           // of the next scan, in slots
	at    ring.Slot     // where the next slice begins
}

// run keeps the sums until ctx ends.
func (k *keeper) run(ctx context.Context) {
	k.width = countWidth
	began := time.Now()
	timer := time.NewTimer(k.every)
	defer timer.Stop()
	for ctx.Err() == nil {
		if slot, ok := k.sums.gap(); ok {
			k.count(ctx, ring.Range{From: slot, To: ring.Slot(min(int(slot)+countWidth, ring.Slots))})
			if _, more := k.sums.gap(); !more {
				k.sums.metrics.rebuild.Set(time.Since(began).Seconds())
				k.sums.log.Info().Dur("took", time.Since(began)).Msg("sums of all slots are counted")
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-k.sums.wake:
			began = time.Now()
		case <-timer.C:
			k.count(ctx, ring.Range{From: k.at, To: k.at + ring.Slots/verifySlices})
			k.at = (k.at + ring.Slots/verifySlices) % ring.Slots
			timer.Reset(k.every)
		}
	}
}

// count counts a range in scans of bounded size, until it is done or ctx ends.
func (k *keeper) count(ctx context.Context, r ring.Range) {
	for r.Len() > 0 && yield(ctx, k.store) {
		part := ring.Range{From: r.From, To: ring.Slot(min(int(r.From)+k.width, int(r.To)))}
		began := time.Now()
		doubts := k.store.Doubts()
		part, doubted := doubts.Cut(part)
		if doubts.Whole {
			pause(ctx, countRetry) // nothing is compared before all is refilled
			continue
		}
		wrong, size, err := k.sums.count(k.store, part, doubted)
		k.sums.metrics.counted.Add(float64(size))
		switch {
		case errors.Is(err, kv.ErrClosed), errors.Is(err, kv.ErrDoubted):
			pause(ctx, countRetry)
			continue
		case errors.Is(err, engine.ErrDamaged) && part.Len() > 1:
			k.width = max(1, part.Len()/8) // the rest of the range must not be held up
			continue
		case errors.Is(err, engine.ErrDamaged):
			k.sums.metrics.damaged.Inc()
			k.sums.log.Error().Err(err).Uint32("slot", uint32(part.From)).Msg("slot not counted whole: a record in it is damaged")
		case err != nil:
			k.sums.log.Debug().Err(err).Stringer("range", part).Msg("range not counted, trying again")
			pause(ctx, countRetry)
			continue
		}
		if wrong > 0 {
			k.sums.metrics.mismatches.Add(float64(wrong))
			k.sums.log.Error().Int("slots", wrong).Stringer("range", part).
				Msg("sums did not match the records and were corrected")
		}
		switch {
		case size > countBytes:
			k.width = max(1, k.width/2)
		case size < countBytes/4:
			k.width = min(countWidth, k.width*2)
		}
		r.From = part.To
		// Half of the time at most is spent on this.
		pause(ctx, min(time.Since(began), countPause))
	}
}
