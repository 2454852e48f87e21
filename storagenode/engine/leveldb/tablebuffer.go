package leveldb

import (
	"io"
	"sync"
)

// tableBufferSize is how much of a table is gathered before it is written. The library writes each block of 4 KiB by
// itself, and a system call costs more than the copy.
const tableBufferSize = 64 * kib

var tableBuffers = sync.Pool{New: func() any { return new(tableBuffer) }}

// tableBuffer gathers small writes to one file. A table counts for nothing before it was synced, so that what a crash or a
// failure leaves of it makes no difference. Not safe for concurrent use: a table has one writer.
type tableBuffer struct {
	used   int
	failed error // the first failure: nothing is written behind it
	bytes  [tableBufferSize]byte
}

func newTableBuffer() *tableBuffer { return tableBuffers.Get().(*tableBuffer) }

// release gives the buffer to whoever takes the next; it must not be used any more.
func (b *tableBuffer) release() {
	b.used, b.failed = 0, nil
	tableBuffers.Put(b)
}

// write takes p. A failure may be that of what was taken before.
func (b *tableBuffer) write(to io.Writer, p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	if len(p) > len(b.bytes)-b.used {
		if err := b.flush(to); err != nil {
			return 0, err
		}
	}
	if len(p) >= len(b.bytes) {
		n, err := to.Write(p)
		b.failed = err
		return n, err
	}
	b.used += copy(b.bytes[b.used:], p)
	return len(p), nil
}

// flush writes what was taken.
func (b *tableBuffer) flush(to io.Writer) error {
	if b.failed != nil || b.used == 0 {
		return b.failed
	}
	n, err := to.Write(b.bytes[:b.used])
	if err == nil && n < b.used {
		err = io.ErrShortWrite
	}
	b.used, b.failed = 0, err
	return err
}
