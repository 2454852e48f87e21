package admission

import (
	"testing"
	"time"
)

// A latency lies below the bound of its bucket, by at most a quarter of it, and above that of the bucket before.
func TestBuckets(t *testing.T) {
	last := -1
	for d := time.Duration(1); d < 100*time.Second; d += d/50 + 1 {
		i := bucketOf(d)
		if i < last || i >= buckets {
			t.Fatalf("%v is in bucket %d, after %d", d, i, last)
		}
		last = i
		if i == buckets-1 {
			continue
		}
		if d >= upperBound(i) {
			t.Errorf("%v in bucket %d, which ends at %v", d, i, upperBound(i))
		}
		if i > 0 && d < upperBound(i-1) {
			t.Errorf("%v in bucket %d, though the one before ends at %v", d, i, upperBound(i-1))
		}
		if i > 1<<bucketBits && upperBound(i) > d*5/4+1 {
			t.Errorf("%v in bucket %d, which ends at %v", d, i, upperBound(i))
		}
	}
	if bucketOf(time.Hour) != buckets-1 || bucketOf(-1) != 0 {
		t.Errorf("an hour is in bucket %d, less than nothing in %d", bucketOf(time.Hour), bucketOf(-1))
	}
}

func TestMedian(t *testing.T) {
	var counts [buckets]int64
	if median(&counts, 0) != 0 {
		t.Error("a median of nothing")
	}
	for _, d := range []time.Duration{1, 2, 3, 1000, 1001} {
		counts[bucketOf(d*time.Millisecond)]++
	}
	if m := median(&counts, 5); m < 3*time.Millisecond || m > 4*time.Millisecond {
		t.Errorf("median %v of 1, 2, 3, 1000 and 1001 ms", m)
	}
}
