// Package sim runs a whole cluster of dotring on one event loop, under every fault it knows, and holds it to its promises.
//
// What decides is production's: the store and its group commit over an engine, the deciders of gets and puts, views, fences and
// steps of layouts, the failure detector, records and clocks. What surrounds it is simulated: the network, disks,
// clocks, processes. Everything happens in one goroutine, in an order that follows from a seed alone, so that a seed
// that fails fails again.
package sim

import (
	"bufio"
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"time"
)

// event is something that happens at a moment of simulated time. Events of one moment happen in the order in which
// they were planned.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

// loop is simulated time.
type loop struct {
	now   time.Duration
	seq   uint64
	queue events
}

// after plans do.
func (l *loop) after(d time.Duration, do func()) {
	l.seq++
	heap.Push(&l.queue, event{at: l.now + max(d, 0), seq: l.seq, do: do})
}

// runUntil lets everything happen that is planned up to a moment, or until stop says so.
func (l *loop) runUntil(end time.Duration, stop func() bool) {
	for len(l.queue) > 0 && l.queue[0].at <= end {
		if stop != nil && stop() {
			return
		}
		e := heap.Pop(&l.queue).(event)
		l.now = e.at
		e.do()
	}
	l.now = max(l.now, end)
}

// dice is the one source of chance of a run.
type dice struct{ *rand.Rand }

func newDice(seed, stream uint64) dice { return dice{rand.New(rand.NewPCG(seed, stream))} }

// chance is true with probability p.
func (d dice) chance(p float64) bool { return p > 0 && d.Float64() < p }

// between returns a duration from a to b, evenly spread.
func (d dice) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(d.Int64N(int64(b-a)))
}

// Read fills b with random bytes, for actors and seeds.
func (d dice) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(d.Uint64())
	}
	return len(b), nil
}

// tracer writes down what happens: always into a hash, and to a writer where there is one.
type tracer struct {
	loop *loop
	sum  hash.Hash64
	buf  *bufio.Writer
}

func newTracer(l *loop, out io.Writer) *tracer {
	t := &tracer{loop: l, sum: fnv.New64a()}
	w := io.Writer(t.sum)
	if out != nil {
		w = io.MultiWriter(t.sum, out)
	}
	t.buf = bufio.NewWriterSize(w, 1<<16)
	return t
}

// line adds one line, with the time.
func (t *tracer) line(format string, args ...any) {
	fmt.Fprintf(t.buf, "%9.3fms ", float64(t.loop.now.Microseconds())/1000)
	fmt.Fprintf(t.buf, format, args...)
	t.buf.WriteByte('\n')
}

// hash returns that of all lines so far. Errors of the writer are those of a terminal, and nobody's.
func (t *tracer) hash() uint64 {
	t.buf.Flush()
	return t.sum.Sum64()
}
