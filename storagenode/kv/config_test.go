package kv

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dotring/dotring/storagenode/engine/memory"
)

func TestMetricsAreGivenBack(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 {
		s := open(t, memory.NewStore().Open, func(c *Config) { c.Registerer = reg })
		mustMint(t, s, write("k", "v"))
		if _, err := tryOpen(memory.NewStore().Open, func(c *Config) { c.Registerer = reg }); err == nil {
			t.Fatal("two stores on one registerer")
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range families {
			if f.GetName() == "dotring_kv_mints_total" {
				for _, m := range f.GetMetric() {
					found = found || m.GetLabel()[0].GetValue() == "done" && m.GetCounter().GetValue() == 1
				}
			}
		}
		if !found {
			t.Fatal("the mint was not counted")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := Open(Config{Sync: 7})
	if err == nil {
		t.Fatal("an empty configuration was taken")
	}
	for _, word := range []string{"Open", "Sync", "BatchMaxItems", "QueueMaxItems", "RequestIDTTL", "ReopenMaxDelay", "CheckEvery", "Rand", "Now"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not named in %q", word, err)
		}
	}
	for _, m := range []SyncMode{SyncAlways, SyncInterval, SyncNone} {
		if got, err := ParseSyncMode(m.String()); got != m || err != nil {
			t.Errorf("%v: %v %v", m, got, err)
		}
	}
	if _, err := ParseSyncMode("sometimes"); err == nil {
		t.Error("an unknown mode was taken")
	}
}
