package soak

import (
	"math"
	"strings"
	"testing"
)

const someProfile = `heap profile: 3: 4096 [30: 400000] @ heap/1048576
1: 1048576 [10: 10485760] @ 0x4ed5cf 0x4ed58e 0x7b1c3f
#	0x4ed5ce	github.com/syndtr/goleveldb/leveldb/util.(*BufferPool).Get+0x6e	/x/buffer_pool.go:40
#	0x4ed58d	github.com/dotring/dotring/storagenode/kv.(*committer).run+0x2d	/x/commit.go:50

0: 0 [1: 10240] @ 0x1 0x2 0x3 0x4
#	0x1	google.golang.org/grpc/mem.BufferSlice.Materialize+0x1	/x/buffers.go:1
#	0x2	github.com/dotring/dotring/proto/wire.codec.Unmarshal+0x1	/x/codec.go:1
#	0x3	google.golang.org/grpc.recv+0x1	/x/rpc_util.go:1

0: 0 [2: 2097152] @ 0x1 0x2 0x3
#	0x1	slices.Grow[go.shape.[]uint8,go.shape.uint8]+0x1	/x/slices.go:1
#	0x2	net/http.Header.Clone+0x1	/x/header.go:1
#	0x3	github.com/dotring/dotring/gateway/internal/httpapi.(*exchange).WriteHeader+0x1	/x/exchange.go:1

0: 0 [1: 1048576] @ 0x1
#	0x1	runtime.main+0x1	/x/proc.go:1


# runtime.MemStats
# Alloc = 1
# TotalAlloc = 2
`

func TestByAllocator(t *testing.T) {
	got, err := byAllocator(strings.NewReader(someProfile))
	if err != nil {
		t.Fatal(err)
	}
	often := 1 - math.Exp(-2) // how likely an allocation of twice the rate is sampled
	for whose, want := range map[string]float64{"engine": 10485760 / often, "net/http": 2097152 / often, others: 1048576 / often,
		"dotring": 10240 / (1 - math.Exp(-10240.0/524288))} {
		if math.Abs(got[whose]-want) > 1 {
			t.Errorf("%s: %.0f bytes, want %.0f", whose, got[whose], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{"", "<html>", "heap profile: 1: 2 [3: 4] @ heap/0\n", "heap profile: x @ heap/8\n1: x [2: 3] @ 0x1\n"} {
		if got, err := byAllocator(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
