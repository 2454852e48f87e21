// Package workload chooses operations, keys and values: the YCSB core workloads by their published definitions (Cooper
// et al., Benchmarking Cloud Serving Systems with YCSB, SoCC 2010, and the CoreWorkload class), and plain mixes.
package workload

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Op is what a client does once.
type Op uint8

// The operations. An update writes a record that exists, an insert one that does not; a read-modify-write reads a record
// and writes it with the context of the read. A HotRead reads record 0, whatever the distribution.
const (
	Read Op = iota
	Update
	Insert
	ReadModifyWrite
	HotRead
	Ops // how many there are
)

// String is "get", "put", "insert", "rmw" or "hot-get".
func (o Op) String() string {
	return [...]string{"get", "put", "insert", "rmw", "hot-get"}[o]
}

// Distribution says which records are asked for.
type Distribution uint8

const (
	// Uniform: each record alike.
	Uniform Distribution = iota
	// Zipfian: the record of rank n in proportion to n to the power of -0.99, ranks scattered over the records by a
	// hash.
	Zipfian
	// Latest: zipfian by age, the newest record most often.
	Latest
	// Steep: the record of rank n in proportion to n to the power of -1.2, ranks scattered as those of Zipfian. The first takes
	// a sixth of all.
	Steep
)

// String is "uniform", "zipfian", "latest" or "steep".
func (d Distribution) String() string {
	return [...]string{"uniform", "zipfian", "latest", "steep"}[d]
}

// ParseDistribution is the inverse of String.
func ParseDistribution(s string) (Distribution, error) {
	for d := Uniform; d <= Steep; d++ {
		if s == d.String() {
			return d, nil
		}
	}
	return 0, fmt.Errorf("distribution %q: known are uniform, zipfian, latest and steep", s)
}

// Mix is the share of each operation; they add up to 1.
type Mix [Ops]float64

// Bounds of a Spec.
const (
	MaxKeySize   = 250
	MaxValueSize = 1 << 20
	MaxRecords   = 1 << 32
	// minKeySize leaves room for the prefix and a number of 64 bits.
	minKeySize = 8
)

// Spec describes a workload. It is a plain value.
type Spec struct {
	// Name is for reports.
	Name string
	Mix  Mix
	// Distribution of the keys that are read, updated and read-modify-written. Inserts take the next number.
	Distribution Distribution
	// Records is how many records are loaded before the run, 1 to MaxRecords.
	Records uint64
	// KeySize is the length of every key in bytes, 8 to MaxKeySize.
	KeySize int
	// ValueSize is the length of every value in bytes, 0 to MaxValueSize: for YCSB, fields times their size. To a store
	// of opaque values a record is one value, and every write writes all of it.
	ValueSize int
}

// Validate reports every fault at once.
func (s Spec) Validate() error {
	var faults []error
	sum := 0.0
	for op, share := range s.Mix {
		sum += share
		if !(share >= 0 && share <= 1) {
			faults = append(faults, fmt.Errorf("share of %s: %v is not between 0 and 1", Op(op), share))
		}
	}
	if !(math.Abs(sum-1) <= 1e-9) { // also where it is not a number
		faults = append(faults, fmt.Errorf("shares of the operations add up to %v, not to 1", sum))
	}
	if s.Distribution > Steep {
		faults = append(faults, fmt.Errorf("distribution %d is not known", s.Distribution))
	}
	if s.Records < 1 || s.Records > MaxRecords {
		faults = append(faults, fmt.Errorf("records: %d is not between 1 and %d", s.Records, uint64(MaxRecords)))
	}
	if s.KeySize < minKeySize || s.KeySize > MaxKeySize {
		faults = append(faults, fmt.Errorf("key size: %d is not between %d and %d", s.KeySize, minKeySize, MaxKeySize))
	}
	if s.ValueSize < 0 || s.ValueSize > MaxValueSize {
		faults = append(faults, fmt.Errorf("value size: %d is not between 0 and %d", s.ValueSize, MaxValueSize))
	}
	if digits := s.KeySize - len(keyPrefix); digits > 0 && digits < 20 && math.Pow10(digits) < float64(s.Records)*2 {
		faults = append(faults, fmt.Errorf("key size: %d leaves %d digits, too few for %d records", s.KeySize, digits, s.Records))
	}
	return errors.Join(faults...)
}

// ErrUnknown means that a workload's name is not known.
var ErrUnknown = errors.New("unknown workload")

// YCSB returns the mix and the distribution of a core workload: a (50 % reads, 50 % updates), b (95, 5), c (reads
// alone), d (95 % reads of the latest, 5 % inserts), f (50 % reads, 50 % read-modify-writes); all but d zipfian.
// Workload e needs ordered scans, which a hashed store has not. Errors: ErrUnknown.
func YCSB(letter string) (Mix, Distribution, error) {
	switch strings.ToLower(letter) {
	case "a":
		return Mix{Read: 0.5, Update: 0.5}, Zipfian, nil
	case "b":
		return Mix{Read: 0.95, Update: 0.05}, Zipfian, nil
	case "c":
		return Mix{Read: 1}, Zipfian, nil
	case "d":
		return Mix{Read: 0.95, Insert: 0.05}, Latest, nil
	case "f":
		return Mix{Read: 0.5, ReadModifyWrite: 0.5}, Zipfian, nil
	}
	return Mix{}, 0, fmt.Errorf("%w %q: known are a, b, c, d and f", ErrUnknown, letter)
}

// Plain returns gets and puts alone: gets is the share of gets, 0 to 1.
func Plain(gets float64) Mix { return Mix{Read: gets, Update: 1 - gets} }

// keyPrefix begins every key, so that what a run leaves behind can be told.
const keyPrefix = "user"

// AppendKey appends the key of record n, size bytes long: the prefix and, as YCSB's hashed insertion order has it, the
// FNV hash of the number in decimal, padded with zeros on the left and where need be cut to its last digits. Where
// fewer than 20 digits fit, the number itself is written, since cut hashes would collide.
func AppendKey(dst []byte, n uint64, size int) []byte {
	digits := size - len(keyPrefix)
	if digits >= 20 {
		n = fnv64(n)
	}
	at := len(dst) + len(keyPrefix)
	dst = append(dst, keyPrefix...)
	for range digits {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; i >= at && n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// fnv64 hashes the eight bytes of n with FNV-1a, lowest first, as YCSB's Utils.fnvhash64 does, sign removed.
func fnv64(n uint64) uint64 {
	const offset, prime = 0xCBF29CE484222325, 1099511628211
	h := uint64(offset)
	for range 8 {
		h ^= n & 0xff
		h *= prime
		n >>= 8
	}
	if int64(h) < 0 {
		h = -h
	}
	return h
}
