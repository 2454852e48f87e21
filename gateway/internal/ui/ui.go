// Package ui is the dashboard and the explorer of the API: pages and their parts, which a browser runs against
// the public HTTP API.
package ui

import (
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/zeebo/xxh3"
	"go.yaml.in/yaml/v3"
)

// Policy is the Content-Security-Policy of every file. Stored values share the origin with the page, so that it runs
// nothing but its own files, makes no markup from text (trusted types: an assignment to innerHTML throws), asks no other
// origin for anything, and is shown in no frame.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Index is the name of the dashboard's page, Explorer of the API explorer's.
const (
	Index    = "index.html"
	Explorer = "docs.html"
)

//go:embed static
var static embed.FS

// File is one file of the dashboard. Its fields are shared and must not be modified.
type File struct {
	Type string // media type
	ETag string // quoted; equal on all gateways that carry the same file
	Body []byte
}

// types are the kinds of files there are.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// DocumentName is the file that the explorer reads, which Document makes.
const DocumentName = "openapi.json"

// Document returns an OpenAPI document, given as YAML, as JSON: browsers read no YAML.
func Document(yamlText []byte) (File, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(yamlText, &doc); err != nil {
		return File{}, fmt.Errorf("read document: %w", err)
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return File{}, fmt.Errorf("write document: %w", err)
	}
	return newFile("application/json", body), nil
}

func newFile(kind string, body []byte) File {
	sum := xxh3.Hash128(body).Bytes()
	return File{Type: kind, ETag: `"` + hex.EncodeToString(sum[:]) + `"`, Body: body}
}

// Load returns all files by name. It errs when one is of a kind that browsers would have to guess.
func Load() (map[string]File, error) {
	files := map[string]File{}
	entries, err := static.ReadDir("static")
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	for _, e := range entries {
		kind, known := types[path.Ext(e.Name())]
		if !known {
			return nil, fmt.Errorf("file %s has no known type", e.Name())
		}
		body, err := fs.ReadFile(static, path.Join("static", e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read file: %w", err)
		}
		files[e.Name()] = newFile(kind, body)
	}
	if _, ok := files[Index]; !ok {
		return nil, errors.New("there is no " + Index)
	}
	return files, nil
}
