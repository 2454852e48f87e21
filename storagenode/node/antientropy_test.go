package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/node"
)

func every(interval time.Duration) func(int, *node.Config) {
	return func(_ int, c *node.Config) { c.AntiEntropyInterval = interval }
}

// written makes a record of the n-th version of a key, each superseding those before it.
func written(key, value string, version uint64) []byte {
	d := causal.Dot{Actor: causal.Actor{1}, Counter: version}
	return record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{}.With(d), Siblings: []causal.Sibling{{
		Dot: d, Time: 1, ContentType: "text/plain", Checksum: record.Checksum([]byte(value)), Value: []byte(value)}}})
}

// give stores records at a node and at no other.
func give(t *testing.T, m *member, recs map[string][]byte) {
	t.Helper()
	c := dial(m, nil)
	from := m.ID()
	req := &storagev1.DeliverRequest{From: from[:], Cause: storagev1.Cause_CAUSE_REPAIR}
	send := func() {
		t.Helper()
		// What was on its way for longer than half of the grace time is refused and brought again, as senders of hints do.
		wait(t, "a delivery is taken", func() bool {
			req.Heard = c.heard()
			resp, err := c.api.Deliver(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			var again []*storagev1.PulledRecord
			for i, st := range resp.GetStatuses() {
				switch st {
				case storagev1.Status_STATUS_OK:
				case storagev1.Status_STATUS_UNAVAILABLE:
					again = append(again, req.Records[i])
				default:
					t.Fatalf("delivery answered %v", st)
				}
			}
			req.Records = again
			return len(again) == 0
		})
	}
	for k, rec := range recs {
		if req.Records = append(req.Records, &storagev1.PulledRecord{Key: []byte(k), Record: rec}); len(req.Records) == 200 {
			send()
		}
	}
	send()
}

// contents is all that a node holds.
func contents(t *testing.T, m *member, layout ring.LayoutID) map[string][]byte {
	t.Helper()
	st, err := dial(m, nil).api.Pull(t.Context(), &storagev1.PullRequest{Layout: names(layout)[0], ToSlot: ring.Slots})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for {
		resp, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetRecords() {
			out[string(r.GetKey())] = r.GetRecord()
		}
	}
}

// value is the sum of a node's metrics of one name, those with another value of a label than the given left out.
func value(t *testing.T, m *member, name, label string) (sum float64) {
	t.Helper()
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			if f.GetName() != name || label != "" && one.GetLabel()[0].GetValue() != label {
				continue
			}
			sum += one.GetCounter().GetValue() + one.GetGauge().GetValue()
		}
	}
	return sum
}

func total(t *testing.T, all []*member, name, label string) (sum float64) {
	t.Helper()
	for _, m := range all {
		sum += value(t, m, name, label)
	}
	return sum
}

const (
	metricRepaired = "dotring_antientropy_keys_repaired_total"
	metricRounds   = "dotring_antientropy_rounds_total"
	metricBytes    = "dotring_antientropy_bytes_total"
)

// rounds waits until every node has ended so many more whole rounds with every other.
func rounds(t *testing.T, all []*member, more int) {
	t.Helper()
	want := make([]float64, len(all))
	for i, m := range all {
		want[i] = value(t, m, metricRounds, "whole") + float64(more*(len(all)-1))
	}
	wait(t, "rounds of comparison", func() bool {
		for i, m := range all {
			if value(t, m, metricRounds, "whole") < want[i] {
				return false
			}
		}
		return true
	})
}

func same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// quiet insists that nothing is repaired any more.
func quiet(t *testing.T, all []*member) {
	t.Helper()
	before := total(t, all, metricRepaired, "")
	rounds(t, all, 3)
	if after := total(t, all, metricRepaired, ""); after != before {
		t.Errorf("%v keys were repaired after the nodes were equal", after-before)
	}
}

// A node whose disk was emptied has everything back without a single read, and before it is compared with anyone.
func TestEmptiedDiskComesBack(t *testing.T) {
	t.Parallel()
	all := members(t, 3, func(i int, c *node.Config) {
		c.Engine = node.EngineLevelDB
		every(300*time.Millisecond)(i, c)
	})
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	want := map[string][]byte{}
	for i := range 3000 {
		key := fmt.Sprintf("key-%d", i)
		want[key] = written(key, strings.Repeat(fmt.Sprint(i), 100), 1)
	}
	for _, m := range all {
		give(t, m, want)
	}
	lost := all[1]
	lost.stop()
	if err := os.RemoveAll(filepath.Join(lost.cfg.DataDir, "data")); err != nil {
		t.Fatal(err)
	}
	lost.start()
	settle(t, all)
	wait(t, "all records back", func() bool {
		return value(t, lost, "dotring_kv_refilled_records_total", "") >= float64(len(want)) && value(t, lost, "dotring_kv_doubt_slots", "") == 0
	})
	if !same(contents(t, lost, id), want) {
		t.Error("the emptied node holds something else")
	}
	quiet(t, all)
	resp, err := dial(lost, nil).api.GetNode(t.Context(), &storagev1.GetNodeRequest{})
	if err != nil || resp.GetRepairs() != 0 || resp.GetAntiEntropyAgeSeconds() <= 0 || resp.GetAntiEntropyAgeSeconds() > 20 {
		t.Errorf("node says %v, %v", resp, err)
	}
	if n := total(t, all, "dotring_antientropy_verify_mismatches_total", ""); n != 0 {
		t.Errorf("%v slots had a wrong sum", n)
	}
}

// trafficKeys is how many keys of 1 KiB the next test has; make soak-antientropy asks for a million.
func trafficKeys(t *testing.T) int {
	t.Helper()
	text := os.Getenv("DOTRING_TEST_KEYS")
	if text == "" && testing.Short() {
		return 20_000
	}
	if text == "" {
		return 50_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 50_000 {
		t.Fatalf("DOTRING_TEST_KEYS=%s is no number of 50000 or more", text)
	}
	return n
}

// What is moved is in proportion to what differs, and comparing what is equal costs next to nothing.
func TestTrafficIsProportional(t *testing.T) {
	all := members(t, 3, every(500*time.Millisecond))
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	body := strings.Repeat("0123456789abcdef", 64)
	want := map[string][]byte{}
	keys := trafficKeys(t)
	for i := range keys {
		key := fmt.Sprintf("user:%012d", i)
		want[key] = written(key, body, 1)
	}
	var giving sync.WaitGroup
	for _, m := range all {
		giving.Go(func() { give(t, m, want) })
	}
	giving.Wait()
	rounds(t, all, 2)
	quiet(t, all)

	idleBytes, idleRounds := total(t, all, metricBytes, ""), total(t, all, metricRounds, "")
	rounds(t, all, 3)
	idle := (total(t, all, metricBytes, "") - idleBytes) / (total(t, all, metricRounds, "") - idleRounds)
	t.Logf("a round without difference: %.0f bytes", idle)
	if idle > 10_000 {
		t.Errorf("a round without difference moves %.0f bytes", idle)
	}

	// Of 0.1 % of the keys, one node misses half, and has an old version of the others. Three times, and the median counts: a round that
	// begins while only one of the others has been given the news finds them to differ, too.
	var shares, again []float64
	for trial := range 3 {
		news, size := map[string][]byte{}, 0
		for i := range keys / 1000 {
			key := fmt.Sprintf("user:%012d", i*977+trial)
			if i%2 == 0 {
				key = fmt.Sprintf("new:%d:%012d", trial, i)
			}
			news[key] = written(key, body, 2)
			size += len(key) + len(news[key])
		}
		maps.Copy(want, news)
		before, repaired, lacking := total(t, all, metricBytes, ""), total(t, all, metricRepaired, ""), value(t, all[1], metricRepaired, "")
		giving.Go(func() { give(t, all[0], news) })
		giving.Go(func() { give(t, all[2], news) })
		giving.Wait()
		wait(t, "differences gone", func() bool { return value(t, all[1], metricRepaired, "")-lacking >= float64(len(news)) })
		rounds(t, all, 1)
		moved := total(t, all, metricBytes, "") - before
		shares = append(shares, moved/float64(size))
		again = append(again, (total(t, all, metricRepaired, "")-repaired)/float64(len(news)))
		t.Logf("%.0f bytes moved for %d that differed (%.2f times), %.2f repairs for each key", moved, size, shares[trial], again[trial])
	}
	slices.Sort(shares)
	slices.Sort(again)
	if shares[1] > 3 {
		t.Errorf("%.2f times the bytes that differed were moved", shares[1])
	}
	if again[1] > 1.2 {
		t.Errorf("%.2f repairs for each key that differed", again[1])
	}
	for _, m := range all {
		if !same(contents(t, m, id), want) {
			t.Errorf("%s differs", m.cfg.Name)
		}
	}
	quiet(t, all)
}

// Concurrent versions on all nodes become the same siblings everywhere.
func TestConflictsBecomeTheSameSiblings(t *testing.T) {
	t.Parallel()
	all := members(t, 3, every(200*time.Millisecond))
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	for n, m := range all {
		recs := map[string][]byte{}
		for i := range 200 {
			key := fmt.Sprintf("key-%d", i)
			v := fmt.Sprintf("value %d of %s", n, key)
			d := causal.Dot{Actor: causal.Actor{byte(n + 1)}, Counter: uint64(i + 1)}
			recs[key] = record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{}.With(d),
				Siblings: []causal.Sibling{{Dot: d, Time: 1, Checksum: record.Checksum([]byte(v)), Value: []byte(v)}}})
		}
		give(t, m, recs)
	}
	var want map[string][]byte
	wait(t, "the same everywhere", func() bool {
		want = contents(t, all[0], id)
		return same(want, contents(t, all[1], id)) && same(want, contents(t, all[2], id))
	})
	for key, rec := range want {
		if set, err := record.Decode([]byte(key), rec); err != nil || len(set.Siblings) != len(all) {
			t.Fatalf("%s has %d siblings, %v", key, len(set.Siblings), err)
		}
	}
	quiet(t, all)
}

// Writes on their way differ for a moment; they are not repaired.
func TestWritesOnTheirWayAreNotRepaired(t *testing.T) {
	all := members(t, 3, every(100*time.Millisecond))
	for _, m := range all {
		m.start()
	}
	live := names(settle(t, all))
	clients := []*client{dial(all[0], nil), dial(all[1], nil), dial(all[2], nil)}
	start := total(t, all, metricRounds, "whole")
	writes := 0
	for ; total(t, all, metricRounds, "whole") < start+60; writes++ {
		key := fmt.Sprintf("key-%d", writes%100)
		minted := clients[writes%3].mint(live, key, fmt.Sprint("value ", writes))
		for i := 1; i < 3; i++ {
			clients[(writes+i)%3].do(live, &storagev1.Request{Op: storagev1.Op_OP_APPLY, Key: []byte(key),
				Record: minted[0].GetRecord(), Cause: storagev1.Cause_CAUSE_WRITE})
		}
	}
	repaired, passing := total(t, all, metricRepaired, ""), total(t, all, "dotring_antientropy_passing_differences_total", "")
	t.Logf("%d writes, %v differences that passed, %v repairs", writes, passing, repaired)
	if repaired > float64(writes)/100 {
		t.Errorf("%v repairs during %d writes to healthy nodes", repaired, writes)
	}
	quiet(t, all)
}

// A peer that ends while it is being compared with does no harm, and what is left is fetched from it when it is back, and
// from the others meanwhile.
func TestPeerEndsDuringARound(t *testing.T) {
	t.Parallel()
	all := members(t, 3, func(i int, c *node.Config) {
		c.Engine = node.EngineLevelDB
		every(100*time.Millisecond)(i, c)
	})
	for _, m := range all {
		m.start()
	}
	id := settle(t, all)
	recs := map[string][]byte{}
	for i := range 5000 {
		key := fmt.Sprintf("key-%d", i)
		recs[key] = written(key, strings.Repeat("x", 500), 1)
	}
	give(t, all[0], recs)
	wait(t, "a repair under way", func() bool { return value(t, all[1], metricRepaired, "") > 0 })
	all[0].stop()
	rounds := value(t, all[1], metricRounds, "whole")
	wait(t, "rounds with the one that stayed", func() bool { return value(t, all[1], metricRounds, "whole") > rounds })
	all[0].start()
	settle(t, all)
	wait(t, "the same everywhere", func() bool {
		return same(recs, contents(t, all[1], id)) && same(recs, contents(t, all[2], id)) && same(recs, contents(t, all[0], id))
	})
	quiet(t, all)
}

// What makes no sense, or comes from nobody known, is refused and does no harm.
func TestMalformedComparisonsAreRefused(t *testing.T) {
	t.Parallel()
	all := members(t, 1, nil)
	all[0].start()
	layout := names(settle(t, all))[0]
	api, me := dial(all[0], nil).api, all[0].ID()
	compare := func(change func(*storagev1.CompareRequest)) error {
		req := &storagev1.CompareRequest{From: me[:], Layout: layout, ToSlot: ring.Slots, Parts: 4}
		change(req)
		_, err := api.Compare(t.Context(), req)
		return err
	}
	wait(t, "counted", func() bool { return compare(func(*storagev1.CompareRequest) {}) == nil })
	digests := func(change func(*storagev1.DigestsRequest)) error {
		req := &storagev1.DigestsRequest{From: me[:], Layout: layout}
		change(req)
		st, err := api.Digests(t.Context(), req)
		if err != nil {
			return err
		}
		if _, err = st.Recv(); errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	fetch := func(from []byte, keys ...[]byte) error {
		_, err := api.Fetch(t.Context(), &storagev1.FetchRequest{From: from, Keys: keys})
		return err
	}
	other := &storagev1.LayoutName{Epoch: 99, Hash: make([]byte, 16)}
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"no parts":       {compare(func(r *storagev1.CompareRequest) { r.Parts = 0 }), codes.InvalidArgument},
		"many parts":     {compare(func(r *storagev1.CompareRequest) { r.Parts = 1 << 31 }), codes.InvalidArgument},
		"empty range":    {compare(func(r *storagev1.CompareRequest) { r.ToSlot = 0 }), codes.InvalidArgument},
		"past the ring":  {compare(func(r *storagev1.CompareRequest) { r.ToSlot = ring.Slots + 1 }), codes.InvalidArgument},
		"half a range":   {compare(func(r *storagev1.CompareRequest) { r.More = []uint32{1} }), codes.InvalidArgument},
		"many ranges":    {compare(func(r *storagev1.CompareRequest) { r.More = make([]uint32, 4000) }), codes.InvalidArgument},
		"no layout":      {compare(func(r *storagev1.CompareRequest) { r.Layout = nil }), codes.InvalidArgument},
		"another layout": {compare(func(r *storagev1.CompareRequest) { r.Layout = other }), codes.FailedPrecondition},
		"nobody":         {compare(func(r *storagev1.CompareRequest) { r.From = nil }), codes.InvalidArgument},
		"a stranger":     {compare(func(r *storagev1.CompareRequest) { r.From = make([]byte, 16) }), codes.PermissionDenied},
		"many slots":     {digests(func(r *storagev1.DigestsRequest) { r.Ranges = []uint32{0, 5000} }), codes.InvalidArgument},
		"slot past":      {digests(func(r *storagev1.DigestsRequest) { r.Slots = []uint32{ring.Slots} }), codes.InvalidArgument},
		"slots reversed": {digests(func(r *storagev1.DigestsRequest) { r.Ranges = []uint32{7, 3} }), codes.InvalidArgument},
		"old layout":     {digests(func(r *storagev1.DigestsRequest) { r.Layout = other }), codes.FailedPrecondition},
		"some slots":     {digests(func(r *storagev1.DigestsRequest) { r.Slots, r.Ranges = []uint32{9}, []uint32{0, 4000} }), codes.OK},
		"no keys":        {fetch(me[:]), codes.InvalidArgument},
		"many keys":      {fetch(me[:], make([][]byte, 2000)...), codes.InvalidArgument},
		"stranger's":     {fetch(make([]byte, 16), []byte("k")), codes.PermissionDenied},
		"a missing key":  {fetch(me[:], []byte("k")), codes.OK},
	} {
		if got := status.Code(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
}
