// Package enginetest holds what every engine is tested with: one conformance suite, and a disk in memory that fails on
// demand and loses at a power cut what was not synced.
package enginetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// ErrPowerOff is what every use of a disk returns after Crash.
var ErrPowerOff = errors.New("enginetest: power is off")

// ErrOffline is the usual injected error; it is not one that an engine treats specially.
var ErrOffline = errors.New("enginetest: injected failure")

const page = 4 << 10

// Disk is one directory on a disk that keeps apart what is visible and what is on stable storage: of each file the
// bytes up to its last sync, of the directory the entries at its last sync. It follows the library's file storage on
// ext4 in what syncs what: a sync of a file covers its bytes alone, except for a manifest, which syncs the directory
// too; switching the manifest is atomic and syncs the directory.
//
// A sync that fails leaves its bytes visible, and a later sync that succeeds does not bring them to the disk, as on
// Linux (Rebello et al., Can Applications Recover from fsync Failures?, USENIX ATC 2020).
//
// Safe for concurrent use. Use Mount to get at the files.
type Disk struct {
	mu       sync.Mutex
	dir      map[storage.FileDesc]*file
	meta     storage.FileDesc
	stable   map[storage.FileDesc]*file
	pending  []entry // changes of the directory since its last sync
	mounted  *Mount
	off      bool
	cut      int // operations left until the power goes off; 0 for never
	capacity int64
	faults   []*Fault
	syncs    map[storage.FileType]int
	block    <-chan struct{} // holds up writes to files of blocked types until closed
	blocked  storage.FileType
}

// entry is one change of the directory: fd now names file, or nothing.
type entry struct {
	fd   storage.FileDesc
	file *file
}

// span is a range of bytes from a to b.
type span struct{ a, b int }

type file struct {
	data   []byte
	synced int    // data[:synced] is on stable storage
	lost   []span // except for what a failed sync dropped
}

// NewDisk returns an empty disk of unlimited size.
func NewDisk() *Disk {
	return &Disk{
		dir: map[storage.FileDesc]*file{}, stable: map[storage.FileDesc]*file{},
		syncs: map[storage.FileType]int{},
	}
}

// Mount opens the disk as a storage for the library, with SyncDir. Closing the mount frees the disk for the next one;
// until then a further mount refuses to be locked.
func (d *Disk) Mount() *Mount { return &Mount{d: d} }

// CrashMode says what becomes of bytes and directory entries that were not synced.
type CrashMode uint8

const (
	// Discard loses all of it.
	Discard CrashMode = iota
	// KeepPrefix keeps a random prefix of each file's unsynced bytes and of the directory's unsynced changes.
	KeepPrefix
	// KeepPages keeps a random set of 4 KiB pages, the others reading as zeros, as when a file system writes back out
	// of order and the size of the file first; and a random prefix of the directory's changes.
	KeepPages
	crashModes
)

// Crash cuts the power: d fails from here on, and the result is what the disk holds when the power is back, without
// faults and capacity. rng may be nil for Discard.
func (d *Disk) Crash(mode CrashMode, rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	entries := maps.Clone(d.stable)
	if mode != Discard {
		for _, e := range d.pending[:rng.IntN(len(d.pending)+1)] {
			set(entries, e)
		}
	}
	after := NewDisk()
	// In a fixed order, so that a seed gives the same disk again.
	fds := slices.SortedFunc(maps.Keys(entries), compareFiles)
	for _, fd := range fds {
		data := entries[fd].afterCrash(mode, rng)
		after.dir[fd] = &file{data: data, synced: len(data)}
	}
	after.stable = maps.Clone(after.dir)
	after.meta = d.meta // switched and synced at once
	return after
}

func compareFiles(a, b storage.FileDesc) int {
	if a.Type != b.Type {
		return int(a.Type) - int(b.Type)
	}
	return int(a.Num - b.Num)
}

func set(dir map[storage.FileDesc]*file, e entry) {
	if e.file == nil {
		delete(dir, e.fd)
	} else {
		dir[e.fd] = e.file
	}
}

func (f *file) afterCrash(mode CrashMode, rng *rand.Rand) []byte {
	end := f.synced
	if mode != Discard {
		end += rng.IntN(len(f.data) - f.synced + 1)
	}
	data := slices.Clone(f.data[:end])
	for _, s := range f.lost {
		clear(data[min(s.a, end):min(s.b, end)])
	}
	if mode == KeepPages {
		for a := f.synced; a < end; a = (a/page + 1) * page {
			if rng.IntN(2) == 0 {
				clear(data[a:min(end, (a/page+1)*page)])
			}
		}
	}
	return data
}

// Op is an operation that can fail.
type Op uint8

// The operations.
const (
	OpCreate Op = iota
	OpWrite
	OpSync
	OpSyncDir
	OpSetMeta
	OpRemove
	OpOpen
	OpRead
)

// Fault makes operations fail. Set the fields before Inject.
type Fault struct {
	// Op fails on files of Types, which are or'ed; Types is ignored for OpSyncDir.
	Op    Op
	Types storage.FileType
	// Skip lets that many matching operations pass first; Times is how many then fail, 0 for all.
	Skip, Times int
	// Err is what they fail with.
	Err error
	// Partial lets a failing write bring half of its bytes to the file.
	Partial bool

	hits int
	disk *Disk
}

// Inject adds a fault.
func (d *Disk) Inject(f *Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.disk = d
	d.faults = append(d.faults, f)
}

// Block holds up writes to files of the given types, or'ed, until gate is closed: a disk that hangs.
func (d *Disk) Block(t storage.FileType, gate <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocked, d.block = t, gate
}

// hang waits while writes to t are blocked.
func (d *Disk) hang(t storage.FileType) {
	d.mu.Lock()
	gate := d.block
	if d.blocked&t == 0 {
		gate = nil
	}
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

// Heal takes all faults away.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
}

// Hits is how many operations the fault has failed.
func (f *Fault) Hits() int {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.hits
}

// CutAfter switches the power off after n more operations that change the disk, in the middle of whatever the engine
// does then; n is at least 1. Crash must follow to get the disk back.
func (d *Disk) CutAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = n
}

// PowerOn reports whether neither CutAfter nor Crash has switched the disk off.
func (d *Disk) PowerOn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.off
}

// checkLocked returns why an operation fails, and the fault.
func (d *Disk) checkLocked(m *Mount, op Op, t storage.FileType) (*Fault, error) {
	switch {
	case d.off:
		return nil, ErrPowerOff
	case m.closed:
		return nil, storage.ErrClosed
	}
	if d.cut > 0 && op != OpOpen && op != OpRead {
		if d.cut--; d.cut == 0 {
			d.off = true
			return nil, ErrPowerOff
		}
	}
	for _, f := range d.faults {
		if f.Op != op || op != OpSyncDir && f.Types&t == 0 {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 && f.hits >= f.Times {
			continue
		}
		f.hits++
		return f, f.Err
	}
	return nil, nil
}

// SetCapacity bounds the sum of all file sizes, in bytes; writes beyond it fail with ENOSPC after what still fits. 0
// is no bound.
func (d *Disk) SetCapacity(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = n
}

// Used is the sum of all file sizes, in bytes.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.usedLocked()
}

func (d *Disk) usedLocked() int64 {
	var sum int64
	for _, f := range d.dir {
		sum += int64(len(f.data))
	}
	return sum
}

// Syncs is how many syncs of files of type t succeeded.
func (d *Disk) Syncs(t storage.FileType) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs[t]
}

// Files lists the files of the given types, or'ed, by type and number.
func (d *Disk) Files(t storage.FileType) []storage.FileDesc {
	d.mu.Lock()
	defer d.mu.Unlock()
	var fds []storage.FileDesc
	for fd := range d.dir {
		if fd.Type&t != 0 {
			fds = append(fds, fd)
		}
	}
	slices.SortFunc(fds, compareFiles)
	return fds
}

// Change applies fn to the bytes of a file, on stable storage too, as rot does: fn may modify and shorten them. A
// missing file is an error.
func (d *Disk) Change(fd storage.FileDesc, fn func(data []byte) []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.dir[fd]
	if !ok {
		return fmt.Errorf("change %v: %w", fd, os.ErrNotExist)
	}
	f.data = fn(f.data)
	f.synced = min(f.synced, len(f.data))
	return nil
}

// Flip inverts one bit of a file.
func (d *Disk) Flip(fd storage.FileDesc, offset int, bit uint) error {
	return d.Change(fd, func(data []byte) []byte {
		data[offset] ^= 1 << (bit % 8)
		return data
	})
}

// Delete removes a file, on stable storage too.
func (d *Disk) Delete(fd storage.FileDesc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dir, fd)
	delete(d.stable, fd)
}

// Clone copies the visible state, as if all was synced, without faults: a disk to damage while keeping the original.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := NewDisk()
	for fd, f := range d.dir {
		c.dir[fd] = &file{data: slices.Clone(f.data), synced: len(f.data)}
	}
	c.stable = maps.Clone(c.dir)
	c.meta = d.meta
	return c
}

// room returns how many of n bytes may still be written, and ENOSPC if not all.
func (d *Disk) roomLocked(n int) (int, error) {
	if d.capacity <= 0 {
		return n, nil
	}
	if free := max(0, d.capacity-d.usedLocked()); free < int64(n) {
		return int(free), syscall.ENOSPC
	}
	return n, nil
}
