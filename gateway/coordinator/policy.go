package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Policies say for key prefixes what becomes of concurrent writes: they are kept as siblings, or the last one wins. The
// longest prefix of a key decides; without one, siblings. The zero value is siblings for all keys. Immutable.
type Policies struct {
	rules []policy // longest prefix first
}

type policy struct {
	prefix string
	lww    bool
}

// ErrPolicy is wrapped by the errors of ParsePolicies.
var ErrPolicy = errors.New("bad conflict policy")

// maxPolicies bounds the prefixes, as each key is held against them.
const maxPolicies = 100

// ParsePolicies reads rules of the form PREFIX=lww or PREFIX=siblings; the prefix is all before the last =, and may be
// empty.
func ParsePolicies(rules []string) (Policies, error) {
	var out Policies
	if len(rules) > maxPolicies {
		return out, fmt.Errorf("%w: %d rules, the limit is %d", ErrPolicy, len(rules), maxPolicies)
	}
	for _, r := range rules {
		i := strings.LastIndexByte(r, '=')
		if i < 0 || r[i+1:] != "lww" && r[i+1:] != "siblings" {
			return Policies{}, fmt.Errorf("%w: %q is not PREFIX=lww or PREFIX=siblings", ErrPolicy, r)
		}
		if slices.ContainsFunc(out.rules, func(p policy) bool { return p.prefix == r[:i] }) {
			return Policies{}, fmt.Errorf("%w: two rules for the prefix %q", ErrPolicy, r[:i])
		}
		out.rules = append(out.rules, policy{prefix: r[:i], lww: r[i+1:] == "lww"})
	}
	slices.SortStableFunc(out.rules, func(a, b policy) int { return len(b.prefix) - len(a.prefix) })
	return out, nil
}

// LastWriteWins says whether of concurrent writes of this key the last one wins.
func (p Policies) LastWriteWins(key []byte) bool {
	for _, r := range p.rules {
		if len(key) >= len(r.prefix) && string(key[:len(r.prefix)]) == r.prefix {
			return r.lww
		}
	}
	return false
}
