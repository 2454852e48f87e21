package sim

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

var (
	errSync    = errors.New("simulated disk: the sync failed")
	errNoSpace = fmt.Errorf("simulated disk: %w", syscall.ENOSPC)
)

// disk is where a node's data lives while the node does not. It holds what was synced.
type disk struct {
	dice  dice
	place *memory.Store
	// failing lets the next write fail; half says that it reaches the disk nevertheless.
	failing, half bool
	full          bool
	// flaky is the probability that a read meets a flipped bit on its way, stored are keys whose bytes are damaged for good.
	flaky  float64
	stored [][]byte
	open   *diskEngine
	born   uint64 // drawn when the disk was empty: names the line of commit numbers that began there
	// meta is what the planted bugs keep here.
	planted plantedState
}

func newDisk(d dice) *disk { return &disk{dice: d, place: memory.NewStore(), born: d.Uint64()} }

// Open opens the engine. It is an engine.Opener.
func (d *disk) Open() (engine.Engine, error) {
	if d.full && d.dice.chance(0.2) {
		return nil, errNoSpace
	}
	e, err := d.place.Open()
	if err != nil {
		return nil, err
	}
	d.open = &diskEngine{Engine: e, disk: d}
	return d.open, nil
}

// crash loses what was not synced.
func (d *disk) crash() {
	d.place.Crash()
	d.open = nil
}

// image is all that a disk holds.
type image struct {
	keys, values [][]byte
	planted      plantedState
	born         uint64
}

// blank is an empty disk.
func (d *disk) blank() image { return image{born: d.dice.Uint64()} }

// snapshot copies the disk, for a rollback. It must not be open.
func (d *disk) snapshot() (image, error) {
	out := image{planted: d.planted, born: d.born}
	e, err := d.place.Open()
	if err != nil {
		return out, err
	}
	err = e.Iterate(nil, nil, func(k, v []byte) (bool, error) {
		out.keys, out.values = append(out.keys, slices.Clone(k)), append(out.values, slices.Clone(v))
		return true, nil
	})
	return out, errors.Join(err, e.Close())
}

// restore replaces all that the disk holds. It must not be open.
func (d *disk) restore(im image) error {
	d.place = memory.NewStore()
	d.stored, d.planted, d.born = nil, im.planted, im.born
	e, err := d.place.Open()
	if err != nil {
		return err
	}
	var b engine.Batch
	for i := range im.keys {
		b.Put(im.keys[i], im.values[i])
	}
	return errors.Join(e.Apply(&b, true), e.Close())
}

// discard removes the damaged records and says how many there were. The disk must not be open.
func (d *disk) discard() (int, error) {
	n := len(d.stored)
	if n == 0 {
		return 0, nil
	}
	e, err := d.place.Open()
	if err != nil {
		return 0, err
	}
	var b engine.Batch
	for _, k := range d.stored {
		b.Delete(k)
	}
	d.stored = nil
	return n, errors.Join(e.Apply(&b, true), e.Close())
}

// flip damages the stored bytes of a random record; false where there is none.
func (d *disk) flip() bool {
	if d.open == nil {
		return false
	}
	var keys [][]byte
	err := d.open.Engine.Iterate([]byte{'r'}, []byte{'s'}, func(k, _ []byte) (bool, error) {
		keys = append(keys, slices.Clone(k))
		return true, nil
	})
	if err != nil || len(keys) == 0 {
		return false
	}
	d.stored = append(d.stored, keys[d.dice.IntN(len(keys))])
	return true
}

// diskEngine is one opening of a disk, with its faults.
type diskEngine struct {
	engine.Engine
	disk    *disk
	latched error
}

func (e *diskEngine) Apply(b *engine.Batch, sync bool) error {
	if e.latched != nil {
		return fmt.Errorf("%w: %w", engine.ErrLatched, e.latched)
	}
	switch d := e.disk; {
	case d.full:
		e.latched = errNoSpace
	case d.failing:
		e.latched = errSync
		if d.half { // it is there, though nobody can know
			if err := e.Engine.Apply(b, sync); err != nil {
				return err
			}
		}
		d.failing = false
	default:
		return e.Engine.Apply(b, sync)
	}
	return e.latched
}

func (e *diskEngine) Sync() error {
	if e.latched != nil {
		return fmt.Errorf("%w: %w", engine.ErrLatched, e.latched)
	}
	return e.Engine.Sync()
}

func (e *diskEngine) Err() error { return e.latched }

func (e *diskEngine) Get(key, dst []byte) ([]byte, error) {
	at := len(dst)
	out, err := e.Engine.Get(key, dst)
	if err != nil || len(out) == at {
		return out, err
	}
	return out, e.damage(key, out[at:])
}

func (e *diskEngine) Iterate(from, to []byte, fn func(k, v []byte) (bool, error)) error {
	return e.Engine.Iterate(from, to, func(k, v []byte) (bool, error) {
		v = slices.Clone(v)
		if err := e.damage(k, v); err != nil {
			return false, err
		}
		return fn(k, v)
	})
}

// damage flips a bit of a record that is damaged. Sometimes the engine's own checks notice; otherwise the bytes go up.
func (e *diskEngine) damage(key, v []byte) error {
	if len(key) == 0 || key[0] != 'r' && key[0] != 'h' {
		return nil
	}
	if !e.disk.dice.chance(e.disk.flaky) && !slices.ContainsFunc(e.disk.stored, func(k []byte) bool { return string(k) == string(key) }) {
		return nil
	}
	if e.disk.dice.chance(0.3) {
		return &engine.Damage{File: "simulated", Err: errors.New("block checksum mismatch")}
	}
	v[e.disk.dice.IntN(len(v))] ^= 1 << e.disk.dice.IntN(8)
	return nil
}
