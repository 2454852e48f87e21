package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/internal/ui"
)

const uiPrefix = "/ui/"

// toDashboard sends those who left the last slash out where the page's parts are found.
func (a *API) toDashboard(x *exchange, r *http.Request) {
	if !x.readOnly(r) {
		return
	}
	h := x.Header()
	h["Cache-Control"] = a.common.noStore
	h["Location"] = []string{uiPrefix}
	x.WriteHeader(http.StatusPermanentRedirect)
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
