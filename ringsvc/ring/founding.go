package ring

import "time"

// Peer is a node that answered during founding, or that asked this one: whoever is asked learns of the asker too, and both count, so
// that of two nodes of which one decides by the other's answer, the other knows that it was counted on.
type Peer struct {
	ID      NodeID
	Cluster ClusterID // zero: belongs to none yet
}

// FoundingKind says what a node without a cluster does.
type FoundingKind uint8

const (
	// Wait: ask the peers again, then decide anew.
	Wait FoundingKind = iota
	// FoundCluster: draw a cluster id and make the first layout.
	FoundCluster
	// JoinCluster: fetch a view of Cluster and ask a member to propose a join.
	JoinCluster
)

// String is a short lower-case word.
func (k FoundingKind) String() string {
	switch k {
	case FoundCluster:
		return "found"
	case JoinCluster:
		return "join"
	}
	return "wait"
}

// FoundingDecision is what DecideFounding answers; Cluster is set for JoinCluster.
type FoundingDecision struct {
	Kind    FoundingKind
	Cluster ClusterID
}

// FoundingPatience is how many times joinWait a node waits for one with a lower id before it passes that one over.
const FoundingPatience = 3

// DecideFounding tells a node that belongs to no cluster what to do. peers are those it reached, or was reached by, in its last round of
// asking (not those of earlier rounds, which may be gone); reachedAll says that everyone it was told to join answered, and is true of an empty
// list; waited is how long it has been asking; joinWait is how long it looks for those it has not reached.
//
//   - A peer in a cluster is joined; of several clusters the one with the lowest id, which is the one that stays when clusters meet.
//   - Otherwise, once all were reached or joinWait has passed, the lowest id among self and peers founds, and the others wait for it.
//   - A node that waits like this knows that the lower id is alive, not that it will ever found: its disk may hang, or the two may hear each
//     other in one direction only. So each is given time in order of ids: the node with k lower ids in sight founds after
//     (1 + k*(FoundingPatience-1)) * joinWait. A founder started within that time is joined; one started at its very end may found
//     too, and then DecideMeeting leaves one cluster.
//
// A node that decided to join and finds nobody of that cluster any more simply asks again; nothing here is remembered between calls.
func DecideFounding(self NodeID, peers []Peer, reachedAll bool, waited, joinWait time.Duration) FoundingDecision {
	var cluster ClusterID
	lower := 0
	for i, p := range peers {
		switch {
		case !p.Cluster.IsZero():
			if cluster.IsZero() || p.Cluster.Compare(cluster) < 0 {
				cluster = p.Cluster
			}
		case p.ID.Compare(self) < 0 && !namedBefore(peers[:i], p.ID):
			lower++
		}
	}
	switch {
	case !cluster.IsZero():
		return FoundingDecision{Kind: JoinCluster, Cluster: cluster}
	case lower == 0 && (reachedAll || waited >= joinWait):
		return FoundingDecision{Kind: FoundCluster}
	case lower > 0 && waited >= time.Duration(1+lower*(FoundingPatience-1))*joinWait:
		return FoundingDecision{Kind: FoundCluster}
	}
	return FoundingDecision{Kind: Wait}
}

func namedBefore(peers []Peer, id NodeID) bool {
	for _, p := range peers {
		if p.ID == id {
			return true
		}
	}
	return false
}

// Meeting says what a node does when it meets a member of another cluster.
type Meeting uint8

const (
	// MeetingStay: keep this cluster; the other is to yield.
	MeetingStay Meeting = iota
	// MeetingYield: refuse writes durably, then give up this cluster and join the other as an empty node.
	MeetingYield
	// MeetingRefuse: both hold data; refuse each other and say so loudly, an operator must choose.
	MeetingRefuse
)

// DecideMeeting tells what becomes of one's own cluster on meeting another. acceptedWrites says of each whether any member ever accepted a
// write. An empty cluster yields to one with data, and of two empty ones the higher id yields; both sides never yield to each other: the higher
// one yields only while it is empty for good, having refused writes durably first, and the lower one only to data.
func DecideMeeting(own ClusterID, ownAcceptedWrites bool, other ClusterID, otherAcceptedWrites bool) Meeting {
	switch {
	case own == other:
		return MeetingStay
	case ownAcceptedWrites && otherAcceptedWrites:
		return MeetingRefuse
	case ownAcceptedWrites:
		return MeetingStay
	case otherAcceptedWrites || other.Compare(own) < 0:
		return MeetingYield
	}
	return MeetingStay
}
