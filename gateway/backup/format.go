// Package backup is the form of backups: files of what each node held at one moment, whether they hold everything that was
// acknowledged, and one record for each key out of its copies.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/dotring/dotring/ringsvc/record"
)

// ErrDamaged says that the bytes are not those of a whole backup file: changed, cut short, or of something else.
var ErrDamaged = errors.New("backup: damaged or cut short")

// The parts of what a node holds.
const (
	// Hints are what the node keeps for others.
	Hints = "hints"
	// Records are its own, by hash and key.
	Records = "records"
)

const (
	magic      = "dotring-backup\x01" // the last byte is the version
	blockHead  = 'H'
	blockKeys  = 'R'
	blockEnd   = 'E'
	prefixLen  = 1 + 4
	blockBytes = 256 << 10 // a block is written at this size
	blockMax   = 16 << 20  // and never read beyond this one
	keyMax     = 250
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Head says what a file holds.
type Head struct {
	Cluster string    `json:"cluster"` // 32 hexadecimal digits
	Node    string    `json:"node"`    // 32 hexadecimal digits
	Name    string    `json:"name"`
	Part    string    `json:"part"`   // Hints or Records
	Layout  string    `json:"layout"` // the settled one that the node knew
	Taken   time.Time `json:"taken"`  // on the gateway's clock, for people
	// GraceMS is the node's --tombstone-grace, in milliseconds.
	GraceMS uint64 `json:"grace_ms"`
}

// Writer writes one file. It is for one goroutine.
type Writer struct {
	w     io.Writer
	sum   hash.Hash
	block []byte // type, length and payload
	count uint64
}

// NewWriter writes the head.
func NewWriter(w io.Writer, head Head) (*Writer, error) {
	out := &Writer{sum: sha256.New()}
	out.w = io.MultiWriter(w, out.sum)
	text, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	if _, err := io.WriteString(out.w, magic); err != nil {
		return nil, err
	}
	return out, out.put(blockHead, text)
}

// put writes one block.
func (w *Writer) put(kind byte, payload []byte) error {
	b := append(w.block[:0], kind, 0, 0, 0, 0)
	b = append(b, payload...)
	return w.seal(b)
}

func (w *Writer) seal(b []byte) error {
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-prefixLen))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err := w.w.Write(b)
	w.block = b[:0]
	return err
}

// Add writes a record; what it is given is not kept.
func (w *Writer) Add(key, rec []byte) error {
	if len(w.block) == 0 {
		w.block = append(w.block, blockKeys, 0, 0, 0, 0)
	}
	w.block = binary.AppendUvarint(w.block, uint64(len(key)))
	w.block = append(w.block, key...)
	w.block = binary.AppendUvarint(w.block, uint64(len(rec)))
	w.block = append(w.block, rec...)
	w.count++
	if len(w.block) >= blockBytes {
		return w.seal(w.block)
	}
	return nil
}

// Pending is how many bytes of records are not written yet.
func (w *Writer) Pending() int { return len(w.block) }

// End writes what is left and the end, without which a file is not whole. It closes nothing.
func (w *Writer) End() error {
	if len(w.block) > 0 {
		if err := w.seal(w.block); err != nil {
			return err
		}
	}
	end := binary.BigEndian.AppendUint64(nil, w.count)
	return w.put(blockEnd, w.sum.Sum(end))
}

// Reader reads one file. It is for one goroutine.
type Reader struct {
	r     *bufio.Reader
	sum   hash.Hash
	head  Head
	block []byte // the one being read
	rest  []byte // of its payload
	count uint64
	ended bool
}

// NewReader reads the head. Errors wrap ErrDamaged, or are those of r.
func NewReader(r io.Reader) (*Reader, error) {
	in := &Reader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	start := make([]byte, len(magic))
	if err := in.fill(start); err != nil {
		return nil, err
	}
	if string(start) != magic {
		return nil, fmt.Errorf("%w: it does not begin as a backup of version 1 does", ErrDamaged)
	}
	in.sum.Write(start)
	kind, payload, err := in.next()
	if err != nil {
		return nil, err
	}
	if kind != blockHead {
		return nil, fmt.Errorf("%w: it has no head", ErrDamaged)
	}
	if err := json.Unmarshal(payload, &in.head); err != nil {
		return nil, fmt.Errorf("%w: head: %w", ErrDamaged, err)
	}
	return in, nil
}

// Head is what the file says of itself.
func (r *Reader) Head() Head { return r.head }

// Count is how many records were read.
func (r *Reader) Count() uint64 { return r.count }

func (r *Reader) fill(b []byte) error {
	switch _, err := io.ReadFull(r.r, b); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it has no end", ErrDamaged)
	default:
		return err
	}
}

// next reads one block; its payload is valid until the next call.
func (r *Reader) next() (kind byte, payload []byte, err error) {
	var prefix [prefixLen]byte
	if err := r.fill(prefix[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(prefix[1:])
	if size > blockMax {
		return 0, nil, fmt.Errorf("%w: a block of %d bytes", ErrDamaged, size)
	}
	r.block = append(r.block[:0], prefix[:]...)
	// Room is made as bytes come, so that a wrong length costs nothing.
	body := bytes.NewBuffer(r.block)
	n, err := io.CopyN(body, r.r, int64(size)+4)
	r.block = body.Bytes()
	switch {
	case errors.Is(err, io.EOF) || err == nil && n < int64(size)+4:
		return 0, nil, fmt.Errorf("%w: it has no end", ErrDamaged)
	case err != nil:
		return 0, nil, err
	}
	sealed := r.block[:len(r.block)-4]
	if crc32.Checksum(sealed, castagnoli) != binary.BigEndian.Uint32(r.block[len(sealed):]) {
		return 0, nil, fmt.Errorf("%w: a block's checksum is wrong", ErrDamaged)
	}
	if prefix[0] != blockEnd {
		r.sum.Write(r.block)
	}
	return prefix[0], sealed[prefixLen:], nil
}

// Next returns the next record, verified; both are valid until the next call. It returns io.EOF once, behind a whole file.
// Errors wrap ErrDamaged, or are those of the reader.
func (r *Reader) Next() (key, rec []byte, err error) {
	for len(r.rest) == 0 {
		if r.ended {
			return nil, nil, io.EOF
		}
		kind, payload, err := r.next()
		if err != nil {
			return nil, nil, err
		}
		switch kind {
		case blockKeys:
			r.rest = payload
		case blockEnd:
			return nil, nil, r.end(payload)
		default:
			return nil, nil, fmt.Errorf("%w: a block of kind %q", ErrDamaged, kind)
		}
	}
	if key, err = r.piece(keyMax); err != nil {
		return nil, nil, err
	}
	if rec, err = r.piece(blockMax); err != nil {
		return nil, nil, err
	}
	if len(key) == 0 {
		return nil, nil, fmt.Errorf("%w: a record without a key", ErrDamaged)
	}
	if err := record.Verify(key, rec); err != nil {
		return nil, nil, fmt.Errorf("%w: key %q: %w", ErrDamaged, key, err)
	}
	r.count++
	return key, rec, nil
}

func (r *Reader) piece(most uint64) ([]byte, error) {
	size, n := binary.Uvarint(r.rest)
	if n <= 0 || size > most || size > uint64(len(r.rest)-n) {
		return nil, fmt.Errorf("%w: a record that does not fit its block", ErrDamaged)
	}
	piece := r.rest[n : n+int(size)]
	r.rest = r.rest[n+int(size):]
	return piece, nil
}

// end checks that the file is whole and that nothing is behind it.
func (r *Reader) end(payload []byte) error {
	if len(payload) != 8+sha256.Size || binary.BigEndian.Uint64(payload) != r.count || !bytes.Equal(payload[8:], r.sum.Sum(nil)) {
		return fmt.Errorf("%w: its end does not fit what is before", ErrDamaged)
	}
	switch _, err := r.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: there is more behind its end", ErrDamaged)
	case !errors.Is(err, io.EOF):
		return err
	}
	r.ended = true
	return io.EOF
}
