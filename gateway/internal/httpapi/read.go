package httpapi

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/ringsvc/causal"
)

// serveKV serves single keys.
func (a *API) serveKV(x *exchange, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		x.op = opGet
		a.get(x, r)
	case http.MethodPut, http.MethodPost:
		x.op = opPut
		a.put(x, r)
	case http.MethodDelete:
		x.op = opDelete
		a.delete(x, r)
	default:
		x.methodNotAllowed(r, allowKV)
	}
}

func (a *API) get(x *exchange, r *http.Request) {
	if !x.admit(r, 0) {
		return
	}
	req, p, err := a.readRequest(x, r)
	if err != nil {
		x.fail(r, err)
		return
	}
	began := time.Now()
	req.Span = x.course.Operation("get", req.Key)
	res, err := a.cfg.Store.Get(x.until(r, p.timeout), req)
	x.course.Read(req.Span, req.Key, began, &res, err)
	if err != nil {
		x.fail(r, err)
		return
	}
	token, err := a.cfg.Tokens.Encode(req.Key, causal.Context{Vector: res.Set.Clock}, res.Set.Siblings)
	if err != nil {
		x.fail(r, err)
		return
	}
	for i := range res.Set.Siblings {
		x.hold(len(res.Set.Siblings[i].Value))
	}
	x.Header()["Kv-Context"] = x.value(token)
	if p.explain {
		x.Header()["Kv-Explain"] = []string{explainHeader(res)}
	}
	view := edge.ViewOf(res.Set)
	if p.etag != "" {
		if view, err = view.Pick(p.etag); err != nil {
			a.absent(x, r, p, res, err)
			return
		}
	}
	switch view.Status {
	case http.StatusOK:
		a.answerValue(x, r, view, req.Context != nil)
	case http.StatusMultipleChoices:
		a.answerSiblings(x, r, p, req.Key, token, view, res)
	default:
		a.absent(x, r, p, res, problem.ErrNoValue)
	}
}

// readRequest checks all there is to check of a read before any node is asked.
func (a *API) readRequest(x *exchange, r *http.Request) (coordinator.GetRequest, readParams, error) {
	key, err := parseKey(r.URL, kvPrefix)
	if err != nil {
		return coordinator.GetRequest{}, readParams{}, err
	}
	if err := x.allow(access.Get, key); err != nil {
		return coordinator.GetRequest{}, readParams{}, err
	}
	p, err := parseRead(r.URL.RawQuery)
	if err != nil {
		return coordinator.GetRequest{}, p, err
	}
	if x.idFault != nil {
		return coordinator.GetRequest{}, p, x.idFault
	}
	seen, err := a.clientContext(key, r)
	if err != nil {
		return coordinator.GetRequest{}, p, err
	}
	return coordinator.GetRequest{Key: key, R: p.r, Context: seen, Explain: p.explain, SlowAfter: x.course.SlowAfter(), Trace: x.requestID}, p, nil
}

// clientContext returns the context that came with a request for key; nil for none. Errors wrap causal.ErrToken.
func (a *API) clientContext(key []byte, r *http.Request) (*causal.Context, error) {
	lines, ok := r.Header["Kv-Context"]
	if !ok {
		return nil, nil
	}
	if len(lines) != 1 {
		return nil, fmt.Errorf("%w: there are %d of them", causal.ErrToken, len(lines))
	}
	c, err := a.cfg.Tokens.Decode(key, lines[0])
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// answerValue answers with one value, or 304 where the client has it.
func (a *API) answerValue(x *exchange, r *http.Request, view edge.View, withContext bool) {
	h := x.Header()
	s := &view.Shown[0]
	etag := `"` + view.ETag() + `"`
	h["Etag"] = x.value(etag)
	h["Cache-Control"] = a.common.noCache
	if withContext {
		// What a client may see depends on what it saw: no cache knows that.
		h["Cache-Control"] = a.common.noStore
	}
	if matchesETag(r, etag, true) {
		x.WriteHeader(http.StatusNotModified)
		return
	}
	a.lastModified(x, view)
	x.answer(http.StatusOK, x.value(contentTypeOf(s)), s.Value)
}

func contentTypeOf(s *causal.Sibling) string {
	if s.ContentType == "" {
		return edge.DefaultContentType
	}
	return s.ContentType
}

func (a *API) lastModified(x *exchange, view edge.View) {
	if t := view.LastModified(a.cfg.Now()); !t.IsZero() {
		x.Header()["Last-Modified"] = x.value(t.UTC().Format(http.TimeFormat))
	}
}

// answerSiblings answers with all siblings: 300, or 409 where the client asked for that, or 304 where it names exactly
// these siblings.
func (a *API) answerSiblings(x *exchange, r *http.Request, p readParams, key []byte, token string, view edge.View,
	res coordinator.GetResult) {
	h := x.Header()
	etag := `"` + view.ETag() + `"`
	h["Etag"] = x.value(etag)
	h["Cache-Control"] = a.common.noStore
	status := http.StatusMultipleChoices
	if p.conflictError {
		status = http.StatusConflict
	} else if matchesETag(r, etag, false) {
		x.WriteHeader(http.StatusNotModified)
		return
	}
	a.lastModified(x, view)
	if prefersMultipart(r.Header["Accept"]) {
		boundary := chooseBoundary(view)
		x.answer(status, x.value(multipartType+`; boundary="`+boundary+`"`), appendMultipart(nil, view, boundary))
		return
	}
	var reports []coordinator.Report
	if p.explain {
		reports = res.Reports
		if reports == nil {
			reports = []coordinator.Report{}
		}
	}
	x.answer(status, a.common.typeSiblings, appendSiblings(nil, key, token, view, reports))
}

// absent answers 404. Its context, which is already in the header, covers what was deleted.
func (a *API) absent(x *exchange, r *http.Request, p readParams, res coordinator.GetResult, err error) {
	prob := problem.Of(err, false, x.requestID)
	if p.explain {
		prob.Replicas = res.Reports
	}
	x.failWith(r, prob, err)
}

// matchesETag says whether If-None-Match names etag, weakly compared. A "*" counts where star is set.
func matchesETag(r *http.Request, etag string, star bool) bool {
	for _, line := range r.Header["If-None-Match"] {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.Trim(part, " \t")
			if strings.TrimPrefix(part, "W/") == etag || star && part == "*" {
				return true
			}
		}
	}
	return false
}

// prefersMultipart says whether Accept asks for multipart/mixed rather than JSON. Where both are as welcome, JSON is it.
func prefersMultipart(accept []string) bool {
	multipart, json, any := -1.0, -1.0, -1.0
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			q := quality(params)
			switch strings.ToLower(strings.Trim(name, " \t")) {
			case multipartType:
				multipart = q
			case "multipart/*":
				multipart = max(multipart, q)
			case siblingsType, "application/json", "application/*":
				json = max(json, q)
			case "*/*":
				any = q
			}
		}
	}
	// A client that names multipart/mixed and else takes anything, as Riak's do, asks for multipart/mixed.
	if json < 0 && any > 0 && multipart < any {
		json = any
	}
	return multipart > 0 && multipart > json
}

// quality returns the q of a media range's parameters, 1 without one, 0 for one that makes no sense.
func quality(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		name, value, ok := strings.Cut(strings.Trim(param, " \t"), "=")
		if !ok || !strings.EqualFold(name, "q") {
			continue
		}
		q, err := strconv.ParseFloat(value, 64)
		if err != nil || q < 0 || q > 1 {
			return 0
		}
		return q
	}
	return 1
}
