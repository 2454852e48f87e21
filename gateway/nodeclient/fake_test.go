package nodeclient

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/ring"
)

// fakeNode is a storage node that a test scripts: it is served over memory, at the address that is its name.
type fakeNode struct {
	storagev1.UnimplementedStorageServer
	net  *fakeNet
	id   ring.NodeID
	name string

	mu          sync.Mutex
	server      *grpc.Server
	listener    *bufconn.Listener
	cluster     ring.ClusterID
	peer        ring.NodeID // what its hello says; its id
	contextKeys [][]byte
	streams     map[*fakeStream]bool
	watchers    map[chan struct{}]bool
	deaf        bool // does not receive after its hello
	mute        bool // sends no heartbeats
	// serve answers a frame; nil answers every request OK.
	serve  func(f *storagev1.Frame, answer func(...*storagev1.Response))
	frames []*storagev1.Frame // received, hello first
	hellos []*storagev1.Hello
}

type fakeStream struct {
	kill chan struct{}
}

// fakeNet is the network and what its nodes know of the cluster.
type fakeNet struct {
	t     testing.TB
	mu    sync.Mutex
	nodes map[string]*fakeNode
	view  *ring.View
	dials map[string]int
	// exchanges counts the views that gateways brought.
	exchanges int
}

func nodeID(i int) ring.NodeID { return ring.NodeID{0: 1, 15: byte(i + 1)} }

func settledView(t testing.TB, cluster ring.ClusterID, nodes int) *ring.View {
	member := func(i int) ring.Member { return ring.Member{ID: nodeID(i), Name: string(rune('a' + i)), Weight: 1} }
	founder := member(0)
	founder.Tokens = ring.RandomTokens(founder.ID, ring.TokensPerNode, nil)
	v := ring.NewView(ring.Found(cluster, founder, 3, 2))
	var joins []ring.Change
	for i := 1; i < nodes; i++ {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: member(i)})
	}
	if len(joins) == 0 {
		return v
	}
	l, err := v.Propose(joins)
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []func(ring.LayoutID, ring.NodeID){v.MarkAcked, v.MarkSynced, v.MarkSwitched} {
		for _, n := range v.Required(l) {
			mark(l.ID(), n)
		}
	}
	return v
}

var testCluster = ring.ClusterID{0: 7}

func newNet(t testing.TB, nodes int) *fakeNet {
	n := &fakeNet{t: t, nodes: map[string]*fakeNode{}, view: settledView(t, testCluster, nodes), dials: map[string]int{}}
	for i := range nodes {
		name := string(rune('a' + i))
		f := &fakeNode{net: n, id: nodeID(i), name: name, cluster: testCluster, peer: nodeID(i),
			streams: map[*fakeStream]bool{}, watchers: map[chan struct{}]bool{}}
		n.nodes[addrOf(name)] = f
		f.start()
	}
	return n
}

func addrOf(name string) string { return name + ":1" }

func (n *fakeNet) node(i int) *fakeNode { return n.nodes[addrOf(string(rune('a'+i)))] }

func (n *fakeNet) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials[addr]++
	f := n.nodes[addr]
	n.mu.Unlock()
	if f == nil {
		return nil, syscall.ECONNREFUSED
	}
	f.mu.Lock()
	l := f.listener
	f.mu.Unlock()
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	return l.DialContext(ctx)
}

func (n *fakeNet) close() {
	for _, f := range n.nodes {
		f.stop()
	}
}

// setView makes all nodes tell a new view.
func (n *fakeNet) setView(v *ring.View) {
	n.mu.Lock()
	n.view = v
	n.mu.Unlock()
	for _, f := range n.nodes {
		f.mu.Lock()
		for w := range f.watchers {
			signal(w)
		}
		f.mu.Unlock()
	}
}

func (f *fakeNode) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener = bufconn.Listen(64 << 10)
	f.server = grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxRecvMsgSize(wire.MaxMessageBytes))
	storagev1.RegisterStorageServer(f.server, f)
	go func(s *grpc.Server, l *bufconn.Listener) { _ = s.Serve(l) }(f.server, f.listener) // ends with stop
}

func (f *fakeNode) stop() {
	f.mu.Lock()
	s := f.server
	f.listener, f.server = nil, nil
	f.mu.Unlock()
	if s != nil {
		s.Stop()
	}
}

// breakStreams ends all open streams, as a node does that stops.
func (f *fakeNode) breakStreams() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.streams {
		close(s.kill)
	}
	f.streams = map[*fakeStream]bool{}
}

func (f *fakeNode) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// received returns the requests of all frames.
func (f *fakeNode) received() (requests []*storagev1.Request, frames int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fr := range f.frames {
		if len(fr.Requests) > 0 {
			frames++
			requests = append(requests, fr.Requests...)
		}
	}
	return requests, frames
}

func (f *fakeNode) greeted() (n int) {
	f.set(func() { n = len(f.hellos) })
	return n
}

func (f *fakeNode) watched() (yes bool) {
	f.set(func() { yes = len(f.watchers) > 0 })
	return yes
}

func (f *fakeNode) Watch(_ *storagev1.WatchRequest, s grpc.ServerStreamingServer[storagev1.WatchResponse]) error {
	wake := make(chan struct{}, 1)
	f.set(func() { f.watchers[wake] = true })
	defer f.set(func() { delete(f.watchers, wake) })
	for {
		f.net.mu.Lock()
		msg := &storagev1.WatchResponse{}
		if f.net.view != nil {
			msg.View = f.net.view.Encode()
		}
		for addr, n := range f.net.nodes {
			msg.Members = append(msg.Members, &storagev1.Member{Id: n.id[:], Name: n.name, GrpcAddr: addr, Status: "alive"})
		}
		f.net.mu.Unlock()
		if err := s.Send(msg); err != nil {
			return err
		}
		select {
		case <-wake:
		case <-s.Context().Done():
			return nil
		}
	}
}

// ExchangeView merges what a gateway knows into what all nodes know.
func (f *fakeNode) ExchangeView(_ context.Context, req *storagev1.ExchangeViewRequest) (*storagev1.ExchangeViewResponse, error) {
	v, err := ring.DecodeView(req.GetView())
	if err != nil {
		return nil, err
	}
	f.net.mu.Lock()
	next := f.net.view.Clone()
	_, err = next.Merge(v)
	f.net.exchanges++
	f.net.mu.Unlock()
	if err != nil {
		return nil, err
	}
	f.net.setView(next)
	return &storagev1.ExchangeViewResponse{View: next.Encode()}, nil
}

func (f *fakeNode) GetNode(context.Context, *storagev1.GetNodeRequest) (*storagev1.GetNodeResponse, error) {
	return &storagev1.GetNodeResponse{Id: f.id[:], Name: f.name}, nil
}

func (f *fakeNode) Exchange(s grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	st := &fakeStream{kill: make(chan struct{})}
	f.mu.Lock()
	f.hellos = append(f.hellos, first.Hello)
	f.streams[st] = true
	cluster, peer, deaf := f.cluster, f.peer, f.deaf
	hello := &storagev1.Hello{Version: 1, Cluster: cluster[:], Peer: peer[:], ContextKeys: f.contextKeys}
	f.mu.Unlock()
	if err := s.Send(&storagev1.Frame{Hello: hello, Heartbeat: 1}); err != nil {
		return err
	}
	var sending sync.Mutex
	answer := func(r ...*storagev1.Response) {
		sending.Lock()
		defer sending.Unlock()
		_ = s.Send(&storagev1.Frame{Responses: r, Heartbeat: 2}) // a stream that ended is the test's intention
	}
	done := make(chan error, 1)
	if !deaf {
		go func() { done <- f.receive(s, answer) }()
	}
	beat := time.NewTicker(250 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case <-st.kill:
			return status.Error(codes.Unavailable, "killed")
		case err := <-done:
			return err
		case <-s.Context().Done():
			return nil
		case <-beat.C:
			mute := false
			f.set(func() { mute = f.mute })
			if !mute {
				answer()
			}
		}
	}
}

func (f *fakeNode) receive(s grpc.BidiStreamingServer[storagev1.Frame, storagev1.Frame], answer func(...*storagev1.Response)) error {
	for {
		fr, err := s.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.frames = append(f.frames, fr)
		serve := f.serve
		f.mu.Unlock()
		if serve != nil {
			serve(fr, answer)
			continue
		}
		var out []*storagev1.Response
		for _, r := range fr.Requests {
			out = append(out, &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK, Durable: true, Record: r.Key})
		}
		if len(out) > 0 {
			answer(out...)
		}
	}
}

// scene is a client and its network in a bubble.
type scene struct {
	*fakeNet
	client *Client
	ran    chan error
	cancel context.CancelFunc
	open   atomic.Int64 // calls that are not done
}

func (s *scene) closeAll() {
	s.client.Close()
	s.cancel()
	if err := <-s.ran; err != nil {
		s.t.Errorf("run: %v", err)
	}
	s.fakeNet.close()
	synctest.Wait()
	if n := s.open.Load(); n != 0 {
		s.t.Errorf("%d calls were never done", n)
	}
}

// send sends a call and holds the client to what it promises of Done: it comes once, after the last answer, and nothing looks
// at the request's value any more, which is overwritten then.
func (s *scene) send(call Call) {
	var done atomic.Bool
	s.open.Add(1)
	deliver := call.Deliver
	call.Deliver = func(a Answer) {
		if done.Load() {
			s.t.Errorf("an answer to a call that was done: %+v", a)
		}
		deliver(a)
	}
	value := call.Request.Value
	call.Done = func() {
		if done.Swap(true) {
			s.t.Error("a call was done twice")
		}
		for i := range value {
			value[i] = 0xdd
		}
		s.open.Add(-1)
	}
	s.client.Send(call)
}

// play runs f in a bubble with a client whose streams to all nodes are open.
func play(t *testing.T, nodes int, tune func(*Config, *fakeNet), f func(t *testing.T, s *scene)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet(t, nodes)
		cfg := Default()
		cfg.ID = [16]byte{15: 9}
		cfg.Targets = []string{addrOf("a")}
		cfg.Dial = n.dial
		cfg.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
		if tune != nil {
			tune(&cfg, n)
		}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		s := &scene{fakeNet: n, client: c, ran: make(chan error, 1), cancel: cancel}
		go func() { s.ran <- c.Run(ctx) }()
		defer s.closeAll()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		f(t, s)
	})
}

// call sends a call and returns where its answers come.
func (s *scene) call(to int, r *storagev1.Request, timeout time.Duration) chan Answer {
	out := make(chan Answer, 8)
	state := s.client.State()
	s.send(Call{To: nodeID(to), Tag: 42, Request: r, Layouts: state.Names, Deadline: time.Now().Add(timeout),
		Deliver: func(a Answer) { out <- a }})
	return out
}

func readOf(key string) *storagev1.Request {
	return &storagev1.Request{Op: storagev1.Op_OP_READ, Key: []byte(key)}
}

func wantErr(t *testing.T, a Answer, want error) {
	t.Helper()
	if !errors.Is(a.Err, want) {
		t.Fatalf("answer is %+v, want %v", a, want)
	}
}
