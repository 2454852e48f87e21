package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/dotring/dotring/openapi"
)

// exchanged is one request as it was sent, and its answer.
type exchanged struct {
	call   call
	bad    bool // the request itself breaks the document
	status int
	header http.Header
	body   []byte
	media  string // media type of the answer without parameters; empty where there is no body
	slug   string // of the answer's problem
}

// served is what the router was seen to do.
type served struct {
	exchanges []exchanged
	// methods are the methods that each path takes, in terms of the document's paths.
	methods map[string][]string
}

// pathOf returns the document's path for a request target or a pattern of the router.
func pathOf(target string) string {
	path, _, _ := strings.Cut(target, "?")
	for _, prefix := range []string{"/v1/kv/", "/v1/cluster/keys/"} {
		if strings.HasPrefix(path, prefix) {
			return prefix + "{key}"
		}
	}
	if strings.HasPrefix(path, "/ui/") && path != "/ui/" {
		return "/ui/{file}"
	}
	if rest, ok := strings.CutPrefix(path, "/v1/cluster/nodes/"); ok {
		for _, colon := range []string{"%3A", "%3a", ":"} {
			if _, verb, found := strings.Cut(rest, colon); found {
				return "/v1/cluster/nodes/{node}:" + verb
			}
		}
	}
	for _, colon := range []string{"%3A", "%3a"} {
		path = strings.Replace(path, "/v1/kv"+colon, "/v1/kv:", 1)
		path = strings.Replace(path, "/v1/cluster"+colon, "/v1/cluster:", 1)
	}
	return path
}

func loadDocument(t *testing.T, text []byte) *openapi3.T {
	t.Helper()
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(loader.Context); err != nil {
		t.Fatal(err)
	}
	return doc
}

// listed returns the problems that an answer may carry, without their prefix.
func listed(r *openapi3.Response) []string {
	var out []string
	list, ok := r.Extensions["x-problems"].([]any)
	for _, v := range list {
		if s, is := v.(string); ok && is {
			out = append(out, s)
		}
	}
	return out
}

// outside are the answers that belong to no operation, by status.
var outside = map[int]string{204: "Preflight", 404: "NoSuchPath", 405: "MethodNotAllowed"}

// responseOf returns what the document says of an answer: nil where it says nothing.
func responseOf(doc *openapi3.T, x *exchanged) (op *openapi3.Operation, res *openapi3.Response) {
	if item := doc.Paths.Value(pathOf(x.call.target)); item != nil {
		op = operationOf(item, x.call.method)
	}
	if op == nil {
		if ref := doc.Components.Responses[outside[x.status]]; ref != nil {
			return nil, ref.Value
		}
		return nil, nil
	}
	if ref := op.Responses.Status(x.status); ref != nil {
		return op, ref.Value
	}
	return op, nil
}

func operationOf(item *openapi3.PathItem, method string) *openapi3.Operation {
	switch method {
	case "GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE":
		return item.GetOperation(method)
	default:
		return nil // the library panics at methods that it does not know
	}
}

// plain are headers that HTTP itself describes.
var plain = []string{"Content-Type", "Content-Length", "Date", "Connection"}

// marks are the parts of the document that were seen in use.
type marks map[string]bool

func (m marks) see(parts ...string) { m[strings.Join(parts, " ")] = true }

// judge compares what the document says with what the router does, in both directions, and returns every difference.
func judge(doc *openapi3.T, s *served) []string {
	seen := marks{}
	var faults []string
	for path, methods := range s.methods {
		item := doc.Paths.Value(path)
		if item == nil {
			faults = append(faults, fmt.Sprintf("%s is served, and is not in the document", path))
			continue
		}
		for _, method := range methods {
			if operationOf(item, method) == nil {
				faults = append(faults, fmt.Sprintf("%s %s is served, and is not in the document", method, path))
			}
		}
	}
	for i := range s.exchanges {
		faults = append(faults, compare(doc, &s.exchanges[i], seen)...)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !slices.Contains(s.methods[path], method) {
				faults = append(faults, fmt.Sprintf("%s %s is in the document, and is not served", method, path))
			}
			faults = append(faults, unseen(path, method, op, item.Parameters, seen)...)
		}
	}
	for name, ref := range doc.Components.Responses {
		for header := range ref.Value.Headers {
			if !seen[fmt.Sprintf("header %p %s", ref.Value, header)] {
				faults = append(faults, fmt.Sprintf("no answer %s has the header %s", name, header))
			}
		}
	}
	return append(faults, catalogFaults(doc)...)
}

// compare holds one exchange, without its body, against the document.
func compare(doc *openapi3.T, x *exchanged, seen marks) (faults []string) {
	where := fmt.Sprintf("%s %s", x.call.method, pathOf(x.call.target))
	op, res := responseOf(doc, x)
	if res == nil {
		return []string{fmt.Sprintf("%s answers %d, and the document does not say so", where, x.status)}
	}
	status := strconv.Itoa(x.status)
	seen.see(where, status)
	if x.media != "" {
		kind := x.media
		if res.Content["*/*"] != nil {
			kind = "*/*"
		}
		if res.Content[kind] == nil {
			faults = append(faults, fmt.Sprintf("%s %s: %s is not in the document", where, status, kind))
		}
		seen.see(where, status, kind)
	}
	if x.slug != "" {
		if !slices.Contains(listed(res), x.slug) {
			faults = append(faults, fmt.Sprintf("%s %s: the problem %s is not in the document", where, status, x.slug))
		}
		seen.see(where, status, x.slug)
	}
	documented := map[string]string{}
	for name := range res.Headers {
		documented[http.CanonicalHeaderKey(name)] = name
	}
	for name := range x.header {
		if slices.Contains(plain, name) {
			continue
		}
		if documented[name] == "" {
			faults = append(faults, fmt.Sprintf("%s %s: the header %s is not in the document", where, status, name))
		}
		seen.see("header", fmt.Sprintf("%p", res), documented[name])
	}
	for name, ref := range res.Headers {
		if ref.Value.Required && x.header[http.CanonicalHeaderKey(name)] == nil {
			faults = append(faults, fmt.Sprintf("%s %s: no header %s", where, status, name))
		}
	}
	if op != nil && !x.bad {
		_, query, _ := strings.Cut(x.call.target, "?")
		values, _ := url.ParseQuery(query)
		for name := range values {
			if op.Parameters.GetByInAndName("query", name) == nil {
				faults = append(faults, fmt.Sprintf("%s takes the parameter %s, and the document does not say so", where, name))
			}
			seen.see(where, "query", name)
		}
		for name := range x.call.header {
			seen.see(where, "header", name)
		}
	}
	return faults
}

// unseen returns what of one operation was not exercised.
func unseen(path, method string, op *openapi3.Operation, shared openapi3.Parameters, seen marks) (faults []string) {
	where := method + " " + path
	complain := func(parts ...string) {
		if what := strings.Join(parts, " "); !seen[what] {
			faults = append(faults, what+" is in the document, and was never seen")
		}
	}
	for status, ref := range op.Responses.Map() {
		complain(where, status)
		for kind := range ref.Value.Content {
			complain(where, status, kind)
		}
		for _, slug := range listed(ref.Value) {
			complain(where, status, slug)
		}
		for header := range ref.Value.Headers {
			complain("header", fmt.Sprintf("%p", ref.Value), header)
		}
	}
	for _, p := range slices.Concat(op.Parameters, shared) {
		switch p.Value.In {
		case "query":
			complain(where, "query", p.Value.Name)
		case "header":
			complain(where, "header", http.CanonicalHeaderKey(p.Value.Name))
		}
	}
	return faults
}

// catalogFaults holds the list of all problem types against what answers may carry.
func catalogFaults(doc *openapi3.T) (faults []string) {
	carried := map[string]bool{}
	for _, ref := range doc.Components.Responses {
		for _, slug := range listed(ref.Value) {
			carried[slug] = true
		}
	}
	list, _ := doc.Components.Schemas["Problem"].Value.Extensions["x-problem-types"].([]any)
	for _, v := range list {
		entry, _ := v.(map[string]any)
		slug := strings.TrimPrefix(fmt.Sprint(entry["type"]), "/problems/")
		if _, unserved := entry["unserved"]; unserved == carried[slug] {
			faults = append(faults, fmt.Sprintf("problem %s: unserved is %v, some answer carries it: %v", slug, unserved, carried[slug]))
		}
		delete(carried, slug)
	}
	for slug := range carried {
		faults = append(faults, fmt.Sprintf("problem %s is not in the list of all", slug))
	}
	return faults
}

// property is one property of a schema.
type property struct {
	of   *openapi3.Schema
	name string
}

// shapes validates bodies and values, and notes which properties of which schemas there were.
type shapes struct {
	doc  *openapi3.T
	seen map[property]bool
}

// newShapes closes the document's schemas, so that a property that the document lacks is a fault. For clients they are
// open: a later version may add some.
func newShapes(doc *openapi3.T) *shapes {
	closed := false
	for _, ref := range doc.Components.Schemas {
		for _, s := range variants(ref.Value) {
			if len(s.Properties) > 0 {
				s.AdditionalProperties = openapi3.AdditionalProperties{Has: &closed}
			}
		}
	}
	return &shapes{doc: doc, seen: map[property]bool{}}
}

func variants(s *openapi3.Schema) []*openapi3.Schema {
	out := []*openapi3.Schema{s}
	for _, ref := range s.OneOf {
		out = append(out, variants(ref.Value)...)
	}
	return out
}

func (s *shapes) walk(schema *openapi3.Schema, v any) {
	for _, one := range variants(schema) {
		switch v := v.(type) {
		case map[string]any:
			for name, value := range v {
				if p := one.Properties[name]; p != nil {
					s.seen[property{one, name}] = true
					s.walk(p.Value, value)
				}
			}
		case []any:
			for _, value := range v {
				if one.Items != nil {
					s.walk(one.Items.Value, value)
				}
			}
		}
	}
}

// neverSeen returns the properties of named schemas that were in no request or answer.
func (s *shapes) neverSeen() (faults []string) {
	for name, ref := range s.doc.Components.Schemas {
		for _, one := range variants(ref.Value) {
			for p := range one.Properties {
				if !s.seen[property{one, p}] {
					faults = append(faults, fmt.Sprintf("%s.%s is in the document, and was never seen", name, p))
				}
			}
		}
	}
	return faults
}

// validate holds a whole exchange against the document: parameters and body of the request unless it is bad on purpose,
// headers and body of the answer.
func (s *shapes) validate(t *testing.T, x *exchanged) (faults []string) {
	op, res := responseOf(s.doc, x)
	if res == nil {
		return nil // compare has said so
	}
	where := fmt.Sprintf("%s %s %d", x.call.method, x.call.target, x.status)
	path := pathOf(x.call.target)
	item := s.doc.Paths.Value(path)
	if op == nil {
		// An answer of no operation is held against an operation that has it alone.
		op = &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(x.status, &openapi3.ResponseRef{Value: res}))}
		item = &openapi3.PathItem{}
	}
	in := s.input(t, x, path, item, op)
	if !x.bad {
		if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil {
			faults = append(faults, fmt.Sprintf("%s: request: %v", where, err))
		}
		if op.RequestBody != nil && op.RequestBody.Value.Content["application/json"] != nil {
			s.walk(op.RequestBody.Value.Content["application/json"].Schema.Value, decoded(t, []byte(x.call.body)))
		}
	}
	raw := res.Content["*/*"] != nil || x.media == "multipart/mixed"
	out := (&openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: x.status, Header: x.header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: raw}}).SetBodyBytes(x.body)
	if x.call.method == http.MethodHead || x.status == http.StatusNotModified {
		// The library looks at none of these; their headers are as those of a GET.
		in.Request.Method, out.Options.ExcludeResponseBody = http.MethodGet, true
		if len(x.body) > 0 {
			faults = append(faults, where+": there is a body")
		}
	}
	if err := openapi3filter.ValidateResponse(t.Context(), out); err != nil {
		faults = append(faults, fmt.Sprintf("%s: answer: %v", where, err))
	}
	if media := res.Content[x.media]; media != nil && strings.HasSuffix(x.media, "json") {
		s.walk(media.Schema.Value, decoded(t, x.body))
	}
	if x.media == "multipart/mixed" {
		faults = append(faults, partsFaults(where, x)...)
	}
	if line := x.header.Get("Kv-Explain"); line != "" {
		schema, v := s.doc.Components.Schemas["Explanation"].Value, decoded(t, []byte(line))
		s.walk(schema, v)
		if err := schema.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
			faults = append(faults, fmt.Sprintf("%s: Kv-Explain: %v", where, err))
		}
	}
	return faults
}

func (s *shapes) input(t *testing.T, x *exchanged, path string, item *openapi3.PathItem, op *openapi3.Operation) *openapi3filter.RequestValidationInput {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), x.call.method, "http://test"+x.call.target, strings.NewReader(x.call.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = x.call.header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	raw := op.RequestBody != nil && op.RequestBody.Value.Content["*/*"] != nil
	if r.Header.Get("Content-Type") == "" && !raw && x.call.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: map[string]string{},
		Route: &routers.Route{Spec: s.doc, Path: path, PathItem: item, Method: x.call.method, Operation: op},
		Options: &openapi3filter.Options{ExcludeRequestBody: raw, RejectWhenRequestBodyNotSpecified: true, SkipSettingDefaults: true,
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if prefix, ok := strings.CutSuffix(path, "{key}"); ok {
		in.PathParams["key"] = strings.TrimPrefix(r.URL.Path, prefix)
	}
	if prefix, verb, ok := strings.Cut(path, "{node}"); ok {
		in.PathParams["node"] = strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, prefix), verb)
	}
	if prefix, ok := strings.CutSuffix(path, "{file}"); ok {
		in.PathParams["file"] = strings.TrimPrefix(r.URL.Path, prefix)
	}
	return in
}

func decoded(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// partsFaults reads a multipart answer, whose parts the document describes in words.
func partsFaults(where string, x *exchanged) (faults []string) {
	_, params, err := mime.ParseMediaType(x.header.Get("Content-Type"))
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", where, err)}
	}
	parts := multipart.NewReader(bytes.NewReader(x.body), params["boundary"])
	n := 0
	for ; ; n++ {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return append(faults, fmt.Sprintf("%s: part %d: %v", where, n, err))
		}
		body, err := io.ReadAll(part)
		if err != nil || strconv.Itoa(len(body)) != part.Header.Get("Content-Length") || part.Header.Get("Etag") == "" {
			faults = append(faults, fmt.Sprintf("%s: part %d has %d bytes, %v: %v", where, n, len(body), part.Header, err))
		}
	}
	if n < 2 {
		faults = append(faults, fmt.Sprintf("%s: %d parts", where, n))
	}
	return faults
}

// check returns all that is wrong between a document and what is served. Of the exchanges whose target has on in it, the
// bodies are looked at too.
func check(t *testing.T, doc *openapi3.T, s *served, on string) []string {
	t.Helper()
	faults := judge(doc, s)
	shapes := newShapes(doc)
	for i := range s.exchanges {
		if strings.Contains(s.exchanges[i].call.target, on) {
			faults = append(faults, shapes.validate(t, &s.exchanges[i])...)
		}
	}
	faults = append(faults, shapes.neverSeen()...)
	slices.Sort(faults)
	return slices.Compact(faults)
}

// TestContract drives the real router through every operation and status of the document, and fails where one of them has
// what the other has not.
func TestContract(t *testing.T) {
	s := drive(t)
	for _, fault := range check(t, loadDocument(t, openapi.Document), s, "") {
		t.Error(fault)
	}
	if len(s.exchanges) < 150 {
		t.Errorf("only %d requests", len(s.exchanges))
	}
}
