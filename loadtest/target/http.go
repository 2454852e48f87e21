package target

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// httpConn is one persistent HTTP/1.1 connection with one request at a time. The standard client takes about as much CPU
// for a small request as the servers that are to be measured; this one writes a request with one system call and mostly
// reads the answer with one. All HTTP targets use it, so that ratios between them are fair.
type httpConn struct {
	line *line
	head head
	// seen is the value of the header that shows what a read saw.
	seen []byte
	// seenName is that header's name in lower case; empty for none.
	seenName string
}

// head is what matters of an answer's head.
type head struct {
	status  int
	length  int64 // -1 where not told
	chunked bool
	close   bool
	seen    []byte // aliases the input
}

var (
	errHead    = fmt.Errorf("%w: malformed head of an HTTP answer", ErrProtocol)
	crlf       = []byte("\r\n")
	endOfHead  = []byte("\r\n\r\n")
	headPrefix = []byte("HTTP/1.")
)

// parseHead parses an answer's head, which ends with an empty line.
func parseHead(b []byte, seenName string) (head, error) {
	h := head{length: -1}
	status, rest, _ := bytes.Cut(b, crlf)
	if bytes.ContainsAny(status, "\r\n") || len(status) < 12 || !bytes.HasPrefix(status, headPrefix) || status[8] != ' ' {
		return h, errHead
	}
	for _, d := range status[9:12] {
		if d < '0' || d > '9' {
			return h, errHead
		}
		h.status = h.status*10 + int(d-'0')
	}
	if h.status < 100 || len(status) > 12 && status[12] != ' ' {
		return h, errHead
	}
	old := status[7] == '0'
	h.close = old
	for len(rest) > 0 {
		var field []byte
		if field, rest, _ = bytes.Cut(rest, crlf); len(field) == 0 {
			if old && h.chunked { // chunks came with 1.1
				return h, errHead
			}
			return h, nil
		}
		if err := h.field(field, seenName); err != nil {
			return h, err
		}
	}
	return h, errHead
}

func (h *head) field(line []byte, seenName string) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || bytes.ContainsAny(line[:colon], " \t") || bytes.IndexByte(line, '\n') >= 0 {
		return errHead
	}
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	switch {
	case foldEqual(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 31)
		if err != nil || h.length >= 0 && h.length != int64(n) {
			return errHead
		}
		h.length = int64(n)
	case foldEqual(name, "transfer-encoding"):
		if !foldEqual(value, "chunked") {
			return fmt.Errorf("%w: transfer encoding %.40q", ErrProtocol, value)
		}
		h.chunked = true
	case foldEqual(name, "connection"):
		if foldEqual(value, "close") {
			h.close = true
		} else if foldEqual(value, "keep-alive") {
			h.close = false
		}
	case seenName != "" && foldEqual(name, seenName):
		h.seen = value
	}
	return nil
}

// foldEqual compares with a lower-case name.
func foldEqual(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// do sends the request in line.out and reads the answer: its status into head, its body into line.body.
func (c *httpConn) do(deadline time.Time) (status int, err error) {
	l := c.line
	if err := l.begin(deadline); err != nil {
		return 0, l.fail(err)
	}
	if _, err := l.nc.Write(l.out); err != nil {
		return 0, l.fail(err)
	}
	if err := c.read(); err != nil {
		return 0, l.fail(err)
	}
	if c.head.close {
		return c.head.status, l.drop()
	}
	return c.head.status, nil
}

func (c *httpConn) read() error {
	l := c.line
	for {
		if err := c.readHead(); err != nil {
			return err
		}
		if c.head.status >= 200 {
			break
		}
		if c.head.status == 101 {
			return errHead
		}
	}
	l.body = l.body[:0]
	switch {
	case c.head.status == 204 || c.head.status == 304:
		return nil
	case c.head.chunked:
		return c.readChunks()
	case c.head.length >= 0:
		return l.take(int(c.head.length))
	}
	c.head.close = true // the body ends with the connection
	for {
		if err := l.take(l.w - l.r); err != nil {
			return err
		}
		if err := l.fill(maxHead); errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (c *httpConn) readHead() error {
	l := c.line
	for searched := 0; ; {
		b := l.buf[l.r:l.w]
		if i := bytes.Index(b[searched:], endOfHead); i >= 0 {
			end := searched + i + len(endOfHead)
			h, err := parseHead(b[:end], c.seenName)
			if err != nil {
				return err
			}
			c.seen = append(c.seen[:0], h.seen...)
			h.seen = nil
			c.head = h
			l.r += end
			return nil
		}
		searched = max(0, len(b)-len(endOfHead)+1)
		if err := l.fill(maxHead); err != nil {
			return err
		}
	}
}

func (c *httpConn) readChunks() error {
	l := c.line
	for {
		size, err := l.readLine()
		if err != nil {
			return err
		}
		size, _, _ = bytes.Cut(size, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimRight(size, " \t")), 16, 31)
		if err != nil {
			return fmt.Errorf("%w: chunk size %.20q", ErrProtocol, size)
		}
		if n == 0 {
			break
		}
		if err := l.take(int(n)); err != nil {
			return err
		}
		if end, err := l.readLine(); err != nil {
			return err
		} else if len(end) != 0 {
			return fmt.Errorf("%w: a chunk does not end where it says", ErrProtocol)
		}
	}
	for range 64 { // trailers
		t, err := l.readLine()
		if err != nil || len(t) == 0 {
			return err
		}
	}
	return fmt.Errorf("%w: more than 64 trailers", ErrProtocol)
}

// readLine reads up to CR LF, which it leaves out; the result is valid until the next read.
func (l *line) readLine() ([]byte, error) {
	for searched := 0; ; {
		b := l.buf[l.r:l.w]
		if i := bytes.Index(b[searched:], crlf); i >= 0 {
			l.r += searched + i + len(crlf)
			return b[:searched+i], nil
		}
		searched = max(0, len(b)-1)
		if err := l.fill(maxLine); err != nil {
			return nil, err
		}
	}
}

// answerError says what a store answered, shortened.
func (c *httpConn) answerError() error {
	return fmt.Errorf("%w: status %d: %.300s", ErrAnswer, c.head.status, c.line.body)
}

// appendEscaped appends a key as one path segment.
func appendEscaped(dst, key []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range key {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}
