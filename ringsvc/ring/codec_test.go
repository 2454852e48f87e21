package ring

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("ring.update", false, "write the golden files anew")

// goldenLayouts are documents of every kind of change.
func goldenLayouts() map[string]*Layout {
	first := Found(ClusterID{0xc1, 15: 1}, Member{ID: NodeID{0xa1}, Name: "north-1", Zone: "north", Weight: 1, Tokens: []Slot{0, 1, 524288, Slots - 1}}, 3, 2)
	grown := first.next(makeChangeSet([]Change{
		{Kind: ChangeJoin, Member: Member{ID: NodeID{0xb2}, Name: "süd-1", Zone: "", Weight: 0.5, Tokens: []Slot{1, 7}}},
		{Kind: ChangeWeight, Member: Member{ID: NodeID{0xa1}, Weight: 2, Tokens: []Slot{5}}},
		{Kind: ChangeLeave, Member: Member{ID: NodeID{0xff}}},
		{Kind: ChangeReplicas, N: 5, MinW: 3},
	}))
	old := Change{Kind: ChangeReplace, Old: NodeID{0xb2}, Member: Member{ID: NodeID{0xc3}, Name: "new", Zone: "z", Weight: 0.5, Tokens: []Slot{3, 7}}}
	shrunk := grown.next(makeChangeSet([]Change{
		old, {Kind: ChangeRemove, Member: Member{ID: NodeID{0xa1}}}, {Kind: ChangeLeave, Member: Member{ID: NodeID{0xb2}}}, {Kind: ChangeAbort, Aborts: old.Name()},
	}))
	return map[string]*Layout{"layout-first": first, "layout-grown": grown, "layout-shrunk": shrunk}
}

func goldenViews(t testing.TB) map[string]*View {
	settled := NewView(goldenLayouts()["layout-first"])
	busy := settled.Clone()
	l := propose(t, busy, Change{Kind: ChangeJoin, Member: Member{ID: NodeID{0xb2}, Name: "south-1", Zone: "south", Weight: 1, Tokens: []Slot{9, 4096}}}, Change{Kind: ChangeReplicas, N: 2, MinW: 2})
	busy.MarkSynced(l.ID(), NodeID{0xa1})
	busy.MarkAcked(l.ID(), NodeID{0xb2})
	busy.MarkSwitched(LayoutID{Epoch: 9, Hash: [16]byte{0xee}}, NodeID{0xc3})
	dead := busy.Clone()
	if err := dead.MarkDead(NodeID{0xb2}, true); err != nil {
		t.Fatal(err)
	}
	return map[string]*View{"view-settled": settled, "view-pending": busy, "view-dead": dead}
}

// golden compares b with the hexadecimal file of that name: bytes that stored data may hold must stay readable, so they may not change
// without a new version.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *update {
		if err := os.WriteFile(path, []byte(wrapHex(b)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := wrapHex(b); got != string(want) {
		t.Errorf("%s changed:\n%s\nwas\n%s", name, got, want)
	}
}

func wrapHex(b []byte) string {
	var out strings.Builder
	for i := 0; i < len(b); i += 32 {
		out.WriteString(hex.EncodeToString(b[i:min(i+32, len(b))]) + "\n")
	}
	return out.String()
}

func TestGolden(t *testing.T) {
	for name, l := range goldenLayouts() {
		golden(t, name, l.Encode())
		back, err := DecodeLayout(l.Encode())
		if err != nil || back.ID() != l.ID() || len(back.Members()) != len(l.Members()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, v := range goldenViews(t) {
		golden(t, name, v.Encode())
		if back, err := DecodeView(v.Encode()); err != nil || back.Hash() != v.Hash() {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := Fence{Acked: LayoutID{Epoch: 7, Hash: [16]byte{0xab, 15: 0xcd}}, ReadEpoch: 6}
	golden(t, "fence", f.Encode())
	if back, err := DecodeFence(f.Encode()); err != nil || back != f {
		t.Errorf("fence: %v, %v", back, err)
	}
}

// TestGoldenNames: the names of layouts go with stored data and requests, so they may not change either.
func TestGoldenNames(t *testing.T) {
	for name, want := range map[string]string{
		"layout-first": "00000000000000012c832003b0ac0a4a0077ca59962c292e",
		"layout-grown": "0000000000000005717ca65a8386905c4a16ffb4b3bfcd42",
	} {
		id := goldenLayouts()[name].ID()
		if got := hex.EncodeToString(AppendLayoutID(nil, id)); got != want {
			t.Errorf("%s is named %s, was %s", name, got, want)
		}
	}
}

func TestDecodersRefuse(t *testing.T) {
	l := goldenLayouts()["layout-shrunk"].Encode()
	v := goldenViews(t)["view-dead"].Encode()
	f := Fence{}.Encode()
	for name, decode := range map[string]func([]byte) error{
		"layout": func(b []byte) error { _, err := DecodeLayout(b); return err },
		"view":   func(b []byte) error { _, err := DecodeView(b); return err },
		"fence":  func(b []byte) error { _, err := DecodeFence(b); return err },
	} {
		whole := map[string][]byte{"layout": l, "view": v, "fence": f}[name]
		if err := decode(whole); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for cut := range len(whole) {
			if err := decode(whole[:cut]); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrMissingLayout) {
				t.Errorf("%s cut to %d bytes: %v", name, cut, err)
			}
		}
		if err := decode(append(bytes.Clone(whole), 0)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
		other := bytes.Clone(whole)
		other[0] += 9
		if err := decode(other); !errors.Is(err, ErrVersion) {
			t.Errorf("%s of another version: %v", name, err)
		}
	}
}

func TestViewWithoutItsLayout(t *testing.T) {
	v := goldenViews(t)["view-pending"]
	short := v.EncodeFor(v.Settled().ID())
	if len(short) >= len(v.Encode()) {
		t.Error("nothing was left out")
	}
	if _, err := DecodeView(short); !errors.Is(err, ErrMissingLayout) {
		t.Errorf("without knowing it: %v", err)
	}
	if _, err := DecodeViewFor(short, founded().Settled()); !errors.Is(err, ErrMissingLayout) {
		t.Errorf("knowing another: %v", err)
	}
	back, err := DecodeViewFor(short, v.Settled())
	if err != nil || back.Settled() != v.Settled() || back.Hash() != v.Hash() {
		t.Errorf("knowing it: %v", err)
	}
	if back, err := DecodeViewFor(v.Encode(), v.Settled()); err != nil || back.Settled() != v.Settled() {
		t.Errorf("the whole view, knowing it: %v", err)
	}
}

// fuzzDecoder holds a decoder to two promises: nothing panics or grows without bound, and what is accepted encodes to the same bytes again.
func fuzzDecoder[T any](f *testing.F, decode func([]byte) (T, error), encode func(*testing.T, T) []byte) {
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrMissingLayout) {
				t.Fatalf("error of no known kind: %v", err)
			}
			return
		}
		if again := encode(t, v); !bytes.Equal(again, b) {
			t.Fatalf("accepted %x, encodes to %x", b, again)
		}
	})
}

func FuzzDecodeLayout(f *testing.F) {
	for _, l := range goldenLayouts() {
		f.Add(l.Encode())
	}
	fuzzDecoder(f, DecodeLayout, func(t *testing.T, l *Layout) []byte {
		primaries := l.Primaries(12345)
		if len(primaries) != l.Replicas() || len(l.Fallbacks(12345, nil, MaxMembers)) != len(l.Members())-l.Replicas() {
			t.Fatalf("%d members, %d primaries", len(l.Members()), len(primaries))
		}
		return l.encode()
	})
}

func FuzzDecodeView(f *testing.F) {
	for _, v := range goldenViews(f) {
		f.Add(v.Encode())
		f.Add(v.EncodeFor(v.Settled().ID()))
	}
	fuzzDecoder(f, DecodeView, func(_ *testing.T, v *View) []byte { return v.Encode() })
}

func FuzzDecodeFence(f *testing.F) {
	f.Add(Fence{Acked: LayoutID{Epoch: 7, Hash: [16]byte{1}}, ReadEpoch: 6}.Encode())
	fuzzDecoder(f, DecodeFence, func(_ *testing.T, v Fence) []byte { return v.Encode() })
}
