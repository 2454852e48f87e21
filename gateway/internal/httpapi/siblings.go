package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
)

const (
	siblingsType  = "application/vnd.dotring.siblings+json"
	multipartType = "multipart/mixed"
)

// appendSiblings appends the JSON of a record with several siblings. Values are standard base64 with padding. reports is
// nil where no one asked for them.
func appendSiblings(dst []byte, key []byte, token string, v edge.View, reports []coordinator.Report) []byte {
	size := 256 + len(token)
	for i := range v.Shown {
		size += 256 + base64.StdEncoding.EncodedLen(len(v.Shown[i].Value)) + len(v.Shown[i].ContentType)
	}
	if cap(dst)-len(dst) < size {
		dst = append(make([]byte, 0, len(dst)+size), dst...)
	}
	if utf8.Valid(key) {
		dst = append(dst, `{"key":`...)
		dst = appendString(dst, string(key))
	} else {
		dst = append(dst, `{"key_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, key)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"context":"`...)
	dst = append(dst, token...)
	dst = append(dst, `","siblings":[`...)
	for i := range v.Shown {
		s := &v.Shown[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"value":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, s.Value)
		dst = append(dst, `","content_type":`...)
		dst = appendString(dst, contentTypeOf(s))
		dst = append(dst, `,"etag":"`...)
		dst = append(dst, edge.Tag(s)...)
		dst = append(dst, `","last_modified":"`...)
		dst = edge.Time(s.Time).AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, `","tombstone":`...)
		dst = strconv.AppendBool(dst, s.Tombstone)
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	if reports != nil {
		dst = append(dst, `,"explain":`...)
		dst = append(dst, problem.ReportsJSON(reports, true)...)
	}
	return append(dst, '}')
}

// appendString appends s as a JSON string; what is not UTF-8 in it is replaced.
func appendString(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		return append(dst, `""`...)
	}
	return append(dst, b...)
}

// chooseBoundary returns a boundary that is in no value. It depends on the siblings alone, so that GET and HEAD agree on
// every gateway.
func chooseBoundary(v edge.View) string {
	base := "dotring-" + v.ETag()
	boundary := base
	for n := 1; boundaryTaken(v, boundary); n++ {
		boundary = base + "-" + strconv.Itoa(n)
	}
	return boundary
}

func boundaryTaken(v edge.View, boundary string) bool {
	for i := range v.Shown {
		if bytes.Contains(v.Shown[i].Value, []byte(boundary)) {
			return true
		}
	}
	return false
}

// appendMultipart appends the siblings as the parts of a multipart/mixed body (RFC 2046). A tombstone is an empty part
// with Kv-Tombstone.
func appendMultipart(dst []byte, v edge.View, boundary string) []byte {
	for i := range v.Shown {
		s := &v.Shown[i]
		dst = append(append(append(dst, "--"...), boundary...), "\r\nContent-Type: "...)
		dst = append(append(dst, contentTypeOf(s)...), "\r\nETag: \""...)
		dst = append(append(dst, edge.Tag(s)...), "\"\r\nLast-Modified: "...)
		dst = append(edge.Time(s.Time).AppendFormat(dst, http.TimeFormat), "\r\n"...)
		if s.Tombstone {
			dst = append(dst, "Kv-Tombstone: true\r\n"...)
		}
		dst = append(dst, "Content-Length: "...)
		dst = append(strconv.AppendInt(dst, int64(len(s.Value)), 10), "\r\n\r\n"...)
		dst = append(append(dst, s.Value...), "\r\n"...)
	}
	return append(append(append(dst, "--"...), boundary...), "--\r\n"...)
}
