package leveldb

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
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

// tableInfo is what a manifest says of a table.
type tableInfo struct {
	level    uint64
	size     int64
	min, max []byte // internal keys
}

// manifest is the library's list of tables: which log it counts from, and which keys each table holds. The library
// shows key ranges only abbreviated, and has no way to take a damaged table out.
type manifest struct {
	comparer []byte
	journal  int64
	nextFile int64
	sequence uint64
	tables   map[int64]tableInfo
}

// apply adds one record. It returns errManifest, having applied a part, if the record is malformed.
func (m *manifest) apply(record []byte) error {
	if m.tables == nil {
		m.tables = map[int64]tableInfo{}
	}
	f := fields{rest: record}
	for len(f.rest) > 0 && !f.bad {
		switch f.number() {
		case tagComparer:
			m.comparer = f.bytes()
		case tagJournal:
			if n := f.number(); !f.bad {
				m.journal = int64(n)
			}
		case tagNextFile:
			if n := f.number(); !f.bad {
				m.nextFile = int64(n)
			}
		case tagSequence:
			if n := f.number(); !f.bad {
				m.sequence = n
			}
		case tagPrevJournal:
			f.number()
		case tagPointer:
			f.number()
			f.bytes()
		case tagDeleted:
			f.number()
			num := f.number()
			delete(m.tables, int64(num))
		case tagAdded:
			t := tableInfo{level: f.number()}
			num := f.number()
			t.size = int64(f.number())
			t.min, t.max = f.internalKey(), f.internalKey()
			if !f.bad {
				m.tables[int64(num)] = t
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

// encode returns all of it as one record, tables by number.
func (m *manifest) encode() []byte {
	number := func(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }
	str := func(b, s []byte) []byte { return append(number(b, uint64(len(s))), s...) }
	b := str(number(nil, tagComparer), m.comparer)
	b = number(number(b, tagJournal), uint64(m.journal))
	b = number(number(b, tagNextFile), uint64(m.nextFile))
	b = number(number(b, tagSequence), m.sequence)
	for _, num := range slices.Sorted(maps.Keys(m.tables)) {
		t := m.tables[num]
		b = number(number(number(number(b, tagAdded), t.level), uint64(num)), uint64(t.size))
		b = str(str(b, t.min), t.max)
	}
	return b
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

// bytes reads a string. The result is a copy.
func (f *fields) bytes() []byte {
	n := f.number()
	if f.bad || n > uint64(len(f.rest)) {
		f.bad = true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return append([]byte{}, b...)
}

// internalKey reads a user key with its 8 bytes of sequence number and kind. The result is a copy.
func (f *fields) internalKey() []byte {
	b := f.bytes()
	if f.bad || len(b) < keyTrailer {
		f.bad = true
		return nil
	}
	return b
}
