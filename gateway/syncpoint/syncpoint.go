// Package syncpoint decides when all hints and all differences between copies that were there at one moment are gone.
//
// It works in two steps. First each node's hints that were kept at the start must have left: what a hint brings to one
// owner, the others may lack. Then each owner compares with each other one, in comparisons that began after that; each
// fetches what it lacks, so that one comparison of every ordered pair is enough. All times are on the clock of the node
// that tells them, and count from its start; a node that restarts is asked anew.
package syncpoint

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/dotring/dotring/ringsvc/ring"
)

// ErrToken is wrapped by every error of Decode.
var ErrToken = errors.New("syncpoint: bad token")

// maxToken bounds a token, in characters: about 5,000 nodes with their peers done are never encoded, only their starts.
const maxToken = 1 << 20

// Report is what a node tells of its work.
type Report struct {
	Life     [16]byte // another after each restart of the node
	Now      uint64   // when it began to answer
	Hints    []Hint
	Compares []Compare
	// Layouts says that its comparisons are about the ranges of a live layout.
	Layout ring.LayoutID
}

// Hint is what a node keeps for another. None that is left was kept before Since.
type Hint struct {
	Target ring.NodeID
	Count  uint64
	Since  uint64
}

// Compare is the comparison with one peer; the last whole one began at Whole, 0 before there is one.
type Compare struct {
	Peer  ring.NodeID
	Whole uint64
}

// Point is one moment, and how far the cluster has come since. The zero value is a point of the whole cluster that has
// just begun. Not safe for concurrent use.
type Point struct {
	// Node, where set, limits the point to what this node keeps, lacks or is to get.
	Node *ring.NodeID
	// Prefix limits the hints that are waited for; reports must count only those.
	Prefix []byte
	nodes  map[ring.NodeID]*progress
}

// progress is one node's.
type progress struct {
	Life      [16]byte `json:"l"`
	Hints     uint64   `json:"h"`           // it was asked first at this time
	Delivered bool     `json:"d,omitempty"` // the hints of that time have left
	Compares  uint64   `json:"c,omitempty"` // it was asked to compare at this time, 0 for not yet
	latest    *Report
}

// WantsCompare says whether the node should be asked to compare with every peer from the beginning.
func (p *Point) WantsCompare(members []ring.NodeID, id ring.NodeID) bool {
	n := p.nodes[id]
	return n != nil && n.Compares == 0 && p.delivered(members)
}

// delivered says whether the first step is over.
func (p *Point) delivered(members []ring.NodeID) bool {
	return !slices.ContainsFunc(members, func(id ring.NodeID) bool { return p.nodes[id] == nil || !p.nodes[id].Delivered })
}

// Observe takes in what a node reports. compare says whether the request asked it to compare.
func (p *Point) Observe(id ring.NodeID, r Report, compare bool) {
	if p.nodes == nil {
		p.nodes = make(map[ring.NodeID]*progress)
	}
	n := p.nodes[id]
	if n == nil {
		n = &progress{Life: r.Life, Hints: r.Now}
		p.nodes[id] = n
	}
	if n.Life != r.Life {
		// The hints it has now may be of the time before; none of them is younger than this life.
		n.Life, n.Hints, n.Compares = r.Life, r.Now, 0
	}
	if compare {
		n.Compares = r.Now
	}
	n.latest = &r
	n.Delivered = n.Delivered || !slices.ContainsFunc(r.Hints, func(h Hint) bool { return p.waitsForHint(id, n, h) })
}

func (p *Point) waitsForHint(id ring.NodeID, n *progress, h Hint) bool {
	// One kept in the very instant of the first answer counts as kept before it: clocks have steps, and all times before a
	// restart are told as the first instant after it.
	return p.concerns(id, h.Target) && h.Count > 0 && h.Since <= n.Hints
}

// concerns says whether what is between two nodes belongs to the point.
func (p *Point) concerns(a, b ring.NodeID) bool { return p.Node == nil || *p.Node == a || *p.Node == b }

// Kind says what a point waits for.
type Kind int

// What a point waits for.
const (
	Unknown Kind = iota // a node that has told nothing
	Hints
	Comparison
	Layout // a node that compares ranges of another layout
)

// Wait is one thing that a point waits for. Peer is zero where the kind has none.
type Wait struct {
	Kind       Kind
	Node, Peer ring.NodeID
}

// Waiting lists what is still waited for, in the order of members, which are those of all live layouts; empty means that
// all hints and differences of the start are gone.
func (p *Point) Waiting(members []ring.NodeID, live []ring.LayoutID) (out []Wait) {
	for _, id := range members {
		n := p.nodes[id]
		if n == nil || n.latest == nil {
			out = append(out, Wait{Kind: Unknown, Node: id})
			continue
		}
		if !n.Delivered {
			for _, h := range n.latest.Hints {
				if p.waitsForHint(id, n, h) {
					out = append(out, Wait{Kind: Hints, Node: id, Peer: h.Target})
				}
			}
			continue
		}
		if !slices.Contains(live, n.latest.Layout) {
			out = append(out, Wait{Kind: Layout, Node: id})
			continue
		}
		for _, c := range n.latest.Compares {
			if p.concerns(id, c.Peer) && (n.Compares == 0 || c.Whole < n.Compares) {
				out = append(out, Wait{Kind: Comparison, Node: id, Peer: c.Peer})
			}
		}
		if n.Compares == 0 && len(n.latest.Compares) == 0 && len(members) > 1 {
			out = append(out, Wait{Kind: Comparison, Node: id}) // it has not been asked, and may not know its peers yet
		}
	}
	return out
}

// token is the form that travels. What nodes last reported is left out: they are asked again.
type token struct {
	Version int                  `json:"v"`
	Node    string               `json:"n,omitempty"`
	Prefix  []byte               `json:"p,omitempty"`
	Nodes   map[string]*progress `json:"s"`
}

const tokenVersion = 1

// Encode names the point for a later request. It tells nothing secret, and is not signed: who forges one waits for
// another point, and no more.
func (p *Point) Encode() (string, error) {
	t := token{Version: tokenVersion, Prefix: p.Prefix, Nodes: make(map[string]*progress, len(p.nodes))}
	if p.Node != nil {
		t.Node = p.Node.String()
	}
	for id, n := range p.nodes {
		t.Nodes[id.String()] = n
	}
	b, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode a token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Decode reads what Encode wrote. Every error wraps ErrToken.
func Decode(s string) (*Point, error) {
	if len(s) > maxToken {
		return nil, fmt.Errorf("%w: %d characters", ErrToken, len(s))
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	var t token
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if t.Version != tokenVersion {
		return nil, fmt.Errorf("%w: version %d", ErrToken, t.Version)
	}
	p := &Point{Prefix: t.Prefix, nodes: make(map[ring.NodeID]*progress, len(t.Nodes))}
	if t.Node != "" {
		id, err := ring.ParseNodeID(t.Node)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrToken, err)
		}
		p.Node = &id
	}
	for name, n := range t.Nodes {
		id, err := ring.ParseNodeID(name)
		if err != nil || n == nil {
			return nil, fmt.Errorf("%w: node %q", ErrToken, name)
		}
		p.nodes[id] = n
	}
	return p, nil
}
