package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/storagenode/node"
)

const (
	metricScrubbed = "dotring_scrub_verified_bytes_total"
	metricFound    = "dotring_scrub_damage_total"
)

// A byte is flipped under a node that holds everything in memory, and nobody reads: it is found, and what it may have
// held comes back from the others.
func TestScrubHealsWhatNobodyReads(t *testing.T) {
	t.Parallel()
	all := members(t, 3, func(_ int, c *node.Config) {
		c.Engine, c.AntiEntropyInterval = node.EngineLevelDB, time.Hour // nothing else reads
		c.ScrubInterval = time.Second
	})
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	want := map[string][]byte{}
	for i := range 2000 {
		key := fmt.Sprintf("key-%d", i)
		want[key] = written(key, strings.Repeat(fmt.Sprint(i), 200), 1)
	}
	for _, m := range all {
		give(t, m, want)
	}
	hurt := all[1]
	hurt.stop()
	hurt.start() // brings the log's records into tables
	settle(t, all)
	// What reads everything once after a start would find the damage first.
	wait(t, "sums counted", func() bool { return value(t, hurt, "dotring_antientropy_rebuild_seconds", "") > 0 })
	wait(t, "a scrub", func() bool { return value(t, hurt, metricScrubbed, "") > 0 })
	if n := value(t, hurt, metricFound, ""); n != 0 {
		t.Fatalf("%v damaged tables before any was damaged", n)
	}
	tables, err := filepath.Glob(filepath.Join(hurt.cfg.DataDir, "data", "*.ldb"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables %q, %v", tables, err)
	}
	largest := tables[0]
	for _, name := range tables {
		if sizeOfFile(t, name) > sizeOfFile(t, largest) {
			largest = name
		}
	}
	flip(t, largest, sizeOfFile(t, largest)/2)
	begin := time.Now()
	wait(t, "the damage found", func() bool { return value(t, hurt, metricFound, "") > 0 })
	wait(t, "the damage healed", func() bool {
		return value(t, hurt, "dotring_kv_refilled_records_total", "") > 0 && value(t, hurt, "dotring_kv_doubt_slots", "") == 0
	})
	t.Logf("found and healed after %v", time.Since(begin).Round(10*time.Millisecond))
	if !same(contents(t, hurt, id), want) {
		t.Error("the healed node holds something else")
	}
	if n := value(t, hurt, "dotring_scrub_verified_week_bytes", ""); n == 0 {
		t.Error("nothing was verified in a week")
	}
	if age := value(t, hurt, "dotring_scrub_oldest_unverified_seconds", ""); age > 60 {
		t.Errorf("oldest unverified for %v s at an interval of 1 s", age)
	}
	if n := total(t, []*member{all[0], all[2]}, metricFound, ""); n != 0 {
		t.Errorf("%v tables damaged at others", n)
	}
}

func sizeOfFile(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// flip changes one byte of a file that is in use.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	if err == nil {
		b[0] ^= 0x10
		_, err = f.WriteAt(b[:], at)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Fatal(err)
	}
}
