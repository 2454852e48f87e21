package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"
)

const (
	// pulseUnit is the resolution of heartbeat numbers; the low pulseBits count it, for 21 years.
	pulseUnit = 10 * time.Millisecond
	pulseBits = 36

	// heardEvery is the least time between two numbers that are remembered, heardMax how many are: about two minutes.
	heardEvery = 100 * time.Millisecond
	heardMax   = 1200
)

// Pulse numbers a node's heartbeats in one life: the number tells when it was sent, on the node's own clock. A record
// that comes with the last number its sender had heard when it took the record in hands is at most as old as that number.
type Pulse struct {
	life  uint64
	start time.Time
}

// NewPulse begins a life. The numbers of two lives do not overlap, but by an accident of 27 random bits.
func NewPulse(rand io.Reader, now time.Time) (Pulse, error) {
	var b [8]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return Pulse{}, fmt.Errorf("wire: drawing a life: %w", err)
	}
	return Pulse{life: binary.BigEndian.Uint64(b[:])>>pulseBits<<pulseBits | 1<<63, start: now}, nil
}

// Number is the heartbeat number of a moment, never 0.
func (p Pulse) Number(now time.Time) uint64 {
	return p.life | uint64(max(now.Sub(p.start), 0)/pulseUnit)&(1<<pulseBits-1)
}

// Born returns the first moment at which number was sent; false where it is of another life.
func (p Pulse) Born(number uint64) (time.Time, bool) {
	if number>>pulseBits != p.life>>pulseBits {
		return time.Time{}, false
	}
	return p.start.Add(time.Duration(number&(1<<pulseBits-1)) * pulseUnit), true
}

// Heard remembers which heartbeat numbers of one peer came when. The zero value has heard nothing. Safe for concurrent use.
type Heard struct {
	mu      sync.Mutex
	numbers []heard // oldest first
}

type heard struct {
	at     time.Time
	number uint64
}

// Add takes note of a number that came now.
func (h *Heard) Add(now time.Time, number uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.numbers); n > 0 && now.Sub(h.numbers[n-1].at) < heardEvery && h.numbers[n-1].number>>pulseBits == number>>pulseBits {
		return
	}
	if len(h.numbers) >= heardMax {
		h.numbers = append(h.numbers[:0], h.numbers[heardMax/2:]...)
	}
	h.numbers = append(h.numbers, heard{now, number})
}

// By is the last number that had come at a moment, 0 where none had that is remembered.
func (h *Heard) By(at time.Time) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.numbers)
	if n > 0 && !at.Before(h.numbers[n-1].at) {
		return h.numbers[n-1].number
	}
	i := sort.Search(n, func(i int) bool { return h.numbers[i].at.After(at) })
	if i == 0 {
		return 0
	}
	return h.numbers[i-1].number
}
