// Package nodeclient keeps a gateway's streams to the storage nodes, their health, and the cluster's state as the nodes tell it.
package nodeclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"github.com/dotring/dotring/ringsvc/phi"
)

// Config says how a Client reaches the cluster. Default has every value but the targets and the id.
type Config struct {
	// Targets are host:port addresses of storage nodes to learn the cluster's state from. At least one; the others of
	// the cluster are learned.
	Targets []string
	// ID is the gateway's random id for this life of the process.
	ID [16]byte
	// StreamsPerNode is how many connections, each with one stream, a node gets; 1 to 16. More than one helps where one
	// connection's writes are the bottleneck.
	StreamsPerNode int
	// ContextKeys are the fingerprints of the context keys this gateway holds.
	ContextKeys [][8]byte
	// DialOptions are added to the client's own: transport credentials, which are required.
	DialOptions []grpc.DialOption
	// Dial opens a connection to host:port; nil for TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// QueueItems and QueueBytes bound what waits for one stream. Beyond either, a call is answered with ErrOverloaded
	// at once.
	QueueItems int
	QueueBytes int
	// Heartbeat is how often an idle stream sends a frame, and how often one is expected.
	Heartbeat time.Duration
	// Phi tunes the failure detectors; zero fields take that package's defaults.
	Phi phi.Config
	// Logger takes what happens to connections.
	Logger zerolog.Logger
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Default returns the usual configuration: one stream per node, 4096 calls and 16 MiB queued at most, a heartbeat each
// 250 ms.
func Default() Config {
	return Config{
		StreamsPerNode: 1, QueueItems: 4096, QueueBytes: 16 << 20, Heartbeat: 250 * time.Millisecond,
		Logger: zerolog.Nop(),
	}
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(c.Targets) == 0 {
		fault("storage nodes: none is given")
	}
	for _, t := range c.Targets {
		if _, _, err := net.SplitHostPort(t); err != nil {
			fault("storage nodes: %q is not host:port", t)
		}
	}
	if c.ID == ([16]byte{}) {
		fault("gateway id: all zero")
	}
	if c.StreamsPerNode < 1 || c.StreamsPerNode > 16 {
		fault("streams per node: %d is not within 1 to 16", c.StreamsPerNode)
	}
	if c.QueueItems < 1 || c.QueueBytes < 1 {
		fault("queue: %d items and %d bytes must be positive", c.QueueItems, c.QueueBytes)
	}
	if c.Heartbeat < 10*time.Millisecond {
		fault("heartbeat: %s is below 10ms", c.Heartbeat)
	}
	return errors.Join(faults...)
}
