package chaos

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// sets is the account of a run in which clients share sets: a value is a set's elements, one a line. Who adds one reads
// the key, unites all siblings, and writes the union and the new element with the context of what was read. So nothing
// that was acknowledged is ever lost, if siblings and contexts keep what they promise. Safe for concurrent use.
type sets struct {
	mu    sync.Mutex
	acked map[string][]string // elements by key
}

// lwwPrefix begins the keys of sets that are to be kept by the last write.
const lwwPrefix = "lww"

// add does one round of a client.
func (s *sets) add(ctx context.Context, c *client, key string) {
	a, took, ok := c.asked(ctx, http.MethodGet, key, nil)
	if !ok {
		return
	}
	values, err := valuesOf(a)
	if err != nil {
		c.rec.broken(fmt.Sprintf("get of %s: %v", key, err))
		return
	}
	c.tally.served(took)
	c.writes++
	element := fmt.Sprintf("%d.%d", c.id, c.writes)
	elements := append(union(values), element)
	a, took, ok = c.asked(ctx, http.MethodPut, key, []byte(strings.Join(elements, "\n")), "Kv-Context", a.header.Get("Kv-Context"),
		"Kv-Request-Id", c.keys.prefix+"-"+element)
	if !ok {
		return // it may have been added or not
	}
	c.tally.served(took)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[key] = append(s.acked[key], element)
}

// union returns the elements of all values, each once, in order.
func union(values map[string][]byte) []string {
	var out []string
	for _, v := range values {
		if len(v) > 0 {
			out = append(out, strings.Split(string(v), "\n")...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// count reads every set of all replicas, and counts the elements that were acknowledged and those of them that are gone.
func (s *sets) count(ctx context.Context, c *client) (added, lost int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, elements := range s.acked {
		a, err := c.send(ctx, http.MethodGet, key, "?r=all&timeout=5s", nil)
		if err != nil {
			return 0, 0, err
		}
		if a.status != http.StatusOK && a.status != http.StatusMultipleChoices {
			return 0, 0, fmt.Errorf("get of %s: %d %s", key, a.status, a.body)
		}
		values, err := valuesOf(a)
		if err != nil {
			return 0, 0, err
		}
		there := union(values)
		for _, e := range elements {
			added++
			if _, found := slices.BinarySearch(there, e); !found {
				lost++
			}
		}
	}
	return added, lost, nil
}

// judgeSets waits as judge does, and counts what is left of the sets.
func (w *world) judgeSets(ctx context.Context, res *Result) error {
	if err := w.converge(ctx); err != nil {
		w.rec.broken("after healing: " + err.Error())
	}
	w.tally.mark("the cluster's sync point is reached: no hint is left, and no difference")
	var err error
	if res.Added, res.Lost, err = w.sets.count(ctx, w.clients()[0]); err != nil {
		return err
	}
	if res.Lost > 0 && !w.cfg.LastWriteWins {
		w.rec.broken(fmt.Sprintf("%d of %d elements that were acknowledged are gone", res.Lost, res.Added))
	}
	res.Acked, res.Keys = res.Added, len(w.sets.acked)
	res.Violations = w.rec.check.Violations()
	return nil
}

// asked sends a request that should succeed, and notes where it does not.
func (c *client) asked(ctx context.Context, method, key string, body []byte, headers ...string) (answer, time.Duration, bool) {
	began := time.Now()
	a, err := c.send(ctx, method, key, "", body, headers...)
	took := time.Since(began)
	if err == nil && (a.status == http.StatusOK || method == http.MethodGet && (a.status == http.StatusMultipleChoices || a.status == http.StatusNotFound)) {
		return a, took, true
	}
	why, detail, _ := describe(a, err)
	op := strings.ToLower(method)
	c.tally.failed(op, why, detail, took)
	c.rec.note(op+" failed", key+": "+why+": "+detail)
	return a, took, false
}
