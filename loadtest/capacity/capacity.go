// Package capacity computes what a cluster needs for some data and load from what was measured of this store; the capacity page shows its tables. Pure.
package capacity

import (
	"fmt"
	"math"
	"strings"
)

// Figure is one thing that was measured, and the command that measures it.
type Figure struct {
	Name    string
	Value   float64
	Unit    string
	Command string
}

// Measured are the figures that all else follows from.
type Measured struct {
	GatewayGet, GatewayPut    Figure // processor time of the gateway for each operation
	NodesGet, NodesPut        Figure // of all nodes together
	Kept, Written             Figure // bytes on disk, and written to it, for each byte stored at one node
	Memory, MemoryPerKey      Figure // of a node, besides the page cache
	Ingest                    Figure // what one node writes durably
	GossipBase, GossipPerDoor Figure // traffic of a node at rest, and for each gateway
}

// Default is what RESULTS.md holds.
func Default() Measured {
	const (
		cpu    = "`dotring-load run --gets 0` or `1`, `--value-size 10000`, and `process_cpu_seconds_total` of each process before and after"
		engine = "`go test -run '^$' -bench 'SideBySide/put/10KiB' -benchtime 960x .` in `storagenode/engine/enginetest`"
		size   = "`make size`"
		scale  = "`make soak-scale SCALE_NODES=100 SCALE_GATEWAYS=10`"
	)
	return Measured{
		GatewayGet: Figure{"a get, at the gateway", 49, "µs", cpu}, GatewayPut: Figure{"a put, at the gateway", 96, "µs", cpu},
		NodesGet: Figure{"a get, at all nodes", 34, "µs", cpu}, NodesPut: Figure{"a put, at all nodes", 244, "µs", cpu},
		Kept: Figure{"kept on disk for each byte", 1.18, "", size}, Written: Figure{"written to disk for each byte", 3.1, "", engine},
		Memory: Figure{"memory of a node", 319, "MiB", size}, MemoryPerKey: Figure{"and for each key", 23, "B", size},
		Ingest:     Figure{"what a node takes in, 12,500 records of 10 KiB", 128, "MB/s", engine},
		GossipBase: Figure{"gossip and views of a node at rest", 3.7, "KB/s", scale}, GossipPerDoor: Figure{"heartbeats of a node for each gateway", 0.6, "KB/s", scale},
	}
}

// List returns all figures in the order of the page.
func (m Measured) List() []Figure {
	return []Figure{m.GatewayGet, m.GatewayPut, m.NodesGet, m.NodesPut, m.Kept, m.Written, m.Memory, m.MemoryPerKey, m.Ingest, m.GossipBase, m.GossipPerDoor}
}

// Load is what a cluster is to bear. Bytes are before replication.
type Load struct {
	Bytes, ValueBytes float64
	Requests          float64 // a second, gets and puts alike
	Copies            int
}

// Machine is what is bought, and how far it is used.
type Machine struct {
	DiskBytes, DiskFull float64 // of a node; the part that may be full
	WriteRate           float64 // bytes a second that its disk bears without end
	Cores               int     // of a node and of a gateway
	CoresBusy           float64 // the part that may be busy
}

// Need is what it takes. Rates are bytes a second.
type Need struct {
	NodesForDisk, NodesForWrites, NodesForCores int
	Nodes, Gateways                             int // nodes: the most of those, for three zones
	CoresNodes, CoresGateways                   float64
	Stored, DiskPerNode, WrittenPerNode         float64
	ClientRate, NodeRate                        float64 // between clients and gateways; between gateways and nodes
	MemoryPerNode                               float64
	ReplaceSeconds, ReplaceAtDefault            float64 // as fast as a node writes; with the default --transfer-rate
	GossipPerNode                               float64
}

// transferRate is the default of --transfer-rate, in bytes a second.
const transferRate = 32 << 20

// Compute is linear but for the gateways' heartbeats.
func Compute(l Load, c Machine, m Measured) Need {
	half, copies := l.Requests/2, float64(l.Copies)
	n := Need{
		CoresGateways: (half*m.GatewayGet.Value + half*m.GatewayPut.Value) / 1e6,
		CoresNodes:    (half*m.NodesGet.Value + half*m.NodesPut.Value) / 1e6,
		Stored:        l.Bytes * copies * m.Kept.Value,
		ClientRate:    l.Requests * l.ValueBytes,
		NodeRate:      half*l.ValueBytes*copies + half*l.ValueBytes,
	}
	written := half * l.ValueBytes * copies * m.Written.Value
	up := func(x float64) int { return int(math.Ceil(x - 1e-9)) }
	n.NodesForDisk = up(n.Stored / (c.DiskBytes * c.DiskFull))
	n.NodesForWrites = up(written / c.WriteRate)
	n.NodesForCores = up(n.CoresNodes / (float64(c.Cores) * c.CoresBusy))
	n.Nodes = 3 * up(float64(max(n.NodesForDisk, n.NodesForWrites, n.NodesForCores, 3))/3)
	n.Gateways = max(2, up(n.CoresGateways/(float64(c.Cores)*c.CoresBusy))+1) // one may be away
	nodes := float64(n.Nodes)
	n.DiskPerNode, n.WrittenPerNode = n.Stored/nodes, written/nodes
	n.MemoryPerNode = m.Memory.Value*(1<<20) + m.MemoryPerKey.Value*l.Bytes/l.ValueBytes*copies/nodes
	n.ReplaceSeconds = l.Bytes * copies / nodes / (m.Ingest.Value * 1e6)
	n.ReplaceAtDefault = l.Bytes * copies / nodes / transferRate
	n.GossipPerNode = (m.GossipBase.Value + m.GossipPerDoor.Value*float64(n.Gateways)) * 1e3
	return n
}

// Page is the tables of the capacity page, in Markdown.
func Page() string {
	m := Default()
	box := Machine{DiskBytes: 4e12, DiskFull: 0.7, WriteRate: 200e6, Cores: 8, CoresBusy: 0.5}
	one := Compute(Load{Bytes: 10e12, ValueBytes: 10e3, Requests: 50e3, Copies: 3}, box, m)
	ten := Compute(Load{Bytes: 100e12, ValueBytes: 10e3, Requests: 500e3, Copies: 3}, box, m)
	var s strings.Builder
	s.WriteString("| measured | figure | from |\n|---|---|---|\n")
	for _, f := range m.List() {
		fmt.Fprintf(&s, "| %s | %s | %s |\n", f.Name, strings.TrimSpace(fmt.Sprintf("%g %s", f.Value, f.Unit)), f.Command)
	}
	s.WriteString("\n| what it takes | 10 TB, 50,000 a second | 100 TB, 500,000 a second |\n|---|---|---|\n")
	row := func(what, format string, of func(Need) []any) {
		fmt.Fprintf(&s, "| %s | %s | %s |\n", what, fmt.Sprintf(format, of(one)...), fmt.Sprintf(format, of(ten)...))
	}
	row("nodes for the disks, for what is written, for the processors", "%d, %d, %d", func(n Need) []any { return []any{n.NodesForDisk, n.NodesForWrites, n.NodesForCores} })
	row("**nodes**, in three zones", "%d", func(n Need) []any { return []any{n.Nodes} })
	row("**gateways**, one more than needed", "%d", func(n Need) []any { return []any{n.Gateways} })
	row("cores busy: nodes, gateways", "%.1f, %.1f", func(n Need) []any { return []any{n.CoresNodes, n.CoresGateways} })
	row("stored, all copies", "%.1f TB", func(n Need) []any { return []any{n.Stored / 1e12} })
	row("stored, and written a second, by a node", "%.2f TB, %.0f MB", func(n Need) []any { return []any{n.DiskPerNode / 1e12, n.WrittenPerNode / 1e6} })
	row("network: clients, nodes", "%.2f, %.2f GB/s", func(n Need) []any { return []any{n.ClientRate / 1e9, n.NodeRate / 1e9} })
	row("memory of a node", "%.1f GiB", func(n Need) []any { return []any{n.MemoryPerNode / (1 << 30)} })
	row("gossip and heartbeats of a node", "%.1f KB/s", func(n Need) []any { return []any{n.GossipPerNode / 1e3} })
	row("a node replaced: as fast as it writes; at the default `--transfer-rate`", "%.1f h; %.1f h", func(n Need) []any { return []any{n.ReplaceSeconds / 3600, n.ReplaceAtDefault / 3600} })
	return s.String()
}
