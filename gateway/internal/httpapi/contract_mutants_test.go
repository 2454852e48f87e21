package httpapi_test

import (
	"bytes"
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/dotring/dotring/openapi"
)

// operation is one operation of the document.
type operation struct {
	path, method string
	item         *openapi3.PathItem
	op           *openapi3.Operation
}

func (o operation) String() string { return o.method + " " + o.path }

// operations returns every operation of a document in a fixed order.
func operations(doc *openapi3.T) (out []operation) {
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			out = append(out, operation{path, method, item, op})
		}
	}
	slices.SortFunc(out, func(a, b operation) int {
		return cmp.Or(strings.Compare(a.path, b.path), strings.Compare(a.method, b.method))
	})
	return out
}

// requireComplaint fails unless some fault has all of these words.
func requireComplaint(t *testing.T, faults []string, words ...string) {
	t.Helper()
	for _, f := range faults {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f, w) }) {
			return
		}
	}
	t.Errorf("no complaint about %q among %q", words, faults)
}

// some are every sixth of all operations where tests are to be short: one goroutine judges, and the race detector has little to find.
func some(all []operation) []operation {
	if !testing.Short() {
		return all
	}
	var out []operation
	for i := 0; i < len(all); i += 6 {
		out = append(out, all[i])
	}
	return out
}

// TestContractSeesWhatTheDocumentLacks takes every operation, status, media type, problem, header and parameter out of the
// document in turn. What is left is less than what is served, and the check must say so.
func TestContractSeesWhatTheDocumentLacks(t *testing.T) {
	s, doc := drive(t), loadDocument(t, openapi.Document)
	if faults := judge(doc, s); len(faults) > 0 {
		t.Fatalf("before anything is taken out: %q", faults)
	}
	taken, done := 0, map[*openapi3.Response]bool{}
	for _, o := range some(operations(doc)) {
		t.Run(o.String(), func(t *testing.T) {
			o.item.SetOperation(o.method, nil)
			requireComplaint(t, judge(doc, s), o.String()+" is served, and is not in the document")
			o.item.SetOperation(o.method, o.op)
			for status, ref := range maps.Clone(o.op.Responses.Map()) {
				o.op.Responses.Delete(status)
				requireComplaint(t, judge(doc, s), o.String()+" answers "+status)
				o.op.Responses.Set(status, ref)
				for kind, media := range maps.Clone(ref.Value.Content) {
					delete(ref.Value.Content, kind)
					requireComplaint(t, judge(doc, s), o.String()+" "+status, "is not in the document")
					ref.Value.Content[kind] = media
					taken++
				}
				for name, header := range maps.Clone(ref.Value.Headers) {
					if done[ref.Value] {
						break // another operation answers so too
					}
					delete(ref.Value.Headers, name)
					requireComplaint(t, judge(doc, s), "the header "+http.CanonicalHeaderKey(name), "is not in the document")
					ref.Value.Headers[name] = header
					taken++
				}
				done[ref.Value] = true
				list, all := ref.Value.Extensions["x-problems"], listed(ref.Value)
				for i, slug := range all {
					less := []any{}
					for _, other := range slices.Delete(slices.Clone(all), i, i+1) {
						less = append(less, other)
					}
					ref.Value.Extensions["x-problems"] = less
					requireComplaint(t, judge(doc, s), o.String()+" "+status, "the problem "+slug)
					taken++
				}
				if len(all) > 0 {
					ref.Value.Extensions["x-problems"] = list
				}
				taken++
			}
			parameters := o.op.Parameters
			for i, p := range parameters {
				if p.Value.In == "query" {
					o.op.Parameters = slices.Delete(slices.Clone(parameters), i, i+1)
					requireComplaint(t, judge(doc, s), o.String()+" takes the parameter "+p.Value.Name)
					taken++
				}
			}
			o.op.Parameters = parameters
		})
	}
	if faults := judge(doc, s); len(faults) > 0 {
		t.Errorf("not all was put back: %q", faults)
	}
	if taken < 300 && !testing.Short() {
		t.Errorf("only %d parts were taken out", taken)
	}
}

// TestContractSeesWhatIsNotServed takes every operation and status out of what is served, and adds what no document has.
func TestContractSeesWhatIsNotServed(t *testing.T) {
	s, doc := drive(t), loadDocument(t, openapi.Document)
	without := func(drop func(x *exchanged) bool) *served {
		return &served{exchanges: slices.DeleteFunc(slices.Clone(s.exchanges), func(x exchanged) bool { return drop(&x) }), methods: s.methods}
	}
	of := func(x *exchanged, o operation) bool {
		return x.call.method == o.method && pathOf(x.call.target) == o.path
	}
	for _, o := range some(operations(doc)) {
		t.Run(o.String(), func(t *testing.T) {
			less := &served{exchanges: s.exchanges, methods: maps.Clone(s.methods)}
			less.methods[o.path] = slices.DeleteFunc(slices.Clone(s.methods[o.path]), func(m string) bool { return m == o.method })
			requireComplaint(t, judge(doc, less), o.String()+" is in the document, and is not served")
			for status, ref := range o.op.Responses.Map() {
				is := func(x *exchanged) bool { return of(x, o) && strconv.Itoa(x.status) == status }
				requireComplaint(t, judge(doc, without(is)), o.String()+" "+status+" is in the document, and was never seen")
				for kind := range ref.Value.Content {
					requireComplaint(t, judge(doc, without(func(x *exchanged) bool { return is(x) && (x.media == kind || kind == "*/*") })),
						o.String()+" "+status+" "+kind, "never seen")
				}
				for _, slug := range listed(ref.Value) {
					requireComplaint(t, judge(doc, without(func(x *exchanged) bool { return is(x) && x.slug == slug })),
						o.String()+" "+status+" "+slug, "never seen")
				}
			}
			for _, p := range o.op.Parameters {
				named := func(x *exchanged) bool {
					return of(x, o) && (strings.Contains(x.call.target, p.Value.Name+"=") || x.call.header[http.CanonicalHeaderKey(p.Value.Name)] != nil)
				}
				requireComplaint(t, judge(doc, without(named)), o.String()+" "+p.Value.In, "never seen")
			}
			more := &served{exchanges: append(slices.Clone(s.exchanges), exchanged{call: call{o.method, strings.Replace(o.path, "{key}", "k", 1), nil, ""}, status: 418}), methods: s.methods}
			requireComplaint(t, judge(doc, more), o.String()+" answers 418")
		})
	}
	for _, added := range []struct{ path, method string }{{"/v1/kv:batchFrob", "POST"}, {"/v1/kv/{key}", "PATCH"}, {"/admin/", "GET"}} {
		more := &served{exchanges: s.exchanges, methods: maps.Clone(s.methods)}
		more.methods[added.path] = append(slices.Clone(more.methods[added.path]), added.method)
		requireComplaint(t, judge(doc, more), added.path, "is served, and is not in the document")
	}
}

// TestContractSeesOtherShapes changes what the document says of bodies, headers, parameters and problems.
func TestContractSeesOtherShapes(t *testing.T) {
	s := drive(t)
	for _, c := range []struct {
		name, on, from, to string // on is in the target of the requests to look at
		complaint          []string
	}{
		{"nothing", "", "    Written:\n      type: object\n", "    Written:\n      type: object\n", nil},
		{"property less", "written", "        hinted: { type: integer, minimum: 0, description: 'Of them, stand-ins.' }\n", "", []string{"PUT /v1/kv/written-PUT", "hinted"}},
		{"property more", "written", "        acks: { type: integer, minimum: 0, description: Distinct machines that hold the write durably. }\n",
			"        acks: { type: integer }\n        colour: { type: string }\n", []string{"Written.colour", "never seen"}},
		{"other type", "keys/both", "slot: { type: integer, minimum: 0, maximum: 1048575 }", "slot: { type: string }", []string{"/v1/cluster/keys/both 200", "string"}},
		{"narrower enum", "nodes", "enum: [alive, failed, leaving, left, unknown]", "enum: [failed]", []string{"/v1/cluster/nodes 200"}},
		{"narrower header", "healthz", "enum: [nosniff]", "enum: [sniff]", []string{"X-Content-Type-Options"}},
		{"narrower parameter", "written", "pattern: '^(one|quorum|all|[1-9][0-9]?)$'", "pattern: '^all$'", []string{"request", "parameter \"w\""}},
		{"shorter name", "written", "    RequestID:\n      type: string\n      minLength: 1\n      maxLength: 64", "    RequestID:\n      type: string\n      minLength: 1\n      maxLength: 3", []string{"Kv-Request-Id"}},
		{"item of a batch", "batchPut", "content_type: { type: string, description: 'At most 255 bytes,", "content_type: { type: integer, description: 'At most 255 bytes,", []string{"/v1/kv:batchPut", "request"}},
		{"explanation", "kv/both", "etag: { $ref: '#/components/schemas/ID' }\n        tombstone: { type: boolean }\n    Written", "etag: { type: integer }\n        tombstone: { type: boolean }\n    Written", []string{"Kv-Explain"}},
		{"problem in no answer", "none", "status: 503, title: Stale read }", "status: 503, title: Stale read, unserved: 'No.' }", []string{"problem stale-read"}},
		{"problem that is not listed", "none", "        - { type: /problems/disk-full, status: 507, title: Replicas out of disk }\n", "", []string{"problem disk-full is not in the list"}},
		{"problem that is listed twice over", "none", "        - { type: /problems/disk-full,", "        - { type: /problems/disk-empty, status: 507, title: x }\n        - { type: /problems/disk-full,", []string{"problem disk-empty"}},
		{"answer of no operation", "none", "        - { type: /problems/no-such-path,", "        - { type: /problems/no-such-path, unserved: 'No.',", []string{"problem no-such-path"}},
		{"path parameter", "kv/written", "      schema: { type: string, minLength: 1 }\n      examples:\n        text: { value: greeting }", "      schema: { type: string, minLength: 1, maxLength: 5 }\n      examples:\n        text: { value: greet }", []string{"request", "\"key\""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !bytes.Contains(openapi.Document, []byte(c.from)) {
				t.Fatalf("%q is not in the document", c.from)
			}
			// Examples of the document need not go with the change.
			loader := openapi3.NewLoader()
			doc, err := loader.LoadFromData(bytes.Replace(openapi.Document, []byte(c.from), []byte(c.to), 1))
			if err != nil {
				t.Fatal(err)
			}
			faults := check(t, doc, s, c.on)
			if c.complaint == nil {
				if len(faults) > 0 {
					t.Errorf("a document that is unchanged: %q", faults)
				}
				return
			}
			requireComplaint(t, faults, c.complaint...)
		})
	}
}
