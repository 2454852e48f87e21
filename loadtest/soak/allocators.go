package soak

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// allocators are whose code allocates, in the order of columns, and how the names of their functions begin.
var allocators = []struct {
	name     string
	prefixes []string
}{
	{"dotring", []string{"github.com/dotring/"}},
	{"engine", []string{"github.com/syndtr/goleveldb/", "github.com/cockroachdb/"}},
	{"net/http", []string{"net/http.", "net/http/", "net/textproto.", "net/url."}},
	{"gRPC", []string{"google.golang.org/grpc", "golang.org/x/net/"}},
}

// others is the column of all else: the runtime, gossip, metrics.
const others = "others"

// servants allocate on behalf of whoever calls them.
var servants = []string{"google.golang.org/grpc/mem."}

var errProfile = errors.New("not a profile of allocations")

// byAllocator sums what the text form of Go's profile of allocations says was ever allocated, in bytes as the samples
// estimate them. An allocation is that of the innermost function with a known name.
func byAllocator(r io.Reader) (map[string]float64, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	sums := make(map[string]float64)
	rate, bytes, whose := 0.0, 0.0, ""
	end := func() {
		if bytes > 0 {
			if whose == "" {
				whose = others
			}
			sums[whose] += bytes
		}
		bytes, whose = 0, ""
	}
	for lines.Scan() {
		line := lines.Text()
		switch {
		case rate == 0:
			at := strings.LastIndex(line, "heap/")
			if _, err := fmt.Sscanf(line[max(at, 0):], "heap/%g", &rate); err != nil || rate <= 0 {
				return nil, fmt.Errorf("%w: %.100q", errProfile, line)
			}
			rate /= 2 // twice the mean distance of samples, in bytes
		case strings.Contains(line, "] @ 0x"):
			end()
			var inUse, inUseBytes, n, sum float64
			if _, err := fmt.Sscanf(line, "%g: %g [%g: %g] @", &inUse, &inUseBytes, &n, &sum); err != nil {
				return nil, fmt.Errorf("%w: %.100q", errProfile, line)
			}
			if n > 0 {
				bytes = sum / -math.Expm1(-sum/n/rate) // small allocations are seldom sampled
			}
		case strings.HasPrefix(line, "#\t0x") && whose == "":
			if fields := strings.Fields(line); len(fields) > 2 {
				whose = allocator(fields[2])
			}
		case line == "" || strings.HasPrefix(line, "# "): // what follows is about the runtime as a whole
			end()
		}
	}
	end()
	if rate == 0 {
		return nil, errors.Join(errProfile, lines.Err())
	}
	return sums, lines.Err()
}

// allocator says whose function that is; empty for one that tells nothing.
func allocator(function string) string {
	for _, s := range servants {
		if strings.HasPrefix(function, s) {
			return ""
		}
	}
	for _, a := range allocators {
		for _, p := range a.prefixes {
			if strings.HasPrefix(function, p) {
				return a.name
			}
		}
	}
	return ""
}
