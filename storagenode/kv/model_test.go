package kv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
	"github.com/dotring/dotring/storagenode/engine/memory"
)

// naive is a key as someone who remembers every write he ever heard of.
type naive map[string]bool

func (n naive) join(o naive) naive {
	out := maps.Clone(n)
	if out == nil {
		out = naive{}
	}
	maps.Copy(out, o)
	return out
}

// model is three nodes and clients that write, exchange records, fail and restart, beside naive twins.
type model struct {
	t     *testing.T
	nodes []*modelNode
	past  map[string]naive // what each write superseded
	dots  map[causal.Dot]string
	seen  map[string][]seenContext // what clients have seen of each key
	sent  []sent
	ids   int
}

type seenContext struct {
	ctx  causal.Context
	hist naive
}

// sent is a record that someone was handed, durable or not.
type sent struct {
	key  string
	rec  []byte
	hist naive
}

type modelNode struct {
	m       *model
	s       *Store
	h       *hooks
	reopen  func() *Store
	release func() // while commits are held back
	flying  []*outcome
	newest  map[string]naive
	durable map[string]naive
	fails   uint64
}

// siblings are the writes of a history that no other of it superseded.
func (m *model) siblings(hist naive) []string {
	var out []string
	for w := range hist {
		covered := false
		for o := range hist {
			covered = covered || o != w && m.past[o][w]
		}
		if !covered {
			out = append(out, w)
		}
	}
	slices.Sort(out)
	return out
}

func (m *model) check(t *rapid.T, what, key string, rec []byte, hist naive) {
	t.Helper()
	var got []string
	if rec != nil {
		got = values(m.t, key, rec)
		slices.Sort(got)
	}
	if want := m.siblings(hist); !slices.Equal(got, want) {
		t.Fatalf("%s: %s has %q, history says %q", what, key, got, want)
	}
}

func (n *modelNode) settle(t *rapid.T) {
	t.Helper()
	if n.release != nil {
		n.release()
		n.release = nil
	}
	for _, o := range n.flying {
		if _, err := o.wait(); err != nil {
			t.Fatalf("not durable: %v", err)
		}
	}
	n.flying = nil
	n.durable = maps.Clone(n.newest)
}

// fail lets the commit of all that is in flight fail, without effect.
func (n *modelNode) fail(t *rapid.T) {
	n.h.set(func(h *hooks) { h.applyErr = errInjected })
	n.release()
	n.release = nil
	for _, o := range n.flying {
		if _, err := o.wait(); !errors.Is(err, ErrInDoubt) {
			t.Fatalf("in flight at a failure: %v", err)
		}
	}
	n.flying = nil
	n.fails++
	waitOpen(n.m.t, n.s, n.fails)
	n.newest = maps.Clone(n.durable)
}

func (n *modelNode) restart(t *rapid.T) {
	n.settle(t)
	actor := n.s.Actor()
	if err := n.s.Close(); err != nil {
		t.Fatal(err)
	}
	n.s, n.fails = n.reopen(), 0
	if n.s.Actor() == actor {
		t.Fatal("a start kept the actor")
	}
}

func (n *modelNode) mint(t *rapid.T) {
	m := n.m
	key := fmt.Sprint("k", rapid.IntRange(0, 1).Draw(t, "key"))
	m.ids++
	id := fmt.Sprint("w", m.ids)
	w := write(key, id)
	past := n.newest[key].join(nil)
	base := naive{}
	var ctx seenContext
	if pool := m.seen[key]; len(pool) > 0 && rapid.IntRange(0, 3).Draw(t, "with context") > 0 {
		ctx = pool[rapid.IntRange(0, len(pool)-1).Draw(t, "context")]
		w.Context = &ctx.ctx
		past = ctx.hist
	}
	if len(m.sent) > 0 && rapid.IntRange(0, 3).Draw(t, "with base") == 0 {
		if s := m.sent[rapid.IntRange(0, len(m.sent)-1).Draw(t, "base")]; s.key == key {
			w.Base, base = s.rec, s.hist
			if w.Context == nil {
				past = past.join(base)
			}
		}
	}
	local := n.newest[key].join(base)
	behind := false
	for _, d := range ctx.ctx.Dots {
		behind = behind || !local[m.dots[d]]
	}
	o := newOutcome(m.t)
	out, err := n.s.Mint(w, o.mint)
	if behind {
		if !errors.Is(err, ErrBehind) {
			t.Fatalf("a mint behind its context: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("mint: %v", err)
	}
	if old, used := m.dots[out.Dot]; used {
		t.Fatalf("dot %s names %s and %s", out.Dot, old, id)
	}
	m.dots[out.Dot] = id
	m.past[id] = past
	hist := local.join(past).join(naive{id: true})
	m.check(t, "mint", key, out.Record, hist)
	n.newest[key] = hist
	n.flying = append(n.flying, o)
	m.sent = append(m.sent, sent{key, slices.Clone(out.Record), hist})
	answer := causal.Answer(w.Context, decode(m.t, key, out.Record), out.Dot)
	seen := hist
	if w.Context != nil {
		seen = ctx.hist.join(naive{id: true})
	}
	m.seen[key] = append(m.seen[key], seenContext{answer, seen})
}

func (n *modelNode) apply(t *rapid.T, s sent) {
	o := newOutcome(n.m.t)
	if err := n.s.Apply([]byte(s.key), slices.Clone(s.rec), o.apply); err != nil {
		t.Fatalf("apply: %v", err)
	}
	n.newest[s.key] = n.newest[s.key].join(s.hist)
	if n.release != nil && o.called() { // nothing changed, nothing pending: done at once, and not in flight
		if _, err := o.wait(); err != nil {
			t.Fatalf("apply: %v", err)
		}
		return
	}
	n.flying = append(n.flying, o)
}

// read checks that a read shows all that is durable and nothing else.
func (n *modelNode) read(t *rapid.T, key string) (rec []byte, hist naive) {
	rec, err := n.s.Read([]byte(key))
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatalf("read: %v", err)
	}
	n.m.check(t, "read", key, rec, n.durable[key])
	return rec, n.durable[key]
}

func newModel(t *testing.T, rt *rapid.T) *model {
	m := &model{t: t, past: map[string]naive{}, dots: map[causal.Dot]string{}, seen: map[string][]seenContext{}}
	for range 3 {
		h := newHooks()
		opener := memory.NewStore().Open
		if rapid.IntRange(0, 9).Draw(rt, "engine") == 0 {
			opener = onDisk(enginetest.NewDisk())
		}
		n := &modelNode{m: m, h: h, newest: map[string]naive{}, durable: map[string]naive{}}
		n.reopen = func() *Store {
			s, err := tryOpen(h.opener(opener), func(c *Config) { c.Limits = causal.Limits{MaxSiblings: 1000, MaxBytes: 1 << 20} })
			if err != nil {
				rt.Fatal(err)
			}
			return s
		}
		n.s = n.reopen()
		m.nodes = append(m.nodes, n)
	}
	return m
}

func TestStoresAgainstFullHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt)
		defer func() {
			for _, n := range m.nodes {
				if n.release != nil {
					n.release()
				}
				if err := n.s.Close(); err != nil {
					rt.Error(err)
				}
			}
		}()
		pick := func(t *rapid.T) *modelNode { return m.nodes[rapid.IntRange(0, 2).Draw(t, "node")] }
		rt.Repeat(map[string]func(*rapid.T){
			"mint":   func(t *rapid.T) { pick(t).mint(t) },
			"mint 2": func(t *rapid.T) { pick(t).mint(t) },
			"deliver": func(t *rapid.T) {
				if len(m.sent) == 0 {
					t.Skip("nothing was sent")
				}
				pick(t).apply(t, m.sent[rapid.IntRange(0, len(m.sent)-1).Draw(t, "which")])
			},
			"read": func(t *rapid.T) {
				n, key := pick(t), fmt.Sprint("k", rapid.IntRange(0, 1).Draw(t, "key"))
				if n.release == nil {
					n.settle(t)
				}
				rec, hist := n.read(t, key)
				c := seenContext{hist: hist}
				if rec != nil {
					c.ctx.Vector = decode(m.t, key, rec).Clock
					m.sent = append(m.sent, sent{key, rec, hist})
				}
				m.seen[key] = append(m.seen[key], c)
			},
			"hold": func(t *rapid.T) {
				if n := pick(t); n.release == nil {
					n.settle(t)
					n.release = n.h.hold()
				}
			},
			"settle": func(t *rapid.T) { pick(t).settle(t) },
			"fail": func(t *rapid.T) {
				n := pick(t)
				if n.release == nil || len(n.flying) == 0 || n.queued() == 0 {
					t.Skip("nothing is in flight")
				}
				n.fail(t)
			},
			"restart": func(t *rapid.T) { pick(t).restart(t) },
		})
		m.converge(rt)
	})
}

// queued is how many writes are in flight; an apply that changed nothing durable is not one.
func (n *modelNode) queued() int { return n.s.Stats().QueueItems }

func (m *model) converge(t *rapid.T) {
	all := map[string]naive{}
	for _, n := range m.nodes {
		n.settle(t)
	}
	for range 2 {
		for _, from := range m.nodes {
			for _, key := range []string{"k0", "k1"} {
				rec, hist := from.read(t, key)
				if rec == nil {
					continue
				}
				all[key] = all[key].join(hist)
				for _, to := range m.nodes {
					to.apply(t, sent{key, rec, hist})
					to.settle(t)
				}
			}
		}
	}
	for key, hist := range all {
		var first []byte
		for i, n := range m.nodes {
			rec, _ := n.read(t, key)
			m.check(t, "after healing", key, rec, hist)
			if i == 0 {
				first = rec
			} else if !bytes.Equal(rec, first) {
				t.Fatalf("replicas of %s differ after healing", key)
			}
		}
	}
}
