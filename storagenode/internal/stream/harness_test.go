package stream

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// fakeStore is a store whose disk is a switch.
type fakeStore struct {
	limits   *[]time.Time // of applies, where it is set
	mu       sync.Mutex
	records  map[string][]byte
	actor    causal.Actor
	minted   uint64
	repeated bool                     // the next mints are repeats
	early    bool                     // commits end before Mint returns
	fail     error                    // of commits
	began    time.Time                // of the last commit
	refuse   error                    // of everything, before it begins
	commits  []func()                 // what waits for the disk
	block    map[string]chan struct{} // reads of these keys wait
	reading  chan string              // told of each read, if not nil
}

func newFakeStore() *fakeStore {
	return &fakeStore{records: map[string][]byte{}, actor: causal.Actor{1}, block: map[string]chan struct{}{}}
}

func (f *fakeStore) Actor() causal.Actor { return f.actor }

func (f *fakeStore) Digest(key []byte) (record.Digest, error) {
	rec, err := f.Read(key)
	if err != nil {
		return record.Digest{}, err
	}
	return record.DigestOf(rec)
}

func (f *fakeStore) Read(key []byte) ([]byte, error) {
	f.mu.Lock()
	wait, told := f.block[string(key)], f.reading
	rec, ok := f.records[string(key)]
	refuse := f.refuse
	f.mu.Unlock()
	if told != nil {
		told <- string(key)
	}
	if wait != nil {
		<-wait
	}
	switch {
	case refuse != nil:
		return nil, refuse
	case !ok:
		return nil, kv.ErrNotFound
	}
	return rec, nil
}

func (f *fakeStore) Mint(m kv.Mint, durable func(error)) (kv.Minted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return kv.Minted{}, f.refuse
	}
	f.minted++
	dot := causal.Dot{Actor: f.actor, Counter: f.minted}
	rec := record.Append(nil, m.Key, causal.Set{Clock: causal.Vector{dot},
		Siblings: []causal.Sibling{{Dot: dot, ContentType: m.ContentType, Checksum: m.Checksum, Value: m.Value}}})
	key, fail := string(m.Key), f.fail
	commit := func() {
		if fail == nil {
			f.mu.Lock()
			f.records[key] = rec
			f.mu.Unlock()
		}
		durable(fail)
	}
	if f.early {
		if fail == nil {
			f.records[key] = rec
		}
		durable(fail)
	} else {
		f.commits = append(f.commits, commit)
	}
	return kv.Minted{Record: rec, Dot: dot, Repeated: f.repeated}, nil
}

func (f *fakeStore) ApplyBefore(limit time.Time, key, rec []byte, done func(bool, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limits != nil {
		*f.limits = append(*f.limits, limit)
	}
	if f.refuse != nil {
		return f.refuse
	}
	k, fail := string(key), f.fail
	f.commits = append(f.commits, func() {
		if fail == nil {
			f.mu.Lock()
			f.records[k] = slices.Clone(rec)
			f.mu.Unlock()
		}
		done(fail == nil, fail)
	})
	return nil
}

func (f *fakeStore) ApplyHintBefore(_ time.Time, targets []ring.NodeID, key, rec []byte, done func(error)) error {
	return f.ApplyBefore(time.Time{}, append(targets[0][:], key...), rec, func(_ bool, err error) { done(err) })
}

func (f *fakeStore) ReadHeld(key []byte) ([]byte, error) {
	return f.Read(append([]byte("held/"), key...))
}

func (f *fakeStore) ReadMarked([]byte) ([]byte, bool, error) { return nil, false, kv.ErrNotFound }

func (f *fakeStore) CommitBegan() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.began
}

func (f *fakeStore) Retired([]byte) causal.Vector { return nil }

// flush ends what waits for the disk and says how much that was.
func (f *fakeStore) flush() int {
	f.mu.Lock()
	commits := f.commits
	f.commits, f.began = nil, time.Now()
	f.mu.Unlock()
	for _, c := range commits {
		c()
	}
	return len(commits)
}

// fakeLayouts admits what its fields say.
type fakeLayouts struct {
	mu      sync.Mutex
	cluster ring.ClusterID
	fence   ring.Fence
	owns    bool
	view    []byte
}

func (f *fakeLayouts) get() fakeLayouts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fakeLayouts{cluster: f.cluster, fence: f.fence, owns: f.owns, view: f.view}
}
func (f *fakeLayouts) Cluster() ring.ClusterID              { return f.get().cluster }
func (f *fakeLayouts) Encoded() []byte                      { return f.get().view }
func (f *fakeLayouts) BeginWrite(live []ring.LayoutID) bool { return f.get().fence.AdmitWrite(live) }
func (f *fakeLayouts) EndWrite()                            {}
func (f *fakeLayouts) AdmitRead(id ring.LayoutID) bool      { return f.get().fence.AdmitRead(id) }
func (f *fakeLayouts) Owns(ring.Slot) bool                  { return f.get().owns }

type harness struct {
	t       *testing.T
	store   *fakeStore
	layouts *fakeLayouts
	server  *Server
	foreign chan string
	reg     *prometheus.Registry
	dial    func() *grpc.ClientConn
	grpc    *grpc.Server
}

type service struct {
	storagev1.UnimplementedStorageServer
	s *Server
}

func (s *service) Exchange(st grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	return s.s.Exchange(st)
}

var testCluster = ring.ClusterID{9}

func newHarness(t *testing.T, change func(*Config)) *harness {
	t.Helper()
	h := &harness{t: t, store: newFakeStore(), foreign: make(chan string, 16), reg: prometheus.NewRegistry(),
		layouts: &fakeLayouts{cluster: testCluster, owns: true, view: []byte("view")}}
	cfg := Config{Node: ring.NodeID{7}, Store: h.store, Layouts: h.layouts, Workers: 4, QueueMax: 1024,
		InDoubt: func() bool { return false }, ForeignCluster: func(peer string, _ ring.ClusterID) { h.foreign <- peer }, Logger: zerolog.Nop(), Registerer: h.reg}
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	h.grpc = grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.WaitForHandlers(true))
	storagev1.RegisterStorageServer(h.grpc, &service{s: h.server})
	l := bufconn.Listen(1 << 20)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := h.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it served
			t.Error(err)
		}
	})
	h.dial = func() *grpc.ClientConn {
		c, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Cleanup(func() {
		h.server.EndStreams()
		h.grpc.Stop()
		h.server.Close()
		serving.Wait()
	})
	return h
}

// client speaks on one stream.
type client struct {
	t      *testing.T
	st     grpc.BidiStreamingClient[storagev1.Frame, storagev1.Frame]
	hello  *storagev1.Hello
	frames chan *storagev1.Frame
	err    error // why frames was closed
	left   []*storagev1.Response
}

func (h *harness) connect(hello *storagev1.Hello) *client {
	h.t.Helper()
	conn := h.dial()
	ctx, cancel := context.WithCancel(h.t.Context())
	st, err := storagev1.NewStorageClient(conn).Exchange(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := st.Send(&storagev1.Frame{Hello: hello}); err != nil {
		h.t.Fatal(err)
	}
	c := &client{t: h.t, st: st, frames: make(chan *storagev1.Frame, 10_000)}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			f, err := st.Recv()
			if err != nil {
				c.err = err
				close(c.frames)
				return
			}
			c.frames <- f
		}
	})
	h.t.Cleanup(func() {
		cancel()
		reading.Wait()
		if err := conn.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return c
}

func gateway(n byte, keys ...string) *storagev1.Hello {
	h := &storagev1.Hello{Version: 1, Cluster: testCluster[:], Peer: slices.Repeat([]byte{n}, 16)}
	for _, k := range keys {
		h.ContextKeys = append(h.ContextKeys, []byte(k))
	}
	return h
}

func (h *harness) greeted(n byte) *client {
	h.t.Helper()
	c := h.connect(gateway(n))
	f := c.frame()
	if f.GetHello() == nil {
		h.t.Fatalf("first frame %v says no hello", f)
	}
	c.hello = f.GetHello()
	return c
}

func (c *client) frame() *storagev1.Frame {
	c.t.Helper()
	select {
	case f, ok := <-c.frames:
		if !ok {
			c.t.Fatalf("stream ended: %v", c.err)
		}
		return f
	case <-time.After(patience):
		c.t.Fatal("no frame came")
	}
	return nil
}

// answer returns the next response.
func (c *client) answer() *storagev1.Response {
	c.t.Helper()
	for len(c.left) == 0 {
		c.left = c.frame().GetResponses()
	}
	r := c.left[0]
	c.left = c.left[1:]
	return r
}

func (c *client) ended() error {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-c.frames:
			if !ok {
				return c.err
			}
		case <-deadline:
			c.t.Fatal("stream goes on")
		}
	}
}

var layoutOne = &storagev1.LayoutName{Epoch: 1, Hash: slices.Repeat([]byte{1}, 16)}

func (c *client) send(reqs ...*storagev1.Request) {
	c.t.Helper()
	for _, r := range reqs {
		if r.TimeoutMs == 0 {
			r.TimeoutMs = 10_000
		}
	}
	c.sendRaw(&storagev1.Frame{Layouts: []*storagev1.LayoutName{layoutOne}, Requests: reqs})
}

func (c *client) sendRaw(f *storagev1.Frame) {
	c.t.Helper()
	if err := c.st.Send(f); err != nil {
		c.t.Fatal(err)
	}
}

func mintOf(id uint64, key, value string) *storagev1.Request {
	return &storagev1.Request{Id: id, Op: storagev1.Op_OP_MINT, Key: []byte(key), Value: []byte(value), ContentType: "text/plain",
		Checksum: record.Checksum([]byte(value))}
}

func applyOf(id uint64, key, value string) *storagev1.Request {
	dot := causal.Dot{Actor: causal.Actor{3}, Counter: 1}
	return &storagev1.Request{Id: id, Op: storagev1.Op_OP_APPLY, Key: []byte(key), Cause: storagev1.Cause_CAUSE_REPAIR,
		Record: record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{}.With(dot), Siblings: []causal.Sibling{{
			Dot: dot, Value: []byte(value), Checksum: record.Checksum([]byte(value))}}})}
}

func readOf(id uint64, key string) *storagev1.Request {
	return &storagev1.Request{Id: id, Op: storagev1.Op_OP_READ, Key: []byte(key)}
}

func (h *harness) wantStatus(r *storagev1.Response, id uint64, st storagev1.Status) {
	h.t.Helper()
	if r.GetId() != id || r.GetStatus() != st {
		h.t.Fatalf("answer %v, want %v for %d", r, st, id)
	}
}
