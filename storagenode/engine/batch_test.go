package engine_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	goleveldb "github.com/syndtr/goleveldb/leveldb"
	"pgregory.net/rapid"

	"github.com/dotring/dotring/storagenode/engine"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestBatchGolden pins the encoding, which LevelDB writes to disk as it is.
func TestBatchGolden(t *testing.T) {
	var b engine.Batch
	b.Put([]byte("key"), []byte("value"))
	b.Delete([]byte("gone"))
	b.Put([]byte(""), []byte(""))
	b.Put([]byte("long"), bytes.Repeat([]byte("x"), 200)) // a length of two bytes
	got := hex.Dump(b.Encoded())
	const file = "testdata/batch.hex"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("encoding changed:\n%s\nwant:\n%s", got, want)
	}
}

// replay writes down what a LevelDB batch holds.
type replay struct{ out strings.Builder }

func (r *replay) Put(k, v []byte) { fmt.Fprintf(&r.out, "put %x=%x\n", k, v) }
func (r *replay) Delete(k []byte) { fmt.Fprintf(&r.out, "delete %x\n", k) }

// TestBatchAgainstLevelDB compares with the library's own batch: same bytes, same records, same count.
func TestBatchAgainstLevelDB(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b engine.Batch
		var lib goleveldb.Batch
		var mine replay
		payload := 0
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			k := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key")
			if rapid.Bool().Draw(t, "delete") {
				b.Delete(k)
				lib.Delete(k)
				payload += len(k)
				continue
			}
			v := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")
			b.Put(k, v)
			lib.Put(k, v)
			payload += len(k) + len(v)
		}
		if !bytes.Equal(b.Encoded(), lib.Dump()) || b.Len() != lib.Len() {
			t.Fatalf("%x of %d records, LevelDB has %x of %d", b.Encoded(), b.Len(), lib.Dump(), lib.Len())
		}
		if b.Payload() != payload || b.Size() != payload+16*b.Len() {
			t.Fatalf("payload %d, size %d; want %d, %d", b.Payload(), b.Size(), payload, payload+16*b.Len())
		}
		b.Each(func(k, v []byte) {
			if v == nil {
				mine.Delete(k)
			} else {
				mine.Put(k, v)
			}
		})
		var theirs replay
		if err := lib.Replay(&theirs); err != nil {
			t.Fatal(err)
		}
		if mine.out.String() != theirs.out.String() {
			t.Fatalf("records:\n%s\nLevelDB has:\n%s", mine.out.String(), theirs.out.String())
		}
		b.Reset()
		if b.Len() != 0 || b.Size() != 0 || len(b.Encoded()) != 0 {
			t.Fatal("reset left something")
		}
	})
}

func TestDamage(t *testing.T) {
	for _, tt := range []struct {
		d    engine.Damage
		want string
	}{
		{engine.Damage{Err: io.EOF}, "engine: stored data damaged: EOF"},
		{engine.Damage{File: "000001.ldb", Err: io.EOF}, "engine: stored data damaged: 000001.ldb: EOF"},
		{
			engine.Damage{File: "000001.ldb", From: []byte("a"), To: []byte("z"), Bounded: true, Err: io.EOF},
			"engine: stored data damaged: 000001.ldb, keys 61 to 7a: EOF",
		},
	} {
		err := fmt.Errorf("get: %w", &tt.d)
		if !errors.Is(err, engine.ErrDamaged) || !errors.Is(err, io.EOF) {
			t.Errorf("%v is not both damage and its cause", err)
		}
		if tt.d.Error() != tt.want {
			t.Errorf("%q, want %q", tt.d.Error(), tt.want)
		}
	}
}

func TestStatsRatios(t *testing.T) {
	var none engine.Stats
	if none.WriteAmplification() != 0 || none.CacheHitRatio() != 0 || none.TableBytes() != 0 {
		t.Error("an unused engine has ratios")
	}
	s := engine.Stats{
		UserBytes: 100, DiskWritten: 350, CacheHits: 3, CacheMisses: 1,
		Levels: []engine.Level{{Bytes: 5}, {Bytes: 7}},
	}
	if s.WriteAmplification() != 3.5 || s.CacheHitRatio() != 0.75 || s.TableBytes() != 12 {
		t.Errorf("%v, %v, %v", s.WriteAmplification(), s.CacheHitRatio(), s.TableBytes())
	}
}
