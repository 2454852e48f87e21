package kv

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

var update = flag.Bool("update", false, "write golden files")

// All keys that the store writes, and its state, byte for byte.
func TestGoldenFormat(t *testing.T) {
	st := memory.NewStore()
	s := open(t, st.Open, func(c *Config) { c.Now = newClock().Now })
	mustApply(t, s, "user/1", foreign("user/1", "v", dotOf(1, 1)))
	mustApply(t, s, "\x00\xff", foreign("\x00\xff", "a longer value", dotOf(2, 7), dotOf(1, 1)))
	mustHint(t, s, "user/1", foreign("user/1", "v", dotOf(1, 1)), away(1))
	o := newOutcome(t)
	if err := s.PutMeta("fence", []byte("state"), o.mint); err != nil {
		t.Fatal(err)
	}
	if _, err := o.wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := st.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var got strings.Builder
	err = e.Iterate(nil, nil, func(k, v []byte) (bool, error) {
		if k[0] == tagRecord || k[0] == tagHint { // the record has a golden file of its own
			v = fmt.Appendf(nil, "record of %d bytes", len(v))
		} else {
			v = []byte(hex.EncodeToString(v))
		}
		fmt.Fprintf(&got, "%x %s\n", k, v)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "format.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Fatalf("bytes on disk are\n%s\nand were\n%s", got.String(), want)
	}
}

func TestSlotBounds(t *testing.T) {
	rng := newRand(5)
	for range 1000 {
		key := fmt.Appendf(nil, "%x", rng.Uint64())
		slot := ring.SlotOf(key)
		disk := appendRecordKey(nil, ring.Hash(key), key)
		if bytes.Compare(slotBound(tagRecord, slot), disk) > 0 || bytes.Compare(disk, slotBound(tagRecord, slot+1)) >= 0 {
			t.Fatalf("key %s of slot %d is outside of its bounds", key, slot)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add(appendState(nil, state{}))
	f.Add(appendState(nil, state{commits: 1 << 63, keys: 3, bytes: 1 << 40}))
	f.Add([]byte{2})
	f.Add(bytes.Repeat([]byte{0xff}, stateLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err == nil && !slices.Equal(appendState(nil, s), b) {
			t.Fatalf("%x decodes to %+v, which encodes otherwise", b, s)
		}
	})
}
