package problem

import (
	"fmt"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/dotring/dotring/openapi"
)

// listedType is a problem type as the OpenAPI document lists it.
type listedType struct {
	Type, Title string
	Status      int
}

func listedTypes(t *testing.T, text []byte) []listedType {
	t.Helper()
	var doc struct {
		Components struct {
			Schemas struct {
				Problem struct {
					Types []listedType `yaml:"x-problem-types"`
				} `yaml:"Problem"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Components.Schemas.Problem.Types
}

// difference returns how a table and a list of the types differ.
func difference(table []httpRow, list []listedType) (faults []string) {
	var have []listedType
	for _, row := range slices.Concat(table, []httpRow{internalRow}) {
		if one := (listedType{TypePrefix + row.slug, row.title, row.status}); !slices.Contains(have, one) {
			have = append(have, one)
		}
	}
	for _, one := range have {
		if !slices.Contains(list, one) {
			faults = append(faults, fmt.Sprintf("%v is not in the document", one))
		}
	}
	for i, one := range list {
		if !slices.Contains(have, one) {
			faults = append(faults, fmt.Sprintf("%v is in no table", one))
		}
		if slices.Contains(list[:i], one) {
			faults = append(faults, fmt.Sprintf("%v is in the document twice", one))
		}
	}
	return faults
}

// TestDocumentListsEveryType holds the table against the OpenAPI document, in both directions.
func TestDocumentListsEveryType(t *testing.T) {
	list := listedTypes(t, openapi.Document)
	for _, fault := range difference(httpTable, list) {
		t.Error(fault)
	}
	for i, one := range list {
		if len(difference(httpTable, slices.Delete(slices.Clone(list), i, i+1))) == 0 {
			t.Errorf("nobody misses %v in the document", one)
		}
		// A type may have several rows: all of them go.
		less := slices.DeleteFunc(slices.Clone(httpTable), func(r httpRow) bool { return TypePrefix+r.slug == one.Type })
		if len(difference(less, list)) == 0 && one.Type != TypePrefix+internalRow.slug {
			t.Errorf("nobody misses %v in the table", one)
		}
	}
}
