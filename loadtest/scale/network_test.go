package scale

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/grpc/test/bufconn"
)

// What a packet of each kind costs on a network besides what is in it: headers of IPv4 with UDP, and with TCP.
const (
	udpHeaders = 28
	tcpHeaders = 40
)

// traffic counts what one node sends and receives, headers included.
type traffic struct {
	gossip  atomic.Int64 // serf's
	views   atomic.Int64 // gRPC between nodes: views of layouts
	beats   atomic.Int64 // streams and watches of gateways
	packets atomic.Int64
}

// network is what gRPC runs over. Safe for concurrent use.
type network struct {
	mu    sync.Mutex
	ports map[string]*port
}

// port is a node's listener and the connections it has taken.
type port struct {
	*bufconn.Listener
	addr  string
	count *traffic

	mu    sync.Mutex
	conns map[*conn]bool
	down  bool
}

// pipeSize is how many bytes are on their way in one direction of a connection.
const pipeSize = 4 << 10

func newNetwork() *network { return &network{ports: make(map[string]*port)} }

// listen adds an address at which count sees what passes.
func (n *network) listen(addr string, count *traffic) *port {
	p := &port{Listener: bufconn.Listen(pipeSize), addr: addr, count: count, conns: make(map[*conn]bool)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[addr] = p
	return p
}

// Addr is where the port is reached.
func (p *port) Addr() net.Addr { return address(p.addr) }

type address string

func (address) Network() string  { return "mem" }
func (a address) String() string { return string(a) }

// cut ends all connections and takes no more, as the end of the process would.
func (p *port) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.conns {
		_ = c.Conn.Close()
	}
	clear(p.conns)
}

// dial opens a connection from a node (nil: from a gateway) to an address.
func (n *network) dial(from *traffic) func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		n.mu.Lock()
		p := n.ports[addr]
		n.mu.Unlock()
		if p == nil {
			return nil, syscall.ECONNREFUSED
		}
		inner, err := p.DialContext(ctx)
		if err != nil {
			return nil, syscall.ECONNREFUSED
		}
		c := &conn{Conn: inner, port: p}
		c.counters = []*atomic.Int64{&p.count.beats}
		if from != nil {
			c.counters = []*atomic.Int64{&from.views, &p.count.views}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.down {
			_ = inner.Close()
			return nil, syscall.ECONNREFUSED
		}
		p.conns[c] = true
		return c, nil
	}
}

// conn is the dialling end of a connection; it counts both directions for whoever is a node.
type conn struct {
	net.Conn
	port     *port
	counters []*atomic.Int64
}

func (c *conn) add(n int, err error) (int, error) {
	if n > 0 {
		for _, t := range c.counters {
			t.Add(int64(n + tcpHeaders*(1+n/1460)))
		}
	}
	return n, err
}

func (c *conn) Read(b []byte) (int, error)  { return c.add(c.Conn.Read(b)) }
func (c *conn) Write(b []byte) (int, error) { return c.add(c.Conn.Write(b)) }

func (c *conn) Close() error {
	c.port.mu.Lock()
	delete(c.port.conns, c)
	c.port.mu.Unlock()
	return c.Conn.Close()
}

// gossip counts the packets and streams of a node's serf.
type gossip struct {
	memberlist.Transport
	count   *traffic
	packets chan *memberlist.Packet
	streams chan net.Conn
	stop    chan struct{}
	stopped sync.Once
	copying sync.WaitGroup
}

func newGossip(t memberlist.Transport, count *traffic) *gossip {
	g := &gossip{Transport: t, count: count, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), stop: make(chan struct{})}
	g.copying.Go(func() {
		for {
			select {
			case p := <-t.PacketCh():
				count.gossip.Add(int64(len(p.Buf) + udpHeaders))
				count.packets.Add(1)
				select {
				case g.packets <- p:
				case <-g.stop:
					return
				}
			case c := <-t.StreamCh():
				select {
				case g.streams <- &gossipStream{c, count}:
				case <-g.stop:
					_ = c.Close()
					return
				}
			case <-g.stop:
				return
			}
		}
	})
	return g
}

// WriteTo implements memberlist.Transport.
func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	g.count.gossip.Add(int64(len(b) + udpHeaders))
	g.count.packets.Add(1)
	return g.Transport.WriteTo(b, addr)
}

// DialTimeout implements memberlist.Transport.
func (g *gossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	c, err := g.Transport.DialTimeout(addr, timeout)
	if err != nil {
		return nil, err
	}
	return &gossipStream{c, g.count}, nil
}

// PacketCh implements memberlist.Transport.
func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *gossip) StreamCh() <-chan net.Conn { return g.streams }

// Shutdown implements memberlist.Transport.
func (g *gossip) Shutdown() error {
	g.stopped.Do(func() { close(g.stop) })
	g.copying.Wait()
	return g.Transport.Shutdown()
}

// gossipStream counts an exchange of serf's whole state.
type gossipStream struct {
	net.Conn
	count *traffic
}

func (c *gossipStream) add(n int, err error) (int, error) {
	c.count.gossip.Add(int64(n + tcpHeaders*(1+n/1460)))
	return n, err
}

func (c *gossipStream) Read(b []byte) (int, error)  { return c.add(c.Conn.Read(b)) }
func (c *gossipStream) Write(b []byte) (int, error) { return c.add(c.Conn.Write(b)) }
