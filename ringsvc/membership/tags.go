package membership

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// ErrTagsTooLarge is returned when what a node says of itself does not fit into a gossip message. Long addresses and
// zone names are what can be shortened.
var ErrTagsTooLarge = errors.New("membership: gossip tags too large")

// ErrTags marks tags that do not describe a storage node.
var ErrTags = errors.New("membership: bad gossip tags")

// maxTags is the size in bytes that all tags together may have.
const maxTags = memberlist.MetaMaxSize

// The tags. Keys have one letter, zero values are left out, binary values are base64 without padding. Unknown tags are
// ignored, so that later versions can add some.
const (
	tagID      = "i"
	tagCluster = "c"
	tagActor   = "a"
	tagGRPC    = "g"
	tagAdmin   = "d"
	tagZone    = "z"
	tagWeight  = "w"
	tagNewest  = "n"
	tagAcked   = "k"
	tagSynced  = "s"
)

var encoding = base64.RawURLEncoding.Strict()

// encodeTags puts into tags what the local node says of itself, and checks that it fits.
func encodeTags(m Member) (map[string]string, error) {
	if math.IsNaN(m.Weight) || math.IsInf(m.Weight, 0) || m.Weight < 0 {
		return nil, fmt.Errorf("%w: weight %v is not finite and at least 0", ErrTags, m.Weight)
	}
	tags := map[string]string{tagID: encoding.EncodeToString(m.ID[:])}
	putBytes(tags, tagCluster, m.Cluster[:])
	putBytes(tags, tagActor, m.Actor[:])
	putMark(tags, tagNewest, m.Newest)
	putMark(tags, tagAcked, m.Acked)
	putMark(tags, tagSynced, m.Synced)
	putString(tags, tagGRPC, m.GRPCAddr)
	putString(tags, tagAdmin, m.AdminAddr)
	putString(tags, tagZone, m.Zone)
	if m.Weight != 0 {
		tags[tagWeight] = strconv.FormatFloat(m.Weight, 'g', -1, 64)
	}
	if size := encodedSize(tags); size > maxTags {
		return nil, fmt.Errorf("%w: %d bytes, at most %d (addresses and zone take %d)", ErrTagsTooLarge, size, maxTags,
			len(m.GRPCAddr)+len(m.AdminAddr)+len(m.Zone))
	}
	return tags, nil
}

// decodeTags reads what another node says of itself.
func decodeTags(tags map[string]string) (Member, error) {
	var m Member
	if _, ok := tags[tagID]; !ok {
		return Member{}, fmt.Errorf("%w: no id", ErrTags)
	}
	err := firstErr(
		getBytes(tags, tagID, m.ID[:]),
		getBytes(tags, tagCluster, m.Cluster[:]),
		getBytes(tags, tagActor, m.Actor[:]),
		getMark(tags, tagNewest, &m.Newest),
		getMark(tags, tagAcked, &m.Acked),
		getMark(tags, tagSynced, &m.Synced),
	)
	if err != nil {
		return Member{}, err
	}
	m.GRPCAddr, m.AdminAddr, m.Zone = tags[tagGRPC], tags[tagAdmin], tags[tagZone]
	if s, ok := tags[tagWeight]; ok {
		w, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(w) || math.IsInf(w, 0) || w < 0 {
			return Member{}, fmt.Errorf("%w: weight %q", ErrTags, s)
		}
		m.Weight = w
	}
	return m, nil
}

// encodedSize returns the size of tags as serf sends them: a marker byte, then a msgpack map of fewer than 16 entries
// with strings in the old format (one byte of header below 32 bytes, three above).
func encodedSize(tags map[string]string) int {
	size := 2
	for k, v := range tags {
		size += stringSize(k) + stringSize(v)
	}
	return size
}

func stringSize(s string) int {
	if len(s) < 32 {
		return 1 + len(s)
	}
	return 3 + len(s)
}

func putString(tags map[string]string, key, value string) {
	if value != "" {
		tags[key] = value
	}
}

func putBytes(tags map[string]string, key string, value []byte) {
	for _, b := range value {
		if b != 0 {
			tags[key] = encoding.EncodeToString(value)
			return
		}
	}
}

func putMark(tags map[string]string, key string, m Mark) {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], m.Epoch)
	copy(b[8:], m.Hash[:])
	putBytes(tags, key, b[:])
}

// getBytes fills dst from a tag of exactly that length, or leaves it zero if there is no such tag.
func getBytes(tags map[string]string, key string, dst []byte) error {
	s, ok := tags[key]
	if !ok {
		return nil
	}
	if len(s) != encoding.EncodedLen(len(dst)) {
		return fmt.Errorf("%w: %q has %d characters", ErrTags, key, len(s))
	}
	if _, err := encoding.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrTags, key, err)
	}
	return nil
}

func getMark(tags map[string]string, key string, m *Mark) error {
	var b [16]byte
	if err := getBytes(tags, key, b[:]); err != nil {
		return err
	}
	m.Epoch = binary.BigEndian.Uint64(b[:8])
	copy(m.Hash[:], b[8:])
	return nil
}

func hostPort(m serf.Member) string {
	return net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))
}

func compareMembers(a, b Member) int {
	return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Name, b.Name))
}
