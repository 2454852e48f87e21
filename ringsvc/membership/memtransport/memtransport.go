// Package memtransport is a network in memory for tests of gossip: lossy, slow and divisible at will, fit for hundreds
// of nodes and for the fake time of testing/synctest.
package memtransport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// packetQueue is how many packets wait for a node; further ones are lost, as with a full socket buffer.
	packetQueue = 256
	// maxInFlight is how many delayed packets a node may have on the way to it; further ones are lost.
	maxInFlight = 4096
)

var (
	errShutdown    = errors.New("memtransport: shut down")
	errUnreachable = errors.New("memtransport: unreachable: timed out")
	errRefused     = errors.New("memtransport: connection refused")
)

// Link says how traffic from one node to another fares. The zero Link is perfect.
type Link struct {
	Loss   float64       // chance that a packet is lost, 0 to 1; streams lose nothing
	Delay  time.Duration // of every packet, and of the opening of a stream
	Jitter time.Duration // added to Delay of a packet, uniform from 0 up to this
	Down   bool          // nothing passes; open streams break
}

// Network connects Transports by address. All methods are safe for concurrent use.
type Network struct {
	mu      sync.RWMutex
	nodes   map[string]*Transport
	link    func(from, to string) Link
	sides   map[string]int // number of the side each address is on; not in it: side 0
	streams map[*stream]struct{}

	randMu sync.Mutex
	rand   *rand.Rand
}

// New returns a perfect network without nodes. The seed decides which packets get lost and how late they are.
func New(seed uint64) *Network {
	return &Network{
		nodes:   make(map[string]*Transport),
		streams: make(map[*stream]struct{}),
		rand:    rand.New(rand.NewPCG(seed, 0)),
	}
}

// SetLink installs the hook that is asked about every packet and stream; nil makes every link perfect again. It must be
// safe for concurrent use and must not call methods of the Network. Streams between nodes that are down now break.
func (n *Network) SetLink(link func(from, to string) Link) {
	n.mu.Lock()
	n.link = link
	n.mu.Unlock()
	n.breakStreams()
}

// Partition divides the network: the addresses of one side reach only each other. Addresses that are on no side reach
// each other too. A partition replaces the one before and holds besides what SetLink says.
func (n *Network) Partition(sides ...[]string) {
	numbers := make(map[string]int)
	for i, side := range sides {
		for _, addr := range side {
			numbers[addr] = i + 1
		}
	}
	n.mu.Lock()
	n.sides = numbers
	n.mu.Unlock()
	n.breakStreams()
}

// Heal ends the partition.
func (n *Network) Heal() { n.Partition() }

// Listen adds a node at an address, an IP and a port such as "10.0.0.1:7201". It fails if the address is taken.
func (n *Network) Listen(addr string) (*Transport, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("memtransport: %w", err)
	}
	t := &Transport{
		net: n, at: at, addr: at.String(),
		packets: make(chan *memberlist.Packet, packetQueue),
		conns:   make(chan net.Conn),
		stop:    make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, taken := n.nodes[t.addr]; taken {
		return nil, fmt.Errorf("memtransport: address %s is in use", addr)
	}
	n.nodes[t.addr] = t
	return t, nil
}

// route returns the link and the node at its end, nil if nobody listens there.
func (n *Network) route(from, to string) (Link, *Transport) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.linkLocked(from, to), n.nodes[to]
}

func (n *Network) linkLocked(from, to string) Link {
	var l Link
	if n.link != nil {
		l = n.link(from, to)
	}
	if n.sides[from] != n.sides[to] {
		l.Down = true
	}
	return l
}

// fate draws whether a packet is lost and how late it is otherwise.
func (n *Network) fate(l Link) (lost bool, delay time.Duration) {
	if l.Down {
		return true, 0
	}
	if l.Loss <= 0 && l.Jitter <= 0 {
		return false, l.Delay
	}
	n.randMu.Lock()
	defer n.randMu.Unlock()
	if n.rand.Float64() < l.Loss {
		return true, 0
	}
	delay = l.Delay
	if l.Jitter > 0 {
		delay += time.Duration(n.rand.Int64N(int64(l.Jitter)))
	}
	return false, delay
}

// breakStreams closes the streams between nodes that no longer reach each other.
func (n *Network) breakStreams() {
	n.mu.RLock()
	var broken []*stream
	for s := range n.streams {
		if n.linkLocked(s.from, s.to).Down || n.linkLocked(s.to, s.from).Down {
			broken = append(broken, s)
		}
	}
	n.mu.RUnlock()
	for _, s := range broken {
		s.closeBoth()
	}
}

// Transport is one node's end of the network, a memberlist.Transport.
type Transport struct {
	net  *Network
	at   netip.AddrPort
	addr string

	packets  chan *memberlist.Packet
	conns    chan net.Conn
	stop     chan struct{}
	stopOnce sync.Once

	inFlight atomic.Int64
	dropped  atomic.Uint64
}

var _ memberlist.Transport = (*Transport)(nil)

// Addr returns the address given to Listen.
func (t *Transport) Addr() string { return t.addr }

// Dropped returns how many packets to this node were lost because a queue was full.
func (t *Transport) Dropped() uint64 { return t.dropped.Load() }

// FinalAdvertiseAddr returns the address given to Listen, whatever was configured.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.at.Addr().AsSlice(), int(t.at.Port()), nil
}

// WriteTo sends a copy of b. Like a datagram it never fails but by being lost.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if t.stopped() {
		return now, errShutdown
	}
	link, to := t.net.route(t.addr, addr)
	lost, delay := t.net.fate(link)
	if lost || to == nil {
		return now, nil
	}
	buf := append([]byte(nil), b...)
	from := net.UDPAddrFromAddrPort(t.at)
	if delay <= 0 {
		to.deliver(buf, from)
		return now, nil
	}
	if to.inFlight.Add(1) > maxInFlight {
		to.inFlight.Add(-1)
		to.dropped.Add(1)
		return now, nil
	}
	time.AfterFunc(delay, func() {
		to.inFlight.Add(-1)
		to.deliver(buf, from)
	})
	return now, nil
}

// deliver queues a packet, or loses it if the queue is full or the node gone.
func (t *Transport) deliver(buf []byte, from net.Addr) {
	if t.stopped() {
		return
	}
	select {
	case t.packets <- &memberlist.Packet{Buf: buf, From: from, Timestamp: time.Now()}:
	default:
		t.dropped.Add(1)
	}
}

// PacketCh delivers the packets that arrive. It is never closed.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout opens a stream. It fails at once if nobody listens, and after the timeout if the link is down or the other
// node does not take the stream.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	expired := time.NewTimer(timeout)
	defer expired.Stop()
	link, to := t.net.route(t.addr, addr)
	if link.Down || link.Delay > 0 {
		ready := make(<-chan time.Time)
		if !link.Down {
			timer := time.NewTimer(link.Delay)
			defer timer.Stop()
			ready = timer.C
		}
		select {
		case <-ready:
		case <-expired.C:
			return nil, &net.OpError{Op: "dial", Net: "mem", Err: errUnreachable}
		case <-t.stop:
			return nil, errShutdown
		}
	}
	if to == nil || to.stopped() {
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: errRefused}
	}
	s := newStream(t.net, t.addr, to.addr)
	select {
	case to.conns <- s.accepted():
		return s.dialled(), nil
	case <-to.stop:
		s.closeBoth()
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: errRefused}
	case <-expired.C:
		s.closeBoth()
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: errUnreachable}
	case <-t.stop:
		s.closeBoth()
		return nil, errShutdown
	}
}

// StreamCh delivers the streams that others open. It is never closed.
func (t *Transport) StreamCh() <-chan net.Conn { return t.conns }

// Shutdown frees the address and breaks the node's streams, as the end of its process would. Further calls do nothing.
func (t *Transport) Shutdown() error {
	t.stopOnce.Do(func() {
		close(t.stop)
		t.net.mu.Lock()
		delete(t.net.nodes, t.addr)
		var mine []*stream
		for s := range t.net.streams {
			if s.from == t.addr || s.to == t.addr {
				mine = append(mine, s)
			}
		}
		t.net.mu.Unlock()
		for _, s := range mine {
			s.closeBoth()
		}
	})
	return nil
}

func (t *Transport) stopped() bool {
	select {
	case <-t.stop:
		return true
	default:
		return false
	}
}
