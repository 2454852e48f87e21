package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Name, cfg.StorageNodes = "gateway", []string{"node:1"}
	cfg.HTTPAddr, cfg.GRPCAddr, cfg.AdminAddr, cfg.DrainDelay = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", 0
	return cfg
}

// running is a gateway that serves.
type running struct {
	*Server
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, cfg Config, opts ...Option) *running {
	t.Helper()
	s, err := New(cfg, zerolog.Nop(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Server: s, t: t, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// wait returns what Run returned.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatal("Run goes on")
		return nil
	}
}

func (r *running) get(url string) (int, string) {
	r.t.Helper()
	res, err := http.Get(url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// until asks url until the answer is this.
func (r *running) until(url string, status int, body string) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, text := r.get(url)
		if got == status && strings.Contains(text, body) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %d %s, want %d %s", url, got, text, status, body)
		}
	}
}

// connected waits for the stream to n.
func (r *running) connected(n *node) {
	r.t.Helper()
	r.until("http://"+r.HTTPAddr()+"/readyz", 200, "ready")
	deadline := time.Now().Add(20 * time.Second)
	for !r.client.Health(n.id).Connected {
		if time.Now().After(deadline) {
			r.t.Fatal("no stream to the node")
		}
		runtime.Gosched()
	}
}

func TestReadiness(t *testing.T) {
	n, dial := startNode(t)
	close(n.let)
	held := make(chan struct{})
	r := start(t, testConfig(), WithDial(func(ctx context.Context, addr string) (net.Conn, error) {
		select {
		case <-held:
			return dial(ctx, addr)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}))
	public, admin := "http://"+r.HTTPAddr(), "http://"+r.AdminAddr()
	if status, body := r.get(public + "/readyz"); status != 503 || !strings.Contains(body, "no layout") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := r.get(public + "/healthz"); status != 200 {
		t.Errorf("healthz: %d", status)
	}
	if status, body := r.get(public + "/v1/kv/k"); status != 503 || !strings.Contains(body, "/problems/no-layout") {
		t.Errorf("%d %s", status, body)
	}
	close(held)
	r.until(public+"/readyz", 200, "ready")
	r.until(public+"/v1/kv/k", 404, "/problems/no-value")
	for path, want := range map[string]string{
		"/metrics": "dotring_gateway_ready 1", "/readyz": "ready", "/debug/pprof/": "goroutine", "/debug/pprof/heap?debug=1": "heap profile",
	} {
		if status, body := r.get(admin + path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.300s", path, status, body)
		}
		if status, _ := r.get(public + path); strings.HasPrefix(path, "/debug") && status != 404 || path == "/metrics" && status != 404 {
			t.Errorf("%s is on the public port: %d", path, status)
		}
	}
	conn, err := grpc.NewClient(r.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	res, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "dotring.kv.v1.KV"})
	if err != nil || res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", res, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestContextKeysThatDifferMakeUnready(t *testing.T) {
	n, dial := startNode(t)
	n.contextKeys = [][]byte{[]byte("another!")}
	cfg := testConfig()
	cfg.ContextKeyFile = filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(cfg.ContextKeyFile, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg, WithDial(dial))
	r.until("http://"+r.HTTPAddr()+"/readyz", 503, "context keys")
}

// TestDrain stops a gateway with a read under way: /readyz fails first, then new connections, and the read is answered.
func TestDrain(t *testing.T) {
	n, dial := startNode(t)
	cfg := testConfig()
	cfg.DrainDelay = 300 * time.Millisecond
	r := start(t, cfg, WithDial(dial))
	url := "http://" + r.HTTPAddr()
	r.connected(n)
	idle, err := net.Dial("tcp", r.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := io.WriteString(idle, "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(idle)
	first, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first.Body); err != nil {
		t.Fatal(err)
	}
	answer := make(chan int, 1)
	go func() {
		res, err := http.Get(url + "/v1/kv/k?timeout=20s")
		if err != nil {
			t.Error(err)
			answer <- 0
			return
		}
		_ = res.Body.Close()
		answer <- res.StatusCode
	}()
	<-n.entered
	stopped := time.Now()
	r.stop()
	r.until(url+"/readyz", 503, "draining") // it serves, and says so
	// The idle connection is closed once the delay is over, and not before.
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("idle connection: %v", err)
	}
	if after := time.Since(stopped); after < cfg.DrainDelay {
		t.Errorf("the idle connection was closed after %v, the delay is %v", after, cfg.DrainDelay)
	}
	if conn, err := net.Dial("tcp", r.HTTPAddr()); err == nil {
		_ = conn.Close()
		t.Error("a connection is taken after the drain delay")
	}
	select {
	case err := <-r.done:
		t.Fatalf("Run ended with a request under way: %v", err)
	default:
	}
	close(n.let)
	if got := <-answer; got != 404 {
		t.Errorf("the read under way was answered with %d", got)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestCloseDoesNotDrain(t *testing.T) {
	n, dial := startNode(t)
	cfg := testConfig()
	cfg.DrainDelay = time.Minute
	r := start(t, cfg, WithDial(dial))
	url := "http://" + r.HTTPAddr()
	r.connected(n)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if res, err := http.Get(url + "/v1/kv/k?timeout=50s"); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-n.entered
	r.stop()
	r.until(url+"/readyz", 503, "draining")
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	<-ended
}

func TestH2C(t *testing.T) {
	n, dial := startNode(t)
	close(n.let)
	r := start(t, testConfig(), WithDial(dial))
	r.connected(n)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	res, err := client.Get("http://" + r.HTTPAddr() + "/v1/kv/a%2Fb//..")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != 2 || res.StatusCode != 404 || res.Header.Get("Kv-Context") == "" {
		t.Errorf("%s %d %v", res.Proto, res.StatusCode, res.Header)
	}
	big, err := client.Post("http://"+r.HTTPAddr()+"/v1/kv/k", "", strings.NewReader(strings.Repeat("x", 2<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer big.Body.Close()
	http.DefaultClient.CloseIdleConnections() // a connection without a request holds up the end for 5 s
	if big.StatusCode != 413 {
		t.Errorf("%d", big.StatusCode)
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestNewTellsWhatIsWrong(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	badKeys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(badKeys, []byte("00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"configuration": {func(c *Config) { c.StorageNodes = nil }, "--storage-nodes"},
		"busy port":     {func(c *Config) { c.GRPCAddr = busy.Addr().String() }, "--grpc-addr: listen tcp"},
		"no key file":   {func(c *Config) { c.ContextKeyFile = "/nonexistent" }, "read context keys"},
		"bad key file":  {func(c *Config) { c.ContextKeyFile = badKeys }, "context key file"},
	} {
		cfg := testConfig()
		c.change(&cfg)
		s, err := New(cfg, zerolog.Nop())
		if err == nil {
			t.Errorf("%s: accepted", name)
			_ = s.Close()
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCloseWithoutRun gives the ports back.
func TestCloseWithoutRun(t *testing.T) {
	s, err := New(testConfig(), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	addr := s.HTTPAddr()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
