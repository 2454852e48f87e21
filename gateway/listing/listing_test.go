package listing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/nodeclient"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

// cluster is a cluster whose nodes hold keys: true is a value, false a tombstone.
type cluster struct {
	layout *ring.Layout
	state  *nodeclient.State
	holds  map[ring.NodeID]map[string]bool
	away   map[ring.NodeID]error
	scan   int // keys that a node looks at in one go
	reads  int
}

func newCluster(t testing.TB, members int) *cluster {
	t.Helper()
	view := ring.NewView(ring.Found(ring.ClusterID{1}, ring.Member{ID: ring.NodeID{1}, Weight: 1}, 3, 2))
	c := &cluster{holds: map[ring.NodeID]map[string]bool{{1}: {}}, away: map[ring.NodeID]error{}, scan: 1000}
	for i := 2; i <= members; i++ {
		id := ring.NodeID{byte(i)}
		l, err := view.Propose([]ring.Change{{Kind: ring.ChangeJoin, Member: ring.Member{ID: id, Weight: 1, Tokens: ring.RandomTokens(id, 8, nil)}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range view.Required(l) {
			view.MarkAcked(l.ID(), n)
		}
		for _, n := range view.Required(l) {
			view.MarkSynced(l.ID(), n)
		}
		for _, n := range view.Required(l) {
			view.MarkSwitched(l.ID(), n)
		}
		c.holds[id] = map[string]bool{}
	}
	c.layout = view.Settled()
	if len(c.layout.Members()) != members {
		t.Fatalf("%d members", len(c.layout.Members()))
	}
	c.state = &nodeclient.State{View: view, Live: []*ring.Layout{c.layout}, Read: c.layout}
	return c
}

func (c *cluster) State() *nodeclient.State { return c.state }
func (c *cluster) Health(id ring.NodeID) nodeclient.Health {
	return nodeclient.Health{Connected: c.away[id] == nil}
}

// put stores a key at those of its owners that have is true for.
func (c *cluster) put(key string, value bool, have func(i int) bool) {
	for i, id := range c.layout.Primaries(ring.SlotOf([]byte(key))) {
		if have(i) {
			c.holds[id][key] = value
		}
	}
}

func (c *cluster) ListKeys(_ context.Context, id ring.NodeID, req *storagev1.ListKeysRequest) (*storagev1.ListKeysResponse, error) {
	if err := c.away[id]; err != nil {
		return nil, err
	}
	var keys [][]byte
	for k := range c.holds[id] {
		if s := uint32(ring.SlotOf([]byte(k))); s >= req.GetFromSlot() && s < req.GetToSlot() && (len(req.GetAfter()) == 0 || order([]byte(k), req.GetAfter()) > 0) {
			keys = append(keys, []byte(k))
		}
	}
	slices.SortFunc(keys, order)
	out := &storagev1.ListKeysResponse{Complete: true}
	for i, k := range keys {
		if i == c.scan || len(out.Keys) == int(req.GetLimit()) {
			out.Complete = false
			break
		}
		out.Last = k
		if bytes.HasPrefix(k, req.GetPrefix()) {
			out.Keys = append(out.Keys, &storagev1.ListedKey{Key: k, Deleted: !c.holds[id][string(k)]})
		}
	}
	return out, nil
}

// Get says that a key has a value where any owner has one and none a tombstone.
func (c *cluster) Get(_ context.Context, r coordinator.GetRequest) (coordinator.GetResult, error) {
	c.reads++
	s := causal.Sibling{Dot: causal.Dot{Counter: 1}}
	for _, id := range c.layout.Primaries(ring.SlotOf(r.Key)) {
		if v, ok := c.holds[id][string(r.Key)]; ok && !v {
			s.Tombstone = true
		}
	}
	return coordinator.GetResult{Set: causal.Set{Siblings: []causal.Sibling{s}}}, nil
}

func (c *cluster) all(ctx context.Context, prefix string, limit int) (keys []string, err error) {
	l := New(c, c, 2)
	var at Position
	for range 10_000 {
		page, err := l.List(ctx, []byte(prefix), at, limit)
		if err != nil {
			return nil, err
		}
		if len(page.Keys) > limit {
			return nil, fmt.Errorf("%d keys, the limit is %d", len(page.Keys), limit)
		}
		for _, k := range page.Keys {
			keys = append(keys, string(k))
		}
		if page.Next == nil {
			return keys, nil
		}
		if at, err = ParseCursor(page.Next.Cursor()); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the listing does not end")
}

// Every acknowledged key comes once, whatever the limit, the nodes' bounds and who of the owners misses what; deleted keys do not.
func TestListsEveryKeyOnce(t *testing.T) {
	clusters := map[int]*cluster{1: newCluster(t, 1), 3: newCluster(t, 3), 7: newCluster(t, 7)}
	rapid.Check(t, func(rt *rapid.T) {
		c := clusters[rapid.SampledFrom([]int{1, 3, 7}).Draw(rt, "members")]
		for _, h := range c.holds {
			clear(h)
		}
		c.scan = rapid.IntRange(1, 50).Draw(rt, "scan")
		var want []string
		for i := range rapid.IntRange(0, 60).Draw(rt, "keys") {
			key := fmt.Sprintf("%s/%d", rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "prefix"), i)
			missing := rapid.IntRange(0, 3).Draw(rt, "missing")
			c.put(key, true, func(i int) bool { return i != missing })
			if rapid.IntRange(0, 3).Draw(rt, "deleted") == 0 {
				c.put(key, false, func(i int) bool { return i != (missing+1)%3 || c.layout.Replicas() == 1 })
			} else if key[0] == 'a' {
				want = append(want, key)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got, err := c.all(ctx, "a/", rapid.IntRange(1, 20).Draw(rt, "limit"))
		if err != nil {
			rt.Fatal(err)
		}
		slices.Sort(got)
		slices.Sort(want)
		if c.layout.Replicas() > 1 && !slices.Equal(got, want) {
			rt.Fatalf("listed %q, want %q", got, want)
		}
	})
}

// One owner away is nothing; two of three are too many; an overloaded one says so.
func TestOwnersAway(t *testing.T) {
	c := newCluster(t, 3)
	c.put("k", true, func(int) bool { return true })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c.away[ring.NodeID{1}] = nodeclient.ErrNotConnected
	if got, err := c.all(ctx, "", 10); err != nil || len(got) != 1 {
		t.Errorf("one away: %q, %v", got, err)
	}
	for _, tc := range []struct {
		err  error
		kind coordinator.Kind
	}{{nodeclient.ErrNotConnected, coordinator.QuorumImpossible}, {status.Error(codes.ResourceExhausted, "busy"), coordinator.Overloaded}} {
		c.away[ring.NodeID{2}] = tc.err
		_, err := c.all(ctx, "", 10)
		var ce *coordinator.Error
		if !errors.As(err, &ce) || ce.Kind != tc.kind || len(ce.Replicas) < 2 {
			t.Errorf("%v: %v", tc.err, err)
		}
	}
	c.state = nil
	if _, err := c.all(ctx, "", 10); err == nil {
		t.Error("no layout, no error")
	}
}

// The ring is cut without gaps or overlaps, and nowhere between slots with the same owners.
func TestStretches(t *testing.T) {
	c := newCluster(t, 7)
	all := Stretches(c.layout, 0, int(ring.Slots))
	at := ring.Slot(0)
	for i, r := range all {
		if r.From != at || r.To <= r.From {
			t.Fatalf("stretch %d is %v, expected to begin at %d", i, r, at)
		}
		first := sorted(c.layout.Primaries(r.From))
		for _, s := range []ring.Slot{r.From, (r.From + r.To) / 2, r.To - 1} {
			if !slices.Equal(first, sorted(c.layout.Primaries(s))) {
				t.Fatalf("owners change within %v", r)
			}
		}
		if i > 0 && slices.Equal(first, sorted(c.layout.Primaries(r.From-1))) {
			t.Errorf("%v has the owners of the one before", r)
		}
		at = r.To
	}
	if at != ring.Slots {
		t.Errorf("the last ends at %d", at)
	}
	if got := Stretches(newCluster(t, 3).layout, 5, 8); len(got) != 1 || got[0] != (ring.Range{From: 5, To: ring.Slots}) {
		t.Errorf("three members own everything: %v", got)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add(Position{Slot: 7}.Cursor())
	f.Add(Position{Slot: ring.SlotOf([]byte("key")), After: []byte("key")}.Cursor())
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseCursor(s)
		if err != nil {
			if !errors.Is(err, ErrCursor) {
				t.Error(err)
			}
			return
		}
		if q, err := ParseCursor(p.Cursor()); err != nil || q.Slot != p.Slot || !bytes.Equal(q.After, p.After) {
			t.Errorf("%+v becomes %+v, %v", p, q, err)
		}
	})
}
