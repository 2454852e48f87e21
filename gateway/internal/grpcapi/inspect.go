package grpcapi

import (
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

// previewBytes is how much of a value the inspection of a key shows.
const previewBytes = 256

// inspected returns what one replica holds of key, as a message.
func inspected(key []byte, r *coordinator.Inspected) *clusterv1.Replica {
	out := &clusterv1.Replica{Node: r.Node.String(), Name: r.Name, Role: string(r.Role)}
	switch {
	case r.Err != "":
		out.State, out.Error = "failed", r.Err
		return out
	case r.Absent:
		out.State = "absent"
		return out
	}
	out.Marked, out.Why = r.Marked, r.Why
	out.State, out.RecordBytes, out.Clock = "record", uint32(r.Bytes), clockEntries(r.Set.Clock)
	for i := range r.Set.Siblings {
		s := &r.Set.Siblings[i]
		out.Siblings = append(out.Siblings, &clusterv1.ReplicaSibling{Actor: s.Dot.Actor.String(), Counter: s.Dot.Counter,
			Tombstone: s.Tombstone, ContentType: s.ContentType, Etag: edge.Tag(s), ValueBytes: uint32(len(s.Value)),
			LastModified: timestamppb.New(edge.Time(s.Time)), Preview: s.Value[:min(len(s.Value), previewBytes)]})
	}
	// Encoding is canonical, so that this is the digest of the bytes that the replica holds.
	digest, err := record.DigestOf(record.Append(nil, key, r.Set))
	if err != nil {
		out.Error = fmt.Sprintf("digest: %v", err)
		return out
	}
	out.Digest = fmt.Sprintf("%x", digest[:])
	return out
}

func clockEntries(v causal.Vector) []*clusterv1.ClockEntry {
	var out []*clusterv1.ClockEntry
	for _, e := range v {
		out = append(out, &clusterv1.ClockEntry{Actor: e.Actor.String(), Counter: e.Counter})
	}
	return out
}
