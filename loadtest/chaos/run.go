package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/loadtest/localcluster"
)

// Config says what to break, and for how long.
type Config struct {
	Bin  string // folder of the programs
	Data string // folder of the run, empty or missing; it keeps data, logs and the history
	Out  io.Writer

	Nodes, Gateways int
	Seed            uint64
	Length          time.Duration // of the faults
	Mixed           bool          // faults overlap; otherwise one at a time
	Kinds           []Kind
	Clients         int
	Rate            int // requests per second, by all clients
	NodeArgs        []string
	GatewayArgs     []string
	// Plain does without namespaces, and so without the faults that need them, also where the machine permits them.
	Plain bool
	// Sets has clients add elements to shared sets, and counts those that are gone in the end, instead of judging a history.
	// LastWriteWins keeps the sets by the last write, which loses some.
	Sets, LastWriteWins bool
	// First, where not 0, is how many nodes begin; instead of faults the others join and leave again, while Ballast values of
	// 16 KiB move with them.
	First, Ballast int
	// Corrupt spoils one replica after the cluster was stopped, to show that it is noticed.
	Corrupt bool
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.Nodes < 3 || c.Nodes > 16 || c.Gateways < 1 || c.Gateways > 8 {
		faults = append(faults, fmt.Errorf("%d nodes and %d gateways: 3 to 16 and 1 to 8 can be run", c.Nodes, c.Gateways))
	}
	if c.First != 0 && (c.First < 3 || c.First >= c.Nodes) || c.Ballast < 0 {
		faults = append(faults, fmt.Errorf("%d of %d nodes begin, with %d values: 3 or more must, and others must be left to join", c.First, c.Nodes, c.Ballast))
	}
	if c.Clients < 1 || c.Rate < 1 || c.Rate/c.Clients > 1000 {
		faults = append(faults, fmt.Errorf("%d clients and %d requests a second: 1 of each or more, and 1000 requests per client at most", c.Clients, c.Rate))
	}
	if c.Length <= 0 || len(c.Kinds) == 0 {
		faults = append(faults, errors.New("no time, or no kind of fault"))
	}
	return errors.Join(faults...)
}

// Result is what a run came to.
type Result struct {
	Total         *Counts
	Writes, Acked int
	Faults        int
	Keys          int
	Added, Lost   int // elements of sets that were acknowledged, and those of them that are gone
	Stretches     []Stretch
	Growth        *Growth         // where nodes joined and left
	Steered       []time.Duration // after how long the first gateway passed over a node that was broken, where it did
	Violations    []history.Violation
	History       string // its file
	// Without says why there was no network to break; empty where there was.
	Without string
}

const (
	formTime  = 60 * time.Second
	stopTime  = 20 * time.Second
	healTime  = 90 * time.Second
	roundTime = time.Second // between two comparisons of the same two nodes
)

// world is a run under way.
type world struct {
	cfg     Config
	net     *network // nil without namespaces
	cluster *localcluster.Cluster
	rec     *recorder
	tally   *timeline
	nodeIDs []string
	steered []time.Duration
	sets    *sets // nil where the history is judged
}

// Run starts a cluster, breaks it while clients work, heals it, and judges what they were told. The error says what kept
// it from that; broken promises are in the result. What it leaves in cfg.Data is the caller's.
func Run(ctx context.Context, cfg Config) (res Result, err error) {
	if err := cfg.Validate(); err != nil {
		return res, err
	}
	if cfg.LastWriteWins {
		cfg.GatewayArgs = append(slices.Clone(cfg.GatewayArgs), "--conflict-policies", lwwPrefix+"=lww")
	}
	w := &world{cfg: cfg, tally: newTimeline(cfg.Out)}
	if cfg.Sets {
		w.sets = &sets{acked: make(map[string][]string)}
	}
	places, err := w.connect(&res)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, w.disconnect()) }()
	w.cluster, err = localcluster.New(localcluster.Config{Bin: cfg.Bin, Data: cfg.Data, Nodes: cfg.Nodes, Gateways: cfg.Gateways,
		FreePorts: true, Places: places, GatewayArgs: cfg.GatewayArgs,
		NodeArgs: append([]string{"--anti-entropy-interval", roundTime.String()}, cfg.NodeArgs...)})
	if err != nil {
		return res, err
	}
	defer func() {
		err = errors.Join(err, w.resumeAll(), w.cluster.Stop(stopTime), w.cluster.Release())
	}()
	if err := w.form(ctx); err != nil {
		return res, err
	}
	res.History = w.rec.file.Name()
	if err := w.work(ctx, &res); err != nil {
		return res, errors.Join(err, w.rec.close())
	}
	if cfg.Sets {
		err = w.judgeSets(ctx, &res)
	} else {
		err = w.judge(ctx, &res)
	}
	w.tally.mark("the end")
	res.Total, res.Stretches, res.Steered = w.tally.total, w.tally.stretches, w.steered
	return res, errors.Join(err, w.rec.close())
}

// connect makes the network, where it can, and says where processes run.
func (w *world) connect(res *Result) (places []localcluster.Place, err error) {
	if w.cfg.Plain {
		res.Without = "not asked for"
		return nil, nil
	}
	others := w.cfg.Nodes + w.cfg.Gateways
	if err := sweepNamespaces(); err != nil {
		return nil, err
	}
	w.net, err = newNetwork(others, w.cfg.Seed)
	if errors.Is(err, ErrNoNetwork) {
		res.Without = err.Error()
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range others {
		places = append(places, w.net.place(i+1))
	}
	return places, nil
}

func (w *world) disconnect() error {
	if w.net == nil {
		return nil
	}
	return w.net.close()
}

// form starts the cluster and waits until all of it is there.
func (w *world) form(ctx context.Context) error {
	first := w.cfg.Nodes
	if w.cfg.First > 0 {
		first = w.cfg.First
	}
	for _, p := range slices.Concat(w.cluster.Nodes[:first], w.cluster.Gateways) {
		if err := p.Start(); err != nil {
			return err
		}
	}
	if err := w.whole(ctx, formTime, first); err != nil {
		return err
	}
	status, err := w.cluster.Status(ctx, w.cluster.Gateways[0])
	if err != nil {
		return err
	}
	if w.cfg.First == 0 {
		if w.nodeIDs, err = w.cluster.NodeIDs(ctx, w.cluster.Gateways[0]); err != nil {
			return err
		}
	}
	w.rec, err = newRecorder(filepath.Join(w.cfg.Data, "history.jsonl"), filepath.Join(w.cfg.Data, "context.key"), status.Cluster)
	return err
}

// whole waits until every gateway sees so many nodes alive in a settled layout.
func (w *world) whole(ctx context.Context, limit time.Duration, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return w.cluster.WaitReady(ctx, nodes)
}

// work lets clients work while faults come and go, heals everything and waits until all is whole again.
func (w *world) work(ctx context.Context, res *Result) error {
	if err := w.load(ctx); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	clients, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	w.tally.mark("%d clients begin, %d requests a second", w.cfg.Clients, w.cfg.Rate)
	watching, enough := context.WithCancel(ctx)
	defer enough()
	var watcher sync.WaitGroup
	watcher.Go(func() { w.tally.watch(watching) })
	for _, c := range w.clients() {
		group.Go(func() { c.run(clients) })
	}
	err := w.trouble(ctx, res)
	stop()
	group.Wait()
	enough()
	watcher.Wait()
	w.tally.mark("the clients have ended")
	if err == nil {
		err = w.unload(ctx)
	}
	return err
}

// trouble breaks things, and heals them; or lets nodes come and go.
func (w *world) trouble(ctx context.Context, res *Result) error {
	if w.cfg.First > 0 {
		g, err := w.growFrom(ctx, w.cfg.First)
		g.Ballast = w.cfg.Ballast
		res.Growth = &g
		return err
	}
	faults := plan(planConfig{seed: w.cfg.Seed, length: w.cfg.Length, mixed: w.cfg.Mixed, kinds: w.possible(),
		nodes: w.cfg.Nodes, gateways: w.cfg.Gateways})
	res.Faults = len(faults)
	err := w.breakThings(ctx, faults)
	return errors.Join(err, w.heal(ctx))
}

// possible leaves out the kinds that need a network where there is none.
func (w *world) possible() []Kind {
	return slices.DeleteFunc(slices.Clone(w.cfg.Kinds), func(k Kind) bool {
		return k.info().network && w.net == nil || k == Gateway && w.cfg.Gateways < 2 && !w.cfg.Mixed
	})
}

func (w *world) clients() []*client {
	var gateways []string
	for _, g := range w.cluster.Gateways {
		gateways = append(gateways, g.HTTP)
	}
	keys := &keyspace{prefix: fmt.Sprintf("chaos%d", w.cfg.Seed)}
	if w.cfg.LastWriteWins {
		keys.prefix = lwwPrefix + keys.prefix
	}
	out := make([]*client, w.cfg.Clients)
	for i := range out {
		out[i] = &client{id: i, keys: keys, sets: w.sets, rec: w.rec, tally: w.tally, gateways: gateways, at: i % len(gateways),
			http:     &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}},
			rnd:      rand.New(rand.NewPCG(w.cfg.Seed, uint64(i)+1)),
			interval: time.Duration(w.cfg.Clients) * time.Second / time.Duration(w.cfg.Rate)}
	}
	return out
}

// breakThings begins and ends each fault when its time has come.
func (w *world) breakThings(ctx context.Context, faults []Fault) error {
	var steps []step
	for _, f := range faults {
		steps = append(steps, step{f.At, f, true}, step{f.At + f.For, f, false})
	}
	steps = append(steps, step{at: w.cfg.Length})
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, s := range steps {
		timer.Reset(time.Until(began.Add(s.at)))
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
				due = true
			}
		}
		if s.fault.Kind == "" {
			return nil
		}
		if err := w.take(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.fault, err)
		}
	}
	return nil
}

// step is the beginning or the end of a fault.
type step struct {
	at    time.Duration
	fault Fault
	begin bool
}

// take begins or ends a fault.
func (w *world) take(ctx context.Context, s step) error {
	f := s.fault
	if s.begin {
		w.tally.turn(f, true)
		w.rec.note("fault", "begins: "+f.String())
		if err := w.begin(f); err != nil {
			return err
		}
		if f.Kind != Gateway && f.Kind != Loss && f.Kind != Delay && f.Kind != Peers && !w.cfg.Mixed {
			w.watchPhi(ctx, f)
		}
		return nil
	}
	w.tally.turn(f, false)
	w.rec.note("fault", "ends: "+f.String())
	return w.end(f)
}

func (w *world) begin(f Fault) error {
	all := w.cfg.Nodes + w.cfg.Gateways + 1
	node := f.Target + 1 // its number among hosts
	both := func(r Rule, hosts int) {
		for h := range hosts {
			if h != node && (h > 0 || hosts == all) {
				w.net.set(node, h, r)
				w.net.set(h, node, r)
			}
		}
	}
	switch f.Kind {
	case Kill:
		return w.cluster.Nodes[f.Target].Kill()
	case Pause:
		return w.cluster.Nodes[f.Target].Signal(syscall.SIGSTOP)
	case Gateway:
		return w.cluster.Gateways[f.Target].Kill()
	case Wipe:
		p := w.cluster.Nodes[f.Target]
		if err := p.Kill(); err != nil {
			return err
		}
		w.rec.diskLost()
		if err := os.RemoveAll(filepath.Join(p.DataDir(), "data")); err != nil {
			return fmt.Errorf("wipe %s: %w", p.Name, err)
		}
	case Split:
		both(Rule{Cut: true}, all)
	case Peers:
		both(Rule{Cut: true}, w.cfg.Nodes+1)
	case OneWay:
		for h := range all {
			if h != node {
				w.net.set(node, h, Rule{Cut: true})
			}
		}
	case Loss:
		both(Rule{Loss: f.Share}, all)
	case Delay:
		both(Rule{Delay: f.Late, Jitter: f.Late}, all)
	}
	return nil
}

func (w *world) end(f Fault) error {
	switch f.Kind {
	case Kill, Wipe:
		return w.cluster.Nodes[f.Target].Start()
	case Pause:
		return w.cluster.Nodes[f.Target].Signal(syscall.SIGCONT)
	case Gateway:
		return w.cluster.Gateways[f.Target].Start()
	default: // the network's
		for h := range w.cfg.Nodes + w.cfg.Gateways + 1 {
			w.net.set(f.Target+1, h, Rule{})
			w.net.set(h, f.Target+1, Rule{})
		}
	}
	return nil
}

// watchPhi says when the first gateway steers around a node that has just been broken.
func (w *world) watchPhi(ctx context.Context, f Fault) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, f.For-100*time.Millisecond)
	defer cancel()
	err := w.cluster.Poll(ctx, func() error {
		phi, err := w.cluster.Phi(ctx, w.cluster.Gateways[0], w.nodeIDs[f.Target])
		if err == nil && phi < 8 {
			err = fmt.Errorf("phi of node%d is %.1f", f.Target+1, phi)
		}
		return err
	})
	if err != nil {
		w.tally.say("       node%d is not steered around by gateway1: %v", f.Target+1, err)
		return
	}
	w.steered = append(w.steered, time.Since(began))
	w.tally.say("       phi of node%d at gateway1 passed 8 after %.2f s", f.Target+1, time.Since(began).Seconds())
}

// resumeAll lets stopped processes go on, so that they can end.
func (w *world) resumeAll() error {
	var errs []error
	for _, p := range w.cluster.All() {
		errs = append(errs, p.Signal(syscall.SIGCONT))
	}
	return errors.Join(errs...)
}

// heal undoes every fault and waits until the cluster is whole.
func (w *world) heal(ctx context.Context) error {
	if w.net != nil {
		w.net.heal()
	}
	if err := errors.Join(w.resumeAll(), w.cluster.Start()); err != nil {
		return err
	}
	w.tally.mark("all faults end")
	if err := w.whole(ctx, healTime, w.cfg.Nodes); err != nil {
		return fmt.Errorf("the cluster does not become whole: %w", err)
	}
	w.tally.mark("the cluster is whole")
	return nil
}
