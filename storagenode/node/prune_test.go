package node_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/node"
)

// A key that was written by many lives of its nodes loses the entries of those that are over, and goes on losing them while
// nodes are restarted between writes, so that none is refused; contexts that name what left work as before.
func TestClocksAreBounded(t *testing.T) {
	t.Parallel()
	all := members(t, 3, func(_ int, c *node.Config) {
		c.Engine, c.AntiEntropyInterval, c.TombstoneGrace = node.EngineLevelDB, 300*time.Millisecond, 2*time.Second
	})
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	const key = "hot"
	const lives = 120 // 125 are too many for a token
	var old causal.Vector
	for i := range lives {
		var a causal.Actor
		binary.BigEndian.PutUint64(a[:], uint64(i+1))
		old = append(old, causal.Entry{Actor: a, Counter: 7})
	}
	last := old[lives-1]
	rec := record.Append(nil, []byte(key), causal.Set{Clock: old, Siblings: []causal.Sibling{{
		Dot: last, Time: 1, ContentType: "text/plain", Checksum: record.Checksum([]byte("first")), Value: []byte("first")}}})
	for _, m := range all {
		give(t, m, map[string][]byte{key: rec})
	}
	set := func(m *member) causal.Set {
		r := dial(m, nil).read(names(id), key)
		if r.GetStatus() != storagev1.Status_STATUS_OK {
			t.Fatalf("read at %s: %v", m.cfg.Name, r)
		}
		s, err := record.Decode([]byte(key), bytes.Clone(r.GetRecord()))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	// bring sends a write until it is taken: with so short a grace time a record is too old after a second on its way,
	// which a busy disk alone can take. Nothing was done then, and writers bring it again.
	bring := func(m *member, req *storagev1.Request) {
		t.Helper()
		var end *storagev1.Response
		wait(t, fmt.Sprintf("%v taken by %s", req.GetOp(), m.cfg.Name), func() bool {
			all := dial(m, nil).do(names(id), req)
			end = all[len(all)-1]
			return end.GetDetail() != kv.ErrStale.Error()
		})
		if end.GetStatus() != storagev1.Status_STATUS_OK {
			t.Fatalf("%v at %s: %v", req.GetOp(), m.cfg.Name, end)
		}
	}
	// put mints at one node, with a context or without, and has the others take it.
	put := func(at *member, value string, ctx *causal.Context) causal.Set {
		t.Helper()
		req := &storagev1.Request{Op: storagev1.Op_OP_MINT, Key: []byte(key), Value: []byte(value), ContentType: "text/plain",
			Checksum: record.Checksum([]byte(value))}
		if ctx != nil {
			req.HasContext, req.Context = true, causal.AppendContext(nil, *ctx)
		}
		bring(at, req)
		s := set(at)
		for _, m := range all {
			if m != at {
				bring(m, &storagev1.Request{Op: storagev1.Op_OP_APPLY, Key: []byte(key),
					Record: record.Append(nil, []byte(key), s), Cause: storagev1.Cause_CAUSE_WRITE})
			}
		}
		return s
	}
	bounded := func(most int) {
		t.Helper()
		wait(t, fmt.Sprintf("at most %d entries everywhere, and all alike", most), func() bool {
			one := set(all[0])
			for _, m := range all {
				if s := set(m); len(s.Clock) > most || !bytes.Equal(record.Append(nil, []byte(key), s), record.Append(nil, []byte(key), one)) {
					return false
				}
			}
			return true
		})
	}
	if s := put(all[0], "second", &causal.Context{Vector: old}); len(s.Siblings) != 1 {
		t.Fatalf("%d siblings", len(s.Siblings))
	}
	bounded(4)
	wait(t, "somebody counted it", func() bool { return total(t, all, "dotring_node_clocks_pruned_total", "") > 0 })
	// Whoever has seen what left has seen nothing that these nodes have not.
	for _, m := range all {
		gone, err := causal.DecodeContext(dial(m, nil).read(names(id), key).GetRetired())
		if err != nil || !(causal.Context{Vector: old}).SatisfiedBy(set(m).Clock.Join(gone.Vector)) {
			t.Errorf("%s does not vouch for what left: %v, %v", m.cfg.Name, gone, err)
		}
	}
	// A stale writer makes a sibling and no lost update; one whose own write is what left is not behind; nothing comes back.
	if s := put(all[1], "stale", &causal.Context{Vector: old, Dots: []causal.Dot{last}}); len(s.Siblings) != 2 || len(s.Clock) > 5 {
		t.Errorf("after a stale put %d siblings, %d entries", len(s.Siblings), len(s.Clock))
	}
	if s := put(all[2], "both", &causal.Context{Vector: set(all[2]).Clock.Join(old)}); len(s.Siblings) != 1 || len(s.Clock) > 6 {
		t.Errorf("after a put that has seen all %d siblings, %d entries", len(s.Siblings), len(s.Clock))
	}
	// And so on, while nodes come and go: with what is there by now, the key would have had too many entries long ago.
	for round := range 3 {
		more := set(all[0])
		for i := range 24 {
			var a causal.Actor
			binary.BigEndian.PutUint64(a[:], uint64(1000*(round+1)+i))
			more.Clock = more.Clock.With(causal.Dot{Actor: a, Counter: 3})
		}
		for _, m := range all {
			give(t, m, map[string][]byte{key: record.Append(nil, []byte(key), more)})
		}
		m := all[round%len(all)]
		m.stop()
		m.start()
		wait(t, "ready after a restart", m.Ready)
		put(m, fmt.Sprint("value ", round), nil)
		bounded(16)
	}
}
