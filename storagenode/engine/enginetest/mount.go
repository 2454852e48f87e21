package enginetest

import (
	"errors"
	"io"
	"maps"
	"os"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

var errReadClosed = errors.New("enginetest: file is closed")

// Mount is a Disk as the library sees it. Safe for concurrent use.
type Mount struct {
	d      *Disk
	closed bool // guarded by d.mu
}

var _ storage.Storage = (*Mount)(nil)

// begin locks the disk and returns why op fails; end must follow either way.
func (m *Mount) begin(op Op, t storage.FileType) error {
	m.d.mu.Lock()
	_, err := m.d.checkLocked(m, op, t)
	return err
}

func (m *Mount) end() { m.d.mu.Unlock() }

// Lock implements storage.Storage.
func (m *Mount) Lock() (storage.Locker, error) {
	m.d.mu.Lock()
	defer m.end()
	switch {
	case m.d.off:
		return nil, ErrPowerOff
	case m.closed:
		return nil, storage.ErrClosed
	case m.d.mounted != nil:
		return nil, storage.ErrLocked
	}
	m.d.mounted = m
	return unlocker{m}, nil
}

type unlocker struct{ m *Mount }

func (u unlocker) Unlock() {
	u.m.d.mu.Lock()
	defer u.m.end()
	if u.m.d.mounted == u.m {
		u.m.d.mounted = nil
	}
}

// Log implements storage.Storage.
func (m *Mount) Log(string) {}

// SyncDir puts the directory's entries on stable storage.
func (m *Mount) SyncDir() error {
	err := m.begin(OpSyncDir, 0)
	defer m.end()
	if err == nil {
		m.d.syncDirLocked()
	}
	return err
}

func (d *Disk) syncDirLocked() {
	d.stable = maps.Clone(d.dir)
	d.pending = nil
}

// SetMeta implements storage.Storage.
func (m *Mount) SetMeta(fd storage.FileDesc) error {
	err := m.begin(OpSetMeta, fd.Type)
	defer m.end()
	if err == nil {
		m.d.meta = fd
		m.d.syncDirLocked()
	}
	return err
}

// GetMeta implements storage.Storage.
func (m *Mount) GetMeta() (storage.FileDesc, error) {
	err := m.begin(OpOpen, storage.TypeManifest)
	defer m.end()
	if err != nil {
		return storage.FileDesc{}, err
	}
	if _, ok := m.d.dir[m.d.meta]; !ok {
		return storage.FileDesc{}, os.ErrNotExist
	}
	return m.d.meta, nil
}

// List implements storage.Storage.
func (m *Mount) List(t storage.FileType) ([]storage.FileDesc, error) {
	m.d.mu.Lock()
	off, closed := m.d.off, m.closed
	m.end()
	switch {
	case off:
		return nil, ErrPowerOff
	case closed:
		return nil, storage.ErrClosed
	}
	return m.d.Files(t), nil
}

// Open implements storage.Storage.
func (m *Mount) Open(fd storage.FileDesc) (storage.Reader, error) {
	err := m.begin(OpOpen, fd.Type)
	defer m.end()
	if err != nil {
		return nil, err
	}
	f, ok := m.d.dir[fd]
	if !ok {
		return nil, os.ErrNotExist
	}
	return &reader{m: m, fd: fd, f: f}, nil
}

// Create implements storage.Storage.
func (m *Mount) Create(fd storage.FileDesc) (storage.Writer, error) {
	err := m.begin(OpCreate, fd.Type)
	defer m.end()
	if err != nil {
		return nil, err
	}
	f, ok := m.d.dir[fd]
	if ok {
		*f = file{} // truncated
	} else {
		f = &file{}
		m.d.changeLocked(entry{fd, f})
	}
	return &fileWriter{m: m, fd: fd, f: f}, nil
}

func (d *Disk) changeLocked(e entry) {
	set(d.dir, e)
	d.pending = append(d.pending, e)
}

// Remove implements storage.Storage.
func (m *Mount) Remove(fd storage.FileDesc) error {
	err := m.begin(OpRemove, fd.Type)
	defer m.end()
	if err != nil {
		return err
	}
	if _, ok := m.d.dir[fd]; !ok {
		return os.ErrNotExist
	}
	m.d.changeLocked(entry{fd, nil})
	return nil
}

// Rename implements storage.Storage.
func (m *Mount) Rename(from, to storage.FileDesc) error {
	err := m.begin(OpCreate, from.Type)
	defer m.end()
	if err != nil {
		return err
	}
	f, ok := m.d.dir[from]
	if !ok {
		return os.ErrNotExist
	}
	m.d.changeLocked(entry{to, f})
	m.d.changeLocked(entry{from, nil})
	return nil
}

// Close implements storage.Storage.
func (m *Mount) Close() error {
	m.d.mu.Lock()
	defer m.end()
	m.closed = true
	if m.d.mounted == m {
		m.d.mounted = nil
	}
	return nil
}

type fileWriter struct {
	m      *Mount
	fd     storage.FileDesc
	f      *file
	closed bool
}

func (w *fileWriter) Write(p []byte) (int, error) {
	w.m.d.hang(w.fd.Type)
	w.m.d.mu.Lock()
	defer w.m.end()
	fault, err := w.m.d.checkLocked(w.m, OpWrite, w.fd.Type)
	n := 0
	switch {
	case w.closed:
		return 0, errReadClosed
	case err == nil:
		n, err = w.m.d.roomLocked(len(p))
	case fault != nil && fault.Partial:
		n = len(p) / 2
	}
	w.f.data = append(w.f.data, p[:n]...)
	return n, err
}

func (w *fileWriter) Sync() error {
	err := w.m.begin(OpSync, w.fd.Type)
	defer w.m.end()
	switch {
	case w.closed:
		return errReadClosed
	case errors.Is(err, ErrPowerOff), errors.Is(err, storage.ErrClosed):
		return err
	case err != nil:
		w.f.lost = append(w.f.lost, span{w.f.synced, len(w.f.data)})
		return err
	}
	w.f.synced = len(w.f.data)
	w.m.d.syncs[w.fd.Type]++
	if w.fd.Type == storage.TypeManifest {
		w.m.d.syncDirLocked()
	}
	return nil
}

func (w *fileWriter) Close() error {
	w.m.d.mu.Lock()
	defer w.m.end()
	w.closed = true
	return nil
}

// reader reads a file as it is at each call.
type reader struct {
	m      *Mount
	fd     storage.FileDesc
	f      *file
	pos    int64
	closed bool
}

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	err := r.m.begin(OpRead, r.fd.Type)
	defer r.m.end()
	switch {
	case r.closed:
		return 0, errReadClosed
	case err != nil:
		return 0, err
	case off < 0:
		return 0, os.ErrInvalid
	case off >= int64(len(r.f.data)):
		return 0, io.EOF
	}
	n := copy(p, r.f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.ReadAt(p, r.pos)
	r.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	r.m.d.mu.Lock()
	defer r.m.end()
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += int64(len(r.f.data))
	}
	if offset < 0 {
		return 0, os.ErrInvalid
	}
	r.pos = offset
	return offset, nil
}

func (r *reader) Close() error {
	r.m.d.mu.Lock()
	defer r.m.end()
	r.closed = true
	return nil
}
