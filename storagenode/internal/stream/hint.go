package stream

import (
	"errors"
	"slices"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

// hintsMost bounds the primaries that one request names: those of two layouts.
const hintsMost = 2 * ring.MaxReplicas

// hintTargets reads whom a record is kept for. fault says what is wrong with it.
func (s *Server) hintTargets(r *storagev1.Request) (targets []ring.NodeID, fault string) {
	if len(r.GetHintFor()) > hintsMost {
		return nil, "a hint for too many nodes"
	}
	for _, b := range r.GetHintFor() {
		if len(b) != 16 {
			return nil, "a hint for a node whose id is not 16 bytes"
		}
		id := ring.NodeID(b)
		if id.IsZero() || id == s.cfg.Node || slices.Contains(targets, id) {
			return nil, "a hint for nobody, for the node itself or for one node twice"
		}
		targets = append(targets, id)
	}
	return targets, ""
}

// record returns the record that a read is answered from. A node that does not own the slot answers with what it keeps of
// the key for others, which gateways merge in and never count.
// marked says that it is a tombstone that is being collected.
func (s *Server) record(key []byte) (rec []byte, marked bool, err error) {
	if !s.cfg.Layouts.Owns(ring.SlotOf(key)) {
		rec, err = s.cfg.Store.ReadHeld(key)
		return rec, false, err
	}
	if rec, err = s.cfg.Store.Read(key); errors.Is(err, kv.ErrNotFound) {
		return s.cfg.Store.ReadMarked(key)
	}
	return rec, false, err
}

// limit is when a record that came with this heartbeat number must not be taken any more; zero for never. The error is
// kv.ErrStale for a number of another life.
func (s *Server) limit(heard uint64) (time.Time, error) {
	if s.cfg.MessageAge <= 0 {
		return time.Time{}, nil
	}
	born, ok := s.cfg.Pulse.Born(heard)
	if !ok {
		return time.Time{}, kv.ErrStale
	}
	return born.Add(s.cfg.MessageAge), nil
}

// digest is record for its digest alone.
func (s *Server) digest(key []byte) (d record.Digest, marked bool, err error) {
	if s.cfg.Layouts.Owns(ring.SlotOf(key)) {
		if d, err = s.cfg.Store.Digest(key); !errors.Is(err, kv.ErrNotFound) {
			return d, false, err
		}
	}
	rec, marked, err := s.record(key)
	if err != nil {
		return record.Digest{}, false, err
	}
	d, err = record.DigestOf(rec)
	return d, marked, err
}

// StatusOf is what a request that ended with this error of the store is answered with; OK for nil. Unless the store is
// in doubt about a write, nothing was done.
func StatusOf(err error) storagev1.Status {
	if err == nil {
		return storagev1.Status_STATUS_OK
	}
	st := statusOf(err)
	if st == storagev1.Status_STATUS_FAILED && !errors.Is(err, kv.ErrInDoubt) {
		return storagev1.Status_STATUS_UNAVAILABLE
	}
	return st
}

// Pressure is how full the queue of requests is, 0 to 1.
func (s *Server) Pressure() float64 { return float64(s.queued.Load()) / float64(s.cfg.QueueMax) }
