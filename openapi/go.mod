module github.com/dotring/dotring/openapi

go 1.26.0
