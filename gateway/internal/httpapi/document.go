package httpapi

import (
	"encoding/hex"
	"net/http"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/openapi"
)

// documentETag returns the quoted entity tag of the OpenAPI document, equal on all gateways that carry the same one.
func documentETag() string {
	sum := xxh3.Hash128(openapi.Document).Bytes()
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// document serves the OpenAPI document of this API.
func (a *API) document(x *exchange, r *http.Request) {
	if !x.readOnly(r) {
		return
	}
	h := x.Header()
	h["Etag"] = a.common.documentETag
	// A cache may keep it, but asks every time: a gateway that is upgraded has another one.
	h["Cache-Control"] = a.common.documentCache
	if matchesETag(r, a.common.documentETag[0], true) {
		x.WriteHeader(http.StatusNotModified)
		return
	}
	x.answer(http.StatusOK, a.common.typeYAML, openapi.Document)
}
