package nodeclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// watchFirst bounds how long a node may take to tell the state for the first time.
	watchFirst = 3 * time.Second
	// watchPause is the pause between two nodes, and watchRound the longest pause between two rounds over all of them.
	watchPause = 50 * time.Millisecond
	watchRound = 2 * time.Second
)

// watch follows the cluster's state through one node at a time, and goes to the next when that one fails.
func (c *Client) watch(ctx context.Context) {
	pause := watchPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		told := false
		for _, addr := range c.watchable() {
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			c.metrics.watches.Inc()
			heard, err := c.watchOne(ctx, addr)
			if ctx.Err() != nil {
				return
			}
			c.log.Info().Err(err).Str("addr", addr).Msg("watch of the cluster's state ended")
			told = told || heard
			timer.Reset(watchPause)
		}
		if told {
			pause = watchPause
		} else {
			pause = min(2*pause, watchRound)
		}
		timer.Reset(pause)
	}
}

// watchable lists where the state can be asked for: the members known, those alive first, then the configured nodes.
func (c *Client) watchable() []string {
	var all []string
	if s := c.state.Load(); s != nil {
		all = s.addresses()
	}
	// Each gateway begins elsewhere, so that not all watch the same node.
	if n := len(all); n > 0 {
		turn := int(c.cfg.ID[0]) % n
		all = append(slices.Clone(all[turn:]), all[:turn]...)
	}
	for _, t := range c.cfg.Targets {
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	return all
}

// watchOne follows the state through one node until that fails. heard says whether it told anything of use.
func (c *Client) watchOne(ctx context.Context, addr string) (heard bool, err error) {
	conn, err := c.dial(addr, nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // only fails where it is closed already
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := time.AfterFunc(watchFirst, func() { cancel(errSilent) })
	defer first.Stop()
	client := storagev1.NewStorageClient(conn)
	stream, err := client.Watch(ctx, &storagev1.WatchRequest{Peer: c.cfg.ID[:], Brief: true})
	if err != nil {
		return false, err
	}
	var told atomic.Uint64 // hash of what the node is known to know, 0 for nothing yet
	var spreading sync.WaitGroup
	defer spreading.Wait()
	defer cancel(nil)
	spreading.Go(func() { c.spread(ctx, client, &told) })
	var last *ring.View // what the node told last
	for {
		msg, err := stream.Recv()
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
				err = cause
			}
			return heard, err
		}
		v, err := follow(last, msg.GetView())
		if err == nil {
			err = c.learnView(v, msg.GetMembers())
		}
		if err != nil {
			if errors.Is(err, errNoView) && !heard {
				continue // it will tell once it has one, unless that takes too long
			}
			return heard, err
		}
		last = v
		told.Store(v.Hash())
		heard = true
		first.Stop()
	}
}

// follow reads a view that leaves out what last held, nil at first.
func follow(last *ring.View, b []byte) (*ring.View, error) {
	var v *ring.View
	var err error
	switch {
	case len(b) == 0:
		return nil, errNoView
	case last == nil:
		v, err = ring.DecodeView(b)
	case ring.IsBrief(b):
		v, err = ring.DecodeBrief(b, last)
	default:
		v, err = ring.DecodeViewFor(b, last.Settled())
	}
	if err != nil {
		return nil, fmt.Errorf("decode view: %w", err)
	}
	return v, nil
}

var errSilent = errors.New("the node did not tell the cluster's state in time")
