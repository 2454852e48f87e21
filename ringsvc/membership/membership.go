// Package membership is the cluster's view of its storage nodes: who is there and what each says of itself, gossiped by
// serf.
//
// Gossip is evidence, not truth: a member said to have failed keeps its place in the layout, and a request that
// succeeds overrules it. What a member says of itself must fit into 512 bytes, so layouts travel elsewhere and only
// their names are here.
package membership

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// defaultInterval is how often one random member is probed.
	defaultInterval = time.Second
	// gossipInterval is how often changes are passed on to three random members.
	gossipInterval = 200 * time.Millisecond
	// retransmitMult is how often each member passes a change on, times the digits of their number. With the library's 4 one change in a
	// hundred missed one of five members, who then heard of it by an exchange of states alone.
	retransmitMult = 6
	// pushPullInterval is how often the whole state is exchanged with one random member.
	pushPullInterval = 15 * time.Second
	// reclaimTime is how long after its death a name may come back on another address.
	reclaimTime = 15 * time.Second
	// reconnectTimeout is how long a failed member is remembered and tried again. It bounds the memory held for names
	// that never come back.
	reconnectTimeout = 30 * 24 * time.Hour
	// broadcastTimeout is how long a departure or a change of tags waits to be passed on.
	broadcastTimeout = 3 * time.Second
	// reconcileInterval is how often Changed fires without any event, should one have been lost.
	reconcileInterval = 3 * time.Second
	// eventQueue must hold any storm of events: serf waits for room with its member lock held.
	eventQueue = 4096
	// intentQueue is the least length of the queue of joins and departures to pass on, at which old ones are dropped.
	intentQueue = 4096
)

// ErrClosed is returned once the cluster has been left or closed, or serf has shut itself down.
var ErrClosed = errors.New("membership: left or closed")

// Status is what gossip says about a member.
type Status uint8

// The states of a member. Failed and Left members stay known; a failed one is tried again for 30 days, one that left is
// forgotten after a day.
const (
	Alive   Status = iota + 1
	Failed         // answers no probes
	Left           // has said goodbye
	Leaving        // is saying goodbye
)

// String returns the name in lower case.
func (s Status) String() string {
	switch s {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	case Leaving:
		return "leaving"
	default:
		return "unknown"
	}
}

// Mark names a layout in few bytes: its epoch and the first bytes of its hash. The zero Mark names none.
type Mark struct {
	Epoch uint64
	Hash  [8]byte
}

// MarkOf shortens the name of a layout.
func MarkOf(id ring.LayoutID) Mark {
	m := Mark{Epoch: id.Epoch}
	copy(m.Hash[:], id.Hash[:])
	return m
}

// Member is one storage node as gossip knows it. Addresses are host:port.
type Member struct {
	ID         ring.NodeID    // identity of the data directory
	Name       string         // unique in the cluster; set by Config.Name
	Cluster    ring.ClusterID // zero while the node belongs to none
	Actor      causal.Actor   // identity of this life of the process
	GRPCAddr   string         // where its RPC service is reached
	GossipAddr string         // where its gossip is reached; known to serf, not to be set
	AdminAddr  string         // where its administrative HTTP service is reached
	Zone       string         // may be empty
	Weight     float64        // share of the data relative to others, finite, at least 0
	Status     Status         // as seen from here; not to be set

	Newest Mark // newest layout the node has seen
	Acked  Mark // newest layout it has acknowledged
	Synced Mark // newest layout it has synced
}

// Config says how to take part in gossip.
type Config struct {
	Name          string               // unique in the cluster: 1 to 128 letters, digits, '-' and '.'
	BindAddr      string               // host:port to listen on (TCP and UDP); port 0 takes a free one; unused with a Transport
	AdvertiseAddr string               // host:port that others reach it at, which needs a fixed port in BindAddr; BindAddr when empty
	Interval      time.Duration        // time between probes; 1 s when zero
	KeyFile       string               // JSON array of base64 keys of 16, 24 or 32 bytes, the first one encrypts; read again when it changes; no encryption when empty
	Local         Member               // what the node says of itself at first
	Logger        zerolog.Logger       // says which node this is by itself
	Transport     memberlist.Transport // replaces the network in tests; nil otherwise
}

// Cluster takes part in gossip under one name. All methods are safe for concurrent use.
type Cluster struct {
	name    string
	log     zerolog.Logger
	serf    *serf.Serf
	changed chan struct{} // capacity 1: a wake-up is pending
	dirty   chan struct{} // capacity 1: local tags wait for publication
	joining chan struct{} // capacity 1: held by the one Join that dials
	owned   sync.WaitGroup

	mu      sync.Mutex
	local   Member
	tags    map[string]string   // of local; replaced, never modified
	leaving bool                // no more tags are published
	left    chan struct{}       // closed when the one departure has ended; nil before
	leftErr error               // of that departure, valid once left is closed
	bad     map[string]struct{} // members whose tags could not be read at the last look
	read    map[string]tagged   // what the tags of others say, by name, as read at the last look
}

// tagged is what a member says of itself, and the map that said so: serf makes a new one for each change and modifies none.
type tagged struct {
	tags map[string]string
	says Member
}

// New starts to listen and to gossip, as a cluster of one until Join. It fails on an unusable name, address, key file
// or transport, and with ErrTagsTooLarge if Local does not fit.
func New(cfg Config) (*Cluster, error) {
	if err := checkName(cfg.Name); err != nil {
		return nil, err
	}
	tags, err := encodeTags(cfg.Local)
	if err != nil {
		return nil, err
	}
	logger := cfg.Logger
	events := make(chan serf.Event, eventQueue)
	conf, err := serfConfig(cfg, logger)
	if err != nil {
		return nil, err
	}
	conf.Tags = tags
	conf.EventCh = events
	s, err := serf.Create(conf)
	if err != nil {
		return nil, fmt.Errorf("membership: start gossip: %w", err)
	}
	c := &Cluster{
		name: cfg.Name, log: logger, serf: s,
		changed: make(chan struct{}, 1), dirty: make(chan struct{}, 1), joining: make(chan struct{}, 1),
		local: cfg.Local, tags: tags,
	}
	c.owned.Go(func() { c.drain(events) })
	c.owned.Go(c.publish)
	if cfg.KeyFile != "" {
		c.owned.Go(func() { c.watchKeys(cfg.KeyFile, conf.MemberlistConfig.Keyring) })
	}
	return c, nil
}

// checkName refuses what serf or an address book could not hold.
func checkName(name string) error {
	if name == "" || len(name) > 128 {
		return fmt.Errorf("membership: node name %q has %d characters, must have 1 to 128", name, len(name))
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
		default:
			return fmt.Errorf("membership: node name %q contains %q, only letters, digits, '-' and '.' may be used", name, r)
		}
	}
	return nil
}

// serfConfig builds the configuration of one serf instance; serf changes it and it cannot be used twice.
func serfConfig(cfg Config, logger zerolog.Logger) (*serf.Config, error) {
	// The LAN profile, since the one for a single machine passes changes on too rarely to reach more than a few dozen.
	ml := memberlist.DefaultLANConfig()
	ml.ProbeInterval = cfg.Interval
	if ml.ProbeInterval <= 0 {
		ml.ProbeInterval = defaultInterval
	}
	ml.ProbeTimeout = min(ml.ProbeTimeout, ml.ProbeInterval/2)
	ml.GossipInterval = gossipInterval
	ml.RetransmitMult = retransmitMult
	ml.PushPullInterval = pushPullInterval
	ml.DeadNodeReclaimTime = reclaimTime
	text := log.New(&logWriter{log: logger}, "", 0)
	ml.Logger = text
	ml.LogOutput = nil
	if cfg.KeyFile != "" {
		keys, err := readKeys(cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		if ml.Keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			return nil, fmt.Errorf("membership: gossip key file %s: %w", cfg.KeyFile, err)
		}
	}
	if cfg.Transport != nil {
		ml.Transport = cfg.Transport
	} else if err := setAddresses(ml, cfg.BindAddr, cfg.AdvertiseAddr); err != nil {
		return nil, err
	}

	conf := serf.DefaultConfig()
	conf.Init()
	conf.NodeName = cfg.Name
	conf.ValidateNodeNames = true
	conf.MemberlistConfig = ml
	conf.Logger = text
	conf.LogOutput = nil
	conf.ReconnectTimeout = reconnectTimeout
	conf.BroadcastTimeout = broadcastTimeout
	conf.MinQueueDepth = intentQueue
	conf.DisableCoordinates = true // latency is measured on real requests
	return conf, nil
}

// setAddresses resolves what memberlist wants as plain IP addresses.
func setAddresses(ml *memberlist.Config, bind, advertise string) error {
	if bind == "" {
		return errors.New("membership: no address to listen on")
	}
	b, err := net.ResolveTCPAddr("tcp", bind)
	if err != nil {
		return fmt.Errorf("membership: address to listen on %q: %w", bind, err)
	}
	ml.BindAddr = "0.0.0.0"
	if b.IP != nil {
		ml.BindAddr = b.IP.String()
	}
	ml.BindPort = b.Port
	ml.AdvertisePort = b.Port
	if advertise == "" {
		return nil
	}
	a, err := net.ResolveTCPAddr("tcp", advertise)
	if err != nil {
		return fmt.Errorf("membership: advertised address %q: %w", advertise, err)
	}
	if a.IP == nil || a.IP.IsUnspecified() || a.Port == 0 {
		return fmt.Errorf("membership: advertised address %q must name a host and a port", advertise)
	}
	if b.Port == 0 { // memberlist would advertise the port it was given
		return fmt.Errorf("membership: to advertise %q the port to listen on must be fixed", advertise)
	}
	ml.AdvertiseAddr = a.IP.String()
	ml.AdvertisePort = a.Port
	return nil
}

// drain takes every event off serf's channel at once and leaves one wake-up. Events are never looked at: they can be
// lost, so Members is the truth.
func (c *Cluster) drain(events <-chan serf.Event) {
	tick := time.NewTicker(reconcileInterval)
	defer tick.Stop()
	for {
		select {
		case <-events:
		case <-tick.C:
		case <-c.serf.ShutdownCh():
			wake(c.changed)
			return
		}
		wake(c.changed)
	}
}

// publish hands changed tags to serf, one change at a time, because serf does not guard them.
func (c *Cluster) publish() {
	for {
		select {
		case <-c.dirty:
		case <-c.serf.ShutdownCh():
			return
		}
		c.mu.Lock()
		tags, leaving := c.tags, c.leaving
		c.mu.Unlock()
		if leaving {
			continue
		}
		if err := c.serf.SetTags(tags); err != nil {
			// The change is in the local state all the same and spreads with the next exchange of states.
			c.log.Warn().Err(err).Msg("change of own gossip tags not passed on in time")
		}
	}
}

// wake leaves a wake-up in a channel of capacity 1.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Changed delivers a wake-up after anything may have changed, many changes in one, and every few seconds besides.
// There is one channel for all callers: one goroutine should own it and look at Members each time.
func (c *Cluster) Changed() <-chan struct{} { return c.changed }

// Done is closed when gossip has ended: by Close, or because serf shut itself down, as it does when another node of the
// same name has the majority on its side. A process that did not call Close must exit then.
func (c *Cluster) Done() <-chan struct{} { return c.serf.ShutdownCh() }

// GossipAddr returns the host:port at which others reach this node's gossip.
func (c *Cluster) GossipAddr() string { return hostPort(c.serf.LocalMember()) }

// Members returns all known members, the local one included, sorted by id and name. The slice belongs to the caller.
// Members whose tags cannot be read are left out. Two names may carry one id, when a data directory was copied or
// renamed: that is for the caller to judge.
func (c *Cluster) Members() []Member {
	known := c.serf.Members()
	out := make([]Member, 0, len(known))
	bad, read := make(map[string]struct{}), make(map[string]tagged, len(known))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range known {
		m, err := c.member(k)
		if err != nil {
			bad[k.Name] = struct{}{}
			if _, told := c.bad[k.Name]; !told {
				c.log.Warn().Err(err).Str("peer", k.Name).Msg("member with unreadable gossip tags left out")
			}
			continue
		}
		out = append(out, m)
		if k.Name != c.name {
			read[k.Name] = tagged{k.Tags, m}
		}
	}
	c.bad, c.read = bad, read
	slices.SortFunc(out, compareMembers)
	return out
}

// member translates one member of serf's. The caller holds mu.
func (c *Cluster) member(k serf.Member) (Member, error) {
	m := c.local
	if k.Name != c.name { // of ourselves we know the tags that are not yet published
		if had, ok := c.read[k.Name]; ok && sameMap(had.tags, k.Tags) {
			m = had.says
		} else {
			var err error
			if m, err = decodeTags(k.Tags); err != nil {
				return Member{}, err
			}
		}
	}
	m.Name = k.Name
	m.GossipAddr = hostPort(k)
	switch k.Status {
	case serf.StatusAlive:
		m.Status = Alive
	case serf.StatusLeaving:
		m.Status = Leaving
	case serf.StatusLeft:
		m.Status = Left
	default:
		m.Status = Failed
	}
	return m, nil
}

// sameMap tells whether two are one and the same map.
func sameMap(a, b map[string]string) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// SetLocal changes what the node says of itself: change gets a copy of the present state, and its Name, GossipAddr and
// Status are ignored. It must not call methods of the Cluster. The new state shows in Members at once and reaches the
// others within a second or two; changes that follow quickly are published as one. It fails, and changes nothing, with
// ErrTagsTooLarge or ErrClosed.
func (c *Cluster) SetLocal(change func(*Member)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return ErrClosed
	}
	next := c.local
	change(&next)
	tags, err := encodeTags(next)
	if err != nil {
		return err
	}
	c.local, c.tags = next, tags
	wake(c.dirty)
	wake(c.changed)
	return nil
}

// Join tries to reach the nodes at addrs (host:port) one after another and exchanges all state with each. It returns
// how many answered, and an error that names those that did not. When ctx ends, it returns what was reached until then;
// the attempt that is under way ends within ten seconds by itself. Joining again is harmless, and should be done from
// time to time: parts of a cluster that never met find each other in no other way. Of several calls at once, one dials.
func (c *Cluster) Join(ctx context.Context, addrs []string) (reached int, err error) {
	select {
	case c.joining <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.serf.ShutdownCh():
		return 0, ErrClosed
	}
	type result struct {
		addr string
		err  error
	}
	results := make(chan result, len(addrs)) // room for all, so that the dialling never waits for a caller that left
	addrs = slices.Clone(addrs)
	c.mu.Lock()
	if c.leaving {
		c.mu.Unlock()
		<-c.joining
		return 0, ErrClosed
	}
	c.owned.Go(func() {
		defer func() { <-c.joining }()
		for _, addr := range addrs {
			if ctx.Err() != nil || c.serf.State() != serf.SerfAlive {
				break
			}
			_, err := c.serf.Join([]string{addr}, true)
			results <- result{addr, err}
		}
		close(results)
	})
	c.mu.Unlock()

	var failed []error
	answered := 0
	for {
		select {
		case r, more := <-results:
			if !more {
				if answered < len(addrs) { // cut short
					failed = append(failed, firstErr(ctx.Err(), ErrClosed))
				}
				return reached, errors.Join(failed...)
			}
			answered++
			if r.err != nil {
				failed = append(failed, fmt.Errorf("membership: join %s: %w", r.addr, r.err))
				continue
			}
			reached++
		case <-ctx.Done():
			return reached, errors.Join(append(failed, ctx.Err())...)
		}
	}
}

// firstErr returns the first error that is not nil.
func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Leave tells the others goodbye, so that they count the node as left and not as failed, and waits until that has
// spread or ctx ends; it takes one to seven seconds. Further calls wait for the same goodbye and give the same answer. A
// cluster that was left cannot be joined again: Close it and make a new one.
func (c *Cluster) Leave(ctx context.Context) error {
	c.mu.Lock()
	if c.left == nil {
		if c.leaving { // closed without leaving
			c.mu.Unlock()
			return ErrClosed
		}
		c.leaving = true
		c.left = make(chan struct{})
		c.owned.Go(c.goodbye)
	}
	left := c.left
	c.mu.Unlock()
	select {
	case <-left:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.leftErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// goodbye runs the one departure to its end.
func (c *Cluster) goodbye() {
	err := c.serfLeave()
	if err != nil {
		err = fmt.Errorf("membership: leave: %w", err)
	}
	c.mu.Lock()
	c.leftErr = err
	c.mu.Unlock()
	close(c.left)
	wake(c.changed)
}

// serfLeave is serf.Leave made safe against a shutdown at the same time, at which memberlist panics.
func (c *Cluster) serfLeave() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrClosed, p)
		}
	}()
	return c.serf.Leave()
}

// Close ends gossip at once and waits for what runs on its behalf: not noticeably, or up to ten seconds if a Join, Leave
// or change of tags was under way. Without Leave before, the others see the node fail. Further calls do nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	err := c.serf.Shutdown()
	c.owned.Wait()
	if err != nil {
		return fmt.Errorf("membership: close: %w", err)
	}
	return nil
}
