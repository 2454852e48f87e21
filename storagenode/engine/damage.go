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
