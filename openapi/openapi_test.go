package openapi_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/dotring/dotring/openapi"
)

func load(data []byte) (*openapi3.T, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(data)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(loader.Context, openapi3.EnableExamplesValidation(), openapi3.EnableSchemaPatternValidation())
}

// TestDocumentIsValid parses the document as OpenAPI 3.1, and validates it, examples and all.
func TestDocumentIsValid(t *testing.T) {
	doc, err := load(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || !doc.IsOpenAPI31OrLater() {
		t.Errorf("the document says it is OpenAPI %s", doc.OpenAPI)
	}
}

// TestValidationCanFail breaks the document in ways that the validation must notice.
func TestValidationCanFail(t *testing.T) {
	for name, change := range map[string][2]string{
		"no title":                     {"  title: Dotring\n", ""},
		"reference to nothing":         {"#/components/schemas/Problem'", "#/components/schemas/Nothing'"},
		"answer without description":   {"      description: 'Several siblings, under `conflict=error`.'\n", ""},
		"operation id twice":           {"operationId: headValue", "operationId: getValue"},
		"unknown type":                 {"type: integer", "type: number-like"},
		"pattern that is none":         {"pattern: '^[0-9a-f]{32}$'", "pattern: '^[0-9a-f{32}$'"},
		"example of another shape":     {"slot: 713211", "slot: somewhere"},
		"example with a property less": {"                    gateway: gateway1\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			broken := bytes.Replace(openapi.Document, []byte(change[0]), []byte(change[1]), 1)
			if bytes.Equal(broken, openapi.Document) {
				t.Fatalf("%q is not in the document", change[0])
			}
			if _, err := load(broken); err == nil {
				t.Error("no complaint")
			}
		})
	}
}

// TestEveryOperationHasExamples looks for an example in each body that an operation takes or answers with, and for a
// summary and an id.
func TestEveryOperationHasExamples(t *testing.T) {
	doc, err := load(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			where := method + " " + path
			if op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s has no id, summary or tag", where)
			}
			if op.RequestBody != nil {
				requireExamples(t, where, op.RequestBody.Value.Content)
			}
			for status, r := range op.Responses.Map() {
				if method == "HEAD" && len(r.Value.Content) > 0 {
					t.Errorf("%s has a body for %s", where, status)
				}
				requireExamples(t, where+" "+status, r.Value.Content)
			}
			for _, p := range append(op.Parameters, item.Parameters...) {
				v := p.Value
				if v.Example == nil && len(v.Examples) == 0 && len(v.Schema.Value.Enum) == 0 || v.Description == "" {
					t.Errorf("%s: parameter %s has no example or no description", where, v.Name)
				}
			}
		}
	}
}

func requireExamples(t *testing.T, where string, content openapi3.Content) {
	t.Helper()
	for kind, media := range content {
		if media.Example == nil && len(media.Examples) == 0 {
			t.Errorf("%s: %s has no example", where, kind)
		}
	}
}

// TestNothingIsUnused holds every component to being referred to, or being named among the answers of no operation.
func TestNothingIsUnused(t *testing.T) {
	doc, err := load(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	require := func(kind, name string) {
		t.Helper()
		if !strings.Contains(string(openapi.Document), "'#/components/"+kind+"/"+name+"'") && !strings.Contains(doc.Info.Description, "`"+name+"`") {
			t.Errorf("%s %s is used nowhere", kind, name)
		}
	}
	for name := range doc.Components.Schemas {
		require("schemas", name)
	}
	for name := range doc.Components.Responses {
		require("responses", name)
	}
	for name := range doc.Components.Headers {
		require("headers", name)
	}
	for name := range doc.Components.Parameters {
		require("parameters", name)
	}
	for name := range doc.Components.Examples {
		require("examples", name)
	}
}
