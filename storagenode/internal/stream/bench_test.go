package stream

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/ring"
)

// A read from receipt to queued answer, without store, gRPC and codec.
// Estimate: a chunk's share of a channel hand-over 20 ns, two clock reads 80 ns, counter and histogram 60 ns, one
// response of 200 bytes 80 ns, outbox 30 ns: 0.3 µs, 1 allocation. Measured: 0.26 µs, 2 allocations (one is the fake store's).
func BenchmarkReadRequest(b *testing.B) {
	store := newFakeStore()
	s, err := New(Config{Node: ring.NodeID{7}, Store: store, Layouts: benchLayouts{}, Workers: 2, QueueMax: 1 << 20,
		InDoubt: func() bool { return false }, ForeignCluster: func(string, ring.ClusterID) {}, Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	c := &conn{out: wire.NewOutbox[*storagev1.Response](1<<20, 1<<40), abort: make(chan struct{})}
	const size = 256
	reqs := make([]*storagev1.Request, size)
	for i := range reqs {
		reqs[i] = &storagev1.Request{Id: uint64(i + 1), Op: storagev1.Op_OP_READ, Key: []byte("key"), TimeoutMs: 60_000}
	}
	f := &storagev1.Frame{Layouts: []*storagev1.LayoutName{layoutOne}, Requests: reqs}
	var taken []*storagev1.Response
	b.ReportAllocs()
	for n := 0; n < b.N; n += size {
		s.receive(c, f)
		for left := size; left > 0; left -= len(taken) {
			if taken, err = c.out.Take(b.Context(), taken[:0]); err != nil {
				b.Fatal(err)
			}
			for _, r := range taken {
				c.unsent.Add(-int64(responseSize(r)))
			}
		}
	}
	if b.Elapsed() > time.Minute {
		b.Fatal("stuck")
	}
}

type benchLayouts struct{}

func (benchLayouts) Cluster() ring.ClusterID         { return testCluster }
func (benchLayouts) Encoded() []byte                 { return []byte{1} }
func (benchLayouts) BeginWrite([]ring.LayoutID) bool { return true }
func (benchLayouts) EndWrite()                       {}
func (benchLayouts) AdmitRead(ring.LayoutID) bool    { return true }
func (benchLayouts) Owns(ring.Slot) bool             { return true }
