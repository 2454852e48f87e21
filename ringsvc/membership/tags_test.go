package membership

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"github.com/dotring/dotring/ringsvc/membership/memtransport"
	"github.com/dotring/dotring/ringsvc/ring"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func encodeKey(fill byte, size int) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, size))
}

func TestTagsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fill := func(b []byte, name string) {
			copy(b, rapid.SliceOfN(rapid.Byte(), len(b), len(b)).Draw(t, name))
		}
		text := rapid.StringN(0, 40, 60)
		want := Member{
			GRPCAddr: text.Draw(t, "grpc"), AdminAddr: text.Draw(t, "admin"), Zone: text.Draw(t, "zone"),
			Weight: rapid.Float64Range(0, math.MaxFloat64).Draw(t, "weight"),
		}
		fill(want.ID[:], "id")
		fill(want.Cluster[:], "cluster")
		fill(want.Actor[:], "actor")
		for _, m := range []*Mark{&want.Newest, &want.Acked, &want.Synced} {
			m.Epoch = rapid.Uint64().Draw(t, "epoch")
			fill(m.Hash[:], "hash")
		}
		tags, err := encodeTags(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeTags(tags)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("%+v became %+v", want, got)
		}
	})
}

func TestTagsGolden(t *testing.T) {
	full := local(5)
	full.Zone = "zone-a"
	tests := []struct {
		name   string
		member Member
	}{
		{"full", full},
		{"zero", Member{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tags, err := encodeTags(test.member)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(tags, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "tags-"+test.name+".json")
			if *update {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != strings.TrimSpace(string(want)) {
				t.Errorf("tags %s, want %s", got, want)
			}
			var stored map[string]string
			if err := json.Unmarshal(want, &stored); err != nil {
				t.Fatal(err)
			}
			stored["unknown"] = "of a later version"
			if back, err := decodeTags(stored); err != nil || back != test.member {
				t.Errorf("read back %+v, %v", back, err)
			}
		})
	}
}

func TestBadTags(t *testing.T) {
	id := encoding.EncodeToString(make([]byte, 16))
	tests := map[string]map[string]string{
		"no tags":           {},
		"foreign":           {"role": "web"},
		"short id":          {tagID: id[1:]},
		"long id":           {tagID: id + "A"},
		"padded id":         {tagID: id + "=="},
		"bad letters":       {tagID: strings.Repeat("!", 22)},
		"stray bits":        {tagID: id[:21] + "B"},
		"bad actor":         {tagID: id, tagActor: "x"},
		"empty mark":        {tagID: id, tagNewest: ""},
		"bad mark":          {tagID: id, tagSynced: id + "AA"},
		"weight no number":  {tagID: id, tagWeight: "heavy"},
		"weight infinite":   {tagID: id, tagWeight: "+Inf"},
		"weight NaN":        {tagID: id, tagWeight: "NaN"},
		"weight negative":   {tagID: id, tagWeight: "-1"},
		"weight overflows":  {tagID: id, tagWeight: "1e999"},
		"weight empty":      {tagID: id, tagWeight: ""},
		"line break in tag": {tagID: id[:10] + "\n" + id[11:]},
	}
	for name, tags := range tests {
		t.Run(name, func(t *testing.T) {
			if m, err := decodeTags(tags); !errors.Is(err, ErrTags) || m != (Member{}) {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
	for _, w := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, err := encodeTags(Member{Weight: w}); !errors.Is(err, ErrTags) {
			t.Errorf("weight %v: %v", w, err)
		}
	}
}

func FuzzDecodeTags(f *testing.F) {
	for _, m := range []Member{{}, local(1), local(300)} {
		tags, err := encodeTags(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(tags[tagID], tags[tagCluster], tags[tagActor], tags[tagNewest], tags[tagWeight], tags[tagZone])
	}
	f.Add("", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, id, cluster, actor, newest, weight, zone string) {
		m, err := decodeTags(map[string]string{
			tagID: id, tagCluster: cluster, tagActor: actor, tagNewest: newest, tagWeight: weight, tagZone: zone,
		})
		if err != nil {
			if !errors.Is(err, ErrTags) {
				t.Fatal(err)
			}
			return
		}
		tags, err := encodeTags(m)
		if errors.Is(err, ErrTagsTooLarge) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeTags(tags); err != nil || back != m {
			t.Fatalf("%+v became %+v, %v", m, back, err)
		}
	})
}

// TestTagsSize takes the limit from serf itself: what is counted as 512 bytes it takes, one more it refuses.
func TestTagsSize(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		m := local(0)
		tags, err := encodeTags(m)
		if err != nil {
			t.Fatal(err)
		}
		if size := encodedSize(tags); size > 300 {
			t.Errorf("usual tags take %d bytes", size)
		}
		m.Zone = strings.Repeat("z", 100)
		for {
			if tags, err = encodeTags(m); err != nil {
				t.Fatal(err)
			}
			if encodedSize(tags) == maxTags {
				break
			}
			m.Zone += "z"
		}
		cfg := config(t, n, 0)
		cfg.Local = m
		c := open(t, cfg)
		before := c.Members()
		long := func(m *Member) { m.Zone += "z" }
		err = c.SetLocal(long)
		if !errors.Is(err, ErrTagsTooLarge) || !strings.Contains(err.Error(), "513 bytes") {
			t.Errorf("SetLocal: %v", err)
		}
		if got := c.Members(); len(got) != 1 || got[0] != before[0] {
			t.Errorf("a refused change shows: %+v", got)
		}
		other := config(t, n, 1)
		other.Local = m
		long(&other.Local)
		if _, err = New(other); !errors.Is(err, ErrTagsTooLarge) || !strings.Contains(err.Error(), "513 bytes") {
			t.Errorf("New: %v", err)
		}

		tags[tagZone] += "z"
		conf := serf.DefaultConfig()
		conf.NodeName, conf.Tags, conf.LogOutput = "judge", tags, io.Discard
		conf.MemberlistConfig.Logger = log.New(io.Discard, "", 0)
		conf.MemberlistConfig.Transport = other.Transport
		if s, err := serf.Create(conf); err == nil {
			t.Error("serf itself takes more than that")
			if err := s.Shutdown(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "a b", "node_1", "nöde", "a/b", "a:1", "tab\t", strings.Repeat("x", 129)} {
		_, err := New(Config{Name: name, BindAddr: "127.0.0.1:0"})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("node name %q", name)) {
			t.Errorf("%q: %v", name, err)
		}
	}
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		for i, name := range []string{"a", "Node-7.zone-b.example.org", strings.Repeat("x", 128)} {
			cfg := config(t, n, i)
			cfg.Name = name
			if got := open(t, cfg).Members(); len(got) != 1 || got[0].Name != name {
				t.Errorf("%+v", got)
			}
		}
	})
}

func TestBadAddresses(t *testing.T) {
	for _, cfg := range []Config{
		{BindAddr: "127.0.0.1"},
		{BindAddr: ""},
		{BindAddr: "127.0.0.1:http-of-nobody"},
		{BindAddr: "127.0.0.1:0", AdvertiseAddr: "127.0.0.1:7201"},
		{BindAddr: "127.0.0.1:1", AdvertiseAddr: ":7201"},
		{BindAddr: "127.0.0.1:1", AdvertiseAddr: "0.0.0.0:7201"},
		{BindAddr: "127.0.0.1:1", AdvertiseAddr: "127.0.0.1:0"},
		{BindAddr: "127.0.0.1:1", AdvertiseAddr: "127.0.0.1"},
	} {
		cfg.Name = "node"
		if c, err := New(cfg); err == nil {
			t.Errorf("%q, %q is accepted", cfg.BindAddr, cfg.AdvertiseAddr)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestKeyFile(t *testing.T) {
	long := encodeKey(7, 32)
	tests := []struct {
		name, text, want string // want: part of the error, empty for none
	}{
		{"three sizes", `["` + encodeKey(1, 16) + `", "` + encodeKey(2, 24) + `", "` + long + `"]`, ""},
		{"same key twice", `["` + long + `", "` + long + `"]`, ""},
		{"empty", ``, "not a JSON array"},
		{"no array", `"` + long + `"`, "not a JSON array"},
		{"numbers", `[1, 2]`, "not a JSON array"},
		{"no key", `[]`, "holds no key"},
		{"null", `null`, "holds no key"},
		{"no base64", `["` + long + `", "!!"]`, "key 2"},
		{"wrong size", `["` + encodeKey(1, 17) + `"]`, "key 1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			keys, err := readKeys(path)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := base64.StdEncoding.EncodeToString(keys[0]); !strings.HasPrefix(test.text, `["`+got) {
					t.Error("the first key is not the primary one")
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), long) {
				t.Error("the error tells a key")
			}
		})
	}
	if _, err := readKeys(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestLogs(t *testing.T) {
	tests := []struct{ line, want string }{
		{"[DEBUG] memberlist: chatter\n", ""},
		{"[TRACE] memberlist: more\n", ""},
		{"[INFO] serf: EventMemberJoin: a 10.0.0.1\n", `{"level":"info","text":"serf: EventMemberJoin: a 10.0.0.1","message":"gossip"}`},
		{"[WARN] serf: careful\n", `{"level":"warn","text":"serf: careful","message":"gossip"}`},
		{"[ERR] memberlist: bad\n", `{"level":"error","text":"memberlist: bad","message":"gossip"}`},
		{"[ERROR] serf: bad\n", `{"level":"error","text":"serf: bad","message":"gossip"}`},
		{"[ODD] serf: x\n", `{"level":"info","text":"serf: x","message":"gossip"}`},
		{"plain\n", `{"level":"info","text":"plain","message":"gossip"}`},
		{"[no end\n", `{"level":"info","text":"[no end","message":"gossip"}`},
		{"", `{"level":"info","text":"","message":"gossip"}`},
	}
	for _, test := range tests {
		var out bytes.Buffer
		w := &logWriter{log: zerolog.New(&out)}
		if n, err := w.Write([]byte(test.line)); n != len(test.line) || err != nil {
			t.Errorf("%q: %d, %v", test.line, n, err)
		}
		if got := strings.TrimSpace(out.String()); got != test.want {
			t.Errorf("%q: %s, want %s", test.line, got, test.want)
		}
	}
	w := &logWriter{log: zerolog.New(io.Discard)}
	if allocs := testing.AllocsPerRun(100, func() { _, _ = w.Write([]byte("[DEBUG] memberlist: chatter\n")) }); allocs > 1 {
		t.Errorf("%v allocations for a dropped line", allocs)
	}
	var out bytes.Buffer
	w = &logWriter{log: zerolog.New(&out).Level(zerolog.ErrorLevel)}
	if _, err := w.Write([]byte("[WARN] serf: x\n")); err != nil || out.Len() > 0 {
		t.Errorf("below the level of the logger: %q, %v", out.String(), err)
	}
}

// TestForeignMember has a serf agent of another kind join: it is left out, and told once.
func TestForeignMember(t *testing.T) {
	bubble(t, func(t *testing.T, n *memtransport.Network) {
		out := &bytes.Buffer{}
		cfg := config(t, n, 0)
		cfg.Logger = zerolog.New(zerolog.SyncWriter(out)).Level(zerolog.WarnLevel)
		c := open(t, cfg)
		tr, err := n.Listen(address(1))
		if err != nil {
			t.Fatal(err)
		}
		conf := serf.DefaultConfig()
		conf.NodeName, conf.LogOutput = "stranger", io.Discard
		conf.MemberlistConfig.Transport = memberlist.Transport(tr)
		conf.MemberlistConfig.Logger = log.New(io.Discard, "", 0)
		s, err := serf.Create(conf)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Shutdown(); err != nil {
				t.Error(err)
			}
		}()
		if _, err := s.Join([]string{address(0)}, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for range 3 {
			if got := c.Members(); len(got) != 1 || got[0].Name != "node-0" {
				t.Fatalf("%+v", got)
			}
		}
		if got := strings.Count(out.String(), `"peer":"stranger"`); got != 1 {
			t.Errorf("told %d times: %s", got, out)
		}
	})
}

func TestMarkOf(t *testing.T) {
	id := ring.LayoutID{Epoch: 7, Hash: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}}
	if got := MarkOf(id); got != (Mark{Epoch: 7, Hash: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}) {
		t.Errorf("%+v", got)
	}
}

func TestStatusString(t *testing.T) {
	for s, want := range map[Status]string{0: "unknown", Alive: "alive", Failed: "failed", Left: "left", Leaving: "leaving"} {
		if s.String() != want {
			t.Errorf("%d is %q", s, s)
		}
	}
}
