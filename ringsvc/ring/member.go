package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zeebo/xxh3"
)

// TokensPerNode is how many places a member of weight 1 takes on the ring.
const TokensPerNode = 256

// What a layout may hold. Tokens fill at most half the ring, so that a collision always finds a free slot near by.
const (
	MaxWeight          = 16.0
	MaxTokensPerMember = int(TokensPerNode * MaxWeight)
	MaxMembers         = 2048
	MaxTokens          = Slots / 2
	MaxReplicas        = 16
	MaxTextBytes       = 255 // of a member's name, and of its zone
)

// ErrInvalid is wrapped by every error about a member or a change that no layout may hold.
var ErrInvalid = errors.New("ring: invalid")

// Member is one storage node as a layout knows it. Treat one that came out of a Layout as read-only.
type Member struct {
	ID     NodeID
	Name   string  // for people; may repeat, may change
	Zone   string  // failure domain; members without one share the zone ""
	Weight float64 // share of the data relative to others, in (0, MaxWeight]
	Tokens []Slot  // strictly increasing, 1 to MaxTokensPerMember
}

// Validate tells what is wrong with m, wrapping ErrInvalid.
func (m Member) Validate() error {
	switch {
	case m.ID.IsZero():
		return fmt.Errorf("%w: member without an id", ErrInvalid)
	case len(m.Name) > MaxTextBytes || !utf8.ValidString(m.Name):
		return fmt.Errorf("%w: name of member %s", ErrInvalid, m.ID)
	case len(m.Zone) > MaxTextBytes || !utf8.ValidString(m.Zone):
		return fmt.Errorf("%w: zone of member %s", ErrInvalid, m.ID)
	}
	return m.validatePlaces()
}

// validatePlaces checks what a change of weight carries too.
func (m Member) validatePlaces() error {
	if !(m.Weight > 0 && m.Weight <= MaxWeight) {
		return fmt.Errorf("%w: weight %v of member %s", ErrInvalid, m.Weight, m.ID)
	}
	return m.validateTokens()
}

// validateTokens checks what a change of tokens carries.
func (m Member) validateTokens() error {
	if len(m.Tokens) == 0 || len(m.Tokens) > MaxTokensPerMember {
		return fmt.Errorf("%w: %d tokens of member %s", ErrInvalid, len(m.Tokens), m.ID)
	}
	for i, t := range m.Tokens {
		if t >= Slots || (i > 0 && t <= m.Tokens[i-1]) {
			return fmt.Errorf("%w: token %d of member %s", ErrInvalid, t, m.ID)
		}
	}
	return nil
}

// TokenCount is how many tokens a member of the given weight takes: TokensPerNode times weight, rounded, at least 1 and at most MaxTokensPerMember.
func TokenCount(weight float64) int {
	if !(weight > 0) {
		return 1
	}
	return max(1, int(math.Round(TokensPerNode*min(weight, MaxWeight))))
}

// RandomTokens draws count tokens for id, sorted, avoiding those for which taken says true (nil: none is). The same arguments give the same
// tokens, and a larger count keeps those of a smaller one, so that a changed weight moves only the difference. The caller owns the slice. It
// is shorter than count only if the ring is full.
func RandomTokens(id NodeID, count int, taken func(Slot) bool) []Slot {
	count = min(max(count, 0), Slots)
	mine := make(map[Slot]struct{}, count)
	free := func(s Slot) bool {
		_, dup := mine[s]
		return !dup && (taken == nil || !taken(s))
	}
	var seed [24]byte
	copy(seed[:], id[:])
	// Layouts are at most half full, so that twice as many draws are expected at worst; far beyond that the ring is nearly full and is walked instead.
	for i := uint64(0); len(mine) < count && i < 64*uint64(count); i++ {
		binary.BigEndian.PutUint64(seed[16:], i)
		if s := Slot(xxh3.Hash(seed[:]) >> (64 - SlotBits)); free(s) {
			mine[s] = struct{}{}
		}
	}
	for s := Slot(0); len(mine) < count && s < Slots; s++ {
		if free(s) {
			mine[s] = struct{}{}
		}
	}
	out := make([]Slot, 0, len(mine))
	for s := range mine {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// shortText makes s fit into a member's name or zone.
func shortText(s string) string {
	s = strings.ToValidUTF8(s, "?")
	for len(s) > MaxTextBytes {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// findMember finds id in members sorted by id.
func findMember(members []Member, id NodeID) (int, bool) {
	return slices.BinarySearchFunc(members, id, func(m Member, id NodeID) int { return m.ID.Compare(id) })
}

func appendMember(dst []byte, m Member) []byte {
	dst = append(dst, m.ID[:]...)
	dst = appendText(dst, m.Name)
	dst = appendText(dst, m.Zone)
	return appendPlaces(dst, m)
}

func appendPlaces(dst []byte, m Member) []byte {
	dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(m.Weight))
	return appendTokens(dst, m.Tokens)
}

func appendTokens(dst []byte, tokens []Slot) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(tokens)))
	next := Slot(0)
	for _, t := range tokens {
		dst = binary.AppendUvarint(dst, uint64(t-next))
		next = t + 1
	}
	return dst
}

func (r *reader) member() Member {
	m := Member{ID: r.id(), Name: r.text(MaxTextBytes, "member name"), Zone: r.text(MaxTextBytes, "member zone")}
	r.places(&m)
	if r.err == nil && m.ID.IsZero() {
		r.fail("member without an id")
	}
	return m
}

func (r *reader) places(m *Member) {
	m.Weight = math.Float64frombits(r.uint64())
	if !(m.Weight > 0 && m.Weight <= MaxWeight) {
		r.fail("weight")
		return
	}
	r.tokens(m)
}

func (r *reader) tokens(m *Member) {
	count := r.uvarint(uint64(MaxTokensPerMember), "token count")
	if r.err != nil || count == 0 || count > len(r.b) {
		r.fail("token count")
		return
	}
	m.Tokens = make([]Slot, count)
	next := Slot(0)
	for i := range m.Tokens {
		t := next + Slot(r.uvarint(Slots, "token"))
		if r.err != nil || t >= Slots {
			r.fail("token")
			return
		}
		m.Tokens[i], next = t, t+1
	}
}
