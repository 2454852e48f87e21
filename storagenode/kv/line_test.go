package kv

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// position insists that there is one to tell others.
func position(t testing.TB, s *Store) (p Position) {
	t.Helper()
	eventually(t, "a position to tell", func() bool {
		var ok bool
		p, ok = s.Position()
		return ok
	})
	return p
}

func TestPositionIsOfWhatWasSynced(t *testing.T) {
	st := memory.NewStore()
	s := healing(t, st.Open, nil)
	first := position(t, s)
	mustMint(t, s, write("k", "v"))
	if p := position(t, s); p.Line != first.Line || p.Number != first.Number+1 {
		t.Errorf("after a write %v, before %v", p, first)
	}
	o := newOutcome(t)
	if err := s.PutNote("note", []byte("x"), o.mint); err != nil {
		t.Fatal(err)
	}
	if _, err := o.wait(); err != nil {
		t.Fatal(err)
	}
	if p := position(t, s); p.Number != first.Number+1 {
		t.Errorf("a note counts as a commit: %v", p)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = healing(t, st.Open, nil)
	if p, ok := s.Position(); ok {
		t.Errorf("%v is told, though nothing was synced in this process", p)
	}
	mustMint(t, s, write("k", "w"))
	second := position(t, s)
	if second.Line == first.Line || second.Number != first.Number+2 {
		t.Errorf("after a restart and a write %v, began with %v", second, first)
	}
	if !s.Heard(Position{Line: first.Line, Number: first.Number + 1}) {
		t.Error("what the process before told is taken for another disk's")
	}
	if s.Heard(Position{Line: first.Line, Number: first.Number + 2}) {
		t.Error("another process went on from where this one did, and that is fine")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = healing(t, memory.NewStore().Open, func(c *Config) { c.Sync = SyncNone })
	before := position(t, s) // of the opening
	mustMint(t, s, write("k", "v"))
	if p := position(t, s); p != before {
		t.Errorf("%v is told after %v, though nothing was synced", p, before)
	}
}

// A disk that others remember more of is in doubt as a whole; what it kept for others goes; and it comes back as another
// line, further than anyone remembers.
func TestRolledBackDiskIsInDoubt(t *testing.T) {
	eachEngine(t, func(t *testing.T, opener engine.Opener) {
		s := healing(t, opener, nil)
		mustMint(t, s, write("k", "old"))
		m := write("for another", "v")
		m.HintFor = []ring.NodeID{{7}}
		mustMint(t, s, m)
		p := position(t, s)
		if !s.Heard(p) || !s.Heard(Position{Line: p.Line, Number: 1}) || !s.Heard(Position{}) {
			t.Error("what is here is taken for less")
		}
		if s.Doubts().Any() {
			t.Fatal("in doubt without a reason")
		}
		actor := s.Actor()
		remembered := Position{Line: p.Line, Number: p.Number + 100}
		if s.Heard(remembered) {
			t.Fatal("others remember more, and that is fine")
		}
		if rec, err := s.Read([]byte("k")); err == nil {
			t.Fatalf("read at once: %d bytes", len(rec))
		}
		waitOpen(t, s, 1)
		if n, _, _ := s.HintTotals(); n != 0 {
			t.Errorf("%d hints of a disk that was rolled back", n)
		}
		if s.Actor() == actor {
			t.Error("the actor is the same")
		}
		now := position(t, s)
		if now.Line == p.Line || now.Number <= remembered.Number {
			t.Errorf("goes on as %v, others remember %v", now, remembered)
		}
		// Others say the same, and one said less.
		for _, more := range []Position{remembered, {Line: p.Line, Number: 3}} {
			if !s.Heard(more) {
				t.Errorf("%v is another reason for doubt", more)
			}
		}
		refillFrom(t, s, map[string][]byte{"k": foreign("k", "new", dotOf(9, 9))}, false)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = healing(t, opener, nil)
		if n, _, _ := s.HintTotals(); n != 0 {
			t.Errorf("%d hints after a restart, of a disk that was rolled back before", n)
		}
		if !s.Heard(now) || !s.Heard(remembered) || s.Doubts().Any() {
			t.Error("in doubt again, though it was refilled")
		}
		if s.Heard(Position{Line: LineID{1}, Number: 1}) {
			t.Error("a line that nobody continues is trusted")
		}
		if rec, err := s.Read([]byte("k")); err == nil {
			t.Errorf("read of the disk of another line: %d bytes", len(rec))
		}
	})
}

// What is remembered of the lines before raises the number while all is in doubt, so that others come to remember this one.
// Afterwards, a line before that went on is one that this disk knows nothing of.
func TestNumbersRiseAboveWhatIsRemembered(t *testing.T) {
	s := healing(t, memory.NewStore().Open, func(c *Config) { c.HeldData = true })
	now := position(t, s)
	old := Position{Line: LineID{1}, Number: now.Number + 50}
	if s.Heard(old) {
		t.Fatal("an emptied disk is trusted")
	}
	eventually(t, "a number above", func() bool {
		p, ok := s.Position()
		return ok && p.Line == now.Line && p.Number > old.Number
	})
	refillFrom(t, s, nil, false)
	if !s.Heard(old) || s.Doubts().Any() {
		t.Fatal("in doubt again for what was remembered when it was refilled")
	}
	old.Number++
	if s.Heard(old) || !s.Doubts().Whole {
		t.Error("the line before went on, and this disk is trusted")
	}
}

// A disk that was put away while some of it was still in doubt, and comes back after another one went on in its place: what it had refilled
// by then is as old as the rest.
func TestOldDiskThatWasInDoubtInPart(t *testing.T) {
	st := memory.NewStore()
	s := healing(t, st.Open, func(c *Config) { c.HeldData = true })
	o := newOutcome(t)
	half := ring.Range{To: ring.Slots / 2}
	if err := s.Refill(Refill{Range: half}, o.mint); err != nil {
		t.Fatal(err)
	}
	if _, err := o.wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = healing(t, st.Open, func(c *Config) { c.HeldData = true })
	if d := s.Doubts(); !d.Whole || d.Slots() != int(ring.Slots)/2 {
		t.Fatalf("after a restart %d slots are in doubt", d.Slots())
	}
	elsewhere := Position{Line: LineID{1}, Number: 1000}
	if s.Heard(elsewhere) {
		t.Fatal("a line that went on elsewhere is taken for what is here")
	}
	if d := s.Doubts(); d.Slots() != int(ring.Slots) {
		t.Errorf("%d slots are in doubt, and the others are answered from as they were", d.Slots())
	}
	eventually(t, "the doubt is durable", func() bool {
		_, ok := s.Position()
		return ok
	})
	if !s.Heard(elsewhere) {
		t.Error("the same is another reason for doubt")
	}
}

func TestLinesCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Custom(func(t *rapid.T) LineID {
			return LineID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		})
		l := lines{own: id.Draw(t, "own")}
		for range rapid.IntRange(0, linesMost+5).Draw(t, "past") {
			l.add(Position{Line: id.Draw(t, "line"), Number: rapid.Uint64().Draw(t, "number")})
		}
		if got, err := decodeLines(l.encode()); err != nil || !reflect.DeepEqual(got, l) {
			t.Fatalf("%v comes back as %v, %v", l, got, err)
		}
		b := l.encode()
		if _, err := decodeLines(b[:len(b)-1]); err == nil {
			t.Fatal("a torn one is accepted")
		}
	})
}

// Disks are written, copied, put back, emptied and put back again, while some of three others are told how far they came,
// or asked. Whatever they say, a disk is served from only if it holds all that was there when they were told; and a disk that
// nobody touched is never in doubt.
func TestOldDisksAreNoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { oldDisks(t, false, false) })
}

// Without lines, or with one line for all processes of a disk, the model finds what goes wrong.
func TestOldDisksNeedLines(t *testing.T) {
	for _, test := range []struct {
		name                string
		noLines, onePerDisk bool
	}{{"numbers alone", true, false}, {"one line a disk", false, true}} {
		found := false
		for seed := 0; seed < 3000 && !found; seed++ {
			found = rapid.Custom(func(t *rapid.T) bool {
				f := &finding{T: t}
				oldDisks(f, test.noLines, test.onePerDisk)
				return f.failed
			}).Example(seed)
		}
		if !found {
			t.Errorf("%s: nothing went wrong", test.name)
		}
	}
}

// finding is a rapid.T that notes a failure.
type finding struct {
	*rapid.T
	failed bool
}

func (f *finding) Fatalf(string, ...any) { f.failed = true }

// drawer is the part of a rapid.T that oldDisks fails with.
type drawer interface{ Fatalf(string, ...any) }

func drawTo(d drawer, most int, label string) int {
	t, ok := d.(*rapid.T)
	if !ok {
		t = d.(*finding).T
	}
	return rapid.IntRange(0, most).Draw(t, label)
}

// modelDisk is a disk as lines see it.
type modelDisk struct {
	lines
	number uint64
	has    map[int]bool // the writes that it holds
	intact bool         // no other disk was in its place
}

func (d modelDisk) copy() modelDisk {
	d.has, d.intact = maps.Clone(d.has), false
	return d
}

func oldDisks(t drawer, noLines, onePerDisk bool) {
	ids := byte(0)
	draw := func() (id LineID) {
		if !noLines {
			ids++
		}
		return LineID{1, ids}
	}
	blank := func() modelDisk { return modelDisk{has: map[int]bool{}, lines: lines{own: draw()}} }
	now := blank()
	now.intact = true
	var copies []modelDisk
	var peers [3]Position
	var told [3]map[int]bool // what the disk held when each was told what it remembers
	served, held := 0, false
	for range drawTo(t, 12, "lives") {
		doubt := held && now.number == 0
		began := doubt
		hear := func(p Position) {
			switch now.judge(p, now.number, doubt) {
			case remember:
				now.add(p)
			case distrust:
				if now.intact {
					t.Fatalf("a disk that nobody touched is in doubt")
				}
				now.add(p)
				doubt, began, now.lines = true, true, now.next(now.number, draw())
			}
			now.number = max(now.number, now.least())
		}
		asked := drawTo(t, 7, "asked")
		for i, p := range peers {
			if asked&(1<<i) != 0 {
				hear(p)
			}
		}
		if doubt {
			for i := range served {
				now.has[i] = true // others hold all
			}
			now.number++
		}
		for i := range peers {
			for w := range told[i] {
				if asked&(1<<i) != 0 && !now.has[w] {
					t.Fatalf("a disk without write %d is served from, though node %d was asked", w, i)
					return
				}
			}
		}
		doubt = false
		for range drawTo(t, 4, "writes") {
			if !began && !onePerDisk {
				now.lines, began = now.next(now.number, draw()), true
			}
			now.number++
			now.has[served] = true
			served++
			held = true
			to := drawTo(t, 7, "told")
			p := Position{Line: now.own, Number: now.number}
			for i, before := range peers {
				if to&(1<<i) == 0 {
					continue
				}
				if p.Number > before.Number {
					peers[i], told[i] = p, maps.Clone(now.has)
				}
				if hear(before); doubt {
					break
				}
			}
			if doubt {
				for i := range served {
					now.has[i] = true
				}
				now.number++
				doubt = false
			}
		}
		switch drawTo(t, 3, "fault") {
		case 1:
			copies = append(copies, now.copy())
		case 2:
			if len(copies) > 0 {
				at := drawTo(t, len(copies)-1, "copy")
				now = copies[at]
				copies = slices.Delete(copies, at, at+1)
			}
		case 3:
			copies = append(copies, now.copy())
			now = blank()
		}
	}
}
