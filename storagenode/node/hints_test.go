package node_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/node"
)

// writer does what a gateway does: it mints at an owner, sends the record to the others, and to a fallback for an owner
// that is away.
type writer struct {
	t       *testing.T
	layout  *ring.Layout
	id      []*storagev1.LayoutName
	clients map[ring.NodeID]*client // of those that are there
}

func (w *writer) apply(to ring.NodeID, key string, rec []byte, hintFor ...[]byte) *storagev1.Response {
	w.t.Helper()
	all := w.clients[to].do(w.id, &storagev1.Request{Op: storagev1.Op_OP_APPLY, Key: []byte(key), Record: rec,
		Cause: storagev1.Cause_CAUSE_WRITE, HintFor: hintFor})
	return all[len(all)-1]
}

// put returns the record, and who kept it for an owner.
func (w *writer) put(key, value string) (rec []byte, hintAt *ring.NodeID) {
	w.t.Helper()
	slot := ring.SlotOf([]byte(key))
	fallbacks := w.layout.Fallbacks(slot, nil, 5)
	for _, n := range w.layout.Primaries(slot) {
		switch {
		case w.clients[n] == nil:
		case rec == nil:
			rec = bytes.Clone(w.clients[n].mint(w.id, key, value)[0].GetRecord())
		default:
			if r := w.apply(n, key, rec); r.GetStatus() != storagev1.Status_STATUS_OK {
				w.t.Fatalf("apply: %v", r)
			}
		}
	}
	for _, n := range w.layout.Primaries(slot) {
		if w.clients[n] == nil {
			hintAt = &fallbacks[0]
			if r := w.apply(*hintAt, key, rec, n[:]); r.GetStatus() != storagev1.Status_STATUS_OK || !r.GetDurable() {
				w.t.Fatalf("hint: %v", r)
			}
		}
	}
	return rec, hintAt
}

// standInsOf says for each node who stands in first for it, somewhere where it is an owner: for a hundredth of all slots or more, so that
// some key of a thousand is there. The few slots at the end of a range often have others.
func standInsOf(l *ring.Layout) map[ring.NodeID]map[ring.NodeID]int {
	const step = 251 // has no factor in common with the bounds of ranges
	out := map[ring.NodeID]map[ring.NodeID]int{}
	for s := ring.Slot(0); s < ring.Slots; s += step {
		first := l.Fallbacks(s, nil, 1)[0]
		for _, n := range l.Primaries(s) {
			if out[n] == nil {
				out[n] = map[ring.NodeID]int{}
			}
			out[n][first]++
		}
	}
	for _, who := range out {
		maps.DeleteFunc(who, func(_ ring.NodeID, seen int) bool { return seen < ring.Slots/step/100 })
	}
	return out
}

func hintsAt(t *testing.T, m *member) uint64 {
	t.Helper()
	got, err := dial(m, nil).api.GetNode(t.Context(), &storagev1.GetNodeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetHints()
}

// A node is away; what it misses is kept by others, also by one that restarts, and reaches it when it is back: without a
// single read it then holds the same bytes as the other owners. Delivering all of it once more changes nothing.
func TestHintsDrain(t *testing.T) {
	t.Parallel()
	all := members(t, 5, func(_ int, c *node.Config) {
		c.Engine, c.AntiEntropyInterval = node.EngineLevelDB, time.Hour
	})
	for _, m := range all {
		m.start()
	}
	settled := settle(t, all)
	w := &writer{t: t, layout: view(all[0]).Settled(), id: names(settled), clients: map[ring.NodeID]*client{}}
	// All that stand in for it are to keep hints. How many those are the layout says, which is drawn with the nodes' ids: the one that has
	// most of them goes away.
	standIns := standInsOf(w.layout)
	slices.SortFunc(all, func(a, b *member) int { return len(standIns[a.ID()]) - len(standIns[b.ID()]) })
	away := all[4]
	gone := away.ID()
	away.stop()
	for _, m := range all[:4] {
		w.clients[m.ID()] = dial(m, nil)
	}
	records, kept := map[string][]byte{}, map[ring.NodeID]uint64{}
	missing := func() bool {
		for id := range standIns[gone] {
			if kept[id] == 0 {
				return true
			}
		}
		return false
	}
	for i := 0; i < 200 || i < 10_000 && missing(); i++ {
		key := fmt.Sprint("key", i)
		rec, at := w.put(key, fmt.Sprint("value of ", key))
		if at != nil {
			records[key] = rec
			kept[*at]++
		}
	}
	keeper := all[slices.IndexFunc(all[:4], func(m *member) bool { return kept[m.ID()] > 0 })]
	if missing() || len(standIns[gone]) < 2 {
		t.Fatalf("of %d that stand in, %d nodes keep hints: %v", len(standIns[gone]), len(kept), kept)
	}
	for _, m := range all[:4] {
		if got := hintsAt(t, m); got != kept[m.ID()] {
			t.Errorf("%s keeps %d hints, of %d", m.cfg.Name, got, kept[m.ID()])
		}
	}
	keeper.stop()
	keeper.start()
	wait(t, "ready after a restart", keeper.Ready)
	if got := hintsAt(t, keeper); got != kept[keeper.ID()] {
		t.Errorf("%d hints of %d survived a restart", got, kept[keeper.ID()])
	}
	away.start()
	wait(t, "all hints delivered", func() bool {
		for _, m := range all[:4] {
			if hintsAt(t, m) > 0 {
				return false
			}
		}
		return true
	})
	if away.ID() != gone {
		t.Fatal("the node came back as another")
	}
	back := dial(away, nil)
	deliver := &storagev1.DeliverRequest{From: slices.Clone(gone[:]), Cause: storagev1.Cause_CAUSE_HINT}
	same := func() {
		t.Helper()
		for key, rec := range records {
			if got := back.read(w.id, key); !bytes.Equal(got.GetRecord(), rec) {
				t.Errorf("%s: %v with %d bytes, want %d", key, got.GetStatus(), len(got.GetRecord()), len(rec))
			}
		}
	}
	same()
	for key, rec := range records {
		deliver.Records = append(deliver.Records, &storagev1.PulledRecord{Key: []byte(key), Record: rec})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	refused, err := back.api.Deliver(ctx, deliver)
	if err != nil || slices.ContainsFunc(refused.GetStatuses(), func(s storagev1.Status) bool { return s == storagev1.Status_STATUS_OK }) {
		t.Errorf("delivered without saying how old it may be: %v, %v", refused, err)
	}
	deliver.Heard = back.heard()
	resp, err := back.api.Deliver(ctx, deliver)
	if err != nil || len(resp.GetStatuses()) != len(records) || slices.ContainsFunc(resp.GetStatuses(), func(s storagev1.Status) bool { return s != storagev1.Status_STATUS_OK }) {
		t.Errorf("delivered again: %v, %v", resp, err)
	}
	same()
	deliver.Cause = storagev1.Cause_CAUSE_WRITE
	if _, err := back.api.Deliver(ctx, deliver); err == nil {
		t.Error("a client's write was delivered past the fence")
	}
	wait(t, "all say that they delivered everything", func() bool {
		return !slices.ContainsFunc(all[:4], func(m *member) bool {
			return kept[m.ID()] > 0 && m.logs.count("all hints for the node are delivered") != 1
		})
	})
}
