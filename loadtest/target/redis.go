package target

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"
)

// redisTarget is a store that speaks RESP2.
type redisTarget struct{ cfg Config }

func (t redisTarget) Name() string { return t.cfg.Kind }

func (t redisTarget) Dial(ctx context.Context, worker int) (Conn, error) {
	c := &redisConn{newLine(ctx, t.cfg.Addresses[worker%len(t.cfg.Addresses)], t.cfg.DialTimeout)}
	if err := c.line.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

func (redisTarget) Close() error { return nil }

// redisConn sends GET and SET.
type redisConn struct{ line *line }

// reply is one RESP2 answer that is no array.
type reply struct {
	kind byte // '+', '-', ':' or '$'
	null bool // of a bulk string
}

// readReply reads one answer; its text, number or bytes are in l.body.
func (l *line) readReply() (reply, error) {
	first, err := l.readLine()
	if err != nil {
		return reply{}, err
	}
	if len(first) == 0 {
		return reply{}, fmt.Errorf("%w: an empty line where an answer begins", ErrProtocol)
	}
	r, rest := reply{kind: first[0]}, first[1:]
	l.body = append(l.body[:0], rest...)
	switch r.kind {
	case '+', '-':
		return r, nil
	case ':':
		if _, err := strconv.ParseInt(string(rest), 10, 64); err != nil {
			return r, fmt.Errorf("%w: number %.20q", ErrProtocol, rest)
		}
		return r, nil
	case '$':
		n, err := strconv.ParseInt(string(rest), 10, 32)
		if err != nil || n < -1 {
			return r, fmt.Errorf("%w: length %.20q", ErrProtocol, rest)
		}
		l.body = l.body[:0]
		if n == -1 {
			r.null = true
			return r, nil
		}
		if err := l.take(int(n) + len(crlf)); err != nil {
			return r, err
		}
		if !bytes.HasSuffix(l.body, crlf) {
			return r, fmt.Errorf("%w: a string does not end where it says", ErrProtocol)
		}
		l.body = l.body[:n]
		return r, nil
	}
	return r, fmt.Errorf("%w: an answer begins with %q", ErrProtocol, r.kind)
}

func appendBulk(dst, b []byte) []byte {
	dst = append(dst, '$')
	dst = strconv.AppendInt(dst, int64(len(b)), 10)
	dst = append(dst, crlf...)
	dst = append(dst, b...)
	return append(dst, crlf...)
}

func (c *redisConn) do(deadline time.Time) (reply, error) {
	l := c.line
	if err := l.begin(deadline); err != nil {
		return reply{}, l.fail(err)
	}
	if _, err := l.nc.Write(l.out); err != nil {
		return reply{}, l.fail(err)
	}
	r, err := l.readReply()
	if err != nil {
		return r, l.fail(err)
	}
	return r, nil
}

func (c *redisConn) Get(key []byte, deadline time.Time) ([]byte, Outcome, error) {
	c.line.out = appendBulk(append(c.line.out[:0], "*2\r\n$3\r\nGET\r\n"...), key)
	r, err := c.do(deadline)
	switch {
	case err != nil:
		return nil, Failed, err
	case r.kind != '$':
		out, err := c.refusal(r)
		return nil, out, err
	case r.null:
		return nil, Absent, nil
	}
	return nil, OK, nil
}

func (c *redisConn) Put(key, value, _ []byte, deadline time.Time) (Outcome, error) {
	c.line.out = appendBulk(append(c.line.out[:0], "*3\r\n$3\r\nSET\r\n"...), key)
	c.line.out = appendBulk(c.line.out, value)
	r, err := c.do(deadline)
	if err != nil {
		return Failed, err
	}
	if r.kind != '+' {
		return c.refusal(r)
	}
	return OK, nil
}

// refusal judges an answer that is none to the command.
func (c *redisConn) refusal(r reply) (Outcome, error) {
	if r.kind == '-' && bytes.HasPrefix(c.line.body, []byte("BUSY")) {
		return Refused, nil
	}
	return Failed, fmt.Errorf("%w: %c%.300s", ErrAnswer, r.kind, c.line.body)
}

func (c *redisConn) Close() error { return c.line.drop() }
