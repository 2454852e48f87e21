// Package config is the gateway's configuration: its values, their defaults, and what is wrong with them.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/limit"
	"github.com/dotring/dotring/ringsvc/mtls"
	"github.com/dotring/dotring/ringsvc/tracing"
)

// Config is what a gateway needs to run. Packages receive it finished and do not change it.
type Config struct {
	// Name is what people call this gateway, in logs and in the status; up to 64 printable characters.
	Name string
	// HTTPAddr, GRPCAddr and AdminAddr are the host:port to listen on; port 0 takes any free one. The admin port has
	// metrics and profiles, and belongs to operators alone.
	HTTPAddr, GRPCAddr, AdminAddr string
	// StorageNodes are host:port of storage nodes to learn the cluster from; one that answers is enough.
	StorageNodes []string
	// ReadQuorum and WriteQuorum are meant where a request does not say.
	ReadQuorum, WriteQuorum coordinator.Quorum
	// ContextKeyFile holds the cluster's context keys, one or two lines; empty for none, so that contexts can be forged.
	ContextKeyFile string
	// AccessFile holds tokens and what each may do, by key prefix; empty for none, so that everybody may do everything. A
	// changed file is read again.
	AccessFile string
	// TLS names the gateway's certificate, its key and the cluster's authorities; none: connections are in the clear. The
	// certificate is for mtls.RoleGateway, and for the names and addresses that clients use. Changed files are read again.
	TLS mtls.Files
	// ConflictPolicies say what becomes of concurrent writes, by key prefix; see coordinator.ParsePolicies.
	ConflictPolicies coordinator.Policies
	// CORSOrigins are the origins of web pages that may use this gateway, or "*"; none switches CORS off.
	CORSOrigins []string
	// DrainDelay is how long the gateway goes on taking requests after it was told to stop and /readyz began to fail, so
	// that load balancers notice; 0 to 5 minutes.
	DrainDelay time.Duration
	// StreamsPerNode is how many streams each storage node gets; 1 to 16.
	StreamsPerNode int
	// MaxValueBytes is the size of the largest value; 1 byte to 2 MiB, as a record holds 3 MiB.
	MaxValueBytes int
	// Insecure allows addresses that other machines reach, also without TLS or access rules.
	Insecure bool
	// LogLevel is one of trace, debug, info, warn, error; LogFormat json or console.
	LogLevel, LogFormat string
	// KeyLimit is how many operations a second this gateway lets in of one key, at most 1,000,000; 0 for no limit.
	KeyLimit int
	// SlowAfter is from when on a request is logged as slow, with where its time went; 0 for never.
	SlowAfter time.Duration
	// LogKeys is how keys appear in the log of requests: HashedKeys or PlainKeys.
	LogKeys string
	// TraceEndpoint is the URL of a collector that takes OTLP over gRPC; see tracing.CheckEndpoint. Empty for no tracing.
	TraceEndpoint string
	// TraceSample is the share of requests that are traced, 0 to 1.
	TraceSample float64
	// MemoryLimit is the soft limit of the Go runtime in bytes; 0 leaves it as it is.
	MemoryLimit int64
}

const (
	// HashedKeys and PlainKeys are for Config.LogKeys.
	HashedKeys = "hash"
	PlainKeys  = "plain"

	maxValueBytes  = 2 << 20
	maxDrainDelay  = 5 * time.Minute
	maxStreams     = 16
	minMemoryLimit = 32 << 20
	maxName        = 64
)

// Default returns the defaults. Name and StorageNodes have none.
func Default() Config {
	return Config{
		HTTPAddr: "127.0.0.1:8080", GRPCAddr: "127.0.0.1:9080", AdminAddr: "127.0.0.1:9180", ReadQuorum: 2, WriteQuorum: 2,
		DrainDelay: 5 * time.Second, StreamsPerNode: 1, MaxValueBytes: 1 << 20, LogLevel: "info", LogFormat: "json",
		SlowAfter: time.Second, LogKeys: HashedKeys, TraceSample: tracing.DefaultSample,
	}
}

// Validate returns every fault, joined, each with the flag it is about.
func (c Config) Validate() error {
	var faults []error
	fault := func(flag, format string, args ...any) {
		faults = append(faults, fmt.Errorf("--%s: %w", flag, fmt.Errorf(format, args...)))
	}
	if c.Name == "" || len(c.Name) > maxName || strings.ContainsFunc(c.Name, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		fault("name", "%q must be 1 to %d printable characters", c.Name, maxName)
	}
	for _, a := range []struct{ flag, addr string }{
		{"http-addr", c.HTTPAddr}, {"grpc-addr", c.GRPCAddr}, {"admin-addr", c.AdminAddr},
	} {
		loopback, err := checkListen(a.addr)
		switch {
		case err != nil:
			fault(a.flag, "%w", err)
		case loopback || c.Insecure:
		case !c.TLS.Any():
			fault(a.flag, "%s is reached by other machines: give --tls-cert, --tls-key and --tls-ca, or allow it by --insecure", a.addr)
		case c.AccessFile == "" && a.flag != "admin-addr":
			fault(a.flag, "%s is reached by other machines: give --access-file, or allow it by --insecure", a.addr)
		}
	}
	if err := c.TLS.Validate(); err != nil {
		faults = append(faults, err)
	}
	if len(c.StorageNodes) == 0 {
		fault("storage-nodes", "at least one host:port is needed")
	}
	for _, n := range c.StorageNodes {
		if host, port, err := net.SplitHostPort(n); err != nil || host == "" || port == "" || port == "0" {
			fault("storage-nodes", "%q is not host:port", n)
		}
	}
	for _, q := range []struct {
		flag string
		q    coordinator.Quorum
	}{{"read-quorum", c.ReadQuorum}, {"write-quorum", c.WriteQuorum}} {
		if q.q == coordinator.Default {
			fault(q.flag, "must be one, quorum, all or a number of replicas")
		}
	}
	for _, o := range c.CORSOrigins {
		if err := checkOrigin(o); err != nil {
			fault("cors-origins", "%w", err)
		}
	}
	within := func(flag string, ok bool, format string, args ...any) {
		if !ok {
			fault(flag, format, args...)
		}
	}
	within("drain-delay", c.DrainDelay >= 0 && c.DrainDelay <= maxDrainDelay, "%v is not within 0 to %v", c.DrainDelay,
		maxDrainDelay)
	within("streams-per-node", c.StreamsPerNode >= 1 && c.StreamsPerNode <= maxStreams, "%d is not within 1 to %d",
		c.StreamsPerNode, maxStreams)
	within("max-value-bytes", c.MaxValueBytes >= 1 && c.MaxValueBytes <= maxValueBytes, "%d is not within 1 to %d",
		c.MaxValueBytes, maxValueBytes)
	within("memory-limit", c.MemoryLimit == 0 || c.MemoryLimit >= minMemoryLimit, "%d is below %d", c.MemoryLimit,
		minMemoryLimit)
	within("log-level", slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, c.LogLevel),
		"%q is not trace, debug, info, warn or error", c.LogLevel)
	within("key-limit", c.KeyLimit >= 0 && c.KeyLimit <= limit.MaxPerSecond, "%d is not within 0 to %.0f", c.KeyLimit, limit.MaxPerSecond)
	within("slow-after", c.SlowAfter >= 0, "%v is negative", c.SlowAfter)
	within("log-keys", c.LogKeys == HashedKeys || c.LogKeys == PlainKeys, "%q is not %s or %s", c.LogKeys, HashedKeys, PlainKeys)
	if err := tracing.CheckEndpoint(c.TraceEndpoint); err != nil {
		fault("trace-endpoint", "%w", err)
	}
	if err := tracing.CheckSample(c.TraceSample); err != nil {
		fault("trace-sample", "%w", err)
	}
	within("log-format", c.LogFormat == "json" || c.LogFormat == "console", "%q is not json or console", c.LogFormat)
	return errors.Join(faults...)
}

// checkListen says whether addr is a host:port to listen on, and whether only this machine reaches it. A host that is a
// name, other than localhost, may be anything.
func checkListen(addr string) (loopback bool, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, fmt.Errorf("%q is not host:port", addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return false, fmt.Errorf("%q has no port from 0 to 65535", addr)
	}
	if host == "localhost" {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback(), nil
}

// Loopback says whether only this machine reaches addr.
func Loopback(addr string) bool {
	loopback, err := checkListen(addr)
	return err == nil && loopback
}

// checkOrigin says whether o is an origin as browsers send it.
func checkOrigin(o string) error {
	if o == "*" {
		return nil
	}
	u, err := url.Parse(o)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != o {
		return fmt.Errorf("%q is not an origin such as https://example.org, or *", o)
	}
	return nil
}

// Logger returns the level. c must be valid.
func (c Config) Level() zerolog.Level {
	level, err := zerolog.ParseLevel(c.LogLevel)
	if err != nil {
		return zerolog.InfoLevel
	}
	return level
}
