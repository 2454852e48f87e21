package config

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/ringsvc/mtls"
)

func load(args []string, env map[string]string, file string) (Config, error) {
	return Load(Sources{Args: args, Hostname: "host", Stdout: &bytes.Buffer{},
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		ReadFile: func(name string) ([]byte, error) {
			if name != "gateway.yaml" {
				return nil, fs.ErrNotExist
			}
			return []byte(file), nil
		}})
}

var nodes = []string{"--storage-nodes", "127.0.0.1:7101"}

func with(args ...string) []string { return append(append([]string(nil), nodes...), args...) }

func TestDefaults(t *testing.T) {
	got, err := load(nodes, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name, want.StorageNodes = "host", []string{"127.0.0.1:7101"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if want.HTTPAddr != "127.0.0.1:8080" || want.GRPCAddr != "127.0.0.1:9080" || want.AdminAddr != "127.0.0.1:9180" ||
		want.ReadQuorum != 2 || want.WriteQuorum != 2 || want.DrainDelay != 5*time.Second || want.MaxValueBytes != 1<<20 {
		t.Errorf("%+v", want)
	}
}

func TestEverySetting(t *testing.T) {
	want := Config{Name: "gw", HTTPAddr: "0.0.0.0:1", GRPCAddr: ":2", AdminAddr: "[::1]:3", StorageNodes: []string{"a:1", "b:2"},
		ReadQuorum: coordinator.All, WriteQuorum: coordinator.Majority, ContextKeyFile: "keys", CORSOrigins: []string{"https://x.org"},
		DrainDelay: 250 * time.Millisecond, StreamsPerNode: 4, MaxValueBytes: 512 << 10, Insecure: true, LogLevel: "debug",
		LogFormat: "console", KeyLimit: 5000, SlowAfter: 20 * time.Millisecond, LogKeys: "plain", TraceEndpoint: "https://c:1", TraceSample: 0.5, MemoryLimit: 2 << 30, AccessFile: "rules", TLS: mtls.Files{Cert: "c", Key: "k", CA: "a"}}
	args := []string{"--name=gw", "--http-addr", "0.0.0.0:1", "--grpc-addr=:2", "--admin-addr", "[::1]:3", "--storage-nodes", "a:1, b:2",
		"--read-quorum", "all", "--write-quorum", "quorum", "--context-key-file", "keys", "--cors-origins", "https://x.org",
		"--drain-delay", "250ms", "--streams-per-node", "4", "--max-value-bytes", "512KiB", "--insecure", "--log-level", "debug",
		"--log-format", "console", "--key-limit", "5000", "--slow-after", "20ms", "--log-keys", "plain", "--trace-endpoint", "https://c:1", "--trace-sample", "0.5", "--memory-limit", "2GiB",
		"--access-file", "rules", "--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"}
	file := `
access-file: rules
tls-cert: c
tls-key: k
tls-ca: a
name: gw
http-addr: 0.0.0.0:1
grpc-addr: ":2"
admin-addr: "[::1]:3"
storage-nodes: [a:1, b:2]
read-quorum: all
write-quorum: quorum
context-key-file: keys
cors-origins:
  - https://x.org
drain-delay: 250ms
streams-per-node: 4
max-value-bytes: 524288
insecure: true
log-level: debug
log-format: console
key-limit: 5000
slow-after: 20ms
log-keys: plain
trace-endpoint: https://c:1
trace-sample: 0.5
memory-limit: 2147483648
`
	env := map[string]string{"DOTRING_NAME": "gw", "DOTRING_HTTP_ADDR": "0.0.0.0:1", "DOTRING_GRPC_ADDR": ":2", "DOTRING_ADMIN_ADDR": "[::1]:3",
		"DOTRING_STORAGE_NODES": "a:1,b:2", "DOTRING_READ_QUORUM": "all", "DOTRING_WRITE_QUORUM": "quorum", "DOTRING_CONTEXT_KEY_FILE": "keys",
		"DOTRING_CORS_ORIGINS": "https://x.org", "DOTRING_DRAIN_DELAY": "250ms", "DOTRING_STREAMS_PER_NODE": "4", "DOTRING_MAX_VALUE_BYTES": "512KiB",
		"DOTRING_INSECURE": "true", "DOTRING_LOG_LEVEL": "debug", "DOTRING_LOG_FORMAT": "console", "DOTRING_KEY_LIMIT": "5000", "DOTRING_SLOW_AFTER": "20ms", "DOTRING_LOG_KEYS": "plain", "DOTRING_TRACE_ENDPOINT": "https://c:1", "DOTRING_TRACE_SAMPLE": "0.5", "DOTRING_MEMORY_LIMIT": "2GiB",
		"DOTRING_ACCESS_FILE": "rules", "DOTRING_TLS_CERT": "c", "DOTRING_TLS_KEY": "k", "DOTRING_TLS_CA": "a"}
	for name, c := range map[string]func() (Config, error){
		"flags":       func() (Config, error) { return load(args, nil, "") },
		"environment": func() (Config, error) { return load(nil, env, "") },
		"file":        func() (Config, error) { return load([]string{"--config", "gateway.yaml"}, nil, file) },
		"file named by the environment": func() (Config, error) {
			return load(nil, map[string]string{"DOTRING_CONFIG": "gateway.yaml"}, file)
		},
	} {
		if got, err := c(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n%+v, want\n%+v", name, err, got, want)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := "storage-nodes: file:1\nhttp-addr: 127.0.0.1:1\ngrpc-addr: 127.0.0.1:1\nadmin-addr: 127.0.0.1:1\ninsecure: true\n"
	env := map[string]string{"DOTRING_GRPC_ADDR": "127.0.0.1:2", "DOTRING_ADMIN_ADDR": "127.0.0.1:2", "DOTRING_INSECURE": "false"}
	got, err := load([]string{"--config=gateway.yaml", "--admin-addr", "127.0.0.1:3"}, env, file)
	if err != nil || got.HTTPAddr != "127.0.0.1:1" || got.GRPCAddr != "127.0.0.1:2" || got.AdminAddr != "127.0.0.1:3" || got.Insecure {
		t.Errorf("%+v %v", got, err)
	}
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		env    map[string]string
		file   string
		faults []string
	}{
		"nothing":                {nil, nil, "", []string{"--storage-nodes: at least one"}},
		"unknown flag":           {with("--tls-cart", "x"), nil, "", []string{"unknown flag --tls-cart"}},
		"half of TLS":            {with("--tls-cert", "x"), nil, "", []string{"--tls-ca belong together"}},
		"TLS without rules":      {with("--tls-cert=c", "--tls-key=k", "--tls-ca=a", "--http-addr=0.0.0.0:1"), nil, "", []string{"--http-addr: 0.0.0.0:1 is reached by other machines: give --access-file"}},
		"argument":               {with("serve"), nil, "", []string{`unexpected argument "serve"`}},
		"no value":               {with("--http-addr"), nil, "", []string{"--http-addr: a value is missing"}},
		"another machine":        {with("--http-addr", "192.0.2.1:80"), nil, "", []string{"--http-addr: 192.0.2.1:80 is reached by other machines"}},
		"all interfaces":         {with("--grpc-addr", ":80"), nil, "", []string{"--grpc-addr: :80 is reached by other machines"}},
		"a name":                 {with("--admin-addr", "gw.example:80"), nil, "", []string{"--admin-addr: gw.example:80 is reached"}},
		"no port":                {with("--http-addr", "127.0.0.1"), nil, "", []string{`--http-addr: "127.0.0.1" is not host:port`}},
		"high port":              {with("--http-addr", "127.0.0.1:70000"), nil, "", []string{"--http-addr"}},
		"node without port":      {[]string{"--storage-nodes", "a,b:1,:2,c:0"}, nil, "", []string{`"a" is not host:port`, `":2" is not`, `"c:0" is not`}},
		"quorums":                {with("--read-quorum", "0", "--write-quorum", "most"), nil, "", []string{`--read-quorum: "0"`, `--write-quorum: "most"`}},
		"empty quorum":           {with("--read-quorum="), nil, "", []string{`--read-quorum: ""`}},
		"duration":               {with("--drain-delay", "5"), nil, "", []string{`--drain-delay: "5" is no duration`}},
		"long drain":             {with("--drain-delay", "1h"), nil, "", []string{"--drain-delay: 1h0m0s is not within"}},
		"streams":                {with("--streams-per-node", "17"), nil, "", []string{"--streams-per-node: 17 is not within"}},
		"no number":              {with("--streams-per-node", "many"), nil, "", []string{`--streams-per-node: "many" is no number`}},
		"value size":             {with("--max-value-bytes", "3MiB"), nil, "", []string{"--max-value-bytes: 3145728 is not within"}},
		"huge size":              {with("--max-value-bytes", "99999999999GiB"), nil, "", []string{"--max-value-bytes"}},
		"no size":                {with("--max-value-bytes", "1 MiBs"), nil, "", []string{"is no size"}},
		"memory":                 {with("--memory-limit", "1KiB"), nil, "", []string{"--memory-limit: 1024 is below"}},
		"log":                    {with("--log-level", "loud", "--log-format", "xml"), nil, "", []string{`"loud"`, `"xml"`}},
		"slow requests":          {with("--slow-after", "-1s", "--log-keys", "md5"), nil, "", []string{"--slow-after: -1s is negative", `--log-keys: "md5" is not hash or plain`}},
		"no collector":           {with("--trace-endpoint", "127.0.0.1:4317", "--trace-sample", "often"), nil, "", []string{`--trace-endpoint: "127.0.0.1:4317" is not the URL of a collector`, `--trace-sample: "often" is no number`}},
		"no port of a collector": {with("--trace-endpoint", "http://collector", "--trace-sample", "1.5"), nil, "", []string{`--trace-endpoint: "http://collector" has no port`, "--trace-sample: 1.5 is not within 0 to 1"}},
		"key limit":              {with("--key-limit", "-1"), nil, "", []string{"--key-limit: -1 is not within"}},
		"origin":                 {with("--cors-origins", "https://a.org/,*"), nil, "", []string{`"https://a.org/" is not an origin`}},
		"name":                   {with("--name", "a\nb"), nil, "", []string{"--name"}},
		"environment":            {nodes, map[string]string{"DOTRING_INSECURE": "maybe", "DOTRING_DRAIN_DELAY": "x"}, "", []string{`DOTRING_INSECURE: "maybe"`, `DOTRING_DRAIN_DELAY: "x"`}},
		"no such file":           {with("--config", "other.yaml"), nil, "", []string{"--config: file does not exist"}},
		"unknown settings":       {with("--config", "gateway.yaml"), nil, "htp-addr: x\ntls-cart: y\nhelp: true\n", []string{"gateway.yaml:1: htp-addr: unknown", "gateway.yaml:2: tls-cart: unknown", "gateway.yaml:3: help: unknown"}},
		"setting twice":          {with("--config", "gateway.yaml"), nil, "name: a\nname: b\n", []string{"gateway.yaml:2: name: set twice"}},
		"nested setting":         {with("--config", "gateway.yaml"), nil, "name: {a: b}\nhttp-addr:\nstorage-nodes: [[a]]\n", []string{"gateway.yaml:1: name", "gateway.yaml:2: http-addr", "gateway.yaml:3: storage-nodes"}},
		"file that is a list":    {with("--config", "gateway.yaml"), nil, "- a\n", []string{"must be a mapping"}},
		"file that is no YAML":   {with("--config", "gateway.yaml"), nil, "a: [", []string{"gateway.yaml"}},
		"bad value in the file":  {with("--config", "gateway.yaml"), nil, "drain-delay: soon\n", []string{`gateway.yaml:1: drain-delay: "soon"`}},
		"faults of every source": {[]string{"--bogus", "--drain-delay=x", "--config=gateway.yaml"}, map[string]string{"DOTRING_READ_QUORUM": "y"}, "write-quorum: z\nbad: 1\n", []string{"--bogus", `--drain-delay: "x"`, "DOTRING_READ_QUORUM", "write-quorum", "bad: unknown", "--storage-nodes"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(c.args, c.env, c.file)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, f := range c.faults {
				if !strings.Contains(err.Error(), f) {
					t.Errorf("%q lacks %q", err, f)
				}
			}
			if lines := strings.Count(err.Error(), "\n") + 1; lines != len(c.faults) {
				t.Errorf("%d faults, want %d:\n%v", lines, len(c.faults), err)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	out := &bytes.Buffer{}
	s := Sources{Args: []string{"--help"}, Stdout: out, LookupEnv: func(string) (string, bool) { return "", false }}
	if _, err := Load(s); !errors.Is(err, ErrHelp) || !strings.Contains(out.String(), "--context-key-file") {
		t.Errorf("%v %s", err, out)
	}
	s.Args = []string{"--version"}
	if _, err := Load(s); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

func TestContextKeys(t *testing.T) {
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{0xfb}, 33)
	for name, c := range map[string]struct {
		text string
		keys int
		err  string
	}{
		"hex":            {hex.EncodeToString(one) + "\n", 1, ""},
		"base64":         {base64.StdEncoding.EncodeToString(two), 1, ""},
		"raw URL base64": {base64.RawURLEncoding.EncodeToString(append(two, 1)), 1, ""},
		"two":            {"# first signs\n" + hex.EncodeToString(one) + "\r\n\n" + base64.StdEncoding.EncodeToString(two) + "\n", 2, ""},
		"none":           {"# nothing\n", 0, "no key"},
		"three":          {strings.Join([]string{hex.EncodeToString(one), hex.EncodeToString(two), hex.EncodeToString(one[:20])}, "\n"), 0, "at most two"},
		"short":          {"00ff", 0, "it needs 16"},
		"garbage":        {hex.EncodeToString(one) + "\nsecret key!\n???", 0, "line 2: it is neither hex nor base64\nline 3"},
	} {
		ring, err := ParseContextKeys([]byte(c.text))
		if c.err == "" && (err != nil || len(ring.Fingerprints()) != c.keys) {
			t.Errorf("%s: %v", name, err)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
