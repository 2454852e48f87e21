package tracing

import (
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// parseParent reads a traceparent header: version, trace, span and flags in lower case hexadecimal. What is no such header, of
// which there is one, counts as none, as the standard has it.
func parseParent(lines []string) (trace.SpanContext, bool) {
	if len(lines) != 1 {
		return trace.SpanContext{}, false
	}
	const length = 2 + 1 + 32 + 1 + 16 + 1 + 2
	s := lines[0]
	// Later versions may say more behind another dash.
	if len(s) < length || len(s) > length && (s[:2] == "00" || s[length] != '-') || s[2] != '-' || s[35] != '-' || s[52] != '-' ||
		s[:2] == "ff" || strings.ContainsAny(s[:length], "ABCDEF") {
		return trace.SpanContext{}, false
	}
	var version, flags [1]byte
	var id trace.TraceID
	var span trace.SpanID
	for _, part := range []struct {
		to   []byte
		from string
	}{{version[:], s[:2]}, {id[:], s[3:35]}, {span[:], s[36:52]}, {flags[:], s[53:55]}} {
		if _, err := hex.Decode(part.to, []byte(part.from)); err != nil {
			return trace.SpanContext{}, false
		}
	}
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.TraceFlags(flags[0]) & trace.FlagsSampled, Remote: true})
	return sc, sc.IsValid()
}

// invitedPerSecond is how many requests a second are sampled because their clients say so: whoever can send a request can say so.
const invitedPerSecond = 10

// invitations counts them.
type invitations struct {
	mu    sync.Mutex
	since time.Time // when the second began
	taken int       // in it
}

// take says whether one more may be sampled now.
func (i *invitations) take(now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if age := now.Sub(i.since); age >= time.Second || age < 0 {
		i.since, i.taken = now, 0
	}
	if i.taken == invitedPerSecond {
		return false
	}
	i.taken++
	return true
}
