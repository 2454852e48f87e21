// Package openapi holds the OpenAPI document of the gateway's HTTP API.
package openapi

import _ "embed"

// Document is openapi.yaml, the source of truth for generated clients. It is not to be modified.
//
//go:embed openapi.yaml
var Document []byte
