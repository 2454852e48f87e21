package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/ringsvc/ring"
)

var errZeroCluster = errors.New("random source gave only zeroes")

// ClusterID draws the id of a new cluster. Its first 12 bytes are random; the last 4 are a hash of the label, by which a
// node that was pointed at the wrong cluster notices.
func ClusterID(rand io.Reader, label string) (ring.ClusterID, error) {
	var id ring.ClusterID
	if _, err := io.ReadFull(rand, id[:12]); err != nil {
		return id, fmt.Errorf("draw cluster id: %w", err)
	}
	if id.IsZero() {
		return id, errZeroCluster
	}
	binary.BigEndian.PutUint32(id[12:], labelHash(label))
	return id, nil
}

// LabelMatches says whether a cluster may be the one with this label.
func LabelMatches(id ring.ClusterID, label string) bool {
	return binary.BigEndian.Uint32(id[12:]) == labelHash(label)
}

func labelHash(label string) uint32 { return uint32(xxh3.HashString(label) >> 32) }
