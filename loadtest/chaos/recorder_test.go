package chaos

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

const testKey = "chaos1-0-0"

func testRecorder(t *testing.T) *recorder {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "context.key")
	if err := os.WriteFile(key, []byte(hex.EncodeToString(bytes.Repeat([]byte{7}, 32))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := newRecorder(filepath.Join(dir, "history.jsonl"), key, strings.Repeat("ab", 16))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *recorder) token(t *testing.T, c causal.Context) string {
	t.Helper()
	s, err := r.keyring.EncodeToken(r.cluster, []byte(testKey), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sibling(d causal.Dot, value string) causal.Sibling {
	return causal.Sibling{Dot: d, Value: []byte(value), Checksum: record.Checksum([]byte(value))}
}

// What a client is told of its writes and reads is judged as the simulator's is; each fault of an answer or of a replica
// is noticed as the promise it breaks.
func TestRecorderJudges(t *testing.T) {
	dot := func(n uint64) causal.Dot { return causal.Dot{Actor: causal.Actor{1}, Counter: n} }
	one, two := sibling(dot(1), "one"), sibling(dot(2), "two")
	both := causal.Set{Clock: causal.Vector(nil).With(dot(1)).With(dot(2)), Siblings: []causal.Sibling{two}}
	raw := record.Append(nil, []byte(testKey), both)
	damaged := bytes.Clone(raw)
	damaged[len(damaged)/2] ^= 4
	for name, tc := range map[string]struct {
		acked bool // or in doubt
		shown []causal.Sibling
		disk  []byte
		want  history.Promise
	}{
		"all is well":                     {true, []causal.Sibling{two}, raw, 0},
		"what was in doubt shows":         {false, []causal.Sibling{two}, raw, 0},
		"the read shows the older":        {true, []causal.Sibling{one}, raw, history.Faithful},
		"the read invents":                {true, []causal.Sibling{sibling(dot(9), "nobody's")}, raw, history.Faithful},
		"a replica is damaged":            {true, []causal.Sibling{two}, damaged, history.Undamaged},
		"a replica has lost it":           {true, []causal.Sibling{two}, nil, history.Convergent},
		"the dot names another value now": {true, []causal.Sibling{sibling(dot(2), "too")}, raw, history.UniqueDots},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRecorder(t)
			first, wipes := r.begin(0, testKey, one.Value, history.Known{}, "")
			seen, err := r.acked(0, first, r.token(t, causal.Context{Dots: []causal.Dot{one.Dot}}), 2, 0, wipes)
			if err != nil {
				t.Fatal(err)
			}
			second, wipes := r.begin(0, testKey, two.Value, seen, "")
			if tc.acked {
				if _, err := r.acked(0, second, r.token(t, causal.Context{Dots: []causal.Dot{two.Dot}}), 2, 0, wipes); err != nil {
					t.Fatal(err)
				}
			} else {
				r.failed(0, second, history.InDoubt, "")
			}
			if _, err := r.read(0, testKey, r.reading(testKey, nil), r.token(t, causal.Context{Vector: both.Clock}), tc.shown); err != nil {
				t.Fatal(err)
			}
			r.final(testKey, []history.Replica{{Name: "a", Record: raw}, {Name: "b", Record: tc.disk}})
			v := r.check.Violations()
			noticed := slices.ContainsFunc(v, func(v history.Violation) bool { return v.Promise == tc.want })
			if tc.want == 0 && len(v) > 0 || tc.want != 0 && !noticed {
				t.Errorf("broken: %v, want %v among them", v, tc.want)
			}
			if err := r.close(); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(r.file.Name()); err != nil || bytes.Count(text, []byte("\n")) != 5 {
				t.Errorf("the history has other than 5 lines: %v\n%s", err, text)
			}
		})
	}
}

// A write that two machines hold is looked for after one disk is lost, and no more after both.
func TestRecorderDiskLost(t *testing.T) {
	one := sibling(causal.Dot{Actor: causal.Actor{1}, Counter: 1}, "one")
	for losses, want := range map[int]int{1: 1, 2: 0} {
		r := testRecorder(t)
		w, wipes := r.begin(0, testKey, one.Value, history.Known{}, "")
		if _, err := r.acked(0, w, r.token(t, causal.Context{Dots: []causal.Dot{one.Dot}}), 2, 0, wipes); err != nil {
			t.Fatal(err)
		}
		for range losses {
			r.diskLost()
		}
		r.final(testKey, []history.Replica{{Name: "a"}})
		if got := len(r.check.Violations()); got != want {
			t.Errorf("after %d losses %d promises are broken, want %d: %v", losses, got, want, r.check.Violations())
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}
}
