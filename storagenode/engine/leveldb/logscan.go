package leveldb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A log (journal or manifest) is a sequence of 32 KiB blocks. A block holds chunks, each with a header of CRC32C (4
// bytes, masked), payload length (2 bytes) and type (1 byte), all little-endian; a record is one full chunk, or a
// first, any number of middles and a last. LevelDB, doc/log_format.md.
const (
	logBlock       = 32 * kib
	chunkHeader    = 7
	chunkFull      = 1
	chunkFirst     = 2
	chunkMiddle    = 3
	chunkLast      = 4
	recordHeader   = 12 // a journal record starts with a sequence number (8 bytes) and a count (4 bytes)
	maxSequence    = 1 << 56
	crcMaskAdd     = 0xa282ead8
	crcMaskRotates = 15
)

// logScan is what a log holds, as far as its checksums tell.
//
// A crash cuts off what was not synced, and since a batch is written only after the one before it was synced, what is
// cut off is the last record: after the first bad byte no further record begins, although later pieces of the same
// record may have reached the disk. Damage to synced data leaves records behind it. That difference is what the scan
// looks for; a damaged last record cannot be told from a torn one here.
type logScan struct {
	// records counts the whole records before the first bad byte.
	records int
	// bad is the offset of the first bad byte, or the start of a record that has no end; -1 if all is good.
	bad int64
	// size is the length of the log, in bytes.
	size int64
	// recordAfter says that a record begins behind the bad byte.
	recordAfter bool
}

// torn reports how many bytes an interrupted last write left.
func (s logScan) torn() int64 {
	if s.bad < 0 || s.recordAfter {
		return 0
	}
	return s.size - s.bad
}

// String describes the scan for the report of a recovery.
func (s logScan) String() string {
	switch {
	case s.bad < 0:
		return fmt.Sprintf("%d records, whole", s.records)
	case s.recordAfter:
		return fmt.Sprintf("%d records, then damage at byte %d with records behind it", s.records, s.bad)
	default:
		return fmt.Sprintf("%d records, then %d bytes of an unfinished one", s.records, s.torn())
	}
}

// scanLog reads a log and calls each, if not nil, for the payload of each whole record before the first bad byte; the
// payload is valid until each returns. begins says whether a payload can be the beginning of a record of this kind of
// log. The error is one of reading.
func scanLog(r io.Reader, begins func(payload []byte) bool, each func(payload []byte)) (logScan, error) {
	sc := scanner{result: logScan{bad: -1}, begins: begins, each: each}
	block := make([]byte, logBlock)
	for {
		n, err := io.ReadFull(r, block)
		if n > 0 {
			sc.block(block[:n])
			sc.result.size += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if sc.open && sc.result.bad < 0 {
				sc.result.bad = sc.start
			}
			return sc.result, nil
		case err != nil:
			return sc.result, err
		case sc.result.recordAfter:
			return sc.result, nil
		}
	}
}

// beginsBatch reports whether a journal's record can begin so: with a possible sequence number.
func beginsBatch(payload []byte) bool {
	if len(payload) < recordHeader {
		return false
	}
	seq := binary.LittleEndian.Uint64(payload)
	return seq > 0 && seq < maxSequence
}

// beginsEdit reports whether a manifest's record can begin so: with a known field.
func beginsEdit(payload []byte) bool {
	return len(payload) > 0 && payload[0] >= tagComparer && payload[0] <= tagPrevJournal
}

type scanner struct {
	result logScan
	begins func([]byte) bool
	each   func([]byte)
	open   bool  // a record was begun and not ended
	start  int64 // where the present record began
	record []byte
}

// block takes the next block; the last one may be short.
func (sc *scanner) block(b []byte) {
	p := 0
	for p+chunkHeader <= len(b) {
		kind, payload, ok := chunkAt(b, p)
		if !ok {
			sc.damage(sc.result.size + int64(p))
			// The length in a damaged header leads nowhere, so look at every byte for where a record begins.
			for q := p + 1; q+chunkHeader <= len(b) && !sc.result.recordAfter; q++ {
				sc.lookAfter(b, q)
			}
			return
		}
		sc.chunk(kind, payload, sc.result.size+int64(p))
		p += chunkHeader + len(payload)
	}
	if p < len(b) && len(b) < logBlock {
		sc.damage(sc.result.size + int64(p)) // a header that was cut off
	}
}

// chunk takes a chunk whose checksum is right.
func (sc *scanner) chunk(kind byte, payload []byte, at int64) {
	begins := kind == chunkFull || kind == chunkFirst
	if begins == sc.open { // a beginning without an end, or the other way round
		if sc.open {
			at = sc.start
		}
		sc.damage(at)
	}
	if sc.result.bad >= 0 {
		sc.result.recordAfter = sc.result.recordAfter || begins
		return
	}
	if begins {
		sc.start, sc.open, sc.record = at, true, sc.record[:0]
	}
	if sc.each != nil {
		sc.record = append(sc.record, payload...)
	}
	if kind == chunkFull || kind == chunkLast {
		sc.open = false
		sc.result.records++
		if sc.each != nil {
			sc.each(sc.record)
		}
	}
}

func (sc *scanner) damage(at int64) {
	if sc.result.bad >= 0 {
		return
	}
	if sc.open {
		at = sc.start
	}
	sc.result.bad = at
	sc.open = false
}

// lookAfter notes whether a record begins at q. Besides the checksum it asks whether the payload fits, so that a log
// quoted inside a value is not mistaken for one.
func (sc *scanner) lookAfter(b []byte, q int) {
	kind, payload, ok := chunkAt(b, q)
	if ok && (kind == chunkFull || kind == chunkFirst) && sc.begins(payload) {
		sc.result.recordAfter = true
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunkAt reads the chunk at b[p:] and reports whether its checksum is right; p+chunkHeader <= len(b).
func chunkAt(b []byte, p int) (kind byte, payload []byte, ok bool) {
	kind = b[p+6]
	end := p + chunkHeader + int(binary.LittleEndian.Uint16(b[p+4:]))
	if kind < chunkFull || kind > chunkLast || end > len(b) {
		return 0, nil, false
	}
	sum := crc32.Checksum(b[p+6:end], castagnoli)
	masked := (sum>>crcMaskRotates | sum<<(32-crcMaskRotates)) + crcMaskAdd
	if masked != binary.LittleEndian.Uint32(b[p:]) {
		return 0, nil, false
	}
	return kind, b[p+chunkHeader : end], true
}
