package wire

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	minPooledBits = 10 // 1 KiB
	maxPooledBits = 20 // 1 MiB
)

// pool keeps buffers of powers of two. Unlike gRPC's own it does not clear a buffer that is taken, so whoever takes one
// must write all of it, as a marshalled frame and a read from a socket do; and it has all powers of two, where gRPC's
// jumps from 32 KiB to 1 MiB, which it clears for each frame between. Safe for concurrent use.
type pool struct {
	sizes [maxPooledBits - minPooledBits + 1]sync.Pool // of *[]byte
}

// NewPool returns a pool for what frames arrive in: give it to gRPC with experimental.WithBufferPool or
// experimental.BufferPool.
func NewPool() mem.BufferPool { return new(pool) }

// Get returns a buffer of length bytes with arbitrary content.
func (p *pool) Get(length int) *[]byte {
	class := max(bits.Len(uint(max(length, 1)-1)), minPooledBits)
	if class > maxPooledBits {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.sizes[class-minPooledBits].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, 1<<class)
	return &b
}

// Put takes a buffer back, which the caller must not use any more. One that Get would not have made is left to the
// garbage collector.
func (p *pool) Put(b *[]byte) {
	size := cap(*b)
	if size < 1<<minPooledBits || size > 1<<maxPooledBits || size&(size-1) != 0 {
		return
	}
	p.sizes[bits.Len(uint(size))-1-minPooledBits].Put(b)
}
