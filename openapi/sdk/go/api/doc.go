// Package api is what oapi-codegen makes of openapi/openapi.yaml: its types, and a client for batches and for the cluster.
package api
