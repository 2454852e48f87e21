package target

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"time"
)

// dotringConn speaks dotring's HTTP API.
type dotringConn struct {
	http    *httpConn
	getTail string // of a GET, behind the key
	putTail string // of a PUT, behind the key, up to the number of its length
}

func newDotring(h *httpConn, query string) Conn {
	h.seenName = "kv-context"
	if query != "" {
		query = "?" + query
	}
	host := " HTTP/1.1\r\nHost: " + h.line.addr + "\r\n"
	return &dotringConn{http: h, getTail: query + host, putTail: query + host + "Content-Length: "}
}

func (c *dotringConn) Get(key []byte, deadline time.Time) ([]byte, Outcome, error) {
	l := c.http.line
	l.out = append(l.out[:0], "GET /v1/kv/"...)
	l.out = appendEscaped(l.out, key)
	l.out = append(l.out, c.getTail...)
	l.out = append(l.out, crlf...)
	status, err := c.http.do(deadline)
	if err != nil {
		return nil, Failed, err
	}
	switch status {
	case 200:
		return c.http.seen, OK, nil
	case 300:
		return c.http.seen, Conflict, nil
	case 404:
		return c.http.seen, Absent, nil
	case 429:
		return nil, Refused, nil
	}
	return nil, Failed, c.http.answerError()
}

func (c *dotringConn) Put(key, value, seen []byte, deadline time.Time) (Outcome, error) {
	l := c.http.line
	l.out = append(l.out[:0], "PUT /v1/kv/"...)
	l.out = appendEscaped(l.out, key)
	l.out = append(l.out, c.putTail...)
	l.out = strconv.AppendInt(l.out, int64(len(value)), 10)
	if len(seen) > 0 {
		l.out = append(l.out, "\r\nKv-Context: "...)
		l.out = append(l.out, seen...)
	}
	l.out = append(l.out, endOfHead...)
	l.out = append(l.out, value...)
	return c.http.write(deadline)
}

func (c *dotringConn) Close() error { return c.http.line.drop() }

// write sends a write and judges its answer.
func (c *httpConn) write(deadline time.Time) (Outcome, error) {
	status, err := c.do(deadline)
	switch {
	case err != nil:
		return Failed, err
	case status == 200 || status == 201 || status == 204:
		return OK, nil
	case status == 429:
		return Refused, nil
	}
	return Failed, c.answerError()
}

// etcdConn speaks the JSON gateway that each etcd member has: keys and values in base64, in bodies of POST requests.
type etcdConn struct{ http *httpConn }

var (
	// etcdFound is in a range answer that has pairs: etcd leaves the field out for none.
	etcdFound = []byte(`"kvs":[`)
	etcdBusy  = []byte("too many requests")
)

func (c *etcdConn) Get(key []byte, deadline time.Time) ([]byte, Outcome, error) {
	size := len(`{"key":""}`) + base64.StdEncoding.EncodedLen(len(key))
	l := c.http.line
	l.out = c.appendPost(l.out[:0], "range", size)
	l.out = append(l.out, `{"key":"`...)
	l.out = base64.StdEncoding.AppendEncode(l.out, key)
	l.out = append(l.out, `"}`...)
	status, err := c.http.do(deadline)
	switch {
	case err != nil:
		return nil, Failed, err
	case status != 200:
		out, err := c.refusal()
		return nil, out, err
	case bytes.Contains(l.body, etcdFound):
		return nil, OK, nil
	}
	return nil, Absent, nil
}

func (c *etcdConn) Put(key, value, _ []byte, deadline time.Time) (Outcome, error) {
	enc := base64.StdEncoding
	size := len(`{"key":"","value":""}`) + enc.EncodedLen(len(key)) + enc.EncodedLen(len(value))
	l := c.http.line
	l.out = c.appendPost(l.out[:0], "put", size)
	l.out = append(l.out, `{"key":"`...)
	l.out = enc.AppendEncode(l.out, key)
	l.out = append(l.out, `","value":"`...)
	l.out = enc.AppendEncode(l.out, value)
	l.out = append(l.out, `"}`...)
	status, err := c.http.do(deadline)
	if err != nil {
		return Failed, err
	}
	if status != 200 {
		return c.refusal()
	}
	return OK, nil
}

// refusal judges an answer other than 200: etcd sheds load with "etcdserver: too many requests".
func (c *etcdConn) refusal() (Outcome, error) {
	if c.http.head.status == 429 || bytes.Contains(c.http.line.body, etcdBusy) {
		return Refused, nil
	}
	return Failed, c.http.answerError()
}

func (c *etcdConn) appendPost(dst []byte, verb string, size int) []byte {
	dst = append(dst, "POST /v3/kv/"...)
	dst = append(dst, verb...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, c.http.line.addr...)
	dst = append(dst, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(size), 10)
	return append(dst, endOfHead...)
}

func (c *etcdConn) Close() error { return c.http.line.drop() }

// riakConn speaks Riak's HTTP API.
type riakConn struct {
	http   *httpConn
	prefix string
	tail   string
}

func newRiak(h *httpConn, bucket string) Conn {
	if bucket == "" {
		bucket = "load"
	}
	h.seenName = "x-riak-vclock"
	return &riakConn{http: h, prefix: " /buckets/" + bucket + "/keys/", tail: " HTTP/1.1\r\nHost: " + h.line.addr + "\r\n"}
}

func (c *riakConn) request(method string, key []byte) {
	l := c.http.line
	l.out = append(l.out[:0], method...)
	l.out = append(l.out, c.prefix...)
	l.out = appendEscaped(l.out, key)
	l.out = append(l.out, c.tail...)
}

func (c *riakConn) Get(key []byte, deadline time.Time) ([]byte, Outcome, error) {
	c.request("GET", key)
	c.http.line.out = append(c.http.line.out, crlf...)
	status, err := c.http.do(deadline)
	if err != nil {
		return nil, Failed, err
	}
	switch status {
	case 200:
		return c.http.seen, OK, nil
	case 300:
		return c.http.seen, Conflict, nil
	case 404:
		return c.http.seen, Absent, nil
	case 429:
		return nil, Refused, nil
	}
	return nil, Failed, c.http.answerError()
}

func (c *riakConn) Put(key, value, seen []byte, deadline time.Time) (Outcome, error) {
	c.request("PUT", key)
	l := c.http.line
	if len(seen) > 0 {
		l.out = append(l.out, "X-Riak-Vclock: "...)
		l.out = append(l.out, seen...)
		l.out = append(l.out, crlf...)
	}
	l.out = append(l.out, "Content-Type: application/octet-stream\r\nContent-Length: "...)
	l.out = strconv.AppendInt(l.out, int64(len(value)), 10)
	l.out = append(l.out, endOfHead...)
	l.out = append(l.out, value...)
	return c.http.write(deadline)
}

func (c *riakConn) Close() error { return c.http.line.drop() }
