package chaos

import (
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// port is a device in memory: what the test sends, and what arrives with the time of its arrival.
type port struct {
	out    chan []byte
	in     chan arrival
	closed chan struct{}
}

type arrival struct {
	b  byte
	at time.Time
}

func (p *port) Read(b []byte) (int, error) {
	select {
	case m := <-p.out:
		return copy(b, m), nil
	case <-p.closed:
		return 0, io.EOF
	}
}

func (p *port) Write(b []byte) (int, error) {
	p.in <- arrival{b[1], time.Now()}
	return len(b), nil
}

func (p *port) Close() error { close(p.closed); return nil }

// wire runs do with a network of three ports; the first byte of a packet says whom it is for.
func wire(t *testing.T, do func(t *testing.T, f *fabric, ports []*port)) {
	synctest.Test(t, func(t *testing.T) {
		var ports []*port
		var devices []device
		for range 3 {
			p := &port{make(chan []byte), make(chan arrival, 4096), make(chan struct{})}
			ports, devices = append(ports, p), append(devices, p)
		}
		f := newFabric(devices, func(b []byte) (int, bool) { return int(b[0]), true }, 1)
		do(t, f, ports)
		if err := f.close(); err != nil {
			t.Error(err)
		}
	})
}

// send has port from send n packets, and returns what has arrived at to after a minute.
func send(ports []*port, from, to, n int) (got []arrival) {
	for i := range n {
		ports[from].out <- []byte{byte(to), byte(i)}
	}
	time.Sleep(time.Minute)
	for len(ports[to].in) > 0 {
		got = append(got, <-ports[to].in)
	}
	return got
}

func TestFabric(t *testing.T) {
	wire(t, func(t *testing.T, f *fabric, ports []*port) {
		if got := send(ports, 0, 1, 100); len(got) != 100 {
			t.Errorf("%d of 100 packets arrive", len(got))
		}
		f.set(0, 1, Rule{Cut: true})
		if got := send(ports, 0, 1, 100); len(got) != 0 {
			t.Errorf("%d packets pass a cut", len(got))
		}
		if got := send(ports, 1, 0, 100); len(got) != 100 {
			t.Errorf("%d of 100 packets pass the other way", len(got))
		}
		if got := send(ports, 0, 2, 100); len(got) != 100 {
			t.Errorf("%d of 100 packets reach another", len(got))
		}
		f.heal()
		f.set(0, 1, Rule{Loss: 0.3})
		if got := send(ports, 0, 1, 1000); len(got) < 620 || len(got) > 780 {
			t.Errorf("%d of 1000 packets survive a loss of 30 %%", len(got))
		}
	})
}

func TestFabricDelaysInOrder(t *testing.T) {
	wire(t, func(t *testing.T, f *fabric, ports []*port) {
		f.set(0, 1, Rule{Delay: 50 * time.Millisecond, Jitter: 50 * time.Millisecond})
		began := time.Now()
		got := send(ports, 0, 1, 200)
		if len(got) != 200 {
			t.Fatalf("%d of 200 packets arrive", len(got))
		}
		for i, a := range got {
			if late := a.at.Sub(began); a.b != byte(i) || late < 50*time.Millisecond || late > 100*time.Millisecond {
				t.Fatalf("packet %d arrives as number %d after %s", a.b, i, late)
			}
		}
		f.set(0, 1, Rule{Delay: time.Hour})
		if got := send(ports, 0, 1, maxDelayed+100); len(got) != 0 {
			t.Errorf("%d packets arrive before their time", len(got))
		}
		if lost := f.lost.Load(); lost < 90 || lost > 100 {
			t.Errorf("%d packets are lost to a full queue, want some hundred", lost)
		}
	})
}
