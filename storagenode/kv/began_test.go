package kv

import (
	"testing"
	"time"

	"github.com/dotring/dotring/storagenode/engine/memory"
)

// A callback is told when its own batch began.
func TestCommitBegan(t *testing.T) {
	s := open(t, memory.NewStore().Open, nil)
	for range 3 {
		before, began := time.Now(), make(chan time.Time, 1)
		if _, err := s.Mint(write("key", "value"), func(error) { began <- s.CommitBegan() }); err != nil {
			t.Fatal(err)
		}
		if at := <-began; at.Before(before) || at.After(time.Now()) {
			t.Errorf("the batch of a write at %v began at %v", before, at)
		}
	}
}
