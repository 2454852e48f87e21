package engine

import "encoding/binary"

// recordOverhead is what one record is counted for besides its key and value: LevelDB keeps 8 bytes of sequence number
// and kind with each key, and a log adds a kind byte and two lengths.
const recordOverhead = 16

// Kinds of record in the encoding of a batch.
const (
	kindDelete = 0
	kindPut    = 1
)

// Batch is an ordered list of writes that an engine applies as one. The zero value is empty and ready. A batch may be
// used again after Reset, which keeps its memory. It is not safe for concurrent use.
//
// Records are kept encoded one after the other: a kind byte (1 put, 0 delete), the key's length as uvarint, the key,
// and for a put the value's length as uvarint and the value. This is the body of a LevelDB log record, so that the
// LevelDB engine takes it without a copy.
type Batch struct {
	buf  []byte
	n    int
	size int
}

// Put sets key to value. Both are copied; the value may be empty.
func (b *Batch) Put(key, value []byte) {
	b.buf = append(b.buf, kindPut)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(key)))
	b.buf = append(b.buf, key...)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(value)))
	b.buf = append(b.buf, value...)
	b.n++
	b.size += len(key) + len(value) + recordOverhead
}

// Delete removes key, which is copied and need not exist.
func (b *Batch) Delete(key []byte) {
	b.buf = append(b.buf, kindDelete)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(key)))
	b.buf = append(b.buf, key...)
	b.n++
	b.size += len(key) + recordOverhead
}

// Append adds the records of o after those of b, copying them.
func (b *Batch) Append(o *Batch) {
	b.buf = append(b.buf, o.buf...)
	b.n += o.n
	b.size += o.size
}

// Len is the number of records.
func (b *Batch) Len() int { return b.n }

// Size is what the batch counts for against [Engine.MaxBatch], in bytes: keys, values and 16 for each record.
func (b *Batch) Size() int { return b.size }

// Payload is the sum of the lengths of keys and values, in bytes.
func (b *Batch) Payload() int { return b.size - b.n*recordOverhead }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.buf, b.n, b.size = b.buf[:0], 0, 0 }

// Encoded returns the records in the encoding described at [Batch]. It is valid until the next change of the batch and
// must not be modified.
func (b *Batch) Encoded() []byte { return b.buf }

// Each calls fn for each record in order; value is nil for a deletion, and not nil for a put. The slices alias the
// batch and must not be modified.
func (b *Batch) Each(fn func(key, value []byte)) {
	for p := b.buf; len(p) > 0; {
		kind := p[0]
		var key, value []byte
		key, p = cut(p[1:])
		if kind == kindPut {
			value, p = cut(p)
		}
		fn(key, value)
	}
}

// cut splits a length-prefixed string off p. The batch wrote p itself, so it is well-formed. The result is not nil.
func cut(p []byte) (s, rest []byte) {
	n, w := binary.Uvarint(p)
	end := w + int(n)
	return p[w:end:end], p[end:]
}
