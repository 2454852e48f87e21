// Package history keeps what clients wrote, saw and were told, beside a naive account of who had seen what, and says which promise of the store a run has broken.
//
// The account is naive on purpose. It keeps for each write the set of all writes that its writer had seen, and looks at
// clocks only to ask which writes a record claims to contain. So an error in the arithmetic of clocks cannot hide in the
// checker too.
package history

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

// Promise names one thing that must always hold.
type Promise int

// The promises that a Checker holds a run to. The numbers are used in messages and must not change.
const (
	// Durable: an acknowledged write is readable, or superseded by one whose writer had seen it.
	Durable Promise = 1
	// Faithful: no value is invented, none that was superseded comes back, a write that was refused never shows.
	Faithful Promise = 2
	// Current: with R+W>N a get that starts after a put was acknowledged covers it.
	Current Promise = 3
	// OwnWrites: a get with a context covers it, or fails.
	OwnWrites Promise = 4
	// UniqueDots: a dot names one write for ever.
	UniqueDots Promise = 5
	// Convergent: after healing all replicas of a key are identical.
	Convergent Promise = 6
	// Undamaged: damaged bytes are never served.
	Undamaged Promise = 7
	// Bounded: nothing lasts past its deadline.
	Bounded Promise = 8
	// Idempotent: what is delivered again changes nothing.
	Idempotent Promise = 9
)

var promiseNames = [...]string{"", "durable", "faithful", "current", "own writes", "unique dots", "convergent", "undamaged",
	"bounded", "idempotent"}

// String returns the number and a word or two.
func (p Promise) String() string {
	if p > 0 && int(p) < len(promiseNames) {
		return fmt.Sprintf("%d (%s)", int(p), promiseNames[p])
	}
	return fmt.Sprintf("Promise(%d)", int(p))
}

// Violation is one broken promise.
type Violation struct {
	Promise Promise
	At      time.Duration // since the run began
	What    string
}

// String is one line for people.
func (v Violation) String() string {
	return fmt.Sprintf("%s: promise %s broken: %s", v.At, v.Promise, v.What)
}

// maxViolations bounds what is kept: after the first few the rest are consequences.
const maxViolations = 16

// Outcome is what a client was told of a write.
type Outcome int

// Outcomes of a write.
const (
	Pending Outcome = iota // not answered yet
	Acknowledged
	NotApplied
	InDoubt
)

// Write is one value that a client tried to store, in one attempt or in several under one request id.
type Write struct {
	ID        int
	Key       string
	Value     []byte // empty for a tombstone; otherwise like no other write's
	Tombstone bool
	Outcome   Outcome
	Repeated  bool  // its client has sent it more than once
	events    []int // its dots, as indices into the key's events
}

// event is one dot of one key.
type event struct {
	dot   causal.Dot
	write *Write
	past  set // all events that the writer had seen, closed: with all that those had seen
	acked bool
	lost  bool // a machine that acknowledged it lost its disk meanwhile
	w     int  // by how many machines
}

// Known is what a client has seen of one key. The zero value is nothing. It is a value: never modified once made.
type Known struct{ seen set }

// log is the history of one key.
type log struct {
	events  []event
	byDot   map[causal.Dot]int
	byActor map[causal.Actor][]int
	gone    set // what left with a tombstone that was collected
}

// Checker keeps a history and checks it as it grows. Not safe for concurrent use.
type Checker struct {
	now        func() time.Duration
	keys       map[string]*log
	dots       map[causal.Dot]*Write
	writes     []*Write
	violations []Violation
}

// New returns an empty history; now is the time of the run.
func New(now func() time.Duration) *Checker {
	return &Checker{now: now, keys: make(map[string]*log), dots: make(map[causal.Dot]*Write)}
}

// Violations returns the broken promises, at most the first few, in the order of their discovery.
func (c *Checker) Violations() []Violation { return c.violations }

// Collected notes that the tombstones of a key are being collected: nobody need hold, or ever show, what they stand for.
func (c *Checker) Collected(key string, s causal.Set) {
	l := c.log(key)
	l.gone = l.gone.join(c.Knows(key, s).seen)
}

// Break notes a broken promise that the caller has found.
func (c *Checker) Break(p Promise, format string, args ...any) {
	if len(c.violations) < maxViolations {
		c.violations = append(c.violations, Violation{Promise: p, At: c.now(), What: fmt.Sprintf(format, args...)})
	}
}

func (c *Checker) log(key string) *log {
	l := c.keys[key]
	if l == nil {
		l = &log{byDot: make(map[causal.Dot]int), byActor: make(map[causal.Actor][]int)}
		c.keys[key] = l
	}
	return l
}

// Begin notes that a client is about to write.
func (c *Checker) Begin(key string, value []byte, tombstone bool) *Write {
	w := &Write{ID: len(c.writes) + 1, Key: key, Value: value, Tombstone: tombstone}
	c.writes = append(c.writes, w)
	return w
}

// Minted notes that a node has issued a dot for a write. seen is what the write's context stood for; for a write without
// one, what the node itself held.
func (c *Checker) Minted(w *Write, dot causal.Dot, seen Known) {
	if old := c.dots[dot]; old != nil {
		c.Break(UniqueDots, "dot %s of key %s names write %d and, of key %s, write %d", short(dot), w.Key, w.ID, old.Key, old.ID)
		if old.Key == w.Key {
			return // the first keeps its name
		}
	}
	c.dots[dot] = w
	l := c.log(w.Key)
	i := len(l.events)
	l.events = append(l.events, event{dot: dot, write: w, past: seen.seen})
	l.byDot[dot] = i
	l.byActor[dot.Actor] = append(l.byActor[dot.Actor], i)
	w.events = append(w.events, i)
}

// Acked notes that the client was told that dot, of its write w, is held by acks machines. weak says that one of them
// may have lost its disk between its acknowledgement and the client's: then the write cannot be in every quorum.
func (c *Checker) Acked(w *Write, dot causal.Dot, acks int, weak bool) {
	w.Outcome = Acknowledged
	l := c.log(w.Key)
	if i, ok := l.byDot[dot]; ok {
		e := &l.events[i]
		e.acked, e.w, e.lost = true, max(e.w, acks), e.lost || weak
		return
	}
	c.Break(Faithful, "write %d of key %s was acknowledged as %s, which no node has issued", w.ID, w.Key, short(dot))
}

// Failed notes that the client was told that its write failed. A write once in doubt stays in doubt.
func (c *Checker) Failed(w *Write, o Outcome) {
	if w.Outcome == Pending || o == InDoubt {
		w.Outcome = o
	}
}

// Knows returns what a client has seen who was shown the siblings of s, or what a node has that holds them.
func (c *Checker) Knows(key string, s causal.Set) Known {
	l := c.log(key)
	var out set
	for i := range s.Siblings {
		if at, ok := l.byDot[s.Siblings[i].Dot]; ok {
			out = out.join(l.events[at].past).with(at)
		}
	}
	return Known{out}
}

// After returns what a client has seen who had seen k and whose write was given dot.
func (c *Checker) After(key string, k Known, dot causal.Dot) Known {
	if at, ok := c.log(key).byDot[dot]; ok {
		k.seen = k.seen.join(c.log(key).events[at].past).with(at)
	}
	return k
}

// Observe checks one record, wherever it was met: its siblings must be just those writes that its clock claims to contain
// and that no other of them supersedes.
func (c *Checker) Observe(key string, s causal.Set, where string) {
	l := c.log(key)
	var shown set
	for i := range s.Siblings {
		sib := &s.Siblings[i]
		at, ok := l.byDot[sib.Dot]
		if !ok {
			c.Break(Faithful, "%s: key %s shows %s, which nobody wrote", where, key, short(sib.Dot))
			return
		}
		c.checkValue(key, sib, l.events[at].write, where)
		if l.gone.has(at) && !sib.Tombstone {
			c.Break(Faithful, "%s: key %s: write %d (%s) came back though its deletion was collected", where, key, l.events[at].write.ID,
				short(sib.Dot))
		}
		shown = shown.with(at)
	}
	var covered, over set
	for _, entry := range s.Clock {
		for _, i := range l.byActor[entry.Actor] {
			if l.events[i].dot.Counter <= entry.Counter {
				covered = covered.with(i)
				over = over.join(l.events[i].past)
			}
		}
	}
	c.checkReplaced(key, l, covered, shown, where)
	if i, found := covered.minus(over).minus(shown).minus(l.gone).first(); found {
		c.Break(Durable, "%s: key %s: the clock claims write %d (%s), which is neither shown nor superseded", where, key,
			l.events[i].write.ID, short(l.events[i].dot))
	}
	if i, found := shown.and(over).first(); found {
		c.Break(Faithful, "%s: key %s: write %d (%s) came back though a later one supersedes it", where, key,
			l.events[i].write.ID, short(l.events[i].dot))
	}
}

// checkReplaced: what its client has sent once is one write, however many dots it has: whoever has seen one of them and
// written in its place has replaced it.
func (c *Checker) checkReplaced(key string, l *log, covered, shown set, where string) {
	for i := range l.events {
		e := &l.events[i]
		if !shown.has(i) || e.write.Repeated || len(e.write.events) < 2 {
			continue
		}
		for _, twin := range e.write.events {
			for x := range l.events {
				if y := &l.events[x]; twin != i && covered.has(x) && y.write != e.write && y.past.has(twin) && !y.past.has(i) {
					c.Break(Faithful, "%s: key %s: write %d (%s) is shown beside write %d (%s), whose writer had seen it as %s", where, key,
						e.write.ID, short(e.dot), y.write.ID, short(y.dot), short(l.events[twin].dot))
					return
				}
			}
		}
	}
}

// checkValue: a dot names one value, and its bytes are whole.
func (c *Checker) checkValue(key string, sib *causal.Sibling, w *Write, where string) {
	switch {
	case record.Checksum(sib.Value) != sib.Checksum:
		c.Break(Undamaged, "%s: key %s: the value of %s is damaged", where, key, short(sib.Dot))
	case sib.Tombstone != w.Tombstone || !bytes.Equal(sib.Value, w.Value):
		c.Break(UniqueDots, "%s: key %s: %s names another value than write %d", where, key, short(sib.Dot), w.ID)
	}
}

// Get is a read under way.
type Get struct {
	key  string
	must set
	has  bool
	ctx  Known
}

// Reading notes that a get begins, and what it must cover: every write acknowledged by now by so many machines that r
// of n must meet one of them. ctx is what the get's context stands for, nil where it has none.
func (c *Checker) Reading(key string, r, n int, ctx *Known) *Get {
	l := c.log(key)
	g := &Get{key: key}
	for i := range l.events {
		if e := &l.events[i]; e.acked && !e.lost && e.w+r > n {
			g.must = g.must.with(i)
		}
	}
	if ctx != nil {
		g.has, g.ctx = true, *ctx
	}
	return g
}

// Answered checks what a get was answered, and returns what the client knows then.
func (c *Checker) Answered(g *Get, s causal.Set, where string) Known {
	c.Observe(g.key, s, where)
	k := c.Knows(g.key, s)
	l := c.log(g.key)
	if i, found := g.must.minus(k.seen).minus(l.gone).first(); found {
		c.Break(Current, "%s: key %s: the answer lacks write %d (%s), acknowledged by %d before the get began", where, g.key,
			l.events[i].write.ID, short(l.events[i].dot), l.events[i].w)
	}
	if i, found := g.ctx.seen.minus(k.seen).minus(l.gone).first(); g.has && found {
		c.Break(OwnWrites, "%s: key %s: the answer lacks write %d (%s) of the get's context", where, g.key,
			l.events[i].write.ID, short(l.events[i].dot))
	}
	return k
}

// Replica is one replica's record of a key.
type Replica struct {
	Name   string
	Record []byte // nil where it has none
}

// Final checks a key after healing: the replicas are identical, and hold or supersede every acknowledged write but the
// weak ones. replicas holds one or more.
func (c *Checker) Final(key string, replicas []Replica) {
	for _, r := range replicas[1:] {
		if !bytes.Equal(r.Record, replicas[0].Record) {
			c.Break(Convergent, "key %s: the replicas at %s and %s differ", key, replicas[0].Name, r.Name)
		}
	}
	l := c.log(key)
	for _, r := range replicas {
		var s causal.Set
		if r.Record != nil {
			if err := record.Verify([]byte(key), r.Record); err != nil {
				c.Break(Undamaged, "key %s at %s: %v", key, r.Name, err)
				continue
			}
			s, _ = record.Decode([]byte(key), r.Record) // verified
		}
		c.Observe(key, s, "replica at "+r.Name)
		have := c.Knows(key, s).seen
		for i := range l.events {
			if e := &l.events[i]; e.acked && !e.lost && !have.has(i) && !l.gone.has(i) {
				c.Break(Durable, "key %s at %s: acknowledged write %d (%s) is neither there nor superseded", key, r.Name, e.write.ID, short(e.dot))
			}
		}
	}
}

// Finish checks what can be said once nothing is under way any more.
func (c *Checker) Finish() {
	for _, w := range c.writes {
		switch {
		case w.Outcome == Pending:
			c.Break(Bounded, "write %d of key %s was never answered", w.ID, w.Key)
		case w.Outcome == NotApplied && len(w.events) > 0:
			c.Break(Faithful, "write %d of key %s was refused as not applied, and was given %s", w.ID, w.Key,
				short(c.log(w.Key).events[w.events[0]].dot))
		}
	}
}

// Counts returns how many writes there were, and how many of them were acknowledged.
func (c *Checker) Counts() (writes, acked int) {
	for _, w := range c.writes {
		if w.Outcome == Acknowledged {
			acked++
		}
	}
	return len(c.writes), acked
}

// short names a dot by the first bytes of its actor.
func short(d causal.Dot) string { return fmt.Sprintf("%x:%d", d.Actor[:4], d.Counter) }

// DiskLost notes that one machine has lost its disk: every write acknowledged until now is held by one machine fewer than
// its client was told, and one that no machine may hold any more is not looked for.
func (c *Checker) DiskLost() {
	for _, l := range c.keys {
		for i := range l.events {
			if e := &l.events[i]; e.acked {
				e.w--
				e.lost = e.lost || e.w < 1
			}
		}
	}
}

// Emptied notes that one machine has lost its disk, and comes back with what a read quorum of the other owners knows. That is
// all that owners acknowledged, minAcks of them or more; what fewer did, beside machines that stood in for owners, is held by
// one owner fewer until it has been brought to them.
func (c *Checker) Emptied(minAcks int) {
	for _, l := range c.keys {
		for i := range l.events {
			if e := &l.events[i]; e.acked && e.w < minAcks {
				e.w = max(e.w-1, 0)
			}
		}
	}
}

// Keys returns the keys that were written, in order.
func (c *Checker) Keys() []string { return slices.Sorted(maps.Keys(c.keys)) }
