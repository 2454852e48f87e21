package chaos

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoNetwork says that this machine does not let the program give each process a network of its own.
var ErrNoNetwork = errors.New("no network namespaces here")

// Rule is what happens to packets that one host sends to another. The zero value lets them pass.
type Rule struct {
	Cut    bool
	Loss   float64       // share of packets lost, 0 to 1
	Delay  time.Duration // of every packet
	Jitter time.Duration // up to so much more, order kept
}

const (
	// maxPacket is the largest packet that a device takes; larger ones than an Ethernet's cost less.
	maxPacket = 9000
	// maxDelayed is how many packets of one pair of hosts wait at most; more are lost, as at a full router.
	maxDelayed = 2048
)

// link carries packets from one host to another.
type link struct {
	rule    atomic.Pointer[Rule] // nil lets pass
	waiting chan delayed
	last    time.Time // when the latest packet is due; only the sender's goroutine looks at it
}

type delayed struct {
	due    time.Time
	packet []byte
}

// device is one host's end of the network: a read returns one packet that the host has sent, a write hands it one.
type device interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Close() error
}

// fabric is a switch between hosts: each has a device, each ordered pair a link. Safe for concurrent use.
type fabric struct {
	devices []device
	links   [][]*link
	address func(packet []byte) (to int, ok bool)
	stop    chan struct{}
	group   sync.WaitGroup
	lost    atomic.Int64 // packets that rules have lost
}

// newFabric carries packets until close. address says which host a packet is for.
func newFabric(devices []device, address func([]byte) (int, bool), seed uint64) *fabric {
	f := &fabric{devices: devices, address: address, stop: make(chan struct{})}
	for range devices {
		row := make([]*link, len(devices))
		for j := range row {
			row[j] = &link{waiting: make(chan delayed, maxDelayed)}
		}
		f.links = append(f.links, row)
	}
	for from := range devices {
		f.group.Go(func() { f.carry(from, rand.New(rand.NewPCG(seed, uint64(from)))) })
		for to := range devices {
			f.group.Go(func() { f.delay(f.links[from][to], f.devices[to]) })
		}
	}
	return f
}

// set says what happens from now on to packets of one host to another.
func (f *fabric) set(from, to int, r Rule) {
	if r == (Rule{}) {
		f.links[from][to].rule.Store(nil)
		return
	}
	f.links[from][to].rule.Store(&r)
}

// heal lets everything pass.
func (f *fabric) heal() {
	for _, row := range f.links {
		for _, l := range row {
			l.rule.Store(nil)
		}
	}
}

// carry takes what a host sends until its device is closed.
func (f *fabric) carry(from int, rnd *rand.Rand) {
	buf := make([]byte, maxPacket+256)
	for {
		n, err := f.devices[from].Read(buf)
		if err != nil {
			return
		}
		to, ok := f.address(buf[:n])
		if !ok {
			continue
		}
		l := f.links[from][to]
		r := l.rule.Load()
		switch {
		case r == nil && len(l.waiting) == 0:
			f.hand(to, buf[:n])
			continue
		case r == nil:
			r = &Rule{} // behind those that wait
		case r.Cut, r.Loss > 0 && rnd.Float64() < r.Loss:
			f.lost.Add(1)
			continue
		}
		due := time.Now().Add(r.Delay)
		if r.Jitter > 0 {
			due = due.Add(rand.N(r.Jitter))
		}
		if due.Before(l.last) {
			due = l.last
		}
		l.last = due
		select {
		case l.waiting <- delayed{due, append([]byte(nil), buf[:n]...)}:
		default:
			f.lost.Add(1)
		}
	}
}

// delay hands over the packets of one link when they are due.
func (f *fabric) delay(l *link, to device) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.stop:
			return
		case d := <-l.waiting:
			timer.Reset(time.Until(d.due))
			select {
			case <-f.stop:
				return
			case <-timer.C:
			}
			if _, err := to.Write(d.packet); err != nil {
				f.lost.Add(1)
			}
		}
	}
}

// hand gives a host a packet. One that its device does not take is lost, as on any network.
func (f *fabric) hand(to int, packet []byte) {
	if _, err := f.devices[to].Write(packet); err != nil {
		f.lost.Add(1)
	}
}

// close ends the network and waits until nothing is carried any more.
func (f *fabric) close() error {
	close(f.stop)
	var errs []error
	for _, d := range f.devices {
		errs = append(errs, d.Close())
	}
	f.group.Wait()
	return errors.Join(errs...)
}
