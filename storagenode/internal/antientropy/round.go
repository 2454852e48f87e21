package antientropy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/merkle"
)

const (
	// fan costs least bytes for each difference: 16 for each part on each level, 32 for each halving.
	fan = 4
	// leafKeys is about how many keys are listed rather than narrowing further.
	leafKeys = 4
	// leafMax bounds the width of what is listed, in slots.
	leafMax = 256
	// groupRanges is how many ranges are compared together; rounds go on behind the last group that was done.
	groupRanges = merkle.MaxSums / fan
	// listKeys is about how many keys one listing should have, listSlots how many slots it may have.
	listKeys  = 8192
	listSlots = 4096
	// listMax refuses a listing that would take too much memory.
	listMax = 1 << 20
	// candidatesMax bounds the differing keys that wait to be looked at again.
	candidatesMax = 16384
	// fetchKeys bounds the keys of one fetch.
	fetchKeys = 256
	// callTimeout bounds one call.
	callTimeout = 30 * time.Second
	// applyRetry is the pause when the store is busy, applyTries how often.
	applyRetry = 20 * time.Millisecond
	applyTries = 250
	// frameOverhead is what gRPC puts before each message.
	frameOverhead = 5
)

// round is one comparison with a peer, or a part of it.
type round struct {
	s        *Service
	peer     ring.NodeID
	layout   *storagev1.LayoutName
	log      zerolog.Logger
	client   storagev1.StorageClient
	waiting  []candidate // differing keys that are to be looked at again
	perSlot  int         // of slots in one listing
	partial  bool        // something could not be read or stored
	thorough bool        // what changes is fetched as well
	repaired int
}

// candidate is a key that the peer has and that would add to what is here.
type candidate struct {
	key  []byte
	mine record.Digest // when it was compared
}

// compare compares the ranges from x.next on, and fetches what is missing. x tells afterwards how far it came. Within a
// group it needs no mark: what was fetched does not differ any more.
func (r *round) compare(ctx context.Context, x *exchange, ranges []ring.Range) error {
	client, done, err := r.s.cfg.Peers.To(r.peer)
	if err != nil {
		return err
	}
	defer done()
	r.client, r.perSlot = client, listSlots/16
	n := merkle.Narrowing{Fan: fan, Leaf: r.leafWidth(ranges)}
	for x.next < len(ranges) {
		group := ranges[x.next:min(x.next+groupRanges, len(ranges))]
		leaves, err := n.Differing(group, r.local, func(a merkle.Ask) ([]byte, error) { return r.remote(ctx, a) })
		if err != nil {
			return err
		}
		if err := r.repair(ctx, leaves); err != nil {
			return err
		}
		x.next += len(group)
		x.rangesDone.Store(int32(x.next))
		x.whole = x.whole && !r.partial
	}
	return nil
}

// leafWidth is how many slots hold about leafKeys keys.
func (r *round) leafWidth(ranges []ring.Range) int {
	slots := 0
	for _, own := range ranges {
		slots += own.Len()
	}
	keys := max(r.s.cfg.Store.Stats().Keys, 1)
	return int(min(max(int64(slots)*leafKeys/keys, 1), leafMax))
}

func (r *round) local(a merkle.Ask) ([]byte, error) { return r.s.cfg.Sums.Answer(a), nil }

func (r *round) remote(ctx context.Context, a merkle.Ask) ([]byte, error) {
	if !yield(ctx, r.s.cfg.Store) {
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &storagev1.CompareRequest{From: r.s.cfg.Self[:], Layout: r.layout, FromSlot: uint32(a.Ranges[0].From),
		ToSlot: uint32(a.Ranges[0].To), Parts: uint32(a.Parts), More: pairs(a.Ranges[1:])}
	r.count("sent", req.SizeVT())
	resp, err := r.client.Compare(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	r.count("received", resp.SizeVT())
	return resp.GetHashes(), nil
}

func pairs(ranges []ring.Range) []uint32 {
	var out []uint32
	for _, r := range ranges {
		out = append(out, uint32(r.From), uint32(r.To))
	}
	return out
}

func (r *round) count(direction string, size int) {
	r.s.metrics.bytes.WithLabelValues(direction).Add(float64(size + frameOverhead))
}

// repair fetches what the peer has in these slots and this node lacks.
func (r *round) repair(ctx context.Context, leaves []ring.Range) error {
	for len(leaves) > 0 {
		var batch []ring.Range
		batch, leaves = takeSlots(leaves, r.perSlot)
		if err := r.list(ctx, batch); err != nil {
			return err
		}
		if len(r.waiting) >= candidatesMax {
			if err := r.fetchWaiting(ctx); err != nil {
				return err
			}
		}
	}
	return r.fetchWaiting(ctx)
}

// takeSlots splits ranges behind the first n slots.
func takeSlots(ranges []ring.Range, n int) (first, rest []ring.Range) {
	for i, r := range ranges {
		if r.Len() > n {
			mid := r.From + ring.Slot(n)
			if n > 0 {
				first = append(first, ring.Range{From: r.From, To: mid})
			}
			return first, append([]ring.Range{{From: mid, To: r.To}}, ranges[i+1:]...)
		}
		first = append(first, r)
		n -= r.Len()
	}
	return first, nil
}

func slotsOf(ranges []ring.Range) (n int) {
	for _, r := range ranges {
		n += r.Len()
	}
	return n
}

// list finds the keys that differ in some slots. Where a damaged record on either side keeps slots from being listed, the
// others are listed without them.
func (r *round) list(ctx context.Context, ranges []ring.Range) error {
	theirs, err := r.theirs(ctx, ranges)
	var mine []merkle.Entry
	if err == nil && len(theirs) > 0 {
		mine, err = r.s.listAll(ranges)
	}
	if errors.Is(err, engine.ErrDamaged) || status.Code(err) == codes.DataLoss {
		if slotsOf(ranges) > 1 {
			half, rest := takeSlots(ranges, slotsOf(ranges)/2)
			if err := r.list(ctx, half); err != nil {
				return err
			}
			return r.list(ctx, rest)
		}
		r.partial = true
		r.s.metrics.damaged.Inc()
		r.log.Warn().Err(err).Stringer("range", ranges[0]).Msg("slot not compared: a record in it is damaged")
		return nil
	}
	if err != nil {
		return err
	}
	// As many slots in the next listing as hold listKeys keys, by this one.
	r.perSlot = min(max(1, slotsOf(ranges)*listKeys/max(len(theirs), 1)), 4*r.perSlot, listSlots)
	known := make(map[string]record.Digest, len(mine))
	for _, e := range mine {
		known[string(e.Key)] = e.Digest
	}
	for _, e := range merkle.Wanted(mine, theirs) {
		r.waiting = append(r.waiting, candidate{key: e.Key, mine: known[string(e.Key)]})
	}
	return nil
}

// theirs lists what the peer holds.
func (r *round) theirs(ctx context.Context, ranges []ring.Range) ([]merkle.Entry, error) {
	if !yield(ctx, r.s.cfg.Store) {
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &storagev1.DigestsRequest{From: r.s.cfg.Self[:], Layout: r.layout, Ranges: pairs(ranges)}
	r.count("sent", req.SizeVT())
	st, err := r.client.Digests(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("digests: %w", err)
	}
	var out []merkle.Entry
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("digests: %w", err)
		}
		r.count("received", m.SizeVT())
		for _, k := range m.GetKeys() {
			clock, err := causal.DecodeContext(k.GetClock())
			slot := ring.SlotOf(k.GetKey())
			_, inside := slices.BinarySearchFunc(ranges, slot, compareSlot)
			if err != nil || len(k.GetDigest()) != len(record.Digest{}) || !inside || len(out) >= listMax {
				return nil, fmt.Errorf("digests: %w", errMalformed)
			}
			out = append(out, merkle.Entry{Key: k.GetKey(), Digest: record.Digest(k.GetDigest()), Clock: clock.Vector})
		}
	}
}

// compareSlot says where a range lies from a slot.
func compareSlot(r ring.Range, slot ring.Slot) int {
	switch {
	case r.To <= slot:
		return -1
	case r.From > slot:
		return 1
	}
	return 0
}

// fetchWaiting waits a moment, drops the keys whose record here has changed, since what is being written differs for as
// long as it is on its way, and fetches the others.
func (r *round) fetchWaiting(ctx context.Context) error {
	waiting := r.waiting
	r.waiting = nil
	if len(waiting) == 0 {
		return nil
	}
	if !pause(ctx, r.s.cfg.Recheck) {
		return ctx.Err()
	}
	var keys [][]byte
	for _, c := range waiting {
		now, err := r.s.digestOf(c.key)
		switch {
		case err != nil:
			r.lost(c.key, err)
		case now != c.mine && !r.thorough:
			r.s.metrics.passing.Inc()
		default:
			keys = append(keys, c.key)
		}
	}
	for len(keys) > 0 {
		if !yield(ctx, r.s.cfg.Store) {
			return ctx.Err()
		}
		began := time.Now()
		n, err := r.fetch(ctx, keys[:min(len(keys), fetchKeys)])
		if err != nil {
			return err
		}
		keys = keys[n:]
		if len(keys) > 0 { // half of the time is others'
			pause(ctx, min(time.Since(began), countPause))
		}
	}
	return ctx.Err()
}

// lost takes note of a key that could not be repaired.
func (r *round) lost(key []byte, err error) {
	r.partial = true
	r.s.metrics.failed.Inc()
	r.log.Warn().Err(err).Hex("key", key).Msg("record not repaired")
}

// fetch gets the records of the first of these keys and stores them durably; it returns how many keys are done with.
func (r *round) fetch(ctx context.Context, keys [][]byte) (int, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &storagev1.FetchRequest{From: r.s.cfg.Self[:], Keys: keys}
	r.count("sent", req.SizeVT())
	limit := time.Time{}
	if age := r.s.cfg.MessageAge; age > 0 {
		limit = time.Now().Add(age)
	}
	resp, err := r.client.Fetch(call, req)
	if status.Code(err) == codes.DataLoss { // of the first key, at the peer
		r.lost(keys[0], err)
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("fetch: %w", err)
	}
	r.count("received", resp.SizeVT())
	recs := resp.GetRecords()
	if len(recs) == 0 || len(recs) > len(keys) {
		return 0, fmt.Errorf("fetch: %w: %d records for %d keys", errMalformed, len(recs), len(keys))
	}
	ended := make(chan applied, len(recs))
	waiting := 0
	for i, rec := range recs {
		if string(rec.GetKey()) != string(keys[i]) {
			err = fmt.Errorf("fetch: %w: another key", errMalformed)
			break
		}
		if len(rec.GetRecord()) == 0 {
			continue
		}
		if err = r.apply(ctx, limit, rec, ended); err != nil {
			if errors.Is(err, kv.ErrOverloaded) || errors.Is(err, kv.ErrReopening) || errors.Is(err, kv.ErrDiskFull) ||
				errors.Is(err, kv.ErrClosed) {
				break
			}
			r.lost(keys[i], err)
			err = nil
			continue
		}
		waiting++
	}
	for range waiting { // the store answers all it took
		a := <-ended
		switch {
		case a.err != nil && err == nil:
			err = a.err
		case a.changed:
			r.repaired++
			r.s.repaired.Add(1)
			r.s.metrics.repaired.Inc()
		}
	}
	return len(recs), err
}

type applied struct {
	changed bool
	err     error
}

// apply queues a record, however long the store is busy within bounds.
func (r *round) apply(ctx context.Context, limit time.Time, rec *storagev1.PulledRecord, ended chan<- applied) (err error) {
	for range applyTries {
		err = r.s.cfg.Store.ApplyBefore(limit, rec.GetKey(), rec.GetRecord(), func(changed bool, err error) { ended <- applied{changed, err} })
		if !errors.Is(err, kv.ErrOverloaded) && !errors.Is(err, kv.ErrReopening) {
			return err
		}
		if !pause(ctx, applyRetry) {
			return ctx.Err()
		}
	}
	return err
}
