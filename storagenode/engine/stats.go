package engine

import "time"

// Stats describes an engine since it was opened. Fields that an engine does not know stay zero.
type Stats struct {
	// Batches and Records count what Apply accepted; UserBytes is the sum of their keys and values, in bytes.
	Batches, Records, UserBytes uint64
	// Syncs counts log syncs, SyncTime the time spent in them.
	Syncs    uint64
	SyncTime time.Duration

	// WriteStalls counts periods in which writes were slowed or paused because compaction lagged, WriteStallTime
	// their length. WritesPaused says that a write waits now.
	WriteStalls    uint64
	WriteStallTime time.Duration
	WritesPaused   bool

	// Levels describes the tree of tables, level 0 (the newest) first.
	Levels []Level
	// CompactionDebt estimates the bytes that have to be rewritten before every level is within its limit.
	CompactionDebt int64
	// Flushes and Compactions count tables sets written from memory and merged from tables.
	Flushes, Compactions uint64
	// PacedTime is how long compaction waited for its own rate limit.
	PacedTime time.Duration

	// DiskRead and DiskWritten count bytes of all files, logs included.
	DiskRead, DiskWritten uint64

	// Block cache: bytes held, hits and misses.
	CacheBytes             int64
	CacheHits, CacheMisses uint64
	// OpenTables counts table files held open.
	OpenTables int

	// Snapshots and Iterations count what pins old data now.
	Snapshots, Iterations int

	// BackgroundFailures counts failures of work that no caller waits for (flush, compaction).
	BackgroundFailures uint64
	// DamagedReads counts reads that ended with ErrDamaged.
	DamagedReads uint64
}

// Level is one level of a log-structured tree.
type Level struct {
	Tables int
	// Bytes is the size of the level's tables.
	Bytes int64
	// Read and Written count bytes moved by compactions into this level, Compacting the time they took.
	Read, Written int64
	Compacting    time.Duration
}

// TableBytes is the size of all tables.
func (s Stats) TableBytes() int64 {
	var sum int64
	for _, l := range s.Levels {
		sum += l.Bytes
	}
	return sum
}

// WriteAmplification is bytes written to disk for each byte the user wrote; 0 before the first write.
func (s Stats) WriteAmplification() float64 {
	if s.UserBytes == 0 {
		return 0
	}
	return float64(s.DiskWritten) / float64(s.UserBytes)
}

// CacheHitRatio is the share of block reads served from memory, 0 to 1; 0 before the first read.
func (s Stats) CacheHitRatio() float64 {
	total := s.CacheHits + s.CacheMisses
	if total == 0 {
		return 0
	}
	return float64(s.CacheHits) / float64(total)
}
