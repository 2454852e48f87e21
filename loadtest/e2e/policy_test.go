package e2e

import (
	"net/http"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// Two writers who saw the same make two siblings; where the last write wins, the later replaces the earlier, and a writer
// who saw neither replaces it too.
func TestConflictPolicies(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1, GatewayArgs: []string{"--conflict-policies", "last/=lww,last/not/=siblings"}})
	cl := newClient(t, c.Gateways[0])
	for key, shown := range map[string]int{"k": 2, "last/k": 1, "last/not/k": 2} {
		seen := cl.want(t, http.StatusNotFound, "GET", key, "", nil).context
		cl.want(t, http.StatusOK, "PUT", key, "", []byte("one"), "Kv-Context", seen)
		mine := cl.want(t, http.StatusOK, "PUT", key, "w=3", []byte("two"), "Kv-Context", seen)
		if got := mine.write(t).Siblings; got != shown {
			t.Errorf("%s: the second put answers %d siblings, want %d", key, got, shown)
		}
		a := cl.must(t, "GET", key, "", nil, "Kv-Context", mine.context)
		values, err := a.values()
		if err != nil || len(values) != shown {
			t.Errorf("%s shows %q, %v; want %d values", key, values, err, shown)
		}
		if shown == 1 && string(values[0]) != "two" {
			t.Errorf("%s shows %q, want the last write", key, values[0])
		}
	}
}
