package nodeclient

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
)

// BenchmarkCall sends reads of 1 KiB records over TCP on the loopback, with so many callers at once. cpu-µs/op is the
// processor time of both ends, the fake node's included.
//
// Estimate: 3 µs of marshalling, maps and channels for both ends, and a frame's 30 µs of system calls, wake-ups and
// HTTP/2 shared by the calls in it: 15 µs with 64 callers, 8 µs with 256; 12 allocations.
// Measured: 43 µs alone, 5.3 µs with 64 callers, 3.6 to 5.8 µs with 256; 5 allocations.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkCall(b, callers) })
	}
}

func benchmarkCall(b *testing.B, callers int) {
	n := newNet(b, 1)
	defer n.close()
	value := make([]byte, 1024)
	n.node(0).serve = func(f *storagev1.Frame, answer func(...*storagev1.Response)) {
		n.node(0).frames = nil // not kept here
		out := make([]*storagev1.Response, 0, len(f.Requests))
		for _, r := range f.Requests {
			out = append(out, &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK, Record: value})
		}
		if len(out) > 0 {
			answer(out...)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxRecvMsgSize(wire.MaxMessageBytes))
	storagev1.RegisterStorageServer(server, n.node(0))
	go func() { _ = server.Serve(listener) }() // ends with Stop
	defer server.Stop()
	cfg := Default()
	cfg.ID, cfg.Targets = [16]byte{1}, []string{addrOf("a")}
	cfg.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", listener.Addr().String())
	}
	cfg.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	c, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = c.Run(b.Context()) }() // ends with Close
	defer c.Close()
	for c.State() == nil || !c.Health(nodeID(0)).Connected {
		<-time.After(time.Millisecond)
	}
	free := make(chan func(Answer), callers)
	done := make(chan error, callers)
	for range callers {
		var deliver func(Answer)
		deliver = func(a Answer) {
			if a.Err != nil {
				done <- a.Err
			}
			free <- deliver
		}
		free <- deliver
	}
	state, key := c.State(), []byte("user:12345")
	b.ReportAllocs()
	begin := processorTime(b)
	for b.Loop() {
		c.Send(Call{To: nodeID(0), Request: &storagev1.Request{Op: storagev1.Op_OP_READ, Key: key}, Layouts: state.Names,
			Deadline: time.Now().Add(10 * time.Second), Deliver: <-free})
	}
	for range callers {
		<-free
	}
	b.ReportMetric(float64(processorTime(b)-begin)/float64(b.N)/1e3, "cpu-µs/op")
	select {
	case err := <-done:
		b.Fatal(err)
	default:
	}
}

// processorTime returns what this process has used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
