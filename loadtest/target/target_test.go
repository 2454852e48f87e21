package target

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// store is a map that keeps, as dotring and Riak do, what a writer says that it saw.
type store struct {
	mu   sync.Mutex
	data map[string]string
	seen map[string]string
	busy bool // refuse everything
	sick bool // fail everything
}

func newStore() *store { return &store{data: map[string]string{}, seen: map[string]string{}} }

func (s *store) get(key string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.data[key]
	return v, ok
}

func (s *store) put(key, value, seen string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[key], s.seen[key] = value, seen
}

func (s *store) state() (busy, sick bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy, s.sick
}

func (s *store) set(busy, sick bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy, s.sick = busy, sick
}

// httpStore serves a store by the rules that dotring and Riak share.
func httpStore(s *store, prefix, header string, written int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), prefix))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if busy, sick := s.state(); busy || sick {
			w.WriteHeader(map[bool]int{true: 429, false: 503}[busy])
			return
		}
		switch r.Method {
		case http.MethodGet:
			v, ok := s.get(key)
			w.Header().Set(header, "saw-"+key[:1])
			switch {
			case !ok:
				w.WriteHeader(404)
			case v == "conflict":
				w.WriteHeader(300)
			}
			_, _ = io.WriteString(w, v)
		case http.MethodPut:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.put(key, string(body), r.Header.Get(header))
			w.WriteHeader(written)
		}
	})
}

func etcdStore(s *store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct{ Key, Value []byte }
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		if busy, sick := s.state(); busy {
			http.Error(w, `{"error":"etcdserver: too many requests","code":8}`, http.StatusServiceUnavailable)
			return
		} else if sick {
			http.Error(w, `{"error":"etcdserver: request timed out"}`, http.StatusServiceUnavailable)
			return
		}
		switch r.URL.Path {
		case "/v3/kv/put":
			s.put(string(req.Key), string(req.Value), "")
			_, _ = io.WriteString(w, `{"header":{"revision":"7"}}`)
		case "/v3/kv/range":
			v, ok := s.get(string(req.Key))
			if !ok {
				_, _ = io.WriteString(w, `{"header":{"revision":"7"}}`)
				return
			}
			w.(http.Flusher).Flush() // makes the answer chunked
			_, _ = fmt.Fprintf(w, `{"header":{"revision":"7"},"kvs":[{"key":"x","value":%q}],"count":"1"}`, base64.StdEncoding.EncodeToString([]byte(v)))
		default:
			http.NotFound(w, r)
		}
	})
}

// redisStore answers GET and SET on l until it is closed.
func redisStore(s *store, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				args, err := redisCommand(r)
				if err != nil {
					return
				}
				answer := "-ERR unknown\r\n"
				busy, sick := s.state()
				switch {
				case busy:
					answer = "-BUSY later\r\n"
				case sick:
				case args[0] == "SET":
					s.put(args[1], args[2], "")
					answer = "+OK\r\n"
				case args[0] == "GET":
					answer = "$-1\r\n"
					if v, ok := s.get(args[1]); ok {
						answer = fmt.Sprintf("$%d\r\n%s\r\n", len(v), v)
					}
				}
				if _, err := io.WriteString(c, answer); err != nil {
					return
				}
			}
		}()
	}
}

func redisCommand(r *bufio.Reader) ([]string, error) {
	number := func(kind byte) (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line[0] != kind {
			return 0, fmt.Errorf("got %q", line)
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number('*')
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := number('$')
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

type kvServer struct {
	kvv1.UnimplementedKVServer
	s *store
}

func (k kvServer) refuse() error {
	busy, sick := k.s.state()
	switch {
	case busy:
		return status.Error(codes.ResourceExhausted, "busy")
	case sick:
		return status.Error(codes.Unavailable, "sick")
	}
	return nil
}

func (k kvServer) Get(_ context.Context, r *kvv1.GetRequest) (*kvv1.GetResponse, error) {
	if err := k.refuse(); err != nil {
		return nil, err
	}
	v, ok := k.s.get(string(r.GetKey()))
	res := &kvv1.GetResponse{State: kvv1.State_STATE_VALUE, Context: "saw-" + string(r.GetKey()[:1])}
	switch {
	case !ok:
		res.State = kvv1.State_STATE_ABSENT
	case v == "conflict":
		res.State = kvv1.State_STATE_CONFLICT
	}
	return res, nil
}

func (k kvServer) Put(_ context.Context, r *kvv1.PutRequest) (*kvv1.PutResponse, error) {
	if err := k.refuse(); err != nil {
		return nil, err
	}
	k.s.put(string(r.GetKey()), string(r.GetValue()), r.GetContext())
	return &kvv1.PutResponse{}, nil
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// start returns a target of a kind that leads to s.
func start(t *testing.T, kind string, s *store) Target {
	t.Helper()
	cfg := Config{Kind: kind}
	serve := func(h http.Handler) {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		cfg.Addresses = []string{srv.Listener.Addr().String()}
	}
	switch kind {
	case DotringHTTP:
		serve(httpStore(s, "/v1/kv/", "Kv-Context", 200))
	case RiakHTTP:
		serve(httpStore(s, "/buckets/load/keys/", "X-Riak-Vclock", 204))
	case EtcdJSON:
		serve(etcdStore(s))
	case Redis:
		l := listen(t)
		go redisStore(s, l)
		cfg.Addresses = []string{l.Addr().String()}
	case DotringGRPC:
		l := bufconn.Listen(1 << 16)
		srv := grpc.NewServer()
		kvv1.RegisterKVServer(srv, kvServer{s: s})
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(srv.Stop)
		cfg.Addresses = []string{"bufconn:1"}
		g := newGRPC(cfg, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		t.Cleanup(func() { _ = g.Close() })
		return g
	}
	tgt, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

func TestEveryTargetReadsAndWrites(t *testing.T) {
	sees := map[string]bool{DotringHTTP: true, DotringGRPC: true, RiakHTTP: true}
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			s := newStore()
			tgt := start(t, kind, s)
			if tgt.Name() != kind {
				t.Errorf("name %q", tgt.Name())
			}
			c, err := tgt.Dial(t.Context(), 3)
			if err != nil {
				t.Fatal(err)
			}
			key, value := []byte("k/ä +%\x00"), bytes.Repeat([]byte{0, '\r', '\n', 0xff}, 20_000)
			if _, out, err := c.Get(key, soon()); out != Absent || err != nil {
				t.Fatalf("get of nothing: %v %v", out, err)
			}
			if out, err := c.Put(key, value, nil, soon()); out != OK || err != nil {
				t.Fatalf("put: %v %v", out, err)
			}
			if got, _ := s.get(string(key)); got != string(value) {
				t.Fatalf("stored %d bytes under the key, want %d", len(got), len(value))
			}
			if s.seen[string(key)] != "" {
				t.Errorf("a plain put showed %q", s.seen[string(key)])
			}
			seen, out, err := c.Get(key, soon())
			if out != OK || err != nil {
				t.Fatalf("get: %v %v", out, err)
			}
			if out, err := c.Put(key, nil, seen, soon()); out != OK || err != nil {
				t.Fatalf("put of an empty value: %v %v", out, err)
			}
			if got := s.seen[string(key)]; sees[kind] != (got == "saw-k") {
				t.Errorf("the put after a get showed %q", got)
			}
			if sees[kind] {
				s.put(string(key), "conflict", "")
				if _, out, err := c.Get(key, soon()); out != Conflict || err != nil {
					t.Errorf("get of siblings: %v %v", out, err)
				}
			}
			refusals(t, c, s, key)
			if err := errors.Join(c.Close(), tgt.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// refusals: a store that has too much to do and one that is broken are told apart, and neither breaks the connection.
func refusals(t *testing.T, c Conn, s *store, key []byte) {
	t.Helper()
	s.set(true, false)
	if _, out, err := c.Get(key, soon()); out != Refused || err != nil {
		t.Errorf("get from a busy store: %v %v", out, err)
	}
	if out, err := c.Put(key, nil, nil, soon()); out != Refused || err != nil {
		t.Errorf("put to a busy store: %v %v", out, err)
	}
	s.set(false, true)
	if _, out, err := c.Get(key, soon()); out != Failed || err == nil {
		t.Errorf("get from a sick store: %v %v", out, err)
	}
	if out, err := c.Put(key, nil, nil, soon()); out != Failed || err == nil {
		t.Errorf("put to a sick store: %v %v", out, err)
	}
	s.set(false, false)
	if out, err := c.Put(key, nil, nil, soon()); out != OK || err != nil {
		t.Errorf("put after that: %v %v", out, err)
	}
}

// canned answers each request with the next of its answers, then closes the connection if told so.
func canned(t *testing.T, answers ...string) (addr string) {
	t.Helper()
	l := listen(t)
	go func() {
		for _, a := range answers {
			c, err := l.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = io.WriteString(c, a)
			}
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

func TestBrokenConnectionsAreDialledAgain(t *testing.T) {
	addr := canned(t,
		"HTTP/1.1 200 OK\r\nContent-Le",                         // cut short
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",        // body cut short
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",       // a byte too many
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",        // whole, but closed after it
		"HTTP/1.0 200 OK\r\nKv-Context: c\r\n\r\nuntil the end", // the body ends with the connection
		"HTTP/1.1 200 OK\r\nconnection: CLOSE\r\nKv-Context: d\r\n\r\nx",
	)
	tgt, err := New(Config{Kind: DotringHTTP, Addresses: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tgt.Dial(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []Outcome
	var last string
	for len(outcomes) < 20 && last != "d" {
		seen, out, _ := c.Get([]byte("k"), soon())
		outcomes = append(outcomes, out)
		last = string(seen)
	}
	// Two answers cut short; the third is taken, and what came behind it makes the next exchange fail; after the fourth
	// the server has closed the connection, which the next exchange finds out.
	want := []Outcome{Failed, Failed, OK, Failed, OK, Failed, OK, OK}
	if fmt.Sprint(outcomes) != fmt.Sprint(want) {
		t.Errorf("outcomes %v, want %v", outcomes, want)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// silent accepts connections and never answers.
func silent(t *testing.T) (addr string, asked <-chan struct{}) {
	t.Helper()
	l := listen(t)
	signal := make(chan struct{}, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					select {
					case signal <- struct{}{}:
					default:
					}
				}
			}()
		}
	}()
	return l.Addr().String(), signal
}

func TestDeadlineAndCancelEndAnOperation(t *testing.T) {
	for _, kind := range []string{DotringHTTP, EtcdJSON, RiakHTTP, Redis} {
		t.Run(kind, func(t *testing.T) {
			addr, asked := silent(t)
			tgt, err := New(Config{Kind: kind, Addresses: []string{addr}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c, err := tgt.Dial(ctx, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, out, err := c.Get([]byte("k"), time.Now().Add(20*time.Millisecond)); out != Failed || !isTimeout(err) {
				t.Errorf("get past its deadline: %v %v", out, err)
			}
			for len(asked) > 0 {
				<-asked
			}
			done := make(chan error, 1)
			go func() {
				_, err := c.Put([]byte("k"), []byte("v"), nil, soon())
				done <- err
			}()
			<-asked
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("a put whose context ended: %v", err)
			}
			if _, _, err := c.Get([]byte("k"), soon()); !errors.Is(err, context.Canceled) {
				t.Errorf("a get after that: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestAddressesAreDealtOut(t *testing.T) {
	a, b := newStore(), newStore()
	sa, sb := httptest.NewServer(httpStore(a, "/v1/kv/", "Kv-Context", 200)), httptest.NewServer(httpStore(b, "/v1/kv/", "Kv-Context", 200))
	defer sa.Close()
	defer sb.Close()
	tgt, err := New(Config{Kind: DotringHTTP, Addresses: []string{sa.Listener.Addr().String(), sb.Listener.Addr().String()}, Query: "w=2"})
	if err != nil {
		t.Fatal(err)
	}
	for w := range 4 {
		c, err := tgt.Dial(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := c.Put(fmt.Appendf(nil, "k%d", w), nil, nil, soon()); out != OK {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.data) != 2 || len(b.data) != 2 {
		t.Errorf("%d and %d writes", len(a.data), len(b.data))
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{
		{Kind: DotringHTTP},
		{Kind: "mysql", Addresses: []string{"h:1"}},
		{Kind: Redis, Addresses: []string{"http://h"}},
		{Kind: DotringHTTP, Addresses: []string{"h:1"}, Query: "r=1\r\nX: y"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v accepted", c)
		}
	}
}
