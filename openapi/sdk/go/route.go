package dotring

import (
	"cmp"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Order returns the gateways in the order in which they are tried for a key: by rendezvous hashing, so that all clients
// with the same list, of every language, read one key through one gateway, and a gateway that leaves moves its keys alone.
// Scores are FNV-1a over the gateway, a zero byte and the key, finished as MurmurHash3 does.
func Order(gateways []string, key string) []string {
	out := slices.Clone(gateways)
	slices.SortStableFunc(out, func(a, b string) int {
		if c := cmp.Compare(score(b, key), score(a, key)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return out
}

func score(gateway, key string) uint32 {
	h := uint32(2166136261)
	for _, part := range []string{gateway, "\x00", key} {
		for i := range len(part) {
			h = (h ^ uint32(part[i])) * 16777619
		}
	}
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

// Escape returns a key as one segment of a path: every byte but the unreserved ones of RFC 3986 is percent-encoded.
func Escape(key string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// What became of a failed write.
const (
	// NotApplied is a write that will never become visible.
	NotApplied = "not-applied"
	// InDoubt is a write that may be visible, or become so.
	InDoubt = "in-doubt"
)

// attempt is how one request ended that did not succeed.
type attempt struct {
	status     int    // 0 where no answer came
	sent       bool   // whether the gateway may have seen it
	outcome    string // what the answer says of a write
	retryAfter time.Duration
}

// doubtful tells whether a write that ended so may have happened. An answer of a server's fault that does not say so is a
// balancer's, who does not know either.
func (a attempt) doubtful() bool {
	if a.status == 0 {
		return a.sent
	}
	return a.outcome == InDoubt || a.outcome == "" && a.status >= 500
}

// again decides whether a request is repeated after its nth attempt, from 1, of at most limit, and after what time; jitter is
// between 0 and 1. Other gateways are tried at once where one could not be reached; what a gateway asks for by Retry-After
// is the least to wait, and a wait above maxWait is not worth it.
func (a attempt) again(n, limit, gateways int, write bool, jitter float64) (time.Duration, bool) {
	worth := a.status == 0 || write && a.doubtful()
	switch a.status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		worth = true
	}
	if !worth || n >= limit || a.retryAfter > maxWait {
		return 0, false
	}
	if a.status == 0 && n < gateways {
		return 0, true
	}
	backoff := firstBackoff << min(n-1, bits.Len(uint(maxWait/firstBackoff)))
	return max(a.retryAfter, time.Duration(float64(backoff)*(0.5+jitter/2))), true
}

const (
	firstBackoff = 50 * time.Millisecond
	maxWait      = 10 * time.Second
)

// parseRetryAfter reads the header, in seconds; 0 where it is absent or a date.
func parseRetryAfter(h http.Header) time.Duration {
	s, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}
