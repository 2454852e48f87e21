package datadir

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/ring"
)

var created = time.Date(2026, 11, 22, 17, 30, 5, 0, time.UTC)

func sample() Identity {
	var id ring.NodeID
	for i := range id {
		id[i] = byte(i + 1)
	}
	return Identity{Node: id, Created: created}
}

// The file's bytes are a format: they never change for version 1.
func TestIdentityGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/identity.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got := sample().Encode(); !bytes.Equal(got, want) {
		t.Errorf("encoded\n%s, want\n%s", got, want)
	}
	got, err := DecodeIdentity(want)
	if err != nil || got != sample() {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestIdentityRefused(t *testing.T) {
	good := string(sample().Encode())
	for name, b := range map[string]string{
		"empty":        "",
		"cut":          good[:len(good)-1],
		"more":         good + "x: y\n",
		"version":      "version: 2" + good[len("version: 1"):],
		"zero id":      "version: 1\nnode: 00000000000000000000000000000000\ncreated: 2026-11-22T17:30:05Z\n",
		"short id":     "version: 1\nnode: 0102\ncreated: 2026-11-22T17:30:05Z\n",
		"capital id":   "version: 1\nnode: ABCDEF0102030405060708090A0B0C0D\ncreated: 2026-11-22T17:30:05Z\n",
		"bad time":     "version: 1\nnode: 0102030405060708090a0b0c0d0e0f10\ncreated: yesterday\n",
		"other zone":   "version: 1\nnode: 0102030405060708090a0b0c0d0e0f10\ncreated: 2026-11-22T18:30:05+01:00\n",
		"other order":  "node: 0102030405060708090a0b0c0d0e0f10\nversion: 1\ncreated: 2026-11-22T17:30:05Z\n",
		"line endings": "version: 1\r\nnode: 0102030405060708090a0b0c0d0e0f10\r\ncreated: 2026-11-22T17:30:05Z\r\n",
	} {
		if id, err := DecodeIdentity([]byte(b)); !errors.Is(err, ErrIdentity) {
			t.Errorf("%s: decoded %+v, %v", name, id, err)
		}
	}
}

func FuzzDecodeIdentity(f *testing.F) {
	f.Add(sample().Encode())
	f.Add([]byte("version: 1\nnode: \ncreated: \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := DecodeIdentity(b)
		if err == nil && !bytes.Equal(id.Encode(), b) {
			t.Fatalf("%q decodes to %+v, which encodes to %q", b, id, id.Encode())
		}
	})
}

func TestIdentityStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := Open(path, rand.Reader, created)
	if err != nil {
		t.Fatal(err)
	}
	first := d.Identity()
	if first.Node.IsZero() || !first.Created.Equal(created) {
		t.Errorf("identity %+v", first)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	d, err = Open(path, rand.Reader, created.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if d.Identity() != first {
		t.Errorf("identity changed from %+v to %+v", first, d.Identity())
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOneOwner(t *testing.T) {
	path := t.TempDir()
	d, err := Open(path, rand.Reader, created)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, rand.Reader, created); !errors.Is(err, ErrLocked) {
		t.Errorf("second owner: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = Open(path, rand.Reader, created)
	if err != nil {
		t.Fatalf("after the first owner is gone: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDataWithoutIdentityRefused(t *testing.T) {
	path := t.TempDir()
	if err := os.MkdirAll(filepath.Join(path, engineFolder, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, rand.Reader, created); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("opened: %v", err)
	}
	if _, err := os.Stat(filepath.Join(path, identityFile)); err == nil {
		t.Error("an identity was made up")
	}
}

func TestDamagedIdentityRefused(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, identityFile), []byte("version: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, rand.Reader, created); !errors.Is(err, ErrIdentity) {
		t.Errorf("opened: %v", err)
	}
}

// A crash between writing and renaming leaves a temporary file: it means nothing.
func TestLeftoverTemporaryFile(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, identityFile+".tmp"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, rand.Reader, created)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, identityFile+".tmp")); err == nil {
		t.Error("the temporary file is still there")
	}
}

// A directory says that it held data from the first opening of the engine on, whatever became of the data.
func TestHeldData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	for round, want := range []bool{false, true, true} {
		d, err := Open(dir, rand.Reader, created)
		if err != nil {
			t.Fatal(err)
		}
		if d.HeldData() != want {
			t.Errorf("opening %d: held data %v, want %v", round, d.HeldData(), want)
		}
		if err := d.MarkHeldData(); err != nil || !d.HeldData() {
			t.Errorf("mark: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
