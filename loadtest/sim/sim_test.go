package sim

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/history"
)

// mustRun runs a seed.
func mustRun(t *testing.T, cfg Config) Result {
	t.Helper()
	res, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// requireWhole fails where a promise was broken, and says how to see it.
func requireWhole(t *testing.T, r Result) {
	t.Helper()
	for _, v := range r.Violations {
		t.Errorf("seed %d: %s", r.Seed, v)
	}
	if t.Failed() {
		t.Fatalf("%s\nto see it: bin/dotring-load sim --trace --seed %d --profile=%s", r.Options, r.Seed, r.Profile)
	}
}

// onlyWhole skips a test where tests are to be short, as they are under the race detector: a simulation runs in one goroutine, so that it
// has little to find, and takes ten times as long.
func onlyWhole(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("in short")
	}
}

// Every seed holds all promises, and nearly every one meets enough acknowledged writes to count.
func TestSeeds(t *testing.T) {
	seeds := uint64(16)
	if testing.Short() {
		seeds = 4
	}
	counted := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		r := mustRun(t, Config{Seed: seed})
		requireWhole(t, r)
		if r.Counted {
			counted++
		}
	}
	if counted < int(seeds)*9/10 {
		t.Errorf("only %d of %d seeds had %d writes acknowledged during faults", counted, seeds, MinAcks)
	}
}

// The same seed gives the same trace, whatever ran before; another seed gives another.
func TestSameSeedSameTrace(t *testing.T) {
	last := uint64(6)
	if testing.Short() {
		last = 2
	}
	for seed := uint64(1); seed <= last; seed++ {
		var first, again bytes.Buffer
		a := mustRun(t, Config{Seed: seed, Trace: &first})
		b := mustRun(t, Config{Seed: seed, Trace: &again})
		if a.Hash != b.Hash {
			x, y := strings.Split(first.String(), "\n"), strings.Split(again.String(), "\n")
			for i := range min(len(x), len(y)) {
				if x[i] != y[i] {
					t.Fatalf("seed %d: line %d is %q, and then %q", seed, i, x[i], y[i])
				}
			}
			t.Fatalf("seed %d: traces of %d and %d lines", seed, len(x), len(y))
		}
		if a.Stats != b.Stats {
			t.Errorf("seed %d: %+v, and then %+v", seed, a.Stats, b.Stats)
		}
		if c := mustRun(t, Config{Seed: seed + 1000}); c.Hash == a.Hash {
			t.Errorf("seeds %d and %d have one trace", seed, seed+1000)
		}
	}
}

// The trace's hash is that of a run with and without someone who reads the trace.
func TestTraceDoesNotDisturb(t *testing.T) {
	var out bytes.Buffer
	a, b := mustRun(t, Config{Seed: 3, Trace: &out}), mustRun(t, Config{Seed: 3})
	if a.Hash != b.Hash || out.Len() == 0 {
		t.Errorf("hashes %x and %x, %d bytes of trace", a.Hash, b.Hash, out.Len())
	}
}

// Without faults nothing fails, everything converges, and nobody counts such a run.
func TestQuietCluster(t *testing.T) {
	opt := quiet()
	r := mustRun(t, Config{Seed: 1, Options: &opt, Most: 10 * time.Second})
	requireWhole(t, r)
	if r.Counted || r.Stats.FaultAcks != 0 {
		t.Errorf("%d writes were acknowledged during faults that there were not", r.Stats.FaultAcks)
	}
	if r.Stats.ReadsFailed > 0 || r.Stats.Acked != r.Stats.Writes || r.Stats.Acked < 1000 {
		t.Errorf("without faults: %+v", r.Stats)
	}
}

// A node that mints by hand and without a bug breaks nothing: what the planted bugs find is not the hand's doing.
// They remember no requests, though, and seeds in which a node is asked again for a mint are none of these.
func TestHandMadeMintsHold(t *testing.T) {
	onlyWhole(t)
	for seed := uint64(6); seed <= 13; seed++ {
		requireWhole(t, mustRun(t, Config{Seed: seed, Bug: byHand}))
	}
}

func TestEveryPlantedBugHasAName(t *testing.T) {
	for _, p := range Planted() {
		got, err := FindPlanted(string(p.Bug))
		if err != nil || got != p || p.What == "" || p.Breaks < history.Durable || p.Breaks > history.Idempotent {
			t.Errorf("%+v: found as %+v, %v", p, got, err)
		}
	}
	if _, err := FindPlanted("no such bug"); err == nil {
		t.Error("a bug that is not planted was found")
	}
}

// A replica that was corrupted behind everybody's back is noticed at the end, by what is wrong with it.
func TestCorruptedReplicaIsNoticed(t *testing.T) {
	for name, corrupt := range map[string]func(*testing.T, *world) history.Promise{
		"a record is lost": func(t *testing.T, w *world) history.Promise {
			n, k := anyReplica(t, w)
			n.disk.stored = append(n.disk.stored, diskKey(t, n, k))
			n.stop(true)
			if _, err := n.disk.discard(); err != nil {
				t.Fatal(err)
			}
			n.remembered = 0
			if err := n.start(); err != nil {
				t.Fatal(err)
			}
			return history.Convergent
		},
		"a record is damaged": func(t *testing.T, w *world) history.Promise {
			n, k := anyReplica(t, w)
			n.disk.stored = append(n.disk.stored, diskKey(t, n, k))
			return history.Undamaged
		},
	} {
		t.Run(name, func(t *testing.T) {
			opt := quiet()
			w := newWorld(7, opt, "")
			w.trace = newTracer(&w.loop, nil)
			if err := w.build(); err != nil {
				t.Fatal(err)
			}
			w.runUntil(5*time.Second, nil)
			w.heal()
			if v := w.check.Violations(); len(v) > 0 {
				t.Fatalf("before: %s", v[0])
			}
			want := corrupt(t, w)
			w.judge()
			v := w.check.Violations()
			if !slices.ContainsFunc(v, func(v history.Violation) bool { return v.Promise == want }) {
				t.Errorf("found %v, not that %s is broken", v, want)
			}
		})
	}
}

// anyReplica returns an owner of a key, and the key.
func anyReplica(t *testing.T, w *world) (*node, string) {
	t.Helper()
	for k := range w.opt.Keys {
		n := w.byID(w.gates[0].state.read.Primaries(slotOf(key(k)))[1])
		if n.recordOf(key(k)) != nil {
			return n, key(k)
		}
	}
	t.Fatal("nobody has anything")
	return nil, ""
}

// diskKey finds where the engine keeps a key.
func diskKey(t *testing.T, n *node, k string) []byte {
	t.Helper()
	var found []byte
	err := n.disk.open.Engine.Iterate([]byte{'r'}, []byte{'s'}, func(at, _ []byte) (bool, error) {
		if bytes.HasSuffix(at, []byte(k)) {
			found = slices.Clone(at)
		}
		return found == nil, nil
	})
	if err != nil || found == nil {
		t.Fatalf("%s is not on the disk of %s: %v", k, n.name, err)
	}
	return found
}

// Swarm gives every fault its turn, on and off.
func TestSwarmCoversFaults(t *testing.T) {
	for i, f := range faults() {
		on, off := 0, 0
		for seed := uint64(1); seed <= 200; seed++ {
			o := Swarm(seed, Usual)
			if o.MinW < 2 || o.Nodes < o.N || o.Keys < 1 || o.Gateways < 1 {
				t.Fatalf("seed %d: %s", seed, o)
			}
			if f.rate(&o) > 0 {
				on++
			} else {
				off++
			}
		}
		if on < 8 || off < 20 {
			t.Errorf("fault %d is on in %d of 200 seeds, and off in %d", i, on, off)
		}
	}
}

// The runs together meet every fault: a kind that never happens proves nothing.
func TestFaultsHappen(t *testing.T) {
	onlyWhole(t)
	var sum Stats
	for seed := uint64(101); seed <= 112; seed++ {
		r := mustRun(t, Config{Seed: seed})
		requireWhole(t, r)
		sum.Restarts += r.Stats.Restarts
		sum.Partitions += r.Stats.Partitions
		sum.DiskFailures += r.Stats.DiskFailures
		sum.DiskLosses += r.Stats.DiskLosses
		sum.Damages += r.Stats.Damages
		sum.Repairs += r.Stats.Repairs
		sum.Retries += r.Stats.Retries
		sum.LayoutsSettled = max(sum.LayoutsSettled, r.Stats.LayoutsSettled)
		sum.Delivered += r.Stats.Delivered
		sum.Fetched += r.Stats.Fetched
	}
	for what, n := range map[string]int{"restarts": sum.Restarts, "partitions": sum.Partitions, "disk failures": sum.DiskFailures,
		"disks lost": sum.DiskLosses, "damages": sum.Damages, "repairs": sum.Repairs, "retries": sum.Retries, "hints": sum.Delivered, "comparisons that find something": sum.Fetched,
		"layouts": int(sum.LayoutsSettled) - 8} {
		if n <= 0 {
			t.Errorf("no %s in twelve runs", what)
		}
	}
}

func TestSweepKeepsOrder(t *testing.T) {
	var seeds []uint64
	err := Sweep(t.Context(), Config{Seed: 5, Bug: PutCtx}, 2, func(r Result) bool {
		seeds = append(seeds, r.Seed)
		return len(seeds) < 5
	})
	if err != nil || !slices.Equal(seeds, []uint64{5, 6, 7, 8, 9}) {
		t.Errorf("seeds %v, %v", seeds, err)
	}
}

// The table of planted bugs is the one that the simulator would print now: each line's seed breaks the promise named there,
// in the words given there.
func TestTableOfPlantedBugs(t *testing.T) {
	onlyWhole(t)
	page, err := os.ReadFile("PLANTED.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), TableHead)
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if !found || len(rows) != len(Planted()) {
		t.Fatalf("PLANTED.md has %d rows for %d bugs", len(rows), len(Planted()))
	}
	for i, p := range Planted() {
		t.Run(string(p.Bug), func(t *testing.T) {
			t.Parallel()
			cells := strings.Split(rows[i], " | ")
			seed, err := strconv.ParseUint(cells[min(4, len(cells)-1)], 10, 64)
			if err != nil || seed < 1 || seed > 200 {
				t.Fatalf("no seed from 1 to 200 in %q", rows[i])
			}
			r := mustRun(t, Config{Seed: seed, Profile: p.Profile, Bug: p.Bug})
			if len(r.Violations) == 0 {
				t.Fatalf("seed %d does not find it; print the table anew", seed)
			}
			if got := (Hunt{Planted: p, Seed: seed, Found: r.Violations[0]}).Row(); got != rows[i] || r.Violations[0].Promise != p.Breaks {
				t.Errorf("found\n%s\nPLANTED.md has\n%s", got, rows[i])
			}
			if whole := mustRun(t, Config{Seed: seed, Profile: p.Profile}); len(whole.Violations) > 0 {
				t.Errorf("seed %d fails without the bug too: %s", seed, whole.Violations[0])
			}
		})
	}
}

// What failed once holds.
func TestFailedSeeds(t *testing.T) {
	onlyWhole(t)
	seeds, err := Failed()
	if err != nil || len(seeds) == 0 {
		t.Fatalf("%d seeds, %v", len(seeds), err)
	}
	for _, cfg := range seeds {
		requireWhole(t, mustRun(t, cfg))
	}
}

// Each profile holds, and its runs meet what it was made for.
func TestProfiles(t *testing.T) {
	for _, p := range Profiles() {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			var sum Stats
			last := uint64(304)
			if testing.Short() {
				last = 301
			}
			for seed := uint64(301); seed <= last; seed++ {
				r := mustRun(t, Config{Seed: seed, Profile: p})
				requireWhole(t, r)
				sum.Delivered += r.Stats.Delivered
				sum.Forgotten += r.Stats.Forgotten
				sum.DiskLosses += r.Stats.DiskLosses
				sum.LayoutsSettled += r.Stats.LayoutsSettled
				sum.Removed += r.Stats.Removed + r.Stats.Aborted + r.Stats.Outages // TestMembershipFaultsHappen looks at each
				sum.Collected += r.Stats.Collected
				sum.Dropped += r.Stats.Dropped
				sum.Pruned += r.Stats.Pruned
				sum.Honoured += r.Stats.Honoured
			}
			met := map[Profile]int{Standing: sum.Delivered, Proposals: sum.Forgotten, Hasty: int(sum.LayoutsSettled), Rollbacks: sum.DiskLosses,
				Members: sum.Removed, Collection: sum.Collected,
				Leftovers: sum.Dropped, Leavers: min(sum.Dropped, sum.Collected), Actors: min(sum.Pruned, sum.Honoured)}
			if met[p] < 3 && !testing.Short() {
				t.Errorf("%+v", sum)
			}
		})
	}
}

// Members go for good and are removed or replaced, changes are given up, and all nodes stop amid them.
func TestMembershipFaultsHappen(t *testing.T) {
	onlyWhole(t)
	var sum Stats
	for seed := uint64(401); seed <= 412; seed++ {
		r := mustRun(t, Config{Seed: seed, Profile: Members})
		requireWhole(t, r)
		sum.Doomed += r.Stats.Doomed
		sum.Removed += r.Stats.Removed
		sum.Replaced += r.Stats.Replaced
		sum.Aborted += r.Stats.Aborted
		sum.Outages += r.Stats.Outages
	}
	if sum.Doomed < 5 || sum.Removed < 5 || sum.Replaced < 2 || sum.Aborted < 2 || sum.Outages < 3 {
		t.Errorf("in twelve runs: %+v", sum)
	}
}
