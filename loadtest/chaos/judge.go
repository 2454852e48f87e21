package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
)

const (
	copies = 3
	// recordTag and recordAt: a record's key on a node's disk is a tag, eight bytes of hash, and the key.
	recordTag = 'r'
	recordAt  = 9
	// convergeTime bounds how long replicas may differ once all is healed.
	convergeTime = 3 * time.Minute
)

// judge waits until the replicas should be equal, stops the cluster, reads every node's disk, and says which promises
// the run has broken.
func (w *world) judge(ctx context.Context, res *Result) error {
	if err := w.converge(ctx); err != nil {
		w.rec.broken("after healing: " + err.Error())
	}
	w.tally.mark("the cluster's sync point is reached: no hint is left, and no difference")
	if err := w.cluster.Stop(stopTime); err != nil {
		return err
	}
	found := make(map[string][]history.Replica)
	for _, p := range w.cluster.Nodes {
		if err := readDisk(filepath.Join(p.DataDir(), "data"), p.Name, found); err != nil {
			return fmt.Errorf("read the disk of %s: %w", p.Name, err)
		}
	}
	prefix := fmt.Sprintf("chaos%d-", w.cfg.Seed)
	corrupted := false
	for _, key := range slices.Sorted(maps.Keys(found)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		replicas := found[key]
		for len(replicas) < copies {
			replicas = append(replicas, history.Replica{Name: "an owner that has none"})
		}
		if w.cfg.Corrupt && !corrupted {
			replicas[0].Record[len(replicas[0].Record)/2] ^= 0x10
			corrupted = true
		}
		res.Keys++
		w.rec.final(key, replicas)
	}
	w.rec.mu.Lock()
	defer w.rec.mu.Unlock()
	for _, key := range w.rec.check.Keys() {
		if found[key] == nil {
			w.rec.check.Final(key, []history.Replica{{Name: "all nodes"}})
		}
	}
	w.rec.check.Finish()
	res.Violations = w.rec.check.Violations()
	res.Writes, res.Acked = w.rec.check.Counts()
	return nil
}

// converge waits for the cluster's own sync point: all hints delivered, all differences fetched. A second one has nothing
// left to do.
func (w *world) converge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, convergeTime)
	defer cancel()
	if err := w.cluster.Repair(ctx, w.cluster.Gateways[0]); err != nil {
		return err
	}
	before, err := w.repaired(ctx)
	if err != nil {
		return err
	}
	if err := w.cluster.Repair(ctx, w.cluster.Gateways[0]); err != nil {
		return err
	}
	after, err := w.repaired(ctx)
	if err == nil && after != before {
		err = fmt.Errorf("%v keys were repaired after the sync point", after-before)
	}
	return err
}

func (w *world) repaired(ctx context.Context) (sum float64, err error) {
	for _, p := range w.cluster.Nodes {
		n, err := w.cluster.Metric(ctx, p, "dotring_antientropy_keys_repaired_total")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// readDisk adds the records of a stopped node to found.
func readDisk(dir, name string, found map[string][]history.Replica) (err error) {
	e, err := leveldb.Open(dir, leveldb.Default())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Iterate([]byte{recordTag}, []byte{recordTag + 1}, func(k, v []byte) (bool, error) {
		if len(k) <= recordAt {
			return false, fmt.Errorf("%w: a record's key of %d bytes", engine.ErrDamaged, len(k))
		}
		key := string(k[recordAt:])
		found[key] = append(found[key], history.Replica{Name: name, Record: append([]byte(nil), v...)})
		return true, nil
	})
}
