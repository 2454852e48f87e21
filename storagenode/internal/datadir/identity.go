package datadir

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

// ErrIdentity is wrapped by every error of DecodeIdentity.
var ErrIdentity = errors.New("bad identity file")

// Identity is who a data directory belongs to. It never changes.
type Identity struct {
	Node    ring.NodeID
	Created time.Time // UTC, whole seconds
}

const identityVersion = "1"

// Encode returns the file's bytes: three lines of text, `version`, `node` (32 hexadecimal digits) and `created` (RFC
// 3339, UTC).
func (i Identity) Encode() []byte {
	return fmt.Appendf(nil, "version: %s\nnode: %s\ncreated: %s\n", identityVersion, i.Node, i.Created.UTC().Format(time.RFC3339))
}

// DecodeIdentity reads exactly what Encode writes.
func DecodeIdentity(b []byte) (Identity, error) {
	lines := strings.Split(string(b), "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Identity{}, fmt.Errorf("%w: want three lines, each ended", ErrIdentity)
	}
	values := make([]string, 3)
	for n, name := range []string{"version", "node", "created"} {
		v, ok := strings.CutPrefix(lines[n], name+": ")
		if !ok {
			return Identity{}, fmt.Errorf("%w: line %d is not %q", ErrIdentity, n+1, name)
		}
		values[n] = v
	}
	if values[0] != identityVersion {
		return Identity{}, fmt.Errorf("%w: version %q is not known, only %s", ErrIdentity, values[0], identityVersion)
	}
	node, err := ring.ParseNodeID(values[1])
	if err != nil {
		return Identity{}, fmt.Errorf("%w: node: %w", ErrIdentity, err)
	}
	created, err := time.Parse(time.RFC3339, values[2])
	if err != nil {
		return Identity{}, fmt.Errorf("%w: created: %w", ErrIdentity, err)
	}
	id := Identity{Node: node, Created: created.UTC()}
	if string(id.Encode()) != string(b) {
		return Identity{}, fmt.Errorf("%w: not in the form it was written in", ErrIdentity)
	}
	return id, nil
}
