package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	readBuffer = 16 << 10
	// maxBody bounds an answer's body: the largest value in base64, eight siblings of it, with room.
	maxBody = 16 << 20
	// maxLine bounds a line of RESP, and maxHead the head of an HTTP answer.
	maxLine = 64 << 10
	maxHead = 64 << 10
)

// line is a TCP connection with a read buffer, that is dialled again after it broke. Not safe for concurrent use.
type line struct {
	ctx  context.Context
	addr string
	dial net.Dialer
	nc   net.Conn
	stop func() bool // ends the watch on ctx
	buf  []byte
	r, w int // buf[r:w] is unread
	out  []byte
	body []byte
}

func newLine(ctx context.Context, addr string, timeout time.Duration) *line {
	return &line{ctx: ctx, addr: addr, dial: net.Dialer{Timeout: timeout}, buf: make([]byte, readBuffer)}
}

// connect dials unless the connection stands.
func (l *line) connect() error {
	if l.nc != nil {
		return nil
	}
	nc, err := l.dial.DialContext(l.ctx, "tcp", l.addr)
	if err != nil {
		return err
	}
	l.nc, l.r, l.w = nc, 0, 0
	l.stop = context.AfterFunc(l.ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) }) // fails only where it is closed
	return nil
}

// begin readies the connection for one exchange.
func (l *line) begin(deadline time.Time) error {
	if err := l.connect(); err != nil {
		return err
	}
	if l.r < l.w {
		return fmt.Errorf("%w: %d bytes came unasked", ErrProtocol, l.w-l.r)
	}
	if err := l.nc.SetDeadline(deadline); err != nil {
		return err
	}
	return l.ctx.Err() // after SetDeadline, which may have undone that of the watch
}

// drop closes the connection; the next exchange dials anew.
func (l *line) drop() error {
	if l.nc == nil {
		return nil
	}
	l.stop()
	err := l.nc.Close()
	l.nc = nil
	return err
}

// fail drops the connection, as after an error nobody knows where the next answer would begin.
func (l *line) fail(err error) error {
	if cause := l.ctx.Err(); cause != nil {
		err = cause
	}
	return errors.Join(err, l.drop())
}

// fill reads once more, and makes room for it up to limit bytes in the buffer.
func (l *line) fill(limit int) error {
	if l.r > 0 && l.r == l.w {
		l.r, l.w = 0, 0
	}
	if l.w == len(l.buf) {
		switch {
		case l.r > 0:
			l.w = copy(l.buf, l.buf[l.r:l.w])
			l.r = 0
		case len(l.buf) >= limit:
			return fmt.Errorf("%w: more than %d bytes of head", ErrProtocol, limit)
		default:
			grown := make([]byte, 2*len(l.buf))
			l.w = copy(grown, l.buf)
			l.buf = grown
		}
	}
	n, err := l.nc.Read(l.buf[l.w:])
	l.w += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take appends the next n bytes to the body.
func (l *line) take(n int) error {
	if len(l.body)+n > maxBody {
		return fmt.Errorf("%w: a body of more than %d bytes", ErrProtocol, maxBody)
	}
	for n > 0 {
		if l.r == l.w {
			if err := l.fill(maxHead); err != nil {
				return err
			}
		}
		k := min(n, l.w-l.r)
		l.body = append(l.body, l.buf[l.r:l.r+k]...)
		l.r += k
		n -= k
	}
	return nil
}
