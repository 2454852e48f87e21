package record_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

var update = flag.Bool("update", false, "write the golden files")

var key = []byte("users/42")

func actor(n byte) causal.Actor { return causal.Actor{0: n, 15: 0xa0 + n%16} }

func dot(a byte, counter uint64) causal.Dot { return causal.Dot{Actor: actor(a), Counter: counter} }

func sibling(d causal.Dot, contentType, value string) causal.Sibling {
	s := causal.Sibling{Dot: d, Time: 0x0198_0000_0000_0001, ContentType: contentType, Checksum: record.Checksum([]byte(value))}
	if value != "" {
		s.Value = []byte(value)
	}
	return s
}

func tombstone(d causal.Dot) causal.Sibling {
	s := sibling(d, "", "")
	s.Tombstone = true
	return s
}

// examples are the records of the golden files and the seeds of the fuzz targets.
func examples() map[string]causal.Set {
	rich := sibling(dot(3, 70000), "application/json", `{"a":1}`)
	rich.Meta, rich.Expiry, rich.Time = []byte("k=v"), 1_900_000_000_000, math.MaxUint64
	return map[string]causal.Set{
		"empty":     {},
		"one":       {Clock: causal.Vector{dot(1, 1)}, Siblings: []causal.Sibling{sibling(dot(1, 1), "text/plain", "hello")}},
		"no-value":  {Clock: causal.Vector{dot(1, 2)}, Siblings: []causal.Sibling{sibling(dot(1, 2), "application/octet-stream", "")}},
		"tombstone": {Clock: causal.Vector{dot(1, 9), dot(2, 300)}, Siblings: []causal.Sibling{tombstone(dot(2, 300))}},
		"clock":     {Clock: causal.Vector{dot(1, 1), dot(2, math.MaxUint64)}},
		"siblings": {
			Clock: causal.Vector{dot(1, 5), dot(2, 1), dot(3, 70000), dot(4, 1)},
			Siblings: []causal.Sibling{sibling(dot(1, 2), "text/plain", "two"), sibling(dot(1, 5), "x/very-own", "five"),
				rich, tombstone(dot(4, 1))},
		},
	}
}

func TestGoldenRecords(t *testing.T) {
	t.Parallel()
	for name, s := range examples() {
		b := record.Append(nil, key, s)
		digest, err := record.DigestOf(b)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".record.hex", hex.EncodeToString(b))
		golden(t, name+".digest.hex", hex.EncodeToString(digest[:]))
		if got, err := record.Decode(key, b); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, s)
		}
	}
}

// golden compares text with a file of testdata, or writes it under -update.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != strings.TrimSuffix(string(want), "\n") {
		t.Errorf("%s: got %s, want %s; the format is fixed: a change needs a new version byte", path, text, want)
	}
}

// drawSet returns any valid set.
func drawSet(t *rapid.T) causal.Set {
	s := causal.Set{}
	blob := rapid.SliceOfN(rapid.Byte(), 0, 40)
	for a := range byte(rapid.IntRange(0, 6).Draw(t, "actors")) {
		top := rapid.Uint64Min(1).Draw(t, "counter")
		s.Clock = append(s.Clock, dot(a, top))
		counters := rapid.SliceOfNDistinct(rapid.Uint64Range(1, top), 0, min(3, int(min(top, 3))), rapid.ID).Draw(t, "dots")
		slices.Sort(counters)
		for _, c := range counters {
			types := []string{"", "text/plain", "application/json", "text/html; charset=utf-8", string(blob.Draw(t, "type"))}
			x := sibling(dot(a, c), rapid.SampledFrom(types).Draw(t, "type"), string(blob.Draw(t, "value")))
			x.Tombstone, x.Time, x.Expiry = rapid.Bool().Draw(t, "tombstone"), rapid.Uint64().Draw(t, "time"), rapid.Uint64().Draw(t, "expiry")
			if meta := blob.Draw(t, "meta"); len(meta) > 0 {
				x.Meta = meta
			}
			s.Siblings = append(s.Siblings, x)
		}
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		k := rapid.SliceOfN(rapid.Byte(), 1, 250).Draw(t, "key")
		b := record.Append([]byte("before"), k, s)
		if !bytes.HasPrefix(b, []byte("before")) {
			t.Fatal("Append does not append")
		}
		b = b[len("before"):]
		if over := s.Size() - len(b); over < 0 || over > 32+80*len(s.Siblings)+10*len(s.Clock) {
			t.Fatalf("Size is %d for %d bytes", s.Size(), len(b))
		}
		got, err := record.Decode(k, b)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("%+v, %v, want %+v", got, err, s)
		}
		if err := record.Verify(k, b); err != nil {
			t.Fatal(err)
		}
		clock, err := record.DecodeClock(k, b)
		if err != nil || !reflect.DeepEqual(clock, s.Clock) {
			t.Fatalf("clock %v, %v", clock, err)
		}
		head, err := record.Head(b)
		if err != nil || !bytes.HasPrefix(b, head) {
			t.Fatalf("head of %d bytes, %v", len(head), err)
		}
		bare, size, err := record.DecodeHead(k, head)
		if err != nil || size != len(b) || len(bare.Siblings) != len(s.Siblings) || !bare.Supersedes(s) || !s.Supersedes(bare) {
			t.Fatalf("head alone: %+v of %d bytes, %v", bare, size, err)
		}
		for i := range bare.Siblings {
			if bare.Siblings[i].Value != nil {
				t.Fatal("a head with a value")
			}
		}
		for _, x := range s.Siblings {
			from, to, err := record.ValueSpan(k, b, x.Dot)
			if err != nil || !bytes.Equal(b[from:to], x.Value) {
				t.Fatalf("value at %d:%d, %v", from, to, err)
			}
		}
		if _, _, err := record.ValueSpan(k, b, dot(200, 1)); !errors.Is(err, record.ErrNoSibling) {
			t.Fatal(err)
		}
		if err := record.Verify(append(k, 'x'), b); !errors.Is(err, record.ErrDamaged) {
			t.Fatalf("under another key: %v", err)
		}
	})
}

// What is read must not change when one value is appended to: values end where they end.
func TestValuesAliasTheRecordAndNoMore(t *testing.T) {
	t.Parallel()
	b := record.Append(nil, key, examples()["siblings"])
	s, err := record.Decode(key, b)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(b)
	for _, x := range s.Siblings {
		_ = append(x.Value, "overwritten"...)
		_ = append(x.Meta, "overwritten"...)
	}
	if !bytes.Equal(b, before) {
		t.Error("appending to a value wrote into the record")
	}
	from, _, err := record.ValueSpan(key, b, dot(1, 5))
	if err != nil || &s.Siblings[1].Value[0] != &b[from] {
		t.Errorf("the value was copied (%v)", err)
	}
}

func TestEveryFlippedBitIsDetected(t *testing.T) {
	t.Parallel()
	for name, s := range examples() {
		b := record.Append(nil, key, s)
		digest, err := record.DigestOf(b)
		if err != nil {
			t.Fatal(err)
		}
		header := len(b)
		for _, x := range s.Siblings {
			header -= len(x.Value)
		}
		for bit := range len(b) * 8 {
			b[bit/8] ^= 1 << (bit % 8)
			if err := record.Verify(key, b); !errors.Is(err, record.ErrDamaged) && !errors.Is(err, record.ErrVersion) {
				t.Errorf("%s: bit %d flipped: %v", name, bit, err)
			}
			if other, err := record.DigestOf(b); bit < header*8 && err == nil && other == digest {
				t.Errorf("%s: bit %d flipped in the header: the same digest", name, bit)
			} else if bit >= header*8 && other != digest {
				t.Errorf("%s: bit %d flipped in a value: another digest", name, bit)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
		for bit := range len(key) * 8 {
			other := bytes.Clone(key)
			other[bit/8] ^= 1 << (bit % 8)
			if err := record.Verify(other, b); !errors.Is(err, record.ErrDamaged) {
				t.Errorf("%s: under key %q: %v", name, other, err)
			}
		}
		for n := range b {
			if err := record.Verify(key, b[:n]); !errors.Is(err, record.ErrDamaged) {
				t.Errorf("%s: cut to %d bytes: %v", name, n, err)
			}
		}
		if _, err := record.Decode(key, append(bytes.Clone(b), 0)); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("%s: a byte behind it: %v", name, err)
		}
	}
}

// A value damaged at rest does not keep the clock or other siblings from being read, and Verify names it.
func TestDamagedValue(t *testing.T) {
	t.Parallel()
	b := record.Append(nil, key, examples()["siblings"])
	from, _, err := record.ValueSpan(key, b, dot(1, 5))
	if err != nil {
		t.Fatal(err)
	}
	b[from] ^= 0x40
	if err := record.Verify(key, b); !errors.Is(err, record.ErrDamaged) || !strings.Contains(err.Error(), dot(1, 5).String()) {
		t.Error(err)
	}
	s, err := record.Decode(key, b)
	if err != nil || record.Checksum(s.Siblings[1].Value) == s.Siblings[1].Checksum {
		t.Error("the damage does not show", err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	b := record.Append(nil, key, examples()["one"])
	for _, version := range []byte{0, 2, 255} {
		b[0] = version
		_, decode := record.Decode(key, b)
		_, clock := record.DecodeClock(key, b)
		_, digest := record.DigestOf(b)
		for _, err := range []error{decode, clock, digest, record.Verify(key, b), record.Verify(key, b[:1])} {
			if !errors.Is(err, record.ErrVersion) {
				t.Errorf("version %d: %v", version, err)
			}
		}
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	if d, err := record.DigestOf(nil); err != nil || d != (record.Digest{}) {
		t.Errorf("absent: %x, %v", d, err)
	}
	seen := map[record.Digest]string{}
	for name, s := range examples() {
		d, err := record.DigestOf(record.Append(nil, key, s))
		if err != nil || d == (record.Digest{}) || seen[d] != "" {
			t.Errorf("%s: %x, %v, the same as %q", name, d, err, seen[d])
		}
		seen[d] = name
	}
	for _, b := range []string{"\x01", "\x01\x00\x00\x00\x00", "\x01\x00\x00\x00\x09123456789abc", "\x01\xff\xff\xff\xff123456789"} {
		if _, err := record.DigestOf([]byte(b)); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

func TestDecodeClockNeedsTheHeaderOnly(t *testing.T) {
	t.Parallel()
	s := examples()["siblings"]
	b := record.Append(nil, key, s)
	header := 5 + int(binary.BigEndian.Uint32(b[1:5])) + 4
	clock, err := record.DecodeClock(key, b[:header])
	if err != nil || !reflect.DeepEqual(clock, s.Clock) {
		t.Errorf("%v, %v", clock, err)
	}
	if _, err := record.DecodeClock(key, b[:header-1]); !errors.Is(err, record.ErrDamaged) {
		t.Errorf("one byte less: %v", err)
	}
}

// seal makes a record of header bytes that no encoder would write, with a checksum that is right.
func seal(header, values string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(header)))
	b = append(b, header...)
	sum := crc32.Update(crc32.Checksum(key, crc32.MakeTable(crc32.Castagnoli)), crc32.MakeTable(crc32.Castagnoli), b)
	return append(binary.BigEndian.AppendUint32(b, sum), values...)
}

func TestDecodeRefusesWhatAppendNeverWrites(t *testing.T) {
	t.Parallel()
	one, two := "\x01"+strings.Repeat("\x00", 15), "\x02"+strings.Repeat("\x00", 15)
	at := strings.Repeat("\x00", 8)
	sum := string(binary.BigEndian.AppendUint32(nil, record.Checksum([]byte("v"))))
	// sib is a sibling of entry index with no flags, no type and the value "v".
	sib := func(index, counter string) string { return index + counter + "\x00" + at + "\x00" + sum + "\x01" }
	clock := "\x02" + one + "\x05" + two + "\x05"
	for name, c := range map[string]struct{ header, values string }{
		"no clock":                   {"", ""},
		"clock count beyond":         {"\x03" + one + "\x05" + two + "\x05\x00", ""},
		"clock count not minimal":    {"\x82\x00" + one + "\x05" + two + "\x05\x00", ""},
		"clock unsorted":             {"\x02" + two + "\x05" + one + "\x05\x00", ""},
		"clock with an actor thrice": {"\x03" + one + "\x05" + one + "\x06" + two + "\x01\x00", ""},
		"clock counter zero":         {"\x01" + one + "\x00\x00", ""},
		"clock counter long":         {"\x01" + one + "\x81\x00\x00", ""},
		"clock counter cut short":    {"\x01" + one + "\x81", ""},
		"clock counter too large":    {"\x01" + one + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00", ""},
		"clock cut by counters":      {"\x02" + one + "\xff\xff\xff\xff\x0f" + two[:13], ""},
		"no siblings' count":         {clock, ""},
		"siblings' count beyond":     {clock + "\x03" + sib("\x00", "\x01") + sib("\x01", "\x01"), "vv"},
		"siblings' count overflow":   {clock + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + sib("\x00", "\x01"), "v"},
		"left over in the header":    {clock + "\x01" + sib("\x00", "\x01") + "x", "v"},
		"left over in an empty":      {"\x00\x00x", ""},
		"left over in the values":    {clock + "\x01" + sib("\x00", "\x01"), "vx"},
		"a value too few":            {clock + "\x01" + sib("\x00", "\x01"), ""},
		"index beyond the clock":     {clock + "\x01" + sib("\x02", "\x01"), "v"},
		"index not minimal":          {clock + "\x01" + sib("\x80\x00", "\x01"), "v"},
		"dot beyond the clock":       {clock + "\x01" + sib("\x00", "\x06"), "v"},
		"dot zero":                   {clock + "\x01" + sib("\x00", "\x00"), "v"},
		"dot not minimal":            {clock + "\x01" + sib("\x00", "\x81\x00"), "v"},
		"siblings unsorted":          {clock + "\x02" + sib("\x01", "\x01") + sib("\x00", "\x01"), "vv"},
		"counters unsorted":          {clock + "\x02" + sib("\x00", "\x02") + sib("\x00", "\x01"), "vv"},
		"dot twice":                  {clock + "\x02" + sib("\x00", "\x02") + sib("\x00", "\x02"), "vv"},
		"unknown flag":               {clock + "\x01\x00\x01\x08" + at + "\x00" + sum + "\x01", "v"},
		"empty metadata":             {clock + "\x01\x00\x01\x02" + at + "\x00\x00" + sum + "\x01", "v"},
		"metadata beyond":            {clock + "\x01\x00\x01\x02" + at + "\x00\x7f" + sum + "\x01", "v"},
		"expiry zero":                {clock + "\x01\x00\x01\x04" + at + "\x00" + at + sum + "\x01", "v"},
		"expiry cut short":           {clock + "\x01\x00\x01\x04" + at + "\x00" + sum + "\x01", "v"},
		"type beyond":                {clock + "\x01\x00\x01\x00" + at + "\x7f" + sum + "\x01", "v"},
		"type length not minimal":    {clock + "\x01\x00\x01\x00" + at + "\x80\x00" + sum + "\x01", "v"},
		"value length not minimal":   {clock + "\x01\x00\x01\x00" + at + "\x00" + sum + "\x81\x00", "v"},
		"value length overflow":      {clock + "\x01\x00\x01\x00" + at + "\x00" + sum + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "v"},
		"cut before the checksum":    {clock + "\x01\x00\x01\x00" + at + "\x06" + sum + "\x01", "v"},
	} {
		b := seal(c.header, c.values)
		if s, err := record.Decode(key, b); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("%s: Decode %+v, %v", name, s, err)
		}
		if err := record.Verify(key, b); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("%s: Verify %v", name, err)
		}
		if _, _, err := record.ValueSpan(key, b, causal.Dot{}); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("%s: ValueSpan %v", name, err)
		}
	}
	good := seal(clock+"\x02"+sib("\x00", "\x01")+sib("\x01", "\x05"), "vv")
	if err := record.Verify(key, good); err != nil {
		t.Errorf("the record that all of these spoil: %v", err)
	}
}

// A set that is not valid is written somehow, and refused when read.
func TestAppendOfInvalidSets(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]causal.Set{
		"dot of no actor":    {Siblings: []causal.Sibling{sibling(dot(1, 1), "", "v")}},
		"dot not covered":    {Clock: causal.Vector{dot(1, 1)}, Siblings: []causal.Sibling{sibling(dot(1, 2), "", "v")}},
		"clock unsorted":     {Clock: causal.Vector{dot(2, 1), dot(1, 1)}},
		"siblings unsorted":  {Clock: causal.Vector{dot(1, 2)}, Siblings: []causal.Sibling{sibling(dot(1, 2), "", "v"), sibling(dot(1, 1), "", "w")}},
		"counter zero":       {Clock: causal.Vector{dot(1, 0)}},
		"dot's counter zero": {Clock: causal.Vector{dot(1, 1)}, Siblings: []causal.Sibling{sibling(dot(1, 0), "", "v")}},
	} {
		if got, err := record.Decode(key, record.Append(nil, key, s)); !errors.Is(err, record.ErrDamaged) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	s := examples()["siblings"]
	s.Siblings[1].ContentType = "image/png"
	b := record.Append(nil, key, s)
	buffer := make([]byte, 0, s.Size())
	for name, c := range map[string]struct {
		most float64
		run  func() error
	}{
		"Append":      {0, func() error { buffer = record.Append(buffer[:0], key, s); return nil }},
		"Decode":      {2, func() error { _, err := record.Decode(key, b); return err }},
		"DecodeClock": {1, func() error { _, err := record.DecodeClock(key, b); return err }},
		"Verify":      {0, func() error { return record.Verify(key, b) }},
		"DigestOf":    {0, func() error { _, err := record.DigestOf(b); return err }},
		"ValueSpan":   {0, func() error { _, _, err := record.ValueSpan(key, b, dot(4, 1)); return err }},
	} {
		var err error
		if n := testing.AllocsPerRun(100, func() { err = c.run() }); n > c.most || err != nil {
			t.Errorf("%s: %v allocations, %v at most; %v", name, n, c.most, err)
		}
	}
}

func addSeeds(f *testing.F) {
	for _, s := range examples() {
		f.Add(key, record.Append(nil, key, s))
	}
	f.Add([]byte{}, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(key, []byte{2})
	f.Add(key, []byte{})
}

// agree checks that all readers say the same of b, and that what is accepted is canonical.
func agree(t *testing.T, key, b []byte) {
	s, err := record.Decode(key, b)
	_, clockErr := record.DecodeClock(key, b)
	_, digestErr := record.DigestOf(b)
	_, _, spanErr := record.ValueSpan(key, b, causal.Dot{Counter: 1})
	verifyErr := record.Verify(key, b)
	for _, e := range []error{err, clockErr, digestErr, verifyErr} {
		if e != nil && !errors.Is(e, record.ErrDamaged) && !errors.Is(e, record.ErrVersion) {
			t.Fatalf("an error of no kind: %v", e)
		}
	}
	if err != nil {
		if verifyErr == nil || spanErr == nil || errors.Is(spanErr, record.ErrNoSibling) {
			t.Fatalf("Decode says %v, Verify %v, ValueSpan %v", err, verifyErr, spanErr)
		}
		return
	}
	if clockErr != nil || digestErr != nil || spanErr != nil && !errors.Is(spanErr, record.ErrNoSibling) {
		t.Fatalf("accepted by Decode, but %v, %v, %v", clockErr, digestErr, spanErr)
	}
	if err := s.Valid(); err != nil {
		t.Fatal(err)
	}
	if head, err := record.Head(b); err != nil {
		t.Fatal(err)
	} else if _, size, err := record.DecodeHead(key, head); err != nil || size != len(b) {
		t.Fatalf("its head alone tells %d bytes, %v", size, err)
	}
	if again := record.Append(nil, key, s); !bytes.Equal(again, b) {
		t.Fatalf("two spellings: %x and %x", b, again)
	}
	right := true
	for _, x := range s.Siblings {
		right = right && record.Checksum(x.Value) == x.Checksum
	}
	if right != (verifyErr == nil) {
		t.Fatalf("values' checksums right: %v, Verify: %v", right, verifyErr)
	}
}

func FuzzDecode(f *testing.F) {
	addSeeds(f)
	f.Fuzz(agree)
}

// FuzzSealed gives every input a right header checksum, so that what lies behind it is reached.
func FuzzSealed(f *testing.F) {
	for _, s := range examples() {
		b := record.Append(nil, key, s)
		end := 5 + int(binary.BigEndian.Uint32(b[1:5]))
		f.Add(string(b[5:end]), string(b[end+4:]))
	}
	f.Fuzz(func(t *testing.T, header, values string) { agree(t, key, seal(header, values)) })
}

// FuzzVerify damages a good record anywhere: at most one byte within it.
func FuzzVerify(f *testing.F) {
	f.Add(uint(0), byte(1))
	f.Add(uint(70), byte(0x80))
	b := record.Append(nil, key, examples()["siblings"])
	f.Fuzz(func(t *testing.T, at uint, by byte) {
		damaged := bytes.Clone(b)
		damaged[at%uint(len(b))] ^= by
		if err := record.Verify(key, damaged); (err == nil) != (by == 0) {
			t.Fatal(fmt.Errorf("byte %d by %x: %w", at, by, err))
		}
		agree(t, key, damaged)
	})
}

func FuzzDigestOf(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, _, b []byte) {
		d, err := record.DigestOf(b)
		if err != nil && !errors.Is(err, record.ErrDamaged) && !errors.Is(err, record.ErrVersion) {
			t.Fatal(err)
		}
		if (d == record.Digest{}) != (err != nil || len(b) == 0) {
			t.Fatalf("digest %x, %v", d, err)
		}
	})
}
