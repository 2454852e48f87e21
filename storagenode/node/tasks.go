package node

import (
	"bytes"
	"context"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/ring"
)

// hintsCounted bounds how many hints are counted one by one, which only those of keys with some prefix are.
const hintsCounted = 1000

// GetTasks tells what the node has to do besides serving, and begins comparisons where asked to.
func (s *service) GetTasks(ctx context.Context, req *storagev1.GetTasksRequest) (*storagev1.GetTasksResponse, error) {
	n := s.node
	resp := &storagev1.GetTasksResponse{Life: n.life[:], NowNs: n.sinceStart(time.Now()), Refilling: n.store.Doubts().Any()}
	if req.GetCompare() {
		n.repair.CompareAnew()
	}
	for _, t := range n.store.HintTargets() {
		count := uint64(t.Count)
		if prefix := req.GetKeyPrefix(); len(prefix) > 0 {
			var err error
			if count, err = n.countHints(ctx, t.ID, prefix); err != nil {
				return nil, err
			}
		}
		if count > 0 {
			resp.Hints = append(resp.Hints, &storagev1.HintTask{Target: t.ID[:], Hints: count, SinceNs: n.sinceStart(t.Since)})
		}
	}
	layout, compares := n.repair.Tasks()
	resp.Layout = layoutName(layout)
	for _, c := range compares {
		task := &storagev1.CompareTask{Peer: c.Peer[:], Running: c.Running, Done: uint32(c.Done), Ranges: uint32(c.Ranges)}
		if !c.Whole.IsZero() {
			task.WholeNs = n.sinceStart(c.Whole)
		}
		resp.Compares = append(resp.Compares, task)
	}
	if t, ok := n.driver.Transfer(); ok {
		resp.Transfer = &storagev1.TransferTask{Layout: layoutName(t.Layout), SlotsDone: t.SlotsDone, SlotsTotal: t.SlotsTotal,
			BytesDone: t.BytesDone, BytesTotal: t.BytesTotal, SecondsLeft: t.Left.Seconds(), StalledSeconds: t.Stalled.Seconds()}
	}
	if t, ok := n.left.Task(); ok {
		resp.Leftovers = &storagev1.LeftoverTask{Removed: t.Removed, SlotsDone: t.SlotsDone, SlotsTotal: t.SlotsTotal, Waits: t.Waits}
	}
	return resp, nil
}

// countHints counts the hints for target of keys with a prefix, up to hintsCounted.
func (n *Node) countHints(ctx context.Context, target ring.NodeID, prefix []byte) (count uint64, err error) {
	err = n.store.ScanHints(target, nil, func(key, _ []byte) (bool, error) {
		if bytes.HasPrefix(key, prefix) {
			count++
		}
		return count < hintsCounted, ctx.Err()
	})
	return count, err
}

// sinceStart is a time on the clock of this life: nanoseconds since it began, 1 at least.
func (n *Node) sinceStart(t time.Time) uint64 { return uint64(max(t.Sub(n.started).Nanoseconds(), 1)) }
