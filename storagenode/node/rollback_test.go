package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/storagenode/node"
)

// A data directory that is put back as it once was is noticed before anything is read from it, and has everything back,
// byte for byte; and so is the newer one, when that comes back in its turn.
func TestOldDiskIsNotServed(t *testing.T) {
	t.Parallel()
	all := members(t, 3, func(i int, c *node.Config) {
		c.Engine = node.EngineLevelDB
		every(time.Hour)(i, c) // nothing else heals it
	})
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	put := func(version uint64, from, to int, at ...*member) map[string][]byte {
		recs := map[string][]byte{}
		for i := from; i < to; i++ {
			key := fmt.Sprintf("key-%d", i)
			recs[key] = written(key, fmt.Sprintf("value %d of %s", version, key), version)
		}
		for _, m := range at {
			give(t, m, recs)
		}
		return recs
	}
	want := put(1, 0, 300, all...)
	old := all[1]
	data, kept, newer := filepath.Join(old.cfg.DataDir, "data"), t.TempDir(), t.TempDir()

	copyData := func(to string) {
		t.Helper()
		old.stop()
		if err := os.CopyFS(to, os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
	}
	putBack := func(from string) {
		t.Helper()
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(data, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		old.start()
	}
	// healed reads from the node until it answers, without a single old value, and then compares all.
	healed := func(what string) {
		t.Helper()
		c := dial(old, nil)
		wait(t, what+": the node answers", func() bool {
			r := c.read(names(id), "key-7")
			if r.GetStatus() != storagev1.Status_STATUS_OK {
				return false
			}
			if string(r.GetRecord()) != string(want["key-7"]) {
				t.Fatalf("%s: a stale record is served", what)
			}
			return true
		})
		if value(t, old, "dotring_kv_rollbacks_total", "") != 1 {
			t.Errorf("%s: it was not noticed as such", what)
		}
		settle(t, all)
		if !same(contents(t, old, id), want) {
			t.Errorf("%s: the node holds something else than the others", what)
		}
	}

	copyData(kept)
	old.start()
	settle(t, all)
	// Half is overwritten, some is new; some of that reached only this node and one other.
	for k, rec := range put(2, 0, 150, all...) {
		want[k] = rec
	}
	for k, rec := range put(1, 300, 400, all...) {
		want[k] = rec
	}
	for k, rec := range put(3, 0, 20, all[0], old) {
		want[k] = rec
	}
	copyData(newer)
	putBack(kept)
	healed("an old disk")

	// The others went on with what replaced it, so that the newer copy is the older disk now.
	for k, rec := range put(4, 0, 10, all...) {
		want[k] = rec
	}
	old.stop()
	putBack(newer)
	healed("the disk in between")

	// A start from the disk as it was left is no reason for doubt, and neither is one of all together.
	stopAll(all)
	for _, m := range all {
		m.start()
	}
	settle(t, all)
	if n := total(t, all, "dotring_kv_rollbacks_total", "") + total(t, all, "dotring_kv_refills_total", ""); n != 0 {
		t.Errorf("%v refills and rollbacks after a clean restart", n)
	}
}
