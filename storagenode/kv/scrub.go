package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// waitSlice is how long a paced read waits before it looks whether the engine is to be closed.
const waitSlice = 10 * time.Millisecond

// ErrNoTables says that the engine has no files that could be verified.
var ErrNoTables = errors.New("kv: engine has no tables to verify")

// Tables lists the files of the engine that VerifyTable can check. opening counts the openings of the engine: where it
// has changed, another directory may have come in the place of the one before. Errors: ErrNoTables, ErrReopening, ErrClosed,
// engine.ErrDamaged, or a transient failure.
func (s *Store) Tables() (tables []engine.Table, opening uint64, err error) {
	l, err := s.acquire()
	if err != nil {
		return nil, 0, err
	}
	defer l.gate.RUnlock()
	v, ok := l.eng.(engine.Verifier)
	if !ok {
		return nil, 0, ErrNoTables
	}
	tables, err = v.Tables()
	return tables, s.reopenings.Load(), err
}

// VerifyTable reads one of Tables from the disk, past all caches, and checks the engine's checksums and those of all
// records in it. What is damaged is treated as if a read had met it, and counted: a table is one, and so is each record whose
// newest version only its own checksum shows to be damaged. pace returns how long to wait before so many bytes are read.
// Errors: ErrReopening, ErrClosed, ctx's, or a transient failure to read.
func (s *Store) VerifyTable(ctx context.Context, t engine.Table, pace func(bytes int) time.Duration) (damaged int, err error) {
	l, err := s.acquire()
	if err != nil {
		return 0, err
	}
	defer l.gate.RUnlock()
	v, ok := l.eng.(engine.Verifier)
	if !ok {
		return 0, ErrNoTables
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := func(bytes int) error {
		for left := pace(bytes); ; left -= waitSlice {
			switch {
			case l.ending.Load() && s.closed.Load():
				return ErrClosed
			case l.ending.Load():
				return ErrReopening
			case left <= 0:
				return ctx.Err()
			}
			timer.Reset(min(left, waitSlice))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	err = v.VerifyTable(t, wait, func(k, rec []byte) error {
		bad, err := s.verifyEntry(l, k, rec)
		if bad {
			damaged++
		}
		return err
	})
	if errors.Is(err, engine.ErrDamaged) {
		damaged++
		s.metrics.damaged.Inc()
		s.met(err, 0, false)
		s.cfg.Logger.Error().Err(err).Msg("the scrub met damage")
		err = nil
	}
	return damaged, err
}

// verifyEntry checks the record in an entry of a table. One that is damaged and not the newest of its key is nobody's.
func (s *Store) verifyEntry(l *life, k, rec []byte) (bad bool, err error) {
	prefix := recordPrefix
	switch {
	case len(k) == 0:
		return false, nil
	case k[0] == tagHint:
		prefix = hintPrefix
	case k[0] != tagRecord && k[0] != tagMark:
		return false, nil
	}
	if len(k) > prefix && record.Verify(k[prefix:], rec) == nil {
		return false, nil
	}
	now, err := l.eng.Get(k, nil) // from the engine: the cache of records may hold what the disk does not
	switch {
	case errors.Is(err, engine.ErrNotFound), errors.Is(err, engine.ErrDamaged):
		return false, nil // the damage of blocks is dealt with where it is met
	case err != nil:
		return false, err
	case len(k) > prefix && record.Verify(k[prefix:], now) == nil:
		return false, nil
	}
	s.metrics.damaged.Inc()
	s.cfg.Logger.Error().Hex("disk_key", k).Msg("the scrub met a damaged record")
	if prefix == recordPrefix && len(k) > prefix {
		hash := ring.Hash(k[prefix:])
		if slot := ring.Slot(hash >> (64 - ring.SlotBits)); s.Doubts().first(ring.Range{From: slot, To: slot + 1}) != slot {
			s.met(fmt.Errorf("%w: key %x", engine.ErrDamaged, k[prefix:]), hash, true)
		}
	}
	return true, nil
}
