package witness

import (
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/internal/layout"
	"github.com/dotring/dotring/storagenode/kv"
)

// store is a disk of which the test says how far it is, and that takes note of what it hears.
type store struct {
	mu    sync.Mutex
	at    kv.Position
	heard []kv.Position
	meta  map[string][]byte
	notes int
}

func (s *store) Position() (kv.Position, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, s.at.Number > 0
}

func (s *store) Heard(p kv.Position) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = append(s.heard, p)
	return true
}

func (s *store) PutNote(name string, v []byte, done func(error)) error {
	s.mu.Lock()
	s.meta[name] = v
	s.notes++
	s.mu.Unlock()
	done(nil)
	return nil
}

func (s *store) GetMeta(name string) ([]byte, error) {
	if v, ok := s.meta[name]; ok {
		return v, nil
	}
	return nil, kv.ErrNotFound
}

// peers are services that call each other; those in away cannot be reached.
type peers struct {
	mu   sync.Mutex
	all  map[ring.NodeID]*Service
	away map[ring.NodeID]bool
	told int
}

type client struct {
	storagev1.StorageClient
	peers *peers
	to    *Service
}

// tellings counts the positions that were told, once all that was due has happened.
func (p *peers) tellings() int {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

func (p *peers) To(id ring.NodeID) (storagev1.StorageClient, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away[id] {
		return nil, nil, errors.New("away")
	}
	return client{peers: p, to: p.all[id]}, func() {}, nil
}

func (c client) Witness(ctx context.Context, req *storagev1.WitnessRequest, _ ...grpc.CallOption) (*storagev1.WitnessResponse, error) {
	if req.GetPosition() != nil {
		c.peers.mu.Lock()
		c.peers.told++
		c.peers.mu.Unlock()
	}
	return c.to.Witness(ctx, req)
}

// world is a cluster of three.
func world(t *testing.T) (*layout.Known, *peers, []*store, []*Service) {
	t.Helper()
	var members []ring.Member
	for i := range byte(3) {
		id := ring.NodeID{i + 1}
		members = append(members, ring.Member{ID: id, Name: string('a' + rune(i)), Weight: 1, Tokens: ring.RandomTokens(id, 4, nil)})
	}
	var joins []ring.Change
	for _, m := range members[1:] {
		joins = append(joins, ring.Change{Kind: ring.ChangeJoin, Member: m})
	}
	l, err := ring.NewView(ring.Found(ring.ClusterID{1}, members[0], 3, 2)).Propose(joins)
	if err != nil {
		t.Fatal(err)
	}
	known := &layout.Known{Settled: l, Newest: l, Read: l}
	p := &peers{all: map[ring.NodeID]*Service{}, away: map[ring.NodeID]bool{}}
	var stores []*store
	var services []*Service
	for i, m := range members {
		stores = append(stores, &store{meta: map[string][]byte{}, at: kv.Position{Line: kv.LineID{byte(i) + 1}, Number: 10}})
		s, err := New(Config{Self: m.ID, Store: stores[i], Known: func() *layout.Known { return known }, Peers: p,
			Logger: zerolog.Nop(), Registerer: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		p.all[m.ID] = s
		services = append(services, s)
	}
	return known, p, stores, services
}

// A node asks before it is vouched for, tells what is news and nothing else, and asks those that remember nothing, too.
func TestAsksThenTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p, stores, services := world(t)
		at := kv.Position{Line: kv.LineID{9}, Number: 77}
		services[1].remembered[ring.NodeID{1}] = at
		p.away[ring.NodeID{3}] = true
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { services[0].Run(ctx) })
		synctest.Wait()
		if !services[0].Vouched() || len(stores[0].heard) != 1 || stores[0].heard[0] != at {
			t.Errorf("vouched %v after hearing %v", services[0].Vouched(), stores[0].heard)
		}
		p.mu.Lock()
		p.away[ring.NodeID{3}] = false
		p.mu.Unlock()
		time.Sleep(2 * tellEvery)
		if p.tellings() != 2 || services[2].remembered[ring.NodeID{1}] != stores[0].at || services[1].remembered[ring.NodeID{1}] != at {
			t.Errorf("told %d times; remembered are %v and %v", p.tellings(), services[1].remembered, services[2].remembered)
		}
		time.Sleep(10 * tellEvery)
		if p.tellings() != 2 {
			t.Errorf("told %d times what is no news", p.tellings())
		}
		time.Sleep(retellAfter)
		if p.tellings() != 4 {
			t.Errorf("told %d times after a minute", p.tellings())
		}
		cancel()
		running.Wait()
	})
}

// Nobody answers: after a while the node serves without. Alone in its ranges, it does not wait.
func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known, p, _, services := world(t)
		p.away[ring.NodeID{2}], p.away[ring.NodeID{3}] = true, true
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { services[0].Run(ctx) })
		time.Sleep(askFor - time.Second)
		if services[0].Vouched() {
			t.Error("vouched by nobody")
		}
		time.Sleep(2 * time.Second)
		if !services[0].Vouched() {
			t.Error("it waits for ever")
		}
		cancel()
		running.Wait()
		l := ring.Found(ring.ClusterID{1}, known.Settled.Members()[0], 3, 2)
		*known = layout.Known{Settled: l, Newest: l, Read: l}
		services[0].vouched.Store(false)
		if services[0].ask(t.Context()); !services[0].Vouched() {
			t.Error("a node that has all for itself waits")
		}
	})
}

// The highest stays, also over a restart, and of strangers nothing does.
func TestRemembersTheHighest(t *testing.T) {
	_, _, stores, services := world(t)
	s := services[0]
	say := func(from byte, line byte, number uint64) kv.Position {
		t.Helper()
		resp, err := s.Witness(t.Context(), &storagev1.WitnessRequest{From: append([]byte{from}, make([]byte, 15)...),
			Position: encode(kv.Position{Line: kv.LineID{line}, Number: number})})
		if err != nil {
			t.Fatal(err)
		}
		p, err := decode(resp.GetRemembered())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	say(2, 1, 5)
	say(2, 2, 8)
	if got := say(2, 1, 6); got != (kv.Position{Line: kv.LineID{2}, Number: 8}) { // late
		t.Errorf("remembered %v", got)
	}
	say(9, 1, 5)
	if got := say(9, 1, 0); got != (kv.Position{}) {
		t.Errorf("of a stranger %v is remembered", got)
	}
	if !s.keep(nil) || s.keep(nil) || stores[0].notes != 1 {
		t.Errorf("%d notes of one change", stores[0].notes)
	}
	again, err := load(stores[0], zerolog.Nop())
	if err != nil || !maps.Equal(again, s.remembered) {
		t.Errorf("after a restart %v, %v", again, err)
	}
	for _, bad := range []*storagev1.WitnessRequest{{}, {From: make([]byte, 16), Position: &storagev1.DiskPosition{Number: 3}}} {
		if _, err := s.Witness(t.Context(), bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

func TestMemoryFormat(t *testing.T) {
	m := memory{{2}: {Line: kv.LineID{7}, Number: 300}, {1}: {Line: kv.LineID{8}, Number: 1}}
	const golden = "01" + "01000000000000000000000000000000" + "08000000000000000000000000000000" + "0000000000000001" +
		"02000000000000000000000000000000" + "07000000000000000000000000000000" + "000000000000012c"
	if got := hex.EncodeToString(m.encode()); got != golden {
		t.Errorf("written as %s", got)
	}
	if got, err := load(&store{meta: map[string][]byte{metaName: []byte("?")}}, zerolog.Nop()); err != nil || len(got) != 0 {
		t.Errorf("what is unreadable: %v, %v", got, err)
	}
}

func FuzzDecodeMemory(f *testing.F) {
	f.Add(memory{{2}: {Line: kv.LineID{7}, Number: 300}, {1}: {Line: kv.LineID{8}, Number: 1}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMemory(b); err == nil && string(m.encode()) != string(b) {
			t.Errorf("%x is read as %v", b, m)
		}
	})
}
