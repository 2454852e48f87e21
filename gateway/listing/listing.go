// Package listing goes through the keys of a cluster page by page: it asks R owners of each stretch of the ring, and merges
// what they have.
package listing

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/nodeclient"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// MaxLimit is the most keys of a page, DefaultLimit that of a request without one.
	MaxLimit, DefaultLimit = 1000, 100
	// inFlight is how many stretches of a page are asked for at once.
	inFlight = 8
	// stretchesMax is how many stretches one page looks at, so that a page of a large ring without keys ends.
	stretchesMax = 256
	// maxKey is the longest key.
	maxKey = 250
	// pagesMax is how many pages a gateway works on at once: listings come after all else.
	pagesMax = 4
)

// ErrCursor says that a cursor is not one of ours.
var ErrCursor = errors.New("the cursor is damaged: send the one of the page before as it came")

// Nodes is what a Lister asks.
type Nodes interface {
	State() *nodeclient.State
	Health(id ring.NodeID) nodeclient.Health
	ListKeys(ctx context.Context, id ring.NodeID, req *storagev1.ListKeysRequest) (*storagev1.ListKeysResponse, error)
}

// Reader reads single keys, where owners disagree.
type Reader interface {
	Get(ctx context.Context, r coordinator.GetRequest) (coordinator.GetResult, error)
}

// Lister lists. It is safe for concurrent use.
type Lister struct {
	nodes  Nodes
	reader Reader
	r      coordinator.Quorum // of each stretch
	pages  chan struct{}
}

// New returns a Lister that asks r owners of each key.
func New(nodes Nodes, reader Reader, r coordinator.Quorum) *Lister {
	return &Lister{nodes: nodes, reader: reader, r: r, pages: make(chan struct{}, pagesMax)}
}

// Position is where a page begins: behind the key After of the slot, or at the slot's first key where After is nil.
type Position struct {
	Slot  ring.Slot
	After []byte
}

// cursorVersion is the first byte of a cursor; a slot of four bytes and a key follow.
const cursorVersion = 1

// Cursor returns p as text. It is not secret and not signed: it only says where to go on.
func (p Position) Cursor() string {
	b := binary.BigEndian.AppendUint32([]byte{cursorVersion}, uint32(p.Slot))
	return base64.RawURLEncoding.EncodeToString(append(b, p.After...))
}

// ParseCursor reads a cursor; an empty one is the beginning. Errors wrap ErrCursor.
func ParseCursor(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < 5 || b[0] != cursorVersion || len(b) > 5+maxKey {
		return Position{}, ErrCursor
	}
	p := Position{Slot: ring.Slot(binary.BigEndian.Uint32(b[1:]))}
	if len(b) > 5 {
		p.After = b[5:]
	}
	if p.Slot >= ring.Slots || p.After != nil && ring.SlotOf(p.After) != p.Slot {
		return Position{}, ErrCursor
	}
	return p, nil
}

// Page is some keys with a prefix. Next is where the next page begins; nil after the last.
type Page struct {
	Keys [][]byte
	Next *Position
}

// List returns up to limit keys from a position on; fewer, or none, where they are rare. The work is bounded by the ring's
// size and by ctx, which must have a deadline. Errors are *coordinator.Error and those of ctx.
func (l *Lister) List(ctx context.Context, prefix []byte, from Position, limit int) (Page, error) {
	select {
	case l.pages <- struct{}{}:
		defer func() { <-l.pages }()
	default:
		return Page{}, &coordinator.Error{Kind: coordinator.Overloaded, Err: errors.New("too many listings are under way")}
	}
	state := l.nodes.State()
	if state == nil {
		return Page{}, &coordinator.Error{Kind: coordinator.NoLayout}
	}
	// Half of the time is for asking, so that the answer comes before the deadline.
	stop := time.Now()
	if deadline, ok := ctx.Deadline(); ok {
		stop = stop.Add(time.Until(deadline) / 2)
	}
	var page Page
	for range stretchesMax / inFlight {
		stretches := Stretches(state.Read, from.Slot, inFlight)
		answers := make([]answer, len(stretches))
		var asked sync.WaitGroup
		for i, s := range stretches {
			after := from.After
			if i > 0 {
				after = nil
			}
			asked.Go(func() { answers[i] = l.ask(ctx, state, s, after, prefix, limit) })
		}
		asked.Wait()
		for i, a := range answers {
			if a.err != nil {
				if len(page.Keys) > 0 {
					return page, nil // what was found so far, and from there on again
				}
				return Page{}, a.err
			}
			for _, k := range a.keys {
				if len(page.Keys) == limit {
					return page, nil
				}
				live, err := l.live(ctx, k)
				if err != nil {
					return Page{}, err
				}
				if live {
					page.Keys = append(page.Keys, k.key)
				}
				page.Next = &Position{Slot: ring.SlotOf(k.key), After: k.key}
			}
			if a.last != nil {
				page.Next = &Position{Slot: ring.SlotOf(a.last), After: a.last}
				return page, nil
			}
			if stretches[i].To == ring.Slots {
				page.Next = nil
				return page, nil
			}
			from = Position{Slot: stretches[i].To}
			page.Next = &from
		}
		next := from
		page.Next = &next
		if len(page.Keys) == limit || time.Now().After(stop) {
			break
		}
	}
	return page, nil
}

// Stretches cuts the ring from a slot on into the longest ranges with the same owners, at most n of them.
func Stretches(l *ring.Layout, from ring.Slot, n int) []ring.Range {
	var out []ring.Range
	for at := from; at < ring.Slots && len(out) < n; {
		owners := sorted(l.Primaries(at))
		to := l.SameOwnersUntil(at)
		for to < ring.Slots && slices.Equal(owners, sorted(l.Primaries(to))) {
			to = l.SameOwnersUntil(to)
		}
		out = append(out, ring.Range{From: at, To: to})
		at = to
	}
	return out
}

func sorted(ids []ring.NodeID) []ring.NodeID {
	return slices.SortedFunc(slices.Values(ids), func(a, b ring.NodeID) int { return bytes.Compare(a[:], b[:]) })
}

// found is a key of a stretch.
type found struct {
	key     []byte
	agreed  bool // all owners asked have it, and say the same of it
	deleted bool
}

// answer is what the owners of a stretch have; last is the key up to which they looked, nil where they looked at all.
type answer struct {
	keys []found
	last []byte
	err  error
}

// ask asks R owners of a stretch, the healthy ones first, and others for those that fail.
func (l *Lister) ask(ctx context.Context, state *nodeclient.State, r ring.Range, after, prefix []byte, limit int) answer {
	owners := slices.Clone(state.Read.Primaries(r.From))
	slices.SortStableFunc(owners, func(a, b ring.NodeID) int { return cmp.Compare(l.rank(a), l.rank(b)) })
	need := min(state.Read.EffectiveR(l.r.Of(state.Read.N())), len(owners))
	id := state.Read.ID()
	req := &storagev1.ListKeysRequest{Layout: &storagev1.LayoutName{Epoch: id.Epoch, Hash: id.Hash[:]},
		FromSlot: uint32(r.From), ToSlot: uint32(r.To), After: after, Prefix: prefix, Limit: uint32(limit)}
	var pages []*storagev1.ListKeysResponse
	var reports []coordinator.Report
	overloaded := false
	for next := 0; len(pages) < need && next < len(owners); {
		batch := owners[next:min(next+need-len(pages), len(owners))]
		next += len(batch)
		got, errs := make([]*storagev1.ListKeysResponse, len(batch)), make([]error, len(batch))
		var asked sync.WaitGroup
		for i, id := range batch {
			asked.Go(func() { got[i], errs[i] = l.nodes.ListKeys(ctx, id, req) })
		}
		asked.Wait()
		for i, id := range batch {
			if errs[i] == nil {
				pages = append(pages, got[i])
				continue
			}
			overloaded = overloaded || status.Code(errs[i]) == codes.ResourceExhausted
			reports = append(reports, coordinator.Report{Node: id, Name: state.Name(id), Did: "failed", Detail: errs[i].Error()})
		}
	}
	if len(pages) >= need {
		keys, last := merge(pages)
		return answer{keys: keys, last: last}
	}
	kind := coordinator.QuorumImpossible
	if overloaded {
		kind = coordinator.Overloaded
	}
	if err := ctx.Err(); err != nil {
		kind = coordinator.DeadlinePassed
	}
	return answer{err: &coordinator.Error{Kind: kind, Replicas: reports, Err: fmt.Errorf("%d of %d owners of a range answered, %d are needed", len(pages), len(owners), need)}}
}

func (l *Lister) rank(id ring.NodeID) int {
	switch h := l.nodes.Health(id); {
	case h.Connected && !h.Suspect:
		return 0
	case h.Connected:
		return 1
	default:
		return 2
	}
}

// merge unites what owners have, as far as all of them looked.
func merge(pages []*storagev1.ListKeysResponse) (keys []found, last []byte) {
	for _, p := range pages {
		if !p.GetComplete() && (last == nil || order(p.GetLast(), last) < 0) {
			last = p.GetLast()
		}
	}
	type seen struct{ by, deleted int }
	all := make(map[string]seen)
	for _, p := range pages {
		for _, k := range p.GetKeys() {
			if last != nil && order(k.GetKey(), last) > 0 {
				continue
			}
			s := all[string(k.GetKey())]
			s.by++
			if k.GetDeleted() {
				s.deleted++
			}
			all[string(k.GetKey())] = s
		}
	}
	for k, s := range all {
		keys = append(keys, found{key: []byte(k), deleted: s.deleted == s.by, agreed: s.by == len(pages) && (s.deleted == 0 || s.deleted == s.by)})
	}
	slices.SortFunc(keys, func(a, b found) int { return order(a.key, b.key) })
	return keys, last
}

// order is how keys lie on disk.
func order(a, b []byte) int {
	if c := cmp.Compare(ring.Hash(a), ring.Hash(b)); c != 0 {
		return c
	}
	return bytes.Compare(a, b)
}

// live says whether a key has a value. Where owners disagree it is read, which also repairs it.
func (l *Lister) live(ctx context.Context, k found) (bool, error) {
	if k.agreed || k.deleted {
		return !k.deleted, nil
	}
	res, err := l.reader.Get(ctx, coordinator.GetRequest{Key: k.key, R: coordinator.Default, Trace: "listing"})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(res.Set.Shown(), func(s causal.Sibling) bool { return !s.Tombstone }), nil
}
