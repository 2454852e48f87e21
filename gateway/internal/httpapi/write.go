package httpapi

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
)

func (a *API) put(x *exchange, r *http.Request) {
	// The room for the body is reserved before a byte of it is read: the announced length, or the largest there may be.
	room := r.ContentLength
	if room < 0 {
		room = int64(a.cfg.MaxValueBytes)
	}
	if room > int64(a.cfg.MaxValueBytes) {
		room = 0
	}
	if !x.admit(r, room) {
		return
	}
	req, p, err := a.writeRequest(x, r, access.Put)
	if err == nil {
		err = a.bodyHeaders(&req, r)
	}
	if err == nil {
		var lent *[]byte
		req.Value, req.Checksum, err = x.readBody(r, a.cfg.MaxValueBytes, x.started.Add(p.timeout), func(size int) []byte {
			lent = a.bodies.Get(size)
			return *lent
		})
		if lent != nil {
			req.Release = func() { a.bodies.Put(lent) }
		}
	}
	if err != nil {
		x.fail(r, err)
		return
	}
	a.write(x, r, req, p)
}

func (a *API) delete(x *exchange, r *http.Request) {
	if !x.admit(r, 0) {
		return
	}
	req, p, err := a.writeRequest(x, r, access.Delete)
	if err != nil {
		x.fail(r, err)
		return
	}
	req.Tombstone = true
	a.write(x, r, req, p)
}

// writeRequest checks all there is to check of a write but its body.
func (a *API) writeRequest(x *exchange, r *http.Request, action access.Action) (coordinator.PutRequest, writeParams, error) {
	req := coordinator.PutRequest{RequestID: x.requestID, ClientRequestID: x.named, SlowAfter: x.course.SlowAfter(), Trace: x.requestID}
	var err error
	if req.Key, err = parseKey(r.URL, kvPrefix); err != nil {
		return req, writeParams{}, err
	}
	if err := x.allow(action, req.Key); err != nil {
		return req, writeParams{}, err
	}
	if a.cfg.Overload != nil && r.ContentLength != 0 {
		if err := a.cfg.Overload.FullKey(req.Key, true); err != nil {
			return req, writeParams{}, err
		}
	}
	p, err := parseWrite(r.URL.RawQuery)
	if err != nil {
		return req, p, err
	}
	if x.idFault != nil {
		return req, p, x.idFault
	}
	for _, name := range [...]string{"If-Match", "If-None-Match", "If-Unmodified-Since"} {
		if _, ok := r.Header[name]; ok {
			return req, p, fmt.Errorf("%w (%s)", problem.ErrConditionalWrite, name)
		}
	}
	if req.Context, err = a.clientContext(req.Key, r); err != nil {
		return req, p, err
	}
	req.W, req.Sloppy = p.w, p.sloppy
	return req, p, nil
}

// bodyHeaders checks what the header says of the body.
func (a *API) bodyHeaders(req *coordinator.PutRequest, r *http.Request) error {
	if err := checkEncoding(r); err != nil {
		return err
	}
	if r.ContentLength > int64(a.cfg.MaxValueBytes) {
		return fmt.Errorf("%w: %d bytes, the limit is %d", problem.ErrValueTooLarge, r.ContentLength, a.cfg.MaxValueBytes)
	}
	req.ContentType = edge.DefaultContentType
	switch types := r.Header["Content-Type"]; {
	case len(types) > 1:
		return fmt.Errorf("%w: there are %d of them", problem.ErrBadContentType, len(types))
	case len(types) == 1 && types[0] != "":
		req.ContentType = types[0]
		return edge.CheckContentType(types[0])
	}
	return nil
}

func checkEncoding(r *http.Request) error {
	for _, line := range r.Header["Content-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.Trim(part, " \t"); part != "" && !strings.EqualFold(part, "identity") {
				return fmt.Errorf("%w (%.40q)", problem.ErrEncoding, part)
			}
		}
	}
	return nil
}

// write does the write and answers.
func (a *API) write(x *exchange, r *http.Request, req coordinator.PutRequest, p writeParams) {
	began := time.Now()
	req.Span = x.course.Operation("put", req.Key)
	res, err := a.cfg.Store.Put(x.until(r, p.timeout), req)
	x.course.Wrote(req.Span, req.Key, began, &res, err)
	if err != nil {
		x.fail(r, err)
		return
	}
	token, err := a.cfg.Tokens.Encode(req.Key, res.Context, nil)
	if err != nil {
		// The write was done; only its context cannot be told.
		x.fail(r, &coordinator.Error{Kind: coordinator.Internal, Outcome: coordinator.InDoubt, Err: err})
		return
	}
	h := x.Header()
	h["Kv-Context"] = x.value(token)
	h["Cache-Control"] = a.common.noStore
	x.answer(http.StatusOK, a.common.typeJSON, appendPutAnswer(make([]byte, 0, 96+len(token)), token, res))
}

// appendPutAnswer appends the JSON that answers a write. A token needs no escapes.
func appendPutAnswer(dst []byte, token string, res coordinator.PutResult) []byte {
	dst = append(dst, `{"context":"`...)
	dst = append(dst, token...)
	dst = append(dst, `","siblings":`...)
	dst = strconv.AppendInt(dst, int64(res.Siblings), 10)
	dst = append(dst, `,"acks":`...)
	dst = strconv.AppendInt(dst, int64(res.Acks), 10)
	dst = append(dst, `,"hinted":`...)
	dst = strconv.AppendInt(dst, int64(res.Hinted), 10)
	return append(dst, "}\n"...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readBody reads the whole body, of up to limit bytes, before deadline, and its CRC32C on the way. A body of known length is
// read into a slice of that length from room, if that is not nil, which may hold anything before. Any other slice belongs to the
// caller.
func (x *exchange) readBody(r *http.Request, limit int, deadline time.Time, room func(size int) []byte) (body []byte, sum uint32, err error) {
	if r.Body == nil || r.ContentLength == 0 {
		x.bodyUsed = true
		return []byte{}, 0, nil
	}
	control := http.NewResponseController(x.ResponseWriter)
	if err := control.SetReadDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, 0, fmt.Errorf("set read deadline: %w", err)
	}
	if r.ContentLength > 0 {
		if room == nil {
			room = func(size int) []byte { return make([]byte, size) }
		}
		body, sum, err = readExactly(r.Body, room(int(r.ContentLength)))
	} else {
		body, sum, err = readUpTo(r.Body, limit)
	}
	x.bytesIn += int64(len(body))
	switch {
	case errors.Is(err, problem.ErrValueTooLarge):
		return nil, 0, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.bodyUsed = true
		return nil, 0, fmt.Errorf("%w: the body was not whole by then", problem.ErrDeadline)
	case err != nil:
		x.bodyUsed = true
		return nil, 0, fmt.Errorf("%w: %d bytes came (%w)", problem.ErrBodyCutShort, len(body), err)
	}
	x.bodyUsed = true
	// Else the deadline would end the connection, on which the server already waits for the next request.
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, 0, fmt.Errorf("clear read deadline: %w", err)
	}
	return body, sum, nil
}

// readExactly fills buf.
func readExactly(body io.Reader, buf []byte) ([]byte, uint32, error) {
	n, sum := 0, uint32(0)
	for n < len(buf) {
		m, err := body.Read(buf[n:])
		sum = crc32.Update(sum, castagnoli, buf[n:n+m])
		n += m
		if n == len(buf) {
			break
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return buf[:n], sum, err
		}
	}
	return buf, sum, nil
}

// readUpTo reads until the end, which must come within limit bytes.
func readUpTo(body io.Reader, limit int) ([]byte, uint32, error) {
	buf, sum := make([]byte, 0, min(8<<10, limit+1)), uint32(0)
	for {
		m, err := body.Read(buf[len(buf):cap(buf)])
		sum = crc32.Update(sum, castagnoli, buf[len(buf):len(buf)+m])
		buf = buf[:len(buf)+m]
		if len(buf) > limit {
			return buf, sum, fmt.Errorf("%w: more than %d bytes", problem.ErrValueTooLarge, limit)
		}
		if errors.Is(err, io.EOF) {
			return buf, sum, nil
		}
		if err != nil {
			return buf, sum, err
		}
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(2*cap(buf), limit+1))
			copy(grown, buf)
			buf = grown
		}
	}
}
