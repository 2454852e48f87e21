package leveldb

import (
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/dotring/dotring/storagenode/engine"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// levelFactor is how many times larger each level is than the one above it. It is the library's default.
	levelFactor = 10
)

// Compression of table blocks.
type Compression string

const (
	// CompressionSnappy costs little where it does not help, and halves typical JSON.
	CompressionSnappy Compression = "snappy"
	// CompressionNone suits values that are compressed or encrypted already.
	CompressionNone Compression = "none"
)

// Options tunes one engine. The defaults are for a node that stays under 400 MiB resident with a million keys of 1 KiB:
// up to three write buffers (one filling, one being flushed, one kept for the next) and the block cache are nearly all
// of the engine's live heap, 48 + 48 MiB, and Go's collector lets the heap grow to about twice that between collections. With a cache of
// 64 MiB the engine alone took at most 244 MiB, loading those keys and then reading 300,000 at random.
// The tables' indexes and Bloom filters live in the block cache too, so that memory does not grow with the data.
type Options struct {
	// WriteBuffer is the size of the memory table, in bytes, at which it is flushed to a table of level 0; 1 MiB to
	// 256 MiB. A larger one means fewer, larger flushes and a longer replay at open. Half of it is the largest batch.
	WriteBuffer int `yaml:"write_buffer"`

	// TableSize is the size of the tables that compaction writes, in bytes; 1 MiB to 256 MiB. Larger ones mean fewer
	// open files and manifest entries, and more keys lost to one damaged index.
	TableSize int `yaml:"table_size"`

	// Level1Size is the size of level 1, in bytes; each further level is ten times larger. At least TableSize. Near
	// L0Trigger × WriteBuffer, so that merging level 0 into level 1 rewrites about as much as it brings.
	Level1Size int `yaml:"level1_size"`

	// L0Trigger is the number of level-0 tables that starts their compaction. Each is one more table a read may visit.
	L0Trigger int `yaml:"l0_trigger"`

	// L0Slowdown is the number of level-0 tables at which each write is delayed by 1 ms; above L0Trigger.
	L0Slowdown int `yaml:"l0_slowdown"`

	// L0Pause is the number of level-0 tables at which writes wait for compaction; above L0Slowdown.
	L0Pause int `yaml:"l0_pause"`

	// BlockSize is the uncompressed size of a table block, in bytes, the unit of reading, checking and caching;
	// 1 KiB to 256 KiB. Smaller blocks suit random reads of values near 1 KiB, larger ones scans.
	BlockSize int `yaml:"block_size"`

	// BlockCache bounds the memory for blocks, indexes and filters, in bytes; at least 1 MiB.
	BlockCache int `yaml:"block_cache"`

	// OpenTables bounds the table files held open; at least 16. Beyond it the least recently used is closed.
	OpenTables int `yaml:"open_tables"`

	// BloomBits is the size of the Bloom filter for each key, in bits; 0 (none) to 30. 10 lets one in a hundred
	// lookups of an absent key read a block.
	BloomBits int `yaml:"bloom_bits"`

	// Compression of table blocks: snappy or none.
	Compression Compression `yaml:"compression"`

	// CompactionRate bounds the bytes per second that compaction writes, so that it leaves disk and CPU to requests;
	// 0 for no bound, else at least 1 MiB. Flushes of the memory table are not bound by it, and the bound is lifted
	// while level 0 is half-way to L0Slowdown, since a stall costs more than the interference.
	CompactionRate int64 `yaml:"compaction_rate"`

	// Note makes the entry that a salvage stores in the same step, for ranges of keys of which newer versions may be
	// gone. serial is never the same twice in one directory, and must make the key one that is never used otherwise, since
	// the entry is older than all that is in the log. nil for none.
	Note func(serial uint64, lost []engine.KeyRange) (key, value []byte) `yaml:"-"`
}

// Default returns the options described at [Options].
func Default() Options {
	return Options{
		WriteBuffer: 16 * mib,
		TableSize:   8 * mib,
		Level1Size:  64 * mib,
		L0Trigger:   4,
		L0Slowdown:  16,
		L0Pause:     32,
		BlockSize:   4 * kib,
		BlockCache:  48 * mib,
		OpenTables:  1000,
		BloomBits:   10,
		Compression: CompressionSnappy,
	}
}

// Validate reports all faults at once, each with field and value.
func (o Options) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("leveldb options: "+format, args...))
		}
	}
	between := func(name string, v, lo, hi int) {
		check(v >= lo && v <= hi, "%s is %d, must be %d to %d", name, v, lo, hi)
	}
	between("write_buffer", o.WriteBuffer, mib, 256*mib)
	between("table_size", o.TableSize, mib, 256*mib)
	check(o.Level1Size >= o.TableSize, "level1_size is %d, must be at least table_size, %d", o.Level1Size, o.TableSize)
	check(o.L0Trigger >= 1, "l0_trigger is %d, must be at least 1", o.L0Trigger)
	check(o.L0Slowdown > o.L0Trigger, "l0_slowdown is %d, must be above l0_trigger, %d", o.L0Slowdown, o.L0Trigger)
	check(o.L0Pause > o.L0Slowdown, "l0_pause is %d, must be above l0_slowdown, %d", o.L0Pause, o.L0Slowdown)
	between("block_size", o.BlockSize, kib, 256*kib)
	check(o.BlockCache >= mib, "block_cache is %d, must be at least %d", o.BlockCache, mib)
	check(o.OpenTables >= 16, "open_tables is %d, must be at least 16", o.OpenTables)
	between("bloom_bits", o.BloomBits, 0, 30)
	check(o.Compression == CompressionSnappy || o.Compression == CompressionNone,
		"compression is %q, must be %q or %q", o.Compression, CompressionSnappy, CompressionNone)
	check(o.CompactionRate == 0 || o.CompactionRate >= mib,
		"compaction_rate is %d, must be 0 or at least %d", o.CompactionRate, mib)
	return errors.Join(faults...)
}

// maxBatch keeps every batch inside one memory table and so inside the log: the library writes larger ones to tables
// directly, past the log and its sync.
func (o Options) maxBatch() int { return o.WriteBuffer / 2 }

// library translates to the library's options. Logs are read leniently, since strict reading refuses the torn end that
// any crash leaves; what is dropped is judged by the guard instead. Everything else is strict.
func (o Options) library() *opt.Options {
	l := &opt.Options{
		WriteBuffer:                   o.WriteBuffer,
		CompactionTableSize:           o.TableSize,
		CompactionTotalSize:           o.Level1Size / levelFactor, // the library multiplies by the factor once for level 1
		CompactionTotalSizeMultiplier: levelFactor,
		CompactionL0Trigger:           o.L0Trigger,
		WriteL0SlowdownTrigger:        o.L0Slowdown,
		WriteL0PauseTrigger:           o.L0Pause,
		BlockSize:                     o.BlockSize,
		BlockCacheCapacity:            o.BlockCache,
		BlockCacheEvictRemoved:        true,
		OpenFilesCacheCapacity:        o.OpenTables,
		Compression:                   opt.SnappyCompression,
		// The library's pool of buffers is off: compaction returns buffers of a whole table to it, index and filter
		// blocks get them, and a few such blocks then fill the block cache. Measured on random reads after loading a
		// million keys of 1 KiB: 5 % of block reads hit the cache with the pool, 68 % without.
		DisableBufferPool:            true,
		DisableLargeBatchTransaction: true,
		DisableSeeksCompaction:       true,
		NoWriteMerge:                 true, // Apply serialises writers, so there is nothing to merge
		Strict: opt.StrictJournalChecksum | opt.StrictBlockChecksum | opt.StrictCompaction |
			opt.StrictReader | opt.StrictRecovery,
	}
	if o.Compression == CompressionNone {
		l.Compression = opt.NoCompression
	}
	if o.BloomBits > 0 {
		l.Filter = filter.NewBloomFilter(o.BloomBits)
	}
	return l
}

// levelLimit is the size that level n (1 or deeper) may have before it is compacted, in bytes.
func (o Options) levelLimit(n int) int64 {
	limit := int64(o.Level1Size)
	for range n - 1 {
		limit *= levelFactor
	}
	return limit
}
