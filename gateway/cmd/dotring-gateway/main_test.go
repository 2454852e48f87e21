package main

import (
	"math"
	"runtime/debug"
	"testing"
)

// The memory that makes the collector wait does not count against the limit that was asked for.
func TestSlackIsBesideTheLimit(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	for _, c := range []struct{ env, flag, want int64 }{
		{math.MaxInt64, 0, math.MaxInt64},
		{math.MaxInt64, 256 << 20, 256<<20 + slackBytes},
		{1 << 30, 0, 1<<30 + slackBytes},
		{1 << 30, 2 << 30, 2<<30 + slackBytes},
	} {
		debug.SetMemoryLimit(c.env)
		if slack := gcSlack(c.flag); len(slack) != slackBytes {
			t.Fatal(len(slack))
		}
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("a limit of %d over one of %d: the runtime's is %d, want %d", c.flag, c.env, got, c.want)
		}
	}
}
