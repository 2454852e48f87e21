package grpcapi

import (
	"context"
	"time"
	"unicode/utf8"

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
