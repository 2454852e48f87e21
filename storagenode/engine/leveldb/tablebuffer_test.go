package leveldb

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// shyWriter fails once it has taken a number of bytes.
type shyWriter struct {
	bytes.Buffer
	limit int
}

var errShy = errors.New("no room")

func (w *shyWriter) Write(p []byte) (int, error) {
	if w.Len()+len(p) > w.limit {
		return 0, errShy
	}
	return w.Buffer.Write(p)
}

// A table's bytes arrive whole and in order, in few writes, whatever the sizes of the blocks, and from buffers that others
// used before.
func TestTableBuffer(t *testing.T) {
	rng, tables := rand.New(rand.NewPCG(1, 1)), 200
	if testing.Short() {
		tables = 30
	}
	for range tables {
		b, to := newTableBuffer(), &shyWriter{limit: 1 << 30}
		if b.used != 0 || b.failed != nil {
			t.Fatal("a buffer comes with what another table left")
		}
		var want []byte
		for range 1 + rng.IntN(60) {
			block := make([]byte, rng.IntN(rng.IntN(2*tableBufferSize)+1))
			for i := range block {
				block[i] = byte(rng.Uint32())
			}
			want = append(want, block...)
			if n, err := b.write(to, block); n != len(block) || err != nil {
				t.Fatalf("%d of %d bytes, %v", n, len(block), err)
			}
			clear(block) // the writer may use it again
		}
		if err := b.flush(to); err != nil || !bytes.Equal(to.Bytes(), want) {
			t.Fatalf("%d bytes arrived of %d, %v", to.Len(), len(want), err)
		}
		if _, err := b.write(to, []byte("left over")); err != nil {
			t.Fatal(err)
		}
		b.release()
	}
}

// Nothing is written behind a failure, and whoever syncs learns of it.
func TestTableBufferFails(t *testing.T) {
	b, to := newTableBuffer(), &shyWriter{limit: tableBufferSize}
	defer b.release()
	block := make([]byte, tableBufferSize/2+1)
	for i, want := range []error{nil, nil, errShy, errShy} {
		if _, err := b.write(to, block); !errors.Is(err, want) {
			t.Fatalf("block %d: %v, want %v", i, err, want)
		}
	}
	to.limit *= 10
	if err := b.flush(to); !errors.Is(err, errShy) || to.Len() != len(block) {
		t.Fatalf("%d bytes, %v", to.Len(), err)
	}
}
