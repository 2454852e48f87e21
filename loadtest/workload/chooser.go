package workload

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
)

// Step is one operation on one record.
type Step struct {
	Op     Op
	Record uint64
}

// Shared is what the choosers of one run have in common: the records that exist. Safe for concurrent use.
type Shared struct {
	spec   Spec
	latest zipf // over the records that were loaded; choosers copy it

	mu   sync.Mutex
	next uint64
	// known is how many records, from 0 on without a gap, exist; done holds those beyond a gap.
	known uint64
	done  map[uint64]struct{}
}

// NewShared prepares a run. For Latest it takes one power for each record.
func NewShared(spec Spec) (*Shared, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	s := &Shared{spec: spec, next: spec.Records, known: spec.Records, done: map[uint64]struct{}{}}
	if spec.Distribution == Latest {
		s.latest = newZipf(spec.Records, zetaBetween(0, spec.Records))
	}
	return s, nil
}

// Spec is the workload.
func (s *Shared) Spec() Spec { return s.spec }

// take names the record of the next insert.
func (s *Shared) take() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return s.next - 1
}

// Inserted must be called when an insert has ended, whatever came of it: only then do others ask for the record, and
// for those after it.
func (s *Shared) Inserted(record uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[record] = struct{}{}
	for {
		if _, ok := s.done[s.known]; !ok {
			return
		}
		delete(s.done, s.known)
		s.known++
	}
}

// Known is how many records exist.
func (s *Shared) Known() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// Chooser draws steps. Each worker has its own; not safe for concurrent use.
type Chooser struct {
	shared  *Shared
	rng     *rand.Rand
	scatter zipf
	latest  zipf
	steep   *rand.Zipf // nil for other distributions
}

// steepness is the exponent of Steep.
const steepness = 1.2

// NewChooser returns a chooser that draws from rng, which it owns from then on.
func NewChooser(shared *Shared, rng *rand.Rand) *Chooser {
	c := &Chooser{shared: shared, rng: rng, scatter: newZipf(scatterItems, scatterZeta), latest: shared.latest}
	if spec := shared.Spec(); spec.Distribution == Steep {
		c.steep = rand.NewZipf(rng, steepness, 1, spec.Records-1)
	}
	return c
}

// Next draws a step. After an Insert the caller must call Inserted with its record.
func (c *Chooser) Next() Step {
	op := c.op()
	switch op {
	case Insert:
		return Step{op, c.shared.take()}
	case HotRead:
		return Step{op, 0}
	}
	return Step{op, c.record()}
}

func (c *Chooser) op() Op {
	u := c.rng.Float64()
	last := Read
	for op := Read; op < Ops; op++ {
		share := c.shared.spec.Mix[op]
		if share == 0 {
			continue
		}
		if u < share {
			return op
		}
		u -= share
		last = op
	}
	return last // the shares' sum was a hair below 1
}

func (c *Chooser) record() uint64 {
	switch c.shared.spec.Distribution {
	case Zipfian:
		return fnv64(c.scatter.next(c.rng)) % c.records()
	case Steep:
		return fnv64(c.steep.Uint64()) % c.records()
	case Latest:
		known := c.records()
		c.latest.grow(known)
		return known - 1 - c.latest.next(c.rng)
	default:
		return c.rng.Uint64N(c.records())
	}
}

// records is how many exist; where nothing is inserted it needs no lock.
func (c *Chooser) records() uint64 {
	if c.shared.spec.Mix[Insert] == 0 {
		return c.shared.spec.Records
	}
	return c.shared.Known()
}

// Values makes values that do not compress, nor resemble one another: splitmix64 (Steele et al., 2014), which fills a
// buffer several times faster than a cryptographic source, so that the generator's share of the machine stays small. Not
// safe for concurrent use.
type Values struct {
	state uint64
	buf   []byte // whole words
	size  int
}

// NewValues returns a maker of values of size bytes. Different seeds give different values.
func NewValues(seed uint64, size int) *Values {
	return &Values{state: seed, buf: make([]byte, (size+7)/8*8), size: size}
}

// Next fills a buffer that is valid until the next call.
func (v *Values) Next() []byte {
	for b := v.buf; len(b) > 0; b = b[8:] {
		v.state += 0x9E3779B97F4A7C15
		z := v.state
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		binary.LittleEndian.PutUint64(b, z^z>>31)
	}
	return v.buf[:v.size]
}
