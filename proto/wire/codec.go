// Package wire puts messages into frames, and frames into gRPC, the same way on both ends of a stream.
package wire

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the stock codec that Codec falls back to
	"google.golang.org/grpc/mem"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
)

// MaxMessageBytes bounds one gRPC message on every connection between gateways and nodes. A frame holds at most
// MaxFrameBytes of payload or a single larger item, whichever is more, and the largest item is a record at its limit
// (3 MiB) beside a value (1 MiB).
const MaxMessageBytes = 8 << 20

// Codec marshals frames without reflection and lets a received frame's byte fields alias the one buffer it arrived in.
// All other messages go through gRPC's stock codec. Pass it with grpc.ForceCodecV2 and grpc.ForceServerCodecV2. Safe
// for concurrent use.
func Codec() encoding.CodecV2 {
	return codec{stock: encoding.GetCodecV2("proto"), buffers: NewPool()}
}

type codec struct {
	stock   encoding.CodecV2
	buffers mem.BufferPool
}

// Name is "proto": the bytes are plain protobuf.
func (codec) Name() string { return "proto" }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*storagev1.Frame)
	if !ok {
		return c.stock.Marshal(v)
	}
	size := f.SizeVT()
	if mem.IsBelowBufferPoolingThreshold(size) {
		b := make([]byte, size)
		if _, err := f.MarshalToSizedBufferVT(b); err != nil {
			return nil, fmt.Errorf("marshal frame: %w", err)
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	b := c.buffers.Get(size)
	if _, err := f.MarshalToSizedBufferVT(*b); err != nil { // writes all of it
		c.buffers.Put(b)
		return nil, fmt.Errorf("marshal frame: %w", err)
	}
	return mem.BufferSlice{mem.NewBuffer(b, c.buffers)}, nil
}

// Unmarshal copies a frame's bytes once, into a buffer that belongs to the garbage collector: gRPC takes its own
// receive buffers back right after this call, so nothing may alias those.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*storagev1.Frame)
	if !ok {
		return c.stock.Unmarshal(data, v)
	}
	if err := f.UnmarshalVTUnsafe(data.Materialize()); err != nil {
		return fmt.Errorf("unmarshal frame: %w", err)
	}
	return nil
}
