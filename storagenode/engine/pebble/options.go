package pebble

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// maxMemTables bounds the memory tables, the one being filled included, as a multiple of the full size; above it
	// writes wait for a flush.
	maxMemTables = 3

	// format is the on-disk format. It is named, and not "the newest", because opening a database with a newer one
	// cannot be undone. It is the first in which logs say up to where they were synced, which tells rot from a torn
	// end; those above it are for tables of columns and for values apart from tables, neither of which is used.
	format = pebble.FormatWALSyncChunks
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
// at most four memory tables (one filling, two waiting for their flush, one kept for reuse) and the block cache, 64 +
// 64 MiB, are nearly all of what the library holds. Without cgo they are part of Go's heap, which the collector lets
// grow to about twice that.
//
// Values stay inside the tables. Pebble can keep large ones apart, in blob files, which saves rewriting them in each
// compaction; it is left out because the library still calls it experimental, and because damage in a blob file comes
// without the range of keys that it affects.
type Options struct {
	// WriteBuffer is the size of the memory table, in bytes, at which it is flushed to a table of level 0; 1 MiB to
	// 256 MiB. Half of it is the largest batch.
	WriteBuffer int `yaml:"write_buffer"`

	// TableSize is the size of the tables of the upper levels, in bytes; 1 MiB to 256 MiB. Each level below has twice
	// the size of the one above it.
	TableSize int `yaml:"table_size"`

	// Level1Size is the size of the first level below level 0, in bytes; at least TableSize.
	Level1Size int `yaml:"level1_size"`

	// L0Trigger is the number of overlapping layers of level 0 that starts their compaction.
	L0Trigger int `yaml:"l0_trigger"`

	// L0Pause is the number of overlapping layers of level 0 at which writes wait for compaction; above L0Trigger.
	L0Pause int `yaml:"l0_pause"`

	// BlockSize is the uncompressed size of a table block, in bytes, the unit of reading, checking and caching;
	// 1 KiB to 256 KiB.
	BlockSize int `yaml:"block_size"`

	// BlockCache bounds the memory for blocks, indexes and filters, in bytes; at least 1 MiB. The library counts memory
	// tables against its cache too; that is added on top.
	BlockCache int `yaml:"block_cache"`

	// OpenTables bounds the table files held open; at least 16.
	OpenTables int `yaml:"open_tables"`

	// BloomBits is the size of the Bloom filter for each key, in bits; 0 (none) to 30.
	BloomBits int `yaml:"bloom_bits"`

	// Compression of table blocks: snappy or none.
	Compression Compression `yaml:"compression"`

	// CompactionRate bounds the bytes per second that compaction writes, so that it leaves disk and CPU to requests;
	// 0 for no bound, else at least 1 MiB. Flushes of the memory table are not bound by it, and the bound is lifted
	// while level 0 is half-way to L0Pause, since a stall costs more than the interference.
	CompactionRate int64 `yaml:"compaction_rate"`
}

// Default returns the options described at [Options].
func Default() Options {
	return Options{
		WriteBuffer: 16 * mib,
		TableSize:   8 * mib,
		Level1Size:  64 * mib,
		L0Trigger:   4,
		L0Pause:     24,
		BlockSize:   4 * kib,
		BlockCache:  64 * mib,
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
			faults = append(faults, fmt.Errorf("pebble options: "+format, args...))
		}
	}
	between := func(name string, v, lo, hi int) {
		check(v >= lo && v <= hi, "%s is %d, must be %d to %d", name, v, lo, hi)
	}
	between("write_buffer", o.WriteBuffer, mib, 256*mib)
	between("table_size", o.TableSize, mib, 256*mib)
	check(o.Level1Size >= o.TableSize, "level1_size is %d, must be at least table_size, %d", o.Level1Size, o.TableSize)
	check(o.L0Trigger >= 1, "l0_trigger is %d, must be at least 1", o.L0Trigger)
	check(o.L0Pause > o.L0Trigger, "l0_pause is %d, must be above l0_trigger, %d", o.L0Pause, o.L0Trigger)
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

// library translates to the library's options, without file system, logger and events.
func (o Options) library() *pebble.Options {
	l := &pebble.Options{
		FormatMajorVersion:    format,
		MemTableSize:          uint64(o.WriteBuffer),
		CacheSize:             int64(o.BlockCache) + (maxMemTables+1)*int64(o.WriteBuffer),
		LBaseMaxBytes:         int64(o.Level1Size),
		L0CompactionThreshold: o.L0Trigger,
		MaxOpenFiles:          o.OpenTables,
		// The library waits inside a write, where nothing can end the wait: Close would wait for the write, and the
		// write for ever. So its own limits are out of reach, and the engine waits before it calls the library.
		MemTableStopWritesThreshold: 2 * maxMemTables,
		L0StopWritesThreshold:       1 << 20,
	}
	// Tables keep rows, not columns: the columns of this version of the library panic in a compaction that meets the
	// empty key alone in a block, and a panic there ends the process.
	l.Experimental.EnableColumnarBlocks = func() bool { return false }
	l.TargetFileSizes[0] = int64(o.TableSize)
	compression := pebble.UniformDBCompressionSettings(block.SnappyCompression)
	if o.Compression == CompressionNone {
		compression = pebble.DBCompressionNone
	}
	l.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return compression })
	for i := range l.Levels {
		l.Levels[i].BlockSize = o.BlockSize
		if o.BloomBits > 0 {
			l.Levels[i].FilterPolicy = bloom.FilterPolicy(o.BloomBits)
		}
	}
	return l
}
