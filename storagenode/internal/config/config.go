// Package config reads a storage node's configuration: flags win over DOTRING_* in the environment, which wins over the
// YAML file, which wins over the defaults. All faults are reported at once, each with where its value came from.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v3"

	"github.com/dotring/dotring/storagenode/kv"
	"github.com/dotring/dotring/storagenode/node"
)

// Settings is a finished configuration.
type Settings struct {
	Node      node.Config
	LogLevel  zerolog.Level
	LogFormat string // "json" or "console"
	// MemoryLimit is a soft limit of the Go runtime, in bytes; 0 for none.
	MemoryLimit int64
}

// flags is the command line. All values are text at first, so that every bad one can be named and not only the first.
type flags struct {
	Config *string `help:"YAML file; its fields are these flags without the dashes in front." placeholder:"FILE"`

	Name    *string `help:"This node's name, unique in the cluster. Required." placeholder:"NAME"`
	Cluster *string `help:"Label of the cluster; nodes of another label are refused (dotring)." placeholder:"LABEL"`
	DataDir *string `help:"Folder for the data, created when missing. Required." placeholder:"DIR"`

	GrpcAddr            *string `help:"Address for gateways and other nodes (127.0.0.1:7101)." placeholder:"HOST:PORT"`
	AdvertiseGrpcAddr   *string `help:"The same, as others reach it." placeholder:"HOST:PORT"`
	GossipAddr          *string `help:"Address for gossip, TCP and UDP (127.0.0.1:7201)." placeholder:"HOST:PORT"`
	AdvertiseGossipAddr *string `help:"The same, as others reach it." placeholder:"HOST:PORT"`
	AdminAddr           *string `help:"Address for metrics, health and profiles (127.0.0.1:7301)." placeholder:"HOST:PORT"`
	AdvertiseAdminAddr  *string `help:"The same, as others reach it." placeholder:"HOST:PORT"`

	Join     *string `help:"Gossip addresses of nodes to meet, separated by commas." placeholder:"ADDRS"`
	JoinWait *string `help:"How long a node without data looks for all of --join before it may found a cluster (5s)." placeholder:"DURATION"`

	Zone   *string `help:"What fails together with this node: a rack, a data centre." placeholder:"ZONE"`
	Weight *string `help:"Share of the data relative to other nodes (1)." placeholder:"NUMBER"`

	Engine         *string `help:"leveldb, pebble, or memory, which forgets everything at the end (leveldb). A folder stays with its engine." placeholder:"ENGINE"`
	Sync           *string `help:"When a write is acknowledged: always (after fsync), interval, none (always)." placeholder:"MODE"`
	CommitGather   *string `help:"Least time between two syncs while many writes are on their way, so that more share each; 0 for none (3ms)." placeholder:"DURATION"`
	CompactionRate *string `help:"Most that compaction writes a second, as in 64MiB; 0 for no limit (0)." placeholder:"SIZE"`

	ScrubInterval *string `help:"About how often all that is on the disk is read and verified (168h)." placeholder:"DURATION"`
	ScrubRate     *string `help:"Most that is read for that a second, as in 8MiB; 0 for never (8MiB)." placeholder:"SIZE"`

	TransferRate *string `help:"Most that is pulled from other nodes for changes of the layout a second, as in 32MiB, a tenth of it where that slows clients down; 0 for no limit (32MiB)." placeholder:"SIZE"`

	HintBytesMax *string `help:"Most that is kept for other nodes that are away, as in 4GiB; 0 for no limit (4GiB)." placeholder:"SIZE"`
	HintAgeMax   *string `help:"How long a node may be away for more to be kept for it; 0 for no limit (24h)." placeholder:"DURATION"`

	TombstoneGrace *string `help:"How long a deletion is the same at all its owners before it may be removed, if nothing else forbids it (24h). The same at all nodes." placeholder:"DURATION"`

	DeadAfter *string `help:"How long a member may be away before it is removed for good, 0 for never (10m)." placeholder:"DURATION"`

	Standby *string `help:"Do not ask to be a member: wait until an operator gives this node the place of one (false)." placeholder:"true"`

	AntiEntropyInterval *string `help:"Time between comparisons with each other owner of the same data (1m)." placeholder:"DURATION"`

	GossipInterval *string `help:"Time between probes of other nodes (1s)." placeholder:"DURATION"`
	GossipKeyFile  *string `help:"JSON array of base64 keys that encrypt gossip." placeholder:"FILE"`

	TlsCert *string `help:"This node's certificate, PEM, with its chain. Read again when it changes, as are the two below." placeholder:"FILE"`
	TlsKey  *string `help:"Its private key, PEM." placeholder:"FILE"`
	TlsCa   *string `help:"Authorities that other nodes' and gateways' certificates come from, PEM." placeholder:"FILE"`

	Replicas *string `help:"Copies of each record, written into the first layout (3)." placeholder:"N"`
	MinWrite *string `help:"Smallest write quorum that a client may ask for, written into the first layout (2)." placeholder:"W"`

	TraceEndpoint *string `help:"URL of an OpenTelemetry collector that takes OTLP over gRPC, such as http://127.0.0.1:4317, or https for TLS; gateways choose what is traced (none)." placeholder:"URL"`

	Insecure *string `help:"Allow addresses other than loopback without TLS and gossip keys." placeholder:"true"`

	LogLevel    *string `help:"debug, info, warn or error (info)." placeholder:"LEVEL"`
	LogFormat   *string `help:"json or console (json)." placeholder:"FORMAT"`
	MemoryLimit *string `help:"Soft limit of memory, as in 2GiB; 0 for none (0)." placeholder:"SIZE"`
}

// ErrHelp means that help was asked for and printed.
var ErrHelp = errors.New("help printed")

// Load reads the command line args (without the program's name), the environment and the file that they name. env is
// os.LookupEnv in the program. Help goes to out.
func Load(args []string, env func(string) (string, bool), out io.Writer) (Settings, error) {
	var f flags
	if err := parseArgs(&f, args, out); err != nil {
		return Settings{}, err
	}
	fields := fieldsOf(&f)
	from := make(map[string]string, len(fields)) // where each value came from, for people
	for _, fd := range fields {
		if *fd.value != nil {
			from[fd.name] = "--" + fd.name
		} else if v, ok := env(fd.env); ok {
			*fd.value = &v
			from[fd.name] = fd.env
		}
	}
	var faults []error
	if f.Config != nil {
		faults = fromFile(*f.Config, fields, from)
	}
	s, more := convert(&f, from)
	faults = append(faults, more...)
	if err := s.Node.Validate(); err != nil {
		faults = append(faults, unjoin(err)...)
	}
	if err := errors.Join(faults...); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// parseArgs reads flags alone.
func parseArgs(f *flags, args []string, out io.Writer) error {
	helped := false
	parser, err := kong.New(f, kong.Name("dotring-storagenode"),
		kong.Description("A storage node of Dotring. All flags also come from DOTRING_* (as in DOTRING_DATA_DIR) and from --config; flags win."),
		kong.Writers(out, out), kong.Exit(func(int) { helped = true }))
	if err != nil {
		return fmt.Errorf("build command line: %w", err)
	}
	if _, err = parser.Parse(bareSwitches(args)); helped {
		return ErrHelp
	}
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	return nil
}

// bareSwitches lets --insecure and --standby stand alone, as switches do.
func bareSwitches(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if a == "--" {
			break
		}
		if a == "--insecure" || a == "--standby" {
			out[i] = a + "=true"
		}
	}
	return out
}

// field is one setting.
type field struct {
	name, env string
	value     **string
}

// fieldsOf lists the settings by the names that kong gives them.
func fieldsOf(f *flags) []field {
	v := reflect.ValueOf(f).Elem()
	out := make([]field, 0, v.NumField())
	for i := range v.NumField() {
		name := dashed(v.Type().Field(i).Name)
		out = append(out, field{name: name, env: "DOTRING_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")),
			value: v.Field(i).Addr().Interface().(**string)})
	}
	return out
}

// dashed turns DataDir into data-dir.
func dashed(s string) string {
	var b strings.Builder
	for i, r := range s {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// fromFile fills in what neither flags nor environment gave.
func fromFile(path string, fields []field, from map[string]string) []error {
	b, err := os.ReadFile(path)
	if err != nil {
		return []error{fmt.Errorf("config: %w", err)}
	}
	var doc map[string]yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return []error{fmt.Errorf("config: %s: %w", path, err)}
	}
	var faults []error
	for key, n := range doc {
		name := strings.ReplaceAll(key, "_", "-")
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name && name != "config" })
		if i < 0 {
			faults = append(faults, fmt.Errorf("config: %s:%d: unknown field %q", path, n.Line, key))
			continue
		}
		v, err := scalar(n)
		if err != nil {
			faults = append(faults, fmt.Errorf("config: %s:%d: %s: %w", path, n.Line, key, err))
			continue
		}
		if *fields[i].value == nil {
			*fields[i].value = &v
			from[name] = path
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}

// scalar reads a value, or a list of values as one with commas.
func scalar(n yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value, nil
	case yaml.SequenceNode:
		var parts []string
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return "", errors.New("a list holds plain values")
			}
			parts = append(parts, c.Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("must be a plain value or a list")
}

// converter turns text into values and collects what cannot be.
type converter struct {
	from   map[string]string
	faults []error
}

// take calls read with a setting's text, where there is one.
func (c *converter) take(name string, v *string, read func(string) error) {
	if v == nil {
		return
	}
	if err := read(*v); err != nil {
		c.faults = append(c.faults, fmt.Errorf("%s: %q (from %s): %w", name, *v, c.from[name], err))
	}
}

func (c *converter) text(v *string, to *string) {
	if v != nil {
		*to = *v
	}
}

func (c *converter) duration(name string, v *string, to *time.Duration) {
	c.take(name, v, func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil {
			return errors.New("is not a duration such as 5s")
		}
		*to = d
		return nil
	})
}

func (c *converter) integer(name string, v *string, to *int) {
	c.take(name, v, func(s string) error {
		i, err := strconv.Atoi(s)
		if err != nil {
			return errors.New("is not a whole number")
		}
		*to = i
		return nil
	})
}

func (c *converter) boolean(name string, v *string, to *bool) {
	c.take(name, v, func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("is neither true nor false")
		}
		*to = b
		return nil
	})
}

func (c *converter) size(name string, v *string, to *int64) {
	c.take(name, v, func(s string) (err error) {
		*to, err = parseSize(s)
		return err
	})
}

// convert reads the texts over the defaults.
func convert(f *flags, from map[string]string) (Settings, []error) {
	s := Settings{Node: node.Default(), LogLevel: zerolog.InfoLevel, LogFormat: "json"}
	c := &converter{from: from}
	n := &s.Node
	for _, t := range []struct {
		v  *string
		to *string
	}{
		{f.Name, &n.Name}, {f.Cluster, &n.Label}, {f.DataDir, &n.DataDir}, {f.GrpcAddr, &n.GRPCAddr}, {f.GossipAddr, &n.GossipAddr},
		{f.AdminAddr, &n.AdminAddr}, {f.AdvertiseGrpcAddr, &n.AdvertiseGRPC}, {f.AdvertiseGossipAddr, &n.AdvertiseGossip},
		{f.AdvertiseAdminAddr, &n.AdvertiseAdmin}, {f.Zone, &n.Zone}, {f.Engine, &n.Engine}, {f.GossipKeyFile, &n.GossipKeyFile},
		{f.TraceEndpoint, &n.TraceEndpoint}, {f.TlsCert, &n.TLS.Cert}, {f.TlsKey, &n.TLS.Key}, {f.TlsCa, &n.TLS.CA},
	} {
		c.text(t.v, t.to)
	}
	c.take("join", f.Join, func(s string) error {
		n.Join = nil
		for _, a := range strings.Split(s, ",") {
			if a = strings.TrimSpace(a); a != "" {
				n.Join = append(n.Join, a)
			}
		}
		return nil
	})
	c.duration("join-wait", f.JoinWait, &n.JoinWait)
	c.duration("anti-entropy-interval", f.AntiEntropyInterval, &n.AntiEntropyInterval)
	c.duration("dead-after", f.DeadAfter, &n.DeadAfter)
	c.duration("gossip-interval", f.GossipInterval, &n.GossipInterval)
	c.size("hint-bytes-max", f.HintBytesMax, &n.HintBytesMax)
	c.duration("tombstone-grace", f.TombstoneGrace, &n.TombstoneGrace)
	c.duration("hint-age-max", f.HintAgeMax, &n.HintAgeMax)
	c.integer("replicas", f.Replicas, &n.Replicas)
	c.integer("min-write", f.MinWrite, &n.MinWrite)
	if f.MinWrite == nil {
		n.MinWrite = min(n.MinWrite, max(n.Replicas, 1))
	}
	c.duration("commit-gather", f.CommitGather, &n.CommitGather)
	c.size("compaction-rate", f.CompactionRate, &n.CompactionRate)
	c.duration("scrub-interval", f.ScrubInterval, &n.ScrubInterval)
	c.size("scrub-rate", f.ScrubRate, &n.ScrubRate)
	c.size("transfer-rate", f.TransferRate, &n.TransferRate)
	c.size("memory-limit", f.MemoryLimit, &s.MemoryLimit)
	c.take("weight", f.Weight, func(v string) (err error) {
		if n.Weight, err = strconv.ParseFloat(v, 64); err != nil {
			n.Weight = 1
			return errors.New("is not a number")
		}
		return nil
	})
	c.take("sync", f.Sync, func(v string) (err error) {
		n.Sync, err = kv.ParseSyncMode(v)
		return err
	})
	c.boolean("insecure", f.Insecure, &n.Insecure)
	c.boolean("standby", f.Standby, &n.Standby)
	c.take("log-level", f.LogLevel, func(v string) error {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, v) {
			return errors.New("is none of debug, info, warn, error")
		}
		var err error
		s.LogLevel, err = zerolog.ParseLevel(v)
		return err
	})
	c.take("log-format", f.LogFormat, func(v string) error {
		if v != "json" && v != "console" {
			return errors.New("is neither json nor console")
		}
		s.LogFormat = v
		return nil
	})
	return s, c.faults
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}

// parseSize reads bytes, or a number with B, KiB, MiB, GiB or TiB.
func parseSize(s string) (int64, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, errors.New("is not a size such as 512MiB")
}

// unjoin lists what errors.Join joined.
func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}
