package leveldb

import (
	"encoding/binary"
	"errors"
)

// Field tags of a manifest record, from LevelDB's version_edit.cc.
const (
	tagComparer    = 1
	tagJournal     = 2
	tagNextFile    = 3
	tagSequence    = 4
	tagPointer     = 5
	tagDeleted     = 6
	tagAdded       = 7
	tagPrevJournal = 9
)

var errManifest = errors.New("leveldb: malformed manifest record")

// keyRange is an inclusive range of user keys.
type keyRange struct{ from, to []byte }

// manifest is what the engine itself wants to know from the library's list of tables: which log it counts from, and
// which keys each table holds. The library shows key ranges only abbreviated.
type manifest struct {
	journal int64
	tables  map[int64]keyRange
}

// apply adds one record. It returns errManifest, having applied a part, if the record is malformed.
func (m *manifest) apply(record []byte) error {
	if m.tables == nil {
		m.tables = map[int64]keyRange{}
	}
	f := fields{rest: record}
	for len(f.rest) > 0 && !f.bad {
		switch f.number() {
		case tagComparer:
			f.bytes()
		case tagJournal:
			if n := f.number(); !f.bad {
				m.journal = int64(n)
			}
		case tagNextFile, tagSequence, tagPrevJournal:
			f.number()
		case tagPointer:
			f.number()
			f.bytes()
		case tagDeleted:
			f.number()
			num := f.number()
			delete(m.tables, int64(num))
		case tagAdded:
			f.number()
			num := f.number()
			f.number()
			from, to := f.userKey(), f.userKey()
			if !f.bad {
				m.tables[int64(num)] = keyRange{from: from, to: to}
			}
		default:
			f.bad = true
		}
	}
	if f.bad {
		return errManifest
	}
	return nil
}

// fields reads a record field by field; bad is set at the first that does not fit.
type fields struct {
	rest []byte
	bad  bool
}

// number reads a uvarint.
func (f *fields) number() uint64 {
	n, w := binary.Uvarint(f.rest)
	if w <= 0 {
		f.bad = true
		return 0
	}
	f.rest = f.rest[w:]
	return n
}

func (f *fields) bytes() []byte {
	n := f.number()
	if f.bad || n > uint64(len(f.rest)) {
		f.bad = true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

// userKey reads an internal key and cuts off its 8 bytes of sequence number and kind. The result is a copy.
func (f *fields) userKey() []byte {
	b := f.bytes()
	if f.bad || len(b) < 8 {
		f.bad = true
		return nil
	}
	return append([]byte{}, b[:len(b)-8]...)
}
