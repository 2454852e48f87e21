package soak

import (
	"strings"
	"testing"
)

func TestSample(t *testing.T) {
	text := "# TYPE go_memstats_alloc_bytes_total counter\ngo_memstats_alloc_bytes 7\ngo_memstats_alloc_bytes_total 1.5e+06\n"
	if v, err := sample(strings.NewReader(text), allocBytes); err != nil || v != 1.5e6 {
		t.Errorf("%v, %v", v, err)
	}
	for _, bad := range []string{"", "go_memstats_alloc_bytes 7\n", allocBytes + " x\n"} {
		if v, err := sample(strings.NewReader(bad), allocBytes); err == nil {
			t.Errorf("%q: %v", bad, v)
		}
	}
}
