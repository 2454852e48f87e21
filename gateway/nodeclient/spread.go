package nodeclient

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// spreadEvery is how often a gateway looks whether the watched node knows all of the layouts that it knows itself. What
	// it has known for less is on its way among the nodes anyway.
	spreadEvery = time.Second
	// spreadRetry is how many looks are left out after a node was not told.
	spreadRetry = 10
)

// spread tells the watched node what it does not know of the layouts though this gateway has known it for a while. Whoever
// else knew it may have lost its disk: then writes from here would have to satisfy a layout that no node knows, for ever.
// Once nodes know it too, it is carried out, or superseded. told is the hash of the view that the node holds, 0 for not
// known yet.
func (c *Client) spread(ctx context.Context, client storagev1.StorageClient, told *atomic.Uint64) {
	ticker := time.NewTicker(spreadEvery)
	defer ticker.Stop()
	var last *State // at the look before this one
	var hash uint64 // of its view
	for pause := 0; ; pause-- {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		s := c.state.Load()
		if s == nil || told.Load() == 0 {
			continue
		}
		if s != last {
			known := hash
			if last, hash = s, s.View.Hash(); hash != known {
				continue
			}
		}
		if hash == told.Load() || pause > 0 {
			continue
		}
		if err := c.tell(ctx, client, s.View, told); err != nil && ctx.Err() == nil {
			pause = spreadRetry
			c.log.Warn().Err(err).Msg("the watched node could not be told of layouts that it does not know")
		}
	}
}

// tell exchanges views with a node.
func (c *Client) tell(ctx context.Context, client storagev1.StorageClient, view *ring.View, told *atomic.Uint64) error {
	ctx, cancel := context.WithTimeout(ctx, watchFirst)
	defer cancel()
	c.metrics.spreads.Inc()
	resp, err := client.ExchangeView(ctx, &storagev1.ExchangeViewRequest{View: view.Encode(), From: c.cfg.ID[:]})
	if err != nil {
		return fmt.Errorf("exchange views: %w", err)
	}
	theirs, err := ring.DecodeView(resp.GetView())
	if err != nil {
		return fmt.Errorf("decode view: %w", err)
	}
	told.Store(theirs.Hash())
	return c.learn(resp.GetView())
}
