package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/admission"
	"github.com/dotring/dotring/gateway/internal/httpapi"
	"github.com/dotring/dotring/gateway/limit"
	"github.com/dotring/dotring/gateway/traffic"
)

// slow is a cluster that does so many operations at a time, each in the same time; the others wait.
type slow struct {
	places chan struct{}
	each   time.Duration
}

func (s slow) Get(ctx context.Context, _ coordinator.GetRequest) (coordinator.GetResult, error) {
	if at, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at)
		defer cancel()
	}
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return coordinator.GetResult{}, &coordinator.Error{Kind: coordinator.DeadlinePassed, Err: ctx.Err()}
	}
	defer func() { <-s.places }()
	<-time.After(s.each)
	return coordinator.GetResult{}, nil
}

func (s slow) Put(context.Context, coordinator.PutRequest) (coordinator.PutResult, error) {
	return coordinator.PutResult{}, nil
}

// pipes is a listener whose connections are pipes in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// phase is what clients saw for a while.
type phase struct {
	served, refused, other, noConn int
	took                           []time.Duration // of those that were served
	longestRefusal                 time.Duration   // of connections that had not been refused just before
}

func (p *phase) p99() time.Duration {
	slices.Sort(p.took)
	return p.took[len(p.took)*99/100]
}

// clients are connections that share an open loop.
type clients struct {
	free chan *client
	mu   sync.Mutex
	now  *phase
}

type client struct {
	conn    net.Conn
	in      *bufio.Reader
	refused bool // its last request was
}

// one does a request on a free connection.
func (c *clients) one(k *client) {
	began := time.Now()
	_, err := io.WriteString(k.conn, "GET /v1/kv/k HTTP/1.1\r\nHost: t\r\n\r\n")
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(k.in, nil)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
	}
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && res.StatusCode == http.StatusNotFound:
		c.now.served++
		c.now.took = append(c.now.took, took)
		k.refused = false
	case err == nil && res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") != "":
		c.now.refused++
		if !k.refused {
			c.now.longestRefusal = max(c.now.longestRefusal, took)
		}
		k.refused = true
	default:
		c.now.other++
	}
	c.free <- k
}

// load offers so many requests a second for a while.
func (c *clients) load(rate float64, d time.Duration) *phase {
	p := &phase{}
	c.mu.Lock()
	c.now = p
	c.mu.Unlock()
	for range int(rate * d.Seconds()) {
		time.Sleep(time.Duration(float64(time.Second) / rate))
		select {
		case k := <-c.free:
			go c.one(k)
		default:
			p.noConn++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	done := *p
	c.now = &phase{} // what ends later counts for nothing
	return &done
}

// With several times more asked of it than it can do, a gateway serves as much as ever, within a bounded time, and refuses
// the rest at once; the moment that is over, it is as fast as before.
func TestGoodputHoldsUnderOverload(t *testing.T) {
	var api httpapi.Config
	newHarness(t, func(c *httpapi.Config) { api = *c })
	api.Logger, api.Registerer = zerolog.Nop(), prometheus.NewRegistry()
	synctest.Test(t, func(t *testing.T) {
		const capacity, each = 250.0, 16 * time.Millisecond
		store := slow{places: make(chan struct{}, 4), each: each}
		cfg := limit.Default()
		cfg.Min, cfg.Initial = 8, 64
		limited, err := admission.New(store, cfg, traffic.New(time.Now()), time.Now, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		api.Store, api.Overload = limited, limited
		handler, err := httpapi.New(api)
		if err != nil {
			t.Fatal(err)
		}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		srv := &http.Server{Handler: handler}
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(l) }()
		c := &clients{free: make(chan *client, 100)}
		for range cap(c.free) {
			near, far := net.Pipe()
			l.conns <- far
			c.free <- &client{conn: near, in: bufio.NewReader(near)}
		}
		calm := c.load(capacity/2, 4*time.Second)
		for _, factor := range []float64{1.5, 3, 5} {
			c.load(factor*capacity, 2*time.Second)
			p := c.load(factor*capacity, 4*time.Second)
			goodput := float64(p.served) / 4 / capacity
			t.Logf("x%g: goodput %.2f, %d refused, %d without a connection, p99 %v", factor, goodput, p.refused, p.noConn, p.p99())
			if goodput < 0.9 || p.other > 0 {
				t.Errorf("x%g: goodput %.2f, %d neither served nor refused", factor, goodput, p.other)
			}
			if p.p99() > 2*limit.Default().Target {
				t.Errorf("x%g: p99 %v", factor, p.p99())
			}
			if p.longestRefusal > time.Millisecond {
				t.Errorf("x%g: a refusal took %v", factor, p.longestRefusal)
			}
		}
		c.load(capacity/2, time.Second)
		after := c.load(capacity/2, 4*time.Second)
		if after.refused > 0 || after.p99() > calm.p99() {
			t.Errorf("a second after the overload %d are refused, p99 is %v, before it was %v", after.refused, after.p99(), calm.p99())
		}
		for range cap(c.free) {
			if err := (<-c.free).conn.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(srv.Close(), ignoreClosed(<-ended)); err != nil {
			t.Error(err)
		}
	})
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// refusing is an overload that refuses everything, and holds connections back for a second.
type refusing struct{}

func (refusing) Full(bool, bool) bool { return true }
func (refusing) Hold() time.Duration  { return time.Second }

func (refusing) FullKey([]byte, bool) error { return nil }

// A client that comes back at once has its answer at once too, but the next request on its connection is not read before
// its time, unless it goes away.
func TestARefusedConnectionIsHeldBack(t *testing.T) {
	var api httpapi.Config
	newHarness(t, func(c *httpapi.Config) { api = *c })
	reg := prometheus.NewRegistry()
	api.Logger, api.Registerer, api.Overload = zerolog.Nop(), reg, refusing{}
	synctest.Test(t, func(t *testing.T) {
		handler, err := httpapi.New(api)
		if err != nil {
			t.Fatal(err)
		}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		srv := &http.Server{Handler: handler}
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(l) }()
		near, far := net.Pipe()
		l.conns <- far
		k, c := &client{conn: near, in: bufio.NewReader(near)}, &clients{free: make(chan *client, 1)}
		for i, want := range []time.Duration{0, time.Second} {
			c.now = &phase{}
			began := time.Now()
			c.one(k)
			<-c.free
			if took := time.Since(began); c.now.refused != 1 || took != want {
				t.Errorf("request %d: %+v after %v, want a refusal after %v", i, c.now, took, want)
			}
		}
		synctest.Wait() // the answer is read before the server counts what comes after it
		if held := gauge(t, reg, "dotring_gateway_http_held_back_connections"); held != 1 {
			t.Errorf("%v connections are held back, want 1", held)
		}
		if err := near.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if held := gauge(t, reg, "dotring_gateway_http_held_back_connections"); held != 0 {
			t.Errorf("%v connections are held back after the client left", held)
		}
		if err := errors.Join(srv.Close(), ignoreClosed(<-ended)); err != nil {
			t.Error(err)
		}
	})
}

// gauge reads a metric without labels.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
