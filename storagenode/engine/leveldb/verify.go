package leveldb

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/storagenode/engine"
)

// Tables implements engine.Verifier. It reads the manifest: the library's own listing takes time that grows with the
// square of their number.
func (e *Engine) Tables() ([]engine.Table, error) {
	if !e.users.enter() {
		return nil, engine.ErrClosed
	}
	defer e.users.leave()
	fd, err := e.guard.Storage.GetMeta()
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	var m manifest
	whole := true
	// Its end may be in the middle of being written; what was there before counts.
	if _, err := e.guard.scan(fd, func(record []byte) { whole = m.apply(record) == nil && whole }); err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	if !whole {
		return nil, fmt.Errorf("list tables: %w", &engine.Damage{File: fd.String(), Err: errManifest})
	}
	tables := make([]engine.Table, 0, len(m.tables))
	for num, t := range m.tables {
		tables = append(tables, engine.Table{Number: uint64(num), Size: t.size})
	}
	slices.SortFunc(tables, func(a, b engine.Table) int { return cmp.Compare(a.Number, b.Number) })
	return tables, nil
}

// VerifyTable implements engine.Verifier. Filters are not checked: the library does without one that is damaged.
func (e *Engine) VerifyTable(t engine.Table, pace func(int) error, fn func(k, v []byte) error) error {
	if !e.users.enter() {
		return engine.ErrClosed
	}
	defer e.users.leave()
	bad, err := e.verify(t, pace, fn)
	if err != nil || !bad {
		return err
	}
	// A table that compaction has replaced is no longer anybody's.
	switch live, err := e.live(t.Number); {
	case err != nil:
		return err
	case !live:
		return nil
	}
	e.damagedReads.Add(1)
	d := &engine.Damage{
		File: storage.FileDesc{Type: storage.TypeTable, Num: int64(t.Number)}.String(),
		Err:  errors.New("blocks cannot be read"),
	}
	if r, ok := e.tableRange(int64(t.Number)); ok {
		d.From, d.To, d.Bounded = r.from, r.to, true
	}
	return fmt.Errorf("verify: %w", d)
}

// verify reads a table, and tells whether something of it cannot be read.
func (e *Engine) verify(t engine.Table, pace func(int) error, fn func(k, v []byte) error) (bad bool, err error) {
	r, err := e.guard.Storage.Open(storage.FileDesc{Type: storage.TypeTable, Num: int64(t.Number)})
	if err != nil {
		if unreadable(err) {
			return true, nil
		}
		return false, err
	}
	if f, ok := r.(pageCached); ok {
		err = dropPages(f)
	}
	if err == nil {
		var lost []engine.KeyRange
		in := &pacedFile{ReaderAt: r, e: e, pace: pace}
		var none [keyTrailer]byte
		info := tableInfo{size: t.Size, min: none[:], max: none[:]}
		lost, err = readTable(in, int64(t.Number), info, e.opts, func(k, v []byte) error {
			if binary.LittleEndian.Uint64(k[len(k)-keyTrailer:])&0xff != putKind {
				return nil
			}
			return fn(userKey(k), v)
		})
		bad = len(lost) > 0
		if in.stopped != nil {
			err = in.stopped // the library may have taken it for something else
		}
	}
	return bad, errors.Join(err, r.Close())
}

// live says whether the table is one of the engine's.
func (e *Engine) live(num uint64) (bool, error) {
	tables, err := e.Tables()
	_, live := slices.BinarySearchFunc(tables, num, func(t engine.Table, num uint64) int { return cmp.Compare(t.Number, num) })
	return live, err
}

// pacedFile asks before each read. After an error of pace nothing more is read.
type pacedFile struct {
	io.ReaderAt
	e       *Engine
	pace    func(int) error
	stopped error
}

func (f *pacedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.stopped == nil && f.e.users.closed() {
		f.stopped = engine.ErrClosed
	}
	if f.stopped == nil {
		f.stopped = f.pace(len(p))
	}
	if f.stopped != nil {
		return 0, f.stopped
	}
	return f.ReaderAt.ReadAt(p, off)
}

// pageCached is a file whose pages the operating system may hold in memory; an *os.File is one.
type pageCached interface{ Fd() uintptr }

var _ pageCached = (*os.File)(nil)
