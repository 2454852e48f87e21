package leveldb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/syndtr/goleveldb/leveldb/comparer"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/table"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/dotring/dotring/storagenode/engine"
)

const (
	// asideSuffix is added to the folder of a database that cannot be opened at all, which is kept beside the new one.
	asideSuffix = ".damaged"
	// putKind is the kind of an internal key that has a value.
	putKind = 1
	// keyTrailer is what an internal key has behind the user's: sequence number << 8 | kind, little-endian.
	keyTrailer = 8
)

// Salvage implements engine.Salvager. Tables are read block by block, and those with bad blocks are written anew without
// them; a new manifest that names the new tables takes the place of the old one in a single step. The library's own
// repair would drop whole tables, and a lenient compaction would drop blocks without a word.
func (e *Engine) Salvage() (lost []engine.KeyRange, err error) {
	e.closing.Do(func() {
		known := e.Err() != nil
		if err := e.shut(known); unreadable(err) {
			// Compaction met damage just now, maybe elsewhere than reads did: that too is to be cut out, and no reason not to.
			e.damage(err)
		} else {
			e.closed = err
		}
		if e.closed == nil {
			lost, err = salvage(e.guard.Storage, e.guard.dir, e.opts, e.hurtTables())
		}
		e.closed = errors.Join(e.closed, e.guard.close())
	})
	return lost, errors.Join(err, e.closed)
}

// hurtTables lists the tables in which damage was met; nil stands for all, where it is known only that there is some.
func (e *Engine) hurtTables() []int64 {
	e.damageMu.Lock()
	defer e.damageMu.Unlock()
	var nums []int64
	for num := range e.hurt {
		nums = append(nums, num)
	}
	slices.Sort(nums)
	return nums
}

// openSalvaged opens the database in dir, freed of what keeps it from being opened: missing tables are struck out, and
// where it is not known what the database consists of, all of it is set aside and a new one begun. What may be missing
// is in the note.
func openSalvaged(dir string, o Options) (*Engine, error) {
	e, err := Open(dir, o)
	if err == nil || o.Note == nil || !errors.Is(err, engine.ErrDamaged) {
		return e, err
	}
	stor, openErr := openDir(dir)
	if openErr != nil {
		return nil, errors.Join(err, openErr)
	}
	_, salvageErr := salvage(stor, stor, o, nil)
	if closeErr := stor.Close(); closeErr != nil {
		return nil, errors.Join(err, closeErr)
	}
	if salvageErr == nil {
		e, openErr = Open(dir, o)
		if !errors.Is(openErr, engine.ErrDamaged) {
			return e, openErr
		}
	}
	if !errors.Is(errors.Join(salvageErr, openErr), engine.ErrDamaged) {
		return nil, errors.Join(err, salvageErr)
	}
	return beginAnew(dir, o)
}

// beginAnew keeps the damaged database aside, in place of one kept so earlier, and begins an empty one with a note that
// anything may be missing.
func beginAnew(dir string, o Options) (*Engine, error) {
	if err := errors.Join(os.RemoveAll(dir+asideSuffix), os.Rename(dir, dir+asideSuffix)); err != nil {
		return nil, fmt.Errorf("set damaged database aside: %w", err)
	}
	e, err := Open(dir, o)
	if err != nil {
		return nil, err
	}
	var b engine.Batch
	b.Put(o.Note(0, []engine.KeyRange{{}}))
	if err := e.Apply(&b, true); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// salvage replaces those of the tables suspects, nil for all, that have bad blocks. Nothing is changed where none has.
// The storage's database must be closed.
func salvage(stor storage.Storage, dir DirSyncer, o Options, suspects []int64) ([]engine.KeyRange, error) {
	g := &guard{Storage: stor}
	s := salvager{stor: stor, opts: o}
	fd, err := stor.GetMeta()
	if err != nil {
		return nil, lostManifest(err)
	}
	malformed := false
	scan, err := g.scan(fd, func(record []byte) { malformed = s.m.apply(record) != nil || malformed })
	// A damaged end cannot be told from one that a crash tore off; what it said of tables would be lost unnoticed.
	if err != nil || malformed || scan.bad >= 0 || s.m.comparer == nil || s.m.nextFile == 0 {
		return nil, lostManifest(errors.Join(err, fmt.Errorf("%v: %v", fd, scan)))
	}
	all, err := stor.List(storage.TypeAll)
	if err != nil {
		return nil, err
	}
	for _, fd := range all {
		s.m.nextFile = max(s.m.nextFile, fd.Num+1)
	}
	if suspects == nil {
		for num := range s.m.tables {
			suspects = append(suspects, num)
		}
		slices.Sort(suspects)
	}
	for _, num := range suspects {
		if t, ok := s.m.tables[num]; ok {
			if err := s.replace(num, t); err != nil {
				return nil, fmt.Errorf("salvage table %d: %w", num, err)
			}
		}
	}
	if len(s.lost) == 0 {
		return nil, nil
	}
	if err := s.commit(dir, fd); err != nil {
		return nil, fmt.Errorf("salvage: %w", err)
	}
	return s.lost, nil
}

func lostManifest(err error) error { return &engine.Damage{Err: fmt.Errorf("list of tables: %w", err)} }

// salvager is one salvage.
type salvager struct {
	stor storage.Storage
	opts Options
	m    manifest
	lost []engine.KeyRange
}

// replace takes a table out, and puts one in with what can be read of it, if it has bad blocks.
func (s *salvager) replace(num int64, t tableInfo) error {
	lost, err := s.read(num, t, func(_, _ []byte) error { return nil })
	if err != nil || len(lost) == 0 {
		return err
	}
	next := tableInfo{level: t.level}
	to := storage.FileDesc{Type: storage.TypeTable, Num: s.m.nextFile}
	s.m.nextFile++
	err = s.write(to, func(add func(k, v []byte) error) error {
		// Again, and not kept from the first time: a table can be large. What is bad now and was not before is lost too.
		lost, err = s.read(num, t, func(k, v []byte) error {
			if next.min == nil {
				next.min = bytes.Clone(k)
			}
			next.max = append(next.max[:0], k...)
			return add(k, v)
		})
		return err
	}, &next.size)
	if err != nil {
		return err
	}
	delete(s.m.tables, num)
	if next.min == nil {
		if err := s.stor.Remove(to); err != nil {
			return err
		}
	} else {
		s.m.tables[to.Num] = next
	}
	s.lost = append(s.lost, lost...)
	return nil
}

// write makes a table of what fill adds, synced.
func (s *salvager) write(to storage.FileDesc, fill func(add func(k, v []byte) error) error, size *int64) error {
	f, err := s.stor.Create(to)
	if err != nil {
		return err
	}
	w := table.NewWriter(f, tableOptions(s.opts), nil, 0)
	if err = fill(w.Append); err == nil {
		err = w.Close()
	}
	if err == nil {
		err = f.Sync()
	}
	*size = int64(w.BytesLen())
	return errors.Join(err, f.Close())
}

// read calls fn for the entries of a table that can be read, and returns the ranges between which something cannot.
func (s *salvager) read(num int64, t tableInfo, fn func(k, v []byte) error) ([]engine.KeyRange, error) {
	r, err := s.stor.Open(storage.FileDesc{Type: storage.TypeTable, Num: num})
	if err != nil {
		if !unreadable(err) {
			return nil, err
		}
		return []engine.KeyRange{{From: userKey(t.min), To: userKey(t.max)}}, nil
	}
	lost, err := readTable(r, num, t, s.opts, fn)
	return lost, errors.Join(err, r.Close())
}

// readTable reads a table from its file, past all caches. The gaps it returns reach from the last good key before a bad
// block to the first behind it, both inclusive: the block may have held newer versions of the latter.
func readTable(r io.ReaderAt, num int64, t tableInfo, o Options, fn func(k, v []byte) error) ([]engine.KeyRange, error) {
	w := tableWalk{last: userKey(t.min)}
	end := func() []engine.KeyRange {
		if w.bad {
			w.lost = append(w.lost, engine.KeyRange{From: w.last, To: userKey(t.max)})
		}
		return w.lost
	}
	it, err := tableIterator(r, num, t, o)
	if err != nil {
		w.bad = true
		if !unreadable(err) && !errors.Is(err, engine.ErrDamaged) {
			return nil, err
		}
		return end(), nil
	}
	defer it.Release()
	if s, ok := it.(iterator.ErrorCallbackSetter); ok {
		s.SetErrorCallback(func(error) { w.bad = true })
	}
	for {
		ok, err := step(it, it.Next)
		if !ok {
			if err != nil {
				w.bad = true
				if !unreadable(err) && !errors.Is(err, engine.ErrDamaged) {
					return nil, err
				}
			}
			return end(), nil
		}
		k := it.Key()
		if len(k) < keyTrailer {
			w.bad = true
			continue
		}
		w.good(k)
		if err := fn(k, it.Value()); err != nil {
			return nil, err
		}
	}
}

func tableIterator(r io.ReaderAt, num int64, t tableInfo, o Options) (it iterator.Iterator, err error) {
	defer rescue(&err)
	tr, err := table.NewReader(r, t.size, storage.FileDesc{Type: storage.TypeTable, Num: num}, nil, nil, tableOptions(o))
	if err != nil {
		return nil, err
	}
	return tr.NewIterator(&util.Range{}, &opt.ReadOptions{Strict: opt.StrictOverride}), nil
}

// tableWalk notes the gaps of a table.
type tableWalk struct {
	last []byte // the user key before
	bad  bool   // something was skipped since then
	lost []engine.KeyRange
}

func (w *tableWalk) good(k []byte) {
	if w.bad {
		w.lost = append(w.lost, engine.KeyRange{From: bytes.Clone(w.last), To: bytes.Clone(userKey(k))})
		w.bad = false
	}
	w.last = append(w.last[:0:0], userKey(k)...)
}

// commit makes the new tables the database's, with the note among them, or changes nothing.
func (s *salvager) commit(dir DirSyncer, old storage.FileDesc) error {
	if s.opts.Note != nil {
		k, v := s.opts.Note(uint64(s.m.nextFile), s.lost)
		// Behind all that the manifest knows of, and before whatever is written next.
		k = binary.LittleEndian.AppendUint64(bytes.Clone(k), s.m.sequence<<8|putKind)
		note := tableInfo{min: k, max: k}
		to := storage.FileDesc{Type: storage.TypeTable, Num: s.m.nextFile}
		s.m.nextFile++
		if err := s.write(to, func(add func(k, v []byte) error) error { return add(k, v) }, &note.size); err != nil {
			return err
		}
		s.m.tables[to.Num] = note
	}
	fd := storage.FileDesc{Type: storage.TypeManifest, Num: max(s.m.nextFile, old.Num+1)}
	s.m.nextFile = fd.Num + 1
	f, err := s.stor.Create(fd)
	if err != nil {
		return err
	}
	w := journal.NewWriter(f)
	err = func() error {
		rec, err := w.Next()
		if err != nil {
			return err
		}
		if _, err := rec.Write(s.m.encode()); err != nil {
			return err
		}
		return w.Close()
	}()
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = dir.SyncDir()
	}
	if err != nil {
		return err
	}
	return s.stor.SetMeta(fd)
}

// tableOptions are those for tables by themselves: their keys are the library's internal ones.
func tableOptions(o Options) *opt.Options {
	l := o.library()
	l.Comparer, l.Filter = internalOrder{comparer.DefaultComparer}, nil
	l.Strict = opt.StrictBlockChecksum
	return l
}

// internalOrder orders internal keys: by the user's key, newer ones first. Keys are never shortened.
type internalOrder struct{ comparer.Comparer }

func (internalOrder) Compare(a, b []byte) int {
	if len(a) < keyTrailer || len(b) < keyTrailer {
		return bytes.Compare(a, b) // damaged
	}
	if c := bytes.Compare(userKey(a), userKey(b)); c != 0 {
		return c
	}
	m, n := binary.LittleEndian.Uint64(a[len(a)-keyTrailer:]), binary.LittleEndian.Uint64(b[len(b)-keyTrailer:])
	switch {
	case m > n:
		return -1
	case m < n:
		return 1
	}
	return 0
}

func (internalOrder) Separator(_, _, _ []byte) []byte { return nil }

func (internalOrder) Successor(_, _ []byte) []byte { return nil }

// userKey is an internal key without its trailer.
func userKey(k []byte) []byte { return k[:len(k)-keyTrailer] }
