package httpapi

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
)

// parseKey returns the key that a path names: all that follows prefix in the escaped path, percent-decoded exactly once.
// "+" is itself; dot segments, doubled and trailing slashes are part of the key. Different keys have different escaped
// paths and each key can be reached. The error wraps problem.ErrBadKey.
func parseKey(u *url.URL, prefix string) ([]byte, error) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok {
		return nil, fmt.Errorf("%w: the path does not begin with %s", problem.ErrBadKey, prefix)
	}
	if len(rest) > 3*edge.MaxKeyBytes {
		return nil, fmt.Errorf("%w: it has more than %d bytes", problem.ErrBadKey, edge.MaxKeyBytes)
	}
	key := make([]byte, 0, len(rest))
	for i := 0; i < len(rest); i++ {
		if rest[i] != '%' {
			key = append(key, rest[i])
			continue
		}
		if i+2 >= len(rest) {
			return nil, fmt.Errorf("%w: a percent escape is cut short", problem.ErrBadKey)
		}
		high, low := unhex(rest[i+1]), unhex(rest[i+2])
		if high > 15 || low > 15 {
			return nil, fmt.Errorf("%w: a percent escape is not hexadecimal", problem.ErrBadKey)
		}
		key = append(key, high<<4|low)
		i += 2
	}
	return key, edge.CheckKey(key)
}

// unhex returns the value of a hexadecimal digit, or 255.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}
