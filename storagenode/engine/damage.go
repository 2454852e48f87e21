package engine

import "fmt"

// KeyRange is the keys From <= key <= To; a nil To has no end.
type KeyRange struct{ From, To []byte }

// Salvager is what an engine can be besides: one that goes on without what is damaged in it.
type Salvager interface {
	// Salvage closes the engine, as Close does, and takes out of its files what cannot be read of the places where damage
	// was met. Of the keys in lost the newest version may be gone, and what is read of them afterwards an older one, or
	// one that was deleted. Where nothing is lost nothing was changed. After an error the files are as they were.
	Salvage() (lost []KeyRange, err error)
}

// Damage says where stored data is damaged. It wraps ErrDamaged and the cause.
type Damage struct {
	// File names the damaged file inside the engine's directory; empty if unknown.
	File string
	// From and To bound the keys that may be affected: From <= key <= To, both inclusive. They are set only if
	// Bounded; otherwise any key may be affected.
	From, To []byte
	Bounded  bool
	// Err is the engine's own error.
	Err error
}

// Error names the file and the cause.
func (d *Damage) Error() string {
	switch {
	case d.File != "" && d.Bounded:
		return fmt.Sprintf("%v: %s, keys %x to %x: %v", ErrDamaged, d.File, d.From, d.To, d.Err)
	case d.File != "":
		return fmt.Sprintf("%v: %s: %v", ErrDamaged, d.File, d.Err)
	default:
		return fmt.Sprintf("%v: %v", ErrDamaged, d.Err)
	}
}

// Unwrap makes errors.Is find ErrDamaged and the cause.
func (d *Damage) Unwrap() []error { return []error{ErrDamaged, d.Err} }

// Table is a file of an engine that is never changed, only replaced by others.
type Table struct {
	// Number names it, and grows with each that is made in one directory.
	Number uint64
	Size   int64 // bytes
}

// Verifier is what an engine can be besides: one whose tables can be read again, to find damage that no read has met.
type Verifier interface {
	// Tables lists the tables that the engine is made of now, by number.
	Tables() ([]Table, error)

	// VerifyTable reads a table from its disk, past all caches, checks it, and calls fn with what it holds: all that was
	// ever written for a key and is still there, the latest first; k and v are valid only until fn returns. It calls pace
	// before it reads so many bytes. Errors: ErrDamaged, as of a read that met it, after all was read that can be;
	// those of pace and fn as they are; ErrClosed; or a transient failure. A table that is gone meanwhile is no error.
	VerifyTable(t Table, pace func(bytes int) error, fn func(k, v []byte) error) error
}
