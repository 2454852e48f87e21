package witness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/kv"
)

// metaName is where a node keeps what others told it.
const metaName = "witness/positions"

const (
	memoryVersion = 1
	entryLen      = 16 + 16 + 8
)

// memory is how far other nodes' disks had come. It is written as a version byte and, in the order of the ids, for each node
// its id (16 bytes), the line (16 bytes) and the number (8 bytes, big-endian).
type memory map[ring.NodeID]kv.Position

func (m memory) encode() []byte {
	ids := make([]ring.NodeID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, ring.NodeID.Compare)
	b := make([]byte, 0, 1+entryLen*len(ids))
	b = append(b, memoryVersion)
	for _, id := range ids {
		p := m[id]
		b = append(append(b, id[:]...), p.Line[:]...)
		b = binary.BigEndian.AppendUint64(b, p.Number)
	}
	return b
}

func decodeMemory(b []byte) (memory, error) {
	if len(b) == 0 || b[0] != memoryVersion || (len(b)-1)%entryLen != 0 {
		return nil, fmt.Errorf("positions of other nodes: %d bytes that are none", len(b))
	}
	m := make(memory)
	var last ring.NodeID
	for b = b[1:]; len(b) > 0; b = b[entryLen:] {
		id := ring.NodeID(b[:16])
		p := kv.Position{Line: kv.LineID(b[16:32]), Number: binary.BigEndian.Uint64(b[32:])}
		if len(m) > 0 && id.Compare(last) <= 0 || p.Number == 0 {
			return nil, errors.New("positions of other nodes: out of order, or empty")
		}
		m[id], last = p, id
	}
	return m, nil
}

// load reads what was kept. What cannot be read is forgotten: others remember too.
func load(store Store, log zerolog.Logger) (memory, error) {
	b, err := store.GetMeta(metaName)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return make(memory), nil
	case errors.Is(err, engine.ErrDamaged):
	case err != nil:
		return nil, fmt.Errorf("read what is remembered of other nodes: %w", err)
	default:
		var m memory
		if m, err = decodeMemory(b); err == nil {
			return m, nil
		}
	}
	log.Error().Err(err).Msg("what was remembered of other nodes' disks is unreadable, and forgotten")
	return make(memory), nil
}

func encode(p kv.Position) *storagev1.DiskPosition {
	if p.Number == 0 {
		return nil
	}
	return &storagev1.DiskPosition{Line: p.Line[:], Number: p.Number}
}

// decode reads a position, of which none at all is the zero Position.
func decode(p *storagev1.DiskPosition) (kv.Position, error) {
	if p == nil {
		return kv.Position{}, nil
	}
	if len(p.GetLine()) != 16 || p.GetNumber() == 0 {
		return kv.Position{}, errors.New("a position has a line of 16 bytes, and a number")
	}
	return kv.Position{Line: kv.LineID(p.GetLine()), Number: p.GetNumber()}, nil
}
