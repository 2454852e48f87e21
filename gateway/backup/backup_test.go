package backup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

var update = flag.Bool("update", false, "rewrite the golden file")

// rec is a record of one sibling.
func rec(key string, actor byte, counter uint64, value string) []byte {
	dot := causal.Dot{Actor: causal.Actor{actor}, Counter: counter}
	return record.Append(nil, []byte(key), causal.Set{Clock: causal.Vector{{Actor: dot.Actor, Counter: counter}},
		Siblings: []causal.Sibling{{Dot: dot, Value: []byte(value), ContentType: "text/plain", Checksum: record.Checksum([]byte(value))}}})
}

var head = Head{Cluster: strings.Repeat("c1", 16), Node: strings.Repeat("0a", 16), Name: "node1", Part: Records, Layout: "3-aa",
	Taken: time.Unix(1764500000, 0).UTC(), GraceMS: 1000}

// file makes a file of these keys in order.
func file(t testing.TB, h Head, keys []string, at func(key string) []byte) []byte {
	t.Helper()
	slices.SortFunc(keys, func(a, b string) int { return order([]byte(a), []byte(b)) })
	var b bytes.Buffer
	w, err := NewWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := w.Add([]byte(k), at(k)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func some(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("key/%d", i))
	}
	return keys
}

func read(b []byte) (n int, err error) {
	r, err := NewReader(bytes.NewReader(b))
	for err == nil {
		if _, _, err = r.Next(); err == nil {
			n++
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func TestFormatStays(t *testing.T) {
	b := file(t, head, some(3), func(k string) []byte { return rec(k, 7, 9, "value of "+k) })
	path := filepath.Join("testdata", "file.golden")
	if *update {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(b, want) {
		t.Fatalf("the format of files has changed: %v", err)
	}
	if n, err := read(want); n != 3 || err != nil {
		t.Fatalf("%d records, %v", n, err)
	}
}

// Every bit that is turned, every cut and whatever is put behind is noticed.
func TestDamageIsNoticed(t *testing.T) {
	b := file(t, head, some(3), func(k string) []byte { return rec(k, 7, 9, "v") })
	for i := range 8 * len(b) {
		c := bytes.Clone(b)
		c[i/8] ^= 1 << (i % 8)
		if _, err := read(c); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d turned: %v", i, err)
		}
	}
	for n := range b {
		if _, err := read(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, err := read(append(bytes.Clone(b), 0)); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a byte more: %v", err)
	}
}

func TestLargeFiles(t *testing.T) {
	big := strings.Repeat("x", 900<<10)
	b := file(t, head, some(9), func(k string) []byte { return rec(k, 1, 1, big) })
	if n, err := read(b); n != 9 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := read(file(t, head, nil, nil)); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(file(f, head, some(2), func(k string) []byte { return rec(k, 7, 9, "v") }))
	f.Add(file(f, head, nil, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := read(b)
		if err == nil && n == 0 && len(b) < len(magic) {
			t.Fatal("nothing is no file")
		}
	})
}

func TestMergeUnitesCopies(t *testing.T) {
	at := func(actor byte, counter uint64) func(string) []byte {
		return func(k string) []byte { return rec(k, actor, counter, fmt.Sprint(actor, counter)) }
	}
	files := [][]byte{
		file(t, head, []string{"both", "old", "a"}, at(1, 5)),
		file(t, head, []string{"old", "b"}, at(1, 7)),
		file(t, head, []string{"both", "c"}, at(2, 1)),
		file(t, head, nil, nil),
	}
	var readers []*Reader
	for _, b := range files {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	got := map[string]int{}
	var last []byte
	err := Merge(readers, func(key, raw []byte) error {
		if last != nil && order(last, key) >= 0 {
			t.Errorf("%q comes after %q", key, last)
		}
		last = bytes.Clone(key)
		set, err := record.Decode(key, raw)
		got[string(key)] = len(set.Siblings)
		if string(key) == "old" && string(set.Siblings[0].Value) != "1 7" {
			t.Errorf("old holds %q", set.Siblings[0].Value)
		}
		return err
	})
	if err != nil || fmt.Sprint(got) != "map[a:1 b:1 both:2 c:1 old:1]" {
		t.Fatal(got, err)
	}
}

func TestAssess(t *testing.T) {
	nodes := func(missing int) (out []Node) {
		for i := range 3 {
			n := Node{Name: fmt.Sprint("node", i)}
			if i < missing {
				n.Error = "away"
			}
			out = append(out, n)
		}
		return out
	}
	base := Facts{Before: "3-a", After: "3-a", MinWrite: 2, Nodes: nodes(0), Spread: time.Second, Grace: time.Hour}
	for _, c := range []struct {
		name     string
		change   func(*Facts)
		complete bool
		notes    int
	}{
		{"all are there", func(*Facts) {}, true, 0},
		{"one is missing, each write is on two", func(f *Facts) { f.Nodes = nodes(1) }, true, 1},
		{"two are missing", func(f *Facts) { f.Nodes = nodes(2) }, false, 1},
		{"one is missing, and writes may be on one", func(f *Facts) { f.Nodes, f.MinWrite = nodes(1), 1 }, false, 1},
		{"the only one is missing", func(f *Facts) { f.Nodes = nodes(1)[:1] }, false, 1},
		{"nobody", func(f *Facts) { f.Nodes = nil }, false, 1},
		{"another layout", func(f *Facts) { f.After = "4-b" }, false, 1},
		{"a change under way", func(f *Facts) { f.Changing = true }, false, 1},
		{"deletions may be forgotten in between", func(f *Facts) { f.Spread = time.Hour / 2 }, false, 1},
	} {
		f := base
		c.change(&f)
		if complete, why := Assess(f); complete != c.complete || len(why) != c.notes {
			t.Errorf("%s: %v %q", c.name, complete, why)
		}
	}
}

// backupOf writes a whole backup of one node.
func backupOf(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	b := file(t, head, some(20), func(k string) []byte { return rec(k, 7, 9, "v") })
	f := File{Name: "records.dotring", Part: Records, Records: 20, Bytes: int64(len(b)), SHA256: fmt.Sprintf("%x", sha256.Sum256(b))}
	if err := os.WriteFile(filepath.Join(dir, f.Name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	m := Manifest{Version: 1, Cluster: head.Cluster, Complete: true, Nodes: []Node{{ID: head.Node, Name: "node1", Files: []File{f}}}}
	if err := Finish(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

// One bit of any file of a backup, one file too few: Verify says so.
func TestVerify(t *testing.T) {
	dir := backupOf(t)
	if _, err := Verify(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"records.dotring", ManifestName, SumsName} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(whole) / 2, len(whole) - 2} {
			b := bytes.Clone(whole)
			b[at] ^= 4
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(dir); err == nil {
				t.Errorf("byte %d of %s changed, and nobody noticed", at, name)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s is gone: %v", name, err)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Verify(dir); err != nil {
		t.Fatal(err)
	}
}
