package causal_test

import (
	"testing"

	"github.com/dotring/dotring/ringsvc/causal"
)

func modelKeyring(t *testing.T) causal.Keyring {
	t.Helper()
	k, err := causal.NewKeyring([]byte("sixteen bytes and more"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestHistoriesLoseNothing(t *testing.T) {
	t.Parallel()
	keyring, acked := modelKeyring(t), 0
	seeds := uint64(3000)
	if testing.Short() {
		seeds = 500
	}
	for seed := range seeds {
		w := newWorld(seed, "", keyring)
		if fault := w.run(); fault != "" {
			t.Fatalf("seed %d: %s", seed, fault)
		}
		acked += len(w.acked)
	}
	if acked < int(seeds) {
		t.Fatalf("only %d writes were acknowledged in %d histories: the test shows nothing", acked, seeds)
	}
}

func TestPlantedBugsAreCaught(t *testing.T) {
	t.Parallel()
	keyring := modelKeyring(t)
	for _, bug := range plantedBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			for seed := range bug.within {
				if fault := newWorld(seed, bug.name, keyring).run(); fault != "" {
					t.Logf("caught by seed %d: %s", seed, fault)
					if fault := newWorld(seed, "", keyring).run(); fault != "" {
						t.Errorf("seed %d fails without the bug too: %s", seed, fault)
					}
					return
				}
			}
			t.Fatalf("%d histories did not show that %s", bug.within, bug.what)
		})
	}
}

// plantedBugs are the rules that keep writes alive, each left out by name. within is how many histories are tried; the
// comment says which seed was the first to fail when this was written, and how many of the first 1,000 did.
var plantedBugs = []struct {
	name, what string
	within     uint64
}{
	{"putctx", "a put must not answer with the record's clock", 1000},                           // 0, 293
	{"reuse", "a dot must not be used twice", 1000},                                             // 26, 33
	{"crash", "skipping ahead after a crash covers forgotten dots", 50000},                      // 1732, 0
	{"reopen", "an engine reopened after an error needs a new actor", 5000},                     // 9, 2
	{"rollback", "a clean start needs a new actor too, as the disk may be an older one", 50000}, // 3511, 0
	{"absent", "a failed read is not absence", 1000},                                            // 0, 133
	{"perkey", "counters must not be taken from the record", 20000},                             // 829, 1
	{"ctx", "the clock of a mint takes in its context", 1000},                                   // 1, 244
	{"mintloses", "a mint keeps what its context does not cover", 1000},                         // 0, 599
	{"behind", "a node that is behind must not mint", 5000},                                     // 0, 205
}
