package enginetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dotring/dotring/storagenode/engine"
)

// testModel runs random histories on the engine and on the plainest twin, a Go map sorted when listed. Each history
// starts by deleting what the one before left.
func testModel(t *testing.T, b *bench) {
	key := rapid.StringMatching(`[ab]{0,3}`)
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{b: b, twin: map[string]string{}}
		m.clear(rt)
		defer m.release()
		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(rt *rapid.T) {
				var batch engine.Batch
				for range rapid.IntRange(0, 4).Draw(rt, "records") {
					k := key.Draw(rt, "key")
					if rapid.Bool().Draw(rt, "delete") {
						batch.Delete([]byte(k))
						delete(m.twin, k)
					} else {
						v := rapid.StringN(0, 3, 8).Draw(rt, "value")
						batch.Put([]byte(k), []byte(v))
						m.twin[k] = v
					}
				}
				if err := b.Apply(&batch, rapid.Bool().Draw(rt, "sync")); err != nil {
					rt.Fatal(err)
				}
			},
			"get": func(rt *rapid.T) {
				k := key.Draw(rt, "key")
				got, err := b.Get([]byte(k), nil)
				want, ok := m.twin[k]
				if ok != (err == nil) || !ok && !errors.Is(err, engine.ErrNotFound) || string(got) != want {
					rt.Fatalf("get %q: %q, %v; want %q, %v", k, got, err, want, ok)
				}
			},
			"snapshot": func(rt *rapid.T) {
				m.release()
				s, err := b.Snapshot()
				if err != nil {
					rt.Fatal(err)
				}
				m.snap, m.frozen = s, maps.Clone(m.twin)
			},
			"list": func(rt *rapid.T) {
				from, to := bound(rt, key, "from"), bound(rt, key, "to")
				same(rt, b, m.twin, from, to)
				if m.snap != nil {
					same(rt, m.snap, m.frozen, from, to)
				}
			},
			"reopen": func(rt *rapid.T) {
				if rapid.IntRange(0, 9).Draw(rt, "really") > 0 {
					rt.Skip("seldom enough to stay fast")
				}
				m.release()
				b.reopen()
			},
		})
	})
}

type model struct {
	b      *bench
	twin   map[string]string
	snap   engine.Snapshot
	frozen map[string]string
}

func (m *model) release() {
	if m.snap != nil {
		m.snap.Release()
		m.snap = nil
	}
}

func (m *model) clear(rt *rapid.T) {
	var batch engine.Batch
	err := m.b.Iterate(nil, nil, func(k, v []byte) (bool, error) { batch.Delete(k); return true, nil })
	if err := errors.Join(err, m.b.Apply(&batch, false)); err != nil {
		rt.Fatal(err)
	}
}

// bound draws a bound of an iteration, nil included.
func bound(rt *rapid.T, key *rapid.Generator[string], label string) []byte {
	if rapid.IntRange(0, 3).Draw(rt, label+" is open") == 0 {
		return nil
	}
	return []byte(key.Draw(rt, label))
}

// same compares an iteration with the sorted twin.
func same(rt *rapid.T, r engine.Reader, twin map[string]string, from, to []byte) {
	var want, got []string
	for _, k := range slices.Sorted(maps.Keys(twin)) {
		if (from == nil || k >= string(from)) && (to == nil || k < string(to)) {
			want = append(want, fmt.Sprintf("%q=%q", k, twin[k]))
		}
	}
	err := r.Iterate(from, to, func(k, v []byte) (bool, error) {
		got = append(got, fmt.Sprintf("%q=%q", k, v))
		return true, nil
	})
	if err != nil || !slices.Equal(got, want) {
		rt.Fatalf("iterate [%q, %q): %s, %v; want %s", from, to, strings.Join(got, " "), err, strings.Join(want, " "))
	}
}
