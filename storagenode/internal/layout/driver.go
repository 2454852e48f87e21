package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/membership"
	"github.com/dotring/dotring/ringsvc/planner"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/storagenode/transfer"
)

const (
	// tick is how often the driver looks around without being woken.
	tick = time.Second
	// callTimeout bounds one exchange of views and one request to join.
	callTimeout = 3 * time.Second
	// callsMax bounds the exchanges under way at once.
	callsMax = 8
	// meetAll is the largest cluster in which a change is told to everyone at once; in larger ones, to meetSome.
	meetAll  = 16
	meetSome = 4
	// roundPause is the least time between two rounds of those.
	roundPause = 50 * time.Millisecond
	// strangers is in how many of the exchanges at random, one a second, the peer is any of many and not a finger.
	strangers = 16
	// announcePer is how long for each member the gossiped marks may wait in larger clusters.
	announcePer = 100 * time.Millisecond
	// meetPause is the least time between two exchanges with one peer.
	meetPause = 15 * time.Millisecond
	// joinRetry is the pause between requests to join.
	joinRetry = 100 * time.Millisecond
	// joinGather is how long a member waits for more joiners before it proposes.
	joinGather = 150 * time.Millisecond
	// joinForget is how long after its last request a joiner is still proposed.
	joinForget = 10 * time.Second
	// joinersMax bounds the joiners that wait for a proposal.
	joinersMax = 1024
	// stuckAfter is how long a change may stand still before that is logged, and how often it is.
	stuckAfter = time.Minute
	// stepRetry is the pause after a step that failed, for a busy or failing disk.
	stepRetry = 200 * time.Millisecond
)

// Members is the gossip that the driver sees.
type Members interface {
	Members() []membership.Member
	Changed() <-chan struct{}
	SetLocal(func(*membership.Member)) error
}

// Peer is where a node is reached.
type Peer struct {
	ID   ring.NodeID
	Name string
	Addr string
}

// Peers calls other nodes. Calls end with ctx.
type Peers interface {
	// ExchangeView gives a view (empty: none) and gets the other's. See Driver.Answer.
	ExchangeView(ctx context.Context, to Peer, view []byte) (Exchanged, error)
	// Join asks to be proposed and gets the other's view, nil where it has none.
	Join(ctx context.Context, to Peer, cluster ring.ClusterID, me ring.Member) ([]byte, error)
	// Pull calls fn with chunks of what the other holds of r, in order, from behind the key after; last is the chunk's
	// last key.
	// A source that is in doubt refuses with ErrSourceInDoubt.
	Pull(ctx context.Context, from Peer, layout ring.LayoutID, r ring.Range, after []byte, fn func(Chunk) error) error
	// PullSums is Pull of sums over groups of records instead of the records.
	PullSums(ctx context.Context, from Peer, layout ring.LayoutID, r ring.Range, after []byte, fn func(Group) error) error
	// PullMissing is Pull up to the key until, without the records whose hashes (see merkle.Leaf) are in have.
	PullMissing(ctx context.Context, from Peer, layout ring.LayoutID, r ring.Range, after, until, have []byte, fn func(Chunk) error) error
	// PullDoubted is Pull of what a source holds even where that is in doubt.
	PullDoubted(ctx context.Context, from Peer, layout ring.LayoutID, r ring.Range, after []byte, fn func(Chunk) error) error
}

// Exchanged answers a view that was given.
type Exchanged struct {
	View  []byte // brief where a brief one was given and could be read; else whole, without the giver's settled layout
	Again bool   // what was given could not be read: give it whole
	Hash  uint64 // of the answerer's view
}

// Chunk is a part of a pulled range.
type Chunk struct{ Keys, Records [][]byte }

// Group stands for the records behind the group before it up to the key Last; Sum is that of their hashes, see merkle.Sum.
type Group struct{ Last, Sum []byte }

// Records takes what is pulled. See kv.Store.
type Records interface {
	Apply(key, rec []byte, done func(changed bool, err error)) error
	Scan(r ring.Range, after []byte, fn func(key, rec []byte) (more bool, err error)) error
}

// Config is what a Driver needs; all fields are required where nothing else is said.
type Config struct {
	Self ring.Member // of this node as configured; Tokens empty
	// Label names the cluster: it is part of a cluster's id, see ClusterID.
	Label string
	// N and MinW are those of the first layout, should this node found the cluster.
	N, MinW int
	// JoinWait is how long the node waits to reach all it was told to join. Reached says whether it has, and whether it
	// has tried each of them at least once.
	JoinWait time.Duration
	// DeadAfter is how long a member is away before it is removed for good, 0 for never.
	DeadAfter time.Duration
	// Standby is a node that founds nothing and asks nobody to join: it waits until it is given the place of a member.
	Standby bool
	Reached func() (all, tried bool)
	// TransferRate bounds what is pulled, in bytes a second, 0 for no bound. Pulls give way where Pressure, how full the queues of
	// clients' requests are, 0 to 1, is high, and where clients' writes take longer than usual, as Served tells; nil for never.
	TransferRate int64
	Pressure     func() float64
	Served       func() transfer.Served

	State  *State
	Doubts Doubtful
	// Vouched says that others were asked what they remember of this disk: before, nothing is refilled. Optional.
	Vouched func() bool
	Members Members
	Peers   Peers
	Records Records
	Rand    io.Reader // for the cluster's id
	// Publish is told of every change of the view or the members, by the driver's goroutine; it must not block.
	Publish    func(members []membership.Member)
	Logger     zerolog.Logger
	Registerer prometheus.Registerer
}

// Driver brings a node into a cluster and from layout to layout. One goroutine, that of Run, takes all decisions;
// calls to other nodes have their own and report back.
type Driver struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	wake    chan struct{}
	results chan func(context.Context)
	calls   sync.WaitGroup

	throttle *Throttle
	transfer atomic.Pointer[tracker] // of the sync under way, nil for none

	mu      sync.Mutex
	joiners map[ring.NodeID]joiner
	refused map[string]bool // complaints already made

	// The rest belongs to Run's goroutine.
	started   time.Time
	firstTry  time.Time // when all of the join list had been tried once
	members   []membership.Member
	told      map[ring.NodeID]uint64 // hash of the view that a peer is known to hold
	heard     map[ring.NodeID]bool   // peers whose views this process has taken in
	busy      map[ring.NodeID]bool   // peers with a call under way
	asked     map[ring.NodeID]time.Time
	random    time.Time // of the last exchange with a random peer
	round     time.Time // of the last exchange with some of many peers, because of a change
	chased    time.Time // of the last exchange with those of many who gossip other layouts
	announced time.Time // when the gossiped marks are due to change; zero: they are current
	joinAt    time.Time // earliest next request to join
	joining   bool
	sync      *pullTask
	refilling *pullTask
	stuck     stuck
	proposed  stuck  // the newest layout that this node proposed, until all that live have acknowledged it
	published uint64 // hash of the view last told to some
	retryMeet bool   // an exchange was put off

	awaySince     map[ring.NodeID]time.Time // members that gossip does not see alive
	heardMajority time.Time
}

type joiner struct {
	member ring.Member
	first  time.Time
	last   time.Time
}

// stuck watches the change under way.
type stuck struct {
	layout ring.LayoutID
	since  time.Time
}

// New returns a driver that does nothing until Run.
func New(cfg Config) (*Driver, error) {
	d := &Driver{
		cfg: cfg, log: cfg.Logger, throttle: NewThrottle(cfg.TransferRate, cfg.Pressure, cfg.Served), wake: make(chan struct{}, 1), results: make(chan func(context.Context)),
		joiners: make(map[ring.NodeID]joiner), told: make(map[ring.NodeID]uint64), heard: make(map[ring.NodeID]bool), busy: make(map[ring.NodeID]bool),
		asked: make(map[ring.NodeID]time.Time), refused: make(map[string]bool), awaySince: make(map[ring.NodeID]time.Time),
	}
	var err error
	if d.metrics, err = newMetrics(cfg.Registerer, cfg.State, d.Transfer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return d, nil
}

// Wake makes the driver look around soon. It never blocks.
func (d *Driver) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run drives until ctx ends, and returns when all it started has ended.
func (d *Driver) Run(ctx context.Context) {
	defer d.calls.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.started = time.Now()
	d.heardMajority = d.started
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := d.cfg.State.Changed()
		timer.Reset(d.turn(ctx, time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-changed:
		case <-d.cfg.Members.Changed():
		case <-timer.C:
		case f := <-d.results:
			f(ctx)
		}
	}
}

// turn does all that can be done now, and says when to look again at the latest.
func (d *Driver) turn(ctx context.Context, now time.Time) time.Duration {
	next := tick
	soon := func(t time.Duration) { next = min(next, max(t, time.Millisecond)) }
	d.look()
	if d.cfg.State.Known() == nil {
		d.found(ctx, now)
	}
	if k := d.cfg.State.Known(); k != nil && !k.IsMember(d.cfg.Self.ID) && !d.hasLeft(k) && !d.cfg.Standby {
		d.join(ctx, now, k.Cluster)
	}
	if d.joining || d.cfg.State.Known() == nil || now.Before(d.joinAt) {
		soon(joinRetry)
	}
	if !d.refill(ctx) {
		soon(stepRetry)
	}
	if !d.steps(ctx) {
		soon(stepRetry)
	}
	if d.sync == nil && d.refilling == nil {
		d.throttle.Idle(now)
	}
	d.watchAway(ctx, now)
	soon(d.propose(ctx, now))
	if err := d.cfg.State.Persist(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn().Err(err).Msg("view not stored, trying again")
		soon(stepRetry)
	}
	soon(d.announce(now))
	soon(d.meet(ctx, now))
	d.watchSpread(now)
	d.watchStuck(now)
	d.cfg.Publish(d.members)
	return next
}

// look takes in the members of this cluster, and complains about those of others.
func (d *Driver) look() {
	all := d.cfg.Members.Members()
	own := d.cfg.State.Cluster()
	d.members = all
	foreign := 0
	for _, m := range all {
		if m.Name == d.cfg.Self.Name {
			continue
		}
		if m.ID == d.cfg.Self.ID && m.Status == membership.Alive {
			d.complain("same-id/"+m.Name, func(e *zerolog.Event) {
				e.Str("peer", m.Name).Msg("another node runs with this node's identity: was a data directory copied?")
			})
		}
		if !m.Cluster.IsZero() && m.Status == membership.Alive && d.isForeign(own, m.Cluster) {
			foreign++
			d.Foreign(m.Name, m.Cluster)
		}
	}
	d.metrics.foreign.Set(float64(foreign))
}

// isForeign says whether a cluster is neither the node's own nor, while it has none, one with the same label.
func (d *Driver) isForeign(own, other ring.ClusterID) bool {
	if own.IsZero() {
		return !LabelMatches(other, d.cfg.Label)
	}
	return own != other
}

// Foreign refuses a peer of another cluster loudly, once. Safe for concurrent use.
func (d *Driver) Foreign(peer string, cluster ring.ClusterID) {
	own := d.cfg.State.Cluster()
	d.complain("foreign/"+peer+cluster.String(), func(e *zerolog.Event) {
		e.Str("peer", peer).Stringer("their_cluster", cluster).Stringer("our_cluster", own).
			Bool("same_label", LabelMatches(cluster, d.cfg.Label)).Msg("peer of another cluster refused: check its --join and --cluster")
	})
}

// complaintsMax bounds what is remembered of complaints made.
const complaintsMax = 4096

func (d *Driver) complain(what string, log func(*zerolog.Event)) {
	d.mu.Lock()
	known := d.refused[what]
	if !known {
		if len(d.refused) >= complaintsMax {
			clear(d.refused)
		}
		d.refused[what] = true
	}
	d.mu.Unlock()
	if !known {
		d.metrics.refused.Inc()
		log(d.log.Error())
	}
}

// alive lists the other living members of this cluster (of the given one), with an address.
func (d *Driver) alive(cluster ring.ClusterID) []membership.Member {
	var out []membership.Member
	for _, m := range d.members {
		if m.ID != d.cfg.Self.ID && m.Status == membership.Alive && m.Cluster == cluster && !cluster.IsZero() && m.GRPCAddr != "" {
			out = append(out, m)
		}
	}
	return out
}

func peerOf(m membership.Member) Peer { return Peer{ID: m.ID, Name: m.Name, Addr: m.GRPCAddr} }

// found decides what a node without a view does.
func (d *Driver) found(ctx context.Context, now time.Time) {
	all, tried := d.cfg.Reached()
	if !tried {
		return
	}
	if d.firstTry.IsZero() {
		d.firstTry = now
	}
	var peers []ring.Peer
	for _, m := range d.members {
		if m.ID == d.cfg.Self.ID || m.Status != membership.Alive {
			continue
		}
		if !m.Cluster.IsZero() && !LabelMatches(m.Cluster, d.cfg.Label) {
			// Founding beside a cluster of another label would only hide a mistake in one of the two configurations.
			return
		}
		peers = append(peers, ring.Peer{ID: m.ID, Cluster: m.Cluster})
	}
	decision := ring.DecideFounding(d.cfg.Self.ID, peers, all, now.Sub(d.started), d.cfg.JoinWait)
	switch decision.Kind {
	case ring.JoinCluster:
		d.join(ctx, now, decision.Cluster)
	case ring.FoundCluster:
		if d.cfg.Standby {
			return
		}
		if d.cfg.Doubts.Doubts().Whole {
			d.complain("doubt", func(e *zerolog.Event) {
				e.Msg("no cluster is founded: the engine dropped data, and the layout of a cluster may be among it")
			})
			return
		}
		id, err := ClusterID(d.cfg.Rand, d.cfg.Label)
		if err != nil {
			d.log.Error().Err(err).Msg("cluster not founded")
			return
		}
		me := d.cfg.Self
		me.Tokens = planner.Found(me)
		l := ring.Found(id, me, d.cfg.N, d.cfg.MinW)
		if err := d.cfg.State.Adopt(ctx, ring.NewView(l)); err != nil {
			d.log.Warn().Err(err).Msg("cluster not founded, trying again")
			return
		}
		d.log.Info().Stringer("cluster", id).Stringer("layout", l.ID()).Int("peers", len(peers)).Msg("cluster founded")
	}
}

// join asks some member to propose this node; as a standby it asks for the view alone.
func (d *Driver) join(ctx context.Context, now time.Time, cluster ring.ClusterID) {
	if d.joining || now.Before(d.joinAt) {
		return
	}
	var to []membership.Member
	for _, m := range d.alive(cluster) {
		if m.Newest != (membership.Mark{}) {
			to = append(to, m)
		}
	}
	if len(to) == 0 {
		return
	}
	// Most often the same one, so that joiners meet at one member and go into one proposal.
	peer := peerOf(to[0])
	if rand.IntN(4) == 0 {
		peer = peerOf(to[rand.IntN(len(to))])
	}
	d.joining = true
	d.call(ctx, func(ctx context.Context) func(context.Context) {
		ask := func() ([]byte, error) { return d.cfg.Peers.Join(ctx, peer, cluster, d.cfg.Self) }
		if d.cfg.Standby {
			ask = func() ([]byte, error) {
				a, err := d.cfg.Peers.ExchangeView(ctx, peer, nil)
				return a.View, err
			}
		}
		b, err := ask()
		return func(ctx context.Context) {
			d.joining = false
			d.joinAt = time.Now().Add(joinRetry)
			if err != nil {
				d.log.Warn().Err(err).Str("peer", peer.Name).Msg("join not answered, trying again")
				return
			}
			d.adopt(ctx, peer, b)
		}
	})
}

// adopt takes in the view that a member of the cluster answered.
func (d *Driver) adopt(ctx context.Context, peer Peer, b []byte) {
	if len(b) == 0 {
		return
	}
	v, err := ring.DecodeView(b)
	if err != nil {
		d.log.Error().Err(err).Str("peer", peer.Name).Msg("view of a peer cannot be read")
		return
	}
	if d.cfg.State.Known() != nil {
		d.merge(peer, v)
		return
	}
	if !LabelMatches(v.Cluster(), d.cfg.Label) {
		d.Foreign(peer.Name, v.Cluster())
		return
	}
	if err := d.cfg.State.Adopt(ctx, v); err != nil {
		d.log.Warn().Err(err).Msg("view not stored, trying again")
		return
	}
	d.heard[peer.ID] = true
	d.log.Info().Stringer("cluster", v.Cluster()).Stringer("layout", v.Newest().ID()).Str("peer", peer.Name).Msg("cluster found")
}

func (d *Driver) merge(peer Peer, v *ring.View) {
	_, err := d.cfg.State.MergeFrom(peer.ID, v)
	switch {
	case errors.Is(err, ring.ErrForeignCluster):
		d.Foreign(peer.Name, v.Cluster())
	case err != nil:
		d.log.Error().Err(err).Str("peer", peer.Name).Msg("view of a peer not merged")
	}
}

// call runs f on a goroutine of its own and what f returns on Run's.
func (d *Driver) call(ctx context.Context, f func(context.Context) func(context.Context)) {
	d.calls.Go(func() {
		cctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		result := f(cctx)
		select {
		case d.results <- result:
		case <-ctx.Done():
		}
	})
}

// steps takes all steps that the view asks of this node; false means that one failed and is to be tried again.
func (d *Driver) steps(ctx context.Context) bool {
	for ctx.Err() == nil {
		v := d.cfg.State.View()
		if v == nil {
			return true
		}
		step := ring.NextStep(v, d.cfg.Self.ID, d.cfg.State.Fence())
		if step.Kind == ring.StepSync {
			step.Pulls = coalesce(step.Pulls)
		}
		if d.sync != nil && (step.Kind != ring.StepSync || !d.sync.isFor(step.Layout.ID(), step.Pulls)) {
			d.endSync()
		}
		var err error
		switch step.Kind {
		case ring.StepNone:
			return true
		case ring.StepAck:
			if err = d.cfg.State.Persist(ctx); err == nil {
				err = d.cfg.State.Acknowledge(ctx, step.Layout.ID())
			}
		case ring.StepOvertake:
			promised := d.cfg.State.Fence().Acked
			if err = d.cfg.State.Update(ctx, func(v *ring.View) error { return v.Overtake(promised) }); err == nil {
				d.log.Warn().Stringer("promised", promised).Msg("no layout will meet what was promised: overtaking it")
			}
		case ring.StepConfirm:
			err = d.cfg.State.Confirm(ctx, step.Dead)
		case ring.StepSwitch:
			err = d.cfg.State.Switch(ctx, step.Layout.ID())
		case ring.StepSync:
			if d.cfg.Doubts.Doubts().Any() {
				return true // it counts itself as one that was pulled from, which it must not while it may lack records
			}
			if d.waitsForLoss(step) {
				return true
			}
			if d.sync == nil {
				d.sync = d.startSync(ctx, step.Layout.ID(), step.Pulls)
			}
			if !d.sync.ended {
				return true
			}
			err = d.cfg.State.Synced(ctx, step.Layout.ID())
		}
		if err != nil {
			if ctx.Err() == nil {
				d.log.Warn().Err(err).Stringer("step", step.Kind).Stringer("layout", step.Layout.ID()).Msg("layout step failed, trying again")
			}
			return false
		}
		d.log.Info().Stringer("step", step.Kind).Stringer("layout", step.Layout.ID()).Msg("layout step taken")
		d.metrics.steps.WithLabelValues(step.Kind.String()).Inc()
	}
	return true
}

// waitsForLoss tells that too few sources are left for some ranges, and says so once.
func (d *Driver) waitsForLoss(step ring.Step) bool {
	short := 0
	for _, p := range step.Pulls {
		if len(p.Sources) < p.Need {
			short++
		}
	}
	d.metrics.short.Set(float64(short))
	if short > 0 {
		d.complain("short/"+step.Layout.ID().String(), func(e *zerolog.Event) {
			e.Stringer("layout", step.Layout.ID()).Int("ranges", short).
				Msg("too few sources are left to be sure of every acknowledged write: the change waits until a removal accepts the loss")
		})
	}
	return short > 0
}

// RequestJoin notes that a node wants to be a member. It is proposed with others once the layout is settled. Safe for
// concurrent use.
func (d *Driver) RequestJoin(m ring.Member, now time.Time) error {
	if m.Weight == 0 {
		m.Weight = 1
	}
	check := m
	check.Tokens = []ring.Slot{0}
	if err := check.Validate(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	j, known := d.joiners[m.ID]
	if !known && len(d.joiners) >= joinersMax {
		return ErrBusy
	}
	if !known {
		j.first = now
	}
	j.member, j.last = m, now
	d.joiners[m.ID] = j
	if !known {
		d.Wake()
	}
	return nil
}

// ErrBusy refuses a joiner while too many wait.
var ErrBusy = errors.New("too many nodes are joining")

// propose puts the joiners that wait into one proposal, and says when to look again.
func (d *Driver) propose(ctx context.Context, now time.Time) time.Duration {
	k := d.cfg.State.Known()
	d.mu.Lock()
	var changes []ring.Change
	oldest := now
	for id, j := range d.joiners {
		if now.Sub(j.last) > joinForget || k != nil && (k.IsMember(id) || k.IsDead(id)) {
			delete(d.joiners, id)
			continue
		}
		oldest = earlier(oldest, j.first)
		changes = append(changes, ring.Change{Kind: ring.ChangeJoin, Member: j.member})
	}
	d.mu.Unlock()
	if k != nil && !k.IsDead(d.cfg.Self.ID) && len(k.Removals) > 0 {
		changes, oldest = append(changes, k.Removals...), time.Time{}
	}
	if len(changes) == 0 || k == nil || !k.IsSettled() {
		return tick
	}
	if _, in := k.Settled.Member(d.cfg.Self.ID); !in {
		return tick
	}
	if wait := joinGather - now.Sub(oldest); wait > 0 {
		return wait
	}
	l, err := d.cfg.State.Propose(ctx, changes)
	switch {
	case errors.Is(err, ring.ErrUnsettled), errors.Is(err, ring.ErrNoChange):
		return tick
	case err != nil:
		d.log.Error().Err(err).Int("changes", len(changes)).Msg("layout not proposed")
		return tick
	}
	d.proposed = stuck{layout: l.ID(), since: now}
	d.log.Info().Stringer("layout", l.ID()).Int("changes", len(changes)).Int("members", len(l.Members())).Msg("layout proposed")
	return 0
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
