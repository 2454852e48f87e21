package floor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/dotring/dotring/loadtest/workload"
	engine "github.com/dotring/dotring/storagenode/engine/leveldb"
)

// disk is a bare goleveldb with the options of a storage node, holding records of the same size under keys of the same
// form. Not safe for concurrent use.
type disk struct {
	db      *leveldb.DB
	values  *workload.Values
	rng     *rand.Rand
	records uint64
	key     []byte
	batch   leveldb.Batch
}

// openDisk fills a new database in dir.
func openDisk(ctx context.Context, dir string, records uint64, valueSize int) (*disk, error) {
	o := engine.Default()
	db, err := leveldb.OpenFile(dir, &opt.Options{
		WriteBuffer: o.WriteBuffer, CompactionTableSize: o.TableSize, CompactionTotalSize: o.Level1Size / 10,
		CompactionL0Trigger: o.L0Trigger, WriteL0SlowdownTrigger: o.L0Slowdown, WriteL0PauseTrigger: o.L0Pause,
		BlockSize: o.BlockSize, BlockCacheCapacity: o.BlockCache, OpenFilesCacheCapacity: o.OpenTables,
		Filter: filter.NewBloomFilter(max(1, o.BloomBits)), DisableSeeksCompaction: true, NoWriteMerge: true,
		Strict: opt.StrictJournalChecksum | opt.StrictBlockChecksum,
	})
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	d := &disk{db: db, values: workload.NewValues(1, valueSize+recordOverhead), rng: rand.New(rand.NewPCG(1, 1)), records: records}
	for n := uint64(0); n < records; {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		d.batch.Reset()
		for range min(256, records-n) {
			d.batch.Put(d.keyOf(n), d.values.Next())
			n++
		}
		if err := db.Write(&d.batch, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("floor: %w", err), db.Close())
		}
	}
	return d, nil
}

// keyOf makes the disk key of a record: a tag, eight bytes of hash, and the key.
func (d *disk) keyOf(n uint64) []byte {
	d.key = append(d.key[:0], 'r')
	d.key = binary.BigEndian.AppendUint64(d.key, n*0x9E3779B97F4A7C15)
	d.key = workload.AppendKey(d.key, n, keySize)
	return d.key
}

// write applies one batch of n records.
func (d *disk) write(n int, sync bool) error {
	d.batch.Reset()
	for range n {
		d.batch.Put(d.keyOf(d.rng.Uint64N(d.records)), d.values.Next())
	}
	return d.db.Write(&d.batch, &opt.WriteOptions{Sync: sync})
}

// get reads one record.
func (d *disk) get() error {
	_, err := d.db.Get(d.keyOf(d.rng.Uint64N(d.records)), nil)
	return err
}

func (d *disk) close() error { return d.db.Close() }
