package stream

import (
	"slices"
	"testing"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

func idBytes(n byte) []byte { return slices.Repeat([]byte{n}, 16) }

// A hint is kept apart from own records, only for a client's write, under the same fence; and reads of what a node does
// not own are answered from what it keeps.
func TestHintRequests(t *testing.T) {
	h := newHarness(t, nil)
	h.layouts.mu.Lock()
	h.layouts.owns = false
	h.layouts.mu.Unlock()
	c := h.greeted(1)
	hint := func(id uint64, cause storagev1.Cause, targets ...[]byte) *storagev1.Request {
		return &storagev1.Request{Id: id, Op: storagev1.Op_OP_APPLY, Key: []byte("k"), Record: []byte("r"), Cause: cause, HintFor: targets}
	}
	self := ring.NodeID{7}
	for name, r := range map[string]*storagev1.Request{
		"a repair":       hint(1, storagev1.Cause_CAUSE_REPAIR, idBytes(1)),
		"a replay":       hint(1, storagev1.Cause_CAUSE_HINT, idBytes(1)),
		"a short id":     hint(1, storagev1.Cause_CAUSE_WRITE, idBytes(1)[1:]),
		"no id":          hint(1, storagev1.Cause_CAUSE_WRITE, idBytes(0)),
		"the node":       hint(1, storagev1.Cause_CAUSE_WRITE, idBytes(2), self[:]),
		"one twice":      hint(1, storagev1.Cause_CAUSE_WRITE, idBytes(2), idBytes(2)),
		"too many":       hint(1, storagev1.Cause_CAUSE_WRITE, slices.Repeat([][]byte{idBytes(1)}, hintsMost+1)...),
		"a mint for one": {Id: 1, Op: storagev1.Op_OP_MINT, Key: []byte("k"), HintFor: [][]byte{self[:]}},
	} {
		c.send(r)
		if got := c.answer(); got.GetStatus() != storagev1.Status_STATUS_INVALID || h.store.flush() != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	c.send(hint(2, storagev1.Cause_CAUSE_WRITE, idBytes(1), idBytes(2)), readOf(9, "absent"))
	h.wantStatus(c.answer(), 9, storagev1.Status_STATUS_ABSENT) // the hint was worked on before
	h.store.flush()
	if got := c.answer(); got.GetStatus() != storagev1.Status_STATUS_OK || !got.GetDurable() {
		t.Errorf("a hint: %v", got)
	}
	h.store.mu.Lock()
	if h.store.records["k"] != nil || string(h.store.records[string(idBytes(1))+"k"]) != "r" {
		t.Errorf("stored %q", h.store.records)
	}
	h.store.records["held/k"], h.store.records["k"] = []byte("kept"), []byte("own")
	h.store.mu.Unlock()
	c.send(readOf(3, "k"))
	if got := c.answer(); string(got.GetRecord()) != "kept" {
		t.Errorf("read: %v", got)
	}
	c.send(mintOf(4, "k", "v"))
	h.wantStatus(c.answer(), 4, storagev1.Status_STATUS_UNAVAILABLE) // without a hint, only owners mint
	mint := mintOf(5, "k", "v")
	mint.HintFor = [][]byte{idBytes(1)}
	c.send(mint)
	h.wantStatus(c.answer(), 5, storagev1.Status_STATUS_OK)
	h.store.flush()
	h.wantStatus(c.answer(), 5, storagev1.Status_STATUS_OK)

	h.store.mu.Lock()
	h.store.refuse = kv.ErrHintsFull
	h.store.mu.Unlock()
	c.send(hint(6, storagev1.Cause_CAUSE_WRITE, idBytes(1)))
	h.wantStatus(c.answer(), 6, storagev1.Status_STATUS_OVERLOADED)
	h.layouts.mu.Lock()
	h.layouts.fence = ring.Fence{Acked: ring.LayoutID{Epoch: 2, Hash: [16]byte{2}}, ReadEpoch: 2}
	h.layouts.mu.Unlock()
	c.send(hint(7, storagev1.Cause_CAUSE_WRITE, idBytes(1)))
	h.wantStatus(c.answer(), 7, storagev1.Status_STATUS_FENCED)
}
