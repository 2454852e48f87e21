package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/engine"
)

// Others remember how far this store's disk was (Position), so that one that was rolled back is noticed when it comes back.
//
// A number alone does not do: a disk that was emptied begins to count again, and the older one that is put back in its place
// shows a higher number than anyone remembers, without what was written meanwhile. So does an older one that was taken for
// current, since who knew better was away. So numbers belong to a line, and a new line begins in each process, and whenever
// everything comes into doubt. It names those that it continues, since others may know only them.

// LineID names a line of commits. Random.
type LineID [16]byte

// Position is how far a disk has come. A later one of the same line holds all that an earlier one held.
type Position struct {
	Line   LineID
	Number uint64 // of the last batch that was known to be synced; 0 for none
}

// linesMost bounds the lines that a store remembers to continue. Who knows only an older one causes a refill.
const linesMost = 512

const lineVersion = 1

var lineKey = []byte{tagState, 'l'}

// lines are the line of a disk and those it continues.
type lines struct {
	own LineID // zero: none was drawn yet
	// past are the lines before, the newest first, each as far as what it did is on this disk. Of a line that went on
	// somewhere else, nothing is known here.
	past []Position
}

func (l lines) encode() []byte {
	b := append([]byte{lineVersion}, l.own[:]...)
	for _, p := range l.past {
		b = append(b, p.Line[:]...)
		b = binary.BigEndian.AppendUint64(b, p.Number)
	}
	return b
}

func decodeLines(b []byte) (lines, error) {
	if len(b) < 1+16 || b[0] != lineVersion || (len(b)-17)%24 != 0 || (len(b)-17)/24 > linesMost {
		return lines{}, fmt.Errorf("%w: lines of %d bytes", errState, len(b))
	}
	l := lines{own: LineID(b[1:])}
	for b = b[17:]; len(b) > 0; b = b[24:] {
		l.past = append(l.past, Position{Line: LineID(b), Number: binary.BigEndian.Uint64(b[16:])})
	}
	return l, nil
}

// least is the highest number of the lines before: numbers go on above it, so that what others remember never falls.
func (l lines) least() (n uint64) {
	for _, p := range l.past {
		n = max(n, p.Number)
	}
	return n
}

// continues says whether all that was done up to p is done with.
func (l lines) continues(p Position) bool {
	return slices.ContainsFunc(l.past, func(q Position) bool { return q.Line == p.Line && p.Number <= q.Number })
}

// add remembers that a line before this one came so far.
func (l *lines) add(p Position) {
	if p.Line == (LineID{}) || l.continues(p) {
		return
	}
	rest := slices.DeleteFunc(slices.Clone(l.past), func(q Position) bool { return q.Line == p.Line })
	l.past = append([]Position{p}, rest[:min(len(rest), linesMost-1)]...)
}

// next is a new line, which goes on from number at of this one.
func (l lines) next(at uint64, id LineID) lines {
	l.add(Position{Line: l.own, Number: at})
	l.own = id
	return l
}

// verdict is what to make of what another node remembers.
type verdict int

const (
	agrees   verdict = iota
	remember         // add it to the lines before: the doubt that there is anyway covers it
	distrust         // more was done than is here: add it to the lines before, and begin a new one in doubt
)

// judge compares what another node remembers of this disk with what is here: its number is at, and whole says whether
// everything is in doubt, and nothing of it was refilled yet.
func (l lines) judge(p Position, at uint64, whole bool) verdict {
	switch {
	case p.Number == 0 || p.Line == (LineID{}), l.continues(p), p.Line == l.own && p.Number <= at:
		return agrees
	case whole && p.Line != l.own:
		// What ends this doubt comes from others that hold what was done in that line, too.
		return remember
	}
	return distrust
}

// Position tells how far the disk has come, for others to remember. false says that there is nothing to remember now.
func (s *Store) Position() (p Position, ok bool) {
	d := &s.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	p = Position{Line: d.lines.own, Number: s.synced.Load()}
	return p, d.began && !d.whole && p.Number > d.lines.least()
}

// Heard compares what another node remembers of this one with what is here. If that is more, or of a line that is not
// continued here, the disk was rolled back or another one was put in its place: everything is in doubt then, as by
// Distrust, and false is returned.
func (s *Store) Heard(p Position) (trusted bool) {
	if !s.cfg.Heal {
		return true
	}
	d := &s.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	own := uint64(s.commits.Load())
	now := d.load()
	// What was refilled already may have been so on this disk before it was put away, and what p tells of came later.
	switch d.lines.judge(p, own, now.Whole && now.Slots() == int(ring.Slots)) {
	case agrees:
		return true
	case remember:
		d.remember = true
		s.queue.rouse()
	case distrust:
		if d.whole {
			break // the line that is about to begin names it
		}
		s.cfg.Logger.Error().Uint64("here", own).Uint64("remembered", p.Number).Bool("same_line", p.Line == d.lines.own).
			Msg("another node remembers more of this disk than is here")
		s.metrics.rollbacks.Inc()
		s.distrustLocked()
	}
	d.lines.add(p)
	return false
}

// loadedLines are those of a disk that is being opened.
type loadedLines struct {
	lines
	began  bool // the first of them does in this process
	stored bool // they are on the disk as they are
}

// loadLines returns the lines of the disk that is being opened, with a new one in front where begin says so or there is
// none; at is the number of its last batch.
func (c *committer) loadLines(eng engine.Engine, begin bool, at uint64) (l loadedLines, err error) {
	s := c.store
	if !s.cfg.Heal {
		return loadedLines{stored: true}, nil
	}
	b, err := eng.Get(lineKey, nil)
	if err == nil {
		l.lines, err = decodeLines(b)
		l.stored = err == nil
	}
	switch {
	case err == nil, errors.Is(err, engine.ErrNotFound):
	case errors.Is(err, engine.ErrDamaged), errors.Is(err, errState):
		s.cfg.Logger.Error().Err(err).Msg("the line of commits is damaged and begins anew")
	default:
		return l, fmt.Errorf("kv: reading the line of commits: %w", err)
	}
	s.doubts.mu.Lock()
	known, began := s.doubts.lines, s.doubts.began // of the life before
	s.doubts.mu.Unlock()
	if !l.stored {
		l.lines = known
	}
	for _, p := range slices.Backward(known.past) {
		l.add(p)
	}
	if !begin && l.own != (LineID{}) {
		l.began = began && known.own == l.own
		s.doubts.begin(l.lines, l.began, false)
		return l, nil
	}
	id, err := s.drawLine()
	l.lines, l.began, l.stored = l.next(at, id), true, false
	return l, err
}

func (s *Store) drawLine() (id LineID, err error) {
	if _, err := io.ReadFull(s.cfg.Rand, id[:]); err != nil {
		return id, fmt.Errorf("kv: drawing a line of commits: %w", err)
	}
	return id, nil
}

// nextLine puts into a batch the line that begins with this process's first. Not at the opening, which must succeed where a
// disk is full.
func (c *committer) nextLine(b *engine.Batch) {
	d := &c.store.doubts
	c.line = nil
	d.mu.Lock()
	began, l := d.began, d.lines
	d.mu.Unlock()
	if began || !c.store.cfg.Heal {
		return
	}
	id, err := c.store.drawLine()
	if err != nil {
		c.store.cfg.Logger.Error().Err(err).Msg("others are not told how far this disk comes")
		return
	}
	l = l.next(c.state.commits, id)
	b.Put(lineKey, l.encode())
	c.line = &l
}

// lineBegan takes note that the batch with the line is there.
func (c *committer) lineBegan() {
	if c.line != nil {
		c.store.doubts.begin(*c.line, true, false)
		c.line = nil
	}
}

// begin takes note of the lines that are on the disk. began says that the first of them began in this process; with whole,
// what made it begin is durable too.
func (d *doubts) begin(l lines, began, whole bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range slices.Backward(d.lines.past) {
		l.add(p)
	}
	d.lines, d.began, d.whole = l, began, d.whole && !whole
}

// putLines writes down what was heard of other lines, with a number above.
func (c *committer) putLines(l lines) error {
	next := c.state
	next.commits = max(next.commits, l.least())
	return c.putState(next, func(b *engine.Batch) { b.Put(lineKey, l.encode()) })
}

// putState writes the state, with what else is put into the batch, synced.
func (c *committer) putState(next state, more func(*engine.Batch)) error {
	next.commits++
	c.batch.Reset()
	if more != nil {
		more(&c.batch)
	}
	c.batch.Put(stateKey, appendState(c.stateBuf[:0], next))
	if err := c.life.eng.Apply(&c.batch, true); err != nil {
		return err
	}
	c.hints = c.hints[:0]
	c.setState(next)
	c.store.synced.Store(next.commits)
	return nil
}
