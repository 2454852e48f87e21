package httpapi

import (
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
)

// maxExplain bounds the Kv-Explain header, so that it passes the header buffers of balancers beside a context.
const maxExplain = 4096

type explanation struct {
	Replicas json.RawMessage  `json:"replicas"`
	Siblings []explainSibling `json:"siblings"`
	// Omitted names what was left out for want of room.
	Omitted []string `json:"omitted,omitempty"`
}

type explainSibling struct {
	Actor     string `json:"actor"`
	Counter   string `json:"counter"`
	ETag      string `json:"etag"`
	Tombstone bool   `json:"tombstone"`
}

// explainHeader returns what explain=1 adds to an answer, as one line of ASCII JSON: what each replica did, and every
// sibling of the record, also those that look alike and are shown as one. Where that is too much for a header, clocks go
// first, then the siblings, then the replicas.
func explainHeader(res coordinator.GetResult) string {
	e := explanation{Replicas: problem.ReportsJSON(res.Reports, true), Siblings: []explainSibling{}}
	for i := range res.Set.Siblings {
		s := &res.Set.Siblings[i]
		e.Siblings = append(e.Siblings, explainSibling{Actor: s.Dot.Actor.String(),
			Counter: strconv.FormatUint(s.Dot.Counter, 10), ETag: edge.Tag(s), Tombstone: s.Tombstone})
	}
	for _, cut := range []string{"clocks", "siblings", "replicas", ""} {
		b, err := json.Marshal(e)
		if err != nil {
			return "{}"
		}
		if line := ascii(b); len(line) <= maxExplain {
			return line
		}
		switch cut {
		case "clocks":
			e.Replicas = problem.ReportsJSON(res.Reports, false)
		case "siblings":
			e.Siblings = []explainSibling{}
		case "replicas":
			e.Replicas = json.RawMessage("[]")
		}
		e.Omitted = append(e.Omitted, cut)
	}
	return "{}"
}

// ascii returns JSON with all that is not ASCII escaped.
func ascii(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] < utf8.RuneSelf {
			out = append(out, b[i])
			i++
			continue
		}
		c, size := utf8.DecodeRune(b[i:])
		i += size
		units := []rune{c}
		if c > 0xffff {
			high, low := utf16.EncodeRune(c)
			units = []rune{high, low}
		}
		for _, u := range units {
			const digits = "0123456789abcdef"
			out = append(out, '\\', 'u', digits[u>>12&15], digits[u>>8&15], digits[u>>4&15], digits[u&15])
		}
	}
	return string(out)
}
