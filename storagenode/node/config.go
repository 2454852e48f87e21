package node

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/dotring/dotring/ringsvc/mtls"
	"github.com/dotring/dotring/ringsvc/ring"
	"github.com/dotring/dotring/ringsvc/tracing"
	"github.com/dotring/dotring/storagenode/collect"
	"github.com/dotring/dotring/storagenode/kv"
)

// The engines that a node can keep its data in.
const (
	EngineLevelDB = "leveldb"
	EnginePebble  = "pebble"
	EngineMemory  = "memory"
)

// Config is all that a storage node is told. Durations are positive unless said otherwise.
type Config struct {
	// Name is unique in the cluster: 1 to 128 letters, digits, '-' and '.'. It is only a name: who a node is, its data
	// directory says.
	Name string
	// Label names the cluster for people, 1 to 64 printable characters without spaces. Nodes with different labels
	// refuse each other, so that a wrong --join list does not mix two clusters.
	Label string
	// DataDir is created where it is missing, and locked.
	DataDir string

	// Addresses to listen on, host:port; port 0 takes a free one.
	GRPCAddr, GossipAddr, AdminAddr string
	// Addresses that others reach this node at; empty means the address listened on, which must then name a host.
	AdvertiseGRPC, AdvertiseGossip, AdvertiseAdmin string

	// Join lists gossip addresses of nodes to meet, in any order; its own may be among them. A node with no data and an
	// empty list founds a cluster at once.
	Join []string
	// JoinWait is how long a node with no data waits to reach all of Join before it may found a cluster. Default 5 s.
	JoinWait time.Duration

	// Zone names what fails together with this node (a rack, a data centre); may be empty, at most 64 bytes.
	Zone string
	// Weight is the node's share of the data relative to others, above 0, at most ring.MaxWeight. Default 1.
	Weight float64

	// Engine is EngineLevelDB (default), EnginePebble, or EngineMemory, which forgets everything when the process ends.
	// The data of one is not read by another.
	Engine string
	// Sync says when a write counts as durable. Default kv.SyncAlways.
	Sync kv.SyncMode
	// CommitGather is the least time between two syncs while many writes are on their way, up to 1 s, so that more writes
	// share each; 0 for none. Default 3 ms.
	CommitGather time.Duration
	// CompactionRate bounds the bytes per second that compaction writes; 0 (default) for no bound, else at least 1 MiB.
	CompactionRate int64

	// ScrubInterval is about how often all tables on the disk are read and verified, 1 s to 10 years. Default 7 days.
	// ScrubRate bounds what is read for that, in bytes a second; 0 for no scrub at all. Default 8 MiB.
	ScrubInterval time.Duration
	ScrubRate     int64

	// TransferRate bounds what this node pulls from others for layout changes, and what it hands over after them, in bytes a
	// second; 0 for no bound, else at least 64 KiB. A tenth of it is used while clients' requests queue up, and less
	// than all where pulls slow clients' writes down. Default 32 MiB.
	TransferRate int64

	// HintBytesMax and HintAgeMax bound the writes that this node takes in for others that are away: the bytes of all, and
	// how long it has kept some for one node. Beyond them it refuses more; it drops none. 0 for no bound. Default 4 GiB
	// and 24 h.
	HintBytesMax int64
	HintAgeMax   time.Duration

	// AntiEntropyInterval is about how often this node compares what it holds with each other owner of the same ranges,
	// 100 ms to 1 hour. Default 1 minute.
	AntiEntropyInterval time.Duration

	// TombstoneGrace is how long a deletion must have been the same at all its owners before it may leave them; records that
	// are on their way for half of it are refused. At least collect.MinGrace, the same at all nodes. Default 24 h.
	TombstoneGrace time.Duration

	// DeadAfter is how long a member may be away before the others remove it for good, if that is safe; 0 for never, else 1 s to 30 days.
	// Default 10 minutes. After half of it a node that heard from no majority of the members refuses reads.
	DeadAfter time.Duration

	// Standby keeps a node that is no member from asking to be one, and from founding a cluster: it waits until an operator gives it the place
	// of a member. A member that starts so stays one.
	Standby bool

	// GossipInterval is the time between probes of other members, 100 ms to 1 minute. Default 1 s.
	GossipInterval time.Duration
	// GossipKeyFile holds a JSON array of base64 keys, the first encrypts. Empty: gossip is in the clear.
	GossipKeyFile string
	// TLS names the node's certificate, its key and the cluster's authorities; none: connections are in the clear. The
	// certificate is for mtls.RoleNode. Changed files are read again.
	TLS mtls.Files

	// Replicas is N, 1 to ring.MaxReplicas, and MinWrite the smallest W that a write may ask for, 1 to Replicas. Both are written
	// into the first layout by the node that founds the cluster, and belong to the layout from then on. Default 3 and 2.
	Replicas, MinWrite int

	// TraceEndpoint is the URL of a collector that takes OTLP over gRPC; see tracing.CheckEndpoint. What is traced, gateways say.
	// Empty for nothing.
	TraceEndpoint string

	// Insecure allows addresses other than loopback although connections or gossip are in the clear.
	Insecure bool

	// Workers is how many requests are worked on at once, 1 to 1024. Default 32: reads wait for the disk, not for the
	// processor.
	Workers int
	// QueueMax bounds the requests that wait for a worker; those beyond are refused as overloaded. 1 to 1,000,000.
	// Default 16384.
	QueueMax int
	// DrainWait bounds the time for requests in flight when the node stops. Default 10 s.
	DrainWait time.Duration
}

// Default returns the defaults; Name and DataDir are left to the caller.
func Default() Config {
	return Config{
		Label:    "dotring",
		GRPCAddr: "127.0.0.1:7101", GossipAddr: "127.0.0.1:7201", AdminAddr: "127.0.0.1:7301",
		JoinWait: 5 * time.Second, Weight: 1, Engine: EngineLevelDB, Sync: kv.SyncAlways, CommitGather: 3 * time.Millisecond,
		ScrubInterval: 7 * 24 * time.Hour, ScrubRate: 8 << 20, TransferRate: 32 << 20,
		HintBytesMax: 4 << 30, HintAgeMax: 24 * time.Hour, TombstoneGrace: 24 * time.Hour,
		AntiEntropyInterval: time.Minute, DeadAfter: 10 * time.Minute, GossipInterval: time.Second, Replicas: 3, MinWrite: 2,
		Workers: 32, QueueMax: 16384, DrainWait: 10 * time.Second,
	}
}

// faults collects what is wrong with a configuration, each fault with the field's flag and value.
type faults []error

func (f *faults) add(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var f faults
	f.add(validName(c.Name), "name: %q must have 1 to 128 letters, digits, '-' and '.'", c.Name)
	f.add(validLabel(c.Label), "cluster: %q must have 1 to 64 printable characters without spaces", c.Label)
	f.add(c.DataDir != "", "data-dir: no folder named")
	c.validateAddrs(&f)
	f.add(c.JoinWait >= 0 && c.JoinWait <= time.Hour, "join-wait: %v is not between 0 and 1h", c.JoinWait)
	f.add(len(c.Zone) <= 64, "zone: %d bytes, at most 64", len(c.Zone))
	f.add(c.Weight > 0 && c.Weight <= ring.MaxWeight, "weight: %v is not above 0 and at most %v", c.Weight, ring.MaxWeight)
	f.add(c.CompactionRate == 0 || c.CompactionRate >= 1<<20, "compaction-rate: %d is neither 0 nor at least 1 MiB a second", c.CompactionRate)
	f.add(c.CommitGather >= 0 && c.CommitGather <= time.Second, "commit-gather: %v is not between 0 and 1s", c.CommitGather)
	f.add(c.ScrubInterval >= time.Second && c.ScrubInterval <= 10*365*24*time.Hour, "scrub-interval: %v is not between 1s and 87600h", c.ScrubInterval)
	f.add(c.ScrubRate == 0 || c.ScrubRate >= 1<<10, "scrub-rate: %d is neither 0 nor at least 1 KiB a second", c.ScrubRate)
	f.add(c.TransferRate == 0 || c.TransferRate >= 64<<10, "transfer-rate: %d is neither 0 nor at least 64 KiB a second", c.TransferRate)
	f.add(c.Engine == EngineLevelDB || c.Engine == EnginePebble || c.Engine == EngineMemory,
		"engine: %q is none of %q, %q, %q", c.Engine, EngineLevelDB, EnginePebble, EngineMemory)
	f.add(c.AntiEntropyInterval >= 100*time.Millisecond && c.AntiEntropyInterval <= time.Hour,
		"anti-entropy-interval: %v is not between 100ms and 1h", c.AntiEntropyInterval)
	f.add(c.DeadAfter == 0 || c.DeadAfter >= time.Second && c.DeadAfter <= 30*24*time.Hour, "dead-after: %v is neither 0 nor between 1s and 30 days", c.DeadAfter)
	f.add(c.GossipInterval >= 100*time.Millisecond && c.GossipInterval <= time.Minute,
		"gossip-interval: %v is not between 100ms and 1m", c.GossipInterval)
	f.add(c.HintBytesMax >= 0, "hint-bytes-max: %d is negative", c.HintBytesMax)
	f.add(c.TombstoneGrace >= collect.MinGrace, "tombstone-grace: %v is below %v", c.TombstoneGrace, collect.MinGrace)
	f.add(c.HintAgeMax >= 0, "hint-age-max: %v is negative", c.HintAgeMax)
	f.add(c.Replicas >= 1 && c.Replicas <= ring.MaxReplicas, "replicas: %d is not between 1 and %d", c.Replicas, ring.MaxReplicas)
	f.add(c.MinWrite >= 1 && c.MinWrite <= max(c.Replicas, 1), "min-write: %d is not between 1 and replicas (%d)", c.MinWrite, c.Replicas)
	if err := tracing.CheckEndpoint(c.TraceEndpoint); err != nil {
		f.add(false, "trace-endpoint: %w", err)
	}
	f.add(c.Workers >= 1 && c.Workers <= 1024, "workers: %d is not between 1 and 1024", c.Workers)
	f.add(c.QueueMax >= 1 && c.QueueMax <= 1_000_000, "queue-max: %d is not between 1 and 1000000", c.QueueMax)
	f.add(c.DrainWait >= 0 && c.DrainWait <= time.Hour, "drain-wait: %v is not between 0 and 1h", c.DrainWait)
	return errors.Join(f...)
}

func (c Config) validateAddrs(f *faults) {
	if err := c.TLS.Validate(); err != nil {
		f.add(false, "%w", err)
	}
	for _, a := range []struct {
		flag, addr, advertise string
		secret                bool
		need                  string
	}{
		{"grpc-addr", c.GRPCAddr, c.AdvertiseGRPC, c.TLS.Any(), "--tls-cert, --tls-key and --tls-ca"},
		{"gossip-addr", c.GossipAddr, c.AdvertiseGossip, c.GossipKeyFile != "", "--gossip-key-file"},
		{"admin-addr", c.AdminAddr, c.AdvertiseAdmin, c.TLS.Any(), "--tls-cert, --tls-key and --tls-ca"},
	} {
		host, err := splitAddr(a.addr)
		if err != nil {
			f.add(false, "%s: %w", a.flag, err)
			continue
		}
		f.add(c.Insecure || a.secret || isLoopback(host),
			"%s: %s is not a loopback address, and would be in the clear: give %s, or allow it by --insecure", a.flag, a.addr, a.need)
		f.add(a.advertise != "" || !isUnspecified(host),
			"advertise-%s: must be given, since others cannot reach %s", a.flag, a.addr)
		if a.advertise != "" {
			host, err := splitAddr(a.advertise)
			f.add(err == nil, "advertise-%s: %w", a.flag, err)
			f.add(err != nil || !isUnspecified(host), "advertise-%s: %s names no host", a.flag, a.advertise)
		}
	}
	for _, addr := range c.Join {
		host, err := splitAddr(addr)
		f.add(err == nil, "join: %w", err)
		f.add(err != nil || host != "", "join: %s names no host", addr)
	}
}

func splitAddr(addr string) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port", addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return "", fmt.Errorf("%q has no valid port", addr)
	}
	return host, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func validName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && (r < '0' || r > '9') && r != '-' && r != '.'
	}) < 0
}

func validLabel(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
