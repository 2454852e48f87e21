package coordinator

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// cluster is a small working cluster behind the coordinator's interface: nodes that mint, merge, read and refuse as the
// real ones do, over a network that delays, loses and repeats answers as a test says. Inside a synctest bubble its time
// is that of the bubble.
type cluster struct {
	t    testing.TB
	mu   sync.Mutex
	rand *rand.Rand

	view  *ring.View
	state *nodeclient.State
	// told is the view that a refusing node hands out; Learn takes it over.
	told  *ring.View
	nodes map[ring.NodeID]*fakeNode
	order []*fakeNode
	// immediate answers within Send, for benchmarks.
	immediate bool
	sent      []string // calls, as "mint a"
}

// fakeNode is one storage node.
type fakeNode struct {
	marked  bool   // its tombstones are being collected
	why     string // and what it says of that
	id      ring.NodeID
	name    string
	actor   causal.Actor
	counter uint64
	lives   int
	records map[string][]byte
	minted  map[string]causal.Dot // by request id and key
	fence   ring.Fence
	// hinted is, by key, the owners that records are kept for; what is kept lies in records.
	hinted    map[string][]ring.NodeID
	full      bool // hints are refused
	connected bool
	suspect   bool
	delay     time.Duration // each way, beside a random tenth
	mean, p95 time.Duration
	// meddle may change what becomes of a request; nil leaves it alone. It is called with the lock held.
	meddle func(r *storagev1.Request) *meddling
	calls  map[storagev1.Op]int
}

// meddling is a fault of one request.
type meddling struct {
	refuse    storagev1.Status // instead of doing it
	detail    string
	notSent   bool          // the request never leaves
	loseReply bool          // it is done, and the connection breaks before the answer
	awayFor   time.Duration // with loseReply: how long the node is away then
	silent    bool          // nothing is done, and nothing answered
	twice     bool          // the answer comes twice
	extra     time.Duration // beside the usual delay
	undurable bool          // the mint is issued, and its commit fails
	damage    bool          // a record in the answer has a flipped bit
}

// poisoned is a pool whose buffers are written over when they are given back, and given out again at once.
type poisoned struct {
	mu    sync.Mutex
	given [][]byte
	puts  int
}

func (p *poisoned) Get(n int) *[]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, b := range p.given {
		if cap(b) >= n {
			p.given = slices.Delete(p.given, i, i+1)
			b = b[:n]
			return &b
		}
	}
	b := make([]byte, n, 2*n+100)
	return &b
}

func (p *poisoned) Put(b *[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.puts++
	poison((*b)[:cap(*b)])
	p.given = append(p.given, *b)
}

// count is how many buffers were given back.
func (p *poisoned) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.puts
}

func poison(b []byte) {
	for i := range b {
		b[i] = 0xdd
	}
}

func nodeID(i int) ring.NodeID { return ring.NodeID{0: 1, 15: byte(i + 1)} }

// settledView has nodes settled in one layout.
func settledView(t testing.TB, nodes, n, minW int) *ring.View {
	member := func(i int) ring.Member { return ring.Member{ID: nodeID(i), Name: string(rune('a' + i)), Weight: 1} }
	founder := member(0)
	founder.Tokens = ring.RandomTokens(founder.ID, ring.TokensPerNode, nil)
	v := ring.NewView(ring.Found(ring.ClusterID{0: 7}, founder, n, minW))
	var joins []ring.Change
	for i := 1; i < nodes; i++ {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: member(i)})
	}
	if len(joins) > 0 {
		propose(t, v, joins...)
		settle(t, v)
	}
	return v
}

func propose(t testing.TB, v *ring.View, changes ...ring.Change) *ring.Layout {
	l, err := v.Propose(changes)
	if err != nil {
		t.Fatalf("propose: %v", err)
	}
	return l
}

// settle takes the pending layout through all its steps.
func settle(t testing.TB, v *ring.View) {
	l := v.Newest()
	for _, mark := range []func(ring.LayoutID, ring.NodeID){v.MarkAcked, v.MarkSynced, v.MarkSwitched} {
		for _, n := range v.Required(l) {
			mark(l.ID(), n)
		}
	}
	if v.Settled() != l {
		t.Fatalf("layout %s did not settle", l.ID())
	}
}

func newCluster(t testing.TB, nodes, n, minW int) *cluster {
	c := &cluster{t: t, rand: rand.New(rand.NewPCG(1, 2)), nodes: map[ring.NodeID]*fakeNode{}}
	for i := range nodes {
		f := &fakeNode{id: nodeID(i), name: string(rune('a' + i)), actor: causal.Actor{0: byte('a' + i)}, records: map[string][]byte{},
			minted: map[string]causal.Dot{}, hinted: map[string][]ring.NodeID{}, connected: true, delay: time.Millisecond, calls: map[storagev1.Op]int{}}
		c.nodes[f.id] = f
		c.order = append(c.order, f)
	}
	c.setView(settledView(t, nodes, n, minW))
	return c
}

func (c *cluster) setView(v *ring.View) {
	generation := uint64(1)
	if c.state != nil {
		generation = c.state.Generation + 1
	}
	c.view = v
	c.state = nodeclient.NewState(v, nil, generation)
}

// owners returns the nodes of a key, in preference order.
func (c *cluster) owners(key string) []*fakeNode {
	var out []*fakeNode
	for _, id := range c.state.Read.Primaries(ring.SlotOf([]byte(key))) {
		out = append(out, c.nodes[id])
	}
	return out
}

func (c *cluster) State() *nodeclient.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *cluster) Learn(view []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told != nil && c.told != c.view {
		c.setView(c.told)
	}
}

func (c *cluster) Health(id ring.NodeID) nodeclient.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[id]
	return nodeclient.Health{Connected: n.connected, Suspect: n.suspect, Mean: n.mean, P95: n.p95}
}

func (c *cluster) Send(call nodeclient.Call) {
	// Until the call is done its bytes must stay as they are; afterwards others write over them.
	value, rec := record.Checksum(call.Request.Value), record.Checksum(call.Request.Record)
	done := func() {
		if record.Checksum(call.Request.Value) != value || record.Checksum(call.Request.Record) != rec {
			c.t.Errorf("%s: the bytes of a request changed before it was done", opName(call.Request.Op))
		}
		if call.Done != nil {
			call.Done()
		}
	}
	c.mu.Lock()
	n, r := c.nodes[call.To], call.Request
	n.calls[r.Op]++
	if !c.immediate {
		c.sent = append(c.sent, fmt.Sprintf("%s %s", opName(r.Op), n.name))
	}
	var m meddling
	if n.meddle != nil {
		if got := n.meddle(r); got != nil {
			m = *got
		}
	}
	answer := func(resp *storagev1.Response, err error) nodeclient.Answer {
		return nodeclient.Answer{From: call.To, Tag: call.Tag, Response: resp, Err: err, At: time.Now()}
	}
	switch {
	case !n.connected || m.notSent:
		c.mu.Unlock()
		call.Deliver(answer(nil, nodeclient.ErrNotConnected))
		done()
		return
	case c.immediate:
		answers := n.do(r, call.Layouts, &m)
		c.mu.Unlock()
		for _, resp := range answers {
			call.Deliver(answer(resp, nil))
		}
		if call.Done != nil {
			call.Done()
		}
		return
	}
	wait := n.delay + m.extra
	wait += time.Duration(c.rand.Int64N(int64(wait)/10 + 1))
	back := n.delay + time.Duration(c.rand.Int64N(int64(n.delay)/10+1))
	c.mu.Unlock()
	if m.silent {
		return
	}
	time.AfterFunc(wait, func() {
		c.mu.Lock()
		answers := n.do(r, call.Layouts, &m)
		if c.told != nil {
			for _, a := range answers {
				if a.Status == storagev1.Status_STATUS_FENCED {
					a.View = c.told.Encode()
				}
			}
		}
		c.mu.Unlock()
		for i, resp := range answers {
			if m.damage && len(resp.Record) > 0 {
				resp.Record = bytes.Clone(resp.Record)
				resp.Record[len(resp.Record)-1] ^= 1
			}
			// The commit takes as long as the way back.
			time.AfterFunc(back+time.Duration(i)*back, func() {
				if i == len(answers)-1 {
					defer done()
				}
				switch {
				case m.loseReply && i == 0:
					if m.awayFor > 0 {
						c.lock(func() { n.connected = false })
						time.AfterFunc(m.awayFor, func() { c.lock(func() { n.connected = true }) })
					}
					call.Deliver(answer(nil, nodeclient.ErrLost))
				case m.loseReply:
				default:
					call.Deliver(answer(resp, nil))
					if m.twice {
						call.Deliver(answer(resp, nil))
					}
				}
			})
		}
	})
}

func opName(op storagev1.Op) string {
	return [...]string{"?", "mint", "apply", "read", "digest", "inspect"}[op]
}

// do carries a request out and returns its answers.
func (n *fakeNode) do(r *storagev1.Request, layouts []*storagev1.LayoutName, m *meddling) []*storagev1.Response {
	one := func(s storagev1.Status) []*storagev1.Response {
		return []*storagev1.Response{{Status: s, Detail: m.detail}}
	}
	if m.refuse != 0 {
		return one(m.refuse)
	}
	live := make([]ring.LayoutID, len(layouts))
	for i, l := range layouts {
		live[i] = ring.LayoutID{Epoch: l.Epoch, Hash: [16]byte(l.Hash)}
	}
	key := string(r.Key)
	if len(r.HintFor) > 0 {
		if n.full {
			return one(storagev1.Status_STATUS_OVERLOADED)
		}
		defer func() {
			for _, id := range r.HintFor {
				n.hinted[key] = append(n.hinted[key], ring.NodeID(id))
			}
		}()
	}
	switch r.Op {
	case storagev1.Op_OP_MINT:
		if !n.fence.AdmitWrite(live) {
			return one(storagev1.Status_STATUS_FENCED)
		}
		return n.mint(r, m)
	case storagev1.Op_OP_APPLY:
		if r.Cause == storagev1.Cause_CAUSE_WRITE && !n.fence.AdmitWrite(live) {
			return one(storagev1.Status_STATUS_FENCED)
		}
		if record.Verify(r.Key, r.Record) != nil {
			return one(storagev1.Status_STATUS_INVALID)
		}
		n.merge(r.Key, r.Record)
		return []*storagev1.Response{{Status: storagev1.Status_STATUS_OK, Durable: true}}
	default:
		if !n.fence.AdmitRead(live[r.Layout]) {
			return one(storagev1.Status_STATUS_FENCED)
		}
		rec, ok := n.records[key]
		if !ok {
			return one(storagev1.Status_STATUS_ABSENT)
		}
		if r.Op != storagev1.Op_OP_DIGEST {
			return []*storagev1.Response{{Status: storagev1.Status_STATUS_OK, Record: rec, Marked: n.marked, Why: n.why}}
		}
		d, err := record.DigestOf(rec)
		if err != nil {
			return one(storagev1.Status_STATUS_FAILED)
		}
		return []*storagev1.Response{{Status: storagev1.Status_STATUS_OK, Digest: d[:], Marked: n.marked}}
	}
}

func (n *fakeNode) set(key string) causal.Set {
	set, err := record.Decode([]byte(key), n.records[key])
	if err != nil {
		return causal.Set{}
	}
	return set
}

func (n *fakeNode) merge(key, rec []byte) {
	set, err := record.Decode(key, rec)
	if err != nil {
		panic(err)
	}
	n.records[string(key)] = record.Append(nil, key, causal.Merge(n.set(string(key)), set))
}

func (n *fakeNode) mint(r *storagev1.Request, m *meddling) []*storagev1.Response {
	key := string(r.Key)
	if len(r.Base) > 0 {
		n.merge(r.Key, r.Base)
	}
	before, had := n.records[key]
	dot, known := n.minted[key+"/"+r.RequestId]
	if !known {
		var ctx *causal.Context
		if r.HasContext {
			c, err := causal.DecodeContext(r.Context)
			if err != nil {
				return []*storagev1.Response{{Status: storagev1.Status_STATUS_INVALID, Detail: err.Error()}}
			}
			ctx = &c
		}
		dot = causal.Dot{Actor: n.actor, Counter: n.counter + 1}
		set, err := causal.Mint(n.set(key), ctx, causal.Sibling{Dot: dot, Tombstone: r.Tombstone, ContentType: r.ContentType,
			Checksum: r.Checksum, Value: r.Value, Time: dot.Counter})
		if err != nil {
			return []*storagev1.Response{{Status: storagev1.Status_STATUS_BEHIND, Detail: err.Error()}}
		}
		n.counter++
		n.records[key] = record.Append(nil, r.Key, set)
		n.minted[key+"/"+r.RequestId] = dot
	}
	rec := n.records[key]
	first := &storagev1.Response{Status: storagev1.Status_STATUS_OK, Record: rec, DotActor: dot.Actor[:], DotCounter: dot.Counter}
	if from, to, err := record.ValueSpan(r.Key, rec, dot); err == nil && !known {
		first.Record, first.ValueCut, first.ValueAt = append(bytes.Clone(rec[:from]), rec[to:]...), true, uint32(from)
	}
	second := &storagev1.Response{Status: storagev1.Status_STATUS_OK, Durable: true}
	if m.undurable && !known { // what was not committed is forgotten, and the actor with it
		second = &storagev1.Response{Status: storagev1.Status_STATUS_FAILED}
		n.lives++
		n.actor[1] = byte(n.lives)
		n.counter = 0
		n.minted = map[string]causal.Dot{}
		if n.records[key] = before; !had {
			delete(n.records, key)
		}
	}
	return []*storagev1.Response{first, second}
}

// lock gives exclusive access to the nodes.
func (c *cluster) lock(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}
