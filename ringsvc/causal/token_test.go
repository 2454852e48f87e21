package causal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
)

var update = flag.Bool("update", false, "write the golden files")

var (
	oldKey = []byte("the old context key, 32 bytes...")
	newKey = []byte("the new context key, 32 bytes...")
)

func keyringOf(t testing.TB, keys ...[]byte) causal.Keyring {
	t.Helper()
	k, err := causal.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func drawContext(t *rapid.T) causal.Context {
	c := causal.Context{Vector: drawSet(t, "vector").Clock}
	for _, s := range drawSet(t, "dots").Siblings {
		c.Dots = append(c.Dots, s.Dot)
	}
	for i := range c.Vector {
		c.Vector[i].Counter = rapid.Uint64Min(1).Draw(t, "counter")
	}
	return c
}

func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	rings := []causal.Keyring{{}, keyringOf(t, oldKey), keyringOf(t, newKey, oldKey)}
	rapid.Check(t, func(t *rapid.T) {
		c := drawContext(t)
		key := rapid.SliceOfN(rapid.Byte(), 1, 250).Draw(t, "key")
		ring := rapid.SampledFrom(rings).Draw(t, "ring")
		token, err := ring.EncodeToken(modelCluster, key, c)
		if err != nil {
			t.Fatal(err)
		}
		if len(token) > causal.MaxToken || strings.ContainsAny(token, "=+/ \n") {
			t.Fatalf("token %q", token)
		}
		got, err := ring.DecodeToken(modelCluster, key, token)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("got %v, %v, want %v", got, err, c)
		}
	})
}

func TestTokenRotation(t *testing.T) {
	t.Parallel()
	before, during, after := keyringOf(t, oldKey), keyringOf(t, newKey, oldKey), keyringOf(t, newKey)
	c := causal.Context{Vector: causal.Vector{dot(1, 1)}}
	encode := func(k causal.Keyring) string {
		token, err := k.EncodeToken(modelCluster, modelKey, c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for _, step := range []struct {
		name  string
		ring  causal.Keyring
		token string
		want  error
	}{
		{"the old key's token during", during, encode(before), nil},
		{"the new key's token during", during, encode(during), nil},
		{"the new key's token after", after, encode(during), nil},
		{"the old key's token after", after, encode(before), causal.ErrTokenDamaged},
		{"the new key's token at one not yet told", before, encode(during), causal.ErrTokenDamaged},
	} {
		if _, err := step.ring.DecodeToken(modelCluster, modelKey, step.token); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
	if encode(during) != encode(after) {
		t.Error("the first key signs")
	}
	if f := during.Fingerprints(); len(f) != 2 || f[0] != after.Fingerprints()[0] || f[1] != before.Fingerprints()[0] || f[0] == f[1] {
		t.Errorf("fingerprints %x", f)
	}
	if f := (causal.Keyring{}).Fingerprints(); len(f) != 0 {
		t.Errorf("fingerprints %x of no key", f)
	}
}

func TestTokenErrors(t *testing.T) {
	t.Parallel()
	signed, plain := keyringOf(t, oldKey), causal.Keyring{}
	c := causal.Context{Vector: causal.Vector{dot(1, 300)}, Dots: []causal.Dot{dot(2, 1)}}
	token, err := signed.EncodeToken(modelCluster, modelKey, c)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := plain.EncodeToken(modelCluster, modelKey, c)
	if err != nil {
		t.Fatal(err)
	}
	other := [16]byte{1}
	withByte := func(token string, at int, b byte) string {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		raw[at] = b
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	for _, k := range []struct {
		name    string
		ring    causal.Keyring
		cluster [16]byte
		key     string
		token   string
		want    error
	}{
		{"another key", signed, modelCluster, "another", token, causal.ErrTokenOtherKey},
		{"another cluster", signed, other, string(modelKey), token, causal.ErrTokenOtherCluster},
		{"another key, checksum", plain, modelCluster, "another", sum, causal.ErrTokenOtherKey},
		{"another cluster, checksum", plain, other, string(modelKey), sum, causal.ErrTokenOtherCluster},
		{"version 0", signed, modelCluster, string(modelKey), withByte(token, 0, 0), causal.ErrTokenVersion},
		{"version 3", signed, modelCluster, string(modelKey), withByte(token, 0, 3), causal.ErrTokenVersion},
		{"checksum where there is a key", signed, modelCluster, string(modelKey), sum, causal.ErrTokenDamaged},
		{"signed where there is none", plain, modelCluster, string(modelKey), token, causal.ErrTokenDamaged},
		{"signed, called a checksum", plain, modelCluster, string(modelKey), withByte(token, 0, 1), causal.ErrTokenDamaged},
		{"checksum, called signed", signed, modelCluster, string(modelKey), withByte(sum, 0, 2), causal.ErrTokenDamaged},
		{"empty", signed, modelCluster, string(modelKey), "", causal.ErrTokenDamaged},
		{"not base64", signed, modelCluster, string(modelKey), "a token?", causal.ErrTokenDamaged},
		{"padded", signed, modelCluster, string(modelKey), token + "=", causal.ErrTokenDamaged},
		{"a line break within", signed, modelCluster, string(modelKey), token[:8] + "\n" + token[8:], causal.ErrTokenDamaged},
		{"a line break behind", signed, modelCluster, string(modelKey), token + "\r\n", causal.ErrTokenDamaged},
		{"one byte", signed, modelCluster, string(modelKey), "Ag", causal.ErrTokenDamaged},
		{"too long", signed, modelCluster, string(modelKey), strings.Repeat("A", causal.MaxToken+1), causal.ErrTokenDamaged},
	} {
		got, err := k.ring.DecodeToken(k.cluster, []byte(k.key), k.token)
		if !errors.Is(err, k.want) || !errors.Is(err, causal.ErrToken) {
			t.Errorf("%s: %v, want %v", k.name, err, k.want)
		}
		if !reflect.DeepEqual(got, causal.Context{}) {
			t.Errorf("%s: a context %v beside an error", k.name, got)
		}
	}
}

// No token but the one that was made is taken: each character replaced by each other, each cut, line breaks anywhere.
func TestTokenHasOneSpelling(t *testing.T) {
	t.Parallel()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, ring := range []causal.Keyring{{}, keyringOf(t, newKey, oldKey)} {
		for entries := range 3 { // every length modulo 3
			c := causal.Context{Vector: causal.Vector{dot(1, 1), dot(2, 300), dot(3, 70000)}[:entries]}
			token, err := ring.EncodeToken(modelCluster, modelKey, c)
			if err != nil {
				t.Fatal(err)
			}
			for i := range token {
				for _, r := range []byte(alphabet) {
					changed := token[:i] + string(r) + token[i+1:]
					if _, err := ring.DecodeToken(modelCluster, modelKey, changed); changed != token && !errors.Is(err, causal.ErrToken) {
						t.Fatalf("character %d of %q made %q: %v", i, token, r, err)
					}
				}
				for _, lines := range []string{"\n", "\r", "\r\n", "\n\n\n\n"} {
					if _, err := ring.DecodeToken(modelCluster, modelKey, token[:i]+lines+token[i:]); !errors.Is(err, causal.ErrToken) {
						t.Fatalf("%q broken at %d: %v", token, i, err)
					}
				}
				if _, err := ring.DecodeToken(modelCluster, modelKey, token[:i]); !errors.Is(err, causal.ErrToken) {
					t.Fatalf("%q cut to %d: %v", token, i, err)
				}
			}
		}
	}
}

func TestKeyringRefuses(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][][]byte{
		"three keys":     {oldKey, newKey, modelKey},
		"a short key":    {[]byte("15 bytes of key")},
		"an empty key":   {newKey, nil},
		"the same twice": {newKey, newKey},
	} {
		if _, err := causal.NewKeyring(keys...); !errors.Is(err, causal.ErrKeyring) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenSize(t *testing.T) {
	t.Parallel()
	ring := keyringOf(t, oldKey)
	c := causal.Context{}
	for i := 0; ; i++ {
		c.Vector = append(c.Vector, causal.Entry{Actor: causal.Actor{byte(i)}, Counter: 127})
		token, err := ring.EncodeToken(modelCluster, modelKey, c)
		if len(token) > causal.MaxToken {
			t.Fatalf("%d actors: %d characters", i+1, len(token))
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, causal.ErrTokenTooLarge) || i < 130 {
			t.Fatalf("%d actors: %v", i+1, err)
		}
		return
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	ring := keyringOf(t, oldKey)
	rapid.Check(t, func(t *rapid.T) {
		c, keep := causal.Context{}, []causal.Sibling{}
		for i := range rapid.IntRange(0, 250).Draw(t, "actors") {
			d := causal.Dot{Actor: causal.Actor{byte(i)}, Counter: uint64(i)<<(i%50) + 1}
			c.Vector = append(c.Vector, d)
			if len(keep) < 64 && rapid.IntRange(0, 3).Draw(t, "keep") == 0 {
				keep = append(keep, siblingOf(d))
			}
		}
		c.Dots = []causal.Dot{dot(300, math.MaxUint64)}
		fit := c.Fit(keep)
		if _, err := ring.EncodeToken(modelCluster, modelKey, fit); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.EncodeToken(modelCluster, modelKey, c); err == nil && !reflect.DeepEqual(fit, c) {
			t.Fatal("what fits was cut")
		} else if err != nil && len(fit.Vector) < 80 {
			t.Fatalf("only %d entries were kept", len(fit.Vector))
		}
		if !c.Vector.CoversVector(fit.Vector) || !reflect.DeepEqual(fit.Dots, c.Dots) || fit.Valid() != nil {
			t.Fatal("not a part of it")
		}
		for _, s := range keep {
			if !fit.Covers(s.Dot) {
				t.Fatalf("%s was cut", s.Dot)
			}
		}
	})
}

func TestSatisfiedBy(t *testing.T) {
	t.Parallel()
	c := causal.Context{Vector: causal.Vector{dot(1, 3)}, Dots: []causal.Dot{dot(2, 5)}}
	for name, k := range map[string]struct {
		clock causal.Vector
		want  bool
	}{
		"all of it":         {causal.Vector{dot(1, 3), dot(2, 5)}, true},
		"more":              {causal.Vector{dot(0, 1), dot(1, 4), dot(2, 6)}, true},
		"vector short":      {causal.Vector{dot(1, 2), dot(2, 5)}, false},
		"vector missing":    {causal.Vector{dot(2, 5)}, false},
		"dot not yet there": {causal.Vector{dot(1, 3), dot(2, 4)}, false},
		"dot's actor away":  {causal.Vector{dot(1, 3)}, false},
		"nothing":           {nil, false},
	} {
		if got := c.SatisfiedBy(k.clock); got != k.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !(causal.Context{}).SatisfiedBy(nil) {
		t.Error("the empty context asks for something")
	}
}

func TestDecodeContextRefuses(t *testing.T) {
	t.Parallel()
	a := string(make([]byte, 15))
	for name, b := range map[string]string{
		"empty":                  "",
		"no second number":       "\x00",
		"left over":              "\x00\x00x",
		"left over behind":       "\x01\x00\x01" + a + "\x01x",
		"count beyond":           "\x02\x00\x01" + a + "\x01",
		"counts overflow":        "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01" + a + "\x01",
		"count not minimal":      "\x80\x00\x00",
		"counter zero":           "\x01\x00\x01" + a + "\x00",
		"counter not minimal":    "\x01\x00\x01" + a + "\x81\x00",
		"counter cut short":      "\x01\x00\x01" + a + "\x81",
		"counter beyond 64 bits": "\x01\x00\x01" + a + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
		"actors unsorted":        "\x02\x00\x02" + a + "\x01\x01" + a + "\x01",
		"actor twice":            "\x02\x00\x01" + a + "\x01\x01" + a + "\x02",
		"dots unsorted":          "\x00\x02\x01" + a + "\x02\x01" + a + "\x01",
		"dot twice":              "\x00\x02\x01" + a + "\x02\x01" + a + "\x02",
		"dot zero":               "\x00\x01\x01" + a + "\x00",
		"one counter of two":     "\x02\x00\x01" + a + "\xff\xff\xff\xff\x0f" + "\x02" + a[:13],
	} {
		if c, err := causal.DecodeContext([]byte(b)); !errors.Is(err, causal.ErrContext) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

func TestKeyringIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	ring := keyringOf(t, newKey, oldKey)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			c := causal.Context{Vector: causal.Vector{dot(i, 1)}}
			for range 200 {
				token, err := ring.EncodeToken(modelCluster, modelKey, c)
				if err != nil {
					t.Error(err)
				}
				if got, err := ring.DecodeToken(modelCluster, modelKey, token); err != nil || !reflect.DeepEqual(got, c) {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}

var goldenContexts = map[string]causal.Context{
	"empty":         {},
	"one-read":      {Vector: causal.Vector{dot(1, 1)}},
	"after-a-put":   {Vector: causal.Vector{dot(1, 300), dot(2, 1)}, Dots: []causal.Dot{dot(3, 70000)}},
	"own-write":     {Dots: []causal.Dot{dot(9, math.MaxUint64)}},
	"several-actor": {Vector: causal.Vector{dot(1, 1), dot(2, 2), dot(3, 3), dot(4, 4)}},
}

func TestGoldenTokens(t *testing.T) {
	t.Parallel()
	for name, c := range goldenContexts {
		for kind, ring := range map[string]causal.Keyring{"checksum": {}, "mac": keyringOf(t, oldKey)} {
			token, err := ring.EncodeToken(modelCluster, modelKey, c)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+"."+kind+".token", token)
			if got, err := ring.DecodeToken(modelCluster, modelKey, token); err != nil || !reflect.DeepEqual(got, c) {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
		golden(t, name+".context.hex", hex.EncodeToString(causal.AppendContext(nil, c)))
	}
	for _, f := range keyringOf(t, oldKey).Fingerprints() {
		golden(t, "fingerprint.hex", hex.EncodeToString(f[:]))
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

func FuzzDecodeContext(f *testing.F) {
	for _, c := range goldenContexts {
		f.Add(causal.AppendContext(nil, c))
	}
	f.Add([]byte("\xff\xff\xff\xff\x0f\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := causal.DecodeContext(b)
		if err != nil {
			if !errors.Is(err, causal.ErrContext) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(causal.AppendContext([]byte("x"), c)[1:], b) {
			t.Fatalf("two spellings of %v", c)
		}
		if err := c.Valid(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeToken(f *testing.F) {
	signed := keyringOf(f, newKey, oldKey)
	for _, c := range goldenContexts {
		for _, ring := range []causal.Keyring{{}, signed} {
			token, err := ring.EncodeToken(modelCluster, modelKey, c)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(token)
		}
	}
	f.Add(strings.Repeat("A", causal.MaxToken))
	f.Fuzz(func(t *testing.T, token string) {
		for _, ring := range []causal.Keyring{{}, signed} {
			c, err := ring.DecodeToken(modelCluster, modelKey, token)
			if err != nil {
				if !errors.Is(err, causal.ErrToken) {
					t.Fatal(err)
				}
				continue
			}
			again, err := ring.EncodeToken(modelCluster, modelKey, c)
			if err != nil || again != token {
				t.Fatalf("%q and %q are one context (%v)", token, again, err)
			}
		}
	})
}
