package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/kv"
)

func TestHello(t *testing.T) {
	h := newHarness(t, nil)
	first := h.connect(gateway(1, "key-one!", "key-two!"))
	got := first.frame().GetHello()
	if got.GetVersion() != 1 || ring.ClusterID(got.GetCluster()) != testCluster || ring.NodeID(got.GetPeer()) != (ring.NodeID{7}) ||
		causal.Actor(got.GetActor()) != h.store.actor {
		t.Errorf("hello %v", got)
	}
	if len(got.GetContextKeys()) != 2 || string(got.GetContextKeys()[0]) != "key-one!" {
		t.Errorf("the first gateway is told keys %q, want its own", got.GetContextKeys())
	}
	second := h.connect(gateway(2, "another!"))
	if got := second.frame().GetHello().GetContextKeys(); len(got) != 2 || string(got[0]) != "key-one!" {
		t.Errorf("the second gateway is told keys %q, want those of the first", got)
	}
	unknown := h.connect(&storagev1.Hello{Version: 1, Peer: make([]byte, 16)})
	if unknown.frame().GetHello() == nil {
		t.Error("a gateway that knows no cluster is refused")
	}
}

func TestHelloRefused(t *testing.T) {
	h := newHarness(t, nil)
	foreign := gateway(3)
	foreign.Cluster = slices.Repeat([]byte{8}, 16)
	for name, c := range map[string]struct {
		hello *storagev1.Hello
		code  codes.Code
	}{
		"none":            {nil, codes.InvalidArgument},
		"version":         {&storagev1.Hello{Version: 2, Peer: make([]byte, 16)}, codes.FailedPrecondition},
		"short peer":      {&storagev1.Hello{Version: 1, Peer: make([]byte, 3)}, codes.InvalidArgument},
		"short cluster":   {&storagev1.Hello{Version: 1, Peer: make([]byte, 16), Cluster: make([]byte, 3)}, codes.InvalidArgument},
		"many keys":       {gateway(1, "1", "2", "3", "4", "5"), codes.InvalidArgument},
		"foreign cluster": {foreign, codes.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			if err := h.connect(c.hello).ended(); status.Code(err) != c.code {
				t.Errorf("ended with %v, want %v", err, c.code)
			}
		})
	}
	select {
	case peer := <-h.foreign:
		if peer != strings.Repeat("03", 16) {
			t.Errorf("foreign peer %s", peer)
		}
	default:
		t.Error("nobody was told of the foreign cluster")
	}
	h.t = t
	h.layouts.mu.Lock()
	h.layouts.cluster = ring.ClusterID{}
	h.layouts.mu.Unlock()
	if err := h.connect(gateway(1)).ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("without a cluster: %v", err)
	}
}

// A mint is answered when its dot is issued and again when it is durable, in that order.
func TestMintAnswersTwice(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	value := strings.Repeat("v", 1000)
	c.send(mintOf(5, "key", value))
	first := c.answer()
	h.wantStatus(first, 5, storagev1.Status_STATUS_OK)
	if first.GetDurable() || causal.Actor(first.GetDotActor()) != h.store.actor || first.GetDotCounter() != 1 {
		t.Errorf("first answer %v", first)
	}
	if !first.GetValueCut() || len(first.GetRecord()) >= len(value) {
		t.Fatalf("the value came back: cut %v, %d bytes", first.GetValueCut(), len(first.GetRecord()))
	}
	whole := slices.Concat(first.GetRecord()[:first.GetValueAt()], []byte(value), first.GetRecord()[first.GetValueAt():])
	if err := record.Verify([]byte("key"), whole); err != nil {
		t.Errorf("record with the value put back: %v", err)
	}
	if n := h.store.flush(); n != 1 {
		t.Fatalf("%d commits", n)
	}
	second := c.answer()
	h.wantStatus(second, 5, storagev1.Status_STATUS_OK)
	if !second.GetDurable() || len(second.GetRecord()) != 0 {
		t.Errorf("second answer %v", second)
	}
}

func TestMintShortOrRepeatedKeepsValue(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	c.send(mintOf(1, "key", "short"))
	if r := c.answer(); r.GetValueCut() || record.Verify([]byte("key"), r.GetRecord()) != nil {
		t.Errorf("short value: %v", r)
	}
	h.store.repeated = true
	c.send(mintOf(2, "key", strings.Repeat("v", 1000)))
	if r := c.answer(); r.GetValueCut() || record.Verify([]byte("key"), r.GetRecord()) != nil {
		t.Errorf("repeated mint: %v", r)
	}
	h.store.flush()
}

// A commit that ends before the first answer leaves goes into that one answer.
func TestMintDurableAtOnce(t *testing.T) {
	h := newHarness(t, nil)
	h.store.early = true
	c := h.greeted(1)
	c.send(mintOf(1, "a", "value"), readOf(2, "a"))
	r := c.answer()
	h.wantStatus(r, 1, storagev1.Status_STATUS_OK)
	if !r.GetDurable() || len(r.GetRecord()) == 0 {
		t.Errorf("answer %v", r)
	}
	h.wantStatus(c.answer(), 2, storagev1.Status_STATUS_OK)
	h.store.fail = fmt.Errorf("%w: disk", kv.ErrInDoubt)
	c.send(mintOf(3, "a", "value"), readOf(4, "absent"))
	h.wantStatus(c.answer(), 3, storagev1.Status_STATUS_FAILED)
	h.wantStatus(c.answer(), 4, storagev1.Status_STATUS_ABSENT)
}

func TestMintFailsLater(t *testing.T) {
	h := newHarness(t, nil)
	h.store.fail = fmt.Errorf("%w: disk", kv.ErrInDoubt)
	c := h.greeted(1)
	c.send(mintOf(1, "a", "value"))
	h.wantStatus(c.answer(), 1, storagev1.Status_STATUS_OK)
	h.store.flush()
	r := c.answer()
	h.wantStatus(r, 1, storagev1.Status_STATUS_FAILED)
	if r.GetDurable() {
		t.Error("a failed commit is called durable")
	}
}

// The two ends of a mint may meet in any order: exactly one final answer, never before the first.
func TestMintingRace(t *testing.T) {
	h := newHarness(t, nil)
	for i := range 2000 {
		c := &conn{out: wire.NewOutbox[*storagev1.Response](16, 1<<20), abort: make(chan struct{})}
		r := mintOf(1, "key", "value")
		h.server.pending.Add(1)
		w := &minting{s: h.server, c: c, f: &frame{at: time.Now()}, r: r}
		var both sync.WaitGroup
		both.Go(func() { w.durable(nil) })
		both.Go(func() { w.issued(kv.Minted{Record: []byte("r"), Dot: causal.Dot{Counter: 1}}) })
		both.Wait()
		var durable int
		for n, resp := range c.out.Close() {
			if resp.GetDurable() {
				durable++
			}
			if n == 0 && len(resp.GetRecord()) == 0 {
				t.Fatalf("round %d: the first answer has no record", i)
			}
		}
		if durable != 1 {
			t.Fatalf("round %d: %d durable answers", i, durable)
		}
	}
	if n := h.server.pending.Load(); n != 0 {
		t.Errorf("%d requests pending", n)
	}
}

func TestApplyAnswersWhenDurable(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	apply := &storagev1.Request{Id: 1, Op: storagev1.Op_OP_APPLY, Key: []byte("k"), Record: []byte("rec"), Cause: storagev1.Cause_CAUSE_WRITE}
	c.send(apply, readOf(2, "k"))
	h.wantStatus(c.answer(), 2, storagev1.Status_STATUS_ABSENT)
	h.store.flush()
	r := c.answer()
	h.wantStatus(r, 1, storagev1.Status_STATUS_OK)
	if !r.GetDurable() {
		t.Error("not called durable")
	}
}

func TestReadAndDigest(t *testing.T) {
	h := newHarness(t, nil)
	h.store.early = true
	c := h.greeted(1)
	c.send(mintOf(1, "k", "v"))
	rec := c.answer().GetRecord()
	digest := readOf(3, "k")
	digest.Op = storagev1.Op_OP_DIGEST
	c.send(readOf(2, "k"), digest)
	if r := c.answer(); !slices.Equal(r.GetRecord(), rec) {
		t.Errorf("record %x, want %x", r.GetRecord(), rec)
	}
	want, err := record.DigestOf(rec)
	if err != nil {
		t.Fatal(err)
	}
	if r := c.answer(); !slices.Equal(r.GetDigest(), want[:]) || len(r.GetRecord()) != 0 {
		t.Errorf("digest answer %v, want %x", r, want)
	}
}

func TestRefusals(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	long := strings.Repeat("k", 251)
	bad := func(change func(*storagev1.Request)) *storagev1.Request {
		r := readOf(1, "k")
		r.TimeoutMs = 10_000
		change(r)
		return r
	}
	one := []*storagev1.LayoutName{layoutOne}
	for name, x := range map[string]struct {
		layouts []*storagev1.LayoutName
		r       *storagev1.Request
		want    storagev1.Status
	}{
		"deadline passed":    {one, bad(func(r *storagev1.Request) { r.TimeoutMs = 0 }), storagev1.Status_STATUS_EXPIRED},
		"no operation":       {one, bad(func(r *storagev1.Request) { r.Op = 0 }), storagev1.Status_STATUS_INVALID},
		"unknown operation":  {one, bad(func(r *storagev1.Request) { r.Op = 99 }), storagev1.Status_STATUS_INVALID},
		"no key":             {one, bad(func(r *storagev1.Request) { r.Key = nil }), storagev1.Status_STATUS_INVALID},
		"long key":           {one, bad(func(r *storagev1.Request) { r.Key = []byte(long) }), storagev1.Status_STATUS_INVALID},
		"no layouts":         {nil, bad(func(*storagev1.Request) {}), storagev1.Status_STATUS_INVALID},
		"short layout hash":  {[]*storagev1.LayoutName{{Epoch: 1}}, bad(func(*storagev1.Request) {}), storagev1.Status_STATUS_INVALID},
		"layout beyond list": {one, bad(func(r *storagev1.Request) { r.Layout = 1 }), storagev1.Status_STATUS_INVALID},
		"apply, no cause":    {one, bad(func(r *storagev1.Request) { r.Op = storagev1.Op_OP_APPLY }), storagev1.Status_STATUS_INVALID},
		"broken context": {one, bad(func(r *storagev1.Request) {
			r.Op, r.HasContext, r.Context = storagev1.Op_OP_MINT, true, []byte{9, 9}
		}), storagev1.Status_STATUS_INVALID},
	} {
		c.sendRaw(&storagev1.Frame{Layouts: x.layouts, Requests: []*storagev1.Request{x.r}})
		if r := c.answer(); r.GetStatus() != x.want {
			t.Errorf("%s: %v, want %v", name, r, x.want)
		}
	}
	h.layouts.mu.Lock()
	h.layouts.owns = false
	h.layouts.mu.Unlock()
	c.send(mintOf(2, "k", "v"))
	h.wantStatus(c.answer(), 2, storagev1.Status_STATUS_UNAVAILABLE)
	h.layouts.mu.Lock()
	h.layouts.view = nil
	h.layouts.mu.Unlock()
	c.send(readOf(3, "k"))
	h.wantStatus(c.answer(), 3, storagev1.Status_STATUS_UNAVAILABLE)
	if h.store.minted != 0 {
		t.Error("a refused mint was made")
	}
}

func TestStoreErrors(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	for err, want := range map[error]storagev1.Status{
		kv.ErrBehind: storagev1.Status_STATUS_BEHIND, kv.ErrOverloaded: storagev1.Status_STATUS_OVERLOADED,
		kv.ErrExpired: storagev1.Status_STATUS_EXPIRED, kv.ErrTooManySiblings: storagev1.Status_STATUS_TOO_LARGE,
		kv.ErrTooLarge: storagev1.Status_STATUS_TOO_LARGE, kv.ErrClockTooLarge: storagev1.Status_STATUS_TOO_LARGE,
		kv.ErrInvalid: storagev1.Status_STATUS_INVALID, kv.ErrDiskFull: storagev1.Status_STATUS_DISK_FULL,
		kv.ErrReopening: storagev1.Status_STATUS_UNAVAILABLE, kv.ErrClosed: storagev1.Status_STATUS_UNAVAILABLE,
		kv.ErrInDoubt: storagev1.Status_STATUS_FAILED,
		// Nothing was done, so that another node may be asked.
		errors.New("reading broke"): storagev1.Status_STATUS_UNAVAILABLE,
	} {
		h.store.mu.Lock()
		h.store.refuse = fmt.Errorf("wrapped: %w", err)
		h.store.mu.Unlock()
		c.send(mintOf(1, "k", "v"))
		if r := c.answer(); r.GetStatus() != want || r.GetDetail() == "" {
			t.Errorf("%v is answered %v, want %v", err, r, want)
		}
	}
	// A read that fails is never taken for absence.
	c.send(readOf(2, "k"))
	if r := c.answer(); r.GetStatus() == storagev1.Status_STATUS_ABSENT || r.GetStatus() == storagev1.Status_STATUS_OK {
		t.Errorf("a failed read is answered %v", r)
	}
}

func TestFences(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	h.layouts.mu.Lock()
	h.layouts.fence = ring.Fence{Acked: ring.LayoutID{Epoch: 2, Hash: [16]byte{2}}, ReadEpoch: 2}
	h.layouts.mu.Unlock()
	apply := func(id uint64, cause storagev1.Cause) *storagev1.Request {
		return &storagev1.Request{Id: id, Op: storagev1.Op_OP_APPLY, Key: []byte("k"), Record: []byte("r"), Cause: cause}
	}
	for _, r := range []*storagev1.Request{mintOf(1, "k", "v"), apply(1, storagev1.Cause_CAUSE_WRITE), readOf(1, "k")} {
		c.send(r)
		got := c.answer()
		h.wantStatus(got, 1, storagev1.Status_STATUS_FENCED)
		if string(got.GetView()) != "view" {
			t.Errorf("%v is refused without the view", r.GetOp())
		}
	}
	if h.store.flush() != 0 {
		t.Error("a fenced write was stored")
	}
	// Repairs, hints and transfers are not fenced.
	c.send(apply(2, storagev1.Cause_CAUSE_REPAIR), apply(3, storagev1.Cause_CAUSE_HINT), apply(4, storagev1.Cause_CAUSE_TRANSFER), readOf(5, "x"))
	h.wantStatus(c.answer(), 5, storagev1.Status_STATUS_FENCED)
	h.store.flush()
	for id := uint64(2); id <= 4; id++ {
		h.wantStatus(c.answer(), id, storagev1.Status_STATUS_OK)
	}
}

// A store in doubt answers no read and takes no client's write, but what heals it.
func TestInDoubt(t *testing.T) {
	var doubt atomic.Bool
	h := newHarness(t, func(c *Config) { c.InDoubt = doubt.Load })
	h.store.records["there"] = []byte("r")
	c := h.greeted(1)
	doubt.Store(true)
	digest := readOf(3, "there")
	digest.Op = storagev1.Op_OP_DIGEST
	write := &storagev1.Request{Id: 5, Op: storagev1.Op_OP_APPLY, Key: []byte("k"), Record: []byte("r"), Cause: storagev1.Cause_CAUSE_WRITE}
	repair := &storagev1.Request{Id: 6, Op: storagev1.Op_OP_APPLY, Key: []byte("k"), Record: []byte("r"), Cause: storagev1.Cause_CAUSE_REPAIR}
	c.send(readOf(1, "there"), readOf(2, "absent"), digest, mintOf(4, "k", "v"), write, repair)
	for id, want := range []storagev1.Status{storagev1.Status_STATUS_FAILED, storagev1.Status_STATUS_FAILED, storagev1.Status_STATUS_FAILED,
		storagev1.Status_STATUS_UNAVAILABLE, storagev1.Status_STATUS_UNAVAILABLE} {
		h.wantStatus(c.answer(), uint64(id+1), want)
	}
	c.send(readOf(7, "there"))
	h.wantStatus(c.answer(), 7, storagev1.Status_STATUS_FAILED) // the repair was worked on before
	h.store.flush()
	h.wantStatus(c.answer(), 6, storagev1.Status_STATUS_OK)
	doubt.Store(false)
	c.send(readOf(8, "there"))
	h.wantStatus(c.answer(), 8, storagev1.Status_STATUS_OK)
}

// With every worker held up and the queue full, the rest is refused at once.
func TestOverload(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Workers, c.QueueMax = 1, 2*chunk })
	c := h.greeted(1)
	release := make(chan struct{})
	h.store.block["slow"], h.store.reading = release, make(chan string, 1000)
	c.send(readOf(1, "slow"))
	<-h.store.reading // the only worker is held up
	var reqs []*storagev1.Request
	for id := uint64(2); id < 2+5*chunk; id++ {
		reqs = append(reqs, readOf(id, "k"))
	}
	c.send(reqs...)
	for range 3 * chunk {
		if r := c.answer(); r.GetStatus() != storagev1.Status_STATUS_OVERLOADED {
			t.Fatalf("answer %v while the worker is held up", r)
		}
	}
	close(release)
	for range 1 + 2*chunk {
		if r := c.answer(); r.GetStatus() != storagev1.Status_STATUS_ABSENT {
			t.Fatalf("answer %v after the worker went on", r)
		}
	}
	if n := testutil.ToFloat64(h.server.metrics.requests[storagev1.Op_OP_READ][storagev1.Status_STATUS_OVERLOADED]); n != 3*chunk {
		t.Errorf("%v overloaded requests counted", n)
	}
}

// One slow read does not hold up those in other chunks.
func TestSlowReadHoldsUpOneWorker(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	release := make(chan struct{})
	h.store.block["slow"] = release
	reqs := []*storagev1.Request{readOf(1, "slow")}
	for id := uint64(2); id <= 3*chunk; id++ {
		reqs = append(reqs, readOf(id, "k"))
	}
	c.send(reqs...)
	for range 2 * chunk {
		if r := c.answer(); r.GetId() <= chunk {
			t.Fatalf("answer %v from behind the slow read", r)
		}
	}
	close(release)
	for range chunk {
		c.answer()
	}
}

// An idle stream is not silent.
func TestHeartbeats(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	last := uint64(0)
	for range 3 {
		f := c.frame()
		if f.GetHeartbeat() == 0 || f.GetHeartbeat() < last || len(f.GetResponses()) != 0 {
			t.Fatalf("frame %v after heartbeat %d", f, last)
		}
		last = f.GetHeartbeat()
	}
}

// A record that was on its way for too long, or since before a restart, is refused: it may have been deleted since, and
// the deletion collected.
func TestRecordsThatAreTooOldAreRefused(t *testing.T) {
	pulse := func(seed string, start time.Time) wire.Pulse {
		p, err := wire.NewPulse(strings.NewReader(seed), start)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	start := time.Now().Add(-time.Hour)
	own, other := pulse("12345678", start), pulse("87654321", start)
	var limits []time.Time
	h := newHarness(t, func(c *Config) { c.Pulse, c.MessageAge = own, time.Minute })
	h.store.limits = &limits
	c := h.greeted(1)
	base := applyOf(1, "k", "v").Record
	for i, r := range []*storagev1.Request{applyOf(1, "k", "v"), mintOf(2, "k", "v")} {
		if r.Op == storagev1.Op_OP_MINT {
			r.Base = base
		}
		for j, heard := range []uint64{0, other.Number(time.Now())} {
			r.Id, r.Heard = uint64(10*i+j+1), heard
			c.send(r)
			if a := c.answer(); a.Status != storagev1.Status_STATUS_UNAVAILABLE {
				t.Errorf("%s heard of %d: %v", r.Op, heard, a)
			}
		}
	}
	if len(limits) != 0 {
		t.Error("the store was asked")
	}
	r := applyOf(30, "k", "v")
	r.Heard = own.Number(start.Add(time.Second))
	c.send(r)
	c.frame()
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if len(limits) != 1 || !limits[0].Equal(start.Add(time.Minute+time.Second)) {
		t.Errorf("limits %v", limits)
	}
}

// A drain refuses what is new, waits for what is in flight, and lets the answers leave.
func TestDrain(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	c.send(mintOf(1, "k", "v"))
	c.answer()
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { drained <- h.server.Drain(ctx) }()
	for !h.server.draining.Load() {
		c.frame() // heartbeats pass the time
	}
	c.send(readOf(2, "k"))
	h.wantStatus(c.answer(), 2, storagev1.Status_STATUS_UNAVAILABLE)
	select {
	case err := <-drained:
		t.Fatalf("drained (%v) with a mint in flight", err)
	default:
	}
	h.store.flush()
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	h.server.EndStreams()
	if r := c.answer(); !r.GetDurable() {
		t.Errorf("answer %v", r)
	}
	if err := c.ended(); status.Code(err) != codes.Unknown && err.Error() != "EOF" {
		t.Errorf("stream ended with %v", err)
	}
	if err := h.connect(gateway(2)).ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("new stream while stopping: %v", err)
	}
}

func TestDrainIsBounded(t *testing.T) {
	h := newHarness(t, nil)
	c := h.greeted(1)
	c.send(mintOf(1, "k", "v"))
	c.answer()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.server.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v", err)
	}
	h.store.flush()
}

// A peer that sends and never reads loses its stream; others go on.
func TestAnswersNotRead(t *testing.T) {
	c := &conn{out: wire.NewOutbox[*storagev1.Response](2, 1<<20), abort: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	c.take, c.finish = ctx, cancel
	for range 5 {
		c.answer(&storagev1.Response{})
	}
	select {
	case <-c.abort:
	default:
		t.Error("the stream goes on")
	}
	if ctx.Err() == nil {
		t.Error("the sender is not woken")
	}
}

func TestMetricsHaveHelp(t *testing.T) {
	h := newHarness(t, nil)
	problems, err := testutil.GatherAndLint(h.reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

func TestWithout(t *testing.T) {
	b := []byte("0123456789")
	for _, x := range []struct{ from, to int }{{0, 10}, {0, 3}, {3, 7}, {7, 10}, {5, 5}} {
		want := slices.Concat(b[:x.from], b[x.to:])
		if got := without(b, x.from, x.to); string(got) != string(want) {
			t.Errorf("without %v: %q, want %q", x, got, want)
		}
	}
	if string(b) != "0123456789" {
		t.Errorf("the input is now %q", b)
	}
}
