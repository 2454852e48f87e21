package e2e

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
)

// removeRecords deletes the records of all keys with a prefix from a stopped node's disk, as a fault would.
func removeRecords(t *testing.T, p *localcluster.Process, prefix string) {
	t.Helper()
	e, err := leveldb.Open(filepath.Join(p.DataDir(), "data"), leveldb.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	var batch engine.Batch
	err = e.Iterate(nil, nil, func(k, _ []byte) (bool, error) {
		if bytes.Contains(k, []byte(prefix)) {
			batch.Delete(k)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(&batch, true); err != nil {
		t.Fatal(err)
	}
}
