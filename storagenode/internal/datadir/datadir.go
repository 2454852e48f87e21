// Package datadir owns a node's data directory: one process at a time, one identity for ever.
package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	lockFile     = "lock"
	identityFile = "identity"
	engineFolder = "data"
	heldFile     = "held-data"
)

// ErrLocked means that another process uses the directory.
var ErrLocked = errors.New("data directory is in use by another process")

// ErrNoIdentity means that the directory holds data but not the name of the node it belongs to: whose it is cannot be
// told, and a made-up identity would answer for writes it never saw.
var ErrNoIdentity = errors.New("data directory holds data but no identity file")

// Dir is a locked data directory. It belongs to one owner until Close.
type Dir struct {
	path     string
	identity Identity
	lock     *os.File
	held     bool
}

// Open creates the directory where it is missing, locks it against other processes, and reads its identity, or draws
// one from rand and stores it durably in a directory that holds no data yet.
func Open(path string, rand io.Reader, now time.Time) (*Dir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := takeLock(filepath.Join(path, lockFile))
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock}
	if d.identity, err = readOrCreate(path, rand, now); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	switch _, err := os.Stat(filepath.Join(path, heldFile)); {
	case err == nil:
		d.held = true
	case !errors.Is(err, fs.ErrNotExist):
		return nil, errors.Join(fmt.Errorf("look for data: %w", err), lock.Close())
	}
	return d, nil
}

// takeLock holds an advisory lock that the system drops when the process ends, however it ends.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrLocked, filepath.Dir(path)), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	return f, nil
}

func readOrCreate(path string, rand io.Reader, now time.Time) (Identity, error) {
	name := filepath.Join(path, identityFile)
	b, err := os.ReadFile(name)
	if err == nil {
		id, err := DecodeIdentity(b)
		if err != nil {
			return Identity{}, fmt.Errorf("read %s: %w", name, err)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	left, err := os.ReadDir(filepath.Join(path, engineFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("look for data: %w", err)
	}
	if len(left) > 0 {
		return Identity{}, fmt.Errorf("%w: %s", ErrNoIdentity, path)
	}
	id := Identity{Created: now.UTC().Truncate(time.Second)}
	if id.Node, err = ring.NewNodeID(rand); err != nil {
		return Identity{}, err
	}
	if err := writeDurably(path, identityFile, id.Encode()); err != nil {
		return Identity{}, fmt.Errorf("write identity: %w", err)
	}
	return id, nil
}

// writeDurably makes name appear in dir with all of b, or not at all, also through a power cut.
func writeDurably(dir, name string, b []byte) (err error) {
	temp := filepath.Join(dir, name+".tmp")
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("create temporary file: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, name)); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir)) // the directory itself may be as new as the file
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Identity returns what the directory says of its node.
func (d *Dir) Identity() Identity { return d.identity }

// EnginePath is the folder that belongs to the storage engine.
func (d *Dir) EnginePath() string { return filepath.Join(d.path, engineFolder) }

// HeldData says that the engine was opened here before, so that an empty one has lost what it had.
func (d *Dir) HeldData() bool { return d.held }

// MarkHeldData makes HeldData true for all later openings, durably.
func (d *Dir) MarkHeldData() error {
	if d.held {
		return nil
	}
	if err := writeDurably(d.path, heldFile, []byte("1\n")); err != nil {
		return fmt.Errorf("note that there is data: %w", err)
	}
	d.held = true
	return nil
}

// Close gives the directory free. Further calls do nothing.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	err := d.lock.Close()
	d.lock = nil
	if err != nil {
		return fmt.Errorf("release data directory: %w", err)
	}
	return nil
}
