// Package edgetest is a small working stand-in for the coordinator and the cluster behind it, for tests of the surfaces.
package edgetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dotring/dotring/gateway/backup"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/listing"
	"github.com/dotring/dotring/gateway/nodeclient"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

// Now is the time of every write: a whole second, so that it survives HTTP dates.
var Now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// Store is a coordinator over one copy of everything. It really merges and mints. N is 3, the least W is 2. Safe for
// concurrent use.
type Store struct {
	mu      sync.Mutex
	sets    map[string]causal.Set
	named   map[string]coordinator.PutResult
	actor   causal.Actor
	counter uint64
	fail    error
	wait    chan struct{}
	entered chan struct{}
	// LastGet and LastPut are what came last; read them when no request is under way.
	LastGet coordinator.GetRequest
	LastPut coordinator.PutRequest
	Puts    int
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{sets: map[string]causal.Set{}, named: map[string]coordinator.PutResult{}, actor: causal.Actor{1}}
}

// Fail makes every request fail with err, nil for none.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Hold makes requests wait until release is called or their deadline; entered receives once for each that waits.
func (s *Store) Hold() (entered <-chan struct{}, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait, in := make(chan struct{}), make(chan struct{}, 64)
	s.wait, s.entered = wait, in
	return in, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wait = nil
		close(wait)
	}
}

func (s *Store) gate(ctx context.Context) error {
	s.mu.Lock()
	wait, entered, fail := s.wait, s.entered, s.fail
	s.mu.Unlock()
	if wait != nil {
		entered <- struct{}{}
		if at, ok := ctx.Deadline(); ok { // which ends the call, whatever becomes of ctx then
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, at)
			defer cancel()
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return &coordinator.Error{Kind: coordinator.DeadlinePassed, Outcome: coordinator.InDoubt, Err: ctx.Err()}
		}
	}
	return fail
}

func reports() []coordinator.Report {
	return []coordinator.Report{
		{Node: ring.NodeID{1}, Name: "a", Did: "read", At: time.Millisecond, Clock: causal.Vector{{Actor: causal.Actor{1}, Counter: 1 << 60}}},
		{Node: ring.NodeID{2}, Did: "digest", Detail: "refused", Repaired: true},
	}
}

func badQuorum(format string, args ...any) error {
	return &coordinator.Error{Kind: coordinator.BadQuorum, Outcome: coordinator.NotApplied, Err: fmt.Errorf(format, args...)}
}

// Get implements the interface of the surfaces.
func (s *Store) Get(ctx context.Context, r coordinator.GetRequest) (coordinator.GetResult, error) {
	if err := s.gate(ctx); err != nil {
		return coordinator.GetResult{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastGet = r
	if r.R > 3 {
		return coordinator.GetResult{}, badQuorum("r is %d, and the cluster keeps 3 replicas", r.R)
	}
	set := s.sets[string(r.Key)]
	if r.Context != nil && !r.Context.SatisfiedBy(set.Clock) {
		return coordinator.GetResult{}, &coordinator.Error{Kind: coordinator.StaleRead, Replicas: reports()}
	}
	res := coordinator.GetResult{Set: set}
	if r.Explain || r.SlowAfter > 0 && r.SlowAfter < time.Microsecond { // anything is slow then
		res.Reports = reports()
	}
	return res, nil
}

// Put implements the interface of the surfaces.
func (s *Store) Put(ctx context.Context, r coordinator.PutRequest) (coordinator.PutResult, error) {
	if err := s.gate(ctx); err != nil {
		return coordinator.PutResult{}, err
	}
	if r.Release != nil { // whoever gets it next finds something else there
		lent, back := r.Value, r.Release
		r.Value = bytes.Clone(lent)
		for i := range lent {
			lent[i] = 0xdd
		}
		back()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.LastPut = r
	s.Puts++
	if r.W > 3 || r.W == 1 {
		return coordinator.PutResult{}, badQuorum("w is %d: 2 to 3 is possible", r.W)
	}
	name := string(r.Key) + "\x00" + r.RequestID
	if done, ok := s.named[name]; ok && r.ClientRequestID {
		return done, nil
	}
	s.counter++
	dot := causal.Dot{Actor: s.actor, Counter: s.counter}
	set, err := causal.Mint(s.sets[string(r.Key)], r.Context, causal.Sibling{Dot: dot, Tombstone: r.Tombstone,
		Time: uint64(Now.UnixMilli()) << 16, ContentType: r.ContentType, Checksum: r.Checksum, Value: r.Value})
	if err != nil {
		kind := coordinator.Internal
		if errors.Is(err, causal.ErrBehind) {
			kind = coordinator.StaleContext
		}
		return coordinator.PutResult{}, &coordinator.Error{Kind: kind, Outcome: coordinator.NotApplied, Err: err}
	}
	s.sets[string(r.Key)] = set
	res := coordinator.PutResult{Context: causal.Answer(r.Context, set, dot), Siblings: len(set.Shown()), Acks: 2, Minted: time.Microsecond}
	if r.SlowAfter > 0 && r.SlowAfter < time.Microsecond {
		res.Reports = reports()
	}
	s.named[name] = res
	return res, nil
}

// Inspect implements the interface of the cluster service.
func (s *Store) Inspect(ctx context.Context, key []byte) (coordinator.Inspection, error) {
	if err := s.gate(ctx); err != nil {
		return coordinator.Inspection{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set, ok := s.sets[string(key)]
	return coordinator.Inspection{Slot: ring.SlotOf(key), Replicas: []coordinator.Inspected{
		{Node: ring.NodeID{1}, Name: "a", Role: coordinator.Primary, Set: set, Absent: !ok, Bytes: 100},
		{Node: ring.NodeID{2}, Name: "b", Role: coordinator.Primary, Absent: true},
		{Node: ring.NodeID{3}, Name: "c", Role: coordinator.Fallback, Err: "not connected"},
	}}, nil
}

// List implements the interface of the surfaces: all keys in the order of their hashes.
func (s *Store) List(ctx context.Context, prefix []byte, from listing.Position, limit int) (listing.Page, error) {
	if err := s.gate(ctx); err != nil {
		return listing.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys [][]byte
	for k, set := range s.sets {
		behind := ring.SlotOf([]byte(k)) > from.Slot || ring.SlotOf([]byte(k)) == from.Slot && ring.Hash([]byte(k)) > ring.Hash(from.After)
		if strings.HasPrefix(k, string(prefix)) && behind && slices.ContainsFunc(set.Siblings, func(v causal.Sibling) bool { return !v.Tombstone }) {
			keys = append(keys, []byte(k))
		}
	}
	slices.SortFunc(keys, func(a, b []byte) int { return cmp.Compare(ring.Hash(a), ring.Hash(b)) })
	if len(keys) <= limit {
		return listing.Page{Keys: keys}, nil
	}
	last := keys[limit-1]
	return listing.Page{Keys: keys[:limit], Next: &listing.Position{Slot: ring.SlotOf(last), After: last}}, nil
}

// Set returns what is stored at key.
func (s *Store) Set(key string) causal.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets[key]
}

// SetRecord stores a record as it is.
func (s *Store) SetRecord(key string, set causal.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets[key] = set
}

// Snapshot implements httpapi.Backups: node "a" holds every record.
func (s *Store) Snapshot(_ context.Context, node, part string) (backup.Head, func(func(key, rec []byte) error) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return backup.Head{}, nil, s.fail
	}
	keys := slices.Sorted(maps.Keys(s.sets))
	if part == backup.Hints {
		keys = nil
	}
	return backup.Head{Name: node, Part: part}, func(add func(key, rec []byte) error) error {
		if len(keys) == 0 {
			return io.EOF
		}
		key := keys[0]
		keys = keys[1:]
		return add([]byte(key), record.Append(nil, []byte(key), s.Set(key)))
	}, nil
}

// Restore implements httpapi.Backups.
func (s *Store) Restore(_ context.Context, key, rec []byte, _ string) error {
	set, err := record.Decode(key, rec)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil || err != nil {
		return cmp.Or(s.fail, err)
	}
	s.sets[string(key)] = causal.Merge(s.sets[string(key)], set)
	return nil
}

// Nodes is a node client of a cluster of three, whose health can be set. Not safe for concurrent change.
type Nodes struct {
	View    *ring.View
	Away    map[string]bool
	Gossip  map[string]string
	Agree   bool
	Unknown bool
	// Outsiders are living nodes that are no members.
	Outsiders map[ring.NodeID]string
	// Change, where set, is asked before a change is made.
	Change func(req *storagev1.ChangeLayoutRequest) error
	// Tasks, where set, is what nodes tell of their tasks. Otherwise each has just compared with all others.
	Tasks func(id ring.NodeID, req *storagev1.GetTasksRequest) *storagev1.GetTasksResponse
	asked uint64
	mu    sync.Mutex
}

// ClusterID is the id of every cluster here.
var ClusterID = ring.ClusterID{0xc1}

// NewNodes returns a settled cluster of members nodes named a, b, c, … that keeps n copies.
func NewNodes(members, n int) (*Nodes, error) {
	member := func(i int) ring.Member {
		id := ring.NodeID{byte(i + 1)}
		return ring.Member{ID: id, Name: string(rune('a' + i)), Weight: 1, Zone: "z",
			Tokens: ring.RandomTokens(id, 16, func(ring.Slot) bool { return false })}
	}
	v := ring.NewView(ring.Found(ClusterID, member(0), n, min(2, n)))
	var changes []ring.Change
	for i := 1; i < members; i++ {
		changes = append(changes, ring.Change{Kind: ring.ChangeJoin, Member: member(i)})
	}
	if len(changes) > 0 {
		l, err := v.Propose(changes)
		if err != nil {
			return nil, fmt.Errorf("propose: %w", err)
		}
		for _, id := range v.Required(l) {
			v.MarkAcked(l.ID(), id)
			v.MarkSynced(l.ID(), id)
			v.MarkSwitched(l.ID(), id)
		}
	}
	return &Nodes{View: v, Away: map[string]bool{}, Gossip: map[string]string{}, Agree: true}, nil
}

// State implements the interface of the cluster service.
func (n *Nodes) State() *nodeclient.State {
	if n.Unknown {
		return nil
	}
	s := &nodeclient.State{Cluster: ClusterID, View: n.View, Live: n.View.Live(), Read: n.View.ReadLayout(),
		Members: map[ring.NodeID]nodeclient.Member{}}
	for id, name := range n.Outsiders {
		s.Members[id] = nodeclient.Member{ID: id, Name: name, Status: "alive"}
	}
	for _, m := range s.Read.Members() {
		status := "alive"
		if g := n.Gossip[m.Name]; g != "" {
			status = g
		}
		s.Members[m.ID] = nodeclient.Member{ID: m.ID, Name: m.Name, Zone: m.Zone, Weight: m.Weight, Status: status,
			GRPCAddr: "127.0.0.1:7101", GossipAddr: "127.0.0.1:7201", AdminAddr: "127.0.0.1:7301"}
	}
	return s
}

// Health implements the interface of the cluster service.
func (n *Nodes) Health(id ring.NodeID) nodeclient.Health {
	m, ok := n.View.ReadLayout().Member(id)
	if !ok || n.Away[m.Name] {
		return nodeclient.Health{Suspect: true, Phi: 12}
	}
	return nodeclient.Health{Connected: true, Phi: 0.5}
}

// GetNode implements the interface of the cluster service.
func (n *Nodes) GetNode(_ context.Context, id ring.NodeID) (*storagev1.GetNodeResponse, error) {
	return &storagev1.GetNodeResponse{Id: id[:], Keys: 7, DiskBytes: 1 << 54, Engine: "goleveldb",
		StartUnixMs: uint64(Now.UnixMilli()), SeesAlive: 3, GossipDigest: []byte("12345678"),
		State: "ready", Version: "v0", NowUnixMs: uint64(Now.UnixMilli()), DiskFreeBytes: 1 << 40, DiskTotalBytes: 1 << 41, AntiEntropyAgeSeconds: 12.5,
		CertificateEndsUnixMs: uint64(Now.UnixMilli()), Acked: &storagev1.LayoutName{Epoch: 2}}, nil
}

// GetTasks implements the interface of the cluster service.
func (n *Nodes) GetTasks(_ context.Context, id ring.NodeID, req *storagev1.GetTasksRequest) (*storagev1.GetTasksResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.Tasks != nil {
		return n.Tasks(id, req), nil
	}
	n.asked++
	l := n.View.ReadLayout().ID()
	out := &storagev1.GetTasksResponse{Life: id[:], NowNs: n.asked, Layout: &storagev1.LayoutName{Epoch: l.Epoch, Hash: l.Hash[:]}}
	for _, m := range n.View.ReadLayout().Members() {
		if m.ID != id {
			out.Compares = append(out.Compares, &storagev1.CompareTask{Peer: m.ID[:], WholeNs: n.asked + 1, Ranges: 4})
		}
	}
	return out, nil
}

// ChangeLayout implements the interface of the cluster service: as a node would, by no plan.
func (n *Nodes) ChangeLayout(_ context.Context, _ ring.NodeID, req *storagev1.ChangeLayoutRequest) (*storagev1.ChangeLayoutResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.Change != nil {
		if err := n.Change(req); err != nil {
			return nil, err
		}
	}
	v := n.View.Clone()
	if err := change(v, req); err != nil {
		return nil, err
	}
	if !req.GetDryRun() {
		n.View = v
	}
	return &storagev1.ChangeLayoutResponse{View: v.Encode(), TransferRate: 32 << 20}, nil
}

func change(v *ring.View, req *storagev1.ChangeLayoutRequest) (err error) {
	var c ring.Change
	copy(c.Member.ID[:], req.GetNode())
	switch req.GetChange() {
	case storagev1.LayoutChange_LAYOUT_CHANGE_LEAVE:
		c.Kind = ring.ChangeLeave
	case storagev1.LayoutChange_LAYOUT_CHANGE_REMOVE:
		c.Kind = ring.ChangeRemove
		err = v.MarkDead(c.Member.ID, req.GetAcceptLoss())
	case storagev1.LayoutChange_LAYOUT_CHANGE_REPLACE:
		c.Kind, c.Old = ring.ChangeReplace, c.Member.ID
		copy(c.Member.ID[:], req.GetBy())
		c.Member.Name = "new"
	case storagev1.LayoutChange_LAYOUT_CHANGE_WEIGHT:
		c.Kind, c.Member.Weight = ring.ChangeWeight, req.GetWeight()
	case storagev1.LayoutChange_LAYOUT_CHANGE_ABORT:
		_, err = v.Abort(ring.NodeID{})
		return statusOf(err)
	}
	if err == nil {
		_, err = v.Propose([]ring.Change{c})
	}
	return statusOf(err)
}

// statusOf is how a node answers err.
func statusOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ring.ErrInvalid):
		return status.Error(codes.InvalidArgument, err.Error())
	default:
		return status.Error(codes.FailedPrecondition, err.Error())
	}
}

// ContextKeysAgree implements the interface of the cluster service.
func (n *Nodes) ContextKeysAgree() (bool, string) {
	if n.Agree {
		return true, ""
	}
	return false, "another gateway has other keys"
}
