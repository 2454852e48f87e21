package httpapi

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/listing"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// list serves keys by prefix.
func (a *API) list(x *exchange, r *http.Request) {
	if !x.readOnly(r) || !x.admit(r, 0) {
		return
	}
	req, timeout, err := parseList(r.URL.RawQuery)
	if err == nil {
		err = x.idFault
	}
	if err != nil {
		x.fail(r, err)
		return
	}
	ctx, cancel := x.deadline(r, timeout)
	defer cancel()
	res, err := a.cfg.KV.ListKeys(access.With(edge.WithRequestID(ctx, x.requestID), x.who), req)
	if err != nil {
		x.fail(r, problem.FromStatus(err))
		return
	}
	body, err := newMarshaler().Marshal(res)
	if err != nil {
		x.fail(r, fmt.Errorf("encode answer: %w", err))
		return
	}
	x.Header()["Cache-Control"] = a.common.noStore
	x.answer(http.StatusOK, a.common.typeJSON, body)
}

// parseList reads the query of a listing. Errors wrap problem.ErrBadParameter.
func parseList(raw string) (*kvv1.ListKeysRequest, time.Duration, error) {
	req, timeout, seen := &kvv1.ListKeysRequest{}, edge.DefaultTimeout, 0
	err := eachParam(raw, func(name, value string) (err error) {
		bit := 0
		switch name {
		case "prefix":
			bit = 1
			if req.Prefix = value; !utf8.ValidString(value) {
				req.Prefix, req.PrefixBase64 = "", []byte(value)
			}
		case "prefix_base64":
			bit = 1 // it takes the place of prefix
			if req.PrefixBase64, err = base64.StdEncoding.Strict().DecodeString(value); err != nil {
				err = fmt.Errorf("%w: prefix_base64 is not base64", problem.ErrBadParameter)
			}
		case "limit":
			bit = 2
			var n int
			if n, err = strconv.Atoi(value); err != nil || value != strconv.Itoa(n) || n < 1 || n > listing.MaxLimit {
				return fmt.Errorf("%w: limit takes 1 to %d", problem.ErrBadParameter, listing.MaxLimit)
			}
			req.Limit = uint32(n)
		case "cursor":
			bit = 4
			req.Cursor = value
		case "timeout":
			bit = 8
			timeout, err = edge.ParseTimeout(value)
		}
		return checkParam(&seen, bit, name, value, err)
	})
	return req, timeout, err
}
