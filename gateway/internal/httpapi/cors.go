package httpapi

import (
	"net/http"
	"slices"
)

// cors answers browsers of other origins. Its values are shared and never modified.
type cors struct {
	any     bool
	origins []string
	star    []string
	expose  []string
	methods []string
	headers []string
	maxAge  []string
}

// newCORS returns nil where no origin is allowed.
func newCORS(origins []string) *cors {
	if len(origins) == 0 {
		return nil
	}
	return &cors{
		any: slices.Contains(origins, "*"), origins: origins, star: []string{"*"},
		expose:  []string{"Kv-Context, ETag, Kv-Request-Id, Kv-Explain, Last-Modified, Retry-After"},
		methods: []string{allowKV},
		headers: []string{"Authorization, Content-Type, If-None-Match, Kv-Context, Kv-Request-Id"},
		maxAge:  []string{"600"},
	}
}

// handle adds what a browser asks for, and answers its preflight; then it returns true.
func (c *cors) handle(x *exchange, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && origin != "" && r.Header.Get("Access-Control-Request-Method") != ""
	allowed := origin != "" && (c.any || slices.Contains(c.origins, origin))
	if allowed {
		h := x.Header()
		h["Access-Control-Allow-Origin"] = c.star
		if !c.any {
			h["Access-Control-Allow-Origin"] = []string{origin}
		}
		h["Access-Control-Expose-Headers"] = c.expose
		if preflight {
			h["Access-Control-Allow-Methods"] = c.methods
			h["Access-Control-Allow-Headers"] = c.headers
			h["Access-Control-Max-Age"] = c.maxAge
		}
	}
	if preflight {
		x.Header()["Cache-Control"] = x.api.common.noStore
		x.WriteHeader(http.StatusNoContent)
	}
	return preflight
}
