package e2e

import (
	"bytes"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/chaos"
	"github.com/dotring/dotring/loadtest/history"
)

// A few faults break no promise; a byte that is wrong on one replica's disk in the end does.
func TestChaos(t *testing.T) {
	for name, tc := range map[string]struct {
		length  time.Duration
		corrupt bool
	}{"faults": {16 * time.Second, false}, "a corrupted replica": {time.Second, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kinds, err := chaos.ParseKinds("kill,pause,split")
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			res, err := chaos.Run(t.Context(), chaos.Config{Bin: binDir, Data: t.TempDir(), Out: &out, Nodes: 4, Gateways: 2, Seed: 1,
				Length: tc.length, Kinds: kinds, Clients: 8, Rate: 100, Corrupt: tc.corrupt, Plain: tc.corrupt})
			if err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			t.Logf("without: %q\n%s", res.Without, &out)
			switch {
			case tc.corrupt && (len(res.Violations) == 0 || res.Violations[0].Promise != history.Convergent && res.Violations[0].Promise != history.Undamaged):
				t.Errorf("the corrupted replica is not noticed: %v", res.Violations)
			case !tc.corrupt && (len(res.Violations) > 0 || res.Faults == 0 || res.Acked < 100):
				t.Errorf("%d faults, %d writes acknowledged, broken: %v", res.Faults, res.Acked, res.Violations)
			}
		})
	}
}
