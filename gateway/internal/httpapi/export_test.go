package httpapi

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/ringsvc/causal"
)

// Names for the external tests of this package.
var (
	ParseKey      = parseKey
	ParseRead     = parseRead
	ParseWrite    = parseWrite
	BoundaryTaken = boundaryTaken
)

func viewOf(s []causal.Sibling) edge.View { return edge.View{Shown: s, Status: 300} }

// ChooseBoundary chooses the boundary for siblings.
func ChooseBoundary(s []causal.Sibling) string { return chooseBoundary(viewOf(s)) }

// ReadTimeout parses the query of a read, WriteTimeout that of a write.
func ReadTimeout(raw string) (time.Duration, error) {
	p, err := parseRead(raw)
	return p.timeout, err
}

func WriteTimeout(raw string) (time.Duration, error) {
	p, err := parseWrite(raw)
	return p.timeout, err
}

// Patterns returns the patterns that the router of an API knows, each once.
func Patterns(a *API) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	err := chi.Walk(a.router, func(_, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if !seen[pattern] {
			seen[pattern] = true
			out = append(out, pattern)
		}
		return nil
	})
	return out, err
}
