package config

import (
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/dotring/dotring/gateway/coordinator"
)

// flags is the command line. A nil field was not given, so that the environment and the file can have their say.
type flags struct {
	Config         *string `help:"YAML file with any of these settings, by the names of the flags." placeholder:"FILE"`
	Name           *string `help:"What people call this gateway (default: the host's name)." placeholder:"NAME"`
	HTTPAddr       *string `name:"http-addr" help:"host:port of the HTTP API (default 127.0.0.1:8080)." placeholder:"ADDR"`
	GRPCAddr       *string `name:"grpc-addr" help:"host:port of the gRPC API (default 127.0.0.1:9080)." placeholder:"ADDR"`
	AdminAddr      *string `name:"admin-addr" help:"host:port of metrics and profiles (default 127.0.0.1:9180)." placeholder:"ADDR"`
	StorageNodes   *string `name:"storage-nodes" help:"host:port of storage nodes, with commas; one that answers is enough." placeholder:"A,B"`
	ReadQuorum     *string `name:"read-quorum" help:"r of requests without one: a number, one, quorum or all (default 2)." placeholder:"R"`
	WriteQuorum    *string `name:"write-quorum" help:"w of requests without one: a number, one, quorum or all (default 2)." placeholder:"W"`
	ContextKeyFile *string `name:"context-key-file" help:"File with one context key, or two during a rotation (the first signs), a line each in hex or base64." placeholder:"FILE"`
	AccessFile     *string `name:"access-file" help:"File with tokens and what each may do (dotringctl token makes one). Read again when it changes." placeholder:"FILE"`
	TLSCert        *string `name:"tls-cert" help:"This gateway's certificate, PEM, with its chain. Read again when it changes, as are the two below." placeholder:"FILE"`
	TLSKey         *string `name:"tls-key" help:"Its private key, PEM." placeholder:"FILE"`
	TLSCA          *string `name:"tls-ca" help:"Authorities that storage nodes' and gRPC clients' certificates come from, PEM." placeholder:"FILE"`
	Policies       *string `name:"conflict-policies" help:"What becomes of concurrent writes, by key prefix, with commas: PREFIX=siblings, or PREFIX=lww, which keeps the last one by the nodes' clocks and loses the others. The longest prefix wins (default: siblings for all)." placeholder:"RULES"`
	CORSOrigins    *string `name:"cors-origins" help:"Origins of web pages that may use this gateway, with commas, or * (default: none)." placeholder:"ORIGINS"`
	DrainDelay     *string `name:"drain-delay" help:"How long /readyz fails before the gateway stops taking requests (default 5s)." placeholder:"DURATION"`
	StreamsPerNode *string `name:"streams-per-node" help:"Streams to each storage node (default 1)." placeholder:"N"`
	MaxValueBytes  *string `name:"max-value-bytes" help:"Size of the largest value, such as 1MiB (default 1MiB)." placeholder:"SIZE"`
	Insecure       bool    `help:"Allow addresses that other machines reach, also without TLS or access rules."`
	LogLevel       *string `name:"log-level" help:"trace, debug, info, warn or error (default info)." placeholder:"LEVEL"`
	LogFormat      *string `name:"log-format" help:"json or console (default json)." placeholder:"FORMAT"`
	KeyLimit       *string `name:"key-limit" help:"Operations a second that this gateway lets in of one key; what is beyond gets 429. 0 for no limit (default 0)." placeholder:"N"`
	SlowAfter      *string `name:"slow-after" help:"How long a request takes that is logged as slow, with where its time went; 0 for never (default 1s)." placeholder:"DURATION"`
	LogKeys        *string `name:"log-keys" help:"hash or plain: how keys appear in the log of requests; a hash is the first 16 digits of the key's SHA-256 (default hash)." placeholder:"FORM"`
	TraceEndpoint  *string `name:"trace-endpoint" help:"URL of an OpenTelemetry collector that takes OTLP over gRPC, such as http://127.0.0.1:4317, or https for TLS (default: none, and no tracing)." placeholder:"URL"`
	TraceSample    *string `name:"trace-sample" help:"Share of requests that are traced, 0 to 1 (default 0.001)." placeholder:"SHARE"`
	MemoryLimit    *string `name:"memory-limit" help:"Soft memory limit, such as 2GiB (default: none, or GOMEMLIMIT)." placeholder:"SIZE"`
	Version        bool    `help:"Print the version and leave."`
}

// EnvPrefix is what the names of environment variables begin with.
const EnvPrefix = "DOTRING_"

// Sources is where settings come from. Flags win over the environment, which wins over the file.
type Sources struct {
	// Args are the arguments of the program, without its name.
	Args []string
	// LookupEnv is os.LookupEnv.
	LookupEnv func(name string) (value string, ok bool)
	// ReadFile is os.ReadFile.
	ReadFile func(name string) ([]byte, error)
	// Hostname is the name of a gateway that has none.
	Hostname string
	// Stdout takes the help.
	Stdout io.Writer
}

// ErrHelp says that the user asked for help, which was printed, or for the version, which was not: ErrVersion.
var (
	ErrHelp    = errors.New("help was asked for")
	ErrVersion = errors.New("the version was asked for")
)

// Load returns the configuration that the sources make, over the defaults. The error joins every fault of every source.
func Load(s Sources) (Config, error) {
	cfg := Default()
	cfg.Name = s.Hostname
	var f flags
	helped := false
	parser, err := kong.New(&f, kong.Name("dotring-gateway"), kong.Writers(s.Stdout, s.Stdout),
		kong.Description("A stateless gateway of a Dotring cluster: the HTTP and gRPC API over its storage nodes.\n\n"+
			"Every flag is also read from the environment ("+EnvPrefix+"HTTP_ADDR for --http-addr) and from --config. "+
			"Flags win, then the environment."),
		kong.Exit(func(int) { helped = true }))
	if err != nil {
		return cfg, fmt.Errorf("build command line: %w", err)
	}
	l := &loader{cfg: &cfg, values: make(map[string]value)}
	args := l.knownArgs(parser, s.Args)
	_, err = parser.Parse(args)
	switch {
	case helped:
		return cfg, ErrHelp
	case err != nil:
		l.fault(err)
	case f.Version:
		return cfg, ErrVersion
	}
	l.gather(parser.Model.Node, s, f.Config)
	l.apply()
	if err := cfg.Validate(); err != nil {
		// A value that could not be read keeps its default, which is no fault of its own.
		l.fault(err)
	}
	return cfg, errors.Join(l.faults...)
}

// value is a setting as it was given.
type value struct {
	text, source string
}

type loader struct {
	cfg    *Config
	values map[string]value
	faults []error
}

func (l *loader) fault(err error) { l.faults = append(l.faults, err) }

// knownArgs notes the arguments that no flag takes, and returns the others: the parser itself would stop at the first.
func (l *loader) knownArgs(parser *kong.Kong, args []string) []string {
	known := map[string]*kong.Flag{}
	for _, f := range parser.Model.Flags {
		known[f.Name] = f
	}
	var out []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "-h" {
			out = append(out, arg)
			continue
		}
		name, isFlag := strings.CutPrefix(arg, "--")
		name, _, joined := strings.Cut(name, "=")
		f := known[name]
		switch {
		case !isFlag || name == "":
			l.fault(fmt.Errorf("unexpected argument %q", arg))
		case f == nil:
			l.fault(fmt.Errorf("unknown flag --%s", name))
			if !joined && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++ // what looks like its value
			}
		case f.IsBool() || joined:
			out = append(out, arg)
		case i+1 < len(args):
			// Joined, so that a value may begin with a dash.
			out = append(out, arg+"="+args[i+1])
			i++
		default:
			l.fault(fmt.Errorf("--%s: a value is missing", name))
		}
	}
	return out
}

// gather collects each setting from the source that wins.
func (l *loader) gather(node *kong.Node, s Sources, configFile *string) {
	path := ""
	if v, ok := s.LookupEnv(EnvPrefix + "CONFIG"); ok {
		path = v
	}
	if configFile != nil {
		path = *configFile
	}
	if path != "" {
		l.gatherFile(node, s, path)
	}
	for _, f := range node.Flags {
		if f.Name == "help" || f.Name == "version" || f.Name == "config" {
			continue
		}
		env := EnvPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := s.LookupEnv(env); ok && v != "" {
			l.values[f.Name] = value{text: v, source: env}
		}
		switch given := f.Target; {
		case given.Kind() == reflect.Bool && f.Set:
			l.values[f.Name] = value{text: strconv.FormatBool(given.Bool()), source: "--" + f.Name}
		case given.Kind() == reflect.Pointer && !given.IsNil():
			l.values[f.Name] = value{text: given.Elem().String(), source: "--" + f.Name}
		}
	}
}

// gatherFile reads the YAML file: one mapping, of the names of flags to scalars or lists of them.
func (l *loader) gatherFile(node *kong.Node, s Sources, path string) {
	text, err := s.ReadFile(path)
	if err != nil {
		l.fault(fmt.Errorf("--config: %w", err))
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		l.fault(fmt.Errorf("%s: %w", path, err))
		return
	}
	if len(doc.Content) == 0 {
		return
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		l.fault(fmt.Errorf("%s:%d: settings must be a mapping", path, root.Line))
		return
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, val := root.Content[i], root.Content[i+1]
		source := fmt.Sprintf("%s:%d: %s", path, key.Line, key.Value)
		known := slices.ContainsFunc(node.Flags, func(f *kong.Flag) bool {
			return f.Name == key.Value && f.Name != "help" && f.Name != "version" && f.Name != "config"
		})
		_, repeated := l.values[key.Value]
		text, err := scalar(val)
		switch {
		case !known:
			l.fault(fmt.Errorf("%s: unknown setting", source))
		case repeated:
			l.fault(fmt.Errorf("%s: set twice", source))
		case err != nil:
			l.fault(fmt.Errorf("%s: %w", source, err))
		default:
			l.values[key.Value] = value{text: text, source: source}
		}
	}
}

// scalar returns the text of a YAML scalar, or of a list of them with commas.
func scalar(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		return n.Value, nil
	case n.Kind == yaml.SequenceNode:
		var parts []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return "", errors.New("a list must hold plain values")
			}
			parts = append(parts, item.Value)
		}
		return strings.Join(parts, ","), nil
	default:
		return "", errors.New("a plain value or a list of them is needed")
	}
}

// apply puts the values gathered into the configuration.
func (l *loader) apply() {
	c := l.cfg
	l.text("name", &c.Name)
	l.text("http-addr", &c.HTTPAddr)
	l.text("grpc-addr", &c.GRPCAddr)
	l.text("admin-addr", &c.AdminAddr)
	l.text("context-key-file", &c.ContextKeyFile)
	l.text("access-file", &c.AccessFile)
	l.text("tls-cert", &c.TLS.Cert)
	l.text("tls-key", &c.TLS.Key)
	l.text("tls-ca", &c.TLS.CA)
	l.text("log-level", &c.LogLevel)
	l.text("log-format", &c.LogFormat)
	l.text("log-keys", &c.LogKeys)
	l.text("trace-endpoint", &c.TraceEndpoint)
	l.set("storage-nodes", func(s string) error { c.StorageNodes = list(s); return nil })
	l.set("conflict-policies", func(s string) (err error) { c.ConflictPolicies, err = coordinator.ParsePolicies(list(s)); return err })
	l.set("cors-origins", func(s string) error { c.CORSOrigins = list(s); return nil })
	l.set("read-quorum", func(s string) error { return setQuorum(&c.ReadQuorum, s) })
	l.set("write-quorum", func(s string) error { return setQuorum(&c.WriteQuorum, s) })
	l.duration("drain-delay", &c.DrainDelay)
	l.duration("slow-after", &c.SlowAfter)
	l.number("streams-per-node", &c.StreamsPerNode)
	l.number("key-limit", &c.KeyLimit)
	l.set("max-value-bytes", func(s string) error {
		n, err := parseSize(s)
		c.MaxValueBytes = int(min(n, math.MaxInt32))
		return err
	})
	l.set("memory-limit", func(s string) error {
		n, err := parseSize(s)
		c.MemoryLimit = n
		return err
	})
	l.set("trace-sample", func(s string) error {
		share, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("%q is no number from 0 to 1", s)
		}
		c.TraceSample = share
		return nil
	})
	l.set("insecure", func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is not true or false", s)
		}
		c.Insecure = b
		return nil
	})
}

func (l *loader) text(name string, to *string) {
	l.set(name, func(s string) error { *to = s; return nil })
}

func (l *loader) number(name string, to *int) {
	l.set(name, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is no number", s)
		}
		*to = n
		return nil
	})
}

func (l *loader) duration(name string, to *time.Duration) {
	l.set(name, func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is no duration such as 5s", s)
		}
		*to = d
		return nil
	})
}

func (l *loader) set(name string, set func(string) error) {
	v, ok := l.values[name]
	if !ok {
		return
	}
	before := *l.cfg
	if err := set(v.text); err != nil {
		*l.cfg = before
		l.fault(fmt.Errorf("%s: %w", v.source, err))
	}
}

// list splits at commas; spaces around the parts and empty parts are dropped.
func list(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func setQuorum(to *coordinator.Quorum, s string) error {
	q, err := coordinator.ParseQuorum(s)
	if err != nil || q == coordinator.Default {
		return fmt.Errorf("%q is not one, quorum, all or a number of replicas", s)
	}
	*to = q
	return nil
}

// parseSize reads a number of bytes with an optional unit of powers of 1024 (KiB, MiB, GiB) or 1000 (kB, MB, GB).
func parseSize(s string) (int64, error) {
	units := []struct {
		suffix string
		bytes  int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("%q is no size such as 512KiB or 1MiB", s)
}
