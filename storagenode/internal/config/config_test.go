package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/storagenode/kv"
)

func env(m map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var required = []string{"--name", "n1", "--data-dir", "/tmp/x"}

func load(t *testing.T, m map[string]string, args ...string) Settings {
	t.Helper()
	s, err := Load(append(slices.Clone(required), args...), env(m), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaults(t *testing.T) {
	s := load(t, nil)
	n := s.Node
	if n.GRPCAddr != "127.0.0.1:7101" || n.GossipAddr != "127.0.0.1:7201" || n.AdminAddr != "127.0.0.1:7301" {
		t.Errorf("addresses %s %s %s", n.GRPCAddr, n.GossipAddr, n.AdminAddr)
	}
	if n.Label != "dotring" || n.Replicas != 3 || n.MinWrite != 2 || n.JoinWait != 5*time.Second || n.Weight != 1 ||
		n.Engine != "leveldb" || n.Sync != kv.SyncAlways || n.Insecure || s.LogLevel != zerolog.InfoLevel || s.MemoryLimit != 0 {
		t.Errorf("defaults %+v", s)
	}
}

func TestPrecedence(t *testing.T) {
	path := file(t, "zone: from-file\nweight: 3\nreplicas: 5\njoin: [127.0.0.1:1, 127.0.0.1:2]\nlog_level: warn\ninsecure: true\n")
	s := load(t, map[string]string{"DOTRING_ZONE": "from-env", "DOTRING_WEIGHT": "2", "DOTRING_CONFIG": path}, "--zone", "from-flag")
	if s.Node.Zone != "from-flag" {
		t.Errorf("zone %q, flags must win", s.Node.Zone)
	}
	if s.Node.Weight != 2 {
		t.Errorf("weight %v, the environment must win over the file", s.Node.Weight)
	}
	if s.Node.Replicas != 5 || s.LogLevel != zerolog.WarnLevel || !s.Node.Insecure {
		t.Errorf("the file was not used: %+v", s)
	}
	if !slices.Equal(s.Node.Join, []string{"127.0.0.1:1", "127.0.0.1:2"}) {
		t.Errorf("join %q", s.Node.Join)
	}
}

func TestValues(t *testing.T) {
	s := load(t, nil, "--join", "127.0.0.1:1, 127.0.0.1:2,", "--sync", "none", "--memory-limit", "512MiB", "--compaction-rate=4MiB",
		"--grpc-addr", "0.0.0.0:1", "--advertise-grpc-addr", "10.0.0.1:1", "--insecure", "--log-format", "console", "--gossip-interval", "250ms")
	if !slices.Equal(s.Node.Join, []string{"127.0.0.1:1", "127.0.0.1:2"}) || s.Node.Sync != kv.SyncNone || s.MemoryLimit != 512<<20 ||
		s.Node.CompactionRate != 4<<20 || s.Node.AdvertiseGRPC != "10.0.0.1:1" || !s.Node.Insecure || s.LogFormat != "console" ||
		s.Node.GossipInterval != 250*time.Millisecond {
		t.Errorf("values %+v", s)
	}
	if s := load(t, nil, "--replicas", "1"); s.Node.MinWrite != 1 {
		t.Errorf("min-write %d with one replica", s.Node.MinWrite)
	}
}

// Each case must be refused, and the message must name every one of its faults.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		args, faults []string
		env          map[string]string
		file         string
	}{
		"nothing":        {args: []string{}, faults: []string{"name:", "data-dir:"}},
		"unknown flag":   {args: []string{"--fool"}, faults: []string{"unknown flag --fool"}},
		"half of TLS":    {args: append(slices.Clone(required), "--tls-cert", "x"), faults: []string{"--tls-ca belong together"}},
		"stray argument": {args: []string{"extra"}, faults: []string{"unexpected argument extra"}},
		"many": {
			args: append(slices.Clone(required), "--replicas", "many", "--weight=-1", "--engine", "paper", "--join-wait", "soon", "--join", "nowhere"),
			env:  map[string]string{"DOTRING_SYNC": "perhaps", "DOTRING_LOG_LEVEL": "loud"},
			file: "gossip-interval: 1ms\nmemory-limit: lots\n",
			faults: []string{`replicas: "many" (from --replicas)`, "weight: -1", `engine: "paper"`, `join-wait: "soon"`, `join: "nowhere"`,
				`sync: "perhaps" (from DOTRING_SYNC)`, `log-level: "loud"`, "gossip-interval: 1ms", `memory-limit: "lots"`},
		},
		"numbers": {
			args:   append(slices.Clone(required), "--replicas", "17", "--weight", "17", "--compaction-rate", "1000", "--scrub-rate", "1000", "--transfer-rate", "1000", "--scrub-interval", "1ms", "--insecure=perhaps"),
			faults: []string{"replicas: 17", "weight: 17", "compaction-rate: 1000", "scrub-rate: 1000", "transfer-rate: 1000", "scrub-interval: 1ms", "insecure:"},
		},
		"min-write above replicas": {args: append(slices.Clone(required), "--replicas", "2", "--min-write", "3"), faults: []string{"min-write: 3"}},
		"min-write zero":           {args: append(slices.Clone(required), "--min-write", "0"), faults: []string{"min-write: 0"}},
		"open to all": {
			args:   append(slices.Clone(required), "--grpc-addr", ":7101", "--gossip-addr", "0.0.0.0:7201", "--admin-addr", "10.0.0.1:7301"),
			faults: []string{"grpc-addr: :7101 is not a loopback", "advertise-grpc-addr: must", "gossip-addr: 0.0.0.0:7201 is not", "advertise-gossip-addr: must", "admin-addr: 10.0.0.1:7301 is not"},
		},
		"addresses": {
			args:   append(slices.Clone(required), "--grpc-addr", "127.0.0.1", "--gossip-addr", "127.0.0.1:high", "--advertise-admin-addr", "0.0.0.0:1"),
			faults: []string{"grpc-addr: \"127.0.0.1\" is not host:port", "gossip-addr: \"127.0.0.1:high\" has no valid port", "advertise-admin-addr: 0.0.0.0:1 names no host"},
		},
		"no collector":   {args: append(slices.Clone(required), "--trace-endpoint", "collector:4317"), faults: []string{`trace-endpoint: "collector:4317" is not the URL of a collector`}},
		"name and label": {args: []string{"--name", "a b", "--data-dir", "x", "--cluster", ""}, faults: []string{`name: "a b"`, `cluster: ""`}},
		"unknown fields": {args: required, file: "zone: a\nzoom: b\nconfig: c\nTLS: {}\n", faults: []string{`unknown field "zoom"`, `unknown field "config"`, `unknown field "TLS"`}},
		"nested value":   {args: required, file: "zone: {a: b}\n", faults: []string{"zone: must be a plain value"}},
		"no such file":   {args: append(slices.Clone(required), "--config", "/nonexistent/x.yaml"), faults: []string{"config:"}},
		"no yaml":        {args: required, file: "{", faults: []string{"config:"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := slices.Clone(c.args)
			if c.file != "" {
				args = append(args, "--config", file(t, c.file))
			}
			_, err := Load(args, env(c.env), &bytes.Buffer{})
			if err == nil {
				t.Fatal("accepted")
			}
			for _, f := range c.faults {
				if !strings.Contains(err.Error(), f) {
					t.Errorf("%q is not named in:\n%v", f, err)
				}
			}
			if got := strings.Count(err.Error(), "\n") + 1; got > len(c.faults)+1 {
				t.Errorf("%d lines for %d faults:\n%v", got, len(c.faults), err)
			}
		})
	}
}

// A flag that is parsed and then used by nothing would be a promise that nobody keeps.
func TestEveryFlagIsUsed(t *testing.T) {
	values := map[string]string{
		"name": "other", "cluster": "other", "data-dir": "/other", "grpc-addr": "127.0.0.1:1", "advertise-grpc-addr": "127.0.0.1:2",
		"gossip-addr": "127.0.0.1:3", "advertise-gossip-addr": "127.0.0.1:4", "admin-addr": "127.0.0.1:5", "advertise-admin-addr": "127.0.0.1:6",
		"join": "127.0.0.1:7", "join-wait": "7s", "zone": "z", "weight": "2", "engine": "memory", "sync": "interval", "commit-gather": "1ms", "compaction-rate": "8MiB",
		"scrub-interval": "1h", "scrub-rate": "1MiB", "transfer-rate": "1MiB",
		"gossip-interval": "2s", "gossip-key-file": "k", "replicas": "5", "min-write": "3", "trace-endpoint": "http://c:1", "insecure": "true", "log-level": "warn",
		"log-format": "console", "memory-limit": "1GiB", "hint-bytes-max": "1GiB", "hint-age-max": "1h", "tombstone-grace": "1h", "anti-entropy-interval": "2s", "dead-after": "1h", "standby": "true",
		"tls-cert": "other", "tls-key": "other", "tls-ca": "other",
	}
	environment := env(map[string]string{"DOTRING_NAME": "n1", "DOTRING_DATA_DIR": "/tmp/x", "DOTRING_TLS_CERT": "c", "DOTRING_TLS_KEY": "k", "DOTRING_TLS_CA": "a"})
	base, err := Load(nil, environment, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	var f flags
	for _, field := range fieldsOf(&f) {
		if field.name == "config" {
			continue
		}
		value, ok := values[field.name]
		if !ok {
			t.Errorf("--%s: add it above", field.name)
			continue
		}
		s, err := Load([]string{"--" + field.name + "=" + value}, environment, &bytes.Buffer{})
		if err != nil {
			t.Errorf("%s: %v", field.name, err)
			continue
		}
		if reflect.DeepEqual(s, base) {
			t.Errorf("--%s=%s changes nothing", field.name, value)
		}
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if _, err := Load([]string{"--help"}, env(nil), &out); !errors.Is(err, ErrHelp) {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "--gossip-addr") {
		t.Errorf("help:\n%s", out.String())
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "17": 17, "17B": 17, "2KiB": 2048, "3MiB": 3 << 20, "4GiB": 4 << 30, "5TiB": 5 << 40} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%s is %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "1.5GiB", "1GB", "KiB", "99999999999999999999", "9999999999TiB", " 1"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
}
