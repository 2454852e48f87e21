package transfer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/dotring/dotring/ringsvc/ring"
)

func node(n byte) ring.NodeID { return ring.NodeID{n} }

// keyIn finds a key whose slot is in r.
func keyIn(r ring.Range) []byte {
	for i := 0; ; i++ {
		if key := fmt.Appendf(nil, "key-%d", i); r.Contains(ring.SlotOf(key)) {
			return key
		}
	}
}

func TestProgressOfPulls(t *testing.T) {
	one, two := ring.Range{From: 0, To: ring.Slots / 2}, ring.Range{From: ring.Slots / 2, To: ring.Slots}
	pulls := []ring.Pull{
		{Range: one, Sources: []ring.NodeID{node(1), node(2), node(3)}, Need: 2},
		{Range: two, Sources: []ring.NodeID{node(2), node(9)}, Need: 2}, // 9 is this node
	}
	p := NewProgress(ring.LayoutID{Epoch: 7, Hash: [16]byte{1}})
	want := func(done, total uint64) {
		t.Helper()
		if d, all := p.Slots(pulls, node(9)); d != done || all != total {
			t.Errorf("%d of %d slots are done, want %d of %d", d, all, done, total)
		}
	}
	const half = ring.Slots / 2
	want(0, 3*half)
	key := keyIn(one)
	p.Advance(one, node(1), key)
	want(uint64(ring.SlotOf(key)), 3*half)
	p.Finish(one, node(1))
	p.Advance(one, node(1), key) // comes late
	want(half, 3*half)
	p.Finish(one, node(3))
	p.Advance(one, node(2), key) // more than needed
	want(2*half, 3*half)
	p.Finish(two, node(2))
	want(3*half, 3*half)
	if after, done := p.Cursor(one, node(2)); done || !bytes.Equal(after, key) {
		t.Errorf("cursor %q, %v", after, done)
	}
	if after, done := p.Cursor(ring.Range{From: 1, To: ring.Slots / 2}, node(1)); done || after != nil {
		t.Error("another range has the cursor of this one")
	}
}

func sample() *Progress {
	p := NewProgress(ring.LayoutID{Epoch: 7, Hash: [16]byte{1, 2, 3}})
	p.Bytes = 12345
	one := ring.Range{From: 0, To: ring.Slots / 2}
	p.Finish(one, node(1))
	p.Advance(one, node(2), keyIn(one))
	p.Finish(ring.Range{From: ring.Slots / 2, To: ring.Slots}, node(2))
	return p
}

func TestProgressIsStored(t *testing.T) {
	b := sample().Append(nil, 1<<20)
	const golden = "01000000000000000701020300000000000000000000000000b96002010000000000000000000000000000000200000000000000000000000000000000808020000000808020010" +
		"6" + "6b65792d31" + "808020808020" + "0100"
	if got := hex.EncodeToString(b); got != golden {
		t.Errorf("stored as %s, want %s", got, golden)
	}
	p, err := DecodeProgress(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := p.Append(nil, 1<<20); !bytes.Equal(again, b) || p.Bytes != 12345 {
		t.Errorf("read back as %x", again)
	}
	// What does not fit is left out, and the rest is whole.
	for limit := range len(b) {
		short, err := DecodeProgress(p.Append(nil, max(limit, 60)))
		if err != nil || len(short.parts) > len(p.parts) {
			t.Fatalf("within %d bytes: %v", limit, err)
		}
	}
	for n := range b {
		if _, err := DecodeProgress(b[:n]); err != nil && !errors.Is(err, ErrProgress) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func FuzzDecodeProgress(f *testing.F) {
	f.Add(sample().Append(nil, 1<<20))
	f.Add(NewProgress(ring.LayoutID{}).Append(nil, 1<<20))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodeProgress(b)
		if err != nil {
			if !errors.Is(err, ErrProgress) {
				t.Fatal(err)
			}
			return
		}
		q, err := DecodeProgress(p.Append(nil, 1<<20))
		if err != nil || len(q.parts) != len(p.parts) || q.Layout != p.Layout {
			t.Fatalf("%v after a second turn", err)
		}
	})
}
