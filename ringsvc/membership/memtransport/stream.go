package memtransport

import (
	"net"
	"sync"
)

// stream is a pair of connected pipes, known to the network until both ends are closed.
type stream struct {
	net      *Network
	from, to string
	ends     [2]net.Conn
	open     int // ends not yet closed; guarded by net.mu
}

func newStream(n *Network, from, to string) *stream {
	s := &stream{net: n, from: from, to: to, open: 2}
	s.ends[0], s.ends[1] = net.Pipe()
	n.mu.Lock()
	n.streams[s] = struct{}{}
	n.mu.Unlock()
	return s
}

func (s *stream) dialled() net.Conn {
	return &conn{Conn: s.ends[0], stream: s, local: s.from, remote: s.to}
}

func (s *stream) accepted() net.Conn {
	return &conn{Conn: s.ends[1], stream: s, local: s.to, remote: s.from}
}

// closeBoth breaks the stream. Closing a pipe cannot fail.
func (s *stream) closeBoth() {
	_ = s.ends[0].Close()
	_ = s.ends[1].Close()
	s.net.mu.Lock()
	delete(s.net.streams, s)
	s.net.mu.Unlock()
}

// conn is one end of a stream, with the addresses that a pipe lacks.
type conn struct {
	net.Conn
	stream        *stream
	local, remote string
	once          sync.Once
}

// Close closes this end; the other end reads to the end of file. Further calls do nothing.
func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		err = c.Conn.Close()
		n := c.stream.net
		n.mu.Lock()
		defer n.mu.Unlock()
		if c.stream.open--; c.stream.open == 0 {
			delete(n.streams, c.stream)
		}
	})
	return err
}

// LocalAddr returns the address of this end.
func (c *conn) LocalAddr() net.Addr { return addr(c.local) }

// RemoteAddr returns the address of the other end.
func (c *conn) RemoteAddr() net.Addr { return addr(c.remote) }

// addr is an address of the network.
type addr string

func (addr) Network() string  { return "mem" }
func (a addr) String() string { return string(a) }
