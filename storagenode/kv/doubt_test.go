package kv

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
	"github.com/dotring/dotring/storagenode/engine/leveldb"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// healing opens a store whose doubts the test refills.
func healing(t testing.TB, opener engine.Opener, change func(*Config)) *Store {
	return open(t, opener, func(c *Config) {
		c.Heal = true
		if change != nil {
			change(c)
		}
	})
}

// refillFrom ends every doubt with what is known of the records.
func refillFrom(t testing.TB, s *Store, known map[string][]byte, keep bool) {
	t.Helper()
	for s.Doubts().Any() {
		r := Refill{Range: s.Doubts().Ranges[0], Keep: keep}
		for key, rec := range known {
			if r.Range.Contains(ring.SlotOf([]byte(key))) {
				r.Keys, r.Records = append(r.Keys, []byte(key)), append(r.Records, bytes.Clone(rec))
			}
		}
		o := newOutcome(t)
		eventually(t, "a refill is taken", func() bool {
			err := s.Refill(r, o.mint)
			if err != nil && !errors.Is(err, ErrReopening) {
				t.Fatal(err)
			}
			return err == nil
		})
		if _, err := o.wait(); err != nil && !errors.Is(err, engine.ErrDamaged) && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrReopening) {
			t.Fatal(err)
		}
	}
}

// Blocks of tables are damaged. Every read is right or fails, what is damaged is set aside while the node serves, the slots
// it may have held are in doubt until they were refilled, and the rest is never disturbed.
func TestDamagedTablesAreHealed(t *testing.T) {
	disk := enginetest.NewDisk()
	opts := smallTree()
	opts.Note = DamageNote
	opener := func() (engine.Engine, error) { return leveldb.OpenStorage(disk.Mount(), opts) }
	known := map[string][]byte{}
	s := healing(t, opener, nil)
	for i := range 3000 {
		key := fmt.Sprintf("key-%d", i)
		o := newOutcome(t)
		out, err := s.Mint(write(key, fmt.Sprintf("%0300d", i)), o.mint)
		if err != nil {
			t.Fatal(err)
		}
		known[key] = out.Record
		if i%100 == 0 {
			if _, err := o.wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustMint(t, s, Mint{Key: []byte("for another"), Value: []byte("v"), ContentType: "text/plain", Checksum: write("", "v").Checksum, HintFor: []ring.NodeID{{7}}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = healing(t, opener, nil) // brings the log's records into tables
	rng := newRand(3)
	for _, table := range disk.Files(storage.TypeTable) {
		if err := disk.Change(table, func(b []byte) []byte {
			for range len(b) / (100 << 10) { // small tables stay whole: each of their keys stands for many slots
				b[rng.IntN(len(b)*8/10)] ^= 0x40
			}
			return b
		}); err != nil {
			t.Fatal(err)
		}
	}
	actor := s.Actor()
	check := func() (failed int) {
		for key, rec := range known {
			var got []byte
			var err error
			eventually(t, "the engine is open", func() bool {
				got, err = s.Read([]byte(key))
				return !errors.Is(err, ErrReopening)
			})
			if err == nil && bytes.Equal(got, rec) {
				continue
			}
			if !errors.Is(err, engine.ErrDamaged) {
				t.Fatalf("read of %s: %d bytes, %v", key, len(got), err)
			}
			failed++
		}
		return failed
	}
	if check() == 0 {
		t.Fatal("nothing is damaged")
	}
	eventually(t, "damage is set aside", func() bool { return s.Doubts().Any() })
	waitOpen(t, s, 1)
	if s.Actor() == actor {
		t.Error("the actor is the same after a part was cut out")
	}
	if d := s.Doubts(); d.Whole || d.Slots() > ring.Slots/4 {
		t.Errorf("%d slots are in doubt, whole %v", d.Slots(), d.Whole)
	}
	doubted := func() string {
		for key := range known {
			if _, err := s.Read([]byte(key)); errors.Is(err, ErrDoubted) {
				return key
			}
		}
		t.Fatal("no key is in doubt")
		return ""
	}()
	if _, err := s.Mint(write(doubted, "w"), nil); !errors.Is(err, ErrDoubted) {
		t.Errorf("mint in doubt: %v", err)
	}
	if err := s.Apply([]byte(doubted), bytes.Clone(known[doubted]), nil); !errors.Is(err, ErrDoubted) {
		t.Errorf("apply in doubt: %v", err)
	}
	all := func() error {
		return s.Scan(ring.Range{To: ring.Slots}, nil, func(_, _ []byte) (bool, error) { return true, nil })
	}
	if err := all(); !errors.Is(err, ErrDoubted) {
		t.Errorf("scan over what is in doubt: %v", err)
	}
	for failed := 1; failed > 0; failed = check() {
		eventually(t, "damage is set aside", func() bool { return s.Doubts().Any() })
		refillFrom(t, s, known, false)
	}
	if err := all(); err != nil {
		t.Errorf("scan after the refill: %v", err)
	}
	if n, _, _ := s.HintTotals(); n != 1 {
		t.Errorf("%d hints", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = healing(t, opener, nil)
	if check() > 0 || s.Doubts().Any() {
		t.Error("damaged or in doubt after a restart")
	}
}

// A refill takes away what no other owner knows of, unless it is told to keep it, and survives a restart half-way.
func TestRefillReplaces(t *testing.T) {
	for _, keep := range []bool{false, true} {
		eachEngine(t, func(t *testing.T, opener engine.Opener) {
			s := healing(t, opener, nil)
			for i := range 200 {
				mustMint(t, s, write(fmt.Sprintf("key-%d", i), "old"))
			}
			actor := s.Actor()
			known := map[string][]byte{}
			for i := 100; i < 300; i++ {
				key := fmt.Sprintf("key-%d", i)
				known[key] = foreign(key, "new", dotOf(9, uint64(i)))
			}
			s.Distrust()
			if _, err := s.Read([]byte("key-0")); !errors.Is(err, ErrDoubted) && !errors.Is(err, ErrReopening) {
				t.Fatalf("read at once: %v", err)
			}
			waitOpen(t, s, 1) // the doubt is durable
			if _, err := s.Read([]byte("key-0")); !errors.Is(err, ErrDoubted) {
				t.Fatalf("read: %v", err)
			}
			half := Refill{Range: ring.Range{To: ring.Slots / 2}, Keep: keep}
			for key, rec := range known {
				if half.Range.Contains(ring.SlotOf([]byte(key))) {
					half.Keys, half.Records = append(half.Keys, []byte(key)), append(half.Records, bytes.Clone(rec))
				}
			}
			o := newOutcome(t)
			if err := s.Refill(half, o.mint); err != nil {
				t.Fatal(err)
			}
			if _, err := o.wait(); err != nil {
				t.Fatal(err)
			}
			if err := s.Refill(half, nil); err == nil { // not in doubt any more: told to the callback
				o := newOutcome(t)
				if err := s.Refill(half, o.mint); err != nil {
					t.Fatal(err)
				}
				if _, err := o.wait(); !errors.Is(err, ErrInvalid) {
					t.Errorf("a refill of what is not in doubt: %v", err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = healing(t, opener, nil)
			want := Doubts{Whole: true, Ranges: []ring.Range{{From: ring.Slots / 2, To: ring.Slots}}}
			if got := s.Doubts(); !reflect.DeepEqual(got, want) {
				t.Fatalf("after a restart %v is in doubt", got)
			}
			refillFrom(t, s, known, keep)
			for i := range 300 {
				key := fmt.Sprintf("key-%d", i)
				rec, err := s.Read([]byte(key))
				switch {
				case i < 100 && !keep:
					if !errors.Is(err, ErrNotFound) {
						t.Errorf("%s: %v, no owner knows it", key, err)
					}
				case err != nil:
					t.Errorf("%s: %v", key, err)
				case i < 100:
					wantValues(t, key, rec, "old")
				case i < 200 && keep:
					wantValues(t, key, rec, "new", "old")
				default:
					wantValues(t, key, rec, "new")
				}
			}
			n := int64(200)
			if keep {
				n = 300
			}
			if got := s.Stats().Keys; got != n {
				t.Errorf("%d keys are counted, there are %d", got, n)
			}
			if out := mustMint(t, s, write("key-0", "again")); out.Dot.Actor == actor {
				t.Error("a slot whose records were removed is minted in by the same actor")
			}
		})
	}
}

// In the life in which the doubt began, too, the actor is new before anything is minted where records were removed.
func TestRefillTakesANewActor(t *testing.T) {
	s := healing(t, memory.NewStore().Open, nil)
	first := mustMint(t, s, write("k", "v"))
	s.Distrust()
	waitOpen(t, s, 1) // the doubt is durable
	refillFrom(t, s, nil, false)
	if second := mustMint(t, s, write("k", "w")); second.Dot.Actor == first.Dot.Actor {
		t.Error("the actor is the same")
	}
}

// A record that only our own checksum shows to be damaged puts its slot in doubt, and no other.
func TestDamagedRecordIsHealed(t *testing.T) {
	st := memory.NewStore()
	var eng engine.Engine
	s := healing(t, func() (engine.Engine, error) {
		e, err := st.Open()
		eng = e
		return e, err
	}, func(c *Config) { c.CacheBytes = 0 })
	good := mustMint(t, s, write("k", "value")).Record
	other := mustMint(t, s, write("other", "value")).Record
	p, err := s.find([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	bad := slices.Clone(good)
	bad[len(bad)-1] ^= 1
	var b engine.Batch
	b.Put(p.disk, bad)
	if err := eng.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read([]byte("k")); !errors.Is(err, engine.ErrDamaged) {
		t.Fatalf("read: %v", err)
	}
	eventually(t, "its slot is in doubt", func() bool { return s.Doubts().Slots() == 1 })
	if got := mustRead(t, s, "other"); !bytes.Equal(got, other) {
		t.Error("another record is not what it was")
	}
	refillFrom(t, s, map[string][]byte{"k": good}, false)
	if got := mustRead(t, s, "k"); !bytes.Equal(got, good) || s.Stats().Keys != 2 {
		t.Errorf("read %d bytes after the refill, %d keys", len(got), s.Stats().Keys)
	}
}

// An engine that is empty where there was data is in doubt as a whole; a new one is not, nor one that was opened once.
func TestEmptiedEngineIsInDoubt(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := healing(t, opener, func(c *Config) { c.HeldData = true })
		if !s.Doubts().Whole {
			t.Error("an emptied engine is trusted")
		}
	})
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := healing(t, opener, nil)
		if s.Doubts().Any() {
			t.Error("a new engine is in doubt")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s = healing(t, opener, func(c *Config) { c.HeldData = true }); s.Doubts().Any() {
			t.Error("an engine without a write is in doubt")
		}
	})
}

// Gaps that reach into node state put everything in doubt; into hints, those that are left of it go; into records, their
// slots, and into the store's counts, nothing.
func TestNotesOfDamage(t *testing.T) {
	rec := func(slot ring.Slot) []byte { return slotBound(tagRecord, slot) }
	for _, test := range []struct {
		name string
		lost engine.KeyRange
		want Doubts
	}{
		{"all", engine.KeyRange{}, allDoubts()},
		{"records", engine.KeyRange{From: rec(5), To: rec(9)}, Doubts{Ranges: []ring.Range{{From: 5, To: 10}}}},
		{"up to the counts", engine.KeyRange{From: rec(5), To: []byte{tagState}}, Doubts{Ranges: []ring.Range{{From: 5, To: ring.Slots}}}},
		{"records to marks", engine.KeyRange{From: rec(9), To: slotBound(tagMark, 2)}, Doubts{Ranges: []ring.Range{{To: 3}, {From: 9, To: ring.Slots}}}},
		{"behind the marks", engine.KeyRange{From: slotBound(tagMark, 9), To: []byte{tagMark + 1}}, allDoubts()},
		{"counts", engine.KeyRange{From: []byte{tagState}, To: []byte{tagState}}, Doubts{}},
		{"from node state", engine.KeyRange{From: []byte("mlayout"), To: rec(9)}, allDoubts()},
		{"doubts", engine.KeyRange{From: []byte{tagDoubt}, To: []byte{tagDoubt, 'n', 1}}, allDoubts()},
		{"hints", engine.KeyRange{From: hintsFrom(ring.NodeID{1}), To: hintsTo(ring.NodeID{7})}, Doubts{}},
		{"hints and records", engine.KeyRange{From: hintsFrom(ring.NodeID{1}), To: rec(0)}, allDoubts()},
	} {
		t.Run(test.name, func(t *testing.T) {
			st := memory.NewStore()
			s := healing(t, st.Open, nil)
			for _, id := range []ring.NodeID{{1}, {5}, {9}} {
				m := write("k", "v")
				m.HintFor = []ring.NodeID{id}
				mustMint(t, s, m)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			e, err := st.Open()
			if err != nil {
				t.Fatal(err)
			}
			var b engine.Batch
			b.Put(DamageNote(3, []engine.KeyRange{test.lost}))
			if err := e.Apply(&b, true); err != nil {
				t.Fatal(err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			s = healing(t, st.Open, nil)
			if got := s.Doubts(); !reflect.DeepEqual(got, test.want) {
				t.Errorf("in doubt: %v, want %v", got, test.want)
			}
			hints := int64(3)
			if test.name == "hints" || test.name == "hints and records" || test.name == "all" {
				hints = 1
			}
			if test.name == "hints and records" {
				hints = 0
			}
			if test.name == "all" {
				hints = 3
			}
			if n, _, _ := s.HintTotals(); n != hints {
				t.Errorf("%d hints, want %d", n, hints)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s = healing(t, st.Open, nil); !reflect.DeepEqual(s.Doubts(), test.want) {
				t.Errorf("after another start in doubt: %v, want %v", s.Doubts(), test.want)
			}
		})
	}
}

// Doubts are a set of slots, whatever is added and taken away.
func TestDoubtsAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Doubts
		twin := map[ring.Slot]bool{}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			from := ring.Slot(rapid.IntRange(0, 50).Draw(t, "from"))
			r := ring.Range{From: from, To: from + ring.Slot(rapid.IntRange(0, 12).Draw(t, "width"))}
			add := rapid.Bool().Draw(t, "add")
			if add {
				d = d.plus(r)
			} else {
				d = d.minus(r)
			}
			for s := r.From; s < r.To; s++ {
				twin[s] = add
			}
			for s := ring.Slot(0); s < 70; s++ {
				if in := d.first(ring.Range{From: s, To: s + 1}) == s; in != twin[s] {
					t.Fatalf("slot %d in doubt: %v, want %v: %v", s, in, twin[s], d)
				}
			}
			again, err := decodeDoubts(d.encode())
			if err != nil || !slices.Equal(again.Ranges, d.Ranges) {
				t.Fatalf("decoded %v as %v, %v", d, again, err)
			}
		}
	})
}

func FuzzDecodeDoubts(f *testing.F) {
	f.Add(Doubts{Ranges: []ring.Range{{From: 1, To: 5}, {From: 9, To: 10}}}.encode())
	f.Add(allDoubts().encode())
	_, note := DamageNote(1, []engine.KeyRange{{From: []byte("a"), To: []byte("b")}, {From: nil, To: nil}, {From: []byte{}, To: []byte{}}})
	f.Add(note)
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := decodeDoubts(b); err == nil && !bytes.Equal(d.encode(), b) {
			t.Errorf("%x is read and written as %x", b, d.encode())
		}
		if lost, err := decodeNote(b); err == nil {
			_, again := DamageNote(1, lost)
			twice, err := decodeNote(again)
			if err != nil || len(twice) != len(lost) {
				t.Errorf("%x reads as %v, and again as %v, %v", b, lost, twice, err)
			}
		} else if !errors.Is(err, errState) {
			t.Error(err)
		}
	})
}
