package node_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/node"
)

// load stores keys with values of some size at all their owners, and returns the bytes of one copy of all records.
func load(t *testing.T, all []*member, live ring.LayoutID, keys, size int) (total int) {
	t.Helper()
	conns := make(map[ring.NodeID]*client)
	for _, m := range all {
		conns[m.ID()] = dial(m, nil)
	}
	l := view(all[0]).Settled()
	for i := range keys {
		key := fmt.Sprintf("key-%d", i)
		value := valueOf(key, size)
		dot := causal.Dot{Actor: causal.Actor{9}, Counter: uint64(i + 1)}
		rec := record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{}.With(dot), Siblings: []causal.Sibling{{
			Dot: dot, Checksum: record.Checksum([]byte(value)), Value: []byte(value)}}})
		total += len(key) + len(rec)
		for _, o := range l.Primaries(ring.SlotOf([]byte(key))) {
			r := conns[o].do(names(live), &storagev1.Request{Op: storagev1.Op_OP_APPLY, Cause: storagev1.Cause_CAUSE_REPAIR, Key: []byte(key), Record: rec})[0]
			if r.GetStatus() != storagev1.Status_STATUS_OK {
				t.Fatalf("apply of %s: %v", key, r)
			}
		}
	}
	return total
}

func valueOf(key string, size int) string {
	text := "value of " + key
	return text + strings.Repeat("x", max(size-len(text), 0))
}

// ownersHave reads all keys that load stored at all their owners.
func ownersHave(t *testing.T, all []*member, live ring.LayoutID, keys, size int) {
	t.Helper()
	for _, m := range all {
		c := dial(m, nil)
		for i := range keys {
			if key := fmt.Sprintf("key-%d", i); view(m).Settled().Owns(m.ID(), ring.SlotOf([]byte(key))) {
				c.wantValue(names(live), key, valueOf(key, size))
			}
		}
	}
}

// metric sums a metric over its labels.
func metric(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// onDisk keeps a node's data where a restart finds it.
func onDisk(_ int, c *node.Config) {
	quick(0, c)
	c.Engine = node.EngineLevelDB
}

// A pull goes on where it was after the receiver, the sources, and at last everybody was started anew, and brings each
// record once, although two sources are asked for it.
func TestTransferOutlivesRestarts(t *testing.T) {
	t.Parallel()
	const keys, size = 600, 4096
	all := members(t, 4, func(i int, c *node.Config) {
		onDisk(i, c)
		c.TransferRate = 192 << 10
	})
	for _, m := range all[:3] {
		m.start()
	}
	three := settle(t, all[:3])
	total := load(t, all[:3], three, keys, size)
	joiner, pulled := all[3], 0.0
	joiner.start()
	// begun waits until the joiner has pulled some more, and returns how much in this life.
	begun := func(share float64) (got float64) {
		t.Helper()
		wait(t, "some of the records come", func() bool {
			got = metric(t, joiner.reg, "dotring_node_pulled_bytes_total")
			return pulled+got > share*float64(total) && metric(t, joiner.reg, "dotring_node_transfer_slots_done") > 0
		})
		return got
	}
	// resumes waits for the pulls of the joiner's life number n, which go on where the one before ended.
	resumes := func(n int) {
		t.Helper()
		wait(t, "pulls go on", func() bool { return joiner.logs.count("pulls begin") == n })
		if joiner.logs.count(`"slots_done":0,`) > 1 {
			t.Error("pulls begin anew")
		}
	}
	pulled += begun(0.15)
	task, err := dial(joiner, nil).api.GetTasks(t.Context(), &storagev1.GetTasksRequest{})
	if x := task.GetTransfer(); err != nil || x.GetSlotsDone() == 0 || x.GetSlotsDone() >= x.GetSlotsTotal() || x.GetSecondsLeft() <= 0 || x.GetBytesTotal() < x.GetBytesDone() {
		t.Errorf("task %v, %v", x, err)
	}
	joiner.stop()
	joiner.start()
	resumes(2)
	pulled += begun(0.3)
	stopAll(all)
	joiner.cfg.TransferRate = 0
	for _, m := range all {
		m.start()
	}
	resumes(3)
	four := settle(t, all)
	pulled += metric(t, joiner.reg, "dotring_node_pulled_bytes_total")
	ownersHave(t, all, four, keys, size)
	owned := 0
	for _, r := range view(joiner).Settled().OwnedRanges(joiner.ID()) {
		owned += r.Len()
	}
	if want := float64(total) * float64(owned) / ring.Slots; pulled > 1.2*want {
		t.Errorf("%.0f bytes were pulled, the records that the joiner owns have %.0f", pulled, want)
	}
	for _, m := range all[:3] {
		if got := metric(t, m.reg, "dotring_node_pulled_bytes_total"); got > float64(total)/20 {
			t.Errorf("%s, which has all it owns, pulled %.0f bytes", m.cfg.Name, got)
		}
	}
}

// keysOf counts the records that a node holds.
func keysOf(t *testing.T, m *member) uint64 {
	t.Helper()
	resp, err := dial(m, nil).api.GetNode(t.Context(), &storagev1.GetNodeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetKeys()
}

// What a node does not own any more goes to its owners, also where only it has a record, and leaves its disk: after a join,
// and after the node itself has left. While an owner is away it stays.
func TestLeftoversGoToTheirOwners(t *testing.T) {
	t.Parallel()
	const keys, size = 200, 1024
	all := members(t, 5, onDisk)
	for _, m := range all[:3] {
		m.start()
	}
	load(t, all[:3], settle(t, all[:3]), keys, size)
	all[3].start()
	four := settle(t, all[:4])
	sum := func(of []*member) (n uint64) {
		for _, m := range of {
			n += keysOf(t, m)
		}
		return n
	}
	wait(t, "each of four nodes holds what it owns and no more", func() bool { return sum(all[:4]) == 3*keys })
	ownersHave(t, all[:4], four, keys, size)

	// A record that came late, to a node that does not own it, and to nobody else.
	key := ""
	for i := 0; key == ""; i++ {
		if k := fmt.Sprintf("late-%d", i); !view(all[0]).Settled().Owns(all[0].ID(), ring.SlotOf([]byte(k))) {
			key = k
		}
	}
	dot := causal.Dot{Actor: causal.Actor{9}, Counter: 1 << 20}
	rec := record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{}.With(dot), Siblings: []causal.Sibling{{
		Dot: dot, Checksum: record.Checksum([]byte("late")), Value: []byte("late")}}})
	away := all[1]
	away.stop()
	wait(t, "gossip notices", func() bool { return metricAlive(t, all[0]) < 4 })
	stranger := dial(all[0], nil)
	if r := stranger.do(names(four), &storagev1.Request{Op: storagev1.Op_OP_APPLY, Cause: storagev1.Cause_CAUSE_REPAIR, Key: []byte(key), Record: rec})[0]; r.GetStatus() != storagev1.Status_STATUS_OK {
		t.Fatal(r)
	}
	stopAll(all[:1]) // it comes back and looks at once
	all[0].start()
	wait(t, "it says whom it waits for", func() bool {
		resp, err := dial(all[0], nil).api.GetTasks(t.Context(), &storagev1.GetTasksRequest{})
		return err == nil && strings.Contains(resp.GetLeftovers().GetWaits(), away.cfg.Name)
	})
	away.start()
	settle(t, all[:4])
	wait(t, "the late record is with its owners alone", func() bool { return sum(all[:4]) == 3*(keys+1) })

	leaver := all[3]
	id := leaver.ID()
	if _, err := dial(all[0], nil).api.ChangeLayout(t.Context(), &storagev1.ChangeLayoutRequest{Change: storagev1.LayoutChange_LAYOUT_CHANGE_LEAVE, Node: id[:]}); err != nil {
		t.Fatal(err)
	}
	three := settleWithout(t, all[:4], leaver)
	wait(t, "nothing is left at the one that left", func() bool { return keysOf(t, leaver) == 0 && sum(all[:3]) == 3*(keys+1) })
	ownersHave(t, all[:3], three, keys, size)
}

// metricAlive is how many members the gossip of a node shows alive.
func metricAlive(t *testing.T, m *member) (n int) {
	t.Helper()
	st, err := dial(m, nil).api.Watch(t.Context(), &storagev1.WatchRequest{Peer: make([]byte, 16)})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := st.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range snap.GetMembers() {
		if x.GetStatus() == "alive" {
			n++
		}
	}
	return n
}
