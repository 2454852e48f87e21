package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/internal/ui"
)

const uiPrefix = "/ui/"

// toPage sends those who ask for a page by a short path where its parts are found.
func (a *API) toPage(location string) handler {
	return func(x *exchange, r *http.Request) {
		if !x.readOnly(r) {
			return
		}
		h := x.Header()
		h["Cache-Control"] = a.common.noStore
		h["Location"] = []string{location}
		x.WriteHeader(http.StatusPermanentRedirect)
	}
}

// dashboard serves the files of the dashboard. They tell nothing of the cluster, and are open to everybody: what they show,
// they ask the API for, with the token of whoever looks.
func (a *API) dashboard(x *exchange, r *http.Request) {
	if !x.readOnly(r) {
		return
	}
	name := strings.TrimPrefix(r.URL.Path, uiPrefix)
	if name == "" {
		name = ui.Index
	}
	file, ok := a.pages[name]
	if name == ui.DocumentName {
		var err error
		if file, err = a.documentJSON(); err != nil {
			x.fail(r, err)
			return
		}
		ok = true
	}
	if !ok {
		x.fail(r, fmt.Errorf("%w: the dashboard has no such file", problem.ErrNoPath))
		return
	}
	h := x.Header()
	h["Content-Security-Policy"] = []string{ui.Policy}
	h["Referrer-Policy"] = []string{"no-referrer"}
	h["Etag"] = x.value(file.ETag)
	h["Cache-Control"] = a.common.documentCache
	if matchesETag(r, file.ETag, true) {
		x.WriteHeader(http.StatusNotModified)
		return
	}
	x.answer(http.StatusOK, x.value(file.Type), file.Body)
}
