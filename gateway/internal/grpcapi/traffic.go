package grpcapi

import (
	"context"
	"time"
	"unicode/utf8"

	"github.com/dotring/dotring/gateway/traffic"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// maxHotKeys is how many keys are named.
const maxHotKeys = 20

// ListHotKeys implements the service. It asks no node, and answers while no layout is known.
func (s *Cluster) ListHotKeys(context.Context, *clusterv1.ListHotKeysRequest) (*clusterv1.ListHotKeysResponse, error) {
	keys, total := s.about.Traffic.HotKeys(maxHotKeys, time.Now())
	out := &clusterv1.ListHotKeysResponse{Gateway: s.about.Name, RequestsPerSecond: total}
	for _, k := range keys {
		hot := &clusterv1.HotKey{ReadsPerSecond: k.Reads, WritesPerSecond: k.Writes, Share: k.Share}
		if utf8.Valid(k.Key) {
			hot.Key = string(k.Key)
		} else {
			hot.KeyBase64 = k.Key
		}
		out.Keys = append(out.Keys, hot)
	}
	return out, nil
}

// GetStats implements the service. It asks no node, and answers while no layout is known.
func (s *Cluster) GetStats(context.Context, *clusterv1.GetStatsRequest) (*clusterv1.GetStatsResponse, error) {
	ops, over := s.about.Traffic.Operations(time.Now())
	out := &clusterv1.GetStatsResponse{Gateway: s.about.Name, WindowSeconds: over.Seconds()}
	for op, o := range ops {
		out.Operations = append(out.Operations, &clusterv1.OperationStats{Operation: traffic.Op(op).String(), PerSecond: o.PerSecond,
			FailedPerSecond: o.FailedPerSecond, P50Seconds: o.P50.Seconds(), P99Seconds: o.P99.Seconds()})
	}
	return out, nil
}
