package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// Growth is what clients saw while nodes joined and left.
type Growth struct {
	// Changing are the requests sent while a change of the layout was under way, Idle those while all nodes were members and
	// nothing moved.
	Changing, Idle *Counts
	// Changes is how long each change took, joins first.
	Changes []time.Duration
	Ballast int // values that were moved about, and read at the end
}

const (
	changeTime = 10 * time.Minute // the longest that one change may take
	// ballastSize is that of the values that give changes something to move.
	ballastSize    = 16 << 10
	ballastWriters = 8
)

// growFrom lets the nodes from number first on join, one after the other, leaves all of them alone for a while, and lets
// them leave again. Each that left is to hand over all that it holds.
func (w *world) growFrom(ctx context.Context, first int) (g Growth, err error) {
	g.Changing, g.Idle = newCounts(), newCounts()
	rest := w.cfg.Length / time.Duration(2*(w.cfg.Nodes-first)+4)
	if err := pause(ctx, rest); err != nil {
		return g, err
	}
	change := func(what string, node *localcluster.Process, members int, begin func() error) error {
		w.past(what+" "+node.Name, nil)
		began := time.Now()
		if err := begin(); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, changeTime)
		defer cancel()
		if err := w.cluster.WaitReady(limited, members); err != nil {
			return fmt.Errorf("%s %s: %w", what, node.Name, err)
		}
		took := time.Since(began)
		g.Changes = append(g.Changes, took)
		w.past(fmt.Sprintf("%d members after %.1f s", members, took.Seconds()), g.Changing)
		return pause(ctx, rest)
	}
	for i, n := range w.cluster.Nodes[first:] {
		if err := change("joins:", n, first+i+1, n.Start); err != nil {
			return g, err
		}
	}
	w.past("nothing moves", nil)
	if err := pause(ctx, 3*rest); err != nil {
		return g, err
	}
	w.past("nothing moved", g.Idle)
	for i := w.cfg.Nodes - 1; i >= first; i-- {
		n := w.cluster.Nodes[i]
		if err := change("leaves:", n, i, func() error { return w.cluster.Decommission(ctx, w.cluster.Gateways[0], n.Name) }); err != nil {
			return g, err
		}
		limited, cancel := context.WithTimeout(ctx, changeTime)
		err := w.cluster.Poll(limited, func() error {
			left, err := w.cluster.Metric(limited, n, "dotring_kv_keys ")
			if err == nil && left > 0 {
				err = fmt.Errorf("%.0f keys are left", left)
			}
			return err
		})
		cancel()
		if err != nil {
			return g, fmt.Errorf("%s does not hand over what it holds: %w", n.Name, err)
		}
		w.past(n.Name+" holds nothing any more", nil)
	}
	return g, nil
}

// past marks what happens now, and adds the requests since the last mark to into, where that is not nil.
func (w *world) past(what string, into *Counts) {
	w.tally.mark("%s", what)
	w.rec.note("change", what)
	if into == nil {
		return
	}
	w.tally.mu.Lock()
	defer w.tally.mu.Unlock()
	into.add(w.tally.stretches[len(w.tally.stretches)-1].Counts)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// ballast is the value of one key among those that give changes something to move: random bytes, which do not compress.
func (w *world) ballast(i int) (key string, value []byte) {
	value = make([]byte, ballastSize)
	rnd := rand.NewPCG(w.cfg.Seed, uint64(i))
	for at := 0; at < len(value); at += 8 {
		n := rnd.Uint64()
		for b := range 8 {
			value[at+b] = byte(n >> (8 * b))
		}
	}
	return fmt.Sprintf("ballast-%d", i), value
}

// eachBallast does something for every key of the ballast, and ends with the first that fails.
func (w *world) eachBallast(ctx context.Context, do func(ctx context.Context, key string, value []byte) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range ballastWriters {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < w.cfg.Ballast && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				key, value := w.ballast(i)
				if err := do(ctx, key, value); err != nil {
					fail(fmt.Errorf("%s: %w", key, err))
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// ask sends a request for a key of the ballast, and returns the body of a 200.
func (w *world) ask(ctx context.Context, method, key, query string, body []byte) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, w.cluster.URL(w.cluster.Gateways[0])+"/v1/kv/"+key+"?timeout=30s"+query, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	resp, err := w.cluster.Client().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	got, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, got)
	}
	return got, err
}

func (w *world) load(ctx context.Context) error {
	return w.eachBallast(ctx, func(ctx context.Context, key string, value []byte) error {
		_, err := w.ask(ctx, http.MethodPut, key, "&w=all", value)
		return err
	})
}

// unload reads the ballast from all its owners.
func (w *world) unload(ctx context.Context) error {
	return w.eachBallast(ctx, func(ctx context.Context, key string, value []byte) error {
		got, err := w.ask(ctx, http.MethodGet, key, "&r=all", nil)
		if err == nil && !bytes.Equal(got, value) {
			err = fmt.Errorf("%d bytes that are not those that were written", len(got))
		}
		return err
	})
}
